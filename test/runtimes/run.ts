/**
 * Runs the suite on every runtime that there is, and prints who passed what. `npm run test:runtimes --
 * --help`. Exit status 1 if a check fails, if a row that `--only` asks for could not be run, or if none was.
 */
import { execFileSync, spawn } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { cpus, platform, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openChromium, openFirefox, runPage } from './browsers.ts';
import { Absent, driverManifest, findBinary, findBrowser, findEmbeddedChromium, type Found } from './find.ts';
import { MARK, type Plan } from './plan.ts';
import { absent, formatOutcomes, judge, TOLERANCE, type Outcome, type Row } from './results.ts';
import type { Finding } from './suite.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const cache = join(root, '.runtimes');
const MODEL = 'models/mgf-tiny.safetensors';
const LIMIT_MS = 15 * 60_000;

type Tell = (finding: Finding) => void;
interface Target extends Row {
  readonly find: () => Promise<Found>;
  readonly start: (found: Found, plan: Plan, tell: Tell) => Promise<void>;
}

const note = (text: string): void => {
  console.error(`       ${text}`);
};

/** Arguments of a program and environment for an adapter. */
interface Launch {
  readonly args?: readonly string[];
  readonly env?: () => Promise<Record<string, string>>;
}

/** A program that runs host.js. Rejects with how it ended and its last words. */
const host =
  ({ args = [], env }: Launch = {}): Target['start'] =>
  async ({ executable, env: own }, plan, tell) => {
    const environment = { ...process.env, ...own, ...(await env?.()) };
    const child = spawn(
      executable,
      [...args, join(root, 'dist', 'test', 'runtimes', 'host.js'), JSON.stringify(plan)],
      { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], env: environment },
    );
    const kill = (): void => {
      child.kill('SIGKILL');
    };
    const last: string[] = [];
    process.on('exit', kill);
    const timer = setTimeout(kill, LIMIT_MS);
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        if (line.startsWith(MARK)) tell(JSON.parse(line.slice(MARK.length)) as Finding);
        else last.push(line);
      });
    }
    try {
      await new Promise<void>((done, fail) => {
        child.on('error', fail).on('close', (status, signal) => {
          const words = last.filter((line) => /error|panic/i.test(line)).at(-1) ?? last.at(-1) ?? '';
          if (status === 0) done();
          else fail(new Error(`ended with ${signal ?? status}${words && `: ${words.trim()}`}`));
        });
      });
    } finally {
      clearTimeout(timer);
      process.off('exit', kill);
    }
  };

const page =
  (open: (found: Found, url: string) => ReturnType<typeof openChromium>): Target['start'] =>
  (found, plan, tell) =>
    runPage(root, plan, LIMIT_MS, tell, note, (url) => open(found, url));

/** A runtime's own WebGPU cannot be told which driver to take, the Vulkan loader can. */
const only = (adapter: 'lavapipe' | 'swiftshader') => async (): Promise<Record<string, string>> => ({
  VK_DRIVER_FILES: await driverManifest(adapter),
});

type Software = 'lavapipe' | 'swiftshader';
function programs(
  id: string,
  row: Omit<Row, 'id' | 'adapter'>,
  adapters: readonly Software[],
  launch: (adapter: Software) => Launch = () => ({}),
): Target[] {
  return adapters.map((adapter) => ({
    ...row,
    id: `${id}-${adapter}`,
    adapter,
    start: host(launch(adapter)),
    find: async () => {
      await driverManifest(adapter);
      return findBinary(id.replace(/-.*/, ''), cache);
    },
  }));
}
/** What Deno has to be allowed; for the driver that is unpacked first, writing too. */
const DENO = ['run', '--allow-read', '--allow-env'];
const DAWN = { webgpu: 'npm webgpu', compiler: 'Tint' } as const;
const CHROMIUM = {
  runtime: 'Chromium',
  webgpu: 'its own',
  compiler: 'Tint',
  adapter: 'swiftshader',
} as const;

const TARGETS: readonly Target[] = [
  ...programs('node20', { runtime: 'Node', ...DAWN }, ['lavapipe', 'swiftshader']),
  ...programs('node22', { runtime: 'Node', ...DAWN }, ['lavapipe']),
  ...programs('node24', { runtime: 'Node', ...DAWN }, ['lavapipe']),
  ...programs('bun', { runtime: 'Bun', ...DAWN }, ['lavapipe', 'swiftshader']),
  ...programs('deno-dawn', { runtime: 'Deno', ...DAWN }, ['lavapipe', 'swiftshader'], (adapter) => ({
    args: [...DENO, '--allow-ffi', ...(adapter === 'swiftshader' ? ['--allow-write', '--allow-sys'] : [])],
  })),
  ...programs(
    'deno-own',
    { runtime: 'Deno', webgpu: 'its own', compiler: 'naga' },
    ['lavapipe', 'swiftshader'],
    (adapter) => ({ args: DENO, env: only(adapter) }),
  ),
  {
    id: 'chromium-embedded',
    ...CHROMIUM,
    find: () => findEmbeddedChromium(cache),
    start: page(openChromium),
  },
  {
    id: 'chromium-system',
    ...CHROMIUM,
    find: () => findBrowser(['chromium', 'google-chrome']),
    start: page(openChromium),
  },
  {
    id: 'firefox',
    runtime: 'Firefox',
    webgpu: 'its own',
    compiler: 'naga',
    adapter: 'lavapipe',
    find: async () => {
      await driverManifest('lavapipe');
      return findBrowser(['firefox-esr', 'firefox']);
    },
    start: async (found, plan, tell) => {
      const manifest = await driverManifest('lavapipe');
      await page((f, url) => openFirefox(f, manifest, url))(found, plan, tell);
    },
  },
];

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    json: { type: 'string' },
    install: { type: 'boolean' },
    help: { type: 'boolean' },
  },
});
if (options.help) {
  console.log(`npm run test:runtimes -- [--only TEXT,...] [--json FILE] [--install]

  --only TEXT,...   rows whose name begins with one of these: ${TARGETS.map((t) => t.id).join(', ')}
  --json FILE       write the results there, and as a table to FILE with .md for .json
  --install         as root on Debian: install lavapipe, Chromium and Firefox first

Node, Deno and Bun come from npm into .runtimes/, newest of their major; delete it for newer ones. A row that cannot be run says why.`);
  process.exit(0);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    process.exit(signal === 'SIGINT' ? 130 : 143);
  });
if (options.install)
  for (const script of ['install-lavapipe.sh', 'install-browsers.sh'])
    execFileSync('bash', [join(root, '.ci', script)], { stdio: ['ignore', 'inherit', 'inherit'] });

const starts = options.only?.split(',').filter(Boolean);
const chosen = TARGETS.filter((t) => !starts || starts.some((text) => t.id.startsWith(text)));
const unknown = starts?.find((text) => !TARGETS.some((t) => t.id.startsWith(text)));
if (unknown !== undefined) {
  console.error(`there is no runtime "${unknown}": ${TARGETS.map((t) => t.id).join(', ')}`);
  process.exit(2);
}
const cases = (await readdir(join(root, 'test', 'golden')))
  .filter((f) => f.endsWith('.safetensors'))
  .sort()
  .map((f) => `test/golden/${f}`);

/** Embeddings that the others are held to: of this Node, on lavapipe where it is installed. */
async function findReference(): Promise<{ name: string; values: readonly number[] }> {
  const adapter = await driverManifest('lavapipe').then(
    () => 'lavapipe' as const,
    () => 'swiftshader' as const,
  );
  let values: readonly number[] = [];
  await host()(
    { executable: process.execPath, version: '', env: {} },
    { adapter, builtIn: false, cases: [], model: MODEL },
    (f) => {
      if (f.kind === 'embedding') values = f.values;
    },
  );
  return { name: `Node ${process.versions.node} on ${adapter}`, values };
}

async function runTarget(target: Target, reference: readonly number[]): Promise<Outcome> {
  const { id, runtime, webgpu, compiler, adapter } = target;
  const row: Row = { id, runtime, webgpu, compiler, adapter };
  let found: Found;
  try {
    found = await target.find();
  } catch (error) {
    if (error instanceof Absent) return absent(row, error.message);
    throw error;
  }
  const findings: Finding[] = [];
  const started = performance.now();
  let trouble: string | null = null;
  try {
    await target.start(found, { adapter, builtIn: webgpu === 'its own', cases, model: MODEL }, (finding) => {
      findings.push(finding);
    });
  } catch (error) {
    trouble = (error as Error).message.split('\n')[0]!;
  }
  return judge(row, found.version, cases, findings, reference, trouble, (performance.now() - started) / 1000);
}

const reference = await findReference();
const outcomes: Outcome[] = [];
for (const target of chosen) {
  const outcome = await runTarget(target, reference.values);
  outcomes.push(outcome);
  const { passed, failures, seconds } = outcome;
  console.log(
    `${outcome.absent !== undefined ? 'none' : failures.length ? 'FAIL' : 'ok  '} ` +
      `${target.id.padEnd(24)} ` +
      `${outcome.absent ?? `${passed} passed, ${failures.length} failed  ${seconds.toFixed(1)} s`}`,
  );
}
const summary =
  `Embeddings: 4 s by ${MODEL}; the largest difference to ${reference.name} as a part of its largest ` +
  `number, allowed ${TOLERANCE.toExponential(0)}. On lavapipe the first uses what Mesa kept of earlier ` +
  `runs' shaders.`;
console.log(`\n${formatOutcomes(outcomes)}\n\n${summary}`);

if (options.json !== undefined) {
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
  const head = {
    date: new Date().toISOString(),
    machine:
      `${cpus()[0]!.model}, ${cpus().length} threads, ${Math.round(totalmem() / 2 ** 30)} GiB, ` +
      `${platform()}`,
    mgf: version,
    reference: reference.name,
  };
  // An infinite difference is not JSON.
  await writeFile(
    options.json,
    `${JSON.stringify({ ...head, rows: outcomes }, (_, x: unknown) => (typeof x === 'number' ? (Number.isFinite(x) ? Number(x.toPrecision(6)) : String(x)) : x), 1)}\n`,
  );
  await writeFile(
    options.json.replace(/(\.json)?$/, '.md'),
    `# Runtimes\n\n${head.date}, ${head.machine}; mgf ` +
      `${version}\n\n${formatOutcomes(outcomes)}\n\n${summary}\n`,
  );
}

const missing = starts ? outcomes.filter((o) => o.absent !== undefined).length : 0;
const passed = outcomes.reduce((sum, o) => sum + o.passed, 0);
const failed = outcomes.reduce((sum, o) => sum + o.failures.length, missing) || Number(passed === 0);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
