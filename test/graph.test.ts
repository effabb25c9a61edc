import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { elements } from '../src/graph/shape.ts';
import { Graph } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import { gelu } from '../src/ops/activation.ts';
import { conv1d, convTranspose1d } from '../src/ops/conv/conv.ts';
import { attention, selfAttention } from '../src/ops/attention/attention.ts';
import { add, reshape, scale } from '../src/ops/elementwise.ts';
import { narrow } from '../src/ops/layout.ts';
import { linear } from '../src/ops/gemm/linear.ts';
import { matmul } from '../src/ops/gemm/matmul.ts';
import { failsWith } from './harness.ts';

const sized = (...shape: number[]): ReturnType<Graph['input']> => new Graph().input('x', shape);

test('a shape with a dimension that is no whole number from 1 up is refused with the name', async () => {
  for (const shape of [[0], [2, -1], [1.5], [NaN]])
    await failsWith('shape', /"x" would have shape/, () => sized(...shape));
  assert.is(elements(sized(2, 3, 4).shape), 24);
  assert.is(elements([]), 1);
});

test('two inputs of one name are refused, two states are not', async () => {
  const g = new Graph();
  g.input('x', [1]);
  await failsWith('shape', /an input named "x" already/, () => g.input('x', [2]));
  g.state('x', [1]);
  g.state('x', [1]);
});

test('a constant must hold as many numbers as its shape says, and an integer one is i32', async () => {
  const g = new Graph();
  await failsWith('shape', /constant "table": 3 numbers for shape \[2, 2\]/, () =>
    g.constant('table', [2, 2], new Float32Array(3)),
  );
  assert.is(g.constant('i', [2], new Int32Array(2)).dtype, 'i32');
  assert.is(g.constant('f', [2], new Float32Array(2)).requiresGrad, false);
});

test('scopes nest, name nodes and results, and end with an exception too', () => {
  const g = new Graph();
  const x = g.input('x', [4]);
  const y = g.scope('encoder', () => g.scope('layers.0', () => gelu(x)));
  assert.is(y.node!.scope, 'encoder.layers.0');
  assert.match(y.name, /^encoder\.layers\.0\//);
  assert.throws(
    () =>
      g.scope('broken', () => {
        throw new Error('inside');
      }),
    /inside/,
  );
  assert.is(gelu(x).node!.scope, '');
});

test('a value of another graph is refused by op and name', async () => {
  const a = new Graph().input('mine', [4]);
  const b = new Graph().input('foreign', [4]);
  await failsWith('shape', /add: input "foreign" belongs to another graph/, () => add(a, b));
});

test('a result needs a gradient when a differentiable input does', () => {
  const g = new Graph();
  const w = g.state('w', [4], { requiresGrad: true });
  const x = g.input('x', [4]);
  assert.is(scale(x, 2).requiresGrad, false);
  assert.is(add(scale(x, 2), w).requiresGrad, true);
});

test('nodes and values are numbered in the order of their making', () => {
  const g = new Graph();
  const x = g.input('x', [4]);
  const y = scale(x, 2);
  const z = add(x, y);
  assert.equal(
    g.nodes.map((n) => n.op.name),
    ['scale', 'add'],
  );
  assert.equal(
    g.values.map((v) => v.id),
    [0, 1, 2],
  );
  assert.is(z.node!.inputs[1], y);
});

test('an op may have several outputs and leave optional inputs out', () => {
  const two = defineOp<Record<never, never>>({
    name: 'two',
    shape: ([x, y]) => [
      { shape: x!.shape, dtype: 'f32' },
      { shape: y ? y.shape : [1], dtype: 'i32' },
    ],
    forward: () => [],
    backward: null,
    saves: { inputs: [], outputs: [] },
    cost: () => ({ flops: 0, bytes: 0 }),
  });
  const g = new Graph();
  const x = g.state('x', [3], { requiresGrad: true });
  const [a, b] = g.apply(two, [x, null], {});
  assert.equal([a!.shape, b!.shape, a!.requiresGrad, b!.requiresGrad], [[3], [1], true, false]);
  assert.is.not(a!.name, b!.name);
});

test('every shape rule names its op, the shapes and what was wanted', async () => {
  const g = new Graph();
  const v = (...shape: number[]): ReturnType<Graph['state']> => g.state('v', shape);
  for (const [build, ...parts] of [
    [() => add(v(2, 3), v(3, 2)), /^add: /, /\[2, 3\].*\[3, 2\]/],
    [() => reshape(v(2, 3), [4]), /^reshape: /, /\[2, 3\].*6.*\[4\].*4/],
    [() => linear(v(2, 3), v(5, 4)), /^linear: /, /\[2, 3\].*\[out, 3\].*\[5, 4\]/],
    [() => linear(v(2, 3), v(5, 3), v(3)), /^linear: /, /bias \[5\].*\[3\]/],
    [
      () => linear(v(2, 3), v(5, 3), null, { residual: v(2, 3) }),
      /^linear: /,
      /residual.*\[2, 5\].*\[2, 3\]/,
    ],
    [() => linear(v(2, 3), v(5, 3), null, { residual: v(2, 5), activation: 'gelu' }), /^linear: /, /add\(\)/],
    [() => matmul(v(2, 3), v(2, 3)), /^matmul: /, /inner sizes 3 and 2/],
    [() => matmul(v(3), v(3, 2)), /^matmul: /, /two dimensions/],
    [() => matmul(v(2, 4, 3), v(3, 3, 4)), /^matmul: /, /batch sizes 2 and 3/],
    [() => conv1d(v(1, 8, 4), v(6, 3, 3)), /^conv1d: /, /Cin \/ groups/],
    [() => conv1d(v(1, 8, 4), v(6, 3, 4), null, { groups: 4 }), /^conv1d: /, /groups/],
    [() => conv1d(v(1, 4, 4), v(6, 3, 4), null, { dilation: 2 }), /^conv1d: /, /window of 5.*4 samples/],
    [() => conv1d(v(8, 4), v(6, 3, 4)), /^conv1d: /, /three dimensions/],
    [() => conv1d(v(1, 8, 4), v(6, 3, 4), v(5)), /^conv1d: /, /bias \[6\]/],
    [() => convTranspose1d(v(1, 8, 4), v(5, 3, 4)), /^conv_transpose1d: /, /first axis must be Cin/],
    [() => convTranspose1d(v(1, 1, 4), v(4, 2, 4), null, { padding: 3 }), /^conv_transpose1d: /, /empty/],
    [
      () => attention(v(1, 2, 3, 4), v(1, 2, 5, 4), v(1, 2, 6, 4)),
      /^attention: /,
      /\[1, 2, 5, 4\].*\[1, 2, 6, 4\]/,
    ],
    [
      () => attention(v(1, 2, 3, 4), v(1, 2, 5, 4), v(1, 2, 5, 4), v(1, 3)),
      /^attention: /,
      /key mask must be \[1, 5\].*\[1, 3\]/,
    ],
    [() => selfAttention(v(1, 3, 20), 4), /^self_attention: /, /\[1, 3, 20\].*4 heads/],
    [() => narrow(v(2, 5), 3, 3), /^narrow: /, /\[3, 6\).*\[2, 5\]/],
  ] as const)
    await failsWith('shape', parts, build);
});

test.run();
