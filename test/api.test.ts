import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import * as api from '../src/index.ts';
import type { BuildOptions, Metafile } from 'esbuild';

/** The checkout: the nearest folder above this bundle that holds the sources. */
let root = dirname(fileURLToPath(import.meta.url));
while (!existsSync(join(root, 'src', 'index.ts'))) root = dirname(root);

/** What the package offers everywhere. A name added or removed here is a change of the public API. */
const NAMES = {
  errors: ['MGFError'],
  device: ['openGpu'],
  graph: ['Graph', 'elements', 'f32', 'formatShape', 'grad', 'i32', 'vectorJacobianProduct'],
  ownOps: [
    'ceilDiv',
    'columnSums',
    'defineElementwise',
    'defineLoss',
    'defineOp',
    'defineRowLoss',
    'elementwiseSubject',
    'gemm',
    'gradcheck',
    'kernel',
    'lossSubject',
    'overElements',
    'overRows',
    'rowSubject',
    'scalar',
    'spread',
  ],
  ops: [
    'add',
    'affine',
    'attention',
    'conv1d',
    'convTranspose1d',
    'crossEntropy',
    'ctcLoss',
    'dropout',
    'dropoutAdd',
    'fillLike',
    'gelu',
    'groupNorm',
    'l1Loss',
    'layerNorm',
    'linear',
    'logMel',
    'logMelPairs',
    'logSoftmax',
    'maskRows',
    'maskedInfoNCE',
    'maskedMean',
    'matmul',
    'melFrames',
    'mix',
    'mseLoss',
    'narrow',
    'ntXent',
    'relu',
    'reshape',
    'scale',
    'scaleByScalar',
    'selfAttention',
    'sigmoid',
    'softmax',
    'statisticsPool',
    'tanh',
    'transpose',
    'weightNorm',
    'zeroRows',
  ],
  optimisation: [
    'LossScaler',
    'accumulate',
    'adamw',
    'biasCorrections',
    'clipCoefficient',
    'gradNorm',
    'learningRate',
    'progressRate',
    'scaleBy',
  ],
  programs: [
    'ParameterStore',
    'Program',
    'approvals',
    'chromeTrace',
    'compile',
    'graphDot',
    'rejections',
    'rememberApprovals',
    'startTuning',
    'tuningOf',
  ],
  mgf: [
    'Encoder',
    'MGF',
    'NO_CLASS',
    'PRESET_NAMES',
    'Pretrainer',
    'SCALES',
    'applySettings',
    'center',
    'checkRunConfig',
    'columnsOf',
    'compare',
    'defaultAttach',
    'framesOf',
    'fromHuggingFace',
    'initialValues',
    'mgfParameters',
    'parseConfig',
    'parseRunConfig',
    'parseTrainConfig',
    'presetConfig',
    'presetRunConfig',
    'presetTrainConfig',
    'pretrainingGraph',
    'splitCrops',
  ],
  audio: [
    'SAMPLE_RATE',
    'anchorCapacity',
    'cropStarts',
    'decodeAudio',
    'fixedNegatives',
    'frameCount',
    'isSilent',
    'normaliseCrop',
    'permutation',
    'randomStream',
    'resampleTo16k',
    'spanMask',
    'toMono16k',
  ],
  healthAndFiles: [
    'HealthMonitor',
    'chanceRivals',
    'effectiveRank',
    'measureRivals',
    'medianError',
    'readSafetensors',
    'rivalBatches',
    'rivalName',
    'toFloat32',
    'writeNpy',
    'writeSafetensors',
  ],
  conformance: ['runCase'],
};

const bundle = async (options: BuildOptions): Promise<Metafile['outputs']> => {
  const { metafile } = await build({
    absWorkingDir: root,
    bundle: true,
    platform: 'browser',
    format: 'esm',
    splitting: true,
    outdir: 'unused',
    write: false,
    metafile: true,
    logLevel: 'silent',
    loader: { '.wgsl': 'text' },
    ...options,
  });
  return metafile!.outputs;
};

test('the browser-safe API offers these names and no others', () => {
  assert.equal(Object.keys(api).sort(), Object.values(NAMES).flat().sort());
});

test('the API bundles for the browser without a Node module, and without npm webgpu', async () => {
  // Bundling for the browser fails by itself on an import of a Node module; what is left to look for is one
  // that was kept as it is.
  const outputs = Object.values(await bundle({ entryPoints: ['src/index.ts'] }));
  const kept = outputs
    .flatMap((o) => o.imports)
    .filter((i) => i.external || i.path.startsWith('node:') || builtinModules.includes(i.path));
  assert.equal(kept, []);
  const inputs = outputs.flatMap((o) => Object.keys(o.inputs));
  assert.ok(inputs.some((i) => i.endsWith('src/gpu/device.ts')));
  assert.equal(
    inputs.filter((i) =>
      /node_modules\/(webgpu|commander|csv-parse|tinyglobby|tar-stream|linkedom)\//.test(i),
    ),
    [],
  );
});

test('the audio decoders are loaded on their first use, so that a page does not pay for them before', async () => {
  const outputs = Object.values(await bundle({ entryPoints: ['src/index.ts'] }));
  const entry = outputs.find((o) => o.entryPoint?.endsWith('src/index.ts'))!;
  assert.equal(
    Object.keys(entry.inputs).filter((i) => /wasm-audio-decoders|mpg123|opus|libsamplerate/.test(i)),
    [],
  );
  assert.ok(entry.bytes < 620_000, `the first part is ${entry.bytes} bytes`);
});

test('a program with one op brings the kernel of that op and no other', async () => {
  const outputs = Object.values(
    await bundle({
      stdin: {
        contents:
          "import { compile, gelu, Graph, openGpu } from './src/index.ts'; console.log(compile, gelu, " +
          'Graph, openGpu);',
        resolveDir: root,
      },
    }),
  );
  const kernels = outputs
    .flatMap((o) => Object.entries(o.inputs))
    .filter(([name, { bytesInOutput }]) => name.endsWith('.wgsl') && bytesInOutput > 0);
  assert.equal(
    kernels.map(([name]) => name.split('/').at(-1)),
    ['activation.wgsl'],
  );
});

test('audio is decoded and resampled through the public API', async () => {
  const bytes = await readFile(join(root, 'test', 'fixtures', 'audio', 'tone-44k-stereo.flac'));
  const audio = await api.decodeAudio(bytes, 'a tone');
  assert.is(audio.sampleRate, 44100);
  assert.is(audio.channels.length, 2);
  const mono = await api.toMono16k(audio, 'a tone');
  assert.is(mono.length, Math.round((audio.channels[0]!.length * 16000) / 44100));
  const again = await api.resampleTo16k(
    Float32Array.from(audio.channels[0]!, (x, i) => (x + audio.channels[1]![i]!) / 2),
    44100,
  );
  assert.is(again.length, mono.length);
  assert.ok(Math.abs(again[4000]! - mono[4000]!) < 1e-5);
});

test('what cannot be decoded is an MGFError of the public API', async () => {
  try {
    await api.decodeAudio(new Uint8Array(100), 'nothing.wav');
    assert.unreachable('it was decoded');
  } catch (error) {
    assert.instance(error, api.MGFError);
    assert.is((error as api.MGFError).code, 'audio');
  }
});

test.run();
