import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atPrecision } from '../src/gpu/adapter.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import { kernel } from '../src/launch/dispatch.ts';
import { Encoder } from '../src/mgf/encoder.ts';
import { presetConfig, presetRunConfig } from '../src/mgf/presets.ts';
import { Pretrainer, type StepMetrics } from '../src/mgf/pretrainer.ts';
import { pretrainingGraph, activeScales } from '../src/mgf/pretraining.ts';
import { initialValues, mgfParameters } from '../src/mgf/weights.ts';
import { grad } from '../src/ops/grad.ts';
import { logMel } from '../src/ops/log-mel.ts';
import { matmul } from '../src/ops/gemm/matmul.ts';
import { ntXent } from '../src/ops/losses/nt-xent.ts';
import { adamw, biasCorrections } from '../src/optim/adamw.ts';
import { clipCoefficient, gradNorm } from '../src/optim/clip.ts';
import { compile } from '../src/plan/compile.ts';
import { ParameterStore } from '../src/plan/parameters.ts';
import { readJsonl } from '../src/pretrain/logs.ts';
import { LossScaler, LOSS_SCALE_DEFAULTS } from '../src/optim/loss-scale.ts';
import { pretrain } from '../src/pretrain/loop.ts';
import { readResumePoint } from '../src/pretrain/run-files.ts';
import type { Loader, LoaderOptions } from '../src/audio/loader.ts';
import type { Batch } from '../src/audio/source.ts';
import type { Gpu, Precision } from '../src/gpu/device.ts';
import type { RunConfig, TrainConfig } from '../src/mgf/config.ts';
import type { MomentState } from '../src/mgf/pretrainer.ts';
import type { Region } from '../src/plan/storage.ts';
import type { PretrainOptions, TrainableModel } from '../src/pretrain/options.ts';
import { openTestGpu } from './gpu.ts';
import {
  distance,
  failsWith,
  generator,
  noise,
  speechBatch,
  speechLike,
  withFamily,
  type Floats,
} from './harness.ts';

const gpu = await openTestGpu();

// ---------------------------------------------------------------------------------- the scale, without a GPU

/**
 * The scales of a run in which a step overflows when `tooLarge` says so. `ahead`: every step is issued before
 * the outcome of the one before is known.
 */
function scales(
  scaler: LossScaler,
  from: number,
  to: number,
  tooLarge: (step: number, scale: number) => boolean,
  ahead: (step: number) => boolean,
): number[] {
  const used = new Map<number, number>();
  let settled = from;
  const settle = (end: number): void => {
    for (; settled < end; settled++)
      scaler.observe(used.get(settled)!, tooLarge(settled, used.get(settled)!));
  };
  for (let step = from; step < to; step++) {
    settle(ahead(step) ? step - 1 : step);
    used.set(step, scaler.at(step));
  }
  settle(to);
  return [...used.values()];
}

test('the scale starts at 65536, is halved by an overflow and doubled after 2000 steps in a row without one', () => {
  const scaler = new LossScaler({ step: 0 });
  const used = scales(
    scaler,
    0,
    6010,
    (step) => step === 3,
    () => true,
  );
  assert.equal(
    used.slice(0, 7),
    [65536, 65536, 65536, 65536, 65536, 32768, 32768],
    'the step in flight has the old scale still',
  );
  const changes = used.flatMap((scale, i) => (i > 0 && scale !== used[i - 1] ? [[i, scale]] : []));
  assert.equal(changes, [
    [5, 32768],
    [4 + 2000 + 1, 65536],
    [4 + 4000 + 1, 131072],
    [4 + 6000 + 1, 262144],
  ]);
});

test(
  'steps in flight that overflow with one scale halve it once, and a step of an old scale proves nothing ' +
    'about a lower one',
  () => {
    const used = scales(
      new LossScaler({ step: 0 }),
      0,
      40,
      (_, scale) => scale > 1000,
      () => true,
    );
    assert.equal(used.slice(0, 8), [65536, 65536, 32768, 32768, 16384, 16384, 8192, 8192]);
    assert.is(used.at(-1), 512);
  },
);

test('the scale keeps to its bounds', () => {
  const up = new LossScaler({ step: 0 }, { interval: 1 });
  const down = new LossScaler({ step: 0 });
  assert.is(
    scales(
      up,
      0,
      100,
      () => false,
      () => false,
    ).at(-1),
    LOSS_SCALE_DEFAULTS.ceiling,
  );
  assert.is(
    scales(
      down,
      0,
      100,
      () => true,
      () => false,
    ).at(-1),
    LOSS_SCALE_DEFAULTS.floor,
  );
});

test('the scale of a step depends neither on when outcomes arrive nor on a resume', () => {
  const next = generator(4);
  const draws = Array.from({ length: 300 }, next);
  const tooLarge = (step: number, scale: number) => scale > 2 ** 20 * draws[step]!;
  const options = { interval: 7 };
  const straight = new LossScaler({ step: 0 }, options);
  const want = scales(straight, 0, 300, tooLarge, () => true);
  assert.ok(new Set(want).size > 4, 'the scale moves');
  assert.equal(
    scales(new LossScaler({ step: 0 }, options), 0, 300, tooLarge, () => false),
    want,
  );
  assert.equal(
    scales(new LossScaler({ step: 0 }, options), 0, 300, tooLarge, (step) => draws[step]! > 0.5),
    want,
  );
  for (const stop of [1, 2, 57, 58, 59, 60, 299]) {
    const first = new LossScaler({ step: 0 }, options);
    const before = scales(first, 0, stop, tooLarge, () => true);
    const second = new LossScaler({ step: stop, state: JSON.parse(JSON.stringify(first.state())) }, options);
    assert.equal([...before, ...scales(second, stop, 300, tooLarge, () => true)], want);
    assert.equal(second.state(), straight.state());
  }
});

test('a damaged scale is refused, and so is the scale of a step too far ahead', async () => {
  for (const state of [
    { scale: NaN, before: 1, good: 0 },
    { scale: 1, before: -2, good: 0 },
    { scale: 1, before: 1, good: 0.5 },
    { scale: 1, before: 1 } as never,
  ]) {
    await failsWith(
      'checkpoint',
      /run\.safetensors cannot be resumed: its loss scale is damaged/,
      () => new LossScaler({ step: 0, state, origin: 'run.safetensors' }),
    );
  }
  await failsWith('usage', /step 2 is not known/, () => new LossScaler({ step: 0 }).at(2));
});

// ---------------------------------------------------------------------------------------------- choosing f16

/** A device that says it has half precision, whatever it has. */
const claiming = (features: string[], family: 'cpu' | 'gpu' = 'gpu'): Gpu => ({
  ...gpu,
  profile: { ...gpu.profile, family, features: new Set(features) },
});

test('half precision is for kernels of GPUs, and the shared profile never changes', async () => {
  const able = claiming(['shader-f16']).profile;
  const software = claiming(['shader-f16'], 'cpu').profile;
  assert.is(atPrecision(able, 'f32'), able);
  assert.is(atPrecision(able), able);
  assert.is(atPrecision(able, 'f16').precision, 'f16');
  assert.is(able.precision, undefined);
  assert.is(atPrecision(software, 'f16').precision, undefined, 'software kernels gain nothing');
  const named = new RegExp(
    `${gpu.profile.name.slice(0, 8).replace(/[^\w ]/g, '.')}.*shader-f16.*precision f32`,
  );
  await failsWith('usage', named, () => atPrecision(claiming([]).profile, 'f16'));
});

test('a program hands its precision to its ops, another program of the same device its own', async () => {
  const seen: (Precision | undefined)[] = [];
  const spy = defineOp<Record<never, never>>({
    name: 'spy',
    shape: ([x]) => [x!],
    saves: { inputs: [], outputs: [] },
    backward: null,
    cost: () => ({ flops: 0, bytes: 0 }),
    forward(c) {
      seen.push(c.adapter.precision);
      return [];
    },
  });
  const able = claiming(['shader-f16']);
  for (const precision of ['f16', 'f32', undefined] as const) {
    const graph = new Graph();
    const y = graph.apply(spy, [graph.constant('x', [4], new Float32Array(4))], {})[0]!;
    (await compile(able, graph, { keep: { y }, ...(precision && { precision }) })).destroy();
  }
  assert.equal(seen, ['f16', undefined, undefined]);
  assert.is(able.profile.precision, undefined);
});

test('a pre-training run and an encoder of a precision that the device lacks are refused with the remedy', async () => {
  const run = nano({ precision: 'f16' });
  await failsWith('usage', /shader-f16.*choose precision f32/, () => Pretrainer.create(claiming([]), run));
  await failsWith('usage', /shader-f16/, () =>
    pretrain({ gpu: claiming([]), run, items: [], out: newFolder() }),
  );
  const values = initialValues(mgfParameters(run.mgf, []), 1);
  await failsWith('usage', /shader-f16/, () =>
    Encoder.create(claiming([]), run.mgf, values, { precision: 'f16' }),
  );
});

// ---------------------------------------------------------------------------------- a scaled gradient in f32

function nano(train: Partial<TrainConfig> = {}): RunConfig {
  return presetRunConfig('nano', {
    train: { utterances_per_batch: 2, crop_seconds: 0.5, seed: 5, ...train },
  });
}

type State = Awaited<ReturnType<Pretrainer['state']>>;
const bits = (state: State): Record<string, Record<string, Floats>> =>
  Object.fromEntries(
    Object.entries(state).map(([part, tensors]) => [
      part,
      Object.fromEntries([...tensors].map(([name, { data }]) => [name, data])),
    ]),
  );

/** Metrics and final state of a few steps; the scale of each by its number. */
async function train(
  on: Gpu,
  run: RunConfig,
  steps: number,
  lossScale?: (step: number) => number | undefined,
): Promise<{ metrics: StepMetrics[]; states: ReturnType<typeof bits>[] }> {
  const model = await Pretrainer.create(on, run);
  const metrics: StepMetrics[] = [];
  const states = [bits(await model.state())];
  for (let step = 0; step < steps; step++) {
    const batches = Array.from({ length: run.train.accumulation }, (_, i) =>
      speechBatch(run, step * run.train.accumulation + i + 1),
    );
    const scale = lossScale?.(step);
    metrics.push(
      await model.step(batches, {
        step,
        learningRate: 1e-3,
        ...(scale !== undefined && { lossScale: scale }),
      }),
    );
    states.push(bits(await model.state()));
  }
  model.destroy();
  return { metrics, states };
}

test('a clipping coefficient undoes the scale to the bit, and still says when the norm is not finite', async () => {
  const n = 70;
  const x = noise(n, 3);
  const of = async (scale: number): Promise<[number, number]> => {
    const graph = new Graph();
    const norm = gradNorm(
      graph.constant(
        'g',
        [n],
        x.map((v) => v * scale),
      ),
    );
    const program = await compile(gpu, graph, {
      outputs: {
        clipped: clipCoefficient(norm, 2, { unscale: 1 / scale }),
        whole: clipCoefficient(norm, 1e3, { unscale: 1 / scale }),
      },
    });
    const { clipped, whole } = await program.step();
    program.destroy();
    return [clipped![0]! * scale, whole![0]! * scale];
  };
  const want = await of(1);
  assert.ok(want[0] > 0.1 && want[0] < 0.9, `${want[0]}`);
  assert.is(want[1], 1);
  for (const scale of [1024, 2 ** 24, 2 ** -8]) assert.equal(await of(scale), want);
  assert.equal(await of(2 ** 100), [-(2 ** 100), -(2 ** 100)], 'squares beyond f32');
});

test('a step without a scale is the step that has none: seed 1, plain clipping, to the bit', async () => {
  const run = nano();
  const { mgf } = run;
  const scales = activeScales(mgf);
  const store = new ParameterStore(gpu, mgfParameters(mgf, scales), 'training');
  store.load(initialValues(mgfParameters(mgf, scales), run.train.seed));
  const { metrics, states } = await train(gpu, run, 1);
  const batch = speechBatch(run, 1);
  const R = 4;
  const L = 8000;
  let parameters = new Map<string, Value>();
  const place = new Map<Value, Region>();
  const built = pretrainingGraph(
    mgf,
    { R, L, N: batch.anchor.length, ragged: false },
    scales,
    (graph) => (parameters = store.declare(graph)),
    true,
  );
  for (const [name, value] of parameters) place.set(value, store.region(name));
  const names = [...parameters.keys()];
  grad(
    built.total,
    names.map((name) => parameters.get(name)!),
  ).forEach((g, i) => place.set(g, store.region(names[i]!, 'gradients')));
  const flat = (name: 'values' | 'gradients' | 'expAvg' | 'expAvgSq'): Value => {
    const value = built.graph.state(name, [store.length]);
    place.set(value, store.flat(name));
    return value;
  };
  const gradients = flat('gradients');
  const norm = gradNorm(gradients);
  const { betas, eps, weight_decay: weightDecay, max_grad_norm: most, seed } = run.train;
  adamw(
    flat('values'),
    gradients,
    flat('expAvg'),
    flat('expAvgSq'),
    { betas, eps, weightDecay, decayCount: store.decayed },
    clipCoefficient(norm, most),
  );
  const program = await compile(gpu, built.graph, { place, outputs: { norm } });
  const { norm: got } = await program.step(
    {
      wave: batch.wave as Floats,
      spans: Float32Array.from(batch.mask),
      anchor: batch.anchor as Int32Array<ArrayBuffer>,
      negatives: batch.negatives as Int32Array<ArrayBuffer>,
      anchor_weight: batch.anchorWeight as Floats,
    },
    {
      lr: 1e-3,
      ...biasCorrections(1, betas),
      seed_lo: seed,
      seed_hi: 0,
      step: 0,
      ...Object.fromEntries(scales.map((s) => [`weight.${s}`, mgf.loss_weights[s]])),
    },
  );
  assert.is(metrics[0]!.gradNorm, got![0]);
  const plain = bits({
    parameters: await store.save('values'),
    expAvg: await store.save('expAvg'),
    expAvgSq: await store.save('expAvgSq'),
  });
  assert.equal(states[1], plain);
  program.destroy();
  store.destroy();
});

for (const accumulation of [1, 2]) {
  test(`a loss scale that is a power of two changes no bit in f32 (${accumulation} micro-batches)`, async () => {
    const run = nano({ accumulation, max_grad_norm: 1 });
    const want = await train(gpu, run, 2);
    assert.ok(
      want.metrics.every((m) => m.gradNorm > 1),
      'clipping is at work',
    );
    for (const scale of [1024, 65536]) assert.equal(await train(gpu, run, 2, () => scale), want);
  });

  test(
    'a scale that overflows leaves the step out, and the next one goes on as if it had not been ' +
      `(${accumulation} micro-batches)`,
    async () => {
      const { metrics, states } = await train(gpu, nano({ accumulation }), 3, (step) =>
        step === 1 ? 2 ** 120 : 1024,
      );
      assert.equal(
        metrics.map((m) => m.skipped),
        [false, true, false],
      );
      assert.not.ok(Number.isFinite(metrics[1]!.gradNorm));
      assert.ok(Number.isFinite(metrics[1]!.total), 'the loss itself is sound');
      assert.equal(states[2], states[1], 'parameters and moments are those of before, bit for bit');
      assert.not.equal(states[3], states[2]);
      assert.ok(Object.values(states[3]!['parameters']!).every((data) => data.every(Number.isFinite)));
    },
  );
}

// -------------------------------------------------------------------------------------------------- the loop

const folder = mkdtempSync(join(tmpdir(), 'mgf-precision-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
let folders = 0;
const newFolder = () => join(folder, `run-${folders++}`);

/** Batches told apart by one number. */
const fakeLoader = (options: LoaderOptions): Promise<Loader> => {
  let step = options.startStep ?? 0;
  return Promise.resolve({
    shape: { R: 4, L: 8, T: 2, K: 1, capacity: 2 },
    stepsPerEpoch: 7,
    stats: {} as Loader['stats'],
    report: { usable: 28, seconds: 60, skipped: [], trusted: 0, warnings: [] },
    next: () => {
      const wave = Float32Array.from({ length: 4 * 640 }, (_, i) => Math.sin(step + i * (1 + i / 1000)));
      return Promise.resolve({
        step: step++,
        wave,
        mask: new Int32Array(4),
        utterances: ['a', 'b'],
      } as unknown as Batch);
    },
    state: (at) => ({ seed: options.seed, step: at, epoch: 0, position: at, clips: 28, digest: 'abc' }),
    close: () => Promise.resolve(),
  });
};

/**
 * A model whose gradient overflows beyond a scale, with the loss given then, and whose one weight remembers
 * every scale that it was trained with.
 */
function fakeModel(
  largest: (step: number) => number,
  seen: number[] = [],
  overflowed = 1,
): NonNullable<PretrainOptions['createModel']> {
  return (_gpu, _run, { state }) => {
    let w = state?.parameters.get('w')!.data[0] ?? 1;
    let queue: Promise<unknown> = Promise.resolve();
    const tensor = () => new Map([['w', { shape: [1], data: Float32Array.of(w) }]]);
    const model: TrainableModel = {
      rows: 4,
      samplesPerCrop: 8,
      info: { parameters: 1, dispatches: 3, pipelines: 2, activationBytes: 64, compileMs: 1 },
      step(_batches, { step, lossScale }) {
        seen.push(lossScale!);
        const skipped = lossScale! > largest(step);
        const done = queue.then(async (): Promise<StepMetrics> => {
          await new Promise((r) => {
            setTimeout(r, 1);
          });
          if (!skipped) w = Math.fround(0.9 * w + Math.log2(lossScale!));
          const loss = skipped ? overflowed : 1;
          return {
            total: loss,
            sample: NaN,
            frame: skipped ? overflowed : 0.5,
            phoneme: 2,
            sentence: 1,
            accuracy: 0.2,
            gradNorm: skipped ? Infinity : 1,
            extra: {},
            skipped,
          };
        });
        queue = done;
        return done;
      },
      state: async (): Promise<MomentState> => {
        await queue;
        return { parameters: tensor(), expAvg: tensor(), expAvgSq: tensor() };
      },
      reconstruct: () =>
        Promise.resolve({
          wave: new Float32Array(),
          waveTarget: new Float32Array(4),
          logMel: new Float32Array(2),
          logMelTarget: new Float32Array(2),
          frames: 2,
        }),
      representations: () =>
        Promise.resolve({
          z: new Float32Array(32),
          zWidth: 4,
          context: new Float32Array(32),
          contextWidth: 4,
          rows: 8,
        }),
      destroy: () => undefined,
    };
    return Promise.resolve(model);
  };
}

function start(
  out: string,
  largest: (step: number) => number,
  {
    precision = 'f16',
    family = 'gpu',
    seen,
    overflowed,
    ...more
  }: Partial<PretrainOptions> & {
    precision?: Precision;
    family?: 'cpu' | 'gpu';
    seen?: number[];
    overflowed?: number;
  } = {},
) {
  const run = presetRunConfig('nano', {
    mgf: { loss_weights: { sample: 0 } },
    train: {
      steps: 60,
      crop_seconds: 2,
      checkpoint_every: 10,
      log_every: 4,
      utterances_per_batch: 2,
      precision,
    },
  });
  return pretrain({
    gpu: claiming(['shader-f16'], family),
    run,
    items: [],
    out,
    openLoader: fakeLoader,
    createModel: fakeModel(largest, seen, overflowed),
    ...more,
  });
}
const timeless = (out: string) =>
  readJsonl(join(out, 'log.jsonl')).map(({ elapsed_seconds: _e, audio_per_second: _a, ...rest }) => rest);

test('a run in f16 finds its scale, counts the steps that this took, logs both and raises no alarm', async () => {
  const out = newFolder();
  const seen: number[] = [];
  const result = await start(out, () => 1000, { seen });
  assert.equal(seen.slice(0, 6), [65536, 65536, 32768, 32768, 16384, 16384]);
  assert.is(seen.at(-1), 512);
  assert.is(result.skippedSteps, 14);
  assert.equal(result.alarms, []);
  const last = timeless(out).at(-1)!;
  assert.is(last['loss_scale'], 512);
  assert.is(last['skipped_steps'], 14);
});

test('a resumed run goes on with the scale it had, to the same weights and log', async () => {
  const largest = (step: number) => (step < 20 ? 40000 : 3000);
  const straight = newFolder();
  const want: number[] = [];
  await start(straight, largest, { seen: want });
  const weight = async (out: string) => (await readResumePoint(out)).state.parameters.get('w')!.data[0];
  for (const stop of [1, 2, 20, 21, 22]) {
    const broken = newFolder();
    const seen: number[] = [];
    const abort = new AbortController();
    const first = await start(broken, largest, {
      seen,
      signal: abort.signal,
      hooks: {
        onProgress: ({ step }) => {
          if (step === stop) abort.abort();
        },
      },
    });
    assert.ok(first.interrupted);
    const second = await start(broken, largest, { seen, resume: await readResumePoint(broken) });
    assert.equal(seen, want, `stopped at ${stop}`);
    assert.is(second.skippedSteps, want.filter((scale, step) => scale > largest(step)).length);
    assert.equal(timeless(broken), timeless(straight));
    assert.is(await weight(broken), await weight(straight));
  }
});

test('a damaged scale in a checkpoint is named, and a checkpoint of an f32 run has none and may go on in f16', async () => {
  const out = newFolder();
  const abort = new AbortController();
  await start(out, () => Infinity, {
    precision: 'f32',
    signal: abort.signal,
    hooks: { onCheckpoint: () => abort.abort() },
  });
  const resume = await readResumePoint(out);
  assert.is(resume.loop!.lossScale, undefined);
  const seen: number[] = [];
  await start(newFolder(), () => Infinity, { seen, resume });
  assert.ok(seen.length > 0 && seen.every((scale) => scale === 65536));
  resume.loop!.lossScale = { scale: 0, before: 1, good: 1 };
  await failsWith('checkpoint', /its loss scale is damaged/, () =>
    start(newFolder(), () => Infinity, { resume }),
  );
});

test('in f32, and on software adapters whatever is asked for, the scale is 1 and is not logged', async () => {
  for (const [precision, family] of [
    ['f32', 'gpu'],
    ['f16', 'cpu'],
  ] as const) {
    const out = newFolder();
    const seen: number[] = [];
    const told: Precision[] = [];
    await start(out, () => Infinity, {
      precision,
      family,
      seen,
      hooks: { onStart: (s) => told.push(s.precision) },
    });
    assert.equal([...new Set(seen)], [1]);
    assert.equal(told, ['f32']);
    assert.ok(timeless(out).every((record) => !('loss_scale' in record)));
  }
});

test('a scale under 1 raises one alarm, a loss that is not finite another, and a run that finds no scale ends', async () => {
  const low = await start(newFolder(), () => 0.6);
  assert.equal(
    low.alarms.map((a) => a.kind),
    ['loss-scale'],
  );
  assert.match(low.alarms[0]!.message, /fell to 0\.5.*precision f32/);
  const infinite = await start(newFolder(), (step) => (step === 5 ? 0 : Infinity), { overflowed: Infinity });
  assert.equal(
    infinite.alarms.map((a) => a.kind),
    ['non-finite'],
  );
  assert.match(infinite.alarms[0]!.message, /no loss scale mends/);
  await failsWith('data', /50 steps in a row.*--precision f32/, () => start(newFolder(), () => 0));
});

// --------------------------------------------------------------------------------------- f16 on this adapter

const able = gpu.profile.features.has('shader-f16');
if (!able) console.log(`skipped: ${gpu.profile.name} has no shader-f16, so nothing is computed in f16`);
const inF16 = (name: string, body: () => Promise<void>): void => {
  if (able) test(name, body);
  else test.skip(name, body);
};
const tiles = withFamily(gpu, 'gpu');

const STAGED = kernel(
  'staged',
  `enable f16;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> tile: array<f16, 64>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) i: u32) {
  tile[i] = f16(x[i]);
  workgroupBarrier();
  y[i] = f32(tile[63u - i]);
}`,
);

inF16(
  'a number beyond 65504 becomes infinite when it is staged as f16, and so does the norm of a gradient ' +
    'that holds it',
  async () => {
    const staged = defineOp<Record<never, never>>({
      name: 'staged',
      shape: ([x]) => [x!],
      saves: { inputs: [], outputs: [] },
      backward: null,
      cost: () => ({ flops: 0, bytes: 0 }),
      forward: (c) => [{ kernel: STAGED, grid: [1, 1, 1], bind: { x: c.input(0), y: c.outputs[0]! } }],
    });
    for (const [value, finite] of [
      [65504, true],
      [-65504, true],
      [65536, false],
      [-65536, false],
      [1e6, false],
      [3e38, false],
    ] as const) {
      const graph = new Graph();
      const x = noise(64, 2);
      x[17] = value;
      const y = graph.apply(staged, [graph.constant('x', [64], x)], {})[0]!;
      const norm = gradNorm(y);
      const program = await compile(tiles, graph, {
        outputs: { y, norm, coefficient: clipCoefficient(norm, 1) },
      });
      const { y: got, norm: size, coefficient } = await program.step();
      program.destroy();
      assert.is(got![46], finite ? value : Math.sign(value) * Infinity);
      assert.is(Number.isFinite(size![0]!), finite, `the norm with ${value} is ${size![0]}`);
      assert.is(coefficient![0]! >= 0, finite);
    }
  },
);

/** What a graph gives in either precision, with the kernels of GPUs. */
async function both(build: (graph: Graph) => Value): Promise<{ f32: Floats; f16: Floats }> {
  const of = async (precision: Precision): Promise<Floats> => {
    const graph = new Graph();
    const program = await compile(tiles, graph, { keep: { y: build(graph) }, precision });
    await program.step();
    const y = (await program.read('y')) as Floats;
    program.destroy();
    return y;
  };
  return { f32: await of('f32'), f16: await of('f16') };
}

inF16(
  'products of f16 numbers differ from those of f32 numbers by their rounding, and exact ones not by a bit',
  async () => {
    for (const [M, K, N] of [
      [70, 96, 130],
      [5, 7, 3],
    ] as const) {
      const { f32, f16 } = await both((g) =>
        matmul(g.constant('a', [M, K], noise(M * K, 1)), g.constant('b', [K, N], noise(K * N, 2))),
      );
      const off = distance(f16, f32);
      assert.ok(off > 1e-5 && off < 1e-3, `${M} x ${K} x ${N}: off by ${off}`);
    }
    const mel = await both((g) => logMel(g.constant('wave', [2, 4000], noise(8000, 3))));
    assert.equal(mel.f16, mel.f32);
    const loss = await both((g) =>
      ntXent(g.constant('a', [4, 32], noise(128, 1)), g.constant('b', [4, 32], noise(128, 2))),
    );
    assert.equal(loss.f16, loss.f32);
  },
);

inF16('an operand beyond 65504 makes a product in f16 infinite, not large', async () => {
  const a = noise(64 * 64, 1);
  a[1000] = 1e5;
  const { f32, f16 } = await both((g) =>
    matmul(g.constant('a', [64, 64], a), g.constant('b', [64, 64], noise(64 * 64, 2))),
  );
  assert.ok(f32.every(Number.isFinite));
  assert.not.ok(f16.slice(15 * 64, 16 * 64).some(Number.isFinite), 'row 15 holds it');
  assert.ok(f16.slice(0, 15 * 64).every(Number.isFinite));
});

inF16('twenty steps in f16 with a moving scale follow those in f32 to 1 %', async () => {
  const config = (precision: Precision): RunConfig =>
    presetRunConfig('nano', {
      mgf: { loss_weights: { sentence: 0 } },
      train: { utterances_per_batch: 1, crop_seconds: 0.5, seed: 5, precision },
    });
  const scaler = new LossScaler({ step: 0 }, { initial: 2 ** 14 });
  const half = await Pretrainer.create(tiles, config('f16'));
  const whole = await Pretrainer.create(tiles, config('f32'));
  let skipped = 0;
  let differ = false;
  for (let step = 0; step < 20; step++) {
    const batch = [speechBatch(config('f32'), step + 1)];
    const at = { step, learningRate: 1e-3 };
    const lossScale = scaler.at(step);
    const got = await half.step(batch, { ...at, lossScale });
    // The updates that f16 leaves out while it looks for its scale are left out in f32 too, so that both stay
    // the same model.
    const want = await whole.step(batch, { ...at, lossScale: got.skipped ? 2 ** 120 : 1 });
    scaler.observe(lossScale, got.skipped);
    skipped += Number(got.skipped);
    differ ||= got.total !== want.total;
    assert.is(got.skipped, want.skipped);
    assert.ok(
      Math.abs(got.total - want.total) < 0.01 * want.total,
      `step ${step}: ${got.total}, not ${want.total}`,
    );
    if (!got.skipped)
      assert.ok(
        Math.abs(got.gradNorm - want.gradNorm) < 0.05 * want.gradNorm,
        `step ${step}: norm ${got.gradNorm}, not ${want.gradNorm}`,
      );
  }
  half.destroy();
  whole.destroy();
  assert.ok(differ, 'the products are in f16');
  assert.ok(skipped > 0 && skipped <= 8, `${skipped} steps were left out`);
});

inF16('a scale too large for f16 leaves the step out where f32 would not, and training goes on', async () => {
  const scale = (step: number) => (step === 0 ? 2 ** 40 : 1024);
  const got = await train(tiles, nano({ precision: 'f16' }), 2, scale);
  assert.equal(
    got.metrics.map((m) => m.skipped),
    [true, false],
  );
  assert.equal(got.states[1], got.states[0]);
  assert.not.equal(got.states[2], got.states[1]);
  assert.not.ok((await train(tiles, nano(), 1, scale)).metrics[0]!.skipped);
});

inF16('features in f16 are those in f32 but for rounding', async () => {
  const config = presetConfig('nano');
  const values = initialValues(mgfParameters(config, []), 9);
  const clips = [speechLike(9000, 1)];
  const layers = [2];
  const of = async (precision: Precision): Promise<Float32Array> => {
    const encoder = await Encoder.create(tiles, config, values, { precision });
    const [features] = await encoder.embed(clips, { layers });
    encoder.destroy();
    return features!.layers[0]!;
  };
  const off = distance(await of('f16'), await of('f32'));
  assert.ok(off > 1e-6 && off < 0.01, `off by ${off}`);
});

test.run();
