/**
 * What a kernel says of itself: its bindings and the fields of its uniform struct, read from the expanded
 * text.
 */
import { MGFError } from '../errors.ts';

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

/**
 * What an expanded kernel says of itself: its group-0 bindings and the fields of its uniform struct (scalars
 * of 4 bytes, in order). Layouts are derived from the text so that text and layout cannot disagree.
 */
export function reflect(name: string, wgsl: string): KernelInterface {
  const code = wgsl.replace(/\/\/.*$/gm, '');
  const bindings: BindingInfo[] = [];
  let uniformType = '';
  for (const m of code.matchAll(
    /@group\(0\)\s*@binding\((\d+)\)\s*var<\s*(uniform|storage)\s*(?:,\s*(read|read_write))?\s*>\s*(\w+)\s*:\s*(\w+)/g,
  )) {
    const type = m[2] === 'uniform' ? 'uniform' : m[3] === 'read_write' ? 'storage' : 'read-only-storage';
    if (type === 'uniform') uniformType = m[5]!;
    bindings.push({ name: m[4]!, binding: Number(m[1]), type });
  }
  for (const m of code.matchAll(
    /@group\(0\)\s*@binding\((\d+)\)\s*var\s+(\w+)\s*:\s*texture_storage_2d(_array)?<\s*rgba32float\s*,\s*read\s*>/g,
  )) {
    bindings.push({ name: m[2]!, binding: Number(m[1]), type: m[3] ? 'panels' : 'image' });
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
