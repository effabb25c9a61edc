import { checkArguments, checkOptions, VALUE } from '../../check.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { defineOp } from '../../launch/op.ts';
import type { Cost } from '../../graph/op.ts';
import {
  checkMask,
  headsFirst,
  merged,
  packedSizes,
  part,
  separate,
  type Operand,
  type Sizes,
} from './operands.ts';
import { attend, attendBack, scoreShape } from './scores.ts';
import { dropoutAttrs, type DropoutAttrs } from '../dropout.ts';
import { flashAttentionOp, flashSelfAttentionOp } from './flash-attention.ts';

function attentionCost({ B, H, T, S, D }: Sizes): Cost {
  return {
    flops: 4 * B * H * T * S * D + 5 * B * H * T * S,
    bytes: 4 * (2 * B * H * (T + S) * D + 4 * B * H * T * S),
  };
}

// ------------------------------------------------------------------------------- q, k, v apart: [B, H, T, D]

const separateOrNull = (value: Value | null): Operand | null => value && separate(value);

/**
 * Inputs q, k, v, key_mask?. Outputs y and the probabilities [B, H, T, pitch]: kept scores are the fastest
 * way up to T of about 1500.
 */
export const attentionOp = defineOp<Record<never, never>>({
  name: 'attention',
  shape([q, k, v, mask]) {
    const s = headsFirst(q!, k!, v!);
    checkMask('attention', mask, s);
    return [
      { shape: q!.shape, dtype: 'f32' },
      { shape: scoreShape(s), dtype: 'f32' },
    ];
  },
  forward(c) {
    const q = c.input(0);
    const k = c.input(1);
    const v = c.input(2);
    const [y, p] = c.outputs as [Value, Value];
    return attend(
      c,
      headsFirst(q, k, v),
      separate(q),
      separate(k),
      separate(v),
      c.inputs[3] ?? null,
      p,
      separate(y),
      null,
    );
  },
  saves: { inputs: [0, 1, 2], outputs: [1] },
  differentiable: [0, 1, 2],
  backward(c) {
    const q = c.input(0)!;
    const k = c.input(1)!;
    const v = c.input(2)!;
    return attendBack(
      c,
      headsFirst(q, k, v),
      separate(q),
      separate(k),
      separate(v),
      c.output(1),
      separate(c.upstream(0)!),
      { q: separateOrNull(c.grad(0)), k: separateOrNull(c.grad(1)), v: separateOrNull(c.grad(2)) },
      null,
    );
  },
  cost: ([q, k, v]) => attentionCost(headsFirst(q!, k!, v!)),
});

/**
 * softmax(q k^T / sqrt(D)) v. q [B, H, T, D], k and v [B, H, S, D], keyMask f32 [B, S] (1 = real) -> [B, H,
 * T, D]. `flash`: keep no scores, for GPUs and for memory (slower on software adapters); D must be a multiple
 * of 4 up to 128.
 * @throws MGFError 'shape'
 */
export function attention(
  q: Value,
  k: Value,
  v: Value,
  keyMask: Value | null = null,
  options: { flash?: boolean } = {},
): Value {
  checkOptions('attention', options, { flash: 'true or false?' });
  return apply(options.flash ? flashAttentionOp : attentionOp, [q, k, v, keyMask], {}, 3)[0]!;
}

// ----------------------------------------------------------------------------- one projection: [B, T, 3 H D]

interface SelfAttentionAttrs {
  heads: number;
  drop: DropoutAttrs | null;
}

/** Inputs qkv, key_mask?. Heads are read in place: nothing is transposed or split. */
export const selfAttentionOp = defineOp<SelfAttentionAttrs>({
  name: 'self_attention',
  shape([qkv, mask], { heads }) {
    const s = packedSizes(qkv!, heads);
    checkMask('self_attention', mask, s);
    return [
      { shape: [s.B, s.T, s.H * s.D], dtype: 'f32' },
      { shape: scoreShape(s), dtype: 'f32' },
    ];
  },
  forward(c) {
    const qkv = c.input(0);
    const s = packedSizes(qkv, c.attrs.heads);
    const [y, p] = c.outputs as [Value, Value];
    return attend(
      c,
      s,
      part(qkv, s, 0),
      part(qkv, s, 1),
      part(qkv, s, 2),
      c.inputs[1] ?? null,
      p,
      merged(y, s),
      c.attrs.drop,
    );
  },
  saves: { inputs: [0], outputs: [1] },
  differentiable: [0],
  backward(c) {
    const qkv = c.input(0)!;
    const s = packedSizes(qkv, c.attrs.heads);
    const d = c.grad(0)!;
    return attendBack(
      c,
      s,
      part(qkv, s, 0),
      part(qkv, s, 1),
      part(qkv, s, 2),
      c.output(1),
      merged(c.upstream(0)!, s),
      { q: part(d, s, 0), k: part(d, s, 1), v: part(d, s, 2) },
      c.attrs.drop,
    );
  },
  cost: ([qkv], _, { heads }) => attentionCost(packedSizes(qkv!, heads)),
});

/**
 * Self-attention on one projection of queries, keys and values side by side. qkv [B, T, 3 heads D], keyMask
 * f32 [B, T] (1 = real) -> [B, T, heads D]. `dropout`: probability of dropping an attention weight; needs the
 * per-step scalars of src/ops/dropout.ts. `flash`: as in `attention`; the draws are the same.
 * @throws MGFError 'shape'
 */
export function selfAttention(
  qkv: Value,
  heads: number,
  options: { keyMask?: Value | null; dropout?: number; flash?: boolean } = {},
): Value {
  checkArguments('selfAttention', { qkv: [qkv, VALUE], heads: [heads, 'a number'] });
  checkOptions('selfAttention', options, {
    keyMask: `${VALUE}|null?`,
    dropout: 'a number?',
    flash: 'true or false?',
  });
  const drop = options.dropout ? dropoutAttrs(qkv.graph, options.dropout) : null;
  return apply(
    options.flash ? flashSelfAttentionOp : selfAttentionOp,
    [qkv, options.keyMask ?? null],
    { heads, drop },
    1,
  )[0]!;
}

/** Float64 reference of one head: q [T, D], k and v [S, D], mask [S] -> [T, D]. */
export function attentionReference(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  mask: ArrayLike<number> | null,
  D: number,
): Float64Array {
  const T = q.length / D;
  const S = k.length / D;
  const y = new Float64Array(q.length);
  for (let t = 0; t < T; t++) {
    const logits = Array.from({ length: S }, (_, s) => {
      let sum = 0;
      for (let d = 0; d < D; d++) sum += q[t * D + d]! * k[s * D + d]!;
      return mask && !mask[s] ? -Infinity : sum / Math.sqrt(D);
    });
    const top = Math.max(...logits);
    const weights = logits.map((l) => Math.exp(l - top));
    const total = weights.reduce((a, b) => a + b, 0);
    for (let s = 0; s < S; s++)
      for (let d = 0; d < D; d++) y[t * D + d]! += (weights[s]! / total) * v[s * D + d]!;
  }
  return y;
}
