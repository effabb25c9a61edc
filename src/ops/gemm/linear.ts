import { checkOptions, VALUE } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { elementwise } from '../elementwise.ts';
import { gemm, gemmSplit } from './gemm.ts';
import { columnSums } from '../lib/reduce.ts';

/** What `linear` applies as it stores. */
export type Activation = 'gelu' | 'none';

/** Inputs x, weight, bias?, residual?. Outputs y and, with GELU, its argument (which backward needs). */
export const linearOp = defineOp<{ activation: Activation }>({
  name: 'linear',
  shape([x, w, b, r], { activation }) {
    const I = x!.shape.at(-1)!;
    const [O, wI] = w!.shape;
    if (w!.shape.length !== 2 || wI !== I)
      throw new MGFError(
        'shape',
        `linear: x ${formatShape(x!.shape)} needs a weight [out, ${I}], got ${formatShape(w!.shape)}`,
      );
    if (b && elements(b.shape) !== O)
      throw new MGFError(
        'shape',
        `linear: weight ${formatShape(w!.shape)} needs a bias [${O}], got ${formatShape(b.shape)}`,
      );
    const y: Spec = { shape: [...x!.shape.slice(0, -1), O!], dtype: 'f32' };
    if (r && formatShape(r.shape) !== formatShape(y.shape))
      throw new MGFError(
        'shape',
        `linear: the residual must be ${formatShape(y.shape)}, got ${formatShape(r.shape)}`,
      );
    if (r && activation === 'gelu')
      throw new MGFError('shape', 'linear: a residual after GELU is not one of the fused forms; use add()');
    return activation === 'gelu' ? [y, y] : [y];
  },
  forward(c) {
    const x = c.input(0);
    const w = c.input(1);
    const [O, I] = w.shape as [number, number];
    const pre = c.outputs[1];
    return [
      gemm(c.adapter, {
        mode: 'nt',
        a: x,
        b: w,
        c: c.outputs[0]!,
        m: elements(x.shape) / I,
        n: O,
        k2: I,
        aRow: I,
        bRow: I,
        cRow: O,
        bias: c.inputs[2],
        residual: c.inputs[3],
        ...(pre ? { activation: 'gelu' as const, pre } : {}),
      }),
    ];
  },
  saves: { inputs: [0, 1], outputs: [1] },
  passThrough: [3],
  backward(c) {
    const x = c.input(0)!;
    const w = c.input(1)!;
    const [O, I] = w.shape as [number, number];
    const M = elements(x.shape) / I;
    const dispatches = [];
    let dy = c.upstream(0)!;
    if (c.attrs.activation === 'gelu') {
      const du = c.temp(dy.shape);
      dispatches.push(elementwise('gelu_backward', du, dy, c.output(1)));
      dy = du;
    }
    const dx = c.grad(0);
    const dw = c.grad(1);
    const db = c.grad(2);
    if (dx)
      dispatches.push(
        gemm(c.adapter, { mode: 'nn', a: dy, b: w, c: dx, m: M, n: I, k2: O, aRow: O, bRow: I, cRow: I }),
      );
    if (dw)
      dispatches.push(
        ...gemmSplit(c, { mode: 'tn', a: dy, b: x, c: dw, m: O, n: I, k2: M, aRow: O, bRow: I, cRow: I }),
      );
    if (db) dispatches.push(...columnSums(c, dy, M, O, db));
    return dispatches;
  },
  cost([x, w], outputs) {
    const [O, I] = w!.shape as [number, number];
    const M = elements(x!.shape) / I;
    return { flops: 2 * M * O * I, bytes: 4 * (M * I + O * I + M * O * outputs.length) };
  },
});

/**
 * y = act(x weight^T + bias) (+ residual). x [..., I], weight [O, I], bias [O], residual [..., O] -> [...,
 * O].
 * @throws MGFError 'shape'
 */
export function linear(
  x: Value,
  weight: Value,
  bias: Value | null = null,
  options: { activation?: Activation; residual?: Value | null } = {},
): Value {
  checkOptions('linear', options, { activation: '"none"|"gelu"?', residual: `${VALUE}|null?` });
  return apply(
    linearOp,
    [x, weight, bias, options.residual ?? null],
    { activation: options.activation ?? 'none' },
    2,
  )[0]!;
}

/** Float64 reference of y (without activation and residual): x [M, I], weight [O, I], bias [O]. */
export function linearReference(
  x: Float64Array,
  weight: Float64Array,
  bias: Float64Array | null,
  M: number,
  I: number,
  O: number,
): Float64Array {
  const y = new Float64Array(M * O);
  for (let m = 0; m < M; m++) {
    for (let o = 0; o < O; o++) {
      let sum = bias ? bias[o]! : 0;
      for (let i = 0; i < I; i++) sum += x[m * I + i]! * weight[o * I + i]!;
      y[m * O + o] = sum;
    }
  }
  return y;
}
