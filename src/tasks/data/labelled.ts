/**
 * Labelled recordings of the downstream tasks, from a folder of manifests or one manifest (Node, Deno, Bun).
 */
import { Purpose } from '../../random/purposes.ts';
import { readFile } from 'node:fs/promises';
import { existsSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { readManifest, type ManifestOptions, type Skipped, type Utterance } from '../../audio/manifest.ts';
import { permutation, stream } from '../../random/stream.ts';
import { SAMPLE_RATE } from '../../audio/sampling.ts';
import { checkArguments, checkFields, checkOptions, type Rules } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import type { Phone, Split, TaskData, TaskItem, TaskName } from '../task.ts';

/** Which recordings of a manifest `readTask` takes, and how it splits them. */
export interface TaskDataOptions extends ManifestOptions {
  /** Draws the development split. Default 0. */
  readonly seed?: number | undefined;
  /**
   * Only recordings of these corpora: the `family` or `source` column, or the folder after `audio/` in the
   * path.
   */
  readonly families?: readonly string[] | undefined;
  /** emotion: the test split is this fold (column `fold`), whatever the split column says. */
  readonly fold?: number | undefined;
  /**
   * Share of each corpus's training recordings that becomes the development split, where the manifest has
   * none. Default 0.15.
   */
  readonly devShare?: number | undefined;
  /** phoneme: the table of phones. Default: `alignments.tsv` beside the manifest. */
  readonly alignments?: string | undefined;
  /** Told of rows that are left out. */
  readonly onSkipped?: ((skipped: readonly Skipped[]) => void) | undefined;
}

/** Where a data folder keeps each task's manifest. */
export const MANIFESTS: Readonly<Record<TaskName, string>> = {
  phoneme: 'phonemes/utterances.tsv',
  speaker: 'speakers/speakers.tsv',
  asr: 'asr/asr.tsv',
  emotion: 'emotion/emotion.tsv',
};

/** The phone that stands for no speech. */
export const SILENCE = 'SIL';

const SPLITS: Readonly<Record<string, Split>> = {
  train: 'train',
  training: 'train',
  dev: 'dev',
  valid: 'dev',
  validation: 'dev',
  test: 'test',
};
const TASKS = Object.keys(MANIFESTS)
  .map((name) => JSON.stringify(name))
  .join('|');
const OPTIONS: Rules<TaskDataOptions> = {
  seed: 'a number?',
  families: 'a list?',
  fold: 'a number?',
  devShare: 'a number?',
  alignments: 'a text?',
  onSkipped: 'a function?',
  channel: 'a number|"left"|"right"|"mix"?',
  skipBad: 'true or false?',
};

/** A row of the manifest while its labels are still names. */
interface Row {
  readonly utterance: Utterance;
  readonly split: Split;
  readonly speaker: string;
  readonly family: string;
}
interface NamedPhone {
  readonly start: number;
  readonly end: number;
  readonly phone: string;
}

/**
 * Reads a task's recordings, labels and splits. `spec` is a folder with the task's manifest (`MANIFESTS`), or
 * a TSV, CSV or JSONL manifest with a path column, `split` (train, test, perhaps dev) and what the task
 * needs:
 * - phoneme: `speaker`, and a table of phones (columns file, start_sample, end_sample, phone) at 16 kHz;
 *   `alignment` (hand or forced) if known;
 * - speaker: `speaker`, each with recordings in both splits;
 * - asr: `text_normalised`, or `text` or `transcript`, which is reduced to A-Z, apostrophe and space;
 * - emotion: `emotion` and `speaker`, perhaps `fold`.
 *
 * Without dev rows a part of the training rows becomes the development split, by the seed: whole speakers for
 * phoneme, asr and emotion, recordings of each speaker for speaker. A corpus with one training speaker stays
 * in training. No test speaker of phoneme and emotion is in another split. Classes are sorted; phones of any
 * split are classes, speakers and emotions those of training.
 * @throws MGFError 'data': no manifest, a column missing, a split empty, a speaker in two splits, a test
 * label that training lacks.
 */
export async function readTask(
  task: TaskName,
  spec: string,
  options: TaskDataOptions = {},
): Promise<TaskData> {
  checkArguments('readTask', { task: [task, TASKS], spec: [spec, 'a text'] });
  checkOptions('readTask', options, OPTIONS);
  const path = manifestOf(task, spec);
  const { items, skipped } = await readManifest(path, {
    channel: options.channel,
    skipBad: options.skipBad,
  });
  const left: Skipped[] = [...skipped];
  const families = options.families;
  let rows = items
    .map((utterance): Row => ({
      utterance,
      split: splitOf(task, path, utterance, options.fold),
      speaker: speakerOf(task, path, utterance),
      family: familyOf(utterance),
    }))
    .filter(
      ({ utterance, family }) =>
        !families || families.includes(family) || families.includes(utterance.columns['source'] ?? ''),
    );
  if (rows.length === 0) {
    throw new MGFError(
      'data',
      `No recording of "${path}" is of ${families!.join(' or ')}; it has ` +
        `${[...new Set(items.map(familyOf))].sort().join(', ')}.`,
    );
  }
  const keep = (wanted: (row: Row) => boolean, reason: string): void => {
    left.push(
      ...rows.filter((row) => !wanted(row)).map(({ utterance }) => ({ path: utterance.path, reason })),
    );
    rows = rows.filter(wanted);
  };
  const phones =
    task === 'phoneme'
      ? await readPhones(options.alignments ?? join(dirname(path), 'alignments.tsv'))
      : new Map<string, NamedPhone[]>();
  const phonesOf = ({ utterance }: Row): NamedPhone[] => phones.get(nameIn(utterance.columns)) ?? [];
  if (task === 'phoneme') keep((row) => phonesOf(row).length > 0, 'no phones in the table of alignments');
  if (task === 'asr') keep(({ utterance }) => transcriptOf(utterance) !== '', 'no transcript');
  if (task === 'emotion') keep(({ utterance }) => Boolean(utterance.columns['emotion']), 'no emotion');
  if (left.length > 0) options.onSkipped?.(left);

  for (const split of ['train', 'test'] as const) {
    if (!rows.some((row) => row.split === split))
      throw new MGFError(
        'data',
        `"${path}" has no recordings for the ${split} ` +
          `split${options.fold === undefined ? '' : ` of fold ${options.fold}`}.`,
      );
  }
  if (task === 'phoneme' || task === 'emotion') requireDisjoint(path, rows);
  rows = withDev(task, rows, options.seed ?? 0, options.devShare ?? 0.15);

  const classes = classesOf(task, path, rows, phonesOf);
  const index = new Map(classes.map((name, i) => [name, i]));
  const known = new Set(
    rows.filter((row) => row.split !== 'test').map(({ utterance }) => transcriptOf(utterance)),
  );
  return {
    task,
    classes,
    items: rows.map((row) => {
      const { utterance, split, speaker, family } = row;
      const transcript = task === 'asr' ? transcriptOf(utterance) : '';
      const label =
        task === 'speaker'
          ? index.get(speaker)!
          : task === 'emotion'
            ? index.get(utterance.columns['emotion']!)!
            : -1;
      const part = task !== 'asr' || split !== 'test' ? family : known.has(transcript) ? SEEN_TEXT : NEW_TEXT;
      return {
        ...utterance,
        split,
        speaker,
        label,
        transcript,
        part,
        phones: segment(utterance, phonesOf(row), index),
      };
    }),
  };
}

export const NEW_TEXT = 'new text';
export const SEEN_TEXT = 'text also in train';

/**
 * The parts of the test split that an item counts in: its corpus, and for asr whether its text was seen in
 * training as well.
 */
export function partsOf(item: TaskItem): string[] {
  return [...new Set([item.part, familyOf(item)])].filter((part) => part !== '');
}

/**
 * Speakers of the test split who are heard in training too: everyone for the closed-set speaker task, some
 * where a corpus's official split is by recording.
 */
export function sharedSpeakers(data: TaskData): string[] {
  checkFields('sharedSpeakers', 'data.', data, { items: 'a list' });
  const heard = new Set(data.items.filter((item) => item.split !== 'test').map((item) => item.speaker));
  return [
    ...new Set(
      data.items
        .filter((item) => item.split === 'test' && heard.has(item.speaker))
        .map((item) => item.speaker),
    ),
  ].sort();
}

/**
 * Class of each encoder frame, [frames]: the phone at its centre, sample 320 t + 200; -1 where no phone is.
 */
export function frameLabels(phones: readonly Phone[], frames: number): Int32Array<ArrayBuffer> {
  checkArguments('frameLabels', { phones: [phones, 'a list'], frames: [frames, 'a number'] });
  const labels = new Int32Array(frames).fill(-1);
  let at = 0;
  for (let t = 0; t < frames; t++) {
    const centre = 320 * t + 200;
    while (at < phones.length && phones[at]!.end <= centre) at++;
    if (at < phones.length && phones[at]!.start <= centre) labels[t] = phones[at]!.label;
  }
  return labels;
}

/** Upper case, A-Z, apostrophe and single spaces. */
export function normaliseTranscript(text: string): string {
  return text
    .normalize('NFD')
    .toUpperCase()
    .replaceAll('’', "'")
    .replace(/\p{M}/gu, '')
    .replace(/[^A-Z']+/g, ' ')
    .trim();
}

const transcriptOf = ({ columns, text }: Utterance): string =>
  normaliseTranscript(columns['text_normalised'] || text || '');

function manifestOf(task: TaskName, spec: string): string {
  if (!statSync(spec, { throwIfNoEntry: false })?.isDirectory()) return spec;
  const found = [MANIFESTS[task], basename(MANIFESTS[task])]
    .map((name) => join(spec, name))
    .find((path) => existsSync(path));
  if (!found)
    throw new MGFError(
      'data',
      `The folder "${spec}" has no ${MANIFESTS[task]}, which the ${task} task reads; give a manifest ` +
        'with its labels instead.',
    );
  return found;
}

/** The path as the manifest has it: tables of phones name recordings the same way. */
const nameIn = (columns: Readonly<Record<string, string>>): string =>
  columns['path'] ?? columns['file'] ?? columns['audio'] ?? columns['audio_filepath'] ?? '';

function familyOf({ columns }: Utterance): string {
  return (
    columns['family'] ??
    /(?:^|[/\\])audio[/\\]([^/\\]+)[/\\]/.exec(nameIn(columns))?.[1] ??
    columns['source'] ??
    ''
  );
}

function splitOf(task: TaskName, path: string, { columns, id }: Utterance, fold: number | undefined): Split {
  if (task === 'emotion' && fold !== undefined) {
    if (columns['fold'] === undefined)
      throw new MGFError('data', `"${path}" has no column fold, which the test fold is chosen by.`);
    return Number(columns['fold']) === fold ? 'test' : 'train';
  }
  if (columns['split'] === undefined)
    throw new MGFError(
      'data',
      `"${path}" has no column split, which says train or test; its columns are ` +
        `${Object.keys(columns).join(', ')}.`,
    );
  const split = SPLITS[columns['split'].toLowerCase()];
  if (!split)
    throw new MGFError(
      'data',
      `"${path}": ${id} is of the split "${columns['split']}"; it must be train, dev or test.`,
    );
  return split;
}

function speakerOf(task: TaskName, path: string, { speaker, id }: Utterance): string {
  if (speaker !== undefined) return speaker;
  if (task === 'asr') return id;
  throw new MGFError(
    'data',
    `"${path}": ${id} has no speaker, which the ${task} task needs; add a column speaker.`,
  );
}

async function readPhones(path: string): Promise<Map<string, NamedPhone[]>> {
  const content = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new MGFError(
      'data',
      `There is no table of phones "${path}" (columns file, start_sample, end_sample, phone), which ` +
        'the phoneme task reads.',
      { cause },
    );
  });
  const tabs = content.slice(0, content.indexOf('\n')).includes('\t');
  const phones = new Map<string, NamedPhone[]>();
  const records = parse(content, {
    columns: true,
    delimiter: tabs ? '\t' : ',',
    quote: tabs ? null : '"',
    skip_empty_lines: true,
    bom: true,
  }) as Record<string, string>[];
  records.forEach((columns, i) => {
    const file = nameIn(columns);
    const start = Number(columns['start_sample']);
    const end = Number(columns['end_sample']);
    const phone = columns['phone'] ?? '';
    if (file === '' || phone === '' || !(start >= 0) || !(end > start)) {
      throw new MGFError(
        'data',
        `Row ${i + 1} of "${path}" is no phone: it needs file, start_sample, end_sample (after it) and phone.`,
      );
    }
    const list = phones.get(file);
    if (list) list.push({ start, end, phone });
    else phones.set(file, [{ start, end, phone }]);
  });
  for (const list of phones.values()) list.sort((a, b) => a.start - b.start);
  return phones;
}

/** Phones of the utterance's stretch of its file, counted from its first sample. */
function segment(
  { offset = 0, duration }: Utterance,
  phones: readonly NamedPhone[],
  index: ReadonlyMap<string, number>,
): Phone[] {
  const first = Math.round(offset * SAMPLE_RATE);
  const length = duration === undefined ? Infinity : Math.round(duration * SAMPLE_RATE);
  return phones
    .map(({ start, end, phone }) => ({
      start: Math.max(0, start - first),
      end: Math.min(length, end - first),
      label: index.get(phone)!,
    }))
    .filter(({ start, end }) => end > start);
}

function requireDisjoint(path: string, rows: readonly Row[]): void {
  const tested = new Set(rows.filter((row) => row.split === 'test').map((row) => row.speaker));
  const shared = rows.find((row) => row.split !== 'test' && tested.has(row.speaker));
  if (shared)
    throw new MGFError(
      'data',
      `"${path}": the speaker ${shared.speaker} is in the ${shared.split} and the test split; scores ` +
        'would tell how well voices are remembered.',
    );
}

/** The rows with a development split cut out of training, unless the manifest has one. */
function withDev(task: TaskName, rows: readonly Row[], seed: number, share: number): Row[] {
  if (!(share > 0 && share < 1))
    throw new MGFError('usage', `the share of the development split must lie between 0 and 1, not ${share}`);
  if (rows.some((row) => row.split === 'dev')) return [...rows];
  const random = stream(seed, Purpose.DevSplit);
  const dev = new Set<Row>();
  const train = rows.filter((row) => row.split === 'train');
  const byFamily = groups(train, (row) => row.family);
  if (task === 'speaker') {
    for (const own of groups(train, (row) => row.speaker).values()) {
      const count = own.length < 2 ? 0 : Math.max(1, Math.round(share * own.length));
      for (const i of permutation(own.length, random, count)) dev.add(own[i]!);
    }
  } else {
    for (const family of byFamily.values()) {
      const speakers = [...groups(family, (row) => row.speaker).values()];
      const order = permutation(speakers.length, random);
      let count = 0;
      for (const i of order.subarray(0, speakers.length - 1)) {
        if (count >= share * family.length) break;
        for (const row of speakers[i]!) dev.add(row);
        count += speakers[i]!.length;
      }
    }
  }
  if (dev.size === 0)
    throw new MGFError(
      'data',
      `the training split of the ${task} task is too small to cut a development split from: it needs ` +
        `two ${task === 'speaker' ? 'recordings a speaker' : 'speakers'}`,
    );
  return rows.map((row) => (dev.has(row) ? { ...row, split: 'dev' } : row));
}

/** In order of name, so that the draw does not hang on the order of the manifest's rows. */
function groups(rows: readonly Row[], key: (row: Row) => string): Map<string, Row[]> {
  const found = new Map<string, Row[]>();
  for (const row of rows) found.set(key(row), [...(found.get(key(row)) ?? []), row]);
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function classesOf(
  task: TaskName,
  path: string,
  rows: readonly Row[],
  phonesOf: (row: Row) => readonly NamedPhone[],
): string[] {
  const names = (of: readonly Row[]): Set<string> =>
    new Set(
      of.flatMap((row) => {
        if (task === 'phoneme') return phonesOf(row).map(({ phone }) => phone);
        return task === 'asr'
          ? [...transcriptOf(row.utterance)]
          : [task === 'speaker' ? row.speaker : row.utterance.columns['emotion']!];
      }),
    );
  const known = names(task === 'phoneme' ? rows : rows.filter((row) => row.split !== 'test'));
  if (task === 'speaker' || task === 'emotion') {
    const strange = [...names(rows.filter((row) => row.split === 'test'))].find((name) => !known.has(name));
    if (strange !== undefined)
      throw new MGFError(
        'data',
        `"${path}": the test split has the ${task} ${strange}, of which there is no training recording.`,
      );
  }
  return [...known].sort();
}
