/**
 * The second of three ways to bring an op: a loss of rows, such as one over the logits of each anchor. It is
 * written as numbers of a row (a logsumexp, a norm, an inner product), the value that they make, and the
 * derivative by each element. The engine walks the rows on both kernel families, keeps the numbers for the
 * backward pass, and takes the weighted mean.
 */
import rowsText from '../../kernels/custom_rows.wgsl';
import { checkArguments, checkNames as checkKindNames, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { f32, formatShape, type Spec } from '../graph/shape.ts';
import type { Value } from '../graph/graph.ts';
import { defineOp, type Op } from '../launch/op.ts';
import { kernel, type Dispatch, type Kernel } from '../launch/dispatch.ts';
import { ceilDiv, overRows } from '../launch/grid.ts';
import { totals } from '../ops/lib/reduce.ts';
import { chosenAttributes, orderedInputs, type Attribute, type Attributes } from './elementwise.ts';
import { checkEach, checkKeys, checkKinds, type InputKind } from './definition.ts';
import { checkNames, userFunction } from './text.ts';

/**
 * A number of a row, in WGSL. `sum`, `max`, `logsumexp`, `norm` (root of the sum of squares) run over the
 * elements: there each tensor's name is its element j, and `j` is the column (u32). `dot` is the sum of the
 * products of two. `value` is made of earlier numbers. Everywhere: attributes, indices, earlier numbers, `n`
 * (columns, f32), `row` (u32, which row it is), and `NAME_at(k)`, element k (u32) of this row of the tensor
 * NAME. So no input, attribute or number may be called `j`, `n` or `row`.
 */
export type RowNumber =
  | { readonly sum: string }
  | { readonly max: string }
  | { readonly logsumexp: string }
  | { readonly norm: string }
  | { readonly dot: readonly [string, string] }
  | { readonly value: string };

/**
 * A loss of rows as `defineRowLoss` takes it: WGSL of a row's numbers, its loss and derivative, and the same
 * in float64.
 */
export interface RowDefinition<R extends string, I extends string, A extends string> {
  /** Of the op, in plans, profiles and messages. */
  readonly name: string;
  /** f32 tensors [rows, n] of one shape: one to three, with the indices at most three. */
  readonly rows: readonly R[];
  /** i32 tensors [rows]. In WGSL a u32 each. */
  readonly indices?: readonly I[];
  /** Numbers that a caller may change, with their defaults. */
  readonly attributes?: Readonly<Record<A, number>>;
  /** In the order in which they are computed; kept for the backward pass. */
  readonly numbers?: Readonly<Record<string, RowNumber>>;
  /** WGSL of the row's loss, made of its numbers. */
  readonly forward: string;
  /**
   * WGSL of the derivative of the row's loss by element j of a tensor, with the names of an element and the
   * row's numbers; null: no gradient.
   */
  readonly backward: Readonly<Partial<Record<R, string>>> | null;
  /** The loss of a row in float64: what kernels are checked by. */
  readonly reference: (
    row: Readonly<Record<R, Float64Array>> & Readonly<Record<I, number>>,
    attributes: Readonly<Record<A, number>>,
  ) => number;
  /** What tensors hold where it is not any number; checks then fill them accordingly. */
  readonly kinds?: Readonly<Partial<Record<R, InputKind>>>;
  /** Floating-point operations an element, for profiles. Default 8. */
  readonly flops?: number;
}

/** A loss of rows: the weighted mean over all of them, [1]. */
export interface RowLoss<R extends string, I extends string, A extends string> {
  /** `weight`: f32 [rows], 0 = ignore. */
  (inputs: Readonly<Record<R | I, Value>>, attributes?: Partial<Attributes<A>>, weight?: Value | null): Value;
  readonly kind: 'rows';
  readonly op: Op<Attributes<A>>;
  readonly definition: RowDefinition<R, I, A>;
}

type AnyDefinition = RowDefinition<string, string, string>;

const KEYS: Rules<AnyDefinition> = {
  name: 'a text',
  rows: 'a list',
  indices: 'a list?',
  attributes: 'an object?',
  numbers: 'an object?',
  forward: 'a text',
  backward: 'an object|null',
  reference: 'a function',
  kinds: 'an object?',
  flops: 'a number?',
};
/** Eight storage bindings less those of weight, kept numbers, upstream gradient, denominator and gradient. */
const MOST_INPUTS = 3;
/** Names that every function of a row has already. */
const TAKEN = ['j', 'n', 'row'];
const NUMBER_KINDS = ['sum', 'max', 'logsumexp', 'norm', 'dot', 'value'];

function checkNumber(where: string, name: string, number: RowNumber): void {
  checkArguments(where, { [`numbers.${name}`]: [number, 'an object'] });
  const keys = Object.keys(number);
  checkKindNames(`${where}: numbers.${name}`, 'kind of number', keys, NUMBER_KINDS);
  if (keys.length !== 1) {
    const is = keys.length === 0 ? 'none' : keys.join(' and ');
    throw new MGFError(
      'usage',
      `${where}: numbers.${name} must be one of ${NUMBER_KINDS.join(', ')}, not ${is}.`,
    );
  }
  if ('dot' in number) {
    checkArguments(where, { [`numbers.${name}.dot`]: [number.dot, 'a list'] });
    checkEach(where, `numbers.${name}.dot`, number.dot, 'a text');
  } else checkEach(where, `numbers.${name}`, number, 'a text');
}

function check(definition: AnyDefinition): void {
  const where = checkKeys('defineRowLoss', definition, KEYS);
  const { name, rows, indices = [], attributes = {}, numbers = {}, backward, kinds } = definition;
  checkEach(where, 'rows', rows, 'a text');
  checkEach(where, 'indices', indices, 'a text');
  checkEach(where, 'attributes', attributes, 'a number');
  checkEach(where, 'backward', backward ?? {}, 'a text');
  checkKinds(where, kinds, rows);
  for (const [key, number] of Object.entries(numbers)) checkNumber(where, key, number);
  const taken = [...rows, ...indices, ...Object.keys({ ...attributes, ...numbers })].find((n) =>
    TAKEN.includes(n),
  );
  if (taken !== undefined) {
    throw new MGFError('usage', `${name}: ${taken} is a name that every row has already; take another.`);
  }
  if (rows.length < 1 || rows.length + indices.length > MOST_INPUTS) {
    throw new MGFError(
      'usage',
      `${name}: a row loss reads at least one tensor, and at most ${MOST_INPUTS} tensors and indices ` +
        `together (WebGPU guarantees eight storage bindings); it has ${rows.length} and ${indices.length}. ` +
        'More need an op of their own (defineOp).',
    );
  }
  checkNames(name, 'an input, an attribute or a number', [
    ...rows,
    ...indices,
    ...Object.keys(attributes),
    ...Object.keys(numbers),
  ]);
  const stranger = Object.keys(backward ?? {}).find((input) => !rows.includes(input));
  if (stranger !== undefined)
    throw new MGFError(
      'usage',
      `${name}: backward has a derivative by ${stranger}, which is none of its tensors (${rows.join(', ')}).`,
    );
}

/** What a reduction starts from, adds by, and is across the lanes of a row. */
const REDUCTIONS = {
  sum: { start: '0.0', add: 'r + e', across: 'row_sum' },
  max: { start: '-3e38', add: 'max(r, e)', across: 'row_max' },
} as const;

/** The functions and loops of a definition, as WGSL. */
class Writer {
  readonly #d: AnyDefinition;
  readonly #functions: string[] = [];

  constructor(definition: AnyDefinition) {
    this.#d = definition;
  }

  /** Parameters that every function has, and what they are called with. */
  #parameters(numbers: readonly string[]): { declared: string[]; given: string[] } {
    const { indices = [], attributes = {} } = this.#d;
    return {
      declared: [
        'row: u32',
        'n: f32',
        ...indices.map((i) => `${i}: u32`),
        ...Object.keys(attributes).map((a) => `${a}: f32`),
        ...numbers.map((s) => `${s}: f32`),
      ],
      given: [
        'row',
        'f32(p.n)',
        ...indices.map((_, i) => `own_index${i}`),
        ...Object.keys(attributes).map((_, a) => `p.a${a}`),
        ...numbers.map((s) => `number_${s}`),
      ],
    };
  }

  /** A function of the row; returns its call. `NAME_at(k)` becomes a call that knows the row. */
  #ofRow(name: string, body: string, numbers: readonly string[], label: string): string {
    const { declared, given } = this.#parameters(numbers);
    this.#functions.push(userFunction(name, declared, this.#placed(body), label));
    return `${name}(${given.join(', ')})`;
  }

  /** A function of element j; returns its call for component c of the vec4s (or the one number) at i. */
  #ofElement(
    name: string,
    body: string,
    numbers: readonly string[],
    label: string,
  ): (component: string, column: string) => string {
    const { declared, given } = this.#parameters(numbers);
    const { rows } = this.#d;
    this.#functions.push(
      userFunction(name, ['j: u32', ...rows.map((r) => `${r}: f32`), ...declared], this.#placed(body), label),
    );
    return (component, column) =>
      `${name}(${[column, ...rows.map((_, k) => `x${k}[base + i]${component}`), ...given].join(', ')})`;
  }

  #placed(body: string): string {
    return this.#d.rows.reduce(
      (text, name, k) => text.replaceAll(new RegExp(`\\b${name}_at\\(`, 'g'), `at${k}(row, `),
      body,
    );
  }

  /** A loop over the row's elements; `step` is told the call for each component. */
  #loop(element: (component: string, column: string) => string, step: (call: string) => string): string {
    return [
      '  for (var i = lane; i < p.width; i += LANES) {',
      '#if VEC',
      ...[0, 1, 2, 3].map((c) => step(element(`[${c}]`, `4u * i + ${c}u`))),
      '#else',
      step(element('', 'i')),
      '#end',
      '  }',
    ].join('\n');
  }

  #reduce(
    target: string,
    kind: keyof typeof REDUCTIONS,
    element: (component: string, column: string) => string,
  ): string {
    const { start, add, across } = REDUCTIONS[kind];
    return [
      `  var part_${target} = ${start};`,
      this.#loop(
        element,
        (call) => `    { let r = part_${target}; let e = ${call}; part_${target} = ${add}; }`,
      ),
      `  let ${target} = ${across}(part_${target}, lane);`,
    ].join('\n');
  }

  #number(name: string, number: RowNumber, earlier: readonly string[]): string {
    const label = `${this.#d.name}.numbers.${name}`;
    const target = `number_${name}`;
    const element = (body: string, suffix = ''): ((component: string, column: string) => string) =>
      this.#ofElement(`mgf_element_${name}${suffix}`, body, earlier, label);
    if ('value' in number)
      return `  let ${target} = ${this.#ofRow(`mgf_row_${name}`, number.value, earlier, label)};`;
    if ('sum' in number) return this.#reduce(target, 'sum', element(number.sum));
    if ('max' in number) return this.#reduce(target, 'max', element(number.max));
    if ('dot' in number) {
      const [a, b] = [element(number.dot[0], '_a'), element(number.dot[1], '_b')];
      return this.#reduce(
        target,
        'sum',
        (component, column) => `${a(component, column)} * ${b(component, column)}`,
      );
    }
    if ('norm' in number) {
      const e = element(number.norm);
      return (
        `${this.#reduce(`square_${name}`, 'sum', (component, column) => `mgf_pow2(${e(component, column)})`)}\n  ` +
        `let ${target} = sqrt(square_${name});`
      );
    }
    const e = element(number.logsumexp);
    return (
      `${this.#reduce(`top_${name}`, 'max', e)}\n${this.#reduce(`total_${name}`, 'sum', (component, column) => `exp(${e(component, column)} - top_${name})`)}\n  ` +
      `let ${target} = top_${name} + log(total_${name});`
    );
  }

  forward(): string {
    const { name, numbers = {}, forward } = this.#d;
    const names = Object.keys(numbers);
    const reductions = names.map((s, at) => this.#number(s, numbers[s]!, names.slice(0, at))).join('\n');
    const loss = this.#ofRow('mgf_row_loss', forward, names, `${name}.forward`);
    const keep = names.map((s, at) => `    kept[row * ${names.length}u + ${at}u] = number_${s};`).join('\n');
    return this.#fill({ REDUCTIONS: `${reductions}\n  let loss = ${loss};`, KEEP: keep, SLOPES: '' });
  }

  backward(input: string): string {
    const { name, numbers = {}, backward } = this.#d;
    const names = Object.keys(numbers);
    const slope = this.#ofElement('mgf_slope_of', backward![input]!, names, `${name}.backward.${input}`);
    const read = names.map((s, at) => `    let number_${s} = kept[row * ${names.length}u + ${at}u];`);
    const slopes = [
      ...read,
      '#if VEC',
      `    let slope = V(${[0, 1, 2, 3].map((c) => slope(`[${c}]`, `4u * i + ${c}u`)).join(', ')});`,
      '#else',
      `    let slope = ${slope('', 'i')};`,
      '#end',
    ].join('\n');
    return this.#fill({ REDUCTIONS: '  let loss = 0.0;', KEEP: '', SLOPES: slopes });
  }

  #fill(places: Readonly<Record<'REDUCTIONS' | 'KEEP' | 'SLOPES', string>>): string {
    const functions = ['fn mgf_pow2(x: f32) -> f32 { return x * x; }', ...this.#functions].join('\n');
    return Object.entries({ USER: functions, ...places }).reduce(
      (text, [place, by]) => text.replace(new RegExp(`^${place}$`, 'm'), () => by),
      rowsText,
    );
  }
}

/**
 * Defines a loss of rows: sum(weight * row's loss) / max(sum(weight), 1) -> [1]; without a weight the mean
 * over rows. Rows of weight 0 may hold anything. Two passes in a fixed order: a step repeats bit for bit.
 * Throws as `defineElementwise`.
 */
export function defineRowLoss<
  const R extends string,
  const I extends string = never,
  const A extends string = never,
>(definition: RowDefinition<R, I, A>): RowLoss<R, I, A> {
  const plain = definition as unknown as AnyDefinition;
  check(plain);
  const { name, rows, indices = [], attributes = {}, flops = 8 } = plain;
  const S = Object.keys(plain.numbers ?? {}).length;
  const K = rows.length;
  const at = rows.map((_, i) => i);
  const inputs = [...rows, ...indices];
  const mask = inputs.length;
  const forwardKernel = kernel(`${name}.forward`, new Writer(plain).forward());
  const backwardKernels = rows.map((r): Kernel | null =>
    plain.backward?.[r] === undefined ? null : kernel(`${name}.backward.${r}`, new Writer(plain).backward(r)),
  );
  const sizes = ({ shape: [N, n] }: Spec): { N: number; n: number; VEC: number; width: number } => ({
    N: N!,
    n: n!,
    VEC: Number(n! % 4 === 0),
    width: n! % 4 === 0 ? n! / 4 : n!,
  });
  const constantsOf = (weighted: boolean, VEC: number, BACK: number): Record<string, number> => ({
    K,
    I: indices.length,
    A: Object.keys(attributes).length,
    S,
    VEC,
    MASK: Number(weighted),
    BACK,
  });
  const uniforms = (attrs: Attributes<string>): Record<string, Attribute> =>
    Object.fromEntries(Object.values(attrs).map((v, a) => [`a${a}`, v]));
  const bind = (values: readonly (Value | null)[]): Record<string, Value> => ({
    ...Object.fromEntries(rows.map((_, k) => [`x${k}`, values[k]!])),
    ...Object.fromEntries(indices.map((_, i) => [`index${i}`, values[K + i]!])),
    ...(values[mask] && { mask: values[mask] }),
  });
  // Tensors, indices, weight?. Outputs the loss [1], the numbers of each row, and what the sum was divided by
  // [1].
  const op = defineOp<Attributes<string>>({
    name,
    shape(specs) {
      const first = specs[0]!;
      const [N] = first.shape;
      if (first.shape.length !== 2)
        throw new MGFError(
          'shape',
          `${name}: ${rows[0]} must be [rows, n], got ${formatShape(first.shape)}.`,
        );
      rows.forEach((r, k) => {
        if (specs[k]!.dtype !== 'f32' || formatShape(specs[k]!.shape) !== formatShape(first.shape))
          throw new MGFError(
            'shape',
            `${name}: ${r} is ${specs[k]!.dtype} ${formatShape(specs[k]!.shape)}, but must be f32 ` +
              `${formatShape(first.shape)} as ${rows[0]}.`,
          );
      });
      indices.forEach((index, i) => {
        const spec = specs[K + i]!;
        if (spec.dtype !== 'i32' || formatShape(spec.shape) !== formatShape([N!]))
          throw new MGFError(
            'shape',
            `${name}: ${index} is ${spec.dtype} ${formatShape(spec.shape)}, but must be i32 [${N}].`,
          );
      });
      const weight = specs[mask];
      if (weight && (weight.dtype !== 'f32' || formatShape(weight.shape) !== formatShape([N!])))
        throw new MGFError(
          'shape',
          `${name}: the weight is ${weight.dtype} ${formatShape(weight.shape)}, but must be f32 [${N}].`,
        );
      return [f32(1), f32(N!, Math.max(S, 1)), f32(1)];
    },
    forward(c) {
      const values = inputs.map((_, i) => c.inputs[i] ?? null);
      const weight = c.inputs[mask] ?? null;
      const { N, n, VEC, width } = sizes(c.input(0));
      const padded = 4 * ceilDiv(N, 4);
      const losses = c.temp([padded]);
      const weights = weight && c.temp([padded]);
      const [loss, kept, denominator] = c.outputs as [Value, Value, Value];
      const { constants, grid } = overRows(padded, c.adapter);
      return [
        {
          kernel: forwardKernel,
          constants: { ...constants, ...constantsOf(weight !== null, VEC, 0) },
          grid,
          params: { rows: N, padded, width, n, ...uniforms(c.attrs) },
          bind: { ...bind([...values, weight]), losses, ...(S > 0 && { kept }), ...(weights && { weights }) },
        },
        totals(c.adapter, losses, weights, padded, weights ? 1 : N, weights ? 1 : 0, loss, denominator),
      ];
    },
    saves: { inputs: [...inputs.map((_, i) => i), mask], outputs: S > 0 ? [1, 2] : [2] },
    differentiable: at.filter((k) => backwardKernels[k] !== null),
    backward:
      plain.backward &&
      ((c) =>
        at.flatMap((k): Dispatch[] => {
          const dx = c.grad(k);
          if (!dx) return [];
          const weight = c.input(mask);
          const { N, n, VEC, width } = sizes(dx);
          const { constants, grid } = overRows(N, c.adapter);
          return [
            {
              kernel: backwardKernels[k]!,
              constants: { ...constants, ...constantsOf(weight !== null, VEC, 1) },
              grid,
              params: { rows: N, padded: N, width, n, ...uniforms(c.attrs) },
              bind: {
                ...bind([...inputs.map((_, i) => c.input(i)), weight]),
                ...(S > 0 && { kept: c.output(1) }),
                up: c.upstream(0)!,
                denominator: c.output(2),
                dx,
              },
            },
          ];
        })),
    cost: ([x]) => ({
      flops: flops * x!.shape[0]! * x!.shape[1]!,
      bytes: 4 * K * x!.shape[0]! * x!.shape[1]!,
    }),
  });
  const call = (
    given: Readonly<Record<string, Value>>,
    chosen: Partial<Attributes<string>> = {},
    weight: Value | null = null,
  ): Value => {
    const values = orderedInputs(name, inputs, given);
    return values[0]!.graph.apply(op, [...values, weight], chosenAttributes(name, attributes, chosen))[0]!;
  };
  return Object.assign(call, { kind: 'rows' as const, op, definition }) as unknown as RowLoss<R, I, A>;
}
