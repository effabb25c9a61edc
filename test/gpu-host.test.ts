import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { HostRecord } from '../bench/gpu-host/record.ts';
import { recordFiles } from '../bench/gpu-host/files.ts';
import { runParts, runProcess, type Outcome } from '../bench/gpu-host/runner.ts';
import { parseResults, type Result } from '../bench/suites/results.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const record = (): HostRecord =>
  new HostRecord({
    date: '2026-01-02T03:04:05.000Z',
    machine: 'a machine',
    driver: 'a driver',
    versions: { mgf: '0' },
  });
const result = (
  suite: string,
  name: string,
  engine: string,
  median: number,
  more: Partial<Result> = {},
): Result => ({ suite, name, engine, ms: { median, min: median, max: median }, ...more });

test('a part that fails is recorded with its reason, and the parts after it are run', async () => {
  const ran: string[] = [];
  const outcomes: Outcome[] = [];
  const part = (name: string, run: () => void) => ({
    name,
    seconds: 60,
    run: async () => {
      ran.push(name);
      run();
    },
  });
  await runParts(
    [
      part('one', () => undefined),
      part('two', () => {
        throw new Error('the driver is gone');
      }),
      { ...part('three', () => undefined), skip: () => 'no such feature' },
      part('four', () => undefined),
    ],
    Date.now() + 60_000,
    async (outcome) => {
      outcomes.push(outcome);
    },
  );
  assert.equal(ran, ['one', 'two', 'four']);
  assert.equal(
    outcomes.map(({ part: name, status, reason }) => [name, status, reason]),
    [
      ['one', 'done', undefined],
      ['two', 'failed', 'the driver is gone'],
      ['three', 'left out', 'no such feature'],
      ['four', 'done', undefined],
    ],
  );
});

test('no part is begun when the time is over, and none gets more than is left', async () => {
  const outcomes: Outcome[] = [];
  const deadline = Date.now() + 10_000;
  let until = 0;
  await runParts(
    [
      {
        name: 'long',
        seconds: 600,
        run: async (u) => {
          until = u;
        },
      },
    ],
    deadline,
    async (o) => {
      outcomes.push(o);
    },
  );
  assert.is(until, deadline);
  await runParts(
    [
      {
        name: 'late',
        seconds: 1,
        run: async () => {
          throw new Error('was begun');
        },
      },
    ],
    Date.now() + 1000,
    async (o) => {
      outcomes.push(o);
    },
  );
  assert.is(outcomes[1]!.status, 'left out');
  assert.match(outcomes[1]!.reason!, 'were left');
});

test('what a process said before it crashed or hung is kept; a crash after it was done is no failure', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mgf-gpu-host-'));
  const program = join(folder, 'part.mjs');
  const said: unknown[] = [];
  const run = (text: string, ms = 20_000): Promise<void> => {
    writeFileSync(program, text);
    said.length = 0;
    return runProcess({ program, args: [], killAt: Date.now() + ms, onMessage: (m) => said.push(m) });
  };
  const reason = (p: Promise<void>): Promise<string> =>
    p.then(
      () => 'it ended well',
      (error: Error) => error.message,
    );
  try {
    assert.match(
      await reason(
        run(
          'console.log(JSON.stringify({ a: 1 })); console.log("{ not JSON"); process.kill(process.pid, ' +
            '"SIGABRT"); setInterval(() => {}, 1000);',
        ),
      ),
      'SIGABRT',
    );
    assert.equal(said, [{ a: 1 }]);
    assert.match(await reason(run('setInterval(() => {}, 1000);', 300)), 'did not end in time');
    assert.match(
      await reason(run('console.error("out of luck"); process.exit(3);')),
      /status 3: out of luck/,
    );
    assert.match(await reason(run('')), /status 0/);
    await run(
      'console.log(JSON.stringify({ done: true })); process.kill(process.pid, "SIGSEGV"); ' +
        'setInterval(() => {}, 1000);',
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('the files of an interrupted report can be read, and say what is missing', () => {
  const r = record();
  r.adapter = 'Vendor / Card: 1.2.3';
  r.device = 'Card 80GB';
  r.toggles = ['some_toggle'];
  r.probes.push({ label: 'none', toggles: [], facts: null, failure: 'its process ended with SIGABRT' });
  r.take(
    { ceilings: { gflops: 10_000, gbps: 1000, fma: { variant: 'fma' }, copy: { variant: 'copy' } } as never },
    'f32',
  );
  r.take(
    {
      variant: {
        variant: 'tile-64x64',
        precision: 'f32',
        verdict: 'rejected',
        reason: 'y[3] is 7, must be 8',
      },
    },
    'f32',
  );
  r.take(
    {
      conformance: {
        precision: 'f32',
        file: 'gelu.safetensors',
        op: 'gelu',
        passed: false,
        error: 0.5,
        failure: 'out.y 5.0e-1',
      },
    },
    'f32',
  );
  for (const [name, engine, ms] of [
    ['matmul-1024: f32', 'mgf', 4],
    ['matmul-1024: tile-32x32', 'mgf', 2],
    ['matmul-1024', 'torch-cuda', 1],
  ] as const) {
    r.take({ result: result('gemm', name, engine, ms, { gflops: 8000 / ms }) }, 'f32');
  }
  r.take({ result: result('step', 'base-step', 'mgf', 100) }, 'f32');
  r.take(
    { leftOut: { suite: 'peers', name: 'all', engine: 'torch-cuda', reason: 'python3 has no torch' } },
    'f32',
  );
  r.outcomes.push({ part: 'flash attention f32', status: 'failed', reason: 'it hung', seconds: 40 });
  const files = recordFiles(r);
  const names = Object.keys(files);
  assert.equal(names.sort(), [
    'card-80gb-2026-01-02-host.json',
    'card-80gb-2026-01-02.json',
    'card-80gb-2026-01-02.md',
  ]);
  const parsed = parseResults(files['card-80gb-2026-01-02.json']!, 'the report');
  assert.is(parsed.versions['toggles'], 'some_toggle');
  assert.is(parsed.results.length, 4);
  const host = JSON.parse(files['card-80gb-2026-01-02-host.json']!) as { parts: Outcome[]; driver: string };
  assert.is(host.parts[0]!.reason, 'it hung');
  assert.is(host.driver, 'a driver');
  const text = files['card-80gb-2026-01-02.md']!;
  for (const wanted of [
    'SIGABRT',
    'y[3] is 7, must be 8',
    'out.y 5.0e-1',
    'python3 has no torch',
    'it hung',
    'base-step',
  ])
    assert.ok(text.includes(wanted), wanted);
  // The best variant takes 2 ms of cuBLAS's 1: half its speed, at 40 % of the ceiling; the engine chose one
  // that takes twice the best's time.
  assert.match(text, /\| matmul-1024 +\| +40\.0 % \| +50\.0 % \| +- \| +50\.0 % \|/);
  r.take({ result: result('kernels', 'softmax', 'mgf', 1) }, 'f16');
  assert.ok('card-80gb-2026-01-02-f16.json' in recordFiles(r));
});

test('what a part finds when it is run again takes the place of what it found before', () => {
  const r = record();
  for (const ms of [5, 6]) r.take({ result: result('gemm', 'matmul-512: f32', 'mgf', ms) }, 'f32');
  assert.equal(
    r.found.f32.results.map((x) => x.ms.median),
    [6],
  );
});

test('the archive holds the report, Node, Dawn, the loader and every golden case', () => {
  if (process.platform !== 'linux') return console.log('skipped: the archive is packed on Linux');
  const { stdout, status } = spawnSync('bash', [join(root, 'bench/gpu-host/pack.sh'), '--list'], {
    encoding: 'utf8',
  });
  assert.is(status, 0);
  const listed = new Map(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.split('\t').slice(0, 2) as [string, string]),
  );
  for (const name of [
    'node',
    'gpu-host.js',
    'run.sh',
    'README.md',
    'package.json',
    'node_modules/webgpu/index.js',
    'node_modules/webgpu/dist/linux-x64/dawn.node',
    'golden/gelu-basic.safetensors',
  ]) {
    assert.ok(listed.has(name), name);
  }
  assert.ok(stdout.includes('package libvulkan1'));
  for (const [name, from] of listed)
    if (!from.startsWith('package ') && !from.includes('/dist/bench/'))
      assert.ok(existsSync(from), `${name} from ${from}`);
  assert.match(
    readFileSync(join(root, 'build.mjs'), 'utf8'),
    listed
      .get('gpu-host.js')!
      .replace(/^.*\/dist\//, '')
      .replace(/\.js$/, ''),
  );
});

test.run();
