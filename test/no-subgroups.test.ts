import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runCase } from '../src/conformance/run.ts';
import { dawnAdapter } from '../src/gpu/dawn.ts';
import { openGpu } from '../src/gpu/device.ts';
import { approvals, rejections } from '../src/plan/self-test.ts';
import { testAdapter } from './gpu.ts';

/**
 * The adapter of the test run as a runtime without the feature `subgroups` (naga: Firefox, Deno's own WebGPU)
 * offers it.
 */
const tried: string[] = [];
const { adapter } = (await dawnAdapter(testAdapter(), tried))!;
const {
  maxStorageBuffersPerShaderStage,
  maxComputeInvocationsPerWorkgroup,
  maxComputeWorkgroupStorageSize,
  maxComputeWorkgroupSizeX,
} = adapter.limits;
const device = await adapter.requestDevice({
  requiredLimits: {
    maxStorageBuffersPerShaderStage,
    maxComputeInvocationsPerWorkgroup,
    maxComputeWorkgroupStorageSize,
    maxComputeWorkgroupSizeX,
  },
});
const gpu = await openGpu({ device });
const texts: string[] = [];
const create = device.createShaderModule.bind(device);
device.createShaderModule = (descriptor) => {
  if (descriptor.label!.startsWith('gemm')) texts.push(descriptor.code.replace(/\/\/.*$/gm, ''));
  return create(descriptor);
};

test('a device without subgroups takes the kernels that need none', () => {
  assert.is(gpu.profile.subgroupSize, 0);
  assert.is(gpu.profile.family, 'gpu');
  if (gpu.profile.kind === 'cpu')
    assert.match(gpu.profile.familyReason, /a software adapter without subgroups/);
});

for (const name of [
  'linear-odd',
  'linear-tok',
  'matmul-odd',
  'matmul-nt',
  'matmul-tn',
  'conv1d-dilated',
  'conv1d-pos',
  'conv_transpose1d-k10s5',
]) {
  test(`${name} passes there`, async () => {
    const { passed, checks, failure } = await runCase(
      gpu,
      readFileSync(new URL(`../../test/golden/${name}.safetensors`, import.meta.url)),
      name,
    );
    assert.ok(passed, failure ?? JSON.stringify(checks.filter((c) => !c.passed)));
  });
}

test('matrix products there use neither subgroups nor, on a software adapter, a barrier', () => {
  assert.ok(texts.length > 4);
  assert.equal(
    texts.filter((text) => /subgroup/.test(text)),
    [],
  );
  assert.equal(rejections(gpu), []);
  if (gpu.profile.kind !== 'cpu') return;
  assert.equal(approvals(gpu), ['gemm_subgroup without subgroups']);
  assert.equal(
    texts.filter((text) => text.includes('workgroupBarrier')),
    [],
  );
});

test.run();
