import { refuseBad } from '../audio/samples.ts';
import { normaliseCrop, RECEPTIVE_FIELD } from '../audio/sampling.ts';
import { checkArguments, checkOptions, CONFIG, GPU, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { atPrecision } from '../gpu/adapter.ts';
import type { Gpu, Precision } from '../gpu/device.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { Weights } from '../nn/weights.ts';
import { logMelPairs } from '../ops/log-mel.ts';
import { ProgramCache } from '../plan/cache.ts';
import { compile } from '../plan/compile.ts';
import { ParameterStore, type HostTensor } from '../plan/parameters.ts';
import { inputsOf, type Program } from '../plan/program.ts';
import type { Region } from '../plan/storage.ts';
import type { MGFConfig } from './config.ts';
import { encoder, framesOf, wantsFlash } from './network.ts';
import { initialValues, mgfParameters } from './weights.ts';

/**
 * Batches are padded to whole steps of this many samples (0.2 s), so that clips of similar length share a
 * program.
 */
const LENGTH_STEP = 3200;
/** Programs of different shapes kept compiled. */
const PROGRAMS = 8;

/** How an `Encoder` computes. */
export interface EncoderOptions {
  /** What matrix products multiply. Default: f32. */
  readonly precision?: Precision | undefined;
}

const OPTIONS: Rules<EncoderOptions> = { precision: '"f32"|"f16"?' };

function checkClips(where: string, clips: readonly Float32Array[]): void {
  checkArguments(where, { clips: [clips, 'a list'] });
  clips.forEach((clip, i) => checkArguments(where, { [`clip ${i}`]: [clip, 'a Float32Array'] }));
}

/** Embeddings of one clip. */
export interface ClipFeatures {
  /** Frame t covers samples [320 t, 320 t + 400). */
  readonly frames: number;
  /** [frames, D] for each layer asked for. */
  readonly layers: Float32Array[];
}

/**
 * The hidden state that features are read from where nobody names one: three quarters up, where mgf-tiny is
 * best or close to it for phones, speakers and most emotions (models/README.md).
 */
export const featureLayer = ({ num_hidden_layers: layers }: Pick<MGFConfig, 'num_hidden_layers'>): number =>
  Math.ceil(0.75 * layers);

/** MGF for inference: clips in, hidden states out. */
export class Encoder {
  readonly config: MGFConfig;
  readonly #gpu: Gpu;
  readonly #store: ParameterStore;
  readonly #options: EncoderOptions;
  readonly #programs = new ProgramCache(PROGRAMS);

  private constructor(gpu: Gpu, config: MGFConfig, store: ParameterStore, options: EncoderOptions) {
    checkArguments('Encoder (made by Encoder.create)', {
      gpu: [gpu, GPU],
      config: [config, CONFIG],
      store: [store, 'an object'],
    });
    this.#gpu = gpu;
    this.config = config;
    this.#store = store;
    this.#options = options;
  }

  /**
   * From checkpoint tensors by name (wav2vec 2.0's names, PyTorch layouts; heads and other extras are
   * ignored). Throws MGFError 'checkpoint', and 'usage' for precision f16 where the device has none.
   */
  static async create(
    gpu: Gpu,
    config: MGFConfig,
    parameters: ReadonlyMap<string, HostTensor>,
    options: EncoderOptions = {},
  ): Promise<Encoder> {
    checkArguments('Encoder.create', {
      gpu: [gpu, GPU],
      config: [config, CONFIG],
      parameters: [parameters, 'a Map'],
    });
    checkOptions('Encoder.create', options, OPTIONS);
    atPrecision(gpu.profile, options.precision);
    const store = new ParameterStore(gpu, mgfParameters(config, []), 'inference');
    // Only pre-training reads the mask vector, and some published checkpoints leave it out.
    store.load(wav2vec2Names(parameters), 'values', (name) => name === 'masked_spec_embed');
    return new Encoder(gpu, config, store, options);
  }

  /** With random weights: the baseline that features are compared with. */
  static async random(gpu: Gpu, config: MGFConfig, seed: number): Promise<Encoder> {
    checkArguments('Encoder.random', { gpu: [gpu, GPU], config: [config, CONFIG], seed: [seed, 'a number'] });
    const parameters = mgfParameters(config, []);
    const store = new ParameterStore(gpu, parameters, 'inference');
    store.load(initialValues(parameters, seed));
    return new Encoder(gpu, config, store, {});
  }

  /** n: hidden states are 0 (input of the first layer) to n (output of the last). */
  get layers(): number {
    return this.config.num_hidden_layers;
  }

  /**
   * Hidden states of clips of any length (16 kHz mono, at least 400 samples), normalised and padded into one
   * batch: padding changes no real frame. GroupNorm takes its statistics over time, so such networks
   * (`feat_extract_norm: "group"`) run clip by clip. Throws MGFError 'audio' for a clip that is too short or
   * has a sample that is not a finite number, 'usage' for a layer that does not exist, 'limit' where a batch
   * is too large for the adapter.
   */
  async embed(
    clips: readonly Float32Array[],
    options: { readonly layers: readonly number[] },
  ): Promise<ClipFeatures[]> {
    checkClips('Encoder.embed', clips);
    checkOptions('Encoder.embed', options, { layers: 'a list' });
    const { layers } = options;
    const missing = layers.find((l) => !Number.isInteger(l) || l < 0 || l > this.layers);
    if (missing !== undefined)
      throw new MGFError(
        'usage',
        `this network has hidden states 0 to ${this.layers}; there is no layer ${missing}`,
      );
    if (this.config.frontend === 'conv' && this.config.feat_extract_norm === 'group') {
      const results: ClipFeatures[] = [];
      for (const clip of clips) results.push(...(await this.#embedBatch([clip], layers, clip.length)));
      return results;
    }
    return this.#embedBatch(clips, layers, paddedLength(clips));
  }

  async #embedBatch(
    clips: readonly Float32Array[],
    layers: readonly number[],
    L: number,
  ): Promise<ClipFeatures[]> {
    const frames = this.#frames(clips);
    const T = framesOf(L, this.config);
    const D = this.config.hidden_size;
    const ragged = clips.some((c) => c.length !== L);
    const program = await this.#programs.get(`${clips.length} x ${L} ${ragged} layers ${layers.join()}`, () =>
      this.#compile(clips.length, L, ragged, layers),
    );
    const frameMask = Float32Array.from({ length: clips.length * T }, (_, i) =>
      Number(i % T < frames[Math.floor(i / T)]!),
    );
    // Reads are queued behind the step at once, so that a call made meanwhile for the same program cannot
    // come in between.
    const done = program.step(
      inputsOf(program, { wave: padded(clips, L), frame_mask: frameMask, mel_frames: melFrames(clips) }),
    );
    const [states] = await Promise.all([Promise.all(layers.map((l) => program.read(`layer ${l}`))), done]);
    return frames.map((n, i) => ({
      frames: n,
      layers: states.map((s) => (s as Float32Array).slice(i * T * D, (i * T + n) * D)),
    }));
  }

  /**
   * Log-mel frames 2t and 2t + 1 of each frame t, not normalised over time: [frames, 2 n_mels]. The baseline
   * that needs no network.
   */
  async logMel(clips: readonly Float32Array[]): Promise<{ frames: number; features: Float32Array }[]> {
    checkClips('Encoder.logMel', clips);
    const L = paddedLength(clips);
    const frames = this.#frames(clips);
    const T = framesOf(L, this.config);
    const width = 2 * this.config.n_mels;
    const program = await this.#programs.get(`log-mel ${clips.length} x ${L}`, () => {
      const graph = new Graph();
      const wave = graph.input('wave', [clips.length, L]);
      const count = graph.input('mel_frames', [clips.length], 'i32');
      return compile(this.#gpu, graph, {
        keep: { mel: logMelPairs(wave, { nMels: this.config.n_mels, frames: T, melFrames: count }).features },
        label: 'log-mel',
      });
    });
    const done = program.step({ wave: padded(clips, L), mel_frames: melFrames(clips) });
    const [mel] = await Promise.all([program.read('mel') as Promise<Float32Array>, done]);
    // The front end's input holds the plain frames divided by 4, then the normalised ones.
    return frames.map((n, i) => ({
      frames: n,
      features: Float32Array.from(
        { length: n * width },
        (_, e) => 4 * mel[(i * T + Math.floor(e / width)) * 2 * width + (e % width)]!,
      ),
    }));
  }

  #frames(clips: readonly Float32Array[]): number[] {
    refuseBad(clips, 'its features would be those of silence; repair the signal.');
    return clips.map((clip, i) => {
      const n = framesOf(clip.length, this.config);
      if (n < 1)
        throw new MGFError(
          'audio',
          `clip ${i} has ${clip.length} samples; a frame needs at least ${RECEPTIVE_FIELD} (25 ms at 16 kHz)`,
        );
      return n;
    });
  }

  async #compile(R: number, L: number, ragged: boolean, layers: readonly number[]): Promise<Program> {
    const { config } = this;
    const graph = new Graph();
    const T = framesOf(L, config);
    const place = new Map<Value, Region>();
    const parameters = this.#store.declare(graph);
    for (const [name, value] of parameters) place.set(value, this.#store.region(name));
    const wave = graph.input('wave', [R, L]);
    const frameMask = ragged ? graph.input('frame_mask', [R, T]) : null;
    const mel =
      config.frontend === 'mel'
        ? logMelPairs(wave, {
            nMels: config.n_mels,
            frames: T,
            melFrames: ragged ? graph.input('mel_frames', [R], 'i32') : null,
            frameMask,
          }).features
        : null;
    const { states } = encoder(
      config,
      new Weights(parameters),
      { wave, mel, frameMask, spanMask: null },
      false,
      wantsFlash(config, this.#gpu.profile, R, T),
    );
    return compile(this.#gpu, graph, {
      place,
      keep: Object.fromEntries(layers.map((l) => [`layer ${l}`, states[l]!])),
      label: 'encoder',
      ...this.#options,
    });
  }

  /** Frees everything on the device. */
  destroy(): void {
    this.#programs.destroy();
    this.#store.destroy();
  }
}

/** Samples that clips are padded to. */
export const paddedLength = (clips: readonly Float32Array[]): number =>
  Math.ceil(Math.max(RECEPTIVE_FIELD, ...clips.map((c) => c.length)) / LENGTH_STEP) * LENGTH_STEP;

/** Clips normalised one by one and padded with zeros. */
export function padded(clips: readonly Float32Array[], L: number): Float32Array<ArrayBuffer> {
  const wave = new Float32Array(clips.length * L);
  clips.forEach((clip, i) => wave.set(normaliseCrop(clip), i * L));
  return wave;
}

/** Log-mel frames of each clip. */
export const melFrames = (clips: readonly Float32Array[]): Int32Array<ArrayBuffer> =>
  Int32Array.from(clips, (c) => Math.floor((c.length - 400) / 160) + 1);

/**
 * Newer wav2vec 2.0 checkpoints name the parts of weight norm differently, and models with a head put a
 * prefix before every name.
 */
export function wav2vec2Names(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor> {
  return new Map(
    [...tensors].map(([name, tensor]) => [
      name
        .replace(/^(wav2vec2|hubert|data2vec_audio|unispeech|unispeech_sat)\./, '')
        .replace('parametrizations.weight.original0', 'weight_g')
        .replace('parametrizations.weight.original1', 'weight_v'),
      tensor,
    ]),
  );
}
