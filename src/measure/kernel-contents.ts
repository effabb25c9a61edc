/** Storage of a kernel file: element types read from the text, numbers to bytes and back, random contents. */
import { declarations } from '../wgsl/declarations.ts';
import { floatToHalf, halfToFloat } from '../io/safetensors.ts';
import { uniforms } from '../random/uniforms.ts';

/**
 * An element's bytes, its scalar, how many of these it shows, and after how many of them one is padding (a
 * vec3), or 0.
 */
export interface ElementType {
  readonly bytes: number;
  readonly scalar: 'f32' | 'f16' | 'i32' | 'u32';
  readonly lanes: number;
  readonly paddedAfter: number;
}

export interface StorageVariable {
  readonly name: string;
  readonly writes: boolean;
  readonly type: string;
  /** It is an array, whose size counts elements; otherwise the size is in bytes. */
  readonly isArray: boolean;
  /** Null for a struct, whose fields are not told apart. */
  readonly element: ElementType | null;
}

export type Bytes = Uint8Array<ArrayBuffer>;
export type Numbers = ArrayLike<number>;

const SCALARS = { f32: 4, i32: 4, u32: 4, f16: 2 } as const;
const SUFFIXES: Readonly<Record<string, keyof typeof SCALARS>> = { f: 'f32', i: 'i32', u: 'u32', h: 'f16' };
const isScalar = (text: string): text is keyof typeof SCALARS => Object.hasOwn(SCALARS, text);

/** Of `vec4f`, `vec2<f16>`, `atomic<u32>`, `mat4x4f` and the like; null for a struct. */
export function elementType(type: string): ElementType | null {
  const text = /^atomic<(\w+)>$/.exec(type)?.[1] ?? type;
  if (isScalar(text)) return { bytes: SCALARS[text], scalar: text, lanes: 1, paddedAfter: 0 };
  const shaped = /^(?:vec|mat(\d)x)(\d)(?:<(\w+)>|([fiuh]))$/.exec(text);
  const scalar = shaped?.[3] ?? SUFFIXES[shaped?.[4] ?? ''] ?? '';
  if (!shaped || !isScalar(scalar)) return null;
  const rows = Number(shaped[2]);
  const columns = Number(shaped[1] ?? 1);
  const padded = rows === 3;
  // A vec3 takes the room of a vec4, alone and as a column.
  return {
    bytes: SCALARS[scalar] * (padded ? 4 : rows) * columns,
    scalar,
    lanes: rows * columns,
    paddedAfter: padded ? 3 : 0,
  };
}

/** Storage that an entry point uses. Throws as `declarations`. */
export function storageOf(name: string, wgsl: string, entry: string): StorageVariable[] {
  return declarations(name, wgsl, entry)
    .filter((d) => d.space === 'storage')
    .map(({ name: variable, access, type, of }) => {
      const element = type === 'array' ? (/^<(.+?)(?:,\w+)?>$/.exec(of)?.[1] ?? '') : `${type}${of}`;
      return {
        name: variable,
        writes: access === 'read_write',
        type: `${type}${of}`,
        isArray: type === 'array',
        element: elementType(element),
      };
    });
}

/** Where number i lies among the stored scalars: padding is left out of the count. */
const placeOf = ({ paddedAfter }: ElementType, i: number): number =>
  paddedAfter === 0 ? i : Math.floor(i / 3) * 4 + (i % 3);

function view(
  scalar: ElementType['scalar'],
  bytes: Bytes,
): Float32Array | Int32Array | Uint32Array | Uint16Array {
  const View = { f32: Float32Array, i32: Int32Array, u32: Uint32Array, f16: Uint16Array }[scalar];
  return new View(bytes.buffer, bytes.byteOffset, Math.floor(bytes.byteLength / SCALARS[scalar]));
}

/** How many numbers fit, padding left out. */
export const numbersIn = (element: ElementType, bytes: number): number =>
  Math.floor(bytes / element.bytes) * element.lanes;

/** Bytes of numbers, in `bytes` of room, rounded up to whole words. */
export function encode(element: ElementType, numbers: Numbers, bytes: number): Bytes {
  const out = new Uint8Array(Math.ceil(bytes / 4) * 4);
  const to = view(element.scalar, out);
  const half = element.scalar === 'f16';
  for (let i = 0; i < numbers.length; i++)
    to[placeOf(element, i)] = half ? floatToHalf(numbers[i]!) : numbers[i]!;
  return out;
}

/** Numbers of bytes, without padding. */
export function decode(element: ElementType, bytes: Bytes): Float32Array | Int32Array | Uint32Array {
  const from = view(element.scalar, bytes);
  const length = numbersIn(element, bytes.byteLength);
  const Typed = { f32: Float32Array, f16: Float32Array, i32: Int32Array, u32: Uint32Array }[element.scalar];
  const half = element.scalar === 'f16';
  const out = new Typed(length);
  for (let i = 0; i < length; i++)
    out[i] = half ? halfToFloat(from[placeOf(element, i)]!) : from[placeOf(element, i)]!;
  return out;
}

/** Numbers whose stored bits are the same in all of the given contents, as places among the numbers. */
export function unchanged(element: ElementType, pairs: readonly (readonly [Bytes, Bytes])[]): number[] {
  const bits = pairs.map((pair) =>
    pair.map((bytes) => view(element.scalar === 'f16' ? 'f16' : 'u32', bytes)),
  );
  const found: number[] = [];
  const count = numbersIn(element, pairs[0]![0].byteLength);
  for (let i = 0; i < count; i++) {
    const at = placeOf(element, i);
    if (bits.every(([a, b]) => a![at] === b![at])) found.push(i);
  }
  return found;
}

/** `[3]`, or `[3].y` of a vector, or `[3] (number 5)` of a matrix. */
export function placeName({ lanes }: ElementType, isArray: boolean, i: number): string {
  const at = isArray ? `[${Math.floor(i / lanes)}]` : '';
  return lanes === 1 ? at : lanes <= 4 ? `${at}.${'xyzw'[i % lanes]!}` : `${at} (number ${i % lanes})`;
}

/**
 * Floats of [-1, 1); integers below `smallest`, the size of the smallest array, so that each is an index into
 * all of them.
 */
export function randomContents(
  element: ElementType | null,
  bytes: number,
  smallest: number,
  seed: number,
): Bytes {
  const next = uniforms(seed);
  const scalar = element?.scalar ?? 'u32';
  const out = new Uint8Array(Math.ceil(bytes / 4) * 4);
  const to = view(scalar, out);
  const limit = element ? Math.max(1, smallest) : 1;
  for (let i = 0; i < to.length; i++) {
    // 0x3800 to 0x3bff is 0.5 to 1: a random fraction and sign.
    if (scalar === 'f16') to[i] = 0x3800 + Math.floor(next() * 0x400) + (next() < 0.5 ? 0x8000 : 0);
    else to[i] = scalar === 'f32' ? 2 * next() - 1 : Math.floor(next() * limit);
  }
  return out;
}

/**
 * Contents that tell whether a number was written: NaN of a payload of its own, or for integers a pattern of
 * indices (a pattern of large
 * ones could keep a loop busy for ever). A number is unwritten if it holds the poison of both rounds after a
 * run from each.
 */
export function poison(element: ElementType | null, bytes: number, smallest: number, round: 0 | 1): Bytes {
  const out = new Uint8Array(Math.ceil(bytes / 4) * 4);
  const scalar = element?.scalar ?? 'u32';
  const isFloat = scalar === 'f32';
  const to = view(isFloat ? 'u32' : scalar, out);
  const limit = element ? Math.max(2, smallest) : 1;
  for (let i = 0; i < to.length; i++) {
    to[i] = isFloat ? 0x7fc0dead + round : scalar === 'f16' ? 0x7e01 + round : (i + round) % limit;
  }
  return out;
}
