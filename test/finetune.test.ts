import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { presetConfig } from '../src/mgf/presets.ts';
import { initialValues, mgfParameters } from '../src/mgf/weights.ts';
import { readTask } from '../src/tasks/data/labelled.ts';
import {
  finetune,
  type FineTuneEpoch,
  type FineTuneOptions,
  type FineTuneResult,
} from '../src/tasks/finetune/finetune.ts';
import { logitClasses, type HeadSpec } from '../src/tasks/probe/head.ts';
import { loadTaskModel } from '../src/tasks/finetune/model.ts';
import { decodeTranscript } from '../src/tasks/decode/decode.ts';
import { TaskNetwork } from '../src/tasks/finetune/predict.ts';
import type { TaskData, TaskName } from '../src/tasks/task.ts';
import { readJsonl } from '../src/pretrain/logs.ts';
import { messageOf } from './audio-wav.ts';
import { openTestGpu } from './gpu.ts';
import { makeData, phonesOf, spoken, type Row } from './tones.ts';

const gpu = await openTestGpu();
const folder = mkdtempSync(join(tmpdir(), 'mgf-finetune-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const config = presetConfig('nano-mel');
const encoder = initialValues(mgfParameters(config, []), 1);
/** The words to learn, in every split: what a small network can learn by heart, it must. */
const words = ['AB', 'BA', 'CAB', 'ACA', 'BB', 'C'];
const everySplit = (rows: (split: string) => Row[]): Row[] => ['train', 'dev', 'test'].flatMap(rows);
const transcribed = (): string =>
  makeData(
    join(folder, 'asr'),
    everySplit((split) =>
      words.map((word) => ({
        name: `${split}-${word}`,
        word,
        columns: { split, text: word, speaker: word },
      })),
    ),
  );

interface Tuned {
  result: FineTuneResult;
  epochs: FineTuneEpoch[];
  notes: string[];
  out: string;
}
async function tune(name: string, data: TaskData, changes: Partial<FineTuneOptions> = {}): Promise<Tuned> {
  const frames = data.task === 'asr' || data.task === 'phoneme';
  const out = join(folder, name);
  const epochs: FineTuneEpoch[] = [];
  const notes: string[] = [];
  const spec: HeadSpec = {
    task: data.task as TaskName,
    classes: logitClasses(data),
    layer: 2,
    layers: 2,
    dim: config.hidden_size,
    head: 'linear',
    pool: frames ? 'none' : 'mean+std',
  };
  const result = await finetune({
    gpu,
    data,
    config,
    encoder,
    spec,
    features: 'random',
    checkpoint: 'none',
    out,
    onEpoch: (epoch) => epochs.push(epoch),
    onNote: (note) => notes.push(note),
    ...changes,
    settings: {
      epochs: 30,
      patience: 100,
      learningRates: [3e-3],
      headLearningRate: 1e-2,
      dropout: 0,
      maskProbability: 0,
      seed: 3,
      ...changes.settings,
    },
  });
  return { result, epochs, notes, out };
}

test('a recogniser learns a handful of recordings by heart: no character is wrong, and its file says the same', async () => {
  const data = await readTask('asr', transcribed());
  const { result, epochs, notes, out } = await tune('recogniser', data, { settings: { epochs: 60 } });
  const [row] = result.rows;
  const first = epochs[0]!;
  const last = epochs.at(-1)!;
  assert.is(row!.metrics.cer!.value, 0, `dev ${last.dev.cer!.value} after ${last.step} steps`);
  assert.is(row!.metrics.wer!.value, 0);
  assert.ok(last.loss < 0.2 * first.loss, `${first.loss} to ${last.loss}`);
  assert.equal(notes, []);
  assert.equal(
    [result.task, result.counts, result.classes, row!.features, row!.layer],
    ['asr', { train: 6, dev: 6, test: 6 }, ['A', 'B', 'C'], 'random', 2],
  );
  assert.equal(JSON.parse(readFileSync(join(out, 'result.json'), 'utf8')), result);

  const log = readJsonl(join(out, 'log.jsonl'));
  const steps = log.filter((line) => !('dev' in line));
  assert.equal(
    steps.map(({ step }) => step),
    Array.from({ length: 60 }, (_, i) => i + 1),
  );
  assert.ok(
    steps
      .slice(0, 6)
      .every((line) => line['learning_rate'] === 0 && (line['head_learning_rate'] as number) > 0),
    'only the head learns at first',
  );
  assert.ok(steps.slice(6).every((line) => (line['learning_rate'] as number) > 0));

  const model = await loadTaskModel(out);
  const network = TaskNetwork.create(gpu, model);
  const clips = words.map((word, i) => spoken(word, 1, 2 * words.length + i));
  const logits = await network.logits(clips);
  assert.equal(
    logits.map((one) => decodeTranscript(one, model.classes)),
    words,
  );
  assert.equal(
    logits.map((one) => decodeTranscript(one, model.classes, { beam: 8, lm: model.lm!, lmWeight: 0.3 })),
    words,
  );
  assert.equal(model.notes, {
    checkpoint: 'none',
    made: 'fine-tuned',
    step: String(result.fineTuning.bestStep),
  });
  network.destroy();
});

test('voices and moods are learned by heart too', async () => {
  const voices = { low: 0.8, middle: 1, high: 1.25 };
  const rows = (column: string): Row[] =>
    everySplit((split) =>
      Object.entries(voices).flatMap(([voice, factor]) =>
        ['AB', 'CA', 'BC'].map((word) => ({
          name: `${split}-${voice}-${word}`,
          word,
          voice: factor,
          columns: { split, [column]: voice, ...(column !== 'speaker' && { speaker: `${split}-${word}` }) },
        })),
      ),
    );
  const speakers = await tune(
    'speakers',
    await readTask('speaker', makeData(join(folder, 'speaker'), rows('speaker'))),
    { settings: { epochs: 20 } },
  );
  assert.is(speakers.result.rows[0]!.metrics.accuracy!.value, 1);
  assert.equal(speakers.result.rows[0]!.confusion, [
    [3, 0, 0],
    [0, 3, 0],
    [0, 0, 3],
  ]);
  assert.is(speakers.result.majority, 1 / 3);
  const moods = await tune(
    'moods',
    await readTask('emotion', makeData(join(folder, 'emotion'), rows('emotion'))),
    { settings: { epochs: 20, learningRates: [1e-6, 3e-3] } },
  );
  assert.is(moods.result.rows[0]!.metrics.unweighted_average_recall!.value, 1);
  assert.is(moods.result.rows[0]!.learningRate, 3e-3, 'the rate that the development split prefers');
});

test('phones are learned by frames', async () => {
  const manifest = makeData(
    join(folder, 'phones'),
    everySplit((split) =>
      words.map((word) => ({
        name: `${split}-${word}`,
        word,
        columns: { split, speaker: `${split}-${word}` },
      })),
    ),
  );
  const lines = everySplit((split) =>
    words.map((word) => ({ name: `${split}-${word}`, word, columns: {} })),
  ).flatMap(({ name, word }) => phonesOf(word).map((phone) => [`${name}.wav`, ...phone].join('\t')));
  writeFileSync(
    join(folder, 'phones', 'alignments.tsv'),
    ['file\tstart_sample\tend_sample\tphone', ...lines].join('\n'),
  );
  const { result } = await tune('phones-out', await readTask('phoneme', manifest));
  const { metrics, confusion } = result.rows[0]!;
  assert.ok(metrics.accuracy!.value > 0.9, `${metrics.accuracy!.value}`);
  assert.ok(metrics.phone_error_rate!.value < 0.2, `${metrics.phone_error_rate!.value}`);
  assert.is(confusion!.length, 4);
});

test('a run repeats bit for bit with its seed, masks and dropout included, and another seed differs', async () => {
  const data = await readTask('asr', transcribed());
  const settings = { epochs: 3, batch: 4, dropout: 0.1, maskProbability: 0.5 };
  const runs: Tuned[] = [];
  for (const [name, seed] of [
    ['a', 5],
    ['b', 5],
    ['c', 6],
  ] as const)
    runs.push(await tune(name, data, { settings: { ...settings, seed } }));
  const [a, b, c] = await Promise.all(runs.map(async ({ out }) => (await loadTaskModel(out)).encoder));
  const losses = runs.map(({ out }) => readJsonl(join(out, 'log.jsonl')).map((line) => line['loss']));
  assert.equal(losses[0], losses[1]);
  assert.not.equal(losses[0], losses[2]);
  for (const [name, { data: values }] of a!) assert.equal(values, b!.get(name)!.data, name);
  const trained = 'encoder.layers.1.attention.q_proj.weight';
  assert.not.equal(a!.get(trained)!.data, c!.get(trained)!.data);
  assert.not.equal(a!.get(trained)!.data, encoder.get(trained)!.data, 'the network itself has learned');
});

test('with the head on a lower hidden state the layers above it stay as they were', async () => {
  const spec: HeadSpec = {
    task: 'asr',
    classes: 4,
    layer: 1,
    layers: 2,
    dim: config.hidden_size,
    head: 'mlp',
    pool: 'none',
  };
  const { out } = await tune('lower', await readTask('asr', transcribed()), {
    spec,
    settings: { epochs: 3, weightDecay: 0 },
  });
  const { encoder: tuned } = await loadTaskModel(out);
  const weight = (layer: number): string => `encoder.layers.${layer}.feed_forward.output_dense.weight`;
  assert.equal(tuned.get(weight(1))!.data, encoder.get(weight(1))!.data);
  assert.not.equal(tuned.get(weight(0))!.data, encoder.get(weight(0))!.data);
});

test(
  'stopped early, a run scores and saves what it has; recordings too short for their transcripts are ' +
    'told of',
  async () => {
    const abort = new AbortController();
    const rows = everySplit((split) => [
      {
        name: `${split}-long`,
        word: 'C',
        columns: { split, text: 'ABABABABABABABABABABABABABAB', speaker: 'x' },
      },
      { name: `${split}-good`, word: 'AB', columns: { split, text: 'AB', speaker: 'y' } },
    ]);
    const { result, notes, epochs } = await tune(
      'stopped',
      await readTask('asr', makeData(join(folder, 'short'), rows)),
      { signal: abort.signal, onStart: () => setTimeout(() => abort.abort(), 0) },
    );
    assert.is(epochs.length, 1);
    assert.is(result.fineTuning.interrupted, true);
    assert.ok(result.fineTuning.steps < 30);
    assert.match(notes[0]!, /^1 of 2 training recordings are shorter than their transcripts need/);
  },
);

test('a split without usable recordings, and weights of another network, are one clear sentence', async () => {
  const data = await readTask('asr', transcribed());
  assert.match(
    await messageOf(
      () => tune('x', { ...data, items: data.items.filter(({ split }) => split !== 'dev') }),
      'data',
    ),
    /the dev split of the asr task has no usable recording/,
  );
  const missing = new Map([...encoder].filter(([name]) => name !== 'encoder.layer_norm.weight'));
  assert.match(
    await messageOf(() => tune('x', data, { encoder: missing }), 'checkpoint'),
    /encoder.layer_norm.weight/,
  );
});

test.run();
