import { elements, type Spec } from '../../graph/shape.ts';

/**
 * A tensor as rows of its last axis, in the units that row kernels count: vec4s where the length allows
 * (VEC), else single values.
 */
export function rowLayout(x: Spec): { rows: number; d: number; width: number; VEC: number } {
  const d = x.shape.at(-1)!;
  const VEC = Number(d % 4 === 0);
  return { rows: elements(x.shape) / d, d, width: VEC ? d / 4 : d, VEC };
}
