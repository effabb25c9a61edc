import { checkArguments, checkOptions, VALUE } from '../check.ts';
import { MGFError } from '../errors.ts';
import { apply, type Graph, type Value } from '../graph/graph.ts';
import { elements, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, scalar, type Dispatch, type Scalar } from '../launch/dispatch.ts';
import source from '../../kernels/dropout.wgsl';
import { add } from './elementwise.ts';
import { ceilDiv, overElements } from '../launch/grid.ts';
import { philox4x32 } from '../random/philox.ts';

const DROPOUT = kernel('dropout', source);

export interface DropoutAttrs {
  /** Probability of dropping an element. */
  readonly p: number;
  /** Tells the draws of one application from those of another: its place in the graph. */
  readonly node: number;
}

/**
 * Uniform fields that kernels with lib/philox.wgsl's dropout_scale take; seed and step are the per-step
 * scalars 'seed_lo', 'seed_hi' and 'step'.
 */
export const dropoutParams = ({
  p,
  node,
}: DropoutAttrs): Readonly<
  Record<'seed_lo' | 'seed_hi' | 'step' | 'node' | 'threshold' | 'scale', number | Scalar>
> => ({
  seed_lo: scalar('seed_lo'),
  seed_hi: scalar('seed_hi'),
  step: scalar('step'),
  node,
  threshold: Math.floor(p * 2 ** 32),
  scale: 1 / (1 - p),
});

/**
 * Attributes of the dropout that is about to be appended. Graphs built alike draw alike. Throws
 * MGFError('config') unless 0 <= p < 1.
 */
export function dropoutAttrs(graph: Graph, p: number): DropoutAttrs {
  if (!(p >= 0 && p < 1))
    throw new MGFError('config', `dropout: the probability is ${p}; it must be at least 0 and below 1`);
  return { p, node: graph.nodes.length };
}

/** y = dropout(x) (+ residual), as a building block of other ops. */
export function dropoutDispatch(
  attrs: DropoutAttrs,
  x: Value,
  y: Value,
  residual: Value | null = null,
): Dispatch {
  const n = ceilDiv(elements(x.shape), 4);
  const { constants, grid } = overElements(n);
  return {
    kernel: DROPOUT,
    grid,
    constants: { ...constants, ADD: Number(residual !== null) },
    bind: { x, y, ...(residual && { residual }) },
    params: { n, ...dropoutParams(attrs) },
  };
}

/** Inputs x, residual?. */
export const dropoutOp = defineOp<DropoutAttrs>({
  name: 'dropout',
  shape([x, residual]) {
    if (residual && formatShape(residual.shape) !== formatShape(x!.shape)) {
      throw new MGFError(
        'shape',
        `dropout: x ${formatShape(x!.shape)} needs a residual of its shape, got ` +
          `${formatShape(residual.shape)}`,
      );
    }
    return [{ shape: x!.shape, dtype: 'f32' }];
  },
  forward: (c) => [dropoutDispatch(c.attrs, c.input(0), c.outputs[0]!, c.inputs[1] ?? null)],
  saves: { inputs: [], outputs: [] },
  passThrough: [1],
  backward: (c) => [dropoutDispatch(c.attrs, c.upstream(0)!, c.grad(0)!, null)],
  cost: ([x, residual]) => ({
    flops: 2 * elements(x!.shape),
    bytes: (residual ? 12 : 8) * elements(x!.shape),
  }),
});

/**
 * Each element dropped with probability p, the others scaled by 1 / (1 - p). Drawn from the per-step scalars
 * seed_lo, seed_hi and step (u32) and the op's place in the graph, so that a step can be replayed. p = 0 adds
 * nothing to the graph.
 * @throws MGFError 'config'
 */
export function dropout(x: Value, options: { p: number }): Value {
  checkArguments('dropout', { x: [x, VALUE] });
  checkOptions('dropout', options, { p: 'a number' });
  const { p } = options;
  const attrs = dropoutAttrs(x.graph, p);
  return p === 0 ? x : apply(dropoutOp, [x], attrs)[0]!;
}

/** residual + dropout(x) in one pass; see `dropout`. Equal shapes. */
export function dropoutAdd(x: Value, residual: Value, options: { p: number }): Value {
  checkArguments('dropoutAdd', { x: [x, VALUE], residual: [residual, VALUE] });
  checkOptions('dropoutAdd', options, { p: 'a number' });
  const { p } = options;
  const attrs = dropoutAttrs(x.graph, p);
  return p === 0 ? add(residual, x) : apply(dropoutOp, [x, residual], attrs)[0]!;
}

/** Float64 reference of dropout with the given seed and step. */
export function dropoutReference(
  x: Float64Array,
  { p, node }: DropoutAttrs,
  seed: readonly [number, number],
  step: number,
): Float64Array {
  const words = new Uint32Array(4);
  const threshold = Math.floor(p * 2 ** 32);
  return x.map((v, i) => {
    if (i % 4 === 0) philox4x32(i / 4, step, node, 0, seed[0], seed[1], words);
    return words[i % 4]! < threshold ? 0 : v / (1 - p);
  });
}
