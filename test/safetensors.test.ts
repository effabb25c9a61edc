import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MGFError } from '../src/errors.ts';
import { writeNpy } from '../src/io/npy.ts';
import {
  floatToHalf,
  halfToFloat,
  readSafetensors,
  toFloat32,
  writeSafetensors,
} from '../src/io/safetensors.ts';
import type { TensorData, TensorToStore } from '../src/io/safetensors.ts';

function message(action: () => unknown, code = 'checkpoint'): string {
  try {
    action();
  } catch (error) {
    assert.instance(error, MGFError);
    assert.is((error as MGFError).code, code);
    return (error as MGFError).message;
  }
  throw new Error('no error was thrown');
}

/** A file with this header text (or bytes) and `dataBytes` of data. */
function file(header: string | Uint8Array, dataBytes: number, claimed?: bigint): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const out = new Uint8Array(8 + text.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, claimed ?? BigInt(text.length), true);
  out.set(text, 8);
  return out;
}
const entry = (shape: unknown, offsets: unknown, dtype: unknown = 'F32') =>
  JSON.stringify({ dtype, shape, data_offsets: offsets });
/** By bits: `assert.equal` finds no two arrays with NaN equal. */
const bits = (data: TensorData) =>
  `${data.constructor.name} ${Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex')}`;
const read = (bytes: Uint8Array) => readSafetensors(bytes, { origin: 'x.safetensors' });

const sample = new Map<string, TensorToStore>([
  ['odd.bytes', { shape: [3], data: Uint8Array.of(1, 2, 255) }],
  ['b.weight', { shape: [2, 3], data: Float32Array.of(1, -2, 3.5, NaN, Infinity, 1e-40) }],
  ['a.index', { shape: [2], data: Int32Array.of(-7, 2 ** 31 - 1) }],
  ['scalar', { shape: [], data: Float32Array.of(4) }],
  ['empty', { shape: [0, 5], data: new Float32Array(0) }],
  ['halves', { shape: [3], data: Float32Array.of(0.1, 1, 65504), half: true }],
  ['long', { shape: [1], data: BigInt64Array.of(-5n) }],
]);

test('what is written is read back: values, shapes, dtypes, metadata', () => {
  const { metadata, tensors } = read(writeSafetensors(sample, { format: 'pt', note: 'ünïcode "quoted"' }));
  assert.equal(metadata, { format: 'pt', note: 'ünïcode "quoted"' });
  assert.is(tensors.size, sample.size);
  for (const [name, { shape, data, half }] of sample) {
    const got = tensors.get(name)!;
    assert.equal(got.shape, shape, name);
    if (!half) assert.is(bits(got.data), bits(data), name);
  }
  assert.is(tensors.get('halves')!.dtype, 'F16');
  assert.equal(toFloat32(tensors.get('halves')!, 'halves', 'x'), Float32Array.of(0.0999755859375, 1, 65504));
});

test('the header is aligned to 8 bytes, and equal tensors give equal bytes in whatever order they come', () => {
  const a = writeSafetensors(sample);
  const b = writeSafetensors(new Map([...sample].reverse()));
  assert.equal(a, b);
  assert.is(new DataView(a.buffer).getUint32(0, true) % 8, 0);
});

test('a file at an odd offset in its buffer is read too', () => {
  const bytes = writeSafetensors(sample);
  const shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  assert.is(
    bits(read(shifted.subarray(3)).tensors.get('b.weight')!.data),
    bits(sample.get('b.weight')!.data),
  );
});

test('F64 and BF16 become f32, integers are refused', () => {
  const { tensors } = read(
    file(
      `{"d":${entry([1], [0, 8], 'F64')},"h":${entry([2], [8, 12], 'BF16')},"i":${entry([1], [12, 16], 'I32')}}`,
      16,
    ),
  );
  new DataView(tensors.get('d')!.data.buffer, tensors.get('d')!.data.byteOffset).setFloat64(0, 0.1, true);
  (tensors.get('h')!.data as Uint16Array).set([0x3f80, 0xc049]);
  assert.equal(toFloat32(tensors.get('d')!, 'd', 'x'), Float32Array.of(0.1));
  assert.equal(toFloat32(tensors.get('h')!, 'h', 'x'), Float32Array.of(1, -3.140625));
  assert.match(
    message(() => toFloat32(tensors.get('i')!, 'i', 'x')),
    /tensor "i" has dtype I32/,
  );
});

test('half precision rounds to the nearest, ties to even, over the whole range', () => {
  for (let h = 0; h < 0x10000; h++) {
    const x = halfToFloat(h);
    if (!Number.isNaN(x)) assert.is(floatToHalf(x), h);
  }
  assert.ok(Number.isNaN(halfToFloat(floatToHalf(NaN))));
  const cases = [
    [2049, 2048],
    [2051, 2052],
    [65519, 65504],
    [65520, Infinity],
    [-1e9, -Infinity],
    [2 ** -25, 0],
    [1.5 * 2 ** -24, 2 ** -23],
    [1.1 * 2 ** -25, 2 ** -24],
    [2 ** -14 - 2 ** -26, 2 ** -14],
  ] as const;
  for (const [x, want] of cases) assert.is(halfToFloat(floatToHalf(x)), want, String(x));
});

test('each corrupt or hostile header is refused with one sentence', () => {
  const ok = entry([2], [0, 8]);
  const cases: [string, Uint8Array, RegExp][] = [
    ['empty', new Uint8Array(0), /has only 0 bytes/],
    ['short', new Uint8Array(5), /has only 5 bytes/],
    ['longer than the file', file('{}', 0, 4096n), /header claims 4096 bytes, and the file has 10/],
    ['huge length', file('{}', 0, 2n ** 63n), /header claims 9223372036854775808 bytes, more than/],
    ['not JSON', file('{"a":', 0), /header is not JSON/],
    ['not UTF-8', file(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d), 0), /header is not JSON/],
    ['a byte order mark', file('\ufeff{}', 0), /header is not JSON/],
    ['an array', file('[]', 0), /header is not a JSON object/],
    ['null', file('null', 0), /header is not a JSON object/],
    ['duplicate tensor', file(`{"a":${ok},"a":${ok}}`, 8), /key "a" twice/],
    ['duplicate tensor, escaped', file(`{"a":${ok},"\\u0061":${ok}}`, 8), /key "a" twice/],
    [
      'duplicate inner key',
      file('{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}', 8),
      /key "shape" twice/,
    ],
    ['prototype name', file(`{"__proto__":${ok}}`, 8), /forbidden name "__proto__"/],
    ['prototype metadata', file('{"__metadata__":{"__proto__":"x"}}', 0), /__metadata__/],
    ['metadata that is not text', file('{"__metadata__":{"step":5}}', 0), /no text under "step"/],
    ['metadata that is no object', file('{"__metadata__":"x"}', 0), /__metadata__ is not an object/],
    ['entry that is no object', file('{"a":5}', 0), /tensor "a" is not described by an object/],
    ['unknown dtype', file(`{"a":${entry([2], [0, 8], 'F128')}}`, 8), /unknown dtype "F128"/],
    ['inherited dtype', file(`{"a":${entry([2], [0, 8], 'constructor')}}`, 8), /unknown dtype "constructor"/],
    ['no dtype', file('{"a":{"shape":[2],"data_offsets":[0,8]}}', 8), /has no dtype/],
    ['negative size', file(`{"a":${entry([-2], [0, 8])}}`, 8), /shape that is not a list of sizes/],
    ['fractional size', file(`{"a":${entry([1.5], [0, 6])}}`, 6), /shape that is not a list of sizes/],
    ['shape as text', file(`{"a":${entry('2', [0, 8])}}`, 8), /shape that is not a list of sizes/],
    ['overflowing shape', file(`{"a":${entry([2 ** 31, 2 ** 31, 2 ** 31], [0, 8])}}`, 8), /impossible shape/],
    ['huge rank', file(`{"a":${entry(Array(5000).fill(1), [0, 4])}}`, 4), /5000 dimensions/],
    [
      'negative offset',
      file(`{"a":${entry([2], [-8, 0])}}`, 8),
      /data_offsets that are not two byte positions/,
    ],
    ['three offsets', file(`{"a":${entry([2], [0, 8, 8])}}`, 8), /data_offsets/],
    ['backwards', file(`{"a":${entry([2], [8, 0])}}`, 8), /needs 8 bytes, but its data_offsets span -8/],
    ['shape mismatch', file(`{"a":${entry([3], [0, 8])}}`, 8), /needs 12 bytes, but its data_offsets span 8/],
    [
      'beyond the file',
      file(`{"a":${entry([100], [0, 400])}}`, 8),
      /tensors need 400 bytes of data, and it has 8/,
    ],
    ['left over', file(`{"a":${ok}}`, 9), /tensors need 8 bytes of data, and it has 9/],
    [
      'overlap',
      file(`{"a":${ok},"b":${entry([2], [4, 12])}}`, 12),
      /"b" starts at byte 4 of the data, where 8 was due \(an overlap\)/,
    ],
    [
      'hole',
      file(`{"a":${ok},"b":${entry([1], [12, 16])}}`, 16),
      /"b" starts at byte 12 of the data, where 8 was due \(a hole\)/,
    ],
    [
      'deep nesting',
      file(`{"a":{"dtype":${'['.repeat(50000)}${']'.repeat(50000)},"shape":[2],"data_offsets":[0,8]}}`, 8),
      /has no dtype|not JSON/,
    ],
  ];
  for (const [name, bytes, wanted] of cases) {
    const text = message(() => read(bytes));
    assert.match(text, wanted, name);
    assert.match(text, /^x\.safetensors is not a sound safetensors file: .*\.$/s, name);
    assert.ok(text.length < 400, name);
  }
  assert.match(
    message(() => readSafetensors(file(' '.repeat(50), 0), { origin: 'x', maxHeaderBytes: 40 })),
    /claims 50 bytes, more than the 40/,
  );
});

test('a thousand random mutations of a file give tensors or an MGFError, never anything else', () => {
  const good = writeSafetensors(sample, { format: 'pt', config: '{"a": [1, 2]}' });
  const headerEnd = 8 + new DataView(good.buffer).getUint32(0, true);
  let seed = 12345;
  let refused = 0;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  for (let round = 0; round < 1000; round++) {
    let bytes = good.slice();
    for (let n = random(4); n >= 0; n--) {
      const kind = random(5);
      const at = random(headerEnd);
      if (kind === 0) bytes[at % bytes.length] = random(256);
      else if (kind === 1) bytes = bytes.slice(0, random(bytes.length + 1));
      else if (kind === 2 && bytes.length > 8)
        bytes.copyWithin(
          8 + random(Math.min(headerEnd, bytes.length) - 8),
          random(bytes.length),
          random(bytes.length),
        );
      else if (kind === 3)
        bytes = Uint8Array.from([
          ...bytes.subarray(0, at),
          ...Array.from({ length: random(6) }, () => random(256)),
          ...bytes.subarray(at),
        ]);
      else
        bytes.set(
          new TextEncoder().encode('0123456789-[]{}",:'[random(18)]!),
          at % Math.max(1, bytes.length - 1),
        );
    }
    try {
      for (const { shape, data } of read(bytes).tensors.values())
        assert.is(
          shape.reduce((a, b) => a * b, 1),
          data.length,
        );
    } catch (error) {
      assert.instance(error, MGFError, String((error as Error).stack));
      assert.is((error as MGFError).code, 'checkpoint');
      refused++;
    }
  }
  assert.ok(refused > 700 && refused < 1000, `${refused} refused`);
});

test('a tensor that does not fill its shape or has a reserved name is not written', () => {
  assert.match(
    message(() => writeSafetensors(new Map([['a', { shape: [3], data: new Float32Array(2) }]])), 'shape'),
    /"a" of shape \[3\] needs 3 values, but has 2/,
  );
  assert.match(
    message(
      () => writeSafetensors(new Map([['__metadata__', { shape: [0], data: new Float32Array(0) }]])),
      'shape',
    ),
    /reserved name/,
  );
});

test('an .npy file has an aligned header that says shape and type', () => {
  for (const [shape, tuple] of [
    [[2, 3], '(2, 3)'],
    [[6], '(6,)'],
    [[1, 2, 3, 1], '(1, 2, 3, 1)'],
  ] as const) {
    const bytes = writeNpy(Float32Array.of(1, 2, 3, 4, 5, 6), shape);
    assert.equal([...bytes.subarray(0, 8)], [0x93, 78, 85, 77, 80, 89, 1, 0]);
    const start = 10 + new DataView(bytes.buffer).getUint16(8, true);
    assert.is(start % 64, 0);
    assert.match(
      new TextDecoder().decode(bytes.subarray(10, start)),
      `{'descr': '<f4', 'fortran_order': False, 'shape': ${tuple}, }`,
    );
    assert.is(bytes[start - 1], 10);
    assert.equal(new Float32Array(bytes.buffer, start), Float32Array.of(1, 2, 3, 4, 5, 6));
  }
  assert.match(
    new TextDecoder().decode(writeNpy(Float32Array.of(7), []).subarray(10, 64)),
    /'shape': \(\), /,
  );
  assert.match(
    message(() => writeNpy(new Float32Array(5), [2, 3]), 'shape'),
    /needs 6 values, but has 5/,
  );
});

const golden = 'test/golden';
const cases = readdirSync(golden).filter((f) => f.endsWith('.safetensors'));
test('files written by the reference implementation are read', () => {
  assert.is(cases.length, 46);
  for (const name of cases) {
    const { metadata, tensors } = readSafetensors(readFileSync(`${golden}/${name}`), { origin: name });
    assert.is(metadata['schema'], 'mgf-conformance/1');
    assert.ok(tensors.size > 0);
  }
});

test.run();
