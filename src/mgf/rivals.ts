/**
 * What each loss of a run must fall below to show that the network learned something: the score of an answer
 * that does not listen. For a contrastive loss that is chance, which follows from the number of candidates.
 * For an L1 loss it is the median predictor, which depends on the recordings and is measured on crops of the
 * run.
 */
import { checkArguments, CONFIG, FLOATS } from '../check.ts';
import { SCALES } from './config.ts';
import { framesOf } from './network.ts';
import { activeScales, hasAccuracy } from './pretraining.ts';
import { hostLogMel } from '../ops/log-mel-host.ts';
import type { Batch } from '../audio/source.ts';
import type { MGFConfig, Objectives, Scale } from './config.ts';

/** By scale, and for the phoneme accuracy; what is switched off, or was not measured, is absent. */
export type Rivals = Partial<Record<Scale | 'accuracy', number>>;

/** What a rival is called. */
export type RivalName = 'chance' | 'median predictor';

/**
 * Crops that rivals are measured on, and log-mel frames of them at most: a second or two of work on one core.
 */
const CROPS = 64;
const LOG_MEL_FRAMES = 8192;
/** The first sample that the sample scale decodes, and samples of a frame (src/mgf/losses.ts). */
const FIRST_SAMPLE = 40;
const HOP = 320;

/** The name of a scale's rival. */
export function rivalName(scale: Scale | 'accuracy', objectives: Objectives): RivalName {
  checkArguments('rivalName', { objectives: [objectives, 'an object'] });
  const l1 = scale === 'sample' || (scale !== 'accuracy' && objectives[scale] === 'l1');
  return l1 ? 'median predictor' : 'chance';
}

/**
 * The rivals that need no recordings: ln(K + 1) of InfoNCE among K negatives, ln(2B - 1) of NT-Xent between B
 * utterances, 1 / (K + 1) of the phoneme accuracy.
 */
export function chanceRivals(config: MGFConfig, utterancesPerBatch: number): Rivals {
  checkArguments('chanceRivals', {
    config: [config, CONFIG],
    utterancesPerBatch: [utterancesPerBatch, 'a number'],
  });
  const rivals: Rivals = {};
  const { num_negatives: K, objectives } = config;
  for (const scale of activeScales(config)) {
    if (rivalName(scale, objectives) !== 'chance') continue;
    rivals[scale] = scale === 'sentence' ? Math.log(2 * utterancesPerBatch - 1) : Math.log(K + 1);
  }
  if (hasAccuracy(config)) rivals.accuracy = 1 / (K + 1);
  return rivals;
}

/** Batches of `rows` crops that `measureRivals` wants. */
export function rivalBatches(rows: number): number {
  checkArguments('rivalBatches', { rows: [rows, 'a number'] });
  return Math.ceil(CROPS / rows);
}

/**
 * All rivals of a configuration. Those of L1 losses are measured on these batches (`wave` [R, L] normalised
 * crops, `mask` [R, T]) of R = 2 utterancesPerBatch rows each, as mean absolute distances: of the samples
 * from their median; of the log-mel frames from the median of each bin (at the phoneme scale, of masked
 * frames alone); of the crops' log-mel statistics from the median of each. Deterministic, on the host. Throws
 * MGFError 'shape' for crops under 400 samples.
 */
export function measureRivals(
  config: MGFConfig,
  utterancesPerBatch: number,
  batches: readonly Pick<Batch, 'wave' | 'mask'>[],
): Rivals {
  checkArguments('measureRivals', { batches: [batches, 'a list'] });
  const rivals = chanceRivals(config, utterancesPerBatch);
  const rows = rowsOf(batches, 2 * utterancesPerBatch);
  const missing = activeScales(config).filter((scale) => rivals[scale] === undefined);
  if (rows.length === 0) return rivals;
  if (missing.includes('sample')) {
    const samples = HOP * framesOf(rows[0]!.wave.length, config);
    const decoded = rows.map(({ wave }) => wave.subarray(FIRST_SAMPLE, FIRST_SAMPLE + samples));
    rivals.sample = medianError(joined(decoded), 1);
  }
  if (missing.some((scale) => scale !== 'sample')) {
    const mel = logMelOf(config, rows);
    const values = { frame: mel.all, phoneme: mel.masked, sentence: mel.statistics };
    for (const scale of SCALES) {
      if (scale === 'sample' || !missing.includes(scale)) continue;
      const columns = scale === 'sentence' ? 2 * config.n_mels : config.n_mels;
      rivals[scale] = medianError(joined(values[scale]), columns);
    }
  }
  return rivals;
}

/**
 * Mean of |x - median of its column| over values [n, columns]: the L1 loss of the best constant answer; NaN
 * of none.
 */
export function medianError(values: Float32Array, columns: number): number {
  checkArguments('medianError', { values: [values, FLOATS], columns: [columns, 'a number'] });
  const n = values.length / columns;
  const column = new Float32Array(n);
  let sum = 0;
  for (let c = 0; c < columns; c++) {
    for (let i = 0; i < n; i++) column[i] = values[i * columns + c]!;
    column.sort();
    const median = (column[(n - 1) >> 1]! + column[n >> 1]!) / 2;
    for (let i = 0; i < n; i++) sum += Math.abs(column[i]! - median);
  }
  return sum / values.length;
}

interface Row {
  wave: Float32Array;
  mask: Int32Array;
}

/** Part r of R equal parts. */
function part<T extends Float32Array | Int32Array>(values: T, r: number, R: number): T {
  return values.subarray((r * values.length) / R, ((r + 1) * values.length) / R) as T;
}

/** The rows of all batches, at most CROPS. */
function rowsOf(batches: readonly Pick<Batch, 'wave' | 'mask'>[], R: number): Row[] {
  return batches
    .flatMap(({ wave, mask }) =>
      Array.from({ length: R }, (_, r): Row => ({
        wave: part(wave, r, R),
        mask: part(mask, r, R),
      })),
    )
    .slice(0, CROPS);
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

interface LogMel {
  all: Float32Array[];
  masked: Float32Array[];
  statistics: Float32Array[];
}

/**
 * Log-mel frames of rows, normalised per row and bin: all of a row [n, mels], masked ones [mels] each, and
 * each row's means and deviations before that [2 mels].
 */
function logMelOf(config: MGFConfig, rows: readonly Row[]): LogMel {
  const out: LogMel = { all: [], masked: [], statistics: [] };
  const { n_mels: mels } = config;
  let heard = 0;
  for (const { wave, mask } of rows) {
    if (heard >= LOG_MEL_FRAMES) break;
    const { frames, values } = hostLogMel(wave, mels);
    const used = Math.min(frames, 2 * framesOf(wave.length, config));
    out.statistics.push(normalise(values, frames, mels));
    out.all.push(values.subarray(0, used * mels));
    for (let m = 0; m < used; m++) {
      if (mask[m >> 1]! > 0) out.masked.push(values.subarray(m * mels, (m + 1) * mels));
    }
    heard += frames;
  }
  return out;
}

/** Normalises each bin over frames in place; returns the means and the deviations, [2 mels]. */
function normalise(values: Float32Array, frames: number, mels: number): Float32Array {
  const statistics = new Float32Array(2 * mels);
  for (let d = 0; d < mels; d++) {
    let mean = 0;
    let square = 0;
    for (let t = 0; t < frames; t++) mean += values[t * mels + d]! / frames;
    for (let t = 0; t < frames; t++) square += (values[t * mels + d]! - mean) ** 2 / frames;
    const deviation = Math.sqrt(square);
    for (let i = d; i < frames * mels; i += mels) values[i] = (values[i]! - mean) / (deviation + 1e-5);
    statistics[d] = mean;
    statistics[mels + d] = deviation;
  }
  return statistics;
}
