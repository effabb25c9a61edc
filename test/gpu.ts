import { openGpu } from '../src/gpu/device.ts';
import { useDawn } from '../src/gpu/dawn.ts';
import type { AdapterPreference, Gpu } from '../src/gpu/device.ts';

let opened: Promise<Gpu> | undefined;

/** The adapter that the test run was asked to use (`--adapter lavapipe`), undefined for the usual choice. */
export function testAdapter(): AdapterPreference | undefined {
  const at = process.argv.indexOf('--adapter');
  return at < 0 ? undefined : (process.argv[at + 1] as AdapterPreference);
}

/** The one device of this test process; it needs no closing, the process exits by itself. */
export function openTestGpu(): Promise<Gpu> {
  return (opened ??= open());
}

async function open(): Promise<Gpu> {
  useDawn();
  const prefer = testAdapter();
  const gpu = await openGpu(prefer ? { prefer } : {});
  // Read by test/run.mjs, which shows it once.
  console.log(`adapter: ${gpu.profile.name} (${gpu.profile.runtime}, ${gpu.profile.family} kernels)`);
  return gpu;
}

/**
 * Why the kernels for GPUs are not run on this adapter, or null: SwiftShader needs up to a minute to compile
 * one that has barriers.
 */
export const slowToCompile = (gpu: Gpu): string | null =>
  gpu.profile.software === 'swiftshader' ? 'SwiftShader takes minutes to compile kernels for GPUs' : null;
