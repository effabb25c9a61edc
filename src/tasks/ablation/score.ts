/** What the cells of an ablation are scored by: linear probes on labelled recordings (Node, Deno, Bun). */
import { checkArguments, checkOptions, GPU } from '../../check.ts';
import { ClipStore } from '../../audio/clips.ts';
import { RECEPTIVE_FIELD } from '../../audio/sampling.ts';
import { readTask } from '../data/labelled.ts';
import { probe } from '../probe/probe.ts';
import type { ManifestOptions, Utterance } from '../../audio/manifest.ts';
import type { Gpu } from '../../gpu/device.ts';
import type { Subject } from './ablation.ts';
import type { AblationTask } from './table.ts';
import type { AblationRow, Metric, TaskData } from '../task.ts';

const METRIC: Readonly<Record<AblationTask, Metric>> = {
  phoneme: 'accuracy',
  speaker: 'accuracy',
  emotion: 'unweighted_average_recall',
};
/**
 * The probe's own seed: the same split, order and start for every cell, so that cells differ by their
 * networks alone.
 */
const SEED = 0;
/** Fewer than a probe tries by default: a grid has dozens of cells, and all have the same choice. */
const LEARNING_RATES: readonly number[] = [1e-3, 1e-2];

/** Which probes score the rows of an ablation. */
export interface ScorerOptions {
  readonly tasks: readonly AblationTask[];
  /** Only recordings of these corpora (`readTask`). */
  readonly families?: readonly string[] | undefined;
  /** How the lists of recordings are read. */
  readonly list?: ManifestOptions | undefined;
  /** Told how much of a stage is done. */
  readonly onProgress?:
    ((task: AblationTask, stage: string, done: number, total: number) => void) | undefined;
}

/**
 * Reads the labels; the function returned probes a subject for each task: a linear head on a learned sum of
 * all hidden states, because the losses of a row shape some states and leave others. Throws MGFError 'data'
 * as `readTask`.
 */
export async function labelledScorer(
  gpu: Gpu,
  labels: string,
  options: ScorerOptions,
): Promise<(subject: Subject) => Promise<AblationRow['scores']>> {
  checkArguments('labelledScorer', { gpu: [gpu, GPU], labels: [labels, 'a text'] });
  checkOptions('labelledScorer', options, {
    tasks: 'a list',
    families: 'a list?',
    list: 'an object?',
    onProgress: 'a function?',
  });
  const { tasks, families, list, onProgress } = options;
  const data = new Map<AblationTask, TaskData>();
  for (const task of tasks) data.set(task, await readTask(task, labels, { seed: SEED, families, ...list }));
  // Every cell hears the same recordings: they are decoded for the first.
  const clips = await ClipStore.open({ items: [], minSamples: RECEPTIVE_FIELD });
  const load = async (item: Utterance): Promise<Float32Array> => {
    const clip = await clips.get(item);
    return clip.slice(0, clip.samples);
  };
  return async ({ mgf, parameters }) => {
    const scores: { -readonly [T in AblationTask]?: AblationRow['scores'][T] } = {};
    for (const [task, set] of data) {
      const { metrics } = await probe({
        gpu,
        data: set,
        config: mgf,
        features: parameters ? 'mgf' : 'log-mel',
        layer: 'sum',
        seed: SEED,
        learningRates: LEARNING_RATES,
        load,
        ...(parameters && { parameters }),
        onProgress: (stage, done, total) => onProgress?.(task, stage, done, total),
      });
      scores[task] = metrics[METRIC[task]]!;
    }
    return scores;
  };
}
