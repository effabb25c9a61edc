/**
 * Modules that users bring: TypeScript or JavaScript whose `mgf-webgpu` is this very program, with their
 * `.wgsl` files as text.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type BuildFailure, type Plugin } from 'esbuild';
import { MGFError } from '../errors.ts';
import { resolveIncludes } from './includes.ts';

/**
 * The library beside this bundle. Both share their modules, so that a graph of one is a graph of the other.
 */
const ENGINE = new URL('./node.js', import.meta.url).href;

const plugin: Plugin = {
  name: 'mgf',
  setup(b) {
    b.onResolve({ filter: /^mgf-webgpu$/ }, () => ({ path: ENGINE, external: true }));
    b.onLoad({ filter: /\.wgsl$/ }, async ({ path }) => ({
      contents: await resolveIncludes(path),
      loader: 'text',
    }));
  },
};

export interface UserModule {
  readonly exports: Readonly<Record<string, unknown>>;
  /** The files that it is made of, absolute. */
  readonly files: readonly string[];
}

/**
 * Loads a module, anew each time. Throws MGFError 'usage' with file, line and caret for what cannot be read
 * as TypeScript, and for a module that throws.
 */
export async function loadUserModule(path: string): Promise<UserModule> {
  const { outputFiles, metafile } = await build({
    entryPoints: [resolve(path)],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    target: 'es2022',
    sourcemap: 'inline',
    logLevel: 'silent',
    metafile: true,
    plugins: [plugin],
    outfile: 'module.mjs',
  }).catch((error: BuildFailure) => {
    throw new MGFError('usage', complaint(path, error), { cause: error });
  });
  // Places in stacks are then those of the user's file.
  process.setSourceMapsEnabled?.(true);
  const folder = await mkdtemp(join(tmpdir(), 'mgf-module-'));
  try {
    const file = join(folder, `${basename(path).replace(/\.\w+$/, '')}.mjs`);
    await writeFile(file, outputFiles[0]!.contents);
    const exports = (await import(pathToFileURL(file).href).catch((error: unknown) => {
      if (error instanceof MGFError) throw error;
      throw new MGFError('usage', `${path} throws as it is loaded: ${(error as Error).message}`, {
        cause: error,
      });
    })) as Readonly<Record<string, unknown>>;
    return { exports, files: Object.keys(metafile.inputs).map((input) => resolve(input)) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function complaint(path: string, { errors, message }: BuildFailure): string {
  if (!errors?.length) return `${path} cannot be loaded: ${message}`;
  return errors
    .map(({ text, location }) =>
      location
        ? `${location.file}:${location.line}:${location.column + 1} ${text}\n    ` +
          `${location.lineText}\n    ${' '.repeat(location.column)}^`
        : `${path}: ${text}`,
    )
    .join('\n');
}
