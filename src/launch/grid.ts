import { checkArguments, checkFields } from '../check.ts';
import type { AdapterProfile } from '../gpu/device.ts';
import { MGFError } from '../errors.ts';

type Grid = readonly [number, number, number];

/**
 * `count` workgroups spread over x and y (each at most 65535); kernels put them together again as y * 65535 +
 * x.
 */
export function spread(count: number): Grid {
  checkArguments('spread', { count: [count, 'a number'] });
  if (count > 65535 * 65535)
    throw new MGFError('limit', `a launch of ${count} workgroups is more than WebGPU can address`);
  return [Math.min(count, 65535), Math.max(1, Math.ceil(count / 65535)), 1];
}

/** a / b rounded up: how many groups of b hold a things. */
export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

/** Invocations per workgroup of element-wise kernels. */
const WG = 64;

/**
 * One invocation per element (or per vec4): constants and grid for kernels that include lib/invocation.wgsl.
 */
export function overElements(count: number): { constants: { WG: number }; grid: Grid } {
  checkArguments('overElements', { count: [count, 'a number'] });
  return { constants: { WG }, grid: spread(ceilDiv(count, WG)) };
}

/**
 * One row per invocation on CPU adapters, per workgroup of 64 on GPUs: constants and grid for kernels that
 * include lib/rows.wgsl. On CPU adapters a workgroup is one subgroup, so that few rows still spread over all
 * cores.
 */
export function overRows(
  rows: number,
  adapter: AdapterProfile,
): { constants: { LANES: number; WG: number }; grid: Grid } {
  checkArguments('overRows', { rows: [rows, 'a number'] });
  checkFields('overRows', 'adapter.', adapter, { family: 'a text' });
  if (adapter.family === 'cpu') {
    const width = adapter.subgroupSize;
    return { constants: { LANES: 1, WG: width }, grid: spread(ceilDiv(rows, width)) };
  }
  return { constants: { LANES: 64, WG: 64 }, grid: spread(rows) };
}

/** Column tiles in x, row tiles in y; those over 65535 go on in z, with the batch. */
export function tiles(
  columns: number,
  rows: number,
  batch: number,
): { grid: [number, number, number]; blocks: number } {
  const blocks = ceilDiv(rows, 65535);
  const grid: [number, number, number] = [columns, Math.min(rows, 65535), batch * blocks];
  if (grid.some((n) => n > 65535))
    throw new MGFError(
      'limit',
      `matrix product: a grid of ${grid.join(' x ')} tiles is over WebGPU's 65535; split the batch`,
    );
  return { grid, blocks };
}
