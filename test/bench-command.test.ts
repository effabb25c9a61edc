import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatResults, parseResults, type Result, type ResultsFile } from '../bench/suites/results.ts';
import { benchCommand } from '../bench/command/bench.ts';
import { benchBuildsInTurns } from '../bench/command/bench-against-builds.ts';
import { BELONGS, checkOptions, targetOf, type Target } from '../bench/command/bench-options.ts';
import { writeSafetensors } from '../src/io/safetensors.ts';
import { testAdapter } from './gpu.ts';
import { failsWith } from './harness.ts';

const result = (
  name: string,
  median: number,
  min: number,
  max: number,
  more: Partial<Result> = {},
): Result => ({ suite: 'kernels', name, engine: 'mgf', ms: { median, min, max }, ...more });
const fileOf = (results: Result[], more: Partial<ResultsFile> = {}): ResultsFile => ({
  adapter: 'an adapter',
  versions: { mgf: '1' },
  date: '2026-01-01T00:00:00Z',
  results,
  ...more,
});

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

/** A value for each option, and whether it is a flag of a file's launch. */
const OPTION_VALUES: Readonly<Record<string, string>> = {
  filter: 'a',
  json: 'a.json',
  compare: 'a.json',
  against: 'dist',
  threshold: '5',
  rounds: '5',
  from: 'a.json',
  budget: '9',
  out: 'plots',
  grid: '1',
  size: 'x=1',
  param: 'n=1',
  constant: 'A=1',
  before: 'y=0',
  entry: 'main',
  expect: 'e.safetensors',
  flops: '1',
  python: 'python3',
  precision: 'f16',
  tune: 'off',
  adapter: 'lavapipe',
};

test(
  'every option of mgf bench belongs to some targets and is refused for all others with a sentence ' +
    'that names them',
  async () => {
    const command = benchCommand('0');
    const names = command.options.map((o) => o.attributeName()).filter((name) => name !== 'start');
    assert.equal([...names].sort(), Object.keys(BELONGS).sort());
    assert.equal([...names].sort(), Object.keys(OPTION_VALUES).sort());
    const whats: readonly [Target, string | undefined][] = [
      ['short', undefined],
      ['kernels', 'kernels'],
      ['step', 'step'],
      ['peers', 'peers'],
      ['roofline', 'roofline'],
      ['file', 'k.wgsl'],
      ['from', 'roofline'],
    ];
    for (const [target, what] of whats) {
      for (const name of names) {
        const beside =
          name === 'threshold'
            ? ['threshold', 'compare']
            : name === 'rounds'
              ? ['rounds', 'against']
              : [name];
        const check = () => checkOptions(target, what, beside);
        if (BELONGS[name as keyof typeof BELONGS].includes(target))
          assert.not.throws(check, `${name} ${target}`);
        else await failsWith('usage', new RegExp(`^--${name} does nothing for .*: it belongs to `), check);
      }
    }
    await failsWith('usage', /--threshold does nothing without --compare or --against/, () =>
      checkOptions('kernels', 'kernels', ['threshold']),
    );
    await failsWith('usage', /--against and --compare exclude each other/, () =>
      checkOptions('kernels', 'kernels', ['against', 'compare']),
    );
    await failsWith('usage', /--out is the folder of a plot/, () => checkOptions('from', undefined, ['out']));
    await failsWith('usage', /--from shows the whole file of results: leave out "kernels"/, () =>
      targetOf('kernels', 'a.json'),
    );
    await failsWith('usage', /use kernels, step, peers, roofline or a file/, () =>
      targetOf('everything', undefined),
    );
  },
);

const program = fileURLToPath(new URL('../mgf.js', import.meta.url));
const onDevice = testAdapter() ? ['--adapter', testAdapter()!] : [];

/** Gives `action` a folder and the program in it. */
async function inFolder(
  action: (
    at: (name: string) => string,
    mgf: (...args: string[]) => SpawnSyncReturns<string>,
  ) => Promise<void> | void,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mgf-bench-test-'));
  try {
    await action(
      (name) => join(folder, name),
      (...args) => spawnSync(process.execPath, [program, ...args], { encoding: 'utf8', cwd: folder }),
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test('the command refuses wrong usage, and ends with 1 when something became slower', () =>
  inFolder((at, mgf) => {
    for (const args of [
      ['everything'],
      ['kernels', '--grid', '3'],
      ['k.wgsl', '--budget', '9'],
      ['--rounds', '4', '--against', 'dist'],
      ['kernels', '--against', 'nowhere'],
      ['k.wgsl', '--against', 'dist'],
    ]) {
      assert.is(mgf('bench', ...args).status, 2, args.join(' '));
    }
    assert.match(mgf('bench', '--from', at('none.json')).stderr, /no such file/);
    writeFileSync(at('old.json'), formatResults(fileOf([result('a', 10, 9, 11), result('b', 1, 1, 1)])));
    writeFileSync(at('new.json'), formatResults(fileOf([result('a', 20, 19, 21)])));
    const slower = mgf('bench', '--from', at('new.json'), '--compare', at('old.json'));
    assert.is(slower.status, 1);
    assert.match(slower.stdout, '1 slower, 0 faster');
    assert.is(
      mgf('bench', '--from', at('new.json'), '--compare', at('old.json'), '--threshold', '150').status,
      0,
    );
    assert.is(mgf('bench', '--from', at('old.json'), '--compare', at('new.json')).status, 0);
    assert.not.match(mgf('bench', '--from', at('old.json'), '--filter', 'b').stdout, /\| a /);
  }));

test(
  'a kernel file has results like any other: --json writes them, --compare compares, a reference ' +
    'beside it is held against it',
  () =>
    inFolder((at, mgf) => {
      writeFileSync(at('double.wgsl'), DOUBLE);
      const refused = mgf('bench', 'double.wgsl', ...onDevice);
      assert.is(refused.status, 2);
      assert.match(refused.stderr, /give --grid/);
      const launch = ['--grid', '16', '--param', 'n=1024', ...onDevice];
      const first = mgf('bench', 'double.wgsl', ...launch, '--json', 'a.json');
      assert.is(first.status, 0, first.stderr);
      assert.match(
        first.stdout,
        /GB\/s[^]*entry main; grid 16,1,1[^]*not checked: --expect FILE, or a reference in double\.ref\.ts/,
      );
      const { results } = parseResults(readFileSync(at('a.json'), 'utf8'), 'a.json');
      const own = results.find((r) => r.suite === 'file')!;
      assert.equal(
        [own.name, own.samples!.length, own.variant],
        ['double.wgsl', own.runs, 'entry main; grid 16,1,1; size x=1024 y=1024; param n=1024'],
      );
      assert.ok(
        results.filter((r) => r.suite === 'ceilings').every((r) => r.variant && r.samples!.length === r.runs),
      );
      writeFileSync(
        at('double.ref.ts'),
        'export default ({ x }: Record<string, Float32Array>) => ({ y: x!.map((v) => 2 * v) });',
      );
      assert.match(
        mgf('bench', 'double.wgsl', ...launch, '--compare', 'a.json').stdout,
        /right, by double\.ref\.ts[^]*Compared with/,
      );
      writeFileSync(at('double.ref.ts'), 'export default ({ x }) => ({ y: x.map((v) => 3 * v) });');
      const wrong = mgf('bench', 'double.wgsl', ...launch);
      assert.is(wrong.status, 1);
      assert.match(wrong.stderr, /double\.wgsl is wrong and was not timed: y\[\d+\] is/);
    }),
);

test('kernel dev takes the launch from options, and says right only of what was checked', () =>
  inFolder((at, mgf) => {
    writeFileSync(
      at('double.wgsl'),
      DOUBLE.replace('// bench: flops 1024', '// bench: flops 1024\n// bench: param n=1024'),
    );
    const dev = (...args: string[]) => mgf('kernel', 'dev', 'double.wgsl', '--once', ...args, ...onDevice);
    const unchecked = dev('--grid', '16');
    assert.equal(
      [unchecked.status, /  not checked, [\d.]+ s after the save \(--expect FILE/.test(unchecked.stdout)],
      [0, true],
      unchecked.stdout,
    );
    const x = Float32Array.from({ length: 1024 }, (_, i) => i);
    const file = (y: Float32Array) =>
      writeSafetensors(
        new Map(
          [
            ['x', x],
            ['y', y],
          ].map(([name, data]) => [
            name as string,
            { dtype: 'F32', shape: [1024], data: data as Float32Array },
          ]),
        ),
      );
    writeFileSync(at('right.safetensors'), file(x.map((v) => 2 * v)));
    writeFileSync(at('wrong.safetensors'), file(x));
    assert.match(
      dev('--grid', '16', '--expect', 'right.safetensors').stdout,
      /  right, [\d.]+ s after the save \(by right\.safetensors\)/,
    );
    const wrong = dev('--grid', '16', '--expect', 'wrong.safetensors');
    const short = dev('--grid', '15');
    assert.equal([wrong.status, short.status], [1, 1]);
    assert.match(wrong.stdout, /y\[1023\] is 2046, must be 1023/);
    assert.match(short.stdout, /nobody wrote y\[960\], nor 63 more of 1024 numbers of y/);
    assert.is(dev('--grid', 'many').status, 2);
    assert.match(dev('--grid', '16', '--expect', 'y.npy').stderr, /is not a \.safetensors file/);
    writeFileSync(at('module.ts'), 'export {};');
    assert.match(mgf('kernel', 'dev', at('module.ts'), '--grid', '1').stderr, /--grid is for a \.wgsl file/);
    assert.match(mgf('kernel', 'dev', at('double.ts'), '--grid', '1').stderr, /no file/);
  }));

test(
  'two kernel files in turns: equal code is not slower, slower code is, and both sides are in the ' +
    'results',
  () =>
    inFolder((at, mgf) => {
      const heavy = (rounds: number) =>
        DOUBLE.replace('2.0 * x[id.x]', `work(x[id.x])`).replace(
          'struct P',
          `fn work(x: f32) -> f32 { var s = x; for (var i = 0; i < ${rounds}; i++) { s = fma(s, 0.999, ` +
            `0.5); } return s; }\nstruct P`,
        );
      writeFileSync(at('a.wgsl'), heavy(2000));
      writeFileSync(at('b.wgsl'), heavy(2000));
      writeFileSync(at('c.wgsl'), heavy(20000));
      const turns = (a: string, b: string) =>
        mgf(
          'bench',
          a,
          '--against',
          b,
          '--grid',
          '16',
          '--param',
          'n=1024',
          '--rounds',
          '15',
          '--json',
          'pair.json',
          ...onDevice,
        );
      const equal = turns('a.wgsl', 'b.wgsl');
      assert.is(equal.status, 0, equal.stderr + equal.stdout);
      assert.match(
        equal.stdout,
        /0 slower, 0 faster, [^]*was not checked[^]*The ceilings moved by a factor of/,
      );
      const slower = turns('c.wgsl', 'a.wgsl');
      assert.equal(
        [
          slower.status,
          /1 slower, 0 faster/.test(slower.stdout),
          /y are not the same bits/.test(slower.stdout),
        ],
        [1, true, true],
        slower.stdout,
      );
      const { results } = parseResults(readFileSync(at('pair.json'), 'utf8'), 'pair.json');
      assert.equal(
        results.filter((r) => r.suite === 'against').map((r) => [r.engine, r.samples!.length]),
        [
          ['this', 15],
          ['other', 15],
        ],
      );
    }),
);

test('two builds in turns: each round is a process of each, and who begins alternates', () =>
  inFolder(async (at, mgf) => {
    // Builds that answer with times of their own, so that the answer does not depend on the machine.
    const build = (name: string, ms: number, gbps = 5): string => {
      mkdirSync(at(name));
      writeFileSync(
        at(`${name}/mgf.js`),
        `const { appendFileSync, writeFileSync } = require('fs'), args = ` +
          `process.argv;
      appendFileSync(${JSON.stringify(at('log'))}, ${JSON.stringify(`${name} `)});
      const result = (suite, name, median, more) => ({ suite, name, engine: 'mgf', ms: { median, min: ` +
          `median, max: median }, ...more });
      writeFileSync(args[args.indexOf('--json') + 1], JSON.stringify({ adapter: 'a', versions: {}, date: ` +
          `'d', results: [
        result('ceilings', 'copy', 1, { gbps: ${gbps} }), result('kernels', args[args.indexOf('--filter') ` +
          `+ 1], ${ms} + process.pid % 97 / 1e3)] }));`,
      );
      return at(name);
    };
    const slow = build('slow', 20);
    const fast = build('fast', 10);
    const tired = build('tired', 10, 2);
    const turns = async (own: string, against: string): Promise<[unknown, ResultsFile]> => {
      const status = process.exitCode;
      try {
        await benchBuildsInTurns(
          'kernels',
          { against, json: at('pair.json'), filter: /soft/, rounds: 5, tune: 'auto' },
          join(own, 'mgf.js'),
        );
        return [process.exitCode ?? 0, parseResults(readFileSync(at('pair.json'), 'utf8'), 'pair.json')];
      } finally {
        process.exitCode = status;
      }
    };
    const [slower, { results }] = await turns(slow, fast);
    assert.is(slower, 1);
    assert.is(readFileSync(at('log'), 'utf8').trim(), 'slow fast fast slow slow fast fast slow slow fast');
    assert.equal(
      results
        .filter((r) => r.suite === 'against')
        .map((r) => [r.name, r.engine, Math.floor(r.ms.median), r.samples!.length]),
      [
        ['kernels soft (mgf)', 'this', 20, 5],
        ['kernels soft (mgf)', 'other', 10, 5],
      ],
    );
    assert.is((await turns(fast, slow))[0], 0);
    assert.is(
      (await turns(slow, tired))[0],
      0,
      'a factor of 2 where the ceilings moved by 2.5 is inconclusive',
    );
    assert.match(
      mgf('bench', 'kernels', '--against', at('log')).stderr,
      /is no build: it must be a folder with mgf\.js/,
    );
  }));

test('Ctrl-C prints and writes what was measured, marks it, and ends with 130', () =>
  inFolder(async (at) => {
    const child = spawn(process.execPath, [
      program,
      'bench',
      'kernels',
      '--filter',
      'softmax',
      '--json',
      at('a.json'),
      ...onDevice,
    ]);
    let out = '';
    let err = '';
    let stopped = false;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text;
      if (!stopped && /^ {2}mgf: [\d.]+ ms/m.test(err)) stopped = child.kill('SIGINT');
    });
    const status = await new Promise((resolve) => {
      child.on('close', resolve);
    });
    assert.is(status, 130, err);
    const { complete, results } = parseResults(readFileSync(at('a.json'), 'utf8'), 'a.json');
    assert.is(complete, false);
    assert.equal(
      results.map((r) => r.name),
      ['multiply-add', 'copy', 'softmax-1500x768'],
    );
    assert.match(out, /Interrupted: what is here was measured before[^]*softmax-1500x768/);
  }));

test.run();
