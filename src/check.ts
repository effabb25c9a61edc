/**
 * Checks of what the public functions are given: TypeScript's types do not hold in JavaScript, and a typing
 * error in the name of an option must not pass.
 * Small on purpose, because every page downloads it.
 */
import { nearestName } from './edit-distance.ts';
import { MGFError } from './errors.ts';

/**
 * What an argument must be: a kind below, or a text in quotes for that text alone; several as `a|b`. A
 * question mark at the end allows undefined.
 */
export type Rule = string;

/** A rule for every option of an interface, so that the compiler finds the option that was forgotten here. */
export type Rules<T> = { readonly [K in keyof Required<T>]: Rule };

/** Rules that many functions share. */
export const GPU: Rule = 'a Gpu from openGpu()';
export const GRAPH: Rule = 'a Graph';
export const VALUE: Rule = 'a Value of a Graph';
export const CONFIG: Rule = 'a network configuration';
export const RUN: Rule = 'a run configuration';
export const FLOATS: Rule = 'a Float32Array';

const tag = (x: unknown): string => Object.prototype.toString.call(x).slice(8, -1);
const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null;
const isIterable = (x: unknown): boolean =>
  typeof (x as Partial<Iterable<unknown>> | null | undefined)?.[Symbol.iterator] === 'function';
const has = (x: unknown, ...keys: string[]): boolean => isRecord(x) && keys.every((key) => key in x);

/** The kinds by the word that messages use for them. */
const KINDS: Readonly<Record<string, (x: unknown) => boolean>> = {
  'an object': (x) => isRecord(x) && !Array.isArray(x) && !ArrayBuffer.isView(x),
  'a list': Array.isArray,
  'a text': (x) => typeof x === 'string',
  'a number': (x) => typeof x === 'number',
  'true or false': (x) => typeof x === 'boolean',
  'a function': (x) => typeof x === 'function',
  null: (x) => x === null,
  'a Map': (x) => tag(x) === 'Map',
  'a Uint8Array': (x) => tag(x) === 'Uint8Array',
  'a Float32Array': (x) => tag(x) === 'Float32Array',
  'an Int32Array': (x) => tag(x) === 'Int32Array',
  'an array of numbers': (x) => Array.isArray(x) || ArrayBuffer.isView(x),
  'an ArrayBuffer': (x) => tag(x) === 'ArrayBuffer',
  'a Blob or File': (x) => has(x, 'arrayBuffer', 'size'),
  'an iterable': isIterable,
  'an iterable of chunks of samples': (x) =>
    isRecord(x) && !ArrayBuffer.isView(x) && (Symbol.asyncIterator in x || isIterable(x)),
  'a URL': (x) => tag(x) === 'URL',
  'an AbortSignal': (x) => has(x, 'aborted', 'addEventListener'),
  'a Gpu from openGpu()': (x) => has(x, 'profile'),
  'a Graph': (x) => has(x, 'values', 'nodes', 'apply'),
  'a Value of a Graph': (x) => has(x, 'graph', 'shape', 'dtype'),
  'a per-step scalar': (x) => has(x, 'scalar'),
  'a network configuration': (x) => has(x, 'hidden_size', 'loss_weights', 'objectives', 'conv_dim'),
  'a run configuration': (x) => has(x, 'mgf', 'train'),
  anything: () => true,
};

/** What a value is, as messages call it: `null`, `"a.wav"`, `an Int16Array`. Never its contents at length. */
export function describe(x: unknown): string {
  if (x === null || x === undefined || typeof x === 'boolean') return String(x);
  if (typeof x === 'string') return JSON.stringify(x.length > 40 ? `${x.slice(0, 37)}...` : x);
  if (typeof x === 'number') return String(x);
  if (typeof x === 'function') return 'a function';
  if (Array.isArray(x)) return `a list of ${x.length}`;
  if (typeof x !== 'object') return `a ${typeof x}`;
  const own = (x as { constructor?: { name?: string } }).constructor?.name;
  const name = tag(x) === 'Object' && own ? own : tag(x);
  return name === 'Object' ? 'an object' : `${/^[AEIOU](?!RL|int)/.test(name) ? 'an' : 'a'} ${name}`;
}

const holds = (rule: Rule, x: unknown): boolean => {
  const optional = rule.endsWith('?');
  const fits = (kind: string): boolean =>
    kind.startsWith('"') ? JSON.stringify(x) === kind : KINDS[kind]!(x);
  return (optional && x === undefined) || (optional ? rule.slice(0, -1) : rule).split('|').some(fits);
};

function refuse(where: string, name: string, x: unknown, rule: Rule): MGFError {
  const wanted = rule.replace('?', '').replaceAll('|', ' or ');
  return new MGFError('usage', `${where}: ${name} is ${describe(x)}, but must be ${wanted}.`);
}

/**
 * Checks arguments by name: `checkArguments('readManifest', { spec: [spec, 'a text'] })`. Throws MGFError
 * 'usage' for the first that is wrong.
 */
export function checkArguments(
  where: string,
  given: Readonly<Record<string, readonly [value: unknown, rule: Rule]>>,
): void {
  for (const [name, [value, rule]] of Object.entries(given))
    if (!holds(rule, value)) {
      throw refuse(where, name, value, rule);
    }
}

/**
 * Checks an options object. Throws MGFError 'usage' for what is no object, an unknown option (naming the
 * nearest known one), or an option of a wrong kind.
 */
export function checkOptions<T extends object>(where: string, given: T, rules: Rules<T>): void {
  checkArguments(where, { options: [given, 'an object'] });
  checkNames(where, 'option', Object.keys(given), Object.keys(rules));
  checkFields(where, 'the option ', given, rules);
}

/**
 * Checks fields of an object that may have others. `prefix`: what stands before a field's name in messages,
 * such as `data.`.
 */
export function checkFields(
  where: string,
  prefix: string,
  given: object,
  rules: Readonly<Record<string, Rule>>,
): void {
  const of = prefix.replace(/\.$/, '');
  if (!KINDS['an object']!(given)) throw refuse(where, of, given, 'an object');
  for (const [name, rule] of Object.entries(rules)) {
    const value = (given as Record<string, unknown>)[name];
    if (!holds(rule, value)) throw refuse(where, prefix + name, value, rule);
  }
}

/**
 * Throws MGFError 'usage' for a name that is not known, naming the nearest one that is. `what`: what such a
 * name stands for.
 */
export function checkNames(
  where: string,
  what: string,
  given: readonly string[],
  known: readonly string[],
): void {
  const unknown = given.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  const advice = known.length
    ? `the nearest known one is "${nearestName(unknown, known)}"`
    : 'there are none';
  throw new MGFError('usage', `${where}: unknown ${what} ${JSON.stringify(unknown)}; ${advice}.`);
}
