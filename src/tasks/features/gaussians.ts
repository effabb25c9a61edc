/**
 * Gaussians with one covariance for all classes: linear discriminant analysis, of which everything is in
 * closed form.
 */
import type { FeatureMatrix } from './features.ts';
import { rowReader } from './batches.ts';

/** Added to the diagonal of the covariance, as a share of its mean: features may depend on each other. */
const RIDGE = 1e-3;
/** Rows that the scatter of all is taken of at most; it has some 18,000 numbers at 192 columns. */
const SCATTER_ROWS = 60_000;

/**
 * Classes as Gaussians N(mean_k, S) over rows of features, each row less the mean of its group: what a voice
 * and its channel add to all their frames tells nothing of phones. The scatter within classes is the scatter
 * of all rows less that of the class means, so that it is computed once, however often labels change.
 */
export class SharedGaussians {
  readonly classes: number;
  readonly #width: number;
  /** Reads a row, less the mean of its group. */
  readonly #read: (row: number, out: Float64Array) => void;
  readonly #rows: number;
  /** [width, width], the lower triangle; over all rows, whose mean is 0. */
  readonly #total: Float64Array;
  /**
   * [classes, width] and [classes]: the log-likelihood of a row, but for what all classes share, is weight .
   * row + bias.
   */
  readonly #weight: Float64Array;
  readonly #bias: Float64Array;

  /** `groups`: of each row, [rows], counted from 0. */
  constructor(matrix: FeatureMatrix, groups: Int32Array, classes: number) {
    const { width: D } = matrix;
    const rows = groups.length;
    const stride = Math.max(1, Math.ceil(rows / SCATTER_ROWS));
    const x = new Float64Array(D);
    const read = rowReader(matrix);
    const counts = new Float64Array(1 + groups.reduce((a, b) => Math.max(a, b), 0));
    const means = new Float64Array(counts.length * D);
    for (const g of groups) counts[g]!++;
    for (let r = 0; r < rows; r++) {
      read(r, x);
      for (let i = 0, at = groups[r]! * D; i < D; i++, at++) means[at]! += x[i]! / counts[groups[r]!]!;
    }
    [this.classes, this.#width, this.#rows] = [classes, D, rows];
    this.#read = (row, out) => {
      read(row, out);
      for (let i = 0, at = groups[row]! * D; i < D; i++, at++) out[i]! -= means[at]!;
    };
    [this.#total, this.#weight, this.#bias] = [
      new Float64Array(D * D),
      new Float64Array(classes * D),
      new Float64Array(classes),
    ];
    const taken = Math.ceil(rows / stride);
    for (let r = 0; r < rows; r += stride) {
      this.#read(r, x);
      for (let i = 0; i < D; i++)
        for (let j = 0; j <= i; j++) this.#total[i * D + j]! += (x[i]! * x[j]!) / taken;
    }
  }

  /**
   * Means and covariance from a class for each row, [rows]; -1: belongs to none. A class without rows gets no
   * row again.
   */
  fit(labels: Int32Array): void {
    const { classes: K } = this;
    const D = this.#width;
    const means = new Float64Array(K * D);
    const counts = new Float64Array(K);
    const x = new Float64Array(D);
    let labelled = 0;
    for (let r = 0; r < this.#rows; r++) {
      const k = labels[r]!;
      if (k < 0) continue;
      this.#read(r, x);
      counts[k]!++;
      labelled++;
      for (let i = 0; i < D; i++) means[k * D + i]! += x[i]!;
    }
    const within = this.#total.slice();
    for (let k = 0; k < K; k++) {
      if (counts[k] === 0) continue;
      const share = counts[k]! / labelled;
      const m = means.subarray(k * D, (k + 1) * D);
      for (let i = 0; i < D; i++) m[i]! /= counts[k]!;
      for (let i = 0; i < D; i++) for (let j = 0; j <= i; j++) within[i * D + j]! -= share * m[i]! * m[j]!;
    }
    let trace = 0;
    for (let i = 0; i < D; i++) trace += this.#total[i * D + i]! / D;
    for (let i = 0; i < D; i++) within[i * D + i]! += RIDGE * trace;
    const lower = cholesky(within, D);
    for (let k = 0; k < K; k++) {
      const m = means.subarray(k * D, (k + 1) * D);
      const w = solve(lower, D, m);
      this.#weight.set(w, k * D);
      this.#bias[k] =
        counts[k] === 0 ? -Infinity : -0.5 * w.reduce((sum, value, i) => sum + value * m[i]!, 0);
    }
  }

  /** Log-likelihoods of `count` rows from `first` on, but for what all classes share: [count, classes]. */
  scores(first: number, count: number): Float32Array {
    const { classes: K } = this;
    const D = this.#width;
    const out = new Float32Array(count * K);
    const x = new Float64Array(D);
    const w = this.#weight;
    for (let r = 0; r < count; r++) {
      this.#read(first + r, x);
      for (let k = 0, at = 0; k < K; k++) {
        let sum = this.#bias[k]!;
        for (let i = 0; i < D; i++, at++) sum += w[at]! * x[i]!;
        out[r * K + k] = sum;
      }
    }
    return out;
  }
}

/** L of the positive definite matrix L L^T, of which the lower triangle is given: [n, n]. */
function cholesky(matrix: Float64Array, n: number): Float64Array {
  const lower = matrix.slice();
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = lower[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= lower[i * n + k]! * lower[j * n + k]!;
      lower[i * n + j] = i === j ? Math.sqrt(sum) : sum / lower[j * n + j]!;
    }
  }
  return lower;
}

/** x of L L^T x = b. */
function solve(lower: Float64Array, n: number, b: Float64Array): Float64Array {
  const x = b.slice();
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i]! -= lower[i * n + k]! * x[k]!;
    x[i]! /= lower[i * n + i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i]! -= lower[k * n + i]! * x[k]!;
    x[i]! /= lower[i * n + i]!;
  }
  return x;
}
