/** Features of sound by a pre-trained network: the few calls that the page makes, and no more. */
import { MGFError } from '../src/errors.ts';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { Encoder, featureLayer } from '../src/mgf/encoder.ts';
import { resampleTo16k } from '../src/index.ts';
import { fetchBytes, readNetwork } from './weights.ts';

export interface LoadOptions {
  /** Default: the best adapter there is. */
  device?: GPUDevice;
  /** The part of the file that has arrived, 0 to 1. */
  onProgress?: (part: number) => void;
}

export interface EmbedOptions {
  /** Hz; what is not 16000 is converted. */
  sampleRate?: number;
  /** Hidden state; default: three quarters up. */
  layer?: number;
  /** 'mean': one vector for all frames. */
  pool?: 'none' | 'mean';
}

/** [frames, width], a frame every 20 ms; pooled: [1, width]. */
export interface Embedding {
  readonly data: Float32Array;
  readonly frames: number;
  readonly width: number;
  readonly layer: number;
}

export class MGF {
  readonly #gpu: Gpu;
  readonly #encoder: Encoder;

  private constructor(gpu: Gpu, encoder: Encoder) {
    this.#gpu = gpu;
    this.#encoder = encoder;
  }

  /** From the address of a checkpoint, or its bytes. Throws MGFError 'io', 'checkpoint', 'no-adapter'. */
  static async load(source: string | Uint8Array, { device, onProgress }: LoadOptions = {}): Promise<MGF> {
    const bytes = typeof source === 'string' ? await fetchBytes(source, onProgress) : source;
    const { config, parameters } = readNetwork(bytes, typeof source === 'string' ? source : 'the network');
    const gpu = await openGpu(device ? { device } : {});
    return new MGF(gpu, await Encoder.create(gpu, config, parameters));
  }

  /** Throws MGFError 'audio' under 25 ms, 'usage' for a layer that does not exist. */
  async embed(pcm: Float32Array, { sampleRate = 16000, layer = featureLayer(this.#encoder.config), pool = 'none' }: EmbedOptions = {}): Promise<Embedding> {
    const wave = sampleRate === 16000 ? pcm : await resampleTo16k(pcm, sampleRate);
    const [clip] = await this.#encoder.embed([wave], { layers: [layer] }), width = this.#encoder.config.hidden_size;
    if (!clip) throw new MGFError('audio', 'there is nothing to embed');
    const data = clip.layers[0]!;
    return pool === 'mean' ? { data: meanOf(data, width), frames: 1, width, layer } : { data, frames: clip.frames, width, layer };
  }

  dispose(): void {
    this.#encoder.destroy();
    this.#gpu.close();
  }
}

/** Mean of rows of `width` numbers. */
export function meanOf(rows: Float32Array, width: number): Float32Array {
  const out = new Float32Array(width), n = rows.length / width;
  rows.forEach((value, i) => { out[i % width]! += value / n; });
  return out;
}
