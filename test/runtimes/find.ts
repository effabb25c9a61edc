/**
 * Where each runtime comes from: npm packages that carry the binary, installed once into `.runtimes/`;
 * browsers of the system.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { embeddedDriver } from '../../src/gpu/embedded.ts';

const run = promisify(execFile);

/** Why a runtime or an adapter cannot be had here: a row of the table, never silence. */
export class Absent extends Error {}

export interface Found {
  readonly executable: string;
  readonly version: string;
  readonly env: Readonly<Record<string, string>>;
}

/**
 * npm packages that are one binary for one platform. What carries the name `node`, `deno` or `bun` only
 * fetches these, by install scripts.
 */
function packageOf(name: string): { spec: string; binary: string } | null {
  const { platform, arch } = process;
  const unix = platform === 'linux' || platform === 'darwin';
  if (!unix || (arch !== 'x64' && arch !== 'arm64')) return null;
  const node = /^node(\d+)$/.exec(name);
  if (node)
    return { spec: `node-${platform}-${arch}@${node[1]}`, binary: `node-${platform}-${arch}/bin/node` };
  const deno = `@deno/${platform}-${arch}${platform === 'linux' ? '-glibc' : ''}`;
  const bun = `@oven/bun-${platform}-${arch === 'arm64' ? 'aarch64' : arch}`;
  return name === 'deno'
    ? { spec: `${deno}@2`, binary: `${deno}/deno` }
    : { spec: `${bun}@1`, binary: `${bun}/bin/bun` };
}

/** Puts what `fill` makes of an empty folder at `folder`, whole or not at all. */
async function once(folder: string, fill: (staging: string) => Promise<void>): Promise<void> {
  if (existsSync(folder)) return;
  await mkdir(join(folder, '..'), { recursive: true });
  const staging = await mkdtemp(`${folder}-`);
  try {
    await fill(staging);
    await rename(staging, folder);
  } catch (error) {
    await rm(staging, { recursive: true, force: true });
    throw error;
  }
}

const firstLine = (error: unknown): string => {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr?.split('\n').find((line) => /error/i.test(line)) ?? message.split('\n')[0]!).trim();
};

/**
 * `node20`, `deno`, `bun`: the running Node where it is of that major, else the newest of the major that npm
 * has.
 */
export async function findBinary(name: string, cache: string): Promise<Found> {
  const own = name === `node${process.versions.node.split('.')[0]}`;
  const wanted = own ? null : packageOf(name);
  if (!own && !wanted) throw new Absent(`npm has no ${name} for ${process.platform} ${process.arch}`);
  const executable = wanted ? join(cache, name, 'node_modules', wanted.binary) : process.execPath;
  if (wanted) {
    await once(join(cache, name), async (staging) => {
      await writeFile(join(staging, 'package.json'), '{ "private": true }\n');
      await run(
        'npm',
        ['install', '--prefix', staging, '--ignore-scripts', '--no-audit', '--no-fund', wanted.spec],
        { cwd: staging },
      );
    }).catch((error: unknown) => {
      throw new Absent(`npm could not install ${wanted.spec}: ${firstLine(error)}`);
    });
  }
  const { stdout } = await run(executable, ['--version']);
  return { executable, version: /\d+\.\d+\.\d+/.exec(stdout)![0], env: {} };
}

/**
 * Chromium out of @sparticuz/chromium, a development dependency, with the libraries that a small system
 * lacks.
 */
export async function findEmbeddedChromium(cache: string): Promise<Found> {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Absent(`@sparticuz/chromium is for Linux x64, not ${process.platform} ${process.arch}`);
  const folder = join(cache, 'chromium');
  // It unpacks below TMPDIR, and its own libraries only where it takes itself to be on AWS Lambda.
  await once(folder, async (staging) => {
    await run(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        "await (await import('@sparticuz/chromium')).default.executablePath();",
      ],
      { env: { ...process.env, TMPDIR: staging, AWS_LAMBDA_JS_RUNTIME: 'nodejs22.x' } },
    );
  }).catch((error: unknown) => {
    throw new Absent(`@sparticuz/chromium did not unpack: ${firstLine(error)}`);
  });
  const env = { LD_LIBRARY_PATH: join(folder, 'al2023', 'lib'), FONTCONFIG_PATH: join(folder, 'fonts') };
  const executable = join(folder, 'chromium');
  return { executable, env, version: await versionOf(executable, env) };
}

/** The first of these programs that the system has. */
export async function findBrowser(names: readonly string[]): Promise<Found> {
  for (const name of names) {
    const executable = (process.env['PATH'] ?? '')
      .split(delimiter)
      .map((folder) => join(folder, name))
      .find((path) => existsSync(path));
    if (executable) return { executable, env: {}, version: await versionOf(executable, {}) };
  }
  throw new Absent(`${names.join(' or ')} is not installed (as root on Debian: --install)`);
}

async function versionOf(executable: string, env: Record<string, string>): Promise<string> {
  const { stdout } = await run(executable, ['--version'], { env: { ...process.env, ...env } });
  return /\d+\.\d+[\w.]*/.exec(stdout)![0];
}

/** The manifest by which the Vulkan loader finds one software adapter and nothing else. */
export async function driverManifest(adapter: 'lavapipe' | 'swiftshader'): Promise<string> {
  if (adapter === 'swiftshader') {
    const tried: string[] = [];
    const driver = await embeddedDriver(tried);
    if (!driver) throw new Absent(tried.join('; '));
    return driver.manifest;
  }
  for (const folder of ['/usr/share/vulkan/icd.d', '/usr/local/share/vulkan/icd.d', '/etc/vulkan/icd.d']) {
    const name = existsSync(folder)
      ? (await readdir(folder)).find((file) => /^lvp_icd.*\.json$/.test(file))
      : undefined;
    if (name) return join(folder, name);
  }
  throw new Absent('lavapipe is not installed (as root on Debian: --install)');
}
