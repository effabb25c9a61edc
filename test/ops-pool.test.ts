import { test } from 'uvu';
import { elements } from '../src/graph/shape.ts';
import { Graph } from '../src/graph/graph.ts';
import { affine, affineReference } from '../src/ops/affine.ts';
import { mix, mixReference } from '../src/ops/mix.ts';
import { softmax, logSoftmaxReference } from '../src/ops/softmax.ts';
import { statisticsPool, statisticsPoolReference } from '../src/ops/statistics-pool.ts';
import { openTestGpu, slowToCompile } from './gpu.ts';
import { check, failsWith, generator, noise, run, withFamily } from './harness.ts';

const device = await openTestGpu();
const slow = slowToCompile(device);
if (slow) console.log(`skip the family of GPUs: ${slow}`);

for (const gpu of slow ? [device] : [withFamily(device, 'cpu'), withFamily(device, 'gpu')]) {
  const family = `(${gpu.profile.family} kernels)`;

  for (const [shape, masked] of [
    [[3, 21, 16], true],
    [[2, 5, 7], true],
    [[2, 40, 12], false],
    [[1, 2, 3], false],
  ] as const) {
    test(
      `mean and deviation over time of [${shape.join(', ')}]${masked ? ' under a mask' : ''} are the ` +
        `reference's ${family}`,
      async () => {
        const [B, T, D] = shape;
        const next = generator(8);
        const mask = Float32Array.from({ length: B * T }, (_, i) => Number(i % T < 2 || next() < 0.5));
        await check(gpu, 'statistics_pool', {
          inputs: {
            x: { shape, data: noise(B * T * D, 1).map((v) => v + 3) },
            ...(masked && { mask: { shape: [B, T], data: mask, constant: true } }),
          },
          build: (v) => statisticsPool(v['x']!, v['mask'] ?? null),
          reference: (v) => statisticsPoolReference(v['x']!, v['mask'] ?? null, shape),
        });
      },
    );
  }

  for (const shape of [
    [5, 8],
    [2, 3, 7],
    [300, 4],
  ] as const) {
    const D = shape.at(-1)!;
    test(`x scale + shift of [${shape.join(', ')}] is the reference's ${family}`, () =>
      check(gpu, 'affine', {
        inputs: {
          x: { shape, data: noise(elements(shape), 1) },
          scale: { shape: [D], data: noise(D, 2) },
          shift: { shape: [D], data: noise(D, 3) },
        },
        build: (v) => affine(v['x']!, v['scale']!, v['shift']!),
        reference: (v) => affineReference(v['x']!, v['scale']!, v['shift']!),
      }));
  }

  for (const [shape, count] of [
    [[4, 9], 3],
    [[2, 700, 12], 5],
    [[3], 1],
  ] as const) {
    test(`a softmax-weighted sum of ${count} tensors [${shape.join(', ')}] is the reference's ${family}`, () => {
      const names = Array.from({ length: count }, (_, i) => `x${i}`);
      return check(gpu, 'mix', {
        inputs: {
          w: { shape: [1, count], data: noise(count, 9) },
          ...Object.fromEntries(names.map((name, i) => [name, { shape, data: noise(elements(shape), i) }])),
        },
        build: (v) =>
          mix(
            names.map((name) => v[name]!),
            softmax(v['w']!),
          ),
        reference: (v) =>
          mixReference(
            names.map((name) => v[name]!),
            logSoftmaxReference(v['w']!, count).map(Math.exp),
          ),
      });
    });
  }
}

test('masked frames count for nothing even when they are not numbers, and a row without frames is finite', async () => {
  const data = noise(2 * 3 * 4, 5);
  data.fill(NaN, 8); // the last frame of the first row, all of the second
  const { y, gradients } = await run(device, 'statistics_pool', {
    inputs: {
      x: { shape: [2, 3, 4], data },
      mask: { shape: [2, 3], data: Float32Array.of(1, 1, 0, 0, 0, 0), constant: true },
    },
    build: (v) => statisticsPool(v['x']!, v['mask']!),
  });
  const bad = [...y, ...gradients['x']!].findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) throw new Error(`element ${bad} is not finite`);
});

test('shapes that do not fit are refused with the shapes', async () => {
  const g = new Graph();
  const x = g.input('x', [2, 3, 4]);
  await failsWith('shape', [/statistics_pool/, /\[2, 3\]/], () => statisticsPool(x, g.input('m', [3, 2, 2])));
  await failsWith('shape', [/affine/, /\[5\]/], () =>
    affine(x, g.input('scale', [5]), g.input('shift', [4])),
  );
  await failsWith('shape', [/mix/, /2 tensors/], () => mix([x, x], g.input('w', [3])));
});

test.run();
