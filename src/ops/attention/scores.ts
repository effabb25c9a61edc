import type { Value } from '../../graph/graph.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import type { BackwardContext } from '../../launch/op.ts';
import softmaxSource from '../../../kernels/attention_softmax.wgsl';
import softmaxBackwardSource from '../../../kernels/attention_softmax_backward.wgsl';
import type { Operand, Sizes } from './operands.ts';
import { dropoutDispatch, type DropoutAttrs } from '../dropout.ts';
import { gemm } from '../gemm/gemm.ts';
import { overRows } from '../../launch/grid.ts';

// Attention that keeps its probabilities: launches for src/ops/attention/attention.ts, and for flash
// attention where its kernels compute wrongly.

const SOFTMAX = kernel('attention_softmax', softmaxSource);
const SOFTMAX_BACKWARD = kernel('attention_softmax_backward', softmaxBackwardSource);

type Context = Pick<BackwardContext<unknown>, 'adapter' | 'temp'>;

/** Shape of the probabilities: every row padded to whole vec4s. */
export const scoreShape = (s: Sizes): number[] => [s.B, s.H, s.T, s.pitch];
const scoreStrides = (s: Sizes): { z: [number, number]; row: number } => ({
  z: [s.H * s.T * s.pitch, s.T * s.pitch],
  row: s.pitch,
});

/** out [T, S] = alpha x y^T over batches and heads: scores, and the gradient of the probabilities. */
function scores(c: Context, s: Sizes, x: Operand, y: Operand, out: Value, alpha: number): Dispatch {
  const o = scoreStrides(s);
  return gemm(c.adapter, {
    mode: 'nt',
    a: x.value,
    b: y.value,
    c: out,
    m: s.T,
    n: s.S,
    k2: s.D,
    batch: [s.B, s.H],
    alpha,
    paddedColumns: true,
    aZ: x.z,
    aRow: x.row,
    aOffset: x.offset,
    bZ: y.z,
    bRow: y.row,
    bOffset: y.offset,
    cZ: o.z,
    cRow: o.row,
  });
}

/** out [T, D] = alpha p y (mode nn) or [S, D] = alpha p^T y (mode tn) over batches and heads. */
function weighted(
  c: Context,
  s: Sizes,
  mode: 'nn' | 'tn',
  p: Value,
  y: Operand,
  out: Operand,
  alpha: number,
): Dispatch {
  const a = scoreStrides(s);
  return gemm(c.adapter, {
    mode,
    a: p,
    b: y.value,
    c: out.value,
    m: mode === 'nn' ? s.T : s.S,
    n: s.D,
    k2: mode === 'nn' ? s.S : s.T,
    batch: [s.B, s.H],
    alpha,
    aZ: a.z,
    aRow: a.row,
    bZ: y.z,
    bRow: y.row,
    bOffset: y.offset,
    cZ: out.z,
    cRow: out.row,
    cOffset: out.offset,
  });
}

/** p = softmax(q k^T / sqrt(D)), the masked keys 0. */
export function probabilities(
  c: Context,
  s: Sizes,
  q: Operand,
  k: Operand,
  mask: Value | null,
  p: Value,
): Dispatch[] {
  const rows = s.B * s.H * s.T;
  const launch = overRows(rows, c.adapter);
  return [
    scores(c, s, q, k, p, 1 / Math.sqrt(s.D)),
    {
      kernel: SOFTMAX,
      grid: launch.grid,
      constants: { ...launch.constants, MASK: Number(Boolean(mask)) },
      bind: { scores: p, ...(mask && { key_mask: mask }) },
      params: { rows, keys: s.S, pitch4: s.pitch / 4, rows_per_mask: s.H * s.T },
    },
  ];
}

/**
 * y = p v. Probabilities are dropped on the way to the product with v; p itself stays whole, and backward
 * draws the same mask again.
 */
export function attend(
  c: Context,
  s: Sizes,
  q: Operand,
  k: Operand,
  v: Operand,
  mask: Value | null,
  p: Value,
  y: Operand,
  drop: DropoutAttrs | null,
): Dispatch[] {
  const dropped = drop ? c.temp(scoreShape(s)) : p;
  return [
    ...probabilities(c, s, q, k, mask, p),
    ...(drop ? [dropoutDispatch(drop, p, dropped)] : []),
    weighted(c, s, 'nn', dropped, v, y, 1),
  ];
}

export interface Gradients {
  q: Operand | null;
  k: Operand | null;
  v: Operand | null;
}

/** Writes whichever of dq, dk, dv is wanted. */
export function attendBack(
  c: Context,
  s: Sizes,
  q: Operand,
  k: Operand,
  v: Operand,
  p: Value,
  dy: Operand,
  d: Gradients,
  drop: DropoutAttrs | null,
): Dispatch[] {
  const rows = s.B * s.H * s.T;
  const launch = overRows(rows, c.adapter);
  const alpha = 1 / Math.sqrt(s.D);
  const out: Dispatch[] = [];
  const scratch = (): Value => c.temp(scoreShape(s));
  if (d.v) {
    const dropped = drop ? scratch() : p;
    if (drop) out.push(dropoutDispatch(drop, p, dropped));
    out.push(weighted(c, s, 'tn', dropped, dy, d.v, 1));
  }
  if (!d.q && !d.k) return out;
  const raw = scratch();
  const ds = drop ? scratch() : raw;
  out.push(scores(c, s, dy, v, raw, 1));
  if (drop) out.push(dropoutDispatch(drop, raw, ds));
  out.push({
    kernel: SOFTMAX_BACKWARD,
    ...launch,
    bind: { probabilities: p, d: ds },
    params: { rows, pitch4: s.pitch / 4 },
  });
  if (d.q) out.push(weighted(c, s, 'nn', ds, k, d.q, alpha));
  if (d.k) out.push(weighted(c, s, 'tn', ds, q, d.k, alpha));
  return out;
}
