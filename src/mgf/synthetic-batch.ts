/**
 * Made-up speech as a pre-training batch: for what needs the shapes of real recordings and none of their
 * content.
 */
import { Purpose } from '../random/purposes.ts';
import type { Batch } from '../audio/source.ts';
import { anchorCapacity, fixedNegatives, normaliseCrop, spanMask } from '../audio/sampling.ts';
import { stream } from '../random/stream.ts';
import { uniforms } from '../random/uniforms.ts';
import type { RunConfig } from './config.ts';
import { framesOf } from './network.ts';

/** Something with the rhythm of speech: gliding harmonics in syllables, a voice per seed. */
function speechLike(samples: number, seed: number): Float32Array<ArrayBuffer> {
  const next = uniforms(seed);
  const pitch = 90 + 150 * next();
  const x = new Float32Array(samples);
  let phase = 0;
  for (let i = 0; i < samples; i++) {
    const t = i / 16000;
    const syllable = Math.max(0, Math.sin(2 * Math.PI * (3 + (seed % 3)) * t));
    phase += (2 * Math.PI * pitch * (1 + 0.2 * Math.sin(5 * t + seed))) / 16000;
    for (let h = 1; h <= 6; h++) x[i]! += (syllable * Math.sin(h * phase)) / (h * (1 + ((h * seed) % 3)));
    x[i]! += 0.02 * (next() - 0.5);
  }
  return x;
}

/** A batch as the loader makes them. */
export function syntheticBatch({ mgf, train }: RunConfig, seed: number): Batch {
  const B = train.utterances_per_batch;
  const R = 2 * B;
  const L = Math.round(train.crop_seconds * mgf.sample_rate);
  const T = framesOf(L, mgf);
  const wave = new Float32Array(R * L);
  for (let b = 0; b < B; b++) {
    const both = speechLike(2 * L, 100 * seed + b);
    for (const half of [0, 1])
      wave.set(normaliseCrop(both.subarray(half * L, (half + 1) * L)), (b + half * B) * L);
  }
  const config = {
    probability: mgf.mask_time_prob,
    length: mgf.mask_time_length,
    minMasks: mgf.mask_time_min_masks,
  };
  const random = stream(seed, Purpose.MadeUpMask);
  const rows = Array.from({ length: R }, () => spanMask(T, T, config, random));
  const mask = new Int32Array(R * T);
  rows.forEach((row, r) => mask.set(row, r * T));
  const drawn = fixedNegatives(
    rows,
    mgf.num_negatives,
    anchorCapacity(R, T, config),
    stream(seed, Purpose.MadeUpNegatives),
  );
  return {
    step: 0,
    wave,
    mask,
    anchor: drawn.anchor,
    negatives: drawn.negatives,
    anchorWeight: drawn.weight,
    maskedFrames: drawn.count,
    utterances: Array.from({ length: B }, (_, b) => `voice ${b}`),
  };
}
