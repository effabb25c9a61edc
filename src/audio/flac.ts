/**
 * Splits a FLAC file into its frames for the decoder. The decoder package's own splitter drops the last
 * frames of about one file in a hundred and takes longer over it than the decoding; here every frame is
 * delimited by its CRC-16 and the header after it.
 */
import { startsWith } from './containers.ts';

export interface FlacStream {
  sampleRate: number;
  /** Samples per channel that STREAMINFO promises; 0 if it does not say. */
  promised: number;
  /**
   * The stream marker with STREAMINFO, then the frames whose checksums are right, up to the first that is
   * not.
   */
  packets: Uint8Array[];
}

/** CRC-16 table for polynomial 0x8005, most significant bit first. */
const CRC16 = Uint16Array.from({ length: 256 }, (_, i) => {
  let crc = i << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x8005 : crc << 1;
  return crc & 0xffff;
});

/** Metadata blocks start after the 4-byte marker; STREAMINFO is the first and 34 bytes long. */
const MARKER = 4;
const STREAMINFO = MARKER + 4 + 34;

/** Whether the 15-bit sync code of a frame stands at byte `at`. */
const isSync = (bytes: Uint8Array, at: number) => bytes[at] === 0xff && (bytes[at + 1]! & 0xfe) === 0xf8;

/** Reads the structure of a FLAC file; undefined if its header is incomplete. */
export function splitFlac(bytes: Uint8Array): FlacStream | undefined {
  if (!startsWith(bytes, 'fLaC') || bytes.length < STREAMINFO || (bytes[MARKER]! & 0x7f) !== 0)
    return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = MARKER;
  for (let last = false; !last && at + 4 <= bytes.length;) {
    last = (bytes[at]! & 0x80) !== 0;
    at += 4 + (view.getUint32(at) & 0xffffff);
  }
  const head = new Uint8Array(bytes.subarray(0, STREAMINFO)); // a copy; Buffer.slice is none
  head[MARKER]! |= 0x80; // the other metadata blocks are left out
  const packets: Uint8Array[] = [head];
  for (let start = at; isSync(bytes, start); start = at) {
    let crc = 0;
    // A frame ends with its CRC, which makes the CRC over all of it 0, and is followed by another or by the
    // end.
    do {
      crc = ((crc << 8) ^ CRC16[(crc >> 8) ^ bytes[at++]!]!) & 0xffff;
    } while (at < bytes.length && !(crc === 0 && isSync(bytes, at)));
    if (crc !== 0) break;
    packets.push(bytes.subarray(start, at));
  }
  return {
    sampleRate: view.getUint32(18) >>> 12,
    promised: (bytes[21]! & 0x0f) * 2 ** 32 + view.getUint32(22),
    packets,
  };
}
