/**
 * A WGSL file that somebody brings, made ready to be timed: what the text does not say comes from `// bench:`
 * lines in it or from options.
 */
import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import { portabilityNotes } from '../wgsl/portability.ts';
import { expandTemplate } from '../wgsl/template.ts';
import { reflect } from '../wgsl/reflect.ts';
import { openKernel } from './kernel-run.ts';
import { statistics, wantsMore, type Repetition, type Timing } from './statistics.ts';
import { uniforms } from '../random/uniforms.ts';

/** What a file needs to be launched. Each part may be missing in one source and come from another. */
export interface KernelSettings {
  readonly grid?: readonly [number, number, number];
  /** Elements of each storage array, or bytes for anything else, by variable name. */
  readonly sizes: Readonly<Record<string, number>>;
  readonly params: Readonly<Record<string, number>>;
  readonly constants: Readonly<Record<string, number>>;
  /** FLOPs of one launch. */
  readonly flops?: number;
}

export const NO_SETTINGS: KernelSettings = { sizes: {}, params: {}, constants: {} };

const usage = (message: string): MGFError => new MGFError('usage', message);

/** A number, also as a product or a power: `1024*768`, `2**20`, `1e9`. */
export function parseAmount(text: string, what: string): number {
  const value = text.split(/(?<!\*)\*(?!\*)/).reduce((product, factor) => {
    const [base, exponent, ...rest] = factor.split('**').map((t) => (t.trim() === '' ? NaN : Number(t)));
    return rest.length ? NaN : product * (exponent === undefined ? base! : base! ** exponent);
  }, 1);
  if (!Number.isFinite(value))
    throw usage(`${what}: "${text}" is not a number; write for example 1048576, 1024*768 or 2**20.`);
  return value;
}

function parseGrid(text: string): readonly [number, number, number] {
  const axes = text.split(',').map((t) => parseAmount(t, 'grid'));
  if (axes.length > 3 || axes.some((n) => !Number.isInteger(n) || n < 1))
    throw usage(`grid: "${text}" must be one to three whole numbers of workgroups, for example 64,1,1.`);
  return [axes[0]!, axes[1] ?? 1, axes[2] ?? 1];
}

function parsePair(text: string, what: string): [string, number] {
  const at = text.indexOf('=');
  if (at < 1) throw usage(`${what}: "${text}" must be NAME=NUMBER.`);
  return [text.slice(0, at).trim(), parseAmount(text.slice(at + 1), `${what} ${text.slice(0, at).trim()}`)];
}

const WORDS = ['grid', 'size', 'param', 'constant', 'flops'] as const;

/**
 * Settings from words as on the command line: `grid 64,1,1`, `size a=1048576`, `param n=1024`, `constant
 * WG=64`, `flops 2e9`. Throws MGFError 'usage'.
 */
export function settingsOf(lines: readonly (readonly [word: string, value: string])[]): KernelSettings {
  const sizes: Record<string, number> = {};
  const params: Record<string, number> = {};
  const constants: Record<string, number> = {};
  let grid: KernelSettings['grid'];
  let flops: number | undefined;
  for (const [word, value] of lines) {
    if (word === 'grid') grid = parseGrid(value);
    else if (word === 'flops') flops = parseAmount(value, 'flops');
    else {
      const into = { size: sizes, param: params, constant: constants }[word];
      if (!into) throw usage(`"// bench: ${word}" is none of ${WORDS.join(', ')}.`);
      const [name, amount] = parsePair(value, word);
      into[name] = amount;
    }
  }
  return { sizes, params, constants, ...(grid && { grid }), ...(flops !== undefined && { flops }) };
}

/** The `// bench: WORD VALUE` lines of a file. */
export const settingsInText = (source: string): KernelSettings =>
  settingsOf(
    [...source.matchAll(/^\s*\/\/\s*bench:\s*(\w+)\s+(.+?)\s*$/gm)].map((m) => [m[1]!, m[2]!] as const),
  );

const merge = (a: KernelSettings, b: KernelSettings): KernelSettings => ({
  ...a,
  ...b,
  sizes: { ...a.sizes, ...b.sizes },
  params: { ...a.params, ...b.params },
  constants: { ...a.constants, ...b.constants },
});

const SCALARS: Readonly<Record<string, number>> = { f32: 4, i32: 4, u32: 4, f16: 2 };
const SUFFIXES: Readonly<Record<string, string>> = { f: 'f32', i: 'i32', u: 'u32', h: 'f16' };

/**
 * Bytes and scalar of an array's element type: `vec4f`, `vec2<f16>`, `atomic<u32>`, `mat4x4f`; null for a
 * struct.
 */
function elementType(type: string): { bytes: number; scalar: string } | null {
  const t = type.replaceAll(/\s/g, '');
  const atomic = /^atomic<(\w+)>$/.exec(t)?.[1];
  if (atomic) return { bytes: 4, scalar: atomic };
  if (SCALARS[t]) return { bytes: SCALARS[t]!, scalar: t };
  const shaped = /^(?:vec|mat(\d)x)(\d)(?:<(\w+)>|([fiuh]))$/.exec(t);
  if (!shaped) return null;
  const scalar = shaped[3] ?? SUFFIXES[shaped[4]!]!;
  const rows = Number(shaped[2]);
  const each = SCALARS[scalar];
  // A vec3 takes the room of a vec4, alone and as a column.
  return each ? { bytes: each * (rows === 3 ? 4 : rows) * Number(shaped[1] ?? 1), scalar } : null;
}

interface Binding {
  name: string;
  writes: boolean;
  element: { bytes: number; scalar: string } | null;
  type: string;
}

function storageOf(name: string, wgsl: string): Binding[] {
  const code = wgsl.replace(/\/\/.*$/gm, '');
  return reflect(name, wgsl)
    .bindings.filter((b) => b.type !== 'uniform')
    .map((b): Binding => {
      const type = new RegExp(`var<\\s*storage[^>]*>\\s*${b.name}\\s*:\\s*([^;]+);`).exec(code)![1]!.trim();
      const array = /^array<(.+?)(?:,\s*\w+\s*)?>$/.exec(type)?.[1];
      return {
        name: b.name,
        writes: b.type === 'storage',
        type,
        element: array === undefined ? null : elementType(array),
      };
    });
}

/** Floats of [-1, 1); integers that are an index into every bound array. */
function randomContents(
  bytes: number,
  scalar: string,
  smallest: number,
  seed: number,
): Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer> {
  const next = uniforms(seed);
  const n = Math.ceil(bytes / 4);
  if (scalar === 'f32') return Float32Array.from({ length: n }, () => 2 * next() - 1);
  if (scalar === 'f16') {
    // 0x3800 to 0x3bff is 0.5 to 1: a random fraction and sign.
    return new Uint8Array(
      Uint16Array.from(
        { length: 2 * n },
        () => 0x3800 + Math.floor(next() * 0x400) + (next() < 0.5 ? 0x8000 : 0),
      ).buffer,
    );
  }
  return new Uint8Array(
    Uint32Array.from({ length: n }, () => Math.floor(next() * Math.max(1, smallest))).buffer,
  );
}

export interface KernelTiming {
  readonly timing: Timing;
  readonly clock: 'timestamps' | 'wall';
  /** Of all bindings, each once. */
  readonly bytes: number;
  readonly flops: number | null;
  /** Storage that may be written and holds something that is not finite after a run. */
  readonly notFinite: readonly string[];
}

/** A constant that nobody gave is something to be given. */
function expand(name: string, source: string, constants: Readonly<Record<string, number>>): string {
  try {
    return expandTemplate(name, source, constants);
  } catch (error) {
    const lacking = /"([A-Za-z_]\w*)" in ".*" is not a constant/.exec((error as Error).message)?.[1];
    throw lacking
      ? usage(
          `${name} is a template and needs a value for ${lacking}; give --constant ${lacking}=N, or a ` +
            `line "// bench: constant ${lacking}=N" in the file.`,
        )
      : error;
  }
}

/** What in a kernel only Tint or only naga takes, where the adapter has no subgroups: lines to print. */
export const kernelFileNotes = (name: string, source: string): string[] =>
  portabilityNotes(name, expand(name, source, { SG: 0, CPU: 0, ...settingsInText(source).constants }));

/** Everything that a launch of the file still lacks, as the options that would give it. */
function missing(
  name: string,
  bindings: readonly Binding[],
  fields: readonly string[],
  s: KernelSettings,
): string[] {
  const out: string[] = [];
  if (!s.grid) out.push('--grid X,Y,Z (workgroups)');
  for (const b of bindings)
    if (s.sizes[b.name] === undefined)
      out.push(`--size ${b.name}=N (${b.element ? `elements of ${b.type}` : `bytes of ${b.type}`})`);
  for (const f of fields) if (s.params[f] === undefined) out.push(`--param ${f}=N`);
  const unknown = [
    ...Object.keys(s.sizes)
      .filter((n) => !bindings.some((b) => b.name === n))
      .map((n) => `size ${n}`),
    ...Object.keys(s.params)
      .filter((n) => !fields.includes(n))
      .map((n) => `param ${n}`),
  ];
  if (unknown.length)
    throw usage(
      `${name} has no ${unknown.join(', no ')}; it has the storage ` +
        `${bindings.map((b) => b.name).join(', ') || 'none'} and the uniform fields ` +
        `${fields.join(', ') || 'none'}.`,
    );
  return out;
}

/**
 * Times a kernel: its `main`, group 0, on random inputs. Options win over the file's own lines. Throws
 * MGFError 'usage' listing everything that is missing, 'kernel' with the compiler's messages, 'limit' where
 * the adapter has no room.
 */
export async function timeKernelFile(
  gpu: Gpu,
  name: string,
  source: string,
  options: KernelSettings,
  repetition: Repetition = {},
): Promise<KernelTiming> {
  const settings = merge(settingsInText(source), options);
  const constants = {
    SG: gpu.profile.subgroupSize,
    CPU: Number(gpu.profile.family === 'cpu'),
    ...settings.constants,
  };
  const wgsl = expand(name, source, constants);
  const { fields } = reflect(name, wgsl);
  const bindings = storageOf(name, wgsl);
  const lacking = missing(
    name,
    bindings,
    fields.map((f) => f.name),
    settings,
  );
  if (lacking.length)
    throw usage(
      `${name} cannot be launched yet; give ${lacking.join(', ')}, or the same as lines "// bench: ` +
        `size a=1048576" in the file.`,
    );
  const smallest = Math.min(...bindings.map((b) => settings.sizes[b.name]!));
  const data = Object.fromEntries(
    bindings.map((b, i) => {
      const bytes = settings.sizes[b.name]! * (b.element?.bytes ?? 1);
      return [b.name, randomContents(bytes, b.element?.scalar ?? 'u32', b.element ? smallest : 1, i + 1)];
    }),
  );
  const kernel = await openKernel(gpu, {
    name,
    source: wgsl,
    data,
    params: settings.params,
    grid: settings.grid!,
  });
  try {
    await kernel.run();
    const notFinite: string[] = [];
    for (const b of bindings.filter((x) => x.writes && x.element?.scalar === 'f32')) {
      if (!new Float32Array(await kernel.read(b.name)).every(Number.isFinite)) notFinite.push(b.name);
    }
    const samples: number[] = [];
    const started = performance.now();
    await kernel.run();
    while (
      wantsMore(samples.length, performance.now() - started, { seconds: 2, maxRuns: 200, ...repetition })
    )
      samples.push(await kernel.run());
    return {
      timing: statistics(samples),
      clock: kernel.clock,
      bytes: kernel.bytes,
      flops: settings.flops ?? null,
      notFinite,
    };
  } finally {
    kernel.destroy();
  }
}
