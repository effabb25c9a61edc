import backwardText from '../../../kernels/pointwise_loss_backward.wgsl';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, f32, formatShape } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { kernel } from '../../launch/dispatch.ts';
import { grouping, overSpans, weightedMean } from '../lib/reduce.ts';

const backwardKernel = kernel('pointwise_loss_backward', backwardText);

type Kind = 'l1' | 'mse';

/** Inputs x, y, mask?. Outputs the loss [1] and what the sum was divided by [1], which backward reads. */
const pointwiseLoss = (name: string, kind: Kind) =>
  defineOp<Record<never, never>>({
    name,
    shape([x, y, mask]) {
      if (formatShape(x!.shape) !== formatShape(y!.shape)) {
        throw new MGFError(
          'shape',
          `${name}: x ${formatShape(x!.shape)} and y ${formatShape(y!.shape)} must have one shape`,
        );
      }
      if (mask && mask.dtype !== 'f32')
        throw new MGFError('shape', `${name}: the mask must hold f32 weights, not ${mask.dtype}`);
      if (mask && elements(x!.shape) % elements(mask.shape) !== 0) {
        throw new MGFError(
          'shape',
          `${name}: a mask ${formatShape(mask.shape)} cannot weigh equal groups of x ${formatShape(x!.shape)}`,
        );
      }
      return [f32(1), f32(1)];
    },
    forward: (c) =>
      weightedMean(
        c,
        kind,
        c.input(0),
        c.input(1),
        c.inputs[2] ?? null,
        elements(c.input(0).shape),
        c.outputs[0]!,
        c.outputs[1]!,
      ),
    saves: { inputs: [0, 1, 2], outputs: [1] },
    differentiable: [0],
    backward(c) {
      const x = c.input(0)!;
      const mask = c.input(2);
      const { n, group, VEC } = grouping(x, mask);
      const { constants, grid, params } = overSpans(n, group, c.adapter);
      return [
        {
          kernel: backwardKernel,
          constants: { ...constants, VEC, KIND: kind === 'l1' ? 1 : 2, MASK: Number(mask !== null) },
          grid,
          params,
          bind: {
            x,
            y: c.input(1)!,
            ...(mask && { mask }),
            up: c.upstream(0)!,
            denominator: c.output(1),
            dx: c.grad(0)!,
          },
        },
      ];
    },
    cost: ([x]) => ({ flops: 3 * elements(x!.shape), bytes: 8 * elements(x!.shape) }),
  });

export const l1LossOp = pointwiseLoss('l1_loss', 'l1');
export const mseLossOp = pointwiseLoss('mse_loss', 'mse');

/**
 * Mean of |x - y| -> [1], weighted: sum(w |x - y|) / max(sum(w), 1), both sums over the elements of x.
 * `mask`: f32 weights (0 = ignore) whose count divides that of x; neighbouring elements of x share one: [B,
 * T] for x [B, T, D], or finer. Gradient for x only, with sign(0) = 0. Masked elements may hold anything.
 * @throws MGFError 'shape'
 */
export const l1Loss = (x: Value, y: Value, mask: Value | null = null): Value =>
  apply(l1LossOp, [x, y, mask], {}, 2)[0]!;

/** Mean of (x - y)^2 -> [1]; see `l1Loss`. @throws MGFError 'shape' */
export const mseLoss = (x: Value, y: Value, mask: Value | null = null): Value =>
  apply(mseLossOp, [x, y, mask], {}, 2)[0]!;

/** `l1Loss` and `mseLoss` in float64. */
export function pointwiseLossReference(
  x: Float64Array,
  y: Float64Array,
  mask: Float64Array | null,
  kind: Kind,
): number {
  const group = mask ? x.length / mask.length : x.length;
  let sum = 0;
  let weight = 0;
  for (let i = 0; i < x.length; i++) {
    const w = mask ? mask[Math.floor(i / group)]! : 1;
    const d = x[i]! - y[i]!;
    if (w !== 0) sum += w * (kind === 'l1' ? Math.abs(d) : d * d);
    weight += w;
  }
  return sum / Math.max(weight, 1);
}
