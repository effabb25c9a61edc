/**
 * Which tensors a kernel may read as an image: a read-only storage texture that holds a copy of the tensor.
 */
import type { Shape } from '../graph/shape.ts';

/**
 * Whether a tensor may be bound as an image: a binding `texture_storage_2d<rgba32float, read>` then reads a
 * copy of it, vec4 number i at texel (i % 1024, i / 1024), which the plan makes before the dispatch. An image
 * has at most 8192 rows of 1024 texels, 128 MiB.
 */
export const imageable = (shape: Shape): boolean => shape.reduce((a, b) => a * b, 1) <= 8192 * 1024 * 4;

/** Vec4s across a panel, and rows in a layer of an image in panels. */
export const PANEL_COLUMNS = 8;
export const PANEL_ROWS = 1024;

/**
 * Layers that each panel of a tensor takes as an image in panels, which a binding
 * `texture_storage_2d_array<rgba32float, read>` reads: vec4 c of row r lies at texel (c % 8, r % 1024) of
 * layer (c / 8) * layers + r / 1024. Null where it cannot be one: rows must be multiples of 64 numbers.
 */
export function panelLayers(shape: Shape, maxLayers: number): number | null {
  const row = shape.at(-1) ?? 1;
  const layers = Math.ceil(shape.slice(0, -1).reduce((a, b) => a * b, 1) / PANEL_ROWS);
  return row % 64 === 0 && (row / 4 / PANEL_COLUMNS) * layers <= maxLayers ? layers : null;
}
