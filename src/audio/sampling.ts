/**
 * What a training step draws from its clips: crops, span masks, negatives. Pure functions of their arguments;
 * safe in a browser.
 */
import { checkArguments, checkFields, FLOATS, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { permutation } from '../random/stream.ts';
import type { RandomStream } from '../random/stream.ts';

/** Samples per second of everything inside the engine. */
export const SAMPLE_RATE = 16000;
/** Samples between the beginnings of two frames (20 ms). */
export const HOP = 320;
/** Samples one frame sees; a shorter clip has no frame. */
export const RECEPTIVE_FIELD = 400;
/** A crop with a smaller standard deviation than this, before normalisation, is silence. */
export const SILENCE_STD = 1e-4;

const KERNELS = [10, 3, 3, 3, 3, 2, 2] as const;
const STRIDES = [5, 2, 2, 2, 2, 2, 2] as const;

/**
 * Frames of the convolutional encoder for a clip of `samples` at 16 kHz: 16000 -> 49, 32000 -> 99, 160000 ->
 * 499. Throws MGFError 'audio' under 400 samples.
 */
export function frameCount(samples: number): number {
  if (!(samples >= RECEPTIVE_FIELD)) {
    throw new MGFError(
      'audio',
      `A clip of ${samples} samples is too short: one frame needs ${RECEPTIVE_FIELD} samples (25 ms at ` +
        '16 kHz).',
    );
  }
  return KERNELS.reduce((n, kernel, i) => Math.floor((n - kernel) / STRIDES[i]!) + 1, samples);
}

/**
 * The samples that a run of frames stands for, of a clip of `frames` frames and `samples` samples: frame t
 * sees [320 t, 320 t + 400), and stands for the 320 around its centre; the first and the last reach to the
 * ends of the clip. `end` is the frame after the run.
 */
export function samplesOfFrames(
  start: number,
  end: number,
  frames: number,
  samples: number,
): { start: number; end: number } {
  const edge = (RECEPTIVE_FIELD - HOP) / 2;
  return { start: start === 0 ? 0 : HOP * start + edge, end: end === frames ? samples : HOP * end + edge };
}

/**
 * Span masking [wav2vec 2.0]: about `probability * T / length` spans of `length` frames; overlaps leave about
 * half the frames masked for 0.65 and 10.
 */
export interface MaskConfig {
  /** Sum of span lengths over frames, before overlaps are merged. */
  probability: number;
  /** Frames of a span; shortened to a quarter of the row on very short rows. */
  length: number;
  /** Spans drawn at least. */
  minMasks: number;
}

const MASK: Rules<MaskConfig> = { probability: 'a number', length: 'a number', minMasks: 'a number' };

export const DEFAULT_MASK: MaskConfig = { probability: 0.65, length: 10, minMasks: 2 };

/**
 * Mask of one row: [T], 1 = masked. Spans lie within the `realFrames` first frames and never cover all of
 * them; a row of fewer than 2 real frames is left unmasked.
 */
export function spanMask(
  T: number,
  realFrames: number,
  config: MaskConfig,
  random: RandomStream,
): Uint8Array {
  checkArguments('spanMask', {
    T: [T, 'a number'],
    realFrames: [realFrames, 'a number'],
    config: [config, 'an object'],
    random: [random, 'an object'],
  });
  checkFields('spanMask', 'config.', config, MASK);
  checkFields('spanMask', 'random.', random, { uniform: 'a function', below: 'a function' });
  const mask = new Uint8Array(T);
  const n = realFrames;
  const spans = Math.max(
    Math.floor((config.probability * n) / config.length + random.uniform()),
    config.minMasks,
  );
  if (n < 2) return mask;
  const length = Math.min(config.length, Math.max(1, Math.floor(n / 4)));
  const pool = n - length; // the last start is pool - 1: frame n - 1 always stays visible
  for (const start of permutation(pool, random, Math.min(spans, pool))) mask.fill(1, start, start + length);
  return mask;
}

/** Masked frames that R rows of T frames can have at most: the fixed size of a batch's anchor list. */
export function anchorCapacity(R: number, T: number, config: MaskConfig = DEFAULT_MASK): number {
  checkArguments('anchorCapacity', { R: [R, 'a number'], T: [T, 'a number'] });
  checkFields('anchorCapacity', 'config.', config, MASK);
  if (T < 2) return 0;
  const length = Math.min(config.length, Math.max(1, Math.floor(T / 4)));
  // The largest draw is 1 - 2^-24; the same expression as in spanMask, so that rounding cannot exceed it.
  const spans = Math.max(
    Math.floor((config.probability * T) / config.length + (1 - 2 ** -24)),
    config.minMasks,
  );
  return R * Math.min(Math.min(spans, T - length) * length, T - 1);
}

/** Anchors and negatives as flat frame indices row * T + t. */
export interface Negatives {
  /** [N] every masked frame of every row that has at least two. */
  anchor: Int32Array;
  /** [N * K] for each anchor K other masked frames of its row, drawn with replacement. */
  negatives: Int32Array;
}

/**
 * Negatives for the contrastive loss: uniform over the *other* masked frames of the same row, never the
 * anchor itself. `rows` are masks of equal length T. A row with a single masked frame has no negatives and
 * gives no anchor.
 */
export function negativeIndices(rows: readonly Uint8Array[], K: number, random: RandomStream): Negatives {
  const perRow = rows.map((mask, row) => {
    const frames: number[] = [];
    mask.forEach((masked, t) => {
      if (masked) frames.push(row * mask.length + t);
    });
    return frames.length > 1 ? frames : [];
  });
  const anchor = Int32Array.from(perRow.flat());
  const negatives = new Int32Array(anchor.length * K);
  let at = 0;
  for (const frames of perRow) {
    for (let t = 0; t < frames.length; t++) {
      for (let k = 0; k < K; k++) {
        const j = random.below(frames.length - 1);
        negatives[at++] = frames[j >= t ? j + 1 : j]!; // skipping by index keeps the draw uniform
      }
    }
  }
  return { anchor, negatives };
}

/**
 * Anchors in a list of fixed length: the first `count` carry weight 1, the unused rest weight 0 and indices
 * of frames that exist.
 */
export interface FixedNegatives {
  /** [capacity] */
  anchor: Int32Array;
  /** [capacity * K] */
  negatives: Int32Array;
  /** [capacity] 1 for a real anchor, 0 for a filler */
  weight: Float32Array;
  count: number;
}

/**
 * `negativeIndices` padded to `capacity` anchors, because the shapes of a compiled step never change. Throws
 * if more are needed.
 */
export function fixedNegatives(
  rows: readonly Uint8Array[],
  K: number,
  capacity: number,
  random: RandomStream,
): FixedNegatives {
  checkArguments('fixedNegatives', {
    rows: [rows, 'a list'],
    K: [K, 'a number'],
    capacity: [capacity, 'a number'],
  });
  rows.forEach((row, i) => checkArguments('fixedNegatives', { [`row ${i}`]: [row, 'an array of numbers'] }));
  checkFields('fixedNegatives', 'random.', random, { below: 'a function' });
  const drawn = negativeIndices(rows, K, random);
  const count = drawn.anchor.length;
  if (count > capacity)
    throw new MGFError(
      'shape',
      `${count} masked frames do not fit the ${capacity} anchors of a step; raise the capacity.`,
    );
  // A filler compares two different real frames: its loss is finite, so weight 0 removes it.
  const anchor = new Int32Array(capacity).fill(drawn.anchor[0] ?? 0);
  const negatives = new Int32Array(capacity * K).fill(drawn.anchor[1] ?? 0);
  anchor.set(drawn.anchor);
  negatives.set(drawn.negatives);
  return { anchor, negatives, weight: new Float32Array(capacity).fill(1, 0, count), count };
}

function moments(x: Float32Array): { mean: number; variance: number } {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]!;
  const mean = sum / x.length;
  let squares = 0;
  for (let i = 0; i < x.length; i++) squares += (x[i]! - mean) ** 2;
  return { mean, variance: squares / x.length };
}

/** Whether the standard deviation of raw (not normalised) samples is under 1e-4. An empty clip is silent. */
export function isSilent(x: Float32Array): boolean {
  checkArguments('isSilent', { x: [x, 'an array of numbers'] });
  return x.length === 0 || Math.sqrt(moments(x).variance) < SILENCE_STD;
}

/**
 * (x - mean) / sqrt(variance + 1e-7), moments in two passes in double precision. Writes to `out`, by default
 * a new array.
 */
export function normaliseCrop(x: Float32Array, out = new Float32Array(x?.length ?? 0)): Float32Array {
  checkArguments('normaliseCrop', { x: [x, 'an array of numbers'], out: [out, FLOATS] });
  const { mean, variance } = moments(x);
  const scale = 1 / Math.sqrt(variance + 1e-7);
  for (let i = 0; i < x.length; i++) out[i] = (x[i]! - mean) * scale;
  return out;
}

/**
 * First samples of two crops of `crop` samples each in a clip of `samples` >= crop. Disjoint at random places
 * if the clip holds both; otherwise as far apart as possible (its start and its end). With `retry` such an
 * overlapping pair is drawn at random instead, so that a silent end can be avoided.
 */
export function cropStarts(
  samples: number,
  crop: number,
  random: RandomStream,
  retry = false,
): [number, number] {
  checkArguments('cropStarts', { samples: [samples, 'a number'], crop: [crop, 'a number'] });
  checkFields('cropStarts', 'random.', random, { below: 'a function' });
  const slack = samples - 2 * crop;
  if (slack >= 0) {
    const a = random.below(slack + 1);
    const b = random.below(slack + 1);
    return [Math.min(a, b), Math.max(a, b) + crop];
  }
  const last = samples - crop;
  return retry ? [random.below(last + 1), random.below(last + 1)] : [0, last];
}

/**
 * Groups clips into batches of similar length for padded inference: a batch's length times its size stays
 * within `maxSeconds` (a clip longer than that is alone). `lengths` in seconds; returns indices, shortest
 * batch first.
 */
export function batchesBySeconds(lengths: readonly number[], maxSeconds: number): number[][] {
  const order = lengths.map((_, i) => i).sort((a, b) => lengths[a]! - lengths[b]! || a - b);
  const batches: number[][] = [];
  let current: number[] = [];
  for (const i of order) {
    if (current.length > 0 && lengths[i]! * (current.length + 1) > maxSeconds) {
      batches.push(current);
      current = [];
    }
    current.push(i);
  }
  if (current.length > 0) batches.push(current);
  return batches;
}

/**
 * Cuts lengths, ascending, into at most `most` runs that are padded to the longest of their own, so that all
 * together are as short as can be: one long recording does not lengthen a sixth of the others. Returns the
 * end of each run, the last of which is `lengths.length`; a dynamic programme over the distinct lengths.
 */
export function lengthBuckets(lengths: readonly number[], most: number): number[] {
  const ends = lengths.flatMap((length, i) => (length === lengths[i + 1] ? [] : [i + 1]));
  // least[e]: padded length of all up to the e-th end in the buckets so far; cuts[b][e]: where the last of b
  // + 1 buckets begins.
  let least = ends.map((end) => end * lengths[end - 1]!);
  const cuts: number[][] = [];
  for (let bucket = 1; bucket < Math.min(most, ends.length); bucket++) {
    const cut = ends.map(() => -1);
    const next = ends.map((end, e) => {
      let total = least[e]!;
      for (let c = 0; c < e; c++) {
        const padded = least[c]! + (end - ends[c]!) * lengths[end - 1]!;
        if (padded < total) [total, cut[e]] = [padded, c];
      }
      return total;
    });
    cuts.push(cut);
    least = next;
  }
  const found: number[] = [];
  for (let e = ends.length - 1, bucket = cuts.length; e >= 0; bucket--) {
    found.unshift(ends[e]!);
    // No cut: fewer buckets are as good.
    while (bucket > 0 && cuts[bucket - 1]![e]! < 0) bucket--;
    e = bucket > 0 ? cuts[bucket - 1]![e]! : -1;
  }
  return found;
}
