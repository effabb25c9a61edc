import * as assert from 'uvu/assert';
import { anchorCapacity, fixedNegatives, normaliseCrop, spanMask } from '../src/audio/sampling.ts';
import { randomStream } from '../src/random/stream.ts';
import { MGFError, type ErrorCode } from '../src/errors.ts';
import { elements, type Shape } from '../src/graph/shape.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { framesOf } from '../src/mgf/network.ts';
import { vectorJacobianProduct } from '../src/ops/grad.ts';
import { compile } from '../src/plan/compile.ts';
import type { Batch } from '../src/audio/source.ts';
import type { Gpu } from '../src/gpu/device.ts';
import type { RunConfig } from '../src/mgf/config.ts';
import type { Region } from '../src/plan/storage.ts';

export type Floats = Float32Array<ArrayBuffer>;

/** Uniform numbers in [0, 1), a function of the seed. */
export function generator(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Deterministic numbers of unit variance, roughly normal. */
export function noise(n: number, seed: number, scale = 1): Floats {
  const next = generator(seed);
  return Float32Array.from({ length: n }, () => scale * (next() + next() + next() - 1.5) * 2);
}

/** ||got - want|| / ||want||; infinite where anything is not finite or lengths differ. */
export function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    error += (got[i]! - want[i]!) ** 2;
    norm += want[i]! ** 2;
  }
  return got.length === want.length && Number.isFinite(error)
    ? Math.sqrt(error) / (Math.sqrt(norm) || 1)
    : Infinity;
}

/** Storage for a state value, with contents. */
export function filled(gpu: Gpu, data: Floats | Int32Array<ArrayBuffer>): Region {
  const buffer = gpu.device.createBuffer({
    size: Math.max(16, Math.ceil(data.length / 4) * 16),
    usage: 0x80 | 0x4 | 0x8,
  });
  gpu.device.queue.writeBuffer(buffer, 0, data);
  return { buffer, offset: 0, size: buffer.size };
}

/** The same device under another kernel family. */
export const withFamily = (gpu: Gpu, family: 'cpu' | 'gpu'): Gpu => ({
  ...gpu,
  profile: { ...gpu.profile, family },
});

export interface Tensor {
  shape: Shape;
  data: Floats;
  /** No gradient is asked for. */ constant?: boolean;
}
export interface Case {
  inputs: Record<string, Tensor>;
  build: (inputs: Record<string, Value>) => Value;
  /** The same in float64. */
  reference: (inputs: Record<string, Float64Array>) => Float64Array;
  tolerance?: number;
  gradTolerance?: number;
  scalars?: Record<string, number>;
  /** Gradients are not asked for. */
  forwardOnly?: boolean;
}
export interface Result {
  y: Floats;
  up: Floats;
  gradients: Record<string, Floats>;
}

/** Runs a case on the device: output, and gradients of sum(up * y), everything poisoned before. */
export async function run(
  gpu: Gpu,
  name: string,
  { inputs, build, scalars, forwardOnly }: Omit<Case, 'reference'>,
): Promise<Result> {
  const graph = new Graph();
  const place = new Map<Value, Region>();
  const values = Object.fromEntries(
    Object.entries(inputs).map(([k, t]): [string, Value] => {
      if (t.constant) return [k, graph.constant(k, t.shape, t.data)];
      const value = graph.state(k, t.shape, { requiresGrad: true });
      place.set(value, filled(gpu, t.data));
      return [k, value];
    }),
  );
  const y = build(values);
  const up = noise(elements(y.shape), 99);
  const wanted = forwardOnly ? [] : Object.keys(inputs).filter((k) => !inputs[k]!.constant);
  const keep: Record<string, Value> = { y };
  if (wanted.length) {
    vectorJacobianProduct(
      new Map([[y, graph.constant('up', y.shape, up)]]),
      wanted.map((k) => values[k]!),
    ).forEach((g, i) => {
      keep[`d ${wanted[i]}`] = g;
    });
  }
  const program = await compile(gpu, graph, { keep, place, label: name });
  try {
    program.poison();
    await program.step({}, scalars);
    const gradients: Record<string, Floats> = {};
    for (const k of wanted) gradients[k] = (await program.read(`d ${k}`)) as Floats;
    return { y: (await program.read('y')) as Floats, up, gradients };
  } finally {
    program.destroy();
    for (const { buffer } of place.values()) buffer.destroy();
  }
}

/**
 * Forward against the float64 reference; gradients against its central differences along random directions.
 */
export async function check(gpu: Gpu, name: string, c: Case): Promise<void> {
  const result = await run(gpu, name, c);
  const f64 = Object.fromEntries(Object.entries(c.inputs).map(([k, t]) => [k, Float64Array.from(t.data)]));
  const error = distance(result.y, c.reference(f64));
  assert.ok(error <= (c.tolerance ?? 3e-6), `${name}: forward is off by ${error}`);
  const objective = (k: string, x: Float64Array): number =>
    c.reference({ ...f64, [k]: x }).reduce((sum, v, i) => sum + v * result.up[i]!, 0);
  for (const [k, got] of Object.entries(result.gradients)) {
    assert.ok(got.every(Number.isFinite), `${name}: gradient of ${k} has an element that nobody wrote`);
    const size = Math.sqrt(got.reduce((sum, g) => sum + g * g, 0));
    for (let seed = 0; seed < 3; seed++) {
      const direction = noise(got.length, 7 + seed);
      const h = 1e-5;
      const at = (sign: number): number =>
        objective(
          k,
          f64[k]!.map((v, i) => v + sign * h * direction[i]!),
        );
      const want = (at(1) - at(-1)) / (2 * h);
      const have = got.reduce((sum, g, i) => sum + g * direction[i]!, 0);
      assert.ok(
        Math.abs(have - want) <= (c.gradTolerance ?? 2e-5) * (size || 1),
        `${name}: gradient of ${k} along a direction is ${have}, not ${want} (norm ${size})`,
      );
    }
  }
}

/** The MGFError that `run` ends with: its code, and a message that matches every part. */
export async function failsWith(
  code: ErrorCode,
  parts: RegExp | readonly RegExp[],
  run: () => unknown,
): Promise<void> {
  try {
    await run();
  } catch (error) {
    assert.instance(error, MGFError, `not an MGFError: ${String(error)}`);
    assert.is((error as MGFError).code, code, (error as Error).message);
    for (const part of Array.isArray(parts) ? (parts as RegExp[]) : [parts as RegExp])
      assert.match((error as Error).message, part);
    return;
  }
  assert.unreachable('nothing was thrown');
}

/** Something with the rhythm of speech: gliding harmonics in syllables, a voice per utterance. */
export function speechLike(samples: number, seed: number): Floats {
  const next = generator(seed);
  const pitch = 90 + 150 * next();
  const x = new Float32Array(samples);
  let phase = 0;
  for (let i = 0; i < samples; i++) {
    const t = i / 16000;
    const syllable = Math.max(0, Math.sin(2 * Math.PI * (3 + (seed % 3)) * t));
    phase += (2 * Math.PI * pitch * (1 + 0.2 * Math.sin(5 * t + seed))) / 16000;
    for (let h = 1; h <= 6; h++) x[i]! += (syllable * Math.sin(h * phase)) / (h * (1 + ((h * seed) % 3)));
    x[i]! += 0.02 * (next() - 0.5);
  }
  return x;
}

/** A pre-training batch of made-up speech: row b and row B + b are two crops of one voice. */
export function speechBatch({ mgf, train }: RunConfig, seed = 1): Batch {
  const B = train.utterances_per_batch;
  const R = 2 * B;
  const L = Math.round(train.crop_seconds * mgf.sample_rate);
  const T = framesOf(L, mgf);
  const wave = new Float32Array(R * L);
  const random = randomStream(seed, 0, 0, 77);
  for (let b = 0; b < B; b++) {
    const both = speechLike(2 * L, seed * 100 + b);
    for (const half of [0, 1])
      wave.set(normaliseCrop(both.subarray(half * L, (half + 1) * L)), (b + half * B) * L);
  }
  const config = {
    probability: mgf.mask_time_prob,
    length: mgf.mask_time_length,
    minMasks: mgf.mask_time_min_masks,
  };
  const rows = Array.from({ length: R }, () => spanMask(T, T, config, random));
  return withNegatives({ wave, rows, T }, mgf.num_negatives, anchorCapacity(R, T, config), seed);
}

function withNegatives(
  { wave, rows, T }: { wave: Floats; rows: Uint8Array[]; T: number },
  K: number,
  capacity: number,
  seed: number,
): Batch {
  const drawn = fixedNegatives(rows, K, capacity, randomStream(seed, 0, 0, 78));
  const mask = new Int32Array(rows.length * T);
  rows.forEach((row, r) => mask.set(row, r * T));
  return {
    step: 0,
    wave,
    mask,
    anchor: drawn.anchor,
    negatives: drawn.negatives,
    anchorWeight: drawn.weight,
    maskedFrames: drawn.count,
    utterances: Array.from({ length: rows.length / 2 }, (_, b) => `made up ${b}`),
  };
}

/**
 * The utterances of a batch dealt to micro-batches of `size`, with the anchors and negatives that they had in
 * the whole.
 */
export function split(batch: Batch, size: number, { mgf, train }: RunConfig): Batch[] {
  const B = batch.utterances.length;
  const R = 2 * B;
  const T = batch.mask.length / R;
  const L = batch.wave.length / R;
  const K = batch.negatives.length / batch.anchor.length;
  const config = {
    probability: mgf.mask_time_prob,
    length: mgf.mask_time_length,
    minMasks: mgf.mask_time_min_masks,
  };
  const capacity = anchorCapacity(
    2 * size,
    framesOf(Math.round(train.crop_seconds * mgf.sample_rate), mgf),
    config,
  );
  return Array.from({ length: B / size }, (_, m): Batch => {
    const rows = [0, B].flatMap((base) => Array.from({ length: size }, (_, b) => base + m * size + b));
    const take = <A extends Float32Array | Int32Array>(x: A, width: number): A => {
      const out = new (x.constructor as new (n: number) => A)(rows.length * width);
      rows.forEach((r, i) => out.set(x.subarray(r * width, (r + 1) * width), i * width));
      return out;
    };
    const moved = (frame: number): number => rows.indexOf(Math.floor(frame / T)) * T + (frame % T);
    const kept = [...batch.anchor.keys()].filter(
      (n) => batch.anchorWeight[n] && rows.includes(Math.floor(batch.anchor[n]! / T)),
    );
    const anchor = new Int32Array(capacity);
    const negatives = new Int32Array(capacity * K).fill(1);
    const anchorWeight = new Float32Array(capacity);
    kept.forEach((n, i) => {
      anchor[i] = moved(batch.anchor[n]!);
      anchorWeight[i] = 1;
      for (let k = 0; k < K; k++) negatives[i * K + k] = moved(batch.negatives[n * K + k]!);
    });
    return {
      step: 0,
      wave: take(batch.wave, L),
      mask: take(batch.mask, T),
      anchor,
      negatives,
      anchorWeight,
      maskedFrames: kept.length,
      utterances: rows.slice(0, size).map(String),
    };
  });
}

const COUNTED = [
  'createBuffer',
  'createBindGroup',
  'createBindGroupLayout',
  'createPipelineLayout',
  'createShaderModule',
  'createComputePipeline',
  'createComputePipelineAsync',
  'createTexture',
  'createQuerySet',
] as const;

/** Counts what a device is asked to create from now on; `stop` puts its methods back. */
export function countCreations(device: GPUDevice): { made: Record<string, number>; stop(): void } {
  const made: Record<string, number> = {};
  const methods = device as unknown as Record<string, unknown>;
  for (const name of COUNTED) {
    const original = (device[name] as (...args: unknown[]) => unknown).bind(device);
    methods[name] = (...args: unknown[]) => {
      made[name] = (made[name] ?? 0) + 1;
      return original(...args);
    };
  }
  return {
    made,
    stop() {
      for (const name of COUNTED) delete methods[name];
    },
  };
}
