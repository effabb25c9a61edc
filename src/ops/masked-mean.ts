import backwardText from '../../kernels/masked_mean_backward.wgsl';
import forwardText from '../../kernels/masked_mean.wgsl';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, f32, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel } from '../launch/dispatch.ts';
import { overRows } from '../launch/grid.ts';
import { overItems } from './lib/reduce.ts';

const forwardKernel = kernel('masked_mean', forwardText);
const backwardKernel = kernel('masked_mean_backward', backwardText);

/** Inputs x, mask?. Outputs the mean and the counts [B] that it was divided by. */
export const maskedMeanOp = defineOp<Record<never, never>>({
  name: 'masked_mean',
  shape([x, mask]) {
    const [B, T, D] = x!.shape;
    if (x!.shape.length !== 3)
      throw new MGFError('shape', `masked_mean: x must be [B, T, D], got ${formatShape(x!.shape)}`);
    if (mask && (mask.dtype !== 'f32' || elements(mask.shape) !== B! * T!)) {
      throw new MGFError(
        'shape',
        `masked_mean: the mask of x ${formatShape(x!.shape)} must be f32 [${B}, ${T}], got ` +
          `${mask.dtype} ${formatShape(mask.shape)}`,
      );
    }
    return [f32(B!, D!), f32(B!)];
  },
  forward(c) {
    const x = c.input(0);
    const mask = c.inputs[1] ?? null;
    const [B, T, D] = x.shape as [number, number, number];
    const VEC = Number(D % 4 === 0);
    const width = VEC ? D / 4 : D;
    const { constants, grid } = overItems(B * width, c.adapter);
    return [
      {
        kernel: forwardKernel,
        constants: { ...constants, VEC, MASK: Number(mask !== null) },
        grid,
        bind: { x, ...(mask && { mask }), y: c.outputs[0]!, counts: c.outputs[1]! },
        params: { batch: B, time: T, width },
      },
    ];
  },
  saves: { inputs: [1], outputs: [1] },
  differentiable: [0],
  backward(c) {
    const dx = c.grad(0)!;
    const mask = c.input(1);
    const [B, T, D] = dx.shape as [number, number, number];
    const VEC = Number(D % 4 === 0);
    const { constants, grid } = overRows(B * T, c.adapter);
    return [
      {
        kernel: backwardKernel,
        constants: { ...constants, VEC, MASK: Number(mask !== null) },
        grid,
        bind: { up: c.upstream(0)!, ...(mask && { mask }), counts: c.output(1), dx },
        params: { rows: B * T, time: T, width: VEC ? D / 4 : D },
      },
    ];
  },
  cost: ([x]) => ({ flops: elements(x!.shape), bytes: 4 * elements(x!.shape) }),
});

/**
 * Mean over time of x [B, T, D] -> [B, D], weighted by mask f32 [B, T] when given: sum(m x) / max(sum(m), 1).
 * Masked frames may hold anything.
 * @throws MGFError 'shape'
 */
export const maskedMean = (x: Value, mask: Value | null = null): Value =>
  apply(maskedMeanOp, [x, mask], {}, 1)[0]!;

/** `maskedMean` in float64. */
export function maskedMeanReference(
  x: Float64Array,
  mask: Float64Array | null,
  [B, T, D]: readonly [number, number, number],
): Float64Array {
  const y = new Float64Array(B * D);
  for (let b = 0; b < B; b++) {
    let count = 0;
    for (let t = 0; t < T; t++) {
      const m = mask ? mask[b * T + t]! : 1;
      count += m;
      for (let d = 0; d < D; d++) y[b * D + d]! += m * x[(b * T + t) * D + d]!;
    }
    for (let d = 0; d < D; d++) y[b * D + d]! /= Math.max(count, 1);
  }
  return y;
}
