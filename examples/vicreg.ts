/**
 * VICReg (Bardes, Ponce, LeCun 2022, arXiv 2105.04906): two crops alike (invariance), every feature spread
 * out over the batch (variance), features uncorrelated (covariance). Three losses in one: two of elements,
 * one of rows.
 *
 *   mgf pretrain recordings/ --preset micro-mel --set utterances_per_batch=16 --loss examples/vicreg.ts
 *   --attach 2 --weight 0.05
 */
import {
  add,
  defineElementwise,
  defineLoss,
  defineRowLoss,
  linear,
  matmul,
  maskedMean,
  scale,
  splitCrops,
  transpose,
  type TrainingLoss,
  type Value,
} from 'mgf-webgpu';

/** (a - b)^2, which both crops learn from. (The built-in mseLoss has a target, without a gradient.) */
export const alike = defineLoss({
  name: 'alike',
  inputs: ['a', 'b'],
  forward: '(a - b) * (a - b)',
  backward: { a: '2.0 * (a - b)', b: '2.0 * (b - a)' },
  reference: ({ a, b }) => (a - b) ** 2,
});

/**
 * max(0, gamma - standard deviation) of a feature over the batch, which is a row here; eps as in the paper.
 */
export const spread = defineRowLoss({
  name: 'spread',
  rows: ['x'],
  attributes: { gamma: 1 },
  numbers: {
    mean: { sum: 'x / n' },
    variance: { sum: '(x - mean) * (x - mean) / (n - 1.0)' },
    deviation: { value: 'sqrt(variance + 1e-4)' },
  },
  forward: 'max(0.0, gamma - deviation)',
  backward: { x: 'select(0.0, -(x - mean) / ((n - 1.0) * deviation), deviation < gamma)' },
  reference({ x }, { gamma }) {
    const mean = x.reduce((s, v) => s + v, 0) / x.length;
    const variance = x.reduce((s, v) => s + (v - mean) ** 2, 0) / (x.length - 1);
    return Math.max(0, gamma - Math.sqrt(variance + 1e-4));
  },
});

/** x less the mean of its row, whose row sums come in as a tensor of x's shape. */
export const centred = defineElementwise({
  name: 'centred',
  inputs: ['x', 'sum'],
  attributes: { n: 1 },
  forward: 'x - sum / n',
  backward: { x: '1.0', sum: '-1.0 / n' },
  reference: ({ x, sum }, { n }) => x - sum / n,
});

/** c^2 off the diagonal. */
export const decorrelate = defineLoss({
  name: 'decorrelate',
  inputs: ['c', 'off'],
  forward: 'off * c * c',
  backward: { c: '2.0 * off * c' },
  reference: ({ c, off }) => off * c * c,
});

const WIDTH = 64;

export default {
  name: 'vicreg',
  parameters: (_, width) => [
    { name: 'project.weight', shape: [WIDTH, width] },
    { name: 'project.bias', shape: [WIDTH] },
  ],
  build({ graph, state, weights, frameMask }) {
    const [a, b] = splitCrops(
      linear(maskedMean(state, frameMask), weights.get('project.weight'), weights.get('project.bias')),
    );
    const B = a.shape[0]!;
    const off = graph.constant(
      'off the diagonal',
      [WIDTH, WIDTH],
      Float32Array.from({ length: WIDTH * WIDTH }, (_, i) => Number(i % (WIDTH + 1) !== 0)),
    );
    const ones = graph.constant('ones', [B, B], new Float32Array(B * B).fill(1));
    const regularity = (u: Value): Value => {
      const rows = transpose(u);
      const x = centred({ x: rows, sum: matmul(rows, ones) }, { n: B }); // [WIDTH, B]
      const covariance = matmul(x, scale(x, 1 / (B - 1)), { transposeB: true }); // [WIDTH, WIDTH]
      // the paper divides the sum by the width, the loss by its square
      return add(scale(spread({ x: rows }), 25), scale(decorrelate({ c: covariance, off }), WIDTH));
    };
    return add(scale(alike({ a, b }), 25), add(regularity(a), regularity(b)));
  },
} satisfies TrainingLoss;
