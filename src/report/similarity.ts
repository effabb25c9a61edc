/** How alike clips are, for pictures: an order that groups the clips of one voice, and means of pairs. */
import { MGFError } from '../errors.ts';

export interface Grouping {
  /**
   * Clip indices, those of one voice side by side; voices in order of first appearance, clips in their given
   * order.
   */
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
    labels.forEach((other, i) => {
      if (other === label) order.push(i);
    });
    groups.push({ label, start, end: order.length });
  }
  return { order, groups };
}

/** Values [n, n] with rows and columns rearranged by `order`. */
export function reorder(values: Float32Array, order: readonly number[]): Float32Array {
  const n = order.length;
  if (values.length !== n * n)
    throw new MGFError('shape', `reorder: ${n} clips need ${n * n} similarities, got ${values.length}.`);
  const out = new Float32Array(n * n);
  for (let a = 0; a < n; a++) for (let b = 0; b < n; b++) out[a * n + b] = values[order[a]! * n + order[b]!]!;
  return out;
}

/**
 * Mean similarity of pairs of different clips with the same label, and of pairs with different labels; null
 * where there is no such pair.
 */
export function pairMeans(
  values: Float32Array,
  labels: readonly string[],
): { same: number | null; different: number | null } {
  const { same, different } = pairScores(values, labels);
  const mean = (scores: number[]): number | null =>
    scores.length > 0 ? scores.reduce((sum, score) => sum + score, 0) / scores.length : null;
  return { same: mean(same), different: mean(different) };
}

function pairScores(
  values: Float32Array,
  labels: readonly string[],
): { same: number[]; different: number[] } {
  const n = labels.length;
  if (values.length !== n * n)
    throw new MGFError('shape', `${n} labelled clips need ${n * n} similarities, got ${values.length}.`);
  const same: number[] = [];
  const different: number[] = [];
  for (let a = 0; a < n; a++)
    for (let b = 0; b < a; b++) (labels[a] === labels[b] ? same : different).push(values[a * n + b]!);
  return { same, different };
}
