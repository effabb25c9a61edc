/** `mgf pretrain --resume RUN`: the configuration and the recordings of a run that goes on. */
import { readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { listOptions } from './recordings.ts';
import { readManifest } from '../audio/manifest.ts';
import { MGFError } from '../errors.ts';
import { applySettings, overrideRunConfig } from '../mgf/parse-config.ts';
import { assertSameConfig } from '../mgf/config-difference.ts';
import { parseRunFields, presetRunConfig } from '../mgf/presets.ts';
import { assertResumable } from '../pretrain/run-files.ts';
import { ioError, programName, shellWord } from './common.ts';
import { readRunRecord } from './run-record.ts';
import type { Manifest, ManifestOptions } from '../audio/manifest.ts';
import type { RunConfig } from '../mgf/config.ts';
import type { ResumePoint } from '../pretrain/options.ts';

/** What a command names as data, and the recordings in it. */
export interface Recordings {
  data: string;
  /** How it was read. */
  list: ManifestOptions;
  manifest: Manifest;
}

/** The text of a configuration file. Throws MGFError 'io' where it cannot be read. */
export async function readConfig(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw ioError(error, 'read the configuration', path);
  }
}

/** The folder that a run which is resumed from here writes to. */
export async function folderOf(path: string): Promise<string> {
  return (await stat(path)).isDirectory() ? path : dirname(path);
}

/**
 * A resumed run keeps its configuration. What else is asked for (`--preset`, `--config`, then `settings`)
 * must agree with it, or be a setting that may change. Throws MGFError 'checkpoint' for what does not agree,
 * with both values, and 'usage' where nothing is left to do.
 */
export async function resumedRun(
  resume: ResumePoint,
  options: { preset?: string; config?: string },
  settings: readonly string[],
): Promise<{ preset: string; run: RunConfig }> {
  const { state, path, loop } = resume;
  const { config: file } = options;
  const { preset: named, fields } =
    file === undefined ? { fields: {} } : parseRunFields(await readConfig(file), file);
  const configured = overrideRunConfig(state.config, fields, { origin: file ?? '--config' });
  const run = applySettings(configured, settings);
  assertResumable(resume, run);
  if (options.preset !== undefined) assertPreset(resume, options.preset, '--preset');
  if (named !== undefined) assertPreset(resume, named, file!);
  const { minutes, steps } = run.train;
  if (minutes === null && state.step >= steps) {
    const message =
      `${path} has already made all of its ${steps} steps; ask for more in all ` + 'with `--steps`.';
    throw new MGFError('usage', message);
  }
  if (minutes !== null && state.elapsedSeconds >= 60 * minutes) {
    const message =
      `${path} has already used all of its ${minutes} minutes; ask for more in all ` + 'with `--minutes`.';
    throw new MGFError('usage', message);
  }
  return { preset: loop?.name ?? 'of another program', run };
}

/**
 * The run's own preset will do, whatever was set on top of it, and so will one of another name that describes
 * the same network. Throws MGFError 'checkpoint' for any other, with both presets and the first fields that
 * differ.
 */
function assertPreset({ state: { config }, loop, path }: ResumePoint, preset: string, source: string): void {
  if (preset === loop?.name) return;
  try {
    assertSameConfig(config.mgf, presetRunConfig(preset).mgf, { origin: path });
  } catch (error) {
    if (!(error instanceof MGFError) || error.code !== 'checkpoint' || loop?.name === undefined) throw error;
    const message = `The run is one of ${loop.name}, and ${source} names ${preset}: ${error.message}`;
    throw new MGFError('checkpoint', message, { cause: error });
  }
}

/**
 * What is named as data, or what the run that goes on learned from. Throws MGFError 'usage' where there is
 * neither.
 */
export async function recordingsOf(
  data: string | undefined,
  resume: string | undefined,
  options: ManifestOptions,
): Promise<Recordings> {
  const list = listOptions(options);
  if (data !== undefined) return { data, list, manifest: await readManifest(data, list) };
  if (resume !== undefined) return recordedRecordings(resume, list);
  const message = "missing required argument 'data': name recordings, or a run to go on with (--resume).";
  throw new MGFError('usage', message);
}

/**
 * As the last sitting recorded them. Throws MGFError 'usage' where it did not, 'data' where they are no
 * longer there.
 */
async function recordedRecordings(resume: string, given: ManifestOptions): Promise<Recordings> {
  const folder = await folderOf(resume);
  const last = readRunRecord(folder)?.sittings.at(-1);
  const data = last?.data;
  const list = { ...listOptions({ channel: last?.channel, skipBad: last?.skip_bad }), ...given };
  const again = `${programName()} pretrain DATA --resume ${shellWord(resume)}`;
  if (data === undefined) {
    const message =
      `${folder} has no record of the recordings that the run learned from; name them: ` + `${again}.`;
    throw new MGFError('usage', message);
  }
  try {
    return { data, list, manifest: await readManifest(data, list) };
  } catch (error) {
    if (!(error instanceof MGFError) || error.code !== 'data') throw error;
    const why = error.message.replace(/\.$/, '');
    const message =
      `The run in ${folder} learned from ${data}, which cannot be read any more (${why}); ` +
      `name its recordings: ${again}.`;
    throw new MGFError('data', message, { cause: error });
  }
}
