import { readFileSync } from 'node:fs';
import { create } from 'webgpu';
import { test as every } from 'uvu';
import * as assert from 'uvu/assert';
import type { CaseBuilder } from '../src/conformance/case.ts';
import { runCase } from '../src/conformance/run.ts';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { attention, selfAttention } from '../src/ops/attention/attention.ts';
import { dropoutReference } from '../src/ops/dropout.ts';
import { flashHeadSize } from '../src/ops/attention/flash-attention.ts';
import { grad } from '../src/ops/grad.ts';
import { Encoder } from '../src/mgf/encoder.ts';
import { wantsFlash } from '../src/mgf/network.ts';
import { presetConfig } from '../src/mgf/presets.ts';
import { mseLoss } from '../src/ops/losses/pointwise.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu, slowToCompile } from './gpu.ts';
import {
  distance,
  failsWith,
  noise,
  run,
  speechLike,
  type Floats,
  type Result,
  type Tensor,
} from './harness.ts';

const gpu = await openTestGpu();
const slow = slowToCompile(gpu);
const test = slow ? Object.assign(every.skip, { skip: every.skip }) : every;
if (slow) console.log(`skipped: ${slow}`);
/** Compiles without running; to be held for as long as anything of it is in use. */
const dawn = create(['backend=null']);

interface Sizes {
  B: number;
  H: number;
  T: number;
  S: number;
  D: number;
}
type Heads = Record<'q' | 'k' | 'v', ArrayLike<number>>;

/**
 * Attention and its gradients in float64 over [B, H, ., D]: weights times `factors` (of dropout) in rows of S
 * padded to 4. A row all masked is zero.
 */
function reference(
  { B, H, T, S, D }: Sizes,
  { q, k, v }: Heads,
  up: ArrayLike<number>,
  mask: ArrayLike<number> | null,
  factors: ArrayLike<number> | null,
): Record<'y' | 'q' | 'k' | 'v', Float64Array> {
  const out = {
    y: new Float64Array(q.length),
    q: new Float64Array(q.length),
    k: new Float64Array(k.length),
    v: new Float64Array(k.length),
  };
  const dot = (a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number): number => {
    let sum = 0;
    for (let d = 0; d < D; d++) sum += a[i * D + d]! * b[j * D + d]!;
    return sum;
  };
  const addTo = (to: Float64Array, i: number, by: number, b: ArrayLike<number>, j: number): void => {
    for (let d = 0; d < D; d++) to[i * D + d]! += by * b[j * D + d]!;
  };
  const alpha = 1 / Math.sqrt(D);
  const pitch = Math.ceil(S / 4) * 4;
  for (let z = 0; z < B * H; z++) {
    const keys = [...Array(S).keys()].filter((s) => !mask || mask[Math.floor(z / H) * S + s] === 1);
    for (let t = z * T; t < (z + 1) * T && keys.length; t++) {
      const logits = keys.map((s) => alpha * dot(q, t, k, z * S + s));
      const top = logits.reduce((a, b) => Math.max(a, b));
      const e = logits.map((l) => Math.exp(l - top));
      const total = e.reduce((a, b) => a + b);
      const factor = (s: number): number => (factors ? factors[t * pitch + s]! : 1);
      const dw = keys.map((s) => factor(s) * dot(up, t, v, z * S + s));
      const mean = e.reduce((sum, w, i) => sum + (w / total) * dw[i]!, 0);
      keys.forEach((s, i) => {
        const w = e[i]! / total;
        const ds = alpha * w * (dw[i]! - mean);
        addTo(out.y, t, w * factor(s), v, z * S + s);
        addTo(out.v, z * S + s, w * factor(s), up, t);
        addTo(out.q, t, ds, k, z * S + s);
        addTo(out.k, z * S + s, ds, q, t);
      });
    }
  }
  return out;
}

const heads = ({ B, H, T, S, D }: Sizes, scale = 1): Record<'q' | 'k' | 'v', Tensor> => ({
  q: { shape: [B, H, T, D], data: noise(B * H * T * D, 1, scale) },
  k: { shape: [B, H, S, D], data: noise(B * H * S * D, 2, scale) },
  v: { shape: [B, H, S, D], data: noise(B * H * S * D, 3) },
});
const keyMask = (mask: Floats | null, { B, S }: Sizes): Record<string, Tensor> =>
  mask ? { mask: { shape: [B, S], data: mask, constant: true } } : {};

const apart = (
  on: Gpu,
  s: Sizes,
  inputs: Record<'q' | 'k' | 'v', Tensor>,
  mask: Floats | null,
  flash = true,
): Promise<Result> =>
  run(on, 'attention', {
    inputs: { ...inputs, ...keyMask(mask, s) },
    build: ({ q, k, v, mask }) => attention(q!, k!, v!, mask ?? null, { flash }),
  });

async function agrees(
  s: Sizes,
  {
    mask = everyKey(s),
    inputs = heads(s),
    tolerance = 2e-5,
    on = gpu,
  }: { mask?: Floats | null; inputs?: ReturnType<typeof heads>; tolerance?: number; on?: Gpu } = {},
): Promise<Result> {
  const result = await apart(on, s, inputs, mask);
  const want = reference(s, { q: inputs.q.data, k: inputs.k.data, v: inputs.v.data }, result.up, mask, null);
  for (const [name, got] of [['y', result.y], ...Object.entries(result.gradients)] as const) {
    const error = distance(got, want[name as 'y']);
    assert.ok(error < tolerance, `${name} is off by ${error}`);
  }
  return result;
}

const everyKey = ({ B, S }: Sizes): Floats => new Float32Array(B * S).fill(1);
/** 1 for the first lengths[b] keys of row b. */
const lengths = (S: number, ...n: number[]): Floats =>
  Float32Array.from({ length: n.length * S }, (_, i) => Number(i % S < n[Math.floor(i / S)]!));

// Heads of 32 with a mask wherever it does not matter, so that few kernels are compiled.
for (const [what, sizes, mask] of [
  ['of 49 queries over 49 keys', { B: 2, H: 2, T: 49, S: 49, D: 32 }],
  ['of 70 queries over 37 keys', { B: 1, H: 2, T: 70, S: 37, D: 32 }],
  ['of one query over one key', { B: 1, H: 1, T: 1, S: 1, D: 32 }],
  ['of 5 queries over 131 keys', { B: 1, H: 1, T: 5, S: 131, D: 32 }],
  ['with padded keys', { B: 3, H: 1, T: 40, S: 67, D: 32 }, lengths(67, 67, 33, 1)],
  [
    'with keys masked anywhere',
    { B: 1, H: 2, T: 9, S: 70, D: 32 },
    Float32Array.from(noise(70, 5), (x) => Number(x > 0)),
  ],
  ['with heads of 116, which no tile divides', { B: 1, H: 1, T: 35, S: 66, D: 116 }, null],
] as [string, Sizes, (Floats | null)?][]) {
  test(`flash attention ${what} and its gradients agree with the float64 reference`, async () => {
    await agrees(sizes, { mask: mask === undefined ? everyKey(sizes) : mask });
  });
}

test('600 keys in many tiles, the highest scores in the last ones, agree with the reference', async () => {
  const s = { B: 1, H: 1, T: 66, S: 600, D: 32 };
  const inputs = heads(s);
  inputs.k.data.forEach((x, i) => {
    inputs.k.data[i] = x * (0.2 + Math.floor(i / 32) / 150);
  });
  await agrees(s, { inputs });
});

test('logits of 80 and -80 neither overflow nor vanish', async () => {
  const s = { B: 1, H: 1, T: 40, S: 70, D: 32 };
  const inputs = heads(s, 0.02);
  const size = Math.sqrt(80 * Math.sqrt(32));
  // The first number of each query and key makes logits of 80, -80 and nearly 0.
  for (let t = 0; t < s.T; t++) inputs.q.data[32 * t] = size * [1, -1, 0.001][t % 3]!;
  for (let key = 0; key < s.S; key++) inputs.k.data[32 * key] = size * [1, -1][key % 2]!;
  const { y, gradients } = await agrees(s, { inputs, tolerance: 1e-4 });
  for (const data of [y, ...Object.values(gradients)]) assert.ok(data.some((x) => Math.abs(x) > 1e-3));
});

test('a row whose keys are all masked gives zeros and zero gradients, and leaves other rows alone', async () => {
  const { y, gradients } = await agrees({ B: 2, H: 2, T: 20, S: 40, D: 32 }, { mask: lengths(40, 0, 35) });
  for (const [name, data] of [['y', y], ...Object.entries(gradients)] as const) {
    const half = data.length / 2;
    assert.ok(
      data.subarray(0, half).every((v) => v === 0),
      `${name} of the masked row`,
    );
    assert.ok(
      data.subarray(half).some((v) => v !== 0),
      `${name} of the other row`,
    );
  }
});

// ----------------------------------------------------------------------------------- one projection, dropout

/** [B, H, T, D] tensors side by side as [B, T, parts H D]. */
function pack(parts: readonly ArrayLike<number>[], { B, H, T, D }: Sizes): Floats {
  const W = parts.length * H * D;
  const out = new Float32Array(B * T * W);
  parts.forEach((x, p) => {
    for (let b = 0; b < B; b++)
      for (let h = 0; h < H; h++)
        for (let t = 0; t < T; t++)
          for (let d = 0; d < D; d++)
            out[(b * T + t) * W + (p * H + h) * D + d] = x[((b * H + h) * T + t) * D + d]!;
  });
  return out;
}

const packedSizes: Sizes = { B: 2, H: 2, T: 41, S: 41, D: 32 };
const packedHeads = heads(packedSizes);
const packedMask = lengths(41, 41, 18);
const together = (
  on: Gpu,
  options: { dropout?: number; flash: boolean },
  masked: boolean,
  step = 0,
): Promise<Result> =>
  run(on, 'self_attention', {
    inputs: {
      qkv: {
        shape: [2, 41, 3 * 64],
        data: pack([packedHeads.q.data, packedHeads.k.data, packedHeads.v.data], packedSizes),
      },
      ...keyMask(masked ? packedMask : everyKey(packedSizes), packedSizes),
    },
    build: ({ qkv, mask }) => selfAttention(qkv!, 2, { keyMask: mask ?? null, ...options }),
    scalars: { seed_lo: 5, seed_hi: 1, step },
  });
/** The part of a [B, T, H D] tensor (such as the upstream gradient of y) by heads. */
const byHeads = (x: ArrayLike<number>, { B, H, T, D }: Sizes): Float64Array =>
  Float64Array.from(
    { length: B * H * T * D },
    (_, i) =>
      x[
        (Math.floor(i / (H * T * D)) * T + (Math.floor(i / D) % T)) * H * D +
          (Math.floor(i / (T * D)) % H) * D +
          (i % D)
      ]!,
  );

for (const [p, masked, step] of [
  [0, false, 0],
  [0.3, true, 0],
  [0.3, true, 7],
] as const) {
  test(
    'self-attention on one ' +
      `projection${p ? `, dropping ${p} at step ${step}` : ''}${masked ? ' with padded frames' : ''}, ` +
      'agrees with the reference and with kept scores',
    async () => {
      const got = await together(gpu, { dropout: p, flash: true }, masked, step);
      const kept = await together(gpu, { dropout: p, flash: false }, masked, step);
      const factors = p
        ? dropoutReference(new Float64Array(2 * 2 * 41 * 44).fill(1), { p, node: 0 }, [5, 1], step)
        : null;
      const want = reference(
        packedSizes,
        { q: packedHeads.q.data, k: packedHeads.k.data, v: packedHeads.v.data },
        byHeads(got.up, packedSizes),
        masked ? packedMask : null,
        factors,
      );
      assert.ok(distance(got.y, pack([want.y], packedSizes)) < 1e-5);
      assert.ok(distance(got.gradients['qkv']!, pack([want.q, want.k, want.v], packedSizes)) < 2e-5);
      assert.ok(
        distance(got.y, kept.y) < 1e-6 && distance(got.gradients['qkv']!, kept.gradients['qkv']!) < 1e-6,
      );
    },
  );
}

test('a second run gives the same bits', async () => {
  const [a, b] = [
    await together(gpu, { dropout: 0.3, flash: true }, true),
    await together(gpu, { dropout: 0.3, flash: true }, true),
  ];
  assert.equal([a.y, a.gradients['qkv']], [b.y, b.gradients['qkv']]);
});

// -------------------------------------------------------------------------------------------- the rest of it

const flashCase: CaseBuilder = (c) => {
  const mask = c.has('key_mask')
    ? c.graph.constant('key_mask', c.tensor('key_mask').shape, Float32Array.from(c.tensor('key_mask').data))
    : null;
  return { y: attention(c.input('q'), c.input('k'), c.input('v'), mask, { flash: true }) };
};

for (const file of ['masked', 'd64']) {
  test(`the golden case attention-${file} passes with flash attention`, async () => {
    const bytes = readFileSync(new URL(`../../test/golden/attention-${file}.safetensors`, import.meta.url));
    const { passed, failure, checks } = await runCase(gpu, new Uint8Array(bytes), file, {
      attention: flashCase,
    });
    assert.ok(passed, failure ?? JSON.stringify(checks));
    assert.is(checks.length, 4);
  });
}

test('heads that the kernels have no variant for are refused with a sentence', async () => {
  assert.equal([3, 4, 6, 64, 80, 128, 132].filter(flashHeadSize), [4, 64, 80, 128]);
  const g = new Graph();
  const v = (...shape: number[]): Value => g.state('x', shape);
  await failsWith('shape', [/^attention: flash attention/, /\[1, 1, 5, 6\]/, /heads of 6/], () =>
    attention(v(1, 1, 5, 6), v(1, 1, 5, 6), v(1, 1, 5, 6), null, { flash: true }),
  );
  await failsWith('shape', /^self_attention: .*\[1, 5, 396\] has heads of 132/, () =>
    selfAttention(v(1, 5, 396), 1, { flash: true }),
  );
});

const withLimit = (bytes: number): Gpu => ({
  ...gpu,
  profile: {
    ...gpu.profile,
    limits: new Proxy(gpu.profile.limits, {
      get: (limits, name) =>
        name === 'maxStorageBufferBindingSize' ? bytes : (Reflect.get(limits, name) as unknown),
    }),
  },
});

test(
  'the network keeps no scores on GPUs, nor where they would be larger than a binding, nor ever with ' +
    'heads that the kernels do not take',
  () => {
    const base = presetConfig('base');
    const software = { ...gpu.profile, kind: 'cpu', family: 'cpu' } as const;
    const hardware = { ...gpu.profile, kind: 'gpu', family: 'gpu' } as const;
    const scores = 4 * 2 * 12 * 99 * 100;
    const { profile: limited } = withLimit(scores - 1);
    const { profile: enough } = withLimit(scores);
    assert.equal(
      [software, hardware].map((p) => wantsFlash(base, p, 2, 99)),
      [false, true],
    );
    assert.equal(
      [limited, enough].map((p) => wantsFlash(base, { ...p, kind: 'cpu', family: 'cpu' }, 2, 99)),
      [true, false],
    );
    assert.not(wantsFlash({ ...base, num_attention_heads: 1 }, hardware, 2, 99));
  },
);

test('a clip whose scores would not fit one binding is embedded all the same, as if they were kept', async () => {
  const clip = speechLike(224000, 1);
  const layers = [2];
  const embedded: ArrayLike<number>[] = [];
  for (const on of [gpu, withLimit(2 ** 22)]) {
    const encoder = await Encoder.random(on, presetConfig('nano'), 1);
    embedded.push((await encoder.embed([clip], { layers }))[0]!.layers[0]!);
    encoder.destroy();
  }
  assert.is(embedded[0]!.length, 699 * 32);
  assert.ok(distance(embedded[1]!, embedded[0]!) < 1e-5, `off by ${distance(embedded[1]!, embedded[0]!)}`);
});

const half: Gpu = { ...gpu, profile: { ...gpu.profile, family: 'gpu', precision: 'f16' } };
if (gpu.profile.features.has('shader-f16')) {
  test('with tiles of f16, sums stay f32: results are as near as f16 operands allow', async () => {
    await agrees(
      { B: 1, H: 2, T: 70, S: 150, D: 32 },
      { on: half, tolerance: 2e-3, mask: lengths(150, 140) },
    );
  });
} else test.skip('tiles of f16: skipped, this adapter has no shader-f16');

test('every head size, with and without mask, dropout and f16, compiles within the default limits', async () => {
  const adapter = (await dawn.requestAdapter())!;
  const device = await adapter.requestDevice({ requiredFeatures: ['shader-f16'] });
  assert.is(device.limits.maxComputeWorkgroupStorageSize, 16384);
  const opened = await openGpu({ device });
  const nothing: Gpu = {
    ...opened,
    profile: { ...opened.profile, kind: 'gpu', family: 'gpu', untested: true },
  };
  for (let D = 4; D <= 128; D += 4)
    for (const precision of ['f32', 'f16'] as const) {
      const g = new Graph();
      const qkv = g.state('qkv', [2, 5, 6 * D], { requiresGrad: true });
      const q = g.state('q', [1, 2, 5, D], { requiresGrad: true });
      const a = selfAttention(qkv, 2, {
        flash: true,
        dropout: D % 8 ? 0.1 : 0,
        keyMask: D % 12 ? g.input('mask', [2, 5]) : null,
      });
      const b = attention(q, q, q, null, { flash: true });
      const losses = [mseLoss(a, g.input('a', a.shape)), mseLoss(b, g.input('b', b.shape))];
      const gradients = [grad(losses[0]!, [qkv])[0]!, grad(losses[1]!, [q])[0]!];
      (await compile(nothing, g, { precision, keep: { qkv: gradients[0]!, q: gradients[1]! } })).destroy();
    }
  assert.is(nothing.failure(), null);
  device.destroy();
});

every.run();
