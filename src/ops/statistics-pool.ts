import backwardText from '../../kernels/statistics_pool_backward.wgsl';
import forwardText from '../../kernels/statistics_pool.wgsl';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, f32, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel } from '../launch/dispatch.ts';
import { overElements } from '../launch/grid.ts';
import { overItems } from './lib/reduce.ts';

const forwardKernel = kernel('statistics_pool', forwardText);
const backwardKernel = kernel('statistics_pool_backward', backwardText);

/** Added to the variance, so that the deviation of a constant has a slope. */
export const POOL_EPS = 1e-6;

/** Inputs x, mask?. Outputs mean and deviation [B, 2 D], and the counts [B] that were divided by. */
export const statisticsPoolOp = defineOp<Record<never, never>>({
  name: 'statistics_pool',
  shape([x, mask]) {
    const [B, T, D] = x!.shape;
    if (x!.shape.length !== 3)
      throw new MGFError('shape', `statistics_pool: x must be [B, T, D], got ${formatShape(x!.shape)}`);
    if (mask && (mask.dtype !== 'f32' || elements(mask.shape) !== B! * T!)) {
      throw new MGFError(
        'shape',
        `statistics_pool: the mask of x ${formatShape(x!.shape)} must be f32 [${B}, ${T}], got ` +
          `${mask.dtype} ${formatShape(mask.shape)}`,
      );
    }
    return [f32(B!, 2 * D!), f32(B!)];
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
        params: { batch: B, time: T, width, eps: POOL_EPS },
      },
    ];
  },
  saves: { inputs: [0, 1], outputs: [0, 1] },
  differentiable: [0],
  backward(c) {
    const x = c.input(0)!;
    const mask = c.input(1);
    const [B, T, D] = x.shape as [number, number, number];
    const VEC = Number(D % 4 === 0);
    const width = VEC ? D / 4 : D;
    const n = B * T * width;
    const { constants, grid } = overElements(n);
    return [
      {
        kernel: backwardKernel,
        constants: { ...constants, VEC, MASK: Number(mask !== null) },
        grid,
        bind: {
          x,
          ...(mask && { mask }),
          y: c.output(0),
          counts: c.output(1),
          up: c.upstream(0)!,
          dx: c.grad(0)!,
        },
        params: { n, time: T, width },
      },
    ];
  },
  cost: ([x]) => ({ flops: 5 * elements(x!.shape), bytes: 8 * elements(x!.shape) }),
});

/**
 * Mean and standard deviation over time of x [B, T, D] -> [B, 2 D] (means first), weighted by mask f32 [B, T]
 * when given. The deviation is the population's, sqrt(variance + 1e-6). Masked frames may hold anything.
 * "Statistics pooling" of x-vectors (Snyder et al. 2018).
 * @throws MGFError 'shape'
 */
export const statisticsPool = (x: Value, mask: Value | null = null): Value =>
  apply(statisticsPoolOp, [x, mask], {}, 1)[0]!;

/** `statisticsPool` in float64. */
export function statisticsPoolReference(
  x: ArrayLike<number>,
  mask: ArrayLike<number> | null,
  [B, T, D]: readonly [number, number, number],
): Float64Array {
  const y = new Float64Array(B * 2 * D);
  for (let b = 0; b < B; b++) {
    let count = 0;
    for (let t = 0; t < T; t++) count += mask ? mask[b * T + t]! : 1;
    count = Math.max(count, 1);
    for (let d = 0; d < D; d++) {
      const over = (f: (v: number) => number): number => {
        let sum = 0;
        for (let t = 0; t < T; t++) sum += (mask ? mask[b * T + t]! : 1) * f(x[(b * T + t) * D + d]!);
        return sum / count;
      };
      const mean = over((v) => v);
      y[b * 2 * D + d] = mean;
      y[b * 2 * D + D + d] = Math.sqrt(over((v) => (v - mean) ** 2) + POOL_EPS);
    }
  }
  return y;
}
