import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { HostTensor, OpenPeer, Peer } from '../bench/workloads/contract.ts';
import { disagreement } from '../bench/suites/measure.ts';
import { open as openJax } from '../bench/peers/jax.ts';
import { inverse, permute } from '../bench/peers/layout.ts';
import { open as openOrt } from '../bench/peers/ort.ts';
import { open as openTfjs } from '../bench/peers/tfjs.ts';
import { referenceOf } from '../bench/workloads/reference.ts';
import { createInputs, workloadOf } from '../bench/workloads/workloads.ts';
import { openGpu } from '../src/gpu/device.ts';
import { useDawn } from '../src/gpu/dawn.ts';
import { openTestGpu, testAdapter } from './gpu.ts';

const product = (grad: boolean) => workloadOf('matmul-tiny', { op: 'matmul', M: 5, N: 3, K: 4 }, grad);

/**
 * The peers of the benchmark that are installed; what a missing one needs is printed, and its test is
 * skipped.
 */
async function opened(name: string, open: OpenPeer): Promise<Peer | null> {
  const peer = await open(testAdapter());
  if (!('missing' in peer)) return peer;
  console.log(`skipped ${name}: ${peer.missing}`);
  return null;
}

const gpu = await openTestGpu();
for (const [name, open] of [
  ['jax-js', openJax],
  ['tfjs', openTfjs],
  ['onnxruntime', openOrt],
] as const) {
  const peer = await opened(name, open);
  (peer ? test : test.skip)(
    `${name} multiplies matrices on the engine's adapter and agrees with the float64 reference`,
    async () => {
      assert.ok(peer!.version.includes(gpu.profile.name), peer!.version);
      for (const grad of [false, true]) {
        const workload = product(grad);
        const sets = [createInputs(workload, 1), createInputs(workload, 2)];
        const arm = await peer!.arm(workload, sets);
        if (!arm) {
          assert.ok(grad && peer!.unsupported(workload), 'only a backward pass is missing, and it says why');
          continue;
        }
        for (const set of [0, 1]) {
          assert.ok((await arm.run(set)) > 0);
          assert.is(disagreement(await arm.outputs(), referenceOf(workload, sets[set]!)), null);
        }
        await arm.dispose();
      }
      await peer!.close();
    },
  );
}

test('the engine opens its adapter its own way after other libraries were lent one', async () => {
  assert.not.ok((globalThis as { navigator?: { gpu?: unknown } }).navigator?.gpu);
  useDawn();
  const prefer = testAdapter();
  const again = await openGpu(prefer ? { prefer } : {});
  assert.is(again.profile.runtime, gpu.profile.runtime);
  again.close();
});

test('a tensor is laid out anew and back', () => {
  const x: HostTensor = { shape: [2, 3, 4], data: Float32Array.from({ length: 24 }, (_, i) => i) };
  const y = permute(x, [1, 2, 0]);
  assert.equal(y.shape, [3, 4, 2]);
  assert.is(y.data[(2 * 4 + 3) * 2 + 1], x.data[(1 * 3 + 2) * 4 + 3]);
  assert.equal(permute(y, inverse([1, 2, 0])), x);
});

test.run();
