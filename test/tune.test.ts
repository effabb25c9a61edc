import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test as every } from 'uvu';
import * as assert from 'uvu/assert';
import { formatTuning, readTuning, tuneInto, tuningFile } from '../src/cli/tuning.ts';
import { useDawn } from '../src/gpu/dawn.ts';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { Graph } from '../src/graph/graph.ts';
import { GPU_VARIANTS } from '../src/ops/gemm/gemm-gpu.ts';
import { matmul } from '../src/ops/gemm/matmul.ts';
import { compile } from '../src/plan/compile.ts';
import { rejections } from '../src/plan/self-test.ts';
import { startTuning, tuningOf, type Candidate, type Tuning } from '../src/plan/tune.ts';
import { testAdapter, slowToCompile } from './gpu.ts';
import { distance, noise } from './harness.ts';

useDawn();
const USED = ['tile-64x64', 'tile-32x32'];

/**
 * A device of its own under the GPU family, with two variants: each takes software a second to compile.
 * `mutate` changes kernel texts.
 */
async function open(mutate: (code: string) => string = (code) => code): Promise<Gpu> {
  const prefer = testAdapter();
  const gpu = await openGpu({ ...(prefer && { prefer }), onNote: () => {} });
  const { device } = gpu;
  const createModule = device.createShaderModule.bind(device);
  device.createShaderModule = (descriptor) => createModule({ ...descriptor, code: mutate(descriptor.code) });
  return {
    ...gpu,
    profile: {
      ...gpu.profile,
      family: 'gpu',
      rejected: new Set(GPU_VARIANTS.map((v) => v.name).filter((name) => !USED.includes(name))),
    },
  };
}

/** A product of two sizes; the constants that tell which variants computed it. */
async function products(gpu: Gpu): Promise<{ tiles: string[]; error: number }> {
  const g = new Graph();
  const a = g.input('a', [40, 8]);
  const b = g.input('b', [8, 20]);
  const c = g.input('c', [20, 12]);
  const data = { a: noise(320, 1), b: noise(160, 2), c: noise(240, 3) };
  const program = await compile(gpu, g, { outputs: { y: matmul(matmul(a, b), c) } });
  const { y } = await program.step(data);
  const times = (x: ArrayLike<number>, w: ArrayLike<number>, m: number, k: number, n: number): Float64Array =>
    Float64Array.from({ length: m * n }, (_, i) => {
      let sum = 0;
      for (let j = 0; j < k; j++) sum += x[Math.floor(i / n) * k + j]! * w[j * n + (i % n)]!;
      return sum;
    });
  const tiles = program.dispatches
    .filter((d) => d.kernel === 'gemm_tile')
    .map((d) => `tile-${d.constants['BM']}x${d.constants['BN']}`);
  program.destroy();
  return { tiles, error: distance(y!, times(times(data.a, data.b, 40, 8, 20), data.c, 40, 20, 12)) };
}

/** 32x32 is fastest for the first product, 64x64 for the second. */
const fixed =
  (asked: string[]) =>
  (c: Candidate): Promise<number> => {
    asked.push(`${c.choice}: ${c.variant}`);
    const best = c.choice.includes('40x20x1x8') ? 'tile-32x32' : 'tile-64x64';
    return Promise.resolve(c.variant === best ? 1 : 2 + c.variant.length);
  };

/** Tuning starts anew on it in each test. */
const gpu = await open();
const slow = slowToCompile(gpu);
const test = slow ? Object.assign(every.skip, { skip: every.skip }) : every;
if (slow) console.log(`skipped: ${slow}`);

test('without tuning the estimate decides, and nothing is measured', async () => {
  assert.is(tuningOf(gpu), null);
  assert.ok((await products(gpu)).error < 1e-6);
  assert.is(tuningOf(gpu), null);
});

test(
  'each kind of product gets the variant that was fastest for it, measured once, in rounds, and kept as ' +
    'JSON',
  async () => {
    const asked: string[] = [];
    const saved: Tuning[] = [];
    const started: number[] = [];
    startTuning(gpu, {
      timer: fixed(asked),
      onMeasured: (t) => {
        saved.push(t);
      },
      onStart: (n) => started.push(n),
    });
    const { tiles, error } = await products(gpu);
    assert.equal(tiles, ['tile-32x32', 'tile-64x64']);
    assert.ok(error < 1e-6, `off by ${error}`);
    assert.equal(started, [2]);
    assert.is(asked.length, 2 * USED.length * 3, 'three rounds of two products in three variants');
    assert.equal(new Set(asked.slice(0, USED.length)).size, USED.length, 'candidates take turns');
    assert.equal((await products(gpu)).tiles, tiles);
    assert.is(asked.length, 12, 'known products are not measured again');
    assert.is(saved.length, 1);

    const kept = JSON.parse(JSON.stringify(saved[0])) as Tuning;
    assert.equal(kept, tuningOf(gpu));
    assert.is(kept.adapter, gpu.profile.name);
    assert.equal(
      Object.values(kept.choices).map((c) => [c.variant, Object.keys(c.ms)[0], c.ms[c.variant]]),
      [
        ['tile-32x32', 'tile-32x32', 1],
        ['tile-64x64', 'tile-64x64', 1],
      ],
    );
    startTuning(gpu, { known: kept, timer: () => assert.unreachable('measured what was known') as never });
    assert.equal((await products(gpu)).tiles, tiles);
  },
);

test('a table of another adapter is not used', async () => {
  const asked: string[] = [];
  startTuning(gpu, {
    known: { adapter: 'another', runtime: gpu.profile.runtime, choices: {} },
    timer: fixed(asked),
  });
  await products(gpu);
  assert.is(asked.length, 12);
});

test('the clock of the device chooses one of the candidates, and results stay right', async () => {
  startTuning(gpu);
  const { tiles, error } = await products(gpu);
  const { choices } = tuningOf(gpu)!;
  assert.ok(error < 1e-6, `off by ${error}`);
  assert.equal(
    Object.values(choices).map((c) => c.variant),
    tiles,
  );
  for (const [key, { variant, ms }] of Object.entries(choices)) {
    const times = Object.values(ms);
    assert.ok(times.length >= 1 && times.every((t) => t > 0 && t < 1000), `${key}: ${JSON.stringify(ms)}`);
    assert.is(ms[variant], Math.min(...times));
  }
});

test('a variant that computes wrongly is not timed', async () => {
  const wrong = await open((code) =>
    code.replace(/sum \* p\.alpha([\s\S]*@workgroup_size\(64\))/, 'sum * -p.alpha$1'),
  );
  const asked: string[] = [];
  startTuning(wrong, { timer: fixed(asked) });
  const { tiles, error } = await products(wrong);
  assert.equal(
    rejections(wrong).map((r) => r.variant),
    ['tile-32x32'],
  );
  assert.not(asked.some((line) => line.endsWith('tile-32x32')));
  assert.not(tiles.includes('tile-32x32'));
  assert.ok(error < 1e-6);
  wrong.close();
});

test('the command line keeps what was measured in a file, for this adapter, driver and version', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mgf-tuning-'));
  const path = tuningFile(gpu, '1.0.0', join(folder, 'new'));
  assert.is.not(path, tuningFile(gpu, '1.0.1', join(folder, 'new')));
  assert.is(await readTuning(path), null);
  await tuneInto(gpu, path);
  const { tiles } = await products(gpu);
  const kept = await readTuning(path);
  assert.equal(kept, tuningOf(gpu));
  await tuneInto(gpu, path);
  assert.equal(tuningOf(gpu), kept);
  assert.equal((await products(gpu)).tiles, tiles);
  assert.equal(tuningOf(gpu), kept, 'nothing was measured again');
  const lines = formatTuning(kept!).split('\n');
  assert.is(lines.length, 4);
  assert.match(lines[2]!, /^n[nt] 40x20x1x8 .* tile-\d+x\d+ +[\d.e-]+ +/);
  writeFileSync(path, '{ "adapter": 1 }');
  assert.is(await readTuning(path), null, 'a file that is not sound is as good as none');
  rmSync(folder, { recursive: true });
});

every.run();
