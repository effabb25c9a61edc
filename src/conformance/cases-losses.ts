import type { Value } from '../graph/graph.ts';
import { crossEntropy } from '../ops/losses/cross-entropy.ts';
import { ctcLoss } from '../ops/losses/ctc.ts';
import { maskedInfoNCE } from '../ops/losses/info-nce.ts';
import { l1Loss, mseLoss } from '../ops/losses/pointwise.ts';
import { maskedMean } from '../ops/masked-mean.ts';
import { ntXent } from '../ops/losses/nt-xent.ts';
import { logSoftmax, softmax } from '../ops/softmax.ts';
import type { CaseBuilder, CaseInputs } from './case.ts';

/** An integer mask of a case as the f32 weights that the ops take. */
const mask = (c: CaseInputs): Value | null => {
  if (!c.has('mask')) return null;
  const { shape, data } = c.tensor('mask');
  return c.graph.constant('mask', shape, Float32Array.from(data));
};

export const cases: Record<string, CaseBuilder> = {
  l1_loss: (c) => ({ y: l1Loss(c.input('x'), c.input('y'), mask(c)) }),
  mse_loss: (c) => ({ y: mseLoss(c.input('x'), c.input('y'), mask(c)) }),
  masked_info_nce: (c) => ({
    y: maskedInfoNCE(c.input('c'), c.input('z'), c.input('anchor'), c.input('negatives'), {
      temperature: c.attrs['temperature'],
    })[0],
  }),
  nt_xent: (c) => ({ y: ntXent(c.input('a'), c.input('b'), { temperature: c.attrs['temperature'] }) }),
  masked_mean: (c) => ({ y: maskedMean(c.input('x'), mask(c)) }),
  softmax: (c) => ({ y: softmax(c.input('x')) }),
  log_softmax: (c) => ({ y: logSoftmax(c.input('x')) }),
  cross_entropy: (c) => ({
    y: crossEntropy(c.input('logits'), c.input('target'), { ignoreIndex: c.attrs['ignore_index'] }),
  }),
  ctc_loss: (c) => ({
    y: ctcLoss(c.input('logits'), c.input('targets'), c.input('input_lengths'), c.input('target_lengths'), {
      blank: c.attrs['blank'],
      zeroInfinity: Boolean(c.attrs['zero_infinity']),
    }),
  }),
};
