/**
 * The clips a run trains on: decoded once, kept in memory as 16-bit samples at 16 kHz up to a limit, decoded
 * again on demand beyond it.
 */
import { MGFError } from '../errors.ts';
import { DecoderPool, toMono16k } from './decode.ts';
import { decodeFile } from './load.ts';
import { isSilent, RECEPTIVE_FIELD, SAMPLE_RATE } from './sampling.ts';
import { segmentOf } from './manifest.ts';
import type { DecodedAudio } from './decode.ts';
import type { AudioWarning } from './samples.ts';
import type { Skipped, Utterance } from './manifest.ts';

/** Why a clip is left out. */
export type SkipKind = 'unreadable' | 'shorter than 400 samples' | 'shorter than the crop' | 'silent';

/** A clip that the scan left out. */
export interface SkippedClip extends Skipped {
  kind: SkipKind;
}

/** What the scan of the clips found. */
export interface ScanReport {
  usable: number;
  /** Seconds of usable audio. */
  seconds: number;
  skipped: SkippedClip[];
  /**
   * Clips whose length was taken from the manifest without decoding them, because they would not all fit in
   * memory.
   */
  trusted: number;
  /** Recordings that are used but are not what they seem: channels that cancel, files that end early. */
  warnings: AudioWarning[];
}

export interface ClipOptions {
  items: readonly Utterance[];
  /** Clips shorter than this many samples are left out. */
  minSamples: number;
  /** Memory for decoded samples; 2 GiB (18 hours) by default. */
  cacheBytes?: number | undefined;
}

/**
 * 16-bit samples; exact for what comes from 16-bit files at 16 kHz. `scale` is above 1 only where a file
 * exceeds full scale.
 */
interface Cached {
  pcm: Int16Array;
  scale: number;
}

/** A decoded clip: mono at 16 kHz, full scale = 1. */
export interface Clip {
  samples: number;
  slice(start: number, end: number): Float32Array;
}

function pack(samples: Float32Array): Cached {
  let peak = 1;
  for (let i = 0; i < samples.length; i++) peak = Math.max(peak, Math.abs(samples[i]!));
  const pcm = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) pcm[i] = Math.min(32767, Math.round((samples[i]! / peak) * 32768));
  return { pcm, scale: peak / 32768 };
}

/** Seconds for a message, rounded to hundredths but without trailing zeros. */
const seconds = (samples: number) => `${Number((samples / SAMPLE_RATE).toFixed(2))} s`;

export class ClipStore {
  readonly #decoders = new DecoderPool();
  readonly #cache = new Map<Utterance, Cached>(); // in order of last use
  readonly #cacheBytes: number;
  #bytes = 0;
  readonly #minSamples: number;
  /** The usable clips, in the order of the items. */
  clips: Utterance[] = [];
  report: ScanReport = { usable: 0, seconds: 0, skipped: [], trusted: 0, warnings: [] };

  private constructor(options: ClipOptions) {
    this.#cacheBytes = options.cacheBytes ?? 2 ** 31;
    this.#minSamples = options.minSamples;
  }

  /**
   * Decodes every clip once and keeps those that can be used; the list depends on the files alone. If the
   * lengths that the manifest states exceed the memory, those clips are taken at its word and decoded when
   * needed.
   */
  static async open(
    options: ClipOptions,
    onScan?: (done: number, total: number) => void,
  ): Promise<ClipStore> {
    const store = new ClipStore(options);
    const { items } = options;
    const trust = items.reduce((sum, item) => sum + 2 * (item.samples ?? 0), 0) > store.#cacheBytes;
    const lengths = new Map<Utterance, number>();
    const problems = new Map<Utterance, { kind: SkipKind; reason: string }>();
    const byFile = new Map<string, Utterance[]>();
    for (const item of items) {
      const segments = byFile.get(item.path);
      if (segments) segments.push(item);
      else byFile.set(item.path, [item]);
    }
    const onWarning = (warning: AudioWarning) => store.report.warnings.push(warning);
    const heard = (item: Utterance) => ({ ...segmentOf(item), onWarning });
    let done = 0;
    for (const segments of byFile.values()) {
      let file: DecodedAudio | undefined;
      for (const item of segments) {
        try {
          if (trust && item.samples !== undefined) {
            store.#checkLength(item, item.samples);
            lengths.set(item, item.samples);
            store.report.trusted++;
          } else {
            file ??= await decodeFile(item.path, store.#decoders);
            lengths.set(item, store.#admit(item, await toMono16k(file, item.path, heard(item))).pcm.length);
          }
        } catch (error) {
          if (!(error instanceof MGFError)) throw error;
          problems.set(item, {
            kind: error instanceof UnusableClip ? error.kind : 'unreadable',
            reason: error.message,
          });
        }
        onScan?.(++done, items.length);
      }
    }
    for (const item of items) {
      const problem = problems.get(item);
      if (problem) store.report.skipped.push({ path: item.path, ...problem });
      else store.clips.push(item);
    }
    store.report.usable = store.clips.length;
    store.report.seconds = [...lengths.values()].reduce((sum, n) => sum + n, 0) / SAMPLE_RATE;
    return store;
  }

  get cachedBytes(): number {
    return this.#bytes;
  }

  /**
   * A clip's decoded samples, from memory if they are there. Throws MGFError 'audio' if the file has become
   * unreadable or is shorter than stated.
   */
  async get(item: Utterance): Promise<Clip> {
    let cached = this.#cache.get(item);
    if (cached) {
      this.#cache.delete(item);
      this.#cache.set(item, cached);
    } else {
      cached = this.#admit(
        item,
        await toMono16k(await decodeFile(item.path, this.#decoders), item.path, {
          ...segmentOf(item),
          // Told by the scan.
          onWarning: () => undefined,
        }),
      );
    }
    const { pcm, scale } = cached;
    return {
      samples: pcm.length,
      // Always from the 16-bit form: a clip decoded again must give the same samples as one from memory.
      slice: (start, end) => {
        const part = new Float32Array(end - start);
        for (let i = 0; i < part.length; i++) part[i] = pcm[start + i]! * scale;
        return part;
      },
    };
  }

  free(): void {
    this.#decoders.free();
    this.#cache.clear();
    this.#bytes = 0;
  }

  #checkLength(item: Utterance, samples: number): void {
    if (samples < RECEPTIVE_FIELD)
      throw new UnusableClip(
        'shorter than 400 samples',
        `"${item.path}" has ${samples} samples; one frame needs ${RECEPTIVE_FIELD}.`,
      );
    if (samples < this.#minSamples) {
      throw new UnusableClip(
        'shorter than the crop',
        `"${item.path}" lasts ${seconds(samples)}, less than the crop of ${seconds(this.#minSamples)}.`,
      );
    }
  }

  /** Checks a clip and puts it in memory, dropping the least recently used ones beyond the limit. */
  #admit(item: Utterance, samples: Float32Array): Cached {
    this.#checkLength(item, samples.length);
    if (isSilent(samples)) throw new UnusableClip('silent', `"${item.path}" is silent.`);
    const cached = pack(samples);
    this.#cache.set(item, cached);
    this.#bytes += cached.pcm.byteLength;
    for (const [oldest, { pcm }] of this.#cache) {
      if (this.#bytes <= this.#cacheBytes || oldest === item) break;
      this.#cache.delete(oldest);
      this.#bytes -= pcm.byteLength;
    }
    return cached;
  }
}

class UnusableClip extends MGFError {
  constructor(
    readonly kind: SkipKind,
    message: string,
  ) {
    super('audio', message);
  }
}

/**
 * The clips left out, in one line: "12 clips left out: 10 shorter than the crop of 1.92 s, 2 unreadable".
 * Empty if none was.
 */
export function describeSkipped(skipped: readonly SkippedClip[], cropSeconds: number): string {
  if (skipped.length === 0) return '';
  const counts = new Map<SkipKind, number>();
  for (const { kind } of skipped) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const parts = [...counts].map(
    ([kind, n]) =>
      `${n} ${kind === 'shorter than the crop' ? `shorter than the crop of ${cropSeconds} s` : kind}`,
  );
  return `${skipped.length} ${skipped.length === 1 ? 'clip' : 'clips'} left out: ${parts.join(', ')}`;
}
