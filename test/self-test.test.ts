import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { useDawn } from '../src/gpu/dawn.ts';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { Graph } from '../src/graph/graph.ts';
import type { Dispatch } from '../src/launch/dispatch.ts';
import { attention, attentionReference } from '../src/ops/attention/attention.ts';
import { gemm } from '../src/ops/gemm/gemm.ts';
import type { Gemm } from '../src/ops/gemm/product.ts';
import { gemmReference } from '../src/ops/gemm/gemm-check.ts';
import { layerNorm, layerNormReference } from '../src/ops/norm/layer-norm.ts';
import { linear, linearReference } from '../src/ops/gemm/linear.ts';
import { compile } from '../src/plan/compile.ts';
import { approvals, rejections, rememberApprovals, selfTest } from '../src/plan/self-test.ts';
import { useApprovals } from '../src/cli/tuning.ts';
import { testAdapter } from './gpu.ts';
import { distance, failsWith, filled, noise, withFamily } from './harness.ts';

useDawn();

type Mutation = readonly [kernel: string, from: RegExp, to: string];

/** A device of its own whose compiler is handed other texts, and what its user was told. */
async function openWrong(
  ...mutations: readonly Mutation[]
): Promise<Gpu & { notes: string[]; hits: number[]; tests: () => number }> {
  const notes: string[] = [];
  const hits = mutations.map(() => 0);
  const prefer = testAdapter();
  const gpu = await openGpu({ ...(prefer && { prefer }), onNote: (note) => notes.push(note) });
  const { device } = gpu;
  const createModule = device.createShaderModule.bind(device);
  const createBuffer = device.createBuffer.bind(device);
  let tests = 0;
  device.createShaderModule = (descriptor) => {
    let { code } = descriptor;
    mutations.forEach(([kernel, from, to], i) => {
      if (kernel !== descriptor.label || !from.test(code)) return;
      hits[i]!++;
      code = code.replace(from, to);
    });
    return createModule({ ...descriptor, code });
  };
  device.createBuffer = (descriptor) => {
    if (descriptor.label === 'self-test read-back') tests++;
    return createBuffer(descriptor);
  };
  return { ...gpu, notes, hits, tests: () => tests };
}

const M = 5;
const I = 12;
const O = 8;
const x = noise(M * I, 1);
const w = noise(O * I, 2);
const b = noise(O, 3);
const f64 = (data: Float32Array): Float64Array => Float64Array.from(data);
const wanted = linearReference(f64(x), f64(w), f64(b), M, I, O);

/** x w^T + b on a device: the result, and the variants that gave it. */
async function runLinear(gpu: Gpu): Promise<{ y: Float32Array; variants: string[] }> {
  const g = new Graph();
  const place = new Map();
  const [vx, vw, vb] = (
    [
      ['x', [M, I], x],
      ['w', [O, I], w],
      ['b', [O], b],
    ] as const
  ).map(([name, shape, data]) => {
    const value = g.state(name, shape);
    place.set(value, filled(gpu, data));
    return value;
  });
  const program = await compile(gpu, g, { outputs: { y: linear(vx!, vw!, vb!) }, place });
  program.poison();
  const { y } = await program.step();
  const variants = program.dispatches.map((d) => d.kernel);
  program.destroy();
  return { y: y as Float32Array, variants };
}

const SIGN: Mutation = ['gemm_subgroup', /fma\(q0, b0, c1\)/, 'fma(-q0, b0, c1)'];
const cpuFamily = await (async () => {
  const gpu = await openWrong();
  const cpu = gpu.profile.family === 'cpu';
  gpu.close();
  return cpu;
})();

test('what passed is remembered by its text and not tested again, here or in the file of the command line', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mgf-approvals-'));
  const kept: string[][] = [];
  const first = await openWrong();
  rememberApprovals(first, { known: [], onApproved: (digests) => kept.push([...digests]) });
  const { y, variants } = await runLinear(first);
  assert.is(first.tests(), 1);
  assert.ok(
    kept.length === 1 && kept[0]!.length > 0 && kept[0]!.every((d) => /^[0-9a-f]{16}$/.test(d)),
    JSON.stringify(kept),
  );
  first.close();
  const second = await openWrong();
  rememberApprovals(second, { known: kept[0]!, onApproved: () => assert.unreachable('nothing is new') });
  const again = await runLinear(second);
  assert.is(second.tests(), 0);
  assert.equal([again.y, again.variants, approvals(second)], [y, variants, approvals(first)]);
  second.close();
  const other = await openWrong();
  rememberApprovals(other, { known: kept[0]!.map((d) => [...d].reverse().join('')) });
  await runLinear(other);
  assert.is(other.tests(), 1, 'other texts are tested');
  other.close();
  for (const tests of [1, 0]) {
    const gpu = await openWrong();
    await useApprovals(gpu, '1.0.0', folder);
    await runLinear(gpu);
    assert.is(gpu.tests(), tests);
    while (readdirSync(folder).filter((f) => f.endsWith('.json')).length === 0)
      await new Promise((done) => setTimeout(done, 10));
    gpu.close();
  }
  rmSync(folder, { recursive: true });
});

if (cpuFamily) {
  test(
    'what failed is tested at every start, and what passed earlier but is refused by the compiler gives ' +
      'way',
    async () => {
      const kept: string[] = [];
      const remember = (gpu: Gpu): void =>
        rememberApprovals(gpu, { known: kept, onApproved: (digests) => kept.push(...digests) });
      for (const _ of [1, 2]) {
        const wrong = await openWrong(SIGN);
        remember(wrong);
        assert.equal((await runLinear(wrong)).variants, ['gemm_tile']);
        assert.ok(rejections(wrong).length > 0);
        wrong.close();
      }
      const right = await openWrong();
      remember(right);
      assert.equal((await runLinear(right)).variants, ['gemm_subgroup']);
      right.close();
      const refusing = await openWrong(['gemm_subgroup', /fn main/, 'fn lost']);
      remember(refusing);
      assert.equal((await runLinear(refusing)).variants, ['gemm_tile']);
      refusing.close();
    },
  );

  test(
    'a kernel with one sign flipped is refused, the user is told once, and the fallback gives the right ' +
      'result',
    async () => {
      const gpu = await openWrong(SIGN);
      const first = await runLinear(gpu);
      assert.ok(gpu.hits[0]! > 0, 'the sign was flipped');
      assert.equal(first.variants, ['gemm_tile']);
      assert.ok(distance(first.y, wanted) < 1e-6, `off by ${distance(first.y, wanted)}`);
      const refused = rejections(gpu);
      assert.ok(
        refused.length > 0 &&
          refused.every((r) => r.kernel === 'gemm_subgroup' && r.error > 0.1 && r.error < 100),
        JSON.stringify(refused),
      );
      assert.is(gpu.notes.length, refused.length);
      refused.forEach((r, i) =>
        assert.ok(
          gpu.notes[i]!.startsWith(
            `${gpu.profile.name}: the kernel variant ${r.variant} computes wrongly there (off by `,
          ),
          gpu.notes[i],
        ),
      );
      const tests = gpu.tests();
      assert.equal((await runLinear(gpu)).variants, ['gemm_tile']);
      assert.is(gpu.notes.length, refused.length, 'told once');
      assert.is(gpu.tests(), tests, 'and not tested again');
      gpu.close();
    },
  );

  test('where the fallback is wrong too, the error names adapter and variant', async () => {
    const gpu = await openWrong(SIGN, ['gemm_tile', /p\.alpha/, '(-p.alpha)']);
    const only = { ...gpu, profile: { ...gpu.profile, rejected: new Set(tilesBut('tile-64x64')) } };
    await failsWith(
      'kernel',
      [
        new RegExp(gpu.profile.name.replace(/\W/g, '.')),
        /kernel variant tile-64x64 computes wrongly there \(off by [\d.e+]+\), and there is no other/,
      ],
      () => runLinear(only),
    );
    assert.is(rejections(gpu).at(-1)!.variant, 'tile-64x64');
    assert.ok(
      gpu.notes.every((note) => note.startsWith(gpu.profile.name)),
      gpu.notes.join('\n'),
    );
    gpu.close();
  });

  test('a variant that the device refuses to compile is left out like a wrong one', async () => {
    const gpu = await openWrong(['gemm_subgroup', /fn main/, 'fn lost']);
    const { y, variants } = await runLinear(gpu);
    assert.equal(variants, ['gemm_tile']);
    assert.ok(distance(y, wanted) < 1e-6);
    assert.match(gpu.notes[0]!, /gemm_subgroup.* does not compile there/);
    gpu.close();
  });

  test('layer norm falls back twice: to the kernel of long rows, and then to the one that needs no subgroups', async () => {
    const gpu = await openWrong(
      ['layer_norm_subgroup', /let centre = /, 'let centre = -'],
      ['layer_norm_walk', /let centre0 = /, 'let centre0 = -'],
    );
    const rows = 6;
    const d = 4 * gpu.profile.subgroupSize;
    const data = noise(rows * d, 5);
    const g = new Graph();
    const v = g.input('x', [rows, d]);
    const program = await compile(gpu, g, { outputs: { y: layerNorm(v, null, null) } });
    const { y } = await program.step({ x: data });
    assert.ok(program.dispatches.every((p) => p.kernel !== 'layer_norm_subgroup'));
    assert.ok(distance(y!, layerNormReference(f64(data), null, null, d, 1e-5)) < 1e-6);
    assert.equal(
      rejections(gpu).map((r) => r.variant),
      ['layer_norm_subgroup', 'layer_norm_walk'],
    );
    gpu.close();
  });
}

test('flash attention that is wrong gives way to attention that keeps its scores', async () => {
  const gpu = await openWrong(['flash_attention', /\/ total\[0\]/, '/ -total[0]']);
  const [T, D] = [5, 8];
  const data = { q: noise(T * D, 6), k: noise(T * D, 7), v: noise(T * D, 8) };
  const g = new Graph();
  const [q, k, v] = ['q', 'k', 'v'].map((name) => g.input(name, [1, 1, T, D])) as [
    Gemm['a'],
    Gemm['a'],
    Gemm['a'],
  ];
  const program = await compile(gpu, g, { outputs: { y: attention(q, k, v, null, { flash: true }) } });
  const { y } = await program.step(data);
  assert.is(rejections(gpu)[0]!.variant, 'flash_attention', gpu.notes.join());
  assert.ok(program.dispatches.some((d) => d.kernel === 'attention_softmax'));
  assert.ok(distance(y!, attentionReference(f64(data.q), f64(data.k), f64(data.v), null, D)) < 1e-6);
  gpu.close();
});

const tilesBut = (name: string): string[] =>
  ['128x64', '128x128', '32x32', '128x32', '32x128', '256x16', '64x64']
    .map((t) => `tile-${t}`)
    .filter((t) => t !== name);

/** Dispatches of small products, one of each mode, with and without whole vec4s. */
function products(gpu: Gpu): Dispatch[] {
  const g = new Graph();
  const [a, b, c] = ['a', 'b', 'c'].map((name) => g.state(name, [64, 64])) as [
    Gemm['a'],
    Gemm['b'],
    Gemm['c'],
  ];
  return (['nt', 'nn', 'tn'] as const).flatMap((mode) =>
    [36, 35].map((n) => gemm(gpu.profile, { mode, a, b, c, m: 33, n, k2: n, aRow: n, bRow: n, cRow: n })),
  );
}

test('the variants of products that are in use pass their test, once, all in one submit', async () => {
  const gpu = await openWrong();
  await selfTest(gpu, products(gpu));
  assert.equal(rejections(gpu), []);
  assert.is(gpu.tests(), 1);
  await selfTest(gpu, products(gpu));
  assert.is(gpu.tests(), 1);
  assert.equal(gpu.notes, []);
  gpu.close();
});

/** What could be wrong with a product, and in which modes it shows. */
const WRONG: readonly (readonly [what: string, from: RegExp, to: string])[] = [
  ['alpha left out', /sum \* p\.alpha/, 'sum'],
  ['one store left out', /c\[at\] = v;/, 'if (n != 4) { c[at] = v; }'],
  ['a batch stride left out', /z0 \* p\.b_z0/, '0'],
  ['the inner batch index taken for the outer', /z % p\.nz1/, 'z / p.nz1'],
  ['a row that is not its own written', /cp0 \* p\.c_row/, '(cp0 + 1) * p.c_row'],
  ['rows of C that do not exist', /cp\d < p\.c_len/g, 'true'],
  ['columns of C that do not exist', /n < N && row >= 0/, 'row >= 0'],
  ['an operand offset left out', /p\.a_off \+/, ''],
  ['phases left out', /- z1 \* p\.k1_z/, ''],
  ['padding at the start read', /at(\d) >= 0 && at\d < a_len/g, 'at$1 < a_len'],
  ['padding at the end read', /at(\d) >= 0 && at\d < a_len/g, 'at$1 >= 0'],
  ['the last four k left out', /k < k4_end/, 'k < k4_end - 1'],
];

if (cpuFamily) {
  for (const [what, from, to] of WRONG) {
    test(`the test of a product sees: ${what}`, async () => {
      const gpu = await openWrong(['gemm_subgroup', from, to]);
      await selfTest(gpu, [products(gpu)[0]!]);
      assert.equal(gpu.hits, [1], 'the kernel was changed');
      assert.equal(
        rejections(gpu).map((r) => r.kernel),
        ['gemm_subgroup'],
      );
      gpu.close();
    });
  }
}

test('a product in plain loops is what the reference of the self-test computes', () => {
  const [m, n, k] = [3, 5, 4];
  const a = noise(m * k, 1);
  const b = noise(n * k, 2);
  const c = new Float64Array(m * n);
  const base = {
    K1: 1,
    nz1: 1,
    k1_div: 1,
    k1_z: 0,
    a_z0: 0,
    a_z1: 0,
    a_off: 0,
    a_outer: 0,
    a_pos0: 0,
    a_step: 1,
    a_tap: 0,
    a_len: m,
    b_z0: 0,
    b_z1: 0,
    b_off: 0,
    b_k1: 0,
    b_pos0: 0,
    b_step: 1,
    b_tap: 0,
    b_len: 99,
    b_inner: n,
    c_z0: 0,
    c_z1: 0,
    c_off: 0,
    c_outer: 0,
    c_pos0: 0,
    c_step: 1,
    c_zpos: 0,
    c_len: m,
    bias_z0: 0,
    alpha: 2,
  };
  gemmReference(
    { ...base, M: m, N: n, K2: k, m_inner: m, a_row: k, b_row: k, c_row: n },
    { MODE: 0 },
    [1, 1],
    { a, b },
    c,
  );
  const want = Array.from(c, (_, i) => {
    let sum = 0;
    for (let j = 0; j < k; j++) sum += a[Math.floor(i / n) * k + j]! * b[(i % n) * k + j]!;
    return 2 * sum;
  });
  assert.ok(distance(c, want) < 1e-12);
});

test('a device that runs nothing can be told to take variants on trust', async () => {
  const gpu = await openWrong(SIGN);
  const trusting = withFamily({ ...gpu, profile: { ...gpu.profile, untested: true } }, gpu.profile.family);
  await runLinear(trusting);
  assert.is(gpu.tests(), 0);
  assert.equal(rejections(gpu), []);
  gpu.close();
});

test.run();
