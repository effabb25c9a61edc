/** Arithmetic that would keep the page from answering, in a thread of its own. */
import { referenceOf, type Reference } from '../bench/workloads/reference.ts';
import { createInputs } from '../bench/workloads/workloads.ts';
import type { Workload } from '../bench/workloads/contract.ts';
import { denormalise, resynthesise } from '../src/report/griffin-lim.ts';
import { principalComponents, tsne } from '../src/report/projection.ts';

/** Fewer points have no neighbourhoods to keep: principal components say more. */
export const TSNE_POINTS = 12;

const tasks = {
  /** Sound of a spectrogram that was rebuilt, at the levels of the recording `wave` that it is about. */
  sound: ({
    logMel,
    frames,
    mels,
    wave,
  }: {
    logMel: Float32Array;
    frames: number;
    mels: number;
    wave: Float32Array;
  }): Float32Array => resynthesise(denormalise(logMel, wave, mels), frames, mels),
  /** What a kernel must compute on the inputs of a seed. */
  reference: ({ workload, seed }: { workload: Workload; seed: number }): Reference =>
    referenceOf(workload, createInputs(workload, seed)),
  /** Rows of numbers as points of a plane, [n, 2]. */
  plane: ({ x, n, width }: { x: Float32Array; n: number; width: number }): Float64Array =>
    n < TSNE_POINTS ? principalComponents(x, n, width).points : tsne(x, n, width, { perplexity: 8 }),
};

export type Tasks = typeof tasks;
export interface Request<K extends keyof Tasks = keyof Tasks> {
  id: number;
  task: K;
  input: Parameters<Tasks[K]>[0];
}
export type Answer = { id: number; output: unknown } | { id: number; error: string };

self.addEventListener('message', ({ data: { id, task, input } }: MessageEvent<Request>) => {
  let answer: Answer;
  try {
    answer = { id, output: (tasks[task] as (input: unknown) => unknown)(input) };
  } catch (error) {
    answer = { id, error: (error as Error).message };
  }
  self.postMessage(answer);
});
