import source from '../../kernels/affine.wgsl';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, type Dispatch } from '../launch/dispatch.ts';
import { overElements } from '../launch/grid.ts';
import { columnSums } from './lib/reduce.ts';

const AFFINE = kernel('affine', source);

function launch(MODE: 0 | 1 | 2, x: Value, y: Value, bind: Record<string, Value>): Dispatch {
  const D = x.shape.at(-1)!;
  const VEC = Number(D % 4 === 0);
  const per = VEC ? 4 : 1;
  const n = elements(x.shape) / per;
  const { constants, grid } = overElements(n);
  return {
    kernel: AFFINE,
    constants: { ...constants, VEC, MODE },
    grid,
    bind: { x, ...bind, y },
    params: { n, width: D / per },
  };
}

/** Inputs x, scale, shift. */
export const affineOp = defineOp<Record<never, never>>({
  name: 'affine',
  shape([x, scale, shift]) {
    const D = x!.shape.at(-1)!;
    for (const [what, v] of [
      ['scale', scale!],
      ['shift', shift!],
    ] as const) {
      if (formatShape(v.shape) !== formatShape([D]))
        throw new MGFError(
          'shape',
          `affine: x ${formatShape(x!.shape)} needs a ${what} [${D}], got ${formatShape(v.shape)}`,
        );
    }
    return [{ shape: x!.shape, dtype: 'f32' }];
  },
  forward: (c) => [launch(0, c.input(0), c.outputs[0]!, { scale: c.input(1), shift: c.input(2) })],
  saves: { inputs: [0, 1], outputs: [] },
  backward(c) {
    const up = c.upstream(0)!;
    const [dx, dScale, dShift] = [0, 1, 2].map((i) => c.grad(i));
    const D = up.shape.at(-1)!;
    const rows = elements(up.shape) / D;
    const dispatches: Dispatch[] = [];
    if (dx) dispatches.push(launch(1, up, dx, { scale: c.input(1)! }));
    if (dScale) {
      const product = c.temp(up.shape);
      dispatches.push(
        launch(2, up, product, { factor: c.input(0)! }),
        ...columnSums(c, product, rows, D, dScale),
      );
    }
    if (dShift) dispatches.push(...columnSums(c, up, rows, D, dShift));
    return dispatches;
  },
  cost: ([x]) => ({ flops: 2 * elements(x!.shape), bytes: 8 * elements(x!.shape) }),
});

/**
 * x * scale + shift, a number a column. x [..., D], scale and shift [D].
 * @throws MGFError 'shape'
 */
export const affine = (x: Value, scale: Value, shift: Value): Value =>
  apply(affineOp, [x, scale, shift], {})[0]!;

/** `affine` in float64. */
export const affineReference = (x: Float64Array, scale: Float64Array, shift: Float64Array): Float64Array =>
  x.map((v, i) => v * scale[i % scale.length]! + shift[i % shift.length]!);
