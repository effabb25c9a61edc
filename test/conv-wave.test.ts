import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { elements, f32 } from '../src/graph/shape.ts';
import { Graph } from '../src/graph/graph.ts';
import { conv1d, conv1dReference, convTranspose1d, convTranspose1dReference } from '../src/ops/conv/conv.ts';
import { vectorJacobianProduct } from '../src/ops/grad.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu, testAdapter } from './gpu.ts';
import { check, noise, type Tensor } from './harness.ts';

const gpu = await openTestGpu();

const tensor = (shape: readonly number[], seed: number): Tensor => ({
  shape,
  data: noise(elements(shape), seed),
});

interface Wave {
  what: string;
  x: number[];
  Cout: number;
  K: number;
  stride?: number;
  padding?: number;
  bias?: boolean;
}
for (const { what, x, Cout, K, bias, ...attrs } of [
  { what: 'several runs of steps, the last one ragged', x: [2, 1004, 1], Cout: 32, K: 10, stride: 5 },
  {
    what: 'more outputs than a tile, ending inside the next',
    x: [1, 403, 1],
    Cout: 44,
    K: 10,
    stride: 5,
    bias: true,
  },
  { what: 'rows that do not start on a vec4', x: [3, 301, 1], Cout: 16, K: 5, stride: 2, bias: true },
  { what: 'padding that does not end on a vec4', x: [2, 60, 1], Cout: 8, K: 7, padding: 3 },
  {
    what: 'padding of rows that do not start on a vec4',
    x: [2, 45, 1],
    Cout: 8,
    K: 12,
    stride: 3,
    padding: 6,
  },
  { what: 'steps that skip samples', x: [2, 300, 1], Cout: 12, K: 3, stride: 16, padding: 1 },
  { what: 'the longest kernel, step by step', x: [2, 96, 1], Cout: 8, K: 16, padding: 9, bias: true },
  { what: 'a single step', x: [1, 10, 1], Cout: 8, K: 10, stride: 5 },
  {
    what: 'an odd number of outputs, which is for the matrix product',
    x: [2, 61, 1],
    Cout: 10,
    K: 10,
    stride: 5,
    bias: true,
  },
] as Wave[]) {
  test(`conv1d of one channel, ${what}, agrees with the float64 reference`, () =>
    check(gpu, what, {
      inputs: { x: tensor(x, 1), w: tensor([Cout, K, 1], 2), ...(bias && { b: tensor([Cout], 3) }) },
      build: ({ x, w, b }) => conv1d(x!, w!, b ?? null, attrs),
      reference: (v) =>
        conv1dReference(v['x']!, v['w']!, v['b'] ?? null, { x: f32(...x), w: f32(Cout, K, 1) }, attrs),
    }));
}

test('the gradients of a transposed convolution to one channel agree with the float64 reference', () =>
  check(gpu, 'transposed', {
    inputs: { x: tensor([2, 9, 8], 1), w: tensor([8, 10, 1], 2), b: tensor([1], 3) },
    build: ({ x, w, b }) => convTranspose1d(x!, w!, b!, { stride: 5, padding: 2 }),
    reference: ({ x, w, b }) =>
      convTranspose1dReference(x!, w!, b!, { x: f32(2, 9, 8), w: f32(8, 10, 1) }, { stride: 5, padding: 2 }),
  }));

/** The kernels of a first layer and of its weight gradient, where some variants are rejected. */
async function kernelsOf(
  on: Gpu,
  Cout: number,
  attrs: { stride?: number; dilation?: number },
  ...rejected: string[]
): Promise<string[]> {
  const g = new Graph();
  const x = g.constant('x', [2, 200, 1], noise(400, 1));
  const w = g.state('w', [Cout, 10, 1], { requiresGrad: true });
  const y = conv1d(x, w, null, attrs);
  const up = g.constant('up', y.shape, noise(elements(y.shape), 2));
  const [dw] = vectorJacobianProduct(new Map([[y, up]]), [w]);
  const program = await compile({ ...on, profile: { ...on.profile, rejected: new Set(rejected) } }, g, {
    keep: { y, dw: dw! },
  });
  const kernels = program.dispatches.map((d) => d.kernel).filter((name) => name !== 'column_sums');
  program.destroy();
  return kernels;
}

if (gpu.profile.family === 'cpu') {
  const products = ['gemm_subgroup', 'gemm_subgroup'];

  test(
    'one channel takes its own kernels on software adapters, and matrix products where those do not ' +
      'apply or were rejected',
    async () => {
      assert.equal(await kernelsOf(gpu, 32, { stride: 5 }), ['conv_wave', 'conv_wave_weight']);
      assert.equal(await kernelsOf(gpu, 32, { stride: 5 }, 'conv_wave'), [
        'gemm_subgroup',
        'conv_wave_weight',
      ]);
      assert.equal(await kernelsOf(gpu, 32, { stride: 5 }, 'conv_wave_weight'), [
        'conv_wave',
        'gemm_subgroup',
      ]);
      for (const [Cout, attrs] of [
        [30, { stride: 5 }],
        [32, { stride: 17 }],
        [32, { dilation: 2 }],
      ] as const)
        assert.equal(await kernelsOf(gpu, Cout, attrs), products);
    },
  );

  test('the kernels of one channel give way to matrix products where they compute wrongly', async () => {
    const prefer = testAdapter();
    const notes: string[] = [];
    const wrong = await openGpu({ ...(prefer && { prefer }), onNote: (note) => notes.push(note) });
    const createModule = wrong.device.createShaderModule.bind(wrong.device);
    wrong.device.createShaderModule = (d) =>
      createModule({
        ...d,
        code: d.label?.startsWith('conv_wave')
          ? d.code.replace(/(y1_0|sum0_9) = fma\(q,/, '$1 = fma(-q,')
          : d.code,
      });
    try {
      assert.equal(await kernelsOf(wrong, 32, { stride: 5 }), products);
      for (const variant of ['conv_wave', 'conv_wave_weight'])
        assert.ok(
          notes.some((note) => note.includes(`variant ${variant} computes wrongly`)),
          notes.join(),
        );
    } finally {
      wrong.close();
    }
  });
}

test.run();
