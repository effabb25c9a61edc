import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MGFError } from '../src/errors.ts';
import {
  crc32c,
  formatDuration,
  formatProgress,
  JsonlLog,
  ProgressReporter,
  readJsonl,
  TensorBoardWriter,
} from '../src/pretrain/logs.ts';

const folder = mkdtempSync(join(tmpdir(), 'mgf-logs-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

function error(action: () => unknown): MGFError {
  try {
    action();
  } catch (caught) {
    assert.instance(caught, MGFError);
    return caught as MGFError;
  }
  throw new Error('no error was thrown');
}

test('a resumed log drops later steps and a half-written line, and goes on', () => {
  const path = join(folder, 'run', 'log.jsonl');
  const log = new JsonlLog(path);
  for (let step = 10; step <= 50; step += 10) log.append({ step, losses: { frame: step / 7 } });
  log.close();
  appendFileSync(path, '{"step": 60, "los');
  const resumed = new JsonlLog(path, { resumeStep: 30 });
  resumed.append({ step: 40, again: true });
  resumed.close();
  assert.equal(
    readJsonl(path).map((r) => r.step),
    [10, 20, 30, 40],
  );
  assert.equal(readJsonl(path)[1], { step: 20, losses: { frame: 20 / 7 } });
  assert.is(readJsonl(path)[3]!['again'], true);
});

test('a log that is resumed at its end keeps every whole line and loses only the half one', () => {
  const path = join(folder, 'end.jsonl');
  writeFileSync(path, '{"step":1}\n{"step":2}\n{"step":3');
  const log = new JsonlLog(path, { resumeStep: 9 });
  log.append({ step: 3 });
  log.close();
  assert.is(readFileSync(path, 'utf8'), '{"step":1}\n{"step":2}\n{"step":3}\n');
});

test('a new log starts empty; numbers that JSON has not become text', () => {
  const path = join(folder, 'new.jsonl');
  writeFileSync(path, '{"step":1}\n');
  const log = new JsonlLog(path);
  log.append({ step: 1, gradNorm: NaN, losses: { frame: Infinity } });
  log.close();
  assert.is(readFileSync(path, 'utf8'), '{"step":1,"gradNorm":"NaN","losses":{"frame":"Infinity"}}\n');
});

test('a log that cannot be written says so in one sentence', () => {
  writeFileSync(join(folder, 'file'), '');
  const caught = error(() => new JsonlLog(join(folder, 'file', 'log.jsonl')));
  assert.is(caught.code, 'io');
  assert.match(caught.message, /^Cannot write .*log\.jsonl \((ENOTDIR|EEXIST)\)\.$/);
  assert.is(error(() => readJsonl(join(folder, 'none.jsonl'))).code, 'io');
  if (process.platform === 'linux') {
    const full = new JsonlLog('/dev/full');
    assert.match(
      error(() => full.append({ step: 1 })).message,
      /^No space is left to write \/dev\/full; free some and resume/,
    );
  }
});

test('checksums are CRC-32C', () => {
  const text = (s: string) => new TextEncoder().encode(s);
  assert.is(crc32c(text('123456789')), 0xe3069283);
  assert.is(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.is(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
  assert.is(crc32c(text('')), 0);
});

/** The records of an event file, each with its fields: wire types 0, 1, 2, 5. */
function events(path: string) {
  const bytes = readFileSync(path);
  const out: Map<number, unknown>[] = [];
  const mask = (b: Buffer) => {
    const c = crc32c(b);
    return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
  };
  for (let at = 0; at < bytes.length;) {
    const length = Number(bytes.readBigUInt64LE(at));
    assert.is(bytes.readUInt32LE(at + 8), mask(bytes.subarray(at, at + 8)));
    assert.is(bytes.readUInt32LE(at + 12 + length), mask(bytes.subarray(at + 12, at + 12 + length)));
    out.push(fields(bytes.subarray(at + 12, at + 12 + length)));
    at += length + 16;
  }
  return out;
}
function fields(bytes: Buffer): Map<number, unknown> {
  const out = new Map<number, unknown>();
  let at = 0;
  const varint = () => {
    let value = 0n;
    let shift = 0n;
    let b;
    do {
      b = bytes[at++]!;
      value |= BigInt(b & 127) << shift;
      shift += 7n;
    } while (b & 128);
    return Number(value);
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = tag >> 3;
    const wire = tag & 7;
    if (wire === 0) out.set(field, varint());
    else if (wire === 1) {
      out.set(field, bytes.readDoubleLE(at));
      at += 8;
    } else if (wire === 5) {
      out.set(field, bytes.readFloatLE(at));
      at += 4;
    } else {
      const n = varint();
      const list = (out.get(field) as Buffer[] | undefined) ?? [];
      out.set(field, [...list, bytes.subarray(at, at + n)]);
      at += n;
    }
  }
  return out;
}

test('an event file holds a version, then scalars by tag with step and time', () => {
  const dir = join(folder, 'tensorboard');
  const writer = new TensorBoardWriter(dir);
  writer.scalars(300, { 'loss/frame': 0.5, 'loss/phoneme': NaN }, 1234.5);
  writer.scalars(2 ** 33, { rate: -1 });
  writer.close();
  assert.equal(readdirSync(dir).filter((f) => /^events\.out\.tfevents\.\d{10}\./.test(f)).length, 1);
  // The bytes that open every event file of TensorFlow: a first record of 24 bytes and the checksum of that
  // length.
  assert.is(readFileSync(writer.path).subarray(0, 13).toString('hex'), '1800000000000000a37f4b2209');
  const [version, first, second] = events(writer.path);
  assert.is(String((version!.get(3) as Buffer[])[0]), 'brain.Event:2');
  assert.equal([first!.get(1), first!.get(2)], [1234.5, 300]);
  const values = (fields((first!.get(5) as Buffer[])[0]!).get(1) as Buffer[]).map(fields);
  assert.equal(
    values.map((v) => [String((v.get(1) as Buffer[])[0]), v.get(2)]),
    [
      ['loss/frame', 0.5],
      ['loss/phoneme', NaN],
    ],
  );
  assert.is(second!.get(2), 2 ** 33);
});

test('a resumed run tells TensorBoard to drop later steps', () => {
  const writer = new TensorBoardWriter(join(folder, 'resumed'), { resumeStep: 120 });
  writer.close();
  const start = events(writer.path)[1]!;
  assert.is(start.get(2), 121);
  assert.is(fields((start.get(7) as Buffer[])[0]!).get(1), 1);
});

const state = {
  step: 120,
  steps: 300,
  progress: 0.4,
  losses: { sample: 0.5123, frame: 0.6, phoneme: 4.41, sentence: 1.2 },
  accuracy: 0.031,
  audioPerSecond: 12.44,
  secondsLeft: 151,
};

test('the progress line holds the four losses, accuracy, audio seconds per second and time left', () => {
  assert.is(
    formatProgress(state),
    'step 120/300  sample 0.512  frame 0.600  phoneme 4.410  sentence 1.200  acc 3.1 %  12.4 audio ' +
      's/s  2:31 left',
  );
  assert.is(
    formatProgress({ step: 7, steps: null, progress: 0.256, losses: { frame: 0.6 }, secondsLeft: 3725 }),
    'step 7 (25 %)  sample -  frame 0.600  phoneme -  sentence -  1:02:05 left',
  );
});

test('the progress line fits every width', () => {
  for (let width = 1; width < 130; width++) assert.ok(formatProgress(state, width).length <= width);
  assert.is(formatProgress(state, 80), 'step 120/300  s 0.512 f 0.600 p 4.410 u 1.200  acc 3.1 %  2:31 left');
  assert.is(formatProgress(state, 60), 'step 120/300  s 0.512 f 0.600 p 4.410 u 1.200  2:31 left');
  assert.is(formatProgress(state, 20), 'step 120/300');
});

test('durations read as seconds, minutes or hours', () => {
  assert.equal([0.4, 45, 151, 3599.6, 36000].map(formatDuration), [
    '0 s',
    '45 s',
    '2:31',
    '1:00:00',
    '10:00:00',
  ]);
});

/** A stream that remembers; a terminal if `columns` is given. */
function stream(columns?: number) {
  const out = Object.assign(new PassThrough(), columns === undefined ? {} : { isTTY: true, columns });
  return { out, text: () => String((out.read() as Buffer | null) ?? '') };
}

test('off a terminal, progress is a plain line at intervals and the last state at the end', () => {
  const { out, text } = stream();
  let now = 0;
  const progress = new ProgressReporter(out, { intervalSeconds: 10, now: () => now });
  for (; now < 25; now++) progress.update({ ...state, step: now });
  progress.note('ALARM');
  progress.finish();
  assert.equal(
    text()
      .trimEnd()
      .split('\n')
      .map((l) => l.split('/')[0]),
    ['step 0', 'step 10', 'step 20', 'ALARM', 'step 24'],
  );
  now = 100;
  progress.update({ ...state, step: now });
  progress.finish();
  assert.is(text().split('\n').length, 2);
});

test('on a terminal, progress is one line that is rewritten, with notes above it', () => {
  const { out, text } = stream(81);
  const progress = new ProgressReporter(out);
  progress.update(state);
  progress.update({ ...state, step: 121 });
  assert.is(
    text(),
    `${formatProgress(state, 80)}\u001b[1G\u001b[2K${formatProgress({ ...state, step: 121 }, 80)}`,
  );
  progress.note('ALARM');
  assert.is(text(), `\u001b[1G\u001b[2KALARM\n${formatProgress({ ...state, step: 121 }, 80)}`);
  progress.finish();
  assert.is(text(), '\n');
});

test.run();
