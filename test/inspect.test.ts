import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Graph } from '../src/graph/graph.ts';
import { Pretrainer } from '../src/mgf/pretrainer.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { gelu } from '../src/ops/activation.ts';
import { reshape } from '../src/ops/elementwise.ts';
import { grad } from '../src/ops/grad.ts';
import { linear } from '../src/ops/gemm/linear.ts';
import { mseLoss } from '../src/ops/losses/pointwise.ts';
import { chromeTrace, graphDot } from '../src/plan/inspect.ts';
import { openTestGpu, testAdapter } from './gpu.ts';
import { distance, failsWith, speechBatch } from './harness.ts';
import type { TraceEvent } from '../src/plan/inspect.ts';
import type { PlannedDispatch } from '../src/plan/program.ts';

const gpu = await openTestGpu();
const folder = mkdtempSync(join(tmpdir(), 'mgf-inspect-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const run = presetRunConfig('nano-mel', { train: { utterances_per_batch: 2, crop_seconds: 0.64 } });

test('a graph is drawn by scope, through changes of shape, without parameters and sums of gradients', () => {
  const g = new Graph();
  const x = g.input('x', [4, 6]);
  const w = g.state('w', [6, 6], { requiresGrad: true });
  const h = g.scope('body', () => gelu(linear(x, w)));
  const loss = mseLoss(reshape(h, [24]), g.input('goal', [24]));
  grad(loss, [w]);
  const dot = graphDot(g.nodes, new Map([[h.node!, 3]]));
  assert.match(dot, /subgraph cluster_\d+ \{\n {4}label="body"/);
  assert.match(
    dot,
    new RegExp(`n${h.node!.id} -> n${loss.node!.id} \\[label="\\[24\\]"\\]`),
    'past the reshape',
  );
  assert.match(dot, /label="gelu\\n3\.0 ms"/);
  assert.match(dot, /label="x", shape=ellipse/);
  assert.not.match(dot, /"w"/);
  assert.not.match(dot, /backward/);
});

test('a profile is a timeline without gaps', () => {
  const g = new Graph();
  const y = gelu(g.input('x', [8]));
  const dispatch = {
    node: y.node!,
    label: 'gelu',
    kernel: 'activation',
    grid: [1, 1, 1],
    bound: [{ name: 'y', value: y, slot: 0 }],
  } as unknown as PlannedDispatch;
  const events = chromeTrace(
    [
      { dispatch, ms: 2, copyMs: 1 },
      { dispatch, ms: 3, copyMs: 0 },
    ],
    'here',
  ).filter((e): e is TraceEvent & { ts: number; dur: number } => e.ph === 'X');
  assert.equal(
    events.map(({ ts, dur, tid }) => [ts, dur, tid]),
    [
      [0, 1000, 2],
      [1000, 2000, 0],
      [3000, 3000, 0],
    ],
  );
  assert.is(events[1]!.args['y'], 'gelu [8] f32');
});

test('values by name are those of the step, gradients too, and nothing is updated', async () => {
  const model = await Pretrainer.create(gpu, run);
  const batch = speechBatch(run);
  try {
    const before = (await model.state()).parameters;
    const name = 'feature_projection/linear';
    const values = await model.values(batch, ['loss.frame/l1_loss:0', name, `d ${name}`]);
    const after = (await model.state()).parameters;
    const { frame } = await model.step([batch], { step: 0, learningRate: 0 });
    assert.ok(Math.abs(values.get('loss.frame/l1_loss:0')!.data[0]! - frame) < 1e-6);
    assert.equal(values.get(name)!.shape, values.get(`d ${name}`)!.shape);
    assert.ok(
      values.get(`d ${name}`)!.data.some((v) => v !== 0) &&
        values.get(`d ${name}`)!.data.every(Number.isFinite),
    );
    for (const [key, { data }] of before) assert.is(distance(after.get(key)!.data, data), 0, key);
    await failsWith(
      'usage',
      /has no value "feature_projection\/linar"; the nearest is "feature_projection\/linear"/,
      () => model.values(batch, ['feature_projection/linar']),
    );
  } finally {
    model.destroy();
  }
});

test('mgf inspect writes plan, picture and timeline, and tells of values', () => {
  const program = fileURLToPath(new URL('../mgf.js', import.meta.url));
  const out = join(folder, 'out');
  const ended = spawnSync(
    process.execPath,
    [
      program,
      'inspect',
      '--preset',
      'nano-mel',
      '--set',
      'utterances_per_batch=2',
      '--set',
      'crop_seconds=0.64',
      '--out',
      out,
      '--value',
      'loss.phoneme/linear',
      ...(testAdapter() ? ['--adapter', testAdapter()!] : []),
    ],
    { encoding: 'utf8' },
  );
  assert.is(ended.status, 0, ended.stderr);
  assert.match(ended.stdout, /loss\.phoneme\/linear \[4, 31, 16\]: mean /);
  for (const file of ['plan.txt', 'graph.dot', 'graph.svg', 'trace.json'])
    assert.ok(existsSync(join(out, file)), file);
  assert.match(readFileSync(join(out, 'graph.svg'), 'utf8'), /masked_info_nce/);
  assert.ok(
    (JSON.parse(readFileSync(join(out, 'trace.json'), 'utf8')) as { traceEvents: unknown[] }).traceEvents
      .length > 4,
  );
});

test.run();
