/**
 * Sigmoid contrast (SigLIP, Zhai et al. 2023, arXiv 2303.15343) between the two crops of each recording.
 * Every pair of crops is a question of its own (one recording or two?) instead of a row of a softmax, so that
 * no anchor needs its batch's other logits. Compare with MGF's sentence scale:
 *
 *   mgf pretrain recordings/ --preset micro-mel --set loss_weights.sentence=0 --loss examples/siglip.ts
 *   --attach 2 --weight 0.5
 */
import {
  defineLoss,
  layerNorm,
  linear,
  matmul,
  maskedMean,
  scale,
  splitCrops,
  type TrainingLoss,
} from 'mgf-webgpu';

/** -log sigmoid(sign (scale logit + shift)), sign 1 for crops of one recording and -1 for others. */
export const sigmoidContrast = defineLoss({
  name: 'sigmoid_contrast',
  inputs: ['logit', 'sign'],
  // The paper starts from a scale of 10 and a shift of -10, which makes "two recordings" the first answer,
  // and learns both; here they stay.
  attributes: { scale: 10, shift: -10 },
  // log(1 + exp(-v)) that cannot overflow
  forward: 'let v = sign * (scale * logit + shift);\nreturn max(-v, 0.0) + log(1.0 + exp(-abs(v)));',
  backward: { logit: 'let v = sign * (scale * logit + shift);\nreturn -sign * scale / (1.0 + exp(v));' },
  reference({ logit, sign }, { scale, shift }) {
    const v = sign * (scale * logit + shift);
    return Math.max(-v, 0) + Math.log1p(Math.exp(-Math.abs(v)));
  },
});

const WIDTH = 64;

export default {
  name: 'siglip',
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
    const [a, b] = splitCrops(layerNorm(u, null, null));
    const B = a.shape[0]!; // rows of length sqrt(WIDTH), as alike in direction as in a cosine
    const logit = matmul(a, scale(b, 1 / WIDTH), { transposeB: true }); // [B, B], -1 to 1
    const sign = graph.constant(
      'one recording or two',
      [B, B],
      Float32Array.from({ length: B * B }, (_, i) => (i % (B + 1) === 0 ? 1 : -1)),
    );
    return sigmoidContrast({ logit, sign });
  },
} satisfies TrainingLoss;
