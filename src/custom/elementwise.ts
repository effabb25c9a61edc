/**
 * The first of three ways to bring an op: one WGSL expression for the value, one for each derivative, one
 * line of TypeScript to check them by. Bindings, bounds, vec4s, weights and reductions are the engine's. (The
 * second: src/custom/rows.ts. The third: the record itself, `defineOp`.)
 */
import lossText from '../../kernels/custom_loss.wgsl';
import mapText from '../../kernels/custom_map.wgsl';
import type { Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { elements, f32, formatShape, type Spec } from '../graph/shape.ts';
import type { Value } from '../graph/graph.ts';
import { defineOp, type Op } from '../launch/op.ts';
import { kernel, type Dispatch, type Kernel, type Scalar } from '../launch/dispatch.ts';
import { ceilDiv, overElements } from '../launch/grid.ts';
import { grouping, overSpans, totals } from '../ops/lib/reduce.ts';
import { checkEach, checkKeys, checkKinds, type InputKind } from './definition.ts';
import { checkNames, userFunction, withFunctions } from './text.ts';

/** What an attribute may be given as: a number, or a per-step scalar of `program.step`. */
export type Attribute = number | Scalar;
/** Attributes by name. */
export type Attributes<A extends string> = Readonly<Record<A, Attribute>>;
type Numbers<K extends string> = Readonly<Record<K, number>>;

/**
 * An element-wise op or loss as `defineElementwise` and `defineLoss` take it: WGSL of one element, and the
 * same in float64.
 */
export interface ElementwiseDefinition<I extends string, A extends string> {
  /** Of the op, in plans, profiles and messages. */
  readonly name: string;
  /** The tensors that it reads, f32 and of one shape: at most four. In WGSL each is one f32, the element. */
  readonly inputs: readonly I[];
  /** Numbers that a caller may change, with their defaults. In WGSL each is an f32. */
  readonly attributes?: Numbers<A>;
  /** WGSL of the value of an element: an expression, or statements that return it. */
  readonly forward: string;
  /**
   * WGSL of the derivative by each input that has one (the others are targets). `'numeric'`: central
   * differences of `forward` by every input, good to about three digits, to begin with. null: the op has no
   * gradient.
   */
  readonly backward: Readonly<Partial<Record<I, string>>> | 'numeric' | null;
  /** The value of an element in float64: what kernels are checked by. */
  readonly reference: (x: Numbers<I>, attributes: Numbers<A>) => number;
  /** What inputs hold where it is not any number; checks then fill them accordingly. */
  readonly kinds?: Readonly<Partial<Record<I, InputKind>>>;
  /** Floating-point operations an element, for profiles. Default 4. */
  readonly flops?: number;
}

/** An element-wise op: tensors of one shape in, a tensor of that shape out. */
export interface ElementwiseOp<I extends string, A extends string> {
  (inputs: Readonly<Record<I, Value>>, attributes?: Partial<Attributes<A>>): Value;
  readonly kind: 'elementwise';
  readonly op: Op<Attributes<A>>;
  readonly definition: ElementwiseDefinition<I, A>;
}

/** A loss: the weighted mean over all elements. */
export interface ElementwiseLoss<I extends string, A extends string> {
  /** `weight`: f32 weights (0 = ignore) whose count divides that of the inputs, as the mask of `l1Loss`. */
  (inputs: Readonly<Record<I, Value>>, attributes?: Partial<Attributes<A>>, weight?: Value | null): Value;
  readonly kind: 'loss';
  readonly op: Op<Attributes<A>>;
  readonly definition: ElementwiseDefinition<I, A>;
}

const MOST_INPUTS = 4;

/** The derivatives that a definition gives, by input. */
const derivatives = ({
  inputs,
  backward,
}: ElementwiseDefinition<string, string>): Readonly<Partial<Record<string, string>>> =>
  backward === 'numeric' ? Object.fromEntries(inputs.map((input) => [input, ''])) : (backward ?? {});

/** Which inputs have a gradient, for `gradcheck`. */
export const hasDerivative = (definition: ElementwiseDefinition<string, string>, input: string): boolean =>
  derivatives(definition)[input] !== undefined;

const KEYS: Rules<ElementwiseDefinition<string, string>> = {
  name: 'a text',
  inputs: 'a list',
  attributes: 'an object?',
  forward: 'a text',
  backward: 'an object|"numeric"|null',
  reference: 'a function',
  kinds: 'an object?',
  flops: 'a number?',
};

function checkDefinition(what: string, definition: ElementwiseDefinition<string, string>): void {
  const where = checkKeys(what, definition, KEYS);
  const { name, inputs, attributes = {}, backward, kinds } = definition;
  checkEach(where, 'inputs', inputs, 'a text');
  checkEach(where, 'attributes', attributes, 'a number');
  if (typeof backward === 'object') checkEach(where, 'backward', backward ?? {}, 'a text');
  checkKinds(where, kinds, inputs);
  if (inputs.length < 1 || inputs.length > MOST_INPUTS)
    throw new MGFError(
      'usage',
      `${name}: ${inputs.length} inputs; an element-wise op reads one to ${MOST_INPUTS} tensors.`,
    );
  checkNames(name, 'an input or an attribute', [...inputs, ...Object.keys(attributes)]);
  const stranger = Object.keys(derivatives(definition)).find((input) => !inputs.includes(input));
  if (stranger !== undefined)
    throw new MGFError(
      'usage',
      `${name}: backward has a derivative by ${stranger}, which is none of its inputs (${inputs.join(', ')}).`,
    );
}

/**
 * Defaults with what the caller gives on top. Throws MGFError 'usage' for an unknown name and for what is no
 * number.
 */
export function chosenAttributes<A extends string>(
  name: string,
  defaults: Numbers<A>,
  given: Partial<Attributes<A>>,
): Attributes<A> {
  for (const [key, value] of Object.entries(given)) {
    if (!Object.hasOwn(defaults, key))
      throw new MGFError(
        'usage',
        `${name} has no attribute ${key}; it has ${Object.keys(defaults).join(', ') || 'none'}.`,
      );
    const isScalar =
      typeof value === 'object' && value !== null && typeof (value as Scalar).scalar === 'string';
    if (!isScalar && !(typeof value === 'number' && Number.isFinite(value))) {
      throw new MGFError(
        'usage',
        `${name}: the attribute ${key} is ${JSON.stringify(value) ?? String(value)}, but must be a ` +
          `finite number or scalar('name').`,
      );
    }
  }
  return { ...defaults, ...given };
}

/**
 * The inputs in the order of the definition. Throws MGFError 'usage' that names what is missing or unknown.
 */
export function orderedInputs(
  name: string,
  wanted: readonly string[],
  given: Readonly<Record<string, Value | undefined>>,
): Value[] {
  const unknown = Object.keys(given).find((key) => !wanted.includes(key));
  const missing = wanted.find((key) => given[key] === undefined);
  if (unknown !== undefined)
    throw new MGFError('usage', `${name} has no input ${unknown}; it has ${wanted.join(', ')}.`);
  if (missing !== undefined)
    throw new MGFError('usage', `${name} needs the input ${missing}; it has ${wanted.join(', ')}.`);
  return wanted.map((key) => given[key]!);
}

/** One shape, all f32. */
function sameShape(name: string, names: readonly string[], inputs: readonly (Spec | null)[]): Spec {
  const [first] = inputs;
  inputs.slice(0, names.length).forEach((input, i) => {
    if (input!.dtype !== 'f32')
      throw new MGFError('shape', `${name}: ${names[i]} is ${input!.dtype}, but element-wise ops read f32.`);
    if (formatShape(input!.shape) !== formatShape(first!.shape)) {
      throw new MGFError(
        'shape',
        `${name}: ${names[0]} ${formatShape(first!.shape)} and ${names[i]} ` +
          `${formatShape(input!.shape)} must have one shape.`,
      );
    }
  });
  return { shape: first!.shape, dtype: 'f32' };
}

interface Kernels {
  readonly forward: Kernel;
  readonly backward: readonly (Kernel | null)[];
}

/**
 * Step of differences in f32, of four points (error h^4): rounding, of 1e-7 / h, and the width of what lies
 * around a kink, of 2 h, both stay below a thousandth.
 */
const NUMERIC_STEP = 5e-3;

/** What gradient checks allow derivatives by differences: a thousandth, as their step has it. */
export const NUMERIC_TOLERANCE = 2e-3;

/**
 * A kernel for the value and one for each derivative; how many inputs and attributes there are is in their
 * constants.
 */
function kernelsOf(definition: ElementwiseDefinition<string, string>, text: string): Kernels {
  const { name, inputs, attributes = {}, forward, backward } = definition;
  const names = [...inputs, ...Object.keys(attributes)];
  const parameters = names.map((n) => `${n}: f32`);
  const value = (as: string): string => userFunction(as, parameters, forward, `${name}.forward`);
  const derivative = (input: string): string => {
    if (backward !== 'numeric')
      return userFunction('user', parameters, derivatives(definition)[input]!, `${name}.backward.${input}`);
    const at = (steps: string): string =>
      `mgf_value(${names.map((n) => (n === input ? `${n} ${steps} * mgf_h` : n)).join(', ')})`;
    return (
      `${value('mgf_value')}\nfn user(${parameters.join(', ')}) -> f32 {\n` +
      `  let mgf_h = ${NUMERIC_STEP} * max(1.0, abs(${input}));\n` +
      `  return (8.0 * (${at('+ 1.0')} - ${at('- 1.0')}) - ${at('+ 2.0')} + ${at('- 2.0')}) / (12.0 * mgf_h);\n}`
    );
  };
  return {
    forward: kernel(`${name}.forward`, withFunctions(text, value('user'))),
    backward: inputs.map((input) =>
      hasDerivative(definition, input)
        ? kernel(`${name}.backward.${input}`, withFunctions(text, derivative(input)))
        : null,
    ),
  };
}

const bindings = (values: readonly Value[]): Record<string, Value> =>
  Object.fromEntries(values.map((v, k) => [`x${k}`, v]));
const uniforms = (attributes: Attributes<string>): Record<string, Attribute> =>
  Object.fromEntries(Object.values(attributes).map((v, a) => [`a${a}`, v]));

/** Where there is no gradient at all, asking for one is an error that says so. */
const differentiable = (definition: ElementwiseDefinition<string, string>): number[] =>
  definition.inputs.flatMap((input, i) =>
    definition.backward === null || hasDerivative(definition, input) ? [i] : [],
  );

/**
 * Defines an element-wise op.
 * @throws MGFError 'usage' for names that WGSL or the definition cannot have; when it is called 'usage' and
 * 'shape' for what does not fit; 'kernel' from `compile` with the lines of the WGSL given here.
 */
export function defineElementwise<const I extends string, const A extends string = never>(
  definition: ElementwiseDefinition<I, A>,
): ElementwiseOp<I, A> {
  checkDefinition('defineElementwise', definition);
  const { name, inputs, attributes = {} as Numbers<A>, flops = 4 } = definition;
  const kernels = kernelsOf(definition, mapText);
  const K = inputs.length;
  const all = inputs.map((_, i) => i);
  const launch = (
    k: Kernel,
    values: readonly Value[],
    attrs: Attributes<A>,
    out: Value,
    up: Value | null,
  ): Dispatch => {
    const n = ceilDiv(elements(out.shape), 4);
    const { constants, grid } = overElements(n);
    return {
      kernel: k,
      constants: { ...constants, K, A: Object.keys(attrs).length, BACK: Number(up !== null) },
      grid,
      bind: { ...bindings(values), ...(up && { up }), out },
      params: { n, ...uniforms(attrs) },
    };
  };
  const op = defineOp<Attributes<A>>({
    name,
    shape: (specs) => [sameShape(name, inputs, specs)],
    forward: (c) => [
      launch(
        kernels.forward,
        all.map((i) => c.input(i)),
        c.attrs,
        c.outputs[0]!,
        null,
      ),
    ],
    backward:
      definition.backward &&
      ((c) =>
        all.flatMap((i) => {
          const out = c.grad(i);
          return out
            ? [
                launch(
                  kernels.backward[i]!,
                  all.map((j) => c.input(j)!),
                  c.attrs,
                  out,
                  c.upstream(0)!,
                ),
              ]
            : [];
        })),
    saves: { inputs: all, outputs: [] },
    differentiable: differentiable(definition),
    cost: ([x]) => ({ flops: flops * elements(x!.shape), bytes: 4 * (K + 1) * elements(x!.shape) }),
  });
  const call = (given: Readonly<Record<I, Value>>, chosen: Partial<Attributes<A>> = {}): Value => {
    const values = orderedInputs(name, inputs, given);
    return values[0]!.graph.apply(op, values, chosenAttributes(name, attributes, chosen))[0]!;
  };
  return Object.assign(call, { kind: 'elementwise' as const, op, definition });
}

/**
 * Defines a loss: sum(weight * forward) / max(sum(weight), 1) over all elements -> [1], without a weight
 * their mean. Elements of weight 0 may hold anything. Two passes in a fixed order: a step repeats bit for
 * bit. Throws as `defineElementwise`.
 */
export function defineLoss<const I extends string, const A extends string = never>(
  definition: ElementwiseDefinition<I, A>,
): ElementwiseLoss<I, A> {
  checkDefinition('defineLoss', definition);
  const { name, inputs, attributes = {} as Numbers<A>, flops = 4 } = definition;
  const kernels = kernelsOf(definition, lossText);
  const K = inputs.length;
  const all = inputs.map((_, i) => i);
  const constantsOf = (attrs: Attributes<A>, mask: Value | null, VEC: number): Record<string, number> => ({
    K,
    A: Object.keys(attrs).length,
    VEC,
    MASK: Number(mask !== null),
  });
  // Inputs, weight?. Outputs the loss [1] and what the sum was divided by [1].
  const op = defineOp<Attributes<A>>({
    name,
    shape(specs) {
      const { shape } = sameShape(name, inputs, specs);
      const weight = specs[K];
      if (weight && (weight.dtype !== 'f32' || elements(shape) % elements(weight.shape) !== 0)) {
        throw new MGFError(
          'shape',
          `${name}: a ${weight.dtype} weight ${formatShape(weight.shape)} cannot weigh equal groups of ` +
            `${inputs[0]} ${formatShape(shape)}; it must be f32, and its count divide theirs.`,
        );
      }
      return [f32(1), f32(1)];
    },
    forward(c) {
      const values = all.map((i) => c.input(i));
      const mask = c.inputs[K] ?? null;
      const { n, group, VEC } = grouping(values[0]!, mask);
      const { constants, grid, params, invocations } = overSpans(n, group, c.adapter);
      const sums = c.temp([invocations]);
      const weights = mask && c.temp([invocations]);
      return [
        {
          kernel: kernels.forward,
          constants: { ...constants, ...constantsOf(c.attrs, mask, VEC), BACK: 0 },
          grid,
          params: { ...params, ...uniforms(c.attrs) },
          bind: { ...bindings(values), ...(mask && { mask, weights: weights! }), sums },
        },
        totals(
          c.adapter,
          sums,
          weights,
          invocations,
          weights ? (VEC ? 4 : 1) : elements(values[0]!.shape),
          weights ? 1 : 0,
          c.outputs[0]!,
          c.outputs[1]!,
        ),
      ];
    },
    saves: { inputs: [...all, K], outputs: [1] },
    differentiable: differentiable(definition),
    backward:
      definition.backward &&
      ((c) =>
        all.flatMap((i): Dispatch[] => {
          const dx = c.grad(i);
          if (!dx) return [];
          const values = all.map((j) => c.input(j)!);
          const mask = c.input(K);
          const { n, group, VEC } = grouping(values[0]!, mask);
          const { constants, grid, params } = overSpans(n, group, c.adapter);
          return [
            {
              kernel: kernels.backward[i]!,
              constants: { ...constants, ...constantsOf(c.attrs, mask, VEC), BACK: 1 },
              grid,
              params: { ...params, ...uniforms(c.attrs) },
              bind: {
                ...bindings(values),
                ...(mask && { mask }),
                up: c.upstream(0)!,
                denominator: c.output(1),
                dx,
              },
            },
          ];
        })),
    cost: ([x]) => ({ flops: flops * elements(x!.shape), bytes: 4 * K * elements(x!.shape) }),
  });
  const call = (
    given: Readonly<Record<I, Value>>,
    chosen: Partial<Attributes<A>> = {},
    weight: Value | null = null,
  ): Value => {
    const values = orderedInputs(name, inputs, given);
    return values[0]!.graph.apply(op, [...values, weight], chosenAttributes(name, attributes, chosen))[0]!;
  };
  return Object.assign(call, { kind: 'loss' as const, op, definition });
}
