/** How alike clips are: cosine similarity of embeddings, an order that groups the clips of one voice, and the equal error rate. */
import { MGFError } from '../errors.ts';

/**
 * Cosine similarity of every pair of `n` embeddings of `dim` numbers, row-major [n, dim] -> [n, n].
 * A row of zeros has no direction and gets similarity 0 with every other row.
 */
export function cosineMatrix(embeddings: Float32Array, n: number, dim: number): Float32Array {
  if (embeddings.length !== n * dim) throw new MGFError('shape', `cosineMatrix: ${n} embeddings of ${dim} need ${n * dim} numbers, got ${embeddings.length}.`);
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
 * Subtracts the mean embedding, so that a similarity of 0 means "as alike as two arbitrary clips". Features of one model share a large
 * common direction, against which every raw cosine is close to 1. [n, dim] -> [n, dim]
 */
export function centre(embeddings: Float32Array, n: number, dim: number): Float32Array {
  if (embeddings.length !== n * dim) throw new MGFError('shape', `centre: ${n} embeddings of ${dim} need ${n * dim} numbers, got ${embeddings.length}.`);
  const mean = new Float64Array(dim);
  for (let i = 0; i < n * dim; i++) mean[i % dim]! += embeddings[i]! / n;
  return embeddings.map((value, i) => value - mean[i % dim]!);
}

export interface Grouping {
  /** Clip indices, those of one voice side by side; voices in order of first appearance, clips in their given order. */
  order: number[];
  /** The runs of `order` that belong to one voice: positions `start` to `end` (exclusive). */
  groups: Array<{ label: string; start: number; end: number }>;
}

/** Puts the clips of one voice side by side. */
export function groupByLabel(labels: readonly string[]): Grouping {
  const order: number[] = [];
  const groups: Grouping['groups'] = [];
  for (const label of new Set(labels)) {
    const start = order.length;
    labels.forEach((other, i) => { if (other === label) order.push(i); });
    groups.push({ label, start, end: order.length });
  }
  return { order, groups };
}

/** Values [n, n] with rows and columns rearranged by `order`. */
export function reorder(values: Float32Array, order: readonly number[]): Float32Array {
  const n = order.length;
  if (values.length !== n * n) throw new MGFError('shape', `reorder: ${n} clips need ${n * n} similarities, got ${values.length}.`);
  const out = new Float32Array(n * n);
  for (let a = 0; a < n; a++) for (let b = 0; b < n; b++) out[a * n + b] = values[order[a]! * n + order[b]!]!;
  return out;
}

/** Mean similarity of pairs of different clips with the same label, and of pairs with different labels; null where there is no such pair. */
export function pairMeans(values: Float32Array, labels: readonly string[]): { same: number | null; different: number | null } {
  const { same, different } = pairScores(values, labels);
  const mean = (scores: number[]): number | null => (scores.length > 0 ? scores.reduce((sum, score) => sum + score, 0) / scores.length : null);
  return { same: mean(same), different: mean(different) };
}

/**
 * Equal error rate of telling same-voice pairs from different-voice pairs by their similarity: the rate at which as many different-voice
 * pairs are accepted as same-voice pairs are rejected, read between the two thresholds nearest to that point. 0 is perfect, 0.5 is chance.
 * null where there are no pairs of one kind, or a similarity is not a number.
 */
export function equalErrorRate(values: Float32Array, labels: readonly string[]): number | null {
  const { same, different } = pairScores(values, labels);
  if (same.length === 0 || different.length === 0 || [...same, ...different].some(Number.isNaN)) return null;
  same.sort((a, b) => a - b);
  different.sort((a, b) => a - b);
  // Raise the threshold over every score: rejections of the same voice grow from 0 to 1, acceptances of another fall from 1 to 0.
  let i = 0;
  let j = 0;
  let before = { reject: 0, accept: 1 };
  while (i < same.length || j < different.length) {
    const threshold = Math.min(same[i] ?? Infinity, different[j] ?? Infinity);
    while (i < same.length && same[i]! <= threshold) i++;
    while (j < different.length && different[j]! <= threshold) j++;
    const after = { reject: i / same.length, accept: 1 - j / different.length };
    if (after.reject >= after.accept) {
      const gapBefore = before.accept - before.reject;
      const share = gapBefore / (gapBefore + after.reject - after.accept);
      return before.reject + share * (after.reject - before.reject);
    }
    before = after;
  }
  return before.reject;
}

function pairScores(values: Float32Array, labels: readonly string[]): { same: number[]; different: number[] } {
  const n = labels.length;
  if (values.length !== n * n) throw new MGFError('shape', `${n} labelled clips need ${n * n} similarities, got ${values.length}.`);
  const same: number[] = [];
  const different: number[] = [];
  for (let a = 0; a < n; a++) for (let b = 0; b < a; b++) (labels[a] === labels[b] ? same : different).push(values[a * n + b]!);
  return { same, different };
}
