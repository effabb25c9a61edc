/** Sound inside a page. */

/** 16-bit mono PCM as a WAV data URI; samples are multiplied by `gain` and clipped to full scale, 1. */
export function wavUri(wave: Float32Array, sampleRate: number, gain = 1): string {
  const bytes = Buffer.alloc(44 + 2 * wave.length);
  bytes.write('RIFF', 0, 'latin1');
  bytes.writeUInt32LE(36 + 2 * wave.length, 4);
  bytes.write('WAVEfmt ', 8, 'latin1');
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(sampleRate, 24);
  bytes.writeUInt32LE(2 * sampleRate, 28);
  bytes.writeUInt16LE(2, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write('data', 36, 'latin1');
  bytes.writeUInt32LE(2 * wave.length, 40);
  wave.forEach((value, i) =>
    bytes.writeInt16LE(Math.round(32767 * Math.max(-1, Math.min(1, value * gain || 0))), 44 + 2 * i),
  );
  return `data:audio/wav;base64,${bytes.toString('base64')}`;
}

/** Largest size of a sample; 0 of nothing. */
export const peak = (wave: Float32Array): number =>
  wave.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
