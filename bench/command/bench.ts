/**
 * `mgf bench`: kernels, training steps and other engines against this adapter's own ceilings, and kernels
 * that users bring.
 */
import { readFile } from 'node:fs/promises';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
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
import { benchBuildsInTurns } from './bench-against-builds.ts';
import { benchFilesInTurns } from './bench-against-files.ts';
import { benchFile } from './bench-file.ts';
import { checkOptions, targetOf, type BenchOptions, type Target } from './bench-options.ts';
import { interruptible, reportInterrupted, resultsOf, write } from './bench-record.ts';
import { runStart, runSteps } from './bench-step.ts';
import {
  adapterOption,
  ioError,
  positive,
  positiveInteger,
  precisionOption,
  print,
  say,
  withGpu,
} from '../../src/cli/common.ts';
import { addKernelOptions } from '../../src/cli/kernel-options.ts';
import { tuneOption, useTuning } from '../../src/cli/tuning.ts';
import type { Ceilings } from '../../src/measure/ceilings.ts';
import type { Gpu } from '../../src/gpu/device.ts';

/** A bare `mgf bench` in software stays below this. */
const SHORT_SECONDS = 120;
/** Fewer rounds could not tell anything. */
const FEWEST_ROUNDS = 5;

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError(`It must be a regular expression (${(error as Error).message}).`);
  }
}

function rounds(text: string): number {
  const value = positiveInteger(text);
  if (value < FEWEST_ROUNDS)
    throw new InvalidArgumentError(`It must be ${FEWEST_ROUNDS} or more: fewer rounds tell nothing.`);
  return value;
}

const DESCRIPTION =
  'Measures on this adapter, beside its own multiply-add and copy ceilings. WHAT is one of: kernels ' +
  '(every op ' +
  'forward and backward, and every kernel of real training steps), step (whole training steps: time, ' +
  'memory, ' +
  'cold and warm start), peers (the same work in other engines that are installed), roofline (a plot of ' +
  'the ' +
  'kernels), or a .wgsl file to check and time. Without WHAT: as many kernels as two minutes allow. ' +
  'Results ' +
  'that are wrong are refused, not timed. Ctrl-C prints and writes what was measured.';

const EXAMPLES = `
Examples:
  mgf bench
  mgf bench kernels --filter attention --json results.json
  mgf bench kernels --compare results.json
  mgf bench kernels --filter attention --against ../before/dist
  mgf bench peers --filter '^matmul'
  mgf bench my-kernel.wgsl --grid 4096 --size x=2**20 --size y=2**20 --param n=2**20
  mgf bench my-kernel.wgsl --against my-older-kernel.wgsl`;

const option = (flags: string, text: string, parse: (value: string) => unknown): Option =>
  new Option(flags, text).argParser(parse);

/** How results are chosen, kept, and held against others. */
const addResultOptions = (command: Command): Command =>
  command
    .addOption(
      option('--filter <pattern>', 'only what has a name that this regular expression finds', pattern),
    )
    .option('--json <file>', 'write the results to a file')
    .option(
      '--compare <file>',
      'say what became slower or faster than in an older file of results; exit status 1 if anything ' +
        'became slower',
    )
    .option(
      '--against <build or file>',
      'measure in turns with another build (its dist folder), or with another .wgsl file; exit status 1 ' +
        'if this is slower',
    )
    .addOption(
      option(
        '--threshold <percent>',
        'smallest difference that counts (default: 10 for --compare, 5 for --against)',
        positive,
      ),
    )
    .addOption(
      option(
        '--rounds <n>',
        'rounds of --against, 5 or more (default: 7 of builds, 10 to 40 of files)',
        rounds,
      ),
    )
    .option('--from <file>', 'show, compare or plot a file of results instead of measuring')
    .addOption(option('--budget <seconds>', 'leave out what would not end in this time', positive))
    .option(
      '--out <folder>',
      'where roofline puts roofline.svg and roofline.md (default: the current folder)',
    );

export function benchCommand(version: string): Command {
  const command = new Command('bench')
    .summary('measure kernels, training steps and other engines, or a kernel of your own')
    .description(DESCRIPTION)
    .argument('[what]', 'kernels, step, peers, roofline, or a .wgsl file');
  return addKernelOptions(addResultOptions(command))
    .option('--python <file>', 'the Python that has PyTorch, for peers (default: python3)')
    .addOption(new Option('--start <step>').hideHelp())
    .addOption(precisionOption())
    .addOption(tuneOption())
    .addOption(adapterOption())
    .addHelpText('after', EXAMPLES)
    .action((what: string | undefined, options: BenchOptions) => {
      const given = Object.keys(options).filter((name) => command.getOptionValueSource(name) === 'cli');
      return run(what, options, given, version);
    });
}

async function run(
  what: string | undefined,
  options: BenchOptions,
  given: readonly string[],
  version: string,
): Promise<void> {
  if (options.start !== undefined)
    return withGpu(options.adapter, (gpu) => runStart(gpu, options.start!, version, options.precision));
  const target = targetOf(what, options.from);
  checkOptions(target, what, given);
  if (options.against !== undefined)
    return target === 'file'
      ? benchFilesInTurns(what!, options, version)
      : benchBuildsInTurns(target, options);
  // Read before anything is measured: a wrong path is better known now.
  const before = options.compare === undefined ? null : await readResults(options.compare);
  const results = await resultsFor(target, what, options, version);
  if (target !== 'file') print(formatReport(results));
  if (options.json !== undefined) write(options.json, formatResults(results));
  if (what === 'roofline') {
    const { rooflinePlot } = await import('../suites/roofline.ts');
    const folder = options.out ?? '.';
    write(join(folder, 'roofline.svg'), `${rooflinePlot(results)}\n`);
    write(join(folder, 'roofline.md'), `![Roofline](roofline.svg)\n\n${formatReport(results)}\n`);
  }
  if (before) {
    const comparison = compareResults(
      before,
      results,
      options.threshold === undefined ? undefined : options.threshold / 100,
    );
    print(`\n${formatComparison(comparison, before)}`);
    if (comparison.slower.length) process.exitCode = 1;
  }
  if (results.refused?.some((r) => r.engine === 'mgf')) process.exitCode = 1;
}

async function resultsFor(
  target: Target,
  what: string | undefined,
  options: BenchOptions,
  version: string,
): Promise<ResultsFile> {
  if (target === 'file') return benchFile(what!, options, version);
  if (target !== 'from')
    return withGpu(options.adapter, (gpu) => measureSuite(gpu, target, options, version));
  const file = await readResults(options.from!);
  const { filter } = options;
  if (!filter) return file;
  const results = file.results.filter((r) => r.suite === 'ceilings' || filter.test(r.name));
  if (!results.some((r) => r.suite !== 'ceilings'))
    throw new MGFError('usage', `${options.from!} has no result with a name that --filter finds.`);
  return { ...file, results };
}

async function readResults(path: string): Promise<ResultsFile> {
  return parseResults(
    await readFile(path, 'utf8').catch((error: unknown) => {
      throw ioError(error, 'read the results in', path);
    }),
    path,
  );
}

function suiteOptions(gpu: Gpu, target: Target, options: BenchOptions): SuiteOptions {
  const { profile } = gpu;
  const started = performance.now();
  const short = target === 'short';
  const budget = options.budget ?? (short && profile.kind === 'cpu' ? SHORT_SECONDS : Infinity);
  say(
    `${profile.name} (${profile.runtime}), ${profile.family} kernels${
      Number.isFinite(budget) ? `; ${budget} s` : ''
    }`,
  );
  return {
    wanted: (name) => options.filter === undefined || options.filter.test(name),
    remaining: () => 1000 * budget - (performance.now() - started),
    memory: freemem(),
    seconds: short ? 0.3 : 1,
    progress: say,
    precision: options.precision ?? 'f32',
  };
}

async function measureSuite(
  gpu: Gpu,
  target: Target,
  options: BenchOptions,
  version: string,
): Promise<ResultsFile> {
  await useTuning(gpu, options.tune, version);
  const { profile } = gpu;
  const findings = new Findings();
  const suite = suiteOptions(gpu, target, options);
  const versions: Record<string, string> = {
    mgf: version,
    node: process.versions.node,
    webgpu: profile.runtime,
    ...(options.precision && { precision: options.precision }),
  };
  await interruptible(
    async () => {
      await runSuite(gpu, target, options, suite, findings, versions);
      noteRejections(gpu, findings);
    },
    () => reportInterrupted(resultsOf(profile, versions, findings, false), options.json),
  );
  if (findings.results.length === 2 && findings.refused.length === 0 && findings.leftOut.length === 0) {
    throw new MGFError(
      'usage',
      `Nothing that ${target === 'short' ? 'bench' : target} measures has a name that --filter finds.`,
    );
  }
  return resultsOf(profile, versions, findings);
}

async function runSuite(
  gpu: Gpu,
  target: Target,
  options: BenchOptions,
  suite: SuiteOptions,
  findings: Findings,
  versions: Record<string, string>,
): Promise<void> {
  const ceilings = await findCeilings(gpu, findings, suite);
  if (target === 'short') {
    await runStepKernels(gpu, ceilings, ['tiny-step'], findings, suite);
    await runWorkloads(gpu, ceilings, findings, suite, null);
  } else if (target === 'step') {
    await runSteps(gpu, ceilings, findings, suite, options.adapter);
    await runGrowth(gpu, findings, suite);
  } else if (target === 'peers') {
    await runPeers(gpu, ceilings, options, suite, findings, versions);
  } else {
    await runWorkloads(gpu, ceilings, findings, suite, null);
    await runStepKernels(gpu, ceilings, ['tiny-step', 'base-step'], findings, suite);
  }
}

async function runPeers(
  gpu: Gpu,
  ceilings: Ceilings,
  options: BenchOptions,
  suite: SuiteOptions,
  findings: Findings,
  versions: Record<string, string>,
): Promise<void> {
  const { peers, missing } = await openPeers(PEER_ENGINES, options.adapter, options.python);
  for (const { engine, reason } of missing)
    findings.leftOut.push({ suite: 'peers', name: 'all', engine, reason });
  for (const { engine, version } of peers) versions[engine] = version;
  say(`peers: ${peers.map((p) => `${p.engine} ${p.version}`).join('; ') || 'none'}`);
  try {
    await runWorkloads(gpu, ceilings, findings, suite, peers);
  } finally {
    for (const peer of peers) await peer.close();
  }
}
