/**
 * The parts of the report. Each runs in a process of its own, so that one that crashes the driver or hangs
 * takes nothing with it.
 */
import { freemem } from 'node:os';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { measureCeilings, ofCeiling, type Ceilings } from '../../src/measure/ceilings.ts';
import type { Peer, Workload } from '../workloads/contract.ts';
import { measure, referencesOf } from '../suites/measure.ts';
import { buildWork, mgfArm, type BuildWork } from '../suites/mgf.ts';
import { torchPeer } from '../peers/torch.ts';
import { dispatchCosts } from '../../src/measure/profile.ts';
import { openKernel } from '../../src/measure/kernel-run.ts';
import { statistics, wantsMore } from '../../src/measure/statistics.ts';
import { openStep, stepConfig, type StepName } from '../workloads/step.ts';
import {
  findCeilings,
  noteRejections,
  runStepKernels,
  runWorkloads,
  tooMuch,
  type Findings,
  type SuiteOptions,
} from '../suites/suites.ts';
import { inputSets, workloadOf, WORKLOADS } from '../workloads/workloads.ts';
import { runCase } from '../../src/conformance/run.ts';
import { MGFError } from '../../src/errors.ts';
import { adapterName, type AdapterInfo } from '../../src/gpu/adapter.ts';
import { dawnAdapter } from '../../src/gpu/dawn.ts';
import { addAdapterProvider, openGpu, type Gpu, type Precision } from '../../src/gpu/device.ts';
import { attention } from '../../src/ops/attention/attention.ts';
import { measureDispatches } from './dispatch-cost.ts';
import { asGpu, measureGemm, testVariants, type GemmSize } from './gemm.ts';
import { tell, ToldFindings, type PartSettings } from './messages.ts';

interface Context {
  readonly settings: PartSettings;
  readonly findings: Findings;
  readonly options: SuiteOptions;
  readonly remaining: () => number;
}

export interface Part {
  readonly name: string;
  /** Its share of nine minutes, in seconds: what it takes at most, not what it is expected to. */
  readonly seconds: number;
  readonly precision: Precision;
  /** Toggles on top of the ones that the rest of the report runs with. */
  readonly toggles?: { readonly enable?: readonly string[]; readonly disable?: readonly string[] };
  run(gpu: Gpu, context: Context): Promise<void>;
}

const MiB = 2 ** 20;

// ----------------------------------------------------------------------------------------------- the adapter

/**
 * Names of toggles -> what they are for. Features are offered under some only, and some of them abort the
 * process on some drivers.
 */
export const FEATURE_TOGGLES: Readonly<Record<string, readonly string[]>> = {
  none: [],
  f16: ['vulkan_enable_f16_on_nvidia'],
  unsafe: ['allow_unsafe_apis'],
  'f16 and unsafe': ['vulkan_enable_f16_on_nvidia', 'allow_unsafe_apis'],
};

const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? Number(v) : v)) ?? 'null');

/** Every readable field of an object of the implementation, whose fields are getters of its prototype. */
function fieldsOf(object: object): Record<string, unknown> {
  const names = new Set<string>();
  for (
    let o: object | null = object;
    o && o !== Object.prototype;
    o = Object.getPrototypeOf(o) as object | null
  )
    for (const name of Object.getOwnPropertyNames(o)) names.add(name);
  const entries = [...names]
    .map((name): [string, unknown] => [name, (object as Record<string, unknown>)[name]])
    .filter(([, v]) => !['function', 'symbol', 'undefined'].includes(typeof v));
  return Object.fromEntries(entries);
}

/** x -> 2 x of f32 or of f16 numbers. */
async function smallKernel(gpu: Gpu, half: boolean): Promise<string> {
  const x = Float32Array.from({ length: 64 }, (_, i) => i - 20);
  const of = (expression: string): string =>
    half ? `f32(f16(${expression}) * 2.0h)` : `2.0 * ${expression}`;
  const source =
    `${half ? 'enable f16;\n' : ''}@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) ` +
    `@binding(1) var<storage, read_write> y: array<f32>;\n` +
    '@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = ' +
    `${of('x[id.x]')}; }`;
  try {
    const kernel = await openKernel(gpu, {
      name: half ? 'double_f16' : 'double',
      source,
      data: { x, y: x.byteLength },
      params: {},
      grid: [1, 1, 1],
    });
    await kernel.run();
    const y = new Float32Array(await kernel.read('y'));
    const wrong = y.findIndex((v, i) => v !== 2 * x[i]!);
    kernel.destroy();
    return wrong < 0 ? 'right' : `y[${wrong}] is ${y[wrong]!}, must be ${2 * x[wrong]!}`;
  } catch (error) {
    return (error as Error).message.split('\n')[0]!;
  }
}

/** What the adapter says of itself under the settings' toggles, and whether small kernels run. */
async function probe({ adapter: prefer, toggles }: PartSettings): Promise<void> {
  const tried: string[] = [];
  const source = await dawnAdapter(prefer, tried, toggles);
  if (!source) throw new MGFError('no-adapter', `no ${prefer} adapter (${tried.join('; ')})`);
  const { adapter, runtime, language } = source;
  const info = fieldsOf(adapter.info);
  const { subgroupMatrixConfigs } = adapter.info as AdapterInfo;
  if (subgroupMatrixConfigs) info['subgroupMatrixConfigs'] = [...subgroupMatrixConfigs].map(fieldsOf);
  const features = [...(adapter.features as Iterable<string>)].sort();
  const limits = Object.fromEntries(
    Object.entries(fieldsOf(adapter.limits)).filter(([, v]) => typeof v === 'number'),
  ) as Record<string, number>;
  const facts = {
    adapter: adapterName(adapter.info),
    runtime,
    info: plain(info) as Record<string, unknown>,
    features,
    limits,
    language: [...(language ?? [])].sort(),
  };
  // Told now: the kernels may end the process.
  tell({ device: { ...facts, kernels: {} } });
  const gpu = await openGpu({ adapter });
  const kernels: Record<string, string> = { f32: await smallKernel(gpu, false) };
  if (features.includes('shader-f16')) kernels['f16'] = await smallKernel(gpu, true);
  tell({ device: { ...facts, kernels } });
  gpu.close();
}

// ------------------------------------------------------------------------------------------------- the parts

const QUICK_VARIANTS = /^tile-(64x64|32x32)/;
const variantWanted =
  (quick: boolean) =>
  (name: string): boolean =>
    !quick || QUICK_VARIANTS.test(name);

/**
 * Every golden case; in f16 a case passes where every error is below what f16 is allowed, which the case's
 * own tolerance is not made for.
 */
const F16_TOLERANCE = 2e-2;

async function conformance(
  gpu: Gpu,
  { settings: { golden, quick, precision }, remaining, findings }: Context,
): Promise<void> {
  const files = (await readdir(golden))
    .filter(
      (name) => name.endsWith('.safetensors') && (!quick || /^(gelu|matmul|softmax|attention)-/.test(name)),
    )
    .sort();
  if (files.length === 0) throw new MGFError('data', `there are no cases in ${golden}`);
  const target: Gpu = { ...asGpu(gpu), profile: { ...asGpu(gpu).profile, precision } };
  for (const file of files) {
    if (remaining() < 0) {
      findings.leftOut.push({ suite: 'conformance', name: file, engine: 'mgf', reason: 'no time was left' });
      continue;
    }
    const { op, checks, failure } = await runCase(target, await readFile(join(golden, file)), file);
    const allowed = (tolerance: number): number =>
      precision === 'f16' ? Math.max(F16_TOLERANCE, tolerance) : tolerance;
    const error = checks.length ? Math.max(...checks.map((c) => c.error)) : null;
    const passed =
      failure === undefined && checks.length > 0 && checks.every((c) => c.error <= allowed(c.tolerance));
    const worst = checks
      .filter((c) => !(c.error <= allowed(c.tolerance)))
      .map(
        (c) => `${c.name} ${c.error.toExponential(1)}, allowed ${allowed(c.tolerance).toExponential(1)}`,
      )[0];
    tell({
      conformance: {
        precision,
        file,
        op,
        passed,
        error: error !== null && Number.isFinite(error) ? error : null,
        ...((failure ?? worst) !== undefined && { failure: failure ?? worst! }),
      },
    });
  }
}

/** The engines of PyTorch's that are here; each takes seconds to start, so they start together. */
async function withTorch(
  context: Context,
  suite: string,
  use: (peers: Peer[]) => Promise<void>,
): Promise<void> {
  const {
    settings: { engines, python },
    findings,
  } = context;
  context.options.progress('starting PyTorch');
  const opened = await Promise.all(
    engines.map(async (engine) => ({ engine, opened: await torchPeer(engine, { python })() })),
  );
  const peers = opened.flatMap(({ opened: o }) => ('missing' in o ? [] : [o]));
  for (const { engine, opened: o } of opened) {
    if ('missing' in o) findings.leftOut.push({ suite, name: 'all', engine, reason: o.missing });
    else tell({ version: [engine, o.version] });
  }
  try {
    await use(peers);
  } finally {
    await Promise.all(peers.map((p) => p.close()));
  }
}

const cube = (n: number): GemmSize => ({ M: n, N: n, K: n });
const FIRST_SIZES = [cube(1024), cube(4096), { M: 1500, N: 768, K: 768 }];
const OTHER_SIZES = [cube(2048), { M: 1500, N: 3072, K: 768 }, { M: 1500, N: 768, K: 3072 }, cube(512)];
const QUICK_SIZES = [cube(128), { M: 60, N: 40, K: 52 }];

const gemmPart = (
  name: string,
  seconds: number,
  sizes: readonly GemmSize[],
  quickSizes: readonly GemmSize[],
): Part => ({
  name,
  seconds,
  precision: 'f32',
  run: (gpu, context) =>
    withTorch(context, 'gemm', async (peers) => {
      const {
        settings: { quick },
        findings,
        options,
      } = context;
      await measureGemm(
        asGpu(gpu),
        await ceilingsOf(gpu, context),
        findings,
        quick ? quickSizes : sizes,
        peers,
        variantWanted(quick),
        { ...options, seconds: quick ? 0.02 : 0.25 },
      );
    }),
});

const ceilingsOf = async (gpu: Gpu, { settings }: Context): Promise<Ceilings> =>
  settings.ceilings ?? measureCeilings(gpu);

const QUICK_WORKLOADS = /^(softmax-1500x768|info_nce-800x100x256)$/;

const peersPart = (name: string, seconds: number, wanted: RegExp, unwanted: RegExp | null): Part => ({
  name,
  seconds,
  precision: 'f32',
  run: (gpu, context) =>
    withTorch(context, 'peers', async (peers) => {
      const { options } = context;
      const names = (n: string): boolean => wanted.test(n) && !unwanted?.test(n);
      await runWorkloads(
        gpu,
        await ceilingsOf(gpu, context),
        context.findings,
        { ...options, wanted: (n) => names(n) && (options.wanted(n) || n === 'torch-step') },
        peers,
      );
    }),
});

const kernelsPart = (precision: Precision, seconds: number): Part => ({
  name: `kernels ${precision}`,
  seconds,
  precision,
  run: async (gpu, context) =>
    runWorkloads(gpu, await ceilingsOf(gpu, context), context.findings, context.options, null),
});

const stepKernelsPart = (step: StepName, precision: Precision, seconds: number): Part => ({
  name: `kernels of ${step} ${precision}`,
  seconds,
  precision,
  run: async (gpu, context) =>
    runStepKernels(gpu, await ceilingsOf(gpu, context), [step], context.findings, {
      ...context.options,
      wanted: () => true,
    }),
});

/**
 * A training step: time, host time, and the time from the start of the process to the end of the first step.
 */
const stepPart = (name: StepName, precision: Precision, seconds: number): Part => ({
  name: `${name} ${precision}`,
  seconds,
  precision,
  async run(gpu, context) {
    const { findings, options } = context;
    const ceilings = await ceilingsOf(gpu, context);
    const suite = 'step';
    const engine = 'mgf';
    const reason = tooMuch(name, gpu, ceilings, options, 8);
    if (reason) {
      findings.leftOut.push({ suite, name, engine, reason });
      return;
    }
    const step = await openStep(gpu, stepConfig(name, gpu.profile.kind, precision));
    try {
      await step.step(0);
      const firstMs = performance.now();
      const wrong = await step.check();
      if (wrong !== null) {
        findings.refused.push({ suite, name, engine, reason: wrong });
        return;
      }
      const ms: number[] = [];
      const hostMs: number[] = [];
      const begun = performance.now();
      while (
        wantsMore(ms.length, performance.now() - begun, {
          seconds: 5 * options.seconds,
          ...(context.settings.quick && { minRuns: 2 }),
        })
      ) {
        const run = await step.step(ms.length);
        ms.push(run.ms);
        hostMs.push(run.hostMs);
      }
      const timing = statistics(ms);
      const flops = dispatchCosts(step.dispatches).reduce((sum, c) => sum + (c.flops ?? 0), 0);
      findings.add(suite, name, engine, timing, {
        clock: 'wall',
        dispatches: step.dispatches.length,
        gflops: flops / timing.median / 1e6,
        of_ceiling: ofCeiling(ceilings, flops, 0, timing.median),
        peak_bytes: step.deviceBytes,
      });
      findings.add(suite, `${name}: host`, engine, statistics(hostMs));
      findings.add(suite, `${name}: warm start`, engine, statistics([firstMs]));
      options.progress(`  ${timing.median.toFixed(1)} ms, ${(step.deviceBytes / MiB).toFixed(0)} MiB`);
    } finally {
      step.destroy();
    }
  },
});

const withFlash: BuildWork = (work, v) =>
  work.op === 'attention' ? attention(v['q']!, v['k']!, v['v']!, null, { flash: true }) : buildWork(work, v);

/** Flash attention beside the path that keeps scores, in turns, forward and with gradients. */
const flashPart = (precision: Precision, seconds: number): Part => ({
  name: `flash attention ${precision}`,
  seconds,
  precision,
  async run(gpu, context) {
    const {
      findings,
      options,
      settings: { quick },
    } = context;
    const target = asGpu(gpu);
    const suite = 'flash';
    const ceilings = await ceilingsOf(gpu, context);
    const small: Workload[] = [false, true].map((grad) =>
      workloadOf(`attention-40${grad ? '-grad' : ''}`, { op: 'attention', B: 1, H: 2, T: 40, D: 32 }, grad),
    );
    for (const workload of quick ? small : WORKLOADS.filter((w) => w.work.op === 'attention')) {
      const sets = inputSets(workload);
      const names = ['materialised', 'flash'].map((path) => `${workload.name}: ${path}`);
      if (options.remaining() < 0) {
        findings.leftOut.push({ suite, name: workload.name, engine: 'mgf', reason: 'no time was left' });
        continue;
      }
      options.progress(workload.name);
      const arms = [
        await mgfArm(target, workload, sets, { precision }),
        await mgfArm(target, workload, sets, { precision, build: withFlash }),
      ];
      const measured = await measure(arms, referencesOf(workload, sets), {
        seconds: options.seconds,
        deviceClock: true,
      });
      measured.forEach((m, i) => {
        if (!m.timing)
          return findings.refused.push({ suite, name: names[i]!, engine: 'mgf', reason: m.refused! });
        return findings.add(suite, names[i]!, 'mgf', m.timing, {
          clock: m.clock,
          gflops: workload.flops / m.timing.median / 1e6,
          of_ceiling: ofCeiling(ceilings, workload.flops, 0, m.timing.median),
          ...(m.peakBytes !== null && { peak_bytes: m.peakBytes }),
        });
      });
      for (const arm of arms) await arm.dispose();
    }
  },
});

/** The same work under toggles that take safety checks out of the generated code and of the runtime. */
const togglesPart = (label: string, toggles: Part['toggles'] & object, seconds: number): Part => ({
  name: `toggles ${label}`,
  seconds,
  precision: 'f32',
  toggles,
  async run(gpu, context) {
    const {
      findings,
      options,
      settings: { quick },
    } = context;
    const suite = 'toggles';
    const ceilings = await ceilingsOf(gpu, context);
    const wanted = quick
      ? ['softmax-1500x768']
      : [
          'matmul-1024',
          'conv1d-512-k3s2-grad',
          'softmax-1500x768',
          'attention-500-grad',
          'transformer-layer-grad',
        ];
    for (const workload of WORKLOADS.filter((w) => wanted.includes(w.name))) {
      if (options.remaining() < 0) return;
      const sets = inputSets(workload);
      const arm = await mgfArm(gpu, workload, sets);
      const [m] = await measure([arm], referencesOf(workload, sets), {
        seconds: options.seconds,
        deviceClock: true,
      });
      const name = `${workload.name}: ${label}`;
      if (m!.timing)
        findings.add(suite, name, 'mgf', m!.timing, {
          clock: m!.clock,
          of_ceiling: ofCeiling(ceilings, workload.flops, workload.bytes, m!.timing.median),
        });
      else findings.refused.push({ suite, name, engine: 'mgf', reason: m!.refused! });
      await arm.dispose();
    }
  },
});

/** Most valuable first: what no other machine can tell. */
export const PARTS: readonly Part[] = [
  {
    name: 'ceilings and launches',
    seconds: 45,
    precision: 'f32',
    async run(gpu, { findings, options, settings }) {
      tell({ ceilings: await findCeilings(gpu, findings, options) });
      await measureDispatches(gpu, findings, settings);
    },
  },
  {
    name: 'self-test',
    seconds: 60,
    precision: 'f32',
    run: (gpu, { settings: { quick }, remaining }) =>
      testVariants(asGpu(gpu), variantWanted(quick), (variant) => tell({ variant }), remaining),
  },
  { name: 'conformance f32', seconds: 60, precision: 'f32', run: conformance },
  gemmPart('matrix products', 110, FIRST_SIZES, QUICK_SIZES.slice(0, 1)),
  stepPart('base-step', 'f32', 60),
  stepPart('base-step', 'f16', 60),
  stepKernelsPart('base-step', 'f32', 45),
  // Its reference takes the host half a minute.
  peersPart('torch-step', 70, /^torch-step$/, null),
  flashPart('f32', 40),
  flashPart('f16', 40),
  kernelsPart('f32', 60),
  { name: 'conformance f16', seconds: 45, precision: 'f16', run: conformance },
  peersPart('peers', 60, /./, /^torch-step$/),
  stepPart('small-step', 'f32', 30),
  stepPart('small-step', 'f16', 30),
  stepPart('tiny-step', 'f32', 30),
  stepPart('tiny-step', 'f16', 30),
  stepKernelsPart('base-step', 'f16', 45),
  kernelsPart('f16', 60),
  gemmPart('more matrix products', 90, OTHER_SIZES, QUICK_SIZES.slice(1)),
  togglesPart('none', {}, 25),
  togglesPart('disable_robustness', { enable: ['disable_robustness'] }, 25),
  togglesPart('skip_validation', { enable: ['skip_validation'] }, 25),
  togglesPart('disable_workgroup_init', { enable: ['disable_workgroup_init'] }, 25),
  stepKernelsPart('tiny-step', 'f32', 30),
];

/**
 * The process of a part: opens the device under the settings' toggles and runs it. Throws what the part
 * throws.
 */
export async function runPart(settings: PartSettings): Promise<void> {
  if (settings.part === 'probe') return probe(settings);
  const part = PARTS.find((p) => p.name === settings.part);
  if (!part) throw new MGFError('usage', `there is no part "${settings.part}"`);
  const { adapter, toggles, precision, quick } = settings;
  const findings = new ToldFindings();
  const remaining = (): number => settings.until - Date.now();
  addAdapterProvider((prefer, tried) => dawnAdapter(prefer, tried, toggles));
  const gpu = await openGpu({ prefer: adapter, onNote: (note) => tell({ progress: note }) });
  const options: SuiteOptions = {
    // The suites' guesses of what something will take err on the long side: a quick run takes them at a
    // sixth, so that steps are tried too.
    wanted: (name) => !quick || QUICK_WORKLOADS.test(name),
    remaining: () => remaining() * (quick ? 6 : 1),
    memory: freemem(),
    seconds: quick ? 0.05 : 0.5,
    precision,
    progress: (line) => tell({ progress: line }),
  };
  try {
    await part.run(gpu, { settings, findings, options, remaining });
    noteRejections(gpu, findings);
  } finally {
    gpu.close();
  }
}
