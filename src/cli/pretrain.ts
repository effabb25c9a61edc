/** `mgf pretrain DATA`: trains, logs, saves, resumes. */
import type { ManifestOptions } from '../audio/manifest.ts';
import { channelOption, skipBadOption } from './recordings.ts';
import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Command, Option } from 'commander';
import { MGFError } from '../errors.ts';
import { applySettings } from '../mgf/parse-config.ts';
import { configDifferences } from '../mgf/config-difference.ts';
import { MGF_DEFAULTS, SCALES, TRAIN_DEFAULTS } from '../mgf/config.ts';
import { wav2vec2Names } from '../mgf/encoder.ts';
import { parseRunConfig, PRESET_NAMES, presetRunConfig } from '../mgf/presets.ts';
import { formatDuration, ProgressReporter } from '../pretrain/logs.ts';
import { rivalName } from '../mgf/rivals.ts';
import { checkRunFolder, readResumePoint } from '../pretrain/run-files.ts';
import { pretrain } from '../pretrain/loop.ts';
import {
  adapterOption,
  collect,
  jsonOption,
  listSkipped,
  plural,
  positive,
  positiveInteger,
  precisionOption,
  programName,
  seed,
  shellWord,
  withGpu,
} from './common.ts';
import { attachOption, lossOption, weightOption, withLosses, type LossOptions } from './losses.ts';
import { folderOf, readConfig, recordingsOf, resumedRun } from './resumed.ts';
import { recordSitting } from './run-record.ts';
import { tuneOption, useTuning, type TuneMode } from './tuning.ts';
import { loadEncoderWeights } from './weights.ts';
import type { Utterance } from '../audio/manifest.ts';
import type { AdapterPreference, Gpu, Precision } from '../gpu/device.ts';
import type { RunConfig } from '../mgf/config.ts';
import type { Rivals } from '../mgf/rivals.ts';
import type { HostTensor } from '../plan/parameters.ts';
import type { PretrainHooks, PretrainOptions, PretrainResult, PretrainStart } from '../pretrain/options.ts';

interface Options extends LossOptions, ManifestOptions {
  preset?: string;
  out?: string;
  config?: string;
  init?: string;
  resume?: string;
  steps?: number;
  minutes?: number;
  set?: string[];
  seed?: number;
  precision?: Precision;
  tune: TuneMode;
  adapter?: AdapterPreference;
  json?: boolean;
}

export function pretrainCommand(version: string): Command {
  return new Command('pretrain')
    .summary('pre-train a model on recordings')
    .description(
      'Pre-trains MGF on recordings: a folder, a glob, an audio file, a TSV or CSV with a header, a ' +
        'fairseq .tsv or a NeMo JSONL manifest. ' +
        "The run's folder gets checkpoints, log.jsonl, TensorBoard event files, report.html and the " +
        'list of skipped clips.',
    )
    .argument('[data]', 'recordings; a run that goes on with --resume knows its own')
    .option(
      '--preset <name>',
      `size of the model: ${PRESET_NAMES.join(', ')} (default: tiny on a GPU, micro-mel in software)`,
    )
    .option('--out <folder>', 'folder of the run (default: runs/PRESET)')
    .option('--config <file>', 'JSON file with any fields of the configuration, and optionally "preset"')
    .addOption(
      new Option(
        '--init <checkpoint>',
        'begin with the weights of a checkpoint, a run, exported weights or a wav2vec 2.0 model, and ' +
          'with their network',
      ).conflicts(['preset', 'config', 'resume']),
    )
    .option(
      '--resume <run>',
      "go on from the newest checkpoint of a run's folder, or from one checkpoint, with its recordings " +
        'and its configuration',
    )
    .addOption(
      new Option('--steps <n>', 'optimiser steps in all').argParser(positiveInteger).conflicts('minutes'),
    )
    .addOption(
      new Option('--minutes <n>', 'train for so long instead of a number of steps').argParser(positive),
    )
    .addOption(
      new Option('--set <key=value>', 'set any field of the configuration; may be repeated').argParser(
        collect,
      ),
    )
    .addOption(lossOption())
    .addOption(attachOption())
    .addOption(weightOption())
    .addOption(new Option('--seed <n>', 'seed of weights, order, crops, masks and dropout').argParser(seed))
    .addOption(precisionOption())
    .addOption(tuneOption())
    .addOption(channelOption())
    .addOption(skipBadOption())
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf pretrain recordings/ --preset micro-mel --out runs/first --minutes 20
  mgf pretrain train.tsv --preset tiny --out runs/tiny --set learning_rate=1e-3 --set loss_weights.sentence=0
  mgf pretrain --resume runs/tiny --steps 20000
  mgf pretrain train.tsv --preset micro-mel --loss my-loss.ts --attach 2 --weight 0.2 --out runs/mine
  mgf pretrain mine/ --init runs/tiny --out runs/adapted --steps 2000     (a new run from trained weights)

Ctrl-C finishes the step, saves, and says how to go on.`,
    )
    .action((data: string | undefined, options: Options) => runPretrain(data, options, version));
}

/** The losses that a resumed run wants again. */
function lossWords({ loss = [] }: Options): string {
  return loss.map((file) => ` --loss ${shellWord(file)}`).join('');
}

/** Reads `--config`, `--preset`, `--set` and their relatives; in this order, later ones win. */
async function newRun(options: Options, defaultPreset: string): Promise<{ preset: string; run: RunConfig }> {
  let preset = options.preset ?? defaultPreset;
  let run: RunConfig;
  if (options.config === undefined) run = presetRunConfig(preset);
  else {
    const path = options.config;
    const text = await readConfig(path);
    run = parseRunConfig(text, { origin: path, preset });
    const named = (JSON.parse(text) as { preset?: string }).preset;
    if (named !== undefined && options.preset !== undefined && named !== options.preset) {
      throw new MGFError(
        'usage',
        `${path} is based on the preset ${named}, but --preset says ${options.preset}; leave one of them out.`,
      );
    }
    preset = named ?? preset;
  }
  return { preset, run: applySettings(run, settings(options)) };
}

/**
 * A run that begins with trained weights: their network, and the settings they were trained with where the
 * file knows them.
 */
async function initialisedRun(
  options: Options,
): Promise<{ preset: string; run: RunConfig; init: Map<string, HostTensor> }> {
  const from = options.init!;
  const { path, config, train = TRAIN_DEFAULTS, parameters } = await loadEncoderWeights(from);
  const name = (await stat(from)).isDirectory() ? from : path;
  return {
    preset: `from-${basename(name, '.safetensors')}`,
    run: applySettings({ mgf: config, train }, settings(options)),
    init: wav2vec2Names(parameters),
  };
}

function settings({ set = [], steps, minutes, seed: chosen, precision }: Options): string[] {
  return [
    ...set,
    ...(steps === undefined ? [] : [`steps=${steps}`, 'minutes=null']),
    ...(minutes === undefined ? [] : [`minutes=${minutes}`]),
    ...(chosen === undefined ? [] : [`seed=${chosen}`]),
    ...(precision === undefined ? [] : [`precision=${precision}`]),
  ];
}

async function runPretrain(named: string | undefined, options: Options, version: string): Promise<void> {
  // What can be refused without a device and without decoding anything, first.
  const resume = options.resume === undefined ? undefined : await readResumePoint(options.resume);
  const { data, list, manifest } = await recordingsOf(named, options.resume, options);
  let chosen: { preset: string; run: RunConfig; init?: Map<string, HostTensor> } | undefined = resume
    ? await resumedRun(resume, options, settings(options))
    : options.init !== undefined
      ? await initialisedRun(options)
      : options.preset || options.config
        ? await newRun(options, 'tiny')
        : undefined;
  const early =
    options.out ??
    (resume && options.resume !== undefined
      ? await folderOf(options.resume)
      : chosen && join('runs', chosen.preset));
  if (early !== undefined) await checkRunFolder(early, resume);

  await withGpu(options.adapter, async (gpu) => {
    await useTuning(gpu, options.tune, version);
    chosen ??= await newRun(options, gpu.profile.kind === 'gpu' ? 'tiny' : 'micro-mel');
    const { preset, init } = chosen;
    const { run, losses } = await withLosses(chosen.run, options, resume !== undefined);
    const out = early ?? join('runs', preset);
    const stream = options.json ? process.stderr : process.stdout;
    const resumeCommand = `${programName()} pretrain --resume ${shellWord(out)}${lossWords(options)}`;
    const result = await runWithProgress(
      stream,
      {
        gpu,
        run,
        items: manifest.items,
        skipped: manifest.skipped,
        out,
        init,
        losses,
        ...(resume && { resume }),
      },
      preset,
      { data, list },
    );
    const write = (line: string) => stream.write(`${line}\n`);
    if (result.interrupted) {
      write(
        `Stopped after step ${result.steps}; saved ${result.checkpoint}. Go on with:\n  ${resumeCommand}`,
      );
      process.exitCode = 130;
    } else {
      // The plotting library is the slowest to load; only a report needs it.
      const { writeRunReport } = await import('./run-report.ts');
      const report = await writeRunReport({
        runDir: out,
        title: `MGF ${preset}`,
        preset,
        adapter: gpu.profile.name,
        run,
        result,
        next: [
          `${programName()} embed FILES --checkpoint ${shellWord(out)} --out features.npy`,
          `${resumeCommand} --steps ${2 * result.steps}`,
        ],
      });
      for (const line of summaryLines(result)) write(line);
      write(`Report: ${report}`);
      write(`Next: ${programName()} embed FILES --checkpoint ${shellWord(out)} --out features.npy`);
    }
    if (options.json) process.stdout.write(`${JSON.stringify(summary(result, gpu, preset, out), null, 2)}\n`);
  });
}

/**
 * `pretrain` of the recordings of `source`, with its messages and progress on a stream, a record in the run's
 * folder, and Ctrl-C that saves.
 */
export async function runWithProgress(
  stream: NodeJS.WriteStream,
  options: Omit<PretrainOptions, 'hooks' | 'signal'> & { items: readonly Utterance[] },
  preset: string,
  source: { data: string; list: ManifestOptions },
): Promise<PretrainResult> {
  const progress = new ProgressReporter(stream);
  const abort = new AbortController();
  const write = (line: string) => progress.note(line);
  let training = false;
  const stop = () => {
    // Before the first step there is nothing to save.
    if (abort.signal.aborted || !training) process.exit(130);
    abort.abort();
    write('Stopping: the step under way ends, then the run is saved (Ctrl-C again stops at once).');
  };
  let scanShown = performance.now();
  const hooks: PretrainHooks = {
    onScan: (done, total) => {
      if (performance.now() - scanShown < 5000 || done === total) return;
      scanShown = performance.now();
      write(`Reading the recordings: ${done} of ${total}`);
    },
    onStart: (start) => {
      training = true;
      for (const line of startLines(start, options.run, preset, options.out)) write(line);
      recordSitting(options.out, preset, source, start).catch((error: unknown) =>
        write(`Note: ${(error as Error).message}`),
      );
    },
    onProgress: (state) => progress.update(state),
    onAlarm: (alarm) => write(`Warning: ${alarm.message}`),
    onNote: (note) => write(`Note: ${note}`),
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  try {
    return await pretrain({ ...options, name: preset, hooks, signal: abort.signal });
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
    progress.finish();
  }
}

const one = (x: number) => x.toFixed(1);

function startLines(
  { adapter, parameters, data, step, info, rows, cropSeconds, precision, rivals }: PretrainStart,
  { mgf, train }: RunConfig,
  preset: string,
  out: string,
): string[] {
  const micro = train.accumulation > 1 ? `, ${train.accumulation} of them a step` : '';
  const length = train.minutes === null ? `${plural(train.steps, 'step')}` : `${train.minutes} minutes`;
  const swapped = configDifferences(MGF_DEFAULTS.objectives, mgf.objectives).map(
    ({ field, wanted }) => `${field} by ${wanted === 'info_nce' ? 'InfoNCE' : 'L1'}`,
  );
  const { skipped } = data;
  const speakers = data.speakers > 0 ? `, ${plural(data.speakers, 'speaker')}` : '';
  return [
    `Adapter     ${adapter}`,
    `Model       ${preset}, ${parameters.toLocaleString('en-US')} parameters`,
    `Data        ${plural(data.usable, 'clip')}, ${one(data.minutes)} minutes${speakers}, ` +
      `${plural(data.stepsPerEpoch, 'batch', 'batches')} an epoch`,
    ...(skipped.length > 0
      ? [
          `Left out    ${plural(skipped.length, 'clip')}, listed in ${join(out, 'skipped.tsv')}:`,
          ...listSkipped(skipped),
        ]
      : []),
    ...Object.entries(mgf.extra_losses).map(
      ([name, { weight, attach }]) =>
        `Loss        ${name} on ${attach === 'z' ? 'z' : `hidden state ${attach}`}, weight ${weight}`,
    ),
    `Batch       ${rows} crops (2 of each of ${rows / 2} clips) of ${cropSeconds} s${micro}`,
    ...(swapped.length > 0 ? [`Objectives  ${swapped.join(', ')}`] : []),
    `Run         ${length}${step > 0 ? `, going on from step ${step}` : ''}, seed ${train.seed}, into ${out}`,
    ...(train.precision === 'f16'
      ? [
          'Precision   ' +
            `${precision === 'f16' ? 'f16 in matrix products; sums, weights and moments f32' : 'f32: kernels of software adapters gain nothing from f16'}`,
        ]
      : []),
    `Program     ${info.dispatches} dispatches a step, ${info.pipelines} pipelines, ` +
      `${(info.activationBytes / 1e6).toFixed(0)} MB of activations`,
    `To beat     ${rivalWords(rivals, mgf)}`,
  ];
}

/** What each loss has to fall below, such as "sample 0.690 (median predictor), phoneme 4.615 (chance)". */
function rivalWords(rivals: Rivals, { objectives }: RunConfig['mgf']): string {
  const known = SCALES.filter((scale) => rivals[scale] !== undefined);
  const words = known.map(
    (scale) => `${scale} ${rivals[scale]!.toFixed(3)} (${rivalName(scale, objectives)})`,
  );
  return words.join(', ');
}

function summaryLines(result: PretrainResult): string[] {
  const {
    steps,
    audioSeconds,
    elapsedSeconds,
    audioPerSecond,
    startup,
    peakMemory,
    info,
    skippedSteps,
    checkpoint,
  } = result;
  return [
    `Done        ${plural(steps, 'step')} on ${formatDuration(audioSeconds)} of audio in ` +
      `${formatDuration(elapsedSeconds)}, ${one(audioPerSecond)} audio s/s`,
    `First step  after ${one(startup.firstStep)} s (recordings ${one(startup.scan)} s, model ` +
      `${one(startup.compile)} s)`,
    `Program     ${info.dispatches} dispatches a step, ${info.pipelines} pipelines, peak memory ` +
      `${(peakMemory / 1e6).toFixed(0)} MB`,
    ...(skippedSteps > 0
      ? [`Left out    ${plural(skippedSteps, 'update')} whose gradient was not finite`]
      : []),
    `Checkpoint  ${checkpoint}`,
  ];
}

/** The answer of `--json`: all but the arrays. */
export function summary(
  result: PretrainResult,
  gpu: Gpu,
  preset: string,
  out: string,
): Record<string, unknown> {
  const {
    steps,
    interrupted,
    checkpoint,
    audioSeconds,
    elapsedSeconds,
    audioPerSecond,
    startup,
    peakMemory,
    info,
    skippedSteps,
    alarms,
    data,
  } = result;
  return {
    run: out,
    preset,
    adapter: gpu.profile.name,
    steps,
    interrupted,
    checkpoint,
    audioSeconds,
    elapsedSeconds,
    audioPerSecond,
    startup,
    peakMemory,
    ...info,
    skippedSteps,
    alarms,
    data,
  };
}
