import { checkArguments, VALUE } from '../check.ts';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, type Dispatch } from '../launch/dispatch.ts';
import axisSumSource from '../../kernels/axis_sum.wgsl';
import copySource from '../../kernels/strided_copy.wgsl';
import { overElements } from '../launch/grid.ts';

const COPY = kernel('strided_copy', copySource);
const AXIS_SUM = kernel('axis_sum', axisSumSource);

interface Strides {
  d1: number;
  d2: number;
  offset?: number;
  s0: number;
  s1: number;
  s2: number;
  lo?: number;
  hi?: number;
}

/** out[i, j, k] = x[offset + i s0 + j s1 + (k - lo) s2] for lo <= k < hi, else 0; out dense [*, d1, d2]. */
export function stridedCopy(x: Value, out: Value, s: Strides): Dispatch {
  const n = elements(out.shape);
  const { constants, grid } = overElements(n);
  return { kernel: COPY, constants, grid, bind: { x, out }, params: { offset: 0, lo: 0, hi: s.d2, ...s, n } };
}

/** out [..., N, M] = x [..., M, N] with the last two axes exchanged. */
export function transposeLast(x: Value, out: Value): Dispatch {
  const [M, N] = x.shape.slice(-2) as [number, number];
  return stridedCopy(x, out, { d1: N, d2: M, s0: M * N, s1: 1, s2: N });
}

/** out[o, i] = sum over a of x[o, a, i]. */
export function axisSum(x: Value, out: Value, axis: number, inner: number): Dispatch {
  const n = elements(out.shape);
  const { constants, grid } = overElements(n);
  return { kernel: AXIS_SUM, constants, grid, bind: { x, out }, params: { n, axis, inner } };
}

export const narrowOp = defineOp<{ start: number; length: number }>({
  name: 'narrow',
  shape([x], { start, length }) {
    const last = x!.shape.at(-1)!;
    if (start < 0 || length < 1 || start + length > last)
      throw new MGFError(
        'shape',
        `narrow: [${start}, ${start + length}) is outside the last axis of ${formatShape(x!.shape)}`,
      );
    return [{ shape: [...x!.shape.slice(0, -1), length], dtype: 'f32' }];
  },
  forward(c) {
    const x = c.input(0);
    const { start, length } = c.attrs;
    return [
      stridedCopy(x, c.outputs[0]!, { d1: 1, d2: length, s0: x.shape.at(-1)!, s1: 0, s2: 1, offset: start }),
    ];
  },
  saves: { inputs: [], outputs: [] },
  backward(c) {
    const dx = c.grad(0)!;
    const { start, length } = c.attrs;
    return [
      stridedCopy(c.upstream(0)!, dx, {
        d1: 1,
        d2: dx.shape.at(-1)!,
        s0: length,
        s1: 0,
        s2: 1,
        lo: start,
        hi: start + length,
      }),
    ];
  },
  cost: (_, [y]) => ({ flops: 0, bytes: 8 * elements(y!.shape) }),
});

/** Elements start .. start + length - 1 of the last axis. x [..., L] -> [..., length]. */
export function narrow(x: Value, start: number, length: number): Value {
  checkArguments('narrow', { x: [x, VALUE], start: [start, 'a number'], length: [length, 'a number'] });
  return apply(narrowOp, [x], { start, length })[0]!;
}

export const transposeOp = defineOp<Record<never, never>>({
  name: 'transpose',
  shape([x]) {
    if (x!.shape.length < 2)
      throw new MGFError('shape', `transpose: ${formatShape(x!.shape)} has no two axes to exchange`);
    return [{ shape: [...x!.shape.slice(0, -2), x!.shape.at(-1)!, x!.shape.at(-2)!], dtype: 'f32' }];
  },
  forward: (c) => [transposeLast(c.input(0), c.outputs[0]!)],
  saves: { inputs: [], outputs: [] },
  backward: (c) => [transposeLast(c.upstream(0)!, c.grad(0)!)],
  cost: ([x]) => ({ flops: 0, bytes: 8 * elements(x!.shape) }),
});

/** The last two axes exchanged. x [..., M, N] -> [..., N, M]. @throws MGFError 'shape' */
export const transpose = (x: Value): Value => apply(transposeOp, [x], {})[0]!;
