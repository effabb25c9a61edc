import type { AdapterProfile } from '../gpu/device.ts';
import { elements } from '../graph/shape.ts';
import type { Value } from '../graph/graph.ts';
import type { View } from '../launch/dispatch.ts';

/** A run of vec4s of a flat buffer that one dispatch can bind. */
export interface Chunk {
  /** Element index of its start. */
  readonly first: number;
  readonly elements: number;
  of(value: Value): Value | View;
}

/**
 * Splits n elements so that no binding exceeds `limit` bytes, the adapter's limit unless told otherwise;
 * starts lie on multiples of 256 bytes.
 */
export function chunks(
  like: Value,
  adapter: AdapterProfile,
  limit = adapter.limits.maxStorageBufferBindingSize,
): Chunk[] {
  const n = elements(like.shape);
  const bytes = Math.max(16, Math.ceil(n / 4) * 16);
  const size = Math.floor(limit / 256) * 256;
  if (bytes <= size) return [{ first: 0, elements: n, of: (value) => value }];
  return Array.from({ length: Math.ceil(bytes / size) }, (_, i) => {
    const offset = i * size;
    const length = Math.min(size, bytes - offset);
    return {
      first: offset / 4,
      elements: Math.min(length / 4, n - offset / 4),
      of: (value) => ({ value, offset, size: length }),
    };
  });
}
