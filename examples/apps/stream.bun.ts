// Features of a recording while it is read, in memory that does not grow with its length. For Bun 1:
//
//   bun run stream.bun.ts long.s16le 48000 > features.jsonl
//
// The file holds raw 16-bit little-endian mono samples (`ffmpeg -i in.mp3 -f s16le -ac 1 -ar 48000
// long.s16le`).
import { MGF } from 'mgf-webgpu';

const [path, rate = '16000'] = Bun.argv.slice(2);
if (!path) {
  console.error('usage: stream.bun.ts FILE.s16le [SAMPLE_RATE]');
  process.exit(2);
}

/** Samples of a file, chunk by chunk; a chunk of a file may end in the middle of a sample. */
async function* samples(file: string): AsyncGenerator<Float32Array> {
  let rest = new Uint8Array(0);
  for await (const chunk of Bun.file(file).stream()) {
    const bytes = new Uint8Array(rest.length + chunk.length);
    bytes.set(rest);
    bytes.set(chunk, rest.length);
    const whole = bytes.length - (bytes.length % 2);
    rest = bytes.slice(whole);
    yield Float32Array.from(new Int16Array(bytes.buffer, 0, whole / 2), (x) => x / 32768);
  }
}

const mgf = await MGF.load();
console.error(`on ${mgf.adapter}`);
for await (const { start, frames, width, data } of mgf.stream(samples(path), { sampleRate: Number(rate) })) {
  for (let t = 0; t < frames; t++)
    console.log(
      JSON.stringify({
        seconds: Number((0.02 * (start + t)).toFixed(2)),
        vector: [...data.subarray(t * width, (t + 1) * width)],
      }),
    );
}
mgf.dispose();
