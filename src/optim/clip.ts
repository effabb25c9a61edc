import { checkArguments, checkOptions, VALUE } from '../check.ts';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, f32, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, type Dispatch, type Scalar } from '../launch/dispatch.ts';
import { ceilDiv, overElements, overRows } from '../launch/grid.ts';
import { overItems } from '../ops/lib/reduce.ts';
import coefficientSource from '../../kernels/clip_coefficient.wgsl';
import rootSource from '../../kernels/root_of_sum.wgsl';
import scaleSource from '../../kernels/scale_by.wgsl';
import squaresSource from '../../kernels/square_sums.wgsl';
import { chunks } from './chunks.ts';

const SQUARES = kernel('square_sums', squaresSource);
const ROOT = kernel('root_of_sum', rootSource);
const COEFFICIENT = kernel('clip_coefficient', coefficientSource);
const SCALE = kernel('scale_by', scaleSource);

/** `bindingLimit`: bytes that one dispatch may bind; default: the adapter's limit. */
export interface NormAttrs {
  bindingLimit?: number;
}

export const gradNormOp = defineOp<NormAttrs>({
  name: 'grad_norm',
  shape: () => [f32(1)],
  forward(c) {
    const cpu = c.adapter.family === 'cpu';
    const pieces = c.inputs.flatMap((_, i) =>
      chunks(c.input(i), c.adapter, c.attrs.bindingLimit).map((chunk) => {
        const n = ceilDiv(chunk.elements, 4);
        const parts = Math.min(ceilDiv(n, 4), cpu ? 64 * c.adapter.subgroupSize : 32768);
        return { x: chunk.of(c.input(i)), elements: chunk.elements, n, parts };
      }),
    );
    const total = pieces.reduce((sum, { parts }) => sum + parts, 0);
    const part = c.temp([total]);
    const dispatches: Dispatch[] = [];
    let base = 0;
    for (const { x, elements, n, parts } of pieces) {
      const { constants, grid } = overItems(parts, c.adapter);
      const count = ceilDiv(n, parts);
      dispatches.push({
        kernel: SQUARES,
        grid,
        constants,
        bind: { x, part },
        params: { n, elements, parts, base, per: cpu ? count : 1, step: cpu ? 1 : parts, count },
      });
      base += parts;
    }
    const { constants, grid } = overRows(1, c.adapter);
    return [
      ...dispatches,
      { kernel: ROOT, grid, constants, bind: { part, norm: c.outputs[0]! }, params: { n: total } },
    ];
  },
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  backward: null,
  cost: (inputs) => {
    const n = inputs.reduce((sum, x) => sum + elements(x!.shape), 0);
    return { flops: 2 * n, bytes: 4 * n };
  },
});

/** The L2 norm [1] of all elements of all the given tensors, in two deterministic passes. No gradient. */
export const gradNorm = (gradients: Value | readonly Value[], options: NormAttrs = {}): Value => {
  const single = (x: Value | readonly Value[]): x is Value => !Array.isArray(x);
  checkOptions('gradNorm', options, { bindingLimit: 'a number?' });
  const list = single(gradients) ? [gradients] : gradients;
  if (list.length === 0) throw new MGFError('usage', 'gradNorm: the list of gradients is empty.');
  return apply(gradNormOp, list, options)[0]!;
};

/** What gradients are clipped to, as `clipCoefficient` takes it. */
export interface ClipAttrs {
  maxNorm: number;
  /**
   * 1 / what the gradients were multiplied by (a loss scale); default 1. A reciprocal because GPUs need not
   * divide exactly.
   */
  unscale?: number | Scalar;
}

export const clipCoefficientOp = defineOp<ClipAttrs>({
  name: 'clip_coefficient',
  shape([norm]) {
    if (elements(norm!.shape) !== 1)
      throw new MGFError(
        'shape',
        `clip_coefficient: the norm must be one number, got ${formatShape(norm!.shape)}`,
      );
    return [f32(1)];
  },
  forward: (c) => [
    {
      kernel: COEFFICIENT,
      grid: [1, 1, 1],
      bind: { norm: c.input(0), coefficient: c.outputs[0]! },
      params: { max_norm: c.attrs.maxNorm, unscale: c.attrs.unscale ?? 1 },
    },
  ],
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  backward: null,
  cost: () => ({ flops: 5, bytes: 8 }),
});

/**
 * min(1, maxNorm / (norm + 1e-6)), as PyTorch's clip_grad_norm_; -1 when the norm is not finite, which makes
 * `adamw` skip the step. [1] -> [1]. `unscale`: the gradients, and with them `norm`, are 1 / unscale times
 * too large (a loss scale); the coefficient clips their true norm and undoes that.
 */
export const clipCoefficient = (
  norm: Value,
  maxNorm: number,
  options: Pick<ClipAttrs, 'unscale'> = {},
): Value => {
  checkArguments('clipCoefficient', { norm: [norm, VALUE], maxNorm: [maxNorm, 'a number'] });
  checkOptions('clipCoefficient', options, { unscale: 'a number|a per-step scalar?' });
  return apply(clipCoefficientOp, [norm], { maxNorm, ...options })[0]!;
};

export const scaleByOp = defineOp<Record<never, never>>({
  name: 'scale_by',
  shape: ([x]) => [{ shape: x!.shape, dtype: 'f32' }],
  forward(c) {
    const n = ceilDiv(elements(c.input(0).shape), 4);
    const { constants, grid } = overElements(n);
    return [
      {
        kernel: SCALE,
        grid,
        constants,
        bind: { x: c.input(0), coefficient: c.input(1), y: c.outputs[0]! },
        params: { n },
      },
    ];
  },
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  backward: null,
  cost: ([x]) => ({ flops: elements(x!.shape), bytes: 8 * elements(x!.shape) }),
});

/**
 * x * coefficient, 0 where the coefficient is negative (a gradient that is not finite). coefficient [1]. No
 * gradient.
 */
export const scaleBy = (x: Value, coefficient: Value): Value => apply(scaleByOp, [x, coefficient], {})[0]!;
