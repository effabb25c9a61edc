import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { presetConfig } from '../src/mgf/presets.ts';
import { effectiveRank, HealthMonitor, symmetricEigenvalues } from '../src/mgf/health.ts';
import type { StepHealth } from '../src/mgf/health.ts';

const tiny = presetConfig('tiny');
const watch = (config = tiny, warmupSteps = 100) =>
  new HealthMonitor({ config, utterancesPerBatch: 8, warmupSteps });
const healthy = (step: number): StepHealth => ({
  step,
  losses: { sample: 0.5, frame: 0.6, phoneme: 4.6 - step / 1000 + 0.05 * Math.sin(step), sentence: 1.5 },
  accuracy: 0.02,
  gradNorm: 1,
  learningRate: 1e-4,
  effectiveRank: { z: 40, context: 80 },
});
/** Kinds raised, with the step of each, over `steps` steps made by `of`. */
const run = (monitor: HealthMonitor, steps: number, of: (step: number) => StepHealth) => {
  const raised: string[] = [];
  for (let step = 0; step < steps; step++)
    for (const alarm of monitor.observe(of(step))) raised.push(`${alarm.kind}@${alarm.step}`);
  return raised;
};
let seed = 1;
const random = () => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 32 - 0.5;
};

test('a healthy run raises nothing', () => {
  assert.equal(run(watch(), 3000, healthy), []);
});

test('a phoneme loss that stays at chance for 500 steps after warm-up is a collapsed context, said once', () => {
  const monitor = watch();
  assert.equal(
    run(monitor, 1000, (step) => ({
      ...healthy(step),
      losses: { phoneme: Math.log(101) + 5e-4 },
      gradNorm: 0.3,
    })),
    ['collapsed-context@599'],
  );
  assert.match(
    monitor.raised[0]!.message,
    /stayed at chance \(4\.615\) for 500 steps: the context network gives the same output everywhere/,
  );
  assert.equal(
    run(watch(), 1000, (step) => ({
      ...healthy(step),
      losses: { phoneme: Math.log(101) + (step % 400 ? 0 : 0.01) },
    })),
    [],
  );
});

test('where the phoneme scale is alone, collapse also needs a vanishing gradient', () => {
  const alone = presetConfig('tiny', { loss_weights: { sample: 0, frame: 0, sentence: 0 } });
  const stuck =
    (gradNorm: number) =>
    (step: number): StepHealth => ({ step, losses: { phoneme: Math.log(101) }, gradNorm });
  assert.equal(run(watch(alone), 1000, stuck(0.5)), []);
  assert.equal(run(watch(alone), 1000, stuck(1e-9)), ['collapsed-context@599']);
});

const compared = (warmupSteps = 100): HealthMonitor =>
  new HealthMonitor({
    config: tiny,
    utterancesPerBatch: 8,
    warmupSteps,
    rivals: { sample: 0.69, frame: 0.8, phoneme: Math.log(101), sentence: Math.log(15) },
  });
const sampleAt =
  (loss: (step: number) => number) =>
  (step: number): StepHealth => ({
    ...healthy(step),
    losses: { ...healthy(step).losses, sample: loss(step) },
  });

test('a loss that stays above its rival is told once it is late, or at the end of a short run', () => {
  const monitor = compared();
  assert.equal(
    run(
      monitor,
      1000,
      sampleAt((step) => 0.7 + 0.1 * Math.sin(step)),
    ),
    ['sample-above-rival@599'],
  );
  assert.match(
    monitor.raised[0]!.message,
    /^The sample loss, 0\.7\d\d over the last 100 steps, is above 0\.690, what the median predictor scores/,
  );
  const short = compared(20);
  assert.equal(
    run(
      short,
      60,
      sampleAt(() => 0.6904),
    ),
    [],
  );
  assert.equal(
    short.conclude(60).map((a) => `${a.kind}@${a.step}`),
    ['sample-above-rival@60'],
  );
  assert.match(
    short.raised[0]!.message,
    /sample loss, 0\.6904 over the last 10 steps, is above 0\.6900,/,
    'different numbers read differently',
  );
  assert.equal(compared().conclude(60), [], 'nothing was seen');
});

test('rivals and the end of the warm-up may be told after the start', () => {
  const options = { config: tiny, utterancesPerBatch: 8, warmupSteps: Infinity };
  const bad = sampleAt(() => 0.75);
  const monitor = new HealthMonitor(options);
  monitor.compareWith({ sample: 0.69 });
  assert.equal(run(monitor, 1000, bad), [], 'the warm-up has not ended');
  monitor.endWarmup(100);
  monitor.endWarmup(900);
  assert.equal(run(monitor, 1000, bad), ['sample-above-rival@599'], 'the first end counts');
  assert.equal(options.warmupSteps, Infinity, "the caller's options stay");
});

test(
  'a loss under its rival, one that came under it, one without a rival and the steps of the warm-up ' +
    'raise nothing',
  () => {
    const monitor = compared();
    assert.equal(
      run(
        monitor,
        1000,
        sampleAt((step) => (step < 400 ? 0.75 : 0.6)),
      ),
      [],
    );
    assert.equal(monitor.conclude(1000), []);
    assert.equal(
      run(
        watch(),
        1000,
        sampleAt(() => 5),
      ),
      [],
    );
    const warming = compared(1000);
    run(
      warming,
      900,
      sampleAt(() => 5),
    );
    assert.equal(warming.conclude(900), []);
  },
);

test('an accuracy above 0.98 that lasts is a leak, one lucky batch is not', () => {
  assert.equal(
    run(watch(), 100, (step) => ({ ...healthy(step), accuracy: step % 5 ? 0.99 : 0.5 })),
    [],
  );
  assert.equal(
    run(watch(), 100, (step) => ({ ...healthy(step), accuracy: 0.99 })),
    ['leak@9'],
  );
});

test('an effective rank under a tenth of the width is named with its representation, after warm-up', () => {
  const monitor = watch();
  assert.equal(
    run(monitor, 300, (step) => ({ ...healthy(step), effectiveRank: { z: 12, context: 19 } })),
    ['low-rank-z@100', 'low-rank-context@100'],
  );
  assert.match(monitor.raised[0]!.message, /z uses only 12\.0 of its 128 dimensions/);
  assert.match(monitor.raised[1]!.message, /context network's output uses only 19\.0 of its 192 dimensions/);
});

test('a sentence loss near zero within a few hundred steps is a channel shortcut, later it is success', () => {
  const low =
    (from: number) =>
    (step: number): StepHealth => ({
      ...healthy(step),
      losses: { ...healthy(step).losses, sentence: step >= from ? 0.01 : 1 },
    });
  assert.equal(run(watch(), 1000, low(200)), ['channel-shortcut@209']);
  assert.equal(run(watch(), 1000, low(600)), []);
});

test('anything that is not finite is named at once', () => {
  const monitor = watch();
  assert.equal(
    run(monitor, 3, (step) => ({
      ...healthy(step),
      losses: { sample: 1, frame: NaN },
      gradNorm: step ? Infinity : 1,
    })),
    ['non-finite@0'],
  );
  assert.match(
    monitor.raised[0]!.message,
    /At step 0 the frame loss is NaN: .* resume from the last checkpoint with a lower learning rate/,
  );
});

test('eigenvalues of symmetric matrices are found', () => {
  const n = 23;
  const a = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) a[i * n + j] = a[j * n + i] = random();
  const trace = (power: number, values: number[]) => values.reduce((s, x) => s + x ** power, 0);
  const product = (x: Float64Array, y: Float64Array) => {
    const out = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        for (let k = 0; k < n; k++) out[i * n + j]! += x[i * n + k]! * y[k * n + j]!;
    return out;
  };
  const diagonal = (x: Float64Array) =>
    Array.from({ length: n }, (_, i) => x[i * n + i]!).reduce((s, v) => s + v, 0);
  const a2 = product(a, a);
  const a3 = product(a2, a);
  const a5 = product(a3, a2);
  const values = symmetricEigenvalues(a.slice(), n);
  for (const [power, want] of [
    [1, diagonal(a)],
    [2, diagonal(a2)],
    [3, diagonal(a3)],
    [5, diagonal(a5)],
  ] as const) {
    assert.ok(
      Math.abs(trace(power, values) - want) < 1e-9 * (1 + Math.abs(want)),
      `sum of eigenvalues^${power}`,
    );
  }
  assert.equal(
    symmetricEigenvalues(Float64Array.of(3, 0, 0, 0, -1, 0, 0, 0, 2), 3).sort((x, y) => x - y),
    [-1, 2, 3],
  );
  assert.equal(symmetricEigenvalues(Float64Array.of(5), 1), [5]);
});

test('effective rank counts the dimensions in use, whichever side of the matrix is longer', () => {
  const rows = 600;
  const cols = 40;
  const mix = Array.from({ length: 3 * cols }, random);
  const of = (value: (r: number, c: number) => number, n = rows) => {
    const m = new Float32Array(n * cols);
    for (let i = 0; i < m.length; i++) m[i] = value(Math.floor(i / cols), i % cols);
    return m;
  };
  const full = effectiveRank(of(random), rows, cols);
  assert.ok(full > 0.97 * cols && full <= cols, `${full}`);
  const three = Array.from({ length: 3 * rows }, random);
  const low = effectiveRank(
    of(
      (r, c) =>
        10 +
        three[3 * r]! * mix[c]! +
        three[3 * r + 1]! * mix[cols + c]! +
        three[3 * r + 2]! * mix[2 * cols + c]!,
    ),
    rows,
    cols,
  );
  assert.ok(low > 2 && low < 3.1, `${low}`);
  const few = effectiveRank(of(random, 10), 10, cols);
  assert.ok(few > 8 && few < 9.001, `${few}`);
  assert.is(
    effectiveRank(
      of((_, c) => c),
      rows,
      cols,
    ),
    0,
  );
  assert.is(
    effectiveRank(
      of((_, c) => (c + 0.1) * (1 + 1e-7 * random())),
      rows,
      cols,
    ),
    0,
  );
  assert.is(effectiveRank(new Float32Array(rows * cols), rows, cols), 0);
  assert.ok(
    Number.isNaN(
      effectiveRank(
        of((r) => (r === 5 ? NaN : r)),
        rows,
        cols,
      ),
    ),
  );
});

test.run();
