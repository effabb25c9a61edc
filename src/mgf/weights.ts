import { Purpose, WEIGHTS_STEP } from '../random/purposes.ts';
import { stream, type RandomStream } from '../random/stream.ts';
import { checkArguments, CONFIG } from '../check.ts';
import { elements, type Shape } from '../graph/shape.ts';
import type { HostTensor, ParameterSpec } from '../plan/parameters.ts';
import type { MGFConfig, Scale } from './config.ts';

/**
 * How a tensor starts: constants, N(0, std), U(-bound, bound), U(0, 1), or the norms of another tensor per
 * tap (weight norm's g).
 */
export type Init =
  { constant: number } | { normal: number } | { uniform: number } | { unit: true } | { normOf: string };

/** A parameter of MGF: what the engine needs to know, and how it starts. `init` has one entry a part. */
export interface MGFParameter extends ParameterSpec {
  readonly init: readonly Init[];
}

/** Kernels and strides of the sample decoder: 4 * 4 * 4 * 5 = 320 samples a frame. */
export const DECODER = [
  { kernel: 8, stride: 4 },
  { kernel: 8, stride: 4 },
  { kernel: 8, stride: 4 },
  { kernel: 9, stride: 5 },
] as const;

/** Channels of the sample decoder: C, C/2, C/4, C/8, C/16 (at least 1). */
export const decoderChannels = (C: number): number[] => [
  C,
  Math.floor(C / 2),
  Math.floor(C / 4),
  Math.floor(C / 8),
  Math.max(1, Math.floor(C / 16)),
];

/**
 * Mean and standard deviation of a log-mel bin in crops of speech of unit variance, in nats, averaged over
 * bins: where their predictions start.
 */
const SPEECH_LEVEL = [0.4, 3.25] as const;

/**
 * Every parameter of a network, under wav2vec 2.0's names (`heads.*` are MGF's own), with PyTorch's default
 * or wav2vec 2.0's initialisation. `scales`: the losses whose heads exist; none for an encoder alone.
 */
export function mgfParameters(c: MGFConfig, scales: readonly Scale[]): MGFParameter[] {
  checkArguments('mgfParameters', { config: [c, CONFIG], scales: [scales, 'a list'] });
  const list: MGFParameter[] = [];
  const plain = (name: string, shape: Shape, init: Init, decay = true): void => {
    list.push({ name, parts: [{ name, shape }], init: [init], decay });
  };
  const conv = (name: string, shape: Shape, init: Init): void => {
    list.push({ name, parts: [{ name, shape }], init: [init], decay: true, swap: true });
  };
  const vector = (name: string, n: number, init: Init = { constant: 0 }): void =>
    plain(name, [n], init, false);
  const norm = (name: string, n: number): void => {
    vector(`${name}.weight`, n, { constant: 1 });
    vector(`${name}.bias`, n);
  };
  const dense = (name: string, out: number, input: number): void => {
    plain(`${name}.weight`, [out, input], { normal: 0.02 });
    vector(`${name}.bias`, out);
  };
  /** PyTorch's default for convolutions: U(+-1 / sqrt(fan in)) for weight and bias. */
  const convDefault = (name: string, shape: readonly [number, number, number], outputs = shape[0]): void => {
    const bound = { uniform: 1 / Math.sqrt(shape[1] * shape[2]) };
    conv(`${name}.weight`, shape, bound);
    vector(`${name}.bias`, outputs, bound);
  };

  const C = c.conv_dim.at(-1)!;
  const D = c.hidden_size;
  const front = 'feature_extractor';
  if (c.frontend === 'mel') {
    [4 * c.n_mels, C].forEach((input, i) => {
      convDefault(`${front}.mel_layers.${i}.conv`, [C, input, 3]);
      norm(`${front}.mel_layers.${i}.layer_norm`, C);
    });
  } else {
    c.conv_dim.forEach((out, i) => {
      const input = i ? c.conv_dim[i - 1]! : 1;
      const k = c.conv_kernel[i]!;
      const name = `${front}.conv_layers.${i}`;
      conv(`${name}.conv.weight`, [out, input, k], { normal: Math.sqrt(2 / (input * k)) });
      if (c.conv_bias) vector(`${name}.conv.bias`, out, { uniform: 1 / Math.sqrt(input * k) });
      if (c.feat_extract_norm === 'layer' || i === 0) norm(`${name}.layer_norm`, out);
    });
  }
  norm('feature_projection.layer_norm', C);
  dense('feature_projection.projection', D, C);
  vector('masked_spec_embed', D, { unit: true });

  const k = c.num_conv_pos_embeddings;
  const perGroup = D / c.num_conv_pos_embedding_groups;
  const positions = 'encoder.pos_conv_embed';
  if (c.conv_pos_depth === 1) {
    conv(`${positions}.conv.weight_v`, [D, perGroup, k], { normal: 2 * Math.sqrt(1 / (k * D)) });
    list.push({
      name: `${positions}.conv.weight_g`,
      parts: [{ name: `${positions}.conv.weight_g`, shape: [1, 1, k] }],
      init: [{ normOf: `${positions}.conv.weight_v` }],
      decay: false,
      swap: true,
    });
    vector(`${positions}.conv.bias`, D);
  } else {
    for (let i = 0; i < c.conv_pos_depth; i++) convDefault(`${positions}.layers.${i}.conv`, [D, perGroup, k]);
  }
  norm('encoder.layer_norm', D);
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const name = `encoder.layers.${i}`;
    const projections = ['q_proj', 'k_proj', 'v_proj'];
    list.push({
      name: `${name}.attention.qkv_proj.weight`,
      decay: true,
      init: projections.map(() => ({ normal: 0.02 })),
      parts: projections.map((p) => ({ name: `${name}.attention.${p}.weight`, shape: [D, D] })),
    });
    list.push({
      name: `${name}.attention.qkv_proj.bias`,
      decay: false,
      init: projections.map(() => ({ constant: 0 })),
      parts: projections.map((p) => ({ name: `${name}.attention.${p}.bias`, shape: [D] })),
    });
    dense(`${name}.attention.out_proj`, D, D);
    norm(`${name}.layer_norm`, D);
    dense(`${name}.feed_forward.intermediate_dense`, c.intermediate_size, D);
    dense(`${name}.feed_forward.output_dense`, D, c.intermediate_size);
    norm(`${name}.final_layer_norm`, D);
  }

  if (scales.includes('sample')) {
    const channels = decoderChannels(C);
    DECODER.forEach(({ kernel }, i) =>
      convDefault(`heads.sample.convs.${i}`, [channels[i]!, channels[i + 1]!, kernel], channels[i + 1]!),
    );
    convDefault('heads.sample.out', [1, channels[4]!, 7]);
  }
  if (scales.includes('frame')) {
    const width = c.attach.frame === 'z' ? C : D;
    dense('heads.frame.dense', width, width);
    norm('heads.frame.layer_norm', width);
    if (c.objectives.frame === 'info_nce') {
      dense('heads.frame.project_context', c.proj_dim, width);
      dense('heads.frame.project_target', c.proj_dim, 2 * c.n_mels);
    } else dense('heads.frame.out', 2 * c.n_mels, width);
  }
  if (scales.includes('phoneme') && c.objectives.phoneme === 'l1') {
    dense('heads.phoneme.dense', D, D);
    norm('heads.phoneme.layer_norm', D);
    dense('heads.phoneme.out', 2 * c.n_mels, D);
  } else if (scales.includes('phoneme')) {
    dense('heads.phoneme.project_context', c.proj_dim, D);
    dense('heads.phoneme.project_target', c.proj_dim, C);
  }
  if (scales.includes('sentence')) {
    dense('heads.sentence.dense', D, D);
    if (c.objectives.sentence === 'l1') {
      const parts = (what: string, shape: Shape) =>
        ['mean', 'deviation'].map((s) => ({ name: `heads.sentence.${s}.${what}`, shape }));
      list.push({
        name: 'heads.sentence.statistics.weight',
        decay: true,
        parts: parts('weight', [c.n_mels, D]),
        init: [{ normal: 0.02 }, { normal: 0.02 }],
      });
      list.push({
        name: 'heads.sentence.statistics.bias',
        decay: false,
        parts: parts('bias', [c.n_mels]),
        init: SPEECH_LEVEL.map((constant) => ({ constant })),
      });
    } else dense('heads.sentence.out', c.proj_dim, D);
  }
  return list;
}

/**
 * Starting values by checkpoint name; each tensor is a function of the seed and its name alone, so that
 * switching a loss off changes no other tensor.
 */
export function initialValues(parameters: readonly MGFParameter[], seed: number): Map<string, HostTensor> {
  checkArguments('initialValues', { parameters: [parameters, 'a list'], seed: [seed, 'a number'] });
  const tensors = new Map<string, HostTensor>();
  for (const { parts, init } of parameters) {
    parts.forEach(({ name, shape }, i) =>
      tensors.set(name, {
        shape,
        data: draw(
          init[i]!,
          shape,
          stream(seed, Purpose.Dropout, { step: WEIGHTS_STEP, row: hash(name) }),
          tensors,
        ),
      }),
    );
  }
  return tensors;
}

function draw(
  init: Init,
  shape: Shape,
  random: RandomStream,
  tensors: ReadonlyMap<string, HostTensor>,
): Float32Array<ArrayBuffer> {
  const data = new Float32Array(elements(shape));
  if ('constant' in init) return data.fill(init.constant);
  if ('uniform' in init) return data.map(() => init.uniform * (2 * random.uniform() - 1));
  if ('unit' in init) return data.map(() => random.uniform());
  if ('normal' in init) return data.map(() => init.normal * normal(random));
  const v = tensors.get(init.normOf)!;
  const taps = v.shape[2]!;
  v.data.forEach((x, i) => {
    data[i % taps]! += x * x;
  });
  return data.map(Math.sqrt);
}

/** Box and Muller's method, one value a pair of draws. */
const normal = (random: RandomStream): number =>
  Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}
