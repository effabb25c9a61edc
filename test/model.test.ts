import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parseCase } from '../src/conformance/check.ts';
import { elements } from '../src/graph/shape.ts';
import { SCALES, type MGFConfig, type RunConfig } from '../src/mgf/config.ts';
import { Encoder } from '../src/mgf/encoder.ts';
import { framesOf } from '../src/mgf/network.ts';
import { activeScales } from '../src/mgf/pretraining.ts';
import { Pretrainer, type StepMetrics } from '../src/mgf/pretrainer.ts';
import { PRESET_NAMES, presetConfig, presetRunConfig } from '../src/mgf/presets.ts';
import { initialValues, mgfParameters } from '../src/mgf/weights.ts';
import type { HostTensor } from '../src/plan/parameters.ts';
import { openTestGpu } from './gpu.ts';
import { distance, failsWith, speechBatch, speechLike, split, type Floats } from './harness.ts';

const gpu = await openTestGpu();
type DeepOverrides = Parameters<typeof presetRunConfig>[1];
const nano = (overrides: DeepOverrides = {}): RunConfig =>
  presetRunConfig('nano', {
    ...overrides,
    train: { utterances_per_batch: 2, crop_seconds: 0.5, seed: 5, ...overrides?.train },
  });
const withoutDropout = { hidden_dropout: 0, attention_dropout: 0 };

// --------------------------------------------------------------------------------- parameters, without a GPU

const count = (c: MGFConfig, scales = SCALES): number =>
  mgfParameters(c, scales).reduce(
    (sum, p) => sum + p.parts.reduce((s, { shape }) => s + elements(shape), 0),
    0,
  );

for (const [preset, exact] of [
  ['nano', 31657],
  ['nano-mel', 45392],
  ['nano-w2v2', 36361],
  ['micro', 939673],
  ['micro-mel', 947552],
  ['tiny', 2736721],
  ['tiny-mel', 2587872],
  ['small', 13546497],
  ['small-mel', 12689440],
  ['base', 96021089],
  ['base-mel', 92069536],
] as const) {
  test(`${preset} has ${exact} parameters`, () =>
    assert.is(count(presetConfig(preset), activeScales(presetConfig(preset))), exact));
}

test('every preset is counted above and has a parameter list of whole shapes', () => {
  for (const preset of PRESET_NAMES)
    for (const p of mgfParameters(presetConfig(preset), SCALES)) {
      assert.is(p.parts.length, p.init.length, p.name);
      for (const { shape } of p.parts)
        assert.ok(
          shape.every((n) => Number.isInteger(n) && n > 0),
          p.name,
        );
    }
  assert.is(PRESET_NAMES.length, 11);
});

for (const [file, preset] of [
  ['nano', 'nano'],
  ['nano-w2v2', 'nano-w2v2'],
  ['nano-mel-ragged', 'nano-mel'],
] as const) {
  test(`${preset}'s parameters are those of the reference, by name and shape`, () => {
    const { tensors, attrs } = parseCase(
      new Uint8Array(
        readFileSync(new URL(`../../test/golden/mgf_model-${file}.safetensors`, import.meta.url)),
      ),
      file,
    );
    const want = new Map(
      [...tensors].filter(([n]) => n.startsWith('param.')).map(([n, t]) => [n.slice(6), [...t.shape]]),
    );
    const config = { ...presetConfig(preset), ...(attrs['config'] as MGFConfig) };
    const got = new Map(
      mgfParameters(config, SCALES).flatMap((p) => p.parts.map(({ name, shape }) => [name, [...shape]])),
    );
    assert.equal([...got].sort(), [...want].sort());
  });
}

test('no parameter has two names, and every one has a start', () => {
  for (const preset of ['micro', 'nano-w2v2', 'micro-mel']) {
    const parameters = mgfParameters(presetConfig(preset), SCALES);
    const names = parameters.flatMap((p) => p.parts.map((x) => x.name));
    assert.is(new Set(names).size, names.length);
    for (const [name, { data }] of initialValues(parameters, 1)) assert.ok(data.every(Number.isFinite), name);
  }
});

test('starting values depend on seed and name alone: a loss switched off changes no other tensor', () => {
  const config = presetConfig('nano');
  const all = initialValues(mgfParameters(config, SCALES), 3);
  const some = initialValues(mgfParameters(config, ['frame']), 3);
  for (const [name, { data }] of some) assert.equal(data, all.get(name)!.data, name);
  assert.not.equal(
    initialValues(mgfParameters(config, SCALES), 4).get('feature_projection.projection.weight')!.data,
    all.get('feature_projection.projection.weight')!.data,
  );
});

test('biases, norms and the mask vector do not decay, weights do', () => {
  for (const p of mgfParameters(presetConfig('nano-w2v2'), SCALES)) {
    assert.is(p.decay, !/bias$|layer_norm\.weight$|masked_spec_embed$|weight_g$/.test(p.name), p.name);
  }
});

test('frames follow the windows layer by layer', () => {
  const c = presetConfig('nano');
  assert.equal(
    [399, 400, 719, 720, 16000, 32000, 160000].map((n) => framesOf(n, c)),
    [0, 1, 1, 2, 49, 99, 499],
  );
});

// --------------------------------------------------------------------------------------------------- encoder

for (const preset of ['nano', 'nano-mel', 'nano-w2v2']) {
  test(`${preset}: padding changes no frame of a clip, at any layer`, async () => {
    const encoder = await Encoder.random(gpu, presetConfig(preset), 7);
    const layers = [0, 1, 2];
    const clips = [6400, 4111, 9000, 400].map((n, i) => speechLike(n, i + 1));
    const together = await encoder.embed(clips, { layers });
    for (const [i, clip] of clips.entries()) {
      const [alone] = await encoder.embed([clip], { layers });
      assert.is(alone!.frames, framesOf(clip.length, encoder.config));
      assert.is(together[i]!.frames, alone!.frames);
      alone!.layers.forEach((want, l) => {
        const got = together[i]!.layers[l]!;
        assert.is(got.length, alone!.frames * encoder.config.hidden_size);
        const worst = want.reduce((w, v, e) => Math.max(w, Math.abs(v - got[e]!)), 0);
        assert.ok(worst < 1e-4, `clip ${i}, layer ${l}: off by ${worst}`);
        assert.ok(
          want.some((v) => Math.abs(v) > 0.1),
          'features are not all zero',
        );
      });
    }
    encoder.destroy();
  });
}

test('embeddings asked for at once are those asked for one after the other', async () => {
  const encoder = await Encoder.random(gpu, presetConfig('nano'), 7);
  const clips = [1, 2, 3].map((seed) => speechLike(5000, seed));
  const one: Float32Array[] = [];
  for (const clip of clips) one.push((await encoder.embed([clip], { layers: [2] }))[0]!.layers[0]!);
  const both = await Promise.all(clips.map((clip) => encoder.embed([clip], { layers: [2] })));
  assert.equal(
    both.map((r) => r[0]!.layers[0]),
    one,
  );
  assert.not.equal(one[0], one[1]);
  encoder.destroy();
});

test('a clip that is too short and a layer that does not exist are refused in words', async () => {
  const encoder = await Encoder.random(gpu, presetConfig('nano'), 7);
  const clip = new Float32Array(5000);
  await failsWith('audio', /clip 1 has 399 samples; a frame needs at least 400/, () =>
    encoder.embed([clip, new Float32Array(399)], { layers: [0] }),
  );
  for (const layer of [-1, 3, 0.5])
    await failsWith('usage', /hidden states 0 to 2; there is no layer/, () =>
      encoder.embed([clip], { layers: [layer] }),
    );
  encoder.destroy();
});

const HF = presetConfig('nano-w2v2');
const values = (): Map<string, HostTensor> => initialValues(mgfParameters(HF, []), 9);

test(
  "a checkpoint loads under a head model's prefix, with the newer names of weight norm, and with extra " +
    'tensors',
  async () => {
    const plain = values();
    const clip = [speechLike(5000, 1)];
    const features = async (tensors: Map<string, HostTensor>): Promise<Float32Array> => {
      const encoder = await Encoder.create(gpu, HF, tensors);
      const [result] = await encoder.embed(clip, { layers: [2] });
      encoder.destroy();
      return result!.layers[0]!;
    };
    const want = await features(plain);
    const renamed = new Map(
      [...plain].map(([name, t]) => [
        `wav2vec2.${name.replace('conv.weight_g', 'conv.parametrizations.weight.original0').replace('conv.weight_v', 'conv.parametrizations.weight.original1')}`,
        t,
      ]),
    );
    assert.ok(renamed.has('wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0'));
    assert.equal(await features(renamed), want);
    assert.equal(
      await features(new Map([...plain, ['lm_head.weight', { shape: [3], data: new Float32Array(3) }]])),
      want,
    );
    const { masked_spec_embed: _, ...rest } = Object.fromEntries(plain);
    assert.equal(await features(new Map(Object.entries(rest))), want, 'the mask vector may be missing');
  },
);

test('a checkpoint without a tensor, or with one of another shape, is refused by name', async () => {
  const name = 'encoder.layers.1.attention.k_proj.weight';
  const missing = values();
  const wrong = values();
  missing.delete(name);
  wrong.set(name, { shape: [16, 64], data: new Float32Array(1024) });
  await failsWith('checkpoint', new RegExp(`no tensor "${name}"`), () => Encoder.create(gpu, HF, missing));
  await failsWith('checkpoint', [new RegExp(`"${name}" has shape \\[16, 64\\]`), /wants \[32, 32\]/], () =>
    Encoder.create(gpu, HF, wrong),
  );
});

// ---------------------------------------------------------------------------------------------- pre-training

type State = Awaited<ReturnType<Pretrainer['state']>>;

/** Metrics of steps `from` to `to` - 1, batch `step` at each. */
async function train(model: Pretrainer, run: RunConfig, from: number, to: number): Promise<StepMetrics[]> {
  const metrics: StepMetrics[] = [];
  for (let step = from; step < to; step++)
    metrics.push(await model.step([speechBatch(run, step + 1)], { step, learningRate: 1e-3 }));
  return metrics;
}

/** A gradient's bits from the first moment after one step without clipping: m = (1 - beta1) g. */
async function oneStep(
  run: RunConfig,
  batches: Parameters<Pretrainer['step']>[0],
): Promise<{ metrics: StepMetrics; state: State }> {
  const model = await Pretrainer.create(gpu, run);
  const metrics = await model.step(batches, { step: 0, learningRate: 1e-4 });
  const state = await model.state();
  model.destroy();
  return { metrics, state };
}

test('micro-batches give the gradient of the whole batch: 2 x 2 and 4 x 1 against 1 x 4', async () => {
  const config = (utterances_per_batch: number, accumulation: number): RunConfig =>
    nano({
      mgf: { ...withoutDropout, loss_weights: { sentence: 0 } },
      train: { utterances_per_batch, accumulation, max_grad_norm: 1e6, seed: 5 },
    });
  const whole = config(4, 1);
  const batch = speechBatch(whole);
  const want = await oneStep(whole, [batch]);
  const largest = Math.max(...[...want.state.expAvg.values()].map((t) => Math.hypot(...t.data)));
  for (const [size, parts] of [
    [2, 2],
    [1, 4],
  ] as const) {
    const got = await oneStep(config(size, parts), split(batch, size, whole));
    for (const key of ['total', 'sample', 'frame', 'phoneme', 'accuracy', 'gradNorm'] as const) {
      assert.ok(
        Math.abs(got.metrics[key] - want.metrics[key]) < 1e-5 * Math.abs(want.metrics[key]),
        `${parts} micro-batches: ${key} is ${got.metrics[key]}, not ${want.metrics[key]}`,
      );
    }
    for (const [name, { data }] of want.state.expAvg) {
      const off =
        Math.hypot(...data.map((v, i) => v - got.state.expAvg.get(name)!.data[i]!)) /
        Math.max(Math.hypot(...data), 1e-3 * largest);
      assert.ok(off < 1e-5, `${parts} micro-batches: gradient of ${name} is off by ${off}`);
      const parameter = got.state.parameters.get(name)!.data;
      // Adam's first step is nearly the sign of the gradient: where that is zero but for rounding, so is its
      // sign.
      if (Math.hypot(...data) > 1e-3 * largest)
        assert.ok(
          distance(parameter, want.state.parameters.get(name)!.data) < 1e-5,
          `${parts} micro-batches: updated ${name}`,
        );
    }
  }
});

test('more micro-batches than read-back buffers keep their order, step after step without waiting', async () => {
  const run = nano({ mgf: withoutDropout, train: { utterances_per_batch: 2, accumulation: 5, seed: 5 } });
  const batches = Array.from({ length: 5 }, (_, i) => speechBatch(run, i + 1));
  const both = await Promise.all(
    [false, true].map(async (waiting) => {
      const model = await Pretrainer.create(gpu, run);
      const steps: Promise<StepMetrics>[] = [];
      for (let step = 0; step < 4; step++) {
        steps.push(model.step(batches, { step, learningRate: 1e-3 }));
        if (waiting) await steps.at(-1);
      }
      const losses = (await Promise.all(steps)).map((m) => m.total);
      model.destroy();
      return losses;
    }),
  );
  assert.equal(both[1], both[0]);
  assert.ok(both[0]![3]! < both[0]![0]!);
});

test('a wrong number of micro-batches is refused', async () => {
  const run = nano();
  const model = await Pretrainer.create(gpu, run);
  await failsWith('shape', /takes 1 micro-batches, got 2/, () =>
    model.step([speechBatch(run), speechBatch(run)], { step: 0, learningRate: 1e-3 }),
  );
  model.destroy();
});

test('a run continued from its saved state is the uninterrupted one bit for bit, with dropout', async () => {
  const run = nano();
  const straight = await Pretrainer.create(gpu, run);
  const all = await train(straight, run, 0, 6);
  const end = await straight.state();
  const first = await Pretrainer.create(gpu, run);
  await train(first, run, 0, 3);
  const saved = await first.state();
  const second = await Pretrainer.create(gpu, run, { state: saved });
  assert.equal(await train(second, run, 3, 6), all.slice(3));
  assert.equal(await second.state(), end);
  const forgetful = await Pretrainer.create(gpu, run, { state: { parameters: saved.parameters } });
  assert.not.equal(
    await train(forgetful, run, 3, 6),
    all.slice(3),
    'without moments it would be another run',
  );
  for (const model of [straight, first, second, forgetful]) model.destroy();
});

test('dropout is drawn anew each step and changes the loss', async () => {
  const at = async (mgf: Partial<MGFConfig>, step: number): Promise<number> => {
    const run = nano({ mgf });
    const model = await Pretrainer.create(gpu, run);
    const { total } = await model.step([speechBatch(run)], { step, learningRate: 0 });
    model.destroy();
    return total;
  };
  const [off, one, again, two] = [
    await at(withoutDropout, 0),
    await at({}, 0),
    await at({}, 0),
    await at({}, 1),
  ];
  assert.is(one, again);
  assert.is.not(one, off);
  assert.is.not(one, two);
});

test('a few steps on one batch bring every loss down, and start near chance', async () => {
  const run = nano({ mgf: withoutDropout });
  const model = await Pretrainer.create(gpu, run);
  const batch = speechBatch(run);
  const metrics: StepMetrics[] = [];
  for (let step = 0; step < 30; step++) metrics.push(await model.step([batch], { step, learningRate: 3e-3 }));
  const [first, last] = [metrics[0]!, metrics.at(-1)!];
  const K = run.mgf.num_negatives;
  assert.ok(Math.abs(first.phoneme - Math.log(K + 1)) < 1, `phoneme starts at ${first.phoneme}`);
  assert.ok(Math.abs(first.sentence - Math.log(3)) < 0.5, `sentence starts at ${first.sentence}`);
  for (const scale of SCALES)
    assert.ok(last[scale] < first[scale] - 0.02, `${scale} went from ${first[scale]} to ${last[scale]}`);
  assert.ok(
    Math.abs(first.total - SCALES.reduce((sum, s) => sum + run.mgf.loss_weights[s] * first[s], 0)) < 1e-4,
  );
  assert.ok(metrics.every((m) => !m.skipped && m.gradNorm > 0));
  model.destroy();
});

test('a loss counts from its start step on and is measured before', async () => {
  const run = nano({ mgf: { ...withoutDropout, loss_start_steps: { phoneme: 2, sample: 1 } } });
  const model = await Pretrainer.create(gpu, run);
  const batch = speechBatch(run);
  const weights = run.mgf.loss_weights;
  for (let step = 0; step < 3; step++) {
    const m = await model.step([batch], { step, learningRate: 0 });
    const counted = SCALES.filter((s) => step >= run.mgf.loss_start_steps[s]);
    assert.is(counted.length, 2 + step);
    assert.ok(
      Math.abs(m.total - counted.reduce((sum, s) => sum + weights[s] * m[s], 0)) < 1e-5,
      `step ${step}`,
    );
    assert.ok(SCALES.every((s) => m[s] > 0));
  }
  const head = (await model.state()).expAvg.get('heads.phoneme.project_context.weight')!.data;
  assert.ok(head.some((v) => v !== 0));
  model.destroy();
});

test('a loss that is switched off has no head, no place in the total and reads as NaN', async () => {
  const run = nano({ mgf: { ...withoutDropout, loss_weights: { sample: 0, phoneme: 0 } } });
  const model = await Pretrainer.create(gpu, run);
  const m = await model.step([speechBatch(run)], { step: 0, learningRate: 1e-3 });
  const { parameters } = await model.state();
  assert.ok(Number.isNaN(m.sample) && Number.isNaN(m.phoneme) && Number.isNaN(m.accuracy));
  assert.ok(Math.abs(m.total - (m.frame + 0.5 * m.sentence)) < 1e-5);
  assert.ok(![...parameters.keys()].some((n) => /heads\.(sample|phoneme)/.test(n)));
  assert.is(model.info.parameters, count(run.mgf, ['frame', 'sentence']));
  model.destroy();
  const none = {
    ...run,
    mgf: { ...run.mgf, loss_weights: { sample: 0, frame: 0, phoneme: 0, sentence: 0 } },
  };
  await failsWith('config', /nothing to train/, () => Pretrainer.create(gpu, none));
});

test('a batch whose gradient is not finite changes no parameter and no moment', async () => {
  const run = nano({ mgf: withoutDropout });
  const model = await Pretrainer.create(gpu, run);
  const batch = speechBatch(run);
  await model.step([batch], { step: 0, learningRate: 1e-3 });
  const before = await model.state();
  const broken = { ...batch, wave: (batch.wave as Floats).map((v, i) => (i === 100 ? NaN : v)) };
  const m = await model.step([broken], { step: 1, learningRate: 1e-3 });
  assert.ok(m.skipped);
  assert.equal(await model.state(), before);
  assert.not((await model.step([batch], { step: 2, learningRate: 1e-3 })).skipped);
  model.destroy();
});

test('the state of another configuration is refused as a checkpoint', async () => {
  const run = nano();
  const other = nano({ mgf: { hidden_size: 64 } });
  const parameters = initialValues(mgfParameters(other.mgf, SCALES), 1);
  await failsWith('checkpoint', /has shape .*this configuration wants/, () =>
    Pretrainer.create(gpu, run, { state: { parameters } }),
  );
  const deeper = nano({ mgf: { num_hidden_layers: 3 } });
  await failsWith('checkpoint', /no tensor "encoder\.layers\.2/, () =>
    Pretrainer.create(gpu, deeper, {
      state: { parameters: initialValues(mgfParameters(run.mgf, SCALES), 1) },
    }),
  );
});

test('reconstructions and representations come without dropout and in the sizes they promise', async () => {
  const run = nano();
  const model = await Pretrainer.create(gpu, run);
  const batch = speechBatch(run);
  const T = model.framesPerCrop;
  const R = model.rows;
  const first = await model.reconstruct(batch);
  const again = await model.reconstruct(batch);
  assert.equal(again, first);
  assert.equal(
    [
      first.wave.length,
      first.waveTarget.length,
      first.logMel.length,
      first.logMelTarget.length,
      first.frames,
    ],
    [R * T * 320, R * T * 320, R * T * 160, R * T * 160, T],
  );
  assert.equal(first.waveTarget.subarray(0, 320 * T), batch.wave.subarray(40, 40 + 320 * T));
  const { z, zWidth, context, contextWidth, rows } = await model.representations(batch);
  assert.equal(
    [zWidth, contextWidth, rows, z.length, context.length],
    [16, 32, R * T, R * T * 16, R * T * 32],
  );
  assert.ok(z.every(Number.isFinite) && context.every(Number.isFinite));
  model.destroy();
});

test.run();
