import type { Value } from '../graph/graph.ts';
import { defineOp, kernel, type BackwardContext, type Cost, type Dispatch } from '../graph/op.ts';
import softmaxSource from '../../kernels/attention_softmax.wgsl';
import softmaxBackwardSource from '../../kernels/attention_softmax_backward.wgsl';
import { checkMask, headsFirst, merged, packedSizes, part, separate, type Operand, type Sizes } from './attention_operands.ts';
import { dropoutAttrs, dropoutDispatch, type DropoutAttrs } from './dropout.ts';
import { flashAttentionOp, flashSelfAttentionOp } from './flash_attention.ts';
import { gemm } from './gemm.ts';
import { overRows } from './launch.ts';

const SOFTMAX = kernel('attention_softmax', softmaxSource);
const SOFTMAX_BACKWARD = kernel('attention_softmax_backward', softmaxBackwardSource);

type Context = Pick<BackwardContext<unknown>, 'adapter' | 'temp'>;

const scoreShape = (s: Sizes): number[] => [s.B, s.H, s.T, s.pitch];
const scoreStrides = (s: Sizes): { z: [number, number]; row: number } => ({ z: [s.H * s.T * s.pitch, s.T * s.pitch], row: s.pitch });

/** out [T, S] = alpha x y^T over batches and heads: scores, and the gradient of the probabilities. */
function scores(c: Context, s: Sizes, x: Operand, y: Operand, out: Value, alpha: number): Dispatch {
  const o = scoreStrides(s);
  return gemm(c.adapter, {
    mode: 'nt', a: x.value, b: y.value, c: out, m: s.T, n: s.S, k2: s.D, batch: [s.B, s.H], alpha, paddedColumns: true,
    aZ: x.z, aRow: x.row, aOffset: x.offset, bZ: y.z, bRow: y.row, bOffset: y.offset, cZ: o.z, cRow: o.row,
  });
}

/** out [T, D] = alpha p y (mode nn) or [S, D] = alpha p^T y (mode tn) over batches and heads. */
function weighted(c: Context, s: Sizes, mode: 'nn' | 'tn', p: Value, y: Operand, out: Operand, alpha: number): Dispatch {
  const a = scoreStrides(s);
  return gemm(c.adapter, {
    mode, a: p, b: y.value, c: out.value, m: mode === 'nn' ? s.T : s.S, n: s.D, k2: mode === 'nn' ? s.S : s.T, batch: [s.B, s.H], alpha,
    aZ: a.z, aRow: a.row, bZ: y.z, bRow: y.row, bOffset: y.offset, cZ: out.z, cRow: out.row, cOffset: out.offset,
  });
}

/** Probabilities are dropped on the way to the product with v; p itself stays whole, and backward draws the same mask again. */
function attend(c: Context, s: Sizes, q: Operand, k: Operand, v: Operand, mask: Value | null, p: Value, y: Operand, drop: DropoutAttrs | null): Dispatch[] {
  const dropped = drop ? c.temp(scoreShape(s)) : p;
  const rows = s.B * s.H * s.T, launch = overRows(rows, c.adapter);
  return [
    scores(c, s, q, k, p, 1 / Math.sqrt(s.D)),
    {
      kernel: SOFTMAX, grid: launch.grid, constants: { ...launch.constants, MASK: Number(Boolean(mask)) },
      bind: { scores: p, ...(mask && { key_mask: mask }) }, params: { rows, keys: s.S, pitch4: s.pitch / 4, rows_per_mask: s.H * s.T },
    },
    ...(drop ? [dropoutDispatch(drop, p, dropped)] : []),
    weighted(c, s, 'nn', dropped, v, y, 1),
  ];
}

interface Gradients { q: Operand | null; k: Operand | null; v: Operand | null }

/** Writes whichever of dq, dk, dv is wanted. */
function attendBack(c: Context, s: Sizes, q: Operand, k: Operand, v: Operand, p: Value, dy: Operand, d: Gradients, drop: DropoutAttrs | null): Dispatch[] {
  const rows = s.B * s.H * s.T, launch = overRows(rows, c.adapter), alpha = 1 / Math.sqrt(s.D), out: Dispatch[] = [];
  const scratch = (): Value => c.temp(scoreShape(s));
  if (d.v) {
    const dropped = drop ? scratch() : p;
    if (drop) out.push(dropoutDispatch(drop, p, dropped));
    out.push(weighted(c, s, 'tn', dropped, dy, d.v, 1));
  }
  if (!d.q && !d.k) return out;
  const raw = scratch(), ds = drop ? scratch() : raw;
  out.push(scores(c, s, dy, v, raw, 1));
  if (drop) out.push(dropoutDispatch(drop, raw, ds));
  out.push({ kernel: SOFTMAX_BACKWARD, ...launch, bind: { probabilities: p, d: ds }, params: { rows, pitch4: s.pitch / 4 } });
  if (d.q) out.push(weighted(c, s, 'nn', ds, k, d.q, alpha));
  if (d.k) out.push(weighted(c, s, 'tn', ds, q, d.k, alpha));
  return out;
}

function attentionCost({ B, H, T, S, D }: Sizes): Cost {
  return { flops: 4 * B * H * T * S * D + 5 * B * H * T * S, bytes: 4 * (2 * B * H * (T + S) * D + 4 * B * H * T * S) };
}

// ------------------------------------------------------------------------------------------------ q, k, v apart: [B, H, T, D]

const separateOrNull = (value: Value | null): Operand | null => value && separate(value);

/** Inputs q, k, v, key_mask?. Outputs y and the probabilities [B, H, T, pitch]: kept scores are the fastest way up to T of about 1500. */
export const attentionOp = defineOp<Record<never, never>>({
  name: 'attention',
  shape([q, k, v, mask]) {
    const s = headsFirst(q!, k!, v!);
    checkMask('attention', mask, s);
    return [{ shape: q!.shape, dtype: 'f32' }, { shape: scoreShape(s), dtype: 'f32' }];
  },
  forward(c) {
    const q = c.input(0), k = c.input(1), v = c.input(2), [y, p] = c.outputs as [Value, Value];
    return attend(c, headsFirst(q, k, v), separate(q), separate(k), separate(v), c.inputs[3] ?? null, p, separate(y), null);
  },
  saves: { inputs: [0, 1, 2], outputs: [1] },
  differentiable: [0, 1, 2],
  backward(c) {
    const q = c.input(0)!, k = c.input(1)!, v = c.input(2)!;
    return attendBack(c, headsFirst(q, k, v), separate(q), separate(k), separate(v), c.output(1), separate(c.upstream(0)!),
      { q: separateOrNull(c.grad(0)), k: separateOrNull(c.grad(1)), v: separateOrNull(c.grad(2)) }, null);
  },
  cost: ([q, k, v]) => attentionCost(headsFirst(q!, k!, v!)),
});

/**
 * softmax(q k^T / sqrt(D)) v. q [B, H, T, D], k and v [B, H, S, D], keyMask f32 [B, S] (1 = real) -> [B, H, T, D].
 * `flash`: keep no scores, for GPUs and for memory (slower on software adapters); D must be a multiple of 4 up to 128.
 * @throws MGFError 'shape'
 */
export function attention(q: Value, k: Value, v: Value, keyMask: Value | null = null, options: { flash?: boolean } = {}): Value {
  return q.graph.apply(options.flash ? flashAttentionOp : attentionOp, [q, k, v, keyMask], {})[0]!;
}

// ------------------------------------------------------------------------------------------------ one projection: [B, T, 3 H D]

interface SelfAttentionAttrs { heads: number; drop: DropoutAttrs | null }

/** Inputs qkv, key_mask?. Heads are read in place: nothing is transposed or split. */
export const selfAttentionOp = defineOp<SelfAttentionAttrs>({
  name: 'self_attention',
  shape([qkv, mask], { heads }) {
    const s = packedSizes(qkv!, heads);
    checkMask('self_attention', mask, s);
    return [{ shape: [s.B, s.T, s.H * s.D], dtype: 'f32' }, { shape: scoreShape(s), dtype: 'f32' }];
  },
  forward(c) {
    const qkv = c.input(0), s = packedSizes(qkv, c.attrs.heads), [y, p] = c.outputs as [Value, Value];
    return attend(c, s, part(qkv, s, 0), part(qkv, s, 1), part(qkv, s, 2), c.inputs[1] ?? null, p, merged(y, s), c.attrs.drop);
  },
  saves: { inputs: [0], outputs: [1] },
  differentiable: [0],
  backward(c) {
    const qkv = c.input(0)!, s = packedSizes(qkv, c.attrs.heads), d = c.grad(0)!;
    return attendBack(c, s, part(qkv, s, 0), part(qkv, s, 1), part(qkv, s, 2), c.output(1), merged(c.upstream(0)!, s),
      { q: part(d, s, 0), k: part(d, s, 1), v: part(d, s, 2) }, c.attrs.drop);
  },
  cost: ([qkv], _, { heads }) => attentionCost(packedSizes(qkv!, heads)),
});

/**
 * Self-attention on one projection of queries, keys and values side by side. qkv [B, T, 3 heads D], keyMask f32 [B, T] (1 = real) -> [B, T, heads D].
 * `dropout`: probability of dropping an attention weight; needs the per-step scalars of src/ops/dropout.ts. `flash`: as in `attention`; the draws are the same.
 * @throws MGFError 'shape'
 */
export function selfAttention(qkv: Value, heads: number, options: { keyMask?: Value | null; dropout?: number; flash?: boolean } = {}): Value {
  const drop = options.dropout ? dropoutAttrs(qkv.graph, options.dropout) : null;
  return qkv.graph.apply(options.flash ? flashSelfAttentionOp : selfAttentionOp, [qkv, options.keyMask ?? null], { heads, drop })[0]!;
}

/** Float64 reference of one head: q [T, D], k and v [S, D], mask [S] -> [T, D]. */
export function attentionReference(q: Float64Array, k: Float64Array, v: Float64Array, mask: ArrayLike<number> | null, D: number): Float64Array {
  const T = q.length / D, S = k.length / D, y = new Float64Array(q.length);
  for (let t = 0; t < T; t++) {
    const logits = Array.from({ length: S }, (_, s) => {
      let sum = 0;
      for (let d = 0; d < D; d++) sum += q[t * D + d]! * k[s * D + d]!;
      return mask && !mask[s] ? -Infinity : sum / Math.sqrt(D);
    });
    const top = Math.max(...logits), weights = logits.map((l) => Math.exp(l - top)), total = weights.reduce((a, b) => a + b, 0);
    for (let s = 0; s < S; s++) for (let d = 0; d < D; d++) y[t * D + d]! += (weights[s]! / total) * v[s * D + d]!;
  }
  return y;
}
