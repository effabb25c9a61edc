import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { expectedTensors, type Checked, type Expectation } from '../src/measure/kernel-check.ts';
import { openKernelFile, timeKernelFile } from '../src/measure/kernel-file.ts';
import {
  NO_SETTINGS,
  parseAmount,
  settingsInText,
  settingsOf,
  type KernelSettings,
} from '../src/measure/kernel-settings.ts';
import { openTestGpu } from './gpu.ts';
import { failsWith } from './harness.ts';
import type { StoredTensor } from '../src/io/safetensors.ts';

const DOUBLE =
  `// bench: size x=2**10
// bench: size y=1024
// bench: flops 1024
struct P { n: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: P;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { if (id.x < p.n) { ` +
  `y[id.x] = 2.0 * x[id.x]; } }`;

test('a kernel file is timed; what its lines lack comes from options', async () => {
  const gpu = await openTestGpu();
  const timed = await timeKernelFile(
    gpu,
    {
      name: 'double.wgsl',
      source: DOUBLE,
      settings: settingsOf([
        ['grid', '16'],
        ['param', 'n=1024'],
      ]),
    },
    { seconds: 0 },
  );
  assert.is(timed.timing.runs, 5);
  assert.is(timed.bytes, 8192);
  assert.is(timed.flops, 1024);
  assert.equal(timed.notFinite, []);
  const logarithm = await timeKernelFile(
    gpu,
    {
      name: 'log.wgsl',
      source: DOUBLE.replace('2.0 * x[id.x]', 'exp(100.0 * abs(x[id.x]) + 50.0)'),
      settings: settingsOf([
        ['grid', '16'],
        ['param', 'n=1024'],
      ]),
    },
    { seconds: 0 },
  );
  assert.equal(logarithm.notFinite, ['y']);
});

test('a kernel file that cannot be launched is refused with everything that it needs', async () => {
  const gpu = await openTestGpu();
  const time = (source: string, settings = NO_SETTINGS) =>
    timeKernelFile(gpu, { name: 'k.wgsl', source, settings });
  await failsWith('usage', [/--grid X,Y,Z/, /--param n=N/], () => time(DOUBLE));
  await failsWith('usage', /--size x=N \(elements of array<f32>\)/, () =>
    time(DOUBLE.replaceAll(/\/\/.*$/gm, '')),
  );
  await failsWith('usage', /has no param m; it has the storage x, y and the uniform fields n/, () =>
    time(
      DOUBLE,
      settingsOf([
        ['grid', '1'],
        ['param', 'n=1'],
        ['param', 'm=1'],
      ]),
    ),
  );
  await failsWith('usage', /needs a value for WIDTH; give --constant WIDTH=N/, () =>
    time(DOUBLE.replace('(64)', '(${WIDTH})')),
  );
  await failsWith('kernel', /k\.wgsl:\d+:\d+ /, () =>
    time(
      DOUBLE.replace('2.0 * x', 'wrong * x'),
      settingsOf([
        ['grid', '1'],
        ['param', 'n=1'],
      ]),
    ),
  );
  await failsWith('limit', /has 70000000 workgroups along one axis/, () =>
    time(
      DOUBLE,
      settingsOf([
        ['grid', '70000000'],
        ['param', 'n=1'],
      ]),
    ),
  );
  await failsWith('usage', /"grip" is none of|bench: grip" is none of/, () =>
    settingsInText('// bench: grip 1'),
  );
  await failsWith('usage', /must be NAME=NUMBER/, () => settingsOf([['size', 'x']]));
  await failsWith('usage', /one to three whole numbers/, () => settingsOf([['grid', '1,2,3,4']]));
});

const checkedBy = async (
  source: string,
  settings = NO_SETTINGS,
  expectation: Expectation | null = null,
): Promise<Checked> => {
  const kernel = await openKernelFile(await openTestGpu(), { name: 'k.wgsl', source, settings, expectation });
  try {
    return await kernel.check();
  } finally {
    kernel.destroy();
  }
};
const LAUNCH = settingsOf([
  ['grid', '16'],
  ['param', 'n=1024'],
]);
const doubled: Expectation = {
  origin: 'k.ref.ts',
  reference: ({ x }) => ({ y: Float64Array.from(x!, (v) => 2 * v) }),
};

test('a kernel file is checked against a reference of its inputs; without one it is not called right', async () => {
  assert.equal(await checkedBy(DOUBLE, LAUNCH), { against: null, wrong: [], notFinite: [] });
  assert.equal(await checkedBy(DOUBLE, LAUNCH, doubled), { against: 'k.ref.ts', wrong: [], notFinite: [] });
  const { wrong } = await checkedBy(
    DOUBLE.replace('2.0 * x[id.x]', 'select(2.0, 3.0, id.x == 7u) * x[id.x]'),
    LAUNCH,
    doubled,
  );
  assert.is(wrong.length, 1);
  assert.match(
    wrong[0]!,
    /^y\[7\] is -?[\d.]+, must be -?[\d.]+ \(off by .* 0\.0005 is allowed\); 1 of 1024 are wrong$/,
  );
});

test(
  'an element that nobody wrote is an error that names it, whatever its type, unless the array keeps ' +
    'what it held',
  async () => {
    const nothing = DOUBLE.replace('id.x < p.n', 'x[id.x] > 5.0');
    assert.match(
      (await checkedBy(nothing, LAUNCH)).wrong[0]!,
      /^nobody wrote y\[0\], nor 1023 more of 1024 numbers of y; .*--before y=0/,
    );
    assert.match(
      (
        await checkedBy(
          DOUBLE,
          settingsOf([
            ['grid', '16'],
            ['param', 'n=1023'],
          ]),
        )
      ).wrong[0]!,
      /^nobody wrote y\[1023\];/,
    );
    assert.equal(
      (
        await checkedBy(
          nothing,
          settingsOf([
            ['grid', '16'],
            ['param', 'n=1'],
            ['before', 'y=0'],
          ]),
        )
      ).wrong,
      [],
    );
    const typed = (type: string, value: string) =>
      `@group(0) @binding(0) var<storage, read_write> y: ` +
      `array<${type}>;
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { if (i < 63u) { y[i] = ` +
      `${value}; } }`;
    const place = async (type: string, value: string, text = typed(type, value)) =>
      /^nobody wrote (\S+?)[,;]/.exec(
        (
          await checkedBy(
            text,
            settingsOf([
              ['grid', '1'],
              ['size', 'y=64'],
            ]),
          )
        ).wrong[0] ?? '',
      )?.[1];
    assert.is(await place('u32', 'i'), 'y[63]');
    assert.is(await place('i32', '-1'), 'y[63]');
    assert.is(await place('vec3f', 'vec3f(1.0)'), 'y[63].x');
    assert.is(
      await place(
        'vec4f',
        '',
        typed('vec4f', '').replace('y[i] = ;', 'y[i] = vec4f(0.0); }\n if (i == 63u) { y[i].x = 1.0;'),
      ),
      'y[63].y',
    );
  },
);

test(
  'expected outputs from a file belong to the inputs in it: sizes follow, integers are equal or not, ' +
    'vectors are packed',
  async () => {
    const source =
      `struct P { n: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec3f>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<storage, read_write> total: array<f32>;
@compute @workgroup_size(4) fn main(@builtin(local_invocation_index) i: u32) { y[i] = u32(x[i].x + x[i].y ` +
      `+ x[i].z); total[i] += 1.0; }`;
    const x = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 1);
    const before = Float32Array.of(0, 1, 2, 3);
    const grid = settingsOf([['grid', '1']]);
    const tensors = (y: number[]): Expectation =>
      expectedTensors(
        new Map<string, StoredTensor>([
          ['x', { dtype: 'F32', shape: [4, 3], data: x }],
          ['y', { dtype: 'I64', shape: [4], data: BigInt64Array.from(y, BigInt) }],
          ['total.before', { dtype: 'F32', shape: [4], data: before }],
          ['total', { dtype: 'F32', shape: [4], data: before.map((v) => v + 1) }],
        ]),
        'e.safetensors',
      );
    assert.equal(await checkedBy(source, grid, tensors([6, 15, 24, 1])), {
      against: 'e.safetensors',
      wrong: [],
      notFinite: [],
    });
    assert.equal((await checkedBy(source, grid, tensors([6, 15, 25, 1]))).wrong, [
      'y[2] is 24, must be 25 (integers must be equal); 1 of 4 are wrong',
    ]);
    await failsWith('usage', /size y=8 does not fit e\.safetensors/, () =>
      checkedBy(
        source,
        settingsOf([
          ['grid', '1'],
          ['size', 'y=8'],
        ]),
        tensors([1, 2, 3, 4]),
      ),
    );
  },
);

test('expectations that fit nothing are refused with what would', async () => {
  const file = (names: string[]): Expectation => ({
    origin: 'e.safetensors',
    tensors: new Map(names.map((name) => [name, new Float32Array(1024)])),
  });
  const returning = (value: unknown): Expectation => ({ origin: 'k.ref.ts', reference: () => value });
  for (const [expectation, message] of [
    [file(['y']), /e\.safetensors lacks "x": expected outputs belong to inputs/],
    [file(['x']), /holds no expected output; name a tensor y/],
    [file(['x', 'y', 'z']), /has z, and the kernel has no such storage; its tensors may be x, y, y\.before/],
    [returning(3), /must return an object with an array of numbers/],
    [returning({ y: 3 }), /"y" is none/],
    [returning({ z: [3] }), /expects "z", which the kernel does not write; it writes y/],
    [returning({ y: [3] }), /has 1 numbers for "y", and the kernel's has 1024/],
    [
      {
        origin: 'k.ref.ts',
        reference: () => {
          throw new TypeError('no x');
        },
      },
      /^k\.ref\.ts throws: no x/,
    ],
  ] as const)
    await failsWith('usage', message, () => checkedBy(DOUBLE, LAUNCH, expectation));
  await failsWith('usage', /before x: only storage that the kernel may write/, () =>
    checkedBy(
      DOUBLE,
      settingsOf([
        ['grid', '16'],
        ['param', 'n=1'],
        ['before', 'x=0'],
      ]),
    ),
  );
});

test('a kernel file is launched by the entry point that it names', async () => {
  const gpu = await openTestGpu();
  const two = `${DOUBLE.replace('fn main', 'fn scale')}
@compute @workgroup_size(64) fn other(@builtin(global_invocation_id) id: vec3u) { y[id.x] = 1.0; }`;
  const time = (source: string, settings: KernelSettings) =>
    timeKernelFile(gpu, { name: 'k.wgsl', source, settings }, { seconds: 0 });
  assert.match(
    (await time(DOUBLE.replace('fn main', 'fn scale'), LAUNCH)).variant,
    /^entry scale; grid 16,1,1; size x=1024 y=1024; param n=1024$/,
  );
  assert.is(
    (
      await time(
        two,
        settingsOf([
          ['grid', '16'],
          ['entry', 'other'],
        ]),
      )
    ).variant,
    'entry other; grid 16,1,1; size y=1024',
    "x and n are the other's",
  );
  await failsWith('kernel', /entry points scale, other and no main: choose one with --entry NAME/, () =>
    time(two, LAUNCH),
  );
  await failsWith('kernel', /"x" is in @group\(1\)/, () =>
    time(DOUBLE.replaceAll('@group(0)', '@group(1)'), LAUNCH),
  );
});

test('amounts may be products and powers', async () => {
  assert.equal(
    ['12', '1024*768', '2**20', '3*2**4', '1e3'].map((t) => parseAmount(t, 'x')),
    [12, 786432, 1048576, 48, 1000],
  );
  for (const text of ['', 'ten', '2**', '1**2**3', '*3'])
    await failsWith('usage', /is not a number/, () => parseAmount(text, 'x'));
});

test.run();
