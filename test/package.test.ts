import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openTestGpu } from './gpu.ts';

/** What is published, as it lies in dist/: the builds for browsers, whose kernels are squeezed. */
const root = fileURLToPath(new URL('../..', import.meta.url));
const gpu = await openTestGpu();
const dist = (...path: string[]): string => join(root, 'dist', ...path);
type Api = typeof import('../src/index.ts');
const page = (await import(pathToFileURL(dist('page', 'mgf.js')).href)) as Api;

/**
 * Kilobytes after gzip of what a page loads first when it imports these names; decoders and resampler come
 * later, if at all.
 */
async function kilobytes(names: string): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents: `export { ${names} } from './dist/browser/index.js';`, resolveDir: root },
    absWorkingDir: root,
    tsconfigRaw: '{}',
    bundle: true,
    format: 'esm',
    platform: 'browser',
    minify: true,
    splitting: true,
    outdir: 'unused',
    write: false,
    logLevel: 'silent',
  });
  return gzipSync(outputFiles.find((f) => f.path.endsWith('stdin.js'))!.contents, { level: 9 }).length / 1000;
}

// The bounds are what it takes today and a little; whoever makes it larger has to say so here.
for (const [what, names, most] of [
  ['running a checkpoint', 'MGF', 73],
  [
    'training',
    'MGF, Pretrainer, presetRunConfig, randomStream, spanMask, fixedNegatives, anchorCapacity, normaliseCrop',
    88,
  ],
  ['a graph with one op', 'compile, gelu, Graph, openGpu', 20],
] as const) {
  test(`${what} takes at most ${most} kB of an application`, async () => {
    const size = await kilobytes(names);
    console.log(`${what}: ${size.toFixed(1)} kB after gzip`);
    assert.ok(size <= most, `${size} kB`);
  });
}

test('the build for pages computes the golden cases with its squeezed kernels', async () => {
  const folder = join(root, 'test', 'golden');
  const wrong: string[] = [];
  for (const name of readdirSync(folder).filter((f) => f.endsWith('.safetensors'))) {
    if (!(await page.runCase(gpu, new Uint8Array(readFileSync(join(folder, name))), name)).passed)
      wrong.push(name);
  }
  assert.equal(wrong, []);
});

test('neither build for browsers imports anything from outside', () => {
  for (const folder of ['page', 'browser']) {
    const files = readdirSync(dist(folder), { recursive: true, encoding: 'utf8' }).filter((f) =>
      f.endsWith('.js'),
    );
    assert.ok(files.length > 3);
    for (const file of files) {
      const outside = [
        ...readFileSync(dist(folder, file), 'utf8').matchAll(
          /^\s*(?:import|export)\b[^'"\n]*\bfrom\s*["']([^"'.][^"']*)["']/gm,
        ),
      ].map((m) => m[1]);
      assert.equal(outside, [], `${folder}/${file}`);
    }
  }
});

test('both builds for browsers offer the same names as the sources', async () => {
  const source = Object.keys(await import('../src/index.ts')).sort();
  assert.equal(Object.keys(page).sort(), source);
  assert.equal(
    Object.keys((await import(pathToFileURL(dist('browser', 'index.js')).href)) as object).sort(),
    source,
  );
});

test.run();
