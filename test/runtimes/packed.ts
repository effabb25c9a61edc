/**
 * The package as its users get it: packed, installed into an empty folder, and run there by Node, Bun and
 * Deno; bundled for browsers there; and the scripts of examples/apps on the runtimes that they are for. `npm
 * run test:packed`. The last line is `N passed, N failed`.
 */
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Absent, findBinary } from './find.ts';

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const cache = join(root, '.runtimes');
const app = await mkdtemp(join(tmpdir(), 'mgf-packed-'));
const limits = { cwd: app, timeout: 5 * 60_000, maxBuffer: 1 << 28 };
process.on('SIGINT', () => {
  process.exit(130);
});

const APP = `import { MGF } from 'mgf-webgpu';
const started = performance.now(), mgf = await MGF.load();
const { frames, width, data } = await mgf.embed(Float32Array.from({ length: 48000 }, (_, i) => Math.sin(0.05 * i + 3 * Math.sin(i / 4000))));
console.log(JSON.stringify({ adapter: mgf.adapter, frames, width, first: data[0], finite: data.every(Number.isFinite), ms: Math.round(performance.now() - started) }));
mgf.dispose();
`;
/** What a strict TypeScript project does with the package; `GPUDevice` where the project has types of WebGPU. */
const CONSUMER = `import { compile, defineOp, Graph, kernel, loadAudio, MGF, openGpu, pretrain } from 'mgf-webgpu';
import type { Dispatch, Gpu, MGFConfig, Op, Program, Value } from 'mgf-webgpu';
import { MGF as BrowserMGF } from 'mgf-webgpu/browser';
import { MGF as PageMGF } from 'mgf-webgpu/page';
const gpu: Gpu = await openGpu({ prefer: 'software' });
const graph = new Graph();
const x: Value = graph.input('x', [4]);
const program: Program = await compile(gpu, graph, { outputs: { x } });
const mgf: MGF = await MGF.load();
const { frames, data } = await mgf.embed(new Float32Array(16000));
const width: number = data.length / frames;
const classes: readonly (typeof BrowserMGF)[] = [BrowserMGF, PageMGF];
console.log(width, program.toString(), classes, defineOp, kernel, loadAudio, pretrain);
export type { Dispatch, MGFConfig, Op };
`;
const WITH_WEBGPU = `${CONSUMER}const device: GPUDevice = gpu.device;
console.log(device.limits.maxBufferSize);
`;

/** Compiles both consumers under one TypeScript and one resolution; no skipLibCheck. */
async function compiles(typescript: 'typescript5' | 'typescript', module: string): Promise<string> {
  const tsc = join(root, 'node_modules', typescript, 'bin', 'tsc');
  const resolution = module === 'esnext' ? 'bundler' : module;
  const base = ['--noEmit', '--strict', '--target', 'es2022', '--module', module];
  const options = [
    ...base,
    '--moduleResolution',
    resolution,
    ...(typescript === 'typescript' ? ['--ignoreConfig'] : []),
  ];
  const dom = ['--lib', 'ES2023,DOM', '--types'];
  // lib.dom of TypeScript 5 has no types of WebGPU yet; newer ones clash with those of @webgpu/types.
  const webgpu = [...dom, typescript === 'typescript5' ? 'node,@webgpu/types' : 'node', 'gpu.ts'];
  for (const args of [['--lib', 'ES2023', '--types', 'node', 'app.ts'], [...dom, 'node', 'app.ts'], webgpu]) {
    const { stdout } = await run(process.execPath, [tsc, ...options, ...args], limits).catch(
      (error: unknown) => {
        throw new Error((error as { stdout: string }).stdout.split('\n').slice(0, 3).join(' | '));
      },
    );
    if (stdout) throw new Error(stdout);
  }
  return 'no error, without lib.dom, with it, and with types of WebGPU';
}

let passed = 0;
let failed = 0;

/** One thing that has to work; what it says is shown. A runtime that cannot be had is a failure here, too. */
async function shows(what: string, check: () => Promise<string>): Promise<void> {
  try {
    console.log(`ok    ${what}: ${await check()}`);
    passed++;
  } catch (error) {
    failed++;
    const { stderr = '', message } = error as Error & { stderr?: string };
    console.log(
      `FAIL  ${what}: ` +
        `${error instanceof Absent ? message : `${message.split('\n')[0]} ${stderr.trim().split('\n').slice(-3).join(' | ')}`}`,
    );
  }
}

try {
  await shows('npm pack and npm install into an empty folder', async () => {
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', app], {
      ...limits,
      cwd: root,
    });
    // What the build says comes before the answer.
    const [{ filename, size, entryCount }] = JSON.parse(stdout.slice(stdout.lastIndexOf('\n[') + 1)) as [
      { filename: string; size: number; entryCount: number },
    ];
    await writeFile(join(app, 'package.json'), '{ "private": true, "type": "module" }\n');
    await run('npm', ['install', '--no-audit', '--no-fund', join(app, filename)], limits);
    await writeFile(join(app, 'app.js'), APP);
    return `${filename}, ${(size / 1e6).toFixed(1)} MB, ${entryCount} files`;
  });

  await writeFile(join(app, 'app.ts'), CONSUMER);
  await writeFile(join(app, 'gpu.ts'), WITH_WEBGPU);
  await run('npm', ['install', '--no-audit', '--no-fund', '@types/node@20', '@webgpu/types@0.1'], limits);
  for (const typescript of ['typescript5', 'typescript'] as const) {
    const { version } = JSON.parse(
      await readFile(join(root, 'node_modules', typescript, 'package.json'), 'utf8'),
    ) as {
      version: string;
    };
    for (const module of ['node16', 'nodenext', 'esnext']) {
      await shows(`a strict project of TypeScript ${version}, ${module}`, () => compiles(typescript, module));
    }
  }

  let reference: number | null = null;
  for (const [name, args] of [
    ['node20', []],
    ['node22', []],
    ['node24', []],
    ['bun', []],
    ['deno', ['run', '-A']],
  ] as const) {
    await shows(`an application of it on ${name}`, async () => {
      const { executable, version, env } = await findBinary(name, cache);
      const { stdout } = await run(executable, [...args, 'app.js'], {
        ...limits,
        env: { ...process.env, ...env },
      });
      const { frames, width, first, finite, adapter, ms } = JSON.parse(stdout.trim().split('\n').at(-1)!) as {
        frames: number;
        width: number;
        first: number;
        finite: boolean;
        adapter: string;
        ms: number;
      };
      reference ??= first;
      if (frames !== 149 || width !== 192 || !finite || Math.abs(first - reference) > 1e-4)
        throw new Error(`it computed ${frames} x ${width}, ${first} first, where ${reference} was due`);
      return `${version}, ${adapter}, ${frames} x ${width}, ${ms} ms with loading`;
    });
  }

  await shows('a bundle of it for browsers', async () => {
    await run(
      join(app, 'node_modules', '.bin', 'esbuild'),
      [
        'app.js',
        '--bundle',
        '--format=esm',
        '--platform=browser',
        '--minify',
        '--splitting',
        '--outdir=bundle',
        '--log-level=error',
      ],
      limits,
    );
    return `${((await stat(join(app, 'bundle', 'app.js'))).size / 1000).toFixed(0)} kB before gzip`;
  });

  const audio = (name: string): string => join(root, 'test', 'fixtures', 'audio', name);
  await shows('examples/apps/similar.deno.ts', async () => {
    await copyFile(join(root, 'examples', 'apps', 'similar.deno.ts'), join(app, 'similar.deno.ts'));
    const { executable } = await findBinary('deno', cache);
    const { stdout } = await run(
      executable,
      [
        'run',
        '--allow-read',
        '--allow-env',
        'similar.deno.ts',
        audio('tone.mp3'),
        audio('tone.opus'),
        audio('tone.mp3'),
      ],
      limits,
    );
    const ranked = [...stdout.matchAll(/^(-?[\d.]+) \S+$/gm)].map((m) => Number(m[1]));
    if (ranked.length !== 2 || Math.abs(ranked[0]! - 1) > 1e-3 || ranked[1]! >= ranked[0]!)
      throw new Error(`it ranked ${ranked.join(', ')}`);
    return `a recording and itself ${ranked[0]}, and another ${ranked[1]}`;
  });
  await shows('examples/apps/stream.bun.ts', async () => {
    await copyFile(join(root, 'examples', 'apps', 'stream.bun.ts'), join(app, 'stream.bun.ts'));
    const samples = Int16Array.from(
      { length: 24_000 * 30 },
      (_, i) => 8000 * Math.sin(0.04 * i + 3 * Math.sin(i / 4000)),
    );
    await writeFile(join(app, 'long.s16le'), new Uint8Array(samples.buffer));
    const { executable, env } = await findBinary('bun', cache);
    const { stdout } = await run(executable, ['run', 'stream.bun.ts', 'long.s16le', '24000'], {
      ...limits,
      env: { ...process.env, ...env },
    });
    const lines = stdout.trim().split('\n');
    const { seconds, vector } = JSON.parse(lines.at(-1)!) as { seconds: number; vector: number[] };
    if (lines.length !== 1499 || seconds !== 29.96 || vector.length !== 192)
      throw new Error(`it wrote ${lines.length} frames, the last at ${seconds} s`);
    return `${lines.length} frames of 30 s at 24 kHz`;
  });
} finally {
  await rm(app, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
