/**
 * Where a program's time goes: milliseconds of every dispatch, and what each of them had to compute and move.
 */
import type { Gpu } from '../gpu/device.ts';
import type { Node } from '../graph/graph.ts';
import { copyToImage } from '../plan/images.ts';
import type { PlannedDispatch, Profiled, Program } from '../plan/program.ts';
import { byteSize } from '../plan/storage.ts';
import { ofCeiling, type Ceilings } from './ceilings.ts';
import { statistics, type Timing } from './statistics.ts';

export type Profile = readonly Profiled[];

/**
 * Milliseconds of each dispatch of a program that has run before (its inputs and scalars stay in place):
 * timestamps where the device has them, a pass each, otherwise each dispatch is submitted alone and timed by
 * the wall clock, less what an empty submission takes.
 */
export const profileProgram = (gpu: Gpu, program: Program): Promise<Profile> =>
  gpu.device.features.has('timestamp-query') ? program.profile() : byWallClock(gpu, program.dispatches);

/** Milliseconds of a whole run, the same way. */
export const deviceTime = async (gpu: Gpu, program: Program): Promise<number> =>
  (await profileProgram(gpu, program)).reduce((sum, { ms, copyMs }) => sum + ms + copyMs, 0);

async function byWallClock(
  { device, settle }: Gpu,
  dispatches: readonly PlannedDispatch[],
): Promise<Profile> {
  const time = async (encode: (encoder: GPUCommandEncoder) => void): Promise<number> => {
    const encoder = device.createCommandEncoder();
    encode(encoder);
    const started = performance.now();
    device.queue.submit([encoder.finish()]);
    await settle(device.queue.onSubmittedWorkDone());
    return performance.now() - started;
  };
  const empty: number[] = [];
  const profile: Profiled[] = [];
  for (let i = 0; i < 20; i++) empty.push(await time((encoder) => encoder.beginComputePass().end()));
  const idle = statistics(empty).median;
  const busy = async (encode: (encoder: GPUCommandEncoder) => void): Promise<number> =>
    Math.max(0, (await time(encode)) - idle);
  for (const d of dispatches) {
    const copyMs = d.copies.length
      ? await busy((encoder) => {
          for (const copy of d.copies) copyToImage(encoder, copy);
        })
      : 0;
    const ms = await busy((encoder) => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(d.pipeline);
      pass.setBindGroup(0, d.group);
      pass.dispatchWorkgroups(...d.grid);
      pass.end();
    });
    profile.push({ dispatch: d, ms, copyMs });
  }
  return profile;
}

/**
 * What a dispatch does at least. `flops` is null where its op's cost cannot be told apart among several
 * dispatches.
 */
export interface DispatchCost {
  readonly flops: number | null;
  readonly bytes: number;
}

/** Also the kernels of few channels; not the sum over the parts of a product. */
const isProduct = (d: PlannedDispatch): boolean =>
  /^(gemm|conv)_/.test(d.kernel) && d.kernel !== 'gemm_reduce';

/**
 * Cost of every dispatch of a program. Launches of one kernel on the same tensors in one node each do a part
 * of them and share their cost. A forward node of one such launch has its op's cost. In other nodes, and in
 * backward, every matrix product has the FLOPs of one of the forward's products (the gradients of a product
 * are products of its size), other dispatches have none that can be told apart; bytes are those of all bound
 * tensors, each once.
 */
export function dispatchCosts(dispatches: readonly PlannedDispatch[]): DispatchCost[] {
  const work = (d: PlannedDispatch): string =>
    [d.kernel, ...new Set(d.bound.map((b) => b.value.id))].join(' ');
  const nodes = new Map<Node, { parts: Map<string, number>; products: number }>();
  for (const d of dispatches) {
    const { parts, products } = nodes.get(d.node) ?? { parts: new Map<string, number>(), products: 0 };
    nodes.set(d.node, {
      parts: parts.set(work(d), (parts.get(work(d)) ?? 0) + 1),
      products: products + Number(isProduct(d)),
    });
  }
  const cost = (node: Node): { flops: number; bytes: number } =>
    node.op.cost(
      node.inputs,
      node.outputs.filter((o) => o !== null),
      node.attrs,
    );
  return dispatches.map((d): DispatchCost => {
    const { parts } = nodes.get(d.node)!;
    const share = parts.get(work(d))!;
    if (d.node.phase === 'forward' && parts.size === 1) {
      const whole = cost(d.node);
      return { flops: whole.flops / share, bytes: whole.bytes / share };
    }
    const bytes =
      [...new Set(d.bound.map((b) => b.value))].reduce((sum, value) => sum + byteSize(value.shape), 0) /
      share;
    if (!isProduct(d)) return { flops: null, bytes };
    const forward = d.node.of ?? d.node;
    return { flops: cost(forward).flops / Math.max(1, nodes.get(forward)?.products ?? 1), bytes };
  });
}

/** One kernel variant within a step. */
export interface KernelShare {
  /** Kernel name and the constants that make the variant. */
  readonly variant: string;
  readonly calls: number;
  /** Of all its calls together. */
  readonly timing: Timing;
  /** Part of the step's time on the device. */
  readonly share: number;
  readonly gflops: number | null;
  readonly gbps: number;
  readonly ofCeiling: number;
}

/** Workgroup shapes and tails say nothing to a reader of the table. */
const LAUNCH_CONSTANTS = ['WG', 'LANES', 'SG', 'CPU', 'TAIL'];

/** `gemm_subgroup MODE=0 A_VEC=1`: constants that are 0 are left out, but for the mode. */
export function variantName(d: Pick<PlannedDispatch, 'kernel' | 'constants'>): string {
  const constants = Object.entries(d.constants).filter(
    ([name, value]) => !LAUNCH_CONSTANTS.includes(name) && (value !== 0 || name === 'MODE'),
  );
  return [d.kernel, ...constants.map(([name, value]) => `${name}=${value}`)].join(' ');
}

/** Groups the dispatches of some profiles of one program by kernel variant, dearest first. */
export function aggregate(
  profiles: readonly Profile[],
  ceilings: Pick<Ceilings, 'gflops' | 'gbps'>,
): KernelShare[] {
  const dispatches = profiles[0]!.map((p) => p.dispatch);
  const costs = dispatchCosts(dispatches);
  const groups = new Map<string, number[]>();
  dispatches.forEach((d, i) => {
    const name = variantName(d);
    groups.set(name, [...(groups.get(name) ?? []), i]);
  });
  const totals = [...groups].map(([variant, members]) => {
    const timing = statistics(profiles.map((p) => members.reduce((sum, i) => sum + p[i]!.ms, 0)));
    const known = members.every((i) => costs[i]!.flops !== null);
    const flops = members.reduce((sum, i) => sum + (costs[i]!.flops ?? 0), 0);
    return {
      variant,
      calls: members.length,
      timing,
      known,
      flops,
      bytes: members.reduce((sum, i) => sum + costs[i]!.bytes, 0),
    };
  });
  const copies = dispatches.flatMap((d) => d.copies);
  if (copies.length) {
    const timing = statistics(profiles.map((p) => p.reduce((sum, { copyMs }) => sum + copyMs, 0)));
    totals.push({
      variant: 'copies into images',
      calls: copies.length,
      timing,
      known: false,
      flops: 0,
      bytes: copies.reduce((sum, c) => sum + 2 * c.from.size, 0),
    });
  }
  const all = totals.reduce((sum, t) => sum + t.timing.median, 0);
  return totals
    .map(({ variant, calls, timing, known, flops, bytes }): KernelShare => ({
      variant,
      calls,
      timing,
      share: timing.median / all,
      gflops: known ? flops / timing.median / 1e6 : null,
      gbps: bytes / timing.median / 1e6,
      ofCeiling: ofCeiling(ceilings, flops, bytes, timing.median),
    }))
    .sort((a, b) => b.timing.median - a.timing.median);
}
