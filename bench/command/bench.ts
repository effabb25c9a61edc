/**
 * `mgf bench`: kernels, training steps and other engines against this adapter's own ceilings, and kernels
 * that users bring.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, freemem, platform, totalmem } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { measureCeilings, ofCeiling } from '../../src/measure/ceilings.ts';
import { settingsOf, timeKernelFile } from '../../src/measure/kernel-file.ts';
import { openPeers, PEER_ENGINES } from '../peers/index.ts';
import { compareResults, formatResults, parseResults, type ResultsFile } from '../suites/results.ts';
import {
  findCeilings,
  Findings,
  noteRejections,
  runGrowth,
  runStepKernels,
  runWorkloads,
  type SuiteOptions,
} from '../suites/suites.ts';
import { formatComparison, formatReport } from '../suites/tables.ts';
import { MGFError } from '../../src/errors.ts';
import { runStart, runSteps } from './bench-step.ts';
import {
  adapterOption,
  collect,
  ioError,
  positive,
  precisionOption,
  print,
  say,
  withGpu,
} from '../../src/cli/common.ts';
import { resolveIncludes } from '../../src/cli/includes.ts';
import { tuneOption, useTuning, type TuneMode } from '../../src/cli/tuning.ts';
import type { AdapterPreference, Gpu, Precision } from '../../src/gpu/device.ts';

const SUITES = ['kernels', 'step', 'peers', 'roofline'] as const;
type Suite = (typeof SUITES)[number];

interface Options {
  filter?: RegExp;
  json?: string;
  compare?: string;
  from?: string;
  budget?: number;
  out?: string;
  grid?: string;
  size?: string[];
  param?: string[];
  constant?: string[];
  flops?: string;
  start?: string;
  precision?: Precision;
  tune: TuneMode;
  python?: string;
  adapter?: AdapterPreference;
}

/** A bare `mgf bench` in software stays below this. */
const SHORT_SECONDS = 120;

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError(`It must be a regular expression (${(error as Error).message}).`);
  }
}

export function benchCommand(version: string): Command {
  return new Command('bench')
    .summary('measure kernels, training steps and other engines, or a kernel of your own')
    .description(
      'Measures on this adapter, beside its own multiply-add and copy ceilings. WHAT is one of: ' +
        'kernels (every op forward and backward, and every kernel of real training steps), step (whole ' +
        'training steps: time, memory, cold and warm start), ' +
        'peers (the same work in other engines that are installed), roofline (a plot of the kernels), ' +
        'or a .wgsl file to time. ' +
        'Without WHAT: as many kernels as two minutes allow. Results that are wrong are refused, not timed.',
    )
    .argument('[what]', 'kernels, step, peers, roofline, or a .wgsl file')
    .addOption(
      new Option('--filter <pattern>', 'only what has a name that this regular expression finds').argParser(
        pattern,
      ),
    )
    .option('--json <file>', 'write the results to a file')
    .option(
      '--compare <file>',
      'say what became slower or faster than in an older file of results; exit status 1 if anything ' +
        'became slower',
    )
    .option('--from <file>', 'show, compare or plot a file of results instead of measuring')
    .addOption(
      new Option('--budget <seconds>', 'leave out what would not end in this time').argParser(positive),
    )
    .option(
      '--out <folder>',
      'where roofline puts roofline.svg and roofline.md (default: the current folder)',
    )
    .option('--grid <x,y,z>', 'workgroups of your kernel')
    .addOption(
      new Option('--size <name=n>', 'elements of a storage array of your kernel; may be repeated').argParser(
        collect,
      ),
    )
    .addOption(
      new Option('--param <name=n>', 'field of its uniform struct; may be repeated').argParser(collect),
    )
    .addOption(
      new Option('--constant <name=n>', 'constant of its template; may be repeated').argParser(collect),
    )
    .option('--python <file>', 'the Python that has PyTorch, for peers (default: python3)')
    .option('--flops <n>', 'FLOPs of one launch of your kernel, for GFLOP/s')
    .addOption(new Option('--start <step>').hideHelp())
    .addOption(precisionOption())
    .addOption(tuneOption())
    .addOption(adapterOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf bench
  mgf bench kernels --filter attention --json results.json
  mgf bench kernels --compare results.json
  mgf bench peers --filter '^matmul'
  mgf bench my-kernel.wgsl --grid 4096 --size x=2**20 --size y=2**20 --param n=2**20`,
    )
    .action((what: string | undefined, options: Options) => run(what, options, version));
}

async function run(what: string | undefined, options: Options, version: string): Promise<void> {
  if (options.start !== undefined)
    return withGpu(options.adapter, (gpu) => runStart(gpu, options.start!, version, options.precision));
  if (what?.endsWith('.wgsl')) return timeFile(what, options);
  if (what !== undefined && !(SUITES as readonly string[]).includes(what)) {
    throw new MGFError(
      'usage',
      `"${what}" cannot be measured: use kernels, step, peers, roofline, or a file whose name ends in .wgsl.`,
    );
  }
  const own = (['grid', 'size', 'param', 'constant', 'flops'] as const).find(
    (name) => options[name] !== undefined,
  );
  if (own)
    throw new MGFError('usage', `--${own} is for a kernel of your own: mgf bench FILE.wgsl --${own} ...`);
  // Read before anything is measured: a wrong path is better known now.
  const before = options.compare === undefined ? null : await readResults(options.compare);
  const results =
    options.from === undefined
      ? await withGpu(options.adapter, (gpu) =>
          measureSuite(gpu, what as Suite | undefined, options, version),
        )
      : await readResults(options.from);
  print(formatReport(results));
  if (options.json !== undefined) await write(options.json, formatResults(results));
  if (what === 'roofline') {
    const { rooflinePlot } = await import('../suites/roofline.ts');
    const folder = options.out ?? '.';
    await write(join(folder, 'roofline.svg'), `${rooflinePlot(results)}\n`);
    await write(join(folder, 'roofline.md'), `![Roofline](roofline.svg)\n\n${formatReport(results)}\n`);
  }
  if (before) {
    const comparison = compareResults(before, results);
    print(`\n${formatComparison(comparison, before)}`);
    if (comparison.slower.length) process.exitCode = 1;
  }
  if (results.refused?.some((r) => r.engine === 'mgf')) process.exitCode = 1;
}

async function readResults(path: string): Promise<ResultsFile> {
  return parseResults(
    await readFile(path, 'utf8').catch((error: unknown) => {
      throw ioError(error, 'read the results in', path);
    }),
    path,
  );
}

async function write(path: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  } catch (error) {
    throw ioError(error, 'write', path);
  }
  say(`wrote ${path}`);
}

async function measureSuite(
  gpu: Gpu,
  what: Suite | undefined,
  options: Options,
  version: string,
): Promise<ResultsFile> {
  await useTuning(gpu, options.tune, version);
  const { profile } = gpu;
  const findings = new Findings();
  const started = performance.now();
  const short = what === undefined;
  const budget = options.budget ?? (short && profile.kind === 'cpu' ? SHORT_SECONDS : Infinity);
  const suite: SuiteOptions = {
    wanted: (name) => options.filter === undefined || options.filter.test(name),
    remaining: () => 1000 * budget - (performance.now() - started),
    memory: freemem(),
    seconds: short ? 0.3 : 1,
    progress: say,
    precision: options.precision ?? 'f32',
  };
  say(
    `${profile.name} (${profile.runtime}), ${profile.family} ` +
      `kernels${Number.isFinite(budget) ? `; ${budget} s` : ''}`,
  );
  const versions: Record<string, string> = {
    mgf: version,
    node: process.versions.node,
    webgpu: profile.runtime,
    ...(options.precision && { precision: options.precision }),
  };
  const ceilings = await findCeilings(gpu, findings, suite);
  if (short) {
    await runStepKernels(gpu, ceilings, ['tiny-step'], findings, suite);
    await runWorkloads(gpu, ceilings, findings, suite, null);
  } else if (what === 'kernels' || what === 'roofline') {
    await runWorkloads(gpu, ceilings, findings, suite, null);
    await runStepKernels(gpu, ceilings, ['tiny-step', 'base-step'], findings, suite);
  } else if (what === 'step') {
    await runSteps(gpu, ceilings, findings, suite, options.adapter);
    await runGrowth(gpu, findings, suite);
  } else {
    const { peers, missing } = await openPeers(PEER_ENGINES, options.adapter, options.python);
    for (const { engine, reason } of missing)
      findings.leftOut.push({ suite: 'peers', name: 'all', engine, reason });
    for (const { engine, version: v } of peers) versions[engine] = v;
    say(`peers: ${peers.map((p) => `${p.engine} ${p.version}`).join('; ') || 'none'}`);
    try {
      await runWorkloads(gpu, ceilings, findings, suite, peers);
    } finally {
      for (const peer of peers) await peer.close();
    }
  }
  noteRejections(gpu, findings);
  if (findings.results.length === 2 && findings.refused.length === 0 && findings.leftOut.length === 0) {
    throw new MGFError('usage', `Nothing that ${what ?? 'bench'} measures has a name that --filter finds.`);
  }
  const machine =
    `${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${availableParallelism()} threads, ` +
    `${(totalmem() / 2 ** 30).toFixed(0)} GiB, ${platform()}`;
  return {
    adapter: profile.name,
    versions,
    date: new Date().toISOString(),
    machine,
    results: findings.results,
    refused: findings.refused,
    left_out: findings.leftOut,
  };
}

async function timeFile(path: string, options: Options): Promise<void> {
  const words = [
    ...(options.grid === undefined ? [] : [['grid', options.grid] as const]),
    ...(options.flops === undefined ? [] : [['flops', options.flops] as const]),
    ...(['size', 'param', 'constant'] as const).flatMap((word) =>
      (options[word] ?? []).map((value) => [word, value] as const),
    ),
  ];
  const settings = settingsOf(words);
  const source = await resolveIncludes(path);
  await withGpu(options.adapter, async (gpu) => {
    say(`${gpu.profile.name} (${gpu.profile.runtime})`);
    const { timing, clock, bytes, flops, notFinite } = await timeKernelFile(
      gpu,
      basename(path),
      source,
      settings,
    );
    const ceilings = await measureCeilings(gpu);
    const { median, min, max, runs } = timing;
    const gbps = bytes / median / 1e6;
    print(
      `${basename(path)}: ${median.toPrecision(4)} ms (${min.toPrecision(4)} to ${max.toPrecision(4)}, ` +
        `${runs} runs, by ${clock === 'wall' ? 'the wall clock' : 'timestamps'})`,
    );
    print(
      `  ${gbps.toPrecision(3)} GB/s: ${bytes.toLocaleString('en-US')} bytes bound; copying reaches ` +
        `${ceilings.gbps.toPrecision(3)} GB/s here`,
    );
    if (flops !== null)
      print(
        `  ${(flops / median / 1e6).toPrecision(3)} GFLOP/s; multiply-adds in registers reach ` +
          `${ceilings.gflops.toPrecision(3)} GFLOP/s here`,
      );
    print(`  ${(100 * ofCeiling(ceilings, flops ?? 0, bytes, median)).toFixed(1)} % of the ceiling`);
    for (const name of notFinite)
      print(`  note: ${name} holds numbers that are not finite after a run on random inputs`);
  });
}
