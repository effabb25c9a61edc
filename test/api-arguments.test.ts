/**
 * Every function and class of the public API, called with nothing and with wrong kinds of arguments: whatever
 * is thrown is an MGFError in words.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkNames, checkOptions, describe } from '../src/check.ts';
import * as api from '../src/node.ts';
import { failsWith } from './harness.ts';

type Callable = (...given: unknown[]) => unknown;
const folder = mkdtempSync(join(tmpdir(), 'mgf-arguments-'));

/** Arguments that no function wants. The text is the name of a file that is not there. */
const WRONG: Readonly<Record<string, readonly unknown[]>> = {
  nothing: [],
  null: [null],
  'two nulls': [null, null],
  'a number': [42],
  'an object': [{ nonsense: 1 }],
  objects: [{ nonsense: 1 }, { nonsense: 1 }, { nonsense: 1 }],
  'a text': [join(folder, 'nothing-there')],
  'a function': [() => 1],
  'a list': [[1, 2]],
  'a list of objects': [[{ nonsense: 1 }]],
  bytes: [new Uint8Array(30), {}],
};

/** What takes null without a word, and why. */
const LENIENT: Readonly<Record<string, string>> = {
  MGFError: 'an error',
  Graph: 'takes no arguments',
  ceilDiv: 'arithmetic',
  defaultAttach: 'arithmetic',
  f32: 'a record of its arguments',
  i32: 'a record of its arguments',
  kernel: 'a record of its arguments, checked by compile',
  scalar: 'a record of its arguments',
};
/** What does something when called with nothing. */
const OPTIONAL = ['openGpu'];

const isClass = (f: Callable): boolean => /^class\b/.test(Function.prototype.toString.call(f));

/** What a call throws or is rejected with; null where it answers. */
async function thrown(f: Callable, given: readonly unknown[]): Promise<unknown> {
  try {
    await (isClass(f) ? Reflect.construct(f, given) : f(...given));
    return null;
  } catch (error) {
    return error;
  }
}

const callables = Object.entries(api as Readonly<Record<string, unknown>>).filter(
  (entry): entry is [string, Callable] => typeof entry[1] === 'function',
);

test('whatever the API throws for wrong arguments is an MGFError in words', async () => {
  const wrong: string[] = [];
  for (const [name, f] of callables) {
    for (const [kind, given] of Object.entries(WRONG)) {
      if (kind === 'nothing' && OPTIONAL.includes(name)) continue;
      const error = await thrown(f, given);
      if (error !== null && !(error instanceof api.MGFError && error.message.length > 10))
        wrong.push(`${name} of ${kind}: ${String(error)}`);
    }
  }
  assert.equal(wrong, []);
});

test('null is refused by all but those that are listed with a reason', async () => {
  const lenient: string[] = [];
  for (const [name, f] of callables) if ((await thrown(f, [null])) === null) lenient.push(name);
  assert.equal(lenient.sort(), Object.keys(LENIENT).sort());
});

test('the static makers of classes refuse wrong arguments as functions do', async () => {
  const { BatchSource, Encoder, MGF, Pretrainer, TaskNetwork } = api;
  const makers: Readonly<Record<string, unknown>> = {
    'BatchSource.open': BatchSource.open,
    'BatchSource.shapeOf': BatchSource.shapeOf,
    'Encoder.create': Encoder.create,
    'Encoder.random': Encoder.random,
    'Pretrainer.create': Pretrainer.create,
    'TaskNetwork.create': TaskNetwork.create,
  };
  const wrong: string[] = [];
  for (const [name, make] of Object.entries(makers)) {
    for (const given of Object.values(WRONG)) {
      const error = await thrown(make as Callable, given);
      if (!(error instanceof api.MGFError)) wrong.push(`${name}: ${String(error)}`);
    }
  }
  for (const [kind, given] of Object.entries(WRONG)) {
    if (kind === 'nothing') continue;
    const error = await thrown((...all) => MGF.load(...(all as Parameters<typeof MGF.load>)), given);
    if (!(error instanceof api.MGFError)) wrong.push(`MGF.load of ${kind}: ${String(error)}`);
  }
  assert.equal(wrong, []);
});

test('an option that does not exist is named with the nearest one', async () => {
  const { f32, Graph } = api;
  const g = new Graph();
  const x = g.input('x', [4, 8]);
  const untyped = (value: unknown): never => value as never;
  const cases: [string, string, () => unknown][] = [
    ['itms', 'items', () => api.pretrain(untyped({ itms: [] }))],
    ['prefers', 'prefer', () => api.openGpu(untyped({ prefers: 'gpu' }))],
    ['layr', 'layer', () => api.probe(untyped({ layr: 1 }))],
    ['layer', 'layers', () => api.probeTask(untyped({ layer: 1 }))],
    ['encodr', 'encoder', () => api.finetune(untyped({ encodr: 1 }))],
    ['orign', 'origin', () => api.readSafetensors(new Uint8Array(9), untyped({ orign: 'x' }))],
    ['seeds', 'seed', () => api.readTask('speaker', folder, untyped({ seeds: 1 }))],
    ['residul', 'residual', () => api.linear(x, x, null, untyped({ residul: x }))],
    ['strides', 'stride', () => api.conv1d(x, x, null, untyped({ strides: 2 }))],
    ['epsilon', 'eps', () => api.layerNorm(x, null, null, untyped({ epsilon: 1 }))],
    ['keep_last', 'keepLast', () => new api.CheckpointStore(folder, untyped({ keep_last: 2 }))],
    ['melframes', 'melFrames', () => api.logMelPairs(x, untyped({ melframes: x }))],
    ['dtyp', 'dtype', () => g.state('s', f32(4).shape, untyped({ dtyp: 'f32' }))],
    ['trainn', 'train', () => api.presetRunConfig('nano', untyped({ trainn: {} }))],
    ['prefech', 'prefetch', () => api.createLoader(untyped({ prefech: 1 }))],
  ];
  for (const [given, nearest, call] of cases) {
    await failsWith(
      'usage',
      new RegExp(`: unknown option "${given}"; the nearest known one is "${nearest}"\\.$`),
      async () => call(),
    );
  }
});

test('an input of an op that is no value is named with the op and its place', async () => {
  const { add, gelu, Graph, linear, mix } = api;
  const x = new Graph().input('x', [4]);
  await failsWith('usage', /^gelu: input 0 is 3, but must be a Value of a Graph\.$/, async () =>
    gelu(3 as never),
  );
  await failsWith('usage', /^add: input 1 is undefined, but must be a Value/, async () =>
    (add as unknown as Callable)(x),
  );
  await failsWith('usage', /^linear: input 1 is null, but must be a Value/, async () =>
    linear(x, null as never),
  );
  await failsWith('usage', /^mix: tensors is an object, but must be a list/, async () => mix({} as never, x));
  await failsWith('usage', /^compile: outputs\.y is a list of 1, but must be a Value/, () =>
    api.compile({ device: 1, profile: 1 } as never, x.graph, { outputs: { y: [x] as never } }),
  );
});

test('values are described by kind, never at length', () => {
  const cases: [unknown, string][] = [
    [null, 'null'],
    [undefined, 'undefined'],
    [true, 'true'],
    [0.5, '0.5'],
    ['a.wav', '"a.wav"'],
    ['x'.repeat(100), `"${'x'.repeat(37)}..."`],
    [[1, 2], 'a list of 2'],
    [new Uint8Array(1e6), 'a Uint8Array'],
    [new Int16Array(2), 'an Int16Array'],
    [new ArrayBuffer(2), 'an ArrayBuffer'],
    [{}, 'an object'],
    [() => 1, 'a function'],
    [new Map(), 'a Map'],
    [new URL('file:///x'), 'a URL'],
    [new api.LossScaler({ step: 0 }), 'a LossScaler'],
    [Object.create(null), 'an object'],
    [5n, 'a bigint'],
  ];
  for (const [value, want] of cases) assert.is(describe(value), want);
});

test('a check passes what fits, inherited and undefined options included', () => {
  const rules = { layer: 'a number?', pool: '"none"|"mean"?' };
  for (const given of [{}, { layer: 3 }, { layer: undefined, pool: 'mean' }]) checkOptions('f', given, rules);
  checkNames('f', 'input', [], []);
  assert.throws(() => checkNames('f', 'input', ['x'], []), /^f: unknown input "x"; there are none\.$/);
  assert.throws(
    () => checkOptions('f', { pool: 'max' }, rules),
    /^f: the option pool is "max", but must be "none" or "mean"\.$/,
  );
});

test.after(() => rmSync(folder, { recursive: true, force: true }));

test.run();
