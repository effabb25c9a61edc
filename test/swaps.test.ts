/**
 * A scale under the kind of objective that it should not have: its loss, its head, what the alarms and logs
 * make of it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/random/stream.ts';
import { negativeIndices } from '../src/audio/sampling.ts';
import { writeRunReport } from '../src/cli/run-report.ts';
import { MGF_DEFAULTS, SCALES, type Objectives, type RunConfig, type Scale } from '../src/mgf/config.ts';
import { applySettings, parseConfig } from '../src/mgf/parse-config.ts';
import { framesOf } from '../src/mgf/network.ts';
import { activeScales, pretrainingGraph, weightScalar } from '../src/mgf/pretraining.ts';
import { Pretrainer, type StepMetrics } from '../src/mgf/pretrainer.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { initialValues, mgfParameters } from '../src/mgf/weights.ts';
import { activationReference } from '../src/ops/lib/activation-reference.ts';
import { maskedInfoNCEReference } from '../src/ops/losses/info-nce.ts';
import { logMelReference } from '../src/ops/log-mel.ts';
import { pointwiseLossReference } from '../src/ops/losses/pointwise.ts';
import { compile } from '../src/plan/compile.ts';
import { ParameterStore } from '../src/plan/parameters.ts';
import { HealthMonitor } from '../src/mgf/health.ts';
import { pretrain } from '../src/pretrain/loop.ts';
import { readJsonl } from '../src/pretrain/logs.ts';
import { chanceRivals, measureRivals } from '../src/mgf/rivals.ts';
import type { Loader } from '../src/audio/loader.ts';
import type { Value } from '../src/graph/graph.ts';
import type { Region } from '../src/plan/storage.ts';
import { openTestGpu } from './gpu.ts';
import { speechBatch, split } from './harness.ts';

const gpu = await openTestGpu();
const folder = mkdtempSync(join(tmpdir(), 'mgf-swaps-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const SWAPS = { frame: 'info_nce', phoneme: 'l1', sentence: 'l1' } as const satisfies Objectives;
type Swapped = keyof typeof SWAPS;
const NAMES = Object.keys(SWAPS) as Swapped[];
const swapped = (
  scale: Swapped,
  preset = 'nano',
  more: Parameters<typeof presetRunConfig>[1] = {},
): RunConfig =>
  presetRunConfig(preset, {
    ...more,
    mgf: { hidden_dropout: 0, attention_dropout: 0, ...more.mgf, objectives: { [scale]: SWAPS[scale] } },
    train: { utterances_per_batch: 2, crop_seconds: 0.5, seed: 5, ...more.train },
  });

// --------------------------------------------------------------------------------------------- configuration

test('a configuration without objectives has those of the paper, so that older checkpoints load', () => {
  const { objectives: _, ...older } = presetRunConfig('nano').mgf;
  assert.equal(parseConfig(older, { origin: 'older' }), presetRunConfig('nano').mgf);
  assert.equal(MGF_DEFAULTS.objectives, { frame: 'l1', phoneme: 'info_nce', sentence: 'nt_xent' });
});

test('an objective that a scale cannot have is refused, and one utterance suffices without NT-Xent', () => {
  assert.throws(
    () => applySettings(presetRunConfig('nano'), ['objectives.frame=nt_xent']),
    /objectives\.frame is "nt_xent", but must be "l1" or "info_nce"/,
  );
  assert.throws(
    () => applySettings(presetRunConfig('nano'), ['objectives.phonem=l1']),
    /nearest known key is "objectives\.phoneme"/,
  );
  assert.throws(() => applySettings(presetRunConfig('nano'), ['utterances_per_batch=1']), /at least 2/);
  assert.is(
    applySettings(presetRunConfig('nano'), ['utterances_per_batch=1', 'objectives.sentence=l1']).train
      .utterances_per_batch,
    1,
  );
});

const headsOf = (run: RunConfig, scale: Scale): string[] =>
  mgfParameters(run.mgf, activeScales(run.mgf))
    .flatMap((p) => p.parts.map((x) => x.name))
    .filter((n) => n.startsWith(`heads.${scale}.`))
    .sort();
const both = (...names: string[]): string[] => names.flatMap((n) => [`${n}.bias`, `${n}.weight`]);

test('a swap has a head of its own in place of the one it replaces, and changes no other tensor', () => {
  const want: Record<Swapped, string[]> = {
    frame: both(
      'heads.frame.dense',
      'heads.frame.layer_norm',
      'heads.frame.project_context',
      'heads.frame.project_target',
    ),
    phoneme: both('heads.phoneme.dense', 'heads.phoneme.layer_norm', 'heads.phoneme.out'),
    sentence: both('heads.sentence.dense', 'heads.sentence.deviation', 'heads.sentence.mean'),
  };
  const plain = presetRunConfig('nano');
  const before = initialValues(mgfParameters(plain.mgf, SCALES), 3);
  for (const scale of NAMES) {
    const run = swapped(scale);
    assert.equal(headsOf(run, scale), want[scale]);
    for (const other of SCALES.filter((s) => s !== scale))
      assert.equal(headsOf(run, other), headsOf(plain, other));
    for (const [name, { data }] of initialValues(mgfParameters(run.mgf, SCALES), 3))
      if (before.has(name)) assert.equal(data, before.get(name)!.data, name);
  }
});

// ---------------------------------------------------------------------------------------------------- losses

type Rows = Float64Array;
interface Built {
  config: RunConfig['mgf'];
  loss: number;
  source: Rows;
  target: Rows;
  wave: Rows;
  real: number[];
  tensors: ReturnType<typeof initialValues>;
  inputs: ReturnType<typeof inputsOf>;
}

function inputsOf({ mgf, train }: RunConfig, ragged: boolean) {
  const batch = speechBatch({ mgf, train });
  const R = 2 * train.utterances_per_batch;
  const L = batch.wave.length / R;
  const T = framesOf(L, mgf);
  const lengths = Array.from({ length: R }, (_, r) => (ragged && r % 2 ? L - 3000 : L));
  const real = lengths.map((n) => framesOf(n, mgf));
  const wave = Float32Array.from(batch.wave, (v, i) => (i % L < lengths[Math.floor(i / L)]! ? v : 0));
  const spans = Float32Array.from(batch.mask, (m, i) => (i % T < real[Math.floor(i / T)]! ? m : 0));
  const rows = real.map((n) => Uint8Array.from({ length: T }, (_, t) => Number(t < n)));
  const drawn = negativeIndices(rows, mgf.num_negatives, randomStream(7));
  const negatives = new Int32Array(R * T * mgf.num_negatives).fill(1);
  drawn.anchor.forEach((frame, n) =>
    negatives.set(
      drawn.negatives.subarray(n * mgf.num_negatives, (n + 1) * mgf.num_negatives),
      frame * mgf.num_negatives,
    ),
  );
  return {
    batch,
    R,
    L,
    T,
    lengths,
    real,
    wave,
    spans,
    frame_mask: Float32Array.from(rows.flatMap((r) => [...r])),
    mel_frames: Int32Array.from(lengths, (n) => Math.floor((n - 400) / 160) + 1),
    frame_negatives: negatives,
  };
}

/** The loss of one scale alone on the device, and everything that its head reads. */
async function build(scale: Swapped, preset: string, ragged: boolean): Promise<Built> {
  const config = swapped(scale, preset);
  const { mgf } = config;
  const inputs = inputsOf(config, ragged);
  const { R, L } = inputs;
  const place = new Map<Value, Region>();
  const specs = mgfParameters(mgf, [scale]);
  const store = new ParameterStore(gpu, specs, 'inference');
  const tensors = initialValues(specs, 3);
  // Heads start so near zero that a wrong one would hardly show.
  for (const [name, { data }] of tensors)
    if (name.startsWith('heads.') && name.endsWith('.weight') && !name.includes('norm'))
      data.forEach((v, i) => {
        data[i] = 10 * v;
      });
  store.load(tensors);
  const built = pretrainingGraph(
    mgf,
    { R, L, N: inputs.batch.anchor.length, ragged },
    [scale],
    (graph) => {
      const parameters = store.declare(graph);
      for (const [name, value] of parameters) place.set(value, store.region(name));
      return parameters;
    },
    false,
  );
  const { network } = built;
  const attach = mgf.attach[scale];
  const source = attach === 'z' ? network.zn : network.states[attach]!;
  const program = await compile(gpu, built.graph, {
    place,
    outputs: { loss: built.losses[scale]! },
    keep: { source, target: built.logMelTarget },
  });
  program.poison();
  // One batch serves graphs of several losses: a program takes the inputs that it knows.
  const given = Object.fromEntries(program.inputs.map((name) => [name, inputs[name as keyof typeof inputs]]));
  const { loss } = await program.step(given as never);
  const read = async (name: string) => Float64Array.from(await program.read(name));
  const result = {
    config: mgf,
    loss: loss![0]!,
    source: await read('source'),
    target: await read('target'),
    wave: Float64Array.from(inputs.wave),
    real: inputs.real,
    tensors,
    inputs,
  };
  program.destroy();
  store.destroy();
  return result;
}

/** x [n, in] W^T + b in float64. */
function dense({ tensors }: Built, name: string, x: Rows): Rows {
  const {
    shape: [out, width],
    data,
  } = tensors.get(`${name}.weight`)! as { shape: [number, number]; data: Float32Array };
  const bias = tensors.get(`${name}.bias`)!.data;
  return Float64Array.from({ length: (x.length / width) * out }, (_, e) => {
    const row = Math.floor(e / out) * width;
    const o = e % out;
    let sum = bias[o]!;
    for (let k = 0; k < width; k++) sum += x[row + k]! * data[o * width + k]!;
    return sum;
  });
}
const gelu = (x: Rows): Rows => x.map((v) => activationReference('gelu', v));
/** LayerNorm as it starts: weight 1, bias 0. */
function layerNorm(x: Rows, width: number, eps: number): Rows {
  return x.map((v, e) => {
    const row = x.subarray(Math.floor(e / width) * width, (Math.floor(e / width) + 1) * width);
    const mean = row.reduce((a, b) => a + b, 0) / width;
    return (v - mean) / Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / width + eps);
  });
}
const trunk = (b: Built, name: string): Rows =>
  layerNorm(
    gelu(dense(b, `${name}.dense`, b.source)),
    b.tensors.get(`${name}.dense.bias`)!.data.length,
    b.config.layer_norm_eps,
  );

const REFERENCES: Record<Swapped, (b: Built) => number> = {
  frame: (b) => {
    const { R, T, frame_negatives, frame_mask } = b.inputs;
    const P = b.config.proj_dim;
    const c = dense(b, 'heads.frame.project_context', trunk(b, 'heads.frame'));
    const z = dense(b, 'heads.frame.project_target', b.target);
    return maskedInfoNCEReference(
      c,
      z,
      Int32Array.from({ length: R * T }, (_, i) => i),
      frame_negatives,
      P,
      { temperature: b.config.temperature, weights: Float64Array.from(frame_mask) },
    ).loss;
  },
  phoneme: (b) => {
    const { T, spans, mel_frames } = b.inputs;
    // Both halves of a masked frame, as far as its log-mel frames exist.
    const weight = Float64Array.from(
      { length: 2 * spans.length },
      (_, h) => spans[h >> 1]! * Number(2 * ((h >> 1) % T) + (h % 2) < mel_frames[Math.floor((h >> 1) / T)]!),
    );
    return pointwiseLossReference(
      dense(b, 'heads.phoneme.out', trunk(b, 'heads.phoneme')),
      b.target,
      weight,
      'l1',
    );
  },
  sentence: (b) => {
    const { R, L, T, real, mel_frames } = b.inputs;
    const D = b.config.hidden_size;
    const n = b.config.n_mels;
    const M = Math.floor((L - 400) / 160) + 1;
    const mel = logMelReference(b.wave, R, L, { nMels: n });
    const pooled = Float64Array.from({ length: R * D }, (_, e) => {
      const row = Math.floor(e / D);
      let sum = 0;
      for (let t = 0; t < real[row]!; t++) sum += b.source[(row * T + t) * D + (e % D)]! / real[row]!;
      return sum;
    });
    const h = gelu(dense(b, 'heads.sentence.dense', pooled));
    const mean = dense(b, 'heads.sentence.mean', h);
    const deviation = dense(b, 'heads.sentence.deviation', h);
    let error = 0;
    for (let row = 0; row < R; row++)
      for (let j = 0; j < n; j++) {
        const column = Array.from({ length: mel_frames[row]! }, (_, m) => mel[(row * M + m) * n + j]!);
        const mu = column.reduce((a, v) => a + v, 0) / column.length;
        error +=
          Math.abs(mean[row * n + j]! - mu) +
          Math.abs(
            deviation[row * n + j]! -
              Math.sqrt(column.reduce((a, v) => a + (v - mu) ** 2, 0) / column.length),
          );
      }
    return error / (2 * R * n);
  },
};

for (const scale of NAMES)
  for (const [preset, ragged] of [
    ['nano', false],
    ['nano-mel', false],
    ['nano-mel', true],
  ] as const) {
    test(
      `the swapped ${scale} loss of ${preset}${ragged ? ' with padded rows' : ''} is that of a float64 ` +
        'reference',
      async () => {
        const built = await build(scale, preset, ragged);
        const want = REFERENCES[scale](built);
        assert.ok(want > 0.1 && Math.abs(built.loss - want) < 2e-5 * want, `${built.loss} is not ${want}`);
      },
    );
  }

// -------------------------------------------------------------------------------------------------- training

for (const scale of NAMES) {
  test(`a network learns by the swapped ${scale} loss: it falls, with gradient in every tensor of its head`, async () => {
    const run = swapped(scale);
    const model = await Pretrainer.create(gpu, run);
    const batch = speechBatch(run);
    const metrics: StepMetrics[] = [];
    const rival = measureRivals(run.mgf, 2, [batch])[scale]!;
    for (let step = 0; step < 12; step++)
      metrics.push(await model.step([batch], { step, learningRate: 3e-3 }));
    const { expAvg } = await model.state();
    for (const name of headsOf(run, scale))
      assert.ok(
        expAvg.get(name)!.data.some((v) => v !== 0) && expAvg.get(name)!.data.every(Number.isFinite),
        name,
      );
    assert.ok(metrics.every((m) => !m.skipped && SCALES.every((s) => Number.isFinite(m[s]))));
    assert.ok(
      metrics.at(-1)![scale] < metrics[0]![scale] - 0.02,
      `${scale} went from ${metrics[0]![scale]} to ${metrics.at(-1)![scale]}`,
    );
    // Random projections to few dimensions scatter: a contrastive loss starts above its chance.
    if (scale === 'frame')
      assert.ok(metrics[0]![scale] > rival - 0.2, `starts at ${metrics[0]![scale]}, chance is ${rival}`);
    assert.is(Number.isNaN(metrics[0]!.accuracy), scale === 'phoneme');
    const { logMel, logMelTarget } = await model.reconstruct(batch);
    assert.is(logMel.length, scale === 'frame' ? 0 : logMelTarget.length);
    model.destroy();
  });
}

test('negatives of the frame scale are drawn anew each step and repeat with the seed', async () => {
  const at = async (step: number, seed = 5): Promise<number> => {
    const run = swapped('frame', 'nano', { train: { seed } });
    const model = await Pretrainer.create(gpu, run, {
      state: { parameters: initialValues(mgfParameters(run.mgf, SCALES), 1) },
    });
    const { frame } = await model.step([speechBatch(run)], { step, learningRate: 0 });
    model.destroy();
    return frame;
  };
  const [one, again, next, other] = [await at(0), await at(0), await at(1), await at(0, 6)];
  assert.is(one, again);
  assert.is.not(one, next);
  assert.is.not(one, other);
});

test('micro-batches of the masked L1 add up to the loss of the whole batch', async () => {
  const config = (utterances_per_batch: number, accumulation: number) =>
    swapped('phoneme', 'nano', {
      mgf: { loss_weights: { sentence: 0 } },
      train: { utterances_per_batch, accumulation },
    });
  const step = async (run: RunConfig, batches: Parameters<Pretrainer['step']>[0]): Promise<StepMetrics> => {
    const model = await Pretrainer.create(gpu, run);
    const metrics = await model.step(batches, { step: 0, learningRate: 0 });
    model.destroy();
    return metrics;
  };
  const whole = config(4, 1);
  const batch = speechBatch(whole);
  const want = await step(whole, [batch]);
  const parts = config(2, 2);
  const got = await step(parts, split(batch, 2, parts));
  for (const key of ['phoneme', 'total', 'gradNorm'] as const)
    assert.ok(Math.abs(got[key] - want[key]) < 1e-5 * want[key], `${key} is ${got[key]}, not ${want[key]}`);
});

// --------------------------------------------------------------------------------------- alarms, log, report

test('chance and alarms follow the objectives', () => {
  const of = (scale: Swapped) => chanceRivals(swapped(scale).mgf, 4);
  assert.equal(
    [of('frame').frame, of('phoneme').phoneme, of('sentence').sentence],
    [Math.log(11), undefined, undefined],
  );
  assert.is(of('phoneme').accuracy, undefined);
  const raised = (scale: Swapped, losses: Partial<Record<Scale, number>>) => {
    const monitor = new HealthMonitor({ config: swapped(scale).mgf, utterancesPerBatch: 4, warmupSteps: 0 });
    for (let step = 0; step < 600; step++) monitor.observe({ step, losses, gradNorm: 1e-9 });
    return monitor.raised.map((a) => a.kind);
  };
  const chance = Math.log(11);
  assert.equal(raised('phoneme', { phoneme: chance }), []);
  assert.equal(raised('frame', { phoneme: chance }), ['collapsed-context']);
  assert.equal(raised('sentence', { sentence: 0.001 }), []);
  assert.equal(raised('frame', { sentence: 0.001 }), ['channel-shortcut']);
});

test(
  'a run with a swap is logged, raises no alarm for the accuracy that it lacks, and gets a report in its ' +
    'own words',
  async () => {
    for (const scale of ['phoneme', 'frame'] as const) {
      const out = join(folder, scale);
      const run = swapped(scale, 'nano-mel', { train: { steps: 3, log_every: 1, utterances_per_batch: 2 } });
      const loader = (): Loader => ({
        shape: {} as Loader['shape'],
        stepsPerEpoch: 1,
        stats: {} as Loader['stats'],
        report: { usable: 2, seconds: 60, skipped: [], trusted: 0 },
        next: () => Promise.resolve(speechBatch(run)),
        state: (step) => ({ seed: 1, step, epoch: 0, position: 0, clips: 2, digest: 'abc' }),
        close: () => Promise.resolve(),
      });
      const result = await pretrain({
        gpu,
        run,
        items: [],
        out,
        openLoader: () => Promise.resolve(loader()),
      });
      assert.equal(result.alarms, []);
      const line = readJsonl(join(out, 'log.jsonl')).find((r) => 'total' in r);
      assert.is('accuracy' in line!, scale === 'frame');
      assert.type(line![scale], 'number');
      const html = readFileSync(
        await writeRunReport({
          runDir: out,
          title: 'A swap',
          preset: 'nano-mel',
          adapter: 'here',
          run,
          result,
          next: [],
        }),
        'utf8',
      );
      assert.match(
        html,
        scale === 'phoneme'
          ? 'Mean absolute error of the log-mel of masked frames'
          : /find a frame(&#39;|')s log-mel among/,
      );
    }
  },
);

test('the loss weights of a swap are those of the scale that it replaces', async () => {
  const run = swapped('sentence', 'nano-mel');
  const model = await Pretrainer.create(gpu, run);
  const m = await model.step([speechBatch(run)], { step: 0, learningRate: 0 });
  assert.ok(Math.abs(m.total - (m.frame + m.phoneme + 0.5 * m.sentence)) < 1e-5);
  assert.is(weightScalar('sentence'), 'weight.sentence');
  model.destroy();
});

test.run();
