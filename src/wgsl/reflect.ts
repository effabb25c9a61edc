/**
 * What a kernel says of itself: its bindings and the fields of its uniform struct, read from the expanded
 * text.
 */
import { MGFError } from '../errors.ts';
import { declarations, withoutComments, type Declaration } from './declarations.ts';

/**
 * `image`, `panels`: a read-only storage texture of rgba32float, plain or in layers, which holds a copy of a
 * tensor.
 */
export interface BindingInfo {
  name: string;
  binding: number;
  type: 'read-only-storage' | 'storage' | 'uniform' | 'image' | 'panels';
}
export interface FieldInfo {
  name: string;
  type: 'u32' | 'i32' | 'f32';
}
export interface KernelInterface {
  bindings: BindingInfo[];
  fields: FieldInfo[];
}

/** How a declared resource is bound, or null for what kernels of this engine cannot bind. */
function bindingType({ space, access, type, of }: Declaration): BindingInfo['type'] | null {
  if (space === 'uniform') return 'uniform';
  if (space === 'storage') return access === 'read_write' ? 'storage' : 'read-only-storage';
  if (space !== '' || of !== '<rgba32float,read>') return null;
  return type === 'texture_storage_2d' ? 'image' : type === 'texture_storage_2d_array' ? 'panels' : null;
}

/**
 * What an expanded kernel says of itself: its group-0 bindings (buffers, then images) and the fields of its
 * uniform struct (scalars of
 * 4 bytes, in order). Layouts are derived from the text so that text and layout cannot disagree. `entry`: see
 * `declarations`.
 * Throws MGFError 'kernel' for what cannot be bound.
 */
export function reflect(name: string, wgsl: string, entry?: string): KernelInterface {
  const code = withoutComments(wgsl);
  const declared = declarations(name, code, entry);
  const found = declared.map((d): BindingInfo => {
    const type = bindingType(d);
    if (type === null) {
      throw new MGFError(
        'kernel',
        `${name}: "${d.name}" (${d.type}${d.of}) cannot be bound; a kernel may ` +
          `have storage buffers, one uniform ` +
          'struct, and images of type texture_storage_2d<rgba32float, read>.',
      );
    }
    return { name: d.name, binding: d.binding, type };
  });
  const twice = found.find((b, i) => found.findIndex((other) => other.binding === b.binding) < i);
  if (twice)
    throw new MGFError(
      'kernel',
      `${name}: "${twice.name}" has @binding(${twice.binding}), as ` +
        `another variable has: give it a number of its own.`,
    );
  const isImage = ({ type }: BindingInfo): boolean => type === 'image' || type === 'panels';
  const bindings = [...found.filter((b) => !isImage(b)), ...found.filter(isImage)];
  const uniforms = declared.filter((d) => d.space === 'uniform');
  const uniformType = uniforms[0]?.type ?? '';
  if (uniforms.length > 1) {
    throw new MGFError(
      'kernel',
      `${name}: ${uniforms.map((d) => d.name).join(' and ')} are uniform; a ` +
        `kernel has one uniform struct, so put their fields into one.`,
    );
  }
  const storage = bindings.filter((b) => b.type === 'storage' || b.type === 'read-only-storage').length;
  if (storage > 8)
    throw new MGFError(
      'kernel',
      `${name}: ${storage} storage bindings; WebGPU guarantees 8, so split the kernel`,
    );
  const fields: FieldInfo[] = [];
  if (uniformType) {
    const body = new RegExp(`struct\\s+${uniformType}\\s*\\{([^}]*)\\}`).exec(code)?.[1];
    if (body === undefined)
      throw new MGFError('kernel', `${name}: no struct ${uniformType} for its uniform binding`);
    for (const field of body
      .split(',')
      .map((f) => f.trim())
      .filter(Boolean)) {
      const m = /^(\w+)\s*:\s*(u32|i32|f32)$/.exec(field);
      if (!m) throw new MGFError('kernel', `${name}: uniform field "${field}" must be a u32, i32 or f32`);
      fields.push({ name: m[1]!, type: m[2] as FieldInfo['type'] });
    }
  }
  return { bindings, fields };
}
