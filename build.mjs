// Bundles the library, the command line and (with --test) the tests. Kernels travel as text: `#include`s are resolved here.
//   node build.mjs [--test] [--web] [--quiet]
import { build } from 'esbuild';
import { cp, readFile, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const root = import.meta.dirname ?? dirname(new URL(import.meta.url).pathname);
const withTests = process.argv.includes('--test');
const withWeb = withTests || process.argv.includes('--web');
const quiet = process.argv.includes('--quiet');

/** Text of a kernel with its `#include "file"` lines replaced by the files, each at most once. */
async function resolveIncludes(path, seen, files) {
  files.push(path);
  const lines = (await readFile(path, 'utf8')).split('\n');
  const out = [];
  for (const line of lines) {
    const include = /^\s*#include\s+"([^"]+)"/.exec(line);
    if (!include) { out.push(line); continue; }
    const target = join(root, 'kernels', include[1]);
    if (seen.has(target)) continue;
    seen.add(target);
    out.push(await resolveIncludes(target, seen, files));
  }
  return out.join('\n');
}

export const wgsl = {
  name: 'wgsl',
  setup(b) {
    b.onLoad({ filter: /\.wgsl$/ }, async ({ path }) => {
      const files = [];
      try {
        return { contents: await resolveIncludes(path, new Set(), files), loader: 'text', watchFiles: files };
      } catch (error) {
        return { errors: [{ text: `${path}: ${error.message}` }], watchFiles: files };
      }
    });
  },
};

const common = { bundle: true, format: 'esm', target: 'es2022', sourcemap: 'linked', logLevel: quiet ? 'error' : 'warning', absWorkingDir: root, plugins: [wgsl], loader: { '.py': 'text' } };
const node = { ...common, platform: 'node', packages: 'external', outdir: 'dist' };

/** The web page: what web/ holds, bundled for browsers, with the network and the sounds that come along; and a server for it. */
async function buildWeb() {
  await build({ ...common, platform: 'browser', entryPoints: ['web/main.ts', 'web/worker.ts'], outdir: 'dist/web', splitting: true, minify: true });
  for (const file of ['web/index.html', 'web/style.css', 'web/clips', 'models/mgf-tiny.safetensors']) await cp(join(root, file), join(root, 'dist/web', file.replace(/^\w+\//, '')), { recursive: true });
  await build({ ...node, entryPoints: { serve: 'web/serve.ts' } });
}

async function main() {
  await rm(join(root, 'dist'), { recursive: true, force: true });
  await build({ ...common, platform: 'browser', entryPoints: ['src/index.ts'], outdir: 'dist', external: ['webgpu'], splitting: true });
  await build({ ...node, entryPoints: { mgf: 'src/cli/main.ts', node: 'src/node.ts', 'audio-worker': 'src/audio/worker.ts', 'bench/overfit': 'bench/overfit.ts' }, splitting: true });
  // Carried to machines without node_modules: everything in one file but Dawn, and what only the embedded driver needs.
  await build({ ...node, entryPoints: { 'bench/gpu-host': 'bench/gpu-host/report.ts' }, packages: 'bundle', external: ['webgpu', 'tar-stream'] });
  if (withWeb) await buildWeb();
  if (withTests) {
    const tests = (await readdir(join(root, 'test'))).filter((f) => f.endsWith('.test.ts'));
    await build({ ...node, entryPoints: tests.map((f) => `test/${f}`), outdir: 'dist/test', splitting: true, alias: { 'mgf-webgpu': './src/node.ts' } });
  }
}
await main();
