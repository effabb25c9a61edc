import type { AdapterProfile } from '../gpu/device.ts';
import { kernel, type Dispatch } from '../graph/op.ts';
import tileSource from '../../kernels/gemm_tile.wgsl';
import type { Product } from './gemm.ts';
import { ceilDiv, tiles } from './launch.ts';

const TILE = kernel('gemm_tile', tileSource);

/** The dispatch of a matrix product for GPUs. */
export function gpuProduct(_adapter: AdapterProfile, { gemm: g, params, constants, bind, batches }: Product): Dispatch {
  const { grid, blocks } = tiles(ceilDiv(g.n, 64), ceilDiv(g.m, 64), batches);
  return { kernel: TILE, constants, bind, params: { ...params, m_blocks: blocks }, grid };
}
