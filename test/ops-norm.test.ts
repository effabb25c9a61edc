import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { elements, type Shape } from '../src/graph/shape.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { activationReference, gelu, relu, sigmoid, tanh, type Activation } from '../src/ops/activation.ts';
import { dropout, dropoutAdd, dropoutReference } from '../src/ops/dropout.ts';
import { groupNorm, groupNormReference } from '../src/ops/norm/group-norm.ts';
import { vectorJacobianProduct } from '../src/ops/grad.ts';
import { layerNorm, layerNormReference } from '../src/ops/norm/layer-norm.ts';
import { maskRows, maskRowsReference, zeroRows, zeroRowsReference } from '../src/ops/mask.ts';
import { philox4x32 } from '../src/random/philox.ts';
import { weightNorm, weightNormReference } from '../src/ops/norm/weight-norm.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';
import type { Gpu } from '../src/gpu/device.ts';

const gpu = await openTestGpu();
/** The same device with the kernels that GPUs get: right on every adapter, if slow on a CPU. */
const asGpu: Gpu = { ...gpu, profile: { ...gpu.profile, family: 'gpu' } };

/** Deterministic numbers of unit variance, roughly normal. */
function noise(n: number, seed: number, scale = 1, offset = 0): Float32Array<ArrayBuffer> {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length: n }, () => offset + scale * (next() + next() + next() - 1.5) * 2);
}

interface Case {
  /** Inputs with a gradient, then those without. */
  inputs: Record<string, { shape: Shape; data: Float32Array<ArrayBuffer>; constant?: boolean }>;
  build: (inputs: Record<string, Value>) => Value;
  reference: (inputs: Record<string, Float64Array>) => Float64Array;
  tolerance?: number;
  gradTolerance?: number;
  scalars?: Record<string, number>;
  forwardOnly?: boolean;
}

const distance = (got: ArrayLike<number>, want: ArrayLike<number>): number => {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    error += (got[i]! - want[i]!) ** 2;
    norm += want[i]! ** 2;
  }
  return got.length === want.length ? Math.sqrt(error) / Math.max(Math.sqrt(norm), 1e-30) : Infinity;
};

const spread = (x: Float64Array): number => {
  const mean = x.reduce((a, b) => a + b, 0) / x.length;
  return Math.sqrt(x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length) || 1;
};

/**
 * GPU forward against the reference; GPU gradients against central differences of the reference along random
 * directions.
 */
async function check(name: string, c: Case, device = gpu): Promise<void> {
  const graph = new Graph();
  const values = Object.fromEntries(
    Object.entries(c.inputs).map(([k, v]) => {
      return [
        k,
        v.constant ? graph.constant(k, v.shape, v.data) : graph.state(k, v.shape, { requiresGrad: true }),
      ];
    }),
  );
  const y = c.build(values);
  const up = noise(elements(y.shape), 99);
  const targets = c.forwardOnly ? [] : Object.entries(values).filter(([k]) => !c.inputs[k]!.constant);
  const keep: Record<string, Value> = { y };
  if (targets.length) {
    const gradients = vectorJacobianProduct(
      new Map([[y, graph.constant('up', y.shape, up)]]),
      targets.map(([, v]) => v),
    );
    targets.forEach(([k], i) => {
      keep[`d ${k}`] = gradients[i]!;
    });
  }
  const place = new Map(
    Object.entries(values)
      .filter(([k]) => !c.inputs[k]!.constant)
      .map(([k, v]) => {
        const data = c.inputs[k]!.data;
        const buffer = gpu.device.createBuffer({
          size: Math.max(16, Math.ceil(data.length / 4) * 16),
          usage: 0x80 | 0x4 | 0x8,
        });
        gpu.device.queue.writeBuffer(buffer, 0, data);
        return [v, { buffer, offset: 0, size: buffer.size }];
      }),
  );
  const program = await compile(device, graph, { keep, place, label: name });
  program.poison();
  await program.step({}, c.scalars);
  const f64 = Object.fromEntries(Object.entries(c.inputs).map(([k, v]) => [k, Float64Array.from(v.data)]));
  const error = distance(await program.read('y'), c.reference(f64));
  assert.ok(error <= (c.tolerance ?? 2e-6), `${name}: forward is off by ${error}`);
  for (const [k] of targets) {
    const got = await program.read(`d ${k}`);
    for (let seed = 0; seed < 3; seed++) {
      const direction = noise(got.length, 7 + seed);
      const h = 1e-5 * spread(f64[k]!);
      const at = (sign: number): Float64Array =>
        c.reference({ ...f64, [k]: f64[k]!.map((v, i) => v + sign * h * direction[i]!) });
      const plus = at(1);
      const minus = at(-1);
      let want = 0;
      let size = 0;
      let have = 0;
      for (let i = 0; i < up.length; i++) want += (up[i]! * (plus[i]! - minus[i]!)) / (2 * h);
      for (let i = 0; i < got.length; i++) {
        have += got[i]! * direction[i]!;
        size += got[i]! ** 2;
      }
      assert.ok(
        Math.abs(have - want) <= (c.gradTolerance ?? 2e-5) * Math.sqrt(size),
        `${name}: gradient of ${k} along a direction is ${have}, not ${want}`,
      );
    }
    assert.ok(got.every(Number.isFinite), `${name}: gradient of ${k} has an element that nobody wrote`);
  }
  program.destroy();
  for (const region of place.values()) region.buffer.destroy();
}

const reference =
  (f: Activation) =>
  (x: Float64Array): Float64Array =>
    x.map((v) => activationReference(f, v));

for (const [rows, d, activation] of [
  [5, 7, 'gelu'],
  [1, 1, 'gelu'],
  [3, 63, 'gelu'],
  [2, 65, 'gelu'],
  [50, 64, 'none'],
  [50, 64, 'gelu'],
  [1100, 20, 'gelu'],
  [1, 512, 'gelu'],
] as const) {
  test(
    `layer norm of ${rows} rows of ${d}${activation === 'gelu' ? ' with GELU' : ''} and its gradients ` +
      'agree with the reference',
    () =>
      check('layer_norm', {
        inputs: {
          x: { shape: [rows, d], data: noise(rows * d, 1, 2, 0.5) },
          weight: { shape: [d], data: noise(d, 2, 0.5, 1) },
          bias: { shape: [d], data: noise(d, 3) },
        },
        build: ({ x, weight, bias }) => layerNorm(x!, weight!, bias!, { activation }),
        reference: ({ x, weight, bias }) => {
          const y = layerNormReference(x!, weight!, bias!, d, 1e-5);
          return activation === 'gelu' ? reference('gelu')(y) : y;
        },
        // A row of one value has a gradient of exactly 0 for x, so that there is nothing to be relative to.
        forwardOnly: d === 1,
      }),
  );
}

test('the layer norm, row mask and group norm kernels for GPUs agree with the reference', async () => {
  await check(
    'layer_norm',
    {
      inputs: {
        x: { shape: [37, 140], data: noise(5180, 1, 2, 0.5) },
        weight: { shape: [140], data: noise(140, 2, 0.5, 1) },
        bias: { shape: [140], data: noise(140, 3) },
      },
      build: ({ x, weight, bias }) => layerNorm(x!, weight!, bias!, { activation: 'gelu' }),
      reference: ({ x, weight, bias }) =>
        reference('gelu')(layerNormReference(x!, weight!, bias!, 140, 1e-5)),
    },
    asGpu,
  );
  await check(
    'zero_rows',
    {
      inputs: {
        x: { shape: [2, 9, 12], data: noise(216, 12) },
        mask: { shape: [2, 9], data: noise(18, 3).map((v) => Number(v > 0)), constant: true },
      },
      build: ({ x, mask }) => zeroRows(x!, mask!),
      reference: ({ x, mask }) => zeroRowsReference(x!, mask!, 12),
    },
    asGpu,
  );
  await check(
    'group_norm',
    {
      inputs: {
        x: { shape: [2, 150, 12], data: noise(3600, 16, 2, 3) },
        weight: { shape: [12], data: noise(12, 17, 0.5, 1) },
        bias: { shape: [12], data: noise(12, 18) },
      },
      build: ({ x, weight, bias }) => groupNorm(x!, weight!, bias!, { groups: 3, activation: 'gelu' }),
      reference: ({ x, weight, bias }) =>
        reference('gelu')(groupNormReference(x!, weight!, bias!, [2, 150, 12], 3, 1e-5)),
    },
    asGpu,
  );
});

test('layer norm without weight and bias, with GELU, agrees with the reference', () =>
  check('layer_norm', {
    inputs: { x: { shape: [2, 30, 36], data: noise(2160, 4, 1, 2) } },
    build: ({ x }) => layerNorm(x!, null, null, { activation: 'gelu' }),
    reference: ({ x }) => reference('gelu')(layerNormReference(x!, null, null, 36, 1e-5)),
  }));

test('layer norm keeps its digits when the mean is ten thousand times the spread', () =>
  check('layer_norm', {
    inputs: {
      x: { shape: [80, 64], data: noise(5120, 5, 1, 1e4) },
      weight: { shape: [64], data: noise(64, 6, 0.5, 1) },
      bias: { shape: [64], data: noise(64, 7) },
    },
    build: ({ x, weight, bias }) => layerNorm(x!, weight!, bias!),
    reference: ({ x, weight, bias }) => layerNormReference(x!, weight!, bias!, 64, 1e-5),
  }));

test('layer norm of a constant row is the bias', () =>
  check('layer_norm', {
    inputs: {
      x: { shape: [4, 64], data: new Float32Array(256).fill(3.3) },
      weight: { shape: [64], data: noise(64, 6, 0.5, 1) },
      bias: { shape: [64], data: noise(64, 7) },
    },
    build: ({ x, weight, bias }) => layerNorm(x!, weight!, bias!),
    reference: ({ x, weight, bias }) => layerNormReference(x!, weight!, bias!, 64, 1e-5),
    forwardOnly: true,
  }));

const activations = { gelu, relu, tanh, sigmoid };
for (const f of Object.keys(activations) as Activation[]) {
  test(`${f} and its gradient agree with the reference`, () =>
    check(f, {
      inputs: { x: { shape: [3, 5, 17], data: noise(255, 8, 2, 0.01) } },
      build: ({ x }) => activations[f](x!),
      reference: ({ x }) => reference(f)(x!),
    }));
  test(`${f} of tiny and of huge values is right and finite`, async () => {
    for (const size of [1e-30, 1e-4, 0.1, 30, 1e4, 1e30]) {
      await check(`${f} at ${size}`, {
        inputs: { x: { shape: [67], data: noise(67, 9, size) } },
        build: ({ x }) => activations[f](x!),
        reference: ({ x }) => reference(f)(x!),
        forwardOnly: true,
      });
    }
  });
}

for (const [r, t, d] of [
  [2, 7, 12],
  [1, 1, 5],
  [3, 65, 7],
] as const) {
  const mask = Float32Array.from({ length: r * t }, (_, i) => Number(i % 3 !== 1));
  test(`masked rows [${r}, ${t}, ${d}] become the embedding, which collects their gradients`, () =>
    check('mask_rows', {
      inputs: {
        x: { shape: [r, t, d], data: noise(r * t * d, 10) },
        embedding: { shape: [d], data: noise(d, 11) },
        mask: { shape: [r, t], data: mask, constant: true },
      },
      build: ({ x, embedding, mask }) => maskRows(x!, embedding!, mask!),
      reference: ({ x, embedding, mask }) => maskRowsReference(x!, embedding!, mask!, d),
    }));
  test(`rows [${r}, ${t}, ${d}] of mask 0 become 0 and pass no gradient`, () =>
    check('zero_rows', {
      inputs: {
        x: { shape: [r, t, d], data: noise(r * t * d, 12) },
        mask: { shape: [r, t], data: mask, constant: true },
      },
      build: ({ x, mask }) => zeroRows(x!, mask!),
      reference: ({ x, mask }) => zeroRowsReference(x!, mask!, d),
    }));
}

for (const [B, T, C, groups, activation] of [
  [2, 50, 16, 4, 'none'],
  [2, 127, 16, 16, 'gelu'],
  [1, 65, 7, 7, 'gelu'],
  [3, 130, 6, 2, 'gelu'],
  [2, 1, 12, 4, 'none'],
  [1, 9, 12, 6, 'gelu'],
] as const) {
  test(
    `group norm of [${B}, ${T}, ${C}] in ${groups} groups${activation === 'gelu' ? ' with GELU' : ''} ` +
      'and its gradients agree with the reference',
    () =>
      check('group_norm', {
        inputs: {
          x: { shape: [B, T, C], data: noise(B * T * C, 16, 2, 3) },
          weight: { shape: [C], data: noise(C, 17, 0.5, 1) },
          bias: { shape: [C], data: noise(C, 18) },
        },
        build: ({ x, weight, bias }) => groupNorm(x!, weight!, bias!, { groups, activation }),
        reference: ({ x, weight, bias }) => {
          const y = groupNormReference(x!, weight!, bias!, [B, T, C], groups, 1e-5);
          return activation === 'gelu' ? reference('gelu')(y) : y;
        },
      }),
  );
}

test('group norm keeps its digits when the mean is ten thousand times the spread', () =>
  check('group_norm', {
    inputs: {
      x: { shape: [1, 300, 8], data: noise(2400, 19, 1, 1e4) },
      weight: { shape: [8], data: noise(8, 20, 0.5, 1) },
      bias: { shape: [8], data: noise(8, 21) },
    },
    build: ({ x, weight, bias }) => groupNorm(x!, weight!, bias!, { groups: 8 }),
    reference: ({ x, weight, bias }) => groupNormReference(x!, weight!, bias!, [1, 300, 8], 8, 1e-5),
  }));

for (const [out, K, C] of [
  [32, 5, 8],
  [7, 4, 3],
  [130, 16, 4],
  [3, 1, 5],
] as const) {
  test(`weight norm of [${out}, ${K}, ${C}] and its gradients agree with the reference`, () =>
    check('weight_norm', {
      inputs: {
        v: { shape: [out, K, C], data: noise(out * K * C, 22, 0.3, 0.1) },
        g: { shape: [1, K, 1], data: noise(K, 23, 0.5, 2) },
      },
      build: ({ v, g }) => weightNorm(v!, g!),
      reference: ({ v, g }) => weightNormReference(v!, g!, K, C),
    }));
}

test('Philox gives the numbers published with Random123', () => {
  const words = new Uint32Array(4);
  philox4x32(0, 0, 0, 0, 0, 0, words);
  assert.equal([...words], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  philox4x32(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, words);
  assert.equal([...words], [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
});

const seeds = { seed_lo: 0xdeadbeef, seed_hi: 7, step: 12 };
test('dropout drops what the reference drops, forwards and backwards', async () => {
  await check('dropout', {
    inputs: { x: { shape: [5, 13], data: noise(65, 13) } },
    scalars: seeds,
    build: ({ x }) => dropout(x!, { p: 0.3 }),
    reference: ({ x }) =>
      dropoutReference(x!, { p: 0.3, node: 0 }, [seeds.seed_lo, seeds.seed_hi], seeds.step),
  });
  await check('dropout with a residual', {
    inputs: { x: { shape: [4, 16], data: noise(64, 14) }, residual: { shape: [4, 16], data: noise(64, 15) } },
    scalars: seeds,
    build: ({ x, residual }) => dropoutAdd(gelu(x!), residual!, { p: 0.5 }),
    reference: ({ x, residual }) =>
      dropoutReference(
        reference('gelu')(x!),
        { p: 0.5, node: 1 },
        [seeds.seed_lo, seeds.seed_hi],
        seeds.step,
      ).map((v, i) => v + residual![i]!),
  });
});

test('dropout keeps the share it should and draws anew for another step or another place', () => {
  const x = new Float64Array(40000).fill(1);
  const kept = (node: number, step: number): Float64Array =>
    dropoutReference(x, { p: 0.1, node }, [1, 2], step);
  const base = kept(3, 1);
  assert.ok(Math.abs(base.reduce((a, b) => a + Number(b > 0), 0) / x.length - 0.9) < 0.006);
  for (const other of [kept(4, 1), kept(3, 2)])
    assert.ok(
      Math.abs(base.reduce((a, b, i) => a + Number(b > 0 && other[i]! > 0), 0) / x.length - 0.81) < 0.008,
    );
});

test('a dropout of 0 adds no node', () => {
  const graph = new Graph();
  const x = graph.input('x', [4]);
  assert.is(dropout(x, { p: 0 }), x);
  assert.is(graph.nodes.length, 0);
  assert.throws(() => dropout(x, { p: 1 }), /dropout: the probability is 1/);
});

test.run();
