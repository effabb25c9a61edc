import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { absent, difference, formatOutcomes, judge, type Row } from './runtimes/results.ts';
import { clip, lossProblem, stateProblem, type Finding } from './runtimes/suite.ts';

const row: Row = {
  id: 'here-lavapipe',
  runtime: 'Here',
  webgpu: 'its own',
  compiler: 'naga',
  adapter: 'lavapipe',
};
const cases = ['test/golden/a.safetensors', 'test/golden/b.safetensors'];
const values = [1, -2, 0.5];
const good: readonly Finding[] = [
  { kind: 'device', adapter: 'llvmpipe', runtime: 'here', family: 'gpu', subgroups: 0, features: [] },
  { kind: 'embedding', firstMs: 20, medianMs: 5, frames: 1, values },
  { kind: 'training', losses: [3, 2], problem: null },
  { kind: 'resume', problem: null },
  { kind: 'case', file: 'a.safetensors', problem: null },
  { kind: 'case', file: 'b.safetensors', problem: null },
  { kind: 'end' },
];
const judged = (found: readonly Finding[], trouble: string | null = null) =>
  judge(row, '1.0', cases, found, values, trouble, 1);
const changed = (kind: Finding['kind'], change: object): Finding[] =>
  good.map((f) => (f.kind === kind ? ({ ...f, ...change } as Finding) : f));

test('a runtime that finds everything right passes a check for each case and three more', () => {
  const { passed, failures, cases: count } = judged(good);
  assert.equal([passed, failures, count], [5, [], { passed: 2, total: 2 }]);
});

test('whatever is wrong, missing or not a number fails', () => {
  for (const [found, what] of [
    [changed('embedding', { values: [1, -2, 0.6] }), /embedding: differs from the reference by 5.0e-2/],
    [changed('embedding', { values: [1, NaN, 0.5] }), /Infinity/],
    [changed('embedding', { values: [1, -2] }), /Infinity/],
    [changed('training', { problem: 'the loss does not fall' }), /training: the loss does not fall/],
    [changed('resume', { problem: 'x' }), /resume: x/],
    [good.filter((f) => f.kind !== 'case' || f.file !== 'b.safetensors'), /b.safetensors: not reached/],
    [good.filter((f) => f.kind !== 'training'), /training: not reached/],
    [good.filter((f) => f.kind !== 'embedding'), /embedding: not reached/],
  ] as const) {
    const { passed, failures } = judged(found);
    assert.is(passed, 4);
    assert.is(failures.length, 1);
    assert.match(failures[0]!, what);
  }
  assert.equal(
    judged(good, 'ended with SIGSEGV').failures,
    ['ended with SIGSEGV'],
    'a crash after the last check',
  );
  assert.is(judged(good.slice(0, -1)).failures.length, 1, 'an end that was not told');
});

test('the largest difference is a part of the largest number', () => {
  assert.is(difference([1, -4], [1, -4]), 0);
  assert.is(difference([1, -3], [1, -4]), 0.25);
  for (const got of [[], [1], [1, Infinity], [NaN, -4]]) assert.is(difference(got, [1, -4]), Infinity);
});

test('losses must be finite and fall, and states must be equal to the bit', () => {
  const at = (total: number, frame = 1) => ({
    total,
    sample: 1,
    frame,
    phoneme: 1,
    sentence: 1,
    gradNorm: 1,
  });
  assert.is(lossProblem([at(3), at(4), at(2)]), null);
  assert.match(lossProblem([at(3), at(3)])!, /does not fall/);
  assert.match(lossProblem([at(3), at(2, NaN)])!, /frame is NaN at step 1/);
  const state = (x: number) => {
    const t = () => new Map([['w', { shape: [2], data: Float32Array.of(1, x) }]]);
    return { parameters: t(), expAvg: t(), expAvgSq: t() };
  };
  assert.is(stateProblem(state(0), state(0)), null);
  assert.match(stateProblem(state(-0), state(0))!, /parameters w\[1\]/);
  assert.match(stateProblem({ ...state(0), expAvgSq: new Map() }, state(0))!, /expAvgSq w is missing/);
});

test('the clip is 16-bit audio that is neither silent nor clipped', () => {
  const wave = clip();
  const peak = Math.max(...wave.map(Math.abs));
  assert.ok(wave.every((x) => Number.isInteger(x * 2 ** 15)));
  assert.ok(peak > 0.2 && peak < 1, String(peak));
});

test('the table shows what ran, what failed and what could not be run', () => {
  const text = formatOutcomes([
    judged(good),
    judged(changed('resume', { problem: 'x' })),
    absent({ ...row, id: 'there' }, 'npm has none'),
  ]);
  assert.match(text, /\| Here 1\.0 \| +its own \| +naga .* 2\/2 .* bit for bit/);
  assert.match(text, /Failed:\n\n- here-lavapipe: resume: x/);
  assert.match(text, /Not run:\n\n- there: npm has none/);
});

test.run();
