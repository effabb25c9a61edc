/**
 * What the containers of compressed audio say about their length, so that a truncated file is not taken for a
 * whole one.
 */

/** Whether ASCII (or \x escaped) `text` stands at byte `at`. */
export function startsWith(bytes: Uint8Array, text: string, at = 0): boolean {
  for (let i = 0; i < text.length; i++) {
    if (bytes[at + i] !== text.charCodeAt(i)) return false;
  }
  return true;
}

/** First byte of the first packet of an Ogg page at byte 0. */
export const oggPacketStart = (bytes: Uint8Array) => 27 + (bytes[26] ?? 0);

/**
 * Walks the pages of an Ogg file: whether it ends within one, and the granule position of the last (-1 if
 * none is set).
 */
export function oggEnd(bytes: Uint8Array): { cut: boolean; granule: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let granule = -1;
  while (at + 27 <= bytes.length && startsWith(bytes, 'OggS', at)) {
    const high = view.getInt32(at + 10, true);
    if (high >= 0) granule = high * 2 ** 32 + view.getUint32(at + 6, true); // -1: no packet ends on this page
    const segments = bytes.subarray(at + 27, at + 27 + bytes[at + 26]!);
    at += 27 + bytes[at + 26]! + segments.reduce((sum, n) => sum + n, 0);
  }
  const left = bytes.length - at;
  return {
    cut: left < 0 || (left > 0 && left < 27 && startsWith(bytes.subarray(at), 'OggS'.slice(0, left))),
    granule,
  };
}

/**
 * Samples per channel at `rate` of an Ogg Opus file (RFC 7845: last granule position less the pre-skip, at 48
 * kHz), or 0 if unknown.
 */
export function opusSamples(bytes: Uint8Array, rate: number): number {
  const packet = oggPacketStart(bytes);
  if (packet + 12 > bytes.length) return 0;
  return Math.max(
    0,
    Math.round(((oggEnd(bytes).granule - (bytes[packet + 10]! | (bytes[packet + 11]! << 8))) * rate) / 48000),
  );
}

const BITRATES_1 = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const BITRATES_2 = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
const RATES = [44100, 48000, 32000];

interface Mp3Frame {
  bytes: number;
  samples: number;
  rate: number;
  tagOffset: number;
}

/** The MPEG layer III frame header at byte `at`, or undefined if none is there. */
function mp3Frame(bytes: Uint8Array, at: number): Mp3Frame | undefined {
  const [b0, b1, b2, b3] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
  if (b0 !== 0xff || b1 === undefined || b2 === undefined || b3 === undefined || (b1 & 0xe6) !== 0xe2)
    return undefined;
  const version = (b1 >> 3) & 3; // 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
  const first = version === 3;
  const kbps = (first ? BITRATES_1 : BITRATES_2)[b2 >> 4];
  const rate = RATES[(b2 >> 2) & 3];
  if (version === 1 || !kbps || !rate) return undefined;
  const hz = rate / (first ? 1 : version === 2 ? 2 : 4);
  const samples = first ? 1152 : 576;
  const sideInfo = first ? (b3 >> 6 === 3 ? 17 : 32) : b3 >> 6 === 3 ? 9 : 17;
  return {
    bytes: Math.floor(((samples / 8) * kbps * 1000) / hz) + ((b2 >> 1) & 1),
    samples,
    rate: hz,
    tagOffset: 4 + sideInfo,
  };
}

/**
 * Walks the frames of an MP3 file without tags: whether it ends within one, its rate, and the samples its Xing/Info tag
 * promises (0 without a tag).
 */
export function mp3End(bytes: Uint8Array): { cut: boolean; promised: number; sampleRate: number } {
  let at = 0;
  let promised = 0;
  const first = mp3Frame(bytes, at);
  if (first) {
    const tag = at + first.tagOffset;
    if (
      (startsWith(bytes, 'Xing', tag) || startsWith(bytes, 'Info', tag)) &&
      tag + 12 <= bytes.length &&
      bytes[tag + 7]! & 1
    ) {
      promised = new DataView(bytes.buffer, bytes.byteOffset).getUint32(tag + 8) * first.samples;
    }
  }
  for (let frame = first; frame; frame = mp3Frame(bytes, at)) at += frame.bytes;
  return { cut: at > bytes.length, promised, sampleRate: first?.rate ?? 0 };
}
