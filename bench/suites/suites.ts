/**
 * The suites: what is measured, in which order, and what is left out. Results are collected as they come, so
 * that an interruption loses nothing.
 */
import type { Gpu, Precision } from '../../src/gpu/device.ts';
import { MGFError } from '../../src/errors.ts';
import { sizesApart } from '../../src/numbers.ts';
import { rejections } from '../../src/plan/self-test.ts';
import { measureCeilings, ofCeiling, type Ceiling, type Ceilings } from '../../src/measure/ceilings.ts';
import type { Arm, Peer, Workload } from '../workloads/contract.ts';
import { measure, referencesOf, type Measured, type MeasureOptions } from './measure.ts';
import { GROWTH_AXES, measureGrowth } from '../workloads/growth.ts';
import { mgfArm } from './mgf.ts';
import { aggregate, type Profile } from '../../src/measure/profile.ts';
import type { Excluded, Result } from './results.ts';
import { statistics, wantsMore, type Timing } from '../../src/measure/statistics.ts';
import { describeBatch, estimateStep, openStep, stepConfig, type StepName } from '../workloads/step.ts';
import { inputSets, WORKLOADS } from '../workloads/workloads.ts';

export interface SuiteOptions {
  /** Whether something of this name is wanted. */
  readonly wanted: (name: string) => boolean;
  /** Milliseconds that are left; what would take longer is left out. */
  readonly remaining: () => number;
  /** Bytes of memory that may be taken. */
  readonly memory: number;
  /** Timing goes on for so long per workload and engine; 1 s. */
  readonly seconds: number;
  readonly progress: (line: string) => void;
  /** What this engine's matrix products multiply. */
  readonly precision: Precision;
}

/** What a run found. */
export class Findings {
  readonly results: Result[] = [];
  readonly refused: Excluded[] = [];
  readonly leftOut: Excluded[] = [];

  add(suite: string, name: string, engine: string, timing: Timing, more: Partial<Result> = {}): void {
    const { median, min, max, runs, samples } = timing;
    const ms = { median, min, max };
    this.results.push({ suite, name, engine, ms, runs, samples: [...samples], ...more });
  }
}

const message = (error: unknown): string => (error as Error)?.message?.split('\n')[0] ?? String(error);
const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 9500 ? 1 : 0)} s`;

/** Measures both ceilings and notes them as results. */
export async function findCeilings(
  gpu: Gpu,
  findings: Findings,
  { progress }: Pick<SuiteOptions, 'progress'>,
): Promise<Ceilings> {
  progress('ceilings of this adapter');
  const ceilings = await measureCeilings(gpu);
  const note = (name: string, { timing, clock, variant }: Ceiling, more: Partial<Result>): void =>
    findings.add('ceilings', name, 'mgf', timing, { clock, variant, ...more });
  note('multiply-add', ceilings.fma, { gflops: ceilings.gflops });
  note('copy', ceilings.copy, { gbps: ceilings.gbps });
  progress(
    `  multiply-add ${ceilings.gflops.toFixed(1)} GFLOP/s (${ceilings.fma.variant}), copy ` +
      `${ceilings.gbps.toFixed(1)} GB/s (${ceilings.copy.variant})`,
  );
  return ceilings;
}

/** Why work that has no other precision is not measured where one is asked for. */
export const F32_ONLY = 'it multiplies f32, and --precision asks for something else';

/** A guess that errs on the long side: ten runs at an eighth of the ceiling, and compilation. */
const likelyMs = (flops: number, bytes: number, c: Ceilings, runs = 10): number =>
  (runs * 8 * Math.max(flops / c.gflops, bytes / c.gbps)) / 1e6 + 2000;

function note(
  findings: Findings,
  suite: string,
  { name, flops, bytes }: Workload,
  m: Measured,
  ceilings: Ceilings,
): string {
  if (!m.timing) {
    findings.refused.push({ suite, name, engine: m.engine, reason: m.refused! });
    return `  ${m.engine}: ${m.refused!}`;
  }
  const { median, min, max } = m.timing;
  const gflops = flops / median / 1e6;
  const gbps = bytes / median / 1e6;
  findings.add(suite, name, m.engine, m.timing, {
    clock: m.clock,
    gflops,
    gbps,
    of_ceiling: ofCeiling(ceilings, flops, bytes, median),
    ...(m.peakBytes !== null && { peak_bytes: m.peakBytes }),
  });
  return (
    `  ${m.engine}: ${median.toFixed(2)} ms (${min.toFixed(2)} to ${max.toFixed(2)}), ` +
    `${gflops.toFixed(1)} GFLOP/s`
  );
}

/** Every workload on this engine; with `peers`, on every engine in turns, by the wall clock. */
export async function runWorkloads(
  gpu: Gpu,
  ceilings: Ceilings,
  findings: Findings,
  options: SuiteOptions,
  peers: readonly Peer[] | null,
): Promise<void> {
  const suite = peers ? 'peers' : 'kernels';
  const timing: MeasureOptions = { seconds: options.seconds, deviceClock: !peers, settle: gpu.settle };
  for (const workload of WORKLOADS) {
    const { name } = workload;
    if (!options.wanted(name) || (!peers && workload.suite !== 'kernels')) continue;
    const likely = likelyMs(workload.flops, workload.bytes, ceilings);
    if (likely > options.remaining()) {
      findings.leftOut.push({
        suite,
        name,
        engine: 'mgf',
        reason: `it may take ${seconds(likely)}, and ${seconds(Math.max(0, options.remaining()))} are left`,
      });
      continue;
    }
    if (workload.work.op === 'torch_step' && options.precision !== 'f32') {
      findings.leftOut.push({ suite, name, engine: 'mgf', reason: F32_ONLY });
      continue;
    }
    options.progress(name);
    const sets = inputSets(workload);
    const arms: Arm[] = [];
    try {
      arms.push(await mgfArm(gpu, workload, sets, options));
      for (const peer of peers ?? []) {
        const unsupported = peer.unsupported(workload);
        if (unsupported !== null) {
          findings.leftOut.push({ suite, name, engine: peer.engine, reason: unsupported });
          continue;
        }
        const arm = await peer.arm(workload, sets).catch((error: unknown) => {
          findings.refused.push({ suite, name, engine: peer.engine, reason: `failed: ${message(error)}` });
          return null;
        });
        if (arm) arms.push(arm);
      }
      for (const measured of await measure(arms, referencesOf(workload, sets), timing))
        options.progress(note(findings, suite, workload, measured, ceilings));
    } catch (error) {
      // A tensor that the adapter has no room for is a finding; anything else is ours.
      if (!(error instanceof MGFError)) throw error;
      findings.refused.push({ suite, name, engine: 'mgf', reason: `failed: ${message(error)}` });
    } finally {
      for (const arm of arms) await arm.dispose();
    }
  }
}

/** Why a step is better not begun here, or null. */
export function tooMuch(
  name: StepName,
  gpu: Gpu,
  ceilings: Ceilings,
  options: SuiteOptions,
  runs: number,
): string | null {
  const { flops, bytes } = estimateStep(stepConfig(name, gpu.profile.kind));
  const likely = likelyMs(flops, 0, ceilings, runs);
  const [needed, free] = sizesApart(bytes, options.memory, 'GiB', 1);
  if (gpu.profile.kind === 'cpu' && bytes > options.memory)
    return `it needs about ${needed} of memory, and ${free} are free`;
  return likely > options.remaining()
    ? `it may take ${seconds(likely)}, and ${seconds(Math.max(0, options.remaining()))} are left`
    : null;
}

/** Every kernel of real pre-training steps, with its share of the step. */
export async function runStepKernels(
  gpu: Gpu,
  ceilings: Ceilings,
  names: readonly StepName[],
  findings: Findings,
  options: SuiteOptions,
): Promise<void> {
  const suite = 'kernels';
  for (const name of names.filter(options.wanted)) {
    const reason = tooMuch(name, gpu, ceilings, options, 8);
    if (reason) {
      findings.leftOut.push({ suite, name, engine: 'mgf', reason });
      continue;
    }
    const run = stepConfig(name, gpu.profile.kind, options.precision);
    options.progress(`kernels of ${name} (${describeBatch(run)})`);
    const step = await openStep(gpu, run);
    try {
      const wrong = await step.check();
      if (wrong) {
        findings.refused.push({ suite, name, engine: 'mgf', reason: wrong });
        continue;
      }
      const profiles: Profile[] = [await step.profile()];
      const started = performance.now();
      for (let n = 1; n < 3 || wantsMore(n, performance.now() - started, { seconds: options.seconds }); n++) {
        if (n >= 3 && options.remaining() < 0) break;
        profiles.push(await step.profile());
      }
      const total = statistics(profiles.map((p) => p.reduce((sum, { ms, copyMs }) => sum + ms + copyMs, 0)));
      const clock = gpu.device.features.has('timestamp-query') ? 'timestamps' : 'wall';
      findings.add(suite, name, 'mgf', total, { clock, dispatches: step.info.dispatches, share: 1 });
      for (const k of aggregate(profiles, ceilings)) {
        findings.add(suite, `${name}: ${k.variant}`, 'mgf', k.timing, {
          clock,
          calls: k.calls,
          share: k.share,
          gbps: k.gbps,
          of_ceiling: k.ofCeiling,
          ...(k.gflops !== null && { gflops: k.gflops }),
        });
      }
      options.progress(`  ${total.median.toFixed(1)} ms on the device in ${step.info.dispatches} dispatches`);
    } finally {
      step.destroy();
    }
  }
}

/** Variants of kernels that computed wrongly on this device and were therefore not used. */
export function noteRejections(gpu: Gpu, findings: Findings): void {
  for (const { variant, reason } of rejections(gpu))
    findings.leftOut.push({ suite: 'self-test', name: variant, engine: 'mgf', reason });
}

/** How time and memory grow with crop, batch, width, and the sizes of the contrastive loss. */
export async function runGrowth(gpu: Gpu, findings: Findings, options: SuiteOptions): Promise<void> {
  for (const axis of GROWTH_AXES.filter((a) => options.wanted(`growth-${a}`))) {
    if (options.precision !== 'f32') {
      findings.leftOut.push({ suite: 'growth', name: `growth-${axis}`, engine: 'mgf', reason: F32_ONLY });
      continue;
    }
    if (options.remaining() < GROWTH_MS) {
      findings.leftOut.push({
        suite: 'growth',
        name: `growth-${axis}`,
        engine: 'mgf',
        reason: `it may take ${seconds(GROWTH_MS)}, and ${seconds(Math.max(0, options.remaining()))} are left`,
      });
      continue;
    }
    for (const p of await measureGrowth(gpu, {
      axes: [axis],
      seconds: options.seconds,
      progress: options.progress,
    })) {
      findings.add('growth', `${axis}: ${p.name}`, 'mgf', p.timing, {
        value: p.value,
        flops: p.flops,
        gflops: p.flops / p.timing.median / 1e6,
        peak_bytes: p.bytes,
        ...(p.gatheredBytes !== null && { gathered_bytes: p.gatheredBytes }),
      });
    }
  }
}

/** Compiling and running the four points of an axis, in software. */
const GROWTH_MS = 30_000;
