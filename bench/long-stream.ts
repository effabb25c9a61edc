/**
 * An hour of audio through `mgf.stream`: speed, memory over time, and whether the frames are those of `embed`
 * on the whole recording. The audio is the recordings of a list one after the other, again and again, in
 * chunks of half a second.
 *
 *   npm run long-stream -- DATA [--minutes 60] [--adapter lavapipe]
 */
import { parseArgs } from 'node:util';
import { loadAudio } from '../src/audio/load.ts';
import { readManifest } from '../src/audio/manifest.ts';
import type { AdapterPreference } from '../src/gpu/device.ts';
import { MGF } from '../src/node.ts';

const {
  values,
  positionals: [data],
} = parseArgs({
  allowPositionals: true,
  options: { adapter: { type: 'string' }, minutes: { type: 'string', default: '60' } },
});
if (!data)
  throw new Error('usage: npm run long-stream -- DATA [--minutes 60] [--adapter gpu|lavapipe|swiftshader]');
const { items } = await readManifest(data);
const clips: Float32Array[] = [];
for (const item of items.slice(0, 200)) clips.push(await loadAudio(item.path));
const samples = Number(values.minutes) * 60 * 16000;
const chunk = 8000;

/** The recordings one after the other, in half seconds. */
function* chunks(): Generator<Float32Array> {
  let held = new Float32Array(0);
  let next = 0;
  for (let sent = 0; sent < samples; sent += chunk) {
    while (held.length < chunk) {
      const clip = clips[next++ % clips.length]!;
      const joined = new Float32Array(held.length + clip.length);
      joined.set(held);
      joined.set(clip, held.length);
      held = joined;
    }
    yield held.slice(0, chunk);
    held = held.slice(chunk);
  }
}

const mgf = await MGF.load(undefined, values.adapter ? { adapter: values.adapter as AdapterPreference } : {});
const resident = (): number => process.memoryUsage().rss / 2 ** 20;
console.log(`${mgf.adapter}, ${values.minutes} minutes`);

// Sums instead of the frames themselves, so that what grows is the stream's own memory or nothing. A stretch
// is kept for the comparison.
const kept: number[] = [];
const KEPT = 5000;
let frames = 0;
let checksum = 0;
let reported = 0;
const started = performance.now();
for await (const part of mgf.stream(chunks())) {
  for (const value of part.data) checksum += value;
  for (const value of part.data.subarray(0, Math.max(0, KEPT * part.width - kept.length))) kept.push(value);
  frames += part.frames;
  const minutes = (frames * 0.02) / 60;
  if (minutes - reported >= Number(values.minutes) / 6) {
    reported = minutes;
    console.log(
      `${minutes.toFixed(1)} min of audio in ${((performance.now() - started) / 1000).toFixed(1)} s, ` +
        `resident ${resident().toFixed(0)} MiB`,
    );
  }
}
const seconds = (performance.now() - started) / 1000;
console.log(
  `${frames} frames in ${seconds.toFixed(1)} s: ${(samples / 16000 / seconds).toFixed(0)} audio s/s, ` +
    `resident ${resident().toFixed(0)} MiB`,
);

const whole = new Float32Array(samples);
let at = 0;
for (const part of chunks()) {
  whole.set(part, at);
  at += part.length;
}
const offline = await mgf.embed(whole);
let largest = 0;
let sum = 0;
for (const value of offline.data) sum += value;
kept.forEach((value, i) => {
  largest = Math.max(largest, Math.abs(value - offline.data[i]!));
});
console.log(
  `embed of the whole: ${offline.frames} frames; sums ${checksum.toPrecision(8)} and ` +
    `${sum.toPrecision(8)}; largest difference over the first ${kept.length / mgf.width} frames ` +
    `${largest.toExponential(1)}`,
);

// What windows cost: a minute heard in windows against the same minute heard at once.
const minute = whole.subarray(0, 60 * 16000);
const once = await mgf.embed(minute, { window: 60 });
const windows = await mgf.embed(minute);
const cosine = (t: number): number => {
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let d = 0; d < mgf.width; d++) {
    const a = once.data[t * mgf.width + d]!;
    const b = windows.data[t * mgf.width + d]!;
    ab += a * b;
    aa += a * a;
    bb += b * b;
  }
  return ab / Math.sqrt(aa * bb);
};
const cosines = Array.from({ length: once.frames }, (_, t) => cosine(t)).sort((a, b) => a - b);
console.log(
  'a minute in windows of 20 s against at once: cosine similarity of frames, median ' +
    `${cosines[cosines.length >> 1]!.toFixed(4)}, 5 % below ` +
    `${cosines[Math.floor(cosines.length / 20)]!.toFixed(4)}`,
);
mgf.dispose();
process.exitCode =
  offline.frames === frames && largest < 1e-3 && Math.abs(checksum - sum) < 1e-6 * Math.abs(sum) ? 0 : 1;
