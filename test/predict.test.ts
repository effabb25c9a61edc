import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadEncoderWeights } from '../src/cli/weights.ts';
import { presetConfig } from '../src/mgf/presets.ts';
import { initialValues, mgfParameters } from '../src/mgf/weights.ts';
import type { HostTensor } from '../src/plan/parameters.ts';
import { headParameters, type HeadSpec } from '../src/tasks/probe/head.ts';
import { loadTaskModel, saveTaskModel } from '../src/tasks/finetune/model.ts';
import { NGram } from '../src/tasks/decode/ngram.ts';
import { decodeTranscript } from '../src/tasks/decode/decode.ts';
import { classProbabilities, decodePhones, TaskNetwork } from '../src/tasks/finetune/predict.ts';
import type { ProbeResult, TaskName } from '../src/tasks/task.ts';
import { safetensorsParts } from '../src/io/safetensors.ts';
import { messageOf, wav } from './audio-wav.ts';
import { openTestGpu, testAdapter } from './gpu.ts';
import { Corpus } from './tasks-corpus.ts';
import { spoken } from './tones.ts';

const gpu = await openTestGpu();
const folder = mkdtempSync(join(tmpdir(), 'mgf-predict-'));
const at = (name: string): string => join(folder, name);
test.after(() => rmSync(folder, { recursive: true, force: true }));

const config = presetConfig('nano-mel');
const encoder = initialValues(mgfParameters(config, []), 1);
const classes = ['A', 'B', 'C'];
const specOf = (task: TaskName, changes: Partial<HeadSpec> = {}): HeadSpec => ({
  task,
  classes: task === 'asr' ? 4 : 3,
  layer: 1,
  layers: 2,
  dim: config.hidden_size,
  head: 'linear',
  pool: task === 'asr' || task === 'phoneme' ? 'none' : 'mean+std',
  ...changes,
});
/** Head weights that are not zero. */
const headOf = (spec: HeadSpec): Map<string, HostTensor> =>
  initialValues(
    headParameters(spec).map((p) => ({ ...p, init: p.init.map(() => ({ uniform: 0.5 })) })),
    2,
  );
const words = ['AB', 'CABBA', 'B'];
const clips = words.map((word, i) => spoken(word, 1, i));

const close = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.from(a).every((v, i) => Math.abs(v - b[i]!) < 1e-4);

test('a recording has the same logits alone, in a padded batch, in a longer one and in one with spare rows', async () => {
  for (const task of ['asr', 'emotion'] as const) {
    const spec = specOf(task, { layer: 'sum', head: 'mlp' });
    const network = TaskNetwork.create(gpu, { config, spec, encoder, head: headOf(spec) });
    const together = await network.logits(clips);
    const roomy = await network.logits(clips, { samples: 32000, rows: 4 });
    for (const [i, clip] of clips.entries()) {
      const [alone] = await network.logits([clip]);
      const frames = Math.floor((clip.length - 400) / 320) + 1;
      assert.is(alone!.frames, frames);
      assert.is(alone!.logits.length, task === 'asr' ? 4 * frames : 3);
      assert.ok(
        close(together[i]!.logits, alone!.logits) && close(roomy[i]!.logits, alone!.logits),
        `${task}, clip ${i}`,
      );
    }
    assert.not.ok(
      close(together[0]!.logits, together[1]!.logits.slice(0, together[0]!.logits.length)),
      'recordings differ',
    );
    network.destroy();
  }
});

test('a network with GroupNorm over time runs clip by clip', async () => {
  const group = presetConfig('nano-w2v2');
  const spec: HeadSpec = { ...specOf('speaker'), dim: group.hidden_size };
  const network = TaskNetwork.create(gpu, {
    config: group,
    spec,
    encoder: initialValues(mgfParameters(group, []), 1),
    head: headOf(spec),
  });
  const [a, b] = await network.logits([clips[0]!, clips[2]!]);
  const [alone] = await network.logits([clips[2]!]);
  assert.equal(b!.logits, alone!.logits);
  assert.not.equal(a!.logits, b!.logits);
  network.destroy();
});

test('runs of frames are phones that tile the recording', () => {
  const logits = new Float32Array(6 * 3);
  [2, 2, 0, 0, 0, 1].forEach((label, t) => {
    logits[3 * t + label] = 1;
  });
  assert.equal(decodePhones({ frames: 6, logits }, 2100), [
    { label: 2, start: 0, end: 680 },
    { label: 0, start: 680, end: 1640 },
    { label: 1, start: 1640, end: 2100 },
  ]);
});

test('labels of CTC are the classes after the blank; probabilities sum to 1', () => {
  const logits = new Float32Array(5 * 4);
  [1, 1, 0, 1, 3].forEach((label, t) => {
    logits[4 * t + label] = 9;
  });
  assert.is(decodeTranscript({ frames: 5, logits }, classes), 'AAC');
  assert.is(decodeTranscript({ frames: 5, logits }, classes, { beam: 4 }), 'AAC');
  const p = classProbabilities({ frames: 5, logits: Float32Array.of(1, 2, 3) });
  assert.ok(close(p, [0.0900306, 0.2447285, 0.665241]));
});

test('a task model is read as it was written, in single or half precision', async () => {
  const spec = specOf('asr', { head: 'mlp', layer: 'sum' });
  const head = headOf(spec);
  const lm = NGram.train([[1, 2, 1], [3]], { order: 3, classes: 4 });
  const notes = { checkpoint: 'runs/first' };
  await saveTaskModel(at('deep/er/model.safetensors'), {
    config,
    spec,
    classes,
    encoder: new Map([...encoder, ['heads.frame.dense.bias', { shape: [1], data: new Float32Array(1) }]]),
    head,
    lm,
    notes,
  });
  const read = await loadTaskModel(at('deep/er'));
  assert.equal([read.spec, read.classes, read.notes, read.config], [spec, classes, notes, config]);
  assert.equal([...read.encoder.keys()].sort(), [...encoder.keys()].sort(), 'nothing but the encoder');
  for (const [name, { data }] of read.encoder) assert.equal(data, encoder.get(name)!.data, name);
  for (const [name, { data }] of read.head) assert.equal(data, head.get(name)!.data, name);
  assert.equal(read.lm!.logProbabilities([1, 2]), lm.logProbabilities([1, 2]));
  const asCheckpoint = await loadEncoderWeights(at('deep/er/model.safetensors'));
  assert.equal(asCheckpoint.config, config, 'other commands take it as a checkpoint');
  assert.equal(
    asCheckpoint.parameters.get('encoder.layer_norm.weight')!.data,
    encoder.get('encoder.layer_norm.weight')!.data,
  );

  const linear = { config, spec: specOf('asr'), classes, encoder, head: headOf(specOf('asr')) };
  await saveTaskModel(at('single.safetensors'), linear);
  await saveTaskModel(at('half.safetensors'), linear, { half: true });
  const half = await loadTaskModel(at('half.safetensors'));
  assert.ok(
    readFileSync(at('half.safetensors')).length < 0.75 * readFileSync(at('single.safetensors')).length,
  );
  for (const [name, { data }] of half.encoder)
    data.forEach((v, i) =>
      assert.ok(Math.abs(v - encoder.get(name)!.data[i]!) <= 1e-3 * Math.abs(v) + 1e-7, name),
    );
  assert.is(half.lm, undefined);
});

test(
  'what is no task model is told in one sentence: an encoder without a head, a damaged file, a head that ' +
    'does not fit',
  async () => {
    const spec = specOf('asr');
    const write = (name: string, metadata: Record<string, string>, tensors = new Map(encoder)): void =>
      writeFileSync(at(name), Buffer.concat([...safetensorsParts(tensors, metadata)]));
    write('encoder.safetensors', { format: 'mgf-checkpoint/1' });
    assert.match(
      await messageOf(() => loadTaskModel(at('encoder.safetensors')), 'checkpoint'),
      /encoder\.safetensors is a pre-trained encoder without a head.*mgf probe.*--save.*mgf finetune/,
    );
    const good = {
      format: 'mgf-task/1',
      task: 'asr',
      config: JSON.stringify(config),
      head: JSON.stringify(spec),
      classes: JSON.stringify(classes),
    };
    write('no-head.safetensors', good);
    assert.match(
      await messageOf(() => loadTaskModel(at('no-head.safetensors')), 'checkpoint'),
      /lacks the tensor "head\./,
    );
    for (const [key, value] of [
      ['head', '{"task":"singing"}'],
      ['head', '{'],
      ['classes', '7'],
      ['config', ''],
    ] as const) {
      write('damaged.safetensors', { ...good, [key]: value });
      assert.match(
        await messageOf(() => loadTaskModel(at('damaged.safetensors')), 'checkpoint'),
        new RegExp(`no sound ${key}`),
      );
    }
    await messageOf(() => loadTaskModel(at('nothing.safetensors')), 'io');
    assert.match(
      await messageOf(
        () => saveTaskModel(at('x.safetensors'), { config, spec, classes, encoder, head: new Map() }),
        'shape',
      ),
      /needs the tensor "head\./,
    );
  },
);

// ----------------------------------------------------------------------------------------------- the command

/** The real program: bundled tests lie one folder below it. */
const program = fileURLToPath(new URL('../mgf.js', import.meta.url));
const onDevice = testAdapter() ? ['--adapter', testAdapter()!] : [];
function mgf(...args: string[]): { status: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args, ...onDevice], {
    encoding: 'utf8',
  });
  return {
    status,
    out: stdout,
    err: stderr
      .split('\n')
      .filter((line) => line.startsWith('mgf: '))
      .join('\n'),
  };
}

function recordings(): string {
  mkdirSync(at('recordings'), { recursive: true });
  words.forEach((word, i) => writeFileSync(join(at('recordings'), `${word}.wav`), wav([clips[i]!])));
  return at('recordings');
}

test('mgf predict tells phones with times, classes with probabilities, transcripts', async () => {
  const files = recordings();
  for (const task of ['phoneme', 'speaker', 'asr'] as const)
    await saveTaskModel(at(`${task}.safetensors`), {
      config,
      spec: specOf(task),
      classes,
      encoder,
      head: headOf(specOf(task)),
    });

  const phones = mgf('predict', at('phoneme.safetensors'), join(files, 'AB.wav'));
  assert.is(phones.status, 0, phones.err);
  const lines = phones.out
    .trimEnd()
    .split('\n')
    .map((line) => line.split('\t'));
  assert.is(lines[0]![0], '0.00');
  assert.is(lines.at(-1)![1], (clips[0]!.length / 16000).toFixed(2));
  lines.forEach(([start, , phone], i) => {
    assert.ok(classes.includes(phone!));
    if (i > 0) assert.is(start, lines[i - 1]![1]);
  });

  const speaker = mgf('predict', at('speaker.safetensors'), files, '--json');
  assert.is(speaker.status, 0, speaker.err);
  const { task, recordings: told } = JSON.parse(speaker.out) as {
    task: string;
    recordings: { id: string; class: string; probabilities: Record<string, number> }[];
  };
  assert.equal([task, told.map(({ id }) => id)], ['speaker', ['AB', 'B', 'CABBA']]);
  for (const { class: best, probabilities: p } of told) {
    assert.ok(Math.abs(Object.values(p).reduce((sum, v) => sum + v, 0) - 1) < 1e-5);
    assert.is(Object.entries(p).sort(([, a], [, b]) => b - a)[0]![0], best);
  }

  const asr = mgf('predict', at('asr.safetensors'), files, '--beam', '4');
  assert.is(asr.status, 0, asr.err);
  assert.equal(
    asr.out
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t')[0]),
    ['AB', 'B', 'CABBA'].map((word) => join(files, `${word}.wav`)),
  );
});

test('mgf probe --save writes network and classifier as a task model that mgf predict takes', async () => {
  const corpus = new Corpus();
  try {
    await saveTaskModel(at('network.safetensors'), {
      config,
      spec: specOf('asr'),
      classes,
      encoder,
      head: headOf(specOf('asr')),
    });
    const data = corpus.speakers();
    const probed = mgf(
      'probe',
      'speaker',
      '--checkpoint',
      at('network.safetensors'),
      '--data',
      data,
      '--no-cache',
      '--save',
      at('probed.safetensors'),
      '--json',
    );
    assert.is(probed.status, 0, probed.err);
    const { rows } = JSON.parse(probed.out) as ProbeResult;
    const expected = rows.find(({ features }) => features === 'mgf')!.metrics.accuracy!.value;
    const test = readFileSync(data, 'utf8')
      .trim()
      .split('\n')
      .filter((line) => line.endsWith('test'))
      .map((line) => line.split('\t'));
    const told = mgf(
      'predict',
      at('probed.safetensors'),
      ...test.map(([path]) => join(corpus.folder, path!)),
      '--json',
    );
    assert.is(told.status, 0, told.err);
    const { recordings: answers } = JSON.parse(told.out) as { recordings: { class: string }[] };
    assert.is(
      answers.filter((answer, i) => answer.class === test[i]![2]).length / test.length,
      expected,
      'as many are right as the probe has scored',
    );
  } finally {
    rmSync(corpus.folder, { recursive: true, force: true });
  }
});

test('mgf predict leaves out what it cannot use, and refuses what makes no sense', async () => {
  const files = recordings();
  writeFileSync(at('broken.wav'), 'RIFF, but no more');
  await saveTaskModel(at('speaker.safetensors'), {
    config,
    spec: specOf('speaker'),
    classes,
    encoder,
    head: headOf(specOf('speaker')),
  });
  const some = mgf('predict', at('speaker.safetensors'), join(files, 'AB.wav'), at('broken.wav'), '--json');
  assert.is(some.status, 0);
  const { recordings: told, skipped } = JSON.parse(some.out) as {
    recordings: unknown[];
    skipped: { path: string }[];
  };
  assert.equal([told.length, skipped.map(({ path }) => path)], [1, [at('broken.wav')]]);

  const none = mgf('predict', at('speaker.safetensors'), at('broken.wav'));
  assert.is(none.status, 1);
  assert.match(none.err, /Of 1 recording none could be used/);
  const beam = mgf('predict', at('speaker.safetensors'), files, '--beam', '4');
  assert.is(beam.status, 2);
  assert.match(beam.err, /--beam and --lm are for recognisers/);
});

test.run();
