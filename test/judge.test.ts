import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { holm, judge, mannWhitney, smallestP } from '../src/measure/judge.ts';
import { uniforms } from '../src/random/uniforms.ts';

const close = (got: number, want: number, within = 1e-12): void =>
  assert.ok(Math.abs(got - want) <= within, `${got} is not ${want}`);

test('the rank test has the p values of scipy.stats.mannwhitneyu, exact and with ties', () => {
  const a = [0.8, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
  const b = [1.15, 0.88, 0.9, 0.74, 1.21];
  close(mannWhitney(a, b).p, 0.2544122544122544);
  close(mannWhitney(b, a).p, 0.2544122544122544);
  close(mannWhitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]).p, 2 / 252);
  // With ties: the normal approximation with continuity correction.
  close(mannWhitney([1, 2, 2, 3, 5, 6], [2, 4, 5, 7, 8, 9, 9]).p, 0.06111799764596171, 1e-6);
  close(smallestP(7), 2 / 3432);
  assert.is(mannWhitney([1, 1, 1], [1, 1, 1]).p, 1);
  assert.throws(() => mannWhitney([], [1]), RangeError);
});

test('the interval of the ratio is that of the sorted ratios between the quantiles of U', () => {
  // For 5 against 5 the quantile of U at 2.5 % is 3 (R: qwilcox(0.025, 5, 5)), so that the interval is from
  // the 3rd of 25 to the 3rd last.
  const a = [1, 2, 3, 4, 5];
  const b = [6, 7, 8, 9, 10];
  const sorted = a.flatMap((x) => b.map((y) => x / y)).sort((x, y) => x - y);
  const { ratio, low, high } = mannWhitney(a, b);
  assert.equal([ratio, low, high], [sorted[12], sorted[2], sorted[22]]);
});

test("Holm's correction is that of the textbook", () => {
  assert.equal(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
  assert.equal(holm([]), []);
});

const draw = (seed: number, n: number, median: number, spread: number): number[] => {
  const next = uniforms(seed);
  return Array.from({ length: n }, () => median * Math.exp(spread * (next() + next() + next() - 1.5)));
};

test(
  'a clear difference is told with its direction, none as none, and one below the threshold is not ' +
    'slower',
  () => {
    const verdict = (factor: number, threshold = 0.05): string =>
      judge([{ a: draw(1, 20, factor, 0.02), b: draw(2, 20, 1, 0.02) }], { threshold, moved: 1 })[0]!.verdict;
    assert.is(verdict(1.3), 'slower');
    assert.is(verdict(0.7), 'faster');
    assert.is(verdict(1), 'no difference');
    assert.is(verdict(1.03), 'no difference');
    assert.is(verdict(1.3, 0.5), 'no difference');
  },
);

test('what cannot be told is inconclusive with its reason: few runs, a wide spread, ceilings that moved', () => {
  const rows = [{ a: draw(1, 20, 1.2, 0.02), b: draw(2, 20, 1, 0.02) }];
  const [few] = judge([{ a: [1, 2, 3], b: [5, 6, 7] }], { threshold: 0.05, moved: 1 });
  const [wide] = judge([{ a: draw(3, 7, 1, 0.5), b: draw(4, 7, 1, 0.5) }], { threshold: 0.05, moved: 1 });
  const [moved] = judge(rows, { threshold: 0.05, moved: 1.5 });
  const [beyond] = judge(rows, { threshold: 0.05, moved: 1.12 });
  assert.equal(
    [few!.verdict, wide!.verdict, moved!.verdict],
    ['inconclusive', 'inconclusive', 'inconclusive'],
  );
  assert.match(few!.why, '3 runs are fewer than 5');
  assert.is(judge(rows, { threshold: 0.05, moved: null })[0]!.verdict, 'inconclusive');
  assert.match(wide!.why, 'vary too much');
  assert.match(moved!.why, 'the ceilings moved by a factor of 1.50');
  assert.is(beyond!.verdict, 'slower', 'a difference larger than what the ceilings moved stands');
});

test(
  'of 400 comparisons of equal code on a noisy machine, in groups of 20, at most one group in ten ' +
    'calls anything slower',
  () => {
    let alarms = 0;
    for (let group = 0; group < 20; group++) {
      const rows = Array.from({ length: 20 }, (_, i) => ({
        a: draw(1000 * group + i, 7, 1, 0.4),
        b: draw(1000 * group + 500 + i, 7, 1, 0.4),
      }));
      alarms += Number(
        judge(rows, { threshold: 0.05, moved: 1 }).some(
          (j) => j.verdict === 'slower' || j.verdict === 'faster',
        ),
      );
    }
    assert.ok(alarms <= 2, `${alarms} groups of 20`);
  },
);

test.run();
