/** The four downstream tasks: what their data and their results look like. */
import type { Utterance } from '../audio/manifest.ts';

/** The downstream tasks. */
export type TaskName = 'phoneme' | 'speaker' | 'asr' | 'emotion';
export const TASKS: readonly TaskName[] = ['phoneme', 'speaker', 'asr', 'emotion'];

/** What a recording is for: learning, choosing, or the final score. */
export type Split = 'train' | 'dev' | 'test';

/** A stretch of one phone. Samples at 16 kHz, `end` excluded. */
export interface Phone {
  readonly start: number;
  readonly end: number;
  /** Index into the task's classes. */
  readonly label: number;
}

/** One recording with what the task knows of it. */
export interface TaskItem extends Utterance {
  readonly split: Split;
  /** Whom the recording belongs to; splits that are speaker-disjoint are disjoint in this. */
  readonly speaker: string;
  /** speaker, emotion: index into the task's classes; -1 elsewhere. */
  readonly label: number;
  /** phoneme: the whole recording, in order; empty elsewhere. */
  readonly phones: readonly Phone[];
  /** asr: the normalised transcript (A-Z, apostrophe, space); empty elsewhere. */
  readonly transcript: string;
  /**
   * A part of the test set that is reported on its own as well, as `timit` (hand-labelled) of the phoneme
   * task.
   */
  readonly part: string;
}

/** Labelled recordings of a task. */
export interface TaskData {
  readonly task: TaskName;
  /**
   * Phones, speakers, emotions, or the characters of CTC (without the blank, which is class 0 of the logits).
   */
  readonly classes: readonly string[];
  readonly items: readonly TaskItem[];
}

/** A share, 0 to 1, with its 95 % bootstrap interval. */
export interface Estimate {
  readonly value: number;
  readonly interval: readonly [number, number];
}

/**
 * `equal_error_rate`: of pairs of recordings of one speaker and of two, told apart by the features' cosine.
 */
export type Metric =
  'accuracy' | 'phone_error_rate' | 'unweighted_average_recall' | 'cer' | 'wer' | 'equal_error_rate';

/** Whose features a row of a table is about; both baselines stand in every table. */
export type FeatureSource = 'mgf' | 'random' | 'log-mel';

/** A row of a probe's table: which features under which head, and how they did. */
export interface ProbeRow {
  readonly features: FeatureSource;
  /** A hidden state; `sum`: a learned softmax-weighted sum of all; null for log-mel. */
  readonly layer: number | 'sum' | null;
  readonly head: 'linear' | 'mlp';
  /** Over time; `none` for tasks that label frames. */
  readonly pool: 'none' | 'mean' | 'mean+std';
  /** Chosen on the development split. */
  readonly learningRate: number;
  /** Of the whole test split; the equal error rate of all recordings. */
  readonly metrics: Readonly<Partial<Record<Metric, Estimate>>>;
  /** The same for each part of it (`TaskItem.part`). */
  readonly parts: Readonly<Record<string, Readonly<Partial<Record<Metric, Estimate>>>>>;
  /** Test counts [true class][predicted class], for tasks that classify. */
  readonly confusion?: readonly (readonly number[])[];
}

/** What `mgf probe` writes as JSON, and `mgf report` draws. */
export interface ProbeResult {
  readonly task: TaskName;
  /** Name of the checkpoint's file or run. */
  readonly checkpoint: string;
  readonly adapter: string;
  /** ISO 8601. */
  readonly date: string;
  readonly seed: number;
  readonly classes: readonly string[];
  /** Recordings of each split. */
  readonly counts: Readonly<Record<Split, number>>;
  /** Share of the commonest class of the training split among the test split: what knowing nothing scores. */
  readonly majority?: number;
  readonly rows: readonly ProbeRow[];
}

/** One trained network of the ablation grid under every probe. */
export interface AblationRow {
  /** As `all`, `only-sample`, `without-phoneme`, `swap-frame`, `random`, `log-mel`. */
  readonly name: string;
  readonly seed: number;
  readonly steps: number;
  /** Training losses at the end, by scale; absent scales are off. */
  readonly losses: Readonly<Record<string, number>>;
  /** phoneme and speaker: accuracy; emotion: unweighted average recall. */
  readonly scores: Readonly<Partial<Record<'phoneme' | 'speaker' | 'emotion', Estimate>>>;
}

/** What `mgf ablate` writes as JSON. */
export interface AblationResult {
  readonly preset: string;
  readonly adapter: string;
  readonly date: string;
  readonly rows: readonly AblationRow[];
}
