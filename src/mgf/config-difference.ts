/** Where two configurations differ. */
import { MGFError } from '../errors.ts';
import { isObject, show } from './parse-config.ts';
import type { ParseOptions } from './parse-config.ts';

export interface ConfigDifference {
  field: string;
  found: unknown;
  wanted: unknown;
}

/** The fields in which two configurations differ, nested ones by dotted name, in the order of `wanted`. */
export function configDifferences(found: object, wanted: object, prefix = ''): ConfigDifference[] {
  const a = found as Record<string, unknown>;
  const b = wanted as Record<string, unknown>;
  return [...new Set([...Object.keys(b), ...Object.keys(a)])].flatMap((key) => {
    if (isObject(a[key]) && isObject(b[key])) return configDifferences(a[key], b[key], `${prefix}${key}.`);
    return JSON.stringify(a[key]) === JSON.stringify(b[key])
      ? []
      : [{ field: prefix + key, found: a[key], wanted: b[key] }];
  });
}

/**
 * Error (`checkpoint`) that names the first three fields in which a checkpoint's configuration differs from
 * the wanted one, with both values.
 */
export function assertSameConfig(
  found: object,
  wanted: object,
  { origin, ignore = [] }: ParseOptions & { ignore?: readonly string[] },
): void {
  const differences = configDifferences(found, wanted).filter(({ field }) => !ignore.includes(field));
  if (differences.length === 0) return;
  const text = (x: unknown) => (x === undefined ? 'absent' : show(x));
  const first = differences
    .slice(0, 3)
    .map((d) => `${d.field} is ${text(d.found)} there and ${text(d.wanted)} here`)
    .join(', ');
  const more = differences.length > 3 ? ` (and ${differences.length - 3} more)` : '';
  throw new MGFError(
    'checkpoint',
    `${origin} was made with another configuration: ${first}${more}; use its configuration, or start a ` +
      'new run in another folder.',
  );
}
