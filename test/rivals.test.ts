import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/audio/random.ts';
import { presetConfig } from '../src/mgf/presets.ts';
import { logMelReference, melPairsReference } from '../src/ops/log_mel.ts';
import { chanceRivals, measureRivals, medianError, rivalBatches, rivalName } from '../src/train/rivals.ts';
import type { DeepPartial } from '../src/mgf/config.ts';
import type { MGFConfig } from '../src/mgf/config.ts';

const B = 2, R = 2 * B, L = 4000, T = 12, MELS = 80;

/** Noise whose loudness rises and falls, of zero mean and unit variance by row, under masks of every third frame. */
function batch(seed: number): { wave: Float32Array; mask: Int32Array } {
  const random = randomStream(seed), wave = new Float32Array(R * L);
  for (let r = 0; r < R; r++) {
    const row = Float64Array.from({ length: L }, (_, i) => Math.sin(i / (200 + 50 * r)) ** 2 * (random.uniform() - 0.5));
    const mean = row.reduce((a, b) => a + b, 0) / L, deviation = Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / L);
    row.forEach((x, i) => { wave[r * L + i] = (x - mean) / deviation; });
  }
  return { wave, mask: Int32Array.from({ length: R * T }, (_, i) => Number(i % 3 === 0)) };
}

const batches = [batch(1), batch(2)];
const config = (changes: DeepPartial<MGFConfig> = {}): MGFConfig => presetConfig('nano', changes);

/** The least mean of |x - c| over constants c, found by trying each value. */
function leastError(values: readonly number[]): number {
  return Math.min(...values.map((c) => values.reduce((sum, x) => sum + Math.abs(x - c), 0) / values.length));
}

test('the median error is the least that a constant answer for each column can have', () => {
  const random = randomStream(3);
  for (const n of [1, 2, 7, 50]) {
    const values = Float32Array.from({ length: 3 * n }, () => random.uniform() ** 3), columns = [0, 1, 2].map((c) => [...values].filter((_, i) => i % 3 === c));
    const want = columns.reduce((sum, column) => sum + leastError(column) / 3, 0);
    assert.ok(Math.abs(medianError(values, 3) - want) < 1e-6, `${n} values`);
  }
  assert.ok(Number.isNaN(medianError(new Float32Array(), 1)));
});

test('contrastive rivals follow from the candidates: ln(K+1), ln(2B-1), 1/(K+1)', () => {
  const rivals = chanceRivals(presetConfig('tiny'), 8);
  assert.equal(rivals, { phoneme: Math.log(101), sentence: Math.log(15), accuracy: 1 / 101 });
  const swapped = chanceRivals(presetConfig('tiny', { objectives: { frame: 'info_nce', phoneme: 'l1', sentence: 'l1' } }), 8);
  assert.equal(swapped, { frame: Math.log(101) });
  assert.equal(chanceRivals(presetConfig('tiny', { loss_weights: { phoneme: 0 } }), 8), { sentence: Math.log(15) });
});

test('each rival has the name of what it is', () => {
  const { objectives } = config(), swapped = { frame: 'info_nce', phoneme: 'l1', sentence: 'l1' } as const;
  assert.equal((['sample', 'frame', 'phoneme', 'sentence', 'accuracy'] as const).map((s) => rivalName(s, objectives)),
    ['median predictor', 'median predictor', 'chance', 'chance', 'chance']);
  assert.equal((['sample', 'frame', 'phoneme', 'sentence'] as const).map((s) => rivalName(s, swapped)), ['median predictor', 'chance', 'median predictor', 'median predictor']);
});

test('the rival of the sample scale is the L1 of the median of the samples that it decodes', () => {
  const rows = batches.flatMap(({ wave }) => Array.from({ length: R }, (_, r) => [...wave.subarray(r * L + 40, r * L + 40 + 320 * T)]));
  const sorted = rows.flat().sort((a, b) => a - b), median = (sorted[sorted.length / 2 - 1]! + sorted[sorted.length / 2]!) / 2;
  const want = sorted.reduce((sum, x) => sum + Math.abs(x - median), 0) / sorted.length;
  assert.ok(Math.abs(measureRivals(config(), B, batches).sample! - want) < 1e-6);
});

test('the rivals of the log-mel losses are those of a float64 reference, of masked frames at the phoneme scale', () => {
  const frames = 1 + Math.floor((L - 400) / 160), targets = batches.map(({ wave, mask }) => {
    const mel = logMelReference(Float64Array.from(wave), R, L, { nMels: MELS });
    return { mel, mask, ...melPairsReference(mel, [R, frames, MELS], T, Array.from({ length: R }, () => frames)) };
  });
  /** The values of a bin at all frames (2 a frame of the encoder) that are wanted. */
  const bin = (d: number, wanted: (mask: Int32Array, frame: number) => boolean): number[] => targets.flatMap(({ target, weight, mask }) =>
    Array.from({ length: 2 * R * T }, (_, i) => i).filter((i) => weight[i] === 1 && wanted(mask, i >> 1)).map((i) => target[(i >> 1) * 2 * MELS + (i % 2) * MELS + d]!));
  const mean = (wanted: (mask: Int32Array, frame: number) => boolean): number => Array.from({ length: MELS }, (_, d) => leastError(bin(d, wanted))).reduce((a, b) => a + b, 0) / MELS;
  const rivals = measureRivals(config({ objectives: { phoneme: 'l1', sentence: 'l1' } }), B, batches);
  assert.ok(Math.abs(rivals.frame! - mean(() => true)) < 1e-4, `${rivals.frame}`);
  assert.ok(Math.abs(rivals.phoneme! - mean((mask, frame) => mask[frame] === 1)) < 1e-4, `${rivals.phoneme}`);
  const statistics = targets.flatMap(({ mel }) => Array.from({ length: R }, (_, r) => Array.from({ length: MELS }, (__, d) => {
    const column = Array.from({ length: frames }, (___, m) => mel[(r * frames + m) * MELS + d]!), m = column.reduce((a, b) => a + b, 0) / frames;
    return [m, Math.sqrt(column.reduce((a, b) => a + (b - m) ** 2, 0) / frames)] as const;
  })));
  const want = Array.from({ length: MELS }, (_, d) => (leastError(statistics.map((row) => row[d]![0])) + leastError(statistics.map((row) => row[d]![1]))) / 2).reduce((a, b) => a + b, 0) / MELS;
  assert.ok(Math.abs(rivals.sentence! - want) < 1e-4, `${rivals.sentence} is not ${want}`);
  assert.is(rivals.accuracy, undefined);
});

test('the same crops give the same rivals, other crops others, and without crops only chance is known', () => {
  assert.equal(measureRivals(config(), B, batches), measureRivals(config(), B, [batch(1), batch(2)]));
  assert.is.not(measureRivals(config(), B, batches).sample, measureRivals(config(), B, [batch(5)]).sample);
  assert.equal(measureRivals(config(), B, []), chanceRivals(config(), B));
  assert.equal([rivalBatches(8), rivalBatches(128)], [8, 1]);
});

test.run();
