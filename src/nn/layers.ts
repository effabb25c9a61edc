import type { Value } from '../graph/graph.ts';
import { selfAttention } from '../ops/attention/attention.ts';
import { dropoutAdd } from '../ops/dropout.ts';
import { layerNorm } from '../ops/norm/layer-norm.ts';
import { linear } from '../ops/gemm/linear.ts';
import type { Weights } from './weights.ts';

/** weight and bias of a linear layer applied to x [..., in]. */
export const dense = (w: Weights, x: Value, options: Parameters<typeof linear>[3] = {}): Value =>
  linear(x, w.get('weight'), w.get('bias'), options);

/** Affine layer norm over the last axis. */
export const norm = (w: Weights, x: Value, eps: number, activation: 'none' | 'gelu' = 'none'): Value =>
  layerNorm(x, w.get('weight'), w.get('bias'), { eps, activation });

/** linear(x) + residual, with dropout in between when training. */
const denseAdd = (w: Weights, x: Value, residual: Value, p: number): Value =>
  p === 0 ? dense(w, x, { residual }) : dropoutAdd(dense(w, x), residual, { p });

export interface TransformerOptions {
  readonly heads: number;
  readonly eps: number;
  /** true: norm before each block (pre-LN). false: after the sum (post-LN). */
  readonly stable: boolean;
  /** [B, T] f32, 1 = real. */
  readonly keyMask: Value | null;
  readonly hiddenDropout: number;
  readonly attentionDropout: number;
  /** Attention keeps no scores (src/ops/attention/flash-attention.ts). */
  readonly flash?: boolean;
}

/**
 * One transformer encoder layer with wav2vec 2.0's parameter names (q, k, v fused as `attention.qkv_proj`). x
 * [B, T, D] -> [B, T, D].
 */
export function transformerLayer(w: Weights, x: Value, o: TransformerOptions): Value {
  const attend = (h: Value): Value =>
    selfAttention(dense(w.at('attention.qkv_proj'), h), o.heads, {
      keyMask: o.keyMask,
      dropout: o.attentionDropout,
      flash: o.flash,
    });
  const expand = (h: Value): Value =>
    dense(w.at('feed_forward.intermediate_dense'), h, { activation: 'gelu' });
  const out = w.at('attention.out_proj');
  const contract = w.at('feed_forward.output_dense');
  if (o.stable) {
    const h = denseAdd(out, attend(norm(w.at('layer_norm'), x, o.eps)), x, o.hiddenDropout);
    return denseAdd(contract, expand(norm(w.at('final_layer_norm'), h, o.eps)), h, o.hiddenDropout);
  }
  const h = norm(w.at('layer_norm'), denseAdd(out, attend(x), x, o.hiddenDropout), o.eps);
  return norm(w.at('final_layer_norm'), denseAdd(contract, expand(h), h, o.hiddenDropout), o.eps);
}
