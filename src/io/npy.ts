import { checkArguments, FLOATS } from '../check.ts';
import { MGFError } from '../errors.ts';

/**
 * A NumPy .npy file (format 1.0, little-endian f32, row-major) of `data` with any number of dimensions.
 * Error (`shape`): the data do not fill the shape.
 */
export function writeNpy(data: Float32Array, shape: readonly number[]): Uint8Array {
  checkArguments('writeNpy', { data: [data, FLOATS], shape: [shape, 'a list'] });
  const elements = shape.reduce((n, size) => n * size, 1);
  if (elements !== data.length)
    throw new MGFError(
      'shape',
      `An array of shape [${shape.join(', ')}] needs ${elements} values, but has ${data.length}.`,
    );
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': ${tuple}, }`;
  // Magic, version and length take 10 bytes; the header is padded so that the data start at a multiple of 64.
  const dataStart = Math.ceil((10 + text.length + 1) / 64) * 64;
  const out = new Uint8Array(dataStart + data.byteLength);
  out.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
  new DataView(out.buffer).setUint16(8, dataStart - 10, true);
  out.set(new TextEncoder().encode(`${text.padEnd(dataStart - 11)}\n`), 10);
  out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), dataStart);
  return out;
}
