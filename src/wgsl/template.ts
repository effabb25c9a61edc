import { MGFError } from '../errors.ts';

/**
 * Kernel templates: plain WGSL plus four things, so that a tile can be unrolled and a variant chosen without
 * string-building in TypeScript.
 *
 *   #if EXPR ... #else ... #end      keep lines when EXPR is not 0
 *   #for i in A..B ... #end          repeat lines for i = A, ..., B - 1
 *   ${EXPR}                          an integer or a name, e.g. c${i}, ${TM / SG}u
 *
 * EXPR is integer arithmetic (+ - * / % comparisons && || ! parentheses) over the variant's constants and
 * loop variables. `#include "file"` is resolved earlier, by build.mjs.
 */
export type Constants = Readonly<Record<string, number>>;

const TOKEN = /\s*(\d+|[A-Za-z_]\w*|&&|\|\||[<>=!]=|[-+*/%()<>!])/y;

function evaluate(text: string, constants: Constants, where: string): number {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const source = text.trim();
  while (TOKEN.lastIndex < source.length) {
    const match = TOKEN.exec(source);
    if (!match) throw new MGFError('kernel', `${where}: cannot read the expression "${source}"`);
    tokens.push(match[1]!);
  }
  let at = 0;
  const levels: ReadonlyArray<Readonly<Record<string, (a: number, b: number) => number>>> = [
    { '||': (a, b) => Number(a !== 0 || b !== 0) },
    { '&&': (a, b) => Number(a !== 0 && b !== 0) },
    { '==': (a, b) => Number(a === b), '!=': (a, b) => Number(a !== b) },
    {
      '<': (a, b) => Number(a < b),
      '>': (a, b) => Number(a > b),
      '<=': (a, b) => Number(a <= b),
      '>=': (a, b) => Number(a >= b),
    },
    { '+': (a, b) => a + b, '-': (a, b) => a - b },
    { '*': (a, b) => a * b, '/': (a, b) => Math.trunc(a / b), '%': (a, b) => a % b },
  ];
  const primary = (): number => {
    const token = tokens[at++];
    if (token === '(') {
      const value = level(0);
      if (tokens[at++] !== ')') throw new MGFError('kernel', `${where}: missing ")" in "${source}"`);
      return value;
    }
    if (token === '!') return Number(primary() === 0);
    if (token === '-') return -primary();
    if (token !== undefined && /^\d/.test(token)) return Number(token);
    if (token !== undefined && Object.hasOwn(constants, token)) return constants[token]!;
    throw new MGFError(
      'kernel',
      `${where}: "${token ?? 'end of line'}" in "${source}" is not a constant of this kernel ` +
        `(${Object.keys(constants).join(', ')})`,
    );
  };
  const level = (n: number): number => {
    if (n === levels.length) return primary();
    let value = level(n + 1);
    for (let apply = levels[n]![tokens[at] ?? '']; apply; apply = levels[n]![tokens[at] ?? '']) {
      at++;
      value = apply(value, level(n + 1));
    }
    return value;
  };
  const value = level(0);
  if (at !== tokens.length)
    throw new MGFError('kernel', `${where}: unexpected "${tokens[at]}" in "${source}"`);
  return value;
}

const DIRECTIVE = /^\s*#(if|for|else|end)\b\s*(.*)$/;

/**
 * WGSL of one variant. Throws MGFError('kernel') naming kernel and line for an unknown constant or an
 * unbalanced directive.
 */
export function expandTemplate(name: string, source: string, constants: Constants): string {
  const lines = source.split('\n');
  const out: string[] = [];

  /** Index of the `#else` (or -1) and the `#end` that belong to the directive on line `start`. */
  const blockOf = (start: number): { otherwise: number; end: number } => {
    let depth = 0;
    let otherwise = -1;
    for (let i = start + 1; i < lines.length; i++) {
      const word = DIRECTIVE.exec(lines[i]!)?.[1];
      if (word === 'if' || word === 'for') depth++;
      else if (word === 'else' && depth === 0) otherwise = i;
      else if (word === 'end' && depth-- === 0) return { otherwise, end: i };
    }
    throw new MGFError('kernel', `${name}:${start + 1}: "${lines[start]!.trim()}" has no #end`);
  };

  const emit = (from: number, to: number, scope: Constants): void => {
    for (let i = from; i < to; i++) {
      const where = `${name}:${i + 1}`;
      const line = lines[i]!;
      const directive = DIRECTIVE.exec(line);
      if (!directive) {
        out.push(line.replace(/\$\{([^}]*)\}/g, (_, e: string) => String(evaluate(e, scope, where))));
        continue;
      }
      const [, word, rest] = directive;
      if (word !== 'if' && word !== 'for')
        throw new MGFError('kernel', `${where}: #${word} without #if or #for`);
      const { otherwise, end } = blockOf(i);
      if (word === 'if') {
        if (evaluate(rest!, scope, where) !== 0) emit(i + 1, otherwise < 0 ? end : otherwise, scope);
        else if (otherwise >= 0) emit(otherwise + 1, end, scope);
      } else {
        const loop = /^(\w+)\s+in\s+(.+?)\.\.(.+)$/.exec(rest!);
        if (!loop) throw new MGFError('kernel', `${where}: write "#for i in A..B"`);
        const last = evaluate(loop[3]!, scope, where);
        for (let v = evaluate(loop[2]!, scope, where); v < last; v++)
          emit(i + 1, end, { ...scope, [loop[1]!]: v });
      }
      i = end;
    }
  };
  emit(0, lines.length, constants);
  return out.join('\n');
}
