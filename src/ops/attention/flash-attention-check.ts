import { checkNumbers, UNTOUCHED, WRITTEN } from '../lib/check.ts';
import type { KernelCheck } from '../../launch/dispatch.ts';
import { ceilDiv } from '../../launch/grid.ts';
import { philox4x32 } from '../../random/philox.ts';

/** Two batches, two heads, and more queries and keys than a tile has rows, by an odd number. */
const B = 2;
const H = 2;
const T = 67;
const S = 69;
/** One row in so many is computed in float64: no divisor of a tile. */
const EVERY = 7;
const SEED = [11, 12] as const;
const STEP = 3;
const NODE = 5;
const DROPPED = 0.3;

/**
 * Attention on heads that lie apart inside larger rows, at odd places, for flash_attention ('y'),
 * flash_attention_dq and flash_attention_dkv. What backward takes from forward (logsumexp, dot(dy, y)) is
 * made up: each row then needs no other.
 */
export function flashCheck(
  constants: Readonly<Record<string, number>>,
  result: 'y' | 'dq' | 'dkv',
): KernelCheck {
  const { D4, KC, BC, VR, F16, MASK, DROP, JOINT } = constants as Record<string, number>;
  const D = 4 * D4!;
  const alpha = 1 / Math.sqrt(D);
  // In vec4s. k and v are parts of rows of one layout.
  const q = { row: H * D4! + 1, batch: T * (H * D4! + 1) + 3, offset: 2 };
  const k = { row: 2 * H * D4! + 1, batch: S * (2 * H * D4! + 1), offset: 1 };
  const vOffset = 1 + H * D4!;
  const y = { row: H * D4!, batch: T * H * D4! + 1 };
  const size = { q: 4 * (q.offset + B * q.batch), k: 4 * (1 + B * k.batch), y: 4 * B * y.batch };
  // Multiples of 2^-10 are exact in f16; weights are not.
  const numbers = (n: number, seed: number): Float32Array<ArrayBuffer> =>
    F16 ? checkNumbers(n, seed).map((v) => Math.round(v * 1024) / 1024) : checkNumbers(n, seed);
  const Q = numbers(size.q, 1);
  const K = numbers(size.k, 2);
  const V = numbers(size.k, 3);
  const dY = numbers(size.y, 4);
  const mask = checkNumbers(B * S, 5).map((v) => Number(v > -0.4));
  const stats = checkNumbers(2 * B * H * T, 6).map((v, i) => (i % 2 ? v : 2 + 0.2 * v));
  const at = {
    q: (b: number, h: number, t: number) => 4 * (q.offset + b * q.batch + t * q.row + h * D4!),
    y: (b: number, h: number, t: number) => 4 * (b * y.batch + t * y.row + h * D4!),
    k: (b: number, h: number, s: number) => 4 * (k.offset + b * k.batch + s * k.row + h * D4!),
    v: (b: number, h: number, s: number) => 4 * (vOffset + b * k.batch + s * k.row + h * D4!),
  };
  const dot = (x: Float32Array, i: number, w: Float32Array, j: number): number => {
    let sum = 0;
    for (let c = 0; c < D; c++) sum += x[i + c]! * w[j + c]!;
    return sum;
  };
  const real = (b: number, s: number): boolean => !MASK || mask[b * S + s]! > 0.5;
  const words = new Uint32Array(4);
  const threshold = Math.floor(DROPPED * 2 ** 32);
  const factor = (b: number, h: number, t: number, s: number): number => {
    if (!DROP) return 1;
    philox4x32(((b * H + h) * T + t) * ceilDiv(S, 4) + (s >> 2), STEP, NODE, 0, SEED[0], SEED[1], words);
    return words[s % 4]! < threshold ? 0 : 1 / (1 - DROPPED);
  };
  /** Weight and gradient of the score of a pair, from the statistics of its query. */
  const pair = (b: number, h: number, t: number, s: number): { weight: number; slope: number; f: number } => {
    const row = 2 * ((b * H + h) * T + t);
    const f = factor(b, h, t, s);
    const weight = real(b, s)
      ? Math.exp(Math.min(0, alpha * dot(Q, at.q(b, h, t), K, at.k(b, h, s)) - stats[row]!))
      : 0;
    return { weight, f, slope: weight * (f * dot(dY, at.y(b, h, t), V, at.v(b, h, s)) - stats[row + 1]!) };
  };
  const add = (out: Float64Array, i: number, scale: number, x: Float32Array, j: number): void => {
    for (let c = 0; c < D; c++) out[i + c]! += scale * x[j + c]!;
  };
  const empty = (n: number): Float64Array => new Float64Array(n).fill(UNTOUCHED);
  const outputs: Record<string, Float64Array> =
    result === 'y'
      ? { y: empty(size.y), logsumexp: empty(B * H * T) }
      : result === 'dq'
        ? { dq: empty(size.q) }
        : { dk: empty(size.k), ...(!JOINT && { dv: empty(size.k) }) };
  const dk = outputs['dk']!;
  const dv = JOINT ? dk : outputs['dv']!;
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let r = 0; r < (result === 'dkv' ? S : T); r++) {
        const computed = (r + 3 * h + b) % EVERY === 0;
        const start = computed ? 0 : WRITTEN;
        const queries = computed ? T : 0;
        const keys = computed ? S : 0;
        if (result === 'dkv') {
          dk.fill(start, at.k(b, h, r), at.k(b, h, r) + D);
          dv.fill(start, at.v(b, h, r), at.v(b, h, r) + D);
          for (let t = 0; t < queries; t++) {
            const { weight, slope, f } = pair(b, h, t, r);
            add(dk, at.k(b, h, r), alpha * slope, Q, at.q(b, h, t));
            add(dv, at.v(b, h, r), f * weight, dY, at.y(b, h, t));
          }
        } else if (result === 'dq') {
          outputs['dq']!.fill(start, at.q(b, h, r), at.q(b, h, r) + D);
          for (let s = 0; s < keys; s++)
            add(outputs['dq']!, at.q(b, h, r), alpha * pair(b, h, r, s).slope, K, at.k(b, h, s));
        } else {
          outputs['y']!.fill(start, at.y(b, h, r), at.y(b, h, r) + D);
          let total = 0;
          for (let s = 0; s < S; s++)
            if (real(b, s)) total += Math.exp(alpha * dot(Q, at.q(b, h, r), K, at.k(b, h, s)));
          outputs['logsumexp']![(b * H + h) * T + r] = Math.log(total);
          for (let s = 0; s < keys; s++) {
            if (real(b, s))
              add(
                outputs['y']!,
                at.y(b, h, r),
                (factor(b, h, r, s) * Math.exp(alpha * dot(Q, at.q(b, h, r), K, at.k(b, h, s)))) / total,
                V,
                at.v(b, h, s),
              );
          }
        }
      }
  return {
    inputs: { q: Q, k: K, v: V, ...(MASK && { key_mask: mask }), ...(result !== 'y' && { dy: dY, stats }) },
    outputs,
    params: {
      T,
      S,
      q_batch: q.batch,
      q_head: D4!,
      q_row: q.row,
      q_offset: q.offset,
      k_batch: k.batch,
      k_head: D4!,
      k_row: k.row,
      k_offset: k.offset,
      v_offset: vOffset,
      y_batch: y.batch,
      y_head: D4!,
      y_row: y.row,
      alpha,
      d4: D4!,
      kc: KC!,
      bc: BC!,
      vr: VR!,
      seed_lo: SEED[0],
      seed_hi: SEED[1],
      step: STEP,
      node: NODE,
      threshold,
      scale: 1 / (1 - DROPPED),
    },
    grid: [ceilDiv(result === 'dkv' ? S : T, 64), H, B],
    tolerance: F16 ? 5e-3 : 1e-4,
  };
}
