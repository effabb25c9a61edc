/**
 * Whole training steps, each in a process of its own: only there do peak memory and the time of a cold start
 * mean anything.
 */
import { ofCeiling, type Ceilings } from '../../src/measure/ceilings.ts';
import { disagreement, referencesOf } from '../suites/measure.ts';
import { dispatchCosts } from '../../src/measure/profile.ts';
import { statistics, wantsMore } from '../../src/measure/statistics.ts';
import { openStep, STEP_NAMES, stepConfig, type StepName } from '../workloads/step.ts';
import { F32_ONLY, tooMuch, type Findings, type SuiteOptions } from '../suites/suites.ts';
import { buildTorchStep, torchStepSets } from '../workloads/torch-step.ts';
import { WORKLOADS } from '../workloads/workloads.ts';
import { MGFError } from '../../src/errors.ts';
import { runChild, withTemporaryFolder } from '../../src/cli/children.ts';
import { print } from '../../src/cli/common.ts';
import { useApprovals } from '../../src/cli/tuning.ts';
import type { AdapterPreference, Gpu, Precision } from '../../src/gpu/device.ts';
import type { PlannedDispatch } from '../../src/plan/program.ts';

const NAMES = [...STEP_NAMES, 'torch-step'] as const;
type Name = (typeof NAMES)[number];

/** What a process says about the step that it ran. */
interface Started {
  /** Milliseconds from the start of the process to the end of the first step. */
  firstMs: number;
  /** Largest resident memory of the process after six steps, in bytes. */
  residentBytes: number;
  deviceBytes: number;
  dispatches: number;
  /** FLOPs of the matrix products and of every op whose cost can be told. */
  flops: number;
  wrong: string | null;
  ms: number[];
  hostMs: number[];
}

interface Steps {
  step(): Promise<{ ms: number; hostMs: number; loss: number }>;
  check(losses: readonly number[]): Promise<string | null>;
  dispatches: readonly PlannedDispatch[];
  deviceBytes: number;
}

async function openSteps(gpu: Gpu, name: Name, precision: Precision | undefined): Promise<Steps> {
  let count = 0;
  if (name === 'torch-step') {
    const workload = WORKLOADS.find((w) => w.name === name)!;
    const work = workload.work as Extract<typeof workload.work, { op: 'torch_step' }>;
    const step = await buildTorchStep(gpu, work);
    return {
      dispatches: step.programs.flatMap((p) => p.dispatches),
      deviceBytes: step.bytes,
      async step() {
        const { ms, encodeMs, loss } = await step.step(count++);
        return { ms, hostMs: encodeMs, loss };
      },
      async check(losses) {
        const wrong = referencesOf(workload, torchStepSets(1, work, 2)).map((reference, i) =>
          disagreement({ y: [losses[i]!] }, reference),
        );
        return wrong.find((w) => w !== null) ?? null;
      },
    };
  }
  const step = await openStep(gpu, stepConfig(name, gpu.profile.kind, precision));
  return {
    dispatches: step.dispatches,
    deviceBytes: step.deviceBytes,
    step: () => step.step(count++),
    check: () => step.check(),
  };
}

/**
 * The other side of `runSteps`, in the process that it starts: prints one line of JSON. `name`: a step, with
 * `:first` for nothing but its first run.
 */
export async function runStart(
  gpu: Gpu,
  name: string,
  version: string,
  precision?: Precision,
): Promise<void> {
  const [step, only] = name.split(':') as [Name, string?];
  if (!NAMES.includes(step)) throw new MGFError('usage', `"${name}" is none of ${NAMES.join(', ')}.`);
  await useApprovals(gpu, version);
  const open = await openSteps(gpu, step, precision);
  const losses = [(await open.step()).loss];
  const firstMs = performance.now();
  const started: Started = {
    firstMs,
    residentBytes: 0,
    deviceBytes: open.deviceBytes,
    dispatches: open.dispatches.length,
    flops: 0,
    wrong: null,
    ms: [],
    hostMs: [],
  };
  if (only !== 'first') {
    for (let i = 0; i < 5; i++) losses.push((await open.step()).loss);
    started.residentBytes = 1024 * process.resourceUsage().maxRSS;
    started.flops = dispatchCosts(open.dispatches).reduce((sum, c) => sum + (c.flops ?? 0), 0);
    started.wrong = await open.check(losses);
    const begun = performance.now();
    while (
      started.wrong === null &&
      wantsMore(started.ms.length, performance.now() - begun, { seconds: 5 })
    ) {
      const { ms, hostMs } = await open.step();
      started.ms.push(ms);
      started.hostMs.push(hostMs);
    }
  }
  print(JSON.stringify(started));
}

async function start(
  name: string,
  adapter: AdapterPreference | undefined,
  precision: Precision,
  cache: string,
): Promise<Started> {
  const args = [
    'bench',
    '--start',
    name,
    '--precision',
    precision,
    ...(adapter ? ['--adapter', adapter] : []),
  ];
  // Where drivers keep compiled kernels (Mesa's, NVIDIA's), and we what passed its test.
  const env = { MESA_SHADER_CACHE_DIR: cache, __GL_SHADER_DISK_CACHE_PATH: cache, XDG_CACHE_HOME: cache };
  const { status, out, said } = await runChild(process.argv[1]!, args, env);
  if (status === 0) return JSON.parse(out) as Started;
  throw new MGFError('io', said ?? `the process ended with ${status ?? 'a signal'}`);
}

/** Times, memory, and cold and warm starts of the steps. */
export async function runSteps(
  gpu: Gpu,
  ceilings: Ceilings,
  findings: Findings,
  options: SuiteOptions,
  adapter: AdapterPreference | undefined,
): Promise<void> {
  const suite = 'step';
  const engine = 'mgf';
  for (const name of NAMES.filter(options.wanted)) {
    const f32Only = options.precision === 'f32' ? null : F32_ONLY;
    const reason = name === 'torch-step' ? f32Only : tooMuch(name as StepName, gpu, ceilings, options, 14);
    if (reason) {
      findings.leftOut.push({ suite, name, engine, reason });
      continue;
    }
    await withTemporaryFolder((cache) => runStep(gpu, name, cache, ceilings, findings, options, adapter));
  }
}

async function runStep(
  gpu: Gpu,
  name: Name,
  cache: string,
  ceilings: Ceilings,
  findings: Findings,
  options: SuiteOptions,
  adapter: AdapterPreference | undefined,
): Promise<void> {
  const suite = 'step';
  const engine = 'mgf';
  try {
    options.progress(`${name}: cold start`);
    const cold = await start(`${name}:first`, adapter, options.precision, cache);
    options.progress(
      `  first step after ${(cold.firstMs / 1000).toFixed(1)} s; again, with the driver's ` + `cache`,
    );
    const warm = await start(name, adapter, options.precision, cache);
    if (warm.wrong !== null) {
      findings.refused.push({ suite, name, engine, reason: warm.wrong });
      return;
    }
    const timing = statistics(warm.ms);
    findings.add(suite, name, engine, timing, {
      dispatches: warm.dispatches,
      gflops: warm.flops / timing.median / 1e6,
      of_ceiling: ofCeiling(ceilings, warm.flops, 0, timing.median),
      peak_bytes: gpu.profile.kind === 'cpu' ? warm.residentBytes : warm.deviceBytes,
    });
    findings.add(suite, `${name}: host`, engine, statistics(warm.hostMs));
    findings.add(suite, `${name}: cold start`, engine, statistics([cold.firstMs]));
    findings.add(suite, `${name}: warm start`, engine, statistics([warm.firstMs]));
    options.progress(
      `  ${timing.median.toFixed(1)} ms in ${warm.dispatches} dispatches, first step after ` +
        `${(warm.firstMs / 1000).toFixed(1)} s`,
    );
  } catch (error) {
    if (!(error instanceof MGFError)) throw error;
    findings.refused.push({ suite, name, engine, reason: `failed: ${error.message}` });
  }
}
