import { opOf } from '../launch/op.ts';
import { checkArguments, checkOptions, GPU, GRAPH, VALUE, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { sizesApart } from '../numbers.ts';
import { atPrecision } from '../gpu/adapter.ts';
import type { AdapterProfile, Gpu, Precision } from '../gpu/device.ts';
import { BufferUsage } from '../gpu/flags.ts';
import { compileKernel, type Compiled } from '../gpu/pipelines.ts';
import { formatShape, type DType, type Shape } from '../graph/shape.ts';
import type { Graph, Node, Value } from '../graph/graph.ts';
import type { Dispatch, Scalar, View } from '../launch/dispatch.ts';
import { fuseMaps, type Launches } from './fuse.ts';
import { planImages, wholeRows, type ImageAccess, type ImageRead } from './images.ts';
import { placeBlocks } from './memory.ts';
import { Program, type PlannedDispatch } from './program.ts';
import { withoutWrongVariants } from './self-test.ts';
import { tune } from './tune.ts';
import { byteSize, writeField, type Region, type ScalarField } from './storage.ts';

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

const isView = (x: Value | View): x is View => 'value' in x;

/**
 * Turns a graph into a Program: prunes what no output needs, asks every op for its dispatches, plans memory
 * by lifetime, compiles all kernels in parallel, tests kernel variants that this device has not run before,
 * and freezes bind groups. Errors: MGFError 'limit' (a tensor over the adapter's limits), 'usage' (f16 where
 * the device has none), 'kernel', 'out-of-memory', 'shape'.
 */
export async function compile(gpu: Gpu, graph: Graph, options: CompileOptions = {}): Promise<Program> {
  checkArguments('compile', { gpu: [gpu, GPU], graph: [graph, GRAPH] });
  checkOptions('compile', options, OPTIONS);
  for (const [kind, values] of Object.entries({ outputs: options.outputs ?? {}, keep: options.keep ?? {} })) {
    for (const [name, value] of Object.entries(values)) {
      checkArguments('compile', { [`${kind}.${name}`]: [value, VALUE] });
    }
  }
  const { outputs = {}, keep = {}, place = new Map<Value, Region>(), label = 'program' } = options;
  const results = [...Object.values(outputs), ...Object.values(keep)];
  checkPlaces(graph, [...results, ...place.keys()]);
  const nodes = neededNodes(graph, [...results, ...place.keys()]);
  const started = performance.now();
  const roots = storageRoots(nodes);
  const root = (v: Value): Value => roots.get(v) ?? v;
  const wanted = new Set([...results, ...place.keys()].map(root));
  const collect = (adapter: AdapterProfile): Launches =>
    fuseMaps(collectDispatches(adapter, nodes), root, wanted);
  const { dispatches, owners } = await withoutWrongVariants(
    gpu,
    await tune(gpu, atPrecision(gpu.profile, options.precision), collect),
    collect,
  );

  const lifetimes = new Map<Value, { first: number; last: number }>();
  dispatches.forEach((d, i) => {
    for (const bound of Object.values(d.bind)) {
      const v = root(isView(bound) ? bound.value : bound);
      const life = lifetimes.get(v);
      if (life) life.last = i;
      else lifetimes.set(v, { first: i, last: i });
    }
  });
  const placed = new Map([...place].map(([v, region]) => [root(v), region]));
  const persistent = new Set(results.map(root));
  const transient = [...lifetimes.keys()].filter(
    (v) => v.kind === 'result' && !placed.has(v) && !persistent.has(v),
  );
  checkParameters([...lifetimes.keys()].filter((v) => !placed.has(v)));
  const resident = [
    ...new Set([
      ...[...lifetimes.keys()].filter((v) => v.kind !== 'result' && !placed.has(v)),
      ...persistent,
    ]),
  ].filter((v) => !placed.has(v));

  for (const v of [...transient, ...resident]) checkLimits(gpu, v);
  const plan = placeBlocks(transient.map((v) => ({ bytes: byteSize(v.shape), ...lifetimes.get(v)! })));

  const { device } = gpu;
  device.pushErrorScope('out-of-memory');
  const storage = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;
  const create = (name: string, bytes: number): GPUBuffer =>
    device.createBuffer({ label: name, size: gpu.profile.images ? wholeRows(bytes) : bytes, usage: storage });
  const slots = plan.slotBytes.map((bytes, i) => create(`${label} slot ${i}`, bytes));
  const regions = new Map<Value, Region>(placed);
  transient.forEach((v, i) =>
    regions.set(v, { buffer: slots[plan.slotOf[i]!]!, offset: 0, size: byteSize(v.shape) }),
  );
  const owned = [...slots];
  const computed = [...slots];
  for (const v of resident) {
    const buffer = create(v.name, byteSize(v.shape));
    if (v.data) device.queue.writeBuffer(buffer, 0, v.data);
    regions.set(v, { buffer, offset: 0, size: byteSize(v.shape) });
    owned.push(buffer);
    if (v.kind === 'result') computed.push(buffer);
  }
  const outOfMemory = device.popErrorScope();

  const compiled = await Promise.all(
    dispatches.map((d, i) =>
      compileKernel(gpu, d.kernel, d.constants).catch((error: unknown) => {
        throw error instanceof MGFError
          ? new MGFError(error.code, `${owners[i]!.scope || owners[i]!.op.name}: ${error.message}`)
          : error;
      }),
    ),
  );
  const compileMs = performance.now() - started;
  device.pushErrorScope('out-of-memory');
  const images = planImages(
    device,
    label,
    dispatches.map((d, i): ImageAccess => {
      const reads: ImageRead[] = [];
      const writes = new Set<GPUBuffer>();
      for (const { name, type } of compiled[i]!.interface.bindings) {
        const bound = d.bind[name];
        if (!bound || type === 'uniform' || type === 'read-only-storage') continue;
        const image = type === 'image' || type === 'panels';
        if (isView(bound) && image)
          throw new MGFError(
            'kernel',
            `${nodeLabel(owners[i]!)}: kernel ${compiled[i]!.name} reads "${name}" as an image, which ` +
              'is of a whole tensor, not of a view',
          );
        const value = root(isView(bound) ? bound.value : bound);
        const region = regions.get(value)!;
        if (image) reads.push({ value, from: region, width: panelWidth(d, name) });
        else writes.add(region.buffer);
      }
      return { reads, writes };
    }),
  );
  const outOfImages = device.popErrorScope();
  const bytes = owned.reduce((sum, b) => sum + b.size, images.bytes);
  if ((await outOfMemory) || (await outOfImages)) {
    [...owned, ...images.textures].forEach((resource) => resource.destroy());
    throw new MGFError(
      'out-of-memory',
      `${label}: the device has no room for ${(bytes / 2 ** 20).toFixed(0)} MiB of activations; use a ` +
        'smaller batch, shorter crops or a smaller preset',
    );
  }

  const uniforms = packUniforms(gpu, dispatches, compiled, owners);
  const uniformBuffer = device.createBuffer({
    label: `${label} uniforms`,
    size: uniforms.data.byteLength,
    usage: BufferUsage.UNIFORM | BufferUsage.COPY_DST,
  });
  owned.push(uniformBuffer);
  device.queue.writeBuffer(uniformBuffer, 0, uniforms.data);

  const planned = dispatches.map((d, i): PlannedDispatch => {
    const node = owners[i]!;
    const c = compiled[i]!;
    const where = nodeLabel(node);
    const writable = new Map<GPUBuffer, boolean>();
    const entries = c.interface.bindings.map(({ name, binding, type }): GPUBindGroupEntry => {
      if (type === 'uniform')
        return {
          binding,
          resource: { buffer: uniformBuffer, offset: uniforms.offsets[i]!, size: uniforms.sizes[i]! },
        };
      const bound = d.bind[name];
      if (!bound)
        throw new MGFError(
          'kernel',
          `${where}: kernel ${c.name} has a binding "${name}" that the op does not bind (it binds ` +
            `${Object.keys(d.bind).join(', ')})`,
        );
      if (type === 'image' || type === 'panels')
        return { binding, resource: images.view(i, root(bound as Value), panelWidth(d, name)) };
      const base = regions.get(root(isView(bound) ? bound.value : bound))!;
      const resource = isView(bound)
        ? { buffer: base.buffer, offset: base.offset + bound.offset, size: bound.size }
        : base;
      if (resource.size > gpu.profile.limits.maxStorageBufferBindingSize)
        throw tooLarge(gpu, where, resource.size, 'maxStorageBufferBindingSize');
      const write = type === 'storage';
      if ((writable.get(base.buffer) ?? write) !== write) {
        throw new MGFError(
          'kernel',
          `${where}: kernel ${c.name} reads and writes the buffer of "${name}" in one dispatch, which ` +
            'WebGPU forbids',
        );
      }
      writable.set(base.buffer, write);
      return { binding, resource };
    });
    const extra = Object.keys(d.bind).find((name) => !c.interface.bindings.some((b) => b.name === name));
    if (extra)
      throw new MGFError(
        'kernel',
        `${where}: the op binds "${extra}", which kernel ${c.name} does not declare (it has ` +
          `${c.interface.bindings.map((b) => b.name).join(', ')})`,
      );
    if (d.grid.some((n) => n > 65535 || n < 1))
      throw new MGFError(
        'limit',
        `${where}: kernel ${c.name} would need a grid of ${d.grid.join(' x ')} workgroups; each must ` +
          'be 1 to 65535',
      );
    return {
      node,
      label: where,
      kernel: c.name,
      constants: d.constants ?? {},
      pipeline: c.pipeline,
      grid: d.grid,
      copies: images.copies(i),
      group: device.createBindGroup({ label: where, layout: c.layout, entries }),
      bound: Object.entries(d.bind).map(([name, b]) => {
        const v = isView(b) ? b.value : b;
        return { name, value: v, slot: slots.indexOf(regions.get(root(v))!.buffer) };
      }),
    };
  });

  return new Program(gpu, {
    label,
    dispatches: planned,
    owned: [...owned, ...images.textures],
    computed,
    uniformBuffer,
    uniformData: uniforms.data,
    scalars: uniforms.scalars,
    compileMs,
    bytes,
    inputs: new Map(
      resident.filter((v) => v.kind === 'input').map((v) => [v.name, { value: v, region: regions.get(v)! }]),
    ),
    declared: graph.values.filter((v) => v.kind === 'input').map((v) => v.name),
    outputs: new Map(
      Object.entries(outputs).map(([name, v]) => [name, { value: v, region: regions.get(root(v))! }]),
    ),
    kept: new Map(
      [...Object.entries(keep), ...Object.entries(outputs)].map(([name, v]) => [
        name,
        { value: v, region: regions.get(root(v))! },
      ]),
    ),
    lifetimes: transient.map((v, i) => ({ value: v, slot: plan.slotOf[i]!, ...lifetimes.get(v)! })),
    slotBytes: plan.slotBytes,
  });
}

/** Vec4s in a row of a binding that is read in panels; null of any other. */
const panelWidth = (d: Dispatch, name: string): number | null => d.panels?.[name] ?? null;

const nodeLabel = (node: Node): string =>
  `${node.scope ? `${node.scope}/` : ''}${node.op.name}${node.phase === 'backward' ? '.backward' : ''}`;

/** Throws MGFError 'usage' for a value of another graph among outputs, kept and placed ones. */
function checkPlaces(graph: Graph, values: readonly Value[]): void {
  const stranger = values.find((v) => v.graph !== graph);
  if (!stranger) return;
  const message = `compile: "${stranger.name}" is a value of another graph, not of the one that is compiled.`;
  throw new MGFError('usage', message);
}

/**
 * Throws MGFError 'usage' for a parameter without storage of the caller's: it would be zero, and be lost. Other
 * states without a place live in the program and begin at zero.
 */
function checkParameters(unplaced: readonly Value[]): void {
  const lost = unplaced.find((v) => v.kind === 'state' && v.requiresGrad && !v.data);
  if (!lost) return;
  const message =
    `compile: the parameter "${lost.name}" has no place, so that it would begin at zero and could not be ` +
    'saved; give it storage with the option place (a ParameterStore has some).';
  throw new MGFError('usage', message);
}

/** Nodes that some wanted value depends on, and those that change state, in creation order. */
function neededNodes(graph: Graph, wanted: readonly Value[]): Node[] {
  const needed = new Set<Node>();
  for (const v of wanted) if (v.node) needed.add(v.node);
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const node = graph.nodes[i]!;
    if (node.phase === 'forward' && node.op.mutates?.length) needed.add(node);
    if (needed.has(node)) for (const v of node.inputs) if (v?.node) needed.add(v.node);
  }
  return graph.nodes.filter((n) => needed.has(n));
}

/** Values that are another value's storage under a new shape. */
function storageRoots(nodes: readonly Node[]): Map<Value, Value> {
  const roots = new Map<Value, Value>();
  for (const { op, inputs, outputs } of nodes) {
    if (op.alias) roots.set(outputs[0]!, roots.get(inputs[0]!) ?? inputs[0]!);
  }
  return roots;
}

/** What the nodes launch on an adapter. */
export function collectDispatches(
  adapter: AdapterProfile,
  nodes: readonly Node[],
): { dispatches: Dispatch[]; owners: Node[] } {
  const dispatches: Dispatch[] = [];
  const owners: Node[] = [];
  let temps = 0;
  for (const node of nodes) {
    if (node.op.alias) continue;
    const temp = (shape: Shape, dtype: DType = 'f32'): Value => {
      temps++;
      return {
        id: -temps,
        name: `${nodeLabel(node)} scratch`,
        shape,
        dtype,
        kind: 'result',
        graph: node.inputs.find(Boolean)!.graph,
        node,
        requiresGrad: false,
      };
    };
    for (const d of dispatchesOf(adapter, node, temp)) {
      dispatches.push(d);
      owners.push(node);
    }
  }
  return { dispatches, owners };
}

function dispatchesOf(
  adapter: AdapterProfile,
  node: Node,
  temp: (shape: Shape, dtype?: DType) => Value,
): Dispatch[] {
  const { attrs, inputs, outputs } = node;
  const op = opOf(node);
  if (node.phase === 'forward') {
    const input = (i: number): Value => {
      const v = inputs[i];
      if (!v) throw new MGFError('shape', `${op.name}: input ${i} was not given`);
      return v;
    };
    return op.forward({ attrs, adapter, inputs, outputs: outputs as Value[], input, temp });
  }
  const { saves } = op;
  const upstreams = node.of!.outputs.length;
  const saved = (list: readonly number[], i: number, base: number, what: string): Value | null => {
    const at = list.indexOf(i);
    if (at < 0)
      throw new MGFError('kernel', `${op.name}.backward reads ${what} ${i}, which its "saves" does not name`);
    return inputs[base + at] ?? null;
  };
  return op.backward!({
    attrs,
    adapter,
    temp,
    upstream: (i) => inputs[i] ?? null,
    input: (i) => saved(saves.inputs, i, upstreams, 'input'),
    output: (i) => saved(saves.outputs, i, upstreams + saves.inputs.length, 'output')!,
    grad: (i) => outputs[i] ?? null,
  });
}

interface Uniforms {
  data: ArrayBuffer;
  offsets: number[];
  sizes: number[];
  scalars: Map<string, ScalarField[]>;
}

/**
 * One 256-byte aligned slot a dispatch in one buffer; fields that are per-step scalars are remembered by
 * name.
 */
function packUniforms(
  gpu: Gpu,
  dispatches: readonly Dispatch[],
  compiled: readonly Compiled[],
  owners: readonly Node[],
): Uniforms {
  const align = gpu.profile.limits.minUniformBufferOffsetAlignment;
  const offsets: number[] = [];
  const sizes: number[] = [];
  let end = 0;
  for (const c of compiled) {
    offsets.push(end);
    sizes.push(Math.max(16, Math.ceil(c.interface.fields.length / 4) * 16));
    end += Math.ceil(sizes.at(-1)! / align) * align;
  }
  const data = new ArrayBuffer(Math.max(align, end));
  const view = new DataView(data);
  const scalars = new Map<string, ScalarField[]>();
  dispatches.forEach((d, i) => {
    const params = d.params ?? {};
    const { fields } = compiled[i]!.interface;
    const where = `${nodeLabel(owners[i]!)}: kernel ${compiled[i]!.name}`;
    const unknown = Object.keys(params).find((name) => !fields.some((f) => f.name === name));
    if (unknown)
      throw new MGFError(
        'kernel',
        `${where} has no uniform field "${unknown}" (it has ${fields.map((f) => f.name).join(', ')})`,
      );
    fields.forEach(({ name, type }, j) => {
      const value: number | Scalar | undefined = params[name];
      const at = offsets[i]! + 4 * j;
      if (value === undefined) throw new MGFError('kernel', `${where} needs a uniform field "${name}"`);
      if (typeof value === 'number') writeField(view, at, type, value);
      else scalars.set(value.scalar, [...(scalars.get(value.scalar) ?? []), { offset: at, type }]);
    });
  });
  return { data, offsets, sizes, scalars };
}

function checkLimits(gpu: Gpu, v: Value): void {
  const bytes = byteSize(v.shape);
  const { limits } = gpu.profile;
  const where = `${v.node ? nodeLabel(v.node) : v.name} ${formatShape(v.shape)}`;
  if (bytes > limits.maxBufferSize) throw tooLarge(gpu, where, bytes, 'maxBufferSize');
  if (bytes > limits.maxStorageBufferBindingSize)
    throw tooLarge(gpu, where, bytes, 'maxStorageBufferBindingSize');
}

function tooLarge(
  gpu: Gpu,
  where: string,
  bytes: number,
  limit: 'maxBufferSize' | 'maxStorageBufferBindingSize',
): MGFError {
  const [needed, allowed] = sizesApart(bytes, gpu.profile.limits[limit], 'MiB', 0);
  return new MGFError(
    'limit',
    `${where} needs ${needed}, and ${gpu.profile.name} allows ${allowed} (${limit}); use a smaller ` +
      'batch, shorter crops or a smaller preset',
  );
}
