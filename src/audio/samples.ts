/**
 * Samples as applications have them, in whatever array, to checked f32 with full scale 1. Safe in a browser.
 */
import { describe } from '../check.ts';
import { MGFError } from '../errors.ts';
import { SILENCE_STD } from './sampling.ts';

/**
 * Mono samples: f32, f64 and plain lists by value (full scale 1), integers by the full scale of their type.
 */
export type Samples =
  Float32Array | Float64Array | readonly number[] | Int8Array | Uint8Array | Int16Array | Int32Array;

/** What becomes of samples that are NaN or infinite: an error, or 0 and a warning. */
export type OnBad = 'refuse' | 'zero';

/** Something to know about clips that were embedded. */
export interface AudioWarning {
  /**
   * not-finite: samples were replaced by 0. constant: silence, or nothing but an offset; its features mean
   * little. cancelled: the channels of a file cancel each other in their mean. shorter: a file ends before the
   * segment that was asked for.
   */
  readonly kind: 'not-finite' | 'constant' | 'cancelled' | 'shorter';
  /** Indices of the clips; 0 for a stream or a single clip. */
  readonly clips: readonly number[];
  /** One sentence for people. */
  readonly message: string;
}

/** What an integer sample is divided by, after `MIDDLE` is taken off it. */
const FULL_SCALE: Readonly<Record<string, number>> = {
  Int8Array: 2 ** 7,
  Uint8Array: 2 ** 7,
  Int16Array: 2 ** 15,
  Int32Array: 2 ** 31,
};
/** 8-bit samples without a sign have silence in the middle. */
const MIDDLE: Readonly<Record<string, number>> = { Uint8Array: 128 };
const BY_VALUE: readonly string[] = ['Float64Array', 'Float16Array'];
/** First characters of the files that are read; no signal is likely to begin with them. */
const FILE_STARTS: readonly string[] = ['RIFF', 'RF64', 'fLaC', 'OggS', 'ID3'];

const TAKEN =
  'a Float32Array or Float64Array, a list of numbers (full scale 1), or an Int8Array, Uint8Array, ' +
  'Int16Array or Int32Array';
const OF_FILES =
  'read files with loadAudio(path), or their bytes with decodeAudio(bytes, name) and ' + 'toMono16k';

/** The name of a typed array's type, also of one from another realm; Buffer for Node's. */
const typeName = (x: ArrayBufferView): string =>
  x.constructor.name === 'Buffer' ? 'Buffer' : Object.prototype.toString.call(x).slice(8, -1);

const holdsFile = (bytes: Uint8Array): boolean =>
  FILE_STARTS.some((start) => [...start].every((c, i) => bytes[i] === c.charCodeAt(0)));

/**
 * Samples as f32; a Float32Array as it is. `where` begins the message. Throws MGFError 'usage' for anything
 * else, naming its type.
 */
export function toSamples(where: string, x: Samples): Float32Array {
  if (typeof x === 'string') {
    throw new MGFError('usage', `${where} is ${describe(x)}, not samples; ${OF_FILES}.`);
  }
  if (Array.isArray(x)) return fromList(where, x);
  const view = x as Float32Array;
  const type = ArrayBuffer.isView(view) ? typeName(view) : '';
  if (type === 'Float32Array') return view;
  if (type === 'Buffer' || (type === 'Uint8Array' && holdsFile(x as Uint8Array))) {
    throw new MGFError(
      'usage',
      `${where} is ${type === 'Buffer' ? 'a Buffer' : 'the bytes of a file'}, ` + `not samples; ${OF_FILES}.`,
    );
  }
  if (BY_VALUE.includes(type)) return Float32Array.from(view);
  const full = FULL_SCALE[type];
  const middle = MIDDLE[type] ?? 0;
  if (full === undefined) {
    throw new MGFError('usage', `${where} is ${describe(x)}, but samples must be ${TAKEN}.`);
  }
  return Float32Array.from(view, (sample) => (sample - middle) / full);
}

function fromList(where: string, list: readonly unknown[]): Float32Array {
  const wrong = list.findIndex((sample) => typeof sample !== 'number');
  if (wrong >= 0) {
    throw new MGFError(
      'usage',
      `${where}: sample ${wrong} of the list is ${describe(list[wrong])}, but ` + 'must be a number.',
    );
  }
  return Float32Array.from(list as readonly number[]);
}

/** What many warnings come to: a sentence a kind, with how many there are and the first of them. */
export function summariseWarnings(warnings: readonly AudioWarning[]): string[] {
  const kinds = new Map<AudioWarning['kind'], string[]>();
  for (const { kind, message } of warnings) kinds.set(kind, [...(kinds.get(kind) ?? []), message]);
  return [...kinds.values()].map(([first, ...others]) => {
    if (others.length === 0) return first!;
    return `${first!} ${others.length} more ${others.length === 1 ? 'recording is' : 'recordings are'} like it.`;
  });
}

/** Samples that are not finite numbers: how many, and the first. */
export interface BadSamples {
  readonly count: number;
  readonly first: number;
  readonly value: number;
}

/** The samples that are not finite numbers; null where all are. */
export function badSamples(x: Float32Array): BadSamples | null {
  let count = 0;
  let first = -1;
  for (let i = 0; i < x.length; i++) {
    if (Number.isFinite(x[i]!)) continue;
    if (count === 0) first = i;
    count++;
  }
  return count ? { count, first, value: x[first]! } : null;
}

/**
 * `2 samples that are not finite numbers, the first at index 777 (NaN)`; `from` is the index of the first
 * sample looked at.
 */
export function describeBad({ count, first, value }: BadSamples, from = 0): string {
  const what = count === 1 ? 'sample that is not a finite number' : 'samples that are not finite numbers';
  return `${count} ${what}, the first at index ${from + first} (${value})`;
}

/** A copy with 0 for every sample that is not a finite number. */
export const withoutBad = (x: Float32Array): Float32Array<ArrayBuffer> =>
  Float32Array.from(x, (sample) => (Number.isFinite(sample) ? sample : 0));

/**
 * Throws MGFError 'audio' for the first clip with a sample that is not a finite number; its features would be
 * those of silence.
 */
export function refuseBad(clips: readonly Float32Array[], advice: string): void {
  clips.forEach((clip, i) => {
    const bad = badSamples(clip);
    if (bad) throw new MGFError('audio', `clip ${i} has ${describeBad(bad)}; ${advice}`);
  });
}

/**
 * Whether samples that come in pieces are silent or constant: their standard deviation, as `isSilent` takes
 * it of a whole clip.
 */
export class Level {
  #count = 0;
  #origin = 0;
  #sum = 0;
  #squares = 0;

  push(x: Float32Array): void {
    if (this.#count === 0) this.#origin = x[0] ?? 0;
    for (let i = 0; i < x.length; i++) {
      // Around the first sample, so that a large offset costs no digits.
      const value = x[i]! - this.#origin;
      this.#sum += value;
      this.#squares += value * value;
    }
    this.#count += x.length;
  }

  get constant(): boolean {
    const mean = this.#sum / this.#count;
    return this.#count > 0 && Math.sqrt(Math.max(0, this.#squares / this.#count - mean * mean)) < SILENCE_STD;
  }
}
