/** What an adapter allows a tensor to be. */
import { MGFError } from '../errors.ts';
import type { AdapterProfile } from '../gpu/device.ts';
import type { Value } from '../graph/graph.ts';
import { formatShape } from '../graph/shape.ts';
import { sizesApart } from '../numbers.ts';
import { nodeLabel } from './names.ts';
import { byteSize } from './storage.ts';

/** Throws MGFError 'limit' for a value that does not fit into one buffer, or one binding. */
export function checkLimits(adapter: AdapterProfile, v: Value): void {
  const bytes = byteSize(v.shape);
  const { limits } = adapter;
  const where = `${v.node ? nodeLabel(v.node) : v.name} ${formatShape(v.shape)}`;
  if (bytes > limits.maxBufferSize) throw tooLarge(adapter, where, bytes, 'maxBufferSize');
  if (bytes > limits.maxStorageBufferBindingSize)
    throw tooLarge(adapter, where, bytes, 'maxStorageBufferBindingSize');
}

export function tooLarge(
  adapter: AdapterProfile,
  where: string,
  bytes: number,
  limit: 'maxBufferSize' | 'maxStorageBufferBindingSize',
): MGFError {
  const [needed, allowed] = sizesApart(bytes, adapter.limits[limit], 'MiB', 0);
  return new MGFError(
    'limit',
    `${where} needs ${needed}, and ${adapter.name} allows ${allowed} (${limit}); use a smaller ` +
      'batch, shorter crops or a smaller preset',
  );
}
