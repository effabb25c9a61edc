/**
 * Lists of recordings: a folder, a file, a glob, a table with a header, a fairseq .tsv or a NeMo JSONL
 * manifest (Node, Deno, Bun).
 */
import { readFile } from 'node:fs/promises';
import { statSync } from 'node:fs';
import { dirname, extname, isAbsolute, join, relative, resolve } from 'node:path';
import { parse } from 'csv-parse/sync';
import { glob } from 'tinyglobby';
import { checkArguments } from '../check.ts';
import { MGFError } from '../errors.ts';
import { AUDIO_EXTENSIONS } from './decode.ts';
import { SAMPLE_RATE } from './sampling.ts';

/** One recording, or a segment of one. */
export interface Utterance {
  /** Absolute path of the audio file. */
  path: string;
  /** First second of the segment; the start of the file if absent. */
  offset?: number;
  /** Seconds of the segment; to the end of the file if absent. */
  duration?: number;
  /** Length in samples at 16 kHz, where the manifest knows it. */
  samples?: number;
  /** The manifest's `id`, or the path in it without its ending, with `#offset` where there is one. */
  id: string;
  speaker?: string;
  text?: string;
  /** Every column of the manifest's row, as text. */
  columns: Record<string, string>;
}

/** A recording that was left out, and why. */
export interface Skipped {
  path: string;
  reason: string;
}

/** What `readManifest` found. */
export interface Manifest {
  items: Utterance[];
  skipped: Skipped[];
}

const PATH_COLUMNS = ['path', 'audio', 'file', 'audio_filepath', 'audio_path', 'filename', 'wav'];
const TEXT_COLUMNS = ['text', 'transcript', 'transcription', 'sentence'];
const SPEAKER_COLUMNS = ['speaker', 'speaker_id', 'spk'];
const TABLE_EXTENSIONS = ['.tsv', '.csv', '.jsonl', '.json', '.ndjson', '.manifest', '.txt'];
const ENDINGS = AUDIO_EXTENSIONS.map((e) => `.${e}`).join(', ');

function kind(path: string): 'file' | 'folder' | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats?.isDirectory() ? 'folder' : stats?.isFile() ? 'file' : undefined;
}

const withoutEnding = (path: string) =>
  path.slice(0, path.length - extname(path).length).replaceAll('\\', '/');
/** By code unit, so that the order is the same on every machine. */
const byName = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
const isAudio = (path: string) =>
  (AUDIO_EXTENSIONS as readonly string[]).includes(extname(path).slice(1).toLowerCase());

/**
 * Reads what the user names as data:
 * - a folder: every audio file below it, in order of name;
 * - an audio file, or a glob (`*`, `?`, `[]`, `{}`, `**`);
 * - TSV or CSV with a header: a `path`, `audio`, `file` or `audio_filepath` column; `offset` and `duration`
 *   in seconds, `duration_samples`
 *   (16 kHz), `speaker`, `text` or `transcript`, `id` are understood; all columns are kept;
 * - fairseq .tsv: the root folder on the first line, then `path<TAB>samples` (16 kHz);
 * - NeMo JSONL: `audio_filepath`, `offset`, `duration`, `text`, `speaker`.
 *
 * Relative paths are looked for in the manifest's folder, the two folders above it and `audio/` beside it.
 * Rows without a path and files that do not exist are in `skipped`.
 * @throws MGFError 'data', one sentence: nothing there, no audio files, no path column, a broken line, none
 * of the files exists.
 */
export async function readManifest(spec: string): Promise<Manifest> {
  checkArguments('readManifest', { spec: [spec, 'a text'] });
  const path = resolve(spec);
  const what = kind(path);
  if (what === 'folder') return readFolder(spec, path);
  if (what === undefined) {
    if (/[*?[\]{}]/.test(spec)) return readGlob(spec);
    throw new MGFError(
      'data',
      `There is no file or folder "${spec}"; give a folder of audio files, a manifest (TSV, CSV, ` +
        'JSONL), an audio file or a glob.',
    );
  }
  if (isAudio(path))
    return { items: [{ path, id: withoutEnding(relative(dirname(path), path)), columns: {} }], skipped: [] };
  if (!TABLE_EXTENSIONS.includes(extname(path).toLowerCase())) {
    throw new MGFError(
      'data',
      `"${spec}" is neither an audio file (${ENDINGS}) nor a manifest (${TABLE_EXTENSIONS.join(', ')}).`,
    );
  }
  const content = (await readFile(path, 'utf8')).replace(/^\uFEFF/, '');
  if (content.trim() === '') throw new MGFError('data', `The manifest "${spec}" is empty.`);
  const lines = content.split(/\r?\n/);
  if (content.trimStart().startsWith('{')) return locate(spec, jsonRows(spec, lines), searchFolders(path));
  if (!lines[0]!.includes('\t') && /^[^\t]+\t\d+\s*$/.test(lines[1] ?? ''))
    return readFairseq(spec, path, lines);
  return locate(spec, tableRows(spec, content, lines[0]!), searchFolders(path));
}

async function readFolder(spec: string, folder: string): Promise<Manifest> {
  const found = await glob(`**/*.{${AUDIO_EXTENSIONS.join(',')}}`, {
    cwd: folder,
    caseSensitiveMatch: false,
    expandDirectories: false,
  });
  if (found.length === 0)
    throw new MGFError(
      'data',
      `No audio files found in "${spec}" or the folders below it; files ending in ${ENDINGS} are looked for.`,
    );
  return {
    items: found
      .sort(byName)
      .map((name) => ({ path: join(folder, name), id: withoutEnding(name), columns: {} })),
    skipped: [],
  };
}

async function readGlob(spec: string): Promise<Manifest> {
  const found = (await glob(spec.replaceAll('\\', '/'), { absolute: true, expandDirectories: false }))
    .filter(isAudio)
    .sort(byName);
  if (found.length === 0)
    throw new MGFError('data', `No audio files match "${spec}"; files ending in ${ENDINGS} are looked for.`);
  return {
    items: found.map((path) => ({
      path: resolve(path),
      id: withoutEnding(relative(process.cwd(), path)),
      columns: {},
    })),
    skipped: [],
  };
}

/** A line of a manifest before its file is looked for. */
interface Row {
  line: number;
  columns: Record<string, string>;
  audio: string;
}

function tableRows(spec: string, content: string, header: string): Row[] {
  const delimiter =
    header.includes('\t') || extname(spec).toLowerCase() === '.tsv'
      ? '\t'
      : header.includes(',')
        ? ','
        : header.includes(';')
          ? ';'
          : ',';
  let records: { record: Record<string, string>; info: { lines: number } }[];
  try {
    records = parse(content, {
      columns: (names: string[]) => names.map((name) => name.trim()),
      delimiter,
      info: true,
      skip_empty_lines: true,
      relax_column_count: true,
      // tabs need no quoting, and transcripts do contain quotation marks
      quote: delimiter === '\t' ? null : '"',
    }) as unknown as typeof records;
  } catch (error) {
    throw new MGFError('data', `Cannot read the manifest "${spec}": ${(error as Error).message}.`, {
      cause: error,
    });
  }
  const names = header.split(delimiter).map((name) => name.trim().replace(/^"(.*)"$/, '$1'));
  const column = PATH_COLUMNS.map((wanted) => names.find((name) => name.toLowerCase() === wanted)).find(
    (name) => name !== undefined,
  );
  if (column === undefined) {
    throw new MGFError(
      'data',
      `The manifest "${spec}" has no column with audio paths (${PATH_COLUMNS.slice(0, 4).join(', ')}); ` +
        `its columns are ${names.join(', ')}.`,
    );
  }
  return records.map(({ record, info }) => ({
    line: info.lines,
    columns: record,
    audio: record[column] ?? '',
  }));
}

function jsonRows(spec: string, lines: string[]): Row[] {
  return lines.flatMap((text, i) => {
    if (text.trim() === '') return [];
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new MGFError(
        'data',
        `Line ${i + 1} of "${spec}" is not valid JSON (${(error as Error).message}).`,
        { cause: error },
      );
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new MGFError('data', `Line ${i + 1} of "${spec}" is not a JSON object.`);
    const columns = Object.fromEntries(
      Object.entries(value)
        .filter(([, v]) => v !== null)
        .map(([k, v]) => [k, typeof v === 'object' ? JSON.stringify(v) : String(v)]),
    );
    const audio = pick(columns, ['audio_filepath', ...PATH_COLUMNS]);
    if (audio === undefined) {
      throw new MGFError(
        'data',
        `Line ${i + 1} of "${spec}" has no audio_filepath (or path, audio, file); its keys are ` +
          `${Object.keys(columns).join(', ')}.`,
      );
    }
    return [{ line: i + 1, columns, audio }];
  });
}

function readFairseq(spec: string, path: string, lines: string[]): Manifest {
  const root = lines[0]!.trim();
  const rows = lines.slice(1).flatMap((text, i): Row[] => {
    if (text.trim() === '') return [];
    const [audio = '', samples = ''] = text.split('\t');
    return [{ line: i + 2, columns: { path: audio, duration_samples: samples.trim() }, audio }];
  });
  const folders = searchFolders(path);
  return locate(spec, rows, [
    ...(isAbsolute(root) ? [root] : folders.map((folder) => join(folder, root))),
    ...folders,
  ]);
}

function searchFolders(manifest: string): string[] {
  const here = dirname(manifest);
  return [...new Set([here, dirname(here), dirname(dirname(here)), join(here, 'audio')])];
}

function pick(columns: Record<string, string>, names: readonly string[]): string | undefined {
  for (const name of names) {
    const value =
      columns[name] ?? columns[Object.keys(columns).find((key) => key.toLowerCase() === name) ?? ''];
    if (value !== undefined && value !== '') return value;
  }
  return undefined;
}

/** A number of a row; undefined if absent, NaN if it is no number. */
function numeric(columns: Record<string, string>, name: string): number | undefined {
  const value = pick(columns, [name]);
  return value === undefined ? undefined : Number(value);
}

/**
 * Finds the rows' files. The folder of the first hit is tried first for the others, so that one manifest
 * means one root wherever possible.
 */
function locate(spec: string, rows: Row[], folders: string[]): Manifest {
  const items: Utterance[] = [];
  const skipped: Skipped[] = [];
  let preferred: string[] = [];
  for (const { line, columns, audio } of rows) {
    if (audio === '') {
      skipped.push({ path: spec, reason: `line ${line} names no audio file` });
      continue;
    }
    const candidates = isAbsolute(audio) ? [''] : [...preferred, ...folders];
    const folder = candidates.find((root) => kind(join(root, audio)) === 'file');
    if (folder === undefined) {
      skipped.push({ path: audio, reason: 'no such file' });
      continue;
    }
    if (preferred.length === 0 && folder !== '') preferred = [folder];
    const [offset, duration, samples] = ['offset', 'duration', 'duration_samples'].map((name) =>
      numeric(columns, name),
    );
    if (!((offset ?? 0) >= 0) || !((duration ?? 1) > 0) || !((samples ?? 1) > 0)) {
      skipped.push({ path: audio, reason: `line ${line} has an impossible offset or duration` });
      continue;
    }
    const known = samples ?? (duration !== undefined ? Math.round(duration * SAMPLE_RATE) : undefined);
    const speaker = pick(columns, SPEAKER_COLUMNS);
    const text = pick(columns, TEXT_COLUMNS);
    items.push({
      path: resolve(folder, audio),
      id: pick(columns, ['id']) ?? withoutEnding(audio) + (offset === undefined ? '' : `#${offset}`),
      columns,
      ...(offset !== undefined && { offset }),
      ...(duration !== undefined && { duration }),
      ...(known !== undefined && { samples: known }),
      ...(speaker !== undefined && { speaker }),
      ...(text !== undefined && { text }),
    });
  }
  if (items.length === 0) {
    const first = rows.find((row) => row.audio !== '')?.audio;
    const why =
      first === undefined
        ? 'names no audio file'
        : skipped.every(({ reason }) => reason === 'no such file')
          ? `lists ${rows.length} files, none of which exists; "${first}" was looked for in ` +
            `${folders.join(', ')}`
          : `has no usable line: ${skipped[0]!.path}: ${skipped[0]!.reason}`;
    throw new MGFError('data', `The manifest "${spec}" ${why}.`);
  }
  return { items, skipped };
}
