import coefficientsText from '../../../kernels/info_nce_coefficients.wgsl';
import scanText from '../../../kernels/exclusive_scan.wgsl';
import gatherText from '../../../kernels/info_nce_gather.wgsl';
import indexText from '../../../kernels/info_nce_index.wgsl';
import logitsText from '../../../kernels/info_nce_logits.wgsl';
import normsText from '../../../kernels/row_inverse_norms.wgsl';
import rowsText from '../../../kernels/info_nce_rows.wgsl';
import { checkOptions, VALUE } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import type { AdapterProfile } from '../../gpu/device.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, f32, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { imageable } from '../../launch/image.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import { ceilDiv, overRows } from '../../launch/grid.ts';
import { overItems, totals } from '../lib/reduce.ts';

const normsKernel = kernel('row_inverse_norms', normsText);
const logitsKernel = kernel('info_nce_logits', logitsText);
const rowsKernel = kernel('info_nce_rows', rowsText);
const coefficientsKernel = kernel('info_nce_coefficients', coefficientsText);
const indexKernel = kernel('info_nce_index', indexText);
const scanKernel = kernel('exclusive_scan', scanText);
const gatherKernel = kernel('info_nce_gather', gatherText);

/** Whether vectors are read from images. */
const image = (adapter: AdapterProfile, VEC: number, ...tensors: Value[]): number =>
  Number(Boolean(adapter.images && VEC && tensors.every((x) => imageable(x.shape))));

interface InfoNCEAttrs {
  readonly temperature: number;
}

/**
 * Sizes of one application: F frames of P channels, N anchors with K negatives, rows of `stride` logits (a
 * whole number of vec4 pairs).
 */
function sizes(c: Spec, negatives: Spec) {
  const P = c.shape.at(-1)!;
  const F = elements(c.shape) / P;
  const [N, K] = negatives.shape as [number, number];
  const VEC = Number(P % 4 === 0);
  return {
    F,
    P,
    N,
    K,
    VEC,
    width: VEC ? P / 4 : P,
    stride: ceilDiv(K + 1, 8) * 8,
    padded: ceilDiv(N, 4) * 4,
  };
}

/** inverse [2 rows] = 1 / max(norm, 1e-8) of the rows of a, then of b (both [rows, width]). */
export function inverseNorms(
  adapter: AdapterProfile,
  a: Value,
  b: Value,
  rows: number,
  columns: number,
  inverse: Value,
): Dispatch {
  const { constants, grid } = overRows(2 * rows, adapter);
  const VEC = Number(columns % 4 === 0);
  return {
    kernel: normsKernel,
    constants: { ...constants, VEC },
    grid,
    bind: { a, b, inverse },
    params: { rows, width: VEC ? columns / 4 : columns },
  };
}

/**
 * Inputs c, z, anchor, negatives, weights?. Outputs loss, accuracy, and for backward: logits [N, stride], per
 * anchor (logsumexp, weight), inverse norms of c and z, and what the sum of losses was divided by.
 */
export const maskedInfoNceOp = defineOp<InfoNCEAttrs>({
  name: 'masked_info_nce',
  shape([c, z, anchor, negatives, weights], { temperature }) {
    const fail = (why: string): never => {
      throw new MGFError('shape', `masked_info_nce: ${why}`);
    };
    if (c!.shape.length < 2 || formatShape(c!.shape) !== formatShape(z!.shape))
      fail(`c ${formatShape(c!.shape)} and z ${formatShape(z!.shape)} must have one shape [B, T, P]`);
    if (anchor!.dtype !== 'i32' || negatives!.dtype !== 'i32')
      fail(`anchor and negatives must be i32, got ${anchor!.dtype} and ${negatives!.dtype}`);
    if (
      anchor!.shape.length !== 1 ||
      negatives!.shape.length !== 2 ||
      negatives!.shape[0] !== anchor!.shape[0]
    ) {
      fail(
        `anchor must be [N] and negatives [N, K], got ${formatShape(anchor!.shape)} and ` +
          `${formatShape(negatives!.shape)}`,
      );
    }
    if (weights && (weights.dtype !== 'f32' || elements(weights.shape) !== anchor!.shape[0])) {
      fail(`weights must be f32 [${anchor!.shape[0]}], got ${weights.dtype} ${formatShape(weights.shape)}`);
    }
    if (!(temperature > 0)) fail(`the temperature must be positive, got ${temperature}`);
    const { F, N, stride } = sizes(c!, negatives!);
    return [f32(1), f32(1), f32(N, stride), f32(N, 2), f32(2 * F), f32(1)];
  },
  forward(ctx) {
    const [c, z, anchor, negatives] = [0, 1, 2, 3].map((i) => ctx.input(i)) as [Value, Value, Value, Value];
    const [loss, accuracy, logits, stats, inverse, denominator] = ctx.outputs as [
      Value,
      Value,
      Value,
      Value,
      Value,
      Value,
    ];
    const { adapter } = ctx;
    const weights = ctx.inputs[4] ?? null;
    const { F, P, N, K, VEC, width, stride, padded } = sizes(c, negatives);
    const losses = ctx.temp([padded]);
    const hits = ctx.temp([padded]);
    const counted = ctx.temp([padded]);
    const ignored = ctx.temp([1]);
    const J = adapter.family === 'cpu' ? 8 : 4;
    const products = overItems((N * stride) / J, adapter);
    const rows = overRows(padded, adapter);
    const mean = (values: Value, total: Value, divisor: Value): Dispatch =>
      totals(adapter, values, weights && counted, padded, weights ? 1 : N, 1, total, divisor);
    return [
      inverseNorms(adapter, c, z, F, P, inverse),
      {
        kernel: logitsKernel,
        constants: { ...products.constants, VEC, J, IMAGE: image(adapter, VEC, c, z) },
        grid: products.grid,
        bind: { c, z, inverse, anchor, negatives, logits },
        params: {
          anchors: N,
          frames: F,
          negatives: K,
          width,
          stride,
          inverse_temperature: 1 / ctx.attrs.temperature,
        },
      },
      {
        kernel: rowsKernel,
        constants: { ...rows.constants, WEIGHTS: Number(weights !== null) },
        grid: rows.grid,
        bind: { logits, ...(weights && { weights }), stats, losses, hits, counted },
        params: { anchors: N, rows: padded, stride4: stride / 4 },
      },
      mean(losses, loss, denominator),
      mean(hits, accuracy, ignored),
    ];
  },
  saves: { inputs: [0, 1, 2, 3], outputs: [2, 3, 4, 5] },
  differentiable: [0, 1],
  backward(ctx) {
    const up = ctx.upstream(0);
    if (!up || ctx.upstream(1))
      throw new MGFError(
        'shape',
        'masked_info_nce: only the loss has a gradient, the accuracy cannot be part of what is minimised',
      );
    const [c, z, anchor, negatives] = [0, 1, 2, 3].map((i) => ctx.input(i)!) as [Value, Value, Value, Value];
    const [logits, stats, inverse, denominator] = [2, 3, 4, 5].map((i) => ctx.output(i)) as [
      Value,
      Value,
      Value,
      Value,
    ];
    const { adapter } = ctx;
    const { F, N, K, VEC, width, stride } = sizes(c, negatives);
    const keys = 2 * F;
    // Few anchors a block: many invocations, but a count matrix that is written and read whole.
    const per = Math.max(1, ceilDiv(N, adapter.family === 'cpu' ? 8 * adapter.subgroupSize : 256));
    const blocks = ceilDiv(N, per);
    const pairs = ctx.temp([N * stride, 4], 'u32');
    const counts = ctx.temp([blocks, keys], 'u32');
    const keyTotals = ctx.temp([keys], 'u32');
    const offsets = ctx.temp([keys + 1], 'u32');
    const list = ctx.temp([N * (K + 2), 4], 'u32');
    const all = overItems(N * stride, adapter);
    const scan = overRows(1, adapter);
    const index = (STEP: number, count: number, bind: Record<string, Value>): Dispatch => {
      const { constants, grid } = overItems(count, adapter);
      return {
        kernel: indexKernel,
        constants: { ...constants, STEP },
        grid,
        bind: { counts, ...bind },
        params: { anchors: N, candidates: K + 1, stride, frames: F, blocks, per },
      };
    };
    const CH = adapter.family === 'cpu' ? 4 : 1;
    const gathers = overItems(F * ceilDiv(width, CH), adapter);
    const gather = (SIDE: number, bind: Record<string, Value>): Dispatch => ({
      kernel: gatherKernel,
      constants: { ...gathers.constants, VEC, SIDE, CH, IMAGE: image(adapter, VEC, c, z) },
      grid: gathers.grid,
      bind: { offsets, list, inverse, ...bind },
      params: { frames: F, candidates: K + 1, stride, width },
    });
    const dc = ctx.grad(0);
    const dz = ctx.grad(1);
    const dispatches: Dispatch[] = [
      {
        kernel: coefficientsKernel,
        constants: all.constants,
        grid: all.grid,
        bind: { logits, stats, inverse, anchor, negatives, up, denominator, pairs },
        params: {
          anchors: N,
          frames: F,
          negatives: K,
          stride,
          inverse_temperature: 1 / ctx.attrs.temperature,
        },
      },
      index(0, blocks, { pairs, stats }),
      index(1, keys, { totals: keyTotals }),
      {
        kernel: scanKernel,
        constants: scan.constants,
        grid: scan.grid,
        bind: { counts: keyTotals, offsets },
        params: { n: keys },
      },
      index(2, blocks, { pairs, stats, offsets, list }),
    ];
    if (dc) dispatches.push(gather(0, { pairs, own: c, other: z, dx: dc }));
    if (dz) dispatches.push(gather(1, { own: z, other: c, dx: dz }));
    return dispatches;
  },
  cost([c, , , negatives]) {
    const { F, P, N, K } = sizes(c!, negatives!);
    return { flops: 2 * N * (K + 1) * P + 4 * F * P, bytes: 4 * (2 * F * P + N * (K + 1) * (P + 2)) };
  },
});

/**
 * Contrastive loss of masked frames (wav2vec 2.0, arXiv 2006.11477, eq. 3): cross-entropy of cosine
 * similarities / temperature, the positive first. c, z [B, T, P]: context and target vectors. anchor i32 [N],
 * negatives i32 [N, K]: flat frames b * T + t, all in 0 .. B T - 1; anchor n is the context c[anchor n], its
 * positive is z[anchor n], its negatives are z[negatives n]. `weights` f32 [N]: 0 for unused slots (any frame
 * in them). Returns loss [1] and accuracy [1], means over the anchors: sum(w v) / max(sum(w), 1). Accuracy
 * counts positives that beat every negative strictly and has no gradient. Norms are clamped at 1e-8.
 * @throws MGFError 'shape'
 */
export function maskedInfoNCE(
  c: Value,
  z: Value,
  anchor: Value,
  negatives: Value,
  options: { temperature?: number; weights?: Value | null } = {},
): [loss: Value, accuracy: Value] {
  checkOptions('maskedInfoNCE', options, { temperature: 'a number?', weights: `${VALUE}|null?` });
  const outputs = apply(
    maskedInfoNceOp,
    [c, z, anchor, negatives, options.weights ?? null],
    { temperature: options.temperature ?? 0.1 },
    4,
  );
  return [outputs[0]!, outputs[1]!];
}

const CLAMP = 1e-8;

/** `maskedInfoNCE` in float64: { loss, accuracy }. `P`: channels. */
export function maskedInfoNCEReference(
  c: Float64Array,
  z: Float64Array,
  anchor: Int32Array,
  negatives: Int32Array,
  P: number,
  options: { temperature: number; weights?: Float64Array },
): { loss: number; accuracy: number } {
  const dot = (a: Float64Array, i: number, b: Float64Array, j: number): number => {
    let sum = 0;
    for (let k = 0; k < P; k++) sum += a[i * P + k]! * b[j * P + k]!;
    return sum;
  };
  const K = negatives.length / anchor.length;
  let loss = 0;
  let hits = 0;
  let total = 0;
  anchor.forEach((frame, n) => {
    const weight = options.weights ? options.weights[n]! : 1;
    const norm = Math.max(Math.sqrt(dot(c, frame, c, frame)), CLAMP);
    const candidates = [frame, ...negatives.subarray(n * K, (n + 1) * K)];
    const logits = candidates.map(
      (f) => dot(c, frame, z, f) / (norm * Math.max(Math.sqrt(dot(z, f, z, f)), CLAMP)) / options.temperature,
    );
    const top = Math.max(...logits);
    loss += weight * (top + Math.log(logits.reduce((sum, v) => sum + Math.exp(v - top), 0)) - logits[0]!);
    hits += weight * Number(logits.every((v, j) => j === 0 || v < logits[0]!));
    total += weight;
  });
  return { loss: loss / Math.max(total, 1), accuracy: hits / Math.max(total, 1) };
}
