import type { AdapterProfile } from '../../gpu/device.ts';
import { MGFError } from '../../errors.ts';
import { formatShape, type Spec } from '../../graph/shape.ts';
import type { Value } from '../../graph/graph.ts';
import { defineOp, type BackwardContext } from '../../launch/op.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import type { Cost } from '../../graph/op.ts';
import forwardSource from '../../../kernels/flash_attention.wgsl';
import dkvSource from '../../../kernels/flash_attention_dkv.wgsl';
import dqSource from '../../../kernels/flash_attention_dq.wgsl';
import rowsSource from '../../../kernels/flash_attention_rows.wgsl';
import {
  checkMask,
  headsFirst,
  merged,
  packedSizes,
  part,
  separate,
  type Operand,
  type Sizes,
} from './operands.ts';
import * as scored from './scores.ts';
import { dropoutParams, type DropoutAttrs } from '../dropout.ts';
import { ceilDiv, overElements } from '../../launch/grid.ts';
import { flashCheck } from './flash-attention-check.ts';

const FORWARD = kernel('flash_attention', forwardSource, (c) => flashCheck(c, 'y'));
const ROWS = kernel('flash_attention_rows', rowsSource);
const DQ = kernel('flash_attention_dq', dqSource, (c) => flashCheck(c, 'dq'));
const DKV = kernel('flash_attention_dkv', dkvSource, (c) => flashCheck(c, 'dkv'));

/** The three of them stand or fall together. */
const VARIANT = FORWARD.name;

/** Whether the kernels have a variant for this head size. */
export const flashHeadSize = (D: number): boolean => D % 4 === 0 && D >= 4 && D <= 128;

/**
 * Rows of a workgroup's tile, and vec4s of its workgroup memory in f32 (twice as many in f16): as in
 * kernels/lib/flash.wgsl.
 */
const ROWS_PER_TILE = 64;
const STAGE = 896;

/** q, k, v, y (or its gradient) of one attention, with what the key mask and dropout need. */
interface Attention {
  s: Sizes;
  q: Operand;
  k: Operand;
  v: Operand;
  y: Operand;
  mask: Value | null;
  drop: DropoutAttrs | null;
}

/** Template constants that say how a head is cut into tiles: see kernels/lib/flash.wgsl. */
interface Tile extends Record<string, number> {
  D4: number;
  BC: number;
  KC: number;
  VR: number;
  F16: number;
}

function tileOf(adapter: AdapterProfile, D: number): Tile {
  const D4 = D / 4;
  const F16 = Number(adapter.precision === 'f16' && adapter.features.has('shader-f16'));
  const BC = 32 * (1 + F16);
  const room = STAGE * (1 + F16);
  // As many vec4s of the head at a time as fit, at least four, and of those numbers the one that pads D
  // least.
  let KC = Math.min(4, D4);
  for (let n = KC + 1; n <= D4 && (n | 1) * (ROWS_PER_TILE + BC) <= room; n++)
    if (ceilDiv(D4, n) * n <= ceilDiv(D4, KC) * KC) KC = n;
  let VR = BC;
  while (VR * D4 > room - 17 * BC) VR /= 2;
  return { D4, BC, KC, VR, F16 };
}

/** What the three large kernels take alike. */
function common(
  { s, q, k, v, y, mask, drop }: Attention,
  tile: Tile,
): Required<Pick<Dispatch, 'constants' | 'params' | 'bind'>> {
  const constants = { ...tile, LX: 8, MASK: Number(mask !== null), DROP: Number(drop !== null), BACK: 0 };
  const params = {
    T: s.T,
    S: s.S,
    q_batch: q.z[0] / 4,
    q_head: q.z[1] / 4,
    q_row: q.row / 4,
    q_offset: q.offset / 4,
    k_batch: k.z[0] / 4,
    k_head: k.z[1] / 4,
    k_row: k.row / 4,
    k_offset: k.offset / 4,
    v_offset: v.offset / 4,
    y_batch: y.z[0] / 4,
    y_head: y.z[1] / 4,
    y_row: y.row / 4,
    alpha: 1 / Math.sqrt(s.D),
    d4: tile.D4,
    kc: tile.KC,
    bc: tile.BC,
    vr: tile.VR,
    ...(drop && dropoutParams(drop)),
  };
  return { constants, params, bind: { q: q.value, k: k.value, v: v.value, ...(mask && { key_mask: mask }) } };
}

function tileGrid({ s: { B, H } }: Attention, rows: number): Dispatch['grid'] {
  const grid = [ceilDiv(rows, ROWS_PER_TILE), H, B] as const;
  if (grid.some((n) => n > 65535))
    throw new MGFError(
      'limit',
      `flash attention: a grid of ${grid.join(' x ')} workgroups is over WebGPU's 65535; split the batch`,
    );
  return grid;
}

type Context = Pick<BackwardContext<unknown>, 'adapter' | 'temp'>;

/**
 * Where the kernels compute wrongly, probabilities are kept after all, in scratch memory, and made again for
 * backward; `logsumexp` then stays unused.
 */
const keepsScores = ({ adapter }: Context): boolean => Boolean(adapter.rejected?.has(VARIANT));

function attend(c: Context, a: Attention, logsumexp: Value): Dispatch[] {
  if (keepsScores(c))
    return scored.attend(c, a.s, a.q, a.k, a.v, a.mask, c.temp(scored.scoreShape(a.s)), a.y, a.drop);
  const shared = common(a, tileOf(c.adapter, a.s.D));
  return [
    {
      ...shared,
      kernel: FORWARD,
      variant: VARIANT,
      grid: tileGrid(a, a.s.T),
      bind: { ...shared.bind, y: a.y.value, logsumexp },
    },
  ];
}

/**
 * Writes whichever of dq, dk, dv is wanted; in the packed form they are parts of one tensor. `dy` has y's
 * layout.
 */
function attendBack(
  c: Context,
  a: Attention,
  dy: Value,
  logsumexp: Value,
  d: { q: Value | null; k: Value | null; v: Value | null },
): Dispatch[] {
  if (keepsScores(c)) {
    const p = c.temp(scored.scoreShape(a.s));
    const at = (like: Operand, value: Value | null): Operand | null => value && { ...like, value };
    return [
      ...scored.probabilities(c, a.s, a.q, a.k, a.mask, p),
      ...scored.attendBack(
        c,
        a.s,
        a.q,
        a.k,
        a.v,
        p,
        { ...a.y, value: dy },
        { q: at(a.q, d.q), k: at(a.k, d.k), v: at(a.v, d.v) },
        a.drop,
      ),
    ];
  }
  const {
    s: { B, H, T, S, D },
    y,
  } = a;
  const queries = B * H * T;
  const stats = c.temp([queries, 2]);
  const rows = overElements(queries);
  const shared = common(a, tileOf(c.adapter, D));
  const constants = { ...shared.constants, BACK: 1 };
  const bind = { ...shared.bind, dy, stats };
  const out: Dispatch[] = [
    {
      kernel: ROWS,
      ...rows,
      bind: { dy, y: y.value, logsumexp, stats },
      params: {
        n: queries,
        T,
        heads: H,
        y_batch: y.z[0] / 4,
        y_head: y.z[1] / 4,
        y_row: y.row / 4,
        d4: D / 4,
      },
    },
  ];
  if (d.q)
    out.push({
      ...shared,
      kernel: DQ,
      variant: VARIANT,
      grid: tileGrid(a, T),
      constants,
      bind: { ...bind, dq: d.q },
    });
  if (!d.k && !d.v) return out;
  const joint = d.k === d.v;
  const dk = d.k ?? c.temp(a.k.value.shape);
  const dv = d.v ?? c.temp(a.v.value.shape);
  out.push({
    ...shared,
    kernel: DKV,
    variant: VARIANT,
    grid: tileGrid(a, S),
    constants: { ...constants, LX: D > 96 ? 16 : 8, JOINT: Number(joint) },
    bind: { ...bind, dk, ...(!joint && { dv }) },
  });
  return out;
}

function checkHeadSize(op: string, { D }: Sizes, of: Spec): void {
  if (!flashHeadSize(D))
    throw new MGFError(
      'shape',
      `${op}: flash attention takes heads of up to 128 numbers in multiples of 4, and ` +
        `${formatShape(of.shape)} has heads of ${D}; leave flash out`,
    );
}

/**
 * Of forward, which multiplies T x S x D twice; backward, which makes the weights again in both of its large
 * launches, does seven times.
 */
const flashCost = ({ B, H, T, S, D }: Sizes): Cost => ({
  flops: 4 * B * H * T * S * D + 5 * B * H * T * S,
  bytes: 8 * B * H * (T + S) * D,
});

const logsumexpSpec = ({ B, H, T }: Sizes): Spec => ({ shape: [B, H, T], dtype: 'f32' });

/** Inputs q, k, v, key_mask?. Outputs y and the scores' logsumexp [B, H, T]. */
export const flashAttentionOp = defineOp<Record<never, never>>({
  name: 'flash_attention',
  shape([q, k, v, mask]) {
    const s = headsFirst(q!, k!, v!);
    checkMask('attention', mask, s);
    checkHeadSize('attention', s, q!);
    return [{ shape: q!.shape, dtype: 'f32' }, logsumexpSpec(s)];
  },
  forward(c) {
    const q = c.input(0);
    const k = c.input(1);
    const v = c.input(2);
    const [y, logsumexp] = c.outputs as [Value, Value];
    return attend(
      c,
      {
        s: headsFirst(q, k, v),
        q: separate(q),
        k: separate(k),
        v: separate(v),
        y: separate(y),
        mask: c.inputs[3] ?? null,
        drop: null,
      },
      logsumexp,
    );
  },
  saves: { inputs: [0, 1, 2, 3], outputs: [0, 1] },
  differentiable: [0, 1, 2],
  backward(c) {
    const q = c.input(0)!;
    const k = c.input(1)!;
    const v = c.input(2)!;
    const a = {
      s: headsFirst(q, k, v),
      q: separate(q),
      k: separate(k),
      v: separate(v),
      y: separate(c.output(0)),
      mask: c.input(3),
      drop: null,
    };
    return attendBack(c, a, c.upstream(0)!, c.output(1), { q: c.grad(0), k: c.grad(1), v: c.grad(2) });
  },
  cost: ([q, k, v]) => flashCost(headsFirst(q!, k!, v!)),
});

const packed = (
  qkv: Value,
  y: Value,
  heads: number,
  mask: Value | null,
  drop: DropoutAttrs | null,
): Attention => {
  const s = packedSizes(qkv, heads);
  return { s, q: part(qkv, s, 0), k: part(qkv, s, 1), v: part(qkv, s, 2), y: merged(y, s), mask, drop };
};

/** Inputs qkv, key_mask?. Outputs y and the scores' logsumexp [B, heads, T]. Heads are read in place. */
export const flashSelfAttentionOp = defineOp<{ heads: number; drop: DropoutAttrs | null }>({
  name: 'flash_self_attention',
  shape([qkv, mask], { heads }) {
    const s = packedSizes(qkv!, heads);
    checkMask('self_attention', mask, s);
    checkHeadSize('self_attention', s, qkv!);
    return [{ shape: [s.B, s.T, s.H * s.D], dtype: 'f32' }, logsumexpSpec(s)];
  },
  forward(c) {
    const [y, logsumexp] = c.outputs as [Value, Value];
    return attend(c, packed(c.input(0), y, c.attrs.heads, c.inputs[1] ?? null, c.attrs.drop), logsumexp);
  },
  saves: { inputs: [0, 1], outputs: [0, 1] },
  differentiable: [0],
  backward(c) {
    const d = c.grad(0)!;
    return attendBack(
      c,
      packed(c.input(0)!, c.output(0), c.attrs.heads, c.input(1), c.attrs.drop),
      c.upstream(0)!,
      c.output(1),
      { q: d, k: d, v: d },
    );
  },
  cost: ([qkv], _, { heads }) => flashCost(packedSizes(qkv!, heads)),
});
