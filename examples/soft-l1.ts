/**
 * Soft L1 in place of L1: squared where the error is small, so that the gradient fades instead of flipping
 * its sign. Twenty lines of maths, and a place in training: the frame scale's own task (predict the two
 * log-mel frames of each frame) under it.
 *
 *   mgf gradcheck examples/soft-l1.ts
 *   mgf pretrain recordings/ --preset micro-mel --set loss_weights.frame=0 --loss examples/soft-l1.ts
 *   --attach 2
 */
import { defineLoss, linear, type TrainingLoss } from 'mgf-webgpu';

/**
 * Huber's loss over beta (Girshick 2015, arXiv 1504.08083, eq. 3): d^2 / (2 beta) below beta, |d| - beta / 2
 * above.
 */
export const softL1 = defineLoss({
  name: 'soft_l1',
  inputs: ['x', 'goal'],
  attributes: { beta: 0.5 },
  forward: 'let d = abs(x - goal);\nreturn select(d - 0.5 * beta, 0.5 * d * d / beta, d < beta);',
  backward: { x: 'clamp((x - goal) / beta, -1.0, 1.0)' },
  reference({ x, goal }, { beta }) {
    const d = Math.abs(x - goal);
    return d < beta ? (0.5 * d * d) / beta : d - 0.5 * beta;
  },
});

export default {
  name: 'soft_frame',
  parameters: ({ n_mels }, width) => [
    { name: 'out.weight', shape: [2 * n_mels, width] },
    { name: 'out.bias', shape: [2 * n_mels] },
  ],
  build({ state, weights, mel }) {
    const predicted = linear(state, weights.get('out.weight'), weights.get('out.bias')); // [R, T, 2 n_mels]
    return softL1({ x: predicted, goal: mel.target }, { beta: 0.3 }, mel.weight);
  },
} satisfies TrainingLoss;
