import { checkArguments, checkFields, checkOptions } from '../check.ts';
import { MGFError } from '../errors.ts';

/**
 * The safetensors format: 8 bytes header length (little-endian), a JSON header { name: { dtype, shape,
 * data_offsets } }, the tensors' bytes. Every number is little-endian, as is every machine that WebGPU runs
 * on, so that tensors are typed-array views.
 */
const ELEMENT_BYTES = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const;
export type DType = keyof typeof ELEMENT_BYTES;

/** Elements of a stored tensor, row-major. */
export type TensorData =
  | Float64Array
  | Float32Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array
  | BigInt64Array
  | BigUint64Array;

/**
 * `data` is row-major; F16 and BF16 are their bits in a Uint16Array. It shares memory with the file's bytes
 * where alignment allows.
 */
export interface StoredTensor {
  dtype: DType;
  shape: number[];
  data: TensorData;
}

/** A parsed safetensors file: metadata, and tensors by name. */
export interface SafetensorsFile {
  metadata: Record<string, string>;
  tensors: Map<string, StoredTensor>;
}

/** Where each tensor's bytes lie, from the start of the data. */
export interface TensorLocation {
  dtype: DType;
  shape: number[];
  begin: number;
  end: number;
}

export interface SafetensorsHeader {
  metadata: Record<string, string>;
  tensors: Map<string, TensorLocation>;
  /** Position of the data in the file. */
  dataStart: number;
}

/** How `readSafetensors` names the file, and how long a header it accepts. */
export interface ReadOptions {
  /** What the messages call the file. */
  origin: string;
  maxHeaderBytes?: number;
}

const VIEWS: { [K in DType]: new (buffer: ArrayBufferLike, offset: number, length: number) => TensorData } = {
  F64: Float64Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
  F32: Float32Array,
  I32: Int32Array,
  U32: Uint32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I16: Int16Array,
  U16: Uint16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};

/** As the format's own implementation. */
const MAX_HEADER_BYTES = 100e6;
/** No framework makes tensors of more dimensions. */
const MAX_RANK = 32;

const broken = (origin: string, what: string) =>
  new MGFError(
    'checkpoint',
    `${origin} is not a sound safetensors file: ${what}; it was damaged or never complete, use another copy.`,
  );
const quote = (name: string) => JSON.stringify(name.length > 80 ? `${name.slice(0, 77)}...` : name);

/**
 * The first key that an object in this valid JSON text has twice (`JSON.parse` would keep the last in
 * silence).
 */
function duplicateKey(json: string): string | undefined {
  const open: (Set<string> | null)[] = [];
  let key = true;
  for (let i = 0; i < json.length; i++) {
    const c = json[i]!;
    if (c === '{') {
      open.push(new Set());
      key = true;
    } else if (c === '[') {
      open.push(null);
      key = false;
    } else if (c === '}' || c === ']') {
      open.pop();
      key = false;
    } else if (c === ':') key = false;
    else if (c === ',') key = open.at(-1) instanceof Set;
    else if (c === '"') {
      const start = i++;
      while (json[i] !== '"') i += json[i] === '\\' ? 2 : 1;
      const keys = open.at(-1);
      if (key && keys) {
        const name = JSON.parse(json.slice(start, i + 1)) as string;
        if (keys.has(name)) return name;
        keys.add(name);
      }
    }
  }
  return undefined;
}

const isObject = (x: unknown): x is Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x);
const isSize = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;

function readLocation(name: string, entry: unknown, origin: string): TensorLocation {
  const no = (what: string) => broken(origin, `tensor ${quote(name)} ${what}`);
  if (!isObject(entry)) throw no('is not described by an object');
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string') throw no('has no dtype');
  if (!Object.hasOwn(ELEMENT_BYTES, dtype)) throw no(`has the unknown dtype ${quote(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw no('has a shape that is not a list of sizes');
  if (shape.length > MAX_RANK)
    throw no(`has ${shape.length} dimensions, and more than ${MAX_RANK} make no sense`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize))
    throw no('has data_offsets that are not two byte positions');
  const [begin, end] = offsets as [number, number];
  const bytes = shape.reduce<number>((n, size) => n * size, ELEMENT_BYTES[dtype as DType]);
  if (!Number.isSafeInteger(bytes)) throw no(`has an impossible shape (${shape.join(' x ')})`);
  if (end - begin !== bytes)
    throw no(
      `has shape [${shape.join(', ')}], which needs ${bytes} bytes, but its data_offsets span ${end - begin}`,
    );
  return { dtype: dtype as DType, shape, begin, end };
}

/**
 * Checks and reads the header. `head` holds at least the file's first 8 + header length bytes, `fileBytes` is
 * the file's size. Errors (`checkpoint`): anything that the format does not allow; nothing is allocated from
 * sizes that the file claims before they are checked.
 */
export function readSafetensorsHeader(
  head: Uint8Array,
  fileBytes: number,
  options: ReadOptions,
): SafetensorsHeader {
  const { origin } = options;
  const headerBytes = safetensorsHeaderBytes(head, fileBytes, options);
  let json: unknown;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
      head.subarray(8, 8 + headerBytes),
    );
    json = JSON.parse(text);
  } catch (error) {
    throw new MGFError('checkpoint', broken(origin, 'its header is not JSON').message, { cause: error });
  }
  if (!isObject(json)) throw broken(origin, 'its header is not a JSON object');
  const twice = duplicateKey(text);
  if (twice !== undefined) throw broken(origin, `its header has the key ${quote(twice)} twice`);

  const metadata: Record<string, string> = {};
  const tensors = new Map<string, TensorLocation>();
  for (const [name, entry] of Object.entries(json)) {
    if (name === '__proto__') throw broken(origin, 'a tensor has the forbidden name "__proto__"');
    if (name !== '__metadata__') {
      tensors.set(name, readLocation(name, entry, origin));
      continue;
    }
    if (!isObject(entry)) throw broken(origin, 'its __metadata__ is not an object');
    for (const [key, value] of Object.entries(entry)) {
      if (key === '__proto__' || typeof value !== 'string')
        throw broken(origin, `its __metadata__ has no text under ${quote(key)}`);
      metadata[key] = value;
    }
  }
  // The tensors must tile the data: no overlap, no hole, nothing left over.
  const dataStart = 8 + headerBytes;
  let at = 0;
  for (const [name, { begin, end }] of [...tensors].sort(
    ([, a], [, b]) => a.begin - b.begin || a.end - b.end,
  )) {
    if (begin !== at) {
      const what = begin < at ? 'an overlap' : 'a hole';
      throw broken(
        origin,
        `tensor ${quote(name)} starts at byte ${begin} of the data, where ${at} was due (${what})`,
      );
    }
    at = end;
  }
  if (dataStart + at !== fileBytes)
    throw broken(origin, `its tensors need ${at} bytes of data, and it has ${fileBytes - dataStart}`);
  return { metadata, tensors, dataStart };
}

/** Length of the header after the first 8 bytes, checked against the file's size. */
export function safetensorsHeaderBytes(
  head: Uint8Array,
  fileBytes: number,
  { origin, maxHeaderBytes = MAX_HEADER_BYTES }: ReadOptions,
): number {
  if (fileBytes < 8 || head.byteLength < 8) throw broken(origin, `it has only ${fileBytes} bytes`);
  const length = new DataView(head.buffer, head.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(maxHeaderBytes))
    throw broken(
      origin,
      `its header claims ${length} bytes, more than the ${maxHeaderBytes} that are allowed`,
    );
  if (8 + Number(length) > fileBytes)
    throw broken(origin, `its header claims ${length} bytes, and the file has ${fileBytes}`);
  return Number(length);
}

/**
 * Reads a whole file. Errors (`checkpoint`), one sentence each: a header longer than the file or than
 * `maxHeaderBytes` (100 MB), not JSON, with duplicate keys, unknown dtypes, impossible shapes, offsets that
 * overlap, leave holes or do not match shape and file.
 */
export function readSafetensors(bytes: Uint8Array, options: ReadOptions): SafetensorsFile {
  checkArguments('readSafetensors', { bytes: [bytes, 'a Uint8Array'] });
  checkOptions('readSafetensors', options, { origin: 'a text', maxHeaderBytes: 'a number?' });
  const { metadata, tensors, dataStart } = readSafetensorsHeader(bytes, bytes.byteLength, options);
  const read = new Map<string, StoredTensor>();
  for (const [name, { dtype, shape, begin, end }] of tensors) {
    read.set(name, {
      dtype,
      shape,
      data: viewTensor(dtype, bytes.subarray(dataStart + begin, dataStart + end)),
    });
  }
  return { metadata, tensors: read };
}

/** The bytes of one tensor as typed array; copied only where they are not aligned. */
export function viewTensor(dtype: DType, bytes: Uint8Array): TensorData {
  const size = ELEMENT_BYTES[dtype];
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new VIEWS[dtype](aligned.buffer, aligned.byteOffset, aligned.byteLength / size);
}

// -------------------------------------------------------------------------------------------- half precision

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

export function halfToFloat(half: number): number {
  const exponent = (half >> 10) & 31;
  const mantissa = half & 1023;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + mantissa / 1024) : 2 ** -14 * (mantissa / 1024));
}

/** Bits of the nearest half-precision number, ties to even; beyond 65504 infinity. */
export function floatToHalf(x: number): number {
  float[0] = x;
  const b = bits[0]!;
  const sign = (b >>> 16) & 0x8000;
  const magnitude = b & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // Below the smallest normal number, one step is 2^-24 everywhere; above, the mantissa loses 13 bits.
  if (magnitude < 0x38800000) return sign | roundToEven(Math.abs(float[0]!) * 2 ** 24);
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

function roundToEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

/**
 * Values of a floating-point tensor as f32 (F32 itself without a copy). Error (`checkpoint`): an integer
 * tensor.
 */
export function toFloat32(tensor: StoredTensor, name: string, origin: string): Float32Array<ArrayBuffer> {
  checkFields('toFloat32', 'tensor.', tensor, { dtype: 'a text', data: 'an array of numbers' });
  checkArguments('toFloat32', { name: [name, 'a text'], origin: [origin, 'a text'] });
  const { dtype, data } = tensor;
  switch (dtype) {
    case 'F32':
      return data as Float32Array<ArrayBuffer>;
    case 'F64':
      return Float32Array.from(data as Float64Array);
    case 'F16':
      return Float32Array.from(data as Uint16Array, halfToFloat);
    case 'BF16': {
      const out = new Uint32Array(data.length);
      (data as Uint16Array).forEach((b, i) => {
        out[i] = b << 16;
      });
      return new Float32Array(out.buffer);
    }
    default:
      throw new MGFError(
        'checkpoint',
        `${origin}: tensor ${quote(name)} has dtype ${dtype}, but a floating-point one is needed.`,
      );
  }
}

// --------------------------------------------------------------------------------------------------- writing

/** A tensor for `writeSafetensors`. */
export interface TensorToStore {
  shape: readonly number[];
  /** The dtype follows: F32, I32, U32, I16, U16, I8, U8, F64, I64, U64. */
  data: TensorData;
  /** Stores f32 data as half precision. */
  half?: boolean;
}

function dtypeOf({ data, half }: TensorToStore): DType {
  if (half) return 'F16';
  if (data instanceof Float32Array) return 'F32';
  if (data instanceof Int32Array) return 'I32';
  if (data instanceof Uint32Array) return 'U32';
  if (data instanceof Float64Array) return 'F64';
  if (data instanceof BigInt64Array) return 'I64';
  if (data instanceof BigUint64Array) return 'U64';
  if (data instanceof Int16Array) return 'I16';
  if (data instanceof Uint16Array) return 'U16';
  return data instanceof Int8Array ? 'I8' : 'U8';
}

/**
 * The file in parts (header, then one part a tensor) that are to be written one after another, so that a
 * large checkpoint is never held twice. Tensors are sorted by element size, then name, as the format's own
 * implementation does, so that each is aligned and equal input gives equal bytes. Errors (`shape`): data that
 * does not fill its shape, a reserved name.
 */
export function* safetensorsParts(
  tensors: ReadonlyMap<string, TensorToStore>,
  metadata: Readonly<Record<string, string>> = {},
): Generator<Uint8Array> {
  const entries = [...tensors]
    .map(([name, tensor]) => ({ name, tensor, dtype: dtypeOf(tensor) }))
    .sort((a, b) => ELEMENT_BYTES[b.dtype] - ELEMENT_BYTES[a.dtype] || (a.name < b.name ? -1 : 1));
  const header: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) header.push(['__metadata__', metadata]);
  let at = 0;
  for (const { name, tensor, dtype } of entries) {
    if (name === '__metadata__' || name === '__proto__')
      throw new MGFError('shape', `A tensor cannot be stored under the reserved name ${quote(name)}.`);
    const elements = tensor.shape.reduce((n, size) => n * size, 1);
    if (elements !== tensor.data.length) {
      throw new MGFError(
        'shape',
        `Tensor ${quote(name)} of shape [${tensor.shape.join(', ')}] needs ${elements} values, but has ` +
          `${tensor.data.length}.`,
      );
    }
    if (tensor.half && !(tensor.data instanceof Float32Array))
      throw new MGFError('shape', `Tensor ${quote(name)} can be stored in half precision only from f32.`);
    const end = at + elements * ELEMENT_BYTES[dtype];
    header.push([name, { dtype, shape: tensor.shape, data_offsets: [at, end] }]);
    at = end;
  }
  // Not Object.fromEntries: it would put names such as "0" in front.
  const json = new TextEncoder().encode(
    `{${header.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(',')}}`,
  );
  const head = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(json, 8);
  yield head;
  for (const {
    tensor: { data, half },
  } of entries) {
    const stored = half ? Uint16Array.from(data as Float32Array, floatToHalf) : data;
    yield new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
  }
}

/** A whole file as bytes; see `safetensorsParts`. */
export function writeSafetensors(
  tensors: ReadonlyMap<string, TensorToStore>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  checkArguments('writeSafetensors', { tensors: [tensors, 'a Map'], metadata: [metadata, 'an object?'] });
  for (const [name, tensor] of tensors) {
    checkFields('writeSafetensors', `tensor ${quote(name)}: `, tensor, {
      shape: 'a list',
      data: 'an array of numbers',
      half: 'true or false?',
    });
  }
  return concatenate([...safetensorsParts(tensors, metadata)]);
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
