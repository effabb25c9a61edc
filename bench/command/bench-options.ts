/** Which option of `mgf bench` belongs to what: an option that would do nothing is refused, never ignored. */
import { MGFError } from '../../src/errors.ts';
import type { TuneMode } from '../../src/cli/tuning.ts';
import type { AdapterPreference, Precision } from '../../src/gpu/device.ts';

export const SUITES = ['kernels', 'step', 'peers', 'roofline'] as const;
export type Suite = (typeof SUITES)[number];

/**
 * What is asked for: a suite, the short selection without one, a .wgsl file, or a file of results that is
 * shown again.
 */
export type Target = Suite | 'short' | 'file' | 'from';

export interface BenchOptions {
  filter?: RegExp;
  json?: string;
  compare?: string;
  against?: string;
  threshold?: number;
  rounds?: number;
  from?: string;
  budget?: number;
  out?: string;
  grid?: string;
  size?: string[];
  param?: string[];
  constant?: string[];
  before?: string[];
  entry?: string;
  expect?: string;
  flops?: string;
  start?: string;
  precision?: Precision;
  tune: TuneMode;
  python?: string;
  adapter?: AdapterPreference;
}

type OptionName = Exclude<keyof BenchOptions, 'start'>;

/** How messages call the targets. */
const NAMES: Readonly<Record<Target, string>> = {
  short: 'mgf bench without a suite',
  kernels: 'kernels',
  step: 'step',
  peers: 'peers',
  roofline: 'roofline',
  file: 'a .wgsl file',
  from: '--from',
};

const MEASURED = ['short', 'kernels', 'step', 'peers', 'roofline'] as const;

/** The whole rule: with which targets an option does something. */
export const BELONGS: Readonly<Record<OptionName, readonly Target[]>> = {
  filter: [...MEASURED, 'from'],
  json: [...MEASURED, 'file', 'from'],
  compare: [...MEASURED, 'file', 'from'],
  against: ['short', 'kernels', 'step', 'file'],
  threshold: [...MEASURED, 'file', 'from'],
  rounds: ['short', 'kernels', 'step', 'file'],
  from: ['from'],
  budget: MEASURED,
  out: ['roofline', 'from'],
  grid: ['file'],
  size: ['file'],
  param: ['file'],
  constant: ['file'],
  before: ['file'],
  entry: ['file'],
  expect: ['file'],
  flops: ['file'],
  python: ['peers'],
  precision: MEASURED,
  // Steps run in processes of their own, which estimate.
  tune: ['short', 'kernels', 'peers', 'roofline'],
  adapter: [...MEASURED, 'file'],
};

/** Options of which the first does something only beside one of the others. */
const NEEDS: readonly (readonly [OptionName, readonly OptionName[]])[] = [
  ['threshold', ['compare', 'against']],
  ['rounds', ['against']],
];
/** Options that contradict each other. */
const EXCLUDES: readonly (readonly [OptionName, OptionName])[] = [['against', 'compare']];

const list = (words: readonly string[]): string =>
  words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)!}`;

const usage = (message: string): MGFError => new MGFError('usage', message);

/** What WHAT and --from ask for. Throws MGFError 'usage'. */
export function targetOf(what: string | undefined, from: string | undefined): Target {
  const isSuite = (SUITES as readonly string[]).includes(what ?? '');
  const isFile = what?.endsWith('.wgsl') ?? false;
  if (what !== undefined && !isSuite && !isFile) {
    throw usage(`"${what}" cannot be measured: use ${list([...SUITES, 'a file whose name ends in .wgsl'])}.`);
  }
  if (from === undefined) return isFile ? 'file' : ((what as Suite | undefined) ?? 'short');
  if (what === undefined || what === 'roofline') return 'from';
  throw usage(
    `--from shows the whole file of results: leave out "${what}"${
      isSuite ? ', or choose by name with --filter' : ''
    }.`,
  );
}

/**
 * Refuses options that would do nothing. `given`: names of those on the command line, as in `BenchOptions`.
 * Throws MGFError 'usage' with what the option belongs to.
 */
export function checkOptions(target: Target, what: string | undefined, given: readonly string[]): void {
  for (const name of given) {
    const targets = BELONGS[name as OptionName];
    if (!targets || targets.includes(target)) continue;
    throw usage(
      `--${name} does nothing for ${NAMES[target]}: it belongs to ${list(targets.map((t) => NAMES[t]))}.`,
    );
  }
  const has = (name: OptionName): boolean => given.includes(name);
  if (has('out') && what !== 'roofline')
    throw usage('--out is the folder of a plot: it belongs to mgf bench roofline.');
  for (const [name, others] of NEEDS) {
    if (has(name) && !others.some(has))
      throw usage(`--${name} does nothing without ${list(others.map((o) => `--${o}`))}.`);
  }
  for (const [a, b] of EXCLUDES)
    if (has(a) && has(b))
      throw usage(`--${a} and --${b} exclude each other: measure with one, then with the other.`);
}
