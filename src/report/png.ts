/**
 * Matrices as PNG images: 8 bits a pixel through a 256-colour palette, so that a spectrogram is a few
 * kilobytes.
 */
import { deflateSync } from 'node:zlib';
import { MGFError } from '../errors.ts';
import { palette } from './palette.ts';
import type { ColourMap } from './palette.ts';

/**
 * A PNG (as a data URI) of `values`, row-major [height, width], row 0 on top; `low` and below is the first
 * colour, `high` and above the last. What is not a number is drawn in the first colour.
 */
export function matrixImage(
  values: Float32Array,
  width: number,
  height: number,
  low: number,
  high: number,
  map: ColourMap,
): string {
  if (values.length !== width * height)
    throw new MGFError(
      'shape',
      `An image of ${width} x ${height} needs ${width * height} values, got ${values.length}.`,
    );
  const span = high > low ? high - low : 1;
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const share = (values[y * width + x]! - low) / span;
      rows[y * (width + 1) + 1 + x] = share > 0 ? Math.min(255, Math.floor(share * 256)) : 0;
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3, 0, 0, 0], 8);
  const png = Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', header),
    chunk('PLTE', palette(map)),
    chunk('IDAT', deflateSync(rows, { level: 9 })),
    chunk('IEND', new Uint8Array(0)),
  ]);
  return `data:image/png;base64,${png.toString('base64')}`;
}

function chunk(type: string, data: Uint8Array): Buffer {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, 'latin1');
  out.set(data, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

// node:zlib has crc32 only from Node 20.15 on, and Deno and Bun later still.
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
