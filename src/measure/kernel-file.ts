/** A WGSL file that somebody brings: launched from its settings, checked, and timed. */
import { MGFError } from '../errors.ts';
import { chooseEntry, entryPoints } from '../wgsl/declarations.ts';
import type { Gpu } from '../gpu/device.ts';
import { portabilityNotes } from '../wgsl/portability.ts';
import { expandTemplate } from '../wgsl/template.ts';
import { reflect } from '../wgsl/reflect.ts';
import {
  compareOutputs,
  expectedInputs,
  expectedOutputs,
  unwritten,
  type Checked,
  type Expectation,
} from './kernel-check.ts';
import {
  decode,
  encode,
  numbersIn,
  poison,
  randomContents,
  storageOf,
  type Bytes,
  type Numbers,
  type StorageVariable,
} from './kernel-contents.ts';
import { openKernel, type KernelRun } from './kernel-run.ts';
import {
  describeSettings,
  mergeSettings,
  NO_SETTINGS,
  settingsInText,
  usage,
  type KernelSettings,
} from './kernel-settings.ts';
import { statistics, wantsMore, type Repetition, type Timing } from './statistics.ts';

/**
 * A file's text with its includes resolved, options that win over its own lines, and what its outputs should
 * be.
 */
export interface KernelFile {
  readonly name: string;
  readonly source: string;
  readonly settings: KernelSettings;
  readonly expectation?: Expectation | null;
}

/** A kernel file on the device. */
export interface OpenKernelFile {
  readonly clock: KernelRun['clock'];
  /** Of all bindings, each once. */
  readonly bytes: number;
  readonly flops: number | null;
  /** Entry point, grid, sizes, parameters and constants in one line. */
  readonly variant: string;
  /**
   * Runs it twice from poisoned outputs, and compares. Throws MGFError 'usage' for an expectation that does
   * not fit.
   */
  check(): Promise<Checked>;
  /** Contents of what it may write, after the last run. */
  outputs(): Promise<ReadonlyMap<string, Bytes>>;
  /** Launches it once; milliseconds. */
  run(): Promise<number>;
  destroy(): void;
}

export interface KernelTiming extends Pick<OpenKernelFile, 'clock' | 'bytes' | 'flops' | 'variant'>, Checked {
  readonly timing: Timing;
  readonly samples: readonly number[];
}

/** A constant that nobody gave is something to be given. */
function expand(name: string, source: string, constants: Readonly<Record<string, number>>): string {
  try {
    return expandTemplate(name, source, constants);
  } catch (error) {
    const lacking = /"([A-Za-z_]\w*)" in ".*" is not a constant/.exec((error as Error).message)?.[1];
    if (!lacking) throw error;
    throw usage(
      `${name} is a template and needs a value for ${lacking}; give --constant ${lacking}=N, or a line ` +
        `"// bench: constant ${lacking}=N" in the file.`,
    );
  }
}

/** What in a kernel only Tint or only naga takes, where the adapter has no subgroups: lines to print. */
export const kernelFileNotes = (
  name: string,
  source: string,
  options: KernelSettings = NO_SETTINGS,
): string[] =>
  portabilityNotes(
    name,
    expand(name, source, { SG: 0, CPU: 0, ...settingsInText(source).constants, ...options.constants }),
  );

/**
 * Names that settings may have: of storage, and of uniform fields, of all entry points, since a file's lines
 * are for all of them.
 */
function namesIn(name: string, wgsl: string): { storage: string[]; written: string[]; fields: string[] } {
  const entries = entryPoints(wgsl);
  const variables = entries.flatMap((entry) => storageOf(name, wgsl, entry));
  return {
    storage: [...new Set(variables.map((v) => v.name))],
    written: [...new Set(variables.filter((v) => v.writes).map((v) => v.name))],
    fields: [...new Set(entries.flatMap((entry) => reflect(name, wgsl, entry).fields.map((f) => f.name)))],
  };
}

/** Refuses settings of names that the text does not have. Throws MGFError 'usage'. */
function refuseUnknown(name: string, wgsl: string, s: KernelSettings): void {
  const { storage, written, fields } = namesIn(name, wgsl);
  const unknown = [
    ...Object.keys(s.sizes)
      .filter((n) => !storage.includes(n))
      .map((n) => `size ${n}`),
    ...Object.keys(s.params)
      .filter((n) => !fields.includes(n))
      .map((n) => `param ${n}`),
  ];
  if (unknown.length) {
    throw usage(
      `${name} has no ${unknown.join(', no ')}; it has the storage ${storage.join(', ') || 'none'} ` +
        `and the uniform fields ${fields.join(', ') || 'none'}.`,
    );
  }
  const notWritten = Object.keys(s.before).filter((n) => !written.includes(n));
  if (notWritten.length) {
    throw usage(
      `before ${notWritten.join(', ')}: only storage that the kernel may write has contents to say; ` +
        `it writes ${written.join(', ') || 'nothing'}.`,
    );
  }
}

const pick = <T>(from: Readonly<Record<string, T>>, names: readonly string[]): Record<string, T> =>
  Object.fromEntries(Object.entries(from).filter(([name]) => names.includes(name)));

/** Everything that a launch of the file still lacks, as the options that would give it. */
function missing(
  variables: readonly StorageVariable[],
  fields: readonly string[],
  s: KernelSettings,
): string[] {
  const out: string[] = s.grid ? [] : ['--grid X,Y,Z (workgroups)'];
  for (const v of variables) {
    if (s.sizes[v.name] === undefined)
      out.push(
        `--size ${v.name}=N (${v.isArray && v.element ? `elements of ${v.type}` : `bytes of ${v.type}`})`,
      );
  }
  for (const f of fields) if (s.params[f] === undefined) out.push(`--param ${f}=N`);
  return out;
}

/** Bytes of a variable by its size setting. */
const bytesOf = (v: StorageVariable, size: number): number =>
  size * (v.isArray ? (v.element?.bytes ?? 1) : 1);

/** Sizes that the inputs of an expectation give. Throws MGFError 'usage' where settings say otherwise. */
function withSizesOf(
  settings: KernelSettings,
  variables: readonly StorageVariable[],
  expectation: Expectation | null,
  given: Readonly<Record<string, Numbers>>,
): KernelSettings {
  if (!expectation || !('tensors' in expectation)) return settings;
  const sizes: Record<string, number> = { ...settings.sizes };
  for (const v of variables) {
    const numbers = given[v.name] ?? expectation.tensors.get(v.name);
    if (!numbers || !v.element) continue;
    const elements = numbers.length / v.element.lanes;
    const size = v.isArray ? elements : elements * v.element.bytes;
    if ((sizes[v.name] ?? size) !== size) {
      throw usage(
        `size ${v.name}=${sizes[v.name]!} does not fit ${expectation.origin}, whose "${v.name}" has ` +
          `${numbers.length} numbers (size ${v.name}=${size}).`,
      );
    }
    sizes[v.name] = size;
  }
  return { ...settings, sizes };
}

/** Everything of a launch that is known before the device is asked. */
interface Prepared {
  readonly wgsl: string;
  readonly entry: string;
  readonly settings: KernelSettings;
  readonly variables: readonly StorageVariable[];
  /** Contents before a run: of the first round, and of the second, where only what is poisoned differs. */
  readonly contents: readonly [Readonly<Record<string, Bytes>>, Readonly<Record<string, Bytes>>];
  /** Names of what is poisoned. */
  readonly poisoned: readonly string[];
}

function prepare(gpu: Gpu, file: KernelFile): Prepared {
  const { name, source, expectation = null } = file;
  const merged = mergeSettings(settingsInText(source), file.settings);
  const wgsl = expand(name, source, {
    SG: gpu.profile.subgroupSize,
    CPU: Number(gpu.profile.family === 'cpu'),
    ...merged.constants,
  });
  const entry = chooseEntry(name, wgsl, merged.entry);
  const { fields } = reflect(name, wgsl, entry);
  const variables = storageOf(name, wgsl, entry);
  const given = expectation ? expectedInputs(expectation, variables) : {};
  const all = withSizesOf(merged, variables, expectation, given);
  const fieldNames = fields.map((f) => f.name);
  const lacking = missing(variables, fieldNames, all);
  refuseUnknown(name, wgsl, all);
  if (lacking.length)
    throw usage(
      `${name} cannot be launched yet; give ${lacking.join(', ')}, or the same as lines "// bench: size ` +
        `a=1048576" in the file.`,
    );
  const settings = {
    ...all,
    sizes: pick(
      all.sizes,
      variables.map((v) => v.name),
    ),
    params: pick(all.params, fieldNames),
  };
  const smallest = Math.min(...variables.map((v) => settings.sizes[v.name]!));
  const poisoned = variables
    .filter((v) => v.writes && !given[v.name] && settings.before[v.name] === undefined)
    .map((v) => v.name);
  const contentsOf = (round: 0 | 1): Record<string, Bytes> =>
    Object.fromEntries(
      variables.map((v, i) => {
        const bytes = bytesOf(v, settings.sizes[v.name]!);
        const before = settings.before[v.name];
        if (poisoned.includes(v.name)) return [v.name, poison(v.element, bytes, smallest, round)];
        if (given[v.name] && v.element) return [v.name, encode(v.element, given[v.name]!, bytes)];
        if (typeof before !== 'number') return [v.name, randomContents(v.element, bytes, smallest, i + 1)];
        if (!v.element)
          throw usage(
            `before ${v.name}=${before}: ${v.type} is a struct, whose contents cannot be one number; ` +
              `write ${v.name}=random.`,
          );
        return [v.name, encode(v.element, new Float64Array(numbersIn(v.element, bytes)).fill(before), bytes)];
      }),
    );
  return { wgsl, entry, settings, variables, contents: [contentsOf(0), contentsOf(1)], poisoned };
}

async function check(
  kernel: KernelRun,
  p: Prepared,
  expectation: Expectation | null,
  outputs: OpenKernelFile['outputs'],
): Promise<Checked> {
  const {
    variables,
    settings,
    contents: [first, second],
  } = p;
  const written = variables.filter((v) => v.writes);
  const wrong: string[] = [];
  const runFrom = async (contents: Readonly<Record<string, Bytes>>): Promise<ReadonlyMap<string, Bytes>> => {
    for (const v of written) kernel.write(v.name, contents[v.name]!);
    await kernel.run();
    return outputs();
  };
  const again = await runFrom(second);
  const got = await runFrom(first);
  for (const v of written.filter(({ name }) => p.poisoned.includes(name))) {
    const cut = (bytes: Bytes): Bytes => bytes.subarray(0, got.get(v.name)!.byteLength);
    const { name } = v;
    const sentence = unwritten(v, [
      [cut(first[name]!), got.get(name)!],
      [cut(second[name]!), again.get(name)!],
    ]);
    if (sentence) wrong.push(sentence);
  }
  if (expectation) {
    const readable = variables.filter((v) => v.element && !p.poisoned.includes(v.name));
    const inputs = Object.fromEntries(
      readable.map((v) => [
        v.name,
        decode(v.element!, first[v.name]!.subarray(0, bytesOf(v, settings.sizes[v.name]!))),
      ]),
    );
    const launch = {
      params: settings.params,
      constants: settings.constants,
      sizes: settings.sizes,
      grid: settings.grid!,
    };
    // What nobody wrote is told once.
    if (wrong.length === 0)
      wrong.push(
        ...compareOutputs(
          expectation.origin,
          variables,
          got,
          await expectedOutputs(expectation, inputs, launch),
        ),
      );
  }
  const isFinite = (v: StorageVariable): boolean =>
    !v.element || decode(v.element, got.get(v.name)!).every(Number.isFinite);
  const notFinite = expectation || wrong.length ? [] : written.filter((v) => !isFinite(v)).map((v) => v.name);
  return { against: expectation?.origin ?? null, wrong, notFinite };
}

/**
 * Compiles a kernel file and binds its storage. Options win over the file's own lines. Throws MGFError
 * 'usage' that lists everything that
 * is missing, 'kernel' with the compiler's messages, 'limit' where the adapter has no room.
 */
export async function openKernelFile(gpu: Gpu, file: KernelFile): Promise<OpenKernelFile> {
  const p = prepare(gpu, file);
  const { settings, entry, variables } = p;
  const { name, expectation = null } = file;
  const kernel = await openKernel(gpu, {
    name,
    source: p.wgsl,
    entry,
    data: p.contents[0],
    params: settings.params,
    grid: settings.grid!,
  });
  const outputs = async (): Promise<ReadonlyMap<string, Bytes>> => {
    const out = new Map<string, Bytes>();
    for (const v of variables.filter(({ writes }) => writes)) {
      out.set(v.name, new Uint8Array(await kernel.read(v.name), 0, bytesOf(v, settings.sizes[v.name]!)));
    }
    return out;
  };
  return {
    clock: kernel.clock,
    bytes: kernel.bytes,
    flops: settings.flops ?? null,
    variant: describeSettings(settings, entry),
    outputs,
    check: () => check(kernel, p, expectation, outputs),
    run: () => kernel.run(),
    destroy: () => kernel.destroy(),
  };
}

/** What is wrong with a kernel, as the error that keeps it from being timed. */
export const wrongKernel = (name: string, checked: Checked): MGFError =>
  new MGFError('kernel', `${name} is wrong and was not timed: ${checked.wrong.join('; ')}.`);

/**
 * Checks and times a kernel file; `onSample` sees every run as it ends. Throws as `openKernelFile`, and
 * MGFError 'kernel' for outputs that
 * are wrong or that nobody wrote.
 */
export async function timeKernelFile(
  gpu: Gpu,
  file: KernelFile,
  repetition: Repetition = {},
  onSample: (ms: number, kernel: OpenKernelFile) => void = () => undefined,
): Promise<KernelTiming> {
  const kernel = await openKernelFile(gpu, file);
  try {
    const checked = await kernel.check();
    if (checked.wrong.length) throw wrongKernel(file.name, checked);
    const samples: number[] = [];
    await kernel.run();
    const started = performance.now();
    while (
      wantsMore(samples.length, performance.now() - started, { seconds: 2, maxRuns: 200, ...repetition })
    ) {
      samples.push(await kernel.run());
      onSample(samples.at(-1)!, kernel);
    }
    const { clock, bytes, flops, variant } = kernel;
    return { ...checked, clock, bytes, flops, variant, timing: statistics(samples), samples };
  } finally {
    kernel.destroy();
  }
}
