import { spawn, spawnSync } from 'node:child_process';
import { utimesSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('dev loop');
const root = fileURLToPath(new URL('../..', import.meta.url));
const loop = join(root, 'test/dev.mjs');
/** Ends a loop that has said nothing for so long. */
const PATIENCE_MS = 60_000;

const once = (...args: string[]) =>
  spawnSync(process.execPath, [loop, ...args], { cwd: root, encoding: 'utf8', timeout: PATIENCE_MS });

test('one test file is bundled and run once, and the time is printed', () => {
  const { status, stdout, stderr } = once('numbers', '--once');
  assert.is(status, 0, stderr);
  assert.match(stdout, /^ {2}Passed: +[1-9]/m);
  assert.match(stdout, /^numbers: ok; bundled in \d+\.\d s, \d+\.\d s in all$/m);
});

test('a name that matches no test is refused with the names that there are', () => {
  const { status, stderr } = once('no-such-test', '--once');
  assert.is(status, 2);
  assert.match(stderr, 'no test file matches "no-such-test"');
  assert.match(stderr, 'numbers.test.ts');
});

test('a saved file reruns its test in under 5 seconds', async () => {
  const child = spawn(process.execPath, [loop, 'numbers'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const giveUp = setTimeout(() => child.kill(), PATIENCE_MS);
  let saved = 0;
  let took = Infinity;
  let passes = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    if (!text.includes('numbers: ok')) return;
    passes++;
    if (passes === 1) {
      saved = performance.now();
      // esbuild compares contents, which stay, where a file is younger than three seconds, and times otherwise.
      const minuteAgo = new Date(Date.now() - 60_000);
      utimesSync(join(root, 'src/numbers.ts'), minuteAgo, minuteAgo);
    } else {
      took = performance.now() - saved;
      child.kill();
    }
  });
  await new Promise((done) => child.on('close', done));
  clearTimeout(giveUp);
  assert.is(passes, 2, 'the first run and the one after the save');
  console.log(`a save reran its test in ${(took / 1000).toFixed(1)} s`);
  assert.ok(took < 5000, `the rerun took ${took} ms`);
});

test.run();
