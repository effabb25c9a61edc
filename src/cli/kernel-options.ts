/**
 * Options of a .wgsl file, the same for `mgf bench FILE` and `mgf kernel dev FILE`: its launch, and what it
 * is checked against.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, extname, resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { expectedTensors, type Expectation } from '../measure/kernel-check.ts';
import { settingsOf, type KernelSettings } from '../measure/kernel-settings.ts';
import { MGFError } from '../errors.ts';
import { readSafetensors } from '../io/safetensors.ts';
import { collect, ioError } from './common.ts';
import { resolveIncludes } from './includes.ts';
import { loadUserModule } from './user-module.ts';
import type { KernelFile } from '../measure/kernel-file.ts';

export interface KernelOptions {
  grid?: string;
  size?: string[];
  param?: string[];
  constant?: string[];
  before?: string[];
  entry?: string;
  expect?: string;
  flops?: string;
}

/** Names of these options, as in `KernelOptions`. */
export const KERNEL_OPTIONS = [
  'grid',
  'size',
  'param',
  'constant',
  'before',
  'entry',
  'expect',
  'flops',
] as const satisfies readonly (keyof KernelOptions)[];

export const addKernelOptions = (command: Command): Command =>
  command
    .option('--grid <x,y,z>', 'workgroups of your kernel')
    .addOption(
      new Option('--size <name=n>', 'elements of a storage array of your kernel; may be repeated').argParser(
        collect,
      ),
    )
    .addOption(
      new Option('--param <name=n>', 'field of its uniform struct; may be repeated').argParser(collect),
    )
    .addOption(
      new Option('--constant <name=n>', 'constant of its template; may be repeated').argParser(collect),
    )
    .addOption(
      new Option(
        '--before <name=n>',
        'what a read_write array holds before a run, where your kernel uses or keeps it: a number, or ' +
          'random; ' +
          'otherwise a run must write all of it; may be repeated',
      ).argParser(collect),
    )
    .option('--entry <name>', 'entry point of your kernel (default: main, or the only one)')
    .option(
      '--expect <file>',
      'safetensors with the inputs and expected outputs of your kernel by variable name (default: ' +
        'NAME.ref.ts, .mts, .mjs or .js beside ' +
        'NAME.wgsl, whose default export computes the outputs)',
    )
    .option('--flops <n>', 'FLOPs of one launch of your kernel, for GFLOP/s');

/** What the options say of a launch. Throws MGFError 'usage'. */
export function kernelSettings(options: KernelOptions): KernelSettings {
  const single = (['grid', 'entry', 'flops'] as const).flatMap((word) =>
    options[word] === undefined ? [] : [[word, options[word]] as const],
  );
  const repeated = (['size', 'param', 'constant', 'before'] as const).flatMap((word) =>
    (options[word] ?? []).map((value) => [word, value] as const),
  );
  return settingsOf([...single, ...repeated]);
}

/** Where the reference of a kernel file may lie: beside it. */
const referencesOf = (path: string): string[] =>
  ['ts', 'mts', 'mjs', 'js'].map((extension) => `${path.slice(0, -extname(path).length)}.ref.${extension}`);

/** What `--expect` names. Throws MGFError 'usage', 'io' or 'checkpoint'. */
export async function readExpected(path: string): Promise<Expectation> {
  if (extname(path) !== '.safetensors') {
    throw new MGFError(
      'usage',
      `--expect ${path} is not a .safetensors file, which alone holds inputs and outputs by name; ` +
        'in Python: safetensors.numpy.save_file({"x": x, "y": y}, "expected.safetensors").',
    );
  }
  const bytes = await readFile(path).catch((error: unknown) => {
    throw ioError(error, 'read the expected outputs in', path);
  });
  return expectedTensors(readSafetensors(bytes, { origin: path }).tensors, path);
}

async function loadReference(path: string): Promise<{ expectation: Expectation; files: readonly string[] }> {
  const { exports, files } = await loadUserModule(path);
  const reference = exports['default'];
  if (typeof reference !== 'function') {
    throw new MGFError(
      'usage',
      `${path} must export a function as default: (inputs, { params, constants, sizes, grid }) => ({ y: ` +
        `[...] }).`,
    );
  }
  return { expectation: { origin: basename(path), reference: reference as never }, files };
}

/**
 * A kernel file with all that belongs to it, and the files that it is made of or would be. Throws MGFError
 * 'usage', 'io' or 'checkpoint'.
 */
export async function loadKernelFile(
  path: string,
  options: KernelOptions,
): Promise<{ file: KernelFile; files: readonly string[] }> {
  const settings = kernelSettings(options);
  const source = await resolveIncludes(path);
  const name = basename(path);
  const beside = referencesOf(path).find((reference) => existsSync(reference));
  if (options.expect !== undefined) {
    return {
      file: { name, source, settings, expectation: await readExpected(options.expect) },
      files: [resolve(path), resolve(options.expect)],
    };
  }
  const watched = [path, ...referencesOf(path)].map((one) => resolve(one));
  if (beside === undefined) return { file: { name, source, settings }, files: watched };
  const { expectation, files } = await loadReference(beside);
  return { file: { name, source, settings, expectation }, files: [...watched, ...files] };
}

/** How to have a kernel file checked that was compared with nothing. */
export const howToCheck = (path: string): string =>
  `--expect FILE, or a reference in ${basename(path, extname(path))}.ref.ts beside it, says ` +
  `what is right`;
