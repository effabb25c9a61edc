/** `mgf ablate DATA`: which scales matter, and whether each needs its own kind of loss. */
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { readManifest } from '../audio/manifest.ts';
import { MGFError } from '../errors.ts';
import { applySettings } from '../mgf/parse-config.ts';
import { PRESET_NAMES, presetRunConfig } from '../mgf/presets.ts';
import { chooseRows, runAblation, type AblationHooks } from '../tasks/ablation/ablation.ts';
import { ablationMarkdown, ABLATION_TASKS, compareRows, type AblationTask } from '../tasks/ablation/table.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import { formatDuration, ProgressReporter } from '../pretrain/logs.ts';
import {
  adapterOption,
  collect,
  formatTable,
  jsonOption,
  percent,
  positiveInteger,
  programName,
  seed,
  shellWord,
  withGpu,
  words,
} from './common.ts';
import { attachOption, lossOption, weightOption, withLosses, type LossOptions } from './losses.ts';
import { tuneOption, useTuning, type TuneMode } from './tuning.ts';
import type { AdapterPreference } from '../gpu/device.ts';
import type { AblationResult } from '../tasks/task.ts';

interface Options extends LossOptions {
  labels: string;
  preset: string;
  steps?: number;
  seeds: number[];
  rows?: string[];
  tasks: AblationTask[];
  families?: string[];
  out?: string;
  set?: string[];
  tune: TuneMode;
  adapter?: AdapterPreference;
  json?: boolean;
}

const DEFAULT_PRESET = 'micro-mel';

function tasks(text: string): AblationTask[] {
  const names = words(text);
  const unknown = names.find((n) => !(ABLATION_TASKS as readonly string[]).includes(n));
  if (unknown !== undefined)
    throw new MGFError('usage', `--tasks takes ${ABLATION_TASKS.join(', ')}, not "${unknown}".`);
  return ABLATION_TASKS.filter((t) => names.includes(t));
}

export function ablateCommand(version: string): Command {
  return new Command('ablate')
    .summary('train with losses left out or of the other kind, and compare what was learned')
    .description(
      'Trains a grid of networks on DATA: all scales, each alone, all but one, and each of the upper ' +
        'three with the other kind of loss. Probes every one on ' +
        'labelled recordings beside random weights and log-mel, and writes a table and a plot. The ' +
        'same command goes on where it was stopped.',
    )
    .argument('<data>', 'recordings to train on, as for pretrain')
    .requiredOption(
      '--labels <folder>',
      'labelled recordings: a folder with phonemes/utterances.tsv, speakers/speakers.tsv and ' +
        'emotion/emotion.tsv',
    )
    .option('--preset <name>', `size of the models: ${PRESET_NAMES.join(', ')}`, DEFAULT_PRESET)
    .addOption(
      new Option('--steps <n>', "optimiser steps of each network (default: the preset's)").argParser(
        positiveInteger,
      ),
    )
    .addOption(
      new Option('--seeds <list>', 'seeds, each a grid of its own')
        .argParser((text) => [...new Set(words(text))].map(seed))
        .default([1, 2, 3], '1,2,3'),
    )
    .addOption(
      new Option(
        '--rows <list>',
        'rows of the grid, such as all,only-frame,swap-phoneme (default: all of them)',
      ).argParser(words),
    )
    .addOption(
      new Option('--tasks <list>', 'what is probed')
        .argParser(tasks)
        .default([...ABLATION_TASKS], ABLATION_TASKS.join(',')),
    )
    .addOption(
      new Option(
        '--families <list>',
        'probe only recordings of these corpora (column family or source, or the folder after audio/)',
      ).argParser(words),
    )
    .addOption(
      new Option(
        '--set <key=value>',
        'set any field of the configuration of every row; may be repeated',
      ).argParser(collect),
    )
    .addOption(lossOption())
    .addOption(attachOption())
    .addOption(weightOption())
    .option('--out <folder>', 'folder of the ablation (default: runs/ablation-PRESET)')
    .addOption(tuneOption())
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf ablate train.tsv --labels labelled/ --steps 2000 --out runs/ablation
  mgf ablate train.tsv --labels labelled/ --preset nano-mel --rows all,swap-frame,swap-phoneme,swap-sentence --seeds 1,2,3,4,5
  mgf ablate train.tsv --labels labelled/ --loss my-loss.ts --attach 2 --rows all,only-my_loss,without-my_loss
  mgf ablate recordings/ --labels labelled/ --rows all,without-sentence --tasks speaker --families so762 --set crop_seconds=3`,
    )
    .action((data: string, options: Options) => runAblate(data, options, version));
}

async function runAblate(data: string, options: Options, version: string): Promise<void> {
  const {
    labels,
    preset,
    seeds,
    tasks: probed,
    families,
    out = join('runs', `ablation-${preset}`),
    steps,
    set = [],
  } = options;
  const plain = applySettings(presetRunConfig(preset), [
    ...set,
    ...(steps === undefined ? [] : [`steps=${steps}`]),
  ]);
  const { run: base, losses } = await withLosses(plain, options);
  const rows = chooseRows(base.mgf, options.rows);
  const manifest = await readManifest(data);
  const stream = options.json ? process.stderr : process.stdout;
  await withGpu(options.adapter, async (gpu) => {
    await useTuning(gpu, options.tune, version);
    const progress = new ProgressReporter(stream);
    const write = (line: string): void => progress.note(line);
    const abort = new AbortController();
    const { labelledScorer } = await import('../tasks/ablation/score.ts');
    const probing = slowly((what: string, done: number, total: number) =>
      write(`   probing ${what}: ${done} of ${total}`),
    );
    const score = await labelledScorer(gpu, labels, {
      tasks: probed,
      families,
      onProgress: (task, stage, done, total) => probing(`${task} ${stage}`, done, total),
    });
    const stop = (): void => {
      if (abort.signal.aborted) process.exit(130);
      abort.abort();
      write('Stopping: the step or the probes under way end first (Ctrl-C again stops at once).');
    };
    process.on('SIGINT', stop).on('SIGTERM', stop);
    try {
      write(`Adapter     ${gpu.profile.name}`);
      write(
        `Grid        ${rows.length} rows, ${seeds.length === 1 ? 'seed' : 'seeds'} ` +
          `${seeds.join(', ')}, ${base.train.steps} steps each, into ${out}`,
      );
      const { result, interrupted } = await runAblation({
        gpu,
        base,
        losses,
        preset,
        items: manifest.items,
        skipped: manifest.skipped,
        data,
        probes: { labels, tasks: probed, families },
        rows,
        seeds,
        out,
        score,
        hooks: reports(write, progress, out),
        signal: abort.signal,
      });
      if (result.rows.length > 0) await writeReports(out, result);
      if (interrupted) {
        write(
          `Stopped with ${result.rows.length} results in ${join(out, 'ablation.json')}. Go on with the ` +
            `same command:\n  ${[programName(), ...process.argv.slice(2).map(shellWord)].join(' ')}`,
        );
        process.exitCode = 130;
      } else {
        write(`\n${textTable(result)}\n`);
        write(`Table: ${join(out, 'ablation.md')}\nPlot:  ${join(out, 'ablation.svg')}`);
      }
      if (options.json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    } finally {
      process.off('SIGINT', stop).off('SIGTERM', stop);
      progress.finish();
    }
  });
}

/** At most every ten seconds. */
function slowly<A extends unknown[]>(say: (...args: A) => void): (...args: A) => void {
  let last = performance.now();
  return (...args) => {
    if (performance.now() - last < 10_000) return;
    last = performance.now();
    say(...args);
  };
}

function reports(write: (line: string) => void, progress: ProgressReporter, out: string): AblationHooks {
  const scanned = slowly((done: number, total: number) =>
    write(`   reading the recordings: ${done} of ${total}`),
  );
  return {
    onCell: ({ name, seed: s, done, total }) => write(`${done + 1} of ${total}: ${name}, seed ${s}`),
    onScan: scanned,
    onProgress: (state) => progress.update(state),
    onScored: (row, { done, total, seconds, secondsLeft }) => {
      const scores = Object.entries(row.scores)
        .map(([task, { value }]) => `${task} ${percent(value)}`)
        .join(', ');
      write(
        `   ${scores}  (${formatDuration(seconds)}; ${done} of ${total} ` +
          `done${done < total ? `, about ${formatDuration(secondsLeft)} left` : ''}; kept in ` +
          `${join(out, 'ablation.json')})`,
      );
    },
    onNote: write,
  };
}

async function writeReports(out: string, result: AblationResult): Promise<void> {
  const { ablationPlot } = await import('../report/plots/differences.ts');
  const text = (s: string): Uint8Array[] => [new TextEncoder().encode(s)];
  const plot = ablationPlot(result);
  await writeFileAtomically(join(out, 'ablation.md'), text(ablationMarkdown(result)));
  if (plot) await writeFileAtomically(join(out, 'ablation.svg'), text(plot));
}

/** Means over seeds, and differences from `all`, for a terminal. */
function textTable(result: AblationResult): string {
  const compared = compareRows(result);
  const scored = ABLATION_TASKS.filter((t) => compared.some((r) => r.scores[t]));
  const points = (x: number | undefined): string =>
    x === undefined ? '' : `${x < 0 ? '-' : '+'}${Math.abs(100 * x).toFixed(1)}`;
  return formatTable(
    ['row', 'seeds', ...scored.flatMap((t) => [t, 'from all'])],
    compared.map((r) => [
      r.name,
      String(r.seeds),
      ...scored.flatMap((t) => [
        r.scores[t] ? percent(r.scores[t].mean) : '',
        points(r.differences[t]?.mean),
      ]),
    ]),
  );
}
