/** Matrix products: every variant that the adapter offers, beside the engine's own choice and PyTorch. */
import type { Ceilings } from '../../src/measure/ceilings.ts';
import { ofCeiling } from '../../src/measure/ceilings.ts';
import type { Arm, Peer } from '../workloads/contract.ts';
import { measure, referencesOf } from '../suites/measure.ts';
import { mgfArm } from '../suites/mgf.ts';
import type { SuiteOptions } from '../suites/suites.ts';
import type { Findings } from '../suites/suites.ts';
import { inputSets, workloadOf } from '../workloads/workloads.ts';
import { MGFError } from '../../src/errors.ts';
import { atPrecision } from '../../src/gpu/adapter.ts';
import type { AdapterProfile, Gpu, Precision } from '../../src/gpu/device.ts';
import { Graph } from '../../src/graph/graph.ts';
import type { Dispatch } from '../../src/launch/dispatch.ts';
import { gemm } from '../../src/ops/gemm/gemm.ts';
import { GPU_VARIANTS } from '../../src/ops/gemm/gemm-gpu.ts';
import { rejections, selfTest } from '../../src/plan/self-test.ts';
import type { VariantVerdict } from './messages.ts';

export interface GemmSize {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

export const sizeName = ({ M, N, K }: GemmSize): string =>
  M === N && N === K ? `matmul-${M}` : `matmul-${M}x${N}x${K}`;

/** The device with the kernels for GPUs: these are what is measured here, on a software adapter too. */
export const asGpu = (gpu: Gpu): Gpu => ({ ...gpu, profile: { ...gpu.profile, family: 'gpu' } });

/** A variant and the precision of the program that may take it. */
export interface Offered {
  readonly name: string;
  readonly precision: Precision;
}

const precisionsOf = (profile: AdapterProfile): Precision[] =>
  profile.features.has('shader-f16') ? ['f32', 'f16'] : ['f32'];

/** The variants that the adapter has the features and limits for, and those that it has not. */
export function offeredVariants(
  profile: AdapterProfile,
  wanted: (name: string) => boolean,
): { offered: Offered[]; missing: string[] } {
  const offered: Offered[] = [];
  const missing: string[] = [];
  for (const variant of GPU_VARIANTS.filter(({ name }) => wanted(name))) {
    const precision = precisionsOf(profile).find((p) => variant.supports(atPrecision(profile, p)));
    if (precision) offered.push({ name: variant.name, precision });
    else missing.push(variant.name);
  }
  return { offered, missing };
}

/** The dispatch of a product by this variant, or null where it would be computed by another. */
function dispatchBy(
  profile: AdapterProfile,
  { name, precision }: Offered,
  mode: 'nn' | 'nt' | 'tn',
  { M, N, K }: GemmSize,
): Dispatch | null {
  const graph = new Graph();
  const a = graph.state('a', mode === 'tn' ? [K, M] : [M, K]);
  const b = graph.state('b', mode === 'nt' ? [N, K] : [K, N]);
  const c = graph.state('c', [M, N]);
  const adapter = { ...atPrecision(profile, precision), tuned: () => name };
  const dispatch = gemm(adapter, {
    mode,
    a,
    b,
    c,
    m: M,
    n: N,
    k2: K,
    aRow: a.shape[1]!,
    bRow: b.shape[1]!,
    cRow: N,
  });
  return dispatch.variant === name ? dispatch : null;
}

/** The self-test of every variant, in the three modes of a product, one variant at a time. */
export async function testVariants(
  gpu: Gpu,
  wanted: (name: string) => boolean,
  tell: (verdict: VariantVerdict) => void,
  remaining: () => number,
): Promise<void> {
  const { profile } = gpu;
  const { offered, missing } = offeredVariants(profile, wanted);
  for (const variant of offered) {
    const { name, precision } = variant;
    if (remaining() < 0) return;
    const dispatches = (['nn', 'nt', 'tn'] as const).map((mode) =>
      dispatchBy(profile, variant, mode, { M: 256, N: 256, K: 256 }),
    );
    await selfTest(
      gpu,
      dispatches.filter((d) => d !== null),
    );
    const rejected = rejections(gpu).find((r) => r.variant === name);
    tell({
      variant: name,
      precision,
      verdict: rejected ? 'rejected' : 'passed',
      ...(rejected && { reason: rejected.reason }),
    });
  }
  for (const name of missing) tell({ variant: name, precision: 'f32', verdict: 'not offered' });
}

/** Bytes of arms that are resident at the same time. */
const RESIDENT = 3 * 2 ** 30;

/**
 * Results of the suite 'gemm': `matmul-1024: f32` is what the engine chooses by itself, `matmul-1024:
 * tile-128x64` one variant, `matmul-1024` an engine of PyTorch's.
 */
export async function measureGemm(
  gpu: Gpu,
  ceilings: Ceilings,
  findings: Findings,
  sizes: readonly GemmSize[],
  peers: readonly Peer[],
  wanted: (name: string) => boolean,
  options: SuiteOptions,
): Promise<void> {
  const { profile } = gpu;
  const { offered } = offeredVariants(profile, wanted);
  const suite = 'gemm';
  for (const size of sizes) {
    const name = sizeName(size);
    const workload = workloadOf(name, { op: 'matmul', ...size }, false);
    if (options.remaining() < 0) {
      findings.leftOut.push({ suite, name, engine: 'mgf', reason: 'no time was left' });
      continue;
    }
    options.progress(name);
    // Large operands overflow the caches by themselves.
    const sets = inputSets(workload, size.M * size.K >= 2 ** 22 ? 1 : 2);
    const references = referencesOf(workload, sets);
    const own = (
      label: string,
      precision: Precision,
      tuned?: string,
    ): [string, () => Promise<Arm | null>] => [
      `${name}: ${label}`,
      async () => {
        const arm = await mgfArm(
          tuned === undefined ? gpu : { ...gpu, profile: { ...profile, tuned: () => tuned } },
          workload,
          sets,
          { precision },
        );
        const rejected = tuned === undefined ? undefined : rejections(gpu).find((r) => r.variant === tuned);
        if (!rejected) return arm;
        await arm.dispose();
        throw new MGFError('kernel', rejected.reason);
      },
    ];
    const makers = [
      ...precisionsOf(profile).map((p) => own(p, p)),
      ...offered
        .filter((v) => dispatchBy(profile, v, 'nn', size))
        .map((v) => own(v.name, v.precision, v.name)),
      ...peers.map((peer): [string, () => Promise<Arm | null>] => [name, () => peer.arm(workload, sets)]),
    ];
    const together = Math.max(1, Math.floor(RESIDENT / (workload.bytes * sets.length)));
    for (let from = 0; from < makers.length; from += together) {
      const arms: Arm[] = [];
      const names: string[] = [];
      try {
        for (const [label, make] of makers.slice(from, from + together)) {
          try {
            const arm = await make();
            if (arm) {
              arms.push(arm);
              names.push(label);
            }
          } catch (error) {
            if (!(error instanceof MGFError) || error.code === 'device-lost') throw error;
            findings.refused.push({
              suite,
              name: label,
              engine: label === name ? 'torch' : 'mgf',
              reason: error.message.split('\n')[0]!,
            });
          }
        }
        const measured = await measure(arms, references, {
          seconds: options.seconds,
          deviceClock: true,
          ...(options.seconds < 0.1 && { minRuns: 2 }),
        });
        measured.forEach((m, i) => {
          if (!m.timing)
            return findings.refused.push({ suite, name: names[i]!, engine: m.engine, reason: m.refused! });
          const gflops = workload.flops / m.timing.median / 1e6;
          findings.add(suite, names[i]!, m.engine, m.timing, {
            clock: m.clock,
            gflops,
            gbps: workload.bytes / m.timing.median / 1e6,
            of_ceiling: ofCeiling(ceilings, workload.flops, workload.bytes, m.timing.median),
          });
          return options.progress(
            `  ${m.engine} ${names[i]!.slice(name.length + 2)} ${(gflops / 1000).toPrecision(3)} TFLOP/s`,
          );
        });
      } finally {
        for (const arm of arms) await arm.dispose();
      }
    }
  }
}
