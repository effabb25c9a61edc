/** What the commands share: options, opening the device, tables, errors. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { InvalidArgumentError, Option } from 'commander';
import { MGFError } from '../errors.ts';
import { useDawn } from '../gpu/dawn.ts';
import { openGpu } from '../gpu/device.ts';
import type { AdapterPreference, Gpu, Precision } from '../gpu/device.ts';
import type { Metric } from '../tasks/task.ts';

const ADAPTERS = [
  'gpu',
  'software',
  'lavapipe',
  'swiftshader',
] as const satisfies readonly AdapterPreference[];

/** `--adapter`, the same for every command. */
export const adapterOption = () =>
  new Option(
    '--adapter <name>',
    'insist on one kind of adapter: gpu, software, lavapipe, swiftshader ' +
      '(default: a GPU, else installed software Vulkan, else the embedded SwiftShader)',
  ).choices(ADAPTERS);

/** `--precision`. */
export const precisionOption = () =>
  new Option(
    '--precision <name>',
    'what matrix products multiply: f32, or f16 on a GPU that has it (default: f32)',
  ).choices(['f32', 'f16'] satisfies Precision[]);

export const jsonOption = () =>
  new Option('--json', 'print the answer as JSON on standard output; messages go to standard error');

/** Parsers for commander; what they refuse is a usage error. */
export function positive(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0)
    throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}

export function positiveInteger(text: string): number {
  const value = positive(text);
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('It must be a whole number from 1 up.');
  return value;
}

export function seed(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isInteger(value) || value < 0 || value > 0xffffffff)
    throw new InvalidArgumentError('It must be a whole number from 0 to 4294967295.');
  return value;
}

/** A list with commas. */
export function words(text: string): string[] {
  const found = text
    .split(',')
    .map((word) => word.trim())
    .filter(Boolean);
  if (found.length === 0) throw new InvalidArgumentError('It must be a list with commas, without spaces.');
  return found;
}

/** `--fold`, of the emotion task. */
export function fold(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isInteger(value) || value < 0)
    throw new InvalidArgumentError('It must be the number of a fold.');
  return value;
}

/** Commander collects an option that may be repeated. */
export const collect = (text: string, before: string[] = []): string[] => [...before, text];

/** Runs `action` with a device and closes it, so that the process can exit. */
export async function withGpu<T>(
  adapter: AdapterPreference | undefined,
  action: (gpu: Gpu) => Promise<T>,
): Promise<T> {
  useDawn();
  const gpu = await openGpu(adapter ? { prefer: adapter } : {});
  try {
    return await action(gpu);
  } finally {
    gpu.close();
  }
}

/** This program's part of the user's cache folder. */
export const cacheFolder = (name: string): string =>
  join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'mgf-webgpu', name);

/** Where people read, while a program may read standard output. */
export const say = (line: string): void => {
  process.stderr.write(`${line}\n`);
};
export const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

/** Columns padded to their widest cell; numbers to the right. */
export function formatTable(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((name, c) => Math.max(name.length, ...rows.map((row) => row[c]!.length)));
  const right = columns.map(
    (_, c) => rows.length > 0 && rows.every((row) => /^[-+]?[\d.,]/.test(row[c]!) || row[c] === '-'),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, c) => (right[c] ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!)))
      .join('  ')
      .trimEnd();
  return [line(columns), line(widths.map((w) => '-'.repeat(w))), ...rows.map(line)].join('\n');
}

/** An argument as a shell would want it typed. */
export const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** How this program is called here: `mgf` where it is installed, `node dist/mgf.js` in a checkout. */
export function programName(): string {
  const script = process.argv[1] ?? 'mgf';
  return basename(script) === 'mgf' ? 'mgf' : `node ${shellWord(relative('.', script))}`;
}

/** Of this package, whose description lies beside `dist/` in a checkout and in an installation alike. */
export const programVersion = (): string =>
  (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string })
    .version;

/** What tables call the metrics. */
export const METRIC_NAMES: Readonly<Record<Metric, string>> = {
  accuracy: 'accuracy',
  phone_error_rate: 'phone error rate',
  unweighted_average_recall: 'average recall',
  cer: 'CER',
  wer: 'WER',
  equal_error_rate: 'equal error rate',
};

/** `12.3 %` of a share. */
export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** `1 clip`, `3 clips`. */
export const plural = (n: number, one: string, many = `${one}s`): string =>
  `${n.toLocaleString('en-US')} ${n === 1 ? one : many}`;

/** The first few of what was left out, and how many more there are. */
export function listSkipped(skipped: readonly { path: string; reason: string }[], first = 3): string[] {
  const lines = skipped
    .slice(0, first)
    .map(({ path, reason }) => `  ${reason.includes(path) ? reason : `${path}: ${reason}`}`);
  return skipped.length > first ? [...lines, `  and ${skipped.length - first} more`] : lines;
}

/** One sentence for what the file system refused, in words of its own where the caller has none. */
export function ioError(error: unknown, action: string, path: string): MGFError {
  if (error instanceof MGFError && error.code !== 'io') return error;
  const cause = (error instanceof MGFError ? error.cause : error) as NodeJS.ErrnoException | undefined;
  if (cause?.code === 'ENOSPC' || cause?.code === 'EDQUOT')
    return new MGFError(
      'io',
      `The disk is full: cannot ${action} ${path}; free some space and run the command again.`,
      { cause },
    );
  const why = {
    ENOENT: 'there is no such file or folder',
    EACCES: 'permission denied',
    EISDIR: 'it is a folder',
    ENOTDIR: 'part of the path is not a folder',
  }[cause?.code ?? ''];
  return new MGFError('io', `Cannot ${action} ${path} (${why ?? cause?.code ?? (error as Error).message}).`, {
    cause: error,
  });
}
