import type { Precision } from '../gpu/device.ts';

/** The four scales of MGF by name. */
export type Scale = 'sample' | 'frame' | 'phoneme' | 'sentence';
/** The four scales, smallest first. */
export const SCALES: readonly Scale[] = ['sample', 'frame', 'phoneme', 'sentence'];

/**
 * Where a loss reads: `'z'` is the front end's normalised output, 0 the input of the first layer, i the
 * output of layer i.
 */
export interface Attach {
  frame: 'z' | number;
  phoneme: number;
  sentence: number;
}

/**
 * What the three upper scales learn by. The defaults are MGF's; the others test its claim by giving a scale
 * the kind of target that it should not have.
 */
export interface Objectives {
  /** `l1`: predict the frame's log-mel pair. `info_nce`: tell it from those of other frames of the row. */
  frame: 'l1' | 'info_nce';
  /**
   * `info_nce`: tell the masked frame's z from those of other masked frames of the row. `l1`: predict the
   * masked frame's log-mel pair.
   */
  phoneme: 'info_nce' | 'l1';
  /**
   * `nt_xent`: tell the utterance's other crop from other utterances. `l1`: predict mean and standard
   * deviation of the crop's log-mel.
   */
  sentence: 'nt_xent' | 'l1';
}

/**
 * The network and its four losses. Names shared with Hugging Face's wav2vec 2.0 configuration mean the same
 * there.
 */
export interface MGFConfig {
  /** Hz. */
  sample_rate: number;
  /**
   * `conv`: seven strided convolutions on the waveform; `mel`: two convolutions on log-mel frames. Both give
   * 50 frames a second.
   */
  frontend: 'conv' | 'mel';
  /** Kernels and strides of the front end's convolutions; they set the frame count of both front ends. */
  conv_kernel: number[];
  conv_stride: number[];
  conv_bias: boolean;
  /** Output channels of each convolution; the last one, C, is the width of z. */
  conv_dim: number[];
  /**
   * `layer`: LayerNorm over channels after every convolution; `group`: one group per channel over time, after
   * the first only.
   */
  feat_extract_norm: 'layer' | 'group';
  /** true: pre-LN transformer with a final norm; false: post-LN. */
  do_stable_layer_norm: boolean;
  layer_norm_eps: number;
  /** Kernel of the convolutional positions, in frames. */
  num_conv_pos_embeddings: number;
  /** 1: one weight-normed convolution (wav2vec 2.0); more: a stack of that many (data2vec). */
  conv_pos_depth: number;
  num_conv_pos_embedding_groups: number;
  hidden_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  intermediate_size: number;
  /** Coverage of the masks before overlaps merge: 0.65 masks about half the frames. */
  mask_time_prob: number;
  /** Frames in a masked span. */
  mask_time_length: number;
  mask_time_min_masks: number;
  /** K of the phoneme scale's contrastive loss. */
  num_negatives: number;
  temperature: number;
  sentence_temperature: number;
  n_mels: number;
  /** Width of the vectors that the two contrastive losses compare. */
  proj_dim: number;
  loss_weights: Record<Scale, number>;
  /** The first step (0-based) at which a loss counts. */
  loss_start_steps: Record<Scale, number>;
  objectives: Objectives;
  attach: Attach;
  /** Losses beside MGF's four, by name (src/mgf/extra-losses.ts). */
  extra_losses: Record<string, ExtraLoss>;
  hidden_dropout: number;
  attention_dropout: number;
}

/** Weight, attachment and start of an extra loss. */
export interface ExtraLoss {
  weight: number;
  attach: 'z' | number;
  /** The first step (0-based) at which it counts. */
  start_step: number;
}

/** How the network is trained. */
export interface TrainConfig {
  seed: number;
  /** Optimiser steps in all; the schedule ends there. */
  steps: number;
  /** Wall-clock minutes in all; where set, it replaces `steps`. */
  minutes: number | null;
  /** B: utterances in a micro-batch; each gives two crops, so that a micro-batch has 2B rows. */
  utterances_per_batch: number;
  /** Length of a crop in seconds. */
  crop_seconds: number;
  /** Micro-batches whose gradients are summed before an optimiser step. */
  accumulation: number;
  /** Peak of the schedule. */
  learning_rate: number;
  /** Part of the run over which the rate rises. */
  warmup: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  /** The gradient's global norm is clipped to this. */
  max_grad_norm: number;
  /**
   * What matrix products multiply. f16 comes with a loss scale that follows the gradients' range; weights and
   * moments stay f32.
   */
  precision: Precision;
  /** Steps between lines of the log, and between checkpoints. */
  log_every: number;
  checkpoint_every: number;
  /** Newest checkpoints that are kept; older ones are deleted. */
  keep_last: number;
}

/** A whole run: the network and its training. */
export interface RunConfig {
  mgf: MGFConfig;
  train: TrainConfig;
}

/** Any of the fields, at every depth; lists are whole. */
export type DeepPartial<T> = {
  [K in keyof T]?: T[K] extends unknown[] ? T[K] : T[K] extends object ? DeepPartial<T[K]> : T[K];
};

/** What every preset shares. */
export const MGF_DEFAULTS = {
  sample_rate: 16000,
  frontend: 'conv',
  conv_kernel: [10, 3, 3, 3, 3, 2, 2],
  conv_stride: [5, 2, 2, 2, 2, 2, 2],
  conv_bias: false,
  feat_extract_norm: 'layer',
  do_stable_layer_norm: true,
  layer_norm_eps: 1e-5,
  num_conv_pos_embeddings: 19,
  conv_pos_depth: 5,
  mask_time_prob: 0.65,
  mask_time_length: 10,
  mask_time_min_masks: 2,
  num_negatives: 100,
  temperature: 0.1,
  sentence_temperature: 0.1,
  n_mels: 80,
  loss_weights: { sample: 1, frame: 1, phoneme: 1, sentence: 0.5 },
  loss_start_steps: { sample: 0, frame: 0, phoneme: 0, sentence: 0 },
  objectives: { frame: 'l1', phoneme: 'info_nce', sentence: 'nt_xent' },
  extra_losses: {},
  hidden_dropout: 0.1,
  attention_dropout: 0.1,
} satisfies DeepPartial<MGFConfig>;

export const TRAIN_DEFAULTS: Readonly<TrainConfig> = {
  seed: 1,
  steps: 10000,
  minutes: null,
  utterances_per_batch: 4,
  crop_seconds: 2.56,
  accumulation: 1,
  learning_rate: 5e-4,
  warmup: 0.08,
  betas: [0.9, 0.98],
  eps: 1e-6,
  weight_decay: 0.01,
  max_grad_norm: 5,
  precision: 'f32',
  log_every: 10,
  checkpoint_every: 500,
  keep_last: 2,
};

/**
 * Small scales read shallow states, large scales deep ones: z (or the middle layer with the mel front end),
 * the last layer, the middle layer.
 */
export function defaultAttach(layers: number, frontend: MGFConfig['frontend']): Attach {
  const middle = Math.ceil(layers / 2);
  return { frame: frontend === 'mel' ? middle : 'z', phoneme: layers, sentence: middle };
}

/** Samples that one frame sees. */
export function receptiveField(config: Pick<MGFConfig, 'conv_kernel' | 'conv_stride'>): number {
  let field = 1;
  let hop = 1;
  config.conv_kernel.forEach((k, i) => {
    field += (k - 1) * hop;
    hop *= config.conv_stride[i]!;
  });
  return field;
}
