/** What the tasks are scored by: accuracy, recall, error rates, and how far each can be trusted. */
import { Purpose } from '../../random/purposes.ts';
import { stream } from '../../random/stream.ts';
import { MGFError } from '../../errors.ts';
import type { Estimate } from '../task.ts';

/**
 * `score` of all units once, with its 95 % percentile interval over `resamplings` (default 2000) draws of as
 * many units with replacement. Units must be independent of each other: utterances, or speakers, not the
 * frames of one utterance. Draws without a score (NaN) are left out.
 * @throws MGFError 'data' without units.
 */
export function bootstrap(
  units: number,
  score: (indices: Int32Array) => number,
  { seed, resamplings = 2000 }: { seed: number; resamplings?: number },
): Estimate {
  if (units < 1) throw new MGFError('data', 'There is nothing to score: the split has no recordings.');
  const indices = Int32Array.from({ length: units }, (_, i) => i);
  const value = score(indices);
  const random = stream(seed, Purpose.Bootstrap);
  const scores: number[] = [];
  for (let r = 0; r < resamplings; r++) {
    for (let i = 0; i < units; i++) indices[i] = random.below(units);
    const drawn = score(indices);
    if (!Number.isNaN(drawn)) scores.push(drawn);
  }
  scores.sort((a, b) => a - b);
  const at = (position: number): number => scores[position] ?? value;
  return {
    value,
    interval: [at(Math.floor(0.025 * (scores.length - 1))), at(Math.ceil(0.975 * (scores.length - 1)))],
  };
}

/** Share of predictions that are right; NaN of none. */
export function accuracy(truth: ArrayLike<number>, predicted: ArrayLike<number>): number {
  let right = 0;
  for (let i = 0; i < truth.length; i++) if (truth[i] === predicted[i]) right++;
  return right / truth.length;
}

/**
 * Mean over the classes that occur in `truth` of the share of each that is found: every class counts the
 * same, however rare; NaN of none.
 */
export function unweightedAverageRecall(
  truth: ArrayLike<number>,
  predicted: ArrayLike<number>,
  classes: number,
): number {
  const occurring = confusionMatrix(truth, predicted, classes)
    .map((row, c) => ({ found: row[c]!, of: row.reduce((sum, n) => sum + n, 0) }))
    .filter(({ of }) => of > 0);
  return occurring.reduce((sum, { found, of }) => sum + found / of, 0) / occurring.length;
}

/** Counts [true class][predicted class]. */
export function confusionMatrix(
  truth: ArrayLike<number>,
  predicted: ArrayLike<number>,
  classes: number,
): number[][] {
  const counts = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (let i = 0; i < truth.length; i++) counts[truth[i]!]![predicted[i]!]!++;
  return counts;
}

/**
 * Error rate of a corpus: the sum of all edits over the sum of all reference lengths (so that long utterances
 * weigh more, and a rate may exceed 1); bootstrap over utterances.
 * @throws MGFError 'data' where all references are empty.
 */
export function corpusErrorRate(
  pairs: readonly { readonly errors: number; readonly length: number }[],
  seed: number,
): Estimate {
  if (!pairs.some(({ length }) => length > 0))
    throw new MGFError(
      'data',
      'An error rate needs at least one reference that is not empty; these recordings have no transcript.',
    );
  return bootstrap(
    pairs.length,
    (indices) => {
      let errors = 0;
      let length = 0;
      for (const i of indices) {
        errors += pairs[i]!.errors;
        length += pairs[i]!.length;
      }
      return length > 0 ? errors / length : NaN;
    },
    { seed },
  );
}
