import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MGFError } from '../src/errors.ts';
import { elements, type Shape } from '../src/graph/shape.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { vectorJacobianProduct } from '../src/ops/grad.ts';
import { crossEntropy, crossEntropyReference } from '../src/ops/losses/cross-entropy.ts';
import { ctcLoss, ctcLossReference } from '../src/ops/losses/ctc.ts';
import { maskedInfoNCE, maskedInfoNCEReference } from '../src/ops/losses/info-nce.ts';
import { l1Loss, mseLoss, pointwiseLossReference } from '../src/ops/losses/pointwise.ts';
import { maskedMean, maskedMeanReference } from '../src/ops/masked-mean.ts';
import { ntXent, ntXentReference } from '../src/ops/losses/nt-xent.ts';
import { logSoftmax, logSoftmaxReference, softmax } from '../src/ops/softmax.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';

const gpu = await openTestGpu();

type Floats = Float32Array<ArrayBuffer>;
type Ints = Int32Array<ArrayBuffer>;

function generator(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
const noise = (n: number, seed: number, scale = 1): Floats => {
  const next = generator(seed);
  return Float32Array.from({ length: n }, () => scale * (next() + next() + next() - 1.5) * 2);
};
const integers = (n: number, below: number, seed: number): Ints => {
  const next = generator(seed);
  return Int32Array.from({ length: n }, () => Math.floor(next() * below));
};

interface Tensor {
  shape: Shape;
  data: Floats | Ints;
  grad?: boolean;
}
interface Case {
  inputs: Record<string, Tensor>;
  build: (inputs: Record<string, Value>) => Value;
  /** The same in float64; integer inputs come as they are. */
  reference?: (inputs: Record<string, Float64Array>) => Float64Array;
  tolerance?: number;
  gradTolerance?: number;
  /** Upstream gradient of the output; default: noise. */
  up?: Floats;
}
interface Result {
  y: Floats;
  gradients: Record<string, Floats>;
}

const distance = (got: ArrayLike<number>, want: ArrayLike<number>): number => {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    error += (got[i]! - want[i]!) ** 2;
    norm += want[i]! ** 2;
  }
  return got.length === want.length && Number.isFinite(error)
    ? Math.sqrt(error) / (Math.sqrt(norm) || 1)
    : Infinity;
};

/** Runs a case on the device: output and gradients of sum(up * y), all poisoned before. */
async function run(name: string, { inputs, build, up: given }: Case): Promise<Result & { up: Floats }> {
  const graph = new Graph();
  const place = new Map<Value, { buffer: GPUBuffer; offset: number; size: number }>();
  const values = Object.fromEntries(
    Object.entries(inputs).map(([k, t]) => {
      if (!t.grad) return [k, graph.constant(k, t.shape, t.data)];
      const value = graph.state(k, t.shape, { requiresGrad: true });
      const buffer = gpu.device.createBuffer({
        size: Math.max(16, Math.ceil(t.data.length / 4) * 16),
        usage: 0x80 | 0x4 | 0x8,
      });
      gpu.device.queue.writeBuffer(buffer, 0, t.data);
      place.set(value, { buffer, offset: 0, size: buffer.size });
      return [k, value];
    }),
  );
  const y = build(values);
  const up = given ?? noise(elements(y.shape), 99, 2);
  const wanted = Object.keys(inputs).filter((k) => inputs[k]!.grad);
  const keep: Record<string, Value> = { y };
  if (wanted.length) {
    vectorJacobianProduct(
      new Map([[y, graph.constant('up', y.shape, up)]]),
      wanted.map((k) => values[k]!),
    ).forEach((g, i) => {
      keep[`d ${wanted[i]}`] = g;
    });
  }
  const program = await compile(gpu, graph, { keep, place, label: name });
  program.poison();
  await program.step();
  const gradients: Record<string, Floats> = {};
  for (const k of wanted) gradients[k] = (await program.read(`d ${k}`)) as Floats;
  const result = { y: (await program.read('y')) as Floats, gradients, up };
  program.destroy();
  for (const { buffer } of place.values()) buffer.destroy();
  return result;
}

/**
 * Forward against the float64 reference; gradients against its central differences, for every element of
 * small inputs, along directions for large ones.
 */
async function check(name: string, c: Case): Promise<Result> {
  const result = await run(name, c);
  const reference = c.reference!;
  const f64 = Object.fromEntries(Object.entries(c.inputs).map(([k, t]) => [k, Float64Array.from(t.data)]));
  const error = distance(result.y, reference(f64));
  assert.ok(error <= (c.tolerance ?? 5e-6), `${name}: forward is off by ${error}`);
  const objective = (k: string, x: Float64Array): number =>
    reference({ ...f64, [k]: x }).reduce((sum, v, i) => sum + v * result.up[i]!, 0);
  for (const [k, got] of Object.entries(result.gradients)) {
    const x = f64[k]!;
    const h = 1e-5;
    const n = got.length;
    const got1: number[] = [];
    const want: number[] = [];
    const directions = n <= 600 ? n : 3;
    for (let d = 0; d < directions; d++) {
      const direction =
        n <= 600 ? Float64Array.from(x, (_, i) => Number(i === d)) : Float64Array.from(noise(n, 7 + d));
      const at = (sign: number): number =>
        objective(
          k,
          x.map((v, i) => v + sign * h * direction[i]!),
        );
      want.push((at(1) - at(-1)) / (2 * h));
      got1.push(got.reduce((sum, g, i) => sum + g * direction[i]!, 0));
    }
    const off = distance(got1, want);
    assert.ok(off <= (c.gradTolerance ?? 2e-5), `${name}: gradient of ${k} is off by ${off}`);
  }
  return result;
}

const failsWith = (part: RegExp, build: () => unknown): void => {
  try {
    build();
  } catch (error) {
    assert.instance(error, MGFError);
    assert.match((error as Error).message, part);
    return;
  }
  assert.unreachable('nothing was thrown');
};

for (const [kind, op] of [
  ['l1', l1Loss],
  ['mse', mseLoss],
] as const) {
  for (const [what, shape, mask] of [
    ['without a mask, odd length', [3, 7], null],
    ['without a mask', [4, 36], null],
    ['with a mask over all but the last axis', [2, 19, 8], [2, 19]],
    ['with a mask and odd rows', [2, 9, 5], [2, 9]],
    ['with two weights a frame', [3, 11, 16], [3, 11, 2]],
    ['with a weight an element', [5, 13], [5, 13]],
    ['of many elements', [3, 1000, 40], [3, 1000]],
  ] as const) {
    test(`${kind} loss ${what} is the reference's`, async () => {
      const weights = mask && Float32Array.from(integers(elements(mask), 2, 5));
      const y = noise(elements(shape), 2);
      const x = noise(elements(shape), 1);
      // |x - y| has a kink: keep differences away from it for the central differences.
      for (let i = 0; i < x.length; i++) if (Math.abs(x[i]! - y[i]!) < 1e-3) x[i] = y[i]! + 0.1;
      await check(kind, {
        inputs: {
          x: { shape, data: x, grad: true },
          y: { shape, data: y },
          ...(mask && { mask: { shape: mask, data: weights! } }),
        },
        build: (v) => op(v['x']!, v['y']!, v['mask'] ?? null),
        reference: (v) => Float64Array.of(pointwiseLossReference(v['x']!, v['y']!, v['mask'] ?? null, kind)),
      });
    });
  }
  test(`${kind} loss of nothing but masked elements is zero, whatever they hold`, async () => {
    const { y, gradients } = await run(kind, {
      inputs: {
        x: { shape: [2, 4], data: Float32Array.of(1, 2, NaN, 4, 5, 6, 7, Infinity), grad: true },
        y: { shape: [2, 4], data: noise(8, 1) },
        mask: { shape: [2], data: new Float32Array(2) },
      },
      build: (v) => op(v['x']!, v['y']!, v['mask']!),
    });
    assert.equal([...y], [0]);
    assert.equal([...gradients['x']!], new Array(8).fill(0));
  });
}

test('the l1 gradient is zero where both are equal', async () => {
  const { gradients, up } = await run('l1', {
    inputs: {
      x: { shape: [4], data: Float32Array.of(1, 2, 3, 4), grad: true },
      y: { shape: [4], data: Float32Array.of(1, 3, 3, 0) },
    },
    build: (v) => l1Loss(v['x']!, v['y']!),
  });
  assert.equal([...gradients['x']!], [0, -up[0]! / 4, 0, up[0]! / 4]);
});

test('a mask that does not divide x is refused with both shapes', () => {
  const g = new Graph();
  failsWith(/l1_loss: a mask \[4\] cannot weigh equal groups of x \[2, 5\]/, () =>
    l1Loss(g.input('x', [2, 5]), g.input('y', [2, 5]), g.input('m', [4])),
  );
  failsWith(/mse_loss: x \[2, 5\] and y \[5, 2\]/, () => mseLoss(g.input('a', [2, 5]), g.input('b', [5, 2])));
});

interface Contrast {
  B: number;
  T: number;
  P: number;
  N: number;
  K: number;
  repeat?: boolean;
  weights?: boolean;
}

/**
 * Distinct anchors (or, with `repeat`, any), negatives from all frames but the anchor's; the last third of
 * weighted anchors are fillers on frame 0.
 */
function contrast({
  B,
  T,
  P,
  N,
  K,
  repeat,
  weights,
}: Contrast): Record<string, Tensor> & { anchor: Tensor; negatives: Tensor } {
  const F = B * T;
  const order = [...integers(F, 1 << 20, 3)]
    .map((v, i) => [v, i] as const)
    .sort((a, b) => a[0] - b[0])
    .map(([, i]) => i);
  const anchor = repeat ? integers(N, F, 4) : Int32Array.from(order.slice(0, N));
  const negatives = integers(N * K, F - 1, 5).map((v, i) => v + Number(v >= anchor[Math.floor(i / K)]!));
  const w = Float32Array.from({ length: N }, (_, n) => Number(n < (2 * N) / 3));
  if (weights)
    w.forEach((v, n) => {
      if (!v) {
        anchor[n] = 0;
        negatives.fill(0, n * K, (n + 1) * K);
      }
    });
  return {
    c: { shape: [B, T, P], data: noise(F * P, 1), grad: true },
    z: { shape: [B, T, P], data: noise(F * P, 2), grad: true },
    anchor: { shape: [N], data: anchor },
    negatives: { shape: [N, K], data: negatives },
    ...(weights && { weights: { shape: [N], data: w } }),
  };
}
const infoNCECase = (inputs: Record<string, Tensor>, temperature: number, output: 0 | 1 = 0): Case => ({
  inputs,
  build: (v) =>
    maskedInfoNCE(v['c']!, v['z']!, v['anchor']!, v['negatives']!, {
      temperature,
      weights: v['weights'] ?? null,
    })[output],
  reference: (v) => {
    const { loss, accuracy } = maskedInfoNCEReference(
      v['c']!,
      v['z']!,
      inputs['anchor']!.data as Ints,
      inputs['negatives']!.data as Ints,
      inputs['c']!.shape.at(-1)!,
      {
        temperature,
        ...(v['weights'] && { weights: v['weights'] }),
      },
    );
    return Float64Array.of(output ? accuracy : loss);
  },
});
const frozen = (inputs: Record<string, Tensor>): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(inputs).map(([k, t]) => [k, { ...t, grad: false }]));

for (const [what, sizes] of [
  ['with distinct anchors', { B: 2, T: 9, P: 16, N: 10, K: 7 }],
  ['with odd channels', { B: 2, T: 9, P: 13, N: 7, K: 10 }],
  ['with repeated anchors', { B: 1, T: 6, P: 8, N: 11, K: 5, repeat: true }],
  [
    'with weight-0 fillers on a frame that is an anchor too',
    { B: 2, T: 12, P: 8, N: 17, K: 9, weights: true },
  ],
  ['with one anchor and one negative', { B: 1, T: 2, P: 4, N: 1, K: 1 }],
  ['with more anchors than blocks of the index', { B: 3, T: 60, P: 8, N: 170, K: 20 }],
  ['at the size of the micro preset', { B: 8, T: 96, P: 64, N: 384, K: 100, weights: true }],
] as const) {
  test(`masked InfoNCE ${what} is the reference's, and so is its accuracy`, async () => {
    const inputs = contrast(sizes);
    const result = await check('masked_info_nce', infoNCECase(inputs, 0.1));
    await check('masked_info_nce accuracy', infoNCECase(frozen(inputs), 0.1, 1));
    const F = sizes.B * sizes.T;
    const used = new Set<number>();
    inputs.anchor.data.forEach((f, n) => {
      if (!inputs['weights'] || inputs['weights'].data[n]) used.add(f);
    });
    for (let f = 0; f < F; f++) {
      const row = result.gradients['c']!.subarray(f * sizes.P, (f + 1) * sizes.P);
      assert.is(
        row.some((v) => v !== 0),
        used.has(f),
        `row ${f} of dc`,
      );
    }
  });
}

test('masked InfoNCE repeats bit for bit', async () => {
  const c = infoNCECase(contrast({ B: 2, T: 50, P: 32, N: 60, K: 40, repeat: true }), 0.1);
  const first = await run('first', c);
  const second = await run('second', c);
  assert.equal(first, second);
});

test('masked InfoNCE of identical vectors is ln(K + 1) with no hit, and its gradients vanish', async () => {
  const inputs = contrast({ B: 1, T: 20, P: 16, N: 10, K: 12 });
  for (const k of ['c', 'z']) inputs[k]!.data = Float32Array.from({ length: 320 }, (_, i) => 1 + (i % 16));
  const { y, gradients } = await run('constant', infoNCECase(inputs, 0.1));
  assert.ok(Math.abs(y[0]! - Math.log(13)) < 1e-5, `${y[0]}`);
  assert.is((await run('constant', infoNCECase(frozen(inputs), 0.1, 1))).y[0], 0);
  for (const g of Object.values(gradients)) assert.ok(g.every((v) => Math.abs(v) < 1e-6));
});

test('masked InfoNCE counts a duplicate of the positive as a tie, and the loss has the floor ln 2', async () => {
  const inputs = contrast({ B: 1, T: 8, P: 8, N: 4, K: 3 });
  inputs['z']!.data = inputs['c']!.data.map((v, i) => v + 0.3 * inputs['z']!.data[i]!) as Floats;
  for (let n = 0; n < 4; n++) inputs.negatives.data[n * 3] = inputs.anchor.data[n]!;
  const { y } = await check('tie', infoNCECase(inputs, 0.1));
  assert.ok(y[0]! >= Math.log(2) - 1e-5);
  assert.is((await run('tie', infoNCECase(frozen(inputs), 0.1, 1))).y[0], 0);
});

test('masked InfoNCE stays finite for zero vectors and very long ones', async () => {
  const inputs = contrast({ B: 1, T: 8, P: 8, N: 4, K: 3 });
  inputs['c']!.data = noise(64, 1, 1e6);
  inputs['c']!.data.fill(0, 8 * inputs.anchor.data[0]!, 8 * inputs.anchor.data[0]! + 8);
  inputs['z']!.data.fill(0, 8 * inputs.negatives.data[4]!, 8 * inputs.negatives.data[4]! + 8);
  const c = infoNCECase(inputs, 0.1);
  const { y, gradients } = await run('zero', c);
  assert.ok(
    distance(
      y,
      c.reference!(
        Object.fromEntries(Object.entries(inputs).map(([k, t]) => [k, Float64Array.from(t.data)])),
      ),
    ) < 1e-5,
  );
  for (const g of Object.values(gradients)) assert.ok(g.every(Number.isFinite));
});

test('the accuracy of masked InfoNCE cannot be minimised', async () => {
  const { inputs, build } = infoNCECase(contrast({ B: 1, T: 4, P: 4, N: 2, K: 2 }), 0.1, 1);
  try {
    await run('accuracy', { inputs, build });
    assert.unreachable('nothing was thrown');
  } catch (error) {
    assert.match((error as Error).message, /accuracy cannot be part of what is minimised/);
  }
});

for (const [B, P] of [
  [2, 4],
  [3, 7],
  [8, 64],
  [5, 12],
  [40, 16],
] as const) {
  test(`NT-Xent of ${B} pairs of ${P} channels is the reference's`, async () => {
    await check('nt_xent', {
      inputs: {
        a: { shape: [B, P], data: noise(B * P, 1), grad: true },
        b: { shape: [B, P], data: noise(B * P, 2), grad: true },
      },
      build: (v) => ntXent(v['a']!, v['b']!, { temperature: 0.1 }),
      reference: (v) => Float64Array.of(ntXentReference(v['a']!, v['b']!, P, 0.1)),
    });
  });
}

test('NT-Xent of identical vectors is ln(2B - 1), and stays finite for a zero vector', async () => {
  const same: Record<string, Tensor> = {
    a: { shape: [6, 8], data: new Float32Array(48).fill(3), grad: true },
    b: { shape: [6, 8], data: new Float32Array(48).fill(0.5) },
  };
  const build = (v: Record<string, Value>): Value => ntXent(v['a']!, v['b']!);
  const { y, gradients } = await run('same', { inputs: same, build });
  assert.ok(Math.abs(y[0]! - Math.log(11)) < 1e-5);
  assert.ok(gradients['a']!.every((v) => Math.abs(v) < 1e-5));
  same['a']!.data.fill(0, 0, 8);
  const zero = await run('zero', { inputs: same, build });
  assert.ok([...zero.y, ...zero.gradients['a']!].every(Number.isFinite));
});

test('NT-Xent of one utterance is refused', () => {
  const g = new Graph();
  failsWith(/nt_xent: one utterance has no negatives/, () =>
    ntXent(g.input('a', [1, 8]), g.input('b', [1, 8])),
  );
});

for (const [shape, masked] of [
  [[3, 21, 16], true],
  [[2, 5, 7], true],
  [[2, 40, 12], false],
  [[1, 1, 3], false],
] as const) {
  test(`mean over time of [${shape.join(', ')}]${masked ? ' under a mask' : ''} is the reference's`, async () => {
    const [B, T, D] = shape;
    const mask = Float32Array.from(integers(B * T, 2, 8));
    mask.fill(0, 0, T); // a row without any frame is zero
    await check('masked_mean', {
      inputs: {
        x: { shape, data: noise(B * T * D, 1), grad: true },
        ...(masked && { mask: { shape: [B, T], data: mask } }),
      },
      build: (v) => maskedMean(v['x']!, v['mask'] ?? null),
      reference: (v) => maskedMeanReference(v['x']!, v['mask'] ?? null, shape),
    });
  });
}

for (const shape of [
  [4, 33],
  [2, 3, 8],
  [70, 5],
  [1, 1],
] as const) {
  const x: Tensor = { shape, data: noise(elements(shape), 3, 4), grad: true };
  const width = shape.at(-1)!;
  test(`softmax and log-softmax of [${shape.join(', ')}] are the reference's`, async () => {
    await check('log_softmax', {
      inputs: { x },
      build: (v) => logSoftmax(v['x']!),
      reference: (v) => logSoftmaxReference(v['x']!, width),
    });
    await check('softmax', {
      inputs: { x },
      build: (v) => softmax(v['x']!),
      reference: (v) => logSoftmaxReference(v['x']!, width).map(Math.exp),
    });
  });
}

test('softmax of huge logits is finite and right', async () => {
  const x = {
    shape: [2, 5],
    data: Float32Array.of(1e4, -1e4, 3e4, 0, 3e4, -3e37, -1e37, -2e37, -1e37, -3e37),
    grad: true,
  };
  const { y, gradients } = await run('softmax', { inputs: { x }, build: (v) => softmax(v['x']!) });
  assert.equal([...y], [0, 0, 0.5, 0, 0.5, 0, 0.5, 0, 0.5, 0]);
  assert.ok(gradients['x']!.every(Number.isFinite));
  const log = await run('log_softmax', { inputs: { x }, build: (v) => logSoftmax(v['x']!) });
  assert.ok([...log.y, ...log.gradients['x']!].every(Number.isFinite));
});

for (const [N, C, ignored] of [
  [17, 41, 0],
  [20, 6, 7],
  [9, 8, 3],
  [1, 4, 0],
  [300, 12, 50],
] as const) {
  test(`cross-entropy of ${N} rows, ${C} classes, ${ignored} ignored is the reference's`, async () => {
    const target = integers(N, C, 6).map((t, n) => (n < ignored ? -100 : t));
    await check('cross_entropy', {
      inputs: {
        logits: { shape: [N, C], data: noise(N * C, 1, 3), grad: true },
        target: { shape: [N], data: target },
      },
      build: (v) => crossEntropy(v['logits']!, v['target']!),
      reference: (v) => Float64Array.of(crossEntropyReference(v['logits']!, target, C)),
    });
  });
}

test('cross-entropy with every target ignored is zero with a zero gradient; huge logits stay finite', async () => {
  const build = (v: Record<string, Value>): Value =>
    crossEntropy(v['logits']!, v['target']!, { ignoreIndex: 2 });
  const none = await run('ignored', {
    inputs: {
      logits: { shape: [3, 4], data: noise(12, 1), grad: true },
      target: { shape: [3], data: new Int32Array(3).fill(2) },
    },
    build,
  });
  assert.equal([...none.y, ...none.gradients['logits']!], new Array(13).fill(0));
  const logits = Float32Array.of(1e5, -1e5, 0, 3, 0, 1e5, 7, -1e5);
  const huge = await run('huge', {
    inputs: {
      logits: { shape: [2, 4], data: logits, grad: true },
      target: { shape: [2], data: Int32Array.of(0, 3) },
    },
    build,
  });
  assert.equal([...huge.y], [1e5]);
  assert.equal(
    [...huge.gradients['logits']!],
    [0, 0, 0, 0, 0, 0.5, 0, -0.5].map((v) => v * huge.up[0]! + 0),
  );
});

interface Speech {
  T: number;
  C: number;
  targets: number[][];
  inputLengths: number[];
  blank?: number;
  zeroInfinity?: boolean;
  scale?: number;
}
function ctcCase({ T, C, targets, inputLengths, blank = 0, zeroInfinity = true, scale = 2 }: Speech): Case {
  const B = targets.length;
  const S = Math.max(1, ...targets.map((t) => t.length));
  const padded = Int32Array.from(
    targets.flatMap((t) => [...t, ...new Array<number>(S - t.length).fill((blank + 1) % C)]),
  );
  const targetLengths = Int32Array.from(targets, (t) => t.length);
  return {
    inputs: {
      logits: { shape: [B, T, C], data: noise(B * T * C, 1, scale), grad: true },
      targets: { shape: [B, S], data: padded },
      inputLengths: { shape: [B], data: Int32Array.from(inputLengths) },
      targetLengths: { shape: [B], data: targetLengths },
    },
    build: (v) =>
      ctcLoss(v['logits']!, v['targets']!, v['inputLengths']!, v['targetLengths']!, { blank, zeroInfinity }),
    reference: (v) =>
      Float64Array.of(
        ctcLossReference(v['logits']!, padded, inputLengths, targetLengths, [B, T, C], {
          blank,
          zeroInfinity,
        }),
      ),
  };
}

/** -log of the sum over all C^T paths that collapse to the target. */
function bruteForce(
  logits: ArrayLike<number>,
  T: number,
  C: number,
  target: number[],
  blank: number,
): number {
  const p = logSoftmaxReference(Float64Array.from(logits), C).map(Math.exp);
  const wanted = target.join();
  let sum = 0;
  for (let code = 0; code < C ** T; code++) {
    const path = Array.from({ length: T }, (_, t) => Math.floor(code / C ** t) % C);
    if (path.filter((c, t) => c !== blank && c !== path[t - 1]).join() === wanted)
      sum += path.reduce((product, c, t) => product * p[t * C + c]!, 1);
  }
  return -Math.log(sum);
}

for (const target of [[1], [1, 2], [1, 1], [2, 1, 2], []]) {
  test(`CTC of "${target.join(' ')}" is the sum over all paths`, async () => {
    const c = ctcCase({ T: 5, C: 3, targets: [target], inputLengths: [5] });
    const want = bruteForce(c.inputs['logits']!.data, 5, 3, target, 0);
    assert.ok(Math.abs((await check('ctc_loss', c)).y[0]! - want / Math.max(1, target.length)) < 1e-5);
  });
}

for (const [what, c] of [
  [
    'of ragged utterances with repeated labels',
    { T: 30, C: 12, targets: [[8, 8, 3, 6, 2, 9], [11, 6, 10, 5], [4]], inputLengths: [30, 22, 7] },
  ],
  [
    'with the blank last',
    {
      T: 12,
      C: 5,
      targets: [
        [0, 1, 1],
        [3, 0],
      ],
      inputLengths: [12, 9],
      blank: 4,
    },
  ],
  ['of a target as long as the input', { T: 6, C: 5, targets: [[1, 2, 3, 4, 1, 2]], inputLengths: [6] }],
  [
    'of more states than lanes',
    { T: 90, C: 7, targets: [Array.from({ length: 40 }, (_, i) => 1 + ((i * i) % 6))], inputLengths: [90] },
  ],
  [
    'of confident logits',
    {
      T: 20,
      C: 6,
      targets: [
        [1, 2, 3],
        [4, 4],
      ],
      inputLengths: [20, 20],
      scale: 60,
    },
  ],
] as const) {
  test(`CTC ${what} is the reference's`, async () => {
    await check('ctc_loss', { ...ctcCase(c as unknown as Speech), tolerance: 1e-5, gradTolerance: 1e-4 });
  });
}

test("CTC of 700 frames and 140 labels is the reference's", async () => {
  const targets = [Array.from(integers(140, 31, 5), (v) => v + 1)];
  await check('ctc_loss', {
    ...ctcCase({ T: 700, C: 32, targets, inputLengths: [700], scale: 1 }),
    tolerance: 2e-5,
    gradTolerance: 1e-3,
  });
});

test('CTC without a path is infinite or, if asked, zero; its gradient is zero and others keep theirs', async () => {
  const speech: Speech = { T: 4, C: 3, targets: [[1, 1, 1], [2]], inputLengths: [4, 4] };
  const { gradients } = await check('ctc_loss', ctcCase(speech));
  assert.ok(gradients['logits']!.subarray(0, 12).every((v) => v === 0));
  assert.ok(gradients['logits']!.subarray(12).every((v) => v !== 0));
  const infinite = await run('ctc_loss', ctcCase({ ...speech, zeroInfinity: false }));
  assert.is(infinite.y[0], Infinity);
  assert.ok(infinite.gradients['logits']!.every(Number.isFinite));
});

test('CTC refuses a blank outside the classes', () => {
  const g = new Graph();
  const lengths = g.input('n', [2], 'i32');
  failsWith(/ctc_loss: blank must be a class in 0 \.\. 4, got 5/, () =>
    ctcLoss(g.input('x', [2, 9, 5]), g.input('t', [2, 3], 'i32'), lengths, lengths, { blank: 5 }),
  );
});

test.run();
