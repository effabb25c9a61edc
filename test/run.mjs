// Runs every bundled test file in a process of its own, two at a time, and sums what uvu counts.
//   node test/run.mjs [--adapter gpu|lavapipe|swiftshader] [--filter TEXT]
import { spawn } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const parallel = 2;
const limitMinutes = 10;
const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist', 'test');

const { values } = parseArgs({
  options: { adapter: { type: 'string' }, filter: { type: 'string', default: '' } },
});
const adapters = ['gpu', 'software', 'lavapipe', 'swiftshader'];
if (values.adapter !== undefined && !adapters.includes(values.adapter)) {
  console.error(`unknown adapter "${values.adapter}": use one of ${adapters.join(', ')}`);
  process.exit(2);
}
const passedOn = values.adapter === undefined ? [] : ['--adapter', values.adapter];

/** Runs one file; resolves to its counts. A crash, a missing count and a hang are one failure each. */
function runFile(file) {
  const started = performance.now();
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(folder, file), ...passedOn], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FORCE_COLOR: '0' },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      child.kill('SIGKILL');
    }, limitMinutes * 60_000);
    let ended = false;
    const end = (code, signal) => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      const seconds = (performance.now() - started) / 1000;
      const count = (name) => Number(new RegExp(`^\\s*${name}:\\s+(\\d+)`, 'm').exec(output)?.[1] ?? NaN);
      const total = count('Total');
      const passed = count('Passed') || 0;
      const skipped = count('Skipped') || 0;
      let failed = total - passed || 0;
      let trouble = '';
      if (hung) trouble = `did not end within ${limitMinutes} minutes`;
      else if (signal) trouble = `was ended by ${signal}`;
      else if (Number.isNaN(total)) trouble = `exited with ${code} before it counted its tests`;
      else if (total === 0 && skipped === 0) trouble = 'holds no test';
      else if (code !== 0 && failed === 0) trouble = `exited with ${code} after its tests passed`;
      if (trouble) failed += 1;
      resolve({ file, passed, failed, skipped, seconds, trouble, output });
    };
    child.on('error', (error) => {
      output += error.message;
      end(-1, null);
    });
    child.on('close', end);
  });
}

const files = (await readdir(folder))
  .filter((f) => f.endsWith('.test.js') && f.includes(values.filter))
  .sort();
if (files.length === 0) {
  console.error(`no test file matches "${values.filter}" in ${folder}: run \`node build.mjs --test\` first`);
  console.log('0 passed, 1 failed');
  process.exit(1);
}

const sum = { passed: 0, failed: 0, skipped: 0 };
let adapterShown = false;
function report(result) {
  sum.passed += result.passed;
  sum.failed += result.failed;
  sum.skipped += result.skipped;
  const adapter = /^adapter: .*$/m.exec(result.output)?.[0];
  if (adapter && !adapterShown) {
    adapterShown = true;
    console.log(adapter);
  }
  const skips = result.skipped ? `, ${result.skipped} skipped` : '';
  console.log(
    `${result.failed ? 'FAIL' : 'ok  '} ${result.file.padEnd(32)} ${result.passed} passed, ` +
      `${result.failed} failed${skips}  ` +
      `${result.seconds.toFixed(1)} s${result.trouble ? `  (${result.trouble})` : ''}`,
  );
  for (const line of result.output.split('\n'))
    if (/^skip(ped|s)?\b/i.test(line)) console.log(`       ${line}`);
  if (result.failed) console.log(result.output.trim().replace(/^/gm, '       '));
}

const queue = [...files];
async function worker() {
  for (let file = queue.shift(); file !== undefined; file = queue.shift()) report(await runFile(file));
}
await Promise.all(Array.from({ length: parallel }, worker));

if (sum.skipped) console.log(`${sum.skipped} skipped`);
console.log(`${sum.passed} passed, ${sum.failed} failed`);
process.exitCode = sum.failed ? 1 : 0;
