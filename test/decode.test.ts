import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/random/stream.ts';
import type { MGFError } from '../src/errors.ts';
import { greedyCTC, logSoftmaxRows, prefixBeamCTC } from '../src/tasks/decode/decode.ts';
import { NGram } from '../src/tasks/decode/ngram.ts';

const noise = (frames: number, classes: number, seed: number, scale = 2): Float32Array => {
  const random = randomStream(seed);
  return logSoftmaxRows(
    Float32Array.from({ length: frames * classes }, () => scale * (2 * random.uniform() - 1)),
    classes,
  );
};
/** One frame a character: `_` the blank, a, b, c the labels 1, 2, 3. */
const spelled = (path: string, classes = 4): Float32Array => {
  const logits = new Float32Array(path.length * classes);
  [...path].forEach((c, t) => {
    logits[t * classes + '_abc'.indexOf(c)] = 5;
  });
  return logits;
};

/** The summed probability of every label sequence, over all classes^frames paths. */
function allSequences(
  logp: Float32Array,
  frames: number,
  classes: number,
): Map<string, { labels: number[]; p: number }> {
  const found = new Map<string, { labels: number[]; p: number }>();
  for (let code = 0; code < classes ** frames; code++) {
    const path = Array.from({ length: frames }, (_, t) => Math.floor(code / classes ** t) % classes);
    const labels = path.filter((c, t) => c !== 0 && c !== path[t - 1]);
    const p = Math.exp(path.reduce((sum, c, t) => sum + logp[t * classes + c]!, 0));
    const known = found.get(labels.join());
    if (known) known.p += p;
    else found.set(labels.join(), { labels, p });
  }
  return found;
}
const best = (
  sequences: Iterable<{ labels: number[]; p: number }>,
  score: (s: { labels: number[]; p: number }) => number,
): number[] => [...sequences].reduce((a, b) => (score(b) > score(a) ? b : a)).labels;

test('greedy decoding merges repeats and drops blanks: aa_ab is aab', () => {
  assert.equal(greedyCTC(spelled('aa_ab'), 5, 4), [1, 1, 2]);
  assert.equal(greedyCTC(spelled('__a_'), 4, 4), [1]);
  assert.equal(greedyCTC(spelled('____'), 4, 4), []);
  assert.equal(greedyCTC(spelled('abba'), 4, 4), [1, 2, 1]);
  assert.equal(greedyCTC(new Float32Array(), 0, 4), []);
});

test('a wide beam finds the labels with the largest summed probability of all paths', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const frames = 1 + (seed % 6);
    const logp = noise(frames, 4, seed);
    assert.equal(
      prefixBeamCTC(logp, frames, 4, { beam: 10000 }),
      best(allSequences(logp, frames, 4).values(), (s) => s.p),
      `seed ${seed}`,
    );
  }
});

test('where many paths of one label outweigh the best path, the beam is right and greedy is not', () => {
  // "_ _" has 0.36, but a, by three paths, 0.64
  const logp = Float32Array.from([0.6, 0.4, 0.6, 0.4], Math.log);
  assert.equal(greedyCTC(logp, 2, 2), []);
  assert.equal(prefixBeamCTC(logp, 2, 2, { beam: 2 }), [1]);
});

test('a beam of one follows the best prefix, and narrow beams still read clear speech', () => {
  assert.equal(prefixBeamCTC(logSoftmaxRows(spelled('aa_ab_c'), 4), 7, 4, { beam: 1 }), [1, 1, 2, 3]);
  assert.equal(prefixBeamCTC(new Float32Array(), 0, 4, { beam: 3 }), []);
});

test('with a language model and a bonus the beam maximises their weighted sum', () => {
  const lm = NGram.train(
    [
      [1, 2, 3],
      [1, 2],
      [3, 3, 1],
    ],
    { order: 3, classes: 4 },
  );
  let differs = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const frames = 2 + (seed % 4);
    const logp = noise(frames, 4, seed, 1.5);
    const options = { lm, lmWeight: 0.8, insertionBonus: 0.7 };
    const prior = (labels: number[]): number =>
      [...labels, 0].reduce(
        (sum, label, i) => sum + 0.8 * lm.logProbabilities(labels.slice(0, i))[label]!,
        0.7 * labels.length,
      );
    const sequences = [...allSequences(logp, frames, 4).values()];
    const want = best(sequences, (s) => Math.log(s.p) + prior(s.labels));
    assert.equal(prefixBeamCTC(logp, frames, 4, { beam: 10000, ...options }), want, `seed ${seed}`);
    differs += Number(want.join() !== best(sequences, (s) => s.p).join());
  }
  assert.ok(differs > 3, `the language model changed ${differs} of 20 transcripts`);
});

test('what a decoder cannot use is one clear sentence', () => {
  const fails = (code: string, pattern: RegExp, call: () => unknown): void => {
    assert.throws(call, (e: MGFError) => e.code === code && pattern.test(e.message));
  };
  fails('shape', /need 8 numbers, got 7/, () => greedyCTC(new Float32Array(7), 2, 4));
  fails('shape', /need 8 numbers, got 7/, () => prefixBeamCTC(new Float32Array(7), 2, 4, { beam: 2 }));
  fails('usage', /at least 1, got 0/, () => prefixBeamCTC(new Float32Array(8), 2, 4, { beam: 0 }));
  fails('shape', /knows 3 classes/, () =>
    prefixBeamCTC(new Float32Array(8), 2, 4, { beam: 2, lm: NGram.train([[1]], { order: 2, classes: 3 }) }),
  );
  fails('data', /cannot have counted label 9/, () => NGram.train([[1, 9]], { order: 2, classes: 4 }));
  fails('data', /not the table/, () => NGram.fromTable(Int32Array.of(1, 2), { order: 2, classes: 4 }));
});

for (const order of [1, 2, 3, 5]) {
  test(`the probabilities of an n-gram of order ${order} sum to 1 after any history`, () => {
    const lm = NGram.train([[1, 2, 3, 1, 2], [2, 2, 1], [], [4, 1]], { order, classes: 6 });
    for (const history of [[], [1], [1, 2], [2, 2, 1], [5, 5, 5, 5, 5], [1, 2, 3, 1, 2, 3]]) {
      const p = lm.logProbabilities(history).map(Math.exp);
      assert.ok(Math.abs(p.reduce((sum, v) => sum + v, 0) - 1) < 1e-12, `after ${history.join()}`);
      assert.ok(p.every((v) => v > 0));
    }
  });
}

test('Witten-Bell by hand: two transcripts "ab" and "aa" of two letters', () => {
  const lm = NGram.train(
    [
      [1, 2],
      [1, 1],
    ],
    { order: 2, classes: 3 },
  );
  // Unigrams: a 3, b 1, end 2 of 6, 3 types, over a uniform third. After a: b 1, a 1, end 1 of 3, 3 types.
  const unigram = [(2 + 1) / 9, (3 + 1) / 9, (1 + 1) / 9];
  const afterA = unigram.map((p) => (1 + 3 * p) / 6);
  lm.logProbabilities([1]).forEach((v, i) => assert.ok(Math.abs(Math.exp(v) - afterA[i]!) < 1e-12));
  const start = lm.logProbabilities([]).map(Math.exp);
  assert.ok(Math.abs(start[1]! - (2 + unigram[1]!) / 3) < 1e-12);
});

test('an n-gram written as a table and read again is the same', () => {
  const lm = NGram.train([[1, 2, 3, 1], [2, 2], [2, 2], []], { order: 4, classes: 4 });
  const again = NGram.fromTable(lm.table(), { order: 4, classes: 4 });
  for (const history of [[], [2], [1, 2, 3], [3, 3, 3, 3]])
    assert.equal(again.logProbabilities(history), lm.logProbabilities(history));
});

test.run();
