import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ofCeiling } from '../src/measure/ceilings.ts';
import { disagreement, measure, referencesOf } from '../bench/suites/measure.ts';
import { buildWork, mgfArm, type BuildWork } from '../bench/suites/mgf.ts';
import { aggregate, dispatchCosts, profileProgram, variantName } from '../src/measure/profile.ts';
import {
  compareResults,
  formatResults,
  parseResults,
  type Result,
  type ResultsFile,
} from '../bench/suites/results.ts';
import { rooflinePlot } from '../bench/suites/roofline.ts';
import { statistics } from '../src/measure/statistics.ts';
import { estimateStep, openStep, stepConfig } from '../bench/workloads/step.ts';
import { formatComparison, formatReport } from '../bench/suites/tables.ts';
import { createInputs, inputSets, workloadOf, WORKLOADS } from '../bench/workloads/workloads.ts';
import { uniforms } from '../src/random/uniforms.ts';
import { f32 } from '../src/graph/shape.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import { kernel } from '../src/launch/dispatch.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { grad } from '../src/ops/grad.ts';
import { linear } from '../src/ops/gemm/linear.ts';
import { mseLoss } from '../src/ops/losses/pointwise.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';
import { failsWith, noise } from './harness.ts';
import type { Arm, Engine, Work } from '../bench/workloads/contract.ts';

const QUICK = { minRuns: 5, maxRuns: 5, seconds: 0 };

/** Every computation, small. */
const SMALL: readonly [string, Work][] = [
  ['matmul', { op: 'matmul', M: 37, N: 20, K: 45 }],
  ['conv1d', { op: 'conv1d', B: 2, L: 30, Cin: 8, Cout: 12, K: 3, stride: 2 }],
  ['conv1d of one channel', { op: 'conv1d', B: 1, L: 64, Cin: 1, Cout: 16, K: 10, stride: 5 }],
  ['softmax', { op: 'softmax', rows: 19, columns: 40 }],
  ['layer_norm', { op: 'layer_norm', rows: 19, columns: 40 }],
  ['attention', { op: 'attention', B: 2, H: 2, T: 17, D: 8 }],
  ['info_nce', { op: 'info_nce', N: 21, K: 6, P: 16 }],
  ['transformer_layer', { op: 'transformer_layer', B: 2, T: 9, D: 32, H: 4, F: 64 }],
];

test('the median of an even number of runs is the mean of the middle two, and the spread is told', () => {
  const samples = [4, 1, 3, 2];
  assert.equal(statistics(samples), { median: 2.5, min: 1, max: 4, spread: 1.2, runs: 4, samples });
  assert.is(statistics([7]).median, 7);
  assert.throws(() => statistics([]), RangeError);
});

test('the workloads are those that are promised, each forward and with gradients, with their FLOPs', () => {
  const names = WORKLOADS.map((w) => w.name);
  for (const name of [
    'matmul-1024',
    'matmul-1500x768x768',
    'conv1d-512-k3s2',
    'conv1d-1-512-k10s5',
    'softmax-1500x768',
    'layer_norm-1500x768',
    'attention-150',
    'attention-500',
    'attention-1500',
    'info_nce-800x100x256',
  ])
    assert.ok(names.includes(name) && names.includes(`${name}-grad`), name);
  assert.ok(names.includes('transformer-layer') && names.includes('torch-step'));
  assert.is(new Set(names).size, names.length);
  const [matmul, backward] = WORKLOADS.filter((w) => w.name.startsWith('matmul-1024'));
  assert.is(matmul!.flops, 2 * 1024 ** 3);
  assert.is(matmul!.bytes, 12 * 1024 ** 2);
  assert.is(backward!.flops, 6 * 1024 ** 3);
});

test('inputs are a function of the seed, of about unit variance, and negatives are never the anchor', () => {
  const nce = workloadOf('nce', { op: 'info_nce', N: 40, K: 9, P: 16 }, true);
  const a = createInputs(nce, 3);
  const b = createInputs(nce, 3);
  const other = createInputs(nce, 4);
  assert.equal(a, b);
  assert.not.equal(a['anchors']!.data, other['anchors']!.data);
  assert.equal(Object.keys(a), ['anchors', 'candidates', 'negatives', 'up']);
  a['negatives']!.data.forEach((row, i) => assert.ok(row >= 0 && row < 40 && row !== Math.floor(i / 9)));
  const x = Array.from(a['anchors']!.data);
  const mean = x.reduce((s, v) => s + v, 0) / x.length;
  const variance = x.reduce((s, v) => s + (v - mean) ** 2, 0) / x.length;
  assert.ok(Math.abs(mean) < 0.15 && Math.abs(variance - 1) < 0.2, `${mean} ${variance}`);
  const next = uniforms(1);
  const draws = Array.from({ length: 1000 }, next);
  assert.ok(
    draws.every((u) => u >= 0 && u < 1) && Math.abs(draws.reduce((s, u) => s + u, 0) / 1000 - 0.5) < 0.05,
  );
});

for (const [name, work] of SMALL) {
  test(`${name} agrees with its float64 reference, forward and backward, and is timed`, async () => {
    const gpu = await openTestGpu();
    for (const withGradients of [false, true]) {
      const workload = workloadOf(name, work, withGradients);
      const sets = inputSets(workload);
      const arm = await mgfArm(gpu, workload, sets);
      const [measured] = await measure([arm], referencesOf(workload, sets), QUICK);
      assert.is(
        measured!.refused,
        null,
        `${name}${withGradients ? ', gradients' : ''}: ${measured!.refused}`,
      );
      assert.is(measured!.timing!.runs, 5);
      assert.ok(measured!.timing!.min > 0 && measured!.peakBytes! > 0);
      await arm.dispose();
    }
  });
}

test("the training step reports the losses that float64 has for its first two steps, and those are PyTorch's", async () => {
  const workload = workloadOf('torch-step', { op: 'torch_step', B: 2, seconds: 0.5 }, true);
  const sets = inputSets(workload);
  const references = referencesOf(workload, sets);
  // PyTorch 1.13 on the same sets, f32.
  [4.014953, 4.081254].forEach((want, i) =>
    assert.ok(
      Math.abs(references[i]!['y']!.values[0]! - want) < 5e-6,
      `step ${i}: ${references[i]!['y']!.values[0]}`,
    ),
  );
  const arm = await mgfArm(await openTestGpu(), workload, sets);
  const [measured] = await measure([arm], references, { minRuns: 1, maxRuns: 1 });
  assert.is(measured!.refused, null);
  await arm.dispose();
});

/** A matrix product in one dispatch; `sign` is what its last product is added with. */
const productWith =
  (sign: '+' | '-'): BuildWork =>
  (work, v) => {
    const { M, N, K } = work as Extract<Work, { op: 'matmul' }>;
    const source = `struct P { M: u32, N: u32, K: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> p: P;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= p.M * p.N) { return; }
  var sum = 0.0;
  for (var k = 0u; k < p.K - 1u; k++) { sum += a[id.x / p.N * p.K + k] * b[k * p.N + id.x % p.N]; }
  y[id.x] = sum ${sign} a[id.x / p.N * p.K + p.K - 1u] * b[(p.K - 1u) * p.N + id.x % p.N];
}`;
    const op = defineOp<Record<never, never>>({
      name: 'plain_matmul',
      shape: () => [f32(M, N)],
      backward: null,
      saves: { inputs: [], outputs: [] },
      cost: () => ({ flops: 2 * M * N * K, bytes: 0 }),
      forward: (c) => [
        {
          kernel: kernel('plain_matmul', source),
          bind: { a: c.input(0), b: c.input(1), y: c.outputs[0]! },
          params: { M, N, K },
          grid: [Math.ceil((M * N) / 64), 1, 1],
        },
      ],
    });
    return v['a']!.graph.apply(op, [v['a']!, v['b']!], {})[0]!;
  };

test('a kernel with one sign flipped is refused with its worst element and is never timed', async () => {
  const gpu = await openTestGpu();
  const workload = workloadOf('matmul', SMALL[0]![1], false);
  const sets = inputSets(workload);
  const references = referencesOf(workload, sets);
  const right = await mgfArm(gpu, workload, sets, { build: productWith('+') });
  const wrong = await mgfArm(gpu, workload, sets, { build: productWith('-') });
  const runs = { right: 0, wrong: 0 };
  const counted = (arm: Arm, name: keyof typeof runs): Arm => ({
    ...arm,
    run: (set) => {
      runs[name]++;
      return arm.run(set);
    },
  });
  const [first, second] = await measure(
    [counted(right, 'right'), counted(wrong, 'wrong')],
    references,
    QUICK,
  );
  assert.is(first!.refused, null);
  assert.is(first!.timing!.runs, 5);
  assert.is(second!.timing, null);
  assert.match(second!.refused!, /wrong result on input set 0: y\[\d+\] is .*, must be .*: off by/);
  assert.equal(runs, { right: 2 + 1 + 5, wrong: 1 });
  await right.dispose();
  await wrong.dispose();
});

test('an arm that leaves elements unwritten is refused, because its buffers were poisoned', async () => {
  const workload = workloadOf('softmax', { op: 'softmax', rows: 70, columns: 40 }, false);
  const sets = inputSets(workload);
  const source = `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(40) fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) i: u32) {
  var top = 0.0; for (var j = 0u; j < 40u; j++) { top = max(top, x[w.x * 40u + j]); }
  var total = 0.0; for (var j = 0u; j < 40u; j++) { total += exp(x[w.x * 40u + j] - top); }
  y[w.x * 40u + i] = exp(x[w.x * 40u + i] - top) / total;
}`;
  const rows =
    (n: number): BuildWork =>
    (_, { x }) =>
      x!.graph.apply(
        defineOp<Record<never, never>>({
          name: 'rows',
          shape: () => [f32(70, 40)],
          backward: null,
          saves: { inputs: [], outputs: [] },
          cost: () => ({ flops: 0, bytes: 0 }),
          forward: (c) => [
            { kernel: kernel('rows', source), bind: { x: c.input(0), y: c.outputs[0]! }, grid: [n, 1, 1] },
          ],
        }),
        [x!],
        {},
      )[0]!;
  const gpu = await openTestGpu();
  for (const n of [70, 69]) {
    const arm = await mgfArm(gpu, workload, sets, { build: rows(n) });
    const [measured] = await measure([arm], referencesOf(workload, sets), QUICK);
    if (n === 70) assert.is(measured!.refused, null);
    else assert.match(measured!.refused!, /y\[2760\] is NaN/);
    await arm.dispose();
  }
});

test('outputs that are missing, short, not finite or off are each told apart', () => {
  const reference = { y: { size: 4, indices: Int32Array.of(0, 3), values: Float64Array.of(1, -1) } };
  assert.is(disagreement({ y: [1, 9, 9, -1] }, reference), null);
  assert.is(disagreement({}, reference), 'y is missing');
  assert.is(disagreement({ y: [1] }, reference), 'y has 1 elements instead of 4');
  assert.is(disagreement({ y: [1, NaN, 0, -1] }, reference), 'y[1] is NaN');
  assert.match(
    disagreement({ y: [1.001, 0, 0, 1] }, reference)!,
    /^y\[3\] is 1\.00000, must be -1\.00000: off by 2\.0e\+0/,
  );
  assert.is(disagreement({ y: [1.001, 0, 0, -1] }, reference, 0.01), null);
});

/** An arm that computes nothing and notes when it runs. */
function fake(engine: Engine, log: string[], answer: (set: number) => number, fail = Infinity): Arm {
  let runs = 0;
  let last = 0;
  return {
    engine,
    async run(set) {
      log.push(`${engine}${set}`);
      if (++runs > fail) throw new Error('out of luck\nwith a stack');
      last = set;
      return 10 * runs;
    },
    outputs: async () => ({ y: Float32Array.of(answer(last)) }),
    dispose: async () => undefined,
  };
}

test(
  'arms take turns in an order that rotates, on input sets that rotate; one that fails drops out with ' +
    'its reason',
  async () => {
    const log: string[] = [];
    const references = [1, 2].map((value) => ({
      y: { size: 1, indices: Int32Array.of(0), values: Float64Array.of(value) },
    }));
    const measured = await measure(
      [
        fake('mgf', log, (set) => set + 1),
        fake('ort', log, (set) => set + 1),
        fake('tfjs', log, () => 1),
        fake('jax-js', log, (set) => set + 1, 4),
      ],
      references,
      QUICK,
    );
    assert.equal(
      measured.map((m) => m.refused),
      [
        null,
        null,
        "wrong result on input set 1: y[0] is 1.00000, must be 2.00000: off by 5.0e-1 of the tensor's " +
          'size, 0.0005 is allowed',
        'failed: out of luck',
      ],
    );
    const timed = log.slice(log.indexOf('jax-js1') + 1 + 3);
    assert.equal(timed, [
      'mgf0',
      'ort0',
      'jax-js0',
      'ort1',
      'jax-js1',
      'mgf1',
      'mgf0',
      'ort0',
      'ort1',
      'mgf1',
      'mgf0',
      'ort0',
    ]);
    assert.is(measured[0]!.timing!.runs, 5);
    assert.is(measured[0]!.clock, 'wall');
  },
);

test('the ceiling that counts is the scarcer one', () => {
  assert.is(ofCeiling({ gflops: 10, gbps: 5 }, 10e9, 1e9, 2000), 0.5);
  assert.is(ofCeiling({ gflops: 10, gbps: 5 }, 1e9, 10e9, 4000), 0.5);
});

test('a profile of a training program: every dispatch is timed, products cost what the op says, shares add up', async () => {
  const gpu = await openTestGpu();
  const graph = new Graph();
  const x = graph.constant('x', [8, 12], noise(96, 1));
  const w = graph.constant('w', [16, 12], noise(192, 2));
  const weight = graph.state('v', [16, 12], { requiresGrad: true });
  const target = graph.constant('t', [8, 16], noise(128, 3));
  const loss = mseLoss(linear(x, weight), target);
  const program = await compile(gpu, graph, {
    keep: { g: grad(loss, [weight])[0]!, y: linear(x, w) } as Record<string, Value>,
  });
  await program.step();
  const costs = dispatchCosts(program.dispatches);
  const products = program.dispatches
    .map((d, i) => ({ d, cost: costs[i]! }))
    .filter(({ d }) => d.node.op.name === 'linear');
  assert.is(products.length, 3);
  for (const { cost } of products) assert.is(cost.flops, 2 * 8 * 12 * 16);
  assert.is(
    products.find(({ d }) => d.node.phase === 'forward')!.cost.bytes,
    4 * (8 * 12 + 12 * 16 + 8 * 16),
  );
  const shares = aggregate([await profileProgram(gpu, program), await profileProgram(gpu, program)], {
    gflops: 10,
    gbps: 10,
  });
  // On lavapipe products read copies of their operands, which count beside the dispatches.
  assert.is(
    shares.reduce((n, s) => n + s.calls, 0),
    program.dispatches.reduce((n, d) => n + 1 + d.copies.length, 0),
  );
  assert.is(
    shares.some((s) => s.variant === 'copies into images'),
    program.dispatches.some((d) => d.copies.length > 0),
  );
  assert.ok(Math.abs(shares.reduce((n, s) => n + s.share, 0) - 1) < 1e-9);
  assert.is(variantName({ kernel: 'k', constants: { MODE: 0, A: 1, B: 0, WG: 64 } }), 'k MODE=0 A=1');
  program.destroy();
});

test('a pre-training step on made-up speech passes its own check and is timed with its host part', async () => {
  const step = await openStep(
    await openTestGpu(),
    presetRunConfig('nano-mel', { train: { utterances_per_batch: 2, crop_seconds: 1 } }),
  );
  assert.is(await step.check(), null);
  const { ms, hostMs, loss } = await step.step(0);
  assert.ok(hostMs > 0 && hostMs <= ms && Number.isFinite(loss));
  assert.is((await step.profile()).length, step.info.dispatches);
  step.destroy();
});

test('what a step will take is estimated before anything is allocated', () => {
  const tiny = estimateStep(stepConfig('tiny-step', 'cpu'));
  const base = estimateStep(stepConfig('base-step', 'cpu'));
  const onGpu = estimateStep(stepConfig('base-step', 'gpu'));
  assert.ok(base.bytes > 1.5 * 2 ** 30 && base.bytes < 6 * 2 ** 30, `${base.bytes}`);
  assert.ok(tiny.flops > 5e9 && tiny.flops < base.flops && base.flops < onGpu.flops);
});

const result = (
  name: string,
  median: number,
  min: number,
  max: number,
  more: Partial<Result> = {},
): Result => ({ suite: 'kernels', name, engine: 'mgf', ms: { median, min, max }, ...more });
const fileOf = (results: Result[], more: Partial<ResultsFile> = {}): ResultsFile => ({
  adapter: 'an adapter',
  versions: { mgf: '1' },
  date: '2026-01-01T00:00:00Z',
  results,
  ...more,
});

test('a file of results is read as it was written, and a wrong one is refused with the place', async () => {
  const file = fileOf([result('a', 1.5, 1, 2, { gflops: 3, of_ceiling: 0.5, clock: 'wall' })], {
    refused: [{ suite: 's', name: 'n', engine: 'e', reason: 'r' }],
  });
  assert.equal(parseResults(formatResults(file), 'x'), file);
  const sampled = result('a', 2, 1, 3, { variant: 'grid 4,1,1', samples: [1, 2, 3] });
  const more = fileOf([sampled], { complete: false });
  assert.equal(parseResults(formatResults(more), 'x'), more);
  assert.match(formatResults(more), /"samples": \[1, 2, 3\]/);
  assert.match(formatReport(more), /Interrupted: what is here was measured before/);
  await failsWith('data', /x\.json is not JSON/, () => parseResults('{', 'x.json'));
  await failsWith('data', /results\.0\.ms/, () =>
    parseResults(
      JSON.stringify({ ...file, results: [{ ...file.results[0], ms: { median: 1, min: 1 } }] }),
      'x.json',
    ),
  );
  await failsWith('data', /results/, () => formatResults(fileOf([result('a', NaN, 1, 2)])));
});

test('slower and faster are what lies outside both the ranges and a tenth; the rest is noise', () => {
  const before = fileOf([
    result('slow', 10, 9, 11),
    result('fast', 10, 9, 11),
    result('overlaps', 10, 9, 13),
    result('close', 10, 9.99, 10.01),
    result('gone', 1, 1, 1),
  ]);
  const after = fileOf(
    [
      result('slow', 20, 19, 21),
      result('fast', 5, 4, 6),
      result('overlaps', 14, 12, 15),
      result('close', 10.5, 10.4, 10.6),
      result('new', 1, 1, 1),
    ],
    { adapter: 'another' },
  );
  const c = compareResults(before, after);
  assert.equal(
    c.slower.map((x) => [x.name, x.ratio]),
    [['slow', 2]],
  );
  assert.equal(
    c.faster.map((x) => [x.name, x.ratio]),
    [['fast', 0.5]],
  );
  assert.is(c.same, 2);
  assert.equal([c.onlyBefore, c.onlyAfter], [['kernels gone (mgf)'], ['kernels new (mgf)']]);
  assert.is(c.warnings.length, 1);
  const text = formatComparison(c, before);
  for (const part of ['1 slower, 1 faster, 2 the same', 'the adapters differ', 'kernels slow (mgf)']) {
    assert.ok(text.includes(part), part);
  }
  assert.equal(compareResults(before, before).slower, []);
  assert.equal(compareResults(before, after, 1.5).slower, [], 'a threshold of 150 %');
});

const ceiling = (gflops: number, median: number, variant: string): Result => ({
  ...result('multiply-add', median, median, median, { gflops, variant }),
  suite: 'ceilings',
});

test('ceilings are compared by rate: a faster variant of other work is not "0.39 times as long"', () => {
  const before = fileOf([ceiling(76, 100, '16 accumulators')]);
  const c = compareResults(before, fileOf([ceiling(99, 39, '8 accumulators')]));
  assert.equal(c.warnings, [
    "the adapter's own multiply-add ceiling was 76.0 GFLOP/s and is 99.0 now (1.30 times), " +
      'reached by another variant (8 accumulators; before: 16 accumulators): the machine is not in the ' +
      'same state',
  ]);
  const sameRate = compareResults(before, fileOf([ceiling(77, 50, 'b')]));
  assert.equal(sameRate.warnings, [], 'other work, the same rate');
});

test('a result of another amount of work is compared by rate, and the comparison says so', () => {
  const before = result('k', 10, 9.9, 10.1, { gflops: 50, variant: 'size x=1024' });
  const after = result('k', 20, 19.9, 20.1, { gflops: 50, variant: 'size x=2048' });
  const c = compareResults(fileOf([before]), fileOf([after]));
  assert.equal([c.slower.length, c.faster.length, c.same], [0, 0, 1]);
  assert.equal(c.warnings, [
    'kernels k (mgf) does 2.00 times the work of before, as size x=2048 instead of size x=1024: ' +
      'compared by rate, 50.0 and now 50.0 GFLOP/s',
  ]);
  const half = { ...after, gflops: 25, ms: { median: 40, min: 39, max: 41 } };
  const [slower] = compareResults(fileOf([before]), fileOf([half])).slower;
  assert.is(slower!.ratio, 2);
});

test('a difference no larger than what the ceilings moved is inconclusive; a larger one stands', () => {
  const before = fileOf([ceiling(100, 10, 'a'), result('a', 10, 9.9, 10.1), result('b', 10, 9.9, 10.1)]);
  const after = fileOf([ceiling(70, 14.3, 'a'), result('a', 13, 12.9, 13.1), result('b', 20, 19.9, 20.1)]);
  const c = compareResults(before, after);
  const text = formatComparison(c, before);
  assert.equal([c.inconclusive.map((x) => x.name), c.slower.map((x) => x.name)], [['a'], ['b']]);
  assert.match(text, '1 slower, 0 faster, 0 the same within noise, 1 inconclusive');
  assert.match(text, '--against measures in turns');
});

test('the report has a table for each suite and says what is missing; the roofline draws every kernel', async () => {
  const file = fileOf(
    [
      { ...result('multiply-add', 10, 9, 11, { gflops: 50 }), suite: 'ceilings' },
      { ...result('copy', 10, 9, 11, { gbps: 5 }), suite: 'ceilings' },
      result('matmul-1024', 70, 68, 75, { gflops: 30, gbps: 0.2, of_ceiling: 0.6 }),
      result('softmax-1500x768-grad', 4, 3, 5, { gflops: 1, gbps: 1, of_ceiling: 0.2 }),
      result('tiny-step', 100, 90, 110, { share: 1, dispatches: 7 }),
      result('tiny-step: gemm MODE=0', 80, 70, 90, { share: 0.8, calls: 5, gflops: 20, gbps: 1 }),
      { ...result('torch-step', 400, 390, 410, { dispatches: 200, peak_bytes: 2 ** 28 }), suite: 'step' },
      { ...result('torch-step: cold start', 9000, 9000, 9000), suite: 'step' },
      { ...result('matmul-1024', 70, 68, 75), suite: 'peers' },
      { ...result('matmul-1024', 140, 130, 150), suite: 'peers', engine: 'tfjs' },
    ],
    {
      refused: [{ suite: 'peers', name: 'matmul-1024', engine: 'ort', reason: 'wrong result' }],
      left_out: [{ suite: 'kernels', name: 'base-step', engine: 'mgf', reason: 'it needs about 9 GiB' }],
    },
  );
  const report = formatReport(file);
  for (const part of [
    /multiply-add 50\.00 GFLOP\/s/,
    /matmul-1024 +\| +70\.00 \| 68\.00 to 75\.00 \|/,
    /Kernels of tiny-step: 100\.0 ms/,
    /`gemm MODE=0` +\| +5 \|.*80\.0 %/,
    /torch-step .* 256 MiB \| +9\.0 s/,
    /matmul-1024 .*140\.0 \| 130\.0 to 150\.0 \| +2\.00 \|/,
    /ort: wrong result/,
    /base-step, mgf: it needs about 9 GiB/,
  ])
    assert.match(report, part);
  const svg = rooflinePlot(file);
  assert.match(svg, /^<svg[^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  for (const part of [
    'matmul-1024',
    'softmax-1500x768-grad',
    '50 GFLOP/s multiply-add',
    '5.0 GB/s copy',
    'prefers-color-scheme: dark',
  ])
    assert.ok(svg.includes(part), part);
  await failsWith('data', /needs both ceilings/, () => rooflinePlot(fileOf([])));
});

test('what a workload builds is what a user would write: the arm takes the public ops', () => {
  const graph = new Graph();
  const x = graph.input('x', [4, 8]);
  assert.is(buildWork({ op: 'softmax', rows: 4, columns: 8 }, { x }).node!.op.name, 'softmax');
});

test.run();
