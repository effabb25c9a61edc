import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { editDistance } from '../src/edit-distance.ts';
import {
  accuracy,
  bootstrap,
  confusionMatrix,
  corpusErrorRate,
  unweightedAverageRecall,
} from '../src/tasks/probe/metrics.ts';
import type { MGFError } from '../src/errors.ts';

test('the edit distance counts insertions, deletions and substitutions, of letters or of words', () => {
  assert.is(editDistance([...'kitten'], [...'sitting']), 3);
  assert.is(editDistance([...'kitten'], []), 6);
  assert.is(editDistance([], [...'abc']), 3);
  assert.is(editDistance('the cat sat'.split(' '), 'the bat sat down'.split(' ')), 2);
  assert.is(editDistance([1, 2, 3], [1, 2, 3]), 0);
});

test('the error rate of a corpus is all edits over all reference lengths, not a mean of rates', () => {
  const { value } = corpusErrorRate(
    [
      { errors: 1, length: 1 },
      { errors: 1, length: 9 },
    ],
    1,
  );
  assert.is(value, 0.2);
});

test('an empty hypothesis has an error rate of 1, a babbling one more', () => {
  const truth = 'one two three'.split(' ');
  assert.equal(corpusErrorRate([{ errors: editDistance(truth, []), length: truth.length }], 1), {
    value: 1,
    interval: [1, 1],
  });
  assert.is(
    corpusErrorRate([{ errors: editDistance(truth, 'a b c d e f'.split(' ')), length: truth.length }], 1)
      .value,
    2,
  );
});

test('an error rate without any reference text is an error', () => {
  assert.throws(
    () => corpusErrorRate([{ errors: 0, length: 0 }], 1),
    (e: MGFError) => e.code === 'data' && /not empty/.test(e.message),
  );
  assert.throws(
    () => bootstrap(0, () => 1, { seed: 1 }),
    (e: MGFError) => e.code === 'data',
  );
});

test('accuracy counts recordings, unweighted average recall counts classes', () => {
  const truth = [0, 0, 0, 0, 0, 0, 1, 1, 3];
  const predicted = [0, 0, 0, 0, 0, 0, 0, 1, 0];
  assert.is(accuracy(truth, predicted), 7 / 9);
  assert.is(unweightedAverageRecall(truth, predicted, 4), (1 + 0.5 + 0) / 3); // class 2 does not occur
  assert.equal(confusionMatrix(truth, predicted, 4), [
    [6, 0, 0, 0],
    [1, 1, 0, 0],
    [0, 0, 0, 0],
    [1, 0, 0, 0],
  ]);
});

test('a bootstrap interval of a mean is that of the normal approximation, and the same for the same seed', () => {
  const n = 400;
  const right = Array.from({ length: n }, (_, i) => Number(i % 4 === 0));
  const mean = (indices: ArrayLike<number>): number =>
    Array.from(indices).reduce((sum, i) => sum + right[i]!, 0) / indices.length;
  const {
    value,
    interval: [low, high],
  } = bootstrap(n, mean, { seed: 7 });
  const half = 1.96 * Math.sqrt((0.25 * 0.75) / n);
  assert.is(value, 0.25);
  assert.ok(
    Math.abs(low - (0.25 - half)) < 0.006 && Math.abs(high - (0.25 + half)) < 0.006,
    `${low} to ${high}`,
  );
  assert.equal(bootstrap(n, mean, { seed: 7 }).interval, [low, high]);
  assert.not.equal(
    bootstrap(n, mean, { seed: 8, resamplings: 100 }).interval,
    bootstrap(n, mean, { seed: 9, resamplings: 100 }).interval,
  );
});

test.run();
