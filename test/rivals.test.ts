import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/random/stream.ts';
import { SCALES } from '../src/mgf/config.ts';
import { presetConfig } from '../src/mgf/presets.ts';
import { logMelReference, melPairsReference } from '../src/ops/log-mel.ts';
import { chanceRivals, measureRivals, medianError, rivalBatches, rivalName } from '../src/mgf/rivals.ts';
import type { DeepPartial, MGFConfig } from '../src/mgf/config.ts';

const average = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

const B = 2;
const R = 2 * B;
const L = 4000;
const T = 12;
const MELS = 80;

/**
 * Noise whose loudness rises and falls, of zero mean and unit variance by row, under masks of every third
 * frame.
 */
function batch(seed: number): { wave: Float32Array; mask: Int32Array } {
  const random = randomStream(seed);
  const wave = new Float32Array(R * L);
  for (let r = 0; r < R; r++) {
    const loud = (i: number): number => Math.sin(i / (200 + 50 * r)) ** 2;
    const row = Float64Array.from({ length: L }, (_, i) => loud(i) * (random.uniform() - 0.5));
    const mean = average([...row]);
    const deviation = Math.sqrt(average([...row].map((x) => (x - mean) ** 2)));
    row.forEach((x, i) => {
      wave[r * L + i] = (x - mean) / deviation;
    });
  }
  return { wave, mask: Int32Array.from({ length: R * T }, (_, i) => Number(i % 3 === 0)) };
}

const batches = [batch(1), batch(2)];
const config = (changes: DeepPartial<MGFConfig> = {}): MGFConfig => presetConfig('nano', changes);

/** The least mean of |x - c| over constants c, found by trying each value. */
function leastError(values: readonly number[]): number {
  return Math.min(...values.map((c) => average(values.map((x) => Math.abs(x - c)))));
}

test('the median error is the least that a constant answer for each column can have', () => {
  const random = randomStream(3);
  for (const n of [1, 2, 7, 50]) {
    const values = Float32Array.from({ length: 3 * n }, () => random.uniform() ** 3);
    const want = average([0, 1, 2].map((c) => leastError([...values].filter((_, i) => i % 3 === c))));
    assert.ok(Math.abs(medianError(values, 3) - want) < 1e-6, `${n} values`);
  }
  assert.ok(Number.isNaN(medianError(new Float32Array(), 1)));
});

test('contrastive rivals follow from the candidates: ln(K+1), ln(2B-1), 1/(K+1)', () => {
  const of = (changes: DeepPartial<MGFConfig>): unknown => chanceRivals(presetConfig('tiny', changes), 8);
  assert.equal(of({}), { phoneme: Math.log(101), sentence: Math.log(15), accuracy: 1 / 101 });
  const objectives = { frame: 'info_nce', phoneme: 'l1', sentence: 'l1' } as const;
  assert.equal(of({ objectives }), { frame: Math.log(101) });
  assert.equal(of({ loss_weights: { phoneme: 0 } }), { sentence: Math.log(15) });
});

test('each rival has the name of what it is', () => {
  const swapped = { frame: 'info_nce', phoneme: 'l1', sentence: 'l1' } as const;
  const { objectives } = config();
  const median = 'median predictor';
  const names = [...SCALES, 'accuracy' as const].map((s) => rivalName(s, objectives));
  assert.equal(names, [median, median, 'chance', 'chance', 'chance']);
  assert.equal(
    SCALES.map((s) => rivalName(s, swapped)),
    [median, 'chance', median, median],
  );
});

test('the rival of the sample scale is the L1 of the median of the samples that it decodes', () => {
  const decoded = (wave: Float32Array, r: number): number[] => [
    ...wave.subarray(r * L + 40, r * L + 40 + 320 * T),
  ];
  const sorted = batches
    .flatMap(({ wave }) => range(R).flatMap((r) => decoded(wave, r)))
    .sort((a, b) => a - b);
  const half = sorted.length / 2;
  const median = (sorted[half - 1]! + sorted[half]!) / 2;
  const want = average(sorted.map((x) => Math.abs(x - median)));
  assert.ok(Math.abs(measureRivals(config(), B, batches).sample! - want) < 1e-6);
});

const FRAMES = 1 + Math.floor((L - 400) / 160);
const references = batches.map(({ wave, mask }) => {
  const mel = logMelReference(Float64Array.from(wave), R, L, { nMels: MELS });
  return {
    mel,
    mask,
    ...melPairsReference(
      mel,
      [R, FRAMES, MELS],
      T,
      range(R).map(() => FRAMES),
    ),
  };
});

/** The least error of constants for each bin, over all frames of log-mel whose encoder frame is wanted. */
function leastFrameError(wanted: (mask: Int32Array, frame: number) => boolean): number {
  const bin = (d: number): number[] =>
    references.flatMap(({ target, weight, mask }) =>
      range(2 * R * T)
        .filter((i) => weight[i] === 1 && wanted(mask, i >> 1))
        .map((i) => target[(i >> 1) * 2 * MELS + (i % 2) * MELS + d]!),
    );
  return average(range(MELS).map((d) => leastError(bin(d))));
}

/** The least error of constants for each mean and each deviation of the rows' bins. */
function leastStatisticsError(): number {
  const columns = references.flatMap(({ mel }) =>
    range(R).map((r) =>
      range(MELS).map((d) => {
        const column = range(FRAMES).map((m) => mel[(r * FRAMES + m) * MELS + d]!);
        const mean = average(column);
        return [mean, Math.sqrt(average(column.map((x) => (x - mean) ** 2)))] as const;
      }),
    ),
  );
  const least = (d: number, k: 0 | 1): number => leastError(columns.map((row) => row[d]![k]));
  return average(range(MELS).flatMap((d) => [least(d, 0), least(d, 1)]));
}

test('the rivals of the log-mel losses are those of a float64 reference', () => {
  const rivals = measureRivals(config({ objectives: { phoneme: 'l1', sentence: 'l1' } }), B, batches);
  const close = (got: number | undefined, want: number): void => {
    assert.ok(Math.abs(got! - want) < 1e-4, `${got}, not ${want}`);
  };
  close(
    rivals.frame,
    leastFrameError(() => true),
  );
  close(
    rivals.phoneme,
    leastFrameError((mask, frame) => mask[frame] === 1),
  );
  close(rivals.sentence, leastStatisticsError());
  assert.is(rivals.accuracy, undefined);
});

test('rivals repeat with the crops, change with them, and without crops only chance is known', () => {
  const measured = measureRivals(config(), B, batches);
  assert.equal(measured, measureRivals(config(), B, [batch(1), batch(2)]));
  assert.is.not(measured.sample, measureRivals(config(), B, [batch(5)]).sample);
  assert.equal(measureRivals(config(), B, []), chanceRivals(config(), B));
  assert.equal([rivalBatches(8), rivalBatches(128)], [8, 1]);
});

test.run();
