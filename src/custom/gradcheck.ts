/**
 * Whether an op computes what its author says: the device against a float64 reference, gradients against
 * derivatives of that reference, on awkward shapes and values.
 */
import { checkArguments, checkFields, checkOptions, GPU, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { plainest } from '../gpu/adapter.ts';
import { portabilityNotes } from '../wgsl/portability.ts';
import { elements, formatShape, type Shape } from '../graph/shape.ts';
import type { Value } from '../graph/graph.ts';
import { asTheirs } from './theirs.ts';
import { contents, noise, Prepared, textsOn, wantedOf, type CaseInput, type Floats } from './prepared.ts';
import type { Gpu } from '../gpu/device.ts';

/** What is checked: a graph of any ops, beside the same in float64. */
export interface GradcheckSubject {
  readonly name: string;
  /** The graph of what is checked, from the inputs of a case by name. */
  readonly build: (inputs: Readonly<Record<string, Value>>) => Value;
  /**
   * Output of `build` by its inputs, flat; null: there is none, gradients are checked against differences of
   * the device's own forward.
   */
  readonly reference:
    | ((
        inputs: Readonly<Record<string, Float64Array>>,
        shapes: Readonly<Record<string, Shape>>,
      ) => ArrayLike<number>)
    | null;
  readonly cases: readonly GradcheckCase[];
  /** Largest error of a derivative where it is not exact, such as one by differences. */
  readonly gradTolerance?: number;
  /** Inputs of a size that is worth timing. */
  readonly timed?: Readonly<Record<string, CaseInput>>;
}

/** Inputs to check a subject on. */
export interface GradcheckCase {
  /** What is special about it, such as "odd size" or "zeros". */
  readonly name: string;
  readonly inputs: Readonly<Record<string, CaseInput>>;
  /** Kinks or poles at these values: no gradient is compared, only that everything is finite and written. */
  readonly smooth?: boolean;
}

/** How exact `gradcheck` wants it, and on which kernels. */
export interface GradcheckOptions {
  /** Largest error of the forward, over its norm. Default 1e-5. */
  readonly tolerance?: number;
  /**
   * Largest error of a directional derivative, over the gradient's norm. Default 1e-4; 2e-2 without a
   * reference, whose differences are of f32.
   */
  readonly gradTolerance?: number;
  /** Kernel families. Default: both. */
  readonly families?: readonly ('cpu' | 'gpu')[];
  readonly seed?: number;
}

/** One thing that was looked at. */
export interface GradcheckFinding {
  readonly case: string;
  readonly family: 'cpu' | 'gpu';
  /** `forward`, or `d NAME`. */
  readonly of: string;
  readonly error: number;
  readonly tolerance: number;
  readonly passed: boolean;
  /** What is wrong and where, in a sentence; empty where it passed. */
  readonly message: string;
}

/** What `gradcheck` found; `passed` if every finding did. */
export interface GradcheckResult {
  readonly name: string;
  readonly passed: boolean;
  readonly findings: readonly GradcheckFinding[];
  /**
   * What in its WGSL only one of the two compilers takes, Tint (Chromium, Dawn) or naga (Firefox, Deno):
   * place, sentence, line and caret of each. It changes nothing about `passed`.
   */
  readonly notes: readonly string[];
}

const SUBJECT = { name: 'a text', build: 'a function', reference: 'a function|null', cases: 'a list' };
const OPTIONS: Rules<GradcheckOptions> = {
  tolerance: 'a number?',
  gradTolerance: 'a number?',
  families: 'a list?',
  seed: 'a number?',
};

const DIRECTIONS = 3;

/** [2, 0, 3] of element 3 of shape ... */
function indexOf(at: number, shape: Shape): string {
  const index: number[] = [];
  for (let rest = at, d = shape.length - 1; d >= 0; d--) {
    index.unshift(rest % shape[d]!);
    rest = Math.floor(rest / shape[d]!);
  }
  return `[${index.join(', ')}]`;
}

/** Sum of x[i] y[i]. */
function inner(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}
const norm = (x: ArrayLike<number>): number => Math.sqrt(inner(x, x));

/** Where `got` is furthest from `want`, relative to the norm of `want`. */
function compare(got: Floats, want: ArrayLike<number>, shape: Shape): { error: number; message: string } {
  if (want.length !== got.length)
    return {
      error: Infinity,
      message:
        `the reference gives ${want.length} numbers, the op ${got.length}: its shape rule says ` +
        `${formatShape(shape)}`,
    };
  const bad = got.findIndex((v, i) => !Number.isFinite(v) && Number.isFinite(want[i]));
  if (bad >= 0)
    return {
      error: Infinity,
      message:
        `element ${indexOf(bad, shape)} is ${got[bad]}, not ${want[bad]}: it is not written, or computed ` +
        'from what was not written',
    };
  let square = 0;
  let worst = 0;
  for (let i = 0; i < got.length; i++) {
    const difference = Math.abs(got[i]! - want[i]!);
    square += difference ** 2;
    if (difference > Math.abs(got[worst]! - want[worst]!)) worst = i;
  }
  return {
    error: Math.sqrt(square) / (norm(want) || 1),
    message: `element ${indexOf(worst, shape)} is furthest off: ${got[worst]}, not ${want[worst]}`,
  };
}

/**
 * Checks a subject on each case and kernel family: the forward against the reference, element by element;
 * each gradient, of a random linear function of the output, along random directions against central
 * differences of the reference in float64, and where they disagree element by element to say which; every
 * number written and finite. Cases beyond the given ones are the caller's affair (`casesOf` makes the usual
 * ones). Throws what `build` and `compile` throw.
 */
export async function gradcheck(
  gpu: Gpu,
  subject: GradcheckSubject,
  options: GradcheckOptions = {},
): Promise<GradcheckResult> {
  checkArguments('gradcheck', { gpu: [gpu, GPU] });
  checkFields('gradcheck', 'subject.', subject, SUBJECT);
  checkOptions('gradcheck', options, OPTIONS);
  const { families = ['cpu', 'gpu'], seed = 1 } = options;
  const findings: GradcheckFinding[] = [];
  for (const family of families) {
    const device: Gpu = { ...gpu, profile: { ...gpu.profile, family } };
    for (const one of subject.cases)
      findings.push(
        ...(await checkCase(device, subject, one, options, seed)).map((f) => ({
          ...f,
          case: one.name,
          family,
        })),
      );
  }
  return {
    name: subject.name,
    passed: findings.every(({ passed }) => passed),
    findings,
    notes: notesOn(gpu, subject),
  };
}

/** Of the kernels that run where there are no subgroups, which is what both compilers see. */
function notesOn(gpu: Gpu, subject: GradcheckSubject): string[] {
  const adapter = plainest(gpu.profile);
  try {
    const texts = subject.cases.flatMap(({ inputs }) => [...textsOn(adapter, subject, inputs)]);
    return [...new Set([...new Map(texts)].flatMap(([wgsl, name]) => portabilityNotes(name, wgsl)))];
  } catch (error) {
    if (!(error instanceof MGFError)) throw error;
    return [`  without subgroups, as in Firefox and Deno, it ends with: ${error.message}`];
  }
}

/** The reference of a subject, whose errors are told as those of its author. */
function referenceOf({ name, reference }: GradcheckSubject): GradcheckSubject['reference'] {
  return reference && ((x, shapes) => asTheirs(`${name}: reference`, () => reference(x, shapes)));
}

async function checkCase(
  gpu: Gpu,
  subject: GradcheckSubject,
  { inputs, smooth = true }: GradcheckCase,
  options: GradcheckOptions,
  seed: number,
): Promise<Omit<GradcheckFinding, 'case' | 'family'>[]> {
  const reference = referenceOf(subject);
  const tolerance = options.tolerance ?? 1e-5;
  const gradTolerance = options.gradTolerance ?? subject.gradTolerance ?? (reference ? 1e-4 : 2e-2);
  const names = Object.keys(inputs);
  const wanted = wantedOf(inputs);
  const shapes = Object.fromEntries(names.map((name) => [name, inputs[name]!.shape]));
  const data = Object.fromEntries(names.map((name, i) => [name, contents(inputs[name]!, seed, i)]));
  const up = (shape: Shape): Floats => Float32Array.from(noise(elements(shape), seed, 1000));
  const prepared = await Prepared.create(gpu, subject, inputs, wanted, up);
  try {
    const { y, gradients } = await prepared.run(data);
    const upstream = up(prepared.shape);
    const exact = Object.fromEntries(names.map((name) => [name, Float64Array.from(data[name]!)]));
    const findings: Omit<GradcheckFinding, 'case' | 'family'>[] = [];
    const add = (of: string, error: number, limit: number, message: string): void => {
      const passed = error <= limit;
      findings.push({ of, error, tolerance: limit, passed, message: passed ? '' : message });
    };
    const unwritten = (of: string, x: Floats, shape: Shape): boolean => {
      const bad = x.findIndex((v) => !Number.isFinite(v));
      if (bad >= 0)
        add(
          of,
          Infinity,
          0,
          `element ${indexOf(bad, shape)} is ${x[bad]}: it is not written, or computed from what is ` +
            'not a number',
        );
      return bad >= 0;
    };
    if (reference) {
      const { error, message } = compare(y, reference(exact, shapes), prepared.shape);
      add('forward', error, tolerance, message);
    } else unwritten('forward', y, prepared.shape);
    const objective = async (name: string, x: Float64Array): Promise<number> => {
      return inner(
        reference
          ? reference({ ...exact, [name]: x }, shapes)
          : (await prepared.run({ ...data, [name]: Float32Array.from(x) })).y,
        upstream,
      );
    };
    // In f32 a difference needs a wider step to rise above the rounding.
    const h = reference ? 1e-5 : 1e-2;
    const slope = async (name: string, direction: (i: number) => number): Promise<number> => {
      const moved = (sign: number): Float64Array => exact[name]!.map((v, i) => v + sign * h * direction(i));
      return ((await objective(name, moved(1))) - (await objective(name, moved(-1)))) / (2 * h);
    };
    for (const name of wanted) {
      const got = gradients[name]!;
      const of = `d ${name}`;
      if (unwritten(of, got, shapes[name]!)) continue;
      if (!smooth) {
        add(of, 0, gradTolerance, '');
        continue;
      }
      const size = norm(got);
      let error = 0;
      for (let k = 0; k < DIRECTIONS; k++) {
        const direction = noise(got.length, seed, 2000 + k);
        const want = await slope(name, (i) => direction[i]!);
        const have = inner(got, direction);
        error = Math.max(error, Math.abs(have - want) / (Math.max(size, Math.abs(want)) || 1));
      }
      add(
        of,
        error,
        gradTolerance,
        error > gradTolerance
          ? await worstElement(got, shapes[name]!, (i) => slope(name, (j) => Number(i === j)))
          : '',
      );
    }
    return findings;
  } finally {
    prepared.destroy();
  }
}

/** Elements looked at one by one where a gradient is wrong. */
const LOOKED_AT = 64;

async function worstElement(
  got: Floats,
  shape: Shape,
  slope: (i: number) => Promise<number>,
): Promise<string> {
  let worst = { at: 0, want: NaN, off: -1 };
  const step = Math.max(1, Math.floor(got.length / LOOKED_AT));
  for (let at = 0; at < got.length; at += step) {
    const want = await slope(at);
    const off = Math.abs(got[at]! - want);
    if (off > worst.off) worst = { at, want, off };
  }
  const { at, want } = worst;
  const ratio = got[at]! / want;
  return (
    `element ${indexOf(at, shape)} is furthest ` +
    `off${step > 1 ? ` of ${Math.ceil(got.length / step)} looked at` : ''}: ${got[at]}, not ` +
    `${want.toPrecision(6)}${Number.isFinite(ratio) && ratio !== 0 ? ` (${ratio.toPrecision(3)} times)` : ''}`
  );
}
