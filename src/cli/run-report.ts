/** What a run's folder gives for the HTML report: configuration, log, newest checkpoint, `run.json`. */
import { readFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { MGFError } from '../errors.ts';
import { elements } from '../graph/shape.ts';
import { parseRunConfig } from '../mgf/presets.ts';
import { activeScales } from '../mgf/pretraining.ts';
import { mgfParameters } from '../mgf/weights.ts';
import { renderReport } from '../report/report.ts';
import {
  checkpointConfig,
  CheckpointStore,
  readCheckpointMetadata,
  writeFileAtomically,
} from '../pretrain/checkpoint.ts';
import { chanceRivals } from '../mgf/rivals.ts';
import { readJsonl } from '../pretrain/logs.ts';
import { ioError, plural } from './common.ts';
import { currentCommand, readRunRecord, recordOutcome } from './run-record.ts';
import type { RunConfig } from '../mgf/config.ts';
import type { CurvePoint, Health, Recording, ReportData } from '../report/report.ts';
import type { LogRecord } from '../pretrain/logs.ts';
import type { PretrainResult } from '../pretrain/options.ts';
import type { Rivals } from '../mgf/rivals.ts';
import type { RunRecord } from './run-record.ts';

/** A run as its folder tells of it. */
export interface RunFolder {
  dir: string;
  config: RunConfig;
  log: LogRecord[];
  /** The newest checkpoint; a run that has only begun has none. */
  checkpoint: { path: string; step: number; metadata: Record<string, string> } | undefined;
  record: RunRecord | undefined;
}

/**
 * Reads what a run has written so far. Throws MGFError 'usage' for a folder that holds no run, and what its
 * files' readers throw.
 */
export async function readRunFolder(dir: string): Promise<RunFolder> {
  const missing = ['config.json', 'log.jsonl'].filter((name) => !existsSync(join(dir, name)));
  if (missing.length > 0) {
    throw new MGFError(
      'usage',
      `${dir} is not the folder of a run (no ${missing.join(' and no ')}); give a folder that \`mgf ` +
        `pretrain\` or \`mgf quickstart\` wrote.`,
    );
  }
  const newest = await new CheckpointStore(dir).latest();
  const metadata = newest && (await readCheckpointMetadata(newest.path));
  const path = join(dir, 'config.json');
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw ioError(error, 'read the configuration', path);
  });
  return {
    dir,
    config: metadata
      ? checkpointConfig({ path: newest.path, metadata })
      : parseRunConfig(text, { origin: path, preset: 'nano' }),
    log: readJsonl(join(dir, 'log.jsonl')),
    checkpoint: newest && { ...newest, metadata: metadata! },
    record: readRunRecord(dir),
  };
}

const number = (x: unknown): number => (typeof x === 'number' ? x : NaN);

function curveOf(log: readonly LogRecord[], extra: readonly string[]): CurvePoint[] {
  return log
    .filter((r) => 'total' in r)
    .map((r) => ({
      step: r.step,
      total: number(r['total']),
      sample: number(r['sample']),
      frame: number(r['frame']),
      phoneme: number(r['phoneme']),
      sentence: number(r['sentence']),
      accuracy: number(r['accuracy']),
      gradNorm: number(r['grad_norm']),
      lr: number(r['learning_rate']),
      audioSecondsPerSecond: number(r['audio_per_second']),
      lossScale: number(r['loss_scale']),
      extra: Object.fromEntries(extra.map((name) => [name, number(r[name])])),
    }));
}

function healthOf({ config: { mgf }, log, checkpoint }: RunFolder): Health {
  const loop = JSON.parse(checkpoint?.metadata['loop'] ?? '{}') as { skippedSteps?: number };
  const logged = log.findLast((r) => 'skipped_steps' in r)?.['skipped_steps'];
  return {
    ranks: log
      .filter((r) => 'rank_z' in r)
      .map((r) => ({ step: r.step, z: number(r['rank_z']), context: number(r['rank_context']) })),
    zWidth: mgf.conv_dim.at(-1)!,
    contextWidth: mgf.hidden_size,
    skippedSteps: typeof logged === 'number' ? logged : loop.skippedSteps,
    alarms: log.flatMap((r) =>
      'alarm' in r ? [{ step: r.step, message: String(r['message']), kind: String(r['alarm']) }] : [],
    ),
  };
}

function configurationOf({ mgf, train }: RunConfig): ReportData['configuration'] {
  const flat = (value: unknown, name: string): Array<{ name: string; value: string }> =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.entries(value).flatMap(([key, inner]) => flat(inner, name ? `${name}.${key}` : key))
      : [{ name, value: JSON.stringify(value) }];
  return [
    { title: 'Configuration of the network', fields: flat(mgf, '') },
    { title: 'Configuration of the training', fields: flat(train, '') },
  ];
}

function factsOf({ config: { mgf, train }, checkpoint, record }: RunFolder): ReportData['facts'] {
  const last = record?.sittings.at(-1);
  const micro = train.accumulation > 1 ? `${train.accumulation} x ` : '';
  const facts: ReportData['facts'] = [];
  const add = (name: string, value: string | undefined) => {
    if (value) facts.push({ name, value });
  };
  add('Front end', mgf.frontend === 'conv' ? 'raw waveform (conv)' : 'log-mel (mel)');
  add(
    'Batch',
    `${micro}${2 * train.utterances_per_batch} crops of ${train.crop_seconds} s, two of each recording`,
  );
  add('Seed', String(train.seed));
  if (last) {
    const speakers = last.speakers > 0 ? `, ${plural(last.speakers, 'speaker')}` : '';
    const near = last.data && relative('.', last.data);
    const source = near && !near.startsWith('..') ? near : last.data;
    add(
      'Data',
      `${source ? `${source}: ` : ''}${plural(last.clips, 'clip')}, ${last.minutes.toFixed(1)} ` +
        `minutes${speakers}${last.skipped > 0 ? `; ${plural(last.skipped, 'clip')} left out` : ''}`,
    );
    add(
      'Sittings',
      record!.sittings.length > 1
        ? record!.sittings.map((s) => `from step ${s.step} on ${s.date.slice(0, 10)}`).join('; ')
        : undefined,
    );
    add('Version', `mgf-webgpu ${last.version}, ${last.runtime}`);
  }
  add('Checkpoint', checkpoint && basename(checkpoint.path));
  return facts;
}

/** What the run stored; one from before that has chance alone, which follows from its configuration. */
function rivalsOf({ config: { mgf, train }, log }: RunFolder): Rivals {
  const stored = log.findLast((r) => 'rivals' in r)?.['rivals'] as Rivals | undefined;
  return stored ?? chanceRivals(mgf, train.utterances_per_batch);
}

/** The step at which the warm-up ends; with a budget in minutes the first that was logged after it. */
function warmupOf({ config: { train }, log }: RunFolder): number {
  if (train.minutes === null) return Math.round(train.warmup * train.steps);
  return (
    log.find((r) => number(r['elapsed_seconds']) >= 60 * train.minutes! * train.warmup)?.step ?? Infinity
  );
}

/** What checkpoints, log and `run.json` say: a report without pictures of recordings. */
export function reportOf(folder: RunFolder): ReportData {
  const { config, log, checkpoint, record } = folder;
  const { mgf } = config;
  const scales = activeScales(mgf);
  const curve = curveOf(log, Object.keys(mgf.extra_losses));
  const last = record?.sittings.at(-1);
  const end = log.findLast((r) => 'elapsed_seconds' in r);
  const loop = JSON.parse(checkpoint?.metadata['loop'] ?? '{}') as { name?: string };
  const preset = last?.preset ?? loop.name ?? 'custom network';
  // A run that goes on has logged more than its newest checkpoint holds.
  const steps = Math.max(checkpoint?.step ?? 0, end?.step ?? 0);
  const fromLog = end !== undefined && steps > (checkpoint?.step ?? 0);
  return {
    title: record?.title ?? `MGF ${preset}`,
    run: {
      command: last?.command ?? '',
      preset,
      parameters: mgfParameters(mgf, scales)
        .flatMap((p) => p.parts)
        .reduce((sum, p) => sum + elements(p.shape), 0),
      steps,
      audioSeconds: fromLog
        ? number(end['audio_seconds'])
        : Number(checkpoint?.metadata['audio_seconds'] ?? 0),
      seconds: fromLog
        ? number(end['elapsed_seconds'])
        : Number(checkpoint?.metadata['elapsed_seconds'] ?? 0),
      adapter: last?.adapter ?? '',
      date: (last?.date ?? new Date().toISOString()).slice(0, 10),
    },
    facts: factsOf(folder),
    configuration: configurationOf(config),
    curve,
    objectives: mgf.objectives,
    health: healthOf(folder),
    rivals: rivalsOf(folder),
    warmupSteps: warmupOf(folder),
    probes: [],
    recordings: [],
    audio: true,
    licences: record?.licences ?? [],
    table: record?.table,
    next: [],
  };
}

/** The first crop of the last batch beside what the model makes of it. */
function recordingOf(
  { frames, utterances, logMel, logMelTarget, wave, waveTarget }: NonNullable<PretrainResult['example']>,
  { mgf }: RunConfig,
): Recording {
  // A frame's 2 * n_mels values are its two log-mel frames one after the other.
  const values = 2 * mgf.n_mels * frames;
  const samples = 320 * frames;
  return {
    label: utterances[0]!,
    sampleRate: mgf.sample_rate,
    frames: 2 * frames,
    hopSeconds: 0.01,
    target: logMelTarget.subarray(0, values),
    wave: waveTarget.subarray(0, samples),
    ...(logMel.length > 0 && { reconstruction: logMel.subarray(0, values) }),
    ...(wave.length > 0 && { waveReconstruction: wave.subarray(0, samples) }),
  };
}

/** Writes the page. Errors as in `writeFileAtomically`. */
export async function writeReport(path: string, data: ReportData): Promise<number> {
  const html = new TextEncoder().encode(renderReport(data));
  await writeFileAtomically(path, [html]);
  return html.length;
}

export interface RunReport {
  runDir: string;
  title: string;
  preset: string;
  adapter: string;
  run: RunConfig;
  result: PretrainResult;
  similarity?: ReportData['similarity'];
  table?: ReportData['table'];
  licences?: string[];
  next: string[];
}

/**
 * At the end of a run: writes `report.html` into its folder and returns its path. Errors as in
 * `writeFileAtomically`.
 */
export async function writeRunReport({
  runDir,
  title,
  preset,
  adapter,
  run,
  result,
  similarity,
  table,
  licences = [],
  next,
}: RunReport): Promise<string> {
  await recordOutcome(runDir, { title, licences, ...(table && { table }) });
  const data = reportOf(await readRunFolder(runDir));
  const path = join(runDir, 'report.html');
  await writeReport(path, {
    ...data,
    title,
    similarity,
    table,
    licences,
    next,
    run: { ...data.run, command: currentCommand(), preset, adapter },
    ...(result.example && { recordings: [recordingOf(result.example, run)] }),
  });
  return path;
}
