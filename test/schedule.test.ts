import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { learningRate, progressRate, runProgress } from '../src/optim/schedule.ts';

const near = (a: number, b: number, tolerance = 1e-12) =>
  assert.ok(Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(b)), `${a} is not ${b}`);

test('the rate rises linearly over the first 8 %, peaks once, and falls linearly towards 0', () => {
  const rates = Array.from({ length: 100 }, (_, step) => learningRate(step, 100, 5e-4, 0.08));
  near(rates[0]!, 5e-4 / 8);
  near(rates[3]!, 5e-4 / 2);
  near(rates[7]!, 5e-4);
  near(rates[8]!, 5e-4);
  near(rates[54]!, 5e-4 / 2);
  near(rates[99]!, 5e-4 / 92);
  assert.is(learningRate(100, 100, 5e-4, 0.08), 0);
});

test('no update has rate 0 or more than the peak, even in runs of a few steps', () => {
  for (const total of [1, 2, 3, 10, 37]) {
    for (let step = 0; step < total; step++) {
      const rate = learningRate(step, total, 1, 0.08);
      assert.ok(rate > 0 && rate <= 1, `${total} ${step} ${rate}`);
    }
  }
});

test('the schedule over progress has the same shape as the one over steps', () => {
  for (let step = 10; step < 1000; step += 13)
    near(progressRate(step / 1000, 1, 0.08), learningRate(step, 1000, 1, 0.08), 0.015);
  assert.ok(progressRate(0, 1, 0.08) > 0);
  assert.is(progressRate(1, 1, 0.08), 0);
  assert.is(progressRate(1.2, 1, 0.08), 0);
  assert.is(progressRate(0, 1, 0), 1);
});

test('progress counts steps, or minutes where they are set', () => {
  assert.is(runProgress({ steps: 200, minutes: null }, 50, 1e6), 0.25);
  assert.is(runProgress({ steps: 200, minutes: 2 }, 50, 30), 0.25);
  assert.is(runProgress({ steps: 200, minutes: 2 }, 50, 500), 1);
});

test.run();
