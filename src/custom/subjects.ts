/**
 * The usual cases for ops that were defined by expressions: odd sizes, weights, zeros, large numbers, and
 * what must not count.
 */
import { describe } from '../check.ts';
import { MGFError } from '../errors.ts';
import { elements, type Shape } from '../graph/shape.ts';
import { ofKind, type InputKind } from './definition.ts';
import { hasDerivative, NUMERIC_TOLERANCE, type ElementwiseLoss, type ElementwiseOp } from './elementwise.ts';
import type { GradcheckCase, GradcheckSubject } from './gradcheck.ts';
import type { RowLoss } from './rows.ts';

type Numbers = Readonly<Record<string, number>>;
const WEIGHT = 'weight';

/**
 * Weights of 0, 1 and 2 in turn; where one is 0 its group of the tensor `x` is not a number, and must not
 * show.
 */
const weights = (shape: Shape): number[] => Array.from({ length: elements(shape) }, (_, i) => i % 3);

const filled = (shape: Shape, value: (i: number) => number): number[] =>
  Array.from({ length: elements(shape) }, (_, i) => value(i));

/**
 * Sum of weight * value over sum of weights of at least 1; without weights the mean. Groups of elements share
 * a weight.
 */
function weightedMean(count: number, weight: Float64Array | undefined, value: (i: number) => number): number {
  let sum = 0;
  let total = 0;
  for (let i = 0; i < count; i++) {
    const w = weight ? weight[Math.floor(i / (count / weight.length))]! : 1;
    if (w !== 0) sum += w * value(i);
    total += w;
  }
  return sum / Math.max(total, 1);
}

const MAKERS = { elementwise: 'defineElementwise', loss: 'defineLoss', rows: 'defineRowLoss' } as const;

/** Throws MGFError 'usage' for what the maker of its kind did not return. */
function checkDefined(where: string, defined: { kind?: unknown } | null, kind: keyof typeof MAKERS): void {
  if (typeof defined === 'function' && (defined as { kind?: unknown }).kind === kind) return;
  const message = `${where} takes what ${MAKERS[kind]} returns, not ${describe(defined)}.`;
  throw new MGFError('usage', message);
}

/** Contents of an input: of its kind where it has one, else the values of the case, else arbitrary numbers. */
function dataOf(
  kinds: Readonly<Partial<Record<string, InputKind>>> | undefined,
  input: string,
  shape: Shape,
  columns: number,
  value: ((i: number) => number) | undefined,
): { data?: number[] } {
  const data = ofKind(kinds?.[input], elements(shape), columns) ?? (value && filled(shape, value));
  return data ? { data } : {};
}

/** Of an element-wise op: its own reference, element by element. */
export function elementwiseSubject<I extends string, A extends string>(
  op: ElementwiseOp<I, A>,
): GradcheckSubject {
  checkDefined('elementwiseSubject', op, 'elementwise');
  const { definition } = op;
  const { name, inputs, attributes = {} as Numbers, reference } = definition;
  const of = (label: string, shape: Shape, value?: (i: number) => number, smooth = true): GradcheckCase => ({
    name: label,
    smooth,
    inputs: Object.fromEntries(
      inputs.map((input, k) => [
        input,
        {
          shape,
          gradient: hasDerivative(definition, input),
          ...dataOf(definition.kinds, input, shape, 1, value && ((i) => value(i + k))),
        },
      ]),
    ),
  });
  return {
    name,
    ...(definition.backward === 'numeric' && { gradTolerance: NUMERIC_TOLERANCE }),
    build: (x) => op(x as never),
    reference: (x) =>
      Float64Array.from({ length: x[inputs[0]!]!.length }, (_, i) =>
        reference(
          Object.fromEntries(inputs.map((input) => [input, x[input]![i]!])) as never,
          attributes as never,
        ),
      ),
    timed: of('', [1024, 1024]).inputs,
    cases: [
      of('one element', [1]),
      of('odd sizes', [3, 7]),
      of('more than a workgroup', [5, 67]),
      of('zeros', [9], () => 0, false),
      of('large numbers', [9], (i) => (i % 2 ? -1e3 : 1e3), false),
    ],
  };
}

/** Of an element-wise loss: its own reference under weights. */
export function lossSubject<I extends string, A extends string>(
  loss: ElementwiseLoss<I, A>,
): GradcheckSubject {
  checkDefined('lossSubject', loss, 'loss');
  const { definition } = loss;
  const { name, inputs, attributes = {} as Numbers, reference } = definition;
  const of = (
    label: string,
    shape: Shape,
    {
      weight,
      value,
      smooth = true,
    }: { weight?: Shape; value?: (i: number, input: number) => number; smooth?: boolean } = {},
  ): GradcheckCase => ({
    name: label,
    smooth,
    inputs: {
      ...Object.fromEntries(
        inputs.map((input, k) => [
          input,
          {
            shape,
            gradient: hasDerivative(definition, input),
            ...dataOf(definition.kinds, input, shape, 1, value && ((i) => value(i, k))),
          },
        ]),
      ),
      ...(weight && { [WEIGHT]: { shape: weight, gradient: false, data: weights(weight) } }),
    },
  });
  return {
    name,
    ...(definition.backward === 'numeric' && { gradTolerance: NUMERIC_TOLERANCE }),
    build: ({ [WEIGHT]: weight, ...x }) => loss(x as never, {}, weight ?? null),
    reference: (x) => [
      weightedMean(x[inputs[0]!]!.length, x[WEIGHT], (i) =>
        reference(
          Object.fromEntries(inputs.map((input) => [input, x[input]![i]!])) as never,
          attributes as never,
        ),
      ),
    ],
    timed: of('', [1024, 1024]).inputs,
    cases: [
      of('one element', [1]),
      of('odd sizes', [3, 7]),
      of('more than a workgroup', [5, 67]),
      of('a weight for each row', [4, 3, 8], { weight: [4, 3] }),
      of('a weight for each element', [5, 3], { weight: [5, 3] }),
      of('zeros', [9], { value: () => 0, smooth: false }),
      of('large numbers', [9], { value: (i) => (i % 2 ? -1e3 : 1e3), smooth: false }),
      of('not a number where the weight is 0', [6, 5], {
        weight: [6],
        value: (i, k) => (Math.floor(i / 5) % 3 === 0 ? NaN : Math.sin(i + 2 * k)),
        smooth: false,
      }),
    ],
  };
}

/** Of a loss of rows. An index lies among the columns. */
export function rowSubject<R extends string, I extends string, A extends string>(
  loss: RowLoss<R, I, A>,
): GradcheckSubject {
  checkDefined('rowSubject', loss, 'rows');
  const { definition } = loss;
  const {
    name,
    rows,
    indices = [] as readonly I[],
    attributes = {} as Numbers,
    backward,
    reference,
  } = definition;
  const of = (
    label: string,
    [N, n]: readonly [number, number],
    {
      weighted = false,
      value,
      smooth = true,
    }: { weighted?: boolean; value?: (i: number, input: number) => number; smooth?: boolean } = {},
  ): GradcheckCase => ({
    name: label,
    smooth,
    inputs: {
      ...Object.fromEntries(
        rows.map((row, k) => [
          row,
          {
            shape: [N, n],
            gradient: backward?.[row] !== undefined,
            ...dataOf(definition.kinds, row, [N, n], n, value && ((i) => value(i, k))),
          },
        ]),
      ),
      ...Object.fromEntries(indices.map((index) => [index, { shape: [N], dtype: 'i32' as const, below: n }])),
      ...(weighted && { [WEIGHT]: { shape: [N], gradient: false, data: weights([N]) } }),
    },
  });
  return {
    name,
    build: ({ [WEIGHT]: weight, ...x }) => loss(x as never, {}, weight ?? null),
    reference: (x, shapes) => {
      const [N, n] = shapes[rows[0]!] as [number, number];
      return [
        weightedMean(N, x[WEIGHT], (r) =>
          reference(
            {
              ...Object.fromEntries(rows.map((row) => [row, x[row]!.subarray(r * n, (r + 1) * n)])),
              ...Object.fromEntries(indices.map((index) => [index, x[index]![r]!])),
            } as never,
            attributes as never,
          ),
        ),
      ];
    },
    timed: of('', [1024, 512]).inputs,
    cases: [
      of('one row', [1, 4]),
      of('odd sizes', [5, 7]),
      of('more rows than a workgroup', [67, 12]),
      of('long rows', [3, 301]),
      of('a weight for each row', [9, 8], { weighted: true }),
      of('zeros', [5, 6], { value: () => 0, smooth: false }),
      of('large numbers', [5, 6], { value: (i) => (i % 2 ? -1e3 : 1e3), smooth: false }),
      of('not a number where the weight is 0', [6, 5], {
        weighted: true,
        value: (i, k) => (Math.floor(i / 5) % 3 === 0 ? NaN : Math.sin(i + 2 * k)),
        smooth: false,
      }),
    ],
  };
}

type Defined =
  ElementwiseOp<string, string> | ElementwiseLoss<string, string> | RowLoss<string, string, string>;

/**
 * What a module may export to be checked: an op or loss by expression, or a subject of its own. undefined for
 * anything else.
 */
export function subjectOf(exported: unknown): GradcheckSubject | undefined {
  if (typeof exported === 'function' && 'kind' in exported) {
    const op = exported as Defined;
    return op.kind === 'elementwise'
      ? elementwiseSubject(op)
      : op.kind === 'loss'
        ? lossSubject(op)
        : op.kind === 'rows'
          ? rowSubject(op)
          : undefined;
  }
  const subject = exported as Partial<GradcheckSubject> | null;
  return typeof subject === 'object' &&
    subject !== null &&
    typeof subject.build === 'function' &&
    Array.isArray(subject.cases)
    ? (subject as GradcheckSubject)
    : undefined;
}
