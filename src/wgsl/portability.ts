/**
 * What one of the two compilers of WGSL refuses and the other accepts. Tint compiles in Chromium and in Dawn
 * (npm `webgpu`: Node, Bun), naga in Firefox and Deno, and only one of them is there when a kernel is
 * written. A table of constructs, each seen with both (Tint of webgpu 0.6, naga 29); no compiler: what is not
 * in the table is not found, and a barrier is called non-uniform only where its condition plainly comes from
 * an invocation's own number or from memory that is written.
 */
import type { Compiler } from './compiler.ts';
import { complaint } from './diagnostics.ts';

/** One place in a text. */
export interface PortabilityNote {
  /** From 1. */
  readonly line: number;
  readonly column: number;
  readonly accepts: Compiler;
  readonly refuses: Compiler;
  /** The compiler that refuses it does not even say so: its process ends. */
  readonly ends: boolean;
  /** A sentence: who accepts what, and what to write instead. */
  readonly message: string;
}

const WHERE: Readonly<Record<Compiler, string>> = {
  Tint: 'Tint (Chromium, Dawn)',
  naga: 'naga (Firefox, Deno)',
};

/** Extensions that naga 29 knows. */
const ENABLED: readonly string[] = ['f16', 'clip_distances', 'dual_source_blending'];
const REQUIRED: readonly string[] = [
  'readonly_and_readwrite_storage_textures',
  'packed_4x8_integer_dot_product',
  'pointer_composite_access',
];

interface Token {
  readonly text: string;
  readonly at: number;
}
interface Func {
  readonly name: string;
  /** Indices of its parentheses and braces. */ readonly open: number;
  readonly close: number;
  readonly begin: number;
  readonly end: number;
}

const WORD = /^[A-Za-z_]\w*$/;
const isAssignment = (text: string | undefined): boolean =>
  text !== undefined && /^([-+*/%&|^]|<<|>>)?=$/.test(text);

function tokenise(wgsl: string): Token[] {
  const code = wgsl.replace(/\/\/.*$|\/\*[^]*?\*\//gm, (comment) => comment.replace(/[^\n]/g, ' '));
  return [...code.matchAll(/[A-Za-z_]\w*|\d[\w.]*|->|<<=|>>=|&&|\|\||\+\+|--|[-+*/%&|^=!<>]=|\S/g)].map(
    (m) => ({ text: m[0], at: m.index }),
  );
}

/** What in an expanded WGSL text only one of the two compilers takes, in the order of the text. */
export function portability(wgsl: string): PortabilityNote[] {
  const tokens = tokenise(wgsl);
  const text = (i: number): string => tokens[i]?.text ?? '';
  const notes: PortabilityNote[] = [];
  const note = (i: number, refuses: Compiler, what: string, instead: string, ends = false): void => {
    const { at } = tokens[i]!;
    const before = wgsl.slice(0, at).split('\n');
    const accepts = refuses === 'Tint' ? 'naga' : 'Tint';
    notes.push({
      line: before.length,
      column: before.at(-1)!.length + 1,
      accepts,
      refuses,
      ends,
      message:
        `${WHERE[accepts]} accepts ${what}${refuses === 'Tint' ? ', wrongly' : ''}; ${WHERE[refuses]} ` +
        `${ends ? 'crashes on it' : 'refuses it'}. Instead, ${instead}.`,
    });
  };
  /** Index of the bracket that closes the one at `i`. */
  const closing = (i: number): number => {
    for (let depth = 0; i < tokens.length; i++) {
      if ('([{'.includes(text(i))) depth++;
      else if (')]}'.includes(text(i)) && --depth === 0) break;
    }
    return i;
  };
  const functions = tokens.flatMap(({ text: word }, i): Func[] => {
    if (word !== 'fn') return [];
    const open = i + 2;
    const close = closing(open);
    const begin = tokens.findIndex((t, j) => j > close && t.text === '{');
    return [{ name: text(i + 1), open, close, begin, end: closing(begin) }];
  });
  const own = new Set(functions.map(({ name }) => name));
  const members = new Set(
    tokens.flatMap(({ text: word }, i) => {
      if (word !== 'struct') return [];
      const end = closing(i + 2);
      return tokens
        .slice(i + 2, end)
        .filter((_, j) => text(i + 3 + j) === ':')
        .map((t) => t.text);
    }),
  );
  const elements = new Set(
    tokens.flatMap((t, i) =>
      t.text === 'let' && text(i + 2) === '=' && text(i + 3) === '&' && '[.'.includes(text(i + 5))
        ? [text(i + 1)]
        : [],
    ),
  );

  for (const { open, close } of functions) {
    for (let i = open; i < close; i++) {
      if (text(i) === 'ptr' && ['storage', 'workgroup', 'uniform'].includes(text(i + 2)))
        note(
          i,
          'naga',
          `a pointer to ${text(i + 2)} memory as a parameter`,
          'name the variable itself in the function, and pass an index',
        );
    }
  }
  tokens.forEach(({ text: word }, i) => {
    if (own.has(word) && text(i + 1) === '(' && text(i - 1) !== 'fn') {
      const close = closing(i + 1);
      for (let j = i + 2, depth = 1; j < close; j++) {
        if (depth === 1 && '(,'.includes(text(j - 1))) {
          const made = text(j) === '&' && WORD.test(text(j + 1)) && '[.'.includes(text(j + 2));
          const held = elements.has(text(j)) && '),'.includes(text(j + 1));
          if (made || held)
            note(
              j,
              'naga',
              'a pointer to an element or a member as an argument',
              'pass the value and assign what the function returns, or pass the whole variable and an index',
              true,
            );
        }
        depth += Number('([{'.includes(text(j))) - Number(')]}'.includes(text(j)));
      }
    }
    if (
      word === '.' &&
      /^([xyzw]{2,4}|[rgba]{2,4})$/.test(text(i + 1)) &&
      !members.has(text(i + 1)) &&
      isAssignment(text(i + 2))
    ) {
      note(
        i + 1,
        'naga',
        'an assignment to a swizzle',
        'assign to each component, or make the whole vector anew (v = vec4f(xy, v.zw))',
      );
    }
    if (word === 'bitcast') {
      const half = (from: number): boolean =>
        text(from) === 'vec2h' || (text(from) === 'vec2' && text(from + 2) === 'f16');
      const argument = tokens.findIndex((t, j) => j > i && t.text === '(') + 1;
      if (half(i + 2) || half(argument))
        note(
          i,
          'naga',
          'a bitcast between vec2<f16> and 32 bits',
          'use unpack2x16float and pack2x16float, whose numbers are f32',
        );
    }
    if (word === 'var' && text(i + 2) === 'immediate')
      note(
        i,
        'naga',
        'var<immediate>',
        'make it a field of the uniform struct, which `params` of the dispatch fills',
      );
    if ((word === 'enable' || word === 'requires') && (i === 0 || text(i - 1) === ';')) {
      for (let j = i + 1; j < tokens.length && text(j) !== ';'; j++) {
        if (!WORD.test(text(j)) || (word === 'enable' ? ENABLED : REQUIRED).includes(text(j))) continue;
        note(
          j,
          'naga',
          `"${word} ${text(j)}"`,
          word === 'requires'
            ? 'do without what it allows'
            : 'launch a kernel without it where adapter.features lacks ' +
                `${text(j) === 'subgroups' ? "'subgroups' (in a template SG is 0 there)" : 'it'}`,
        );
      }
    }
  });
  for (const at of nonUniformBarriers(tokens, functions, closing))
    note(
      at,
      'Tint',
      'a barrier that not every invocation of the workgroup reaches',
      'have all of them come by it, and put the condition around the loads and stores on its two sides',
    );
  return notes.sort((a, b) => a.line - b.line || a.column - b.column);
}

const BARRIERS: readonly string[] = [
  'workgroupBarrier',
  'storageBarrier',
  'textureBarrier',
  'workgroupUniformLoad',
];
const OWN_NUMBER =
  /^(local_invocation_id|local_invocation_index|global_invocation_id|subgroup_invocation_id|subgroup_id)$/;

/**
 * Indices of barriers, and calls of functions with barriers, in control flow that differs among the
 * invocations of a workgroup.
 */
function nonUniformBarriers(
  tokens: readonly Token[],
  functions: readonly Func[],
  closing: (i: number) => number,
): Set<number> {
  const text = (i: number): string => tokens[i]?.text ?? '';
  const found = new Set<number>();
  const within = (f: Func, words: ReadonlySet<string>): boolean =>
    tokens.slice(f.begin, f.end).some((t, i) => words.has(t.text) && text(f.begin + i + 1) === '(');
  const barriers = new Set(BARRIERS);
  for (let size = 0; size < barriers.size;) {
    size = barriers.size;
    for (const f of functions) if (within(f, barriers)) barriers.add(f.name);
  }
  const until = (i: number, stop: string): number => {
    while (i < tokens.length && text(i) !== stop) i = '(['.includes(text(i)) ? closing(i) + 1 : i + 1;
    return i;
  };
  const shared = new Set(
    tokens.flatMap((t, i) =>
      t.text === 'var' &&
      (text(i + 2) === 'workgroup' || (text(i + 2) === 'storage' && text(i + 4) === 'read_write'))
        ? [text(until(i, '>') + 1)]
        : [],
    ),
  );

  /** Beginnings and ends of what commas separate in the brackets that open at `i`. */
  const parts = (i: number): (readonly [number, number])[] => {
    const end = closing(i);
    const out: [number, number][] = [];
    for (let from = i + 1; from < end;) {
      const comma = Math.min(until(from, ','), end);
      out.push([from, comma]);
      from = comma + 1;
    }
    return out;
  };
  /** Which arguments of a function are in what it returns. */
  const returned = new Map(
    functions.map((f) => [
      f.name,
      parts(f.open).map(([from, to]) => {
        const name = text(tokens.findIndex((t, i) => i >= from && i < to && t.text === ':') - 1);
        return tokens
          .slice(f.begin, f.end)
          .some(
            (t, i) =>
              t.text === 'return' &&
              tokens.slice(f.begin + i, until(f.begin + i, ';')).some((u) => u.text === name),
          );
      }),
    ]),
  );

  for (const f of functions) {
    const differs = new Set(shared);
    const defined = new Map<string, (readonly [number, number])[]>();
    for (let i = f.open; i < f.close; i++)
      if (text(i) === 'builtin' && OWN_NUMBER.test(text(i + 2))) differs.add(text(i + 4));
    for (let i = f.begin; i < f.end; i++) {
      const declared = text(i) === 'let' || text(i) === 'var';
      const at = declared ? i + 1 : i;
      const equals = declared ? until(at, '=') : at + 1;
      // Without a value, or a compound assignment: what it held before decides.
      if (
        text(equals) !== '=' ||
        !WORD.test(text(at)) ||
        text(at - 1) === '.' ||
        (declared && until(at, ';') < equals)
      )
        continue;
      const name = text(at);
      const range = [equals + 1, until(equals, ';')] as const;
      if (!tokens.slice(...range).some((t) => t.text === name))
        defined.set(name, [...(defined.get(name) ?? []), range]);
    }
    const varies = (from: number, to: number): boolean => {
      for (let i = from; i < to; i++) {
        const matters =
          text(i) === 'workgroupUniformLoad' || text(i) === 'arrayLength' ? [] : returned.get(text(i));
        if (matters && text(i + 1) === '(') {
          if (parts(i + 1).some(([begin, end], k) => matters[k] && varies(begin, end))) return true;
          i = closing(i + 1);
        } else if (differs.has(text(i)) && text(i - 1) !== '.') return true;
      }
      return false;
    };
    for (const name of defined.keys()) differs.delete(name);
    for (let size = -1; size < differs.size;) {
      size = differs.size;
      for (const [name, values] of defined)
        if (values.every(([from, to]) => varies(from, to))) differs.add(name);
    }

    /** Some invocations have left: the function, the loop or switch, this round of the loop. */
    interface Flow {
      returned: boolean;
      broken: boolean;
      continued: boolean;
    }
    const walk = (from: number, to: number, apart: boolean, flow: Flow, told: Set<number>): void => {
      /** Bodies of which one is taken; who leaves in one is missing after all, but not in the next. */
      const branches = (
        bodies: readonly (readonly [begin: number, apart: boolean])[],
        breaks: boolean,
      ): void => {
        const after = bodies.map(([begin, away]) => {
          const inner = { ...flow };
          walk(begin + 1, closing(begin), away, inner, told);
          return inner;
        });
        flow.returned = after.some((x) => x.returned);
        flow.continued = after.some((x) => x.continued);
        if (breaks) flow.broken = after.some((x) => x.broken);
      };
      for (let i = from; i < to; i++) {
        const word = text(i);
        const now = apart || flow.returned || flow.broken || flow.continued;
        if (word === 'if') {
          const bodies: [number, boolean][] = [];
          for (let at = i, chain = now; ; at = i + 1) {
            const begin = until(at, '{');
            bodies.push([begin, (chain ||= varies(at, begin))]);
            i = closing(begin);
            if (text(i + 1) !== 'else') break;
          }
          branches(bodies, true);
        } else if (word === 'switch') {
          const begin = until(i, '{');
          const end = closing(begin);
          const bodies: [number, boolean][] = [];
          const away = now || varies(i, begin);
          for (let j = begin + 1; j < end; j++)
            if (text(j) === '{') {
              bodies.push([j, away]);
              j = closing(j);
            }
          branches(bodies, false);
          i = end;
        } else if (word === 'for' || word === 'while' || word === 'loop') {
          const begin = until(i, '{');
          const end = closing(begin);
          const header = word === 'for' ? until(i + 2, ';') : i;
          const inner = {
            returned: flow.returned,
            broken: varies(header, word === 'for' ? until(header + 1, ';') : begin),
            continued: false,
          };
          // Who leaves the loop late in its body is missing early in the next round.
          walk(begin + 1, end, now, inner, new Set());
          inner.continued = false;
          walk(begin + 1, end, now, inner, told);
          flow.returned ||= inner.returned;
          i = end;
        } else if (word === 'return') flow.returned ||= now;
        else if (word === 'continue') flow.continued ||= now;
        else if (word === 'break') {
          const end = until(i, ';');
          flow.broken ||= now || (text(i + 1) === 'if' && varies(i, end));
          i = end;
        } else if (now && barriers.has(word) && text(i + 1) === '(') told.add(i);
      }
    };
    walk(f.begin + 1, f.end, false, { returned: false, broken: false, continued: false }, found);
  }
  return found;
}

/**
 * What in an expanded kernel only Tint or only naga takes: place, sentence, line and caret of each. `which`
 * picks among them.
 */
export const portabilityNotes = (
  name: string,
  wgsl: string,
  which: (note: PortabilityNote) => boolean = () => true,
): string[] =>
  portability(wgsl)
    .filter(which)
    .map(({ line: lineNum, column: linePos, message }) =>
      complaint(name, wgsl, { lineNum, linePos, message }),
    );
