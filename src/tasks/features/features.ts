/**
 * Features of labelled recordings: hidden states of frozen networks or log-mel, kept in a cache folder (Node,
 * Deno, Bun).
 */
import { summariseWarnings, type AudioWarning } from '../../audio/samples.ts';
import { createHash } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DecoderPool } from '../../audio/decode.ts';
import { loadAudio } from '../../audio/load.ts';
import { batchesBySeconds, SAMPLE_RATE } from '../../audio/sampling.ts';
import { MGFError } from '../../errors.ts';
import { Encoder, type ClipFeatures } from '../../mgf/encoder.ts';
import { POOL_EPS } from '../../ops/statistics-pool.ts';
import { configHash, writeFileAtomically } from '../../pretrain/checkpoint.ts';
import { floatToHalf, readSafetensors, safetensorsParts } from '../../io/safetensors.ts';
import { segmentOf, type Utterance } from '../../audio/manifest.ts';
import type { Gpu } from '../../gpu/device.ts';
import type { MGFConfig } from '../../mgf/config.ts';
import type { HostTensor } from '../../plan/parameters.ts';
import type { FeatureSource, ProbeRow } from '../task.ts';

/** Computes features of clips. */
export interface FeatureExtractor {
  readonly source: FeatureSource;
  /** Tells apart whatever changes the numbers: weights, configuration. */
  readonly identity: string;
  /** Hidden states are 0 to `layers`; log-mel has the one state 0. */
  readonly layers: number;
  /** Width of a state. */
  readonly dim: number;
  embed(clips: readonly Float32Array[], states: readonly number[]): Promise<ClipFeatures[]>;
  destroy(): void;
}

/** A frozen network's hidden states. */
export async function networkFeatures(
  gpu: Gpu,
  config: MGFConfig,
  parameters: ReadonlyMap<string, HostTensor>,
): Promise<FeatureExtractor> {
  const hash = createHash('sha256').update(configHash(config));
  for (const [name, { data }] of [...parameters].sort(([a], [b]) => (a < b ? -1 : 1)))
    hash.update(name).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return hiddenStates('mgf', hash.digest('hex'), await Encoder.create(gpu, config, parameters));
}

/** The same network with random weights. */
export async function randomFeatures(gpu: Gpu, config: MGFConfig, seed: number): Promise<FeatureExtractor> {
  return hiddenStates(
    'random',
    `random ${seed} ${configHash(config)}`,
    await Encoder.random(gpu, config, seed),
  );
}

const hiddenStates = (source: FeatureSource, identity: string, encoder: Encoder): FeatureExtractor => ({
  source,
  identity,
  layers: encoder.layers,
  dim: encoder.config.hidden_size,
  embed: (clips, layers) => encoder.embed(clips, { layers }),
  destroy: () => encoder.destroy(),
});

/** Two log-mel frames beside each frame of the network: 2 n_mels numbers (160 with 80 bands). */
export async function logMelFeatures(gpu: Gpu, config: MGFConfig): Promise<FeatureExtractor> {
  const encoder = await Encoder.random(gpu, config, 0);
  return {
    source: 'log-mel',
    identity: `log-mel ${config.n_mels}`,
    layers: 0,
    dim: 2 * config.n_mels,
    destroy: () => encoder.destroy(),
    embed: async (clips) =>
      (await encoder.logMel(clips)).map(({ frames, features }) => ({ frames, layers: [features] })),
  };
}

/** Rows of one hidden state: f32, or the bits of f16 for frames, which are many. */
export interface FeatureMatrix {
  readonly width: number;
  /** [rows, width] */
  readonly data: Float32Array | Uint16Array;
}

export interface Features {
  /** Encoder frames of each item, [items]. */
  readonly frames: Int32Array;
  /**
   * By state; a row for each item, or with pool `none` for each frame of each item, one item after the other.
   */
  readonly states: ReadonlyMap<number, FeatureMatrix>;
}

/** What to compute. */
export interface FeatureRequest {
  readonly extractor: FeatureExtractor;
  readonly states: readonly number[];
}

export interface ExtractOptions {
  readonly pool: ProbeRow['pool'];
  /** Folder of kept features; without one nothing is kept. */
  readonly cache?: string | undefined;
  /** Audio in a batch. Default 30. */
  readonly batchSeconds?: number | undefined;
  /**
   * A recording's samples, 16 kHz mono; by default its file is decoded. Where one set of recordings is probed
   * again and again, they can be kept.
   */
  readonly load?: ((item: Utterance) => Promise<Float32Array>) | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Features of recordings for each request, in the requests' order; decoded once for all of them. Frames are
 * rounded to f16 whether they come from the cache or not, so that both give the same numbers; pooled vectors
 * are f32.
 * @throws MGFError 'audio' for a recording that cannot be read or is too short; as `Encoder.embed`; 'io' for
 * a cache that cannot be written.
 */
export async function extractFeatures(
  requests: readonly FeatureRequest[],
  items: readonly Utterance[],
  options: ExtractOptions,
): Promise<Features[]> {
  const { cache, pool } = options;
  const files = cache === undefined ? [] : await Promise.all(items.map(fileIdentity));
  const path = (request: FeatureRequest, state: number): string | undefined =>
    cache === undefined
      ? undefined
      : join(
          cache,
          `${createHash('sha256')
            .update(JSON.stringify([VERSION, request.extractor.identity, state, pool, files]))
            .digest('hex')
            .slice(0, 32)}.safetensors`,
        );
  const found = await Promise.all(
    requests.map((request) =>
      readCached(
        request.states.map((s) => path(request, s)),
        request.states,
      ),
    ),
  );
  const missing = requests.filter((_, i) => !found[i]);
  const computed = missing.length > 0 ? await compute(missing, items, options) : [];
  if (cache !== undefined) {
    for (const [i, request] of missing.entries()) {
      await mkdir(cache, { recursive: true }).catch((cause: unknown) => {
        throw new MGFError(
          'io',
          `Cannot make the folder ${cache} for kept features; name another, or keep none.`,
          { cause },
        );
      });
      for (const [state, { width, data }] of computed[i]!.states) {
        await writeFileAtomically(
          path(request, state)!,
          safetensorsParts(
            new Map<string, { shape: number[]; data: typeof data | Int32Array }>([
              ['frames', { shape: [items.length], data: computed[i]!.frames }],
              ['features', { shape: [data.length / width, width], data }],
            ]),
          ),
        );
      }
    }
  }
  return requests.map((request, i) => found[i] ?? computed[missing.indexOf(request)]!);
}

/** Of the computation here: raised when it changes. */
const VERSION = 1;

async function fileIdentity({ path, offset, duration, channel }: Utterance): Promise<unknown[]> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new MGFError('audio', `There is no file "${path}".`, { cause });
  });
  return [path, found.size, found.mtimeMs, offset, duration, ...(channel === undefined ? [] : [channel])];
}

async function readCached(
  paths: readonly (string | undefined)[],
  states: readonly number[],
): Promise<Features | undefined> {
  let frames = new Int32Array();
  const read = new Map<number, FeatureMatrix>();
  for (const [i, path] of paths.entries()) {
    try {
      if (path === undefined) return undefined;
      const { tensors } = readSafetensors(await readFile(path), { origin: path });
      const { shape, data } = tensors.get('features')!;
      frames = tensors.get('frames')!.data as Int32Array<ArrayBuffer>;
      read.set(states[i]!, { width: shape[1]!, data: data as FeatureMatrix['data'] });
    } catch (error) {
      // Not there yet, or damaged: computed again.
      if (error instanceof MGFError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }
  return { frames, states: read };
}

async function compute(
  requests: readonly FeatureRequest[],
  items: readonly Utterance[],
  { pool, batchSeconds = 30, onProgress, load }: ExtractOptions,
): Promise<Features[]> {
  const frames = new Int32Array(items.length);
  const kept = requests.map(({ states }) => states.map(() => new Array<FeatureMatrix['data']>(items.length)));
  // Similar lengths meet in a group where the manifest knows them, so that programs of few shapes are needed.
  const order = items
    .map((_, i) => i)
    .sort((a, b) => (items[a]!.samples ?? 0) - (items[b]!.samples ?? 0) || a - b);
  const decoders = new DecoderPool();
  const warnings: AudioWarning[] = [];
  const read =
    load ??
    ((item: Utterance) =>
      loadAudio(item.path, { ...segmentOf(item), onWarning: (w) => warnings.push(w) }, decoders));
  let clips: { index: number; wave: Float32Array }[] = [];
  let seconds = 0;
  let done = 0;
  const flush = async (): Promise<void> => {
    for (const batch of batchesBySeconds(
      clips.map(({ wave }) => wave.length / SAMPLE_RATE),
      batchSeconds,
    )) {
      const waves = batch.map((b) => clips[b]!.wave);
      for (const [r, { extractor, states }] of requests.entries()) {
        (await extractor.embed(waves, states)).forEach((found, k) => {
          const { index } = clips[batch[k]!]!;
          frames[index] = found.frames;
          found.layers.forEach((x, s) => {
            kept[r]![s]![index] =
              pool === 'none' ? Uint16Array.from(x, floatToHalf) : pooled(x, found.frames, pool);
          });
        });
      }
      done += batch.length;
      onProgress?.(done, items.length);
    }
    [clips, seconds] = [[], 0];
  };
  try {
    for (const index of order) {
      const wave = await read(items[index]!);
      clips.push({ index, wave });
      seconds += wave.length / SAMPLE_RATE;
      if (seconds >= 10 * batchSeconds) await flush();
    }
    await flush();
  } finally {
    decoders.free();
  }
  for (const sentence of summariseWarnings(warnings)) console.warn(sentence);
  return requests.map(({ extractor, states }, r) => {
    const width = extractor.dim * (pool === 'mean+std' ? 2 : 1);
    return {
      frames,
      states: new Map(states.map((state, s) => [state, { width, data: concatenate(kept[r]![s]!) }])),
    };
  });
}

/**
 * Mean, or mean and deviation, of [frames, width] as the graph's `maskedMean` and `statisticsPool` have them.
 */
function pooled(x: Float32Array, frames: number, pool: 'mean' | 'mean+std'): Float32Array {
  const width = x.length / frames;
  const mean = new Float64Array(width);
  const squares = new Float64Array(width);
  for (let t = 0, i = 0; t < frames; t++) for (let d = 0; d < width; d++, i++) mean[d]! += x[i]! / frames;
  if (pool === 'mean') return Float32Array.from(mean);
  for (let t = 0, i = 0; t < frames; t++)
    for (let d = 0; d < width; d++, i++) squares[d]! += (x[i]! - mean[d]!) ** 2 / frames;
  return Float32Array.from({ length: 2 * width }, (_, d) =>
    d < width ? mean[d]! : Math.sqrt(squares[d - width]! + POOL_EPS),
  );
}

function concatenate(parts: readonly FeatureMatrix['data'][]): FeatureMatrix['data'] {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const out = parts[0] instanceof Uint16Array ? new Uint16Array(length) : new Float32Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
