/** `mgf finetune TASK`: network and head trained together on labelled recordings. */
import type { ManifestOptions } from '../audio/manifest.ts';
import { channelOption, listOptions, skipBadOption } from './recordings.ts';
import { Command, Option } from 'commander';
import { MGFError } from '../errors.ts';
import { initialValues, mgfParameters } from '../mgf/weights.ts';
import { readTask } from '../tasks/data/labelled.ts';
import { finetune, FINE_TUNE_DEFAULTS, type FineTuneResult } from '../tasks/finetune/finetune.ts';
import { logitClasses, type HeadSpec } from '../tasks/probe/head.ts';
import { CHOSEN_BY } from '../tasks/probe/score.ts';
import { TASKS, type Estimate, type Metric, type ProbeRow, type TaskName } from '../tasks/task.ts';
import { formatDuration } from '../pretrain/logs.ts';
import {
  adapterOption,
  fold,
  formatTable,
  jsonOption,
  listSkipped,
  METRIC_NAMES,
  percent,
  plural,
  positive,
  positiveInteger,
  print,
  programName,
  say,
  seed,
  shellWord,
  withGpu,
  words,
} from './common.ts';
import { checkpointOption, loadEncoderWeights } from './weights.ts';
import type { AdapterPreference } from '../gpu/device.ts';

interface Options extends ManifestOptions {
  checkpoint: string;
  data: string;
  out: string;
  random?: boolean;
  families?: string[];
  fold?: number;
  alignments?: string;
  layer?: string;
  head: HeadSpec['head'];
  pool?: HeadSpec['pool'];
  learningRate: number[];
  headLearningRate: number;
  epochs: number;
  patience: number;
  batch: number;
  batchSeconds: number;
  seed: number;
  adapter?: AdapterPreference;
  json?: boolean;
}

export function finetuneCommand(): Command {
  const d = FINE_TUNE_DEFAULTS;
  return new Command('finetune')
    .summary('train a network and a head on labelled recordings')
    .description(
      `Trains a pre-trained network together with a head on a task: ${TASKS.join(', ')}. The best ` +
        'weights by the development split become one file, which ' +
        'mgf predict takes; the folder also gets log.jsonl and result.json with the metrics of the ' +
        'test split.',
    )
    .argument('<task>', `${TASKS.join(', ')}`)
    .addOption(checkpointOption())
    .requiredOption('--data <folder>', 'labelled recordings: a folder of manifests, or one manifest')
    .requiredOption('--out <folder>', 'gets model.safetensors, log.jsonl and result.json')
    .option(
      '--random',
      'start from random weights of the same network instead: what pre-training is compared with',
    )
    .addOption(new Option('--families <names>', 'only these corpora, separated by commas').argParser(words))
    .addOption(new Option('--fold <n>', 'emotion: the fold that is the test split').argParser(fold))
    .option('--alignments <file>', 'phoneme: table of phones (default: alignments.tsv beside the manifest)')
    .option(
      '--layer <n>',
      'hidden state that the head reads, or sum: a learned sum of all (default: the last)',
    )
    .addOption(
      new Option('--head <kind>', 'linear, or mlp: a hidden layer of 1024 units')
        .choices(['linear', 'mlp'])
        .default('linear'),
    )
    .addOption(
      new Option('--pool <how>', 'speaker, emotion: over time (default: mean+std)').choices([
        'mean',
        'mean+std',
      ]),
    )
    .addOption(
      new Option('--learning-rate <r,...>', 'peak rate of the network; of several each is tried')
        .argParser((text) => words(text).map(positive))
        .default(d.learningRates, d.learningRates.join()),
    )
    .addOption(
      new Option('--head-learning-rate <r>', 'peak rate of the head')
        .argParser(positive)
        .default(d.headLearningRate),
    )
    .addOption(
      new Option('--epochs <n>', 'passes over the training split at most')
        .argParser(positiveInteger)
        .default(d.epochs),
    )
    .addOption(
      new Option('--patience <n>', 'scores of the development split without a better one before it ends')
        .argParser(positiveInteger)
        .default(d.patience),
    )
    .addOption(new Option('--batch <n>', 'recordings of a batch').argParser(positiveInteger).default(d.batch))
    .addOption(
      new Option('--batch-seconds <s>', 'seconds of audio of a batch at most')
        .argParser(positive)
        .default(d.batchSeconds),
    )
    .addOption(
      new Option('--seed <n>', 'of head, order, masks, dropout and the development split')
        .argParser(seed)
        .default(d.seed),
    )
    .addOption(channelOption())
    .addOption(skipBadOption())
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf finetune asr --checkpoint runs/first --data data/ --out runs/recogniser
  mgf finetune asr --checkpoint runs/first --data data/ --families fsdd --out runs/digits --epochs 60
  mgf finetune emotion --checkpoint runs/first --data emotion.tsv --fold 1 --out runs/emotion --learning-rate 1e-4,5e-4
  mgf predict runs/digits recordings/

Ctrl-C ends the training; what was best so far is scored and saved.`,
    )
    .action((task: string, options: Options) => runFinetune(task, options));
}

/** `--layer`: a hidden state or `sum`; the last one where it is not given. */
function layerOf(text: string | undefined, layers: number): HeadSpec['layer'] {
  if (text === undefined) return layers;
  if (text === 'sum') return 'sum';
  const layer = Number(text);
  if (text.trim() === '' || !Number.isInteger(layer) || layer < 0 || layer > layers)
    throw new MGFError(
      'usage',
      `--layer is ${JSON.stringify(text)}, but this model has the hidden states 0 to ${layers}; give ` +
        'one of them, or sum.',
    );
  return layer;
}

const asTask = (name: string): TaskName => {
  if ((TASKS as readonly string[]).includes(name)) return name as TaskName;
  throw new MGFError('usage', `there is no task ${JSON.stringify(name)}; the tasks are ${TASKS.join(', ')}.`);
};

async function runFinetune(name: string, options: Options): Promise<void> {
  const task = asTask(name);
  const { families, fold, alignments, checkpoint, out } = options;
  const frames = task === 'phoneme' || task === 'asr';
  if (frames && options.pool)
    throw new MGFError('usage', `--pool is for speaker and emotion; the ${task} task labels frames.`);
  const data = await readTask(task, options.data, {
    seed: options.seed,
    families,
    fold,
    alignments,
    ...listOptions(options),
    onSkipped: (skipped) => {
      say(`Left out ${plural(skipped.length, 'row')} of the manifest:`);
      for (const line of listSkipped(skipped)) say(line);
    },
  });
  const { path, config, parameters } = await loadEncoderWeights(checkpoint);
  const layers = config.num_hidden_layers;
  const spec: HeadSpec = {
    task,
    classes: logitClasses(data),
    layer: layerOf(options.layer, layers),
    layers,
    dim: config.hidden_size,
    head: options.head,
    pool: frames ? 'none' : (options.pool ?? 'mean+std'),
  };
  const abort = new AbortController();
  const stop = (): void => {
    if (abort.signal.aborted) process.exit(130);
    abort.abort();
    say('Stopping: the best weights so far are scored and saved (Ctrl-C again stops at once).');
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  try {
    await withGpu(options.adapter, async (gpu) => {
      const encoder = options.random ? initialValues(mgfParameters(config, []), options.seed) : parameters;
      const result = await finetune({
        gpu,
        data,
        config,
        encoder,
        spec,
        features: options.random ? 'random' : 'mgf',
        checkpoint: path,
        out,
        signal: abort.signal,
        settings: {
          learningRates: options.learningRate,
          headLearningRate: options.headLearningRate,
          epochs: options.epochs,
          patience: options.patience,
          batch: options.batch,
          batchSeconds: options.batchSeconds,
          seed: options.seed,
        },
        onStart: ({ parameters: count, counts, stepsPerEpoch, skipped }) => {
          say(`Adapter     ${gpu.profile.name}`);
          say(
            `Model       ${count.toLocaleString('en-US')} parameters, ` +
              `${options.random ? 'random weights' : path}; head ${spec.head} on hidden state ` +
              `${spec.layer}`,
          );
          say(
            `Data        ${plural(counts.train, 'recording')} to train, ${counts.dev} to choose by, ` +
              `${counts.test} to test; ${plural(data.classes.length, 'class', 'classes')}`,
          );
          if (skipped.length > 0)
            for (const line of [
              `Left out    ${plural(skipped.length, 'recording')}:`,
              ...listSkipped(skipped),
            ])
              say(line);
          say(
            `Run         at most ${plural(options.epochs, 'epoch')} of ` +
              `${plural(stepsPerEpoch, 'step')}, seed ${options.seed}, into ${out}`,
          );
        },
        onEpoch: ({ epoch, loss, dev, best, seconds, learningRate }) =>
          say(
            `epoch ${String(epoch).padStart(3)}  loss ${loss.toFixed(3)}  dev ` +
              `${describe(task, dev)}${best ? '  *' : ''}` +
              `  ${formatDuration(seconds)}${options.learningRate.length > 1 ? `  rate ${learningRate}` : ''}`,
          ),
        onNote: (note) => say(`Note: ${note}`),
      });
      if (options.json) print(JSON.stringify(result, null, 2));
      else
        for (const line of [
          resultTable(result),
          `Model: ${result.fineTuning.model}`,
          `Next: ${programName()} predict ${shellWord(out)} FILES`,
        ])
          print(line);
    });
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
}

const withInterval = ({ value, interval: [low, high] }: Estimate): string =>
  `${percent(value)} (${percent(low)} to ${percent(high)})`;
const describe = (task: TaskName, metrics: ProbeRow['metrics']): string =>
  `${METRIC_NAMES[CHOSEN_BY[task].metric]} ${percent(metrics[CHOSEN_BY[task].metric]!.value)}`;

/** Development, test, and the parts of the test split, with their 95 % intervals. */
function resultTable({ rows: [row], fineTuning, majority, task }: FineTuneResult): string {
  const metrics = Object.keys(row!.metrics) as Metric[];
  const line = (name: string, values: ProbeRow['metrics']): string[] => [
    name,
    ...metrics.map((m) => (values[m] ? withInterval(values[m]) : '-')),
  ];
  const lines = [
    line('dev', fineTuning.dev),
    line('test', row!.metrics),
    ...Object.entries(row!.parts).map(([part, values]) => line(`  ${part}`, values)),
  ];
  const commonest =
    majority === undefined ? '' : `\nThe commonest class of training alone: ${percent(majority)}.`;
  return (
    `${formatTable([task, ...metrics.map((m) => METRIC_NAMES[m])], lines)}${commonest}\n${plural(fineTuning.steps, 'step')} ` +
    `in ${formatDuration(fineTuning.seconds)}, best after ${fineTuning.bestStep}.`
  );
}
