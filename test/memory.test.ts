import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formatShape, type Shape } from '../src/graph/shape.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import { kernel, type Dispatch } from '../src/launch/dispatch.ts';
import { add, elementwise, reshape, scale } from '../src/ops/elementwise.ts';
import { linear } from '../src/ops/gemm/linear.ts';
import { matmul } from '../src/ops/gemm/matmul.ts';
import { compile } from '../src/plan/compile.ts';
import { planImages, type ImageAccess } from '../src/plan/images.ts';
import { placeBlocks, type Block } from '../src/plan/memory.ts';
import type { Program } from '../src/plan/program.ts';
import type { Gpu } from '../src/gpu/device.ts';
import { openTestGpu } from './gpu.ts';
import { distance, failsWith, generator, noise } from './harness.ts';

const gpu = await openTestGpu();

test('no two blocks that live at the same time share a slot, and each fits its slot, in 300 random plans', () => {
  const next = generator(1);
  for (let round = 0; round < 300; round++) {
    const blocks = Array.from({ length: 1 + Math.floor(next() * 60) }, (): Block => {
      const first = Math.floor(next() * 80);
      return {
        bytes: 16 * Math.ceil(next() ** 3 * 1000 + 0.001),
        first,
        last: first + Math.floor(next() ** 2 * 30),
      };
    });
    const { slotOf, slotBytes } = placeBlocks(blocks);
    blocks.forEach((a, i) => {
      assert.ok(slotOf[i]! >= 0 && a.bytes <= slotBytes[slotOf[i]!]!);
      blocks.forEach((b, j) => {
        if (i < j && slotOf[i] === slotOf[j])
          assert.ok(
            a.last < b.first || b.last < a.first,
            `round ${round}: ${JSON.stringify([a, b])} share a slot`,
          );
      });
    });
    // Never worse than no sharing, never better than the most that lives at once.
    const total = slotBytes.reduce((x, y) => x + y, 0);
    assert.ok(total <= blocks.reduce((x, b) => x + b.bytes, 0));
    for (let t = 0; t < 120; t++)
      assert.ok(total >= blocks.reduce((x, b) => x + (b.first <= t && t <= b.last ? b.bytes : 0), 0));
  }
});

test(
  'every image holds what its tensor holds when a dispatch reads it, and copies are made together, in ' +
    '300 random plans',
  () => {
    const next = generator(2);
    const pick = (n: number): number => Math.floor(next() * n);
    const device = {
      createTexture: () => {
        const texture = { createView: () => texture };
        return texture;
      },
    } as unknown as GPUDevice;
    let stops = 0;
    let reading = 0;
    for (let round = 0; round < 300; round++) {
      const buffers = Array.from({ length: 6 }, () => ({ size: 16384 * (1 + pick(5)) }) as GPUBuffer);
      const values = buffers.map((buffer, i) => ({
        value: { id: i } as Value,
        from: { buffer, offset: 0, size: 1024 * (1 + pick(buffer.size / 1024)) },
      }));
      const accesses = Array.from({ length: 60 }, (): ImageAccess => {
        const written = pick(3) ? buffers[pick(6)]! : null;
        const read = values.filter((v) => v.from.buffer !== written && next() < 0.3);
        return {
          reads: read.map((v) => ({ ...v, width: pick(4) ? null : 16 })),
          writes: new Set(written ? [written] : []),
        };
      });
      const plan = planImages(device, 'test', accesses);
      const age = new Map(buffers.map((b) => [b, 0]));
      const held = new Map<unknown, string>();
      accesses.forEach(({ reads, writes }, i) => {
        if (plan.copies(i).length) stops++;
        if (reads.length) reading++;
        for (const { from, texture } of plan.copies(i))
          held.set(texture, `${buffers.indexOf(from.buffer)} ${age.get(from.buffer)!}`);
        for (const { value, from, width } of reads)
          assert.is(
            held.get(plan.view(i, value, width)),
            `${value.id} ${age.get(from.buffer)!}`,
            `round ${round}, dispatch ${i}`,
          );
        for (const buffer of writes) age.set(buffer, age.get(buffer)! + 1);
      });
    }
    assert.ok(stops < 0.4 * reading, `${stops} stops for ${reading} dispatches that read images`);
  },
);

test('blocks one after the other take one slot, blocks at once take one each', () => {
  assert.equal(placeBlocks([0, 1, 2].map((i) => ({ bytes: 16 * (3 - i), first: 2 * i, last: 2 * i + 1 }))), {
    slotBytes: [48],
    slotOf: [0, 0, 0],
  });
  assert.is(placeBlocks([0, 1, 2].map(() => ({ bytes: 16, first: 0, last: 1 }))).slotBytes.length, 3);
  // A block that ends where another begins is read while the other is written.
  assert.is(
    placeBlocks([
      { bytes: 16, first: 0, last: 1 },
      { bytes: 16, first: 1, last: 2 },
    ]).slotBytes.length,
    2,
  );
  assert.equal(placeBlocks([]), { slotBytes: [], slotOf: [] });
});

const storage = (v: Value): Value => (v.node?.op.alias ? storage(v.node.inputs[0]!) : v);

/** Slots as the dispatches bind them: no two values of one slot may be alive in the same dispatch. */
function assertNoOverlap(program: Program): number {
  const lives = new Map<Value, { slot: number; first: number; last: number }>();
  program.dispatches.forEach((d, i) => {
    for (const { value, slot } of d.bound) {
      const root = storage(value);
      const life = lives.get(root);
      if (slot < 0) continue;
      if (life) life.last = i;
      else lives.set(root, { slot, first: i, last: i });
    }
  });
  const all = [...lives.entries()];
  all.forEach(([v, a], i) => {
    for (const [w, b] of all.slice(i + 1))
      if (a.slot === b.slot)
        assert.ok(
          a.last < b.first || b.last < a.first,
          `"${v.name}" and "${w.name}" overlap in slot ${a.slot}`,
        );
  });
  return new Set(all.map(([, l]) => l.slot)).size;
}

test('random graphs of sums, products, reshapes and matrices compute what the host computes, and reuse memory', async () => {
  const N = 8;
  for (let round = 0; round < 6; round++) {
    const next = generator(round + 10);
    const g = new Graph();
    const host = new Map<Value, Float64Array>();
    const pool = [0, 1, 2].map((i) => {
      const data = noise(N * N, round * 10 + i);
      const value = g.constant(`c${i}`, [N, N], data);
      host.set(value, Float64Array.from(data));
      return value;
    });
    const pick = (): Value =>
      pool[Math.max(0, pool.length - 1 - Math.floor(next() ** 2 * Math.min(6, pool.length)))]!;
    for (let i = 0; i < 40; i++) {
      const x = pick();
      const y = pick();
      const a = host.get(x)!;
      const b = host.get(y)!;
      const what = next();
      let value: Value;
      let expected: Float64Array;
      if (what < 0.35) {
        value = add(x, y);
        expected = a.map((v, e) => v + b[e]!);
      } else if (what < 0.6) {
        value = scale(x, 0.75);
        expected = a.map((v) => 0.75 * v);
      } else if (what < 0.75) {
        value = reshape(scale(reshape(x, [N * N]), 0.9), [N, N]);
        expected = a.map((v) => 0.9 * v);
      } else {
        value = matmul(x, y);
        expected = a.map((_, e) => {
          let sum = 0;
          for (let k = 0; k < N; k++) sum += a[Math.floor(e / N) * N + k]! * b[k * N + (e % N)]!;
          return sum;
        });
      }
      // Kept at unit size: a chain of products would leave the range in which f32 is exact to 6e-8.
      const unit = Math.sqrt(expected.length) / Math.hypot(...expected);
      value = scale(value, unit);
      expected = expected.map((v) => unit * v);
      pool.push(value);
      host.set(value, expected);
    }
    const keep = { last: pool.at(-1)!, middle: pool[20]! };
    const program = await compile(gpu, g, { keep, label: `random ${round}` });
    program.poison();
    await program.step();
    for (const [name, value] of Object.entries(keep))
      assert.ok(distance(await program.read(name), host.get(value)!) < 1e-4, `round ${round}: ${name}`);
    const slots = assertNoOverlap(program);
    assert.ok(
      slots < program.dispatches.length / 2,
      `${slots} slots for ${program.dispatches.length} dispatches`,
    );
    program.destroy();
  }
});

test('a chain of any length runs in two slots', async () => {
  const g = new Graph();
  let x = g.input('x', [64]);
  for (let i = 0; i < 30; i++) x = scale(x, 1.01);
  const program = await compile(gpu, g, { keep: { x: scale(x, 2) } });
  assert.is(assertNoOverlap(program), 2);
  program.destroy();
});

test('a program prints its dispatches, slots, lifetimes and bytes', async () => {
  const g = new Graph();
  const x = g.input('x', [32, 16]);
  const w = g.state('w', [8, 16]);
  const y = g.scope('encoder', () => scale(scale(linear(x, w), 2), 3));
  const program = await compile(gpu, g, { keep: { y }, label: 'a small plan' });
  const text = program.toString();
  assert.match(text, /^a small plan: 3 dispatches, 2 pipelines, 0\.\d\d MiB\n/);
  assert.match(
    text,
    /0 {2}encoder\/linear {2}gemm_\w+ <\d+x\d+x\d+> {2}.*a=x\[32, 16\].*b=w\[8, 16\].*c=encoder\/linear\[32, 8\]@0/,
  );
  assert.match(text, /slots: 2, 0\.\d\d MiB for 2 tensors/);
  assert.match(text, /@0 0\.\d\d MiB .*encoder\/linear \[0\.\.1\]/);
  program.destroy();
});

const WRITER = `struct P { n: u32, skip: u32 }
@group(0) @binding(0) var<uniform> p: P;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < p.n && id.x != p.skip) { y[id.x] = x[id.x]; }
}`;

/** Copies x; `change` breaks the dispatch. */
const copyOp = (change: (d: Dispatch) => Partial<Dispatch> = () => ({}), source = WRITER) =>
  defineOp<{ skip: number }>({
    name: 'copy',
    shape: ([x]) => [{ shape: x!.shape, dtype: 'f32' }],
    forward(c) {
      const n = c.input(0).shape.reduce((a, b) => a * b, 1);
      const d: Dispatch = {
        kernel: kernel('copier', source),
        bind: { x: c.input(0), y: c.outputs[0]! },
        params: { n, skip: c.attrs.skip },
        grid: [Math.ceil(n / 64), 1, 1],
      };
      return [{ ...d, ...change(d) }];
    },
    backward: null,
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
  });

/** Compiles x -> scale -> the op, inside a scope. */
async function compileOne(
  op: ReturnType<typeof copyOp>,
  { skip = 999, on = gpu, shape = [70] as Shape } = {},
): Promise<Program> {
  const g = new Graph();
  const x = g.input('x', shape);
  const y = g.scope('layer', () => g.apply(op, [scale(x, 1)], { skip })[0]!);
  return compile(on, g, { keep: { y } });
}

test('an element that nobody writes shows as NaN once the program is poisoned', async () => {
  for (const [skip, holes] of [
    [999, []],
    [5, [5]],
    [69, [69]],
  ] as const) {
    const program = await compileOne(copyOp(), { skip });
    program.poison();
    await program.step({ x: noise(70, 1) });
    assert.equal(
      [...(await program.read('y'))].flatMap((v, i) => (Number.isNaN(v) ? [i] : [])),
      [...holes],
    );
    program.destroy();
  }
});

test('poison reaches scratch and intermediate values too, and leaves inputs and state alone', async () => {
  const g = new Graph();
  const x = g.input('x', [8]);
  const s = g.constant('s', [8], new Float32Array(8).fill(2));
  const lazy = defineOp<Record<never, never>>({
    name: 'lazy',
    shape: ([a]) => [{ shape: a!.shape, dtype: 'f32' }],
    forward: (c) => [elementwise('add', c.outputs[0]!, c.input(0), c.temp(c.input(0).shape))],
    backward: null,
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
  });
  const program = await compile(gpu, g, { keep: { lazy: g.apply(lazy, [x], {})[0]!, sum: add(x, s) } });
  await program.step({ x: new Float32Array(8).fill(1) });
  program.poison();
  await program.step();
  assert.ok((await program.read('lazy')).every(Number.isNaN), 'scratch that nobody wrote');
  assert.equal([...(await program.read('sum'))], new Array(8).fill(3));
  program.destroy();
});

test('what an op binds must be what its kernel declares, by name', async () => {
  await failsWith('kernel', [/layer\/copy/, /kernel copier has a binding "x"/, /it binds input, y/], () =>
    compileOne(copyOp((d) => ({ bind: { input: d.bind['x']!, y: d.bind['y']! } }))),
  );
  await failsWith('kernel', [/layer\/copy/, /binds "extra", which kernel copier does not declare/], () =>
    compileOne(copyOp((d) => ({ bind: { ...d.bind, extra: d.bind['x']! } }))),
  );
  await failsWith('kernel', [/layer\/copy/, /reads and writes the buffer of "y"/], () =>
    compileOne(copyOp((d) => ({ bind: { x: d.bind['x']!, y: d.bind['x']! } }))),
  );
});

test('uniform fields must be the ones that the kernel has, all of them', async () => {
  await failsWith(
    'kernel',
    [/layer\/copy/, /kernel copier has no uniform field "count" \(it has n, skip\)/],
    () => compileOne(copyOp((d) => ({ params: { ...d.params, count: 1 } }))),
  );
  await failsWith('kernel', [/layer\/copy/, /kernel copier needs a uniform field "skip"/], () =>
    compileOne(copyOp(() => ({ params: { n: 70 } }))),
  );
});

test('a kernel that does not compile is reported with scope, line and text', async () => {
  const broken = WRITER.replace('y[id.x] = x[id.x]', 'y[id.x] = undeclared');
  await failsWith(
    'kernel',
    [/^layer: kernel copier does not compile/, /copier:6:\d+ .*undeclared/, /if \(id\.x < p\.n/],
    () => compileOne(copyOp(undefined, broken)),
  );
  assert.ok(gpu.failure() === null, 'the error was told once');
});

test('a grid over 65535 workgroups is refused', async () => {
  await failsWith('limit', [/layer\/copy/, /grid of 65536 x 1 x 1/], () =>
    compileOne(copyOp(() => ({ grid: [65536, 1, 1] }))),
  );
});

test(
  "a tensor over the adapter's binding limit is refused with op, bytes, limit and remedy, before " +
    'anything is allocated',
  async () => {
    const { limits } = gpu.profile;
    const n = Math.ceil(
      Math.sqrt((1.25 * Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize)) / 4),
    );
    const g = new Graph();
    const y = g.scope('attention', () => matmul(g.input('a', [n, 1]), g.input('b', [1, n])));
    const bytes = Math.round((n * n * 4) / 2 ** 20);
    await failsWith(
      'limit',
      [
        new RegExp(`attention/matmul \\${formatShape([n, n]).slice(0, -1)}\\] needs ${bytes} MiB`),
        /allows \d+ MiB \((maxStorageBufferBindingSize|maxBufferSize)\)/,
        /smaller batch/,
      ],
      () => compile(gpu, g, { keep: { y: scale(y, 2) } }),
    );
  },
);

test('limits are those of the device in use', async () => {
  const names = ['minUniformBufferOffsetAlignment', 'minStorageBufferOffsetAlignment'] as const;
  const limits = {
    ...Object.fromEntries(names.map((n) => [n, gpu.profile.limits[n]])),
    maxBufferSize: 1 << 22,
    maxStorageBufferBindingSize: 1 << 20,
  } as unknown as GPUSupportedLimits;
  const small: Gpu = { ...gpu, profile: { ...gpu.profile, limits } };
  const fits = await compileOne(copyOp(), { on: small, shape: [1 << 18] });
  fits.destroy();
  await failsWith('limit', [/needs 2 MiB/, /allows 1 MiB \(maxStorageBufferBindingSize\)/], () =>
    compileOne(copyOp(), { on: small, shape: [1 << 19] }),
  );
  await failsWith(
    'limit',
    [/needs 1048832 bytes/, /allows 1048576 bytes \(maxStorageBufferBindingSize\)/],
    () => compileOne(copyOp(), { on: small, shape: [(1 << 18) + 64] }),
  );
  await failsWith('limit', [/"?x/, /needs 8 MiB/, /allows 4 MiB \(maxBufferSize\)/], () =>
    compileOne(copyOp(), { on: small, shape: [1 << 21] }),
  );
});

test.run();
