import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Graph, type Value } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import { gelu } from '../src/ops/activation.ts';
import { add, fillLike, reshape, scale } from '../src/ops/elementwise.ts';
import { grad, vectorJacobianProduct } from '../src/ops/grad.ts';
import { narrow } from '../src/ops/layout.ts';
import { linear, linearReference } from '../src/ops/gemm/linear.ts';
import { mseLoss } from '../src/ops/losses/pointwise.ts';
import { matmul, matmulReference } from '../src/ops/gemm/matmul.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';
import { check, distance, failsWith, noise, run, type Tensor } from './harness.ts';

const gpu = await openTestGpu();
const tensor = (shape: number[], seed: number, constant = false): Tensor => ({
  shape,
  data: noise(
    shape.reduce((a, b) => a * b, 1),
    seed,
  ),
  constant,
});

test('a value given twice to one op gets both gradients: x x', () =>
  check(gpu, 'square', {
    inputs: { x: tensor([5, 5], 1) },
    build: ({ x }) => matmul(x!, x!),
    reference: ({ x }) => matmulReference(x!, x!, { a: [5, 5], b: [5, 5] }),
  }));

test('a value given twice to one op gets both gradients: x x^T', () =>
  check(gpu, 'gram', {
    inputs: { x: tensor([3, 6], 1) },
    build: ({ x }) => matmul(x!, x!, { transposeB: true }),
    reference: ({ x }) => matmulReference(x!, x!, { a: [3, 6], b: [3, 6] }, { transposeB: true }),
  }));

test('x + x doubles the gradient, and a chain of sums counts every path', async () => {
  const once = await run(gpu, 'twice', { inputs: { x: tensor([7], 1) }, build: ({ x }) => add(x!, x!) });
  assert.equal(
    once.gradients['x'],
    once.up.map((v) => 2 * v),
  );
  const paths = await run(gpu, 'paths', {
    inputs: { x: tensor([7], 1) },
    build: ({ x }) => {
      const y = add(x!, x!);
      const z = add(y, x!);
      return add(add(z, y), scale(x!, 4));
    },
  });
  assert.ok(
    distance(
      paths.gradients['x']!,
      paths.up.map((v) => 9 * v),
    ) < 1e-6,
  );
});

test(
  'a residual passes the upstream gradient on without a copy inside the walk; what is handed out is its ' +
    "owner's alone",
  async () => {
    const g = new Graph();
    const x = g.input('x', [4, 3]);
    const w = g.state('w', [5, 3], { requiresGrad: true });
    const r = g.state('r', [4, 5], { requiresGrad: true });
    const y = linear(gelu(x), w, null, { residual: scale(r, 2) });
    const up = g.constant('up', [4, 5], noise(20, 3));
    const nodes = g.nodes.length;
    vectorJacobianProduct(new Map([[y, up]]), [r]);
    assert.is(g.nodes.length, nodes + 1, 'only the backward of scale');
    const a = g.state('a', [4, 5], { requiresGrad: true });
    const b = g.state('b', [4, 5], { requiresGrad: true });
    const [da, db] = vectorJacobianProduct(new Map([[add(a, b), up]]), [a, b]);
    assert.is.not(da, db, 'two addends may each be placed somewhere');
    const sum = await run(gpu, 'sum', {
      inputs: { a: tensor([4, 5], 1), b: tensor([4, 5], 2) },
      build: ({ a: left, b: right }) => add(left!, right!),
    });
    assert.equal(sum.gradients['a'], sum.up);
    assert.equal(sum.gradients['b'], sum.up);
    const result = await run(gpu, 'residual', {
      inputs: { x: tensor([4, 3], 1), w: tensor([5, 3], 2), r: tensor([4, 5], 3) },
      build: ({ x, w, r }) => linear(x!, w!, null, { residual: r! }),
    });
    assert.equal(result.gradients['r'], result.up);
  },
);

test('a value that is both operand and residual gets both gradients', () =>
  check(gpu, 'both', {
    inputs: { x: tensor([6, 6], 1), w: tensor([6, 6], 2) },
    build: ({ x, w }) => linear(x!, w!, null, { residual: x! }),
    reference: ({ x, w }) => linearReference(x!, w!, null, 6, 6, 6).map((v, i) => v + x![i]!),
  }));

test('reshapes share storage in both directions and chain', async () => {
  const g = new Graph();
  const x = g.state('x', [2, 6], { requiresGrad: true });
  const y = reshape(reshape(scale(reshape(x, [12]), 3), [3, 4]), [4, 3]);
  const up = g.constant('up', [4, 3], noise(12, 4));
  const [dx] = vectorJacobianProduct(new Map([[y, up]]), [x]);
  assert.equal(dx!.shape, [2, 6]);
  const program = await compile(gpu, g, { keep: { y, dx: dx! } });
  assert.is(program.dispatches.length, 2, 'only the two products run');
  program.destroy();
  const result = await run(gpu, 'reshape', {
    inputs: { x: tensor([2, 6], 1) },
    build: ({ x }) => reshape(scale(reshape(x!, [12]), 3), [4, 3]),
  });
  assert.equal(
    result.y,
    noise(12, 1).map((v) => Math.fround(3 * v)),
  );
  assert.equal(
    result.gradients['x'],
    result.up.map((v) => Math.fround(3 * v)),
  );
});

test('parts of one value gather their gradients', async () => {
  const { gradients, up } = await run(gpu, 'parts', {
    inputs: { x: tensor([3, 8], 1) },
    build: ({ x }) => add(narrow(x!, 0, 4), narrow(x!, 2, 4)),
  });
  for (let r = 0; r < 3; r++)
    for (let i = 0; i < 8; i++) {
      const want = (i < 4 ? up[r * 4 + i]! : 0) + (i >= 2 && i < 6 ? up[r * 4 + i - 2]! : 0);
      assert.is(gradients['x']![r * 8 + i], Math.fround(want), `row ${r}, column ${i}`);
    }
});

test('a value that is an output and an operand of another output gets both', async () => {
  const g = new Graph();
  const x = g.state('x', [4], { requiresGrad: true });
  const y = scale(x, 2);
  const z = scale(y, 5);
  const [dx] = vectorJacobianProduct(
    new Map([
      [y, fillLike(y, 1)],
      [z, fillLike(z, 1)],
    ]),
    [x],
  );
  const program = await compile(gpu, g, { keep: { dx: dx! } });
  program.poison();
  await program.step();
  assert.equal([...(await program.read('dx'))], [12, 12, 12, 12]);
  program.destroy();
});

test('nothing is added for values on which no target has influence', () => {
  const g = new Graph();
  const x = g.input('x', [4]);
  const w = g.state('w', [4], { requiresGrad: true });
  const aside = gelu(gelu(x));
  const y = add(aside, scale(w, 3));
  const nodes = g.nodes.length;
  vectorJacobianProduct(new Map([[y, fillLike(y, 1)]]), [w]);
  assert.equal(
    g.nodes.slice(nodes).map((n) => `${n.op.name} ${n.phase}`),
    ['fill forward', 'scale backward'],
  );
});

test('what no output needs is pruned from a program', async () => {
  const g = new Graph();
  const x = g.input('x', [4]);
  const used = scale(x, 2);
  const unused = gelu(scale(x, 3));
  const unread = g.input('unread', [9]);
  gelu(unread);
  const program = await compile(gpu, g, { outputs: { used } });
  assert.equal(
    program.dispatches.map((d) => d.kernel),
    ['elementwise'],
  );
  assert.equal(
    [...(await program.step({ x: Float32Array.of(1, 2, 3, 4), unread: new Float32Array(9) }))['used']!],
    [2, 4, 6, 8],
  );
  assert.ok(unused.node);
  program.destroy();
});

test('a loss that is no scalar, a target without influence and a path without a gradient are refused by name', async () => {
  const g = new Graph();
  const w = g.state('w', [4], { requiresGrad: true });
  const other = g.state('lonely', [4], { requiresGrad: true });
  const target = g.input('t', [4]);
  await failsWith('shape', /loss must be a scalar.*\[4\]/, () => grad(scale(w, 2), [w]));
  await failsWith('shape', /"lonely" does not influence/, () => grad(mseLoss(w, target), [other]));
  const stop = defineOp<Record<never, never>>({
    name: 'round',
    shape: ([x]) => [{ shape: x!.shape, dtype: 'f32' }],
    forward: () => [],
    backward: null,
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
  });
  const rounded = g.scope('quantiser', () => g.apply(stop, [w], {})[0]!);
  await failsWith('shape', /round \(quantiser\) has no gradient, yet "w" needs one/, () =>
    grad(mseLoss(rounded, target), [w]),
  );
});

test('an op without a gradient is no obstacle where nobody needs one', () => {
  const g = new Graph();
  const w = g.state('w', [4], { requiresGrad: true });
  const x = g.input('x', [4]);
  assert.is(grad(mseLoss(scale(w, 2), fillLike(x, 3)), [w]).length, 1);
});

/** y = 2 x by an op whose backward reads what `read` says, having saved nothing. */
const careless = (read: (c: { input(i: number): Value | null; output(i: number): Value }) => unknown) =>
  defineOp<Record<never, never>>({
    name: 'careless',
    shape: ([x]) => [{ shape: x!.shape, dtype: 'f32' }],
    forward: () => [],
    backward: (c) => {
      read(c);
      return [];
    },
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
  });

test('a backward that reads an input or output it has not saved is refused by name', async () => {
  for (const [read, message] of [
    [(c) => c.input(0), /careless\.backward reads input 0, which its "saves" does not name/],
    [(c) => c.output(0), /careless\.backward reads output 0, which its "saves" does not name/],
  ] as [Parameters<typeof careless>[0], RegExp][]) {
    const g = new Graph();
    const x = g.state('x', [4], { requiresGrad: true });
    const y = g.apply(careless(read), [x], {})[0]!;
    const [dx] = vectorJacobianProduct(new Map([[y, fillLike(y, 1)]]), [x]);
    await failsWith('kernel', message, () => compile(gpu, g, { keep: { dx: dx! } }));
  }
});

test.run();
