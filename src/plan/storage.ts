import { elements, type Shape } from '../graph/shape.ts';

/** Storage on the device. */
export interface Region {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** Bytes that a value occupies: whole vec4s, so that kernels may read the last one. */
export const byteSize = (shape: Shape): number => Math.max(16, Math.ceil(elements(shape) / 4) * 16);

/** Where a per-step scalar lies in the uniform buffer. */
export interface ScalarField {
  readonly offset: number;
  readonly type: 'u32' | 'i32' | 'f32';
}

export function writeField(view: DataView, offset: number, type: ScalarField['type'], value: number): void {
  if (type === 'f32') view.setFloat32(offset, value, true);
  else if (type === 'i32') view.setInt32(offset, value, true);
  else view.setUint32(offset, value, true);
}
