import { create } from 'webgpu';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Graph, type Value } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import type { Dispatch } from '../src/launch/dispatch.ts';
import { activationReference } from '../src/ops/activation.ts';
import { gemm, gemmSplit } from '../src/ops/gemm/gemm.ts';
import type { Gemm } from '../src/ops/gemm/product.ts';
import { GPU_VARIANTS } from '../src/ops/gemm/gemm-gpu.ts';
import { matmul } from '../src/ops/gemm/matmul.ts';
import { compile } from '../src/plan/compile.ts';
import type { AdapterProfile, MatrixUnit } from '../src/gpu/adapter.ts';
import { openGpu, type Gpu, type Precision } from '../src/gpu/device.ts';
import type { Region } from '../src/plan/storage.ts';
import { openTestGpu, slowToCompile } from './gpu.ts';
import { distance, filled, noise, type Floats } from './harness.ts';

const gpu = await openTestGpu();
/**
 * Compiles and validates without a driver. Kept for as long as the process: Dawn crashes once it is
 * collected.
 */
const dawn = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);

/**
 * The device under the GPU family and one variant, as if it had matrix units of that variant's shape. The
 * variants are what is tested here: they are taken as they are.
 */
function forced(on: Gpu, name: string, subgroupSize: number): Gpu {
  const features = new Set([...on.profile.features, 'subgroups', 'chromium-experimental-subgroup-matrix']);
  const unit = /-(f16|f32)-(\d+)x(\d+)x(\d+)$/.exec(name);
  const matrixUnits: MatrixUnit[] = unit
    ? [{ type: unit[1] as Precision, M: Number(unit[2]), N: Number(unit[3]), K: Number(unit[4]) }]
    : [];
  return {
    ...on,
    profile: {
      ...on.profile,
      family: 'gpu',
      subgroupSize,
      features,
      matrixUnits,
      precision: name.includes('f16') ? 'f16' : 'f32',
      tuned: () => name,
      untested: true,
    },
  };
}

/**
 * The kernel of matrix units with these replaced: a matrix becomes the place in workgroup memory that it is
 * loaded from, and the lanes share out its sums. Everything but the units themselves is then run as it is.
 */
function emulated(source: string): string {
  const swap = (text: string, from: RegExp, to: string): string => {
    assert.match(text, from, 'gemm_matrix has changed: so must its emulation');
    return text.replaceAll(new RegExp(from.source, 'g'), to);
  };
  let text = swap(source, /enable (chromium_experimental_subgroup_matrix|subgroups);/, '');
  text = swap(text, /alias (Left|Right) = .*/, 'struct $1 { at: u32, along_row: u32, along_column: u32 }');
  text = swap(
    text,
    /alias Sums = .*/,
    `alias Sums = array<f32, \${MM * MN / LANES}>;
var<private> unit_lane: u32;
fn emulated_multiply(l: Left, r: Right, sums: Sums) -> Sums {
  var out = sums;
  // k1_z is never negative: loops whose length the compiler cannot see are not unrolled, which would take most of a minute.
  for (var e = 0u; e < u32(min(p.k1_z, 0)) + \${MM * MN / LANES}u; e++) {
    let i = (e * \${LANES}u + unit_lane) / \${MN}u;
    let j = (e * \${LANES}u + unit_lane) % \${MN}u;
    for (var k = 0u; k < u32(min(p.k1_z, 0)) + \${MK}u; k++) {
      out[e] += f32(tile_a[l.at + i * l.along_column + k * l.along_row]) * f32(tile_b[r.at + k * r.along_column + j * r.along_row]);
    }
  }
  return out;
}
fn emulated_store(at: u32, sums: Sums, pitch: u32) {
  for (var e = 0u; e < u32(min(p.k1_z, 0)) + \${MM * MN / LANES}u; e++) {
    let i = (e * \${LANES}u + unit_lane) / \${MN}u;
    results[at + i * pitch + (e * \${LANES}u + unit_lane) % \${MN}u] = sums[e];
  }
}`,
  );
  text = swap(
    text,
    /subgroupMatrixLoad<(\w+), row_major>\(&tile_[ab], (.*), (PITCH_[AB])\)/,
    '$1($2, 1u, $3)',
  );
  text = swap(
    text,
    /subgroupMatrixLoad<(\w+), col_major>\(&tile_[ab], (.*), (PITCH_[AB])\)/,
    '$1($2, $3, 1u)',
  );
  text = swap(text, /subgroupMatrixMultiplyAccumulate/, 'emulated_multiply');
  text = swap(text, /subgroupMatrixStore<row_major>\(&results, /, 'emulated_store(');
  text = swap(
    text,
    /\n.*@builtin\(subgroup_id\).*\n\) \{/,
    ') {\n  let subgroup = index / ${LANES}u;\n  let lane = index % ${LANES}u;\n  unit_lane = lane;',
  );
  return text;
}

/** What staging as f16 makes of a number. */
const half = (x: number): number => {
  const t = Math.fround(x * 8193);
  return Math.fround(t - Math.fround(t - x));
};

type Sizes = Omit<Gemm, 'a' | 'b' | 'c' | 'bias' | 'residual' | 'pre' | 'activation'>;
/** a, b, c, bias: elements of the operands. */
interface Case extends Sizes {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly bias?: number;
  readonly residual?: boolean;
  readonly activation?: 'gelu';
  readonly split?: boolean;
}

/** Everything as kernels/lib/gemm.wgsl has it, in float64; what is not written is NaN. */
function reference(g: Case, x: Record<'a' | 'b' | 'bias' | 'residual', Floats>): Float64Array {
  const c = new Float64Array(g.c).fill(NaN);
  const [n0, n1] = g.batch ?? [1, 1];
  const inner = g.mInner ?? g.m;
  const inside = (at: number, length = Infinity): boolean => at >= 0 && at < length;
  for (let z0 = 0; z0 < n0; z0++)
    for (let z1 = 0; z1 < n1; z1++)
      for (let m = 0; m < g.m; m++)
        for (let n = 0; n < g.n; n++) {
          const outer = Math.floor(m / inner);
          const along = m % inner;
          const row =
            (g.cPosition?.start ?? 0) + along * (g.cPosition?.step ?? 1) + z1 * (g.cPosition?.z1 ?? 0);
          if (!inside(row, g.cPosition?.length)) continue;
          let sum = 0;
          for (let k1 = 0; k1 < (g.phases ? Math.ceil(((g.k1 ?? 1) - z1) / g.phases) : (g.k1 ?? 1)); k1++)
            for (let k2 = 0; k2 < g.k2; k2++) {
              let at = (g.aOffset ?? 0) + z0 * (g.aZ?.[0] ?? 0) + z1 * (g.aZ?.[1] ?? 0);
              let bt = (g.bOffset ?? 0) + z0 * (g.bZ?.[0] ?? 0) + z1 * (g.bZ?.[1] ?? 0) + k1 * (g.bK1 ?? 0);
              if (g.mode === 'tn') at += k1 * (g.aOuter ?? 0) + k2 * g.aRow + m;
              else {
                const position =
                  (g.aPosition?.start ?? 0) + along * (g.aPosition?.step ?? 1) + k1 * (g.aPosition?.tap ?? 0);
                if (!inside(position, g.aPosition?.length)) continue;
                at += outer * (g.aOuter ?? 0) + position * g.aRow + k2;
              }
              if (g.mode === 'nt') bt += n * g.bRow + k2;
              else if (g.mode === 'nn') bt += k2 * g.bRow + n;
              else {
                const width = g.bPosition?.inner ?? g.n;
                const position =
                  (g.bPosition?.start ?? 0) +
                  k2 * (g.bPosition?.step ?? 1) +
                  Math.floor(n / width) * (g.bPosition?.tap ?? 0);
                if (!inside(position, g.bPosition?.length)) continue;
                bt += position * g.bRow + (n % width);
              }
              sum += x.a[at]! * x.b[bt]!;
            }
          const to =
            (g.cOffset ?? 0) +
            z0 * (g.cZ?.[0] ?? 0) +
            z1 * (g.cZ?.[1] ?? 0) +
            outer * (g.cOuter ?? 0) +
            row * g.cRow +
            n;
          const v = sum * (g.alpha ?? 1) + (g.bias ? x.bias[z0 * (g.biasZ0 ?? 0) + n]! : 0);
          c[to] = (g.activation ? activationReference('gelu', v) : v) + (g.residual ? x.residual[to]! : 0);
        }
  return c;
}

/**
 * Runs cases in one program and compares; elements that no product may touch must still be what they were.
 */
async function agrees(name: string, cases: readonly Case[], tolerance = 1e-6): Promise<void> {
  const on = forced(gpu, name, 32);
  const precision = on.profile.precision!;
  const g = new Graph();
  const keep: Record<string, Value> = {};
  const place = new Map<Value, Region>();
  const taken: (string | undefined)[] = [];
  const data = cases.map((c, i) => ({
    a: noise(c.a, 4 * i + 1),
    b: noise(c.b, 4 * i + 2),
    bias: noise(c.bias ?? 0, 4 * i + 3),
    residual: noise(c.residual ? c.c : 0, 4 * i + 4),
  }));
  cases.forEach(({ a: _a, b: _b, c: size, bias, residual, activation, split, ...sizes }, i) => {
    const input = (what: 'a' | 'b' | 'bias' | 'residual'): Value => {
      const value = g.state(`${what}${i}`, [data[i]![what].length]);
      place.set(value, filled(on, data[i]![what]));
      return value;
    };
    const op = defineOp<Record<string, never>>({
      name: `product ${i}`,
      shape: () => [
        { shape: [size], dtype: 'f32' },
        { shape: [size], dtype: 'f32' },
      ],
      backward: null,
      saves: { inputs: [], outputs: [] },
      cost: () => ({ flops: 0, bytes: 0 }),
      forward: (c) => {
        const product: Gemm = {
          ...sizes,
          a: c.input(0),
          b: c.input(1),
          c: c.outputs[0]!,
          bias: c.inputs[2] ?? null,
          residual: c.inputs[3] ?? null,
          ...(activation && { activation, pre: c.outputs[1]! }),
        };
        const dispatches = split ? gemmSplit(c, product) : [gemm(c.adapter, product)];
        assert.is(dispatches.length, split ? 2 : 1);
        taken.push(dispatches[0]!.variant);
        return dispatches.map((d) =>
          d.kernel.name === 'gemm_matrix'
            ? { ...d, kernel: { name: 'emulated', source: emulated(d.kernel.source) } }
            : d,
        );
      },
    });
    keep[`c${i}`] = g.apply(
      op,
      [input('a'), input('b'), bias ? input('bias') : null, residual ? input('residual') : null],
      {},
    )[0]!;
  });
  const program = await compile(on, g, { keep, place, precision });
  try {
    program.poison();
    await program.step();
    for (const [i, c] of cases.entries()) {
      const got = (await program.read(`c${i}`)) as Floats;
      const { a, b, ...rest } = data[i]!;
      const want = reference(c, {
        ...rest,
        ...(precision === 'f16' ? { a: a.map(half), b: b.map(half) } : { a, b }),
      });
      const label = `${taken[i]}, ${c.mode} ${c.m} x ${c.n} x ${c.k1 ?? 1} x ${c.k2} (case ${i})`;
      assert.ok(
        got.every((v, at) => Number.isNaN(v) === Number.isNaN(want[at]!)),
        `${label}: an element was left out, or one too many written`,
      );
      const error = distance(got.filter(Number.isFinite), want.filter(Number.isFinite));
      assert.ok(error <= tolerance, `${label} is off by ${error}`);
    }
    assert.ok(
      taken.every((v) => v === name),
      `${taken.join(', ')} were taken`,
    );
  } finally {
    program.destroy();
  }
}

/**
 * One case of each kind of addressing, sized so that tiles have edges on all sides and several steps of k:
 * scalars here, vec4s there.
 */
const cases: readonly Case[] = [
  // Linear layer of odd sizes, everything in single elements.
  {
    mode: 'nt',
    m: 67,
    n: 37,
    k2: 35,
    a: 67 * 35,
    b: 37 * 35,
    c: 67 * 37,
    aRow: 35,
    bRow: 35,
    cRow: 37,
    bias: 37,
    residual: true,
  },
  // ... in vec4s, with GELU; the rows of A are longer than K and K ends inside a vec4.
  {
    mode: 'nt',
    m: 33,
    n: 20,
    k2: 34,
    a: 33 * 36,
    b: 20 * 36,
    c: 33 * 20,
    aRow: 36,
    bRow: 36,
    cRow: 20,
    bias: 20,
    activation: 'gelu',
  },
  // Grouped, padded, strided, dilated convolution.
  {
    mode: 'nt',
    m: 2 * 9,
    n: 6,
    k1: 5,
    k2: 4,
    mInner: 9,
    batch: [2, 1],
    a: 2 * 21 * 8,
    b: 12 * 5 * 4,
    c: 2 * 9 * 12,
    bias: 12,
    biasZ0: 6,
    aZ: [4, 0],
    aRow: 8,
    aOuter: 21 * 8,
    aPosition: { start: -3, step: 2, tap: 2, length: 21 },
    bZ: [6 * 5 * 4, 0],
    bRow: 20,
    bK1: 4,
    cZ: [6, 0],
    cRow: 12,
    cOuter: 9 * 12,
  },
  // Its input gradient in phases of the stride, one of which has no tap.
  {
    mode: 'nn',
    m: 2 * 8,
    n: 4,
    k1: 2,
    k2: 5,
    mInner: 8,
    batch: [1, 3],
    phases: 3,
    a: 2 * 7 * 5,
    b: 5 * 2 * 4,
    c: 2 * 20 * 4,
    aRow: 5,
    aOuter: 35,
    aPosition: { tap: -1, length: 7 },
    bZ: [0, 4],
    bRow: 8,
    bK1: 12,
    cRow: 4,
    cOuter: 80,
    cPosition: { start: -1, step: 3, z1: 1, length: 20 },
  },
  // Batched product in vec4s, with a factor.
  {
    mode: 'nn',
    m: 40,
    n: 24,
    k2: 33,
    batch: [2, 2],
    alpha: 0.5,
    a: 4 * 40 * 36,
    b: 2 * 33 * 24,
    c: 4 * 40 * 24,
    aZ: [2 * 40 * 36, 40 * 36],
    aRow: 36,
    bZ: [33 * 24, 0],
    bRow: 24,
    cZ: [2 * 40 * 24, 40 * 24],
    cRow: 24,
  },
  // Weight gradient of a padded convolution: columns are taps times channels.
  {
    mode: 'tn',
    m: 12,
    n: 3 * 4,
    k1: 2,
    k2: 19,
    a: 2 * 19 * 12,
    b: 2 * 19 * 4,
    c: 144,
    aRow: 12,
    aOuter: 19 * 12,
    bK1: 19 * 4,
    bRow: 4,
    bPosition: { start: -1, step: 1, tap: 1, inner: 4, length: 19 },
    cRow: 12,
  },
  // ... of odd channels and stride 2.
  {
    mode: 'tn',
    m: 35,
    n: 3 * 23,
    k1: 2,
    k2: 18,
    a: 2 * 18 * 35,
    b: 2 * 37 * 23,
    c: 35 * 69,
    aRow: 35,
    aOuter: 18 * 35,
    bK1: 37 * 23,
    bRow: 23,
    bPosition: { start: -1, step: 2, tap: 1, inner: 23, length: 37 },
    cRow: 69,
  },
];

/** Sums long enough to be split, the last part shorter than the others. */
const long: readonly Case[] = [
  {
    mode: 'tn',
    split: true,
    m: 12,
    n: 3 * 5,
    k1: 2,
    k2: 499,
    a: 2 * 499 * 12,
    b: 2 * 500 * 5,
    c: 180,
    aRow: 12,
    aOuter: 499 * 12,
    bK1: 2500,
    bRow: 5,
    bPosition: { start: -1, step: 1, tap: 1, inner: 5, length: 500 },
    cRow: 15,
  },
  {
    mode: 'nt',
    split: true,
    m: 2 * 5,
    n: 8,
    k2: 1030,
    mInner: 5,
    batch: [2, 2],
    alpha: 0.1,
    activation: 'gelu',
    residual: true,
    bias: 16,
    biasZ0: 8,
    a: 4 * 10 * 1030,
    b: 2 * 8 * 1030,
    c: 4 * 2 * 7 * 8,
    aZ: [20 * 1030, 10 * 1030],
    aRow: 1030,
    aOuter: 5 * 1030,
    bZ: [0, 8 * 1030],
    bRow: 1030,
    cZ: [224, 112],
    cRow: 8,
    cOuter: 56,
    cPosition: { start: 1, length: 7 },
  },
];

/**
 * Which cases a variant runs. One text makes all variants, so each shape gets a case, and all that differs in
 * kind is with some shape; below, all variants are compiled in every mode. A kernel with barriers takes a
 * software adapter a second or more to compile.
 */
const runs: Readonly<Record<string, readonly Case[]>> = {
  'tile-64x64': [cases[0]!],
  'tile-128x64': [cases[6]!],
  'tile-128x128': [cases[4]!],
  'tile-32x32': [cases[2]!, ...long],
  'tile-128x32': [cases[5]!],
  'tile-32x128': [cases[1]!],
  'tile-256x16': [cases[3]!],
  'tile-128x64-f16': [cases[1]!],
  'tile-32x32-f16': [cases[5]!],
  'matrix-64x128-f16-16x16x16': [cases[5]!],
  'matrix-128x64-f16-16x8x16': [cases[3]!],
  'matrix-32x64-f32-8x8x8': [long[0]!],
};

for (const [name, chosen] of Object.entries(runs)) {
  const on = forced(gpu, name, 32);
  const known = GPU_VARIANTS.find((v) => v.name === name);
  assert.ok(known, name);
  const why =
    slowToCompile(gpu) ??
    (known.supports(on.profile) ? null : 'the device has no shader-f16, or too small workgroups');
  if (why) test.skip(`${name} is not run: ${why}`, () => undefined);
  else
    test(`${name}${name.startsWith('matrix') ? ', its matrix units emulated,' : ''} agrees with float64`, () =>
      agrees(name, chosen));
}

test('every variant compiles in every mode, with vec4s and without, and within the limits that it asks for', async () => {
  const adapter = (await dawn.requestAdapter())!;
  const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup } = adapter.limits;
  const requiredFeatures = [
    'shader-f16',
    'subgroups',
    'chromium-experimental-subgroup-matrix',
  ] as GPUFeatureName[];
  const device = await adapter.requestDevice({
    requiredFeatures,
    requiredLimits: { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup },
  });
  const on = await openGpu({ device });
  for (const { name, supports } of GPU_VARIANTS) {
    // The null backend says that its subgroups have up to 128 lanes, and wants workgroups of that many.
    const { profile } = forced(on, name, 64);
    assert.ok(supports(profile), name);
    const g = new Graph();
    const keep: Record<string, Value> = {};
    const variants = new Set<string>();
    for (const n of [64, 63])
      for (const [transposeA, transposeB] of [
        [false, false],
        [false, true],
        [true, false],
      ] as const) {
        keep[`${n} ${transposeA} ${transposeB}`] = matmul(g.state('a', [n, n]), g.state('b', [n, n]), {
          transposeA,
          transposeB,
        });
      }
    const recorded: Gpu = {
      ...on,
      profile: {
        ...profile,
        tuned: (key) => {
          variants.add(key);
          return name;
        },
      },
    };
    (await compile(recorded, g, { keep, precision: profile.precision! })).destroy();
    assert.is(variants.size, 6);
  }
  assert.is(on.failure(), null);
  device.destroy();
});

// ---------------------------------------------------------------------------------------------------- choice

/** The first dispatch of a plain product on a GPU with these properties. */
function choice(
  m: number,
  n: number,
  k2: number,
  profile: Partial<AdapterProfile> = {},
  more: Partial<Gemm> = {},
): Dispatch {
  const g = new Graph();
  const a = g.state('a', [m, k2]);
  const b = g.state('b', [n, k2]);
  const c = g.state('c', [m, n]);
  const limits = {
    ...gpu.profile.limits,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupStorageSize: 16384,
  };
  return gemm(
    { ...gpu.profile, kind: 'gpu', family: 'gpu', features: new Set(), limits, ...profile },
    { mode: 'nt', a, b, c, m, n, k2, aRow: k2, bRow: k2, cRow: n, ...more },
  );
}
const half16 = {
  precision: 'f16',
  features: new Set(['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix']),
  subgroupSize: 32,
} as const;
const units: readonly MatrixUnit[] = [{ type: 'f16', M: 16, N: 16, K: 16 }];

test('large products take large tiles, small and narrow ones tiles that waste less', () => {
  assert.is(choice(4096, 4096, 1024).variant, 'tile-128x64');
  assert.is(choice(192, 128, 512).variant, 'tile-32x32');
  assert.is(choice(100000, 30, 512).variant, 'tile-128x32');
  assert.is(choice(30, 100000, 512).variant, 'tile-32x128');
  assert.is(choice(500000, 10, 512).variant, 'tile-256x16');
  assert.equal(choice(4096, 4090, 1024).grid, [64, 32, 1]);
});

test('half precision is taken where the program and the device have it, and never for exact products', () => {
  assert.is(choice(4096, 4096, 1024, half16).variant, 'tile-128x64-f16');
  assert.is(
    choice(4096, 4096, 1024, { ...half16, matrixUnits: units }).variant,
    'matrix-64x128-f16-16x16x16',
  );
  assert.is(
    choice(4096, 4096, 1024, { ...half16, matrixUnits: units }, { exact: true }).variant,
    'tile-128x64',
  );
  assert.is(
    choice(4096, 4096, 1024, { ...half16, matrixUnits: units, precision: 'f32' }).variant,
    'tile-128x64',
  );
  assert.is(choice(4096, 4096, 1024, { ...half16, features: new Set() }).variant, 'tile-128x64');
});

test('a measured variant is taken, one that does not fit or is unknown is not, and rejected ones never', () => {
  const keys: string[] = [];
  const tuned =
    (name: string) =>
    (key: string): string => {
      keys.push(key);
      return name;
    };
  assert.is(choice(4096, 4096, 1024, { tuned: tuned('tile-128x128') }).variant, 'tile-128x128');
  assert.is(choice(4096, 4096, 1024, { tuned: tuned('tile-128x64-f16') }).variant, 'tile-128x64');
  assert.is(choice(4096, 4096, 1024, { tuned: tuned('tile-7x7') }).variant, 'tile-128x64');
  assert.is(
    choice(4096, 4096, 1024, {
      tuned: tuned('tile-128x128'),
      rejected: new Set(['tile-128x128', 'tile-128x64']),
    }).variant,
    'tile-64x64',
  );
  assert.is(
    choice(4096, 4096, 1024, { rejected: new Set(GPU_VARIANTS.map((v) => v.name)) }).variant,
    'tile-64x64',
  );
  const other = choice(4096, 4096, 1024, { ...half16, tuned: tuned('tile-64x64') });
  assert.is(new Set(keys).size, 2);
  assert.is(other.choice, keys.at(-1));
});

test.run();
