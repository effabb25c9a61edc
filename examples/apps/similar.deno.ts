// Which of some recordings sounds most like another? For Deno 2, on its own WebGPU:
//
//   deno run --allow-read --allow-env similar.deno.ts one.wav others/*.wav
import { center, compare, decodeAudio, MGF, toMono16k } from 'mgf-webgpu';

const [one, ...others] = Deno.args;
if (!one || others.length === 0) {
  console.error('usage: similar.deno.ts RECORDING RECORDINGS...');
  Deno.exit(2);
}

const mgf = await MGF.load();
const load = async (path: string) => toMono16k(await decodeAudio(await Deno.readFile(path), path), path);
const [voice, ...rest] = await mgf.embed(await Promise.all([one, ...others].map(load)), { pool: 'mean' });

// Plain cosines of any two clips are large; what all these recordings share is taken off first.
const reference = center([voice!, ...rest]);
const ranked = rest
  .map((clip, i) => ({ path: others[i]!, similarity: compare(voice!, clip, { center: reference }) }))
  .sort((a, b) => b.similarity - a.similarity);
console.log(`on ${mgf.adapter}`);
for (const { path, similarity } of ranked) console.log(similarity.toFixed(4), path);
mgf.dispose();
