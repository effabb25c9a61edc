/** Features as the batches that a head is trained and run on: standardised, gathered, padded. */
import { Purpose } from '../../random/purposes.ts';
import type { Standard } from './standard.ts';
import { permutation, stream } from '../../random/stream.ts';
import { halfToFloat } from '../../io/safetensors.ts';
import type { FeatureMatrix } from './features.ts';
import type { HeadBatch } from '../probe/head.ts';

/** f32 of every f16. */
const HALF = Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits));

/** Statistics over rows of a matrix. */
export function standardOf(matrix: FeatureMatrix, rows: ArrayLike<number>): Standard {
  const { width } = matrix;
  const mean = new Float64Array(width);
  const squares = new Float64Array(width);
  const block = 1024;
  const values = new Float32Array(block * width);
  const unit: Standard = { mean: new Float64Array(width), scale: new Float64Array(width).fill(1) };
  const walk = (visit: (value: number, column: number) => void): void => {
    for (let from = 0; from < rows.length; from += block) {
      const count = Math.min(block, rows.length - from);
      gather(
        matrix,
        unit,
        Int32Array.from({ length: count }, (_, r) => rows[from + r]!),
        values,
        0,
      );
      for (let r = 0, i = 0; r < count; r++) for (let d = 0; d < width; d++, i++) visit(values[i]!, d);
    }
  };
  walk((value, d) => {
    mean[d]! += value / rows.length;
  });
  walk((value, d) => {
    squares[d]! += (value - mean[d]!) ** 2 / rows.length;
  });
  return { mean, scale: squares.map((s, d) => (s > 1e-12 * (1 + mean[d]! ** 2) ? 1 / Math.sqrt(s) : 0)) };
}

/**
 * Rows of a matrix, standardised, to `out` from element `at` on. A function for each kind of number: one for
 * both is ten times slower.
 */
function gather(
  matrix: FeatureMatrix,
  standard: Standard,
  rows: Int32Array,
  out: Float32Array,
  at: number,
): void {
  if (matrix.data instanceof Uint16Array) gatherHalves(matrix.data, matrix.width, standard, rows, out, at);
  else gatherFloats(matrix.data, matrix.width, standard, rows, out, at);
}

function gatherHalves(
  data: Uint16Array,
  width: number,
  { mean, scale }: Standard,
  rows: Int32Array,
  out: Float32Array,
  at: number,
): void {
  for (let r = 0; r < rows.length; r++)
    for (let d = 0, i = rows[r]! * width; d < width; d++, i++, at++)
      out[at] = (HALF[data[i]!]! - mean[d]!) * scale[d]!;
}

function gatherFloats(
  data: Float32Array,
  width: number,
  { mean, scale }: Standard,
  rows: Int32Array,
  out: Float32Array,
  at: number,
): void {
  for (let r = 0; r < rows.length; r++)
    for (let d = 0, i = rows[r]! * width; d < width; d++, i++, at++)
      out[at] = (data[i]! - mean[d]!) * scale[d]!;
}

/** Reads a row of a matrix into an array of its width. */
export function rowReader({ data, width }: FeatureMatrix): (row: number, out: Float64Array) => void {
  // Two functions for the two kinds of number, as in `gather`.
  if (data instanceof Uint16Array)
    return (row, out) => {
      for (let d = 0, i = row * width; d < width; d++, i++) out[d] = HALF[data[i]!]!;
    };
  return (row, out) => {
    for (let d = 0, i = row * width; d < width; d++, i++) out[d] = data[i]!;
  };
}

/** All rows of a matrix, standardised: [rows, width]. */
export function standardised(matrix: FeatureMatrix, standard: Standard): Float32Array {
  const out = new Float32Array(matrix.data.length);
  gather(
    matrix,
    standard,
    Int32Array.from({ length: matrix.data.length / matrix.width }, (_, row) => row),
    out,
    0,
  );
  return out;
}

/** The states that a head reads, with their standards. */
export interface Inputs {
  readonly matrices: readonly FeatureMatrix[];
  readonly standards: readonly Standard[];
}

const filled = (
  { matrices, standards }: Inputs,
  capacity: number,
  runs: readonly { rows: Int32Array; at: number }[],
): Float32Array<ArrayBuffer>[] =>
  matrices.map((matrix, m) => {
    const out = new Float32Array(capacity * matrix.width);
    for (const { rows, at } of runs) gather(matrix, standards[m]!, rows, out, at * matrix.width);
    return out;
  });

/** Rows that are classified one by one: pooled recordings, or frames. */
export class RowBatches {
  readonly #inputs: Inputs;
  readonly #rows: Int32Array;
  readonly #labels: Int32Array;
  readonly #size: number;
  readonly #seed: number;
  #epoch = -1;
  #order: Uint32Array = new Uint32Array();
  #whole: HeadBatch | undefined;

  /** rows: of the matrices, [n]; labels: their classes, [n]; size: of a batch. */
  constructor(
    inputs: Inputs,
    rows: Int32Array,
    labels: Int32Array,
    options: { readonly size: number; readonly seed: number },
  ) {
    this.#inputs = inputs;
    this.#rows = rows;
    this.#labels = labels;
    this.#size = options.size;
    this.#seed = options.seed;
  }

  /** Training batches of an epoch; rows that fill no batch wait for another epoch's order. */
  get count(): number {
    return Math.max(1, Math.floor(this.#rows.length / this.#size));
  }

  training(index: number, epoch: number): HeadBatch {
    const n = this.#rows.length;
    if (n <= this.#size)
      return (this.#whole ??= this.#batch(
        Uint32Array.from({ length: n }, (_, i) => i),
        n,
      ));
    if (epoch !== this.#epoch)
      [this.#epoch, this.#order] = [
        epoch,
        permutation(n, stream(this.#seed, Purpose.HeadRowOrder, { step: epoch })),
      ];
    return this.#batch(this.#order.subarray(index * this.#size, (index + 1) * this.#size), this.#size);
  }

  /** All rows in order; `real` of each batch count, what follows is padding. */
  *all(): Generator<{ batch: HeadBatch; real: number; labels: Int32Array }> {
    const n = this.#rows.length;
    const size = Math.min(n, this.#size);
    for (let at = 0; at < n; at += size) {
      const real = Math.min(size, n - at);
      yield {
        batch: this.#batch(
          Uint32Array.from({ length: real }, (_, i) => at + i),
          size,
        ),
        real,
        labels: this.#labels.subarray(at, at + real),
      };
    }
  }

  #batch(picked: Uint32Array, size: number): HeadBatch {
    const labels = new Int32Array(size).fill(-100);
    picked.forEach((i, k) => {
      labels[k] = this.#labels[i]!;
    });
    return {
      shape: [size],
      labels: 0,
      targets: { labels },
      features: filled(this.#inputs, size, [{ rows: Int32Array.from(picked, (i) => this.#rows[i]!), at: 0 }]),
    };
  }
}

/** A recording for CTC. */
export interface Sequence {
  readonly first: number;
  readonly frames: number;
  readonly target: readonly number[];
}

/** Frames and labels are padded to multiples of these, so that batches share programs. */
const FRAME_STEP = 64;
const LABEL_STEP = 32;

/** Recordings in padded batches of similar length. */
export class SequenceBatches {
  readonly #inputs: Inputs;
  readonly #sequences: readonly Sequence[];
  readonly #batches: number[][] = [];

  constructor(inputs: Inputs, sequences: readonly Sequence[], size: number) {
    this.#inputs = inputs;
    this.#sequences = sequences;
    const order = sequences
      .map((_, i) => i)
      .sort((a, b) => sequences[a]!.frames - sequences[b]!.frames || a - b);
    for (let at = 0; at < order.length; at += size) this.#batches.push(order.slice(at, at + size));
  }

  get count(): number {
    return this.#batches.length;
  }

  /** A batch, and which sequences are in it. */
  batch(index: number): { batch: HeadBatch; indices: readonly number[] } {
    const indices = this.#batches[index]!;
    const sequences = indices.map((i) => this.#sequences[i]!);
    const B = sequences.length;
    const upTo = (values: number[], step: number): number =>
      Math.max(1, Math.ceil(Math.max(...values) / step)) * step;
    const T = upTo(
      sequences.map((s) => s.frames),
      FRAME_STEP,
    );
    const S = upTo(
      sequences.map((s) => s.target.length),
      LABEL_STEP,
    );
    const targets = new Int32Array(B * S).fill(1);
    sequences.forEach((s, b) => targets.set(s.target, b * S));
    return {
      indices,
      batch: {
        shape: [B, T],
        labels: S,
        features: filled(
          this.#inputs,
          B * T,
          sequences.map((s, b) => ({
            rows: Int32Array.from({ length: s.frames }, (_, t) => s.first + t),
            at: b * T,
          })),
        ),
        targets: {
          targets,
          input_lengths: Int32Array.from(sequences, (s) => s.frames),
          target_lengths: Int32Array.from(sequences, (s) => s.target.length),
        },
      },
    };
  }
}
