import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Work } from '../bench/workloads/contract.ts';
import { formatGrowth, growthFits, measureGrowth, type GrowthPoint } from '../bench/workloads/growth.ts';
import { disagreement } from '../bench/suites/measure.ts';
import { torchPeer } from '../bench/peers/torch.ts';
import { referenceOf } from '../bench/workloads/reference.ts';
import { buildTorchStep, torchStepInputs, torchStepSets } from '../bench/workloads/torch-step.ts';
import { createInputs, workloadOf } from '../bench/workloads/workloads.ts';
import { addRows, addRowsReference } from '../src/ops/add-rows.ts';
import { openTestGpu } from './gpu.ts';
import { check, failsWith, noise } from './harness.ts';

const SMALL = { op: 'torch_step', B: 2, seconds: 0.5 } as const;

/**
 * What PyTorch 1.13 on a CPU reports for the first steps of SMALL with seed 1 (f32; bench/torch_arms.py on
 * torchStepSets(1, SMALL, 5)): the first loss shows the forward pass, the others gradients and optimiser.
 */
const PYTORCH_LOSSES = [4.014953, 4.081254, 3.97975, 3.941752, 3.941516];

/** `--python PATH` among the arguments of the test run names the Python to ask for torch. */
const python = process.argv.includes('--python')
  ? process.argv[process.argv.indexOf('--python') + 1]!
  : 'python3';

test('masks and negatives of a step are drawn as the reference step draws them', () => {
  const { frames: T, anchors: N, batch, parameters } = torchStepInputs(3, { B: 4, seconds: 1 });
  const { mask, anchor, negatives, weight } = batch(7);
  assert.is(T, 49);
  assert.is(
    Object.values(parameters).reduce((sum, { data }) => sum + data.length, 0),
    958464,
    'parameters of the PyTorch model',
  );
  const masked = [...mask.data.keys()].filter((i) => mask.data[i] === 1);
  const used = [...weight.data].reduce((sum, w) => sum + w, 0);
  assert.equal([...anchor.data.subarray(0, used)], masked, 'the anchors are the masked frames in order');
  assert.ok(used < N && weight.data.subarray(0, used).every((w) => w === 1), 'weights are 1, then 0');
  for (let b = 0; b < 4; b++)
    assert.ok(
      masked.some((i) => Math.floor(i / T) === b),
      `utterance ${b} has masked frames`,
    );
  for (let n = 0; n < N; n++) {
    for (const frame of negatives.data.subarray(50 * n, 50 * n + 50)) {
      assert.is(mask.data[frame], 1, 'a negative is a masked frame');
      if (n < used)
        assert.ok(
          frame !== anchor.data[n] && Math.floor(frame / T) === Math.floor(anchor.data[n]! / T),
          'another one of the same utterance',
        );
    }
  }
  assert.equal(batch(7).negatives.data, negatives.data, 'a function of the seed and the step');
  assert.not.equal(batch(8).mask.data, mask.data);
});

test('rows are added to every element of a batch, with gradients for both', async () => {
  const gpu = await openTestGpu();
  await check(gpu, 'add_rows', {
    inputs: { x: { shape: [3, 5, 4], data: noise(60, 1) }, rows: { shape: [5, 4], data: noise(20, 2) } },
    build: ({ x, rows }) => addRows(x!, rows!),
    reference: ({ x, rows }) => addRowsReference(x!, rows!),
  });
  await failsWith('shape', /add_rows.*rows \[5, 4\]/, () =>
    check(gpu, 'add_rows', {
      inputs: { x: { shape: [3, 5, 4], data: noise(60, 1) }, rows: { shape: [4, 4], data: noise(16, 2) } },
      build: ({ x, rows }) => addRows(x!, rows!),
      reference: ({ x }) => x!,
    }),
  );
});

test('the whole step has the losses that PyTorch has, step after step', async () => {
  const step = await buildTorchStep(await openTestGpu(), SMALL);
  try {
    assert.ok(
      step.dispatches <= 255 && step.pipelines <= 40,
      `${step.dispatches} dispatches of ${step.pipelines} pipelines`,
    );
    for (const [i, want] of PYTORCH_LOSSES.entries()) {
      step.programs.forEach((p) => p.poison());
      const { loss, ms, encodeMs } = await step.step(i);
      assert.ok(Math.abs(loss - want) < 2e-5, `step ${i}: loss ${loss}, PyTorch has ${want}`);
      assert.ok(encodeMs > 0 && encodeMs <= ms);
    }
  } finally {
    step.destroy();
  }
});

test('PyTorch computes every workload, forwards and backwards, as the reference does', async () => {
  const peer = await torchPeer('torch-cpu-1', { python })();
  if ('missing' in peer) return console.log(`skipped: ${peer.missing}`);
  try {
    assert.match(peer.version, /^\d+\.\d+\S* \(sgemm \d+ GFLOP\/s\)$/);
    const works: Work[] = [
      { op: 'matmul', M: 5, N: 7, K: 6 },
      { op: 'conv1d', B: 2, L: 20, Cin: 3, Cout: 5, K: 4, stride: 2 },
      { op: 'softmax', rows: 4, columns: 9 },
      { op: 'layer_norm', rows: 5, columns: 12 },
      { op: 'attention', B: 2, H: 2, T: 5, D: 4 },
      { op: 'info_nce', N: 9, K: 3, P: 8 },
      { op: 'transformer_layer', B: 2, T: 5, D: 8, H: 2, F: 16 },
    ];
    for (const workload of works.flatMap((work) => [
      workloadOf(work.op, work, false),
      workloadOf(work.op, work, true),
    ])) {
      assert.is(peer.unsupported(workload), null);
      const sets = [createInputs(workload, 1), createInputs(workload, 2)];
      const arm = (await peer.arm(workload, sets))!;
      for (const set of [1, 0]) {
        assert.ok((await arm.run(set)) > 0);
        assert.is(
          disagreement(await arm.outputs(), referenceOf(workload, sets[set]!)),
          null,
          `${workload.name}${workload.grad ? ' backwards' : ''}`,
        );
      }
      await arm.dispose();
    }
    const workload = workloadOf('torch-step', SMALL, true);
    const arm = (await peer.arm(workload, torchStepSets(1, SMALL, 5)))!;
    const losses: number[] = [];
    for (let set = 0; set < 5; set++) {
      await arm.run(set);
      losses.push((await arm.outputs())['y']![0]!);
    }
    assert.ok(
      losses.every((loss, i) => Math.abs(loss - PYTORCH_LOSSES[i]!) < 2e-5),
      `losses ${losses.join(', ')}`,
    );
    assert.ok((await arm.peakBytes!()) > 1e7);
    await failsWith('io', /PyTorch: IndexError/, () => arm.run(5));
  } finally {
    await peer.close();
  }
});

test('memory of the contrastive loss follows its inputs, not the product of anchors, negatives and channels', async () => {
  const points = await measureGrowth(await openTestGpu(), { axes: ['info_nce-NKP'], minRuns: 1, maxRuns: 1 });
  const [fit] = growthFits(points);
  assert.is(points.length, 4);
  assert.ok(points[3]!.gatheredBytes! / points[0]!.gatheredBytes! > 60, 'the product grows 64-fold');
  assert.ok(
    points[3]!.bytes / points[0]!.bytes < 6 && points[3]!.bytes < points[3]!.gatheredBytes! / 6,
    `${points.map((p) => p.bytes).join(', ')} bytes`,
  );
  assert.ok(fit!.bytesExponent < 1.2 && fit!.flopsExponent > 2.4, JSON.stringify(fit));
  assert.match(formatGrowth(points), /\| info_nce-NKP \| N 800, K 100, P 256 \|/);
});

test('a fit tells a line from a curve', () => {
  const point = (value: number, ms: number): GrowthPoint => ({
    axis: 'crop',
    value,
    name: '',
    timing: { median: ms, min: ms, max: ms, spread: 0, runs: 1, samples: [ms] },
    flops: 10 * value,
    bytes: 100 + 7 * value,
    gatheredBytes: null,
  });
  const [straight] = growthFits([1, 2, 3, 4].map((x) => point(x, 5 + 2 * x)));
  const [square] = growthFits([1, 2, 3, 4].map((x) => point(x, x * x)));
  assert.ok(straight!.msDeviation < 1e-9 && straight!.bytesDeviation < 1e-9);
  assert.ok(Math.abs(square!.msExponent - 2) < 1e-9 && square!.msDeviation > 0.2, JSON.stringify(square));
  assert.ok(Math.abs(square!.flopsExponent - 1) < 1e-9);
});

test('a Python that is not there, or has no torch, is a missing peer', async () => {
  const peer = await torchPeer('torch-cpu-2', { python: 'no-such-python' })();
  assert.match('missing' in peer ? peer.missing : '', /no-such-python did not start/);
});

test.run();
