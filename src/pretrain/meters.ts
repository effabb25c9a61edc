import { MGFError } from '../errors.ts';
import { SCALES } from '../mgf/config.ts';
import type { MGFConfig, Scale } from '../mgf/config.ts';

/** What a step tells of itself; losses are unweighted. */
export interface StepValues {
  total: number;
  sample: number;
  frame: number;
  phoneme: number;
  sentence: number;
  /** Phoneme accuracy in [0, 1]. */
  accuracy: number;
  /** Global norm before clipping. */
  gradNorm: number;
  /** Losses that were brought, by name. */
  extra?: Readonly<Record<string, number>>;
}

const KEYS = ['total', ...SCALES, 'accuracy', 'gradNorm'] as const satisfies readonly Exclude<
  keyof StepValues,
  'extra'
>[];
/** Before the name of a loss that was brought. */
const EXTRA = 'extra.';

/** The part of `Meters` that a checkpoint carries; JSON keeps its numbers exactly. */
export interface MeterState {
  /** By value: sum and count of the steps that had it. */
  sums: Record<string, [sum: number, count: number]>;
  running: number;
  weight: number;
}

/** Steps over which the running mean forgets. */
const MEMORY = 50;

/**
 * The losses that count at an update (0-based): scales and those that were brought, of a weight above 0 and
 * started.
 */
export function startedLosses(
  c: Pick<MGFConfig, 'loss_weights' | 'loss_start_steps' | 'extra_losses'>,
  update: number,
): string[] {
  return [
    ...startedScales(c, update),
    ...Object.entries(c.extra_losses)
      .filter(([, { weight, start_step }]) => weight > 0 && update >= start_step)
      .map(([name]) => name),
  ];
}

/** The scales among them. */
export function startedScales(
  { loss_weights, loss_start_steps }: Pick<MGFConfig, 'loss_weights' | 'loss_start_steps'>,
  update: number,
): Scale[] {
  return SCALES.filter((s) => loss_weights[s] > 0 && update >= loss_start_steps[s]);
}

/**
 * Means over the steps since the last line of the log, and a running mean of the total loss that judges
 * checkpoints. A resumed run takes its state over, so that log and judgement do not depend on where the run
 * was interrupted.
 */
export class Meters {
  #sums: MeterState['sums'] = {};
  #running = 0;
  #weight = 0;

  /** `judge`: whether this step's total loss may be compared with later ones (every scale has started). */
  add(values: StepValues, judge: boolean): void {
    const all = [
      ...KEYS.map((key): [string, number] => [key, values[key]]),
      ...Object.entries(values.extra ?? {}).map(([name, value]): [string, number] => [EXTRA + name, value]),
    ];
    for (const [key, value] of all) {
      // A scale that is off is NaN.
      if (!Number.isFinite(value)) continue;
      const [sum, count] = this.#sums[key] ?? [0, 0];
      this.#sums[key] = [sum + value, count + 1];
    }
    if (!judge) return;
    this.#running += (values.total - this.#running) / MEMORY;
    this.#weight += (1 - this.#weight) / MEMORY;
  }

  /** Mean total loss of about the last fifty steps; undefined before the first. */
  get runningTotal(): number | undefined {
    return this.#weight > 0 ? this.#running / this.#weight : undefined;
  }

  /** Means since the last call (NaN for what no step had); undefined if no step was added. */
  flush(): StepValues | undefined {
    if (Object.keys(this.#sums).length === 0) return undefined;
    const mean = (key: string): number => {
      const [sum, count] = this.#sums[key] ?? [0, 0];
      return sum / count;
    };
    const means = Object.fromEntries(KEYS.map((key) => [key, mean(key)])) as unknown as StepValues;
    const extra = Object.fromEntries(
      Object.keys(this.#sums)
        .filter((key) => key.startsWith(EXTRA))
        .map((key) => [key.slice(EXTRA.length), mean(key)]),
    );
    this.#sums = {};
    return { ...means, extra };
  }

  state(): MeterState {
    return { sums: { ...this.#sums }, running: this.#running, weight: this.#weight };
  }

  /** Error (`checkpoint`): a state that is none. */
  restore(state: MeterState, origin: string): void {
    const numbers = [state?.running, state?.weight, ...Object.values(state?.sums ?? {}).flat()];
    if (!numbers.every((x) => typeof x === 'number'))
      throw new MGFError('checkpoint', `${origin} cannot be resumed: its running means are damaged.`);
    this.#sums = { ...state.sums };
    this.#running = state.running;
    this.#weight = state.weight;
  }
}
