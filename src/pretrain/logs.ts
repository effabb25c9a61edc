import { closeSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { clearLine, cursorTo } from 'node:readline';
import type { Writable } from 'node:stream';
import { checkArguments, checkOptions } from '../check.ts';
import { MGFError } from '../errors.ts';
import { SCALES } from '../mgf/config.ts';

function diskError(error: unknown, path: string): MGFError {
  const { code, message } = error as NodeJS.ErrnoException;
  const full = code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG';
  const what = full
    ? `No space is left to write ${path}; free some and resume from the last checkpoint.`
    : `Cannot write ${path} (${code ?? message}).`;
  return new MGFError('io', what, { cause: error });
}

function guarded<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw diskError(error, path);
  }
}

// ----------------------------------------------------------------------------------------------------- JSONL

/** Any values that JSON has; numbers that it has not (NaN, infinities) are written as text. */
export type LogRecord = { step: number } & Record<string, unknown>;

/**
 * One JSON object a line, appended. With `resumeStep`, lines of later steps and a half-written last line are
 * removed first, so that a resumed run's log reads as if it had never stopped; without, the file starts
 * empty. Errors (`io`): the file cannot be written, the disk is full.
 */
export class JsonlLog {
  readonly path: string;
  #file: number;

  constructor(path: string, options: { resumeStep?: number | undefined } = {}) {
    checkArguments('JsonlLog', { path: [path, 'a text'] });
    checkOptions('JsonlLog', options, { resumeStep: 'a number?' });
    const { resumeStep } = options;
    this.path = path;
    this.#file = guarded(path, () => {
      mkdirSync(dirname(path), { recursive: true });
      const file = openSync(path, resumeStep === undefined ? 'w' : 'a+');
      if (resumeStep !== undefined) ftruncateSync(file, keptBytes(readFileSync(path), resumeStep));
      return file;
    });
  }

  /** Writes a line; numbers that are not finite become text. Error (`io`): the disk does not take it. */
  append(record: LogRecord): void {
    const line = JSON.stringify(record, (_, value: unknown) =>
      typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
    );
    guarded(this.path, () => writeAll(this.#file, Buffer.from(`${line}\n`)));
  }

  /** Has the disk take what was written, and ends the file. */
  close(): void {
    guarded(this.path, () => {
      fsyncSync(this.#file);
      closeSync(this.#file);
    });
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
}

/** Length of the lines, from the start, that are whole and of steps up to `step`. */
function keptBytes(log: Buffer, step: number): number {
  let kept = 0;
  for (let end = log.indexOf(10); end >= 0; end = log.indexOf(10, kept)) {
    try {
      const record = JSON.parse(log.toString('utf8', kept, end)) as LogRecord;
      if (!(record.step <= step)) break;
    } catch {
      break;
    }
    kept = end + 1;
  }
  return kept;
}

/** The records of a log; a half-written last line is left out. Error (`io`): the file cannot be read. */
export function readJsonl(path: string): LogRecord[] {
  checkArguments('readJsonl', { path: [path, 'a text'] });
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new MGFError('io', `Cannot read ${path} (${(error as NodeJS.ErrnoException).code}).`, {
      cause: error,
    });
  }
  return text
    .split('\n')
    .slice(0, -1)
    .flatMap((line) => {
      try {
        return [JSON.parse(line) as LogRecord];
      } catch {
        return [];
      }
    });
}

// ----------------------------------------------------------------------------------------------- TensorBoard
// The one npm package that writes event files is tfjs-node, which brings all of native TensorFlow; scalars
// need only what follows.

const CRC32C = Uint32Array.from({ length: 256 }, (_, byte) => {
  let c = byte;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC32C[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** TFRecord stores a rotated checksum, so that checksums of data which hold checksums stay useful. */
const maskedCrc = (bytes: Uint8Array) => {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
};

/** Protocol buffers: a field is a tag (number << 3 | wire type) and a payload. */
const varint = (value: number): number[] => {
  const out: number[] = [];
  let rest = BigInt(value);
  for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  return [...out, Number(rest)];
};
const varintField = (field: number, value: number) => [field << 3, ...varint(value)];
const bytesField = (field: number, bytes: ArrayLike<number>) => [
  (field << 3) | 2,
  ...varint(bytes.length),
  ...Array.from(bytes),
];
const textField = (field: number, text: string) => bytesField(field, new TextEncoder().encode(text));
const doubleField = (field: number, value: number) => [
  (field << 3) | 1,
  ...new Uint8Array(Float64Array.of(value).buffer),
];
const floatField = (field: number, value: number) => [
  (field << 3) | 5,
  ...new Uint8Array(Float32Array.of(value).buffer),
];

/** One TFRecord: length, its checksum, the data, their checksum. */
function tfRecord(data: readonly number[]): Uint8Array {
  const out = new Uint8Array(data.length + 16);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc(out.subarray(0, 8)), true);
  out.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc(out.subarray(12, 12 + data.length)), true);
  return out;
}

/**
 * Scalars as a TensorBoard event file in `dir` (tensorflow/core/util/event.proto: wall_time 1, step 2,
 * file_version 3, summary 5, session_log 7). A resumed run gets a new file, whose first event tells
 * TensorBoard to drop what older files say about later steps. Errors (`io`) as in `JsonlLog`.
 */
export class TensorBoardWriter {
  readonly path: string;
  #file: number;

  constructor(dir: string, options: { resumeStep?: number | undefined } = {}) {
    checkArguments('TensorBoardWriter', { dir: [dir, 'a text'] });
    checkOptions('TensorBoardWriter', options, { resumeStep: 'a number?' });
    const { resumeStep } = options;
    const now = Date.now();
    // Sorted by name is sorted by time: TensorBoard reads the files in this order.
    const seconds = String(Math.floor(now / 1000)).padStart(10, '0');
    const part = String(now % 1000).padStart(3, '0');
    this.path = join(dir, `events.out.tfevents.${seconds}.${part}.${process.pid}.${hostname()}`);
    this.#file = guarded(this.path, () => {
      mkdirSync(dir, { recursive: true });
      return openSync(this.path, 'a');
    });
    this.#event(now / 1000, 0, textField(3, 'brain.Event:2'));
    // SessionLog.START at the first step that is not kept.
    if (resumeStep !== undefined) this.#event(now / 1000, resumeStep + 1, bytesField(7, varintField(1, 1)));
  }

  #event(wallTime: number, step: number, payload: readonly number[]): void {
    const record = tfRecord([
      ...doubleField(1, wallTime),
      ...(step > 0 ? varintField(2, step) : []),
      ...payload,
    ]);
    guarded(this.path, () => writeAll(this.#file, record));
  }

  /** Values by tag, all of one step; `wallTime` in seconds since 1970. */
  scalars(step: number, values: Readonly<Record<string, number>>, wallTime = Date.now() / 1000): void {
    const summary = Object.entries(values).flatMap(([tag, value]) =>
      bytesField(1, [...textField(1, tag), ...floatField(2, value)]),
    );
    this.#event(wallTime, step, bytesField(5, summary));
  }

  /** Ends the file. */
  close(): void {
    guarded(this.path, () => closeSync(this.#file));
  }
}

// -------------------------------------------------------------------------------------------------- progress

/** Where a run stands after a step. */
export interface ProgressState {
  /** Updates made. */
  step: number;
  /** Updates in all, where the run is counted in steps. */
  steps: number | null;
  /** The part of the run that is over, in [0, 1]. */
  progress: number;
  /** By scale, and by the name of a loss that was brought. */
  losses: Readonly<Record<string, number>>;
  accuracy?: number;
  /** Seconds of audio learned from per second of wall-clock time. */
  audioPerSecond?: number;
  secondsLeft?: number;
}

/** `45 s`, `2:31`, `1:02:31`. */
export function formatDuration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  const two = (n: number) => String(n).padStart(2, '0');
  if (s < 60) return `${s} s`;
  return s < 3600
    ? `${Math.floor(s / 60)}:${two(s % 60)}`
    : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

/**
 * One line of at most `width` columns: step, the four losses (off: `-`) and those that were brought, phoneme
 * accuracy, audio seconds per second, time left. On a narrow terminal the losses' names shrink to one letter
 * (s f p u), then parts are left out from the end of this order: step, losses, time, accuracy, rate.
 */
export function formatProgress(state: ProgressState, width = 120): string {
  const { step, steps, progress, losses, accuracy, audioPerSecond, secondsLeft } = state;
  const value = (x: number | undefined) => (x === undefined ? '-' : x.toFixed(3));
  const count = steps === null ? `step ${step} (${Math.floor(100 * progress)} %)` : `step ${step}/${steps}`;
  const extra = Object.keys(losses).filter((name) => !(SCALES as readonly string[]).includes(name));
  const named = [...SCALES, ...extra].map((s) => `${s} ${value(losses[s])}`).join('  ');
  const short = [
    ...SCALES.map((s) => `${s === 'sentence' ? 'u' : s[0]} ${value(losses[s])}`),
    ...extra.map((s) => `${s} ${value(losses[s])}`),
  ].join(' ');
  const acc = accuracy === undefined ? '' : `acc ${(100 * accuracy).toFixed(1)} %`;
  const rate = audioPerSecond === undefined ? '' : `${audioPerSecond.toFixed(1)} audio s/s`;
  const left =
    secondsLeft === undefined || !Number.isFinite(secondsLeft) ? '' : `${formatDuration(secondsLeft)} left`;
  const line = (...parts: string[]) => parts.filter((p) => p !== '').join('  ');
  const candidates = [
    line(count, named, acc, rate, left),
    line(count, short, acc, rate, left),
    line(count, short, acc, left),
    line(count, short, left),
    line(count, short),
  ];
  return (candidates.find((c) => c.length <= width) ?? count).slice(0, width);
}

/** Progress on a stream: one live line on a terminal, a plain line every `intervalSeconds` elsewhere. */
export class ProgressReporter {
  readonly #stream: Writable & { isTTY?: boolean; columns?: number };
  readonly #interval: number;
  readonly #now: () => number;
  #last = -Infinity;
  #live = false;
  #state: ProgressState | undefined;
  #written: ProgressState | undefined;

  constructor(
    stream: Writable & { isTTY?: boolean; columns?: number },
    options: { intervalSeconds?: number; now?: () => number } = {},
  ) {
    const { intervalSeconds = 10, now = () => performance.now() / 1000 } = options;
    this.#stream = stream;
    this.#interval = intervalSeconds;
    this.#now = now;
  }

  update(state: ProgressState): void {
    this.#state = state;
    if (!this.#stream.isTTY) {
      if (this.#now() - this.#last < this.#interval) return;
      this.#last = this.#now();
      this.#written = state;
      this.#stream.write(`${formatProgress(state)}\n`);
      return;
    }
    this.#erase();
    // One column stays free, or some terminals would wrap the line.
    this.#stream.write(formatProgress(state, (this.#stream.columns ?? 80) - 1));
    this.#live = true;
  }

  /** A line of its own, such as an alarm; the live line goes on below it. */
  note(text: string): void {
    this.#erase();
    this.#stream.write(`${text}\n`);
    if (this.#stream.isTTY && this.#state) this.update(this.#state);
  }

  /** Leaves the last state on the screen. */
  finish(): void {
    if (this.#live) this.#stream.write('\n');
    else if (this.#state && this.#state !== this.#written)
      this.#stream.write(`${formatProgress(this.#state)}\n`);
    this.#live = false;
    this.#state = undefined;
  }

  #erase(): void {
    if (!this.#live) return;
    cursorTo(this.#stream, 0);
    clearLine(this.#stream, 0);
    this.#live = false;
  }
}

/**
 * How far each stage of a job is: a line that is written over on a terminal, elsewhere a line every ten
 * seconds.
 */
export class StageReporter {
  readonly #stream: Writable & { isTTY?: boolean };
  #shown = performance.now();
  #live = false;

  constructor(stream: Writable & { isTTY?: boolean }) {
    this.#stream = stream;
  }

  update(stage: string, done: number, total: number): void {
    const text = `${stage}: ${Math.floor((100 * done) / total)} %`;
    if (this.#stream.isTTY) {
      this.clear();
      this.#stream.write(text);
      this.#live = true;
    } else if (performance.now() - this.#shown > 10_000) {
      this.#shown = performance.now();
      this.#stream.write(`${text}\n`);
    }
  }

  /** Takes the line off the screen. */
  clear(): void {
    if (!this.#live) return;
    cursorTo(this.#stream, 0);
    clearLine(this.#stream, 0);
    this.#live = false;
  }
}
