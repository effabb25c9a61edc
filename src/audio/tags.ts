/**
 * Tags that players and shops put before and behind audio of any format: ID3v2 (with cover art of any size,
 * several in a row, with or without a footer) at the start, ID3v1 and APE at the end. They are no audio.
 */
import { startsWith } from './containers.ts';

/** Sizes in ID3v2 are four bytes of seven bits each. */
const syncSafe = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! & 127) << 21) |
  ((bytes[at + 1]! & 127) << 14) |
  ((bytes[at + 2]! & 127) << 7) |
  (bytes[at + 3]! & 127);

const ID3_HEADER = 10;
const ID3_FOOTER_FLAG = 0x10;
const ID3V1_BYTES = 128;
const APE_FOOTER = 32;
const APE_HEADER_FLAG = 0x80000000;

/** The first byte after the ID3v2 tags at the start; past the end of the file where a tag is cut off. */
function afterLeadingTags(bytes: Uint8Array): number {
  let at = 0;
  while (startsWith(bytes, 'ID3', at) && at + ID3_HEADER <= bytes.length) {
    const footer = (bytes[at + 5]! & ID3_FOOTER_FLAG) !== 0 ? ID3_HEADER : 0;
    at += ID3_HEADER + syncSafe(bytes, at + 6) + footer;
  }
  return at;
}

/** The end of the audio: the first byte of the tags at the end. */
function beforeTrailingTags(bytes: Uint8Array): number {
  let end = bytes.length;
  if (end >= ID3V1_BYTES && startsWith(bytes, 'TAG', end - ID3V1_BYTES)) end -= ID3V1_BYTES;
  const footer = end - APE_FOOTER;
  if (footer < 0 || !startsWith(bytes, 'APETAGEX', footer)) return end;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = (view.getUint32(footer + 20, true) & APE_HEADER_FLAG) !== 0 ? APE_FOOTER : 0;
  return Math.max(0, end - view.getUint32(footer + 12, true) - header);
}

/** The file without its tags, and whether a tag is longer than the file. */
export function withoutTags(bytes: Uint8Array): { audio: Uint8Array; cut: boolean; tagged: boolean } {
  const start = afterLeadingTags(bytes);
  if (start > bytes.length) return { audio: bytes.subarray(0, 0), cut: true, tagged: true };
  const end = beforeTrailingTags(bytes);
  const tagged = start > 0 || end < bytes.length;
  return { audio: bytes.subarray(start, Math.max(start, end)), cut: false, tagged };
}
