import { fileURLToPath } from 'node:url';

/** A file of test/fixtures/audio; the bundled tests lie two folders below the project, like dist/test. */
export const fixture = (name: string) =>
  fileURLToPath(new URL(`../../test/fixtures/audio/${name}`, import.meta.url));

export interface WavOptions {
  rate?: number;
  bits?: 8 | 16 | 24 | 32 | 64;
  float?: boolean;
  extensible?: boolean;
}

/** A WAV file of channels in [-1, 1). */
export function wav(
  channels: ArrayLike<number>[],
  { rate = 16000, bits = 16, float = false, extensible = false }: WavOptions = {},
): Uint8Array {
  const frames = channels[0]!.length;
  const width = bits / 8;
  const align = width * channels.length;
  const formatSize = extensible ? 40 : 16;
  const head = 12 + 8 + formatSize + 8;
  const bytes = new Uint8Array(head + frames * align);
  const view = new DataView(bytes.buffer);
  const text = (at: number, s: string) =>
    bytes.set(
      [...s].map((c) => c.charCodeAt(0)),
      at,
    );
  text(0, 'RIFF');
  view.setUint32(4, bytes.length - 8, true);
  text(8, 'WAVEfmt ');
  view.setUint32(16, formatSize, true);
  view.setUint16(20, extensible ? 0xfffe : float ? 3 : 1, true);
  view.setUint16(22, channels.length, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * align, true);
  view.setUint16(32, align, true);
  view.setUint16(34, bits, true);
  if (extensible) {
    view.setUint16(36, 22, true);
    view.setUint16(38, bits, true);
    view.setUint16(44, float ? 3 : 1, true);
  }
  text(head - 8, 'data');
  view.setUint32(head - 4, frames * align, true);
  for (let i = 0, at = head; i < frames; i++) {
    for (const channel of channels) {
      const v = channel[i]!;
      if (float) {
        if (bits === 64) view.setFloat64(at, v, true);
        else view.setFloat32(at, v, true);
      } else if (bits === 8) view.setUint8(at, Math.round(v * 128) + 128);
      else if (bits === 16) view.setInt16(at, Math.round(v * 32768), true);
      else if (bits === 24) {
        const n = Math.round(v * 8388608);
        view.setUint16(at, n & 0xffff, true);
        view.setInt8(at + 2, n >> 16);
      } else view.setInt32(at, Math.round(v * 2147483648), true);
      at += width;
    }
  }
  return bytes;
}

export const sine = (hz: number, seconds: number, rate: number, amplitude = 0.5) =>
  Float32Array.from(
    { length: Math.round(seconds * rate) },
    (_, i) => amplitude * Math.sin((2 * Math.PI * hz * i) / rate),
  );

/** Amplitude and phase of a frequency in x over samples [from, to), measured over whole periods. */
export function tone(
  x: Float32Array,
  hz: number,
  rate = 16000,
  from = 0,
  to = x.length,
): { amplitude: number; phase: number } {
  let c = 0;
  let s = 0;
  for (let i = from; i < to; i++) {
    c += x[i]! * Math.cos((2 * Math.PI * hz * i) / rate);
    s += x[i]! * Math.sin((2 * Math.PI * hz * i) / rate);
  }
  return { amplitude: (2 * Math.hypot(c, s)) / (to - from), phase: Math.atan2(c, s) };
}

/** The message of the MGFError that `act` throws; fails if it throws something else or nothing. */
export async function messageOf(act: () => unknown, code: string): Promise<string> {
  try {
    await act();
  } catch (error) {
    const e = error as { name: string; code: string; message: string };
    if (e.name !== 'MGFError' || e.code !== code) throw error;
    return e.message;
  }
  throw new Error('expected an MGFError, but nothing was thrown');
}
