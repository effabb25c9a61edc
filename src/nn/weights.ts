import { MGFError } from '../errors.ts';
import type { Value } from '../graph/graph.ts';

/**
 * Parameters of a network by name, seen from one module: `weights.at('encoder').get('layer_norm.weight')`.
 */
export class Weights {
  readonly #values: ReadonlyMap<string, Value>;
  readonly #prefix: string;

  constructor(values: ReadonlyMap<string, Value>, prefix = '') {
    this.#values = values;
    this.#prefix = prefix;
  }

  /** The same parameters, seen from a module below. */
  at(...path: (string | number)[]): Weights {
    return new Weights(this.#values, `${this.#prefix}${path.join('.')}.`);
  }

  /** Whether there is a parameter of this name. */
  has(name: string): boolean {
    return this.#values.has(this.#prefix + name);
  }

  /** Throws MGFError 'shape' when there is no such parameter. */
  get(name: string): Value {
    const value = this.#values.get(this.#prefix + name);
    if (!value) throw new MGFError('shape', `the network has no parameter "${this.#prefix}${name}"`);
    return value;
  }
}
