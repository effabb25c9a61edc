import backwardText from '../../../kernels/normalise_pairs_backward.wgsl';
import coefficientsText from '../../../kernels/nt_xent_coefficients.wgsl';
import normaliseText from '../../../kernels/normalise_pairs.wgsl';
import rowsText from '../../../kernels/nt_xent_rows.wgsl';
import { checkOptions } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { f32, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import { gemm } from '../gemm/gemm.ts';
import { ceilDiv, overElements, overRows } from '../../launch/grid.ts';
import { totals } from '../lib/reduce.ts';

const normaliseKernel = kernel('normalise_pairs', normaliseText);
const normaliseBackwardKernel = kernel('normalise_pairs_backward', backwardText);
const rowsKernel = kernel('nt_xent_rows', rowsText);
const coefficientsKernel = kernel('nt_xent_coefficients', coefficientsText);

function sizes(a: Spec) {
  const [B, P] = a.shape as [number, number];
  const VEC = Number(P % 4 === 0);
  return { n: 2 * B, P, VEC, rowParams: { rows: B, width: VEC ? P / 4 : P } };
}

/**
 * Inputs a, b. Outputs the loss, and for backward: unit vectors u [2B, P], their inverse norms, logits [2B,
 * 2B] and logsumexp [2B]. Its products are exact: they are tiny, and g (up to 2 / (n temperature) times the
 * loss scale) would be the first to overflow f16.
 */
export const ntXentOp = defineOp<{ temperature: number }>({
  name: 'nt_xent',
  shape([a, b], { temperature }) {
    const fail = (why: string): never => {
      throw new MGFError('shape', `nt_xent: ${why}`);
    };
    if (a!.shape.length !== 2 || formatShape(a!.shape) !== formatShape(b!.shape))
      fail(`a ${formatShape(a!.shape)} and b ${formatShape(b!.shape)} must have one shape [B, P]`);
    if (a!.shape[0]! < 2) fail('one utterance has no negatives; give a batch of at least 2');
    if (!(temperature > 0)) fail(`the temperature must be positive, got ${temperature}`);
    const { n, P } = sizes(a!);
    return [f32(1), f32(n, P), f32(n), f32(n, n), f32(n)];
  },
  forward(c): Dispatch[] {
    const a = c.input(0);
    const b = c.input(1);
    const [loss, u, inverse, logits, logsumexp] = c.outputs as [Value, Value, Value, Value, Value];
    const { n, P, VEC, rowParams } = sizes(a);
    const padded = ceilDiv(n, 4) * 4;
    const losses = c.temp([padded]);
    const units = overRows(n, c.adapter);
    const rows = overRows(padded, c.adapter);
    return [
      {
        kernel: normaliseKernel,
        constants: { ...units.constants, VEC },
        grid: units.grid,
        bind: { a, b, u, inverse },
        params: rowParams,
      },
      gemm(c.adapter, {
        mode: 'nt',
        a: u,
        b: u,
        c: logits,
        m: n,
        n,
        k2: P,
        aRow: P,
        bRow: P,
        cRow: n,
        alpha: 1 / c.attrs.temperature,
        exact: true,
      }),
      {
        kernel: rowsKernel,
        constants: rows.constants,
        grid: rows.grid,
        bind: { logits, logsumexp, losses },
        params: { n, rows: padded },
      },
      totals(c.adapter, losses, null, padded, n, 1, loss, c.temp([1])),
    ];
  },
  saves: { inputs: [0], outputs: [1, 2, 3, 4] },
  backward(c): Dispatch[] {
    const [u, inverse, logits, logsumexp] = [1, 2, 3, 4].map((i) => c.output(i)) as [
      Value,
      Value,
      Value,
      Value,
    ];
    const a = c.input(0)!;
    const { n, P, VEC, rowParams } = sizes(a);
    const g = c.temp([n, n]);
    const du = c.temp([n, P]);
    const pairs = overElements(n * n);
    const rows = overRows(n, c.adapter);
    return [
      {
        kernel: coefficientsKernel,
        constants: pairs.constants,
        grid: pairs.grid,
        bind: { logits, logsumexp, up: c.upstream(0)!, g },
        params: { n, scale: 1 / (n * c.attrs.temperature) },
      },
      gemm(c.adapter, {
        mode: 'nn',
        a: g,
        b: u,
        c: du,
        m: n,
        n: P,
        k2: n,
        aRow: n,
        bRow: P,
        cRow: P,
        exact: true,
      }),
      {
        kernel: normaliseBackwardKernel,
        constants: { ...rows.constants, VEC },
        grid: rows.grid,
        params: rowParams,
        bind: { u, du, inverse, da: c.grad(0) ?? c.temp(a.shape), db: c.grad(1) ?? c.temp(a.shape) },
      },
    ];
  },
  cost([a]) {
    const { n, P } = sizes(a!);
    return { flops: 2 * n * n * P, bytes: 4 * (3 * n * P + 2 * n * n) };
  },
});

/**
 * NT-Xent (SimCLR, arXiv 2002.05709, eq. 1): a, b [B, P] are two views of B utterances. Cross-entropy of
 * cosine similarities / temperature for each of the 2B vectors against its other view among the 2B - 1
 * others, mean -> [1]. Norms are clamped at 1e-8.
 * @throws MGFError 'shape' for B < 2
 */
export const ntXent = (a: Value, b: Value, options: { temperature?: number } = {}): Value => {
  checkOptions('ntXent', options, { temperature: 'a number?' });
  return apply(ntXentOp, [a, b], { temperature: options.temperature ?? 0.1 })[0]!;
};

/** `ntXent` in float64. `P`: width of the vectors. */
export function ntXentReference(a: Float64Array, b: Float64Array, P: number, temperature: number): number {
  const unit = [...a, ...b];
  const B = a.length / P;
  const n = 2 * B;
  for (let i = 0; i < n; i++) {
    const norm = Math.max(Math.hypot(...unit.slice(i * P, (i + 1) * P)), 1e-8);
    for (let k = 0; k < P; k++) unit[i * P + k]! /= norm;
  }
  let loss = 0;
  for (let i = 0; i < n; i++) {
    const logits = Array.from(
      { length: n },
      (_, j) =>
        unit.slice(i * P, (i + 1) * P).reduce((sum, v, k) => sum + v * unit[j * P + k]!, 0) / temperature,
    );
    const others = logits.filter((_, j) => j !== i);
    const top = Math.max(...others);
    loss += top + Math.log(others.reduce((sum, v) => sum + Math.exp(v - top), 0)) - logits[(i + B) % n]!;
  }
  return loss / n;
}
