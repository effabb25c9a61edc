import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Purpose } from '../src/random/purposes.ts';
import { permutation, randomStream, stream } from '../src/random/stream.ts';
import {
  anchorCapacity,
  batchesBySeconds,
  cropStarts,
  DEFAULT_MASK,
  fixedNegatives,
  frameCount,
  isSilent,
  lengthBuckets,
  negativeIndices,
  normaliseCrop,
  spanMask,
} from '../src/audio/sampling.ts';
import { messageOf } from './audio-wav.ts';

const near = (actual: number, expected: number, tolerance: number, what: string) =>
  assert.ok(
    Math.abs(actual - expected) <= tolerance,
    `${what}: ${actual}, expected ${expected} within ${tolerance}`,
  );

/** Chi-square of counts against a uniform distribution, in standard deviations from its mean. */
const chiSquareZ = (counts: number[]) => {
  const mean = counts.reduce((a, b) => a + b, 0) / counts.length;
  const degrees = counts.length - 1;
  return (counts.reduce((sum, n) => sum + (n - mean) ** 2 / mean, 0) - degrees) / Math.sqrt(2 * degrees);
};

test('a stream is Philox 4x32-10: words of the published test vector, in order', () => {
  // Random123's kat_vectors for counter 0 0 0 0 and key 0 0.
  const first = randomStream(0);
  assert.equal(
    [0, 1, 2, 3].map(() => first.u32().toString(16)),
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8'],
  );
});

test('the block function follows the published test vectors', async () => {
  const { philox4x32 } = await import('../src/random/philox.ts');
  const out = new Uint32Array(4);
  const hex = () => [...out].map((w) => w.toString(16).padStart(8, '0')).join(' ');
  const ones = 0xffffffff;
  philox4x32(ones, ones, ones, ones, ones, ones, out);
  assert.is(hex(), '408f276d 41c83b0e a20bc7c6 6d5451fd');
  philox4x32(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, out);
  assert.is(hex(), 'd16cfe09 94fdcceb 5001e420 24126ea1');
});

test('streams with different seeds or counters differ, the high half of the seed included', () => {
  const words = [
    randomStream(1),
    randomStream(2),
    randomStream(1 + 2 ** 32),
    randomStream(1, 1),
    randomStream(1, 0, 1),
    randomStream(1, 0, 0, 1),
  ].map((s) => s.u32());
  assert.is(new Set(words).size, words.length);
  assert.is(randomStream(7, 8, 9).u32(), randomStream(7, 8, 9).u32());
});

test('uniform numbers lie in [0, 1) with the right mean and variance; integers below n are uniform', () => {
  const random = randomStream(3);
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < 100000; i++) {
    const u = random.uniform();
    assert.ok(u >= 0 && u < 1);
    sum += u;
    squares += u * u;
  }
  near(sum / 100000, 0.5, 0.003, 'mean');
  near(squares / 100000 - (sum / 100000) ** 2, 1 / 12, 0.001, 'variance');
  const counts = new Array<number>(37).fill(0);
  for (let i = 0; i < 37000; i++) counts[random.below(37)]!++;
  near(chiSquareZ(counts), 0, 4, 'chi-square');
});

test('a permutation holds every index once, and every order of three is equally likely', () => {
  assert.equal(
    [...permutation(1000, randomStream(1))].sort((a, b) => a - b),
    Array.from({ length: 1000 }, (_, i) => i),
  );
  const counts = new Map<string, number>();
  for (let i = 0; i < 6000; i++) {
    const key = permutation(3, randomStream(5, i)).join('');
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  assert.is(counts.size, 6);
  near(chiSquareZ([...counts.values()]), 0, 4, 'chi-square');
  assert.is(permutation(10, randomStream(1), 4).length, 4);
});

test('frame counts follow the convolutions layer by layer', async () => {
  for (const [samples, frames] of [
    [400, 1],
    [719, 1],
    [720, 2],
    [16000, 49],
    [30720, 95],
    [32000, 99],
    [48000, 149],
    [80000, 249],
    [160000, 499],
    [250000, 781],
  ] as const) {
    assert.is(frameCount(samples), frames, `${samples} samples`);
  }
  assert.is(
    await messageOf(() => frameCount(399), 'audio'),
    'A clip of 399 samples is too short: one frame needs 400 samples (25 ms at 16 kHz).',
  );
});

test('masks over 2000 draws at T = 499 cover 49 % of the frames in runs of 14.7', () => {
  let masked = 0;
  let runs = 0;
  for (let draw = 0; draw < 2000; draw++) {
    const mask = spanMask(499, 499, DEFAULT_MASK, randomStream(11, draw));
    mask.forEach((m, t) => {
      masked += m;
      if (m && !mask[t - 1]) runs++;
    });
  }
  near(masked / 2000 / 499, 0.49, 0.01, 'masked fraction');
  near(masked / runs, 14.7, 0.4, 'mean run');
});

test('masks hold at least two spans, never a padded frame, never all frames; rows of one frame stay open', () => {
  for (let n = 2; n <= 60; n++) {
    for (let draw = 0; draw < 50; draw++) {
      const mask = spanMask(64, n, DEFAULT_MASK, randomStream(12, n, draw));
      const count = mask.reduce((a, b) => a + b, 0);
      const length = Math.min(10, Math.max(1, Math.floor(n / 4)));
      assert.is(mask.subarray(n).indexOf(1), -1, `a padded frame of ${n} is masked`);
      assert.ok(count < n, `all ${n} frames are masked`);
      assert.ok(
        count >= Math.min(length + 1, n - length),
        `${count} of ${n} frames are masked, less than two different spans`,
      );
    }
  }
  assert.is(spanMask(8, 1, DEFAULT_MASK, randomStream(1)).indexOf(1), -1);
});

test('the number of spans is floor(p T / M + U): 6 or 7 for T = 95, 7 in 17.5 % of rows', () => {
  let seven = 0; // spans of one frame do not overlap, so that they can be counted
  for (let draw = 0; draw < 4000; draw++) {
    const spans = spanMask(
      95,
      95,
      { probability: 0.065, length: 1, minMasks: 2 },
      randomStream(13, draw),
    ).reduce((a, b) => a + b, 0);
    assert.ok(spans === 6 || spans === 7, `${spans} spans`);
    if (spans === 7) seven++;
  }
  near(seven / 4000, 0.175, 0.025, 'rows with seven');
});

test('the anchor capacity is never exceeded, and is reached where spans cannot overlap', () => {
  const single = { probability: 0.5, length: 1, minMasks: 2 };
  for (const config of [DEFAULT_MASK, single, { probability: 0.9, length: 10, minMasks: 2 }]) {
    for (const T of [3, 4, 7, 9, 20, 49, 99, 100]) {
      const capacity = anchorCapacity(1, T, config);
      let most = 0;
      for (let draw = 0; draw < 300; draw++)
        most = Math.max(
          most,
          spanMask(T, T, config, randomStream(14, T, draw)).reduce((a, b) => a + b, 0),
        );
      assert.ok(most <= capacity && capacity < T, `T = ${T}: ${most} masked, capacity ${capacity}`);
      if (config === single) assert.is(most, capacity, `T = ${T}`);
    }
  }
  assert.is(anchorCapacity(8, 95), 8 * 70);
});

test('negatives are other masked frames of the same row, uniformly', () => {
  const rows = [
    spanMask(40, 40, DEFAULT_MASK, randomStream(15, 0)),
    new Uint8Array(40),
    spanMask(40, 40, DEFAULT_MASK, randomStream(15, 1)),
  ];
  const frames = rows.flatMap((mask, r) => [...mask].flatMap((m, t) => (m ? [r * 40 + t] : [])));
  const K = 4000;
  const { anchor, negatives } = negativeIndices(rows, K, randomStream(16));
  assert.equal([...anchor], frames);
  assert.is(negatives.length, frames.length * K);
  anchor.forEach((a, i) => {
    const others = frames.filter((f) => f !== a && Math.floor(f / 40) === Math.floor(a / 40));
    const counts = new Map(others.map((f) => [f, 0]));
    for (const j of negatives.subarray(i * K, (i + 1) * K)) {
      assert.ok(counts.has(j), `anchor ${a} has the negative ${j}`);
      counts.set(j, counts.get(j)! + 1);
    }
    near(chiSquareZ([...counts.values()]), 0, 5, `chi-square of anchor ${a}`);
  });
});

test('a row with a single masked frame gives no anchor', () => {
  const { anchor } = negativeIndices([Uint8Array.of(0, 1, 0), Uint8Array.of(1, 0, 1)], 2, randomStream(1));
  assert.equal([...anchor], [3, 5]);
});

test(
  'a fixed list holds the same anchors, then fillers of weight 0 that are real frames other than their ' +
    'negatives',
  async () => {
    const rows = [0, 1].map((r) => spanMask(30, 30, DEFAULT_MASK, randomStream(17, r)));
    const drawn = negativeIndices(rows, 5, randomStream(18));
    const N = drawn.anchor.length;
    const fixed = fixedNegatives(rows, 5, N + 3, randomStream(18));
    assert.is(fixed.count, N);
    assert.equal(fixed.anchor.slice(0, N), drawn.anchor);
    assert.equal(fixed.negatives.slice(0, 5 * N), drawn.negatives);
    assert.equal([...fixed.weight], [...new Array<number>(N).fill(1), 0, 0, 0]);
    const masked = new Set(drawn.anchor);
    assert.ok(
      fixed.anchor.slice(N).every((a) => masked.has(a)) &&
        fixed.negatives.slice(5 * N).every((a) => masked.has(a) && a !== fixed.anchor[N]),
    );
    assert.is(
      await messageOf(() => fixedNegatives(rows, 5, N - 1, randomStream(18)), 'shape'),
      `${N} masked frames do not fit the ${N - 1} anchors of a step; raise the capacity.`,
    );
  },
);

test('normalised crops have mean 0 and variance v / (v + 1e-7), also around a large offset', () => {
  const x = Float32Array.from({ length: 5000 }, (_, i) => 100 + 0.01 * Math.sin(i));
  const y = normaliseCrop(x);
  const exact = [...x].map(Number);
  const mean = exact.reduce((a, b) => a + b, 0) / 5000;
  const variance = exact.reduce((a, b) => a + (b - mean) ** 2, 0) / 5000;
  near(y.reduce((a, b) => a + b, 0) / 5000, 0, 1e-6, 'mean');
  near(y.reduce((a, b) => a + b * b, 0) / 5000, variance / (variance + 1e-7), 1e-5, 'variance');
  assert.ok(normaliseCrop(new Float32Array(10).fill(0.3)).every((v) => v === 0));
});

test('silence is a standard deviation under 1e-4', () => {
  const square = (level: number) =>
    Float32Array.from({ length: 1000 }, (_, i) => 0.2 + (i % 2 ? level : -level));
  assert.is(isSilent(square(0.9e-4)), true);
  assert.is(isSilent(square(1.1e-4)), false);
  assert.is(isSilent(new Float32Array(0)), true);
});

test('two crops are disjoint where they fit, else as far apart as possible', () => {
  let first = Infinity;
  let last = 0;
  for (let draw = 0; draw < 500; draw++) {
    const [a, b] = cropStarts(250, 100, randomStream(19, draw));
    assert.ok(a >= 0 && b >= a + 100 && b + 100 <= 250, `${a}, ${b}`);
    first = Math.min(first, a);
    last = Math.max(last, b);
  }
  assert.equal([first, last], [0, 150], 'the ends are reached');
  assert.equal(cropStarts(200, 100, randomStream(1)), [0, 100]);
  assert.equal(cropStarts(130, 100, randomStream(1)), [0, 30]);
  assert.equal(cropStarts(100, 100, randomStream(1)), [0, 0]);
  const retried = cropStarts(130, 100, randomStream(20), true);
  assert.ok(retried.every((s) => s >= 0 && s <= 30));
});

test('batches by seconds hold clips of similar length within the limit, each once', () => {
  const lengths = [5, 1, 9, 2, 2, 30, 1, 4];
  const batches = batchesBySeconds(lengths, 10);
  assert.equal(batches, [[1, 6, 3, 4], [7, 0], [2], [5]]);
  assert.equal(batchesBySeconds([], 10), []);
});

test('buckets pad least: a long recording is by itself, and no other cut is better', () => {
  assert.equal(lengthBuckets([2, 2, 3, 3, 3, 20], 2), [5, 6]);
  assert.equal(lengthBuckets([4, 4, 4], 6), [3]);
  assert.equal(lengthBuckets([1, 2, 3], 6), [1, 2, 3]);
  assert.equal(lengthBuckets([1, 2, 3], 1), [3]);
  assert.equal(lengthBuckets([], 6), []);
  const padded = (lengths: readonly number[], ends: readonly number[]): number =>
    ends.reduce((sum, end, b) => sum + (end - (ends[b - 1] ?? 0)) * lengths[end - 1]!, 0);
  for (let draw = 0; draw < 20; draw++) {
    const random = randomStream(21, draw);
    const lengths = Array.from({ length: 9 }, () => 1 + random.below(30)).sort((a, b) => a - b);
    const found = lengthBuckets(lengths, 3);
    assert.ok(
      found.length <= 3 && found.at(-1) === 9 && found.every((end, b) => end > (found[b - 1] ?? 0)),
      found.join(),
    );
    for (let a = 1; a < 9; a++)
      for (let b = a; b < 9; b++)
        assert.ok(
          padded(lengths, found) <= padded(lengths, a === b ? [a, 9] : [a, b, 9]),
          `${lengths.join()}: ${found.join()}`,
        );
  }
});

test('no two purposes of random numbers share a number, and those of checkpoints stay what they are', () => {
  const numbers = Object.values(Purpose);
  assert.is(new Set(numbers).size, numbers.length);
  const { ClipOrder, Crop, Mask, Negatives, Replacement, FrameNegatives } = Purpose;
  const resumed = [ClipOrder, Crop, Mask, Negatives, Replacement, FrameNegatives];
  assert.equal(resumed, [1, 2, 3, 4, 5, 0x66726e67]);
  assert.is(stream(7, Purpose.Mask, { step: 3, row: 2 }).u32(), randomStream(7, 3, 2, 3).u32());
});

test.run();
