/**
 * Which variant of a kernel is fastest on an adapter, measured for the products that a program really has.
 */
import { checkArguments, checkOptions, GPU, type Rules } from '../check.ts';
import type { AdapterProfile, Gpu } from '../gpu/device.ts';
import { BufferUsage } from '../gpu/flags.ts';
import { compileKernel } from '../gpu/pipelines.ts';
import type { Value } from '../graph/graph.ts';
import type { Dispatch, View } from '../launch/dispatch.ts';
import { checkNumbers } from '../ops/lib/check.ts';
import { readRegion } from './program.ts';
import { rejections, selfTest } from './self-test.ts';
import { byteSize, writeField } from './storage.ts';

/** The fastest variant for a key, and what each that was tried took, in milliseconds. */
export interface Choice {
  readonly variant: string;
  readonly ms: Readonly<Record<string, number>>;
}

/** What was measured on an adapter: plain data, to be kept as JSON. */
export interface Tuning {
  readonly adapter: string;
  readonly runtime: string;
  readonly choices: Readonly<Record<string, Choice>>;
}

/** One way to compute a product. */
export interface Candidate {
  readonly choice: string;
  readonly variant: string;
  /** Launches it so many times; resolves with the milliseconds of all of them. */
  run(repeats: number): Promise<number>;
}

/** What `startTuning` knows already, how it measures, and whom it tells. */
export interface TuneOptions {
  /** What was measured before; of another adapter or runtime it is not used. */
  readonly known?: Tuning | null;
  /** Rounds in which every candidate is timed once; the median counts. Default 3. */
  readonly rounds?: number;
  /** Milliseconds of one launch, instead of those of the device's clock. */
  readonly timer?: (candidate: Candidate) => Promise<number>;
  /** Before something is measured: for how many kinds of products. */
  readonly onStart?: (products: number) => void;
  /** After that, with all that is known now. */
  readonly onMeasured?: (tuning: Tuning) => void | Promise<void>;
}

const OPTIONS: Rules<TuneOptions> = {
  known: 'an object|null?',
  rounds: 'a number?',
  timer: 'a function?',
  onStart: 'a function?',
  onMeasured: 'a function?',
};

interface State {
  readonly choices: Map<string, Choice>;
  readonly options: TuneOptions;
  busy: Promise<void>;
  clock: 'timestamps' | 'wall' | null;
}
const states = new WeakMap<GPUDevice, State>();

type Collect = (adapter: AdapterProfile) => { readonly dispatches: readonly Dispatch[] };

/**
 * From now on, programs compiled for this device take the fastest variants: `compile` measures what nobody
 * knows yet. Variants differ in the order of their sums, so two runs agree to the bit only under one table.
 */
export function startTuning(gpu: Gpu, options: TuneOptions = {}): void {
  checkArguments('startTuning', { gpu: [gpu, GPU] });
  checkOptions('startTuning', options, OPTIONS);
  const { known } = options;
  const fits = known?.adapter === gpu.profile.name && known.runtime === gpu.profile.runtime;
  states.set(gpu.device, {
    choices: new Map(fits ? Object.entries(known.choices) : []),
    options,
    busy: Promise.resolve(),
    clock: null,
  });
}

/** What is known about this device; null unless tuning was started. */
export function tuningOf(gpu: Gpu): Tuning | null {
  checkArguments('tuningOf', { gpu: [gpu, GPU] });
  const state = states.get(gpu.device);
  return state
    ? { adapter: gpu.profile.name, runtime: gpu.profile.runtime, choices: Object.fromEntries(state.choices) }
    : null;
}

/**
 * The profile under which `collect` takes the fastest variants, after measuring what is missing; `adapter`
 * itself unless tuning was started.
 */
export async function tune(gpu: Gpu, adapter: AdapterProfile, collect: Collect): Promise<AdapterProfile> {
  const state = states.get(gpu.device);
  if (!state || adapter.tuned || adapter.untested) return adapter;
  const measured = state.busy.then(() => measureMissing(gpu, state, adapter, collect));
  state.busy = measured.catch(() => undefined);
  await measured;
  return { ...adapter, tuned: (key) => state.choices.get(key)?.variant };
}

async function measureMissing(
  gpu: Gpu,
  state: State,
  adapter: AdapterProfile,
  collect: Collect,
): Promise<void> {
  const asked = new Map<string, readonly string[]>();
  collect({
    ...adapter,
    tuned: (key, variants) => {
      asked.set(key, variants);
      return state.choices.get(key)?.variant;
    },
  });
  const missing = [...asked.keys()].filter((key) => !state.choices.has(key));
  if (!missing.length) return;
  const ways = await candidates(
    gpu,
    adapter,
    collect,
    new Set(missing),
    new Set(missing.flatMap((key) => asked.get(key)!)),
  );
  state.options.onStart?.(missing.length);
  for (const [choice, variants] of ways)
    if (variants.size) state.choices.set(choice, await fastest(gpu, state, choice, variants));
  const failure = gpu.failure();
  if (failure) throw failure;
  await state.options.onMeasured?.(tuningOf(gpu)!);
}

/**
 * By key and variant, the launches of the first product that has the key; only variants that pass their test.
 */
async function candidates(
  gpu: Gpu,
  adapter: AdapterProfile,
  collect: Collect,
  keys: ReadonlySet<string>,
  names: ReadonlySet<string>,
): Promise<Map<string, Map<string, Dispatch[]>>> {
  const ways = new Map<string, Map<string, Dispatch[]>>();
  for (const name of names) {
    const { dispatches } = collect({
      ...adapter,
      rejected: new Set([...(adapter.rejected ?? []), ...rejections(gpu).map((r) => r.variant)]),
      tuned: () => name,
    });
    dispatches.forEach((d, i) => {
      if (
        d.variant !== name ||
        d.choice === undefined ||
        !keys.has(d.choice) ||
        ways.get(d.choice)?.has(name)
      )
        return;
      // What follows a split sum adds up its parts.
      const launches = [d];
      const sum = dispatches[i + 1];
      if (sum?.kernel.name === 'gemm_reduce') launches.push(sum);
      if (!ways.has(d.choice)) ways.set(d.choice, new Map());
      ways.get(d.choice)!.set(name, launches);
    });
  }
  const all = [...ways.values()].flatMap((variants) => [...variants.values()].flat());
  for (const d of all) compileKernel(gpu, d.kernel, d.constants).catch(() => undefined);
  await selfTest(gpu, all);
  for (const variants of ways.values()) for (const { variant } of rejections(gpu)) variants.delete(variant);
  return ways;
}

/** Candidates this many times slower than the best at first sight are not timed again. */
const HOPELESS = 2.5;

async function fastest(
  gpu: Gpu,
  state: State,
  choice: string,
  variants: ReadonlyMap<string, readonly Dispatch[]>,
): Promise<Choice> {
  const { timer, rounds = 3 } = state.options;
  const workplace = new Workplace(gpu);
  try {
    let entries: { candidate: Candidate; repeats: number; times: number[] }[] = [];
    for (const [variant, launches] of variants)
      entries.push({
        candidate: { choice, variant, run: await workplace.prepare(state, launches) },
        repeats: 1,
        times: [],
      });
    if (!timer && entries.length > 1) entries = await firstLook(entries, state);
    for (let round = 0; round < (entries.length > 1 ? rounds : 1); round++) {
      for (const e of entries)
        e.times.push(timer ? await timer(e.candidate) : (await e.candidate.run(e.repeats)) / e.repeats);
    }
    const median = (times: number[]): number => [...times].sort((a, b) => a - b)[times.length >> 1]!;
    const timed = entries
      .map((e): [string, number] => [e.candidate.variant, median(e.times)])
      .sort((a, b) => a[1] - b[1]);
    return { variant: timed[0]![0], ms: Object.fromEntries(timed) };
  } finally {
    workplace.destroy();
  }
}

/**
 * Warms up, finds out how often a launch must be repeated to last long enough for the clock, and drops what
 * cannot win.
 */
async function firstLook<T extends { candidate: Candidate; repeats: number }>(
  entries: readonly T[],
  state: State,
): Promise<T[]> {
  const looks: number[] = [];
  for (const { candidate } of entries) {
    await candidate.run(1);
    looks.push((await candidate.run(4)) / 4);
  }
  const best = Math.max(1e-3, Math.min(...looks));
  const enough = state.clock === 'wall' ? 20 : 2;
  for (const e of entries) e.repeats = Math.min(500, Math.max(1, Math.ceil(enough / best)));
  return entries.filter((_, i) => looks[i]! <= HOPELESS * best);
}

const isView = (x: Value | View): x is View => 'value' in x;

/** Buffers of made-up numbers for the operands of one product. */
class Workplace {
  readonly #gpu: Gpu;
  readonly #buffers = new Map<Value, GPUBuffer>();
  readonly #others: (GPUBuffer | GPUQuerySet)[] = [];
  readonly #numbers: GPUBuffer;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    const numbers = checkNumbers(1 << 16, 1);
    this.#numbers = this.#own(
      gpu.device.createBuffer({
        label: 'tuning',
        size: numbers.byteLength,
        usage: BufferUsage.COPY_SRC | BufferUsage.COPY_DST,
      }),
    );
    gpu.device.queue.writeBuffer(this.#numbers, 0, numbers);
  }

  #own<T extends GPUBuffer | GPUQuerySet>(resource: T): T {
    this.#others.push(resource);
    return resource;
  }

  #buffer(value: Value): GPUBuffer {
    let buffer = this.#buffers.get(value);
    if (!buffer) {
      const { device } = this.#gpu;
      const size = byteSize(value.shape);
      buffer = device.createBuffer({
        label: 'tuning',
        size,
        usage: BufferUsage.STORAGE | BufferUsage.COPY_DST,
      });
      const encoder = device.createCommandEncoder();
      for (let at = 0; at < size; at += this.#numbers.size)
        encoder.copyBufferToBuffer(this.#numbers, 0, buffer, at, Math.min(this.#numbers.size, size - at));
      device.queue.submit([encoder.finish()]);
      this.#buffers.set(value, buffer);
    }
    return buffer;
  }

  /** A function that launches these dispatches so many times and resolves with the time of all. */
  async prepare(state: State, dispatches: readonly Dispatch[]): Promise<Candidate['run']> {
    const { device } = this.#gpu;
    const launches = await Promise.all(
      dispatches.map(async (d) => {
        const {
          pipeline,
          layout,
          interface: { bindings, fields },
        } = await compileKernel(this.#gpu, d.kernel, d.constants);
        const uniforms = new DataView(new ArrayBuffer(Math.max(16, Math.ceil(fields.length / 4) * 16)));
        fields.forEach(({ name, type }, i) => {
          const value = d.params?.[name];
          writeField(uniforms, 4 * i, type, typeof value === 'number' ? value : 0);
        });
        const uniform = this.#own(
          device.createBuffer({
            label: 'tuning',
            size: uniforms.byteLength,
            usage: BufferUsage.UNIFORM | BufferUsage.COPY_DST,
          }),
        );
        device.queue.writeBuffer(uniform, 0, uniforms.buffer as ArrayBuffer);
        const entries = bindings.map(({ name, binding, type }): GPUBindGroupEntry => {
          if (type === 'uniform') return { binding, resource: { buffer: uniform } };
          const bound = d.bind[name]!;
          return {
            binding,
            resource: isView(bound)
              ? { buffer: this.#buffer(bound.value), offset: bound.offset, size: bound.size }
              : { buffer: this.#buffer(bound) },
          };
        });
        return { pipeline, group: device.createBindGroup({ layout, entries }), grid: d.grid };
      }),
    );
    const launch = (repeats: number, clock?: GPUComputePassTimestampWrites): GPUCommandEncoder => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass(clock && { timestampWrites: clock });
      for (let i = 0; i < repeats; i++)
        for (const { pipeline, group, grid } of launches) {
          pass.setPipeline(pipeline);
          pass.setBindGroup(0, group);
          pass.dispatchWorkgroups(...grid);
        }
      pass.end();
      return encoder;
    };
    return async (repeats) => {
      state.clock ??= device.features.has('timestamp-query') ? 'timestamps' : 'wall';
      if (state.clock === 'timestamps') {
        const ticks = await this.#ticks((clock) => launch(repeats, clock));
        if (ticks) return Number(ticks[1]! - ticks[0]!) / 1e6;
        state.clock = 'wall';
      }
      const started = performance.now();
      this.#gpu.scope('measuring kernels', () => device.queue.submit([launch(repeats).finish()]));
      await this.#gpu.settle(device.queue.onSubmittedWorkDone());
      return performance.now() - started;
    };
  }

  /** Begin and end of a pass in nanoseconds, or null where the clock is too coarse: browsers round it. */
  async #ticks(
    record: (clock: GPUComputePassTimestampWrites) => GPUCommandEncoder,
  ): Promise<BigUint64Array | null> {
    const { device } = this.#gpu;
    const querySet = device.createQuerySet({ type: 'timestamp', count: 2 });
    const resolved = device.createBuffer({
      label: 'tuning',
      size: 16,
      usage: BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC,
    });
    try {
      const encoder = record({ querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 });
      encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
      this.#gpu.scope('measuring kernels', () => device.queue.submit([encoder.finish()]));
      const ticks = new BigUint64Array(
        await readRegion(this.#gpu, { buffer: resolved, offset: 0, size: 16 }),
      );
      const coarse = [65536n, 100_000n].some((step) => ticks.every((t) => t % step === 0n));
      return coarse || ticks[1]! <= ticks[0]! ? null : ticks;
    } finally {
      querySet.destroy();
      resolved.destroy();
    }
  }

  destroy(): void {
    for (const made of [...this.#buffers.values(), ...this.#others]) made.destroy();
  }
}
