import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Graph } from '../src/graph/graph.ts';
import {
  logMel,
  logMelPairs,
  logMelReference,
  melFilterbank,
  melFrames,
  melPairsReference,
  type LogMelOptions,
} from '../src/ops/log-mel.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';

const gpu = await openTestGpu();

/** A chirp with a little noise: loud and quiet bins in every frame. */
function signal(n: number, amplitude: number): Float32Array<ArrayBuffer> {
  let state = 1;
  return Float32Array.from({ length: n }, (_, i) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return amplitude * (Math.sin(0.02 * i + 3e-5 * i * i) + 0.01 * (state / 2 ** 31 - 1));
  });
}

async function device(
  wave: Float32Array<ArrayBuffer>,
  R: number,
  options: LogMelOptions,
): Promise<Float32Array> {
  const graph = new Graph();
  const mel = logMel(graph.constant('wave', [R, wave.length / R], wave), options);
  const program = await compile(gpu, graph, { keep: { mel } });
  program.poison();
  await program.step();
  const result = (await program.read('mel')) as Float32Array;
  program.destroy();
  return result;
}

const settings: readonly [string, number, number, LogMelOptions, number][] = [
  ['the usual settings', 2, 2003, {}, 1],
  ['loud signals', 1, 1200, {}, 1e4],
  ['signals near the floor', 1, 1200, {}, 1e-6],
  ['one frame', 1, 400, {}, 1],
  [
    'a window shorter than the DFT, an odd hop, a limited range',
    1,
    1500,
    { nFft: 512, winLength: 400, hopLength: 101, nMels: 23, fMin: 60, fMax: 7600 },
    0.3,
  ],
  ['more frames than are worked on at a time', 1, 9000, { nFft: 16, hopLength: 1, nMels: 3 }, 1],
];
for (const [name, R, L, options, amplitude] of settings) {
  test(`log-mel agrees with the plain DFT for ${name}`, async () => {
    const wave = signal(R * L, amplitude);
    const got = await device(wave, R, options);
    const want = logMelReference(Float64Array.from(wave), R, L, options);
    assert.is(got.length, want.length);
    const worst = got.reduce(
      (most, v, i) => Math.max(most, Math.abs(v - want[i]!) || (Number.isNaN(v) ? Infinity : 0)),
      0,
    );
    assert.ok(worst < 1e-3, `off by ${worst}`);
  });
}

test('the mel filters sum to one between the first and the last peak', () => {
  const bank = melFilterbank();
  for (let k = 5; k < 190; k++) assert.ok(Math.abs(bank.reduce((sum, row) => sum + row[k]!, 0) - 1) < 1e-9);
});

test('pairs of log-mel frames are normalised over the real frames of each row, and zero elsewhere', async () => {
  const R = 3;
  const L = 2003;
  const D = 20;
  const T = 6;
  const M = melFrames(L);
  const real = [M, 7, 1];
  const frameMask = Float32Array.from({ length: R * T }, (_, i) => Number(i % T < 4));
  const wave = signal(R * L, 0.5);
  const graph = new Graph();
  const { features, target, weight } = logMelPairs(graph.constant('wave', [R, L], wave), {
    nMels: D,
    frames: T,
    melFrames: graph.constant('real', [R], Int32Array.from(real)),
    frameMask: graph.constant('mask', [R, T], frameMask),
  });
  const program = await compile(gpu, graph, { keep: { features, target, weight } });
  program.poison();
  await program.step();
  const want = melPairsReference(
    logMelReference(Float64Array.from(wave), R, L, { nMels: D }),
    [R, M, D],
    T,
    real,
  );
  want.weight.forEach((w, i) => {
    want.weight[i] = w * frameMask[i >> 1]!;
  });
  for (const name of ['features', 'target', 'weight'] as const) {
    const got = await program.read(name);
    assert.is(got.length, want[name].length);
    got.forEach((v, i) =>
      assert.ok(Math.abs(v - want[name][i]!) < 2e-4, `${name}[${i}] is ${v}, not ${want[name][i]}`),
    );
  }
  program.destroy();
});

test('without counts and mask, every whole frame of the signal exists', async () => {
  const L = 1043;
  const T = 3;
  const M = melFrames(L);
  const graph = new Graph();
  const wave = signal(L, 1);
  const { weight, target } = logMelPairs(graph.constant('wave', [1, L], wave), { frames: T, nMels: 7 });
  const program = await compile(gpu, graph, { keep: { weight, target } });
  program.poison();
  await program.step();
  const want = melPairsReference(logMelReference(Float64Array.from(wave), 1, L, { nMels: 7 }), [1, M, 7], T, [
    M,
  ]);
  assert.equal([...(await program.read('weight'))], [...want.weight]);
  (await program.read('target')).forEach((v, i) => assert.ok(Math.abs(v - want.target[i]!) < 2e-4));
  assert.is(
    want.weight.reduce((a, b) => a + b),
    5,
  );
  program.destroy();
});

test('settings that the folded DFT cannot take are refused', () => {
  const graph = new Graph();
  const wave = graph.input('wave', [1, 1000]);
  assert.throws(() => logMel(wave, { nFft: 402 }), /the DFT length is 402/);
  assert.throws(() => logMel(wave, { winLength: 401 }), /the window length is 401/);
  assert.throws(() => logMel(graph.input('short', [1, 399])), /at least 400 samples/);
});

test.run();
