import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { apart, sizesApart } from '../src/numbers.ts';
import { ParameterStore } from '../src/plan/parameters.ts';
import type { MGFError } from '../src/errors.ts';
import type { Gpu } from '../src/gpu/device.ts';

test('two numbers that differ read differently, in as few digits as that takes', () => {
  assert.equal(apart(0.71, 0.69, 2), ['0.71', '0.69']);
  assert.equal(apart(0.6904, 0.69, 3), ['0.6904', '0.6900']);
  assert.equal(apart(1, 1, 3), ['1.000', '1.000']);
  assert.equal(apart(1, 1 + 2 ** -40, 3), ['1', '1.0000000000009095']);
});

test('two sizes that differ read differently, in bytes where nothing shorter tells them apart', () => {
  assert.equal(sizesApart(300 * 2 ** 20, 128 * 2 ** 20, 'MiB', 0), ['300 MiB', '128 MiB']);
  assert.equal(sizesApart(128.4 * 2 ** 20, 128 * 2 ** 20, 'MiB', 0), ['128.4 MiB', '128.0 MiB']);
  assert.equal(sizesApart(2 ** 27 + 256, 2 ** 27, 'MiB', 0), ['134217984 bytes', '134217728 bytes']);
  assert.equal(sizesApart(5e6, 5e6, 'MB', 1), ['5.0 MB', '5.0 MB']);
});

test('parameters that miss the limit by 256 bytes are refused in figures that differ', () => {
  const limits = { minStorageBufferOffsetAlignment: 256, maxBufferSize: 2 ** 27 };
  const gpu = { profile: { name: 'an adapter', limits } } as unknown as Gpu;
  const shape = [2 ** 25 + 1];
  const spec = { name: 'w', parts: [{ name: 'w', shape }], swap: false, decay: false };
  const figures = 'need a buffer of 134217984 bytes and an adapter allows 134217728 bytes (maxBufferSize)';
  const refused = (error: MGFError): boolean => error.code === 'limit' && error.message.includes(figures);
  assert.throws(() => new ParameterStore(gpu, [spec], 'inference'), refused);
});

test.run();
