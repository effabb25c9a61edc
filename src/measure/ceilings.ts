/**
 * What this adapter can do at most, measured here and now: multiply-adds in registers, and copying through
 * storage.
 */
import copyText from '../../kernels/copy_ceiling.wgsl';
import fmaText from '../../kernels/fma_ceiling.wgsl';
import type { Gpu } from '../gpu/device.ts';
import { compileKernel } from '../gpu/pipelines.ts';
import { openKernel, type KernelLaunch } from './kernel-run.ts';
import { statistics, wantsMore, type Timing } from './statistics.ts';

export interface Ceiling {
  readonly timing: Timing;
  readonly clock: 'timestamps' | 'wall';
  /** FLOPs or bytes of one run. */ readonly amount: number;
  readonly variant: string;
}

export interface Ceilings {
  /** Multiply-add in registers: GFLOP/s. */
  readonly gflops: number;
  /** Bytes read and written by a copy: GB/s. */
  readonly gbps: number;
  readonly fma: Ceiling;
  readonly copy: Ceiling;
}

interface Variant extends KernelLaunch {
  readonly amount: number;
  readonly variant: string;
}

/** Rounds of a run that lasts where the adapter is fast. */
const longest = ({ profile: { kind } }: Gpu): number => (kind === 'cpu' ? 20000 : 4000);

/** Accumulators enough to hide the latency of a multiply-add, few enough for the registers. */
function fmaVariants(gpu: Gpu, loops = longest(gpu)): Variant[] {
  const { kind, subgroupSize } = gpu.profile;
  const cpu = kind === 'cpu';
  const widths = cpu ? [subgroupSize || 8] : [64, 256];
  const invocations = cpu ? 1024 : 2 ** 19;
  return widths.flatMap((WG) =>
    (cpu ? [8, 12, 16] : [4, 8, 16]).map((ACC): Variant => ({
      name: 'fma_ceiling',
      source: fmaText,
      constants: { WG, ACC },
      params: { loops, s: 0.999, t: 0.001 },
      grid: [invocations / WG, 1, 1],
      data: { x: 16 * invocations, y: 16 * invocations },
      amount: 32 * ACC * loops * invocations,
      variant: `${ACC} vec4 accumulators, workgroups of ${WG}`,
    })),
  );
}

/**
 * Larger than the caches of a GPU; on a processor the loads and stores themselves are the limit, not memory.
 */
function copyVariants(gpu: Gpu): Variant[] {
  const { kind, subgroupSize, limits } = gpu.profile;
  const cpu = kind === 'cpu';
  const bytes = Math.min(
    cpu ? 2 ** 25 : 2 ** 28,
    2 ** Math.floor(Math.log2(Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize))),
  );
  const n = bytes / 16;
  return (cpu ? [subgroupSize || 8, 64] : [64, 256]).flatMap((WG) =>
    [1, 4]
      .filter((EACH) => n / (WG * EACH) <= 65535)
      .map((EACH): Variant => ({
        name: 'copy_ceiling',
        source: copyText,
        constants: { WG, EACH },
        params: { stride: n / EACH },
        grid: [n / (WG * EACH), 1, 1],
        data: { x: bytes, y: bytes },
        amount: 2 * bytes,
        variant: `${EACH} vec4 an invocation, workgroups of ${WG}`,
      })),
  );
}

/** Compiles every variant without running any. */
export async function compileCeilings(gpu: Gpu): Promise<void> {
  await Promise.all(
    [...fmaVariants(gpu), ...copyVariants(gpu)].map((v) => compileKernel(gpu, v, v.constants)),
  );
}

/** The fastest variant by its median. */
async function best(gpu: Gpu, variants: readonly Variant[], seconds: number): Promise<Ceiling> {
  let found: Ceiling | null = null;
  for (const v of variants) {
    const kernel = await openKernel(gpu, v);
    const samples: number[] = [];
    try {
      await kernel.run();
      for (
        let spent = 0;
        wantsMore(samples.length, spent, { seconds, maxRuns: 20 });
        spent += samples.at(-1)!
      )
        samples.push(await kernel.run());
    } finally {
      kernel.destroy();
    }
    const timing = statistics(samples);
    if (!found || v.amount / timing.median > found.amount / found.timing.median)
      found = { timing, clock: kernel.clock, amount: v.amount, variant: v.variant };
  }
  return found!;
}

/**
 * Rounds with which a run of multiply-adds takes about `milliseconds`, at most the usual ones, by timing a
 * short run.
 */
async function loopsFor(gpu: Gpu, milliseconds: number): Promise<number> {
  const most = longest(gpu);
  const few = Math.ceil(most / 64);
  const kernel = await openKernel(gpu, fmaVariants(gpu, few)[0]!);
  try {
    await kernel.run();
    return Math.max(
      few,
      Math.min(most, Math.round((few * milliseconds) / Math.max(0.05, await kernel.run()))),
    );
  } finally {
    kernel.destroy();
  }
}

/**
 * Measures both ceilings: a few seconds. `milliseconds`: about how long a single run may take at most, for
 * pages whose device is gone if one lasts seconds; then a measurement is shorter, too.
 */
export async function measureCeilings(
  gpu: Gpu,
  { milliseconds }: { milliseconds?: number } = {},
): Promise<Ceilings> {
  const loops = milliseconds === undefined ? longest(gpu) : await loopsFor(gpu, milliseconds);
  const seconds = milliseconds === undefined ? 0.3 : 0.1;
  const fma = await best(gpu, fmaVariants(gpu, loops), seconds);
  const copy = await best(gpu, copyVariants(gpu), seconds);
  return {
    gflops: fma.amount / fma.timing.median / 1e6,
    gbps: copy.amount / copy.timing.median / 1e6,
    fma,
    copy,
  };
}

/**
 * The part of the ceiling that a run reaches: the time that the binding resource would need at its ceiling
 * over the time taken. Above 1 where data stay in caches that the copy does not fit into.
 */
export const ofCeiling = (
  c: Pick<Ceilings, 'gflops' | 'gbps'>,
  flops: number,
  bytes: number,
  ms: number,
): number => Math.max(flops / c.gflops, bytes / c.gbps) / 1e6 / ms;
