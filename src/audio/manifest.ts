/**
 * Lists of recordings: a folder, a file, a glob, a table with a header, a fairseq .tsv or a NeMo JSONL
 * manifest (Node, Deno, Bun).
 */
import { readFile } from 'node:fs/promises';
import { realpathSync, statSync } from 'node:fs';
import { dirname, extname, isAbsolute, join, relative, resolve } from 'node:path';
import { parse } from 'csv-parse/sync';
import { glob } from 'tinyglobby';
import { checkArguments, checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { AUDIO_EXTENSIONS, type Channel, type Segment } from './decode.ts';
import { SAMPLE_RATE } from './sampling.ts';

/** One recording, or a segment of one. */
export interface Utterance {
  /** Absolute path of the audio file. */
  path: string;
  /** First second of the segment; the start of the file if absent. */
  offset?: number;
  /** Seconds of the segment; to the end of the file if absent. */
  duration?: number;
  /** The channel that is heard; the mean of all if absent. */
  channel?: Channel;
  /** Length in samples at 16 kHz, where the manifest knows it. */
  samples?: number;
  /**
   * The manifest's `id`, or the path in it without its ending, with `#offset` where there is one. Where two
   * recordings would have the same one, as much of their paths as tells them apart.
   */
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

/** What of its file a recording is. */
export const segmentOf = ({ offset, duration, channel }: Utterance): Segment => ({
  offsetSeconds: offset,
  durationSeconds: duration,
  channel,
});

/** How a list is read. */
export interface ManifestOptions {
  /** The channel of recordings whose row has no column `channel`; the mean of all by default. */
  readonly channel?: Channel | undefined;
  /** Leaves out the lines of a manifest that are broken, instead of refusing the manifest. */
  readonly skipBad?: boolean | undefined;
}
const OPTIONS: Rules<ManifestOptions> = {
  channel: 'a number|"left"|"right"|"mix"?',
  skipBad: 'true or false?',
};

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
 *   in seconds, `duration_samples` (16 kHz), `channel` (from 0, or left, right, mix), `speaker`, `text` or `transcript`, `id` are understood; all columns are kept;
 * - fairseq .tsv: the root folder on the first line, then `path<TAB>samples` (16 kHz);
 * - NeMo JSONL: `audio_filepath`, `offset`, `duration`, `text`, `speaker`.
 *
 * Relative paths are looked for in the manifest's folder, the two folders above it and `audio/` beside it.
 * Rows without a path and files that do not exist are in `skipped`; a file that is found twice, through
 * links, counts once.
 * @throws MGFError 'data', one sentence: nothing there, no audio files, no path column, broken lines (unless
 * `skipBad`), none of the files exists.
 */
export async function readManifest(spec: string, options: ManifestOptions = {}): Promise<Manifest> {
  checkArguments('readManifest', { spec: [spec, 'a text'] });
  checkOptions('readManifest', options, OPTIONS);
  const { channel } = options;
  const { items, skipped } = await read(spec, options);
  const heard = channel === undefined ? items : items.map((item) => ({ channel, ...item }));
  return { items: withUniqueIds(heard), skipped };
}

async function read(spec: string, { skipBad = false }: ManifestOptions): Promise<Manifest> {
  if (spec.includes('\0')) {
    throw new MGFError('data', `${JSON.stringify(spec)} is no path: it contains a NUL character.`);
  }
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
  if (isAudio(path)) {
    const id = withoutEnding(relative(dirname(path), path));
    return { items: [{ path, id, columns: {} }], skipped: [] };
  }
  if (!TABLE_EXTENSIONS.includes(extname(path).toLowerCase())) {
    throw new MGFError(
      'data',
      `"${spec}" is neither an audio file (${ENDINGS}) nor a manifest (${TABLE_EXTENSIONS.join(', ')}).`,
    );
  }
  const content = (await readFile(path, 'utf8')).replace(/^\uFEFF/, '');
  if (content.trim() === '') throw new MGFError('data', `The manifest "${spec}" is empty.`);
  const lines = content.split(/\r?\n/);
  const folders = searchFolders(path);
  if (content.trimStart().startsWith('{')) return located(spec, jsonRows(lines), folders, skipBad);
  if (!lines[0]!.includes('\t') && /^[^\t]+\t\d+\s*$/.test(lines[1] ?? '')) {
    return readFairseq(spec, path, lines);
  }
  return located(spec, tableRows(spec, content, lines[0]!), folders, skipBad);
}

/** Files of a search, each once: a link to a file or a folder that was found already adds nothing. */
function eachOnce(paths: readonly string[]): string[] {
  const found = new Map<string, string>();
  for (const path of [...paths].sort(byName)) {
    const real = realpathSync(path);
    // The file itself rather than a link to it.
    if (!found.has(real) || path === real) found.set(real, path);
  }
  return [...found.values()].sort(byName);
}

async function readFolder(spec: string, folder: string): Promise<Manifest> {
  const found = await glob(`**/*.{${AUDIO_EXTENSIONS.join(',')}}`, {
    cwd: folder,
    caseSensitiveMatch: false,
    expandDirectories: false,
  });
  if (found.length === 0) {
    throw new MGFError(
      'data',
      `No audio files found in "${spec}" or the folders below it; files ending in ${ENDINGS} are looked for.`,
    );
  }
  const items = eachOnce(found.map((name) => join(folder, name))).map((path) => ({
    path,
    id: withoutEnding(relative(folder, path)),
    columns: {},
  }));
  return { items, skipped: [] };
}

async function readGlob(spec: string): Promise<Manifest> {
  const found = await glob(spec.replaceAll('\\', '/'), { absolute: true, expandDirectories: false });
  const paths = eachOnce(found.filter(isAudio).map((path) => resolve(path)));
  if (paths.length === 0) {
    throw new MGFError('data', `No audio files match "${spec}"; files ending in ${ENDINGS} are looked for.`);
  }
  const items = paths.map((path) => ({
    path,
    id: withoutEnding(relative(process.cwd(), path)),
    columns: {},
  }));
  return { items, skipped: [] };
}

/**
 * The same items with ids that differ. Items that share an id are named by their file with its ending, behind
 * as many of its folders as tell them apart; segments of one file by their offset, and at last by a number.
 */
export function withUniqueIds<T extends Utterance>(items: readonly T[]): T[] {
  const ids = new Map<string, T[]>();
  for (const item of items) ids.set(item.id, [...(ids.get(item.id) ?? []), item]);
  if (ids.size === items.length) return [...items];
  const renamed = new Map<T, string>();
  for (const [id, group] of ids) {
    if (group.length === 1) continue;
    const names = tellApart(group);
    group.forEach((item, i) => renamed.set(item, names[i] ?? id));
  }
  return items.map((item) => (renamed.has(item) ? { ...item, id: renamed.get(item)! } : item));
}

function tellApart(group: readonly Utterance[]): string[] {
  const parts = group.map(({ path }) => path.replaceAll('\\', '/').split('/').filter(Boolean));
  const longest = Math.max(...parts.map((p) => p.length));
  const offset = ({ offset: start }: Utterance): string => (start === undefined ? '' : `#${start}`);
  for (let taken = 1; taken <= longest; taken++) {
    const names = parts.map((p, i) => p.slice(-taken).join('/') + offset(group[i]!));
    if (new Set(names).size === names.length) return names;
  }
  return parts.map((p, i) => `${p.join('/')}#${i}`);
}

/** A line of a manifest before its file is looked for. */
interface Row {
  line: number;
  columns: Record<string, string>;
  audio: string;
}

/** The lines of a manifest: those that can be read, and what is wrong with each of the others. */
interface Rows {
  rows: Row[];
  broken: { line: number; problem: string }[];
}

const BROKEN_SHOWN = 10;

/** Finds the files of the rows. Broken lines are left out where that is wanted, and refused where it is not. */
function located(spec: string, { rows, broken }: Rows, folders: string[], skipBad: boolean): Manifest {
  if (broken.length > 0 && !skipBad) {
    const shown = broken.slice(0, BROKEN_SHOWN).map(({ line, problem }) => `line ${line} ${problem}`);
    const more = broken.length - shown.length;
    const list = `${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
    const count = broken.length === 1 ? 'a broken line' : `${broken.length} broken lines`;
    throw new MGFError('data', `"${spec}" has ${count}: ${list}. Mend them, or leave them out (--skip-bad).`);
  }
  const left = broken.map(({ line, problem }) => ({ path: spec, reason: `line ${line} ${problem}` }));
  const { items, skipped } = locate(spec, rows, folders);
  return { items, skipped: [...left, ...skipped] };
}

function delimiterOf(spec: string, header: string): string {
  if (header.includes('\t') || extname(spec).toLowerCase() === '.tsv') return '\t';
  return !header.includes(',') && header.includes(';') ? ';' : ',';
}

function tableRows(spec: string, content: string, header: string): Rows {
  const delimiter = delimiterOf(spec, header);
  const broken: Rows['broken'] = [];
  let records: { record: Record<string, string>; info: { lines: number } }[];
  try {
    records = parse(content, {
      columns: (names: string[]) => names.map((name) => name.trim()),
      delimiter,
      info: true,
      skip_empty_lines: true,
      relax_column_count: true,
      skip_records_with_error: true,
      on_skip: (error) => {
        const line = Number((error as { lines?: number } | undefined)?.lines ?? 0);
        broken.push({ line, problem: `cannot be read (${error?.message ?? 'it is damaged'})` });
        return undefined;
      },
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
  const rows = records.map(({ record, info }) => ({
    line: info.lines,
    columns: record,
    audio: record[column] ?? '',
  }));
  return { rows, broken };
}

function jsonRows(lines: readonly string[]): Rows {
  const rows: Row[] = [];
  const broken: Rows['broken'] = [];
  for (const [i, text] of lines.entries()) {
    if (text.trim() === '') continue;
    const row = jsonRow(text);
    if (typeof row === 'string') broken.push({ line: i + 1, problem: row });
    else rows.push({ line: i + 1, ...row });
  }
  return { rows, broken };
}

/** The row of a line of JSON, or what is wrong with it. */
function jsonRow(text: string): Omit<Row, 'line'> | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `is not valid JSON (${(error as Error).message})`;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'is not a JSON object';
  const columns = Object.fromEntries(
    Object.entries(value)
      .filter(([, v]) => v !== null)
      .map(([k, v]) => [k, typeof v === 'object' ? JSON.stringify(v) : String(v)]),
  );
  const audio = pick(columns, ['audio_filepath', ...PATH_COLUMNS]);
  if (audio !== undefined) return { columns, audio };
  return `has no audio_filepath (or path, audio, file); its keys are ${Object.keys(columns).join(', ')}`;
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

/** The column `channel`: a number from 0, left, right or mix; anything else is some other column. */
function channelOf(columns: Record<string, string>): Channel | undefined {
  const value = pick(columns, ['channel']);
  if (value === 'left' || value === 'right' || value === 'mix') return value;
  return value !== undefined && /^\d+$/.test(value) ? Number(value) : undefined;
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
    if (audio.includes('\0')) {
      skipped.push({ path: spec, reason: `line ${line} names a path with a NUL character` });
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
    const channel = channelOf(columns);
    const speaker = pick(columns, SPEAKER_COLUMNS);
    const text = pick(columns, TEXT_COLUMNS);
    items.push({
      path: resolve(folder, audio),
      id: pick(columns, ['id']) ?? withoutEnding(audio) + (offset === undefined ? '' : `#${offset}`),
      columns,
      ...(offset !== undefined && { offset }),
      ...(duration !== undefined && { duration }),
      ...(channel !== undefined && { channel }),
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
