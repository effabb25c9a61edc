// Node, Deno and Bun only: the software adapter that comes with npm, for machines without any Vulkan driver.
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { brotliDecompress } from 'node:zlib';

/** Files of SwiftShader unpacked to disk. */
export interface EmbeddedDriver {
  /** Vulkan loader. */
  loader: string;
  /** Manifest of the SwiftShader driver for the loader. */
  manifest: string;
  version: string;
}

const packageName = '@sparticuz/chromium';
const files = ['libvk_swiftshader.so', 'libvulkan.so.1', 'vk_swiftshader_icd.json'];

/**
 * Unpacks SwiftShader (once per user and version) and returns its files, or null with the reason appended to
 * `tried`.
 */
export async function embeddedDriver(tried: string[]): Promise<EmbeddedDriver | null> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    tried.push(`the embedded SwiftShader is for Linux x64, not ${process.platform} ${process.arch}`);
    return null;
  }
  const root = packageRoot();
  if (!root) {
    tried.push(`the embedded SwiftShader (package ${packageName}) is not installed`);
    return null;
  }
  try {
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
    const folder = await unpackOnce(join(root, 'bin', 'swiftshader.tar.br'), `swiftshader-${version}`);
    return {
      loader: join(folder, 'libvulkan.so.1'),
      manifest: join(folder, 'vk_swiftshader_icd.json'),
      version,
    };
  } catch (error) {
    tried.push(`the embedded SwiftShader did not unpack: ${(error as Error).message}`);
    return null;
  }
}

/**
 * Folder of the package that carries SwiftShader; its `exports` hide package.json, so it is found through the
 * main module.
 */
function packageRoot(): string | null {
  let folder: string;
  try {
    folder = dirname(createRequire(import.meta.url).resolve(packageName));
  } catch {
    return null;
  }
  for (; folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && existsSync(join(folder, 'bin', 'swiftshader.tar.br')))
      return folder;
  }
  return null;
}

async function unpackOnce(archive: string, name: string): Promise<string> {
  const parents = [
    join(homedir(), '.cache', 'mgf-webgpu'),
    join(tmpdir(), `mgf-webgpu-${process.getuid?.() ?? 'user'}`),
  ];
  for (const parent of parents) {
    const folder = join(parent, name);
    try {
      await mkdir(parent, { recursive: true, mode: 0o700 });
      // A shared library is code: it is loaded only from a folder that nobody else can write to.
      if (!(await isPrivate(parent))) continue;
      if (files.every((file) => existsSync(join(folder, file)))) return folder;
      const staging = await mkdtemp(join(parent, '.unpacking-'));
      try {
        await unpack(archive, staging);
        await chmod(staging, 0o755);
        await rename(staging, folder);
      } catch (error) {
        await rm(staging, { recursive: true, force: true });
        // Another process may have put the same folder there first.
        if (!files.every((file) => existsSync(join(folder, file)))) throw error;
      }
      return folder;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (
        code !== 'EACCES' &&
        code !== 'EROFS' &&
        code !== 'EPERM' &&
        code !== 'ENOENT' &&
        code !== 'ENOTDIR'
      )
        throw error;
    }
  }
  throw new Error(`neither ${parents.join(' nor ')} can be written`);
}

async function isPrivate(folder: string): Promise<boolean> {
  const { uid, mode } = await stat(folder);
  return uid === (process.getuid?.() ?? uid) && (mode & 0o022) === 0;
}

async function unpack(archive: string, folder: string): Promise<void> {
  const { extract } = await import('tar-stream');
  const tar = await promisify(brotliDecompress)(await readFile(archive));
  const entries = extract();
  Readable.from([tar]).pipe(entries);
  const missing = new Set(files);
  for await (const entry of entries) {
    const { name } = entry.header;
    if (!missing.delete(name)) {
      entry.resume();
      continue;
    }
    const parts: Uint8Array[] = [];
    for await (const part of entry) parts.push(part as Uint8Array);
    await writeFile(join(folder, name), Buffer.concat(parts), { mode: 0o755 });
  }
  if (missing.size > 0) throw new Error(`${archive} lacks ${[...missing].join(', ')}`);
}

/**
 * Makes the Vulkan loader see only SwiftShader while `run` creates an instance. Works in the main thread
 * only: the environment of a worker thread does not reach native code.
 */
export async function withEmbedded<T>(driver: EmbeddedDriver, run: () => Promise<T>): Promise<T> {
  await loadLoader(driver);
  const setEnvironment = await environmentSetter();
  const before = process.env.VK_DRIVER_FILES;
  setEnvironment('VK_DRIVER_FILES', driver.manifest);
  try {
    return await run();
  } finally {
    // Restored, so that children of this process and later instances see the machine's own drivers again.
    setEnvironment('VK_DRIVER_FILES', before ?? null);
  }
}

/**
 * False where the machine has no Vulkan loader, so that asking it can be left out; Dawn would print a warning
 * about it. Only Node is asked: in Bun and Deno the answer is true.
 */
export function hasVulkanLoader(): boolean {
  if (process.platform !== 'linux' || 'Bun' in globalThis || 'Deno' in globalThis) return true;
  return loadInNode('libvulkan.so.1');
}

/**
 * Maps a library that is no addon into the process, for others to find by its name; false if there is no such
 * file.
 */
function loadInNode(library: string): boolean {
  const RTLD_NOW = 2;
  const RTLD_NODELETE = 0x1000;
  try {
    process.dlopen({ exports: {} }, library, RTLD_NOW | RTLD_NODELETE);
  } catch (error) {
    // Node reports that it is no addon and closes it; with RTLD_NODELETE it stays.
    return !/cannot open shared object/.test((error as Error).message);
  }
  return true;
}

async function loadLoader({ loader }: EmbeddedDriver): Promise<void> {
  if ('Bun' in globalThis) {
    (await bunFfi()).dlopen(loader, { vkGetInstanceProcAddr: { args: ['ptr', 'ptr'], returns: 'ptr' } });
    return;
  }
  if ('Deno' in globalThis) {
    (globalThis as unknown as { Deno: { dlopen(path: string, symbols: object): unknown } }).Deno.dlopen(
      loader,
      {},
    );
    return;
  }
  if (!loadInNode(loader)) throw new Error(`${loader} cannot be opened`);
}

/** A setter that native code sees: in Bun, process.env does not reach getenv(), libc's setenv does. */
async function environmentSetter(): Promise<(name: string, value: string | null) => void> {
  if ('Bun' in globalThis) {
    const { symbols } = (await bunFfi()).dlopen('libc.so.6', {
      setenv: { args: ['ptr', 'ptr', 'i32'], returns: 'i32' },
      unsetenv: { args: ['ptr'], returns: 'i32' },
    });
    return (name, value) => {
      if (value === null) symbols.unsetenv!(Buffer.from(`${name}\0`));
      else symbols.setenv!(Buffer.from(`${name}\0`), Buffer.from(`${value}\0`), 1);
    };
  }
  return (name, value) => {
    if (value === null) delete process.env[name];
    else process.env[name] = value;
  };
}

interface BunFfi {
  dlopen(
    path: string,
    symbols: object,
  ): { symbols: Record<string, (...values: (Uint8Array | number)[]) => number> };
}

function bunFfi(): Promise<BunFfi> {
  const name = 'bun:ffi';
  return import(name) as Promise<BunFfi>;
}
