/**
 * Whole pre-training steps of the presets on made-up speech: they need no recordings, and the shapes are
 * those of real ones.
 */
import { syntheticBatch } from '../../src/mgf/synthetic-batch.ts';
import { elements } from '../../src/graph/shape.ts';
import type { Gpu, Precision } from '../../src/gpu/device.ts';
import { SCALES, type RunConfig } from '../../src/mgf/config.ts';
import { presetRunConfig } from '../../src/mgf/presets.ts';
import { Pretrainer } from '../../src/mgf/pretrainer.ts';
import { mgfParameters } from '../../src/mgf/weights.ts';
import type { PlannedDispatch } from '../../src/plan/program.ts';
import { profileProgram, type Profile } from '../../src/measure/profile.ts';
import { workloadOf } from './workloads.ts';

export const STEP_NAMES = ['tiny-step', 'small-step', 'base-step'] as const;
export type StepName = (typeof STEP_NAMES)[number];

/**
 * Utterances (two crops each) and seconds a crop. On a GPU the preset's own batch, in software one that takes
 * seconds rather than minutes.
 */
const SOFTWARE_BATCH: Readonly<Record<StepName, readonly [number, number]>> = {
  'tiny-step': [4, 1.92],
  'small-step': [2, 1.92],
  'base-step': [2, 0.96],
};

/** The configuration that a step is measured with: one micro-batch, forward, backward and update. */
export function stepConfig(name: StepName, kind: 'cpu' | 'gpu', precision: Precision = 'f32'): RunConfig {
  const run = presetRunConfig(name.slice(0, -'-step'.length), { train: { accumulation: 1, precision } });
  if (kind === 'gpu') return run;
  const [utterances, seconds] = SOFTWARE_BATCH[name];
  return { ...run, train: { ...run.train, utterances_per_batch: utterances, crop_seconds: seconds } };
}

/** `4 x 2 x 1.92 s`. */
export const describeBatch = ({ train }: RunConfig): string =>
  `${train.utterances_per_batch} x 2 x ${train.crop_seconds} s`;

/** What a step will take, before anything is allocated: FLOPs of front end and transformer, and bytes. */
export function estimateStep({ mgf: c, train }: RunConfig): { flops: number; bytes: number } {
  const rows = 2 * train.utterances_per_batch;
  const samples = Math.round(train.crop_seconds * c.sample_rate);
  let length = samples;
  let flops = 0;
  c.conv_dim.forEach((width, i) => {
    const input = i ? c.conv_dim[i - 1]! : 1;
    const conv = workloadOf(
      '',
      {
        op: 'conv1d',
        B: rows,
        L: length,
        Cin: input,
        Cout: width,
        K: c.conv_kernel[i]!,
        stride: c.conv_stride[i]!,
      },
      true,
    );
    flops += conv.flops;
    length = Math.floor((length - c.conv_kernel[i]!) / c.conv_stride[i]!) + 1;
  });
  flops +=
    c.num_hidden_layers *
    workloadOf(
      '',
      {
        op: 'transformer_layer',
        B: rows,
        T: length,
        D: c.hidden_size,
        H: c.num_attention_heads,
        F: c.intermediate_size,
      },
      true,
    ).flops;
  const parameters = mgfParameters(c, SCALES)
    .flatMap((p) => p.parts)
    .reduce((sum, p) => sum + elements(p.shape), 0);
  // Values, gradients, two moments, and the starting values on the host; activations: about a dozen tensors
  // of the front end's first output.
  return { flops, bytes: 24 * parameters + 12 * 4 * rows * (samples / 5) * c.conv_dim[0]! };
}

export interface StepRun {
  readonly ms: number;
  /** Until everything was submitted: upload, encoding, submission. */ readonly hostMs: number;
  readonly loss: number;
}

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
  const pretrainer = await Pretrainer.create(gpu, run);
  const batches = [1, 2].map((seed) => syntheticBatch(run, seed));
  const { info, program } = pretrainer;
  const metrics = (i: number, learningRate: number, step: number) =>
    pretrainer.step([batches[i % 2]!], { step, learningRate });
  let count = 0;
  return {
    run,
    info,
    dispatches: program.dispatches,
    deviceBytes: info.activationBytes + 16 * info.parameters,
    async step(i) {
      const started = performance.now();
      const pending = metrics(i, 1e-5, count++);
      const hostMs = performance.now() - started;
      const { total } = await pending;
      return { ms: performance.now() - started, hostMs, loss: total };
    },
    async check() {
      program.poison();
      const { skipped: _, extra, ...first } = await metrics(0, 0, 0);
      const values = Object.entries({ ...first, ...extra });
      const inactive = SCALES.filter((s) => run.mgf.loss_weights[s] === 0) as string[];
      const bad = values.find(([name, value]) => !Number.isFinite(value) && !inactive.includes(name));
      if (bad) return `${bad[0]} is ${String(bad[1])}`;
      program.poison();
      const again = await metrics(0, 1e-4, 0);
      if (again.total !== first.total || again.gradNorm !== first.gradNorm)
        return `the same step gave a loss of ${first.total} and then ${again.total}`;
      // The dropout of a step follows from its number: the same loss, one small update further down.
      const after = await metrics(0, 0, 0);
      return after.total < first.total
        ? null
        : `an update along the gradient moved the loss from ${first.total} to ${after.total}`;
    },
    profile: () => profileProgram(gpu, program),
    destroy: () => pretrainer.destroy(),
  };
}
