/** Each task's recordings as what a head is trained on, chosen by and asked to predict. */
import { editDistance } from '../../edit-distance.ts';
import { RowBatches, SequenceBatches, standardOf, type Inputs } from '../features/batches.ts';
import { frameLabels } from '../data/labelled.ts';
import { bestClasses, decodeTranscript } from '../decode/decode.ts';
import { ctcLabels } from '../decode/labels.ts';
import type { Features } from '../features/features.ts';
import { headStates, type HeadSpec } from './head.ts';
import { accuracy, unweightedAverageRecall } from './metrics.ts';
import type { Outcome } from './score.ts';
import type { Split, TaskData, TaskItem } from '../task.ts';
import type { DevScore, HeadTrainer, HeadTraining } from './train-head.ts';

/** What training needs besides data and features. */
export interface MaterialOptions {
  readonly seed: number;
  readonly learningRates: readonly number[];
  /** asr: width of the prefix beam search that decodes the test split; default: the best path. */
  readonly beam?: number | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** A recording and what a head made of it. */
export interface Prediction {
  readonly item: TaskItem;
  readonly outcome: Outcome;
}

export interface Material {
  /** The features, and what standardises them: statistics of the training split. */
  readonly inputs: Inputs;
  readonly training: HeadTraining;
  predict(trainer: HeadTrainer, split: Split): Promise<Prediction[]>;
}

/** Recordings or frames of a training step; of CTC recordings. */
const ROWS_A_STEP = 4096;
const SEQUENCES_A_STEP = 16;

export const materialOf = (
  data: TaskData,
  spec: HeadSpec,
  features: Features,
  options: MaterialOptions,
): Material =>
  data.task === 'asr'
    ? new SequenceMaterial(data, spec, features, options)
    : new RowMaterial(data, spec, features, options);

/** A recording's place in the features. */
interface Place {
  readonly item: TaskItem;
  readonly first: number;
  readonly frames: number;
}

function placesOf(data: TaskData, { frames }: Features, pool: HeadSpec['pool']): Place[] {
  let first = 0;
  return data.items.map((item, i) => {
    const place = { item, first, frames: frames[i]! };
    first += pool === 'none' ? frames[i]! : 1;
    return place;
  });
}

const inSplit = (places: readonly Place[], split: Split): Place[] =>
  places.filter(({ item }) => item.split === split);
const rowsOf = (places: readonly Place[], pool: HeadSpec['pool']): Int32Array =>
  Int32Array.from(
    places.flatMap(({ first, frames }) =>
      Array.from({ length: pool === 'none' ? frames : 1 }, (_, t) => first + t),
    ),
  );

function inputsOf(spec: HeadSpec, features: Features, train: readonly Place[]): Inputs {
  const matrices = headStates(spec).map((state) => features.states.get(state)!);
  const rows = rowsOf(train, spec.pool);
  return { matrices, standards: matrices.map((matrix) => standardOf(matrix, rows)) };
}

/**
 * When training ends: scores that a learning rate is tried for, that it goes on for, and that may pass
 * without a better one.
 */
interface Limits {
  readonly trial: number;
  readonly more: number;
  readonly patience: number;
}
/** Pooled recordings are few: a whole run for every rate costs seconds. */
const POOLED: Limits = { trial: 50, more: 0, patience: 10 };
const FRAMES: Limits = { trial: 2, more: 20, patience: 2 };
const SEQUENCES: Limits = { trial: 2, more: 15, patience: 3 };
/** Between scores there is an epoch, or as many as make so many steps. */
const STEPS_A_SCORE = 10;

function schedule(
  { trial, more, patience }: Limits,
  batches: number,
): Pick<HeadTraining, 'batches' | 'trialEpochs' | 'moreEpochs' | 'evaluateEvery' | 'patience'> {
  const evaluateEvery = Math.ceil(STEPS_A_SCORE / batches);
  return {
    batches,
    trialEpochs: trial * evaluateEvery,
    moreEpochs: more * evaluateEvery,
    evaluateEvery,
    patience,
  };
}

/** Recordings or frames that are classified one by one. */
class RowMaterial implements Material {
  readonly inputs: Inputs;
  readonly training: HeadTraining;
  readonly #data: TaskData;
  readonly #spec: HeadSpec;
  readonly #places: readonly Place[];
  readonly #splits = new Map<Split, RowBatches>();

  constructor(data: TaskData, spec: HeadSpec, features: Features, options: MaterialOptions) {
    this.#data = data;
    this.#spec = spec;
    this.#places = placesOf(data, features, spec.pool);
    this.inputs = inputsOf(spec, features, inSplit(this.#places, 'train'));
    for (const split of ['train', 'dev', 'test'] as const) {
      const places = inSplit(this.#places, split);
      const all = rowsOf(places, spec.pool);
      const labels = Int32Array.from(
        places.flatMap(({ item, frames }) =>
          spec.pool === 'none'
            ? Array.from(frameLabels(item.phones, frames), (label) => (label < 0 ? -100 : label))
            : [item.label],
        ),
      );
      // Frames without a label teach nothing; where predictions are wanted they keep their place.
      const kept =
        split === 'train' ? all.map((_, i) => i).filter((i) => labels[i]! >= 0) : all.map((_, i) => i);
      this.#splits.set(
        split,
        new RowBatches(
          this.inputs,
          kept.map((i) => all[i]!),
          kept.map((i) => labels[i]!),
          { size: ROWS_A_STEP, seed: options.seed },
        ),
      );
    }
    const train = this.#splits.get('train')!;
    this.training = {
      ...options,
      ...schedule(spec.pool === 'none' ? FRAMES : POOLED, train.count),
      batch: (index, epoch) => train.training(index, epoch),
      score: (trainer) => this.#score(trainer),
    };
  }

  async #score(trainer: HeadTrainer): Promise<DevScore> {
    const truth: number[] = [];
    const predicted: number[] = [];
    const { classes } = this.#spec;
    let loss = 0;
    for (const { batch, real, labels } of this.#splits.get('dev')!.all()) {
      const { logits, loss: mean } = await trainer.run(batch);
      const best = bestClasses(logits.subarray(0, real * classes), real, classes);
      const before = truth.length;
      for (let i = 0; i < real; i++) {
        if (labels[i]! < 0) continue;
        truth.push(labels[i]!);
        predicted.push(best[i]!);
      }
      loss += mean * (truth.length - before);
    }
    return {
      score:
        this.#data.task === 'emotion'
          ? unweightedAverageRecall(truth, predicted, classes)
          : accuracy(truth, predicted),
      loss: loss / truth.length,
    };
  }

  async predict(trainer: HeadTrainer, split: Split): Promise<Prediction[]> {
    const best: Int32Array[] = [];
    const { classes, pool } = this.#spec;
    for (const { batch, real } of this.#splits.get(split)!.all())
      best.push(bestClasses((await trainer.run(batch)).logits.subarray(0, real * classes), real, classes));
    const all = Int32Array.from(best.flatMap((part) => [...part]));
    let at = 0;
    return inSplit(this.#places, split).map(({ item, frames }) => {
      const own = all.subarray(at, (at += pool === 'none' ? frames : 1));
      return { item, outcome: pool === 'none' ? { frames: own } : { label: own[0]! } };
    });
  }
}

/** Recordings with transcripts, for CTC. */
class SequenceMaterial implements Material {
  readonly inputs: Inputs;
  readonly training: HeadTraining;
  readonly #data: TaskData;
  readonly #spec: HeadSpec;
  readonly #beam: number | undefined;
  readonly #places: readonly Place[];
  readonly #splits = new Map<Split, SequenceBatches>();

  constructor(data: TaskData, spec: HeadSpec, features: Features, options: MaterialOptions) {
    this.#data = data;
    this.#spec = spec;
    this.#beam = options.beam;
    this.#places = placesOf(data, features, spec.pool);
    this.inputs = inputsOf(spec, features, inSplit(this.#places, 'train'));
    for (const split of ['train', 'dev', 'test'] as const) {
      // A character that training lacks has no class: the score counts it as an error.
      const sequences = inSplit(this.#places, split).map(({ item, first, frames }) => ({
        first,
        frames,
        target: ctcLabels(item.transcript, data.classes),
      }));
      this.#splits.set(split, new SequenceBatches(this.inputs, sequences, SEQUENCES_A_STEP));
    }
    const train = this.#splits.get('train')!;
    this.training = {
      ...options,
      ...schedule(SEQUENCES, train.count),
      batch: (index) => train.batch(index).batch,
      score: (trainer) => this.#score(trainer),
    };
  }

  async #score(trainer: HeadTrainer): Promise<DevScore> {
    const { predictions, loss } = await this.#decode(trainer, 'dev', undefined);
    let errors = 0;
    let length = 0;
    for (const { item, transcript } of predictions) {
      errors += editDistance([...transcript], [...item.transcript]);
      length += item.transcript.length;
    }
    return { score: -errors / length, loss };
  }

  async predict(trainer: HeadTrainer, split: Split): Promise<Prediction[]> {
    return (await this.#decode(trainer, split, this.#beam)).predictions.map(({ item, transcript }) => ({
      item,
      outcome: { transcript },
    }));
  }

  async #decode(
    trainer: HeadTrainer,
    split: Split,
    beam: number | undefined,
  ): Promise<{ predictions: { item: TaskItem; transcript: string }[]; loss: number }> {
    const batches = this.#splits.get(split)!;
    const places = inSplit(this.#places, split);
    const found: string[] = [];
    const { classes } = this.#spec;
    let loss = 0;
    for (let i = 0; i < batches.count; i++) {
      const { batch, indices } = batches.batch(i);
      const { logits, loss: mean } = await trainer.run(batch);
      const T = batch.shape[1]!;
      loss += (mean * indices.length) / places.length;
      indices.forEach((index, b) => {
        const { frames } = places[index]!;
        const own = logits.subarray(b * T * classes, (b * T + frames) * classes);
        found[index] = decodeTranscript(
          { frames, logits: own },
          this.#data.classes,
          beam === undefined ? undefined : { beam },
        );
      });
    }
    return { predictions: places.map(({ item }, i) => ({ item, transcript: found[i]! })), loss };
  }
}
