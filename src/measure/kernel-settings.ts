/**
 * What a kernel file's text does not say of a launch: from `// bench: WORD VALUE` lines in it, or from
 * options.
 */
import { MGFError } from '../errors.ts';

/** What a file needs to be launched. Each part may be missing in one source and come from another. */
export interface KernelSettings {
  readonly grid?: readonly [number, number, number];
  /** The entry point; `main` or the only one where left out. */
  readonly entry?: string;
  /** Elements of each storage array, or bytes for anything else, by variable name. */
  readonly sizes: Readonly<Record<string, number>>;
  readonly params: Readonly<Record<string, number>>;
  readonly constants: Readonly<Record<string, number>>;
  /**
   * Contents of read_write storage before a run, where the kernel uses or keeps them: a number everywhere, or
   * random ones.
   */
  readonly before: Readonly<Record<string, number | 'random'>>;
  /** FLOPs of one launch. */
  readonly flops?: number;
}

export const NO_SETTINGS: KernelSettings = { sizes: {}, params: {}, constants: {}, before: {} };

/** The words of `// bench:` lines, which are also options of the commands. */
export const SETTING_WORDS = ['grid', 'size', 'param', 'constant', 'before', 'entry', 'flops'] as const;

export const usage = (message: string): MGFError => new MGFError('usage', message);

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
  if (axes.length > 3 || axes.some((n) => !Number.isInteger(n) || n < 1)) {
    throw usage(`grid: "${text}" must be one to three whole numbers of workgroups, for example 64,1,1.`);
  }
  return [axes[0]!, axes[1] ?? 1, axes[2] ?? 1];
}

/** NAME=NUMBER. A size is a whole number above 0; `before` may also be the word random. */
function parsePair(text: string, word: string): [string, number | 'random'] {
  const at = text.indexOf('=');
  const name = text.slice(0, at).trim();
  const value = text.slice(at + 1).trim();
  if (at < 1)
    throw usage(`${word}: "${text}" must be NAME=NUMBER${word === 'before' ? ' or NAME=random' : ''}.`);
  if (word === 'before' && value === 'random') return [name, value];
  const amount = parseAmount(value, `${word} ${name}`);
  if (word === 'size' && (!Number.isSafeInteger(amount) || amount < 1))
    throw usage(`size ${name}: "${value}" must be a whole number from 1 up.`);
  return [name, amount];
}

/** Settings from pairs such as ['grid', '64,1,1'] and ['size', 'x=1024']. Throws MGFError 'usage'. */
export function settingsOf(lines: readonly (readonly [word: string, value: string])[]): KernelSettings {
  const pairs: Record<string, Record<string, number | 'random'>> = {
    size: {},
    param: {},
    constant: {},
    before: {},
  };
  const single: { grid?: KernelSettings['grid'] & object; flops?: number; entry?: string } = {};
  for (const [word, value] of lines) {
    if (word === 'grid') single.grid = parseGrid(value);
    else if (word === 'flops') single.flops = parseAmount(value, 'flops');
    else if (word === 'entry') single.entry = value;
    else if (pairs[word]) {
      const [name, amount] = parsePair(value, word);
      pairs[word][name] = amount;
    } else throw usage(`"// bench: ${word}" is none of ${SETTING_WORDS.join(', ')}.`);
  }
  const { size, param, constant } = pairs as Record<string, Record<string, number>>;
  return { sizes: size!, params: param!, constants: constant!, before: pairs['before']!, ...single };
}

/** The `// bench: WORD VALUE` lines of a file. */
export const settingsInText = (source: string): KernelSettings =>
  settingsOf(
    [...source.matchAll(/^\s*\/\/\s*bench:\s*(\w+)\s+(.+?)\s*$/gm)].map((m) => [m[1]!, m[2]!] as const),
  );

/** Both, of which `b` wins. */
export const mergeSettings = (a: KernelSettings, b: KernelSettings): KernelSettings => ({
  ...a,
  ...b,
  sizes: { ...a.sizes, ...b.sizes },
  params: { ...a.params, ...b.params },
  constants: { ...a.constants, ...b.constants },
  before: { ...a.before, ...b.before },
});

/** One line that tells one launch from another: entry point, grid, sizes, parameters, constants. */
export function describeSettings(s: KernelSettings, entry: string): string {
  const list = (word: string, values: Readonly<Record<string, number>>): string[] => {
    const text = Object.entries(values)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => `${name}=${value}`)
      .join(' ');
    return text ? [`${word} ${text}`] : [];
  };
  const rest = [...list('size', s.sizes), ...list('param', s.params), ...list('constant', s.constants)];
  return [`entry ${entry}`, `grid ${s.grid!.join(',')}`, ...rest].join('; ');
}
