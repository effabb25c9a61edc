/**
 * Embedding throughput beside onnxruntime on one network: a wav2vec 2.0 encoder that
 * bench/embedding/export.py writes for both. Clips of 10 s, batches of 1 and 16, every engine in turns,
 * medians of five; outputs are compared before anything is timed. Then the first embedding of a fresh
 * process.
 *
 *   python bench/embedding/export.py FOLDER
 *   npm i --no-save --ignore-scripts onnxruntime-node@1.30.0
 *   npm run embedding -- FOLDER [--adapter lavapipe]
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { normaliseCrop } from '../src/audio/sampling.ts';
import { statistics } from '../src/measure/statistics.ts';
import type { AdapterPreference } from '../src/gpu/device.ts';
import { MGF } from '../src/node.ts';

const SAMPLES = 160_000;
const ROUNDS = 5;
const {
  values,
  positionals: [folder],
} = parseArgs({
  allowPositionals: true,
  options: { adapter: { type: 'string' }, first: { type: 'boolean' } },
});
if (!folder) throw new Error('usage: npm run embedding -- FOLDER [--adapter gpu|lavapipe|swiftshader]');
const options = values.adapter ? { adapter: values.adapter as AdapterPreference } : {};
const clip = (seed: number): Float32Array =>
  Float32Array.from(
    { length: SAMPLES },
    (_, i) => Math.sin(0.02 * seed * i + 3 * Math.sin(i / 3000)) * Math.sin(i / 1500),
  );

if (values.first) {
  // A process of its own: from its start to the first features of mgf-tiny.
  const mgf = await MGF.load(undefined, options);
  await mgf.embed(clip(1).subarray(0, 48_000));
  console.log(performance.now().toFixed(0));
  process.exit(0);
}

/** What is used of onnxruntime-node, which is no dependency of this package. */
interface Ort {
  Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => unknown;
  InferenceSession: {
    create(
      path: string,
      options: object,
    ): Promise<{ run(feeds: object): Promise<{ states: { data: Float32Array } }> }>;
  };
}
const imported = (await import('onnxruntime-node' as string)) as { default?: Ort } & Ort;
const ort = imported.default ?? imported;

const mgf = await MGF.load(join(folder, 'model.safetensors'), options);
console.log(
  `${mgf.adapter}; onnxruntime-node ` +
    `${(JSON.parse(readFileSync(join('node_modules', 'onnxruntime-node', 'package.json'), 'utf8')) as { version: string }).version}`,
);
const arms = new Map<string, (clips: readonly Float32Array[]) => Promise<Float32Array>>([
  [
    'this engine',
    async (clips) => {
      const all = await mgf.embed(clips, { layer: mgf.layers });
      return all[0]!.data;
    },
  ],
]);
for (const [name, provider, threads] of [
  ['onnxruntime, CPU, 1 thread', 'cpu', 1],
  ['onnxruntime, CPU, 2 threads', 'cpu', 2],
  ['onnxruntime, WebGPU', 'webgpu', 1],
] as const) {
  try {
    const session = await ort.InferenceSession.create(join(folder, 'model.onnx'), {
      executionProviders: [provider],
      intraOpNumThreads: threads,
      logSeverityLevel: 3,
    });
    const run = async (clips: readonly Float32Array[]): Promise<Float32Array> => {
      const wave = new Float32Array(clips.length * SAMPLES);
      clips.forEach((c, i) => wave.set(normaliseCrop(c), i * SAMPLES));
      return (await session.run({ wave: new ort.Tensor('float32', wave, [clips.length, SAMPLES]) })).states
        .data;
    };
    // An engine that computes something else is not timed.
    const want = (await mgf.embed(clip(1), { layer: mgf.layers })).data;
    const got = await run([clip(1)]);
    const off = Math.sqrt(
      want.reduce((s, x, i) => s + (x - got[i]!) ** 2, 0) / want.reduce((s, x) => s + x * x, 0),
    );
    if (!(off < 1e-3)) throw new Error(`its output is off by ${off}`);
    console.log(`${name}: output differs by ${off.toExponential(1)}`);
    arms.set(name, run);
  } catch (error) {
    console.log(`${name}: left out, ${(error as Error).message.split('\n')[0]}`);
  }
}

for (const batch of [1, 16]) {
  const clips = Array.from({ length: batch }, (_, i) => clip(i + 1));
  const times = new Map([...arms.keys()].map((name) => [name, [] as number[]]));
  for (let round = -1; round < ROUNDS; round++) {
    for (const [name, run] of arms) {
      if (!times.has(name)) continue;
      const started = performance.now();
      try {
        await run(clips);
      } catch (error) {
        console.log(
          `batch ${String(batch).padStart(2)}  ${name}: left out, ${(error as Error).message.split('\n')[0]}`,
        );
        times.delete(name);
        continue;
      }
      if (round >= 0) times.get(name)!.push(performance.now() - started);
    }
  }
  for (const [name, ms] of times) {
    const { median, min, max } = statistics(ms);
    const rate = (t: number): string => ((batch * SAMPLES) / 16 / t).toFixed(0);
    console.log(
      `batch ${String(batch).padStart(2)}  ${name.padEnd(30)} ${rate(median).padStart(6)} audio s/s ` +
        `(${rate(max)} to ${rate(min)})`,
    );
  }
}
mgf.dispose();

const firsts = Array.from({ length: ROUNDS }, () =>
  Number(
    execFileSync(
      process.execPath,
      [process.argv[1]!, folder, '--first', ...(values.adapter ? ['--adapter', values.adapter] : [])],
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
    ),
  ),
);
console.log(
  `first embedding (mgf-tiny, 3 s of audio) ${statistics(firsts).median.toFixed(0)} ms after the ` +
    `process began (${Math.min(...firsts)} to ${Math.max(...firsts)})`,
);
