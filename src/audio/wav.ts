/**
 * WAV (RIFF, RF64, BW64) reading. A small parser of our own: the packages for it are unmaintained or take a cut-off
 * file for a whole one.
 */
import { MGFError } from '../errors.ts';

/** A recording as it was stored: every channel, at its own rate. */
export interface DecodedAudio {
  /** Samples per second of the file. */
  sampleRate: number;
  /** One array per channel, all of one length, full scale = 1. */
  channels: Float32Array[];
}

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;

/** A failure to read one file, as one sentence: what is wrong with which file. */
export function audioError(name: string, problem: string, options?: ErrorOptions): MGFError {
  return new MGFError('audio', `Cannot read "${name}": ${problem}.`, options);
}

/** `damaged`: whether the missing audio may be there but unreadable. */
export function truncatedError(name: string, promised: number, there: number, damaged: boolean): MGFError {
  const what = damaged ? 'truncated or damaged' : 'truncated';
  return audioError(
    name,
    `it is ${what} (its header promises ${promised.toFixed(2)} s of audio, ${there.toFixed(2)} s are ` +
      'there); copy or export it again',
  );
}

/** Reads one sample at a byte offset, full scale = 1. */
function sampleReader(view: DataView, format: number, bytes: number): ((at: number) => number) | undefined {
  if (format === PCM && bytes === 1) return (at) => (view.getUint8(at) - 128) / 128;
  if (format === PCM && bytes === 2) return (at) => view.getInt16(at, true) / 32768;
  if (format === PCM && bytes === 3)
    return (at) => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 8388608;
  if (format === PCM && bytes === 4) return (at) => view.getInt32(at, true) / 2147483648;
  if (format === FLOAT && bytes === 4) return (at) => view.getFloat32(at, true);
  if (format === FLOAT && bytes === 8) return (at) => view.getFloat64(at, true);
  return undefined;
}

interface Chunk {
  id: string;
  /** First byte of its body, and its size as the file states it. */
  body: number;
  size: number;
}

/** Four printable characters, as every chunk of a WAV file is named. */
const isChunkName = (bytes: Uint8Array, at: number): boolean =>
  at + 8 <= bytes.length && bytes.subarray(at, at + 4).every((c) => c >= 0x20 && c < 0x7f);

/** Sizes that programs write which stream, or exceed 4 GB. */
const UNKNOWN_SIZES = [0, 0xffffffff];

/**
 * The chunks of a WAV file. Bodies of odd size are padded by a byte; some writers forget it, so the next
 * chunk is looked for at both places, as libsndfile does. A size of 0 or 0xFFFFFFFF is a `data` chunk that
 * goes on to the end of the file, unless RF64's ds64 chunk tells its size or another chunk follows at once.
 */
function chunksOf(bytes: Uint8Array): Chunk[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Chunk[] = [];
  let dataSize: number | undefined;
  for (let at = 12; at + 8 <= bytes.length;) {
    const id = String.fromCharCode(...bytes.subarray(at, at + 4));
    const body = at + 8;
    let size = view.getUint32(at + 4, true);
    if (id === 'ds64' && body + 16 <= bytes.length) {
      dataSize = view.getUint32(body + 8, true) + 2 ** 32 * view.getUint32(body + 12, true);
    }
    if (id === 'data' && UNKNOWN_SIZES.includes(size)) {
      if (size !== 0 && dataSize !== undefined) size = dataSize;
      else if (size !== 0 || !isChunkName(bytes, body)) size = bytes.length - body;
    }
    chunks.push({ id, body, size });
    const padded = body + size + (size & 1);
    const next = !isChunkName(bytes, padded) && isChunkName(bytes, body + size) ? body + size : padded;
    // What follows the samples and is no chunk is left behind by some editors; it is no audio.
    if (chunks.some((c) => c.id === 'data') && !isChunkName(bytes, next)) break;
    at = next;
  }
  return chunks;
}

interface Format {
  format: number;
  channelCount: number;
  sampleRate: number;
  frameBytes: number;
}

function formatOf(bytes: Uint8Array, chunk: Chunk | undefined, name: string): Format {
  if (!chunk) throw audioError(name, 'its WAV header is damaged (no usable format before the samples)');
  const { body, size } = chunk;
  if (size < 16 || body + size > bytes.length) {
    throw audioError(name, 'its WAV header is damaged (format chunk too short)');
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const plain = view.getUint16(body, true);
  const found = {
    format: plain === EXTENSIBLE && size >= 26 ? view.getUint16(body + 24, true) : plain,
    channelCount: view.getUint16(body + 2, true),
    sampleRate: view.getUint32(body + 4, true),
    frameBytes: view.getUint16(body + 12, true),
  };
  if (found.frameBytes === 0 || found.channelCount === 0 || found.sampleRate === 0) {
    throw audioError(name, 'its WAV header is damaged (no usable format before the samples)');
  }
  return found;
}

/**
 * Decodes a WAV file: 8, 16, 24 or 32-bit integers, 32 or 64-bit floats, plain or extensible header, any rate
 * and channel count. Several data chunks are one recording. A data chunk that is longer than the file is an
 * error, not a shorter clip: half a recording is no longer what its label says.
 */
export function decodeWav(bytes: Uint8Array, name: string): DecodedAudio {
  const chunks = chunksOf(bytes);
  const data = chunks.filter(({ id }) => id === 'data');
  const first = chunks.find(({ id }) => id === 'fmt ');
  if (data.length === 0 && first) formatOf(bytes, first, name);
  if (data.length === 0) throw audioError(name, 'it is a WAV file without samples (no data chunk)');
  const before = chunks.slice(0, chunks.indexOf(data[0]!)).findLast(({ id }) => id === 'fmt ');
  const { format, channelCount, sampleRate, frameBytes } = formatOf(bytes, before, name);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sampleBytes = frameBytes / channelCount;
  const read = sampleReader(view, format, sampleBytes);
  if (!read) {
    throw audioError(
      name,
      `WAV format ${format} with ${sampleBytes * 8} bits a sample is not supported; convert it to ` +
        '16-bit PCM WAV or FLAC',
    );
  }
  const promised = data.reduce((sum, { size }) => sum + size, 0);
  const there = data.reduce((sum, { body, size }) => sum + Math.min(size, bytes.length - body), 0);
  const seconds = (n: number): number => n / frameBytes / sampleRate;
  if (promised > there) throw truncatedError(name, seconds(promised), seconds(there), false);
  const frames = data.reduce((sum, { size }) => sum + Math.floor(size / frameBytes), 0);
  const channels = Array.from({ length: channelCount }, (_, c) => {
    const samples = new Float32Array(frames);
    let i = 0;
    for (const { body, size } of data) {
      const end = body + frameBytes * Math.floor(size / frameBytes);
      for (let p = body; p < end; p += frameBytes) samples[i++] = read(p + c * sampleBytes);
    }
    return samples;
  });
  return { sampleRate, channels };
}
