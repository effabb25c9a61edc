import { permutation, randomStream, type RandomStream } from '../../src/random/stream.ts';
import { fixedNegatives, frameCount, SAMPLE_RATE } from '../../src/audio/sampling.ts';
import type { Gpu } from '../../src/gpu/device.ts';
import { elements } from '../../src/graph/shape.ts';
import { Graph, type Value } from '../../src/graph/graph.ts';
import { Weights } from '../../src/nn/weights.ts';
import { gelu } from '../../src/ops/activation.ts';
import { addRows } from '../../src/ops/add-rows.ts';
import { selfAttention } from '../../src/ops/attention/attention.ts';
import { conv1d } from '../../src/ops/conv/conv.ts';
import { reshape } from '../../src/ops/elementwise.ts';
import { vectorJacobianProduct } from '../../src/ops/grad.ts';
import { maskedInfoNCE } from '../../src/ops/losses/info-nce.ts';
import { maskRows } from '../../src/ops/mask.ts';
import { adamw, biasCorrections } from '../../src/optim/adamw.ts';
import { dense, norm } from '../../src/nn/layers.ts';
import { compile } from '../../src/plan/compile.ts';
import { ParameterStore, type ParameterSpec } from '../../src/plan/parameters.ts';
import type { Program } from '../../src/plan/program.ts';
import type { Region } from '../../src/plan/storage.ts';
import type { HostTensor, HostTensors, Work } from './contract.ts';

/**
 * A whole optimisation step of a small raw-waveform model, the same for every engine that is compared (names
 * and layouts as in PyTorch):
 *
 *   z = LayerNorm(GELU(conv) x 7) ext.convs.<i>.weight [64, 1 or 64, k], ext.norm: wav [B, L] -> [B, T, 64],
 *   T = 99 for 2 s
 *   x = where(mask, mask_emb, inp(z)) + pos[:T] [B, T, 128]
 *   4 pre-norm transformer blocks: x += proj(attention(qkv(n1(x)), 4 heads)); x += f2(GELU(f1(n2(x))))
 *   blocks.<i>.{n1, qkv, proj, n2, f1, f2}
 *   c = out(norm(x)), t = tgt(z), both seen as [B T, 128]
 *   loss = mean over anchors of the cross-entropy of cosine(c[anchor], t[anchor]) / 0.1 against
 *   cosine(c[anchor], t[negatives]) / 0.1
 *   AdamW on every parameter: lr 5e-4, betas 0.9 and 0.98, eps 1e-8, decoupled decay 0.01, no clipping.
 *
 * GELU is the erf form, eps of the norms 1e-5, no dropout.
 */
export const TORCH_STEP = {
  channels: 64,
  kernels: [10, 3, 3, 3, 3, 2, 2],
  strides: [5, 2, 2, 2, 2, 2, 2],
  width: 128,
  layers: 4,
  heads: 4,
  hidden: 512,
  maxFrames: 512,
  negatives: 50,
  spanLength: 10,
  spanProbability: 0.065,
  temperature: 0.1,
  lr: 5e-4,
  betas: [0.9, 0.98],
  eps: 1e-8,
  weightDecay: 0.01,
} as const;

export type TorchStepWork = Extract<Work, { op: 'torch_step' }>;

/** The entries of a set that are data; all others are parameters. */
export const TORCH_STEP_DATA = ['wav', 'mask', 'anchor', 'negatives', 'weight'] as const;

/**
 * What one step reads. N = B * 6 * 10 at 2 s: as many frames as the spans can cover. Overlaps leave fewer,
 * and `weight` says which rows count.
 */
export interface TorchStepBatch {
  /** f32 [B, L], 16 kHz; the same at every step. */
  readonly wav: HostTensor;
  /** f32 [B, T], 1 = masked. */
  readonly mask: HostTensor;
  /**
   * i32 [N]: flat frames b * T + t. The first sum(weight) are the masked frames in order; the rest is filler.
   */
  readonly anchor: HostTensor;
  /** i32 [N, 50]: flat frames; other masked frames of the anchor's utterance. */
  readonly negatives: HostTensor;
  /** f32 [N]: 1 for the anchors that count, then 0. The loss is sum(weight * loss) / sum(weight). */
  readonly weight: HostTensor;
}

export interface TorchStepInputs {
  /** Frames of an utterance (T) and anchors of a step (N). */
  readonly frames: number;
  readonly anchors: number;
  /** By PyTorch's names, in PyTorch's layouts and initial distributions. */
  readonly parameters: HostTensors;
  batch(step: number): TorchStepBatch;
}

const tensor = (shape: readonly number[], data: HostTensor['data']): HostTensor => ({ shape, data });

/** Two normal numbers a draw (Box-Muller). */
function normal(n: number, scale: number, random: RandomStream): Float32Array<ArrayBuffer> {
  const x = new Float32Array(n);
  for (let i = 0; i < n; i += 2) {
    const r = scale * Math.sqrt(-2 * Math.log(1 - random.uniform()));
    const angle = 2 * Math.PI * random.uniform();
    x[i] = r * Math.cos(angle);
    if (i + 1 < n) x[i + 1] = r * Math.sin(angle);
  }
  return x;
}

/**
 * Every parameter in PyTorch's order: name, shape and how it starts (a uniform bound, a standard deviation,
 * or a constant).
 */
function parameterList(): {
  name: string;
  shape: number[];
  start: { uniform: number } | { normal: number } | { fill: number };
}[] {
  const { channels, width, hidden, kernels, layers, maxFrames } = TORCH_STEP;
  const layerNorm = (name: string, d: number): ReturnType<typeof parameterList> => [
    { name: `${name}.weight`, shape: [d], start: { fill: 1 } },
    { name: `${name}.bias`, shape: [d], start: { fill: 0 } },
  ];
  const linear = (name: string, into: number, out: number): ReturnType<typeof parameterList> => [
    { name: `${name}.weight`, shape: [out, into], start: { uniform: into ** -0.5 } },
    { name: `${name}.bias`, shape: [out], start: { uniform: into ** -0.5 } },
  ];
  return [
    { name: 'mask_emb', shape: [width], start: { normal: 0.1 } },
    { name: 'pos', shape: [maxFrames, width], start: { normal: 0.02 } },
    ...kernels.map((k, i) => ({
      name: `ext.convs.${i}.weight`,
      shape: [channels, i ? channels : 1, k],
      start: { uniform: (k * (i ? channels : 1)) ** -0.5 },
    })),
    ...layerNorm('ext.norm', channels),
    ...linear('inp', channels, width),
    ...Array.from({ length: layers }, (_, i) => `blocks.${i}`).flatMap((b) => [
      ...layerNorm(`${b}.n1`, width),
      ...layerNorm(`${b}.n2`, width),
      ...linear(`${b}.qkv`, width, 3 * width),
      ...linear(`${b}.proj`, width, width),
      ...linear(`${b}.f1`, width, hidden),
      ...linear(`${b}.f2`, hidden, width),
    ]),
    ...layerNorm('norm', width),
    ...linear('out', width, width),
    ...linear('tgt', channels, width),
  ];
}

/**
 * Parameters and data of every step as host arrays: a function of the seed and the sizes alone, for this
 * engine and those it is compared with.
 */
export function torchStepInputs(
  seed: number,
  { B, seconds }: Pick<TorchStepWork, 'B' | 'seconds'>,
): TorchStepInputs {
  const samples = Math.round(SAMPLE_RATE * seconds);
  const T = frameCount(samples);
  const { spanLength, spanProbability, negatives: K } = TORCH_STEP;
  const spans = Math.max(1, Math.floor(spanProbability * T + 0.5));
  const N = B * Math.min(spans * spanLength, T);
  const parameters: Record<string, HostTensor> = {};
  parameterList().forEach(({ name, shape, start }, i) => {
    const random = randomStream(seed, i, 0, 1);
    const n = elements(shape);
    const data =
      'normal' in start
        ? normal(n, start.normal, random)
        : Float32Array.from({ length: n }, () =>
            'fill' in start ? start.fill : (2 * random.uniform() - 1) * start.uniform,
          );
    parameters[name] = tensor(shape, data);
  });
  const wav = tensor([B, samples], normal(B * samples, 1, randomStream(seed, 0, 0, 2)));
  return {
    frames: T,
    anchors: N,
    parameters,
    batch(step) {
      const random = randomStream(seed, step, 0, 3);
      const mask = new Float32Array(B * T);
      const rows = Array.from({ length: B }, (_, b) => {
        const row = new Uint8Array(T);
        for (const start of permutation(T - spanLength, random, spans))
          row.fill(1, start, start + spanLength);
        mask.set(row, b * T);
        return row;
      });
      const drawn = fixedNegatives(rows, K, N, random);
      return {
        wav,
        mask: tensor([B, T], mask),
        anchor: tensor([N], Int32Array.from(drawn.anchor)),
        negatives: tensor([N, K], Int32Array.from(drawn.negatives)),
        weight: tensor([N], Float32Array.from(drawn.weight)),
      };
    },
  };
}

/**
 * The same as input sets of a benchmark arm: set i holds step i's data beside the parameters that training
 * starts from. A run on set i is one optimisation step on its data; parameters go on from run to run, and the
 * output `y` is the run's loss [1], before its update.
 */
export function torchStepSets(
  seed: number,
  work: Pick<TorchStepWork, 'B' | 'seconds'>,
  count: number,
): HostTensors[] {
  const { parameters, batch } = torchStepInputs(seed, work);
  return Array.from({ length: count }, (_, i) => ({ ...parameters, ...batch(i) }));
}

/** A step's result and cost. */
export interface TorchStepResult {
  readonly loss: number;
  /** Wall clock, from the call until the loss is on the host. */
  readonly ms: number;
  /** Of that, until the work was submitted: uploads, encoding, submission. */
  readonly encodeMs: number;
}

export interface TorchStep {
  /**
   * One optimisation step on the data of step i (counted from 0, for the moments' bias corrections too: take
   * steps in order).
   */
  step(i: number): Promise<TorchStepResult>;
  /**
   * Launches of a step, distinct pipelines among them, bytes of device memory (activations, parameters,
   * gradients, moments).
   */
  readonly dispatches: number;
  readonly pipelines: number;
  readonly bytes: number;
  readonly programs: readonly Program[];
  /** Parameters, or their last gradients, copied to the host by PyTorch's names. */
  save(what: 'values' | 'gradients'): ReturnType<ParameterStore['save']>;
  destroy(): void;
}

export interface TorchStepOptions {
  /** Default 8 and 2 s. */
  readonly B?: number;
  readonly seconds?: number;
  /** Default 1. */
  readonly seed?: number;
  /** Parameters and data; default `torchStepInputs(seed, { B, seconds })`. */
  readonly inputs?: TorchStepInputs;
}

const parameterSpecs = (): ParameterSpec[] =>
  parameterList().map(({ name, shape }) => ({
    name,
    parts: [{ name, shape }],
    swap: shape.length === 3,
    decay: true,
  }));

/** wav [B, L], mask [B, T], anchors -> loss [1]. `pos`: the rows of the position table that T frames use. */
function forward(w: Weights, pos: Value, inputs: Record<(typeof TORCH_STEP_DATA)[number], Value>): Value {
  const { strides, layers, heads, temperature } = TORCH_STEP;
  const { graph } = pos;
  const eps = 1e-5;
  const z = graph.scope('ext', () => {
    let x = reshape(inputs.wav, [...inputs.wav.shape, 1]);
    strides.forEach((stride, i) =>
      graph.scope(`convs.${i}`, () => {
        x = gelu(conv1d(x, w.get(`ext.convs.${i}.weight`), null, { stride }));
      }),
    );
    return norm(w.at('ext.norm'), x, eps);
  });
  let x = graph.scope('inp', () =>
    addRows(maskRows(dense(w.at('inp'), z), w.get('mask_emb'), inputs.mask), pos),
  );
  for (let i = 0; i < layers; i++) {
    const b = w.at('blocks', i);
    graph.scope(`blocks.${i}`, () => {
      x = dense(b.at('proj'), selfAttention(dense(b.at('qkv'), norm(b.at('n1'), x, eps)), heads), {
        residual: x,
      });
      x = dense(b.at('f2'), dense(b.at('f1'), norm(b.at('n2'), x, eps), { activation: 'gelu' }), {
        residual: x,
      });
    });
  }
  return graph.scope('loss', () => {
    const c = dense(w.at('out'), norm(w.at('norm'), x, eps));
    const t = dense(w.at('tgt'), z);
    return maskedInfoNCE(c, t, inputs.anchor, inputs.negatives, { temperature, weights: inputs.weight })[0];
  });
}

/** Compiles the step as one program: forward, backward and AdamW over flat buffers. Throws as `compile`. */
export async function buildTorchStep(gpu: Gpu, options: TorchStepOptions = {}): Promise<TorchStep> {
  const { B = 8, seconds = 2, seed = 1 } = options;
  const inputs = options.inputs ?? torchStepInputs(seed, { B, seconds });
  const { lr, betas, eps, weightDecay, width } = TORCH_STEP;
  const T = inputs.frames;
  const store = new ParameterStore(gpu, parameterSpecs(), 'training');
  store.load(
    new Map(
      Object.entries(inputs.parameters) as [
        string,
        { shape: readonly number[]; data: Float32Array<ArrayBuffer> },
      ][],
    ),
  );
  const graph = new Graph();
  const place = new Map<Value, Region>();
  const flat = (name: 'values' | 'gradients' | 'expAvg' | 'expAvgSq'): Value => {
    const value = graph.state(`all ${name}`, [store.length]);
    place.set(value, store.flat(name));
    return value;
  };
  const parameters = store.declare(graph);
  // Only the first T rows of the position table are read; the others' gradient stays 0.
  const pos = graph.state('pos[:T]', [T, width], { requiresGrad: true });
  const used = (r: Region): Region => ({ ...r, size: 4 * T * width });
  parameters.set('pos', pos);
  const region = (name: string, buffer?: 'gradients'): Region =>
    name === 'pos' ? used(store.region(name, buffer)) : store.region(name, buffer);
  for (const [name, value] of parameters) place.set(value, region(name));
  const first = inputs.batch(0);
  const data = Object.fromEntries(
    TORCH_STEP_DATA.map((name) => [
      name,
      graph.input(name, first[name].shape, first[name].data instanceof Int32Array ? 'i32' : 'f32'),
    ]),
  ) as Record<(typeof TORCH_STEP_DATA)[number], Value>;
  try {
    const loss = forward(new Weights(parameters), pos, data);
    const names = [...parameters.keys()];
    // The gradient of the loss by itself is a constant, not a launch that fills it in.
    const seed = graph.constant('d loss', loss.shape, Float32Array.of(1));
    vectorJacobianProduct(new Map([[loss, seed]]), [...parameters.values()]).forEach((g, i) =>
      place.set(g, region(names[i]!, 'gradients')),
    );
    graph.scope('optimiser', () =>
      adamw(flat('values'), flat('gradients'), flat('expAvg'), flat('expAvgSq'), {
        lr,
        betas,
        eps,
        weightDecay,
      }),
    );
    const program = await compile(gpu, graph, { place, outputs: { loss }, label: 'torch step' });
    let uploaded: HostTensor | null = null;
    return {
      async step(i) {
        const { wav, ...rest } = inputs.batch(i);
        const resident = uploaded === wav;
        uploaded = wav;
        const host = Object.fromEntries(
          Object.entries(resident ? rest : { wav, ...rest }).map(([name, t]) => [name, t.data]),
        );
        const scalars = biasCorrections(i + 1, betas);
        const started = performance.now();
        const running = program.step(host, scalars);
        const encodeMs = performance.now() - started;
        const loss = (await running)['loss']![0]!;
        return { loss, ms: performance.now() - started, encodeMs };
      },
      dispatches: program.dispatches.length,
      pipelines: new Set(program.dispatches.map((d) => d.pipeline)).size,
      bytes: program.bytes + 16 * store.length,
      programs: [program],
      save: (what) => store.save(what),
      destroy() {
        program.destroy();
        store.destroy();
      },
    };
  } catch (error) {
    store.destroy();
    throw error;
  }
}
