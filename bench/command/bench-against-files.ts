/** `mgf bench FILE.wgsl --against FILE.wgsl`: two kernel files in turns, on one device. */
import { measureCeilings, type Ceilings } from '../../src/measure/ceilings.ts';
import {
  openKernelFile,
  wrongKernel,
  type KernelFile,
  type OpenKernelFile,
} from '../../src/measure/kernel-file.ts';
import { ceilingsMoved, otherWork, type Result } from '../suites/results.ts';
import { statistics, wantsMore } from '../../src/measure/statistics.ts';
import { Findings } from '../suites/suites.ts';
import { MGFError } from '../../src/errors.ts';
import { finish, type Outcome } from './bench-against.ts';
import { fileResult } from './bench-file.ts';
import { interruptible, resultsOf } from './bench-record.ts';
import { say, withGpu } from '../../src/cli/common.ts';
import { loadKernelFile } from '../../src/cli/kernel-options.ts';
import type { Gpu } from '../../src/gpu/device.ts';
import type { BenchOptions } from './bench-options.ts';

/** Milliseconds of both sides, as many of each. */
type Samples = readonly [number[], number[]];

const ceilingResults = (ceilings: Ceilings): Result[] => {
  const findings = new Findings();
  findings.add('ceilings', 'multiply-add', 'mgf', ceilings.fma.timing, {
    gflops: ceilings.gflops,
    variant: ceilings.fma.variant,
    clock: ceilings.fma.clock,
  });
  findings.add('ceilings', 'copy', 'mgf', ceilings.copy.timing, {
    gbps: ceilings.gbps,
    variant: ceilings.copy.variant,
    clock: ceilings.copy.clock,
  });
  return findings.results;
};

/** Whether two files compute the same, byte for byte, as far as they have outputs of the same names. */
async function compareBytes(here: OpenKernelFile, there: OpenKernelFile): Promise<string[]> {
  const a = await here.outputs();
  const b = await there.outputs();
  const notes: string[] = [];
  for (const [name, bytes] of a) {
    const other = b.get(name);
    if (!other) notes.push(`the other file has no output ${name}`);
    else if (Buffer.compare(bytes, other) !== 0) notes.push(`the two files' ${name} are not the same bits`);
  }
  return notes;
}

/** Both files on the device, and what there is to say of them. */
interface OpenPair {
  readonly kernels: readonly [OpenKernelFile, OpenKernelFile];
  readonly names: readonly [string, string];
  readonly notes: readonly string[];
}

/** Checks two open files. Throws MGFError 'kernel' for one that is wrong. */
async function checkPair(
  files: readonly KernelFile[],
  kernels: OpenPair['kernels'],
  names: OpenPair['names'],
): Promise<OpenPair> {
  const notes: string[] = [];
  for (const [i, kernel] of kernels.entries()) {
    const name = names[i]!;
    const checked = await kernel.check();
    if (checked.wrong.length) throw wrongKernel(files[i]!.name, checked);
    if (checked.against === null)
      notes.push(`${name} was not checked: no --expect and no reference beside it`);
  }
  notes.push(...(await compareBytes(...kernels)));
  return { kernels, names, notes: [...new Set(notes)] };
}

/** What the samples say; `last`: the ceilings afterwards, null where they were not measured. */
function outcomeOf(pair: OpenPair, samples: Samples, first: Ceilings, last: Ceilings | null): Outcome {
  const [a, b] = pair.kernels;
  const sameBytes = a.bytes === b.bytes;
  const notes = [...pair.notes];
  if (!sameBytes && (a.flops === null || b.flops === null)) {
    notes.push(
      `they bind ${a.bytes} and ${b.bytes} bytes; times are compared as they are, rates with --flops`,
    );
  }
  const [here, there] = pair.kernels.map((kernel, i): Result => {
    const { median, min, max } = statistics(samples[i]!);
    const { gbps, ...facts } = fileResult(kernel, median, last ?? first);
    const ms = { median, min, max };
    // Kernels may bind more or less for one job: bytes measure the work only where they are equal.
    return {
      suite: 'file',
      name: pair.names[0],
      engine: 'mgf',
      ms,
      ...facts,
      ...(sameBytes && gbps && { gbps }),
    };
  }) as [Result, Result];
  const work = otherWork(there, here);
  if (work) notes.push(work);
  return {
    pairs: [{ name: pair.names.join(' against '), here, there, a: samples[0], b: samples[1] }],
    moved: last && ceilingsMoved(ceilingResults(first), ceilingResults(last)),
    notes,
  };
}

async function measurePair(gpu: Gpu, pair: OpenPair, options: BenchOptions, version: string): Promise<void> {
  const samples: Samples = [[], []];
  const versions = { mgf: version, node: process.versions.node, webgpu: gpu.profile.runtime };
  const file = resultsOf(gpu.profile, versions, new Findings());
  say('ceilings of this adapter');
  const first = await measureCeilings(gpu);
  const end = (last: Ceilings | null): void =>
    finish(
      outcomeOf(pair, samples, first, last),
      file,
      ceilingResults(last ?? first),
      options,
      last !== null,
    );
  await interruptible(
    async () => {
      await inTurns(pair.kernels, samples, options.rounds);
      say('ceilings once more');
      end(await measureCeilings(gpu));
    },
    () => {
      if (samples[1].length) end(null);
      else say('Interrupted before the first round had ended.');
    },
  );
}

/**
 * Two .wgsl files on one device; runs alternate, and so does who begins. Throws as `openKernelFile`, and for
 * a file that is wrong.
 */
export async function benchFilesInTurns(path: string, options: BenchOptions, version: string): Promise<void> {
  const other = options.against!;
  if (!other.endsWith('.wgsl')) {
    throw new MGFError('usage', `A .wgsl file is compared with another .wgsl file; ${other} is none.`);
  }
  const here = await loadKernelFile(path, options);
  const there = await loadKernelFile(other, options);
  const files = [here.file, there.file];
  const alike = here.file.name === there.file.name;
  const names: OpenPair['names'] = alike ? [path, other] : [here.file.name, there.file.name];
  await withGpu(options.adapter, async (gpu) => {
    const opened: OpenKernelFile[] = [];
    try {
      for (const file of files) opened.push(await openKernelFile(gpu, file));
      const pair = await checkPair(files, opened as unknown as OpenPair['kernels'], names);
      await measurePair(gpu, pair, options, version);
    } finally {
      for (const kernel of opened) kernel.destroy();
    }
  });
}

async function inTurns(
  kernels: readonly [OpenKernelFile, OpenKernelFile],
  samples: Samples,
  rounds: number | undefined,
): Promise<void> {
  for (const kernel of kernels) await kernel.run();
  const started = performance.now();
  const most = rounds ?? 40;
  for (
    let round = 0;
    wantsMore(round, (performance.now() - started) / 2, { minRuns: rounds ?? 10, maxRuns: most, seconds: 2 });
    round++
  ) {
    const first = round % 2;
    const times: number[] = [];
    for (const at of [first, 1 - first]) times[at] = await kernels[at]!.run();
    // Whole rounds only, so that an interruption leaves as many of both.
    samples.forEach((list, at) => list.push(times[at]!));
  }
}
