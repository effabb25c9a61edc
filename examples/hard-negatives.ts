/**
 * InfoNCE whose hard negatives count more (Robinson et al. 2021, arXiv 2010.04592, without its debiasing):
 * each negative is weighed by exp(beta similarity), normalised over the row, so that beta 0 is InfoNCE
 * itself. A loss of rows: numbers of a row, the value that they make, the derivative by an element.
 *
 *   mgf pretrain recordings/ --preset micro-mel --set loss_weights.sentence=0 --loss
 *   examples/hard-negatives.ts --attach 2 --weight 0.5
 */
import { defineRowLoss, layerNorm, linear, matmul, maskedMean, scale, type TrainingLoss } from 'mgf-webgpu';

/**
 * logits [rows, n], scaled similarities of an anchor; `positive`: its column; `self`: the distance back to
 * the anchor's own column is `n / 2` on both sides, so that column (positive + n / 2) mod n is left out. With
 * negatives N: -s+ + log(exp(s+) + |N| sum(exp((1 + beta) s)) / sum(exp(beta s))).
 */
export const hardNegatives = defineRowLoss({
  name: 'hard_negatives',
  rows: ['logits'],
  indices: ['positive'],
  attributes: { beta: 0.5 },
  numbers: {
    own: { value: 'f32((positive + u32(n) / 2u) % u32(n))' },
    // -1e4 takes a column out of a logsumexp.
    hard: { logsumexp: 'select((1.0 + beta) * logits, -1e4, j == positive || j == u32(own))' },
    weight: { logsumexp: 'select(beta * logits, -1e4, j == positive || j == u32(own))' },
    negatives: { value: 'log(n - 2.0) + hard - weight' },
    plus: { value: 'logits_at(positive)' },
    // log(exp(plus) + exp(negatives))
    total: { value: 'max(plus, negatives) + log(1.0 + exp(-abs(plus - negatives)))' },
  },
  forward: 'total - plus',
  backward: {
    logits: `
let share = exp(negatives - total); // what the negatives have of the softmax
if (j == u32(own)) { return 0.0; }
if (j == positive) { return -share; }
return share * ((1.0 + beta) * exp((1.0 + beta) * logits - hard) - beta * exp(beta * logits - weight));`,
  },
  reference({ logits, positive }, { beta }) {
    const n = logits.length;
    const own = (positive + Math.floor(n / 2)) % n;
    const others = [...logits].filter((_, j) => j !== positive && j !== own);
    const logSum = (x: readonly number[]): number => {
      const top = Math.max(...x);
      return top + Math.log(x.reduce((sum, v) => sum + Math.exp(v - top), 0));
    };
    const negatives =
      Math.log(n - 2) + logSum(others.map((v) => (1 + beta) * v)) - logSum(others.map((v) => beta * v));
    return logSum([logits[positive]!, negatives]) - logits[positive]!;
  },
});

const WIDTH = 64;
const TEMPERATURE = 0.1;

export default {
  name: 'hard_sentence',
  parameters: (_, width) => [
    { name: 'project.weight', shape: [WIDTH, width] },
    { name: 'project.bias', shape: [WIDTH] },
  ],
  build({ graph, state, weights, frameMask }) {
    const u = layerNorm(
      linear(maskedMean(state, frameMask), weights.get('project.weight'), weights.get('project.bias')),
      null,
      null,
    ); // [2 B, WIDTH]
    const R = u.shape[0]!;
    const logits = matmul(u, scale(u, 1 / (WIDTH * TEMPERATURE)), { transposeB: true }); // [2 B, 2 B]
    const positive = graph.constant(
      'the other crop',
      [R],
      Int32Array.from({ length: R }, (_, r) => (r + R / 2) % R),
    );
    return hardNegatives({ logits, positive });
  },
} satisfies TrainingLoss;
