import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/random/stream.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { ctcLoss } from '../src/ops/losses/ctc.ts';
import { grad } from '../src/ops/grad.ts';
import { logSoftmaxReference } from '../src/ops/softmax.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';

const gpu = await openTestGpu();

/**
 * -log p(target) and its gradient by the logits, from every one of the C^T paths: softmax minus the share of
 * p(target) that passes each class.
 */
function overAllPaths(
  logits: Float32Array,
  T: number,
  C: number,
  target: readonly number[],
): { loss: number; gradient: Float64Array } {
  const p = logSoftmaxReference(Float64Array.from(logits), C).map(Math.exp);
  const through = new Float64Array(T * C);
  const wanted = target.join();
  let total = 0;
  for (let code = 0; code < C ** T; code++) {
    const path = Array.from({ length: T }, (_, t) => Math.floor(code / C ** t) % C);
    if (path.filter((c, t) => c !== 0 && c !== path[t - 1]).join() !== wanted) continue;
    const q = path.reduce((product, c, t) => product * p[t * C + c]!, 1);
    total += q;
    path.forEach((c, t) => {
      through[t * C + c]! += q;
    });
  }
  return {
    loss: -Math.log(total),
    gradient: total > 0 ? p.map((v, i) => v - through[i]! / total) : new Float64Array(T * C),
  };
}

async function onDevice(
  logits: Float32Array<ArrayBuffer>,
  T: number,
  C: number,
  target: readonly number[],
): Promise<{ loss: number; gradient: Float32Array }> {
  const graph = new Graph();
  const x = graph.state('x', [1, T, C], { requiresGrad: true });
  const S = Math.max(1, target.length);
  const buffer = gpu.device.createBuffer({ size: Math.ceil((T * C) / 4) * 16, usage: 0x80 | 0x4 | 0x8 });
  gpu.device.queue.writeBuffer(buffer, 0, logits);
  const labels = graph.constant(
    'labels',
    [1, S],
    Int32Array.from({ length: S }, (_, i) => target[i] ?? 1),
  );
  const lengths = (n: number): Value => graph.constant(`n${n}`, [1], Int32Array.of(n));
  const loss = ctcLoss(x, labels, lengths(T), lengths(target.length), { zeroInfinity: false });
  const [dx] = grad(loss, [x]);
  const program = await compile(gpu, graph, {
    place: new Map([[x, { buffer, offset: 0, size: buffer.size }]]),
    outputs: { loss, dx: dx! },
  });
  const result = await program.step();
  program.destroy();
  buffer.destroy();
  return { loss: result['loss']![0]!, gradient: result['dx'] as Float32Array };
}

for (const [T, target] of [
  [1, [2]],
  [2, [1, 1]],
  [3, [1, 1]],
  [4, [1, 2, 3]],
  [6, [2, 2, 1]],
  [6, [1, 1, 1]],
  [6, [3, 1, 3, 1, 2, 3]],
  [5, []],
  [6, [1]],
  [3, [1, 2, 3, 1]],
  [4, [2, 2, 2]],
] as const) {
  const C = 4;
  const length = Math.max(1, target.length);
  test(`CTC of ${T} frames and the labels [${target.join(' ')}] has the loss and the gradient of all paths`, async () => {
    const random = randomStream(17, T, target.length);
    const logits = Float32Array.from({ length: T * C }, () => 4 * random.uniform() - 2);
    const want = overAllPaths(logits, T, C, target);
    const got = await onDevice(logits, T, C, target);
    if (want.loss === Infinity) assert.is(got.loss, Infinity);
    else
      assert.ok(
        Math.abs(got.loss - want.loss / length) < 1e-5,
        `loss ${got.loss}, all paths ${want.loss / length}`,
      );
    got.gradient.forEach((v, i) =>
      assert.ok(
        Math.abs(v - want.gradient[i]! / length) < 2e-6,
        `gradient ${i}: ${v}, all paths ${want.gradient[i]! / length}`,
      ),
    );
  });
}

test('of the cases above, those too short for their labels have no path', () => {
  for (const [T, target] of [
    [2, [1, 1]],
    [3, [1, 2, 3, 1]],
    [4, [2, 2, 2]],
  ] as const)
    assert.is(overAllPaths(new Float32Array(4 * T), T, 4, target).loss, Infinity);
});

test.run();
