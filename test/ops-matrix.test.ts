import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { f32 } from '../src/graph/shape.ts';
import { Graph } from '../src/graph/graph.ts';
import { activationReference } from '../src/ops/activation.ts';
import { attention, attentionReference, selfAttention } from '../src/ops/attention/attention.ts';
import { conv1d, conv1dReference, convTranspose1d, convTranspose1dReference } from '../src/ops/conv/conv.ts';
import { dropoutReference } from '../src/ops/dropout.ts';
import { linear, linearReference } from '../src/ops/gemm/linear.ts';
import { matmul, matmulReference } from '../src/ops/gemm/matmul.ts';
import { compile } from '../src/plan/compile.ts';
import type { Gpu } from '../src/gpu/device.ts';
import { openTestGpu, slowToCompile } from './gpu.ts';
import { check, distance, noise, run, withFamily, type Case, type Tensor } from './harness.ts';

const gpu = await openTestGpu();
/**
 * The shared-memory family, which is slow to compile on CPU adapters: it gets the cases that differ in kind.
 */
const tiles: [string, Gpu][] =
  gpu.profile.family === 'cpu' && !slowToCompile(gpu)
    ? [['shared-memory tiles', withFamily(gpu, 'gpu')]]
    : [];
const usual: [string, Gpu] = ['', gpu];

const tensor = (shape: readonly number[], seed: number, scale = 1): Tensor => ({
  shape,
  data: noise(
    shape.reduce((a, b) => a * b, 1),
    seed,
    scale,
  ),
});

/** One test per family; `both` puts the case through the other family too. */
function matches(name: string, both: boolean, c: Case): void {
  for (const [family, on] of both ? [usual, ...tiles] : [usual])
    test(`${name}${family && `, with ${family}`}, agrees with the float64 reference`, () =>
      check(on, name, c));
}

// ---------------------------------------------------------------------------------------------------- linear

interface Linear {
  x: number[];
  O: number;
  bias?: boolean;
  activation?: 'gelu';
  residual?: boolean;
  both?: boolean;
}
for (const { x, O, bias, activation, residual, both } of [
  { x: [24, 16], O: 20, bias: true },
  { x: [2, 13, 7], O: 5, bias: true, both: true },
  { x: [3, 1], O: 1 },
  { x: [1, 64], O: 3, bias: true },
  { x: [30, 12], O: 8, activation: 'gelu', bias: true },
  { x: [5, 9], O: 7, activation: 'gelu' },
  { x: [2, 9, 8], O: 12, residual: true, bias: true, both: true },
  { x: [7, 10], O: 6, residual: true },
  { x: [70, 33], O: 66, bias: true },
] as Linear[]) {
  const I = x.at(-1)!;
  const M = x.slice(0, -1).reduce((a, b) => a * b, 1);
  matches(
    `linear of [${x.join(', ')}] to ` +
      `${O}${bias ? ' with bias' : ''}${activation ? ' and GELU' : ''}${residual ? ' and residual' : ''}`,
    both ?? false,
    {
      inputs: {
        x: tensor(x, 1),
        w: tensor([O, I], 2, 0.5),
        ...(bias && { b: tensor([O], 3) }),
        ...(residual && { r: tensor([...x.slice(0, -1), O], 4) }),
      },
      build: ({ x, w, b, r }) =>
        linear(x!, w!, b ?? null, { activation: activation ?? 'none', residual: r ?? null }),
      reference: ({ x, w, b, r }) =>
        linearReference(x!, w!, b ?? null, M, I, O).map(
          (v, i) => (activation ? activationReference('gelu', v) : v) + (r ? r[i]! : 0),
        ),
    },
  );
}

test('a product of more row tiles than a grid has workgroups in one direction is whole, first row to last', async () => {
  const rows = 65535 * (gpu.profile.family === 'gpu' ? 64 : 24) + 30;
  const tail = 40;
  const x = new Float32Array(rows * 4).map((_, i) => (i % 7) - 3);
  const w = noise(16, 2);
  const { y } = await run(gpu, 'tall', {
    inputs: { x: { shape: [rows, 4], data: x }, w: { shape: [4, 4], data: w } },
    build: ({ x, w }) => linear(x!, w!),
    forwardOnly: true,
  });
  for (const first of [0, rows >> 1, rows - tail]) {
    const part = (data: Float32Array): Float32Array => data.subarray(first * 4, (first + tail) * 4);
    assert.ok(
      distance(part(y), linearReference(Float64Array.from(part(x)), Float64Array.from(w), null, tail, 4, 4)) <
        1e-6,
      `rows from ${first} on`,
    );
  }
  assert.ok(y.every(Number.isFinite), 'no row was left out');
});

// ---------------------------------------------------------------------------------------------------- matmul

interface Product {
  a: number[];
  b: number[];
  transposeA?: boolean;
  transposeB?: boolean;
  both?: boolean;
}
for (const { a, b, transposeA = false, transposeB = false, both } of [
  { a: [12, 16], b: [16, 8], both: true },
  { a: [12, 16], b: [8, 16], transposeB: true, both: true },
  { a: [16, 12], b: [16, 8], transposeA: true, both: true },
  { a: [16, 12], b: [8, 16], transposeA: true, transposeB: true, both: true },
  { a: [7, 5], b: [5, 9] },
  { a: [7, 5], b: [9, 5], transposeB: true },
  { a: [5, 7], b: [5, 9], transposeA: true },
  { a: [5, 7], b: [9, 5], transposeA: true, transposeB: true },
  { a: [1, 1], b: [1, 1] },
  { a: [40, 3], b: [3, 41] },
  { a: [3, 4, 8], b: [3, 8, 4] },
  { a: [3, 4, 8], b: [8, 4] },
  { a: [4, 8], b: [3, 8, 4] },
  { a: [3, 4, 8], b: [1, 8, 4] },
  { a: [1, 4, 8], b: [3, 8, 4] },
  { a: [2, 1, 4, 8], b: [1, 3, 8, 4], both: true },
  { a: [1, 3, 4, 5], b: [2, 1, 5, 3] },
  { a: [2, 3, 4, 4], b: [3, 4, 4] },
  { a: [2, 3, 4, 4], b: [2, 1, 4, 4] },
  { a: [2, 1, 3, 4, 4], b: [1, 2, 3, 4, 4] },
  { a: [2, 1, 2, 4, 8], b: [3, 1, 8, 4] },
  { a: [2, 1, 2, 1, 4, 4], b: [1, 3, 1, 2, 4, 4], both: true },
  { a: [2, 1, 8, 4], b: [1, 3, 4, 8], transposeA: true, transposeB: true },
  { a: [2, 3, 5, 3], b: [2, 1, 7, 3], transposeB: true },
  { a: [3, 1, 6, 5], b: [2, 6, 7], transposeA: true },
] as Product[]) {
  matches(
    `matmul of [${a.join(', ')}]${transposeA ? '^T' : ''} and [${b.join(', ')}]${transposeB ? '^T' : ''}`,
    both ?? false,
    {
      inputs: { a: tensor(a, 1), b: tensor(b, 2) },
      build: ({ a, b }) => matmul(a!, b!, { transposeA, transposeB }),
      reference: (v) => matmulReference(v['a']!, v['b']!, { a, b }, { transposeA, transposeB }),
    },
  );
}

// ---------------------------------------------------------------------------------------------- convolutions

interface Conv {
  x: number[];
  Cout: number;
  K: number;
  stride?: number;
  padding?: number;
  dilation?: number;
  groups?: number;
  trim?: number;
  bias?: boolean;
  both?: boolean;
}
for (const { x, Cout, K, bias, both, ...attrs } of [
  { x: [2, 20, 4], Cout: 8, K: 3, stride: 2, both: true },
  { x: [2, 17, 1], Cout: 8, K: 10, stride: 5, both: true },
  { x: [1, 9, 3], Cout: 5, K: 3, bias: true },
  { x: [2, 12, 4], Cout: 4, K: 3, padding: 1, bias: true, both: true },
  { x: [1, 14, 5], Cout: 7, K: 3, padding: 2, dilation: 2 },
  { x: [2, 21, 4], Cout: 8, K: 3, stride: 2, dilation: 3, padding: 1, both: true },
  { x: [1, 19, 3], Cout: 3, K: 2, stride: 3, dilation: 2 },
  { x: [2, 16, 4], Cout: 4, K: 1, stride: 3 },
  { x: [1, 16, 3], Cout: 2, K: 2, stride: 5, padding: 1 },
  { x: [2, 11, 16], Cout: 16, K: 5, padding: 2, groups: 4, bias: true, both: true },
  { x: [2, 11, 8], Cout: 8, K: 4, padding: 2, groups: 8, trim: 1, bias: true },
  { x: [1, 12, 6], Cout: 9, K: 3, padding: 1, groups: 3 },
  { x: [1, 12, 6], Cout: 6, K: 3, padding: 1, groups: 6, stride: 2 },
  { x: [1, 15, 4], Cout: 12, K: 3, groups: 2, stride: 2, dilation: 2, padding: 3 },
  { x: [2, 13, 8], Cout: 8, K: 16, padding: 8, groups: 2, trim: 1, bias: true },
  { x: [1, 3, 4], Cout: 4, K: 3 },
  { x: [1, 1, 4], Cout: 4, K: 7, padding: 3 },
  { x: [3, 40, 2], Cout: 1, K: 7, padding: 3, bias: true },
] as Conv[]) {
  const w = [Cout, K, x[2]! / (attrs.groups ?? 1)];
  matches(
    `conv1d of [${x.join(', ')}] to ${Cout} with kernel ${K} ${Object.entries(attrs)
      .map(([k, v]) => `${k} ${v}`)
      .join(' ')}`,
    both ?? false,
    {
      inputs: { x: tensor(x, 1), w: tensor(w, 2), ...(bias && { b: tensor([Cout], 3) }) },
      build: ({ x, w, b }) => conv1d(x!, w!, b ?? null, attrs),
      reference: (v) =>
        conv1dReference(v['x']!, v['w']!, v['b'] ?? null, { x: f32(...x), w: f32(...w) }, attrs),
    },
  );
}

interface Transposed {
  x: number[];
  Cout: number;
  K: number;
  stride?: number;
  padding?: number;
  outputPadding?: number;
  bias?: boolean;
  both?: boolean;
}
for (const { x, Cout, K, bias, both, ...attrs } of [
  { x: [2, 6, 8], Cout: 4, K: 8, stride: 4, padding: 2, bias: true, both: true },
  { x: [2, 5, 4], Cout: 2, K: 9, stride: 5, padding: 2, bias: true },
  { x: [1, 7, 3], Cout: 5, K: 3 },
  { x: [2, 5, 4], Cout: 4, K: 2, stride: 4, bias: true, both: true },
  { x: [1, 5, 3], Cout: 2, K: 1, stride: 3 },
  { x: [1, 6, 4], Cout: 4, K: 4, stride: 2, padding: 1, outputPadding: 1 },
  { x: [1, 6, 5], Cout: 3, K: 3, stride: 3, outputPadding: 2, bias: true },
  { x: [1, 1, 4], Cout: 1, K: 5, stride: 5 },
  { x: [1, 4, 4], Cout: 4, K: 3, padding: 2 },
] as Transposed[]) {
  const w = [x[2]!, K, Cout];
  matches(
    `conv_transpose1d of [${x.join(', ')}] to ${Cout} with kernel ${K} ${Object.entries(attrs)
      .map(([k, v]) => `${k} ${v}`)
      .join(' ')}`,
    both ?? false,
    {
      inputs: { x: tensor(x, 1), w: tensor(w, 2), ...(bias && { b: tensor([Cout], 3) }) },
      build: ({ x, w, b }) => convTranspose1d(x!, w!, b ?? null, attrs),
      reference: (v) =>
        convTranspose1dReference(v['x']!, v['w']!, v['b'] ?? null, { x: f32(...x), w: f32(...w) }, attrs),
    },
  );
}

// ------------------------------------------------------------------------------------------------- attention

interface Heads {
  B: number;
  H: number;
  T: number;
  S: number;
  D: number;
  mask?: Float32Array<ArrayBuffer>;
  both?: boolean;
}
const headwise =
  ({ B, H, T, S, D, mask }: Heads) =>
  ({ q, k, v }: Record<string, Float64Array>): Float64Array => {
    const y = new Float64Array(B * H * T * D);
    for (let z = 0; z < B * H; z++) {
      const row = mask?.subarray(Math.floor(z / H) * S, (Math.floor(z / H) + 1) * S) ?? null;
      if (row?.every((m) => m === 0)) continue; // nothing to attend to: zeros
      y.set(
        attentionReference(
          q!.subarray(z * T * D, (z + 1) * T * D),
          k!.subarray(z * S * D, (z + 1) * S * D),
          v!.subarray(z * S * D, (z + 1) * S * D),
          row,
          D,
        ),
        z * T * D,
      );
    }
    return y;
  };
const attentionCase = (h: Heads): Case => ({
  inputs: {
    q: tensor([h.B, h.H, h.T, h.D], 1),
    k: tensor([h.B, h.H, h.S, h.D], 2),
    v: tensor([h.B, h.H, h.S, h.D], 3),
    ...(h.mask && { mask: { shape: [h.B, h.S], data: h.mask, constant: true } }),
  },
  build: ({ q, k, v, mask }) => attention(q!, k!, v!, mask ?? null),
  reference: (v) => headwise(h)(v),
});
/** 1 for the first lengths[b] keys of row b. */
const lengths = (S: number, ...n: number[]): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length: n.length * S }, (_, i) => Number(i % S < n[Math.floor(i / S)]!));

for (const { what, B, L, Cin, Cout, K, stride } of [
  { what: 'one of whose operands may come in panels', B: 3, L: 1601, Cin: 64, Cout: 72, K: 3, stride: 2 },
  { what: 'both of whose operands may come in panels', B: 2, L: 1301, Cin: 128, Cout: 64, K: 1, stride: 1 },
]) {
  test(`a weight gradient over thousands of rows, ${what}, is the sum in float64`, async () => {
    const T = Math.floor((L - K) / stride) + 1;
    const x = tensor([B, L, Cin], 1);
    const w = tensor([Cout, K, Cin], 2);
    const { up, gradients } = await run(gpu, 'long', {
      inputs: { x, w },
      build: ({ x, w }) => conv1d(x!, w!, null, { stride }),
    });
    const got: number[] = [];
    const want: number[] = [];
    for (let at = 0; at < w.data.length; at += 37) {
      const o = Math.floor(at / (K * Cin));
      const j = Math.floor(at / Cin) % K;
      const i = at % Cin;
      let sum = 0;
      for (let b = 0; b < B; b++)
        for (let t = 0; t < T; t++)
          sum += up[(b * T + t) * Cout + o]! * x.data[(b * L + t * stride + j) * Cin + i]!;
      got.push(gradients['w']![at]!);
      want.push(sum);
    }
    assert.ok(distance(got, want) < 1e-5, `off by ${distance(got, want)}`);
  });
}

for (const [what, sizes] of [
  ['', { B: 2, H: 2, T: 12, S: 12, D: 8, both: true }],
  [' of an odd length and an odd head size', { B: 1, H: 3, T: 7, S: 7, D: 5 }],
  [' of one frame', { B: 2, H: 2, T: 1, S: 1, D: 4 }],
  [' of 9 queries over 14 keys', { B: 2, H: 1, T: 9, S: 14, D: 8 }],
  [' of 14 queries over one key', { B: 1, H: 2, T: 14, S: 1, D: 4 }],
  [' with padded keys', { B: 3, H: 2, T: 10, S: 10, D: 8, mask: lengths(10, 10, 3, 1), both: true }],
  [
    ' with padded keys of another number than queries',
    { B: 2, H: 2, T: 5, S: 11, D: 4, mask: lengths(11, 4, 11) },
  ],
  [
    ' with keys masked anywhere',
    { B: 1, H: 2, T: 6, S: 9, D: 4, mask: Float32Array.of(0, 1, 0, 0, 1, 1, 0, 1, 0) },
  ],
] as [string, Heads][])
  matches(`attention${what}`, sizes.both ?? false, attentionCase(sizes));

for (const [family, on] of [usual, ...tiles]) {
  test(
    'a row whose keys are all masked gives zeros and zero gradients, and leaves other rows ' +
      `alone${family && `, with ${family}`}`,
    async () => {
      const sizes: Heads = { B: 2, H: 2, T: 6, S: 6, D: 4, mask: lengths(6, 0, 5) };
      const c = attentionCase(sizes);
      await check(on, 'masked row', c);
      const { y, gradients } = await run(on, 'masked row', c);
      const half = y.length / 2;
      for (const [name, data] of [['y', y], ...Object.entries(gradients)] as const) {
        assert.ok(
          data.subarray(0, half).every((v) => v === 0),
          `${name} of the masked row`,
        );
        assert.ok(
          data.subarray(half).some((v) => v !== 0),
          `${name} of the other row`,
        );
      }
    },
  );
}

test('attention of large logits stays finite and picks the largest', async () => {
  const { y } = await run(gpu, 'large', {
    inputs: {
      q: { shape: [1, 1, 1, 4], data: Float32Array.of(100, 0, 0, 0) },
      k: { shape: [1, 1, 2, 4], data: Float32Array.of(90, 0, 0, 0, -90, 0, 0, 0) },
      v: { shape: [1, 1, 2, 4], data: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) },
    },
    build: ({ q, k, v }) => attention(q!, k!, v!),
  });
  assert.equal([...y], [1, 2, 3, 4]);
});

/** [B, H, T, D] tensors side by side as [B, T, 3 H D]. */
function pack(parts: readonly ArrayLike<number>[], { B, H, T, D }: Heads): Float64Array {
  const W = parts.length * H * D;
  const out = new Float64Array(B * T * W);
  parts.forEach((x, p) => {
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++)
        for (let t = 0; t < T; t++)
          for (let d = 0; d < D; d++)
            out[(b * T + t) * W + (p * H + h) * D + d] = x[((b * H + h) * T + t) * D + d]!;
  });
  return out;
}
const unpack = (x: Float64Array, { B, H, T, D }: Heads): Float64Array[] =>
  [0, 1, 2].map((p) => {
    const out = new Float64Array(B * H * T * D);
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++)
        for (let t = 0; t < T; t++)
          for (let d = 0; d < D; d++)
            out[((b * H + h) * T + t) * D + d] = x[(b * T + t) * 3 * H * D + (p * H + h) * D + d]!;
    return out;
  });

for (const sizes of [
  { B: 2, H: 2, T: 9, S: 9, D: 8, both: true },
  { B: 2, H: 3, T: 5, S: 5, D: 3, mask: lengths(5, 5, 2) },
] as Heads[]) {
  const { B, H, T, D, mask } = sizes;
  matches(
    `self-attention of ${H} heads of ${D} on one projection${mask ? ' with padded frames' : ''}`,
    sizes.both ?? false,
    {
      inputs: {
        qkv: tensor([B, T, 3 * H * D], 1),
        ...(mask && { mask: { shape: [B, T], data: mask, constant: true } }),
      },
      build: ({ qkv, mask }) => selfAttention(qkv!, H, { keyMask: mask ?? null }),
      reference: ({ qkv }) => {
        const [q, k, v] = unpack(qkv!, sizes) as [Float64Array, Float64Array, Float64Array];
        return pack([headwise(sizes)({ q, k, v })], sizes);
      },
    },
  );
}

test('self-attention on one projection is attention on its parts', async () => {
  const sizes: Heads = { B: 2, H: 2, T: 10, S: 10, D: 4 };
  const c = attentionCase(sizes);
  const apart = await run(gpu, 'apart', { ...c, forwardOnly: true });
  const qkv = Float32Array.from(
    pack(
      (['q', 'k', 'v'] as const).map((p) => c.inputs[p]!.data),
      sizes,
    ),
  );
  const together = await run(gpu, 'together', {
    inputs: { qkv: { shape: [2, 10, 24], data: qkv } },
    build: ({ qkv }) => selfAttention(qkv!, 2),
    forwardOnly: true,
  });
  assert.ok(distance(together.y, pack([apart.y], sizes)) < 1e-6);
});

/**
 * Self-attention whose weights are dropped with the generator's own mask. The scores' rows are padded to
 * whole vec4s.
 */
const dropped =
  ({ B, H, T, D }: Heads, p: number, node: number, seed: [number, number], step: number) =>
  ({ qkv }: Record<string, Float64Array>): Float64Array => {
    const [q, k, v] = unpack(qkv!, { B, H, T, S: T, D }) as [Float64Array, Float64Array, Float64Array];
    const pitch = Math.ceil(T / 4) * 4;
    const y = new Float64Array(B * H * T * D);
    const factors = dropoutReference(new Float64Array(B * H * T * pitch).fill(1), { p, node }, seed, step);
    for (let z = 0; z < B * H; z++)
      for (let t = 0; t < T; t++) {
        const logits = Array.from({ length: T }, (_, s) => {
          let sum = 0;
          for (let d = 0; d < D; d++) sum += q[(z * T + t) * D + d]! * k[(z * T + s) * D + d]!;
          return sum / Math.sqrt(D);
        });
        const top = Math.max(...logits);
        const weights = logits.map((l) => Math.exp(l - top));
        const total = weights.reduce((a, b) => a + b, 0);
        for (let s = 0; s < T; s++)
          for (let d = 0; d < D; d++)
            y[(z * T + t) * D + d]! +=
              (weights[s]! / total) * factors[(z * T + t) * pitch + s]! * v[(z * T + s) * D + d]!;
      }
    return pack([y], { B, H, T, S: T, D });
  };

test('backward through attention with dropout uses the mask of forward, whatever the step', async () => {
  const sizes: Heads = { B: 2, H: 2, T: 6, S: 6, D: 4 };
  for (const step of [0, 7])
    await check(gpu, `dropout at step ${step}`, {
      inputs: { qkv: tensor([2, 6, 24], 1) },
      build: ({ qkv }) => selfAttention(qkv!, 2, { dropout: 0.3 }),
      reference: dropped(sizes, 0.3, 0, [5, 1], step),
      scalars: { seed_lo: 5, seed_hi: 1, step },
    });
});

test('dropout of attention weights with p = 0.5 preserves the mean over draws', async () => {
  const g = new Graph();
  const qkv = g.constant('qkv', [2, 16, 24], noise(768, 1));
  const program = await compile(gpu, g, {
    outputs: { whole: selfAttention(qkv, 2), drawn: selfAttention(qkv, 2, { dropout: 0.5 }) },
  });
  const draws = 200;
  const { whole } = await program.step({}, { seed_lo: 3, seed_hi: 0, step: 0 });
  const mean = new Float64Array(whole!.length);
  for (let step = 0; step < draws; step++) {
    const drawn = (await program.step({}, { seed_lo: 3, seed_hi: 0, step }))['drawn']!;
    drawn.forEach((v, i) => {
      mean[i]! += v / draws;
    });
    assert.ok(distance(drawn, whole!) > 0.1, `draw ${step} drops nothing`);
  }
  program.destroy();
  // A draw's relative error is about 1 / sqrt(keys that matter); over 200 of them it shrinks 14 times.
  assert.ok(distance(mean, whole!) < 0.08, `the mean is off by ${distance(mean, whole!)}`);
});

test.run();
