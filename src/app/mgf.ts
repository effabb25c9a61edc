import { checkArguments, checkOptions, GPU, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { batchesBySeconds, RECEPTIVE_FIELD, SAMPLE_RATE } from '../audio/sampling.ts';
import type { Samples } from '../audio/samples.ts';
import type { StreamResampler } from '../audio/resample.ts';
import { openGpu, type AdapterPreference, type Gpu, type Precision } from '../gpu/device.ts';
import type { MGFConfig } from '../mgf/config.ts';
import { Encoder, featureLayer } from '../mgf/encoder.ts';
import { fromHuggingFace } from '../mgf/huggingface.ts';
import { fetchBytes, readNetwork, type LoadProgress, type ReadBytes } from './read.ts';
import { meanOverFrames } from './compare.ts';
import { checkedClips, isOneClip, StreamCheck, type SignalOptions } from './signal.ts';
import { SignalWindows, windowSizes, windowsOf, type SignalWindow, type WindowOptions } from './windows.ts';

export type { LoadProgress, ReadBytes } from './read.ts';
export type { AudioWarning, OnBad, Samples } from '../audio/samples.ts';
export type { SignalOptions } from './signal.ts';
export type { WindowOptions } from './windows.ts';

/**
 * Seconds of audio in one batch, padding included: enough to fill a GPU, and small beside the memory of a
 * phone.
 */
const BATCH_SECONDS = 40;

/** What a model runs on, and how its loading is watched. */
export interface LoadOptions {
  /**
   * Used as given and left alive by `dispose`. Default: a device of its own from the best adapter there is.
   */
  readonly device?: GPUDevice | undefined;
  /** The same with what the engine knows about it, from `openGpu`, to share between models. */
  readonly gpu?: Gpu | undefined;
  /** An adapter to insist on, where no device is given. */
  readonly adapter?: AdapterPreference | undefined;
  /**
   * The contents of `config.json` for a checkpoint of the wav2vec 2.0 family. Default: the file of that name
   * beside the checkpoint.
   */
  readonly config?: unknown;
  /** What matrix products multiply. Default: f32. */
  readonly precision?: Precision | undefined;
  /** Told how many bytes have arrived, and of how many (null where the server does not say). */
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
  /** Ends loading; the promise is then rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Which features of which signal. */
export interface FeatureOptions extends SignalOptions {
  /** Samples per second of the signal. Default 16000; others are converted (band-limited). */
  readonly sampleRate?: number | undefined;
  /**
   * Hidden state: 0 is the input of the first layer, `mgf.layers` the output of the last. Default: the one
   * three quarters up.
   */
  readonly layer?: number | undefined;
  /** Ends the work between two batches; the promise is then rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of `MGF.embed`. */
export interface EmbedOptions extends FeatureOptions, WindowOptions {
  /** none (default): a vector per frame; mean: their mean, one vector. */
  readonly pool?: 'none' | 'mean' | undefined;
}

const LOAD_OPTIONS: Rules<LoadOptions> = {
  device: 'an object?',
  gpu: 'a Gpu from openGpu()?',
  adapter: 'a text?',
  config: 'anything',
  precision: '"f32"|"f16"?',
  onProgress: 'a function?',
  signal: 'an AbortSignal?',
};
const STREAM_OPTIONS: Rules<FeatureOptions & WindowOptions> = {
  sampleRate: 'a number?',
  layer: 'a number?',
  signal: 'an AbortSignal?',
  window: 'a number?',
  context: 'a number?',
  onBad: '"refuse"|"zero"?',
  onWarning: 'a function?',
};
const EMBED_OPTIONS: Rules<EmbedOptions> = { ...STREAM_OPTIONS, pool: '"none"|"mean"?' };

/** Features of one clip. */
export interface Embedding {
  /** [frames, width], or [width] where pooled. */
  readonly data: Float32Array;
  /** Frame t covers the samples [320 t, 320 t + 400) at 16 kHz. */
  readonly frames: number;
  readonly width: number;
  readonly layer: number;
}

/** Features of a part of a stream. */
export interface StreamedFrames extends Embedding {
  /** Number of the first frame in the whole stream; frame t begins at 0.02 t seconds. */
  readonly start: number;
}

/**
 * A trained network ready for applications: audio in, features out, on the user's device.
 *
 *     const mgf = await MGF.load('/models/mgf-tiny.safetensors');
 *     const { data, frames, width } = await mgf.embed(pcm, { sampleRate: 48000 });
 *     mgf.dispose();
 */
export class MGF {
  /**
   * Rejected work says why the device went (MGFError 'device-lost'); load again to go on. Resolves, never
   * rejects.
   */
  readonly lost: Promise<MGFError>;
  readonly #encoder: Encoder;
  readonly #gpu: Gpu;
  readonly #ownsGpu: boolean;
  #disposed = false;

  protected constructor(encoder: Encoder, gpu: Gpu, ownsGpu: boolean) {
    checkArguments('MGF (made by MGF.load)', { encoder: [encoder, 'an object'], gpu: [gpu, GPU] });
    this.#encoder = encoder;
    this.#gpu = gpu;
    this.#ownsGpu = ownsGpu;
    this.lost = gpu.lost;
  }

  /**
   * Loads a checkpoint: this engine's, a task model's, or one of the wav2vec 2.0 family (wav2vec2, hubert,
   * data2vec-audio, unispeech, unispeech-sat; with the norms and positions of either variant, with or without
   * a head). `source` is a URL, the bytes of the safetensors file, or a Blob or File of them. Throws MGFError
   * 'usage' for wrong arguments, 'io' where nothing can be read, 'checkpoint' for a damaged or foreign file,
   * 'config' for a network that is not computed here, 'no-adapter' without WebGPU.
   */
  static async load(
    source: string | URL | Uint8Array | ArrayBuffer | Blob,
    options: LoadOptions = {},
    read: ReadBytes = fetchBytes,
  ): Promise<MGF> {
    checkArguments('MGF.load', {
      source: [source, 'a text|a URL|a Uint8Array|an ArrayBuffer|a Blob or File'],
      read: [read, 'a function'],
    });
    checkOptions('MGF.load', options, LOAD_OPTIONS);
    const { signal } = options;
    const remote = typeof source === 'string' || source instanceof URL;
    const origin = remote ? String(source) : 'the checkpoint';
    const bytes = remote
      ? await read(source, options)
      : new Uint8Array(
          source instanceof Uint8Array || source instanceof ArrayBuffer ? source : await source.arrayBuffer(),
        );
    signal?.throwIfAborted();
    const { config: stored, parameters } = readNetwork(bytes, origin);
    const config =
      stored ??
      fromHuggingFace(options.config ?? (await configBeside(source, read, signal)), {
        origin: remote ? beside(String(source)) : 'config',
      });
    const gpu =
      options.gpu ??
      (await openGpu({
        ...(options.device && { device: options.device }),
        ...(options.adapter && { prefer: options.adapter }),
      }));
    try {
      signal?.throwIfAborted();
      return new this(
        await Encoder.create(gpu, config, parameters, { precision: options.precision }),
        gpu,
        !options.gpu,
      );
    } catch (error) {
      if (!options.gpu) gpu.close();
      throw error;
    }
  }

  /** The network's configuration. */
  get config(): MGFConfig {
    return this.#encoder.config;
  }
  /** n: hidden states are 0 to n. */
  get layers(): number {
    return this.#encoder.layers;
  }
  /** Numbers in a frame's vector. */
  get width(): number {
    return this.config.hidden_size;
  }
  /** The adapter that the network runs on, by name. */
  get adapter(): string {
    return this.#gpu.profile.name;
  }

  /**
   * Features of one clip or of many of unequal length: mono samples of any length from 25 ms. Float arrays
   * and lists of numbers are taken by value (full scale
   * 1), integer arrays by the full scale of their type (an Int16Array divided by 32768). Clips longer than
   * the window are heard in overlapping windows, as
   * `stream` hears them. Throws MGFError 'audio' for a clip that is too short or has a sample that is not a
   * finite number (unless `onBad` is `zero`), 'usage'
   * for what holds no samples, an unknown option, a layer that does not exist, or after `dispose`.
   */
  embed(pcm: Samples, options?: EmbedOptions): Promise<Embedding>;
  embed(pcm: readonly Samples[], options?: EmbedOptions): Promise<Embedding[]>;
  async embed(
    pcm: Samples | readonly Samples[],
    options: EmbedOptions = {},
  ): Promise<Embedding | Embedding[]> {
    checkOptions('MGF.embed', options, EMBED_OPTIONS);
    const { sampleRate = SAMPLE_RATE, pool = 'none', signal } = options;
    const sizes = windowSizes(options);
    const layer = this.#layer(options.layer);
    const { width } = this;
    signal?.throwIfAborted();
    const given = checkedClips('MGF.embed', pcm, options);
    const clips: Float32Array[] = [];
    for (const clip of given)
      clips.push(
        sampleRate === SAMPLE_RATE
          ? clip
          : await (await import('../audio/resample.ts')).resampleTo16k(clip, sampleRate),
      );
    clips.forEach((clip, i) => {
      if (clip.length < RECEPTIVE_FIELD)
        throw new MGFError(
          'audio',
          `clip ${i} has ${clip.length} samples at 16 kHz, but a frame needs ${RECEPTIVE_FIELD} (25 ms)`,
        );
    });
    const windows = clips.flatMap((clip, i) =>
      [...windowsOf(clip, sizes)].map((window) => ({ clip: i, window })),
    );
    const parts: { start: number; data: Float32Array }[][] = clips.map(() => []);
    for (const batch of batchesBySeconds(
      windows.map(({ window }) => window.wave.length / SAMPLE_RATE),
      BATCH_SECONDS,
    )) {
      const members = batch.map((i) => windows[i]!);
      const found = await this.#encode(
        members.map(({ window }) => window),
        layer,
      );
      signal?.throwIfAborted();
      members.forEach(({ clip, window }, i) => parts[clip]!.push({ start: window.start, data: found[i]! }));
    }
    const embeddings = parts.map((pieces) => {
      const data = joined(pieces.sort((a, b) => a.start - b.start).map((p) => p.data));
      const frames = data.length / width;
      return { data: pool === 'mean' ? meanOverFrames(data, width) : data, frames, width, layer };
    });
    return isOneClip(pcm) ? embeddings[0]! : embeddings;
  }

  /**
   * Features of a signal while it comes in, in bounded memory however long it is: mono chunks of any sizes,
   * in arrays as `embed` takes them. Frames come in order and without gaps, those of one window at a time: a
   * frame comes when its window is complete, that is between `context` and `window - context` seconds after
   * its sound, or at the end. The frames are those that `embed` gives for the whole signal. Throws as
   * `embed`.
   */
  async *stream(
    chunks: AsyncIterable<Samples> | Iterable<Samples>,
    options: FeatureOptions & WindowOptions = {},
  ): AsyncGenerator<StreamedFrames, void, undefined> {
    checkArguments('MGF.stream', { chunks: [chunks, 'an iterable of chunks of samples'] });
    checkOptions('MGF.stream', options, STREAM_OPTIONS);
    const check = new StreamCheck('MGF.stream', options);
    const { sampleRate = SAMPLE_RATE, signal } = options;
    const windows = new SignalWindows(windowSizes(options));
    const layer = this.#layer(options.layer);
    const { width } = this;
    const resampler =
      sampleRate === SAMPLE_RATE
        ? null
        : await (await import('../audio/resample.ts')).streamResampler(sampleRate);
    const answer = async (window: SignalWindow): Promise<StreamedFrames> => {
      const [data] = await this.#encode([window], layer);
      signal?.throwIfAborted();
      return { data: data!, frames: data!.length / width, width, layer, start: window.start };
    };
    try {
      for await (const chunk of chunks)
        for (const part of pieces(check.push(chunk), resampler))
          for (const window of windows.push(part)) yield await answer(window);
      if (resampler) for (const window of windows.push(resampler.end())) yield await answer(window);
      for (const window of windows.end()) yield await answer(window);
      check.end();
    } finally {
      resampler?.free();
    }
  }

  /** Frees the weights and compiled programs; also the device, unless it was given. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#encoder.destroy();
    // Closing leaves a device alive that the caller brought.
    if (this.#ownsGpu) this.#gpu.close();
  }

  #layer(layer = featureLayer(this.config)): number {
    if (this.#disposed) throw new MGFError('usage', 'this model was disposed; load it again');
    return layer;
  }

  async #encode(windows: readonly SignalWindow[], layer: number): Promise<Float32Array[]> {
    const { width } = this;
    const clips = await this.#encoder.embed(
      windows.map((w) => w.wave),
      { layers: [layer] },
    );
    return clips.map(({ layers: [states] }, i) =>
      states!.subarray(windows[i]!.skip * width, (windows[i]!.skip + windows[i]!.take) * width),
    );
  }
}

/** A chunk at 16 kHz, in parts that keep memory small however large the chunk. */
function* pieces(chunk: Float32Array, resampler: StreamResampler | null): Generator<Float32Array> {
  const size = 10 * SAMPLE_RATE;
  for (let i = 0; i < chunk.length; i += size) {
    const part = chunk.subarray(i, i + size);
    yield resampler ? resampler.push(part) : part;
  }
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const [first] = parts;
  // A copy: a part may be a view of a whole batch.
  if (parts.length === 1) return first!.slice();
  const out = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The address of `config.json` in the folder of a checkpoint. */
const beside = (source: string): string => source.replace(/[^/\\]*$/, '').concat('config.json');

async function configBeside(
  source: unknown,
  read: ReadBytes,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  const foreign = 'was not made by this engine and needs the config.json of its network';
  if (typeof source !== 'string' && !(source instanceof URL))
    throw new MGFError('checkpoint', `the checkpoint ${foreign}: give its contents as \`config\``);
  const path = beside(String(source));
  try {
    return JSON.parse(new TextDecoder().decode(await read(path, { signal })));
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new MGFError(
      'checkpoint',
      `${String(source)} ${foreign}, but ${path} could not be read (${(error as Error).message}): put ` +
        `it there, or give its contents as \`config\``,
      { cause: error },
    );
  }
}
