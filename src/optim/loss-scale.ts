import { checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';

/** How the scale of a `LossScaler` grows and falls. */
export interface LossScaleOptions {
  /** Scale of the first step. */
  readonly initial: number;
  /**
   * After `interval` steps in a row without an overflow the scale is multiplied by `growth`, after an
   * overflow by `backoff`. Powers of two, so that scaling is exact.
   */
  readonly growth: number;
  readonly backoff: number;
  readonly interval: number;
  /** The scale never leaves this range. */
  readonly floor: number;
  readonly ceiling: number;
}

/** PyTorch's GradScaler, in bounds. */
export const LOSS_SCALE_DEFAULTS: LossScaleOptions = {
  initial: 2 ** 16,
  growth: 2,
  backoff: 0.5,
  interval: 2000,
  floor: 2 ** -8,
  ceiling: 2 ** 24,
};
const OPTIONS: Rules<Partial<LossScaleOptions>> = {
  initial: 'a number?',
  growth: 'a number?',
  backoff: 'a number?',
  interval: 'a number?',
  floor: 'a number?',
  ceiling: 'a number?',
};

/** The part of a `LossScaler` that a checkpoint carries; JSON keeps its numbers exactly. */
export interface LossScaleState {
  scale: number;
  /** The scale without the outcome of the last step. */
  before: number;
  /** Steps in a row without an overflow. */
  good: number;
}

/**
 * Dynamic loss scaling (Micikevicius et al. 2018, arXiv 1710.03740, as PyTorch's GradScaler does it): the
 * loss is multiplied by a number as large as the gradients' operands bear in f16, so that small ones do not
 * vanish; a step that overflows is left out and lowers it. One step may be in flight while the next is
 * issued. So that scales do not depend on when results arrive, the scale of a step follows from the outcomes
 * of all steps but the one before it, whether that is known or not.
 */
export class LossScaler {
  readonly #options: LossScaleOptions;
  /** Steps whose outcome is known. */
  #settled: number;
  #scale: number;
  #before: number;
  #good: number;

  /**
   * `step`: the first step to come, 0 in a new run. `state`: what `state()` gave before that step.
   * @throws MGFError `checkpoint` for a state that is none
   */
  constructor(
    at: { readonly step: number; readonly state?: LossScaleState | undefined; readonly origin?: string },
    options: Partial<LossScaleOptions> = {},
  ) {
    checkOptions('LossScaler', at, { step: 'a number', state: 'an object?', origin: 'a text?' });
    checkOptions('LossScaler', options, OPTIONS);
    this.#options = { ...LOSS_SCALE_DEFAULTS, ...options };
    const { scale, before, good } = at.state ?? {
      scale: this.#options.initial,
      before: this.#options.initial,
      good: 0,
    };
    if (
      ![scale, before].every((x) => Number.isFinite(x) && x > 0) ||
      !(Number.isInteger(good) && good >= 0)
    ) {
      throw new MGFError(
        'checkpoint',
        `${at.origin ?? 'The state'} cannot be resumed: its loss scale is damaged.`,
      );
    }
    this.#settled = at.step;
    this.#scale = scale;
    this.#before = before;
    this.#good = good;
  }

  /**
   * The scale of a step, which must be the next one or, with one in flight, the one after it. Throws MGFError
   * `usage` for any other.
   */
  at(step: number): number {
    if (step === this.#settled) return this.#before;
    if (step === this.#settled + 1) return this.#scale;
    throw new MGFError(
      'usage',
      `the loss scale of step ${step} is not known while the outcome of step ${this.#settled} is not`,
    );
  }

  /**
   * Takes in the outcome of the next step, which was made with the scale `used`: whether its gradient
   * overflowed. Returns the scale that follows.
   */
  observe(used: number, overflowed: boolean): number {
    const { growth, backoff, interval, floor, ceiling } = this.#options;
    this.#settled++;
    this.#before = this.#scale;
    this.#good = overflowed ? 0 : this.#good + 1;
    // A step issued before the last change says nothing against the scale that holds by now.
    if (overflowed) this.#scale = Math.max(floor, Math.min(this.#scale, backoff * used));
    else if (this.#good === interval) {
      this.#good = 0;
      this.#scale = Math.min(ceiling, growth * this.#scale);
    }
    return this.#scale;
  }

  /** What a checkpoint keeps; give it to the constructor to go on. */
  state(): LossScaleState {
    return { scale: this.#scale, before: this.#before, good: this.#good };
  }
}
