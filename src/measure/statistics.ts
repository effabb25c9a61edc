/** What repeated runs say: milliseconds, and how far they spread. */
export interface Timing {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** (max - min) / median. */
  readonly spread: number;
  readonly runs: number;
  /** Milliseconds of each run, in their order. */
  readonly samples: readonly number[];
}

/**
 * Median (of an even count: the mean of the middle two), extremes and spread. Throws RangeError for no
 * samples.
 */
export function statistics(samples: readonly number[]): Timing {
  if (samples.length === 0) throw new RangeError('statistics of no samples');
  const sorted = [...samples].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  const min = sorted[0]!;
  const max = sorted.at(-1)!;
  return { median, min, max, spread: median > 0 ? (max - min) / median : 0, runs: sorted.length, samples };
}

export interface Repetition {
  /** Never fewer runs than this; 5. */
  readonly minRuns?: number;
  /** Never more; 40. */
  readonly maxRuns?: number;
  /** Goes on until this much time was measured, for each that takes part; 1. */
  readonly seconds?: number;
}

/** Whether another round is wanted after `runs` of them that took `ms` for each that takes part. */
export function wantsMore(
  runs: number,
  ms: number,
  { minRuns = 5, maxRuns = 40, seconds = 1 }: Repetition,
): boolean {
  return runs < minRuns || (runs < maxRuns && ms < 1000 * seconds);
}
