/**
 * WGSL that somebody wrote, put into kernels of ours so that the compiler's messages still name their lines.
 */
import { MGFError } from '../errors.ts';
import { ownText } from '../wgsl/diagnostics.ts';
import { isReserved } from '../wgsl/reserved.ts';

/** The line of a kernel that gives way to functions. */
const PLACE = /^USER$/m;

/** A kernel's text with functions in it. */
export const withFunctions = (source: string, functions: string): string =>
  source.replace(PLACE, () => functions);

/**
 * `fn NAME(parameters) -> f32` around a body: statements that return, or one expression.
 * `label`: what messages call the body, such as `soft_l1.forward`.
 */
export function userFunction(
  name: string,
  parameters: readonly string[],
  body: string,
  label: string,
): string {
  const own = ownText(label, body);
  return (
    `fn ${name}(${parameters.join(', ')}) -> f32 ` +
    `{\n${/\breturn\b/.test(body) ? own : `return (\n${own}\n);`}\n}`
  );
}

/** What the functions that are made around the user's text begin with, so that no name can meet theirs. */
export const OURS = 'mgf_';

/** Whether names can be names in WGSL, and are not those of generated functions. Throws MGFError 'usage'. */
export function checkNames(op: string, what: string, names: readonly string[]): void {
  for (const name of names) {
    if (!/^[a-zA-Z][a-zA-Z0-9_]*$/.test(name) || name.includes('__'))
      throw new MGFError(
        'usage',
        `${op}: ${JSON.stringify(name)} cannot name ${what} in WGSL; give it a letter first, then ` +
          'letters, digits and single underscores.',
      );
    if (isReserved(name) || name.startsWith(OURS)) {
      const why = isReserved(name)
        ? 'WGSL keeps the word for itself'
        : `names in ${OURS}... are the engine's`;
      throw new MGFError('usage', `${op}: ${what} cannot be called ${name}: ${why}; call it my_${name}.`);
    }
  }
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new MGFError('usage', `${op}: two of its inputs and attributes are called ${twice}.`);
}
