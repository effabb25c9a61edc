/**
 * Training batches as a pure function of (items, options, step): order, crops, masks and negatives come from
 * counter-based random streams, so a run resumed at step N sees what it would have seen. Runs in whatever
 * thread calls it; `createLoader` puts it in a worker.
 */
import { Purpose } from '../random/purposes.ts';
import { checkArguments, checkFields, checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { ClipStore, describeSkipped } from './clips.ts';
import { permutation, stream } from '../random/stream.ts';
import {
  anchorCapacity,
  cropStarts,
  DEFAULT_MASK,
  fixedNegatives,
  frameCount,
  isSilent,
  normaliseCrop,
  SAMPLE_RATE,
  spanMask,
} from './sampling.ts';
import type { Clip, ScanReport } from './clips.ts';
import type { Utterance } from './manifest.ts';
import type { MaskConfig } from './sampling.ts';

/** Which recordings batches are drawn from, and their sizes. */
export interface BatchOptions {
  items: readonly Utterance[];
  /** Integer in [0, 2^53). */
  seed: number;
  /** B: utterances of a step; each gives two crops. */
  utterancesPerBatch: number;
  /** Length of a crop; shorter clips are left out. */
  cropSeconds: number;
  /** K: negatives of an anchor. */
  negatives: number;
  mask?: MaskConfig | undefined;
  /** Whether each epoch has its own random order (default) or the order of the items. */
  epochShuffle?: boolean | undefined;
  /** Memory for decoded audio; 2 GiB by default. */
  cacheBytes?: number | undefined;
}

/** Sizes of every batch. */
export interface BatchShape {
  /** Rows: 2 * utterancesPerBatch. */
  R: number;
  /** Samples of a crop. */
  L: number;
  /** Frames of a crop. */
  T: number;
  /** Negatives of an anchor. */
  K: number;
  /** Length of the anchor list. */
  capacity: number;
}

/** What a training step is given: crops, masked frames, anchors and their negatives. */
export interface Batch {
  step: number;
  /** [R, L] normalised crops at 16 kHz; rows b and B + b are two crops of utterance b */
  wave: Float32Array;
  /** [R, T] 1 = masked frame */
  mask: Int32Array;
  /** [capacity] flat frame indices r * T + t */
  anchor: Int32Array;
  /** [capacity, K] flat frame indices */
  negatives: Int32Array;
  /** [capacity] 1 for the first `maskedFrames` anchors, 0 for the fillers after them */
  anchorWeight: Float32Array;
  maskedFrames: number;
  /** [B] ids */
  utterances: string[];
}

/** What a `BatchSource` has done so far. */
export interface BatchStats {
  batches: number;
  /** Crops drawn again because they were silent. */
  redrawnCrops: number;
  /** Crops that were still silent after ten draws, and used. */
  silentCrops: number;
  /** Utterances replaced because their file had become unreadable or was shorter than the manifest said. */
  replacedUtterances: number;
  /** Bytes of decoded audio in memory. */
  cachedBytes: number;
}

/**
 * Where a step stands in the data; goes into a checkpoint, so that a resumed run can tell whether it reads
 * the same data.
 */
export interface SamplerState {
  seed: number;
  step: number;
  epoch: number;
  /** Utterances of this epoch seen before the step. */
  position: number;
  clips: number;
  /** Fingerprint (FNV-1a) of the ids of the usable clips. */
  digest: string;
}

const CROP_DRAWS = 10;

function digest(items: readonly Utterance[]): string {
  let hash = 0x811c9dc5;
  for (const { id } of items) {
    for (let i = 0; i <= id.length; i++)
      hash = Math.imul(hash ^ (i < id.length ? id.charCodeAt(i) : 10), 0x01000193);
  }
  return (hash >>> 0).toString(16).padStart(8, '0');
}

/** Options of `BatchSource.open` by kind. */
export const BATCH_OPTIONS: Rules<BatchOptions> = {
  items: 'a list',
  seed: 'a number',
  utterancesPerBatch: 'a number',
  cropSeconds: 'a number',
  negatives: 'a number',
  mask: 'an object?',
  epochShuffle: 'true or false?',
  cacheBytes: 'a number?',
};

/**
 * Batches from recordings, each a function of the recordings, the seed and the step alone. It decodes in the
 * thread that calls it; `createLoader` does so in another.
 */
export class BatchSource {
  readonly shape: BatchShape;
  readonly stats: BatchStats = {
    batches: 0,
    redrawnCrops: 0,
    silentCrops: 0,
    replacedUtterances: 0,
    cachedBytes: 0,
  };
  readonly digest: string;
  readonly #store: ClipStore;
  readonly #options: BatchOptions;
  readonly #mask: MaskConfig;
  #order: { epoch: number; clips: Uint32Array } | undefined;

  private constructor(options: BatchOptions, shape: BatchShape, store: ClipStore) {
    checkArguments('BatchSource (made by BatchSource.open)', {
      shape: [shape, 'an object'],
      store: [store, 'an object'],
    });
    checkOptions('BatchSource (made by BatchSource.open)', options, BATCH_OPTIONS);
    this.#options = options;
    this.#mask = options.mask ?? DEFAULT_MASK;
    this.shape = shape;
    this.#store = store;
    this.digest = digest(store.clips);
  }

  /** The sizes that options lead to. Throws MGFError 'config' for impossible ones. */
  static shapeOf(options: Omit<BatchOptions, 'items'>): BatchShape {
    checkFields('BatchSource.shapeOf', 'options.', options, {
      utterancesPerBatch: 'a number',
      negatives: 'a number',
      cropSeconds: 'a number',
      seed: 'a number',
    });
    const { utterancesPerBatch: B, negatives: K, cropSeconds, seed } = options;
    if (!Number.isInteger(B) || B < 1)
      throw new MGFError('config', `The utterances per batch must be a whole number from 1 up, not ${B}.`);
    if (!Number.isInteger(K) || K < 1)
      throw new MGFError('config', `The number of negatives must be a whole number from 1 up, not ${K}.`);
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new MGFError('config', `The seed must be a whole number from 0 to 2^53 - 1, not ${seed}.`);
    const L = Math.round(cropSeconds * SAMPLE_RATE);
    if (!(L >= 1040))
      throw new MGFError(
        'config',
        `A crop of ${cropSeconds} s is too short to mask frames in; it needs 0.065 s (3 frames) or more.`,
      );
    const T = frameCount(L);
    return { R: 2 * B, L, T, K, capacity: anchorCapacity(2 * B, T, options.mask ?? DEFAULT_MASK) };
  }

  /** Scans the clips. Throws MGFError 'data' if fewer are usable than a batch needs (at least two). */
  static async open(
    options: BatchOptions,
    onScan?: (done: number, total: number) => void,
  ): Promise<BatchSource> {
    checkOptions('BatchSource.open', options, BATCH_OPTIONS);
    const shape = BatchSource.shapeOf(options);
    const store = await ClipStore.open(
      { items: options.items, minSamples: shape.L, cacheBytes: options.cacheBytes },
      onScan,
    );
    const usable = store.clips.length;
    const needed = Math.max(2, options.utterancesPerBatch);
    if (usable < needed) {
      const why = describeSkipped(store.report.skipped, options.cropSeconds);
      const first = store.report.skipped[0]?.reason;
      store.free();
      const count =
        usable === 0
          ? 'No usable clip remains'
          : usable === 1
            ? 'Only 1 usable clip remains'
            : `Only ${usable} usable clips remain`;
      throw new MGFError(
        'data',
        `${count} of ${options.items.length}, but a batch needs ${needed} different ` +
          `ones${why && ` (${why}; for example: ${first!.replace(/\.$/, '')})`}.`,
      );
    }
    return new BatchSource(options, shape, store);
  }

  /** What the first pass over the clips found. */
  get report(): ScanReport {
    return this.#store.report;
  }

  /** Steps before the order is drawn anew; what does not fill a batch is left out of that epoch. */
  get stepsPerEpoch(): number {
    return Math.floor(this.#store.clips.length / this.#options.utterancesPerBatch);
  }

  /** Where a step stands in the data, for a checkpoint. */
  state(step: number): SamplerState {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    const position = (step - epoch * this.stepsPerEpoch) * this.#options.utterancesPerBatch;
    return {
      seed: this.#options.seed,
      step,
      epoch,
      position,
      clips: this.#store.clips.length,
      digest: this.digest,
    };
  }

  /** The batch of a step; the same one whenever and wherever it is asked for. One call at a time. */
  async batch(step: number): Promise<Batch> {
    const { R, L, T, K, capacity } = this.shape;
    const { seed, utterancesPerBatch: B } = this.#options;
    const chosen = await this.#choose(step);
    const wave = new Float32Array(R * L);
    const mask = new Int32Array(R * T);
    const rows: Uint8Array[] = [];
    chosen.forEach(({ clip }, b) => {
      this.#crops(clip, step, b).forEach((crop, i) =>
        normaliseCrop(crop, wave.subarray((i * B + b) * L, (i * B + b + 1) * L)),
      );
    });
    for (let row = 0; row < R; row++) {
      rows.push(spanMask(T, T, this.#mask, stream(seed, Purpose.Mask, { step, row })));
      mask.set(rows[row]!, row * T);
    }
    const { anchor, negatives, weight, count } = fixedNegatives(
      rows,
      K,
      capacity,
      stream(seed, Purpose.Negatives, { step }),
    );
    this.stats.batches++;
    this.stats.cachedBytes = this.#store.cachedBytes;
    return {
      step,
      wave,
      mask,
      anchor,
      negatives,
      anchorWeight: weight,
      maskedFrames: count,
      utterances: chosen.map(({ item }) => item.id),
    };
  }

  /** Lets go of the decoded audio. */
  free(): void {
    this.#store.free();
  }

  #orderOf(epoch: number): Uint32Array {
    if (this.#order?.epoch !== epoch) {
      const n = this.#store.clips.length;
      const clips =
        this.#options.epochShuffle === false
          ? Uint32Array.from({ length: n }, (_, i) => i)
          : permutation(n, stream(this.#options.seed, Purpose.ClipOrder, { step: epoch }));
      this.#order = { epoch, clips };
    }
    return this.#order.clips;
  }

  /**
   * The step's clips with their samples; a clip that cannot be read (any more) is replaced by one drawn at
   * random, again from (seed, step).
   */
  async #choose(step: number): Promise<{ item: Utterance; clip: Clip }[]> {
    const { clips } = this.#store;
    const { epoch, position } = this.state(step);
    const B = this.#options.utterancesPerBatch;
    const wanted = [...this.#orderOf(epoch).subarray(position, position + B)];
    const taken = new Set(wanted);
    const chosen: { item: Utterance; clip: Clip }[] = [];
    let spares: Uint32Array | undefined;
    let spare = 0;
    for (let index of wanted) {
      for (;;) {
        const item = clips[index]!;
        try {
          chosen.push({ item, clip: await this.#store.get(item) });
          break;
        } catch (error) {
          if (!(error instanceof MGFError)) throw error;
          spares ??= permutation(
            clips.length,
            stream(this.#options.seed, Purpose.Replacement, { step }),
          ).filter((i) => !taken.has(i));
          if (spare >= spares.length)
            throw new MGFError(
              'data',
              `Step ${step} cannot be filled with ${B} readable clips; the last failure: ${error.message}`,
              { cause: error },
            );
          index = spares[spare++]!;
          this.stats.replacedUtterances++;
        }
      }
    }
    return chosen;
  }

  /** Two crops; drawn again up to ten times while one of them is silent. */
  #crops(clip: Clip, step: number, b: number): Float32Array[] {
    const { L } = this.shape;
    const random = stream(this.#options.seed, Purpose.Crop, { step, row: b });
    for (let draw = 0; ; draw++) {
      const crops = cropStarts(clip.samples, L, random, draw > 0).map((start) =>
        clip.slice(start, start + L),
      );
      const silent = crops.filter(isSilent).length;
      if (silent === 0) return crops;
      if (draw === CROP_DRAWS) {
        this.stats.silentCrops += silent;
        return crops;
      }
      this.stats.redrawnCrops += silent;
    }
  }
}

/** The buffers of a batch, to hand over to another thread without a copy. */
export function batchBuffers(batch: Batch): ArrayBuffer[] {
  return [batch.wave, batch.mask, batch.anchor, batch.negatives, batch.anchorWeight].map(
    (array) => array.buffer as ArrayBuffer,
  );
}
