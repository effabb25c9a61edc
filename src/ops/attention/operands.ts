import { MGFError } from '../../errors.ts';
import { formatShape, type Spec } from '../../graph/shape.ts';
import type { Value } from '../../graph/graph.ts';

/**
 * B batches, H heads, T queries, S keys, D per head; `pitch`: S rounded up to whole vec4s, the row length of
 * scores.
 */
export interface Sizes {
  B: number;
  H: number;
  T: number;
  S: number;
  D: number;
  pitch: number;
}

/**
 * A [rows, D] matrix per batch and head inside a larger tensor: where it starts and its strides in elements.
 */
export interface Operand {
  value: Value;
  z: [number, number];
  row: number;
  offset: number;
}

/** Throws MGFError 'shape' unless the key mask, where there is one, is [B, S]. */
export function checkMask(op: string, mask: Spec | null | undefined, { B, S }: Sizes): void {
  if (mask && formatShape(mask.shape) !== formatShape([B, S]))
    throw new MGFError('shape', `${op}: the key mask must be [${B}, ${S}], got ${formatShape(mask.shape)}`);
}

/** Sizes of q [B, H, T, D], k and v [B, H, S, D]. Throws MGFError 'shape'. */
export function headsFirst(q: Spec, k: Spec, v: Spec): Sizes {
  const shapes = `attention: q ${formatShape(q.shape)}, k ${formatShape(k.shape)}, v ${formatShape(v.shape)}`;
  const [B, H, T, D] = q.shape as [number, number, number, number];
  const S = k.shape[2]!;
  if (
    q.shape.length !== 4 ||
    formatShape(k.shape) !== formatShape(v.shape) ||
    formatShape(k.shape) !== formatShape([B, H, S, D])
  ) {
    throw new MGFError('shape', `${shapes} must be [B, H, T, D], [B, H, S, D] and [B, H, S, D]`);
  }
  return { B, H, T, S, D, pitch: Math.ceil(S / 4) * 4 };
}

/** A [B, H, rows, D] tensor. */
export const separate = (value: Value): Operand => {
  const [, H, rows, D] = value.shape as [number, number, number, number];
  return { value, z: [H * rows * D, rows * D], row: D, offset: 0 };
};

/**
 * Sizes of a projection [B, T, 3 heads D] of queries, keys and values side by side. Throws MGFError 'shape'.
 */
export function packedSizes(qkv: Spec, heads: number): Sizes {
  const [B, T, width] = qkv.shape as [number, number, number];
  if (qkv.shape.length !== 3 || width % (3 * heads))
    throw new MGFError(
      'shape',
      `self_attention: qkv ${formatShape(qkv.shape)} must be [B, T, 3 * heads * D] with ${heads} heads`,
    );
  return { B, H: heads, T, S: T, D: width / (3 * heads), pitch: Math.ceil(T / 4) * 4 };
}

/** Part 0, 1, 2 (q, k, v) of a [B, T, 3 H D] tensor. */
export const part = (value: Value, s: Sizes, i: number): Operand => ({
  value,
  z: [s.T * 3 * s.H * s.D, s.D],
  row: 3 * s.H * s.D,
  offset: i * s.H * s.D,
});

/** A [B, T, H D] tensor. */
export const merged = (value: Value, s: Sizes): Operand => ({
  value,
  z: [s.T * s.H * s.D, s.D],
  row: s.H * s.D,
  offset: 0,
});
