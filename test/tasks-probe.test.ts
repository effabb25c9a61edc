import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Graph, type Value } from '../src/graph/graph.ts';
import { presetConfig } from '../src/mgf/presets.ts';
import { initialValues, mgfParameters } from '../src/mgf/weights.ts';
import { Weights } from '../src/nn/weights.ts';
import { compile } from '../src/plan/compile.ts';
import { ParameterStore } from '../src/plan/parameters.ts';
import { linearProbe } from '../src/report/probe.ts';
import { readTask } from '../src/tasks/data/labelled.ts';
import { extractFeatures, networkFeatures, type FeatureMatrix } from '../src/tasks/features/features.ts';
import { headLogits, headParameters, type HeadSpec } from '../src/tasks/probe/head.ts';
import { probe, probeTask, type TrainedHead } from '../src/tasks/probe/probe.ts';
import { halfToFloat } from '../src/io/safetensors.ts';
import { openTestGpu } from './gpu.ts';
import { distance, failsWith, noise } from './harness.ts';
import { Corpus } from './tasks-corpus.ts';
import type { ProbeRow } from '../src/tasks/task.ts';

const gpu = await openTestGpu();
const corpus = new Corpus();
const config = presetConfig('nano-mel');
const parameters = initialValues(mgfParameters(config, []), 1);
const cache = join(corpus.folder, 'cache');
const settings = { gpu, config, parameters, cache, learningRates: [1e-2] };
test.after(() => rmSync(corpus.folder, { recursive: true, force: true }));

const emotions = await readTask('emotion', corpus.emotions());

test('a table has the network, random weights and log-mel, and is the same bit for bit the second time', async () => {
  const table = (): Promise<{ rows: readonly ProbeRow[]; majority?: number }> =>
    probeTask({ ...settings, data: emotions, checkpoint: 'runs/toy/best.safetensors', layers: [2] });
  const first = await table();
  const second = await table();
  assert.equal(
    first.rows.map(({ features, layer, pool }) => [features, layer, pool]),
    [
      ['mgf', 2, 'mean+std'],
      ['random', 2, 'mean+std'],
      ['log-mel', null, 'mean+std'],
    ],
  );
  assert.equal(second.rows, first.rows);
  assert.is(first.majority, 1 / 3);
  for (const { metrics, confusion } of first.rows) {
    assert.equal(
      confusion!.map((row) => row.reduce((a, b) => a + b)),
      [6, 6, 6],
    );
    const { value, interval } = metrics.accuracy!;
    assert.ok(interval[0] <= value && value <= interval[1] && value >= 0 && value <= 1);
  }
  assert.is(first.rows.at(-1)!.metrics.accuracy!.value, 1, 'log-mel tells a tone of 300 Hz from one of 2000');
});

test('with shuffled training labels the test is about as good as chance', async () => {
  const data = await readTask('emotion', corpus.emotions({ takes: 6, shuffled: true }));
  const { metrics } = await probe({ ...settings, data, features: 'log-mel' });
  const honest = await probe({
    ...settings,
    data: await readTask('emotion', corpus.emotions({ takes: 6 })),
    features: 'log-mel',
  });
  assert.ok(honest.metrics.accuracy!.value > 0.9, `labels as they are: ${honest.metrics.accuracy!.value}`);
  assert.ok(
    Math.abs(metrics.accuracy!.value - 1 / 3) < 0.25,
    `shuffled labels score ${metrics.accuracy!.value}`,
  );
});

test('folds are scored as one test split of all recordings', async () => {
  const folds = await Promise.all([0, 1, 2].map((fold) => readTask('emotion', corpus.emotions(), { fold })));
  const row = await probe({ ...settings, data: folds, features: 'log-mel' });
  assert.is(
    row.confusion!.flat().reduce((a, b) => a + b),
    54,
  );
  assert.ok(row.metrics.unweighted_average_recall!.value > 0.9);
});

test('a linear probe is as good as logistic regression fitted to convergence in float64', async () => {
  const path = corpus.phonemes();
  const data = await readTask('phoneme', path);
  const row = await probe({ ...settings, data, features: 'mgf', layer: 1 });
  const extractor = await networkFeatures(gpu, config, parameters);
  const [features] = await extractFeatures([{ extractor, states: [1] }], data.items, { pool: 'none', cache });
  extractor.destroy();
  const { data: bits, width } = features!.states.get(1)!;
  const { frameLabels } = await import('../src/tasks/data/labelled.ts');
  const sets = {
    train: { x: [] as number[], y: [] as number[] },
    test: { x: [] as number[], y: [] as number[] },
    dev: { x: [] as number[], y: [] as number[] },
  };
  let at = 0;
  data.items.forEach((item, i) => {
    const { x, y } = sets[item.split];
    const n = features!.frames[i]!;
    for (let e = at * width; e < (at + n) * width; e++) x.push(halfToFloat(bits[e]!));
    y.push(...frameLabels(item.phones, n));
    at += n;
  });
  const set = ({ x, y }: { x: number[]; y: number[] }): { x: Float32Array; y: Int32Array } => ({
    x: Float32Array.from(x),
    y: Int32Array.from(y),
  });
  const exact = linearProbe({ train: set(sets.train), test: set(sets.test), classes: 4, l2grid: [1e-4] });
  const got = row.metrics.accuracy!.value;
  const counts = [0, 1, 2, 3].map((c) => sets.test.y.filter((y) => y === c).length);
  const majority = Math.max(...counts) / sets.test.y.length;
  assert.ok(
    exact.accuracy > majority + 0.1,
    `the exact probe scores ${exact.accuracy}, the commonest class ${majority}`,
  );
  assert.ok(
    Math.abs(got - exact.accuracy) < 0.04,
    `the probe scores ${got}, the exact one ${exact.accuracy}`,
  );
  assert.ok(row.metrics.phone_error_rate!.value > 0);
});

test('features from the cache are those that were put there, and fresh frames to the precision of f16', async () => {
  const extractor = await networkFeatures(gpu, config, parameters);
  const folder = join(corpus.folder, 'own');
  const items = emotions.items.slice(0, 5);
  const requests = [{ extractor, states: [0, 2] }];
  for (const pool of ['none', 'mean', 'mean+std'] as const) {
    const fresh = await extractFeatures(requests, items, { pool });
    const written = await extractFeatures(requests, items, { pool, cache: folder });
    const files = readdirSync(folder).length;
    const read = await extractFeatures(requests, items, { pool, cache: folder });
    assert.equal([written, read], [fresh, fresh]);
    assert.is(readdirSync(folder).length, files, 'the second reading writes nothing');
  }
  const { data, width } = (
    await extractFeatures(requests, items, { pool: 'none', cache: folder })
  )[0]!.states.get(2)!;
  const { loadAudio } = await import('../src/audio/load.ts');
  const [clip] = await extractor.embed([await loadAudio(items[0]!.path)], [2]);
  const exact = clip!.layers[0]!;
  assert.is(width, config.hidden_size);
  assert.ok(distance(Float32Array.from(data.slice(0, exact.length), halfToFloat), exact) < 5e-4);
  const other = { ...extractor, identity: 'other weights' };
  const before = readdirSync(folder).length;
  await extractFeatures([{ extractor: other, states: [2] }], items, { pool: 'mean', cache: folder });
  assert.is(readdirSync(folder).length, before + 1, 'other weights have features of their own');
  extractor.destroy();
});

test('speakers are classified, and told apart without a classifier', async () => {
  const { metrics, parts } = await probe({
    ...settings,
    data: await readTask('speaker', corpus.speakers()),
    features: 'log-mel',
  });
  assert.ok(metrics.accuracy!.value > 0.9, `${metrics.accuracy!.value}`);
  assert.ok(metrics.equal_error_rate!.value < 0.25, `${metrics.equal_error_rate!.value}`);
  assert.equal(
    Object.values(parts).map((part) => part.equal_error_rate),
    [metrics.equal_error_rate],
    'the one corpus is the whole',
  );
});

test('letters are read from tones by CTC', async () => {
  const data = await readTask('asr', corpus.asr());
  const row = await probe({ ...settings, data, features: 'log-mel' });
  assert.ok(row.metrics.cer!.value < 0.2, `character error rate ${row.metrics.cer!.value}`);
  assert.ok(row.metrics.wer!.value <= 1 && !row.confusion);
  assert.equal(Object.keys(row.parts).includes('toy'), true);
});

test('a learned sum of all states, with deviations, gives the logits of the head that is handed out', async () => {
  let trained: TrainedHead | undefined;
  let kept: ProbeRow | undefined;
  await probeTask({
    ...settings,
    data: emotions,
    checkpoint: 'toy',
    layers: ['sum'],
    onRow: (row, head) => {
      if (row.features === 'mgf') [kept, trained] = [row, head];
    },
  });
  const { spec, parameters: head } = trained!;
  const extractor = await networkFeatures(gpu, config, parameters);
  const tested = emotions.items.filter((item) => item.split === 'test');
  const [features] = await extractFeatures([{ extractor, states: [0, 1, 2] }], tested, { pool: 'none' });
  extractor.destroy();
  const T = Math.max(...features!.frames);
  const D = config.hidden_size;
  const R = tested.length;
  const graph = new Graph();
  const store = new ParameterStore(gpu, headParameters(spec), 'inference');
  const declared = store.declare(graph);
  store.load(head);
  const states = [0, 1, 2].map((l) => graph.input(`state ${l}`, [R, T, D]));
  const mask = graph.input('mask', [R, T]);
  const program = await compile(gpu, graph, {
    outputs: { logits: headLogits(new Weights(declared), states, spec, mask) },
    place: new Map([...declared].map(([name, value]) => [value, store.region(name)])),
  });
  const padded = ({ data }: FeatureMatrix): Float32Array<ArrayBuffer> => {
    const out = new Float32Array(R * T * D);
    let at = 0;
    features!.frames.forEach((n, r) => {
      for (let e = 0; e < n * D; e++) out[r * T * D + e] = halfToFloat(data[at++]!);
    });
    return out;
  };
  const { logits } = await program.step({
    ...Object.fromEntries([0, 1, 2].map((l) => [`state ${l}`, padded(features!.states.get(l)!)])),
    mask: Float32Array.from({ length: R * T }, (_, i) =>
      Number(i % T < features!.frames[Math.floor(i / T)]!),
    ),
  });
  const found = tested.map((item, r) =>
    Number([0, 1, 2].every((c) => logits![r * 3 + item.label]! >= logits![r * 3 + c]!)),
  );
  assert.ok(Math.abs(found.reduce((a, b) => a + b) / R - kept!.metrics.accuracy!.value) < 1.5 / R);
  program.destroy();
  store.destroy();
});

test('heads of every kind have the shapes that they promise', () => {
  const base: HeadSpec = {
    task: 'emotion',
    classes: 5,
    layer: 1,
    layers: 2,
    dim: 8,
    head: 'linear',
    pool: 'mean',
  };
  const logits = (spec: HeadSpec): { shape: Value['shape']; names: string[] } => {
    const graph = new Graph();
    const specs = headParameters(spec);
    const values = new Map(specs.map((p) => [p.name, graph.state(p.name, p.parts[0]!.shape)]));
    return {
      shape: headLogits(
        new Weights(values),
        [0, 1, 2].map((l) => graph.constant(`s${l}`, [3, 7, 8], noise(168, l))),
        spec,
        null,
      ).shape,
      names: specs.map((p) => p.name),
    };
  };
  assert.equal(logits(base).shape, [3, 5]);
  assert.equal(logits({ ...base, pool: 'mean+std', head: 'mlp', layer: 'sum' }).shape, [3, 5]);
  assert.equal(logits({ ...base, pool: 'none', task: 'phoneme' }).shape, [3, 7, 5]);
  assert.ok(logits({ ...base, layer: 'sum' }).names.includes('head.mix.weight'));
});

test('layers and poolings that do not fit are refused before any work', async () => {
  await failsWith('usage', /hidden states 0 to 2/, () =>
    probe({ ...settings, data: emotions, features: 'mgf', layer: 3 }),
  );
  await failsWith('usage', /mean or mean\+std/, () =>
    probe({ ...settings, data: emotions, features: 'mgf', pool: 'none' }),
  );
});

test.run();
