import { checkOptions } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, formatShape, type Shape, type Spec } from '../../graph/shape.ts';
import { defineOp, type BackwardContext } from '../../launch/op.ts';
import type { Dispatch } from '../../launch/dispatch.ts';
import { gemm } from './gemm.ts';
import { axisSum, transposeLast } from '../layout.ts';

/** Which operands of `matmul` are transposed in their last two axes. */
export interface MatmulAttrs {
  transposeA: boolean;
  transposeB: boolean;
}

/** Rows, columns and inner size of one product, and how the two batches meet. */
function geometry(
  a: Spec,
  b: Spec,
  { transposeA, transposeB }: MatmulAttrs,
): { M: number; N: number; K: number; batch: Shape } {
  if (a.shape.length < 2 || b.shape.length < 2)
    throw new MGFError(
      'shape',
      `matmul: both need two dimensions or more, got ${formatShape(a.shape)} and ${formatShape(b.shape)}`,
    );
  const [ar, ac] = a.shape.slice(-2) as [number, number];
  const [br, bc] = b.shape.slice(-2) as [number, number];
  const M = transposeA ? ac : ar;
  const K = transposeA ? ar : ac;
  const kb = transposeB ? bc : br;
  const N = transposeB ? br : bc;
  const describe = `${formatShape(a.shape)}${transposeA ? '^T' : ''} x ${formatShape(b.shape)}${transposeB ? '^T' : ''}`;
  if (K !== kb) throw new MGFError('shape', `matmul: ${describe}: inner sizes ${K} and ${kb} differ`);
  const ab = a.shape.slice(0, -2);
  const bb = b.shape.slice(0, -2);
  const rank = Math.max(ab.length, bb.length);
  const batch = Array.from({ length: rank }, (_, i) => {
    const x = ab[i - rank + ab.length] ?? 1;
    const y = bb[i - rank + bb.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1)
      throw new MGFError('shape', `matmul: ${describe}: batch sizes ${x} and ${y} do not broadcast`);
    return Math.max(x, y);
  });
  return { M, N, K, batch };
}

/**
 * One launch of a batched product: two walked axes with a stride per operand, and where each operand starts.
 * In matrices, not elements.
 */
interface Walk {
  counts: [number, number];
  strides: [number, number][];
  starts: number[];
}

/**
 * Splits a broadcast batch into launches. Neighbouring axes that all operands treat alike are merged; the
 * last two of what remains are walked by the kernel (stride 0 where an operand broadcasts), any others by one
 * launch per index.
 */
function walks(batch: Shape, shapes: readonly Shape[]): Walk[] {
  const size = (s: Shape, i: number): number => s[i - batch.length + s.length] ?? 1;
  const axes: { count: number; strides: number[] }[] = [];
  const step = shapes.map(() => 1);
  for (let i = batch.length - 1; i >= 0; i--) {
    if (batch[i] === 1) continue;
    const strides = shapes.map((s, j) => (size(s, i) === 1 ? 0 : step[j]!));
    const next = axes[0];
    shapes.forEach((s, j) => {
      step[j]! *= size(s, i);
    });
    if (next && strides.every((s, j) => s === next.strides[j]! * next.count)) next.count *= batch[i]!;
    else axes.unshift({ count: batch[i]!, strides });
  }
  while (axes.length < 2) axes.unshift({ count: 1, strides: shapes.map(() => 0) });
  const [outer, inner] = axes.splice(-2) as [(typeof axes)[0], (typeof axes)[0]];
  let starts = [shapes.map(() => 0)];
  for (const { count, strides } of axes)
    starts = starts.flatMap((base) =>
      Array.from({ length: count }, (_, i) => base.map((b, j) => b + i * strides[j]!)),
    );
  return starts.map((s) => ({
    counts: [outer.count, inner.count],
    strides: shapes.map((_, j) => [outer.strides[j]!, inner.strides[j]!]),
    starts: s,
  }));
}

const scaled = ([x, y]: [number, number], size: number): [number, number] => [x * size, y * size];

export const matmulOp = defineOp<MatmulAttrs>({
  name: 'matmul',
  shape([a, b], attrs) {
    const { M, N, batch } = geometry(a!, b!, attrs);
    return [{ shape: [...batch, M, N], dtype: 'f32' }];
  },
  forward(c) {
    const { transposeA, transposeB } = c.attrs;
    return product(c, c.input(0), c.input(1), c.outputs[0]!, transposeA, transposeB);
  },
  saves: { inputs: [0, 1], outputs: [] },
  backward(c) {
    const { transposeA, transposeB } = c.attrs;
    const a = c.input(0)!;
    const b = c.input(1)!;
    const dy = c.upstream(0)!;
    const da = c.grad(0);
    const db = c.grad(1);
    const out: Dispatch[] = [];
    // y = A B: dA = dy B^T, dB = A^T dy; a transposed operand swaps the two factors of its own gradient.
    if (da)
      out.push(
        ...reduced(c, da, dy.shape, (target) =>
          transposeA
            ? product(c, b, dy, target, transposeB, true)
            : product(c, dy, b, target, false, !transposeB),
        ),
      );
    if (db)
      out.push(
        ...reduced(c, db, dy.shape, (target) =>
          transposeB
            ? product(c, dy, a, target, true, transposeA)
            : product(c, a, dy, target, !transposeA, false),
        ),
      );
    return out;
  },
  cost([a, b], outputs, attrs) {
    const { K } = geometry(a!, b!, attrs);
    const n = elements(outputs[0]!.shape);
    return { flops: 2 * n * K, bytes: 4 * (elements(a!.shape) + elements(b!.shape) + n) };
  },
});

type Context = Pick<BackwardContext<MatmulAttrs>, 'adapter' | 'temp'>;

/**
 * Dispatches of y = op(a) op(b). Both transposed is the one form without a kernel: a is copied transposed
 * first.
 */
function product(
  c: Context,
  a: Value,
  b: Value,
  y: Value,
  transposeA: boolean,
  transposeB: boolean,
): Dispatch[] {
  if (transposeA && transposeB) {
    const at = c.temp([...a.shape.slice(0, -2), a.shape.at(-1)!, a.shape.at(-2)!]);
    return [transposeLast(a, at), ...product(c, at, b, y, false, true)];
  }
  const { M, N, K, batch } = geometry(a, b, { transposeA, transposeB });
  return walks(batch, [a.shape.slice(0, -2), b.shape.slice(0, -2), batch]).map(
    ({ counts, strides, starts }) =>
      gemm(c.adapter, {
        mode: transposeA ? 'tn' : transposeB ? 'nt' : 'nn',
        a,
        b,
        c: y,
        m: M,
        n: N,
        k2: K,
        batch: counts,
        aRow: a.shape.at(-1)!,
        bRow: b.shape.at(-1)!,
        cRow: N,
        aZ: scaled(strides[0]!, M * K),
        bZ: scaled(strides[1]!, K * N),
        cZ: scaled(strides[2]!, M * N),
        aOffset: starts[0]! * M * K,
        bOffset: starts[1]! * K * N,
        cOffset: starts[2]! * M * N,
      }),
  );
}

/**
 * Writes a gradient; where the operand was broadcast, the full one goes to scratch and is summed over the
 * broadcast axes, one after the other.
 */
function reduced(c: Context, target: Value, full: Shape, write: (target: Value) => Dispatch[]): Dispatch[] {
  const batch = full.slice(0, -2) as number[];
  const size = elements(target.shape.slice(-2));
  const own = (i: number): number =>
    target.shape.slice(0, -2)[i - batch.length + target.shape.length - 2] ?? 1;
  const axes = batch.map((_, i) => i).filter((i) => own(i) === 1 && batch[i]! > 1);
  if (!axes.length) return write(target);
  let from = c.temp([...batch, ...target.shape.slice(-2)]);
  const out = write(from);
  axes.forEach((axis, i) => {
    const count = batch[axis]!;
    const inner = elements(batch.slice(axis + 1)) * size;
    batch[axis] = 1;
    const to = i === axes.length - 1 ? target : c.temp([...batch, ...target.shape.slice(-2)]);
    out.push(axisSum(from, to, count, inner));
    from = to;
  });
  return out;
}

/**
 * Batched matrix product a b, either operand transposed in its last two axes; batch axes broadcast.
 * a [..., M, K], b [..., K, N] -> [..., M, N].
 * @throws MGFError 'shape'
 */
export function matmul(a: Value, b: Value, options: Partial<MatmulAttrs> = {}): Value {
  checkOptions('matmul', options, { transposeA: 'true or false?', transposeB: 'true or false?' });
  return apply(matmulOp, [a, b], {
    transposeA: options.transposeA ?? false,
    transposeB: options.transposeB ?? false,
  })[0]!;
}

/** Float64 reference: a and b of the given shapes, batch axes broadcast -> [..., M, N]. */
export function matmulReference(
  a: Float64Array,
  b: Float64Array,
  shapes: { a: Shape; b: Shape },
  options: Partial<MatmulAttrs> = {},
): Float64Array {
  const { transposeA = false, transposeB = false } = options;
  const { M, N, K, batch } = geometry(
    { shape: shapes.a, dtype: 'f32' },
    { shape: shapes.b, dtype: 'f32' },
    { transposeA, transposeB },
  );
  const y = new Float64Array(elements(batch) * M * N);
  /** Which matrix of an operand the batch index z meets: axes of size 1 stay at 0. */
  const matrix = (shape: Shape, z: number): number => {
    let at = 0;
    let step = 1;
    for (let i = batch.length - 1, rest = z; i >= 0; rest = Math.floor(rest / batch[i]!), i--) {
      const size = shape[i - batch.length + shape.length - 2] ?? 1;
      if (size > 1) at += (rest % batch[i]!) * step;
      step *= size;
    }
    return at;
  };
  for (let z = 0; z < elements(batch); z++) {
    const pa = matrix(shapes.a, z) * M * K;
    const pb = matrix(shapes.b, z) * K * N;
    for (let m = 0; m < M; m++)
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (let k = 0; k < K; k++)
          sum +=
            a[pa + (transposeA ? k * M + m : m * K + k)]! * b[pb + (transposeB ? n * K + k : k * N + n)]!;
        y[(z * M + m) * N + n] = sum;
      }
  }
  return y;
}
