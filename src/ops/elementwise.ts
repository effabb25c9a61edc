import { checkArguments, VALUE } from '../check.ts';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, formatShape, type Shape, type Spec } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, scalar, type Dispatch, type Scalar } from '../launch/dispatch.ts';
import source from '../../kernels/elementwise.wgsl';
import { overElements } from '../launch/grid.ts';

const ELEMENTWISE = kernel('elementwise', source);
const FUNCTIONS = { add: 0, scale: 1, fill: 2, gelu_backward: 3 } as const;

const vec4s = (x: Spec): number => Math.ceil(elements(x.shape) / 4);

/** One pass over vec4s: out = f(x, y, s). */
export function elementwise(
  f: keyof typeof FUNCTIONS,
  out: Value,
  x: Value | null,
  y: Value | null,
  s: number | Scalar = 1,
): Dispatch {
  const { constants, grid } = overElements(vec4s(out));
  return {
    kernel: ELEMENTWISE,
    constants: { ...constants, F: FUNCTIONS[f] },
    grid,
    bind: { out, ...(x ? { x } : {}), ...(y ? { y } : {}) },
    params: { n: vec4s(out), s },
    ...(f === 'gelu_backward' && {
      map: { activation: 'gelu-backward', argument: x!, pre: y!, result: out },
    }),
  };
}

const sameShape = (op: string, [x, y]: readonly (Spec | null)[]): Spec[] => {
  if (formatShape(x!.shape) !== formatShape(y!.shape))
    throw new MGFError(
      'shape',
      `${op}: shapes ${formatShape(x!.shape)} and ${formatShape(y!.shape)} must be equal`,
    );
  return [{ shape: x!.shape, dtype: 'f32' }];
};

export const addOp = defineOp<Record<never, never>>({
  name: 'add',
  shape: (inputs) => sameShape('add', inputs),
  forward: (c) => [elementwise('add', c.outputs[0]!, c.input(0), c.input(1))],
  backward: () => [],
  saves: { inputs: [], outputs: [] },
  passThrough: [0, 1],
  cost: ([x]) => ({ flops: elements(x!.shape), bytes: 12 * elements(x!.shape) }),
});

/** x + y, equal shapes. */
export const add = (x: Value, y: Value): Value => apply(addOp, [x, y], {})[0]!;

export const scaleOp = defineOp<{ factor: number | Scalar }>({
  name: 'scale',
  shape: ([x]) => [{ shape: x!.shape, dtype: 'f32' }],
  forward: (c) => [elementwise('scale', c.outputs[0]!, c.input(0), null, c.attrs.factor)],
  backward: (c) => [elementwise('scale', c.grad(0)!, c.upstream(0)!, null, c.attrs.factor)],
  saves: { inputs: [], outputs: [] },
  cost: ([x]) => ({ flops: elements(x!.shape), bytes: 8 * elements(x!.shape) }),
});

/** x * factor; the factor is a number or a per-step scalar. */
export function scale(x: Value, factor: number | Scalar): Value {
  checkArguments('scale', { x: [x, VALUE], factor: [factor, 'a number|a per-step scalar'] });
  return apply(scaleOp, [x], { factor })[0]!;
}

/** x * the per-step scalar of that name. */
export function scaleByScalar(x: Value, name: string): Value {
  checkArguments('scaleByScalar', { x: [x, VALUE], name: [name, 'a text'] });
  return scale(x, scalar(name));
}

export const fillOp = defineOp<{ value: number | Scalar }>({
  name: 'fill',
  shape: ([like]) => [{ shape: like!.shape, dtype: 'f32' }],
  forward: (c) => [elementwise('fill', c.outputs[0]!, null, null, c.attrs.value)],
  backward: null,
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  cost: ([x]) => ({ flops: 0, bytes: 4 * elements(x!.shape) }),
});

/** A tensor of x's shape, every element `value`: a number or a per-step scalar. */
export function fillLike(x: Value, value: number | Scalar): Value {
  checkArguments('fillLike', { x: [x, VALUE], value: [value, 'a number|a per-step scalar'] });
  return apply(fillOp, [x], { value })[0]!;
}

export const reshapeOp = defineOp<{ shape: Shape }>({
  name: 'reshape',
  shape: ([x], { shape }) => {
    if (elements(x!.shape) !== elements(shape))
      throw new MGFError(
        'shape',
        `reshape: ${formatShape(x!.shape)} has ${elements(x!.shape)} elements, ${formatShape(shape)} ` +
          `has ${elements(shape)}`,
      );
    return [{ shape, dtype: x!.dtype }];
  },
  alias: true,
  forward: () => [],
  backward: () => [],
  saves: { inputs: [], outputs: [] },
  cost: () => ({ flops: 0, bytes: 0 }),
});

/** The same elements under another shape; no copy. */
export function reshape(x: Value, shape: Shape): Value {
  checkArguments('reshape', { x: [x, VALUE], shape: [shape, 'a list'] });
  return apply(reshapeOp, [x], { shape })[0]!;
}
