import { apply, type Value } from '../graph/graph.ts';
import { elements, type Spec } from '../graph/shape.ts';
import { defineOp, type Op } from '../launch/op.ts';
import { kernel, type Dispatch } from '../launch/dispatch.ts';
import source from '../../kernels/activation.wgsl';
import type { Activation } from './lib/activation-reference.ts';
import { ceilDiv, overElements } from '../launch/grid.ts';

const ACTIVATION = kernel('activation', source);
const FUNCTIONS: Readonly<Record<Activation, number>> = { gelu: 0, relu: 1, tanh: 2, sigmoid: 3 };

function dispatch(f: Activation, v: Value, y: Value, dy: Value | null): Dispatch {
  const n = ceilDiv(elements(y.shape), 4);
  const { constants, grid } = overElements(n);
  return {
    kernel: ACTIVATION,
    grid,
    constants: { ...constants, F: FUNCTIONS[f], BACK: Number(dy !== null) },
    bind: { v, y, ...(dy && { dy }) },
    params: { n },
    ...(f === 'gelu' && {
      map: dy
        ? { activation: 'gelu-backward', argument: dy, pre: v, result: y }
        : { activation: 'gelu', argument: v, pre: v, result: y },
    }),
  };
}

/**
 * GELU's slope needs its argument; the others' follows from their result, which the next layer keeps anyway.
 */
function activationOp(f: Activation): Op<Record<never, never>> {
  const saveInput = f === 'gelu';
  return defineOp<Record<never, never>>({
    name: f,
    shape: ([x]): Spec[] => [{ shape: x!.shape, dtype: 'f32' }],
    forward: (c) => [dispatch(f, c.input(0), c.outputs[0]!, null)],
    saves: saveInput ? { inputs: [0], outputs: [] } : { inputs: [], outputs: [0] },
    backward: (c) => [dispatch(f, saveInput ? c.input(0)! : c.output(0), c.grad(0)!, c.upstream(0)!)],
    cost: ([x]) => ({ flops: (f === 'relu' ? 1 : 12) * elements(x!.shape), bytes: 8 * elements(x!.shape) }),
  });
}

export const geluOp = activationOp('gelu');
export const reluOp = activationOp('relu');
export const tanhOp = activationOp('tanh');
export const sigmoidOp = activationOp('sigmoid');

/** x Phi(x), the erf form of GELU; any shape. */
export const gelu = (x: Value): Value => apply(geluOp, [x], {})[0]!;
/** max(x, 0); any shape. The slope at 0 is 0. */
export const relu = (x: Value): Value => apply(reluOp, [x], {})[0]!;
/** Hyperbolic tangent; any shape. */
export const tanh = (x: Value): Value => apply(tanhOp, [x], {})[0]!;
/** 1 / (1 + exp(-x)); any shape. */
export const sigmoid = (x: Value): Value => apply(sigmoidOp, [x], {})[0]!;

export { activationReference, type Activation } from './lib/activation-reference.ts';
