// Bundles the library, the command line and (with --test) the tests. Kernels travel as text: `#include`s are
// resolved here. node build.mjs [--test] [--web] [--types] [--quiet]
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { cp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = import.meta.dirname ?? dirname(new URL(import.meta.url).pathname);
const withTests = process.argv.includes('--test');
const withWeb = withTests || process.argv.includes('--web');
const quiet = process.argv.includes('--quiet');

/**
 * Pieces of a kernel in order, its `#include "file"` lines replaced by the pieces of the files, each file at
 * most once.
 */
async function piecesOf(path, seen) {
  const pieces = [];
  let lines = [];
  const cut = () => {
    pieces.push({ path, text: lines.join('\n') });
    lines = [];
  };
  for (const line of (await readFile(path, 'utf8')).split('\n')) {
    const include = /^\s*#include\s+"([^"]+)"/.exec(line);
    const target = include && join(root, 'kernels', include[1]);
    if (!target) lines.push(line);
    else if (!seen.has(target)) {
      seen.add(target);
      cut();
      pieces.push(...(await piecesOf(target, seen)));
    }
  }
  cut();
  return pieces;
}

/** WGSL without comments and spare space; `#if` and the like keep their lines. */
function squeeze(text) {
  let out = '';
  for (const line of text
    .replace(/\/\*[^]*?\*\//g, '')
    .split('\n')
    .map((l) => l.replace(/\/\/.*/, '').trim())
    .filter(Boolean)) {
    const code = line.startsWith('#') ? `\n${line}\n` : line.replace(/\s*([-=+*/<>,;:(){}&|[\]!])\s*/g, '$1');
    out += /\w$/.test(out) && /^[\w$]/.test(code) ? ` ${code}` : code;
  }
  return `${out.replace(/\n+/g, '\n')}\n`;
}

/**
 * Kernels as text. `squeezed`: small, and what several kernels include is there once; for browsers. Otherwise
 * as written, for people.
 */
export const wgsl = ({ squeezed = false } = {}) => ({
  name: 'wgsl',
  setup(b) {
    const shared = new Map();
    b.onResolve({ filter: /^wgsl:/ }, ({ path }) => ({ path, namespace: 'wgsl' }));
    b.onLoad({ filter: /.*/, namespace: 'wgsl' }, ({ path }) => ({
      contents: shared.get(path),
      loader: 'text',
    }));
    b.onLoad({ filter: /\.wgsl$/ }, async ({ path }) => {
      try {
        const pieces = await piecesOf(path, new Set());
        const watchFiles = [...new Set(pieces.map((p) => p.path))];
        if (!squeezed) return { contents: pieces.map((p) => p.text).join('\n'), loader: 'text', watchFiles };
        const imports = [];
        const parts = [];
        for (const [i, { path: from, text }] of pieces.entries()) {
          const small = squeeze(text);
          if (small === '\n') continue;
          if (from === path) parts.push(JSON.stringify(small));
          else {
            const name = `wgsl:${relative(root, from)}:${pieces.slice(0, i).filter((p) => p.path === from).length}`;
            shared.set(name, small);
            imports.push(`import p${i} from ${JSON.stringify(name)};`);
            parts.push(`p${i}`);
          }
        }
        return {
          contents: `${imports.join('\n')}\nexport default ${parts.join(' + ')};`,
          loader: 'js',
          watchFiles,
        };
      } catch (error) {
        return { errors: [{ text: `${path}: ${error.message}` }] };
      }
    });
  },
});

/**
 * The Opus decoder can load a network that sharpens damaged speech, 4 MB, on request only; nobody here
 * requests it.
 */
const withoutOpusNetwork = {
  name: 'without-opus-network',
  setup(b) {
    b.onResolve({ filter: /^@wasm-audio-decoders\/opus-ml$/ }, ({ path }) => ({ path, namespace: 'empty' }));
    b.onLoad({ filter: /.*/, namespace: 'empty' }, () => ({ contents: 'export {};' }));
  },
};

const common = {
  bundle: true,
  format: 'esm',
  target: 'es2022',
  sourcemap: 'linked',
  sourcesContent: false,
  logLevel: quiet ? 'error' : 'warning',
  absWorkingDir: root,
  plugins: [wgsl()],
  loader: { '.py': 'text' },
};
const node = { ...common, platform: 'node', packages: 'external', outdir: 'dist' };

/** The command line, the library that a user's module imports, and the thread that decodes audio. */
const programEntries = {
  mgf: 'src/main.ts',
  node: 'src/node.ts',
  'audio-worker': 'src/audio/worker.ts',
};

/** Options that bundle the command line by itself, for the dev loop. */
export const programBundle = { ...node, splitting: true, entryPoints: programEntries };

/** Options that bundle test files; the name of the package leads to the sources. */
export const testBundle = (files, outdir) => ({
  ...node,
  entryPoints: files.map((file) => `test/${file}`),
  outdir,
  alias: { 'mgf-webgpu': './src/node.ts' },
});

/** For browsers: small kernels, and nothing that only Node has. */
const browser = {
  ...common,
  platform: 'browser',
  external: ['webgpu'],
  splitting: true,
  plugins: [wgsl({ squeezed: true }), withoutOpusNetwork],
};

/**
 * The web page: what web/ holds, bundled for browsers, with the network and the sounds that come along; and a
 * server for it.
 */
async function buildWeb() {
  await build({
    ...browser,
    entryPoints: ['web/main.ts', 'web/worker.ts'],
    outdir: 'dist/web',
    minify: true,
  });
  for (const file of ['web/index.html', 'web/style.css', 'web/clips', 'models/mgf-tiny.safetensors'])
    await cp(join(root, file), join(root, 'dist/web', file.replace(/^\w+\//, '')), { recursive: true });
  await build({ ...node, entryPoints: { serve: 'web/serve.ts' } });
}

/** Global types of WebGPU that a declaration uses; what comments say does not count. */
const webgpuTypesOf = (text) => {
  const code = text.replace(/\/\*[^]*?\*\/|\/\/.*/g, '');
  return [...new Set(code.match(/\bGPU(?:[A-Z][a-z]\w*)?\b/g))].sort();
};

/**
 * The declarations, for every strict project. Who has types of WebGPU (`lib.dom` of TypeScript 6 and newer,
 * `@webgpu/types` before that) gets those; to who has none they are `any`. So neither is required, and the two,
 * which exclude each other, cannot clash.
 */
async function buildTypes() {
  const folder = join(root, 'dist/types');
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const options = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', folder];
  execFileSync(process.execPath, [tsc, ...options], { cwd: root, stdio: 'inherit' });
  const files = await readdir(join(folder, 'src'), { recursive: true });
  const used = new Set();
  for (const file of files.filter((f) => f.endsWith('.d.ts'))) {
    const path = join(folder, 'src', file);
    const text = (await readFile(path, 'utf8')).replace(
      /((?:from |import\()['"]\.[^'"]*)\.ts(['"])/g,
      '$1.js$2',
    );
    const names = webgpuTypesOf(text);
    const here = relative(dirname(path), join(folder, 'src/webgpu.js'));
    const specifier = here.startsWith('.') ? here : `./${here}`;
    const imports = names.length > 0 ? `import type { ${names.join(', ')} } from '${specifier}';\n` : '';
    for (const name of names) used.add(name);
    await writeFile(path, imports + text);
  }
  const declared = [...used].sort().map((name) => {
    const known = `typeof globalThis extends { ${name}: { prototype: infer T } } ? T : any`;
    return `export type ${name} = ${known};\n`;
  });
  await writeFile(join(folder, 'src/webgpu.d.ts'), declared.join(''));
  for (const other of ['bench', 'test', 'web', 'examples']) {
    await rm(join(folder, other), { recursive: true, force: true });
  }
}

async function main() {
  await rm(join(root, 'dist'), { recursive: true, force: true });
  // For bundlers: every module by itself, so that an application pays for what it imports. For pages without
  // a bundler: one file, and the decoders when they are needed.
  const { metafile } = await build({
    ...browser,
    entryPoints: { mgf: 'src/index.ts' },
    outdir: 'dist/page',
    minify: true,
    metafile: true,
  });
  const modules = Object.keys(metafile.inputs).filter((file) => file.startsWith('src/'));
  await build({
    ...browser,
    entryPoints: modules,
    outbase: 'src',
    outdir: 'dist/browser',
    chunkNames: 'shared/[name]-[hash]',
  });
  await build({
    ...node,
    entryPoints: {
      ...programEntries,
      'bench/overfit': 'bench/overfit.ts',
      'bench/long-stream': 'bench/long-stream.ts',
      'bench/embedding': 'bench/embedding.ts',
    },
    splitting: true,
  });
  // Carried to machines without node_modules: everything in one file but Dawn, and what only the embedded
  // driver needs.
  await build({
    ...node,
    entryPoints: { 'bench/gpu-host': 'bench/gpu-host/report.ts' },
    packages: 'bundle',
    external: ['webgpu', 'tar-stream'],
  });
  if (withWeb) await buildWeb();
  if (withTests) {
    const tests = (await readdir(join(root, 'test'))).filter((f) => f.endsWith('.test.ts'));
    await build({ ...testBundle(tests, 'dist/test'), splitting: true });
    await build({
      ...node,
      entryPoints: ['test/runtimes/run.ts', 'test/runtimes/packed.ts'],
      outdir: 'dist/test/runtimes',
    });
    // The suite of all runtimes takes the package as it is shipped. By path: Bun would follow tsconfig.json
    // from the name to the sources.
    for (const [entry, shipped] of [
      ['host', 'node'],
      ['page', 'page/mgf'],
    ]) {
      const plugin = {
        name: 'shipped',
        setup(b) {
          b.onResolve({ filter: /^mgf-webgpu$/ }, () => ({ path: `../../${shipped}.js`, external: true }));
        },
      };
      await build({
        ...common,
        platform: 'neutral',
        entryPoints: [`test/runtimes/${entry}.ts`],
        outdir: 'dist/test/runtimes',
        external: ['webgpu', 'node:*'],
        plugins: [plugin],
      });
    }
  }
}
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main();
  if (process.argv.includes('--types')) await buildTypes();
}
