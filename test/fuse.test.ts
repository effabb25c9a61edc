import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Gpu } from '../src/gpu/device.ts';
import { elements } from '../src/graph/shape.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { gelu } from '../src/ops/activation.ts';
import { conv1d } from '../src/ops/conv/conv.ts';
import { add } from '../src/ops/elementwise.ts';
import { vectorJacobianProduct } from '../src/ops/grad.ts';
import { linear } from '../src/ops/gemm/linear.ts';
import { compile } from '../src/plan/compile.ts';
import type { Program } from '../src/plan/program.ts';
import type { Region } from '../src/plan/storage.ts';
import { openTestGpu } from './gpu.ts';
import { distance, filled, noise, withFamily } from './harness.ts';

const gpu = await openTestGpu();
const size = { x: [2, 11, 8], v: [16, 3, 8], w: [8, 16], up: [2, 5, 8] };

/** conv, GELU, linear and the gradients of the weights; `also` names further values that must exist. */
async function network(
  on: Gpu,
  also: (hidden: Value, dActive: Value) => Record<string, Value>,
): Promise<Program> {
  const g = new Graph();
  const place = new Map<Value, Region>();
  const [x, v, w, up] = Object.entries(size).map(([name, shape], i) => {
    const value = g.state(name, shape, { requiresGrad: true });
    place.set(value, filled(on, noise(elements(shape), i)));
    return value;
  }) as [Value, Value, Value, Value];
  const hidden = conv1d(x, v, null, { stride: 2 });
  const active = gelu(hidden);
  const y = linear(active, w);
  const [dv, dw, dActive] = vectorJacobianProduct(new Map([[y, up]]), [v, w, active]) as [
    Value,
    Value,
    Value,
  ];
  const program = await compile(on, g, { keep: { y, dv, dw, ...also(hidden, dActive) }, place });
  program.poison();
  await program.step();
  return program;
}

const kernels = (program: Program): string[] => program.dispatches.map((d) => d.kernel);

for (const family of ['cpu', 'gpu'] as const) {
  test(
    `GELU and the gradient through it move into the products before them (${family} kernels), and ` +
      'nothing changes',
    async () => {
      const on = withFamily(gpu, family);
      const fused = await network(on, () => ({}));
      const apart = await network(on, (hidden, dActive) => ({ twice: add(hidden, hidden), dActive }));
      assert.not.ok(kernels(fused).includes('activation'), kernels(fused).join(' '));
      // Whoever wants the gradient of GELU's result keeps it from disappearing; GELU itself still moves, and
      // its argument stays for those who read it.
      assert.is(kernels(apart).filter((k) => k === 'activation').length, 1);
      for (const name of ['y', 'dv', 'dw'])
        assert.ok(distance(await fused.read(name), await apart.read(name)) < 1e-6, name);
      assert.ok((await apart.read('twice')).every(Number.isFinite));
      fused.destroy();
      apart.destroy();
    },
  );
}

test('a sum of two products keeps its own pass: the second writer is not overwritten', async () => {
  const g = new Graph();
  const x = g.input('x', [22, 8]);
  const w = g.input('w', [16, 8]);
  const v = g.input('v', [16, 8]);
  const program = await compile(gpu, g, { keep: { y: gelu(add(linear(x, w), linear(x, v))) } });
  assert.is(kernels(program).filter((k) => k === 'activation').length, 1);
  program.destroy();
});

test.after(() => gpu.close());
test.run();
