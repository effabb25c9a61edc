/**
 * `mgf probe TASK`: how much of a label the features of a frozen model give away, beside random weights and
 * log-mel.
 */
import type { ManifestOptions } from '../audio/manifest.ts';
import { channelOption, listOptions, skipBadOption } from './recordings.ts';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { MGFError } from '../errors.ts';
import { readTask, sharedSpeakers } from '../tasks/data/labelled.ts';
import { saveTaskModel } from '../tasks/finetune/model.ts';
import { transcriptModel } from '../tasks/decode/ngram.ts';
import { countsOf, probeTask, type TrainedHead } from '../tasks/probe/probe.ts';
import { TASKS } from '../tasks/task.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import { StageReporter } from '../pretrain/logs.ts';
import {
  adapterOption,
  cacheFolder,
  fold,
  formatTable,
  ioError,
  jsonOption,
  listSkipped,
  METRIC_NAMES,
  percent,
  plural,
  positiveInteger,
  print,
  say,
  seed,
  withGpu,
  words,
} from './common.ts';
import { checkpointOption, loadEncoderWeights } from './weights.ts';
import type { Skipped } from '../audio/manifest.ts';
import type { AdapterPreference } from '../gpu/device.ts';
import type { Estimate, Metric, ProbeResult, ProbeRow, TaskData, TaskName } from '../tasks/task.ts';

interface Options extends ManifestOptions {
  checkpoint: string;
  data: string;
  layer?: string;
  head?: ProbeRow['head'];
  pool?: 'mean' | 'mean+std';
  families?: string[];
  fold?: number | 'all';
  alignments?: string;
  beam?: number;
  seed: number;
  out?: string;
  save?: string;
  /** false: --no-cache. */
  cache?: string | false;
  adapter?: AdapterPreference;
  json?: boolean;
}

const foldOrAll = (text: string): number | 'all' => (text === 'all' ? 'all' : fold(text));

export function probeCommand(): Command {
  return new Command('probe')
    .summary("ask what a trained model's features know: phones, speakers, words, emotions")
    .description(
      'Trains a small classifier on the features of a frozen model and scores it on recordings that it ' +
        'never heard, beside the same network with random ' +
        'weights and log-mel. Learning rate and the moment to stop are chosen on a development split; ' +
        'intervals are 95 % bootstrap over recordings.',
    )
    .argument('<task>', TASKS.join(', '))
    .addOption(checkpointOption())
    .requiredOption(
      '--data <folder>',
      "labelled recordings: a folder with the task's manifest (phonemes/utterances.tsv, " +
        'speakers/speakers.tsv, asr/asr.tsv, emotion/emotion.tsv), or a manifest',
    )
    .option(
      '--layer <n>',
      'hidden state: 0 is the input of the first layer; sum: a learned weighted sum of all; all: a row ' +
        'for each (default: the one three quarters up)',
    )
    .addOption(
      new Option('--head <kind>', 'linear, or mlp: one hidden layer of 1024 units')
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
      new Option(
        '--families <list>',
        'only these corpora, such as ravdess: the family or source column, or the folder after audio/',
      ).argParser(words),
    )
    .addOption(
      new Option(
        '--fold <n>',
        'emotion: the fold to test on, or all: each in turn, scored together (default: the split of ' +
          'the manifest)',
      ).argParser(foldOrAll),
    )
    .option(
      '--alignments <file>',
      'phoneme: the table of phones (default: alignments.tsv beside the manifest)',
    )
    .addOption(
      new Option('--beam <n>', 'asr: width of a prefix beam search (default: the best path)').argParser(
        positiveInteger,
      ),
    )
    .addOption(
      new Option(
        '--seed <n>',
        'of the development split, the random network, the classifier and the bootstrap',
      )
        .argParser(seed)
        .default(0),
    )
    .option('--out <folder>', 'also write probe-TASK.json there, for mgf report')
    .option('--save <file>', 'write network and classifier as one task model, for mgf predict')
    .option('--cache <folder>', "where features are kept (default: the user's cache folder)")
    .option('--no-cache', 'keep no features')
    .addOption(channelOption())
    .addOption(skipBadOption())
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf probe phoneme --checkpoint runs/first --data labelled/
  mgf probe speaker --checkpoint runs/first --data labelled/ --layer all --out runs/first
  mgf probe emotion --checkpoint runs/first --data labelled/ --families ravdess --fold all
  mgf probe asr --checkpoint runs/first/best.safetensors --data labelled/ --layer sum --head mlp --beam 20`,
    )
    .action((task: string, options: Options) => runProbe(task, options));
}

async function runProbe(name: string, options: Options): Promise<void> {
  const task = TASKS.find((t) => t === name);
  if (!task)
    throw new MGFError(
      'usage',
      `There is no task ${JSON.stringify(name)}; the tasks are ${TASKS.join(', ')}.`,
    );
  const data = await readFolds(task, options);
  const { path, config, parameters } = await loadEncoderWeights(options.checkpoint);
  const layers = chosenLayers(options.layer, config.num_hidden_layers);
  const { out, save, cache = cacheFolder('features') } = options;
  if (save !== undefined && (options.layer === 'all' || options.fold === 'all'))
    throw new MGFError(
      'usage',
      `--save writes one classifier, and --${options.layer === 'all' ? 'layer' : 'fold'} all trains ` +
        'several; choose one.',
    );
  if (out !== undefined)
    await mkdir(out, { recursive: true }).catch((error: unknown) => {
      throw ioError(error, 'write to the folder', out);
    });
  for (const line of notes(data)) say(line);
  await withGpu(options.adapter, async (gpu) => {
    const progress = new StageReporter(process.stderr);
    let trained: TrainedHead | undefined;
    const result = await probeTask({
      gpu,
      data,
      config,
      parameters,
      checkpoint: path,
      head: options.head,
      pool: options.pool,
      seed: options.seed,
      beam: options.beam,
      cache: cache === false ? undefined : cache,
      ...(layers && { layers }),
      onProgress: (stage, done, total) => progress.update(stage, done, total),
      onRow: (row, head) => {
        progress.clear();
        if (row.features === 'mgf') trained = head;
      },
    });
    progress.clear();
    if (out !== undefined) {
      const file = join(out, `probe-${task}.json`);
      await writeFileAtomically(file, [
        new TextEncoder().encode(`${JSON.stringify(result, null, 2)}\n`),
      ]).catch((error: unknown) => {
        throw ioError(error, 'write', file);
      });
    }
    if (save !== undefined) {
      const { spec, parameters: head } = trained!;
      const [set] = data;
      await saveTaskModel(save, {
        config,
        spec,
        classes: set!.classes,
        encoder: parameters,
        head,
        notes: { checkpoint: path, made: 'probed' },
        ...(task === 'asr' && { lm: transcriptModel(set!) }),
      });
    }
    print(options.json ? JSON.stringify(result, null, 2) : formatProbe(result));
  });
}

/** One data set, or each fold's. */
async function readFolds(
  task: TaskName,
  { data, fold: chosen, families, alignments, seed: dev, ...list }: Options,
): Promise<TaskData[]> {
  if (chosen !== undefined && task !== 'emotion')
    throw new MGFError('usage', `--fold is for the emotion task; the ${task} task has one test split.`);
  const skipped: Skipped[] = [];
  const first = await readTask(task, data, {
    families,
    alignments,
    seed: dev,
    ...listOptions(list),
    ...(typeof chosen === 'number' && { fold: chosen }),
    onSkipped: (s) => skipped.push(...s),
  });
  if (skipped.length > 0) {
    say(`Left out ${plural(skipped.length, 'recording')}:`);
    for (const line of listSkipped(skipped)) say(line);
  }
  if (chosen !== 'all') return [first];
  const names = [...new Set(first.items.map((item) => Number(item.columns['fold'])))].sort((a, b) => a - b);
  return Promise.all(
    names.map((n) => readTask(task, data, { families, seed: dev, fold: n, ...listOptions(list) })),
  );
}

function* notes([data]: readonly TaskData[]): Generator<string> {
  const { train, dev, test } = countsOf(data!);
  const shared = data!.task === 'asr' ? sharedSpeakers(data!) : [];
  yield (
    `${plural(data!.classes.length, data!.task === 'asr' ? 'character' : 'class', data!.task === 'asr' ? 'characters' : 'classes')}; ` +
    `${train} recordings to train on, ${dev} to choose by, ${test} to test on.`
  );
  if (shared.length > 0)
    yield (
      `Note: ${plural(shared.length, 'speaker')} of the test split are heard in training too, as the ` +
      'corpus splits it.'
    );
}

function chosenLayers(text: string | undefined, layers: number): (number | 'sum')[] | undefined {
  if (text === undefined) return undefined;
  if (text === 'sum') return ['sum'];
  if (text === 'all') return Array.from({ length: layers + 1 }, (_, i) => i);
  const layer = Number(text);
  if (text.trim() === '' || !Number.isInteger(layer) || layer < 0 || layer > layers) {
    throw new MGFError(
      'usage',
      `--layer is ${JSON.stringify(text)}, but this model has the hidden states 0 to ${layers}; give ` +
        'one of them, sum or all.',
    );
  }
  return [layer];
}

/** A row for the whole test split and one for each part of it, for each kind of features. */
export function formatProbe({ task, checkpoint, counts, majority, rows }: ProbeResult): string {
  const metrics = [...new Set(rows.flatMap((row) => Object.keys(row.metrics) as Metric[]))];
  const cells = (found: Readonly<Partial<Record<Metric, Estimate>>>): string[] =>
    metrics.flatMap((m) => {
      const estimate = found[m];
      return estimate
        ? [percent(estimate.value), `${percent(estimate.interval[0])} to ${percent(estimate.interval[1])}`]
        : ['-', ''];
    });
  const lines = rows.flatMap((row) => {
    const parts = Object.entries(row.parts);
    const head = [
      row.features,
      row.layer === null ? '' : String(row.layer),
      row.pool === 'none' ? row.head : `${row.head}, ${row.pool}`,
    ];
    return [
      [...head, 'all', ...cells(row.metrics)],
      ...(parts.length > 1 ? parts.map(([name, found]) => ['', '', '', name, ...cells(found)]) : []),
    ];
  });
  const table = formatTable(
    ['features', 'layer', 'head', 'test', ...metrics.flatMap((m) => [METRIC_NAMES[m], '95 % interval'])],
    lines,
  );
  return (
    `${task}, ` +
    `${checkpoint}\n${table}\n${majority === undefined ? '' : `The commonest class of training: ${percent(majority)}. `}${counts.train} ` +
    `recordings to train on, ${counts.dev} to choose by, ${counts.test} to test on.`
  );
}
