import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel } from '../launch/dispatch.ts';
import source from '../../kernels/add_rows.wgsl';
import { overElements } from '../launch/grid.ts';
import { columnSums } from './lib/reduce.ts';

const ADD_ROWS = kernel('add_rows', source);

/** Inputs x, rows. */
export const addRowsOp = defineOp<Record<never, never>>({
  name: 'add_rows',
  shape([x, rows]) {
    if (
      x!.shape.length < 2 ||
      formatShape(x!.shape.slice(1)) !== formatShape(rows!.shape) ||
      elements(rows!.shape) % 4 !== 0
    ) {
      throw new MGFError(
        'shape',
        `add_rows: x ${formatShape(x!.shape)} needs rows ${formatShape(x!.shape.slice(1))}, a whole ` +
          `number of vec4s, got ${formatShape(rows!.shape)}`,
      );
    }
    return [{ shape: x!.shape, dtype: 'f32' }];
  },
  forward(c) {
    const x = c.input(0);
    const rows = c.input(1);
    const n = elements(x.shape) / 4;
    const { constants, grid } = overElements(n);
    return [
      {
        kernel: ADD_ROWS,
        constants,
        grid,
        bind: { x, rows, y: c.outputs[0]! },
        params: { n, period: elements(rows.shape) / 4 },
      },
    ];
  },
  saves: { inputs: [], outputs: [] },
  passThrough: [0],
  backward(c) {
    const dy = c.upstream(0)!;
    const d = c.grad(1)!;
    const period = elements(d.shape);
    return columnSums(c, dy, elements(dy.shape) / period, period, d);
  },
  cost: ([x]) => ({ flops: elements(x!.shape), bytes: 8 * elements(x!.shape) }),
});

/**
 * x + rows for every element of the batch. x [B, ...], rows [...] (a multiple of 4 elements) -> [B, ...].
 * @throws MGFError 'shape'
 */
export const addRows = (x: Value, rows: Value): Value => apply(addRowsOp, [x, rows], {})[0]!;

/** Float64 reference: x [B, period], rows [period]. */
export const addRowsReference = (x: Float64Array, rows: Float64Array): Float64Array =>
  x.map((v, i) => v + rows[i % rows.length]!);
