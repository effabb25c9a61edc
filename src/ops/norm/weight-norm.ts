import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, f32, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import source from '../../../kernels/weight_norm.wgsl';
import { ceilDiv, overElements } from '../../launch/grid.ts';

const WEIGHT_NORM = kernel('weight_norm', source);

function dispatch(mode: 0 | 1 | 2 | 3 | 4, v: Spec, bind: Record<string, Value>): Dispatch {
  const [rows, taps, C] = v.shape as [number, number, number];
  const VEC = Number(C % 4 === 0);
  const width = VEC ? C / 4 : C;
  const { block, blocks } = layout(v);
  const n = [blocks * taps, taps, taps, rows * taps * width, rows * taps * width][mode]!;
  const { constants, grid } = overElements(n);
  return {
    kernel: WEIGHT_NORM,
    grid,
    constants: { ...constants, MODE: mode, VEC },
    bind,
    params: { n, taps, width, rows, block, blocks },
  };
}

/** Output channels are summed in at most 64 blocks. */
function layout(v: Spec): { block: number; blocks: number } {
  const rows = v.shape[0]!;
  const block = ceilDiv(rows, 64);
  return { block, blocks: ceilDiv(rows, block) };
}

/** Inputs v, g. Outputs w and the norm of each tap, which backward needs. */
export const weightNormOp = defineOp<Record<never, never>>({
  name: 'weight_norm',
  shape([v, g]) {
    const K = v!.shape[1];
    if (v!.shape.length !== 3 || elements(g!.shape) !== K) {
      throw new MGFError(
        'shape',
        'weight_norm: v must be [out, K, in / groups] and g have K elements, got ' +
          `${formatShape(v!.shape)} and ${formatShape(g!.shape)}`,
      );
    }
    return [{ shape: v!.shape, dtype: 'f32' }, f32(K, 2)];
  },
  forward(c) {
    const v = c.input(0);
    const g = c.input(1);
    const [w, norms] = c.outputs as [Value, Value];
    const part = c.temp([layout(v).blocks, v.shape[1]!]);
    return [
      dispatch(0, v, { a: v, b: v, part }),
      dispatch(1, v, { part, norms }),
      dispatch(3, v, { v, g, norms, out: w }),
    ];
  },
  saves: { inputs: [0, 1], outputs: [1] },
  backward(c) {
    const dw = c.upstream(0)!;
    const v = c.input(0)!;
    const g = c.input(1)!;
    const K = v.shape[1]!;
    const part = c.temp([layout(v).blocks, K]);
    const norms = c.temp([K, 2]);
    const dv = c.grad(0);
    return [
      dispatch(0, v, { a: dw, b: v, part }),
      dispatch(2, v, { part, saved: c.output(1), norms, dg: c.grad(1) ?? c.temp([K]) }),
      ...(dv ? [dispatch(4, v, { v, g, norms, dw, out: dv })] : []),
    ];
  },
  cost: ([v]) => ({ flops: 4 * elements(v!.shape), bytes: 12 * elements(v!.shape) }),
});

/**
 * Weight norm of a convolution weight with one norm per tap, as wav2vec 2.0's positional convolution has it
 * (PyTorch's weight_norm with dim = 2 in the engine's layout): w[o, k, c] = v[o, k, c] g[k] / |v[., k, .]|. v
 * [out, K, in / groups], g of K elements -> v's shape.
 * @throws MGFError 'shape'
 */
export const weightNorm = (v: Value, g: Value): Value => apply(weightNormOp, [v, g], {})[0]!;

/** Float64 reference: v [out, K, C], g [K]. */
export function weightNormReference(v: Float64Array, g: Float64Array, K: number, C: number): Float64Array {
  const squares = new Float64Array(K);
  const tap = (i: number): number => Math.floor(i / C) % K;
  v.forEach((x, i) => {
    squares[tap(i)]! += x * x;
  });
  return v.map((x, i) => (x * g[tap(i)]!) / Math.sqrt(squares[tap(i)]!));
}
