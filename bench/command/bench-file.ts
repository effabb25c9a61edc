/** `mgf bench FILE.wgsl`: one kernel file, checked and timed. */
import { basename } from 'node:path';
import { ofCeiling, type Ceilings } from '../../src/measure/ceilings.ts';
import { timeKernelFile, type KernelTiming, type OpenKernelFile } from '../../src/measure/kernel-file.ts';
import { statistics, type Timing } from '../../src/measure/statistics.ts';
import { findCeilings, Findings } from '../suites/suites.ts';
import { interruptible, reportInterrupted, resultsOf } from './bench-record.ts';
import { print, say, withGpu } from '../../src/cli/common.ts';
import { loadKernelFile, howToCheck } from '../../src/cli/kernel-options.ts';
import type { Result, ResultsFile } from '../suites/results.ts';
import type { BenchOptions } from './bench-options.ts';

/** What is known of a launch without running it. */
type LaunchFacts = Pick<KernelTiming, 'bytes' | 'flops' | 'clock' | 'variant'>;

/** What a file's result holds beside its times. */
export function fileResult(
  { bytes, flops, clock, variant }: LaunchFacts,
  ms: number,
  ceilings: Ceilings,
): Partial<Result> {
  return {
    clock,
    variant,
    gbps: bytes / ms / 1e6,
    of_ceiling: ofCeiling(ceilings, flops ?? 0, bytes, ms),
    ...(flops !== null && { gflops: flops / ms / 1e6 }),
  };
}

function show(name: string, path: string, t: KernelTiming, ceilings: Ceilings): void {
  const {
    timing: { median, min, max, runs },
    clock,
    bytes,
    flops,
    variant,
    against,
    notFinite,
  } = t;
  const gbps = bytes / median / 1e6;
  const by = clock === 'wall' ? 'the wall clock' : 'timestamps';
  print(
    `${name}: ${median.toPrecision(4)} ms (${min.toPrecision(4)} to ${max.toPrecision(4)}, ${runs} runs, ` +
      `by ${by})`,
  );
  print(
    `  ${gbps.toPrecision(3)} GB/s: ${bytes.toLocaleString('en-US')} bytes bound; copying reaches ` +
      `${ceilings.gbps.toPrecision(3)} GB/s here`,
  );
  if (flops !== null) {
    print(
      `  ${(flops / median / 1e6).toPrecision(3)} GFLOP/s; multiply-adds in registers reach ` +
        `${ceilings.gflops.toPrecision(3)} GFLOP/s here`,
    );
  }
  print(`  ${(100 * ofCeiling(ceilings, flops ?? 0, bytes, median)).toFixed(1)} % of the ceiling`);
  print(`  ${variant}`);
  print(`  ${against === null ? `not checked: ${howToCheck(path)}` : `right, by ${against}`}`);
  for (const output of notFinite)
    print(`  note: ${output} holds numbers that are not finite after a run on random inputs`);
}

/** Measures a kernel file, prints what it found, and gives it as results. Throws as `timeKernelFile`. */
export async function benchFile(path: string, options: BenchOptions, version: string): Promise<ResultsFile> {
  const { file } = await loadKernelFile(path, options);
  const findings = new Findings();
  const samples: number[] = [];
  return withGpu(options.adapter, async (gpu) => {
    const { profile } = gpu;
    const versions = { mgf: version, node: process.versions.node, webgpu: profile.runtime };
    say(`${profile.name} (${profile.runtime})`);
    // What an interruption needs of the measurement that it ends.
    let running: { kernel: OpenKernelFile; ceilings: Ceilings } | null = null;
    const add = (timing: Timing, kernel: LaunchFacts, ceilings: Ceilings): void =>
      findings.add('file', basename(path), 'mgf', timing, fileResult(kernel, timing.median, ceilings));
    const measured = async (): Promise<ResultsFile> => {
      const ceilings = await findCeilings(gpu, findings, { progress: say });
      const timed = await timeKernelFile(gpu, file, {}, (ms, kernel) => {
        samples.push(ms);
        running = { kernel, ceilings };
      });
      running = null;
      add(timed.timing, timed, ceilings);
      show(basename(path), path, timed, ceilings);
      return resultsOf(profile, versions, findings);
    };
    return interruptible(measured, () => {
      if (running) add(statistics(samples), running.kernel, running.ceilings);
      reportInterrupted(resultsOf(profile, versions, findings, false), options.json);
    });
  });
}
