/**
 * WAV (RIFF, RF64) reading. A small parser of our own: the packages for it are unmaintained or take a cut-off
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

/**
 * Decodes a WAV file: 8, 16, 24 or 32-bit integers, 32 or 64-bit floats, plain or extensible header, any rate
 * and channel count. A data chunk that is longer than the file is an error, not a shorter clip: half a
 * recording is no longer what its label says. Sizes 0 and 0xFFFFFFFF, which programs write that stream or
 * exceed 4 GB, mean "until the end of the file".
 */
export function decodeWav(bytes: Uint8Array, name: string): DecodedAudio {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let format = 0;
  let channelCount = 0;
  let sampleRate = 0;
  let frameBytes = 0;
  for (let at = 12; at + 8 <= bytes.length;) {
    const id = String.fromCharCode(...bytes.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    const body = at + 8;
    if (id === 'fmt ') {
      if (size < 16 || body + size > bytes.length)
        throw audioError(name, 'its WAV header is damaged (format chunk too short)');
      format = view.getUint16(body, true);
      channelCount = view.getUint16(body + 2, true);
      sampleRate = view.getUint32(body + 4, true);
      frameBytes = view.getUint16(body + 12, true);
      if (format === EXTENSIBLE && size >= 26) format = view.getUint16(body + 24, true);
    }
    if (id === 'data') {
      if (frameBytes === 0 || channelCount === 0 || sampleRate === 0)
        throw audioError(name, 'its WAV header is damaged (no usable format before the samples)');
      const there = bytes.length - body;
      const open = size === 0 || size === 0xffffffff;
      if (!open && size > there)
        throw truncatedError(name, size / frameBytes / sampleRate, there / frameBytes / sampleRate, false);
      const sampleBytes = frameBytes / channelCount;
      const read = sampleReader(view, format, sampleBytes);
      if (!read) {
        throw audioError(
          name,
          `WAV format ${format} with ${sampleBytes * 8} bits a sample is not supported; convert it to ` +
            '16-bit PCM WAV or FLAC',
        );
      }
      const frames = Math.floor((open ? there : size) / frameBytes);
      const channels = Array.from({ length: channelCount }, (_, c) => {
        const samples = new Float32Array(frames);
        for (let i = 0, p = body + c * sampleBytes; i < frames; i++, p += frameBytes) samples[i] = read(p);
        return samples;
      });
      return { sampleRate, channels };
    }
    at = body + size + (size & 1);
  }
  throw audioError(name, 'it is a WAV file without samples (no data chunk)');
}
