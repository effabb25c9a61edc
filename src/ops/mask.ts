import type { AdapterProfile } from '../gpu/device.ts';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, formatShape, type Spec } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, type Dispatch } from '../launch/dispatch.ts';
import columnsSource from '../../kernels/masked_columns.wgsl';
import rowsSource from '../../kernels/mask_rows.wgsl';
import { ceilDiv, overRows } from '../launch/grid.ts';
import { columnSums, overItems } from './lib/reduce.ts';
import { rowLayout } from './lib/rows.ts';

const ROWS = kernel('mask_rows', rowsSource);
const COLUMNS = kernel('masked_columns', columnsSource);
const FUNCTIONS = { replace: 0, drop: 1, multiply: 2 } as const;

function overMaskedRows(
  f: keyof typeof FUNCTIONS,
  adapter: AdapterProfile,
  x: Value,
  mask: Value,
  y: Value,
  embedding: Value | null = null,
): Dispatch {
  const { rows, width, VEC } = rowLayout(x);
  const { constants, grid } = overRows(rows, adapter);
  return {
    kernel: ROWS,
    grid,
    constants: { ...constants, F: FUNCTIONS[f], VEC },
    bind: { x, mask, y, ...(embedding && { embedding }) },
    params: { rows, width },
  };
}

function checkMask(op: string, x: Spec, mask: Spec): void {
  if (
    x.shape.length < 2 ||
    formatShape(mask.shape) !== formatShape(x.shape.slice(0, -1)) ||
    mask.dtype !== 'f32'
  ) {
    throw new MGFError(
      'shape',
      `${op}: x ${formatShape(x.shape)} needs an f32 mask ${formatShape(x.shape.slice(0, -1))}, got ` +
        `${mask.dtype} ${formatShape(mask.shape)}`,
    );
  }
}

export const maskRowsOp = defineOp<Record<never, never>>({
  name: 'mask_rows',
  shape([x, embedding, mask]) {
    checkMask('mask_rows', x!, mask!);
    if (formatShape(embedding!.shape) !== `[${x!.shape.at(-1)}]`) {
      throw new MGFError(
        'shape',
        `mask_rows: x ${formatShape(x!.shape)} needs an embedding [${x!.shape.at(-1)}], got ` +
          `${formatShape(embedding!.shape)}`,
      );
    }
    return [{ shape: x!.shape, dtype: 'f32' }];
  },
  forward: (c) => [overMaskedRows('replace', c.adapter, c.input(0), c.input(2), c.outputs[0]!, c.input(1))],
  saves: { inputs: [2], outputs: [] },
  differentiable: [0, 1],
  backward(c) {
    const dy = c.upstream(0)!;
    const mask = c.input(2)!;
    const dx = c.grad(0);
    const dEmbedding = c.grad(1);
    const dispatches: Dispatch[] = [];
    if (dx) dispatches.push(overMaskedRows('drop', c.adapter, dy, mask, dx));
    if (dEmbedding) {
      const { rows, d, width, VEC } = rowLayout(dy);
      const block = ceilDiv(rows, Math.min(256, ceilDiv(rows, 16)));
      const used = ceilDiv(rows, block);
      const part = c.temp([used, d]);
      const { constants, grid } = overItems(used * width, c.adapter);
      dispatches.push({
        kernel: COLUMNS,
        grid,
        constants: { ...constants, VEC },
        bind: { dy, mask, part },
        params: { rows, width, block, n: used * width },
      });
      dispatches.push(...columnSums(c, part, used, d, dEmbedding));
    }
    return dispatches;
  },
  cost: ([x]) => ({ flops: 0, bytes: 8 * elements(x!.shape) }),
});

/**
 * Rows of x replaced by one vector where the mask is 1: x [..., T, D], embedding [D], mask [..., T] f32 of 0
 * and 1 -> [..., T, D]. Gradients for x (0 where replaced) and for the embedding; none for the mask.
 * @throws MGFError 'shape'
 */
export const maskRows = (x: Value, embedding: Value, mask: Value): Value =>
  apply(maskRowsOp, [x, embedding, mask], {})[0]!;

export const zeroRowsOp = defineOp<Record<never, never>>({
  name: 'zero_rows',
  shape([x, mask]) {
    checkMask('zero_rows', x!, mask!);
    return [{ shape: x!.shape, dtype: 'f32' }];
  },
  forward: (c) => [overMaskedRows('multiply', c.adapter, c.input(0), c.input(1), c.outputs[0]!)],
  saves: { inputs: [1], outputs: [] },
  differentiable: [0],
  backward: (c) => [overMaskedRows('multiply', c.adapter, c.upstream(0)!, c.input(1)!, c.grad(0)!)],
  cost: ([x]) => ({ flops: elements(x!.shape), bytes: 8 * elements(x!.shape) }),
});

/**
 * x * mask, row by row: x [..., T, D], mask [..., T] f32 -> [..., T, D]. Rows of mask 0 are exactly 0
 * whatever x holds. No gradient for the mask.
 * @throws MGFError 'shape'
 */
export const zeroRows = (x: Value, mask: Value): Value => apply(zeroRowsOp, [x, mask], {})[0]!;

/** Float64 reference: x [rows, D], embedding [D], mask [rows]. */
export const maskRowsReference = (
  x: Float64Array,
  embedding: Float64Array,
  mask: Float64Array,
  d: number,
): Float64Array => x.map((v, i) => (mask[Math.floor(i / d)] ? embedding[i % d]! : v));

/** Float64 reference: x [rows, D], mask [rows]. */
export const zeroRowsReference = (x: Float64Array, mask: Float64Array, d: number): Float64Array =>
  x.map((v, i) => v * mask[Math.floor(i / d)]!);
