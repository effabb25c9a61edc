import type { AdapterProfile, MatrixUnit } from '../gpu/adapter.ts';
import { kernel, type Dispatch, type Kernel } from '../graph/op.ts';
import matrixSource from '../../kernels/gemm_matrix.wgsl';
import tileSource from '../../kernels/gemm_tile.wgsl';
import type { Product } from './gemm.ts';
import { ceilDiv, tiles } from './launch.ts';

/** One way to compute a matrix product on a GPU. Every variant is right for every product that it fits; they differ in speed. */
export interface GpuVariant {
  /** What `Dispatch.variant` says, and what `AdapterProfile.rejected` and `tuned` speak of. */
  readonly name: string;
  /** Whether the adapter has the features and limits, and the program the precision. */
  supports(adapter: AdapterProfile): boolean;
  /** Whether the product may be computed so: f16 operands are not for exact products, and a grid has at most 65535 workgroups a side. */
  fits(product: Product): boolean;
}

/** A tile of C per workgroup: bm x bn, k in steps of bk. `rate`: share of the f32 multiply-add ceiling at full load. */
interface Tile { readonly bm: number; readonly bn: number; readonly bk: number; readonly rate: number }

interface Variant extends GpuVariant, Tile {
  threads(adapter: AdapterProfile): number;
  readonly kernel: Kernel;
  constants(adapter: AdapterProfile, product: Product): Record<string, number>;
}

const TILE = kernel('gemm_tile', tileSource);
const MATRIX = kernel('gemm_matrix', matrixSource);

/** Constants of kernels/lib/gemm_stage.wgsl. `natural`: keep each operand in the order that memory has it, else k-major. */
function staging({ bm, bn, bk }: Tile, threads: number, { gemm: g, constants: c }: Product, options: { f16: boolean; natural: boolean; pad: number }): Record<string, number> {
  const operand = (name: 'A' | 'B', edge: number, alongK: boolean): Record<string, number> => {
    const width = c[`${name}_VEC`] ? 4 : 1, run = (alongK ? bk : edge) / width, units = (edge * bk) / width;
    return {
      [`${name}_RUN`]: run, [`${name}_STEP`]: threads / run, [`${name}_ROUNDS`]: ceilDiv(units, threads), [`${name}_WHOLE`]: Number(units % threads === 0),
      [`${name}_K`]: Number(!options.natural || !alongK),
    };
  };
  return {
    ...c, BM: bm, BN: bn, BK: bk, THREADS: threads, PAD: options.pad, F16: Number(options.f16), TAIL: Number(g.mode !== 'tn' && g.k2 % 4 !== 0),
    ...operand('A', bm, g.mode !== 'tn'), ...operand('B', bn, g.mode === 'nt'),
  };
}

const fitsGrid = ({ bm, bn }: Tile, { gemm: g, batches }: Product): boolean => ceilDiv(g.n, bn) <= 65535 && batches * ceilDiv(ceilDiv(g.m, bm), 65535) <= 65535;

function within({ limits }: AdapterProfile, threads: number, bytes: number): boolean {
  return threads <= limits.maxComputeInvocationsPerWorkgroup && bytes <= limits.maxComputeWorkgroupStorageSize;
}

const halfPrecision = (adapter: AdapterProfile): boolean => adapter.precision === 'f16' && adapter.features.has('shader-f16');

// ------------------------------------------------------------------------------------------------------- tiles of multiply-adds

/** `rate` as measured on an A100 (128x64, 64x64, 32x32) or, for the others, guessed from loads per multiply-add: below the measured ones. */
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
  const { bm, bn, bk, tm, tn, rate } = shape, threads = (bm / tm) * (bn / tn), pad = 4;
  return {
    // Staging as f16 halves the traffic with workgroup memory and costs a conversion per load; where nothing is known, the precision asked for decides.
    name: `tile-${bm}x${bn}${f16 ? '-f16' : ''}`, bm, bn, bk, rate: f16 ? rate * 1.05 : rate, kernel: TILE, threads: () => threads,
    supports: (adapter) => (!f16 || halfPrecision(adapter)) && within(adapter, threads, (bm + bn + 2 * pad) * bk * (f16 ? 2 : 4)),
    fits: (product) => !(f16 && product.gemm.exact) && fitsGrid(shape, product),
    constants: (_, product) => ({ ...staging(shape, threads, product, { f16, natural: false, pad }), TM: tm, TN: tn }),
  };
}

// ----------------------------------------------------------------------------------------------------------------- matrix units

/** Blocks of subgroups: `rows` x `columns` of them over the tile. 64x128 with 16 rows a subgroup was the best measured on an A100. */
const matrixShapes: readonly (Tile & { rows: number; columns: number })[] = [
  { bm: 64, bn: 128, bk: 16, rows: 4, columns: 1, rate: 1.6 },
  { bm: 128, bn: 128, bk: 16, rows: 4, columns: 2, rate: 1.5 },
  { bm: 32, bn: 64, bk: 16, rows: 2, columns: 1, rate: 1 },
];

/** The shapes that drivers offer with f32 results, best first. */
const matrixUnits: readonly MatrixUnit[] = [
  { type: 'f16', M: 16, N: 16, K: 16 }, { type: 'f16', M: 16, N: 8, K: 16 }, { type: 'f16', M: 8, N: 16, K: 16 }, { type: 'f16', M: 8, N: 8, K: 8 }, { type: 'f32', M: 8, N: 8, K: 8 },
];

/** Metal reports a range of subgroup sizes; Apple's are 32 wide. */
const subgroupWidth = (adapter: AdapterProfile): number => adapter.subgroupSize || (/apple/i.test(adapter.name) ? 32 : 0);

function matrixVariant(unit: MatrixUnit, order: number, shape: (typeof matrixShapes)[number]): Variant {
  const { bm, bn, bk, rows, columns } = shape, f16 = unit.type === 'f16', { M, N, K } = unit;
  const threads = (adapter: AdapterProfile): number => rows * columns * subgroupWidth(adapter);
  const pad = f16 ? 8 : 4, size = f16 ? 2 : 4, staged = [bm, bn].reduce((sum, edge) => sum + Math.max((edge + pad) * bk, (bk + pad) * edge) * size, 0);
  return {
    name: `matrix-${bm}x${bn}-${unit.type}-${M}x${N}x${K}`, bm, bn, bk, rate: shape.rate * (1 - 0.05 * order), kernel: MATRIX, threads,
    supports: (adapter) => (!f16 || halfPrecision(adapter)) && ['chromium-experimental-subgroup-matrix', 'subgroups'].every((f) => adapter.features.has(f))
      && (adapter.matrixUnits ?? []).some((u) => u.type === unit.type && u.M === M && u.N === N && u.K === K)
      && threads(adapter) >= Math.max(bm, bn) && within(adapter, threads(adapter), staged + rows * columns * M * N * 4),
    fits: (product) => !(f16 && product.gemm.exact) && fitsGrid(shape, product),
    constants: (adapter, product) => ({
      ...staging(shape, threads(adapter), product, { f16, natural: true, pad }), WR: rows, WC: columns, MM: M, MN: N, MK: K, LANES: subgroupWidth(adapter),
    }),
  };
}

// ----------------------------------------------------------------------------------------------------------------------- choice

const variants: readonly Variant[] = [
  ...[false, true].flatMap((f16) => tileShapes.map((shape) => tileVariant(f16, shape))),
  ...matrixUnits.flatMap((unit, order) => matrixShapes.map((shape) => matrixVariant(unit, order, shape))),
];

/** All variants; the first, a 64 x 64 tile of f32, runs within WebGPU's default limits everywhere and is the last resort. */
export const GPU_VARIANTS: readonly GpuVariant[] = variants;

/** The variants that may compute this product on this adapter, less those that were found to compute wrongly. */
export const usableVariants = (adapter: AdapterProfile, product: Product): readonly GpuVariant[] => usable(adapter, product);

function usable(adapter: AdapterProfile, product: Product): readonly Variant[] {
  const all = variants.filter((v) => v.supports(adapter) && v.fits(product) && !adapter.rejected?.has(v.name));
  return all.length ? all : [variants[0]!];
}

/** What products have in common that the same variant is fastest for: the key for `adapter.tuned`. */
function choiceKey(adapter: AdapterProfile, { gemm: g, constants: c, batches }: Product): string {
  const half = halfPrecision(adapter) && !g.exact;
  return `${g.mode} ${g.m}x${g.n}x${g.k1 ?? 1}x${g.k2} z${batches} v${c['A_VEC']}${c['B_VEC']}${c['C_VEC']} ${half ? 'f16' : 'f32'}`;
}

/** WebGPU does not tell how many processors a GPU has; between an integrated GPU's and a large one's. A processor is busy with this many invocations. */
const PROCESSORS = 80, BUSY = 256;

/** Time in arbitrary units: whole tiles, dealt to processors in rounds. Decides only where nothing was measured. */
function estimate(v: Variant, adapter: AdapterProfile, { gemm: g, batches }: Product): number {
  const rounds = ceilDiv(ceilDiv(g.m, v.bm) * ceilDiv(g.n, v.bn) * batches, PROCESSORS), busy = Math.min(1, (rounds * v.threads(adapter)) / BUSY);
  return (rounds * v.bm * v.bn * ceilDiv(g.k2, v.bk) * v.bk) / (v.rate * busy);
}

/** The dispatch of a matrix product for GPUs: the measured variant, or the one that should be fastest. */
export function gpuProduct(adapter: AdapterProfile, product: Product): Dispatch {
  const { gemm: g, params, bind, batches } = product, candidates = usable(adapter, product), choice = choiceKey(adapter, product), tuned = adapter.tuned?.(choice);
  const v = candidates.find(({ name }) => name === tuned) ?? candidates.reduce((best, c) => (estimate(c, adapter, product) < estimate(best, adapter, product) ? c : best));
  const { grid, blocks } = tiles(ceilDiv(g.n, v.bn), ceilDiv(g.m, v.bm), batches);
  return { kernel: v.kernel, constants: v.constants(adapter, product), bind, params: { ...params, m_blocks: blocks }, grid, variant: v.name, choice };
}
