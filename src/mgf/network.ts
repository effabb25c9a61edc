import { checkArguments, checkFields } from '../check.ts';
import type { AdapterProfile } from '../gpu/device.ts';
import type { Value } from '../graph/graph.ts';
import { dense, norm, transformerLayer } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import { gelu } from '../ops/activation.ts';
import { conv1d } from '../ops/conv/conv.ts';
import { dropout } from '../ops/dropout.ts';
import { add, reshape } from '../ops/elementwise.ts';
import { flashHeadSize } from '../ops/attention/flash-attention.ts';
import { groupNorm } from '../ops/norm/group-norm.ts';
import { layerNorm } from '../ops/norm/layer-norm.ts';
import { maskRows, zeroRows } from '../ops/mask.ts';
import { weightNorm } from '../ops/norm/weight-norm.ts';
import type { MGFConfig } from './config.ts';

/** Frames of `samples` samples: floor((n - k) / s) + 1, layer by layer. 0 where a window does not fit. */
export function framesOf(samples: number, config: Pick<MGFConfig, 'conv_kernel' | 'conv_stride'>): number {
  checkFields('framesOf', 'config.', config, { conv_kernel: 'a list', conv_stride: 'a list' });
  const { conv_kernel, conv_stride } = config;
  checkArguments('framesOf', { samples: [samples, 'a number'] });
  return conv_kernel.reduce((n, k, i) => (n < k ? 0 : Math.floor((n - k) / conv_stride[i]!) + 1), samples);
}

export interface NetworkInputs {
  /** [R, L] waveforms at 16 kHz, normalised per crop. */
  readonly wave: Value;
  /** [R, T, 4 n_mels] log-mel pairs, for the mel front end (src/ops/log-mel.ts). */
  readonly mel: Value | null;
  /** [R, T] f32, 1 = real frame; null when no row is padded. */
  readonly frameMask: Value | null;
  /** [R, T] f32, 1 = replaced by the learned vector; null outside pre-training. */
  readonly spanMask: Value | null;
}

/** The tensors that a network leaves to its losses and heads. R rows, T frames. */
export interface NetworkOutputs {
  /** [R, T, C] front end output. */
  readonly z: Value;
  /** [R, T, C] the same, normalised: targets of the phoneme scale. */
  readonly zn: Value;
  /**
   * [R, T, D], n + 1 of them: input of the first layer, then each layer's output; with pre-LN the last one is
   * normalised.
   */
  readonly states: readonly Value[];
}

/**
 * Whether attention over `rows` rows of `frames` frames should keep no scores: on GPUs, and wherever the
 * scores would be larger than one binding may be. On software adapters kept scores are faster at every length
 * (kernels/README.md).
 */
export function wantsFlash(c: MGFConfig, adapter: AdapterProfile, rows: number, frames: number): boolean {
  const { hidden_size: D, num_attention_heads: heads } = c;
  const scores = 4 * rows * heads * frames * Math.ceil(frames / 4) * 4;
  return (
    flashHeadSize(D / heads) &&
    ((adapter.kind === 'gpu' && adapter.family === 'gpu') ||
      scores > adapter.limits.maxStorageBufferBindingSize)
  );
}

/**
 * MGF's encoder: front end, projection, masking, positions, transformer. `training` turns dropout on; for
 * `flash` see `wantsFlash`.
 */
export function encoder(
  c: MGFConfig,
  w: Weights,
  inputs: NetworkInputs,
  training: boolean,
  flash: boolean,
): NetworkOutputs {
  const { graph } = inputs.wave;
  const { frameMask } = inputs;
  const hidden = training ? c.hidden_dropout : 0;
  const z = graph.scope('feature_extractor', () =>
    c.frontend === 'mel'
      ? melFrontEnd(c, w.at('feature_extractor'), inputs.mel!, frameMask)
      : waveFrontEnd(c, w.at('feature_extractor'), inputs.wave),
  );
  const { zn, h: projected } = graph.scope('feature_projection', () => {
    const normalised = norm(w.at('feature_projection.layer_norm'), z, c.layer_norm_eps);
    return {
      zn: normalised,
      h: dropout(dense(w.at('feature_projection.projection'), normalised), { p: hidden }),
    };
  });
  return graph.scope('encoder', () => {
    let h = inputs.spanMask ? maskRows(projected, w.get('masked_spec_embed'), inputs.spanMask) : projected;
    if (frameMask) h = zeroRows(h, frameMask);
    h = add(
      h,
      graph.scope('pos_conv_embed', () => positions(c, w.at('encoder.pos_conv_embed'), h, frameMask)),
    );
    const last = w.at('encoder.layer_norm');
    if (!c.do_stable_layer_norm) h = norm(last, h, c.layer_norm_eps);
    const states = [dropout(h, { p: hidden })];
    for (let i = 0; i < c.num_hidden_layers; i++) {
      states.push(
        graph.scope(`layers.${i}`, () =>
          transformerLayer(w.at('encoder.layers', i), states.at(-1)!, {
            heads: c.num_attention_heads,
            eps: c.layer_norm_eps,
            stable: c.do_stable_layer_norm,
            keyMask: frameMask,
            hiddenDropout: hidden,
            attentionDropout: training ? c.attention_dropout : 0,
            flash,
          }),
        ),
      );
    }
    if (c.do_stable_layer_norm) states.push(norm(last, states.pop()!, c.layer_norm_eps));
    return { z, zn, states };
  });
}

/** Seven strided convolutions, each with its norm and GELU. wave [R, L] -> [R, T, C]. */
function waveFrontEnd(c: MGFConfig, w: Weights, wave: Value): Value {
  let x = reshape(wave, [...wave.shape, 1]);
  c.conv_kernel.forEach((_, i) => {
    const layer = w.at('conv_layers', i);
    const affine = layer.at('layer_norm');
    x = conv1d(x, layer.get('conv.weight'), c.conv_bias ? layer.get('conv.bias') : null, {
      stride: c.conv_stride[i]!,
    });
    if (c.feat_extract_norm === 'layer') x = norm(affine, x, c.layer_norm_eps, 'gelu');
    else if (i === 0)
      x = groupNorm(x, affine.get('weight'), affine.get('bias'), {
        groups: c.conv_dim[0]!,
        eps: c.layer_norm_eps,
        activation: 'gelu',
      });
    else x = gelu(x);
  });
  return x;
}

/**
 * Two same-padded convolutions on log-mel pairs; padded frames are zeroed before each. mel [R, T, 4 n_mels]
 * -> [R, T, C].
 */
function melFrontEnd(c: MGFConfig, w: Weights, mel: Value, frameMask: Value | null): Value {
  let x = mel;
  for (const layer of [w.at('mel_layers', 0), w.at('mel_layers', 1)]) {
    if (frameMask) x = zeroRows(x, frameMask);
    x = norm(
      layer.at('layer_norm'),
      conv1d(x, layer.get('conv.weight'), layer.get('conv.bias'), { padding: 1 }),
      c.layer_norm_eps,
      'gelu',
    );
  }
  return x;
}

/**
 * Convolutional positions: one weight-normed convolution (wav2vec 2.0) or a stack with norms (data2vec),
 * padded frames zeroed before every one.
 */
function positions(c: MGFConfig, w: Weights, h: Value, frameMask: Value | null): Value {
  const k = c.num_conv_pos_embeddings;
  const options = { padding: Math.floor(k / 2), groups: c.num_conv_pos_embedding_groups };
  if (c.conv_pos_depth === 1) {
    const weight = weightNorm(w.get('conv.weight_v'), w.get('conv.weight_g'));
    return gelu(conv1d(h, weight, w.get('conv.bias'), { ...options, trim: Number(k % 2 === 0) }));
  }
  let x = h;
  for (let i = 0; i < c.conv_pos_depth; i++) {
    if (frameMask && i > 0) x = zeroRows(x, frameMask); // h itself has been zeroed by the caller
    x = layerNorm(
      conv1d(x, w.get(`layers.${i}.conv.weight`), w.get(`layers.${i}.conv.bias`), options),
      null,
      null,
      { eps: 1e-5, activation: 'gelu' },
    );
  }
  return x;
}
