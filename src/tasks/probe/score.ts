/** A task's metrics from what was made of each recording. */
import { editDistance } from '../../edit-distance.ts';
import { MGFError } from '../../errors.ts';
import { frameLabels, partsOf, SILENCE } from '../data/labelled.ts';
import { accuracy, bootstrap, confusionMatrix, corpusErrorRate, unweightedAverageRecall } from './metrics.ts';
import type { Metric, ProbeRow, TaskData, TaskItem, TaskName } from '../task.ts';

/**
 * What was made of a recording: a class (speaker, emotion), the class of each frame (phoneme), or words
 * (asr).
 */
export type Outcome =
  { readonly label: number } | { readonly frames: ArrayLike<number> } | { readonly transcript: string };

/** What a model is chosen by on the development split, and whether more of it is better. */
export const CHOSEN_BY: Readonly<Record<TaskName, { readonly metric: Metric; readonly higher: boolean }>> = {
  phoneme: { metric: 'accuracy', higher: true },
  speaker: { metric: 'accuracy', higher: true },
  asr: { metric: 'cer', higher: false },
  emotion: { metric: 'unweighted_average_recall', higher: true },
};

/**
 * Metrics of the items given, and of each part of them. phoneme: share of labelled frames that are right, and
 * edits of the phones (runs of frames) without silence; speaker: accuracy; asr: edits of characters and of
 * words; emotion: unweighted average recall and accuracy. Bootstrap over recordings, by the seed. Throws
 * MGFError 'data' without items.
 */
export function scoreTask(
  data: Pick<TaskData, 'task' | 'classes'>,
  items: readonly TaskItem[],
  outcomes: readonly Outcome[],
  seed: number,
): Pick<ProbeRow, 'metrics' | 'parts' | 'confusion'> {
  if (items.length !== outcomes.length)
    throw new MGFError('shape', `${items.length} recordings cannot have ${outcomes.length} outcomes.`);
  const pairs = items.map((item, i) => ({ item, outcome: outcomes[i]! }));
  const parts = [...new Set(items.flatMap(partsOf))].sort();
  const { metrics, confusion } = score(data, pairs, seed);
  return {
    metrics,
    parts: Object.fromEntries(
      parts.map((part) => [
        part,
        score(
          data,
          pairs.filter(({ item }) => partsOf(item).includes(part)),
          seed,
        ).metrics,
      ]),
    ),
    ...(confusion && { confusion }),
  };
}

interface Pair {
  readonly item: TaskItem;
  readonly outcome: Outcome;
}

function score(
  { task, classes }: Pick<TaskData, 'task' | 'classes'>,
  pairs: readonly Pair[],
  seed: number,
): Pick<ProbeRow, 'metrics' | 'confusion'> {
  if (task === 'asr') {
    const texts = pairs.map(({ item, outcome }) => ({
      truth: item.transcript,
      found: (outcome as { transcript: string }).transcript,
    }));
    const rate = (units: (text: string) => readonly string[]) =>
      corpusErrorRate(
        texts.map(({ truth, found }) => ({
          errors: editDistance(units(truth), units(found)),
          length: units(truth).length,
        })),
        seed,
      );
    return {
      metrics: { cer: rate((text) => [...text]), wer: rate((text) => text.split(' ').filter(Boolean)) },
    };
  }
  if (task === 'phoneme') return scorePhones(classes, pairs, seed);
  const truth = pairs.map(({ item }) => item.label);
  const found = pairs.map(({ outcome }) => (outcome as { label: number }).label);
  const pick = (from: readonly number[], indices: Int32Array | readonly number[]): number[] =>
    Array.from(indices, (i) => from[i]!);
  const right = bootstrap(pairs.length, (indices) => accuracy(pick(truth, indices), pick(found, indices)), {
    seed,
  });
  const confusion = confusionMatrix(truth, found, classes.length);
  if (task === 'speaker') return { metrics: { accuracy: right }, confusion };
  const recall = bootstrap(
    pairs.length,
    (indices) => unweightedAverageRecall(pick(truth, indices), pick(found, indices), classes.length),
    { seed },
  );
  return { metrics: { unweighted_average_recall: recall, accuracy: right }, confusion };
}

function scorePhones(
  classes: readonly string[],
  pairs: readonly Pair[],
  seed: number,
): Pick<ProbeRow, 'metrics' | 'confusion'> {
  const silence = classes.indexOf(SILENCE);
  const truth: number[] = [];
  const guesses: number[] = [];
  const counts = pairs.map(({ item, outcome }) => {
    const { frames } = outcome as { frames: ArrayLike<number> };
    const labels = frameLabels(item.phones, frames.length);
    let right = 0;
    let labelled = 0;
    labels.forEach((label, t) => {
      if (label < 0) return;
      labelled++;
      right += Number(label === frames[t]);
      truth.push(label);
      guesses.push(frames[t]!);
    });
    const runs = Array.from(frames).filter((label, t) => label !== silence && label !== frames[t - 1]);
    const spoken = item.phones.map(({ label }) => label).filter((label) => label !== silence);
    return { right, labelled, errors: editDistance(spoken, runs), length: spoken.length };
  });
  const right = bootstrap(
    counts.length,
    (indices) => {
      let hits = 0;
      let labelled = 0;
      for (const i of indices) {
        hits += counts[i]!.right;
        labelled += counts[i]!.labelled;
      }
      return hits / labelled;
    },
    { seed },
  );
  return {
    metrics: { accuracy: right, phone_error_rate: corpusErrorRate(counts, seed) },
    confusion: confusionMatrix(truth, guesses, classes.length),
  };
}
