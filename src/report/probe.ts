/**
 * Linear probe: how much of a label a fixed feature gives away to a linear classifier. Multinomial logistic
 * regression in float64 on the CPU, fitted to convergence by L-BFGS, its L2 penalty chosen on a held-out part
 * of the training data.
 */
import { permutation, randomStream } from '../random/stream.ts';
import type { RandomStream } from '../random/stream.ts';
import { checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { accuracy, bootstrap } from '../tasks/probe/metrics.ts';

/** Features of n recordings and the class of each. */
export interface ProbeSet {
  /** Features, row-major [n, d]. */
  x: Float32Array;
  /** Class of each row, 0 to classes - 1. [n] */
  y: Int32Array;
}

/** Features and labels of a linear probe. */
export interface LinearProbeOptions {
  train: ProbeSet;
  test: ProbeSet;
  classes: number;
  /** Penalties tried: weight of 0.5 * ||W||^2 beside the mean cross-entropy. The bias is not penalised. */
  l2grid?: readonly number[];
  /** Seeds the held-out split and the bootstrap. */
  seed?: number;
}

const OPTIONS: Rules<LinearProbeOptions> = {
  train: 'an object',
  test: 'an object',
  classes: 'a number',
  l2grid: 'a list?',
  seed: 'a number?',
};

/** How well a linear classifier did on the test rows. */
export interface LinearProbeResult {
  /** Share of test rows classified right. */
  accuracy: number;
  /** 95 % percentile interval of the accuracy over 2,000 resamplings of the test rows. */
  interval: readonly [number, number];
  /** Share right of each class's test rows; NaN for a class without one. */
  recall: number[];
  /** The penalty chosen. */
  l2: number;
  predictions: Int32Array;
}

const HELD_OUT = 0.25;
const HISTORY = 10;

/**
 * Fits a linear classifier on `train` and scores it on `test`. Features are standardised with the statistics
 * of `train`.
 */
export function linearProbe(options: LinearProbeOptions): LinearProbeResult {
  checkOptions('linearProbe', options, OPTIONS);
  const { train, test, classes, l2grid = [1e-4, 1e-3, 1e-2, 1e-1, 1], seed = 0 } = options;
  const dim = check(train, test, classes, l2grid);
  const random = randomStream(seed);
  const all = Array.from(train.y, (_, i) => i);
  const held = holdOut(train.y, classes, random);
  const kept = all.filter((i) => !held.has(i));
  let l2 = l2grid[0]!;
  if (l2grid.length > 1 && held.size > 0) {
    const fitRows = standardise(train.x, dim, kept, [kept, [...held]]);
    const [yFit, yHeld] = [kept.map((i) => train.y[i]!), [...held].map((i) => train.y[i]!)];
    let best = -1;
    // From the strongest penalty down, so that a tie keeps the simpler classifier.
    for (const penalty of [...l2grid].sort((a, b) => b - a)) {
      const weights = fit(fitRows[0]!, yFit, dim, classes, penalty);
      const right = accuracy(predict(fitRows[1]!, yHeld.length, dim, classes, weights), yHeld);
      if (right > best) [best, l2] = [right, penalty];
    }
  }
  const [trainX, testX] = standardise(train.x, dim, all, [all], test.x);
  const weights = fit(trainX!, train.y, dim, classes, l2);
  const predictions = predict(testX!, test.y.length, dim, classes, weights);
  const recall = Array.from({ length: classes }, (_, c) => {
    const rows = Array.from(test.y, (_, i) => i).filter((i) => test.y[i] === c);
    return rows.filter((i) => predictions[i] === c).length / rows.length;
  });
  const { value, interval } = bootstrap(
    test.y.length,
    (rows) => rows.reduce((right, i) => right + Number(predictions[i] === test.y[i]), 0) / rows.length,
    { seed },
  );
  return { accuracy: value, interval, recall, l2, predictions };
}

function check(train: ProbeSet, test: ProbeSet, classes: number, l2grid: readonly number[]): number {
  if (train.y.length === 0 || test.y.length === 0)
    throw new MGFError(
      'data',
      `The linear probe needs rows to train and to test on, got ${train.y.length} and ${test.y.length}.`,
    );
  const dim = train.x.length / train.y.length;
  if (!Number.isInteger(dim) || dim < 1 || test.x.length !== dim * test.y.length) {
    throw new MGFError(
      'shape',
      `The linear probe's features do not fit its labels: train ${train.x.length} numbers for ` +
        `${train.y.length} rows, ` +
        `test ${test.x.length} for ${test.y.length}.`,
    );
  }
  for (const set of [train, test]) {
    const label = set.y.find((y) => y < 0 || y >= classes);
    if (label !== undefined)
      throw new MGFError(
        'data',
        `The linear probe has ${classes} classes (0 to ${classes - 1}) but got the label ${label}.`,
      );
    if (!set.x.every(Number.isFinite))
      throw new MGFError(
        'data',
        'The linear probe got a feature that is not a finite number; the model that made it has diverged.',
      );
  }
  if (l2grid.length === 0 || !l2grid.every((l2) => l2 > 0))
    throw new MGFError('usage', `The linear probe's penalties must be positive, got [${l2grid.join(', ')}].`);
  return dim;
}

/** A quarter of each class's rows, at least one where the class has two. */
function holdOut(y: Int32Array, classes: number, random: RandomStream): Set<number> {
  const held = new Set<number>();
  for (let c = 0; c < classes; c++) {
    const rows = Array.from(y, (_, i) => i).filter((i) => y[i] === c);
    const count = rows.length < 2 ? 0 : Math.max(1, Math.floor(rows.length * HELD_OUT));
    for (const k of permutation(rows.length, random, count)) held.add(rows[k]!);
  }
  return held;
}

/**
 * Each set of rows of `x`, then all of `other`, less the mean and over the deviation of the rows `from`. A
 * constant feature becomes 0.
 */
function standardise(
  x: Float32Array,
  dim: number,
  from: number[],
  sets: number[][],
  other?: Float32Array,
): Float64Array[] {
  const mean = new Float64Array(dim);
  const square = new Float64Array(dim);
  for (const i of from) for (let j = 0; j < dim; j++) mean[j]! += x[i * dim + j]! / from.length;
  for (const i of from)
    for (let j = 0; j < dim; j++) square[j]! += (x[i * dim + j]! - mean[j]!) ** 2 / from.length;
  const scale = square.map((s, j) => (s > 1e-12 * (1 + mean[j]! ** 2) ? 1 / Math.sqrt(s) : 0));
  const pick = (data: Float32Array, rows: number[]): Float64Array => {
    const out = new Float64Array(rows.length * dim);
    rows.forEach((row, r) => {
      for (let j = 0; j < dim; j++) out[r * dim + j] = (data[row * dim + j]! - mean[j]!) * scale[j]!;
    });
    return out;
  };
  const picked = sets.map((rows) => pick(x, rows));
  if (other)
    picked.push(
      pick(
        other,
        Array.from({ length: other.length / dim }, (_, i) => i),
      ),
    );
  return picked;
}

/** Scores [n, classes] of rows `x` under weights [dim + 1, classes], whose last row is the bias. */
function scores(
  x: Float64Array,
  n: number,
  dim: number,
  classes: number,
  weights: Float64Array,
): Float64Array {
  const out = new Float64Array(n * classes);
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < classes; c++) out[i * classes + c] = weights[dim * classes + c]!;
    for (let j = 0; j < dim; j++) {
      const value = x[i * dim + j]!;
      for (let c = 0; c < classes; c++) out[i * classes + c]! += value * weights[j * classes + c]!;
    }
  }
  return out;
}

function predict(
  x: Float64Array,
  n: number,
  dim: number,
  classes: number,
  weights: Float64Array,
): Int32Array {
  const logits = scores(x, n, dim, classes, weights);
  return Int32Array.from({ length: n }, (_, i) => {
    let best = 0;
    for (let c = 1; c < classes; c++) if (logits[i * classes + c]! > logits[i * classes + best]!) best = c;
    return best;
  });
}

/** Mean cross-entropy plus penalty, its gradient written to `gradient`. */
function objective(
  x: Float64Array,
  y: ArrayLike<number>,
  dim: number,
  classes: number,
  l2: number,
  weights: Float64Array,
  gradient: Float64Array,
): number {
  const n = y.length;
  const p = scores(x, n, dim, classes, weights);
  let loss = 0;
  gradient.fill(0);
  for (let i = 0; i < n; i++) {
    const row = p.subarray(i * classes, (i + 1) * classes);
    const top = row.reduce((a, b) => Math.max(a, b), -Infinity);
    let sum = 0;
    for (let c = 0; c < classes; c++) sum += Math.exp(row[c]! - top);
    loss += (top + Math.log(sum) - row[y[i]!]!) / n;
    for (let c = 0; c < classes; c++) row[c] = (Math.exp(row[c]! - top) / sum - (c === y[i] ? 1 : 0)) / n;
    for (let j = 0; j < dim; j++) {
      const value = x[i * dim + j]!;
      for (let c = 0; c < classes; c++) gradient[j * classes + c]! += value * row[c]!;
    }
    for (let c = 0; c < classes; c++) gradient[dim * classes + c]! += row[c]!;
  }
  for (let k = 0; k < dim * classes; k++) {
    loss += 0.5 * l2 * weights[k]! ** 2;
    gradient[k]! += l2 * weights[k]!;
  }
  return loss;
}

/**
 * Weights [dim + 1, classes] that minimise the (convex) objective, by L-BFGS with a backtracking line search
 * (Nocedal and Wright, algorithm 7.5).
 */
function fit(x: Float64Array, y: ArrayLike<number>, dim: number, classes: number, l2: number): Float64Array {
  let weights = new Float64Array((dim + 1) * classes);
  let gradient = new Float64Array(weights.length);
  let loss = objective(x, y, dim, classes, l2, weights, gradient);
  const steps: Float64Array[] = [];
  const changes: Float64Array[] = [];
  for (let iteration = 0; iteration < 500 && maxAbs(gradient) > 1e-7; iteration++) {
    const direction = twoLoop(gradient, steps, changes);
    const slope = dot(direction, gradient);
    let size = steps.length > 0 ? 1 : Math.min(1, 1 / Math.sqrt(dot(gradient, gradient)));
    let next = weights;
    const nextGradient = new Float64Array(weights.length);
    let nextLoss = Infinity;
    for (; size > 1e-12; size /= 2) {
      next = weights.map((w, k) => w + size * direction[k]!);
      nextLoss = objective(x, y, dim, classes, l2, next, nextGradient);
      if (nextLoss <= loss + 1e-4 * size * slope) break;
    }
    if (!(nextLoss < loss)) break;
    const step = next.map((w, k) => w - weights[k]!);
    const change = nextGradient.map((g, k) => g - gradient[k]!);
    if (dot(step, change) > 0) {
      steps.push(step);
      changes.push(change);
      if (steps.length > HISTORY) {
        steps.shift();
        changes.shift();
      }
    }
    [weights, gradient, loss] = [next, nextGradient, nextLoss];
  }
  return weights;
}

function twoLoop(gradient: Float64Array, steps: Float64Array[], changes: Float64Array[]): Float64Array {
  const q = gradient.map((g) => -g);
  const alphas: number[] = [];
  for (let k = steps.length - 1; k >= 0; k--) {
    const alpha = dot(steps[k]!, q) / dot(steps[k]!, changes[k]!);
    alphas[k] = alpha;
    addTo(q, changes[k]!, -alpha);
  }
  const last = steps.length - 1;
  if (last >= 0) {
    const scale = dot(steps[last]!, changes[last]!) / dot(changes[last]!, changes[last]!);
    for (let i = 0; i < q.length; i++) q[i]! *= scale;
  }
  for (let k = 0; k <= last; k++)
    addTo(q, steps[k]!, alphas[k]! - dot(changes[k]!, q) / dot(steps[k]!, changes[k]!));
  return q;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function addTo(a: Float64Array, b: Float64Array, scale: number): void {
  for (let i = 0; i < a.length; i++) a[i]! += scale * b[i]!;
}

function maxAbs(a: Float64Array): number {
  return a.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
}
