import { readdirSync, readFileSync } from 'node:fs';
import { create } from 'webgpu';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compileCeilings } from '../src/measure/ceilings.ts';
import { buildTorchStep } from '../bench/workloads/torch-step.ts';
import { runCase } from '../src/conformance/run.ts';
import { defineElementwise, defineLoss } from '../src/custom/elementwise.ts';
import { defineRowLoss } from '../src/custom/rows.ts';
import type { MatrixUnit } from '../src/gpu/adapter.ts';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { portability } from '../src/wgsl/portability.ts';
import { reflect } from '../src/wgsl/reflect.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import type { Dispatch } from '../src/launch/dispatch.ts';
import { Encoder } from '../src/mgf/encoder.ts';
import { Pretrainer } from '../src/mgf/pretrainer.ts';
import { presetConfig, presetRunConfig } from '../src/mgf/presets.ts';
import { Weights } from '../src/nn/weights.ts';
import { crossEntropy } from '../src/ops/losses/cross-entropy.ts';
import { add } from '../src/ops/elementwise.ts';
import { gemmSplit } from '../src/ops/gemm/gemm.ts';
import { grad } from '../src/ops/grad.ts';
import { linear } from '../src/ops/gemm/linear.ts';
import { mseLoss } from '../src/ops/losses/pointwise.ts';
import { matmul } from '../src/ops/gemm/matmul.ts';
import { softmax } from '../src/ops/softmax.ts';
import { compile } from '../src/plan/compile.ts';
import { headLogits, headParameters } from '../src/tasks/probe/head.ts';
import { failsWith } from './harness.ts';

/**
 * Kernels compiled by Dawn's null backend: the whole WGSL compiler and all validation, but no driver and no
 * execution. It runs on any machine. Devices have WebGPU's default limits, so that a kernel which needs more
 * (storage bindings, workgroup memory, invocations) is refused. Matrix units are behind a toggle of Dawn's.
 */
const dawn = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);
const root = new URL('../../', import.meta.url);
const kernels = readdirSync(new URL('kernels/', root))
  .filter((f) => f.endsWith('.wgsl'))
  .map((f) => f.replace('.wgsl', ''))
  .sort();

async function openNull(
  family: 'cpu' | 'gpu',
  subgroupSize: number,
  matrixUnits: readonly MatrixUnit[] = [],
  kind = family,
): Promise<Gpu & { compiled: Map<string, string> }> {
  const adapter = (await dawn.requestAdapter())!;
  const requiredFeatures = [
    ...(subgroupSize ? ['subgroups'] : []),
    ...(matrixUnits.length ? ['chromium-experimental-subgroup-matrix'] : []),
  ] as GPUFeatureName[];
  const device = await adapter.requestDevice({ requiredFeatures });
  const gpu = await openGpu({ device });
  const compiled = new Map<string, string>();
  const createModule = device.createShaderModule.bind(device);
  device.createShaderModule = (descriptor) => {
    compiled.set(descriptor.code, descriptor.label!);
    return createModule(descriptor);
  };
  return {
    ...gpu,
    compiled,
    profile: { ...gpu.profile, kind, family, subgroupSize, matrixUnits, untested: true },
  };
}

/** Compiles everything that the presets, the other ops and the golden cases dispatch. */
async function compileAll(gpu: Gpu): Promise<void> {
  for (const [preset, train] of [
    ['nano', {}],
    ['nano-mel', { accumulation: 2 }],
    ['nano-w2v2', {}],
    ['micro-mel', {}],
    ['tiny', {}],
  ] as const) {
    const run = presetRunConfig(preset, { train: { utterances_per_batch: 2, crop_seconds: 1, ...train } });
    (await Pretrainer.create(gpu, run)).destroy();
  }
  for (const preset of ['nano', 'nano-mel', 'nano-w2v2']) {
    const encoder = await Encoder.random(gpu, presetConfig(preset), 1);
    await encoder.embed([new Float32Array(3000), new Float32Array(5000)], { layers: [2] });
    await encoder.logMel([new Float32Array(3000)]);
    encoder.destroy();
  }
  const g = new Graph();
  const a = g.state('a', [2, 1, 5, 7], { requiresGrad: true });
  const b = g.state('b', [1, 3, 7, 6], { requiresGrad: true });
  const w = g.state('w', [4, 6], { requiresGrad: true });
  const loss = mseLoss(softmax(linear(matmul(a, b), w)), g.input('target', [2, 3, 5, 4]));
  const gradients = grad(loss, [a, b, w]);
  (
    await compile(gpu, g, {
      keep: Object.fromEntries(gradients.map((v, i): [string, Value] => [`g${i}`, v])),
    })
  ).destroy();
  const long = new Graph();
  const rows = long.state('rows', [4096, 8]);
  const gram = defineOp<Record<string, never>>({
    name: 'gram',
    shape: () => [{ shape: [8, 8], dtype: 'f32' }],
    backward: null,
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
    forward: (c) =>
      gemmSplit(c, {
        mode: 'tn',
        a: c.input(0),
        b: c.input(0),
        c: c.outputs[0]!,
        m: 8,
        n: 8,
        k2: 4096,
        aRow: 8,
        bRow: 8,
        cRow: 8,
      }),
  });
  (await compile(gpu, long, { keep: { y: long.apply(gram, [rows], {})[0]! } })).destroy();
  await compileHead(gpu);
  await compileCustom(gpu);
  const folder = new URL('test/golden/', root);
  for (const file of readdirSync(folder).filter((f) => !f.startsWith('mgf_model'))) {
    const { failure } = await runCase(gpu, new Uint8Array(readFileSync(new URL(file, folder))), file);
    assert.is(failure, undefined, `${file}: ${failure}`);
  }
  await compileCeilings(gpu);
  (await buildTorchStep(gpu, { B: 2, seconds: 0.5 })).destroy();
  assert.is(gpu.failure(), null);
}

/** A head of a downstream task with all that one may have, and its gradient. */
async function compileHead(gpu: Gpu): Promise<void> {
  const g = new Graph();
  const spec = {
    task: 'speaker',
    classes: 3,
    layer: 'sum',
    layers: 1,
    dim: 8,
    head: 'mlp',
    pool: 'mean+std',
  } as const;
  const states = [0, 1].map((i) => g.state(`state ${i}`, [2, 5, 8], { requiresGrad: true }));
  const parameters = headParameters(spec).flatMap(({ parts }) =>
    parts.map(({ name, shape }) => g.state(name, shape, { requiresGrad: true })),
  );
  const weights = new Weights(new Map(parameters.map((value) => [value.name, value])));
  const loss = crossEntropy(
    headLogits(weights, states, spec, g.input('mask', [2, 5])),
    g.input('labels', [2], 'i32'),
  );
  const wanted = [...states, ...parameters];
  (
    await compile(gpu, g, {
      keep: Object.fromEntries(grad(loss, wanted).map((v, i): [string, Value] => [`g${i}`, v])),
    })
  ).destroy();
}

/** A loss of each kind by expression, with all that it may have, and an element-wise op. */
async function compileCustom(gpu: Gpu): Promise<void> {
  const g = new Graph();
  const x = g.state('x', [6, 8], { requiresGrad: true });
  const y = g.state('y', [6, 8], { requiresGrad: true });
  const weight = g.input('weight', [6]);
  const label = g.input('label', [6], 'i32');
  const half = defineElementwise({
    name: 'half',
    inputs: ['x'],
    attributes: { by: 0.5 },
    forward: 'by * x',
    backward: { x: 'by' },
    reference: ({ x: v }, { by }) => by * v,
  });
  const apart = defineLoss({
    name: 'apart',
    inputs: ['x', 'y'],
    attributes: { margin: 1 },
    forward: 'max(0.0, margin - x * y)',
    backward: 'numeric',
    reference: ({ x: a, y: b }, { margin }) => Math.max(0, margin - a * b),
  });
  const rows = defineRowLoss({
    name: 'rows',
    rows: ['x', 'y'],
    indices: ['label'],
    attributes: { tau: 1 },
    numbers: { total: { logsumexp: 'x / tau' }, both: { dot: ['x', 'y'] }, length: { norm: 'y' } },
    forward: 'total + both / length - x_at(label) / tau',
    backward: { x: 'exp(x / tau - total) / tau + y / length - f32(j == label) / tau' },
    reference: () => 0,
  });
  for (const w of [weight, null]) {
    const loss = add(apart({ x: half({ x }), y }, {}, w), rows({ x, y, label }, {}, w));
    (
      await compile(gpu, g, {
        keep: Object.fromEntries(grad(loss, [x]).map((v): [string, Value] => ['dx', v])),
        outputs: { loss },
      })
    ).destroy();
  }
}

const headerOf = (name: string): string =>
  readFileSync(new URL(`kernels/${name}.wgsl`, root), 'utf8').split('\n', 1)[0]!;
const reached = new Set<string>();
for (const [name, family, width, units, kind] of [
  ['CPU adapters without subgroups', 'gpu', 0, [], 'cpu'],
  ['CPU adapters with subgroups of 8', 'cpu', 8, []],
  ['CPU adapters with subgroups of 4', 'cpu', 4, []],
  ['GPUs', 'gpu', 32, []],
  ['GPUs without subgroups, as Firefox and Deno show them', 'gpu', 0, []],
  ['GPUs with matrix units of f32', 'gpu', 64, [{ type: 'f32', M: 8, N: 8, K: 8 }]],
] as const) {
  test(`every kernel variant for ${name} compiles within WebGPU's default limits`, async () => {
    const gpu = await openNull(family, width, units, kind);
    await compileAll(gpu);
    for (const [text, kernel] of gpu.compiled) {
      reached.add(kernel);
      // What is written by expression has names of its own, in a kernel of ours.
      for (const own of kernels.filter((k) => k.startsWith('custom_') && text.startsWith(headerOf(k))))
        reached.add(own);
      const { bindings } = reflect(kernel, text);
      const code = text.replace(/\/\/.*$/gm, '');
      assert.is(
        bindings.length,
        [...code.matchAll(/@binding\(/g)].length,
        `${kernel}: a binding that reflect() does not see`,
      );
      assert.is(
        new Set(bindings.map((b) => b.binding)).size,
        bindings.length,
        `${kernel}: a binding number given twice`,
      );
      assert.ok(
        bindings.filter((b) => b.type !== 'uniform').length <= 8,
        `${kernel}: more than 8 storage bindings`,
      );
      // Where there are subgroups, kernels may use them and nothing else that naga refuses.
      const notes = portability(text).filter(({ message }) => width === 0 || !message.includes('"enable '));
      assert.equal(notes, [], `${kernel}: what not every compiler takes`);
    }
    assert.ok(gpu.compiled.size > kernels.length, `${gpu.compiled.size} variants`);
    gpu.device.destroy();
  });
}

test('no kernel is left over: each was compiled for some adapter', () => {
  assert.equal(
    kernels.filter((k) => !reached.has(k)),
    [],
  );
});

test('each kernel and each shared piece begins with a comment that says what it computes', () => {
  const pieces = readdirSync(new URL('kernels/lib/', root)).map((f) => `lib/${f}`);
  for (const file of [...kernels.map((k) => `${k}.wgsl`), ...pieces]) {
    const text = readFileSync(new URL(`kernels/${file}`, root), 'utf8');
    assert.match(text, /^\/\/ \S.{20}/, `${file} has no header`);
  }
});

test('the compiler behind these tests does refuse what is wrong', async () => {
  const gpu = await openNull('gpu', 0);
  const op = (source: string) => ({
    name: 'probe',
    shape: ([x]: readonly ({ shape: readonly number[] } | null)[]) => [
      { shape: x!.shape, dtype: 'f32' as const },
    ],
    backward: null,
    forward: (c: { input(i: number): Value; outputs: readonly Value[] }): Dispatch[] => [
      { kernel: { name: 'probe', source }, bind: { x: c.input(0), y: c.outputs[0]! }, grid: [1, 1, 1] },
    ],
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
  });
  const body = (
    extra: string,
    size = 64,
  ): string => `@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n${extra}
    @compute @workgroup_size(${size}) fn main(@builtin(local_invocation_index) i: u32) { y[i] = x[i]; }`;
  const build = (source: string) => {
    const g = new Graph();
    return compile(gpu, g, { keep: { y: g.apply(op(source), [g.input('x', [64])], {})[0]! } });
  };
  (await build(body(''))).destroy();
  await failsWith('kernel', /probe:3/, () => build(body('const wrong: u32 = 1.5;')));
  await failsWith('kernel', /refused by the device/, () => build(body('', 512)));
  await failsWith('kernel', [/kernel probe was refused by the device/, /workgroup/], () =>
    build(
      body('var<workgroup> wide: array<f32, 8192>;').replace('y[i] = x[i]', 'wide[i] = x[i]; y[i] = wide[i]'),
    ),
  );
});

test.run();
