import { checkArguments, checkOptions, type Rules } from '../check.ts';
import { SCALES } from './config.ts';
import { apart } from '../numbers.ts';
import { rivalName } from './rivals.ts';
import type { MGFConfig, Objectives, Scale } from './config.ts';
import type { Rivals } from './rivals.ts';

/** What an alarm is about; docs/training.md explains each. */
export type AlarmKind =
  | 'non-finite'
  | 'loss-scale'
  | 'collapsed-context'
  | 'leak'
  | 'low-rank-z'
  | 'low-rank-context'
  | 'channel-shortcut'
  | AboveRival;

/** A loss of a scale that is no better than an answer without listening. */
export type AboveRival = `${Scale}-above-rival`;

/** Something wrong with a training run, seen in its numbers. */
export interface Alarm {
  kind: AlarmKind;
  /** One or two sentences for the user: what is seen, what it means, what to try. */
  message: string;
  step: number;
}

/** What a training step shows. Losses are unweighted; a scale that is off or not started may be absent. */
export interface StepHealth {
  step: number;
  losses: Readonly<Record<string, number | undefined>>;
  /** Phoneme accuracy in [0, 1]. */
  accuracy?: number;
  /** Global norm before clipping. */
  gradNorm?: number;
  learningRate?: number;
  /** `effectiveRank` of the two representations, on the steps where it is measured. */
  effectiveRank?: { z?: number; context?: number };
}

/** A step that was left out because its gradient was not finite. */
export interface SkippedStep {
  step: number;
  /** Weighted total loss. */
  total: number;
  gradNorm: number;
  /** With precision f16, the loss scale after the step. */
  lossScale?: number | undefined;
}

/** What a `HealthMonitor` must know of the run. */
export interface HealthOptions {
  config: Pick<MGFConfig, 'num_negatives' | 'conv_dim' | 'hidden_size' | 'loss_weights' | 'objectives'>;
  utterancesPerBatch: number;
  /** Steps of warm-up; collapse and rank are judged after it. Infinity: until `endWarmup`. */
  warmupSteps: number;
  /** What each loss is compared with after the warm-up (`measureRivals`); without them none is. */
  rivals?: Rivals | undefined;
  /** Steps that were left out in earlier sittings of the run. */
  skippedSteps?: number;
}

const OPTIONS: Rules<HealthOptions> = {
  config: 'an object',
  utterancesPerBatch: 'a number',
  warmupSteps: 'a number',
  skippedSteps: 'a number?',
  rivals: 'an object?',
};

/** A phoneme loss this near to ln(K+1), for this many steps, is a constant: real batches scatter far more. */
const COLLAPSE = { distance: 1e-3, steps: 500, gradNorm: 1e-3 };
/** A single batch may be lucky; this many in a row are not. */
const STREAK = 10;
const LEAK_ACCURACY = 0.98;
const RANK_PART = 0.1;
/**
 * Two crops share their recording's channel. A loss that falls below `part` of chance within the first `steps`
 * steps has learned the channel, not the speech.
 */
const SHORTCUT = { part: 0.05, steps: 500 };

/**
 * The mean of a loss over the last `steps` steps is compared with its rival. The comparison starts `patience`
 * steps after the warm-up; a run that ends earlier is compared at its end if it has `fewest` steps.
 */
const RIVAL = { steps: 100, patience: 500, fewest: 10 };

/** What an alarm says of a scale whose mean loss over some steps (`over` says which) is above its rival. */
export function aboveRivalMessage(
  scale: Scale,
  loss: number,
  rival: number,
  objectives: Objectives,
  over: string,
): string {
  const [own, other] = apart(loss, rival, 3);
  const name = rivalName(scale, objectives);
  const constant = 'what the median predictor scores, which gives the same answer whatever it hears';
  const who = name === 'chance' ? 'what chance scores' : constant;
  return (
    `The ${scale} loss, ${own} over ${over}, is above ${other}, ${who}: ` +
    'this scale has learned nothing yet that shows. ' +
    `Train for longer, change the learning rate, or raise loss_weights.${scale}.`
  );
}

/** Losses of a scale since the warm-up. */
interface Compared {
  seen: number;
  recent: number[];
}

/** Watches a run for the known ways in which it goes wrong; each alarm is raised once. */
export class HealthMonitor {
  readonly raised: Alarm[] = [];
  /** Steps that were left out, in all and since the last one that was not. */
  skippedSteps: number;
  skippedInARow = 0;
  readonly #options: Pick<HealthOptions, 'config' | 'utterancesPerBatch'>;
  #warmupSteps: number;
  #rivals: Rivals;
  #collapsed = 0;
  #leaking = 0;
  #shortcut = 0;
  readonly #compared = new Map<Scale, Compared>();

  constructor(options: HealthOptions) {
    checkOptions('HealthMonitor', options, OPTIONS);
    const { config, utterancesPerBatch, warmupSteps, rivals = {}, skippedSteps = 0 } = options;
    this.#options = { config, utterancesPerBatch };
    this.#warmupSteps = warmupSteps;
    this.#rivals = rivals;
    this.skippedSteps = skippedSteps;
  }

  /** From now on each loss is compared with its rival in `rivals`. */
  compareWith(rivals: Rivals): void {
    this.#rivals = rivals;
  }

  /**
   * The warm-up ends at `step`, unless it has ended before. A run by the clock does not know that step when
   * it starts.
   */
  endWarmup(step: number): void {
    this.#warmupSteps = Math.min(this.#warmupSteps, step);
  }

  /** Takes one step in; returns the alarms that it raises, mostly none. */
  observe(health: StepHealth): Alarm[] {
    const before = this.raised.length;
    this.skippedInARow = 0;
    this.#nonFinite(health);
    this.#collapse(health);
    this.#leak(health);
    this.#rank(health);
    this.#channelShortcut(health);
    this.#compare(health);
    return this.raised.slice(before);
  }

  /**
   * Takes in a step that was left out; returns the alarms that it raises. That a gradient overflows f16 now
   * and then is how its loss scale is found.
   */
  observeSkipped({ step, total, gradNorm, lossScale }: SkippedStep): Alarm[] {
    const before = this.raised.length;
    this.skippedSteps++;
    this.skippedInARow++;
    if (lossScale === undefined) {
      this.#raise(
        'non-finite',
        step,
        `At step ${step} the gradient is not finite (norm ${gradNorm}): this update is left out, as ` +
          'will be any other like it. ' +
          'If that happens often, resume from the last checkpoint with a lower learning rate.',
      );
    } else if (!Number.isFinite(total)) {
      this.#raise(
        'non-finite',
        step,
        `At step ${step} the loss is ${total}, which no loss scale mends: this update is left out, as ` +
          'will be any other like it. ' +
          'If that happens often, resume from the last checkpoint with precision f32, or with a lower ' +
          'learning rate.',
      );
    } else if (lossScale < 1) {
      this.#raise(
        'loss-scale',
        step,
        `At step ${step} the loss scale fell to ${lossScale}: gradients overflow half precision even ` +
          'unscaled. ' +
          'Resume from the last checkpoint with precision f32, or with a lower learning rate.',
      );
    }
    return this.raised.slice(before);
  }

  /**
   * At the end of a run: compares the losses with their rivals, however short it was; returns the alarms that
   * this raises. `step`: updates made.
   */
  conclude(step: number): Alarm[] {
    const before = this.raised.length;
    for (const [scale, { recent }] of this.#compared) {
      if (recent.length < RIVAL.fewest) continue;
      // Of a short run the last quarter: its first steps say little of where it ends.
      this.#judge(scale, step, recent.slice(-Math.max(RIVAL.fewest, Math.ceil(recent.length / 4))));
    }
    return this.raised.slice(before);
  }

  #compare({ step, losses }: StepHealth): void {
    const rivals = this.#rivals;
    if (step < this.#warmupSteps) return;
    for (const scale of SCALES) {
      const loss = losses[scale];
      if (rivals[scale] === undefined || loss === undefined || !Number.isFinite(loss)) continue;
      const compared = this.#compared.get(scale) ?? { seen: 0, recent: [] };
      this.#compared.set(scale, compared);
      compared.seen++;
      compared.recent.push(loss);
      if (compared.recent.length > RIVAL.steps) compared.recent.shift();
      if (compared.seen >= RIVAL.patience) this.#judge(scale, step, compared.recent);
    }
  }

  #judge(scale: Scale, step: number, recent: readonly number[]): void {
    const { config } = this.#options;
    const rival = this.#rivals[scale]!;
    const mean = recent.reduce((sum, x) => sum + x, 0) / recent.length;
    if (!(mean > rival)) return;
    const over = `the last ${recent.length} steps`;
    this.#raise(`${scale}-above-rival`, step, aboveRivalMessage(scale, mean, rival, config.objectives, over));
  }

  #raise(kind: AlarmKind, step: number, message: string): void {
    if (!this.raised.some((a) => a.kind === kind)) this.raised.push({ kind, message, step });
  }

  #nonFinite({ step, losses, gradNorm, accuracy, effectiveRank: ranks }: StepHealth): void {
    const named: [string, number | undefined][] = [
      ...Object.entries(losses).map(([name, x]): [string, number | undefined] => [`the ${name} loss`, x]),
      ['the gradient norm', gradNorm],
      ['the phoneme accuracy', accuracy],
      ['the effective rank of z', ranks?.z],
      ['the effective rank of the context', ranks?.context],
    ];
    const bad = named
      .filter(([, x]) => x !== undefined && !Number.isFinite(x))
      .map(([name, x]) => `${name} is ${x}`);
    if (bad.length === 0) return;
    this.#raise(
      'non-finite',
      step,
      `At step ${step} ${bad.join(' and ')}: the weights are no longer usable after an update like this; ` +
        'resume from the last checkpoint with a lower learning rate.',
    );
  }

  #collapse({ step, losses, gradNorm }: StepHealth): void {
    const { config } = this.#options;
    const chance = Math.log(config.num_negatives + 1);
    const stuck =
      config.objectives.phoneme === 'info_nce' &&
      step >= this.#warmupSteps &&
      losses['phoneme'] !== undefined &&
      Math.abs(losses['phoneme'] - chance) < COLLAPSE.distance;
    // The other scales have gradients of their own, so that the norm vanishes only where the phoneme scale is
    // alone.
    const alone = SCALES.every((s) => s === 'phoneme' || config.loss_weights[s] === 0);
    const vanishing = !alone || gradNorm === undefined || gradNorm < COLLAPSE.gradNorm;
    this.#collapsed = stuck && vanishing ? this.#collapsed + 1 : 0;
    if (this.#collapsed < COLLAPSE.steps) return;
    this.#raise(
      'collapsed-context',
      step,
      `The phoneme loss has stayed at chance (${chance.toFixed(3)}) for ${COLLAPSE.steps} steps: ` +
        'the context network gives the same output everywhere. Start again with a lower learning rate ' +
        'or a longer warm-up.',
    );
  }

  #leak({ step, accuracy }: StepHealth): void {
    this.#leaking = accuracy !== undefined && accuracy > LEAK_ACCURACY ? this.#leaking + 1 : 0;
    if (this.#leaking < STREAK) return;
    this.#raise(
      'leak',
      step,
      `Phoneme accuracy is ${(100 * accuracy!).toFixed(1)} %: too good to be learned, the answer leaks ` +
        'into the context. ' +
        'Look for very short masks, repeated recordings or a fixed batch.',
    );
  }

  #rank({ step, effectiveRank: ranks }: StepHealth): void {
    if (ranks === undefined || step < this.#warmupSteps) return;
    const { conv_dim, hidden_size } = this.#options.config;
    const check = (kind: AlarmKind, what: string, rank: number | undefined, width: number) => {
      if (rank === undefined || !(rank < RANK_PART * width)) return;
      this.#raise(
        kind,
        step,
        `${what} uses only ${rank.toFixed(1)} of its ${width} dimensions (effective rank under ` +
          `${100 * RANK_PART} %): ` +
          'the representation is collapsing. Keep the sample and frame losses on, or lower the learning rate.',
      );
    };
    check('low-rank-z', "The front end's output z", ranks.z, conv_dim.at(-1)!);
    check('low-rank-context', "The context network's output", ranks.context, hidden_size);
  }

  #channelShortcut({ step, losses }: StepHealth): void {
    const { config, utterancesPerBatch } = this.#options;
    if (
      config.loss_weights.sentence === 0 ||
      config.objectives.sentence !== 'nt_xent' ||
      utterancesPerBatch < 2
    )
      return;
    const chance = Math.log(2 * utterancesPerBatch - 1);
    const low =
      step < SHORTCUT.steps &&
      losses['sentence'] !== undefined &&
      losses['sentence'] < SHORTCUT.part * chance;
    this.#shortcut = low ? this.#shortcut + 1 : 0;
    if (this.#shortcut < STREAK) return;
    this.#raise(
      'channel-shortcut',
      step,
      `The sentence loss is already ${losses['sentence']!.toFixed(4)} at step ${step} (chance is ` +
        `${chance.toFixed(2)}): ` +
        'it probably tells recordings apart by their channel, not their speech. Use larger batches of ' +
        'more similar recordings, or a lower loss_weights.sentence.',
    );
  }
}

/**
 * exp of the entropy of the singular values of `matrix` [rows, cols] (row-major) after removing each column's
 * mean: about how many dimensions are in use, from 0 (all rows equal) to min(rows - 1, cols); NaN if any
 * value is not finite. Costs rows cols^2 + cols^3: a few thousand rows are enough.
 */
export function effectiveRank(matrix: Float32Array, rows: number, cols: number): number {
  checkArguments('effectiveRank', {
    matrix: [matrix, 'an array of numbers'],
    rows: [rows, 'a number'],
    cols: [cols, 'a number'],
  });
  const n = Math.min(rows, cols);
  const products = gram(matrix, rows, cols);
  let energy = 0;
  let spread = 0;
  for (const x of matrix) energy += x * x;
  for (let i = 0; i < n; i++) spread += products[i * n + i]!;
  if (!Number.isFinite(spread)) return NaN;
  // What rounding leaves of equal rows is noise, which would count as full rank.
  if (spread <= 1e-10 * energy) return 0;
  const sigma = symmetricEigenvalues(products, n).map((x) => Math.sqrt(Math.max(0, x)));
  const total = sigma.reduce((a, b) => a + b, 0);
  return Math.exp(-sigma.reduce((h, s) => (s > 0 ? h + (s / total) * Math.log(s / total) : h), 0));
}

/**
 * The smaller of X^T X and X X^T (they share their non-zero eigenvalues) of the matrix without its column
 * means.
 */
function gram(matrix: Float32Array, rows: number, cols: number): Float64Array {
  const mean = new Float64Array(cols);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) mean[c]! += matrix[r * cols + c]! / rows;
  const wide = rows < cols;
  const n = wide ? rows : cols;
  const depth = wide ? cols : rows;
  // [n, depth], so that the inner loop below runs along memory.
  const x = new Float64Array(n * depth);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) x[wide ? r * depth + c : c * depth + r] = matrix[r * cols + c]! - mean[c]!;
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let dot = 0;
      for (let k = 0; k < depth; k++) dot += x[i * depth + k]! * x[j * depth + k]!;
      out[i * n + j] = out[j * n + i] = dot;
    }
  }
  return out;
}

/**
 * Eigenvalues of a symmetric matrix [n, n], which is overwritten: Householder reduction to tridiagonal form,
 * then implicit QL (Golub and Van Loan, 8.3).
 */
export function symmetricEigenvalues(a: Float64Array, n: number): number[] {
  const d = new Float64Array(n);
  const e = new Float64Array(n);
  const p = new Float64Array(n);
  const u = new Float64Array(n);
  for (let k = 0; k < n - 1; k++) {
    d[k] = a[k * n + k]!;
    let norm2 = 0;
    for (let i = k + 1; i < n; i++) {
      u[i] = a[i * n + k]!;
      norm2 += u[i]! * u[i]!;
    }
    const alpha = u[k + 1]! > 0 ? -Math.sqrt(norm2) : Math.sqrt(norm2);
    e[k] = alpha;
    // |u|^2 / 2 for u = column - alpha e1; zero where the column is already reduced.
    const h = norm2 - alpha * u[k + 1]!;
    if (h === 0) continue;
    u[k + 1]! -= alpha;
    let dot = 0;
    for (let i = k + 1; i < n; i++) {
      let s = 0;
      for (let j = k + 1; j < n; j++) s += a[i * n + j]! * u[j]!;
      p[i] = s / h;
      dot += p[i]! * u[i]!;
    }
    for (let i = k + 1; i < n; i++) p[i]! -= (dot / (2 * h)) * u[i]!;
    for (let i = k + 1; i < n; i++)
      for (let j = k + 1; j < n; j++) a[i * n + j]! -= u[i]! * p[j]! + p[i]! * u[j]!;
  }
  if (n > 0) d[n - 1] = a[n * n - 1]!;
  for (let l = 0; l < n; l++) {
    // Three sweeps an eigenvalue are usual; NaN input would otherwise loop for ever.
    for (let sweep = 0; sweep < 60; sweep++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]!) > Number.EPSILON * (Math.abs(d[m]!) + Math.abs(d[m + 1]!))) m++;
      if (m === l) break;
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let r = Math.hypot(g, 1);
      g = d[m]! - d[l]! + e[l]! / (g + (g >= 0 ? r : -r));
      let s = 1;
      let c = 1;
      let shift = 0;
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i]!;
        const b = c * e[i]!;
        r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1]! -= shift;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1]! - shift;
        r = (d[i]! - g) * s + 2 * c * b;
        shift = s * r;
        d[i + 1] = g + shift;
        g = c * r - b;
      }
      if (r === 0 && i >= l) continue;
      d[l]! -= shift;
      e[l] = g;
      e[m] = 0;
    }
  }
  return [...d];
}
