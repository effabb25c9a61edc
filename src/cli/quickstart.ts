/** `mgf quickstart`: real speech, a small model, a report. */
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { readManifest } from '../audio/manifest.ts';
import { syntheticBatch } from '../mgf/synthetic-batch.ts';
import { Encoder } from '../mgf/encoder.ts';
import { presetRunConfig } from '../mgf/presets.ts';
import { Pretrainer } from '../mgf/pretrainer.ts';
import { CheckpointStore, loadWeights, writeFileAtomically } from '../pretrain/checkpoint.ts';
import { formatDuration } from '../pretrain/logs.ts';
import {
  adapterOption,
  formatTable,
  jsonOption,
  plural,
  positive,
  programName,
  shellWord,
  withGpu,
} from './common.ts';
import { runWithProgress, summary } from './pretrain.ts';
import { fetchQuickstartSpeech } from './quickstart-data.ts';
import { compareVoices, splitVoices, voiceTable } from './voices.ts';
import type { Utterance } from '../audio/manifest.ts';
import type { AdapterPreference, Gpu } from '../gpu/device.ts';
import type { RunConfig } from '../mgf/config.ts';

interface Options {
  data?: string;
  minutes?: number;
  adapter?: AdapterPreference;
  out?: string;
  json?: boolean;
}

const SEED = 1;
/** Minutes of training where none are given: the whole takes under ten on two cores. */
const MINUTES = 4;
/**
 * Largest first; a model is taken if it gets through so many steps in the time, and the last one in any case.
 */
const PRESETS = ['micro', 'nano'] as const;
const ENOUGH_STEPS = 400;
const TIMED_STEPS = 3;

export function quickstartCommand(): Command {
  return new Command('quickstart')
    .summary('real speech, a small model, a report: under ten minutes')
    .description(
      "Fetches recorded speech once (prompts of the Asterisk telephone exchange from Debian's archive, " +
        'about 80 MB; their licences are printed), ' +
        'pre-trains a small MGF on the raw waveform with all four scales, and writes an HTML report ' +
        'with a table: which voice is speaking.',
    )
    .option(
      '--data <folder>',
      'your own recordings instead: a folder (a sub-folder a voice), a glob or a manifest',
    )
    .addOption(new Option('--minutes <n>', 'minutes of training').argParser(positive).default(MINUTES))
    .option('--out <folder>', 'folder of the run (default: runs/quickstart)')
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      '\nExamples:\n  mgf quickstart\n  mgf quickstart --data recordings/ --minutes 10\n  mgf ' +
        'quickstart --adapter lavapipe',
    )
    .action((options: Options) => runQuickstart(options));
}

async function runQuickstart(options: Options): Promise<void> {
  const started = performance.now();
  const stream = options.json ? process.stderr : process.stdout;
  const write = (line: string) => stream.write(`${line}\n`);
  const { manifest: path, licences } =
    options.data === undefined
      ? await fetchQuickstartSpeech({ onProgress: write })
      : { manifest: options.data, licences: [] as string[] };
  const manifest = await readManifest(path);
  const split = splitVoices(manifest.items, SEED);
  if (licences.length > 0) for (const line of ['Recordings:', ...licences.map((l) => `  ${l}`)]) write(line);
  const held = new Set(split?.test.map((c) => c.item));
  const items = manifest.items.filter((item) => !held.has(item));

  await withGpu(options.adapter, async (gpu) => {
    write(
      'Adapter: ' +
        `${gpu.profile.name}${gpu.profile.kind === 'cpu' ? ' (in software; a GPU would be many times faster)' : ''}`,
    );
    const minutes = options.minutes ?? MINUTES;
    const { preset, run, secondsPerStep } = await choosePreset(gpu, minutes);
    write(
      `Preset: ${preset}, at ${secondsPerStep.toFixed(2)} s a step about ` +
        `${Math.max(1, Math.round((60 * minutes) / secondsPerStep))} steps in ${minutes} minutes`,
    );
    const out = options.out ?? (await freeFolder('runs/quickstart'));
    // What the run learns from, without the clips that the comparison holds back.
    const list = join(out, 'data.tsv');
    const result = await runWithProgress(
      stream,
      { gpu, run, items, skipped: manifest.skipped, out },
      preset,
      { data: list, list: {} },
    );
    const go = `${programName()} pretrain --resume ${shellWord(out)}`;
    await writeManifest(list, items);
    if (result.interrupted) {
      write(`Stopped after step ${result.steps}; saved ${result.checkpoint}. Go on with:\n  ${go}`);
      process.exitCode = 130;
      return;
    }
    write('Comparing features: which voice is speaking');
    const comparison = split && (await compare(gpu, run, result.checkpoint, split));
    const table = comparison && voiceTable(comparison);
    const own = options.data === undefined ? 'FOLDER' : shellWord(options.data);
    const next = [
      'Your own recordings, with the preset that learns most where there is no GPU:',
      `${programName()} pretrain ${own} --preset micro-mel --minutes 60 --out runs/mine`,
      'More steps of this run:',
      `${go} --minutes ${4 * minutes}`,
      'Features for other programs:',
      `${programName()} embed FILES --checkpoint ${shellWord(out)} --out features.safetensors`,
    ];
    const { writeRunReport } = await import('./run-report.ts');
    const report = await writeRunReport({
      runDir: out,
      title: 'MGF quickstart',
      preset,
      adapter: gpu.profile.name,
      run,
      result,
      licences,
      next,
      ...(comparison && { similarity: comparison.similarity }),
      ...(table && { table }),
    });
    const seconds = (performance.now() - started) / 1000;
    if (table)
      write(
        `\n${table.title}\n${formatTable(
          table.columns,
          table.rows.map((row) => row.map(String)),
        )}\n${table.caption}`,
      );
    else
      write(
        '\nNo comparison of voices: it needs two voices with six clips each, by a speaker column or a ' +
          'folder a voice.',
      );
    write(
      `\n${plural(result.steps, 'step')}, ${result.audioPerSecond.toFixed(1)} audio s/s, ` +
        `${formatDuration(seconds)} in all.`,
    );
    write(`Checkpoint: ${result.checkpoint}\nReport:     ${report}\n\nNext:`);
    for (const line of next) write(line.endsWith(':') ? `  ${line}` : `    ${line}`);
    if (options.json) {
      const voices = comparison && { ...comparison, similarity: undefined };
      process.stdout.write(
        `${JSON.stringify({ ...summary(result, gpu, preset, out), report, seconds, voices: voices ?? null }, null, 2)}\n`,
      );
    }
  });
}

async function writeManifest(path: string, items: readonly Utterance[]): Promise<void> {
  const cell = (x: string | number | undefined) => String(x ?? '').replace(/[\t\r\n]+/g, ' ');
  const rows = items.map((i) => [i.path, i.id, i.speaker, i.offset, i.duration].map(cell).join('\t'));
  await writeFileAtomically(path, [
    new TextEncoder().encode(`${['path\tid\tspeaker\toffset\tduration', ...rows].join('\n')}\n`),
  ]);
}

async function compare(
  gpu: Gpu,
  run: RunConfig,
  checkpoint: string,
  split: NonNullable<ReturnType<typeof splitVoices>>,
) {
  const { parameters } = await loadWeights(checkpoint);
  const trained = await Encoder.create(gpu, run.mgf, parameters);
  const random = await Encoder.random(gpu, run.mgf, run.train.seed);
  try {
    return await compareVoices(split, trained, random, SEED);
  } finally {
    trained.destroy();
    random.destroy();
  }
}

/** A folder that holds no run yet, so that the quickstart can be run again. */
async function freeFolder(base: string): Promise<string> {
  for (let n = 1; ; n++) {
    const folder = n === 1 ? base : `${base}-${n}`;
    if (!(await new CheckpointStore(folder).latest())) return join(folder);
  }
}

/**
 * The largest preset that gets through enough steps in the time, by timing a few steps of each on this
 * adapter.
 */
async function choosePreset(
  gpu: Gpu,
  minutes: number,
): Promise<{ preset: string; run: RunConfig; secondsPerStep: number }> {
  for (const preset of PRESETS) {
    const run = presetRunConfig(preset, { train: { minutes, seed: SEED } });
    const secondsPerStep = await timeStep(gpu, run);
    if (preset === PRESETS.at(-1) || (60 * minutes) / secondsPerStep >= ENOUGH_STEPS)
      return { preset, run, secondsPerStep };
  }
  throw new Error('unreachable: the last preset is always taken');
}

async function timeStep(gpu: Gpu, run: RunConfig): Promise<number> {
  const model = await Pretrainer.create(gpu, run);
  try {
    const batch = syntheticBatch(run, SEED);
    let fastest = Infinity;
    // The first step also warms caches, and any may be disturbed.
    for (let step = 0; step < TIMED_STEPS; step++) {
      const start = performance.now();
      await model.step([batch], { step, learningRate: 0 });
      fastest = Math.min(fastest, (performance.now() - start) / 1000);
    }
    return fastest;
  } finally {
    model.destroy();
  }
}
