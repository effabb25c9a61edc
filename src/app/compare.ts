/**
 * How alike embeddings are. All vectors of a network share a large common part, so that plain cosines are
 * large for almost any two clips; taking the mean of a reference set off first leaves what tells clips apart.
 */
import { checkArguments, checkOptions, describe } from '../check.ts';
import { MGFError } from '../errors.ts';

/** A vector, or an `Embedding`: pooled, or with a vector per frame, whose mean is then taken. */
export type Comparable = ArrayLike<number> | { readonly data: Float32Array; readonly width: number };

/** The mean of a reference set; see `center`. */
export interface Center {
  /** [width]. Keep it to compare later: `compare` needs nothing else of the reference set. */
  readonly mean: Float32Array;
  /**
   * A vector, or the mean over frames of an embedding, minus `mean`. Throws MGFError 'shape' for another
   * width.
   */
  apply(vector: Comparable): Float32Array;
}

/** Options of `compare`. */
export interface CompareOptions {
  /**
   * What to take off both vectors first: what `center` returned, or an object with its `mean`. `null`:
   * nothing, for raw cosines.
   */
  readonly center: Pick<Center, 'mean'> | null;
}

function vectorOf(where: string, x: Comparable): Float32Array {
  const given: unknown = x !== null && typeof x === 'object' && 'data' in x ? x.data : x;
  if (!Array.isArray(given) && !ArrayBuffer.isView(given)) {
    throw new MGFError('usage', `${where} is ${describe(x)}, but must be an embedding or a vector.`);
  }
  const data = Float32Array.from(given as ArrayLike<number>);
  const width = 'width' in x ? x.width : data.length;
  if (!data.length || data.length % width) {
    throw new MGFError('shape', `${where} has ${data.length} numbers, which are no vectors of ${width}.`);
  }
  if (!data.every(Number.isFinite)) throw new MGFError('data', `${where} holds numbers that are not finite.`);
  return data.length === width ? data : meanOverFrames(data, width);
}

/** Mean of the rows of x [frames, width]. */
export function meanOverFrames(x: Float32Array, width: number): Float32Array {
  const sum = new Float64Array(width);
  x.forEach((value, i) => {
    sum[i % width]! += value;
  });
  return Float32Array.from(sum, (s) => (s * width) / x.length);
}

function minus(where: string, vector: Float32Array, mean: Float32Array): Float32Array {
  if (vector.length !== mean.length) {
    throw new MGFError(
      'shape',
      `${where} has ${vector.length} numbers, but the centre has ${mean.length}; ` +
        'use one model and layer.',
    );
  }
  return vector.map((value, i) => value - mean[i]!);
}

/**
 * The mean of a reference set: vectors, or embeddings of one model and layer, one per clip. Take clips like
 * those to be compared (same microphone, same
 * language, many voices), a few dozen or more: with two, the rest of the one is the opposite of the rest of
 * the other.
 * Throws MGFError 'usage' for fewer than two, 'shape' for vectors of different widths, 'data' for numbers
 * that are not finite.
 */
export function center(vectors: readonly Comparable[]): Center {
  checkArguments('center', { vectors: [vectors, 'a list'] });
  if (vectors.length < 2) {
    throw new MGFError(
      'usage',
      `center: a reference set of ${vectors.length} has no mean to take off; ` +
        'give the vectors of at least two clips.',
    );
  }
  const rows = vectors.map((vector, i) => vectorOf(`center: vector ${i}`, vector));
  const width = rows[0]!.length;
  const other = rows.findIndex((row) => row.length !== width);
  if (other > 0) {
    throw new MGFError(
      'shape',
      `center: vector ${other} has ${rows[other]!.length} numbers, and vector 0 ` +
        `has ${width}; use one model and layer.`,
    );
  }
  const sum = new Float64Array(width);
  for (const row of rows)
    row.forEach((value, i) => {
      sum[i]! += value;
    });
  const mean = Float32Array.from(sum, (s) => s / rows.length);
  return { mean, apply: (vector) => minus('the vector', vectorOf('the vector', vector), mean) };
}

/**
 * Cosine similarity, -1 to 1, of two embeddings or vectors after the centre is taken off both: unrelated
 * clips of the reference set lie around 0. Throws MGFError 'usage' without `center`, 'shape' for different
 * widths, 'data' where a vector has no direction (all zeros, or just the centre).
 */
export function compare(a: Comparable, b: Comparable, options: CompareOptions): number {
  checkOptions('compare', options, { center: 'an object|null' });
  const mean = options.center && vectorOf('compare: the mean of the option center', options.center.mean);
  const [x, y] = (
    [
      ['a', a],
      ['b', b],
    ] as const
  ).map(([name, given]) => {
    const vector = vectorOf(`compare: ${name}`, given);
    return mean ? minus(`compare: ${name}`, vector, mean) : vector;
  }) as [Float32Array, Float32Array];
  if (x.length !== y.length) {
    throw new MGFError(
      'shape',
      `compare: a has ${x.length} numbers, and b has ${y.length}; use one model ` + 'and layer.',
    );
  }
  let dot = 0;
  let xx = 0;
  let yy = 0;
  x.forEach((value, i) => {
    dot += value * y[i]!;
    xx += value * value;
    yy += y[i]! * y[i]!;
  });
  if (xx === 0 || yy === 0) {
    throw new MGFError(
      'data',
      `compare: ${xx === 0 ? 'a' : 'b'} has no direction: it is ` +
        `${mean ? 'the centre itself' : 'all zeros'}.`,
    );
  }
  return Math.max(-1, Math.min(1, dot / Math.sqrt(xx * yy)));
}
