/**
 * Real recorded speech for the quickstart: the voice prompts of the Asterisk telephone exchange, as packaged
 * by Debian (studio voices, 8 kHz, four languages, with transcripts). Fetched once with `apt-get download`,
 * which needs no root and checks the archive's signatures; unpacked into a cache folder, never installed.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { MGFError } from '../errors.ts';
import { cacheFolder } from './common.ts';

const run = promisify(execFile);

const LANGUAGES = ['en', 'es', 'fr', 'it'] as const;
/** Clips under this many seconds hold a letter or a digit cut too close to be worth a training crop. */
const SHORTEST_SECONDS = 0.5;
/** A cached copy of another layout is fetched again. */
const LAYOUT = 1;
const OWN_DATA = 'pass your own recordings with `--data FOLDER`';

export interface QuickstartSpeech {
  /** Folder that the manifest's paths are relative to. */
  folder: string;
  /** Path of a tab-separated file with the columns path, speaker, transcript, language, licence. */
  manifest: string;
  /** One line a package: what it is, its licence and whose voice it is, as its copyright file says. */
  licences: string[];
  files: number;
  minutes: number;
}

export interface QuickstartSpeechOptions {
  /** Default: `mgf-webgpu/speech` in `$XDG_CACHE_HOME`, or in `~/.cache`. */
  cacheDir?: string;
  /** Called with one short sentence at the start of each stage. */
  onProgress?: (message: string) => void;
}

interface Clip {
  path: string;
  speaker: string;
  transcript: string;
  language: string;
  licence: string;
}
/** What a Debian copyright file says of one language's recordings. */
export interface PackageRights {
  licence: string;
  voice: string;
}

/**
 * Recorded speech in a cache folder, fetched on the first call (about 80 MB) and read from the cache
 * afterwards. Throws `MGFError('data')` where there is no apt-get or no network, naming `--data FOLDER` as
 * the way on.
 */
export async function fetchQuickstartSpeech(
  options: QuickstartSpeechOptions = {},
): Promise<QuickstartSpeech> {
  const folder = options.cacheDir ?? cacheFolder('speech');
  const progress = options.onProgress ?? (() => {});
  const cached = await readCache(folder);
  if (cached) return cached;
  try {
    await mkdir(folder, { recursive: true });
    // Everything is made beside the final place and renamed at the end, so that an interrupted fetch leaves
    // no half a cache.
    const work = await mkdtemp(join(folder, 'fetch-'));
    try {
      await download(work, progress);
      progress('Unpacking the recordings');
      const { clips, licences, seconds } = await unpack(work);
      const summary = { layout: LAYOUT, licences, files: clips.length, minutes: seconds / 60 };
      for (const language of LANGUAGES) {
        await rm(join(folder, language), { recursive: true, force: true });
        await rename(join(work, language), join(folder, language));
      }
      await replaceFile(join(folder, 'speech.tsv'), formatManifest(clips));
      await replaceFile(join(folder, 'speech.json'), `${JSON.stringify(summary, null, 2)}\n`);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  } catch (error) {
    if (error instanceof MGFError) throw error;
    throw explainIo(error, folder);
  }
  const made = await readCache(folder);
  if (!made)
    throw new MGFError(
      'io',
      `The recordings in ${folder} could not be read back; delete that folder and try again, or ${OWN_DATA}.`,
    );
  return made;
}

async function replaceFile(path: string, text: string): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`;
  await writeFile(draft, text);
  await rename(draft, path);
}

async function readCache(folder: string): Promise<QuickstartSpeech | null> {
  const manifest = join(folder, 'speech.tsv');
  let summary: { layout: number; licences: string[]; files: number; minutes: number };
  let rows: string[];
  try {
    summary = JSON.parse(await readFile(join(folder, 'speech.json'), 'utf8'));
    rows = (await readFile(manifest, 'utf8')).trimEnd().split('\n').slice(1);
  } catch {
    return null;
  }
  const whole =
    summary.layout === LAYOUT &&
    rows.length === summary.files &&
    rows.every((row) => existsSync(join(folder, row.split('\t', 1)[0]!)));
  return whole
    ? { folder, manifest, licences: summary.licences, files: summary.files, minutes: summary.minutes }
    : null;
}

/**
 * The .deb files of all languages into `work`: the recordings (-wav) and the package that carries their text.
 */
async function download(work: string, progress: (message: string) => void): Promise<void> {
  const packages = LANGUAGES.flatMap((language) => [
    `asterisk-core-sounds-${language}-wav`,
    `asterisk-core-sounds-${language}`,
  ]);
  progress('Fetching recorded speech from the Debian package archive, once (about 80 MB)');
  // As root apt would hand the download to a user who cannot read a cache under a home folder; the packages
  // are checked either way.
  const common = [
    '-q',
    '-o',
    'APT::Sandbox::User=root',
    '-o',
    'Acquire::http::Timeout=30',
    '-o',
    'Acquire::Retries=1',
    '-o',
    'APT::Update::Error-Mode=any',
  ];
  try {
    await apt([...common, 'download', ...packages], work);
    return;
  } catch (error) {
    if (isMissing(error)) {
      throw new MGFError(
        'data',
        'The quickstart fetches its recorded speech with apt-get (Debian, Ubuntu), which is not on ' +
          `this machine; ${OWN_DATA}.`,
      );
    }
    // Fresh containers carry no package lists and old machines stale ones; private lists need no root and
    // leave the system's alone.
    progress('Reading the package lists');
  }
  const lists = join(work, 'lists');
  await mkdir(join(lists, 'partial'), { recursive: true });
  await mkdir(join(lists, 'archives', 'partial'), { recursive: true });
  const own = [...common, '-o', `Dir::State::lists=${lists}`, '-o', `Dir::Cache=${lists}`];
  // One broken source of several (an expired third-party key) must not stop a download that the others can
  // serve.
  const listsError: unknown = await apt([...own, 'update'], work).then(
    () => null,
    (error: unknown) => error,
  );
  try {
    await apt([...own, 'download', ...packages], work);
  } catch (downloadError) {
    const cause = listsError ?? downloadError;
    throw new MGFError(
      'data',
      `The quickstart's recorded speech could not be fetched with apt-get (${reason(cause)}); go ` +
        `online and try again, or ${OWN_DATA}.`,
      { cause },
    );
  } finally {
    await rm(lists, { recursive: true, force: true });
  }
}

async function apt(args: string[], cwd: string): Promise<void> {
  // The C locale keeps the messages, one of which may end up in ours, in one language.
  await run('apt-get', args, { cwd, env: { ...process.env, LC_ALL: 'C' }, maxBuffer: 1 << 24 });
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

/** The first complaint that a command printed, without its prefix, or its exit message. */
function reason(error: unknown): string {
  const { stderr = '', message } = error as { stderr?: string; message: string };
  const lines = stderr.split('\n').map((line) => line.trim());
  const line =
    lines.find((text) => text.startsWith('E: ')) ?? lines.find((text) => text.length > 0) ?? message;
  return line.replace(/^E: /, '').replace(/\s+/g, ' ').slice(0, 200);
}

function explainIo(error: unknown, folder: string): MGFError {
  const text = `${(error as Error).message} ${(error as { stderr?: string }).stderr ?? ''}`;
  if (/ENOSPC|No space left/.test(text)) {
    return new MGFError(
      'io',
      `The disk is full at ${folder} (the recordings take about 190 MB while unpacking); free some ` +
        `space or ${OWN_DATA}.`,
      { cause: error },
    );
  }
  if (/EACCES|EROFS|EPERM|ENOTDIR|EEXIST/.test(text)) {
    return new MGFError(
      'io',
      `The cache folder ${folder} cannot be written; set XDG_CACHE_HOME to a folder that can, or ${OWN_DATA}.`,
      { cause: error },
    );
  }
  if (isMissing(error))
    return new MGFError(
      'data',
      `The recordings are unpacked with dpkg-deb, which is not on this machine; ${OWN_DATA}.`,
      { cause: error },
    );
  return new MGFError(
    'data',
    `The downloaded recordings could not be unpacked into ${folder} (${reason(error)}); try again or ` +
      `${OWN_DATA}.`,
    { cause: error },
  );
}

async function unpack(work: string): Promise<{ clips: Clip[]; licences: string[]; seconds: number }> {
  const debs = (await readdir(work)).filter((name) => name.endsWith('.deb'));
  const unpackDeb = async (name: string, target: string): Promise<string> => {
    const deb = debs.find((file) => file.startsWith(`${name}_`));
    if (!deb)
      throw new MGFError(
        'data',
        `apt-get reported success but left no ${name} package; try again, or ${OWN_DATA}.`,
      );
    await mkdir(target, { recursive: true });
    await run('dpkg-deb', ['-x', join(work, deb), target]);
    await rm(join(work, deb));
    return deb.split('_')[1]!;
  };
  const clips: Clip[] = [];
  const licences: string[] = [];
  let seconds = 0;
  let soundEffects: Set<string> | null = null;
  for (const language of LANGUAGES) {
    const root = join(work, language);
    const name = `asterisk-core-sounds-${language}`;
    const version = await unpackDeb(`${name}-wav`, root);
    await unpackDeb(name, root);
    const docs = join(root, 'usr', 'share', 'doc');
    const prompts = parsePrompts(await readText(join(docs, name), `core-sounds-${language}.txt`));
    const rights = parseCopyright(await readText(join(docs, `${name}-wav`), 'copyright'), language);
    // English is unpacked first, and a prompt has the same file name in every language.
    soundEffects ??= nonSpeech(prompts);
    licences.push(`${name}-wav ${version}: ${rights.licence}, voice: ${rights.voice}`);
    const sounds = join(root, 'usr', 'share', 'asterisk', 'sounds');
    for (const path of await wavFiles(sounds)) {
      const key = relative(sounds, path)
        .split(sep)
        .slice(1)
        .join('/')
        .replace(/\.wav$/, '');
      const length = await wavSeconds(path);
      if (soundEffects.has(key) || key.startsWith('silence/') || length < SHORTEST_SECONDS) continue;
      seconds += length;
      clips.push({
        path: relative(work, path).split(sep).join('/'),
        speaker: rights.voice,
        language,
        licence: rights.licence,
        transcript: prompts.get(key) ?? prompts.get(key.toLowerCase()) ?? '',
      });
    }
  }
  return { clips, licences, seconds };
}

async function readText(folder: string, name: string): Promise<string> {
  const packed = join(folder, `${name}.gz`);
  return existsSync(packed)
    ? gunzipSync(await readFile(packed)).toString('utf8')
    : readFile(join(folder, name), 'utf8');
}

async function wavFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  // Sorted: the order on disk differs between machines, and a seed must mean the same clips everywhere.
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith('.wav'))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

/** Duration of a RIFF WAVE file from its header, without decoding it; 0 where the header is not one. */
async function wavSeconds(path: string): Promise<number> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const head = Buffer.alloc(Math.min(size, 4096));
    await file.read(head, 0, head.length, 0);
    if (head.toString('latin1', 0, 4) !== 'RIFF' || head.toString('latin1', 8, 12) !== 'WAVE') return 0;
    let bytesPerSecond = 0;
    for (let at = 12; at + 8 <= head.length;) {
      const length = head.readUInt32LE(at + 4);
      const id = head.toString('latin1', at, at + 4);
      if (id === 'fmt ' && at + 20 <= head.length) bytesPerSecond = head.readUInt32LE(at + 16);
      if (id === 'data') return bytesPerSecond > 0 ? Math.min(length, size - at - 8) / bytesPerSecond : 0;
      at += 8 + length + (length & 1);
    }
    return 0;
  } finally {
    await file.close();
  }
}

/**
 * Prompt texts by file name (without extension), from lines `name: text`; lines starting with `;` are
 * comments.
 */
export function parsePrompts(text: string): Map<string, string> {
  const prompts = new Map<string, string>();
  for (const line of text.replace(/^\uFEFF/, '').split(/\r?\n/)) {
    const match = /^([^;:\s][^:]*?)\s*:\s*(.*?)\s*$/.exec(line);
    if (match && match[2] !== '') prompts.set(match[1]!, match[2]!.replace(/\s+/g, ' '));
  }
  return prompts;
}

/**
 * Names of prompts whose whole text stands in brackets: tones, beeps and silence, which the authors describe
 * instead of transcribing.
 */
export function nonSpeech(prompts: Map<string, string>): Set<string> {
  return new Set(
    [...prompts].filter(([, text]) => /^(\[[^\]]*\]|\([^)]*\)|<[^>]*>)$/.test(text)).map(([name]) => name),
  );
}

/**
 * Licence and voice of one language from a machine-readable Debian copyright file (DEP 5): the paragraph
 * `Files: LANGUAGE-*`, else `Files: *`. The voice is the name under "Recorded by:" in the credits, else the
 * copyright holder.
 */
export function parseCopyright(text: string, language: string): PackageRights {
  const paragraphs = text.split(/\n[ \t]*\n/).filter((paragraph) => /^Files:/m.test(paragraph));
  const paragraph =
    paragraphs.find((p) => new RegExp(`^Files:.*\\b${language}-\\*`, 'm').test(p)) ??
    paragraphs.find((p) => /^Files:\s*\*\s*$/m.test(p));
  const licence = paragraph && /^License:\s*(\S+)/m.exec(paragraph)?.[1];
  if (!paragraph || !licence)
    throw new MGFError(
      'data',
      `The copyright file of the ${language} recordings names no licence, so they are not used; ${OWN_DATA}.`,
    );
  const recordedBy = /Recorded by:\s*\n\s*([^(\n]+)/.exec(paragraph)?.[1];
  const holder = /^Copyright:\s*(?:[\d\s,-]*)([^,<\n]+)/m.exec(paragraph)?.[1];
  return { licence: spellLicence(licence), voice: (recordedBy ?? holder ?? language).trim() };
}

/**
 * `CC-BY-SA-3.0`, Debian's short name, as Creative Commons writes it: `CC BY-SA 3.0`. Other names stay as
 * they are.
 */
function spellLicence(short: string): string {
  return short.replace(/^CC-(BY(?:-NC)?(?:-SA|-ND)?)-(\d)/, 'CC $1 $2');
}

function formatManifest(clips: Clip[]): string {
  const columns = ['path', 'speaker', 'transcript', 'language', 'licence'] as const;
  const rows = clips.map((clip) =>
    columns.map((column) => clip[column].replace(/[\t\r\n]+/g, ' ')).join('\t'),
  );
  return `${[columns.join('\t'), ...rows].join('\n')}\n`;
}
