/** The last pass before binding: the uniform fields of all dispatches in one buffer. No device. */
import { MGFError } from '../errors.ts';
import type { Compiled } from '../gpu/pipelines.ts';
import type { Node } from '../graph/graph.ts';
import type { Dispatch, Scalar } from '../launch/dispatch.ts';
import { nodeLabel } from './names.ts';
import { writeField, type ScalarField } from './storage.ts';

export interface Uniforms {
  data: ArrayBuffer;
  offsets: number[];
  sizes: number[];
  scalars: Map<string, ScalarField[]>;
}

/**
 * One slot a dispatch, aligned to `align` bytes; fields that are per-step scalars are remembered by name.
 * Throws MGFError 'kernel' for fields that do not match the kernel's.
 */
export function packUniforms(
  align: number,
  dispatches: readonly Dispatch[],
  compiled: readonly Pick<Compiled, 'name' | 'interface'>[],
  owners: readonly Node[],
): Uniforms {
  const offsets: number[] = [];
  const sizes: number[] = [];
  let end = 0;
  for (const c of compiled) {
    offsets.push(end);
    sizes.push(Math.max(16, Math.ceil(c.interface.fields.length / 4) * 16));
    end += Math.ceil(sizes.at(-1)! / align) * align;
  }
  const data = new ArrayBuffer(Math.max(align, end));
  const view = new DataView(data);
  const scalars = new Map<string, ScalarField[]>();
  dispatches.forEach((d, i) => {
    const params = d.params ?? {};
    const { fields } = compiled[i]!.interface;
    const where = `${nodeLabel(owners[i]!)}: kernel ${compiled[i]!.name}`;
    const unknown = Object.keys(params).find((name) => !fields.some((f) => f.name === name));
    if (unknown)
      throw new MGFError(
        'kernel',
        `${where} has no uniform field "${unknown}" (it has ${fields.map((f) => f.name).join(', ')})`,
      );
    fields.forEach(({ name, type }, j) => {
      const value: number | Scalar | undefined = params[name];
      const at = offsets[i]! + 4 * j;
      if (value === undefined) throw new MGFError('kernel', `${where} needs a uniform field "${name}"`);
      if (typeof value === 'number') writeField(view, at, type, value);
      else scalars.set(value.scalar, [...(scalars.get(value.scalar) ?? []), { offset: at, type }]);
    });
  });
  return { data, offsets, sizes, scalars };
}
