import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkGradient, checkOutput, relativeError } from '../src/conformance/check.ts';
import { builders, runCase } from '../src/conformance/run.ts';
import { openTestGpu } from './gpu.ts';

const gpu = await openTestGpu();
const folder = new URL('../../test/golden/', import.meta.url);
const files = readdirSync(folder)
  .filter((f) => f.endsWith('.safetensors'))
  .sort();
const load = (file: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(new URL(file, folder)));

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
type Header = Record<string, Entry> & { __metadata__: Record<string, string> };

/** A case file with its header and data changed by `edit`. */
function edited(
  file: string,
  edit: (header: Header, data: Uint8Array<ArrayBuffer>) => void,
): Uint8Array<ArrayBuffer> {
  const bytes = load(file);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Header;
  const data = bytes.slice(8 + length);
  edit(header, data);
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8);
  const out = new Uint8Array(8 + text.length + data.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  out.set(new TextEncoder().encode(text), 8);
  out.set(data, 8 + text.length);
  return out;
}

/** Changes one number of a tensor. */
const poke = (
  file: string,
  name: string,
  index: number,
  change: (x: number) => number,
): Uint8Array<ArrayBuffer> =>
  edited(file, (header, data) => {
    const view = new DataView(data.buffer);
    const at = header[name]!.data_offsets[0] + 4 * index;
    view.setFloat32(at, change(view.getFloat32(at, true)), true);
  });

test('there are cases of every op', () => {
  const ops = new Set(
    files.map((f) => f.slice(0, f.lastIndexOf('-', f.startsWith('mgf_model') ? 9 : undefined))),
  );
  for (const op of [...Object.keys(builders), 'mgf_model']) assert.ok(ops.has(op), `no case of ${op}`);
  assert.ok(files.length >= 46);
});

for (const file of files) {
  test(`${file} passes`, async () => {
    const result = await runCase(gpu, load(file), file);
    assert.ok(result.passed, result.failure ?? JSON.stringify(result.checks.filter((c) => !c.passed)));
    assert.ok(result.checks.every((c) => Number.isFinite(c.error)));
  });
}

test('a file as it is survives being taken apart and put together', async () => {
  assert.ok(
    (
      await runCase(
        gpu,
        edited('linear-odd.safetensors', () => undefined),
        'same',
      )
    ).passed,
  );
});

test('one expected number that is off by more than the tolerance fails its check and no other', async () => {
  for (const name of ['out.y', 'grad.x', 'grad.weight', 'grad.bias']) {
    const { passed, checks } = await runCase(
      gpu,
      poke('linear-odd.safetensors', name, 3, (x) => x + 1),
      name,
    );
    assert.not(passed);
    assert.equal(
      checks.filter((c) => !c.passed).map((c) => c.name),
      [name],
    );
  }
});

test('one expected number off by a hundredth of its size fails', async () => {
  assert.not(
    (
      await runCase(
        gpu,
        poke('l1_loss-plain.safetensors', 'out.y', 0, (x) => x * 1.01),
        'off',
      )
    ).passed,
  );
});

test('a NaN fails, whether expected or computed', async () => {
  for (const name of ['out.y', 'grad.x', 'in.x', 'in.weight'])
    assert.not(
      (
        await runCase(
          gpu,
          poke('linear-odd.safetensors', name, 0, () => NaN),
          name,
        )
      ).passed,
      name,
    );
  assert.not(
    (
      await runCase(
        gpu,
        poke('gelu-basic.safetensors', 'in.x', 0, () => Infinity),
        'infinite',
      )
    ).passed,
  );
});

test('an op that does not exist fails and says which ops do', async () => {
  const { passed, failure, op } = await runCase(
    gpu,
    edited('gelu-basic.safetensors', (h) => {
      h['__metadata__']['op'] = 'warp';
    }),
    'unknown',
  );
  assert.equal([passed, op], [false, 'warp']);
  assert.match(failure!, /no op "warp".*conv1d.*mgf_model/);
});

test('a truncated file, an empty one and one that is no case fail with a sentence', async () => {
  const whole = load('gelu-basic.safetensors');
  for (const [bytes, name] of [
    [whole.subarray(0, whole.length - 4), 'short'],
    [whole.subarray(0, 20), 'header'],
    [new Uint8Array(), 'empty'],
    [new Uint8Array(100).fill(65), 'letters'],
  ] as const) {
    const { passed, failure } = await runCase(gpu, bytes, name);
    assert.not(passed, name);
    assert.ok(failure!.length > 10, name);
  }
  assert.match(
    (
      await runCase(
        gpu,
        edited('gelu-basic.safetensors', (h) => {
          h['__metadata__']['schema'] = 'other/1';
        }),
        'other schema',
      )
    ).failure!,
    /not a conformance case/,
  );
});

test('a case without an expected output, or without one of its inputs, fails', async () => {
  const without = (name: string): Uint8Array<ArrayBuffer> =>
    edited('linear-odd.safetensors', (h) => {
      h[`${name}.renamed`] = h[name]!;
      delete (h as Record<string, unknown>)[name];
    });
  for (const name of ['out.y', 'in.x', 'in.weight']) {
    const { passed, failure } = await runCase(gpu, without(name), name);
    assert.not(passed);
    assert.match(failure!, new RegExp(`"${name.replace('.', '\\.')}"`));
  }
});

test('attributes and upstream gradients matter: changed ones fail', async () => {
  const stride = edited('conv1d-mid.safetensors', (h) => {
    h['__metadata__']['attrs'] = JSON.stringify({
      ...(JSON.parse(h['__metadata__']['attrs']!) as object),
      stride: 3,
    });
  });
  assert.not((await runCase(gpu, stride, 'stride')).passed);
  const { checks } = await runCase(
    gpu,
    poke('linear-odd.safetensors', 'up.y', 0, (x) => x + 3),
    'up',
  );
  assert.equal(
    checks.filter((c) => c.passed).map((c) => c.name),
    ['out.y'],
  );
});

test(
  'the rule of a comparison: relative in norm, absolute for zeros, a floor for gradients, and nothing ' +
    'but a number passes',
  () => {
    assert.ok(checkOutput('y', [1.00001, 2], [1, 2], 1e-5).passed);
    assert.not(checkOutput('y', [1.0001, 2], [1, 2], 1e-5).passed);
    assert.ok(checkOutput('y', [1e-6, 0], [0, 0], 1e-5).passed);
    assert.not(checkOutput('y', [1e-4, 0], [0, 0], 1e-5).passed);
    assert.not(checkGradient('w', [1e-6], [1e-9], 1e-3, 0, 10).passed);
    assert.ok(checkGradient('w', [1e-6], [1e-9], 1e-3, 1e-3, 10).passed);
    for (const got of [[NaN, 2], [Infinity, 2], [1], [1, 2, 3], []])
      assert.is(relativeError(got, [1, 2], 1), Infinity);
  },
);

test.run();
