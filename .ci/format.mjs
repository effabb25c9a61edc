// The form of the code. Prettier formats TypeScript; what it does not break (strings, comments, WGSL, code in
// Markdown) has to fit into the same columns by hand.
//   npm run format               writes
//   npm run format -- --check    only says what would change; for build servers
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { glob } from 'tinyglobby';

const COLUMNS = 110;
const root = fileURLToPath(new URL('..', import.meta.url));
const check = process.argv.includes('--check');
const code = ['{src,web,bench,test,examples}/**/*.{ts,mjs}', '*.mjs', '.ci/*.mjs', '.dependency-cruiser.mjs'];

const prettier = createRequire(import.meta.url).resolve('prettier/bin/prettier.cjs');
const options = ['--log-level', 'warn', check ? '--check' : '--write'];
const { status } = spawnSync(process.execPath, [prettier, ...options, ...code], {
  cwd: root,
  stdio: 'inherit',
});

/** The lines of a Markdown file that are TypeScript, JavaScript or WGSL; others are left empty. */
function codeOf(markdown) {
  let inside = false;
  return markdown.split('\n').map((line) => {
    const fence = /^\s*```(\w*)/.exec(line);
    if (!fence) return inside ? line : '';
    inside = !inside && /^(ts|typescript|js|javascript|wgsl)$/.test(fence[1]);
    return '';
  });
}

const ignore = ['**/node_modules', 'dist', 'docs/api', 'bench/results'];
const files = await glob([...code, 'kernels/**/*.wgsl', '**/*.md', 'web/*.{html,css}'], {
  cwd: root,
  ignore,
  dot: true,
});
const long = files.sort().flatMap((file) => {
  const text = readFileSync(`${root}${file}`, 'utf8');
  const lines = file.endsWith('.md') ? codeOf(text) : text.split('\n');
  return lines.flatMap((line, i) =>
    line.length > COLUMNS ? [`${file}:${i + 1} has ${line.length} columns`] : [],
  );
});
if (long.length > 0) console.error(`${long.join('\n')}\n${long.length} lines are over ${COLUMNS} columns`);
process.exitCode = status !== 0 || long.length > 0 ? 1 : 0;
