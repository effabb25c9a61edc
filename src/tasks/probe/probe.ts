/**
 * Probes: how much of a label the features of a frozen network give away to a small classifier. Trained on
 * the train split, its learning rate and the moment to stop chosen on dev, scored once on test; beside it the
 * same network with random weights and log-mel, by which the number is to be judged.
 */
import { basename } from 'node:path';
import { checkOptions, CONFIG, GPU, type Rules } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { featureLayer } from '../../mgf/encoder.ts';
import { standardised, type Inputs } from '../features/batches.ts';
import { frameLabels, partsOf } from '../data/labelled.ts';
import {
  extractFeatures,
  logMelFeatures,
  networkFeatures,
  randomFeatures,
  type ExtractOptions,
  type FeatureExtractor,
  type Features,
} from '../features/features.ts';
import { headStates, logitClasses, normsOf, type HeadSpec } from './head.ts';
import { materialOf, type Prediction } from './material.ts';
import { scoreTask } from './score.ts';
import { cosineMatrix, estimateEqualErrorRate } from '../features/similarity.ts';
import { HeadTrainer, trainHead } from './train-head.ts';
import type { Gpu } from '../../gpu/device.ts';
import type { MGFConfig } from '../../mgf/config.ts';
import type { HostTensor } from '../../plan/parameters.ts';
import type {
  Estimate,
  FeatureSource,
  ProbeResult,
  ProbeRow,
  Split,
  TaskData,
  TaskItem,
  TaskName,
} from '../task.ts';

/** What all rows of a probe share. */
export interface ProbeSettings {
  readonly gpu: Gpu;
  /**
   * One data set, or several whose test splits are scored together: the folds of a cross-validation, each
   * with all recordings in the same order.
   */
  readonly data: TaskData | readonly TaskData[];
  /** The network. */
  readonly config: MGFConfig;
  /** Its weights; only the features `mgf` need them. */
  readonly parameters?: ReadonlyMap<string, HostTensor> | undefined;
  /** Default linear. */
  readonly head?: ProbeRow['head'] | undefined;
  /** Default `none` for phoneme and asr, `mean+std` for speaker and emotion. */
  readonly pool?: ProbeRow['pool'] | undefined;
  /** Of the random network, of the head's start and order, and of the bootstrap. Default 0. */
  readonly seed?: number | undefined;
  /** Tried in turn. Default 1e-4, 3e-4, 1e-3, 3e-3, 1e-2. */
  readonly learningRates?: readonly number[] | undefined;
  /** asr: decodes test by a prefix beam search of this width; default: the best path. */
  readonly beam?: number | undefined;
  /** Folder of kept features; without one nothing is kept. */
  readonly cache?: string | undefined;
  /** A recording's samples, as `ExtractOptions.load`. */
  readonly load?: ExtractOptions['load'];
  /** What is being done, and how far. */
  readonly onProgress?: ((stage: string, done: number, total: number) => void) | undefined;
}

/** One row of a probe: its features and layer. */
export interface ProbeOptions extends ProbeSettings {
  readonly features: FeatureSource;
  /** Default `featureLayer`. */
  readonly layer?: number | 'sum' | undefined;
}

/** A head that a probe trained, with the affine maps that standardise its input: complete (`headLogits`). */
export interface TrainedHead {
  readonly spec: HeadSpec;
  readonly parameters: ReadonlyMap<string, HostTensor>;
}

/** All rows of a probe: which layers, and what the result is called. */
export interface ProbeTaskOptions extends ProbeSettings {
  /** Name of the checkpoint in the result. */
  readonly checkpoint: string;
  /** A row for the network and one for random weights each. Default: `featureLayer`. */
  readonly layers?: readonly (number | 'sum')[] | undefined;
  /** Told of each row when it is there, with its head (of several folds the last one's). */
  readonly onRow?: ((row: ProbeRow, head: TrainedHead) => void) | undefined;
}

const SETTINGS: Rules<ProbeSettings> = {
  gpu: GPU,
  data: 'an object|a list',
  config: CONFIG,
  parameters: 'a Map?',
  head: 'a text?',
  pool: 'a text?',
  seed: 'a number?',
  learningRates: 'a list?',
  beam: 'a number?',
  cache: 'a text?',
  load: 'a function?',
  onProgress: 'a function?',
};
const PROBE_OPTIONS: Rules<ProbeOptions> = {
  ...SETTINGS,
  features: '"mgf"|"random"|"log-mel"',
  layer: 'a number|"sum"?',
};
const PROBE_TASK_OPTIONS: Rules<ProbeTaskOptions> = {
  ...SETTINGS,
  checkpoint: 'a text',
  layers: 'a list?',
  onRow: 'a function?',
};

const LEARNING_RATES: readonly number[] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2];

const labelsFrames = (task: TaskName): boolean => task === 'phoneme' || task === 'asr';

/**
 * One row: the probe of one kind of features.
 * @throws MGFError 'usage' for a layer or a pooling that does not fit, 'data', 'audio' as `readTask` and
 * `extractFeatures`.
 */
export async function probe(options: ProbeOptions): Promise<ProbeRow> {
  checkOptions('probe', options, PROBE_OPTIONS);
  const { gpu, config, features: source } = options;
  const extractor = await extractorOf(options, source);
  try {
    const layer = source === 'log-mel' ? null : (options.layer ?? featureLayer(config));
    const spec = specOf(options, extractor, layer);
    const [features] = await extractFeatures(
      [{ extractor, states: headStates(spec) }],
      folds(options)[0]!.items,
      extraction(options, spec),
    );
    return (await probeFeatures(gpu, source, spec, features!, options)).row;
  } finally {
    extractor.destroy();
  }
}

/**
 * The whole table: for each layer a row of the network and one of random weights, then log-mel. Throws as
 * `probe`.
 */
export async function probeTask(options: ProbeTaskOptions): Promise<ProbeResult> {
  checkOptions('probeTask', options, PROBE_TASK_OPTIONS);
  const { gpu, config, seed = 0 } = options;
  const sets = folds(options);
  const data = sets[0]!;
  const layers = options.layers ?? [featureLayer(config)];
  const extractors: FeatureExtractor[] = [];
  try {
    for (const source of ['mgf', 'random', 'log-mel'] as const)
      extractors.push(await extractorOf(options, source));
    const plan = extractors.map((extractor) => ({
      extractor,
      specs: (extractor.source === 'log-mel' ? [null] : layers).map((layer) =>
        specOf(options, extractor, layer),
      ),
    }));
    const requests = plan.map(({ extractor, specs }) => ({
      extractor,
      states: [...new Set(specs.flatMap(headStates))].sort((a, b) => a - b),
    }));
    const features = await extractFeatures(requests, data.items, extraction(options, plan[0]!.specs[0]!));
    const rows: ProbeRow[] = [];
    for (const [i, { extractor, specs }] of plan.entries()) {
      for (const spec of specs) {
        const { row, head } = await probeFeatures(gpu, extractor.source, spec, features[i]!, options);
        rows.push(row);
        options.onRow?.(row, head);
      }
    }
    const frames = new Map(data.items.map((item, i) => [item, features[0]!.frames[i]!]));
    const majority = majorityRate(data, (item) => frames.get(item)!);
    return {
      task: data.task,
      checkpoint: basename(options.checkpoint),
      adapter: gpu.profile.name,
      date: new Date().toISOString(),
      seed,
      classes: data.classes,
      counts: countsOf(data),
      ...(majority !== undefined && { majority }),
      rows,
    };
  } finally {
    for (const extractor of extractors) extractor.destroy();
  }
}

const folds = ({ data }: ProbeSettings): readonly TaskData[] => ('items' in data ? [data] : data);

export function countsOf({ items }: TaskData): Record<Split, number> {
  const count = (split: Split): number => items.filter((item) => item.split === split).length;
  return { train: count('train'), dev: count('dev'), test: count('test') };
}

function extractorOf(
  { gpu, config, parameters, seed = 0 }: ProbeSettings,
  source: FeatureSource,
): Promise<FeatureExtractor> {
  if (source === 'random') return randomFeatures(gpu, config, seed);
  if (source === 'log-mel') return logMelFeatures(gpu, config);
  if (!parameters) throw new MGFError('usage', 'a probe of a network needs its parameters');
  return networkFeatures(gpu, config, parameters);
}

function specOf(options: ProbeSettings, extractor: FeatureExtractor, layer: HeadSpec['layer']): HeadSpec {
  const data = folds(options)[0]!;
  const frames = labelsFrames(data.task);
  const pool = options.pool ?? (frames ? 'none' : 'mean+std');
  if (frames !== (pool === 'none'))
    throw new MGFError(
      'usage',
      `the ${data.task} task ` +
        `${frames ? 'labels frames: it pools nothing' : 'labels recordings: it pools by mean or mean+std'}, ` +
        `not ${pool}`,
    );
  if (typeof layer === 'number' && !(Number.isInteger(layer) && layer >= 0 && layer <= extractor.layers)) {
    throw new MGFError(
      'usage',
      `this network has hidden states 0 to ${extractor.layers}; there is no layer ${layer}`,
    );
  }
  return {
    task: data.task,
    classes: logitClasses(data),
    layer,
    layers: extractor.layers,
    dim: extractor.dim,
    head: options.head ?? 'linear',
    pool,
  };
}

const extraction = ({ cache, load, onProgress }: ProbeSettings, { pool }: HeadSpec): ExtractOptions => ({
  cache,
  load,
  pool,
  onProgress: (done, total) => onProgress?.('features', done, total),
});

/**
 * Trains and scores on features that are there; several folds one after the other, their predictions scored
 * as one test split.
 */
export async function probeFeatures(
  gpu: Gpu,
  source: FeatureSource,
  spec: HeadSpec,
  features: Features,
  options: ProbeSettings,
): Promise<{ row: ProbeRow; head: TrainedHead }> {
  const sets = folds(options);
  const predictions: Prediction[] = [];
  const rates: number[] = [];
  const { seed = 0, learningRates = LEARNING_RATES, beam } = options;
  let head: TrainedHead | undefined;
  let inputs: Inputs | undefined;
  for (const data of sets) {
    const trainer = new HeadTrainer(gpu, spec);
    try {
      const material = materialOf(data, spec, features, {
        seed,
        learningRates,
        beam,
        onProgress: (done, total) => options.onProgress?.('training', done, total),
      });
      rates.push((await trainHead(trainer, material.training)).learningRate);
      predictions.push(...(await material.predict(trainer, 'test')));
      inputs = material.inputs;
      head = { spec, parameters: new Map([...normsOf(inputs.standards), ...(await trainer.save())]) };
    } finally {
      trainer.destroy();
    }
  }
  const learningRate = rates.sort((a, b) => a - b)[Math.floor(rates.length / 2)]!;
  const scores = scoreTask(
    sets[0]!,
    predictions.map((p) => p.item),
    predictions.map((p) => p.outcome),
    seed,
  );
  const row = {
    features: source,
    layer: spec.layer,
    head: spec.head,
    pool: spec.pool,
    learningRate,
    ...scores,
  };
  return {
    row:
      sets[0]!.task === 'speaker' && spec.layer !== 'sum'
        ? withVerification(row, sets[0]!, inputs!, seed)
        : row,
    head: head!,
  };
}

/**
 * Speakers told apart without a classifier: the equal error rate of the cosine between standardised features,
 * over all recordings of the task (no label of theirs was used), and of each part of it.
 */
function withVerification(
  row: ProbeRow,
  { items }: TaskData,
  { matrices: [matrix], standards: [standard] }: Inputs,
  seed: number,
): ProbeRow {
  const { width } = matrix!;
  const features = standardised(matrix!, standard!);
  const rate = (chosen: readonly number[]): { equal_error_rate: Estimate } => {
    const x = new Float32Array(chosen.length * width);
    chosen.forEach((i, k) => x.set(features.subarray(i * width, (i + 1) * width), k * width));
    return {
      equal_error_rate: estimateEqualErrorRate(
        cosineMatrix(x, chosen.length, width),
        chosen.map((i) => items[i]!.speaker),
        seed,
      ),
    };
  };
  const all = items.map((_, i) => i);
  const parts = Object.entries(row.parts).map(([part, metrics]) => [
    part,
    { ...metrics, ...rate(all.filter((i) => partsOf(items[i]!).includes(part))) },
  ]);
  return { ...row, metrics: { ...row.metrics, ...rate(all) }, parts: Object.fromEntries(parts) };
}

/**
 * Share of the commonest class of training among the test split, by recordings or (phoneme) frames; undefined
 * for asr. `framesOf`: encoder frames of an item.
 */
export function majorityRate(
  { task, items }: TaskData,
  framesOf: (item: TaskItem) => number,
): number | undefined {
  if (task === 'asr') return undefined;
  const count = (split: Split): Map<number, number> => {
    const counts = new Map<number, number>();
    for (const item of items.filter((i) => i.split === split)) {
      for (const label of task === 'phoneme' ? frameLabels(item.phones, framesOf(item)) : [item.label])
        if (label >= 0) counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    return counts;
  };
  const commonest = [...count('train')].sort(([a, n], [b, m]) => m - n || a - b)[0]![0];
  const test = count('test');
  return (test.get(commonest) ?? 0) / [...test.values()].reduce((a, b) => a + b, 0);
}
