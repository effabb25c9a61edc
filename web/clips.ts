/** The sounds on the page: what they are, and how files become samples. */
import type { Embedding } from '../src/app/mgf.ts';
import { MGFError } from '../src/errors.ts';
import { decodeAudio, isSilent, randomStream, SAMPLE_RATE, toMono16k } from '../src/index.ts';
import type { Reconstruction } from '../src/mgf/reconstruction.ts';

export interface Clip {
  readonly id: number;
  readonly name: string;
  /** Where it is from, in words. */
  readonly origin: string;
  /** 16 kHz mono. */
  readonly wave: Float32Array;
  readonly colour: string;
  features?: Embedding;
  rebuilt?: Reconstruction;
  error?: unknown;
}

/** Of longer recordings the rest is left out. */
export const LONGEST_SECONDS = 30;
const SHORTEST_SECONDS = 0.1;
const COLOURS = 8;

/** The list of clips, and the one that is looked at. */
export class Clips {
  #list: Clip[] = [];
  #chosen: number | null = null;
  #made = 0;
  readonly #listeners: Array<() => void> = [];

  get list(): readonly Clip[] {
    return this.#list;
  }
  get chosen(): Clip | undefined {
    return this.#list.find((c) => c.id === this.#chosen);
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }
  /** Tells everybody that a clip has learned something of itself. */
  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Throws MGFError 'audio' for sounds too short to have a frame, and for silence. */
  add(name: string, origin: string, samples: Float32Array): Clip {
    if (samples.length < SHORTEST_SECONDS * SAMPLE_RATE)
      throw new MGFError(
        'audio',
        `${name} is only ${(samples.length / SAMPLE_RATE).toFixed(2)} s long; give it at least ` +
          `${SHORTEST_SECONDS} s.`,
      );
    if (isSilent(samples)) throw new MGFError('audio', `${name} is silent; there is nothing to hear in it.`);
    const cut = samples.length > LONGEST_SECONDS * SAMPLE_RATE;
    const n = this.#made++;
    const clip: Clip = {
      id: n,
      name,
      origin: cut ? `${origin}, its first ${LONGEST_SECONDS} s` : origin,
      wave: cut ? samples.slice(0, LONGEST_SECONDS * SAMPLE_RATE) : samples,
      colour: `var(--v${(n % COLOURS) + 1})`,
    };
    this.#list.push(clip);
    this.#chosen ??= clip.id;
    this.changed();
    return clip;
  }

  choose(id: number): void {
    this.#chosen = id;
    this.changed();
  }

  remove(id: number): void {
    this.#list = this.#list.filter((c) => c.id !== id);
    if (this.#chosen === id) this.#chosen = this.#list[0]?.id ?? null;
    this.changed();
  }
}

/**
 * Samples of a file at 16 kHz, mono: by the browser's decoders, and by the engine's where the browser knows
 * the format not or the file is damaged for it. Throws MGFError 'audio' naming what is wrong with it.
 */
export async function decodeFile(bytes: Uint8Array<ArrayBuffer>, name: string): Promise<Float32Array> {
  let audio: AudioBuffer;
  try {
    // The decoder takes the bytes away, so that it is given a copy.
    audio = await new OfflineAudioContext(1, 1, 48000).decodeAudioData(bytes.slice().buffer);
  } catch {
    return toMono16k(await decodeAudio(bytes, name), name);
  }
  const context = new OfflineAudioContext(
    1,
    Math.max(1, Math.round(audio.duration * SAMPLE_RATE)),
    SAMPLE_RATE,
  );
  const source = context.createBufferSource();
  const mono = context.createBuffer(1, audio.length, audio.sampleRate);
  const mixed = mono.getChannelData(0);
  for (let c = 0; c < audio.numberOfChannels; c++)
    audio.getChannelData(c).forEach((x, i) => {
      mixed[i]! += x / audio.numberOfChannels;
    });
  source.buffer = mono;
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

/**
 * Four sounds with the rhythm of speech, each with a pitch and a colour of its own: gliding harmonics through
 * two moving resonances.
 */
export function madeUpSounds(): Array<{ name: string; wave: Float32Array }> {
  return [
    ['low hum', 95],
    ['middle voice', 150],
    ['high voice', 230],
    ['chirp', 420],
  ].map(([name, pitch], seed) => {
    const random = randomStream(7, seed);
    const wave = new Float32Array(4 * SAMPLE_RATE);
    const phases = new Float64Array(24);
    const rate = 2.5 + random.uniform() * 1.5;
    const vowel = 300 + 500 * random.uniform();
    for (let i = 0; i < wave.length; i++) {
      const t = i / SAMPLE_RATE;
      const syllable = Math.max(0, Math.sin(Math.PI * rate * t)) ** 0.6;
      const f0 = (pitch as number) * (1 + 0.12 * Math.sin(2.1 * t + seed) + 0.04 * Math.sin(9 * t));
      const first = vowel + 220 * Math.sin(1.7 * t + seed);
      const second = 3 * vowel + 600 * Math.sin(2.3 * t);
      let sum = 0;
      for (let h = 0; h < phases.length && (h + 1) * f0 < 7000; h++) {
        phases[h]! += (2 * Math.PI * (h + 1) * f0) / SAMPLE_RATE;
        const f = (h + 1) * f0;
        const near = (centre: number, width: number): number => 1 / (1 + ((f - centre) / width) ** 2);
        sum += Math.sin(phases[h]!) * (0.1 / (h + 1) + near(first, 120) + 0.5 * near(second, 200));
      }
      wave[i] = 0.12 * syllable * sum + 0.002 * (random.uniform() - 0.5);
    }
    return { name: name as string, wave };
  });
}
