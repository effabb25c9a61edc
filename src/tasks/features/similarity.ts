/** How alike recordings are by their features, and how well that tells speakers apart. */
import { MGFError } from '../../errors.ts';
import { bootstrap } from '../probe/metrics.ts';
import type { Estimate } from '../task.ts';

/**
 * Cosine similarity of every pair of `n` embeddings of `dim` numbers, row-major [n, dim] -> [n, n].
 * A row of zeros has no direction and gets similarity 0 with every other row.
 */
export function cosineMatrix(embeddings: Float32Array, n: number, dim: number): Float32Array {
  if (embeddings.length !== n * dim)
    throw new MGFError(
      'shape',
      `cosineMatrix: ${n} embeddings of ${dim} need ${n * dim} numbers, got ${embeddings.length}.`,
    );
  const unit = new Float64Array(n * dim);
  for (let i = 0; i < n; i++) {
    let square = 0;
    for (let j = 0; j < dim; j++) square += embeddings[i * dim + j]! ** 2;
    const scale = square > 0 ? 1 / Math.sqrt(square) : 0;
    for (let j = 0; j < dim; j++) unit[i * dim + j] = embeddings[i * dim + j]! * scale;
  }
  const out = new Float32Array(n * n);
  for (let a = 0; a < n; a++) {
    out[a * n + a] = 1;
    for (let b = 0; b < a; b++) {
      let dot = 0;
      for (let j = 0; j < dim; j++) dot += unit[a * dim + j]! * unit[b * dim + j]!;
      out[a * n + b] = out[b * n + a] = dot;
    }
  }
  return out;
}

/**
 * Subtracts the mean embedding, so that a similarity of 0 means "as alike as two arbitrary clips". Features
 * of one model share a large common direction, against which every raw cosine is close to 1. [n, dim] -> [n,
 * dim]
 */
export function centre(embeddings: Float32Array, n: number, dim: number): Float32Array {
  if (embeddings.length !== n * dim)
    throw new MGFError(
      'shape',
      `centre: ${n} embeddings of ${dim} need ${n * dim} numbers, got ${embeddings.length}.`,
    );
  const mean = new Float64Array(dim);
  for (let i = 0; i < n * dim; i++) mean[i % dim]! += embeddings[i]! / n;
  return embeddings.map((value, i) => value - mean[i % dim]!);
}

/**
 * Every pair of different recordings once, in order of their similarity: who speaks in the first and in the
 * second, by index.
 */
interface SortedPairs {
  readonly values: Float32Array;
  readonly first: Int32Array;
  readonly second: Int32Array;
}

function sortedPairs(similarities: Float32Array, speakers: Int32Array): SortedPairs {
  const n = speakers.length;
  if (similarities.length !== n * n)
    throw new MGFError(
      'shape',
      `${n} labelled clips need ${n * n} similarities, got ${similarities.length}.`,
    );
  const pairs = Int32Array.from({ length: (n * (n - 1)) / 2 });
  let count = 0;
  for (let a = 0; a < n; a++) for (let b = 0; b < a; b++) pairs[count++] = a * n + b;
  pairs.sort((p, q) => similarities[p]! - similarities[q]!);
  return {
    values: Float32Array.from(pairs, (p) => similarities[p]!),
    first: Int32Array.from(pairs, (p) => speakers[Math.floor(p / n)]!),
    second: Int32Array.from(pairs, (p) => speakers[p % n]!),
  };
}

/**
 * The rate at which as many pairs of different speakers are accepted as pairs of one are rejected, between
 * the two thresholds nearest to that point. A speaker counts `weight` times: a pair of his own so often, a
 * pair with another so often as the product. NaN where there are no pairs of one kind.
 */
function rateAt({ values, first, second }: SortedPairs, weight: ArrayLike<number>): number {
  let same = 0;
  let different = 0;
  const of = (i: number): number =>
    first[i] === second[i] ? weight[first[i]!]! : weight[first[i]!]! * weight[second[i]!]!;
  for (let i = 0; i < values.length; i++) {
    if (first[i] === second[i]) same += of(i);
    else different += of(i);
  }
  if (same === 0 || different === 0) return NaN;
  // Raise the threshold over every score: rejections of the same speaker grow from 0 to 1, acceptances of
  // another fall from 1 to 0.
  let reject = 0;
  let accept = different;
  let before = { reject: 0, accept: 1 };
  for (let i = 0; i < values.length;) {
    for (const threshold = values[i]!; i < values.length && values[i] === threshold; i++) {
      if (first[i] === second[i]) reject += of(i);
      else accept -= of(i);
    }
    const after = { reject: reject / same, accept: accept / different };
    if (after.reject >= after.accept) {
      const gap = before.accept - before.reject;
      const share = gap / (gap + after.reject - after.accept);
      return before.reject + share * (after.reject - before.reject);
    }
    before = after;
  }
  return before.reject;
}

const indexed = (labels: readonly string[]): { speakers: Int32Array; count: number } => {
  const ids = new Map([...new Set(labels)].map((label, i) => [label, i]));
  return { speakers: Int32Array.from(labels, (label) => ids.get(label)!), count: ids.size };
};

/**
 * Equal error rate of telling pairs of one label from pairs of two by their similarity [n, n]: 0 is perfect,
 * 0.5 is chance. null where there are no pairs of one kind, or a similarity is not a number.
 */
export function equalErrorRate(similarities: Float32Array, labels: readonly string[]): number | null {
  const { speakers, count } = indexed(labels);
  const rate = similarities.some(Number.isNaN)
    ? NaN
    : rateAt(sortedPairs(similarities, speakers), new Uint8Array(count).fill(1));
  return Number.isNaN(rate) ? null : rate;
}

/** The same with its 95 % interval: 500 draws of as many labels (speakers) with replacement. */
export function estimateEqualErrorRate(
  similarities: Float32Array,
  labels: readonly string[],
  seed: number,
): Estimate {
  const { speakers, count } = indexed(labels);
  const pairs = sortedPairs(similarities, speakers);
  return bootstrap(
    count,
    (drawn) => {
      const weight = new Uint32Array(count);
      for (const speaker of drawn) weight[speaker]!++;
      return rateAt(pairs, weight);
    },
    { seed, resamplings: 500 },
  );
}
