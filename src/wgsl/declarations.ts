/**
 * What a WGSL text declares: its entry points, and the resources that one of them uses. Read from the text
 * alone.
 */
import { MGFError } from '../errors.ts';

export interface Declaration {
  readonly name: string;
  readonly binding: number;
  /** Address space, empty for textures. */
  readonly space: string;
  readonly access: string;
  /** The type's name, and what stands between its angle brackets with them. */
  readonly type: string;
  readonly of: string;
}

/** The text with comments blanked, so that places stay what they are. */
export const withoutComments = (wgsl: string): string =>
  wgsl.replace(/\/\*[^]*?\*\/|\/\/.*/g, (comment) => comment.replace(/[^\n]/g, ' '));

const ARGUMENTS = String.raw`\((?:[^()]|\([^()]*\))*\)`;
const ATTRIBUTES = String.raw`((?:@\s*\w+\s*(?:${ARGUMENTS})?\s*)+)`;
const FUNCTION = new RegExp(String.raw`(?:${ATTRIBUTES})?\bfn\s+(\w+)\s*\(`, 'g');
const RESOURCE = new RegExp(
  String.raw`${ATTRIBUTES}var\s*(?:<\s*(\w+)\s*(?:,\s*(\w+)\s*)?>)?\s*(\w+)\s*:\s*(\w+)([^;]*);`,
  'g',
);

/** Names of the compute entry points, in the order of the text. */
export const entryPoints = (wgsl: string): string[] =>
  [...withoutComments(wgsl).matchAll(FUNCTION)]
    .filter(([, attributes]) => /@\s*compute\b/.test(attributes ?? ''))
    .map(([, , name]) => name!);

/**
 * The entry point to launch: the wanted one, else `main`, else the only one. Throws MGFError 'kernel' that
 * lists what there is
 * where none of these exists.
 */
export function chooseEntry(name: string, wgsl: string, wanted?: string): string {
  const found = entryPoints(wgsl);
  if (found.length === 0) {
    throw new MGFError(
      'kernel',
      `${name} has no entry point: write @compute @workgroup_size(64) before a function.`,
    );
  }
  if (wanted !== undefined) {
    if (found.includes(wanted)) return wanted;
    throw new MGFError('kernel', `${name} has no entry point "${wanted}"; it has ${found.join(', ')}.`);
  }
  if (found.includes('main')) return 'main';
  if (found.length === 1) return found[0]!;
  throw new MGFError(
    'kernel',
    `${name} has the entry points ${found.join(', ')} and no main: choose one with --entry NAME, ` +
      'or with a line "// bench: entry NAME" in the file.',
  );
}

/** Identifiers that a function and all that it calls contain, without those after a point. */
function reachableNames(code: string, entry: string): Set<string> {
  const starts = [...code.matchAll(FUNCTION)];
  const bodies = new Map<string, string>();
  starts.forEach((match, i) => bodies.set(match[2]!, code.slice(match.index, starts[i + 1]?.index)));
  const names = new Set<string>([entry]);
  const open = [entry];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const [word] of (bodies.get(next) ?? '').matchAll(/(?<![.\w])[A-Za-z_]\w*/g)) {
      if (names.has(word)) continue;
      names.add(word);
      if (bodies.has(word)) open.push(word);
    }
  }
  return names;
}

function whole(attributes: string, which: 'group' | 'binding'): number | null {
  const text = new RegExp(String.raw`@\s*${which}\s*\(\s*(\d+)[iu]?\s*,?\s*\)`).exec(attributes)?.[1];
  return text === undefined ? null : Number(text);
}

/**
 * The resources of a text; with `entry`, only those that this entry point uses, since two of them may give
 * one number to different
 * variables. Throws MGFError 'kernel' for a group other than 0 and for numbers that are not written as such.
 */
export function declarations(name: string, wgsl: string, entry?: string): Declaration[] {
  const code = withoutComments(wgsl);
  const several = entry !== undefined && entryPoints(code).length > 1;
  const used = several ? reachableNames(code, entry) : null;
  const all = [...code.matchAll(RESOURCE)].filter(
    ([, attributes, , , variable]) =>
      /@\s*(group|binding)\b/.test(attributes!) && (used === null || used.has(variable!)),
  );
  const taken = new Set(all.map(([, attributes]) => whole(attributes!, 'binding')));
  let free = 0;
  while (taken.has(free)) free++;
  return all.map(([, attributes, space = '', access = '', variable, type, of]) => {
    const group = whole(attributes!, 'group');
    const binding = whole(attributes!, 'binding');
    if (group === null || binding === null) {
      throw new MGFError(
        'kernel',
        `${name}: "${variable}" needs @group(0) and @binding(N), both as whole numbers.`,
      );
    }
    if (group !== 0) {
      const alone = all.filter(([, a]) => whole(a!, 'binding') === binding).length === 1;
      throw new MGFError(
        'kernel',
        `${name}: "${variable}" is in @group(${group}), and the engine binds group 0 alone: ` +
          `write @group(0) @binding(${alone ? binding : free}) instead.`,
      );
    }
    return { name: variable!, binding, space, access, type: type!, of: of!.replaceAll(/\s/g, '') };
  });
}
