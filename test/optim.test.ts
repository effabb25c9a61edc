import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Graph, type Value } from '../src/graph/graph.ts';
import { adamw, adamwReference, biasCorrections } from '../src/optim/adamw.ts';
import { clipCoefficient, gradNorm, scaleBy } from '../src/optim/clip.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';

const gpu = await openTestGpu();
const wave = (n: number, k: number, scale = 1): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length: n }, (_, i) => scale * Math.sin(1 + i * k));

/** Runs AdamW on n elements for some steps and returns param, expAvg, expAvgSq. */
async function train(
  n: number,
  grads: readonly Float32Array<ArrayBuffer>[],
  options: Parameters<typeof adamw>[4],
  clip?: number,
): Promise<[Float32Array, Float32Array, Float32Array]> {
  const graph = new Graph();
  const grad = graph.input('grad', [n]);
  const state: Record<string, Value> = {};
  for (const name of ['param', 'm', 'v']) state[name] = graph.state(name, [n]);
  adamw(
    state['param']!,
    grad,
    state['m']!,
    state['v']!,
    options,
    clip === undefined
      ? null
      : clipCoefficient(gradNorm(grad, { bindingLimit: options?.bindingLimit }), clip),
  );
  const place = new Map(
    Object.values(state).map((v) => {
      const buffer = gpu.device.createBuffer({ size: Math.ceil(n / 4) * 16, usage: 0x80 | 0x4 | 0x8 });
      return [v, { buffer, offset: 0, size: buffer.size }];
    }),
  );
  gpu.device.queue.writeBuffer(place.get(state['param']!)!.buffer, 0, wave(n, 0.3));
  const program = await compile(gpu, graph, { keep: state, place, label: 'adamw' });
  for (const [i, g] of grads.entries())
    await program.step({ grad: g }, { lr: 0.01, ...biasCorrections(i + 1) });
  const result = [await program.read('param'), await program.read('m'), await program.read('v')] as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  program.destroy();
  for (const { buffer } of place.values()) buffer.destroy();
  return result;
}

test('AdamW follows the reference over several steps, in pieces, with decay on the first elements only', async () => {
  const n = 1003;
  const decayCount = 402;
  const grads = [wave(n, 0.7, 0.2), wave(n, 1.1, 0.1), wave(n, 1.9, 0.3)];
  const [param, m, v] = await train(n, grads, { decayCount, weightDecay: 0.3, bindingLimit: 1024 });
  const start = wave(n, 0.3);
  for (let i = 0; i < n; i++) {
    let state: [number, number, number] = [start[i]!, 0, 0];
    grads.forEach((g, k) => {
      state = adamwReference(state, g[i]!, {
        lr: 0.01,
        betas: [0.9, 0.98],
        eps: 1e-6,
        weightDecay: i < decayCount ? 0.3 : 0,
        step: k + 1,
      });
    });
    [param[i]!, m[i]!, v[i]!].forEach((got, k) =>
      assert.ok(
        Math.abs(got - state[k]!) < 2e-6,
        `element ${i} of ${['param', 'm', 'v'][k]} is ${got}, not ${state[k]}`,
      ),
    );
  }
});

for (const family of new Set([gpu.profile.family, 'gpu' as const]))
  test(
    `the gradient norm of several tensors over the binding limit agrees with the sum over all (${family} ` +
      'kernels)',
    async () => {
      const graph = new Graph();
      const a = wave(5003, 0.9, 3);
      const b = wave(3, 0.2);
      const norm = gradNorm([graph.constant('a', [5003], a), graph.constant('b', [3], b)], {
        bindingLimit: 4096,
      });
      const program = await compile({ ...gpu, profile: { ...gpu.profile, family } }, graph, {
        outputs: { norm },
      });
      const want = Math.sqrt([...a, ...b].reduce((sum, x) => sum + x * x, 0));
      assert.ok(Math.abs((await program.step())['norm']![0]! - want) < 1e-6 * want);
      program.destroy();
    },
  );

test('a gradient is scaled down to the norm asked for, and left alone below it', async () => {
  const graph = new Graph();
  const x = Float32Array.of(3, -4, 12);
  const g = graph.constant('g', [3], x);
  const norm = gradNorm(g);
  const program = await compile(gpu, graph, {
    outputs: { over: scaleBy(g, clipCoefficient(norm, 6.5)), under: scaleBy(g, clipCoefficient(norm, 20)) },
  });
  const { over, under } = await program.step();
  over!.forEach((v, i) => assert.ok(Math.abs(v - x[i]! / 2) < 1e-5));
  assert.equal([...under!], [...x]);
  program.destroy();
});

test('a step whose gradient is not finite changes neither parameters nor moments', async () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    const poisoned = wave(70, 0.5);
    poisoned[41] = bad;
    const [param, m, v] = await train(70, [poisoned], {}, 1);
    assert.equal([...param], [...wave(70, 0.3)]);
    assert.ok(m.every((x) => x === 0) && v.every((x) => x === 0));
  }
});

test.run();
