/** Training batches from the sounds of the page: what src/audio/source.ts draws from files. */
import { Purpose } from '../src/random/purposes.ts';
import { stream } from '../src/random/stream.ts';
import {
  anchorCapacity,
  cropStarts,
  fixedNegatives,
  framesOf,
  isSilent,
  MGFError,
  normaliseCrop,
  permutation,
  presetRunConfig,
  SAMPLE_RATE,
  spanMask,
  type Batch,
  type RunConfig,
} from '../src/index.ts';

const MOST_UTTERANCES = 4;
const FEWEST = 2;
const CROPS = [1.92, 1.28, 0.96, 0.64];
const SHORTEST = 0.64;
const SEED = 1;

export interface Plan {
  readonly run: RunConfig;
  /** Stretches of sound that stand for utterances. */
  readonly pieces: readonly Float32Array[];
}

/** Stretches of two crops where a sound holds them, one where it holds no more. */
function cut(waves: readonly Float32Array[], crop: number): Float32Array[] {
  return waves
    .flatMap((wave) => {
      const n = Math.max(1, Math.floor(wave.length / (2 * crop)));
      const length = Math.floor(wave.length / n);
      return wave.length < crop
        ? []
        : Array.from({ length: n }, (_, i) => wave.subarray(i * length, (i + 1) * length));
    })
    .filter((piece) => !isSilent(piece));
}

/**
 * A run of a preset on these sounds: crops of `cropSeconds`, or shorter ones where the sounds give too few
 * different stretches. Throws MGFError 'data' where they do even then.
 */
export function planRun(
  waves: readonly Float32Array[],
  preset: string,
  cropSeconds: number,
  steps: number,
): Plan {
  for (const seconds of CROPS.filter((c) => c <= cropSeconds)) {
    const pieces = cut(waves, Math.round(seconds * SAMPLE_RATE));
    const fewest = seconds === SHORTEST ? FEWEST : MOST_UTTERANCES;
    if (pieces.length < fewest) continue;
    return {
      pieces,
      run: presetRunConfig(preset, {
        train: {
          steps,
          seed: SEED,
          crop_seconds: seconds,
          utterances_per_batch: Math.min(MOST_UTTERANCES, pieces.length),
        },
      }),
    };
  }
  throw new MGFError(
    'data',
    `training needs two different stretches of sound of ${SHORTEST} s at least; add some seconds of speech`,
  );
}

/** The batch of a step: a function of the plan and the step. */
export function drawBatch({ run: { mgf, train }, pieces }: Plan, step: number): Batch {
  const B = train.utterances_per_batch;
  const R = 2 * B;
  const L = Math.round(train.crop_seconds * mgf.sample_rate);
  const T = framesOf(L, mgf);
  const perEpoch = Math.floor(pieces.length / B);
  const order = permutation(
    pieces.length,
    stream(train.seed, Purpose.ClipOrder, { step: Math.floor(step / perEpoch) }),
  );
  const chosen = order.subarray((step % perEpoch) * B, ((step % perEpoch) + 1) * B);
  const wave = new Float32Array(R * L);
  const mask = new Int32Array(R * T);
  chosen.forEach((piece, b) => {
    const samples = pieces[piece]!;
    cropStarts(samples.length, L, stream(train.seed, Purpose.Crop, { step, row: b })).forEach((start, i) =>
      normaliseCrop(samples.subarray(start, start + L), wave.subarray((i * B + b) * L, (i * B + b + 1) * L)),
    );
  });
  const config = {
    probability: mgf.mask_time_prob,
    length: mgf.mask_time_length,
    minMasks: mgf.mask_time_min_masks,
  };
  const rows = Array.from({ length: R }, (_, r) =>
    spanMask(T, T, config, stream(train.seed, Purpose.Mask, { step, row: r })),
  );
  rows.forEach((row, r) => mask.set(row, r * T));
  const { anchor, negatives, weight, count } = fixedNegatives(
    rows,
    mgf.num_negatives,
    anchorCapacity(R, T, config),
    stream(train.seed, Purpose.Negatives, { step }),
  );
  return {
    step,
    wave,
    mask,
    anchor,
    negatives,
    anchorWeight: weight,
    maskedFrames: count,
    utterances: [...chosen].map((i) => `stretch ${i}`),
  };
}
