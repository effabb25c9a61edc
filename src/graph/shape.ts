/** Shapes and element types: what a tensor is before it has a place. */

import { checkArguments } from '../check.ts';

/** What an element of a tensor is; all take four bytes. */
export type DType = 'f32' | 'i32' | 'u32';

/** Lengths along the axes, outermost first: whole numbers from 1 up. */
export type Shape = readonly number[];

/** A tensor without a place: its shape and element type. */
export interface Spec {
  readonly shape: Shape;
  readonly dtype: DType;
}

/** How many elements a tensor of this shape has. */
export function elements(shape: Shape): number {
  checkArguments('elements', { shape: [shape, 'a list'] });
  return shape.reduce((a, b) => a * b, 1);
}

/** An f32 tensor of this shape, as shape rules return it. */
export const f32 = (...shape: number[]): Spec => ({ shape, dtype: 'f32' });

/** An i32 tensor of this shape. */
export const i32 = (...shape: number[]): Spec => ({ shape, dtype: 'i32' });

/** A shape as messages write it: `[2, 3]`. */
export function formatShape(shape: Shape): string {
  checkArguments('formatShape', { shape: [shape, 'a list'] });
  return `[${shape.join(', ')}]`;
}
