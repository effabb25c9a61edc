import type { Gemm, Product } from './product.ts';
import type { AdapterProfile } from '../../gpu/device.ts';
import { checkFields, VALUE } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import type { Value } from '../../graph/graph.ts';
import { imageable, panelLayers } from '../../launch/image.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import rowsSource from '../../../kernels/gemm_rows.wgsl';
import subgroupSource from '../../../kernels/gemm_subgroup.wgsl';
import { gpuProduct, gpuProducts } from './gemm-gpu.ts';
import { ceilDiv, tiles } from '../../launch/grid.ts';
import { gemmCheck } from './gemm-check.ts';

const SUBGROUP = kernel('gemm_subgroup', subgroupSource, (c) => gemmCheck(c, c['TM']!, 4 * c['SG']!));
const ROWS = kernel('gemm_rows', rowsSource, (c, { subgroupSize }) =>
  gemmCheck(c, 4 * subgroupSize, c['TN']!, c['TN']! / 4),
);

const UNBOUNDED = 0x7fffffff;

/** The dispatch of one matrix product, in the adapter's kernel family. */
export function gemm(adapter: AdapterProfile, g: Gemm): Dispatch {
  checkFields('gemm', 'adapter.', adapter, { family: 'a text' });
  checkFields('gemm', '', g, {
    mode: '"nt"|"nn"|"tn"',
    a: VALUE,
    b: VALUE,
    c: VALUE,
    m: 'a number',
    n: 'a number',
    k2: 'a number',
  });
  const product = describe(g);
  const dispatch = onGpu(adapter) ? gpuProduct(adapter, product) : cpuProduct(adapter, product);
  if (g.activation || g.residual || g.paddedColumns || !product.constants['C_VEC']) return dispatch;
  return {
    ...dispatch,
    product: {
      output: g.c,
      with: ({ activation, pre, result }) => gemm(adapter, { ...g, activation, pre, c: result }),
    },
  };
}

/**
 * The same where sums over k are long and results few (weight gradients): on GPUs the sum may be split, which
 * takes scratch memory and a second dispatch.
 */
export function gemmSplit(
  c: { readonly adapter: AdapterProfile; temp(shape: readonly number[]): Value },
  g: Gemm,
): Dispatch[] {
  const product = describe(g);
  return onGpu(c.adapter) ? gpuProducts(c, product) : [cpuProduct(c.adapter, product)];
}

/**
 * What `Dispatch.variant` says of gemm_subgroup where lanes cannot talk: a software adapter without
 * subgroups.
 */
const LONE = 'gemm_subgroup without subgroups';
const isLone = ({ kind, subgroupSize }: AdapterProfile): boolean => kind === 'cpu' && subgroupSize === 0;

const onGpu = (adapter: AdapterProfile): boolean =>
  (adapter.family === 'gpu' && !isLone(adapter)) ||
  Boolean(adapter.rejected?.has(isLone(adapter) ? LONE : SUBGROUP.name));

function describe(g: Gemm): Product {
  const [n0, n1] = g.batch ?? [1, 1];
  const z = (strides: readonly [number, number] | undefined): [number, number] => [
    n0 > 1 ? (strides?.[0] ?? 0) : 0,
    n1 > 1 ? (strides?.[1] ?? 0) : 0,
  ];
  const aZ = z(g.aZ);
  const bZ = z(g.bZ);
  const cZ = z(g.cZ);
  const k1 = g.k1 ?? 1;
  const mode = { nt: 0, nn: 1, tn: 2 }[g.mode];
  const whole = (...strides: (number | undefined)[]): boolean => strides.every((s) => (s ?? 0) % 4 === 0);
  const outer = (stride: number | undefined): number =>
    g.mode === 'tn' || (g.mInner ?? g.m) < g.m ? (stride ?? 0) : 0;
  const aOuter = outer(g.aOuter);
  const cOuter = g.mInner && g.mInner < g.m ? (g.cOuter ?? 0) : 0;
  const bK1 = k1 > 1 ? (g.bK1 ?? 0) : 0;
  // A row that runs along k may be read in vec4s when rows start on vec4s; a tail past k2 is masked (TAIL)
  // but must lie inside the row.
  const aVec =
    whole(...aZ, g.aOffset, aOuter, g.aRow) &&
    (g.mode === 'tn'
      ? g.aRow >= Math.ceil(g.m / 4) * 4 || g.m % 4 === 0
      : g.k2 % 4 === 0 || g.aRow >= Math.ceil(g.k2 / 4) * 4);
  const bVec =
    whole(...bZ, g.bOffset, bK1, g.bRow, g.bPosition?.inner) &&
    (g.mode !== 'nt' || g.k2 % 4 === 0 || g.bRow >= Math.ceil(g.k2 / 4) * 4);
  const cVec = whole(...cZ, g.cOffset, cOuter, g.cRow) && (g.n % 4 === 0 || Boolean(g.paddedColumns));
  const ua = aVec ? 4 : 1;
  const ub = bVec ? 4 : 1;
  const uc = cVec ? 4 : 1;
  const params = {
    M: g.m,
    N: g.n,
    K1: k1,
    K2: g.k2,
    nz1: n1,
    m_inner: g.mInner ?? g.m,
    k1_div: g.phases ?? 1,
    k1_z: g.phases ? 1 : 0,
    a_z0: aZ[0] / ua,
    a_z1: aZ[1] / ua,
    a_off: (g.aOffset ?? 0) / ua,
    a_outer: aOuter / ua,
    a_row: g.aRow / ua,
    a_pos0: g.aPosition?.start ?? 0,
    a_step: g.aPosition?.step ?? 1,
    a_tap: g.aPosition?.tap ?? 0,
    a_len: g.aPosition?.length ?? UNBOUNDED,
    b_z0: bZ[0] / ub,
    b_z1: bZ[1] / ub,
    b_off: (g.bOffset ?? 0) / ub,
    b_k1: bK1 / ub,
    b_row: g.bRow / ub,
    b_pos0: g.bPosition?.start ?? 0,
    b_step: g.bPosition?.step ?? 1,
    b_tap: g.bPosition?.tap ?? 0,
    b_inner: g.bPosition?.inner ?? g.n,
    b_len: g.bPosition?.length ?? UNBOUNDED,
    c_z0: cZ[0] / uc,
    c_z1: cZ[1] / uc,
    c_off: (g.cOffset ?? 0) / uc,
    c_outer: cOuter / uc,
    c_row: g.cRow / uc,
    c_pos0: g.cPosition?.start ?? 0,
    c_step: g.cPosition?.step ?? 1,
    c_zpos: g.cPosition?.z1 ?? 0,
    c_len: g.cPosition?.length ?? UNBOUNDED,
    bias_z0: g.biasZ0 ?? 0,
    tile_rows: 0,
    a_width: 1,
    a_blocks: 1,
    b_width: 1,
    b_blocks: 1,
    alpha: g.alpha ?? 1,
  };
  const far = Object.entries(params).find(
    ([name, v]) => name !== 'alpha' && (!Number.isInteger(v) || Math.abs(v) > UNBOUNDED),
  );
  if (far)
    throw new MGFError('limit', `matrix product: ${far[0]} = ${far[1]} does not fit 32-bit addressing`);
  const act = Number(g.activation === 'gelu');
  const dact = Number(g.activation === 'gelu-backward');
  const constants = {
    MODE: mode,
    A_VEC: Number(aVec),
    B_VEC: Number(bVec),
    C_VEC: Number(cVec),
    A_IMAGE: 0,
    B_IMAGE: 0,
    BIAS: Number(Boolean(g.bias)),
    ACT: act,
    DACT: dact,
    RES: Number(Boolean(g.residual)),
  };
  const bind: Record<string, Value> = { a: g.a, b: g.b, c: g.c };
  if (g.bias) bind['bias'] = g.bias;
  if (g.pre) bind['pre'] = g.pre;
  if (g.residual) bind['residual'] = g.residual;
  return { gemm: g, params, constants, bind, batches: n0 * n1 };
}

/**
 * Where an operand comes from: storage (0), its image (1) or its image in panels (2), and then vec4s in a row
 * and layers of a panel.
 */
interface Source {
  readonly image: 0 | 1 | 2;
  readonly width: number;
  readonly blocks: number;
}

const STORAGE: Source = { image: 0, width: 1, blocks: 1 };

/** `down`: numbers from one row of a walk down the operand to the next, null where it is not walked down. */
function sourceOf({ shape }: Value, down: number | null, { limits }: AdapterProfile): Source {
  const row = shape.at(-1)!;
  const blocks = down !== null && down % row === 0 ? panelLayers(shape, limits.maxTextureArrayLayers) : null;
  return blocks ? { image: 2, width: row / 4, blocks } : { ...STORAGE, image: imageable(shape) ? 1 : 0 };
}

/** Lanes of a workgroup, and rows of a tile, where a device has no subgroups. */
const LONE_WIDTH = 8;
const LONE_ROWS = 8;
/** Narrower products than this many subgroups take gemm_rows, whose tile is as wide as they are. */
const NARROW = 3;

function cpuProduct(adapter: AdapterProfile, product: Product): Dispatch {
  const { gemm: g, params, constants: c, bind, batches } = product;
  const lone = isLone(adapter);
  const width = lone ? LONE_WIDTH : adapter.subgroupSize;
  const narrow =
    !lone &&
    g.mode !== 'tn' &&
    g.n <= NARROW * width &&
    g.m >= 8 * width &&
    c['A_VEC'] &&
    c['B_VEC'] &&
    c['C_VEC'] &&
    (g.mode === 'nn' || g.k2 % 4 === 0);
  const kernelOf = narrow && !adapter.rejected?.has(ROWS.name) ? ROWS : SUBGROUP;
  const withImages = `${kernelOf.name} of images`;
  const images = adapter.images && !adapter.rejected?.has(withImages);
  // tn walks down the rows of both operands: those come in panels where they can.
  const from = (operand: Value, vec: number | undefined, row: number): Source =>
    images && vec ? sourceOf(operand, g.mode === 'tn' ? row : null, adapter) : STORAGE;
  const a = from(g.a, c['A_VEC'], g.aRow);
  const b = from(g.b, c['B_VEC'], g.bRow);
  const constants = { ...c, A_IMAGE: a.image, B_IMAGE: b.image };
  const common = {
    kernel: kernelOf,
    variant: lone ? LONE : a.image || b.image ? withImages : kernelOf.name,
    bind,
    panels: { ...(a.image === 2 && { a: a.width }), ...(b.image === 2 && { b: b.width }) },
  };
  if (kernelOf === ROWS) {
    const columns = ceilDiv(g.n, width) * width;
    const { grid, blocks } = tiles(ceilDiv(g.n, columns), ceilDiv(g.m, 4 * width), batches);
    return {
      ...common,
      grid,
      params: { ...params, tile_rows: columns / 4, m_blocks: blocks },
      constants: { ...constants, TN: columns, TAIL: Number(g.mode === 'nn') },
    };
  }
  // 24 accumulators fit lavapipe's registers best (8 lanes), 16 SwiftShader's (4 lanes). Fewer only where
  // they pay for a variant of their own: the narrow weight gradients of grouped convolutions. Element-wise
  // stores mean odd shapes, which are small: the tile that compiles fastest. tn reads as much for 32 rows as
  // for 24.
  const most = lone ? LONE_ROWS : width < 8 ? 16 : g.mode === 'tn' ? 32 : 24;
  const rows = !c['C_VEC'] ? width : g.mode === 'tn' ? Math.min(most, ceilDiv(g.m, width) * width) : most;
  // Masking the tail of k costs nn 3 % and saves it a variant; in nt it is for odd inner sizes only.
  const tail = g.mode === 'nn' || (g.mode === 'nt' && g.k2 % 4 !== 0);
  const positions = g.bPosition || !c['B_VEC'];
  const { grid, blocks } = tiles(ceilDiv(g.n, 4 * width), ceilDiv(g.m, rows), batches);
  return {
    ...common,
    grid,
    params: {
      ...params,
      tile_rows: rows,
      m_blocks: blocks,
      a_width: a.width,
      a_blocks: a.blocks,
      b_width: b.width,
      b_blocks: b.blocks,
    },
    constants: {
      ...constants,
      SG: width,
      LONE: Number(lone),
      TM: rows,
      LOADS: lone ? rows : rows / width,
      GROUPS: lone ? ceilDiv(rows, 4) : 1,
      TAIL: Number(tail),
      POSITIONS: Number(Boolean(positions)),
    },
  };
}
