import type { AdapterProfile, MatrixUnit } from '../../gpu/adapter.ts';
import type { Value } from '../../graph/graph.ts';
import { kernel, type Dispatch, type Kernel } from '../../launch/dispatch.ts';
import matrixSource from '../../../kernels/gemm_matrix.wgsl';
import reduceSource from '../../../kernels/gemm_reduce.wgsl';
import tileSource from '../../../kernels/gemm_tile.wgsl';
import type { Product } from './product.ts';
import { ceilDiv, spread, tiles } from '../../launch/grid.ts';
import { gemmCheck } from './gemm-check.ts';

/**
 * One way to compute a matrix product on a GPU. Every variant is right for every product that it fits; they
 * differ in speed.
 */
export interface GpuVariant {
  /** What `Dispatch.variant` says, and what `AdapterProfile.rejected` and `tuned` speak of. */
  readonly name: string;
  /** Whether the adapter has the features and limits, and the program the precision. */
  supports(adapter: AdapterProfile): boolean;
  /**
   * Whether the product may be computed so: f16 operands are not for exact products, and a grid has at most
   * 65535 workgroups a side.
   */
  fits(product: Product): boolean;
}

/**
 * A tile of C per workgroup: bm x bn, k in steps of bk. `rate`: share of the f32 multiply-add ceiling at full
 * load.
 */
interface Tile {
  readonly bm: number;
  readonly bn: number;
  readonly bk: number;
  readonly rate: number;
}

interface Variant extends GpuVariant, Tile {
  threads(adapter: AdapterProfile): number;
  readonly kernel: Kernel;
  constants(adapter: AdapterProfile, product: Product): Record<string, number>;
}

const TILE = kernel('gemm_tile', tileSource, (c) => gemmCheck(c, c['BM']!, c['BN']!));
const MATRIX = kernel('gemm_matrix', matrixSource, (c) => gemmCheck(c, c['BM']!, c['BN']!));
const REDUCE = kernel('gemm_reduce', reduceSource);

/** How operands are staged. `natural`: each in the order that memory has it, else k-major. */
interface Staging {
  readonly f16: boolean;
  readonly natural: boolean;
  readonly pad: number;
}

/** Constants of kernels/lib/gemm_stage.wgsl. */
function staging(
  { bm, bn, bk }: Tile,
  threads: number,
  { gemm: g, constants: c }: Product,
  options: Staging,
): Record<string, number> {
  const operand = (name: 'A' | 'B', edge: number, alongK: boolean): Record<string, number> => {
    const width = c[`${name}_VEC`] ? 4 : 1;
    const run = (alongK ? bk : edge) / width;
    const units = (edge * bk) / width;
    return {
      [`${name}_RUN`]: run,
      [`${name}_STEP`]: threads / run,
      [`${name}_ROUNDS`]: ceilDiv(units, threads),
      [`${name}_WHOLE`]: Number(units % threads === 0),
      [`${name}_K`]: Number(!options.natural || !alongK),
    };
  };
  return {
    ...c,
    BM: bm,
    BN: bn,
    BK: bk,
    THREADS: threads,
    PAD: options.pad,
    F16: Number(options.f16),
    TAIL: Number(g.mode !== 'tn' && g.k2 % 4 !== 0),
    ...operand('A', bm, g.mode !== 'tn'),
    ...operand('B', bn, g.mode === 'nt'),
  };
}

const fitsGrid = ({ bm, bn }: Tile, { gemm: g, batches }: Product): boolean =>
  ceilDiv(g.n, bn) <= 65535 && batches * ceilDiv(ceilDiv(g.m, bm), 65535) <= 65535;

function within({ limits }: AdapterProfile, threads: number, bytes: number): boolean {
  return (
    threads <= limits.maxComputeInvocationsPerWorkgroup && bytes <= limits.maxComputeWorkgroupStorageSize
  );
}

const halfPrecision = (adapter: AdapterProfile): boolean =>
  adapter.precision === 'f16' && adapter.features.has('shader-f16');

// ------------------------------------------------------------------------------------ tiles of multiply-adds

/**
 * `rate` as measured on an A100 (128x64, 64x64, 32x32) or, for the others, guessed from loads per
 * multiply-add: below the measured ones.
 */
const tileShapes: readonly (Tile & { tm: number; tn: number })[] = [
  { bm: 64, bn: 64, bk: 16, tm: 4, tn: 4, rate: 0.78 },
  { bm: 128, bn: 64, bk: 16, tm: 8, tn: 4, rate: 0.82 },
  { bm: 128, bn: 128, bk: 8, tm: 8, tn: 8, rate: 0.8 },
  { bm: 32, bn: 32, bk: 16, tm: 4, tn: 4, rate: 0.53 },
  { bm: 128, bn: 32, bk: 16, tm: 4, tn: 4, rate: 0.7 },
  { bm: 32, bn: 128, bk: 16, tm: 4, tn: 4, rate: 0.7 },
  { bm: 256, bn: 16, bk: 8, tm: 4, tn: 4, rate: 0.5 },
];

function tileVariant(f16: boolean, shape: (typeof tileShapes)[number]): Variant {
  const { bm, bn, bk, tm, tn, rate } = shape;
  const threads = (bm / tm) * (bn / tn);
  const pad = 4;
  return {
    // Staging as f16 halves the traffic with workgroup memory and costs a conversion per load; where nothing
    // is known, the precision asked for decides.
    name: `tile-${bm}x${bn}${f16 ? '-f16' : ''}`,
    bm,
    bn,
    bk,
    rate: f16 ? rate * 1.05 : rate,
    kernel: TILE,
    threads: () => threads,
    supports: (adapter) =>
      (!f16 || halfPrecision(adapter)) && within(adapter, threads, (bm + bn + 2 * pad) * bk * (f16 ? 2 : 4)),
    fits: (product) => !(f16 && product.gemm.exact) && fitsGrid(shape, product),
    constants: (_, product) => ({
      ...staging(shape, threads, product, { f16, natural: false, pad }),
      TM: tm,
      TN: tn,
    }),
  };
}

// ---------------------------------------------------------------------------------------------- matrix units

/**
 * Blocks of subgroups: `rows` x `columns` of them over the tile. 64x128 with 16 rows a subgroup was the best
 * measured on an A100.
 */
const matrixShapes: readonly (Tile & { rows: number; columns: number })[] = [
  { bm: 64, bn: 128, bk: 16, rows: 4, columns: 1, rate: 1.6 },
  { bm: 128, bn: 64, bk: 16, rows: 4, columns: 1, rate: 1.5 },
  { bm: 32, bn: 64, bk: 16, rows: 2, columns: 1, rate: 1 },
];

/** The shapes that drivers offer with f32 results, best first. */
const matrixUnits: readonly MatrixUnit[] = [
  { type: 'f16', M: 16, N: 16, K: 16 },
  { type: 'f16', M: 16, N: 8, K: 16 },
  { type: 'f16', M: 8, N: 16, K: 16 },
  { type: 'f16', M: 8, N: 8, K: 8 },
  { type: 'f32', M: 8, N: 8, K: 8 },
];

/** Metal reports a range of subgroup sizes; Apple's are 32 wide. */
const subgroupWidth = (adapter: AdapterProfile): number =>
  adapter.subgroupSize || (/apple/i.test(adapter.name) ? 32 : 0);

function matrixVariant(unit: MatrixUnit, order: number, shape: (typeof matrixShapes)[number]): Variant {
  const { bm, bn, bk, rows, columns } = shape;
  const f16 = unit.type === 'f16';
  const { M, N, K } = unit;
  const threads = (adapter: AdapterProfile): number => rows * columns * subgroupWidth(adapter);
  const pad = f16 ? 8 : 4;
  const size = f16 ? 2 : 4;
  const staged = [bm, bn].reduce(
    (sum, edge) => sum + Math.max((edge + pad) * bk, (bk + pad) * edge) * size,
    0,
  );
  return {
    name: `matrix-${bm}x${bn}-${unit.type}-${M}x${N}x${K}`,
    bm,
    bn,
    bk,
    rate: shape.rate * (1 - 0.05 * order),
    kernel: MATRIX,
    threads,
    supports: (adapter) =>
      (!f16 || halfPrecision(adapter)) &&
      ['chromium-experimental-subgroup-matrix', 'subgroups'].every((f) => adapter.features.has(f)) &&
      (adapter.matrixUnits ?? []).some((u) => u.type === unit.type && u.M === M && u.N === N && u.K === K) &&
      threads(adapter) >= Math.max(bm, bn) &&
      within(adapter, threads(adapter), staged + rows * columns * M * N * 4),
    fits: (product) => !(f16 && product.gemm.exact) && fitsGrid(shape, product),
    constants: (adapter, product) => ({
      ...staging(shape, threads(adapter), product, { f16, natural: true, pad }),
      WR: rows,
      WC: columns,
      MM: M,
      MN: N,
      MK: K,
      LANES: subgroupWidth(adapter),
    }),
  };
}

// ---------------------------------------------------------------------------------------------------- choice

const variants: readonly Variant[] = [
  ...[false, true].flatMap((f16) => tileShapes.map((shape) => tileVariant(f16, shape))),
  ...matrixUnits.flatMap((unit, order) => matrixShapes.map((shape) => matrixVariant(unit, order, shape))),
];

/**
 * All variants; the first, a 64 x 64 tile of f32, runs within WebGPU's default limits everywhere and is the
 * last resort.
 */
export const GPU_VARIANTS: readonly GpuVariant[] = variants;

/**
 * The variants that may compute this product on this adapter, less those that were found to compute wrongly.
 */
function usable(adapter: AdapterProfile, product: Product): readonly Variant[] {
  const all = variants.filter(
    (v) => v.supports(adapter) && v.fits(product) && !adapter.rejected?.has(v.name),
  );
  return all.length ? all : [variants[0]!];
}

/** What products have in common that the same variant is fastest for: the key for `adapter.tuned`. */
function choiceKey(adapter: AdapterProfile, { gemm: g, constants: c, batches }: Product): string {
  const half = halfPrecision(adapter) && !g.exact;
  return (
    `${g.mode} ${g.m}x${g.n}x${g.k1 ?? 1}x${g.k2} z${batches} v${c['A_VEC']}${c['B_VEC']}${c['C_VEC']} ` +
    `${half ? 'f16' : 'f32'}`
  );
}

/**
 * WebGPU does not tell how many processors a GPU has; between an integrated GPU's and a large one's. A
 * processor is busy with this many invocations.
 */
const PROCESSORS = 80;
const BUSY = 128;
/**
 * Multiply-adds that a processor of those does in the time of: moving one f32 to memory and back as its share
 * of all processors do; one more launch.
 */
const MOVE = 40;
const LAUNCH = 5e5;
/** Parts of a split sum: at least this many blocks of k each, and not more bytes in all. */
const BLOCKS = 8;
const PART_BYTES = 2 ** 26;

/** A variant and how many parts its sums are split into. */
interface Choice {
  readonly variant: Variant;
  readonly parts: number;
  readonly time: number;
}

const blocksOf = (v: Tile, { gemm: g }: Product): number => (g.k1 ?? 1) * ceilDiv(g.k2, v.bk);
/** Bytes of one part: all of C in rows of whole vec4s. */
const partBytes = ({ gemm: g, batches }: Product): number => 16 * batches * g.m * ceilDiv(g.n, 4);

/**
 * Time in arbitrary units: whole tiles, dealt to processors in rounds. Decides only where nothing was
 * measured.
 */
function estimate(variant: Variant, adapter: AdapterProfile, product: Product, parts: number): Choice {
  const { gemm: g, batches } = product;
  const blocks = ceilDiv(blocksOf(variant, product), parts);
  const rounds = ceilDiv(ceilDiv(g.m, variant.bm) * ceilDiv(g.n, variant.bn) * batches * parts, PROCESSORS);
  const busy = Math.min(1, (rounds * variant.threads(adapter)) / BUSY);
  const reduce = parts > 1 ? LAUNCH + (MOVE * parts * partBytes(product)) / 4 / PROCESSORS : 0;
  return {
    variant,
    parts,
    time: (rounds * variant.bm * variant.bn * blocks * variant.bk) / (variant.rate * busy) + reduce,
  };
}

/** The fastest number of parts for a variant: a few tiles with a long sum leave most of a GPU idle. */
function split(variant: Variant, adapter: AdapterProfile, product: Product): Choice {
  const { gemm: g, batches } = product;
  const whole = estimate(variant, adapter, product, 1);
  if (g.phases || ceilDiv(g.m, variant.bm) > 65535) return whole;
  const bytes = Math.min(PART_BYTES, adapter.limits.maxStorageBufferBindingSize);
  const most = Math.min(blocksOf(variant, product) / BLOCKS, bytes / partBytes(product), 65535 / batches);
  let best = whole;
  for (let parts = 2; parts <= most; parts *= 2) {
    const next = estimate(variant, adapter, product, parts);
    if (next.time < best.time) best = next;
  }
  return best;
}

const SOFTWARE_TILE = 'tile-32x32';

function choose(
  adapter: AdapterProfile,
  product: Product,
  key: string,
  weigh: (v: Variant) => Choice,
): Choice {
  const candidates = usable(adapter, product);
  const tuned = adapter.tuned?.(
    key,
    candidates.map((v) => v.name),
  );
  const known = candidates.find(({ name }) => name === tuned);
  if (known) return weigh(known);
  // Software adapters that lack subgroups compile these kernels slowly and gain nothing from the others: one
  // small tile does for all.
  if (adapter.kind === 'cpu') {
    const name = halfPrecision(adapter) && !product.gemm.exact ? `${SOFTWARE_TILE}-f16` : SOFTWARE_TILE;
    return estimate(candidates.find((v) => v.name === name) ?? candidates[0]!, adapter, product, 1);
  }
  return candidates.map(weigh).reduce((best, c) => (c.time < best.time ? c : best));
}

/** The dispatch of a matrix product for GPUs: by the variant that was fastest, or the one that should be. */
export function gpuProduct(adapter: AdapterProfile, product: Product): Dispatch {
  const choice = choiceKey(adapter, product);
  return launch(
    adapter,
    product,
    choose(adapter, product, choice, (v) => estimate(v, adapter, product, 1)).variant,
    choice,
  );
}

function launch(adapter: AdapterProfile, product: Product, v: Variant, choice: string, parts = 1): Dispatch {
  const { gemm: g, params, bind, batches } = product;
  const { grid, blocks } = tiles(ceilDiv(g.n, v.bn), ceilDiv(g.m, v.bm), batches * parts);
  return {
    kernel: v.kernel,
    constants: { ...v.constants(adapter, product), SPLIT: Number(parts > 1) },
    bind,
    grid,
    variant: v.name,
    choice,
    params: {
      ...params,
      m_blocks: blocks,
      ...(parts > 1 && { tile_rows: ceilDiv(blocksOf(v, product), parts) }),
    },
  };
}

/**
 * The dispatches of a matrix product for GPUs whose sum over k may be split over workgroups: parts in scratch
 * memory, then their sum with the epilogue. For the weight gradients: few results, each a sum over every
 * frame of the batch.
 */
export function gpuProducts(
  c: { readonly adapter: AdapterProfile; temp(shape: readonly number[]): Value },
  product: Product,
): Dispatch[] {
  const { adapter } = c;
  const { gemm: g, params, constants, bind, batches } = product;
  const key = `${choiceKey(adapter, product)} split`;
  const { variant, parts: wanted } = choose(adapter, product, key, (v) => split(v, adapter, product));
  const blocks = blocksOf(variant, product);
  const parts = ceilDiv(blocks, ceilDiv(blocks, wanted)); // as many as ceil(blocks / wanted) blocks each make
  if (parts === 1) return [launch(adapter, product, variant, key)];
  const row = ceilDiv(g.n, 4);
  const z1 = g.m * row;
  const part = params['nz1']! * z1;
  const scratch = c.temp([parts, partBytes(product) / 4]);
  const plain = { ...constants, C_VEC: 1, BIAS: 0, ACT: 0, DACT: 0, RES: 0 };
  const sums: Product = {
    gemm: g,
    batches,
    constants: plain,
    bind: { a: bind['a']!, b: bind['b']!, c: scratch },
    params: {
      ...params,
      alpha: 1,
      c_z0: part,
      c_z1: z1,
      c_off: 0,
      c_outer: params['m_inner']! * row,
      c_row: row,
      c_pos0: 0,
      c_step: 1,
      c_zpos: 0,
      c_len: g.m,
    },
  };
  const units = spread(ceilDiv(g.m * row, 64));
  return [
    launch(adapter, sums, variant, key, parts),
    {
      kernel: REDUCE,
      constants: { ...constants, A_VEC: 1, A_IMAGE: 0, B_IMAGE: 0 },
      grid: [units[0], units[1], batches],
      bind: { ...bind, a: scratch, b: scratch },
      params: { ...params, K1: parts, a_z0: parts * part, a_z1: z1, a_outer: part, a_row: row, m_blocks: 1 },
    },
  ];
}
