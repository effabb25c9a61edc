/**
 * A supervised loss beside the four: which speaker is it? Reads the column `speaker` of the manifest, so that
 * labels that are there anyway are not left unused; recordings without one do not count.
 *
 *   mgf pretrain list.tsv --preset micro-mel --loss examples/speaker-labels.ts --weight 0.2
 */
import { crossEntropy, linear, maskedMean, type TrainingLoss } from 'mgf-webgpu';

export default {
  name: 'speaker_labels',
  parameters: (_, width, { classes }) => [
    { name: 'out.weight', shape: [classes('speaker'), width] },
    { name: 'out.bias', shape: [classes('speaker')] },
  ],
  build({ state, weights, frameMask, column }) {
    const logits = linear(maskedMean(state, frameMask), weights.get('out.weight'), weights.get('out.bias'));
    return crossEntropy(logits, column('speaker')); // [R, classes], i32 [R]
  },
} satisfies TrainingLoss;
