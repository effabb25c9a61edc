// The dev loop: bundles the test files that match TEST, runs them, and does both again at every save.
//   npm run dev -- TEST [--once] [--adapter gpu|lavapipe|swiftshader]
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { context } from 'esbuild';
import { programBundle, testBundle } from '../build.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const outdir = 'dist/dev';

/** What a test reads from dist/ that this loop does not build, and the command that builds it. */
const PREBUILT = [
  { mention: /'web'|dist\/web/, path: 'dist/web' },
  { mention: /'page', 'mgf\.js'/, path: 'dist/page' },
  { mention: /runtimes\/(run|packed)\.js/, path: 'dist/test/runtimes' },
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { once: { type: 'boolean', default: false }, adapter: { type: 'string' } },
});

function usage(message) {
  console.error(message);
  process.exit(2);
}

if (positionals.length !== 1)
  usage('say which test: npm run dev -- TEST, for example npm run dev -- ops-norm');
const name = positionals[0];
const all = (await readdir(join(root, 'test'))).filter((file) => file.endsWith('.test.ts')).sort();
const exact = `${name.replace(/\.test\.ts$/, '')}.test.ts`;
const files = all.includes(exact) ? [exact] : all.filter((file) => file.includes(name));
if (files.length === 0) usage(`no test file matches "${name}"; there are ${all.join(', ')}`);

const sources = await Promise.all(files.map((file) => readFile(join(root, 'test', file), 'utf8')));
const text = sources.join('\n');
for (const { mention, path } of PREBUILT) {
  if (mention.test(text) && !existsSync(join(root, path)))
    usage(`${name} needs ${path}: run node build.mjs --test once`);
}
const startsProgram = /['/]mgf\.js'|audio-worker\.js/.test(text);

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
let running = null;
let generation = 0;

/** Runs one bundled test file and resolves to its exit status; null where a later save has ended it. */
function runFile(file) {
  const bundle = join(root, outdir, file.replace(/\.ts$/, '.js'));
  const adapter = values.adapter === undefined ? [] : ['--adapter', values.adapter];
  return new Promise((resolve) => {
    running = spawn(process.execPath, [bundle, ...adapter], { stdio: 'inherit' });
    running.on('close', resolve);
  });
}

/** Runs the test files one after another. A save in between starts anew and gives this pass up. */
async function runFiles(started, built) {
  const mine = ++generation;
  running?.kill();
  let failed = 0;
  for (const file of files) {
    const status = await runFile(file);
    if (mine !== generation) return;
    if (status !== 0) failed++;
  }
  const result = failed === 0 ? 'ok' : `${failed} of ${files.length} files failed`;
  console.log(`${name}: ${result}; bundled in ${built}, ${seconds(started)} in all`);
  process.exitCode = failed === 0 ? 0 : 1;
}

/** Says how a bundle went: `done` is called with the time at which it began, or not at all on an error. */
const atEnd = (done) => ({
  name: 'at-end',
  setup(b) {
    let started = 0;
    b.onStart(() => {
      started = performance.now();
    });
    b.onEnd(({ errors }) => (errors.length === 0 ? done(started) : undefined));
  },
});

const contexts = [];
async function open(options, done) {
  const built = await context({ ...options, plugins: [...options.plugins, atEnd(done)] });
  contexts.push(built);
  return built;
}

let pending = null;
/** One run for bundles that end at nearly the same time, as they do when a save changes both. */
function runSoon(started) {
  if (values.once) return;
  clearTimeout(pending);
  pending = setTimeout(() => void runFiles(started, seconds(started)), 50);
}

const began = performance.now();
const program = startsProgram ? await open(programBundle, runSoon) : null;
const tests = await open(testBundle(files, outdir), runSoon);
if (values.once) {
  try {
    await Promise.all([program?.rebuild(), tests.rebuild()]);
    await runFiles(began, seconds(began));
  } catch {
    process.exitCode = 1; // esbuild has printed the error
  }
  await Promise.all(contexts.map((bundle) => bundle.dispose()));
} else {
  // The tests start the program, so it is bundled before them. esbuild prints an error in it; the watch goes on.
  await program?.rebuild().catch(() => {});
  await program?.watch();
  await tests.watch();
  console.log(`watching what ${files.join(', ')} imports; Ctrl-C ends`);
}
