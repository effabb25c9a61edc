import { execFileSync } from 'node:child_process';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MGFError } from '../src/errors.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import {
  CheckpointStore,
  checkpointConfig,
  configHash,
  decodeState,
  encodeState,
  loadCheckpoint,
  loadWeights,
  readCheckpointMetadata,
} from '../src/pretrain/checkpoint.ts';
import type { OpenForWriting, TrainingState } from '../src/pretrain/checkpoint.ts';
import { readSafetensors, writeSafetensors } from '../src/io/safetensors.ts';

const folders: string[] = [];
const folder = () => {
  const path = mkdtempSync(join(tmpdir(), 'mgf-checkpoint-'));
  folders.push(path);
  return path;
};
test.after(() => {
  for (const path of folders) rmSync(path, { recursive: true, force: true });
});

async function message(action: () => Promise<unknown>, code: string): Promise<string> {
  try {
    await action();
  } catch (error) {
    assert.instance(error, MGFError, String((error as Error).stack));
    assert.is((error as MGFError).code, code);
    return (error as MGFError).message;
  }
  throw new Error('no error was thrown');
}

const tensors = (value: number, length = 4) =>
  new Map([['encoder.weight', { shape: [length], data: new Float32Array(length).fill(value) }]]);
const save = (store: CheckpointStore, step: number, metric?: number) =>
  store.save({
    step,
    tensors: tensors(step),
    metadata: { step: String(step) },
    ...(metric === undefined ? {} : { metric }),
  });
const value = async (path: string) => (await loadCheckpoint(path)).tensors.get('encoder.weight')!.data[0];

test('the newest checkpoints stay, the best stays beside them, and the run folder stands for the newest', async () => {
  const run = join(folder(), 'new', 'run');
  const store = new CheckpointStore(run, { keepLast: 2 });
  for (const [step, metric] of [
    [10, 3],
    [20, 1],
    [30, 2],
    [1234567, 5],
  ] as const)
    await save(store, step, metric);
  assert.equal(readdirSync(run).sort(), [
    'best.safetensors',
    'checkpoint-000030.safetensors',
    'checkpoint-1234567.safetensors',
  ]);
  assert.equal((await store.latest())!.step, 1234567);
  assert.is(await value(run), 1234567);
  assert.is(await value(join(run, 'best.safetensors')), 20);
  assert.is((await loadCheckpoint(run)).path, join(run, 'checkpoint-1234567.safetensors'));
});

test('a resumed run remembers how good the best was', async () => {
  const run = folder();
  await save(new CheckpointStore(run), 1, 2);
  const resumed = new CheckpointStore(run);
  await save(resumed, 2, 2.5);
  assert.is(await value(join(run, 'best.safetensors')), 1);
  await save(resumed, 3, NaN);
  assert.is(await value(join(run, 'best.safetensors')), 1);
  await save(resumed, 4, 1.5);
  assert.is(await value(join(run, 'best.safetensors')), 4);
});

test('what a killed run left half-written is neither taken for a checkpoint nor kept', async () => {
  const run = folder();
  const store = new CheckpointStore(run);
  await save(store, 5);
  writeFileSync(join(run, '.checkpoint-000006.safetensors.tmp'), 'half');
  assert.is((await store.latest())!.step, 5);
  await save(store, 7);
  assert.equal(readdirSync(run).sort(), ['checkpoint-000005.safetensors', 'checkpoint-000007.safetensors']);
});

const fullAfter =
  (bytes: number): OpenForWriting =>
  async () => {
    let written = 0;
    return {
      write: (async (_: Uint8Array, __: number, length: number) => {
        written += length;
        if (written > bytes)
          throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
        return { bytesWritten: length };
      }) as never,
      sync: async () => {},
      close: async () => {},
    };
  };

test('a full disk is one sentence with what was needed, and the older checkpoint stays', async () => {
  const run = folder();
  await save(new CheckpointStore(run, { keepLast: 1 }), 1, 9);
  const full = new CheckpointStore(run, { keepLast: 1, openFile: fullAfter(1000) });
  const text = await message(
    () => full.save({ step: 2, tensors: tensors(2, 500000), metadata: {}, metric: 1 }),
    'io',
  );
  assert.match(
    text,
    /^No space is left to write .*checkpoint-000002\.safetensors: it needs 2\.0 MB, .* MB are free; free some space and resume, older checkpoints are intact\.$/,
  );
  assert.equal(readdirSync(run).sort(), ['best.safetensors', 'checkpoint-000001.safetensors']);
  assert.is(await value(run), 1);
});

/** A file system of 64 KiB, where this user may mount one. */
function smallDisk(): string | undefined {
  const path = folder();
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', path], { stdio: 'ignore' });
    return path;
  } catch {
    return undefined;
  }
}
const disk = smallDisk();
test(
  'a disk that is really full leaves no temporary ' +
    `file${disk ? '' : ' (SKIPPED: this user cannot mount a small file system)'}`,
  async () => {
    if (!disk) return;
    try {
      const store = new CheckpointStore(disk);
      await store.save({ step: 1, tensors: tensors(1, 2000), metadata: {} });
      assert.match(
        await message(() => store.save({ step: 2, tensors: tensors(2, 100000), metadata: {} }), 'io'),
        /No space is left.*needs 0\.4 MB, 0\.\d MB are free/,
      );
      assert.equal(readdirSync(disk), ['checkpoint-000001.safetensors']);
      assert.is(await value(disk), 1);
    } finally {
      execFileSync('umount', [disk]);
    }
  },
);

test('missing, empty, damaged and foreign files each get one sentence', async () => {
  const run = folder();
  assert.match(
    await message(() => loadCheckpoint(join(run, 'none')), 'io'),
    /There is no checkpoint at .*none \(ENOENT\); give a \.safetensors file or the folder of a run/,
  );
  assert.match(
    await message(() => loadCheckpoint(run), 'checkpoint'),
    /holds no checkpoint-NNNNNN\.safetensors/,
  );
  const path = await save(new CheckpointStore(run), 1);
  assert.is((await readCheckpointMetadata(path))['step'], '1');
  truncateSync(path, statSync(path).size - 1);
  assert.match(
    await message(() => loadCheckpoint(run), 'checkpoint'),
    /is not a sound safetensors file: its tensors need 16 bytes of data, and it has 15/,
  );
  truncateSync(path, 0);
  assert.match(await message(() => loadCheckpoint(run), 'checkpoint'), /it has only 0 bytes/);
  writeFileSync(path, writeSafetensors(tensors(1)));
  const foreign = await loadCheckpoint(path);
  assert.match(
    await message(async () => checkpointConfig(foreign), 'checkpoint'),
    /is not a checkpoint of this program: it has no format in its metadata, where mgf-checkpoint\/1 is needed/,
  );
  assert.is((await loadWeights(path)).parameters.get('encoder.weight')!.data[3], 1);
  const file = join(run, 'file');
  writeFileSync(file, '');
  assert.match(
    await message(() => save(new CheckpointStore(join(file, 'run')), 1), 'io'),
    /Cannot use the folder .* for checkpoints \(ENOTDIR\)/,
  );
});

function state(): TrainingState {
  const maps = [0, 1, 2].map(
    (k) =>
      new Map([
        [
          'encoder.layers.0.weight',
          { shape: [2, 3], data: Float32Array.from({ length: 6 }, (_, i) => Math.fround(Math.sin(i + k))) },
        ],
        ['masked_spec_embed', { shape: [3], data: Float32Array.of(1e-40, -0, k) }],
      ]),
  );
  return {
    step: 120,
    config: presetRunConfig('micro-mel', { train: { seed: 42 } }),
    parameters: maps[0]!,
    expAvg: maps[1]!,
    expAvgSq: maps[2]!,
    samplerPosition: 960,
    audioSeconds: 1843.2,
    elapsedSeconds: 33.5,
  };
}

test('a training state comes back bit for bit, and its weights carry plain names', async () => {
  const run = folder();
  const store = new CheckpointStore(run);
  const before = state();
  const path = await store.save(encodeState(before));
  const { metadata, tensors: stored } = readSafetensors(readFileSync(path), { origin: path });
  assert.equal(
    [...stored.keys()].sort(),
    ['encoder.layers.0.weight', 'masked_spec_embed']
      .flatMap((n) => [n, `optimizer.exp_avg.${n}`, `optimizer.exp_avg_sq.${n}`])
      .sort(),
  );
  assert.is(metadata['format'], 'mgf-checkpoint/1');
  assert.is(metadata['seed'], '42');
  assert.is(metadata['config_hash'], configHash(before.config.mgf));
  const after = decodeState(await loadCheckpoint(run));
  for (const part of ['parameters', 'expAvg', 'expAvgSq'] as const) {
    assert.is(after[part].size, 2);
    for (const [name, { shape, data }] of before[part]) {
      assert.equal(after[part].get(name)!.shape, shape);
      assert.equal(
        new Uint32Array(after[part].get(name)!.data.buffer.slice(0)),
        new Uint32Array(data.buffer.slice(0)),
        `${part} ${name}`,
      );
    }
  }
  const scalars = ({ step, config, samplerPosition, audioSeconds, elapsedSeconds }: TrainingState) => ({
    step,
    config,
    samplerPosition,
    audioSeconds,
    elapsedSeconds,
  });
  assert.equal(scalars(after), scalars(before));
  assert.equal([...(await loadWeights(run)).parameters.keys()].sort(), [
    'encoder.layers.0.weight',
    'masked_spec_embed',
  ]);
});

test('a checkpoint that lacks moments or whose metadata are damaged cannot be resumed', async () => {
  const run = folder();
  const store = new CheckpointStore(run);
  const without = state();
  without.expAvgSq.delete('masked_spec_embed');
  await store.save(encodeState(without));
  assert.match(
    await message(async () => decodeState(await loadCheckpoint(run)), 'checkpoint'),
    /moments of masked_spec_embed are missing/,
  );
  for (const [key, text, wanted] of [
    ['step', 'x', /no sound step/],
    ['config', '{"a"', /no sound config/],
    ['elapsed_seconds', '-1', /no sound elapsed_seconds/],
    ['format', 'mgf-checkpoint/9', /has the format "mgf-checkpoint\/9"/],
  ] as const) {
    const encoded = encodeState(state());
    await store.save({ ...encoded, step: encoded.step + 1, metadata: { ...encoded.metadata, [key]: text } });
    assert.match(await message(async () => decodeState(await loadCheckpoint(run)), 'checkpoint'), wanted);
  }
  const encoded = encodeState(state());
  await store.save({
    ...encoded,
    step: 200,
    metadata: { ...encoded.metadata, config: '{"hidden_sise": 3}' },
  });
  assert.match(
    await message(async () => decodeState(await loadCheckpoint(run)), 'config'),
    /\(its configuration\): unknown key "hidden_sise"; the nearest known key is "hidden_size"/,
  );
});

test('the hash of a configuration does not depend on the order of its fields', () => {
  assert.is(configHash({ a: 1, b: { c: [1, 2], d: 2 } }), configHash({ b: { d: 2, c: [1, 2] }, a: 1 }));
  assert.is.not(configHash({ a: 1, b: [1, 2] }), configHash({ a: 1, b: [2, 1] }));
});

test.run();
