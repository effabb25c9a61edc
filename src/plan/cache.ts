import type { Program } from './program.ts';

/**
 * Programs kept compiled, by what they were compiled for; the least recently used one is destroyed when there
 * are too many.
 */
export class ProgramCache {
  readonly #size: number;
  readonly #programs = new Map<string, Promise<Program>>();

  /** `size`: programs kept. */
  constructor(size: number) {
    this.#size = size;
  }

  /**
   * The program of that key, compiled by `build` where it is not there; calls that come while it is being
   * compiled wait for it.
   */
  get(key: string, build: () => Promise<Program>): Promise<Program> {
    const program = this.#programs.get(key) ?? build();
    this.#programs.delete(key);
    this.#programs.set(key, program);
    program.catch(() => this.#programs.delete(key));
    if (this.#programs.size > this.#size) {
      const [oldest, evicted] = this.#programs.entries().next().value!;
      this.#programs.delete(oldest);
      void evicted.then(
        (p) => p.destroy(),
        () => undefined,
      );
    }
    return program;
  }

  destroy(): void {
    for (const program of this.#programs.values())
      void program.then(
        (p) => p.destroy(),
        () => undefined,
      );
    this.#programs.clear();
  }
}
