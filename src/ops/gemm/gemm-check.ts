import { activationReference } from '../lib/activation-reference.ts';
import { ANYTHING, checkNumbers, geluSlope, UNTOUCHED, WRITTEN } from '../lib/check.ts';
import type { KernelCheck } from '../../launch/dispatch.ts';
import { ceilDiv, tiles } from '../../launch/grid.ts';

type Numbers = Readonly<Record<string, number>>;

/** Operands of a matrix product by the names of their bindings in kernels/lib/gemm.wgsl. */
export interface GemmOperands {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly bias?: Float32Array;
  readonly pre?: Float32Array;
  readonly residual?: Float32Array;
}

/**
 * The general product of kernels/lib/gemm.wgsl in float64, from the same uniform fields and template
 * constants, into `c` and, as far as it is given, the argument of GELU into `pre`. With SPLIT, the sums of
 * tile_rows blocks of BK each, see kernels/lib/gemm_stage.wgsl. Of the elements, which it counts through, it
 * computes one in `every`; the others become WRITTEN, for speed.
 */
export function gemmReference(
  p: Numbers,
  constants: Numbers,
  [n0, n1]: readonly [number, number],
  x: GemmOperands,
  c: Float64Array,
  pre: Float64Array | null = null,
  every = 1,
): void {
  const { M, N, K1, K2, m_inner, k1_div, k1_z, alpha } = p;
  const mode = constants['MODE']!;
  const unit = (flag: string): number => (constants[flag] ? 4 : 1);
  const of = (letter: 'a' | 'b' | 'c', name: string): number =>
    p[`${letter}_${name}`]! * unit(`${letter.toUpperCase()}_VEC`);
  const aRow = of('a', 'row');
  const aOuter = of('a', 'outer');
  const { a_pos0, a_step, a_tap, a_len } = p;
  const aStep = mode < 2 ? 1 : aRow;
  const bRow = of('b', 'row');
  const bK1 = of('b', 'k1');
  const { b_pos0, b_step, b_tap, b_len, b_inner } = p;
  const bStep = mode === 0 ? 1 : bRow;
  const cRow = of('c', 'row');
  const cOuter = of('c', 'outer');
  const { c_pos0, c_step, c_zpos, c_len, bias_z0 } = p;
  const { BIAS, ACT, DACT, RES, SPLIT } = constants;
  const { a, b } = x;
  const blocks = SPLIT ? ceilDiv(K2!, constants['BK']!) : 1;
  const block = SPLIT ? constants['BK']! : K2!;
  const share = SPLIT ? p['tile_rows']! : K1!;
  const parts = ceilDiv(K1! * blocks, share);
  let next = 0; // columns to the next element to compute
  for (let part = 0; part < n0 * parts; part++)
    for (let z1 = 0; z1 < n1; z1++) {
      const z0 = Math.trunc(part / parts);
      const first = (part % parts) * share;
      const taps = Math.trunc((K1! - z1 * k1_z! + k1_div! - 1) / k1_div!);
      const [aStart, bStart, cStart] = (['a', 'b', 'c'] as const).map(
        (l) => of(l, 'off') + (l === 'c' ? part : z0) * of(l, 'z0') + z1 * of(l, 'z1'),
      ) as [number, number, number];
      for (let m = 0; m < M!; m++) {
        const outer = Math.trunc(m / m_inner!);
        const inner = m % m_inner!;
        const position = c_pos0! + inner * c_step! + z1 * c_zpos!;
        if (position < 0 || position >= c_len!) continue;
        const row = cStart + outer * cOuter + position * cRow;
        for (const out of [c, pre]) out?.fill(WRITTEN, row, row + N!);
        let n = next;
        for (; n < N!; n += every) {
          const tapPosition = b_pos0! + Math.trunc(n / b_inner!) * b_tap!;
          let sum = 0;
          for (let k1 = 0; k1 < taps; k1++) {
            const aPosition = a_pos0! + inner * a_step! + k1 * a_tap!;
            if (mode < 2 && (aPosition < 0 || aPosition >= a_len!)) continue;
            const aBase = aStart + (mode < 2 ? outer * aOuter + aPosition * aRow : k1 * aOuter + m);
            const bBase = bStart + k1 * bK1 + (mode === 0 ? n * bRow : mode === 1 ? n : n % b_inner!);
            const end = Math.min(K2!, (first + share - k1 * blocks) * block);
            for (let k = Math.max(0, (first - k1 * blocks) * block); k < end; k++) {
              const bPosition = mode < 2 ? k : tapPosition + k * b_step!;
              if (mode < 2 || (bPosition >= 0 && bPosition < b_len!))
                sum += a[aBase + k * aStep]! * b[bBase + bPosition * bStep]!;
            }
          }
          const argument = sum * alpha! + (BIAS ? x.bias![n + z0 * bias_z0!]! : 0);
          const value = ACT ? activationReference('gelu', argument) : argument;
          c[row + n] = value * (DACT ? geluSlope(x.pre![row + n]!) : 1) + (RES ? x.residual![row + n]! : 0);
          if (pre) pre[row + n] = argument;
        }
        next = n - N!;
      }
    }
}

/**
 * Elements that are computed in float64: evenly spread, over all places in a tile; the others must only be
 * written.
 */
const SAMPLES = 600;

/**
 * A product that reaches the edges of a variant with `rows` x `columns` tiles: two tiles each way, the second
 * one ragged; an inner size that ends inside a block of k; two batches along z0 and along z1; rows in groups
 * that tiles do not respect; taps, strides and zero padding at both ends of A (of B in the weight-gradient
 * mode); rows that must not be written, and rows of C in interleaved phases; with SPLIT, sums of two parts
 * that meet inside a tap.
 */
export function gemmCheck(constants: Numbers, rows: number, columns: number, tileRows = rows): KernelCheck {
  const mode = constants['MODE']!;
  const on = (flag: string): boolean => Boolean(constants[flag]);
  const up = (n: number): number => Math.ceil(n / 4) * 4;
  const M = rows + 5;
  const N = columns + 6;
  const inner = 7;
  const outers = ceilDiv(M, inner);
  const batches = [2, 2] as const;
  // Without TAIL, kernels take whole vec4s of k only.
  const K2 = mode < 2 && constants['TAIL'] === 0 ? 20 : 21;
  const SPLIT = on('SPLIT');
  const K1 = mode < 2 || SPLIT ? 3 : 2;
  const phases = mode < 2 && !SPLIT;
  const share = SPLIT ? ceilDiv(K1 * ceilDiv(K2, constants['BK']!), 2) : tileRows;
  const parts = SPLIT ? 2 : 1;
  const positions = 2 * inner - 3;
  const tapped = mode === 2 && constants['POSITIONS'] !== 0;
  const taps = tapped ? ceilDiv(N, 12) : 1;
  const tapWidth = !tapped ? N : on('B_VEC') ? 12 : 11;
  // Operands in panels have rows of whole panels and begin some rows before a layer ends.
  const panels = {
    ...(constants['A_IMAGE'] === 2 && { a: ceilDiv(M, 64) * 16 }),
    ...(constants['B_IMAGE'] === 2 && { b: ceilDiv(N, 64) * 16 }),
  };
  const aRow = 4 * (panels.a ?? up(mode < 2 ? K2 : M) / 4);
  const aStart = panels.a ? 4 + 1000 * aRow : 4;
  const aOuter = (mode < 2 ? positions : K2) * aRow;
  const aZ1 = (mode < 2 ? outers : K1) * aOuter;
  const bRow = 4 * (panels.b ?? up(mode === 0 ? K2 : mode === 1 ? N : tapWidth) / 4);
  const bStart = panels.b ? 4 + 1000 * bRow : 4;
  const bLength = mode === 0 ? N : tapped ? K2 - 2 : K2;
  const bZ1 = K1 * bLength * bRow;
  const cRow = up(N) + 4;
  const cOuter = positions * cRow;
  const size = {
    a: ceilDiv(aStart + 4 * aZ1, aRow) * aRow,
    b: ceilDiv(bStart + 4 * bZ1, bRow) * bRow,
    c: 4 + batches[0] * parts * outers * cOuter,
  };
  const in4 = (flag: string, n: number): number => (on(flag) ? n / 4 : n);
  const params = {
    M,
    N,
    K1,
    K2,
    nz1: batches[1],
    m_inner: inner,
    k1_div: phases ? 2 : 1,
    k1_z: Number(phases),
    a_z0: in4('A_VEC', 2 * aZ1),
    a_z1: in4('A_VEC', aZ1),
    a_off: in4('A_VEC', aStart),
    a_outer: in4('A_VEC', aOuter),
    a_row: in4('A_VEC', aRow),
    a_pos0: -1,
    a_step: 2,
    a_tap: 1,
    a_len: positions - 2,
    b_z0: in4('B_VEC', 2 * bZ1),
    b_z1: in4('B_VEC', bZ1),
    b_off: in4('B_VEC', bStart),
    b_k1: in4('B_VEC', bLength * bRow),
    b_row: in4('B_VEC', bRow),
    b_inner: tapWidth,
    b_pos0: tapped ? -2 : 0,
    b_step: 1,
    b_tap: taps > 1 ? 1 : 0,
    b_len: bLength,
    c_z0: in4('C_VEC', outers * cOuter),
    c_z1: 0,
    c_off: in4('C_VEC', 4),
    c_outer: in4('C_VEC', cOuter),
    c_row: in4('C_VEC', cRow),
    c_pos0: -1,
    c_step: 2,
    c_zpos: 1,
    c_len: positions,
    bias_z0: 3,
    alpha: 0.75,
    tile_rows: share,
    a_width: panels.a ?? 1,
    a_blocks: ceilDiv(size.a / aRow, 1024),
    b_width: panels.b ?? 1,
    b_blocks: ceilDiv(size.b / bRow, 1024),
  };
  const { grid, blocks } = tiles(ceilDiv(N, columns), ceilDiv(M, rows), parts * batches[0] * batches[1]);
  // Multiples of 2^-10 are exact in f16: what a variant of f16 operands computes differs by the rounding of
  // sums only.
  const operand = (n: number, seed: number): Float32Array<ArrayBuffer> =>
    on('F16') ? checkNumbers(n, seed).map((v) => Math.round(v * 1024) / 1024) : checkNumbers(n, seed);
  const inputs: Record<string, Float32Array<ArrayBuffer>> = { a: operand(size.a, 1), b: operand(size.b, 2) };
  if (on('BIAS')) inputs['bias'] = checkNumbers(up(N + 3), 3);
  if (on('DACT')) inputs['pre'] = checkNumbers(size.c, 4).map((v) => 3 * v);
  if (on('RES')) inputs['residual'] = checkNumbers(size.c, 5);
  const c = new Float64Array(size.c).fill(UNTOUCHED);
  const pre = on('ACT') ? new Float64Array(size.c).fill(UNTOUCHED) : null;
  let every = Math.ceil((parts * batches[0] * batches[1] * M * N) / SAMPLES) | 1;
  while (N % every === 0 || M % every === 0) every += 2;
  gemmReference(params, constants, batches, inputs as unknown as GemmOperands, c, pre, every);
  // Kernels that store vec4s may write the padding after a row.
  if (on('C_VEC'))
    for (const out of pre ? [c, pre] : [c])
      for (let row = 4; row < size.c; row += cRow)
        if (!Number.isNaN(out[row])) out.fill(ANYTHING, row + N, row + up(N));
  return {
    inputs,
    outputs: pre ? { c, pre } : { c },
    params: { ...params, m_blocks: blocks },
    panels,
    grid,
    tolerance: 1e-4,
  };
}
