/**
 * What every runtime runs: the golden cases, a few training steps, a resumed run, embeddings by the model
 * that comes along. It asks for nothing that a browser lacks, imports the package as its users do, and tells
 * what it found as it goes, so that the last thing told is where a crash happened.
 */
import {
  anchorCapacity,
  Encoder,
  fixedNegatives,
  framesOf,
  normaliseCrop,
  parseConfig,
  presetRunConfig,
  Pretrainer,
  randomStream,
  readSafetensors,
  runCase,
  spanMask,
  toFloat32,
  type Batch,
  type Gpu,
  type MomentState,
  type RunConfig,
  type StepMetrics,
} from 'mgf-webgpu';

export interface SuiteOptions {
  readonly gpu: Gpu;
  /** Bytes of a file of this repository, by its path from the root. */
  readonly read: (path: string) => Promise<Uint8Array>;
  /** Paths of the golden cases. */
  readonly cases: readonly string[];
  /** Path of the network that embeds. */
  readonly model: string;
  readonly tell: (finding: Finding) => void;
}

/** What the suite tells, in this order; `case` once for each. */
export type Finding =
  | {
      readonly kind: 'device';
      readonly adapter: string;
      readonly runtime: string;
      readonly family: string;
      readonly subgroups: number;
      readonly features: readonly string[];
    }
  /**
   * First: with the weights brought to the device and everything compiled; then the median of 5 more.
   * `values`: the last hidden state, [frames, D].
   */
  | {
      readonly kind: 'embedding';
      readonly firstMs: number;
      readonly medianMs: number;
      readonly frames: number;
      readonly values: readonly number[];
    }
  /** Total loss of each step. */
  | { readonly kind: 'training'; readonly losses: readonly number[]; readonly problem: string | null }
  | { readonly kind: 'resume'; readonly problem: string | null }
  | { readonly kind: 'case'; readonly file: string; readonly problem: string | null }
  | { readonly kind: 'end' };

export async function runSuite({ gpu, read, cases, model, tell }: SuiteOptions): Promise<void> {
  const { profile } = gpu;
  tell({
    kind: 'device',
    adapter: profile.name,
    runtime: profile.runtime,
    family: profile.family,
    subgroups: profile.subgroupSize,
    features: [...profile.features].sort(),
  });
  tell({ kind: 'embedding', ...(await embedding(gpu, await read(model), model)) });
  await training(gpu, tell);
  for (const path of cases) {
    const file = path.slice(path.lastIndexOf('/') + 1);
    const { passed, failure, checks } = await runCase(gpu, await read(path), file);
    const wrong = checks
      .filter((c) => !c.passed)
      .map((c) => `${c.name} is off by ${c.error.toExponential(1)}, allowed ${c.tolerance.toExponential(1)}`);
    tell({
      kind: 'case',
      file,
      problem: passed ? null : (failure ?? (wrong.join('; ') || 'nothing was checked')),
    });
  }
  tell({ kind: 'end' });
}

// ------------------------------------------------------------------------------------------------ embeddings

const CLIP_SECONDS = 4;
const AGAIN = 5;

/**
 * A gliding voice in syllables, as 16-bit PCM over 2^15. Integers alone make it, so that it is the same to
 * the bit wherever it is made (the sines of two JavaScript engines are not).
 */
export function clip(samples = CLIP_SECONDS * 16000): Float32Array<ArrayBuffer> {
  const noise = randomStream(20);
  const triangle = (phase: number): number => Math.abs((phase & 0xffff) - 0x8000) - 0x4000; // -2^14 to 2^14
  let phase = 0;
  return Float32Array.from({ length: samples }, (_, n) => {
    phase = (phase + 500 + ((triangle(n * 9) * 200) >> 14)) >>> 0; // 500 / 2^16 of a period a sample: 122 Hz
    const syllable = Math.max(0, triangle(n * 17));
    const voice = triangle(phase) + (triangle(phase * 3) >> 1) + (triangle(phase * 7) >> 2);
    return (((voice * syllable) >> 14) + noise.below(256) - 128) / 2 ** 15;
  });
}

async function embedding(
  gpu: Gpu,
  bytes: Uint8Array,
  path: string,
): Promise<{ firstMs: number; medianMs: number; frames: number; values: number[] }> {
  const { metadata, tensors } = readSafetensors(bytes, { origin: path });
  const config = parseConfig(JSON.parse(metadata['config']!), { origin: path });
  const parameters = new Map(
    [...tensors].map(([name, t]) => [name, { shape: t.shape, data: toFloat32(t, name, path) }]),
  );
  const wave = clip();
  const times: number[] = [];
  const layers = [config.num_hidden_layers];
  const started = performance.now();
  const encoder = await Encoder.create(gpu, config, parameters);
  let [features] = await encoder.embed([wave], { layers });
  const firstMs = performance.now() - started;
  for (let i = 0; i < AGAIN; i++) {
    const from = performance.now();
    [features] = await encoder.embed([wave], { layers });
    times.push(performance.now() - from);
  }
  encoder.destroy();
  return {
    firstMs,
    medianMs: times.sort((a, b) => a - b)[AGAIN >> 1]!,
    frames: features!.frames,
    values: [...features!.layers[0]!],
  };
}

// -------------------------------------------------------------------------------------------------- training

const STEPS = 6;
const RESUME_AT = 3;
const LEARNING_RATE = 3e-3;

/**
 * Two runs of nano on one batch, all four losses and dropout on: one as it is, one that ends half way and
 * goes on from its state in a new Pretrainer.
 */
async function training(gpu: Gpu, tell: SuiteOptions['tell']): Promise<void> {
  const run = presetRunConfig('nano', { train: { crop_seconds: 1, utterances_per_batch: 2 } });
  const batch = batchOf(run);
  const steps = async (model: Pretrainer, from: number, to: number): Promise<StepMetrics[]> => {
    const metrics: StepMetrics[] = [];
    for (let step = from; step < to; step++)
      metrics.push(await model.step([batch], { step, learningRate: LEARNING_RATE }));
    return metrics;
  };
  const whole = await Pretrainer.create(gpu, run);
  const metrics = await steps(whole, 0, STEPS);
  const end = await whole.state();
  whole.destroy();
  const first = await Pretrainer.create(gpu, run);
  const before = await steps(first, 0, RESUME_AT);
  const state = await first.state();
  first.destroy();
  const losses = metrics.map((m) => m.total);
  tell({
    kind: 'training',
    losses,
    problem: lossProblem(metrics) ?? repeatProblem(before, metrics.slice(0, RESUME_AT)),
  });
  const second = await Pretrainer.create(gpu, run, { state });
  const after = await steps(second, RESUME_AT, STEPS);
  const resumed = await second.state();
  second.destroy();
  tell({
    kind: 'resume',
    problem: repeatProblem(after, metrics.slice(RESUME_AT)) ?? stateProblem(resumed, end),
  });
}

/** Two voices, two crops each. */
function batchOf({ mgf, train }: RunConfig): Batch {
  const B = train.utterances_per_batch;
  const R = 2 * B;
  const L = Math.round(train.crop_seconds * mgf.sample_rate);
  const T = framesOf(L, mgf);
  const random = randomStream(7);
  const wave = new Float32Array(R * L);
  const voice = clip(R * L);
  for (let r = 0; r < R; r++) wave.set(normaliseCrop(voice.subarray(r * L, (r + 1) * L)), r * L);
  const mask = {
    probability: mgf.mask_time_prob,
    length: mgf.mask_time_length,
    minMasks: mgf.mask_time_min_masks,
  };
  const rows = Array.from({ length: R }, () => spanMask(T, T, mask, random));
  const { anchor, negatives, weight, count } = fixedNegatives(
    rows,
    mgf.num_negatives,
    anchorCapacity(R, T, mask),
    random,
  );
  return {
    step: 0,
    wave,
    mask: Int32Array.from(rows.flatMap((row) => [...row])),
    anchor,
    negatives,
    anchorWeight: weight,
    maskedFrames: count,
    utterances: ['a', 'b'],
  };
}

/** Finite, all four scales, and lower at the end. */
export function lossProblem(
  metrics: readonly Pick<StepMetrics, 'total' | 'sample' | 'frame' | 'phoneme' | 'sentence' | 'gradNorm'>[],
): string | null {
  for (const [i, m] of metrics.entries()) {
    const wrong = (['total', 'sample', 'frame', 'phoneme', 'sentence', 'gradNorm'] as const).find(
      (name) => !Number.isFinite(m[name]),
    );
    if (wrong) return `${wrong} is ${m[wrong]} at step ${i}`;
  }
  const first = metrics[0]!.total;
  const last = metrics.at(-1)!.total;
  return last < first ? null : `the loss does not fall: ${first}, and ${last} after ${metrics.length} steps`;
}

function repeatProblem(got: readonly StepMetrics[], want: readonly StepMetrics[]): string | null {
  const i = want.findIndex(
    (m, k) => !Object.is(m.total, got[k]?.total) || !Object.is(m.gradNorm, got[k]?.gradNorm),
  );
  return i < 0
    ? null
    : `the loss of its step ${i} is ${got[i]?.total}, and ${want[i]!.total} in the other run`;
}

/** Null if both are equal to the bit. */
export function stateProblem(got: MomentState, want: MomentState): string | null {
  for (const part of ['parameters', 'expAvg', 'expAvgSq'] as const) {
    for (const [name, { data }] of want[part]) {
      const bits = (x: Float32Array<ArrayBuffer>): Uint32Array =>
        new Uint32Array(x.buffer, x.byteOffset, x.length);
      const a = bits(data);
      const found = got[part].get(name);
      if (found?.data.length !== data.length) return `${part} ${name} is missing or of another size`;
      const b = bits(found.data);
      const i = a.findIndex((x, k) => x !== b[k]);
      if (i >= 0)
        return `${part} ${name}[${i}] is ${found.data[i]}, and ${data[i]} in the run that did not stop`;
    }
  }
  return null;
}
