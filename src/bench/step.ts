/** Whole pre-training steps of the presets on made-up speech: they need no recordings, and the shapes are those of real ones. */
import { randomStream } from '../audio/random.ts';
import { anchorCapacity, fixedNegatives, normaliseCrop, spanMask } from '../audio/sampling.ts';
import type { Batch } from '../audio/source.ts';
import { elements } from '../graph/graph.ts';
import type { Gpu, Precision } from '../gpu/device.ts';
import { SCALES, type RunConfig } from '../mgf/config.ts';
import { framesOf } from '../mgf/network.ts';
import { presetRunConfig } from '../mgf/presets.ts';
import { Pretrainer } from '../mgf/pretrainer.ts';
import { mgfParameters } from '../mgf/weights.ts';
import type { PlannedDispatch } from '../plan/program.ts';
import { profileProgram, type Profile } from './profile.ts';
import { uniforms, workloadOf } from './workloads.ts';

export const STEP_NAMES = ['tiny-step', 'small-step', 'base-step'] as const;
export type StepName = (typeof STEP_NAMES)[number];

/** Utterances (two crops each) and seconds a crop. On a GPU the preset's own batch, in software one that takes seconds rather than minutes. */
const SOFTWARE_BATCH: Readonly<Record<StepName, readonly [number, number]>> = { 'tiny-step': [4, 1.92], 'small-step': [2, 1.92], 'base-step': [2, 0.96] };

/** The configuration that a step is measured with: one micro-batch, forward, backward and update. */
export function stepConfig(name: StepName, kind: 'cpu' | 'gpu', precision: Precision = 'f32'): RunConfig {
  const run = presetRunConfig(name.slice(0, -'-step'.length), { train: { accumulation: 1, precision } });
  if (kind === 'gpu') return run;
  const [utterances, seconds] = SOFTWARE_BATCH[name];
  return { ...run, train: { ...run.train, utterances_per_batch: utterances, crop_seconds: seconds } };
}

/** `4 x 2 x 1.92 s`. */
export const describeBatch = ({ train }: RunConfig): string => `${train.utterances_per_batch} x 2 x ${train.crop_seconds} s`;

/** What a step will take, before anything is allocated: FLOPs of front end and transformer, and bytes. */
export function estimateStep({ mgf: c, train }: RunConfig): { flops: number; bytes: number } {
  const rows = 2 * train.utterances_per_batch, samples = Math.round(train.crop_seconds * c.sample_rate);
  let length = samples, flops = 0;
  c.conv_dim.forEach((width, i) => {
    const input = i ? c.conv_dim[i - 1]! : 1, conv = workloadOf('', { op: 'conv1d', B: rows, L: length, Cin: input, Cout: width, K: c.conv_kernel[i]!, stride: c.conv_stride[i]! }, true);
    flops += conv.flops;
    length = Math.floor((length - c.conv_kernel[i]!) / c.conv_stride[i]!) + 1;
  });
  flops += c.num_hidden_layers * workloadOf('', { op: 'transformer_layer', B: rows, T: length, D: c.hidden_size, H: c.num_attention_heads, F: c.intermediate_size }, true).flops;
  const parameters = mgfParameters(c, SCALES).flatMap((p) => p.parts).reduce((sum, p) => sum + elements(p.shape), 0);
  // Values, gradients, two moments, and the starting values on the host; activations: about a dozen tensors of the front end's first output.
  return { flops, bytes: 24 * parameters + 12 * 4 * rows * (samples / 5) * c.conv_dim[0]! };
}

/** Something with the rhythm of speech: gliding harmonics in syllables, a voice per seed. */
function speechLike(samples: number, seed: number): Float32Array<ArrayBuffer> {
  const next = uniforms(seed), pitch = 90 + 150 * next(), x = new Float32Array(samples);
  let phase = 0;
  for (let i = 0; i < samples; i++) {
    const t = i / 16000, syllable = Math.max(0, Math.sin(2 * Math.PI * (3 + (seed % 3)) * t));
    phase += (2 * Math.PI * pitch * (1 + 0.2 * Math.sin(5 * t + seed))) / 16000;
    for (let h = 1; h <= 6; h++) x[i]! += (syllable * Math.sin(h * phase)) / (h * (1 + ((h * seed) % 3)));
    x[i]! += 0.02 * (next() - 0.5);
  }
  return x;
}

/** A batch as the loader makes them. */
export function syntheticBatch({ mgf, train }: RunConfig, seed: number): Batch {
  const B = train.utterances_per_batch, R = 2 * B, L = Math.round(train.crop_seconds * mgf.sample_rate), T = framesOf(L, mgf), wave = new Float32Array(R * L);
  for (let b = 0; b < B; b++) {
    const both = speechLike(2 * L, 100 * seed + b);
    for (const half of [0, 1]) wave.set(normaliseCrop(both.subarray(half * L, (half + 1) * L)), (b + half * B) * L);
  }
  const config = { probability: mgf.mask_time_prob, length: mgf.mask_time_length, minMasks: mgf.mask_time_min_masks }, random = randomStream(seed, 0, 0, 77);
  const rows = Array.from({ length: R }, () => spanMask(T, T, config, random)), mask = new Int32Array(R * T);
  rows.forEach((row, r) => mask.set(row, r * T));
  const drawn = fixedNegatives(rows, mgf.num_negatives, anchorCapacity(R, T, config), randomStream(seed, 0, 0, 78));
  return {
    step: 0, wave, mask, anchor: drawn.anchor, negatives: drawn.negatives, anchorWeight: drawn.weight, maskedFrames: drawn.count,
    utterances: Array.from({ length: B }, (_, b) => `voice ${b}`),
  };
}

export interface StepRun { readonly ms: number; /** Until everything was submitted: upload, encoding, submission. */ readonly hostMs: number; readonly loss: number }

/** A compiled step, ready to be run again and again. */
export interface OpenStep {
  readonly run: RunConfig;
  readonly info: Pretrainer['info'];
  readonly dispatches: readonly PlannedDispatch[];
  /** Bytes of parameters, gradients, moments and activations on the device. */
  readonly deviceBytes: number;
  /** One optimiser update on batch `i` of two, in turns. */
  step(i: number): Promise<StepRun>;
  /** Null when the step computes what it must; otherwise what is wrong. */
  check(): Promise<string | null>;
  profile(): Promise<Profile>;
  destroy(): void;
}

/** Compiles the step of a preset. Throws as Pretrainer.create does. */
export async function openStep(gpu: Gpu, run: RunConfig): Promise<OpenStep> {
  const pretrainer = await Pretrainer.create(gpu, run), batches = [1, 2].map((seed) => syntheticBatch(run, seed)), { info, program } = pretrainer;
  const metrics = (i: number, learningRate: number, step: number) => pretrainer.step([batches[i % 2]!], { step, learningRate });
  let count = 0;
  return {
    run, info, dispatches: program.dispatches, deviceBytes: info.activationBytes + 16 * info.parameters,
    async step(i) {
      const started = performance.now(), pending = metrics(i, 1e-5, count++), hostMs = performance.now() - started, { total } = await pending;
      return { ms: performance.now() - started, hostMs, loss: total };
    },
    async check() {
      program.poison();
      const { skipped: _, extra, ...first } = await metrics(0, 0, 0), values = Object.entries({ ...first, ...extra });
      const inactive = SCALES.filter((s) => run.mgf.loss_weights[s] === 0) as string[];
      const bad = values.find(([name, value]) => !Number.isFinite(value) && !inactive.includes(name));
      if (bad) return `${bad[0]} is ${String(bad[1])}`;
      program.poison();
      const again = await metrics(0, 1e-4, 0);
      if (again.total !== first.total || again.gradNorm !== first.gradNorm) return `the same step gave a loss of ${first.total} and then ${again.total}`;
      // The dropout of a step follows from its number: the same loss, one small update further down.
      const after = await metrics(0, 0, 0);
      return after.total < first.total ? null : `an update along the gradient moved the loss from ${first.total} to ${after.total}`;
    },
    profile: () => profileProgram(gpu, program),
    destroy: () => pretrainer.destroy(),
  };
}
