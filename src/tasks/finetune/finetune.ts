/**
 * Fine-tuning a network on a task: batches by length, schedule, early stopping on the development split,
 * results (Node, Deno, Bun).
 */
import { Purpose } from '../../random/purposes.ts';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ClipStore, type SkippedClip } from '../../audio/clips.ts';
import { permutation, stream } from '../../random/stream.ts';
import { lengthBuckets, RECEPTIVE_FIELD, SAMPLE_RATE } from '../../audio/sampling.ts';
import { checkNames, checkOptions, CONFIG, GPU, type Rules } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import type { Gpu } from '../../gpu/device.ts';
import type { MGFConfig } from '../../mgf/config.ts';
import { framesOf } from '../../mgf/network.ts';
import { initialValues } from '../../mgf/weights.ts';
import type { HostTensor } from '../../plan/parameters.ts';
import { writeFileAtomically } from '../../pretrain/checkpoint.ts';
import { JsonlLog } from '../../pretrain/logs.ts';
import { learningRate } from '../../optim/schedule.ts';
import { standardOf } from '../features/batches.ts';
import { frameLabels } from '../data/labelled.ts';
import { bestClasses, decodeTranscript } from '../decode/decode.ts';
import { ctcLabels } from '../decode/labels.ts';
import { extractFeatures, networkFeatures } from '../features/features.ts';
import { FineTuner, type Example, type FineTuneSettings } from './finetuner.ts';
import { headParameters, headStates, normsOf, type HeadSpec } from '../probe/head.ts';
import { saveTaskModel, TASK_MODEL_FILE, type TaskModel } from './model.ts';
import { transcriptModel } from '../decode/ngram.ts';
import type { TaskNetwork } from './predict.ts';
import { majorityRate } from '../probe/probe.ts';
import { CHOSEN_BY, scoreTask, type Outcome } from '../probe/score.ts';
import type { ProbeResult, ProbeRow, Split, TaskData, TaskItem } from '../task.ts';

type Tensors = ReadonlyMap<string, HostTensor>;

/** How long `finetune` trains, and at which rates. */
export interface FineTuneSchedule {
  /** Passes over the training split at most. */
  readonly epochs: number;
  /** Recordings of a batch, and seconds of audio (padding included) that it holds at most. */
  readonly batch: number;
  readonly batchSeconds: number;
  /**
   * Peak learning rates of the network; of several each is tried, and the one that is best on the development
   * split kept.
   */
  readonly learningRates: readonly number[];
  readonly headLearningRate: number;
  /** Share of the steps over which a rate rises before it falls linearly to 0. */
  readonly warmup: number;
  /** Share of the steps at the start in which only the head learns. */
  readonly headOnly: number;
  /**
   * Scores of the development split (one an epoch of at least 20 steps) without a better one after which
   * training ends.
   */
  readonly patience: number;
}

/** What `finetune` does unless told otherwise. */
export const FINE_TUNE_DEFAULTS: FineTuneSchedule & FineTuneSettings = {
  epochs: 30,
  batch: 16,
  batchSeconds: 40,
  learningRates: [3e-4],
  headLearningRate: 1e-3,
  warmup: 0.1,
  headOnly: 0.1,
  patience: 8,
  seed: 0,
  dropout: 0.1,
  maskProbability: 0.05,
  maskLength: 10,
  weightDecay: 0.01,
  maxGradNorm: 1,
};

export interface FineTuneHooks {
  /** The first pass over the recordings. */
  readonly onScan?: (done: number, total: number) => void;
  /** Once, before the first step. */
  readonly onStart?: (start: {
    readonly parameters: number;
    readonly counts: Readonly<Record<Split, number>>;
    readonly stepsPerEpoch: number;
    readonly skipped: readonly SkippedClip[];
  }) => void;
  /** After each epoch: mean loss, and the metrics of the development split. */
  readonly onEpoch?: (epoch: FineTuneEpoch) => void;
  /** Something that a user should know, in a sentence. */
  readonly onNote?: (note: string) => void;
}

/**
 * An epoch of `finetune`: mean loss and the metrics of the development split; `best` if none before was
 * better.
 */
export interface FineTuneEpoch {
  readonly learningRate: number;
  readonly epoch: number;
  readonly step: number;
  readonly loss: number;
  readonly dev: ProbeRow['metrics'];
  readonly best: boolean;
  readonly seconds: number;
}

/** A run of `finetune`: device, labelled recordings, weights, head, folder. */
export interface FineTuneOptions extends FineTuneHooks {
  readonly gpu: Gpu;
  readonly data: TaskData;
  readonly config: MGFConfig;
  /** Weights by checkpoint name; what else a checkpoint holds is ignored. */
  readonly encoder: Tensors;
  readonly spec: HeadSpec;
  /** Where the weights come from: pre-training, or `random`. */
  readonly features: 'mgf' | 'random';
  /** Name of the checkpoint, for the result. */
  readonly checkpoint: string;
  /** Gets model.safetensors, log.jsonl and result.json. */
  readonly out: string;
  readonly settings?: Partial<FineTuneSchedule & FineTuneSettings>;
  /** Ends training after the step under way; what was best so far is scored and saved. */
  readonly signal?: AbortSignal;
}

const OPTIONS: Rules<FineTuneOptions> = {
  gpu: GPU,
  data: 'an object',
  config: CONFIG,
  encoder: 'a Map',
  spec: 'an object',
  features: '"mgf"|"random"',
  checkpoint: 'a text',
  out: 'a text',
  settings: 'an object?',
  signal: 'an AbortSignal?',
  onScan: 'a function?',
  onStart: 'a function?',
  onEpoch: 'a function?',
  onNote: 'a function?',
};

/** What fine-tuning writes as result.json: one row of a probe's table, and how it came about. */
export interface FineTuneResult extends ProbeResult {
  readonly fineTuning: {
    readonly parameters: number;
    /** Of the learning rate that was kept. */
    readonly epochs: number;
    readonly steps: number;
    readonly bestStep: number;
    readonly learningRates: readonly number[];
    readonly headLearningRate: number;
    readonly seconds: number;
    readonly interrupted: boolean;
    /** Of the development split. */
    readonly dev: ProbeRow['metrics'];
    readonly model: string;
  };
}

/** A training at one learning rate: its best weights, and the score (more is better) that they had. */
interface Run {
  readonly rate: number;
  readonly value: number;
  readonly dev: ProbeRow['metrics'];
  readonly step: number;
  readonly steps: number;
  readonly epochs: number;
  readonly weights: { readonly encoder: Tensors; readonly head: Tensors };
}

/**
 * Trains network and head on the training split, keeps the weights that are best on the development split,
 * scores them on the test split and writes them as a task model. A run of one seed repeats bit for bit on one
 * adapter.
 * @throws MGFError 'data' when a split has no usable recording, 'io' when `out` cannot be written, 'limit' or
 * 'out-of-memory' where a batch is too large.
 */
export async function finetune(options: FineTuneOptions): Promise<FineTuneResult> {
  checkOptions('finetune', options, OPTIONS);
  checkNames('finetune', 'setting', Object.keys(options.settings ?? {}), Object.keys(FINE_TUNE_DEFAULTS));
  const { gpu, data, config, spec, out } = options;
  const settings = { ...FINE_TUNE_DEFAULTS, ...options.settings };
  const started = performance.now();
  const clips = await ClipStore.open({ items: data.items, minSamples: RECEPTIVE_FIELD }, options.onScan);
  try {
    const usable = new Set<unknown>(clips.clips);
    const of = (split: Split): TaskItem[] =>
      data.items.filter((item) => item.split === split && usable.has(item));
    const train = of('train');
    const dev = of('dev');
    const test = of('test');
    for (const [split, items] of Object.entries({ train, dev, test }))
      if (items.length === 0)
        throw new MGFError('data', `the ${split} split of the ${data.task} task has no usable recording.`);
    const recordings = new Recordings(clips, data, config);
    const plan = await batchPlan(train, recordings, settings);
    const stepsPerEpoch = plan.reduce((sum, { items, rows }) => sum + Math.ceil(items.length / rows), 0);
    const head = await initialHead(gpu, options, train, settings.seed);
    const encoder = options.encoder;
    const tuner = FineTuner.create(gpu, { config, spec, encoder, head }, settings);
    await mkdir(out, { recursive: true }).catch((cause: unknown) => {
      throw new MGFError('io', `Cannot make the folder ${out}; name another one.`, { cause });
    });
    const log = new JsonlLog(join(out, 'log.jsonl'));
    try {
      const counts = { train: train.length, dev: dev.length, test: test.length };
      options.onStart?.({
        parameters: tuner.parameters,
        counts,
        stepsPerEpoch,
        skipped: clips.report.skipped,
      });
      if (data.task === 'asr') await warnOfShort(train, recordings, options.onNote);
      const score = async (items: readonly TaskItem[]): Promise<ReturnType<typeof scoreTask>> =>
        scoreTask(data, items, await outcomes(tuner.network, data, items, recordings, plan), settings.seed);
      const runs: Run[] = [];
      for (const rate of settings.learningRates) {
        if (options.signal?.aborted && runs.length > 0) break;
        tuner.load({ encoder, head });
        runs.push(
          await trainAt(rate, options, settings, {
            tuner,
            recordings,
            plan,
            log,
            scoreDev: () => score(dev),
          }),
        );
      }
      const {
        rate,
        step,
        steps,
        epochs,
        weights,
        dev: devScore,
      } = runs.reduce((a, b) => (b.value > a.value ? b : a));
      tuner.load(weights);
      const scored = await score(test);
      const path = join(out, TASK_MODEL_FILE);
      const model: TaskModel = {
        config,
        spec,
        classes: data.classes,
        ...weights,
        ...(data.task === 'asr' && { lm: transcriptModel(data) }),
        notes: { checkpoint: options.checkpoint, made: 'fine-tuned', step: String(step) },
      };
      await saveTaskModel(path, model);
      const frames = new Map(
        await Promise.all(
          [...train, ...test].map(async (item) => [item, await recordings.frames(item)] as const),
        ),
      );
      const majority = majorityRate({ ...data, items: [...train, ...test] }, (item) => frames.get(item)!);
      const result: FineTuneResult = {
        task: data.task,
        checkpoint: options.checkpoint,
        adapter: gpu.profile.name,
        date: new Date().toISOString(),
        seed: settings.seed,
        classes: data.classes,
        counts,
        ...(majority !== undefined && { majority }),
        rows: [
          {
            features: options.features,
            layer: spec.layer,
            head: spec.head,
            pool: spec.pool,
            learningRate: rate,
            ...scored,
          },
        ],
        fineTuning: {
          parameters: tuner.parameters,
          epochs,
          steps,
          bestStep: step,
          learningRates: settings.learningRates,
          headLearningRate: settings.headLearningRate,
          seconds: (performance.now() - started) / 1000,
          interrupted: Boolean(options.signal?.aborted),
          dev: devScore,
          model: path,
        },
      };
      await writeFileAtomically(join(out, 'result.json'), [
        new TextEncoder().encode(`${JSON.stringify(result, null, 2)}\n`),
      ]);
      return result;
    } finally {
      log.close();
      tuner.destroy();
    }
  } finally {
    clips.free();
  }
}

/**
 * Recordings of similar length that share a compiled step: `rows` of them make a batch of rows of `samples`
 * samples and, for asr, `labels` labels.
 */
interface Bucket {
  readonly samples: number;
  readonly rows: number;
  readonly labels: number;
  readonly items: readonly TaskItem[];
}

/** Clips and targets of the items. */
class Recordings {
  readonly #clips: ClipStore;
  readonly #data: TaskData;
  readonly #config: MGFConfig;

  constructor(clips: ClipStore, data: TaskData, config: MGFConfig) {
    this.#clips = clips;
    this.#data = data;
    this.#config = config;
  }

  async clip(item: TaskItem): Promise<Float32Array> {
    const clip = await this.#clips.get(item);
    return clip.slice(0, clip.samples);
  }

  async samples(item: TaskItem): Promise<number> {
    return (await this.#clips.get(item)).samples;
  }
  async frames(item: TaskItem): Promise<number> {
    return framesOf(await this.samples(item), this.#config);
  }

  async example(item: TaskItem): Promise<Example> {
    const clip = await this.clip(item);
    const { task, classes } = this.#data;
    if (task === 'asr') return { clip, target: ctcLabels(item.transcript, classes) };
    return {
      clip,
      target: task === 'phoneme' ? frameLabels(item.phones, framesOf(clip.length, this.#config)) : item.label,
    };
  }
}

/** Lengths are padded to whole steps of so many samples (0.2 s). */
const LENGTH_STEP = 3200;
const BUCKETS = 6;

/** The training split in up to six buckets by length, cut where least is padded. */
async function batchPlan(
  train: readonly TaskItem[],
  recordings: Recordings,
  { batch, batchSeconds }: FineTuneSchedule,
): Promise<Bucket[]> {
  const sized = await Promise.all(
    train.map(async (item) => ({
      item,
      samples: Math.ceil((await recordings.samples(item)) / LENGTH_STEP) * LENGTH_STEP,
    })),
  );
  sized.sort((a, b) => a.samples - b.samples);
  // A few recordings stay in one bucket: their batches shall be mixed, too.
  const most = Math.min(BUCKETS, Math.ceil(train.length / (2 * batch)));
  let first = 0;
  return lengthBuckets(
    sized.map(({ samples }) => samples),
    most,
  ).map((end) => {
    const items = sized.slice(first, end).map(({ item }) => item);
    const { samples } = sized[end - 1]!;
    const rows = Math.max(
      1,
      Math.min(batch, items.length, Math.floor((batchSeconds * SAMPLE_RATE) / samples)),
    );
    first = end;
    return { samples, rows, labels: Math.max(1, ...items.map(({ transcript }) => transcript.length)), items };
  });
}

/**
 * The batches of an epoch in random order; a bucket's last batch is filled up with recordings that were in
 * its first.
 */
function epochBatches(
  plan: readonly Bucket[],
  seed: number,
  epoch: number,
): { bucket: Bucket; items: TaskItem[] }[] {
  const batches = plan.flatMap((bucket, b) => {
    const { items, rows } = bucket;
    const order = permutation(items.length, stream(seed, Purpose.FineTuneOrder, { step: epoch, row: b + 1 }));
    return Array.from({ length: Math.ceil(items.length / rows) }, (_, i) => ({
      bucket,
      items: Array.from({ length: rows }, (__, r) => items[order[(i * rows + r) % order.length]!]!),
    }));
  });
  return Array.from(
    permutation(batches.length, stream(seed, Purpose.FineTuneOrder, { step: epoch })),
    (i) => batches[i]!,
  );
}

/** The head to begin with: it standardises the features as the network gives them before training. */
async function initialHead(
  gpu: Gpu,
  { config, spec, encoder }: FineTuneOptions,
  train: readonly TaskItem[],
  seed: number,
): Promise<Map<string, HostTensor>> {
  const head = initialValues(headParameters(spec), seed);
  const sample = Array.from(
    permutation(train.length, stream(seed, Purpose.FineTuneStatistics), SAMPLED),
    (i) => train[i]!,
  );
  const extractor = await networkFeatures(gpu, config, encoder);
  try {
    const [features] = await extractFeatures([{ extractor, states: headStates(spec) }], sample, {
      pool: spec.pool,
    });
    const standards = headStates(spec).map((state) => {
      const matrix = features!.states.get(state)!;
      return standardOf(
        matrix,
        Int32Array.from({ length: matrix.data.length / matrix.width }, (_, row) => row),
      );
    });
    for (const [name, norm] of normsOf(standards)) head.set(name, norm);
  } finally {
    extractor.destroy();
  }
  return head;
}

/** Recordings whose features give the statistics. */
const SAMPLED = 64;

/**
 * Recordings whose frames are fewer than CTC needs for their transcripts have no path, no loss and no
 * gradient.
 */
async function warnOfShort(
  train: readonly TaskItem[],
  recordings: Recordings,
  onNote: FineTuneHooks['onNote'],
): Promise<void> {
  let short = 0;
  for (const item of train) {
    const repeats = [...item.transcript].filter((c, i) => i > 0 && c === item.transcript[i - 1]).length;
    if (item.transcript.length + repeats > (await recordings.frames(item))) short++;
  }
  if (short > 0)
    onNote?.(
      `${short} of ${train.length} training recordings are shorter than their transcripts need (20 ms ` +
        'a character); they teach nothing.',
    );
}

/** What the network makes of recordings, in batches of the shapes that training has compiled. */
async function outcomes(
  network: TaskNetwork,
  { task, classes }: TaskData,
  items: readonly TaskItem[],
  recordings: Recordings,
  plan: readonly Bucket[],
): Promise<Outcome[]> {
  const groups = new Map<string, { samples: number; rows: number; members: number[] }>();
  for (const [i, item] of items.entries()) {
    const length = await recordings.samples(item);
    const bucket = plan.find(({ samples }) => samples >= length);
    const { samples, rows } = bucket ?? { samples: Math.ceil(length / LENGTH_STEP) * LENGTH_STEP, rows: 1 };
    const key = `${rows} x ${samples}`;
    const group = groups.get(key);
    if (group) group.members.push(i);
    else groups.set(key, { samples, rows, members: [i] });
  }
  const found = new Array<Outcome>(items.length);
  for (const { samples, rows, members } of groups.values()) {
    for (let at = 0; at < members.length; at += rows) {
      const batch = members.slice(at, at + rows);
      const clips = await Promise.all(batch.map((i) => recordings.clip(items[i]!)));
      (await network.logits(clips, { samples, rows })).forEach((one, k) => {
        const { frames, logits } = one;
        found[batch[k]!] =
          task === 'asr'
            ? { transcript: decodeTranscript(one, classes) }
            : task === 'phoneme'
              ? { frames: bestClasses(logits, frames, logits.length / frames) }
              : { label: bestClasses(logits, 1, logits.length)[0]! };
      });
    }
  }
  return found;
}

interface Training {
  readonly tuner: FineTuner;
  readonly recordings: Recordings;
  readonly plan: readonly Bucket[];
  readonly log: JsonlLog;
  readonly scoreDev: () => Promise<ReturnType<typeof scoreTask>>;
}

/** One training from the first step to the last, or to the end of patience. */
async function trainAt(
  rate: number,
  { data, signal, onEpoch, onNote }: FineTuneOptions,
  settings: FineTuneSchedule & FineTuneSettings,
  { tuner, recordings, plan, log, scoreDev }: Training,
): Promise<Run> {
  const { epochs, seed, headLearningRate, warmup, headOnly, patience } = settings;
  const started = performance.now();
  const perEpoch = plan.reduce((sum, { items, rows }) => sum + Math.ceil(items.length / rows), 0);
  const total = epochs * perEpoch;
  const frozen = Math.round(headOnly * total);
  const { metric, higher } = CHOSEN_BY[data.task];
  const stopped = (): boolean => Boolean(signal?.aborted);
  let best: Run | undefined;
  let step = 0;
  let epoch = 0;
  let since = 0;
  let sum = 0;
  let steps = 0;
  let lost = 0;
  while (epoch < epochs && since < patience && !stopped()) {
    for (const { bucket, items } of epochBatches(plan, seed, epoch)) {
      const rates = {
        rate: step < frozen ? 0 : learningRate(step - frozen, total - frozen, rate, warmup),
        headRate: learningRate(step, total, headLearningRate, warmup),
      };
      const { loss, gradNorm, skipped } = await tuner.step(
        await Promise.all(items.map((item) => recordings.example(item))),
        bucket,
        { step, ...rates },
      );
      step++;
      log.append({
        step,
        epoch,
        loss,
        grad_norm: gradNorm,
        learning_rate: rates.rate,
        head_learning_rate: rates.headRate,
        ...(skipped && { skipped }),
        elapsed_seconds: (performance.now() - started) / 1000,
      });
      [sum, steps] = [sum + loss, steps + 1];
      if (skipped && ++lost >= LOST)
        throw new MGFError(
          'data',
          `the last ${LOST} gradients were not finite; give a lower learning rate than ${rate}.`,
        );
      if (!skipped) lost = 0;
      if (stopped()) break;
    }
    epoch++;
    if (steps < STEPS_BETWEEN_SCORES && epoch < epochs && !stopped()) continue;
    const { metrics } = await scoreDev();
    const value = (higher ? 1 : -1) * metrics[metric]!.value;
    const better = !best || value > best.value;
    const kept = !best || value >= best.value;
    since = better ? 0 : since + 1;
    // Of equal scores the later one: its loss is lower.
    if (kept)
      best = { rate, value, dev: metrics, step, steps: step, epochs: epoch, weights: await tuner.weights() };
    const seconds = (performance.now() - started) / 1000;
    const loss = sum / steps;
    log.append({
      step,
      epoch,
      learning_rate: rate,
      loss,
      dev: Object.fromEntries(Object.entries(metrics).map(([name, { value: v }]) => [name, v])),
      best: kept,
      elapsed_seconds: seconds,
    });
    onEpoch?.({ learningRate: rate, epoch, step, loss, dev: metrics, best: kept, seconds });
    [sum, steps] = [0, 0];
  }
  if (metric === 'cer' && -best!.value >= 0.999) onNote?.(ONLY_BLANKS);
  return { ...best!, steps: step, epochs: epoch };
}

/** The development split is scored after an epoch, but not before so many steps. */
const STEPS_BETWEEN_SCORES = 20;
/** So many gradients in a row that are not finite end the training. */
const LOST = 20;
const ONLY_BLANKS =
  'the recogniser still says nothing (only blanks): train for more epochs, or with a higher learning ' +
  'rate of the head.';
