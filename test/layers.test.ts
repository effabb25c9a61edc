import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('layers');
const root = fileURLToPath(new URL('../..', import.meta.url));
const cruiser = join(root, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs');

/** What the layer check says of a folder: exit status and text. */
function check(cwd: string, folders: readonly string[]): { status: number | null; out: string } {
  const config = join(root, '.dependency-cruiser.mjs');
  const args = [cruiser, '--config', config, '--output-type', 'err', ...folders];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd, encoding: 'utf8' });
  return { status, out: stdout + stderr };
}

/** The same for a few made-up files. */
function checkFiles(files: Readonly<Record<string, string>>): { status: number | null; out: string } {
  const folder = mkdtempSync(join(tmpdir(), 'mgf-layers-'));
  try {
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), text);
    }
    return check(folder, ['src']);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test('imports point only up the list', () => {
  const { status, out } = check(root, ['src', 'web', 'bench']);
  assert.is(status, 0, out);
});

test('an import from above is found, even of a type', () => {
  const { status, out } = checkFiles({
    'src/plan/program.ts': 'export interface Program { steps: number }',
    'src/graph/planted.ts': "import type { Program } from '../plan/program.ts';\nexport type P = Program;",
  });
  assert.is(status, 1);
  assert.match(out, 'src/graph imports from above: src/graph/planted.ts');
});

test('a cycle of types is found', () => {
  const { status, out } = checkFiles({
    'src/nn/a.ts': "import type { B } from './b.ts';\nexport interface A { b: B }",
    'src/nn/b.ts': "import type { A } from './a.ts';\nexport interface B { a: A }",
  });
  assert.is(status, 1);
  assert.match(out, 'a cycle: src/nn/a.ts');
});

test('a Node module where browsers go is found, and a file without a room', () => {
  const { status, out } = checkFiles({
    'src/ops/planted.ts': "import fs from 'node:fs';\nexport const x = fs;",
    'src/nowhere/a.ts': "import { x } from '../ops/planted.ts';\nexport const y = x;",
  });
  assert.is(status, 2);
  assert.match(out, 'a Node module in what runs in browsers: src/ops/planted.ts');
  assert.match(out, 'a file without a room: src/nowhere/a.ts');
});

test('the document of the house quotes the table', () => {
  const rooms = JSON.parse(readFileSync(join(root, 'src/layers.json'), 'utf8')) as {
    room: string;
    holds: string;
  }[];
  const block = readFileSync(join(root, 'docs/architecture.md'), 'utf8').split('```\n')[1]!;
  const quoted = block
    .trim()
    .split('\n')
    .map((line) => /^(\S+?)\/?\s+(.*)$/.exec(line)!.slice(1));
  assert.equal(
    quoted,
    rooms.map(({ room, holds }) => [room, holds]),
  );
});

test('the workflow for forks calls what a person calls', () => {
  const workflow = readFileSync(join(root, '.github/workflows/ci.yml'), 'utf8');
  const scripts = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object };
  assert.match(workflow, 'bash .ci/run');
  for (const [, name] of workflow.matchAll(/npm run (\S+)/g))
    assert.ok(Object.hasOwn(scripts.scripts, name!), name);
  const tests = readdirSync(join(root, 'test'));
  for (const [, filter] of workflow.matchAll(/--filter (\S+)/g)) {
    assert.ok(
      tests.some((file) => file.includes(filter!)),
      filter,
    );
  }
});

test.run();
