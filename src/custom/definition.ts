/** Checks of what users define by expression, before any of it becomes WGSL. */
import { checkArguments, checkFields, checkNames, describe, type Rule } from '../check.ts';
import { MGFError } from '../errors.ts';

/** What the numbers of an input mean; checks fill it accordingly. Default: any number. */
export type InputKind = 'number' | 'mask' | 'weight' | 'probability' | 'positive';
const KINDS: readonly InputKind[] = ['number', 'mask', 'weight', 'probability', 'positive'];

/**
 * Checks the keys of a definition. Throws MGFError 'usage' for one that is unknown (naming the nearest),
 * missing or of a wrong kind.
 */
export function checkKeys(what: string, definition: object, rules: Readonly<Record<string, Rule>>): string {
  checkArguments(what, { definition: [definition, 'an object'] });
  const { name } = definition as { name?: unknown };
  const where = typeof name === 'string' ? `${what} of ${name}` : what;
  checkNames(where, 'key', Object.keys(definition), Object.keys(rules));
  checkFields(where, '', definition, rules);
  return where;
}

/** Checks that every entry of a list or a record is of one kind. */
export function checkEach(where: string, of: string, entries: object | undefined, kind: Rule): void {
  for (const [key, value] of Object.entries(entries ?? {})) {
    checkArguments(where, { [Array.isArray(entries) ? `${of}[${key}]` : `${of}.${key}`]: [value, kind] });
  }
}

/** Checks what inputs are said to hold. Throws MGFError 'usage'. */
export function checkKinds(where: string, kinds: object | undefined, inputs: readonly string[]): void {
  checkNames(where, 'input in kinds', Object.keys(kinds ?? {}), inputs);
  for (const [input, kind] of Object.entries(kinds ?? {})) {
    if (KINDS.includes(kind as InputKind)) continue;
    const known = KINDS.map((k) => `"${k}"`).join(', ');
    throw new MGFError(
      'usage',
      `${where}: kinds.${input} is ${describe(kind)}, but must be one of ${known}.`,
    );
  }
}

/** Numbers of a kind in place of arbitrary ones; undefined for any number. `columns`: those of a row. */
export function ofKind(kind: InputKind | undefined, count: number, columns: number): number[] | undefined {
  const wave = (i: number): number => 1 + Math.sin(2.4 * i + 1);
  const make = (value: (i: number) => number): number[] => Array.from({ length: count }, (_, i) => value(i));
  if (kind === 'mask') return make((i) => Number(i % 3 !== 0));
  if (kind === 'weight') return make((i) => i % 3);
  if (kind === 'positive') return make((i) => 0.1 + wave(i));
  if (kind !== 'probability') return undefined;
  const raw = make((i) => 0.1 + wave(i));
  // Of a row that sums to 1, or of single events.
  if (columns === 1) return raw.map((x) => x / 2.2);
  return raw.map((x, i) => {
    const first = i - (i % columns);
    return x / raw.slice(first, first + columns).reduce((a, b) => a + b, 0);
  });
}
