/**
 * Whether one of two things that were timed in turns is slower: a rank test, an interval of the ratio, and
 * four words for what they say.
 */

export interface RankTest {
  /** Two-sided probability of ranks as unequal as these, if both came from one distribution. */
  readonly p: number;
  /** Typical ratio of a run of `a` to a run of `b`: the median of all ratios. */
  readonly ratio: number;
  /** 95 % interval of the ratio, by inversion of the same test. */
  readonly low: number;
  readonly high: number;
}

/** Part of all arrangements of n and m ranks, without ties, whose U is u: for u = 0, ..., n m. */
function distributionOfU(n: number, m: number): Float64Array {
  const size = n * m + 1;
  const counts = new Float64Array(size);
  counts[0] = 1;
  // The Gaussian binomial coefficient: a product of (1 - q^(m + i)) / (1 - q^i), scaled so that nothing
  // overflows.
  for (let i = 1; i <= n; i++) {
    for (let u = size - 1; u >= m + i; u--) counts[u]! -= counts[u - m - i]!;
    for (let u = i; u < size; u++) counts[u]! += counts[u - i]!;
    const total = counts.reduce((sum, x) => sum + x, 0);
    for (let u = 0; u < size; u++) counts[u]! /= total;
  }
  return counts;
}

/**
 * P(U <= u) of the standard normal distribution's approximation (Abramowitz and Stegun 7.1.26, absolute error
 * below 1.5e-7).
 */
function normalBelow(z: number): number {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  const tail =
    (t *
      (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) *
      Math.exp(-x * x)) /
    2;
  return z < 0 ? tail : 1 - tail;
}

/** Above this many pairs, and with ties, the normal approximation is taken. */
const EXACT_PAIRS = 2500;

/** How often values of the joined samples occur, cubed less themselves: the correction for ties. */
function tieTerm(values: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const v of values) counts.set(v, (counts.get(v) ?? 0) + 1);
  return [...counts.values()].reduce((sum, t) => sum + t ** 3 - t, 0);
}

/** Milliseconds. A clock of coarse steps may say 0, which has no ratio. */
const SHORTEST = 1e-6;

/** Mann-Whitney's test of two samples of positive numbers. Throws RangeError for a sample of none. */
export function mannWhitney(a: readonly number[], b: readonly number[]): RankTest {
  const n = a.length;
  const m = b.length;
  const pairs = n * m;
  if (pairs === 0) throw new RangeError('a rank test of no samples');
  const ratios = a
    .flatMap((x) => b.map((y) => Math.max(x, SHORTEST) / Math.max(y, SHORTEST)))
    .sort((x, y) => x - y);
  const half = pairs >> 1;
  const ratio = pairs % 2 ? ratios[half]! : Math.sqrt(ratios[half - 1]! * ratios[half]!);
  const ties = tieTerm([...a, ...b]);
  const u = ratios.reduce((sum, r) => sum + (r > 1 ? 1 : r === 1 ? 0.5 : 0), 0);
  const least = Math.min(u, pairs - u);
  let p: number;
  let skip: number;
  if (ties === 0 && pairs <= EXACT_PAIRS) {
    const density = distributionOfU(n, m);
    let below = 0;
    for (let i = 0; i <= least; i++) below += density[i]!;
    p = Math.min(1, 2 * below);
    skip = 0;
    for (let sum = density[0]!; sum < 0.025; sum += density[++skip]!);
  } else {
    const deviation = Math.sqrt((pairs / 12) * (n + m + 1 - ties / ((n + m) * (n + m - 1))));
    p = deviation === 0 ? 1 : Math.min(1, 2 * normalBelow((least - pairs / 2 + 0.5) / deviation));
    skip = Math.max(0, Math.floor(pairs / 2 - 1.959964 * deviation));
  }
  // As R's wilcox.test: the quantile of U, but at least 1, counted from either end of the sorted ratios.
  const from = Math.max(1, skip) - 1;
  return { p, ratio, low: ratios[Math.min(from, half)]!, high: ratios[Math.max(pairs - 1 - from, half)]! };
}

/** The smallest p that n against n runs can have. */
export const smallestP = (n: number): number => Math.min(1, 2 * distributionOfU(n, n)[0]!);

/** Holm's correction: p values that may be held against one level however many there are. */
export function holm(ps: readonly number[]): number[] {
  const order = ps.map((_, i) => i).sort((i, j) => ps[i]! - ps[j]!);
  const out = new Array<number>(ps.length);
  let largest = 0;
  order.forEach((at, rank) => {
    largest = Math.max(largest, Math.min(1, (ps.length - rank) * ps[at]!));
    out[at] = largest;
  });
  return out;
}

export type Verdict = 'slower' | 'faster' | 'no difference' | 'inconclusive';

export interface Judged extends RankTest {
  readonly verdict: Verdict;
  /** Why it is inconclusive, else empty. */
  readonly why: string;
}

export interface JudgeOptions {
  /** Differences up to this part do not count: 0.05 is 5 %. */
  readonly threshold: number;
  /** Ratio by which the ceilings moved meanwhile, above 1; 1 if they did not, null if nobody knows. */
  readonly moved: number | null;
}

/** The level that p values are held against. */
export const LEVEL = 0.05;
/** Ceilings that moved by less than this ratio count as still. */
export const STILL = 1.1;
/** Fewer runs than this say nothing. */
export const FEWEST = 5;

function verdictOf(
  test: RankTest,
  p: number,
  { threshold, moved }: JudgeOptions,
): Pick<Judged, 'verdict' | 'why'> {
  const size = Math.max(test.ratio, 1 / test.ratio);
  const limit = 1 + threshold;
  if (moved === null) return { verdict: 'inconclusive', why: 'nobody knows whether the ceilings moved' };
  const still = moved <= STILL;
  if (p < LEVEL && size > limit && (still || size > moved))
    return { verdict: test.ratio > 1 ? 'slower' : 'faster', why: '' };
  if (!still)
    return {
      verdict: 'inconclusive',
      why: `the ceilings moved by a factor of ${moved.toFixed(2)} meanwhile`,
    };
  if (test.high <= limit && test.low >= 1 / limit) return { verdict: 'no difference', why: '' };
  return { verdict: 'inconclusive', why: 'the runs vary too much to tell' };
}

/**
 * Judges several results at once, `a` against `b`. Slower or faster: the test says so with p below 5 % after
 * Holm's correction, and the ratio
 * lies beyond the threshold and beyond what the ceilings moved. No difference: ceilings still, and the
 * interval within the threshold.
 */
export function judge(
  rows: readonly { readonly a: readonly number[]; readonly b: readonly number[] }[],
  options: JudgeOptions,
): Judged[] {
  const tests = rows.map(({ a, b }) => mannWhitney(a, b));
  const ps = holm(tests.map((t) => t.p));
  return tests.map((test, i) => {
    const { a, b } = rows[i]!;
    const runs = Math.min(a.length, b.length);
    const said: Pick<Judged, 'verdict' | 'why'> =
      runs < FEWEST
        ? { verdict: 'inconclusive', why: `${runs} runs are fewer than ${FEWEST}` }
        : verdictOf(test, ps[i]!, options);
    return { ...test, p: ps[i]!, ...said };
  });
}
