/**
 * Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230): the features of two crops of a recording should
 * correlate with themselves and not with each other. No negatives, no temperature; what it needs is a batch,
 * over which each feature is standardised.
 *
 *   mgf pretrain recordings/ --preset micro-mel --set utterances_per_batch=16 --loss examples/barlow-twins.ts
 *   --attach 2 --weight 0.1
 */
import {
  defineLoss,
  layerNorm,
  linear,
  matmul,
  maskedMean,
  scale,
  splitCrops,
  transpose,
  type TrainingLoss,
} from 'mgf-webgpu';

/** (1 - c)^2 on the diagonal of the correlations, lambda c^2 off it. */
export const crossCorrelation = defineLoss({
  name: 'cross_correlation',
  inputs: ['c', 'diagonal'],
  attributes: { lambda: 0.0051 },
  forward: 'let off = diagonal - c;\nreturn select(lambda, 1.0, diagonal > 0.5) * off * off;',
  backward: { c: '2.0 * select(lambda, 1.0, diagonal > 0.5) * (c - diagonal)' },
  reference: ({ c, diagonal }, { lambda }) => (diagonal > 0.5 ? 1 : lambda) * (diagonal - c) ** 2,
});

const WIDTH = 64;

export default {
  name: 'barlow_twins',
  parameters: (_, width) => [
    { name: 'project.weight', shape: [WIDTH, width] },
    { name: 'project.bias', shape: [WIDTH] },
  ],
  build({ graph, state, weights, frameMask }) {
    const u = linear(
      maskedMean(state, frameMask),
      weights.get('project.weight'),
      weights.get('project.bias'),
    ); // [2 B, WIDTH]
    // A layer norm over the batch, of what is a column of features turned into a row: mean 0 and deviation 1
    // of each feature.
    const [a, b] = splitCrops(u).map((half) => layerNorm(transpose(half), null, null)) as [
      typeof u,
      typeof u,
    ];
    const B = a.shape[1]!; // [WIDTH, B]
    const c = matmul(a, scale(b, 1 / B), { transposeB: true }); // [WIDTH, WIDTH]
    const diagonal = graph.constant(
      'diagonal',
      [WIDTH, WIDTH],
      Float32Array.from({ length: WIDTH * WIDTH }, (_, i) => Number(i % (WIDTH + 1) === 0)),
    );
    return scale(crossCorrelation({ c, diagonal }), WIDTH); // the paper sums; here a row's mean
  },
} satisfies TrainingLoss;
