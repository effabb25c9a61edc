import { checkArguments, checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, scalar, type Scalar } from '../launch/dispatch.ts';
import { ceilDiv, overElements } from '../launch/grid.ts';
import source from '../../kernels/adamw.wgsl';
import { chunks } from './chunks.ts';

const ADAMW = kernel('adamw', source);

/** Hyperparameters of `adamw`, and where its per-step numbers come from. */
export interface AdamWOptions {
  /** Default 0.9, 0.98. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment. Default 1e-6. */
  readonly eps?: number;
  /** Decoupled decay: param *= 1 - lr * weightDecay. Default 0.01. */
  readonly weightDecay?: number;
  /** Elements before this index decay, the rest do not. Default: all decay. */
  readonly decayCount?: number;
  /**
   * Learning rate and bias corrections 1 - beta^step (step 1-based). Default: the per-step scalars 'lr',
   * 'bias1', 'bias2'.
   */
  readonly lr?: number | Scalar;
  readonly bias1?: number | Scalar;
  readonly bias2?: number | Scalar;
  /** Bytes that one dispatch may bind of each buffer. Default: the adapter's limit. */
  readonly bindingLimit?: number;
}

const NUMBER = 'a number|a per-step scalar?';
const OPTIONS: Rules<AdamWOptions> = {
  betas: 'a list?',
  eps: 'a number?',
  weightDecay: 'a number?',
  decayCount: 'a number?',
  lr: NUMBER,
  bias1: NUMBER,
  bias2: NUMBER,
  bindingLimit: 'a number?',
};

/** The bias corrections of a step (1-based), as `step` scalars. */
export function biasCorrections(
  step: number,
  betas: readonly [number, number] = [0.9, 0.98],
): { bias1: number; bias2: number } {
  checkArguments('biasCorrections', { step: [step, 'a number'], betas: [betas, 'a list'] });
  return { bias1: 1 - betas[0] ** step, bias2: 1 - betas[1] ** step };
}

/**
 * Inputs param, grad, exp_avg, exp_avg_sq, coefficient?; no outputs: the first, third and fourth are
 * overwritten.
 */
export const adamwOp = defineOp<AdamWOptions>({
  name: 'adamw',
  shape([param, grad, m, v, coefficient]) {
    for (const [what, x] of [
      ['gradient', grad],
      ['first moment', m],
      ['second moment', v],
    ] as const) {
      if (elements(x!.shape) !== elements(param!.shape))
        throw new MGFError(
          'shape',
          `adamw: parameters ${formatShape(param!.shape)} need a ${what} of as many elements, got ` +
            `${formatShape(x!.shape)}`,
        );
    }
    if (coefficient && elements(coefficient.shape) !== 1)
      throw new MGFError(
        'shape',
        `adamw: the clipping coefficient must be one number, got ${formatShape(coefficient.shape)}`,
      );
    return [];
  },
  forward(c) {
    const param = c.input(0);
    const coefficient = c.inputs[4];
    const a = c.attrs;
    const [beta1, beta2] = a.betas ?? [0.9, 0.98];
    return chunks(param, c.adapter, a.bindingLimit).map((chunk) => {
      const n = ceilDiv(chunk.elements, 4);
      const { constants, grid } = overElements(n);
      return {
        kernel: ADAMW,
        grid,
        constants: { ...constants, CLIP: Number(Boolean(coefficient)) },
        bind: {
          param: chunk.of(param),
          grad: chunk.of(c.input(1)),
          exp_avg: chunk.of(c.input(2)),
          exp_avg_sq: chunk.of(c.input(3)),
          ...(coefficient && { coefficient }),
        },
        params: {
          n,
          first: chunk.first,
          decay_count: a.decayCount ?? elements(param.shape),
          decay: a.weightDecay ?? 0.01,
          eps: a.eps ?? 1e-6,
          lr: a.lr ?? scalar('lr'),
          bias1: a.bias1 ?? scalar('bias1'),
          bias2: a.bias2 ?? scalar('bias2'),
          beta1,
          rest1: 1 - beta1,
          beta2,
          rest2: 1 - beta2,
        },
      };
    });
  },
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  backward: null,
  mutates: [0, 2, 3],
  cost: ([param]) => ({ flops: 14 * elements(param!.shape), bytes: 28 * elements(param!.shape) }),
});

/**
 * One AdamW step in place over flat buffers of n elements, as in PyTorch. Buffers over the adapter's binding
 * limit are worked on in pieces. `coefficient` [1] multiplies the gradient (see `clipCoefficient`); when it
 * is negative, the gradient was not finite and nothing changes.
 * @throws MGFError 'shape'
 */
export function adamw(
  param: Value,
  grad: Value,
  expAvg: Value,
  expAvgSq: Value,
  options: AdamWOptions = {},
  coefficient: Value | null = null,
): void {
  checkOptions('adamw', options, OPTIONS);
  apply(adamwOp, [param, grad, expAvg, expAvgSq, coefficient], options, 4);
}

/** Float64 reference of one element: the new [param, expAvg, expAvgSq]. */
export function adamwReference(
  [param, m, v]: readonly [number, number, number],
  grad: number,
  {
    lr,
    betas: [beta1, beta2],
    eps,
    weightDecay,
    step,
  }: { lr: number; betas: readonly [number, number]; eps: number; weightDecay: number; step: number },
): [number, number, number] {
  const { bias1, bias2 } = biasCorrections(step, [beta1, beta2]);
  const m1 = beta1 * m + (1 - beta1) * grad;
  const v1 = beta2 * v + (1 - beta2) * grad * grad;
  return [
    param * (1 - lr * weightDecay) - ((lr / bias1) * m1) / (Math.sqrt(v1) / Math.sqrt(bias2) + eps),
    m1,
    v1,
  ];
}
