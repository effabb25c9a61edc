import { MGFError } from '../errors.ts';
import { elements, formatShape, type Spec, type Value } from '../graph/graph.ts';
import { defineOp, kernel, type BackwardContext, type Dispatch } from '../graph/op.ts';
import softmaxSource from '../../kernels/attention_softmax.wgsl';
import softmaxBackwardSource from '../../kernels/attention_softmax_backward.wgsl';
import { gemm, type Gemm } from './gemm.ts';
import { overRows } from './launch.ts';

const SOFTMAX = kernel('attention_softmax', softmaxSource);
const SOFTMAX_BACKWARD = kernel('attention_softmax_backward', softmaxBackwardSource);

/** `heads-last`: [B, T, H D], as projections write it. `heads-first`: [B, H, T, D], PyTorch's. */
type AttentionLayout = 'heads-last' | 'heads-first';
interface Attrs { heads: number; layout: AttentionLayout }
interface Sizes { B: number; H: number; T: number; S: number; D: number; pitch: number }

function sizes(q: Spec, k: Spec, { heads, layout }: Attrs): Sizes {
  const first = layout === 'heads-first';
  const [B, H, T, D] = first ? q.shape as [number, number, number, number] : [q.shape[0]!, heads, q.shape[1]!, q.shape[2]! / heads];
  const S = first ? k.shape[2]! : k.shape[1]!;
  return { B, H, T, S, D, pitch: Math.ceil(S / 4) * 4 };
}

/** Strides of an operand of `rows` rows per head: along batch, head and row. */
function strides({ H, D }: Sizes, rows: number, layout: AttentionLayout): { z: [number, number]; row: number } {
  return layout === 'heads-first' ? { z: [H * rows * D, rows * D], row: D } : { z: [rows * H * D, D], row: H * D };
}

type Context = Pick<BackwardContext<Attrs>, 'adapter' | 'attrs'>;

/** [T, S] = alpha x y^T over heads: scores, and the gradient of the probabilities. */
function scores(c: Context, s: Sizes, x: Value, y: Value, out: Value, alpha: number): Dispatch {
  const a = strides(s, s.T, c.attrs.layout), b = strides(s, s.S, c.attrs.layout);
  return gemm(c.adapter, {
    mode: 'nt', a: x, b: y, c: out, m: s.T, n: s.S, k2: s.D, batch: [s.B, s.H], alpha, paddedColumns: true,
    aZ: a.z, aRow: a.row, bZ: b.z, bRow: b.row, cZ: [s.H * s.T * s.pitch, s.T * s.pitch], cRow: s.pitch,
  });
}

/** [T, D] = alpha p y (mode nn) or [S, D] = alpha p^T y (mode tn) over heads, p [B, H, T, pitch]. */
function weighted(c: Context, s: Sizes, mode: 'nn' | 'tn', p: Value, y: Value, out: Value, alpha: number): Dispatch {
  const rows = mode === 'nn' ? s.T : s.S, inner = mode === 'nn' ? s.S : s.T;
  const b = strides(s, inner, c.attrs.layout), o = strides(s, rows, c.attrs.layout);
  const product: Gemm = {
    mode, a: p, b: y, c: out, m: rows, n: s.D, k2: inner, batch: [s.B, s.H], alpha,
    aZ: [s.H * s.T * s.pitch, s.T * s.pitch], aRow: s.pitch, bZ: b.z, bRow: b.row, cZ: o.z, cRow: o.row,
  };
  return gemm(c.adapter, product);
}

/** Inputs q, k, v, key_mask?. Outputs y and the probabilities [B, H, T, S rounded up to 4]. Scores are kept: up to T of about 1500 that is the fastest way. */
export const attentionOp = defineOp<Attrs>({
  name: 'attention',
  shape([q, k, v, mask], attrs) {
    const shapes = `q ${formatShape(q!.shape)}, k ${formatShape(k!.shape)}, v ${formatShape(v!.shape)}`, rank = attrs.layout === 'heads-first' ? 4 : 3;
    if ([q, k, v].some((x) => x!.shape.length !== rank)) throw new MGFError('shape', `attention: ${shapes} must have ${rank} dimensions (${attrs.layout})`);
    if (formatShape(k!.shape) !== formatShape(v!.shape) || q!.shape.at(-1) !== k!.shape.at(-1) || q!.shape[0] !== k!.shape[0]) throw new MGFError('shape', `attention: ${shapes} do not fit together`);
    const s = sizes(q!, k!, attrs);
    if (!Number.isInteger(s.D)) throw new MGFError('shape', `attention: ${attrs.heads} heads do not divide the width ${q!.shape.at(-1)}`);
    if (mask && formatShape(mask.shape) !== formatShape([s.B, s.S])) throw new MGFError('shape', `attention: the key mask must be [${s.B}, ${s.S}], got ${formatShape(mask.shape)}`);
    return [{ shape: q!.shape, dtype: 'f32' }, { shape: [s.B, s.H, s.T, s.pitch], dtype: 'f32' }];
  },
  forward(c) {
    const q = c.input(0), k = c.input(1), v = c.input(2), mask = c.inputs[3] ?? null, [y, p] = c.outputs as [Value, Value];
    const s = sizes(q, k, c.attrs), rows = s.B * s.H * s.T, launch = overRows(rows, c.adapter);
    return [
      scores(c, s, q, k, p, 1 / Math.sqrt(s.D)),
      {
        kernel: SOFTMAX, grid: launch.grid, constants: { ...launch.constants, MASK: Number(Boolean(mask)) },
        bind: { scores: p, ...(mask ? { key_mask: mask } : {}) }, params: { rows, keys: s.S, pitch4: s.pitch / 4, rows_per_mask: s.H * s.T },
      },
      weighted(c, s, 'nn', p, v, y, 1),
    ];
  },
  saves: { inputs: [0, 1, 2], outputs: [1] },
  differentiable: [0, 1, 2],
  backward(c) {
    const q = c.input(0)!, k = c.input(1)!, v = c.input(2)!, p = c.output(1), dy = c.upstream(0)!;
    const s = sizes(q, k, c.attrs), rows = s.B * s.H * s.T, launch = overRows(rows, c.adapter), alpha = 1 / Math.sqrt(s.D);
    const dq = c.grad(0), dk = c.grad(1), dv = c.grad(2), out: Dispatch[] = [];
    if (dv) out.push(weighted(c, s, 'tn', p, dy, dv, 1));
    if (!dq && !dk) return out;
    const ds = c.temp(p.shape);
    out.push(scores(c, s, dy, v, ds, 1), { kernel: SOFTMAX_BACKWARD, ...launch, bind: { probabilities: p, d: ds }, params: { rows, pitch4: s.pitch / 4 } });
    if (dq) out.push(weighted(c, s, 'nn', ds, k, dq, alpha));
    if (dk) out.push(weighted(c, s, 'tn', ds, q, dk, alpha));
    return out;
  },
  cost([q, k], _, attrs) {
    const { B, H, T, S, D } = sizes(q!, k!, attrs);
    return { flops: 4 * B * H * T * S * D + 5 * B * H * T * S, bytes: 4 * (2 * elements(q!.shape) + 2 * elements(k!.shape) + 4 * B * H * T * S) };
  },
});

/**
 * softmax(q k^T / sqrt(D)) v over heads. q [B, T, H D], k and v [B, S, H D] (or [B, H, *, D] with layout 'heads-first'), keyMask f32 [B, S], 1 = real.
 * @throws MGFError 'shape'
 */
export function attention(q: Value, k: Value, v: Value, options: { heads?: number; layout?: AttentionLayout; keyMask?: Value | null } = {}): Value {
  return q.graph.apply(attentionOp, [q, k, v, options.keyMask ?? null], { heads: options.heads ?? 1, layout: options.layout ?? 'heads-last' })[0]!;
}
