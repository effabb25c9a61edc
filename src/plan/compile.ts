import { checkArguments, checkOptions, GPU, GRAPH, VALUE, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { atPrecision } from '../gpu/adapter.ts';
import type { AdapterProfile, Gpu, Precision } from '../gpu/device.ts';
import { compileKernel } from '../gpu/pipelines.ts';
import type { Graph, Node, Value } from '../graph/graph.ts';
import { bindAll, imageAccess, type Launch } from './bind.ts';
import { fuseMaps, type Launches } from './fuse.ts';
import { planImages, wholeRows } from './images.ts';
import { lifetimesOf, placeValues, type Lifetime, type Storage } from './lifetimes.ts';
import { checkLimits } from './limits.ts';
import { lower } from './lower.ts';
import { packUniforms } from './pack.ts';
import { Program } from './program.ts';
import { prune, storageRoots, type Root } from './prune.ts';
import { Resources } from './resources.ts';
import { withoutWrongVariants } from './self-test.ts';
import { byteSize, type Region } from './storage.ts';
import { tune } from './tune.ts';

/** What a program is wanted for, and what lives outside of it. */
export interface CompileOptions {
  /** Small results that every step brings back to the host, by the name they get (losses, norms). */
  readonly outputs?: Readonly<Record<string, Value>>;
  /** Results that stay on the device for `program.read(name)`. */
  readonly keep?: Readonly<Record<string, Value>>;
  /**
   * Storage owned by somebody else: parameters, moments, and the gradients that go straight into a flat
   * buffer.
   */
  readonly place?: ReadonlyMap<Value, Region>;
  readonly label?: string;
  /** What matrix products multiply. Default: f32. */
  readonly precision?: Precision;
}

const OPTIONS: Rules<CompileOptions> = {
  outputs: 'an object?',
  keep: 'an object?',
  place: 'a Map?',
  label: 'a text?',
  precision: '"f32"|"f16"?',
};

/**
 * Turns a graph into a Program, pass by pass: prune what no output needs, lower nodes to dispatches, choose
 * and test kernel variants, find lifetimes, place values, compile all kernels in parallel, bind, pack.
 * Whatever fails after the first buffer exists frees everything. Errors: MGFError 'limit' (a tensor over the
 * adapter's limits), 'usage' (f16 where the device has none), 'kernel',
 * 'out-of-memory', 'shape'.
 */
export async function compile(gpu: Gpu, graph: Graph, options: CompileOptions = {}): Promise<Program> {
  checkCall(gpu, graph, options);
  const { outputs = {}, keep = {}, place = new Map<Value, Region>(), label = 'program' } = options;
  const started = performance.now();
  const results = [...Object.values(outputs), ...Object.values(keep)];
  const nodes = prune(graph, [...results, ...place.keys()]);
  const root = storageRoots(nodes);
  const launches = await chooseVariants(gpu, nodes, root, [...results, ...place.keys()], options.precision);
  const placed = new Map([...place].map(([v, region]) => [root(v), region]));
  const lifetimes = lifetimesOf(launches.dispatches, root);
  const storage = placeValues(lifetimes, new Set(placed.keys()), results.map(root));
  for (const v of [...storage.transient, ...storage.resident]) checkLimits(gpu.profile, v);
  tellUnplaced(gpu, label, storage.resident);
  const resources = new Resources(gpu.device);
  try {
    const plan = { label, launches, root, placed, lifetimes, storage, started };
    return await build(gpu, resources, plan, { graph, outputs, keep });
  } catch (error) {
    resources.free();
    throw error;
  }
}

/** A parameter without storage of the caller's is rarely meant: it begins at zero, and nobody can save it. */
function tellUnplaced(gpu: Gpu, label: string, resident: readonly Value[]): void {
  const lost = resident.filter((v) => v.kind === 'state' && v.requiresGrad && !v.data).map((v) => v.name);
  if (lost.length === 0) return;
  const what = lost.length === 1 ? `the parameter ${lost[0]} has` : `the parameters ${lost.join(', ')} have`;
  gpu.note(`${label}: ${what} no place, so they begin at zero and go with the program (option place).`);
}

function checkCall(gpu: Gpu, graph: Graph, options: CompileOptions): void {
  checkArguments('compile', { gpu: [gpu, GPU], graph: [graph, GRAPH] });
  checkOptions('compile', options, OPTIONS);
  for (const [kind, values] of Object.entries({ outputs: options.outputs ?? {}, keep: options.keep ?? {} })) {
    for (const [name, value] of Object.entries(values)) {
      checkArguments('compile', { [`${kind}.${name}`]: [value, VALUE] });
    }
  }
}

/** Lowers the nodes with the variants that are fastest on this device and compute rightly there. */
async function chooseVariants(
  gpu: Gpu,
  nodes: readonly Node[],
  root: Root,
  wanted: readonly Value[],
  precision: Precision | undefined,
): Promise<Launches> {
  const kept = new Set(wanted.map(root));
  const collect = (adapter: AdapterProfile): Launches => fuseMaps(lower(adapter, nodes), root, kept);
  const tuned = await tune(gpu, atPrecision(gpu.profile, precision), collect);
  return withoutWrongVariants(gpu, tuned, collect);
}

interface Plan {
  readonly label: string;
  readonly launches: Launches;
  readonly root: Root;
  readonly placed: ReadonlyMap<Value, Region>;
  readonly lifetimes: ReadonlyMap<Value, Lifetime>;
  readonly storage: Storage;
  /** When compilation began, by `performance.now()`. */
  readonly started: number;
}

interface Wanted {
  readonly graph: Graph;
  readonly outputs: Readonly<Record<string, Value>>;
  readonly keep: Readonly<Record<string, Value>>;
}

/** The part of compilation that needs a device. */
async function build(gpu: Gpu, resources: Resources, plan: Plan, wanted: Wanted): Promise<Program> {
  const { label, root } = plan;
  const { regions, slots, computed } = resources.watched(() => allocate(gpu, resources, plan));
  const launches = await compileKernels(gpu, plan.launches);
  const compileMs = performance.now() - plan.started;
  const accesses = launches.map((launch) => imageAccess(launch, root, regions));
  const images = resources.watched(() => planImages(resources, label, accesses));
  const bytes = resources.owned.reduce((sum, r) => sum + ('size' in r ? r.size : 0), images.bytes);
  if (await resources.outOfMemory()) {
    throw new MGFError(
      'out-of-memory',
      `${label}: the device has no room for ${(bytes / 2 ** 20).toFixed(0)} MiB of activations; use a ` +
        'smaller batch, shorter crops or a smaller preset',
    );
  }
  const align = gpu.profile.limits.minUniformBufferOffsetAlignment;
  const packed = packUniforms(
    align,
    plan.launches.dispatches,
    launches.map((l) => l.compiled),
    plan.launches.owners,
  );
  const buffer = resources.uniforms(`${label} uniforms`, packed.data);
  const layout = { root, regions, slots, images, uniforms: { ...packed, buffer } };
  const dispatches = bindAll(gpu, launches, layout);
  const found = (v: Value): Found => ({ value: v, region: regions.get(root(v))! });
  const named = (values: Readonly<Record<string, Value>>): Map<string, Found> =>
    new Map(Object.entries(values).map(([name, v]) => [name, found(v)]));
  const { transient, resident, slotOf, slotBytes } = plan.storage;
  const inputs = resident.filter((v) => v.kind === 'input');
  return new Program(gpu, {
    label,
    dispatches,
    owned: resources.owned,
    computed,
    uniformBuffer: buffer,
    uniformData: packed.data,
    scalars: packed.scalars,
    compileMs,
    bytes,
    inputs: new Map(inputs.map((v) => [v.name, found(v)])),
    declared: wanted.graph.values.filter((v) => v.kind === 'input').map((v) => v.name),
    outputs: named(wanted.outputs),
    kept: named({ ...wanted.keep, ...wanted.outputs }),
    lifetimes: transient.map((v, i) => ({ value: v, slot: slotOf[i]!, ...plan.lifetimes.get(v)! })),
    slotBytes,
  });
}

interface Found {
  readonly value: Value;
  readonly region: Region;
}

/** Buffers of slots and residents. `computed`: those that a step writes. */
function allocate(
  gpu: Gpu,
  resources: Resources,
  { label, placed, storage }: Plan,
): { regions: Map<Value, Region>; slots: GPUBuffer[]; computed: GPUBuffer[] } {
  const create = (name: string, bytes: number): GPUBuffer =>
    resources.storage(name, gpu.profile.images ? wholeRows(bytes) : bytes);
  const slots = storage.slotBytes.map((bytes, i) => create(`${label} slot ${i}`, bytes));
  const regions = new Map<Value, Region>(placed);
  storage.transient.forEach((v, i) => {
    regions.set(v, { buffer: slots[storage.slotOf[i]!]!, offset: 0, size: byteSize(v.shape) });
  });
  const computed = [...slots];
  for (const v of storage.resident) {
    const buffer = create(v.name, byteSize(v.shape));
    if (v.data) gpu.device.queue.writeBuffer(buffer, 0, v.data);
    regions.set(v, { buffer, offset: 0, size: byteSize(v.shape) });
    if (v.kind === 'result') computed.push(buffer);
  }
  return { regions, slots, computed };
}

/** All kernels, in parallel; errors name the node that launches the kernel. */
function compileKernels(gpu: Gpu, { dispatches, owners }: Launches): Promise<Launch[]> {
  return Promise.all(
    dispatches.map(async (dispatch, i) => {
      const node = owners[i]!;
      const compiled = await compileKernel(gpu, dispatch.kernel, dispatch.constants).catch(
        (error: unknown) => {
          throw error instanceof MGFError
            ? new MGFError(error.code, `${node.scope || node.op.name}: ${error.message}`)
            : error;
        },
      );
      return { dispatch, compiled, node };
    }),
  );
}
