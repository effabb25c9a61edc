import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openGpu } from '../src/gpu/device.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { Pretrainer } from '../src/mgf/pretrainer.ts';
import { add, scaleByScalar } from '../src/ops/elementwise.ts';
import { grad } from '../src/ops/grad.ts';
import { linear, linearReference } from '../src/ops/gemm/linear.ts';
import { mseLoss } from '../src/ops/losses/pointwise.ts';
import { adamw, adamwReference, biasCorrections } from '../src/optim/adamw.ts';
import { compile } from '../src/plan/compile.ts';
import type { Program } from '../src/plan/program.ts';
import type { Region } from '../src/plan/storage.ts';
import { openTestGpu, testAdapter } from './gpu.ts';
import { distance, failsWith, filled, noise, speechBatch, type Floats, countCreations } from './harness.ts';

const gpu = await openTestGpu();
const run = presetRunConfig('nano', { train: { utterances_per_batch: 2, crop_seconds: 0.5, seed: 11 } });

test('a training step replays with new inputs and new scalars each time, as a float64 simulation does', async () => {
  const [M, I, O] = [12, 6, 4];
  const betas = [0.9, 0.98] as const;
  const eps = 1e-6;
  const weightDecay = 0.05;
  const start = { w: noise(I * O, 1), b: noise(O, 2) };
  const g = new Graph();
  const place = new Map<Value, Region>();
  const x = g.input('x', [M, I]);
  const target = g.input('target', [M, O]);
  const parameters: Value[] = [];
  for (const [name, shape] of [
    ['w', [O, I]],
    ['b', [O]],
  ] as const) {
    const p = g.state(name, shape, { requiresGrad: true });
    parameters.push(p);
    place.set(p, filled(gpu, start[name]));
  }
  const [w, b] = parameters as [Value, Value];
  const loss = scaleByScalar(mseLoss(linear(x, w, b), target), 'weight');
  grad(loss, parameters).forEach((d, i) => {
    const [m, v] = ['m', 'v'].map((name) => {
      const moment = g.state(name, parameters[i]!.shape);
      place.set(moment, filled(gpu, new Float32Array(parameters[i]!.shape.reduce((p, q) => p * q, 1))));
      return moment;
    }) as [Value, Value];
    adamw(parameters[i]!, d, m, v, { betas, eps, weightDecay });
  });
  const program = await compile(gpu, g, { outputs: { loss }, keep: { w, b }, place });
  program.poison();

  const host = {
    w: [...start.w].map((p): [number, number, number] => [p, 0, 0]),
    b: [...start.b].map((p): [number, number, number] => [p, 0, 0]),
  };
  for (let step = 1; step <= 8; step++) {
    const data = { x: noise(M * I, 10 + step), target: noise(M * O, 50 + step) };
    const lr = [0.1, 0.003, 0.05, 0.2, 0, 0.01, 0.3, 0.02][step - 1]!;
    const weight = 1 / step;
    const got = await program.step(data, { weight, lr, ...biasCorrections(step, betas) });
    const y = linearReference(
      Float64Array.from(data.x),
      Float64Array.from(host.w, ([p]) => p),
      Float64Array.from(host.b, ([p]) => p),
      M,
      I,
      O,
    );
    const dy = y.map((v, i) => (2 * weight * (v - data.target[i]!)) / (M * O));
    const want = (weight * y.reduce((sum, v, i) => sum + (v - data.target[i]!) ** 2, 0)) / (M * O);
    assert.ok(
      Math.abs(got['loss']![0]! - want) < 2e-5 * want,
      `step ${step}: loss ${got['loss']![0]}, not ${want}`,
    );
    const options = { lr, betas, eps, weightDecay, step };
    host.w = host.w.map((p, i) => {
      let d = 0;
      for (let m = 0; m < M; m++) d += dy[m * O + Math.floor(i / I)]! * data.x[m * I + (i % I)]!;
      return adamwReference(p, d, options);
    });
    host.b = host.b.map((p, i) =>
      adamwReference(
        p,
        dy.reduce((sum, d, e) => sum + (e % O === i ? d : 0), 0),
        options,
      ),
    );
    assert.ok(
      distance(
        await program.read('w'),
        host.w.map(([p]) => p),
      ) < 2e-5,
      `step ${step}: weights`,
    );
    assert.ok(
      distance(
        await program.read('b'),
        host.b.map(([p]) => p),
      ) < 2e-5,
      `step ${step}: bias`,
    );
  }
  program.destroy();
});

/** out = k x + y, with k a per-step scalar. */
async function affine(on = gpu): Promise<Program> {
  const g = new Graph();
  const x = g.input('x', [5]);
  const y = g.input('y', [5]);
  const count = g.input('count', [2], 'i32');
  const out = add(scaleByScalar(x, 'k'), y);
  return compile(on, g, { outputs: { out }, keep: { count }, label: 'affine' });
}
const ones = new Float32Array(5).fill(1);
const counts = Int32Array.of(3, 4);

test('a missing, wrongly sized or wrongly typed input and a missing scalar are refused by name', async () => {
  const program = await affine();
  await failsWith('shape', /affine: the input "(y|count)" was never given/, () =>
    program.step({ x: ones }, { k: 1 }),
  );
  await failsWith('shape', /affine: input "x" has 4 elements, the graph wants 5 \[5\]/, () =>
    program.step({ x: new Float32Array(4), y: ones, count: counts }, { k: 1 }),
  );
  await failsWith('usage', /affine: unknown input "X"; the nearest known one is "x"/, () =>
    program.step({ X: ones } as never, { k: 1 }),
  );
  await failsWith('usage', /affine: input "x" is "1", but must be an array of numbers/, () =>
    program.step({ x: '1' } as never, { k: 1 }),
  );
  await failsWith('usage', /affine: step: inputs is null, but must be an object/, () =>
    program.step(null as never, { k: 1 }),
  );
  await failsWith('usage', /the per-step scalar "k" is "3", but must be a number/, () =>
    program.step({ x: ones, y: ones, count: counts }, { k: '3' } as never),
  );
  await failsWith('shape', /"k" was not given \(it wants k; "K" is none of them\)/, () =>
    program.step({ x: ones, y: ones, count: counts }, { K: 3 } as never),
  );
  await failsWith('shape', /input "count" must be i32: give Int32Array, not a Uint32Array/, () =>
    program.step({ x: ones, y: ones, count: new Uint32Array(2) }, { k: 1 }),
  );
  await failsWith('shape', /affine: input "count" must be i32/, () =>
    program.step({ x: ones, y: ones, count: new Float32Array(2) }, { k: 1 }),
  );
  await failsWith('shape', /affine: input "y" must be f32/, () =>
    program.step({ x: ones, y: new Int32Array(5), count: counts }, { k: 1 }),
  );
  await failsWith('shape', /affine: the per-step scalar "k" was not given \(it wants k\)/, () =>
    program.step({ x: ones, y: ones, count: counts }),
  );
  assert.equal(
    [...(await program.step({ x: ones, y: ones, count: counts }, { k: 3 }))['out']!],
    [4, 4, 4, 4, 4],
    'it works after all those',
  );
  program.destroy();
});

test('an input left out of a later step keeps its contents, and integers come back as integers', async () => {
  const program = await affine();
  await program.step({ x: ones, y: ones, count: counts }, { k: 1 });
  assert.equal(
    [...(await program.step({ x: ones.map((v) => 2 * v) }, { k: 10 }))['out']!],
    new Array(5).fill(21),
  );
  assert.equal(await program.read('count'), counts);
  await failsWith('shape', /affine keeps no "ghost"; it keeps count, out/, () => program.read('ghost'));
  program.destroy();
});

test('steps issued without waiting run in the order of the calls, however many, each with its own scalars', async () => {
  const program = await affine();
  const results = await Promise.all(
    Array.from({ length: 12 }, (_, i) =>
      program.step({ x: ones, y: ones.map(() => i), count: counts }, { k: 100 * i }),
    ),
  );
  assert.equal(
    results.map((r) => r['out']![2]),
    Array.from({ length: 12 }, (_, i) => 101 * i),
  );
  assert.is(gpu.failure(), null);
  program.destroy();
});

test('outputs and reads come in the array of their dtype', async () => {
  const g = new Graph();
  const f = g.input('f', [2]);
  const i = g.input('i', [2], 'i32');
  const u = g.input('u', [2], 'u32');
  const program = await compile(gpu, g, { outputs: { f, i, u }, keep: { f, i, u } });
  const data = { f: Float32Array.of(-1, 0.5), i: Int32Array.of(-1, 7), u: Uint32Array.of(0xffffffff, 7) };
  assert.equal(await program.step(data), data);
  for (const name of ['f', 'i', 'u'] as const) assert.equal(await program.read(name), data[name]);
  assert.equal(program.inputs, ['f', 'i', 'u']);
  program.destroy();
});

test('two programs on one buffer see each other in the order of the calls', async () => {
  const shared = filled(gpu, new Float32Array(4));
  const make = async (label: string): Promise<Program> => {
    const g = new Graph();
    const state = g.state('state', [4]);
    const lr = g.constant('one', [4], new Float32Array(4).fill(1));
    const moments = [0, 1].map((i) => g.constant(`m${i}`, [4], new Float32Array(4)));
    // With these constants AdamW is state -= lr: the gradient is 1 and moments are forgotten.
    adamw(state, lr, moments[0]!, moments[1]!, { betas: [0, 0], eps: 0, weightDecay: 0, bias1: 1, bias2: 1 });
    return compile(gpu, g, { outputs: { state }, place: new Map([[state, shared]]), label });
  };
  const a = await make('a');
  const b = await make('b');
  const seen: ReturnType<Program['step']>[] = [];
  for (let i = 0; i < 5; i++) seen.push(a.step({}, { lr: 1 }), a.step({}, { lr: 1 }), b.step({}, { lr: 10 }));
  assert.equal(
    (await Promise.all(seen)).map((r) => -r['state']![0]!),
    Array.from({ length: 15 }, (_, i) => Math.floor(i / 3) * 12 + [1, 2, 12][i % 3]!),
  );
  a.destroy();
  b.destroy();
  shared.buffer.destroy();
});

test(
  'steps 3 to 50 of pre-training create no buffer, bind group, pipeline or shader module, with losses ' +
    'read two steps late',
  async () => {
    const model = await Pretrainer.create(gpu, run);
    const batch = speechBatch(run);
    const inFlight: Promise<{ total: number; skipped: boolean }>[] = [];
    const totals: number[] = [];
    const before = countCreations(gpu.device);
    gpu.device.createBuffer({ size: 16, usage: 0x80 }).destroy();
    assert.equal(before.made, { createBuffer: 1 }, 'the count works');
    before.stop();
    let counter = { made: {} as Record<string, number>, stop(): void {} };
    for (let step = 0; step < 50; step++) {
      if (step === 2) counter = countCreations(gpu.device);
      inFlight.push(model.step([batch], { step, learningRate: 1e-3 }));
      if (inFlight.length > 2) totals.push((await inFlight.shift()!).total);
    }
    for (const rest of inFlight) totals.push((await rest).total);
    counter.stop();
    assert.equal(counter.made, {});
    assert.is(totals.length, 50);
    assert.ok(totals.every(Number.isFinite));
    assert.ok(totals.at(-1)! < totals[0]! - 0.3, `the loss went from ${totals[0]} to ${totals.at(-1)}`);
    assert.is(gpu.failure(), null);
    model.destroy();
  },
);

test('two runs from one seed give the same bits, with dropout; another seed gives others', async () => {
  const train = async (seed: number): Promise<{ losses: number[]; parameters: Floats[] }> => {
    const config = { ...run, train: { ...run.train, seed } };
    const model = await Pretrainer.create(gpu, config);
    const losses: number[] = [];
    for (let step = 0; step < 3; step++)
      losses.push((await model.step([speechBatch(config, step)], { step, learningRate: 1e-3 })).total);
    const { parameters } = await model.state();
    model.destroy();
    return { losses, parameters: [...parameters.values()].map((t) => t.data) };
  };
  const first = await train(11);
  assert.equal(await train(11), first);
  assert.not.equal((await train(12)).losses, first.losses);
});

test('a destroyed program frees its buffers', async () => {
  const program = await affine();
  await program.step({ x: ones, y: ones, count: counts }, { k: 1 });
  program.destroy();
  await program.step({ x: ones, y: ones, count: counts }, { k: 1 }).then(
    () => assert.unreachable('it ran on destroyed buffers'),
    (error: Error) => assert.match(error.message, /affine/),
  );
  while (gpu.failure()) {
    /* errors of the use after destruction */
  }
});

test(
  'a device that goes away in the middle of a run is a "device-lost" error for the steps in flight and ' +
    'for later ones',
  async () => {
    const prefer = testAdapter();
    const other = await openGpu(prefer ? { prefer } : {});
    const program = await affine(other);
    await program.step({ x: ones, y: ones, count: counts }, { k: 1 });
    const inFlight = [1, 2].map((k) =>
      program.step({}, { k }).then(
        () => 'done',
        (error: { code: string }) => error.code,
      ),
    );
    other.device.destroy();
    for (const outcome of await Promise.all(inFlight)) assert.is(outcome, 'device-lost');
    await other.lost;
    await failsWith('device-lost', /is gone/, () => program.step({}, { k: 1 }));
    other.close();
  },
);

test.run();
