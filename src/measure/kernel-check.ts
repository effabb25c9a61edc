/**
 * Whether a kernel file computes what it should: against expected outputs, or against a reference function of
 * its inputs.
 */
import { MGFError } from '../errors.ts';
import { toFloat32, type StoredTensor } from '../io/safetensors.ts';
import {
  decode,
  numbersIn,
  placeName,
  unchanged,
  type Bytes,
  type ElementType,
  type Numbers,
  type StorageVariable,
} from './kernel-contents.ts';
import { usage, type KernelSettings } from './kernel-settings.ts';

/** What a reference gets beside the inputs. */
export type ReferenceLaunch = Pick<KernelSettings, 'params' | 'constants' | 'sizes' | 'grid'>;

/** Expected outputs from a file with the inputs that they belong to, or a function that computes them. */
export type Expectation =
  | { readonly origin: string; readonly tensors: ReadonlyMap<string, Numbers> }
  | {
      readonly origin: string;
      /** `inputs`: numbers of all storage that a run may read, by variable name. */
      readonly reference: (inputs: Readonly<Record<string, Numbers>>, launch: ReferenceLaunch) => unknown;
    };

export interface Checked {
  /** What it was compared with; null where there was nothing to compare with. */
  readonly against: string | null;
  /** A sentence for each array that is wrong, empty if none is. */
  readonly wrong: readonly string[];
  /**
   * Storage that may be written and holds something that is not finite, where nothing says that it should.
   */
  readonly notFinite: readonly string[];
}

/** Largest error, as a part of the root mean square of what the array must be. Integers must be equal. */
const TOLERANCE = { f32: 5e-4, f16: 2e-2 };

/** Tensors of a safetensors file as numbers. */
export function expectedTensors(tensors: ReadonlyMap<string, StoredTensor>, origin: string): Expectation {
  const numbers = new Map<string, Numbers>();
  for (const [name, tensor] of tensors) {
    const isFloat = /^(F|BF)(16|32)$/.test(tensor.dtype);
    numbers.set(
      name,
      isFloat
        ? toFloat32(tensor, name, origin)
        : Array.from(tensor.data as ArrayLike<number | bigint>, Number),
    );
  }
  return { origin, tensors: numbers };
}

/**
 * Contents before the run that an expectation fixes. Throws MGFError 'usage' where a file lacks an input or
 * has something else.
 */
export function expectedInputs(
  expectation: Expectation,
  variables: readonly StorageVariable[],
): Record<string, Numbers> {
  if ('reference' in expectation) return {};
  const { tensors, origin } = expectation;
  const out: Record<string, Numbers> = {};
  const names = variables.flatMap(({ name, writes }) => (writes ? [name, `${name}.before`] : [name]));
  const unknown = [...tensors.keys()].filter((name) => !names.includes(name));
  if (unknown.length) {
    throw usage(
      `${origin} has ${unknown.join(', ')}, and the kernel has no such storage; its tensors may be ` +
        `${names.join(', ')}.`,
    );
  }
  for (const { name, writes } of variables) {
    const given = tensors.get(writes ? `${name}.before` : name);
    if (given) out[name] = given;
    else if (!writes) {
      throw usage(
        `${origin} lacks "${name}": expected outputs belong to inputs, so the file must hold every array ` +
          `that the kernel reads.`,
      );
    }
  }
  if (!variables.some(({ name, writes }) => writes && tensors.has(name))) {
    throw usage(
      `${origin} holds no expected output; name a tensor ${variables
        .filter((v) => v.writes)
        .map((v) => v.name)
        .join(' or ')}.`,
    );
  }
  return out;
}

/** What the outputs must be. Throws MGFError 'usage' for what the user's function throws or returns. */
export async function expectedOutputs(
  e: Expectation,
  inputs: Readonly<Record<string, Numbers>>,
  launch: ReferenceLaunch,
): Promise<ReadonlyMap<string, Numbers>> {
  if ('tensors' in e) return e.tensors;
  let outputs: unknown;
  try {
    outputs = await e.reference(inputs, launch);
  } catch (error) {
    throw error instanceof MGFError
      ? error
      : new MGFError('usage', `${e.origin} throws: ${(error as Error)?.message ?? String(error)}`, {
          cause: error,
        });
  }
  const isNumbers = (x: unknown): x is Numbers =>
    Array.isArray(x) || (ArrayBuffer.isView(x) && !(x instanceof DataView));
  const entries =
    typeof outputs === 'object' && outputs !== null && !isNumbers(outputs) ? Object.entries(outputs) : [];
  const bad = entries.find(([, value]) => !isNumbers(value));
  if (entries.length === 0 || bad) {
    throw usage(
      `${e.origin} must return an object with an array of numbers for each output, such as { y: [1, 2] ` +
        `}${bad ? `; "${bad[0]}" is none` : ''}.`,
    );
  }
  return new Map(entries);
}

/** One sentence for the element that is furthest off, or null. */
function furthest(
  variable: StorageVariable,
  element: ElementType,
  got: Numbers,
  want: Numbers,
): string | null {
  const integer = element.scalar === 'i32' || element.scalar === 'u32';
  const tolerance = integer ? 0 : TOLERANCE[element.scalar as 'f32' | 'f16'];
  const finite = Array.from(want).filter(Number.isFinite);
  const scale = Math.sqrt(finite.reduce((sum, v) => sum + v * v, 0) / Math.max(1, finite.length)) || 1;
  let worst = -1;
  let most = 0;
  let off = 0;
  for (let i = 0; i < want.length; i++) {
    if (Object.is(got[i], want[i]) || got[i] === want[i]) continue;
    const difference = Math.abs(got[i]! - want[i]!) / scale;
    const error = Number.isNaN(difference) ? Infinity : difference;
    if (error <= tolerance) continue;
    off++;
    if (error > most) [worst, most] = [i, error];
  }
  if (worst < 0) return null;
  const place = `${variable.name}${placeName(element, variable.isArray, worst)}`;
  const allowed = integer
    ? 'integers must be equal'
    : `off by ${most.toExponential(1)} of the array's root mean square, ${tolerance} is allowed`;
  return (
    `${place} is ${got[worst]!}, must be ${want[worst]!} (${allowed}); ${off} of ${want.length} are ` +
    `wrong`
  );
}

/**
 * Compares outputs with what they must be; sentences of what is wrong. Throws MGFError 'usage' for
 * expectations that fit no output.
 */
export function compareOutputs(
  origin: string,
  variables: readonly StorageVariable[],
  got: ReadonlyMap<string, Bytes>,
  want: ReadonlyMap<string, Numbers>,
): string[] {
  const wrong: string[] = [];
  const outputs = variables.filter((v) => v.writes);
  for (const [name, values] of want) {
    const variable = outputs.find((v) => v.name === name);
    const bytes = got.get(name);
    if (variables.some((v) => v.name === name && !v.writes) || name.endsWith('.before')) continue;
    if (!variable || !bytes)
      throw usage(
        `${origin} expects "${name}", which the kernel does not write; it writes ` +
          `${outputs.map((v) => v.name).join(', ') || 'nothing'}.`,
      );
    if (!variable.element)
      throw usage(
        `${origin} expects "${name}", whose type ${variable.type} is a struct: only scalars, vectors and ` +
          `matrices are compared.`,
      );
    const numbers = numbersIn(variable.element, bytes.byteLength);
    if (values.length !== numbers)
      throw usage(`${origin} has ${values.length} numbers for "${name}", and the kernel's has ${numbers}.`);
    const sentence = furthest(variable, variable.element, decode(variable.element, bytes), values);
    if (sentence) wrong.push(sentence);
  }
  const left = outputs.filter((v) => !want.has(v.name)).map((v) => v.name);
  if (left.length) wrong.push(`${origin} says nothing of ${left.join(', ')}, which the kernel writes`);
  return wrong;
}

/**
 * A sentence if some numbers hold the poison of both runs, or null. `runs`: poison and contents after the
 * run, of each.
 */
export function unwritten(
  variable: StorageVariable,
  runs: readonly (readonly [Bytes, Bytes])[],
): string | null {
  if (!variable.element) return null;
  const places = unchanged(variable.element, runs);
  const { name } = variable;
  if (places.length === 0) return null;
  const first = `${name}${placeName(variable.element, variable.isArray, places[0]!)}`;
  const of = numbersIn(variable.element, runs[0]![0].byteLength);
  return (
    `nobody wrote ${first}${
      places.length > 1 ? `, nor ${places.length - 1} more of ${of} numbers of ${name}` : ''
    }; ` +
    `if the kernel keeps or uses what ${name} held before, say what that is: --before ${name}=0 or ` +
    `${name}=random`
  );
}
