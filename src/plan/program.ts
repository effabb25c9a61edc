import { checkArguments, checkFields, checkNames, describe, GPU } from '../check.ts';
import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import { BufferUsage, MapMode } from '../gpu/flags.ts';
import { elements, formatShape, type DType } from '../graph/shape.ts';
import type { Node, Value } from '../graph/graph.ts';
import { copyToImage, type ImageCopy } from './images.ts';
import { writeField, type Region, type ScalarField } from './storage.ts';

/** A launch of a program: its pipeline and bindings, and where it comes from. */
export interface PlannedDispatch {
  readonly node: Node;
  readonly label: string;
  readonly kernel: string;
  readonly constants: Readonly<Record<string, number>>;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly grid: readonly [number, number, number];
  /** Images to make before it. */
  readonly copies: readonly ImageCopy[];
  /** What it binds, and the slot of the memory plan (-1: storage outside the plan). */
  readonly bound: readonly { readonly name: string; readonly value: Value; readonly slot: number }[];
}

/** Milliseconds of one dispatch, and of the copies into images that its kernel reads. */
export interface Profiled {
  readonly dispatch: PlannedDispatch;
  readonly ms: number;
  readonly copyMs: number;
}

interface Located {
  readonly value: Value;
  readonly region: Region;
}

export interface ProgramParts {
  readonly label: string;
  readonly dispatches: readonly PlannedDispatch[];
  /** Buffers and textures to destroy with the program. */
  readonly owned: readonly (GPUBuffer | GPUTexture)[];
  /** Those of them that hold what a step computes. */
  readonly computed: readonly GPUBuffer[];
  readonly uniformBuffer: GPUBuffer;
  readonly uniformData: ArrayBuffer;
  readonly scalars: ReadonlyMap<string, readonly ScalarField[]>;
  readonly inputs: ReadonlyMap<string, Located>;
  /** Names of all inputs of the graph, those included that no kernel reads. */
  readonly declared: readonly string[];
  readonly outputs: ReadonlyMap<string, Located>;
  readonly kept: ReadonlyMap<string, Located>;
  readonly lifetimes: readonly {
    readonly value: Value;
    readonly slot: number;
    readonly first: number;
    readonly last: number;
  }[];
  readonly slotBytes: readonly number[];
  readonly compileMs: number;
  readonly bytes: number;
}

/**
 * Contents of a tensor on the host, by its element type: f32 Float32Array, i32 Int32Array, u32 Uint32Array.
 */
export type HostArray = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

const ARRAYS = {
  f32: Float32Array,
  i32: Int32Array,
  u32: Uint32Array,
} as const satisfies Record<DType, unknown>;

/** A copy of `value`'s numbers, which begin at byte `offset`. */
const hostArray = ({ dtype, shape }: Value, bytes: ArrayBuffer, offset: number): HostArray =>
  new ARRAYS[dtype](bytes, offset, elements(shape)).slice();

/** Read-back buffers made in advance; more steps in flight than this make more of them, once. */
const STAGING = 3;

/**
 * A compiled graph: a flat list of dispatches that `step` replays in one submit, and in one pass where no
 * kernel reads images.
 */
export class Program {
  readonly #gpu: Gpu;
  readonly #parts: ProgramParts;
  /** Read-back buffers, and those of them that no step in flight waits for. */
  readonly #staging: GPUBuffer[] = [];
  readonly #free: GPUBuffer[] = [];
  readonly #outputOffsets = new Map<string, number>();
  /** Inputs that no step has been given yet. */
  readonly #missing: Set<string>;
  #outputBytes = 0;

  /** Programs come from `compile`. */
  constructor(gpu: Gpu, parts: ProgramParts) {
    checkArguments('Program', { gpu: [gpu, GPU] });
    checkFields('Program', 'parts.', parts, {
      dispatches: 'a list',
      inputs: 'a Map',
      outputs: 'a Map',
      kept: 'a Map',
    });
    this.#gpu = gpu;
    this.#parts = parts;
    for (const [name, { region }] of parts.outputs) {
      this.#outputOffsets.set(name, this.#outputBytes);
      this.#outputBytes += region.size;
    }
    this.#missing = new Set(parts.inputs.keys());
    try {
      for (let i = 0; i < STAGING && this.#outputBytes > 0; i++) this.#free.push(this.#createStaging());
    } catch (error) {
      for (const buffer of this.#staging) buffer.destroy();
      throw error;
    }
  }

  #createStaging(): GPUBuffer {
    const label = `${this.#parts.label} read-back ${this.#staging.length}`;
    const buffer = this.#gpu.device.createBuffer({
      label,
      size: this.#outputBytes,
      usage: BufferUsage.MAP_READ | BufferUsage.COPY_DST,
    });
    this.#staging.push(buffer);
    return buffer;
  }

  /** Names of the graph's inputs, those included that no kernel of this program reads. */
  get inputs(): readonly string[] {
    return this.#parts.declared;
  }
  /** The launches of a step, in order. */
  get dispatches(): readonly PlannedDispatch[] {
    return this.#parts.dispatches;
  }
  /** Bytes of buffers that this program owns (activations, inputs, outputs; not parameters). */
  get bytes(): number {
    return this.#parts.bytes;
  }
  /** Milliseconds spent compiling pipelines. */
  get compileMs(): number {
    return this.#parts.compileMs;
  }

  /**
   * Runs the program once. `inputs`: every graph input by name (an input left out keeps its last contents
   * after the first step); `scalars`: every per-step scalar (others are ignored). Resolves with the outputs,
   * each in the array of its dtype, when the device is done. The work is submitted before this returns, so
   * that steps issued without waiting run in the order of the calls, across programs too. Throws MGFError
   * 'shape' for a missing or wrongly sized input or scalar, 'usage' for an input that the graph has not, and
   * whatever the device reported ('device-lost', 'validation').
   */
  async step(
    inputs: Readonly<Record<string, HostArray>> = {},
    scalars: Readonly<Record<string, number>> = {},
  ): Promise<Record<string, HostArray>> {
    const { device } = this.#gpu;
    this.#raise();
    this.#upload(inputs, scalars);
    const staging = this.#outputBytes ? (this.#free.pop() ?? this.#createStaging()) : null;
    const encoder = device.createCommandEncoder();
    let pass = encoder.beginComputePass();
    let pipeline: GPUComputePipeline | null = null;
    for (const d of this.#parts.dispatches) {
      if (d.copies.length) {
        pass.end();
        for (const copy of d.copies) copyToImage(encoder, copy);
        pass = encoder.beginComputePass();
        pipeline = null;
      }
      if (d.pipeline !== pipeline) pass.setPipeline((pipeline = d.pipeline));
      pass.setBindGroup(0, d.group);
      pass.dispatchWorkgroups(d.grid[0], d.grid[1], d.grid[2]);
    }
    pass.end();
    if (staging)
      for (const [name, { region }] of this.#parts.outputs)
        encoder.copyBufferToBuffer(
          region.buffer,
          region.offset,
          staging,
          this.#outputOffsets.get(name)!,
          region.size,
        );
    this.#gpu.scope(this.#parts.label, () => device.queue.submit([encoder.finish()]));
    if (!staging) {
      await this.#gpu.settle(device.queue.onSubmittedWorkDone());
      this.#raise();
      return {};
    }
    return this.#collect(staging);
  }

  async #collect(buffer: GPUBuffer): Promise<Record<string, HostArray>> {
    try {
      await this.#gpu.settle(buffer.mapAsync(MapMode.READ));
    } catch (error) {
      this.#raise();
      throw new MGFError(
        'device-lost',
        `${this.#parts.label}: reading back failed: ${(error as Error).message}`,
        { cause: error },
      );
    }
    const bytes = buffer.getMappedRange();
    const result: Record<string, HostArray> = {};
    for (const [name, { value }] of this.#parts.outputs) {
      result[name] = hostArray(value, bytes, this.#outputOffsets.get(name)!);
    }
    buffer.unmap();
    this.#free.push(buffer);
    this.#raise();
    return result;
  }

  /** Contents of a kept result, an output or an input after the last step, in the array of its dtype. */
  async read(name: string): Promise<HostArray> {
    checkArguments(`${this.#parts.label}: read`, { name: [name, 'a text'] });
    const found = this.#parts.kept.get(name) ?? this.#parts.inputs.get(name);
    if (!found)
      throw new MGFError(
        'shape',
        `${this.#parts.label} keeps no "${name}"; it keeps ${[...this.#parts.kept.keys()].join(', ')}`,
      );
    const bytes = await readRegion(this.#gpu, found.region);
    this.#raise();
    return hostArray(found.value, bytes, 0);
  }

  /**
   * Fills everything that a step computes with NaN: an element that nobody writes, or that is read before it
   * is written, will show.
   */
  poison(): void {
    for (const buffer of this.#parts.computed)
      this.#gpu.device.queue.writeBuffer(buffer, 0, new Float32Array(buffer.size / 4).fill(NaN));
  }

  /**
   * Milliseconds of each dispatch, and of the copies into images that are made just before it (a pass and a
   * timestamp pair each). Without arguments the inputs and scalars of the last step stay in place. Needs the
   * feature timestamp-query: MGFError 'limit'.
   */
  async profile(
    inputs?: Readonly<Record<string, HostArray>>,
    scalars?: Readonly<Record<string, number>>,
  ): Promise<Profiled[]> {
    const { device } = this.#gpu;
    const { dispatches } = this.#parts;
    if (!device.features.has('timestamp-query'))
      throw new MGFError(
        'limit',
        'profiling needs the feature timestamp-query, which this device was opened without',
      );
    if (inputs || scalars) this.#upload(inputs ?? {}, scalars ?? {});
    const count = 4 * dispatches.length;
    const set = 4096; // the most queries that a set may have
    const sets = Array.from({ length: Math.ceil(count / set) }, (_, i) =>
      device.createQuerySet({ type: 'timestamp', count: Math.min(set, count - i * set) }),
    );
    const resolved = device.createBuffer({
      size: 8 * count,
      usage: BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC,
    });
    const encoder = device.createCommandEncoder();
    const begin = (i: number): GPUComputePassEncoder =>
      encoder.beginComputePass({
        timestampWrites: {
          querySet: sets[Math.floor(i / set)]!,
          beginningOfPassWriteIndex: i % set,
          endOfPassWriteIndex: (i % set) + 1,
        },
      });
    dispatches.forEach((d, i) => {
      // Copies have no timestamps of their own: they lie between an empty pass and the dispatch's.
      if (d.copies.length) {
        begin(4 * i).end();
        for (const copy of d.copies) copyToImage(encoder, copy);
      }
      const pass = begin(4 * i + 2);
      pass.setPipeline(d.pipeline);
      pass.setBindGroup(0, d.group);
      pass.dispatchWorkgroups(d.grid[0], d.grid[1], d.grid[2]);
      pass.end();
    });
    sets.forEach((s, i) => encoder.resolveQuerySet(s, 0, s.count, resolved, 8 * i * set));
    device.queue.submit([encoder.finish()]);
    const times = new BigUint64Array(
      await readRegion(this.#gpu, { buffer: resolved, offset: 0, size: 8 * count }),
    );
    resolved.destroy();
    sets.forEach((s) => s.destroy());
    this.#raise();
    const ms = (from: number, to: number): number => Number(times[to]! - times[from]!) / 1e6;
    return dispatches.map((dispatch, i) => ({
      dispatch,
      ms: ms(4 * i + 2, 4 * i + 3),
      copyMs: dispatch.copies.length ? ms(4 * i + 1, 4 * i + 2) : 0,
    }));
  }

  /** Order, shapes, bytes, lifetimes, slots and peak, as text. */
  toString(): string {
    const { label, dispatches, slotBytes, lifetimes, bytes } = this.#parts;
    const mib = (n: number): string => `${(n / 2 ** 20).toFixed(2)} MiB`;
    const lines = [
      `${label}: ${dispatches.length} dispatches, ${new Set(dispatches.map((d) => d.pipeline)).size} ` +
        `pipelines, ${mib(bytes)}`,
    ];
    dispatches.forEach((d, i) => {
      const bound = d.bound
        .map((b) => `${b.name}=${b.value.name}${formatShape(b.value.shape)}${b.slot < 0 ? '' : `@${b.slot}`}`)
        .join('  ');
      lines.push(`${String(i).padStart(4)}  ${d.label}  ${d.kernel} <${d.grid.join('x')}>  ${bound}`);
    });
    const unshared = lifetimes.reduce((sum, l) => sum + l.value.shape.reduce((a, b) => a * b, 4), 0);
    lines.push(
      `slots: ${slotBytes.length}, ${mib(slotBytes.reduce((a, b) => a + b, 0))} for ` +
        `${lifetimes.length} tensors of ${mib(unshared)}`,
    );
    slotBytes.forEach((size, slot) => {
      const members = lifetimes.filter((l) => l.slot === slot).sort((a, b) => a.first - b.first);
      lines.push(
        `  @${slot} ${mib(size)}  ${members.map((l) => `${l.value.name} [${l.first}..${l.last}]`).join('  ')}`,
      );
    });
    return lines.join('\n');
  }

  /** Frees what the program owns; parameters and other placed storage are their owners'. */
  destroy(): void {
    for (const b of this.#parts.owned) b.destroy();
    for (const b of this.#staging) b.destroy();
  }

  #upload(inputs: Readonly<Record<string, HostArray>>, scalars: Readonly<Record<string, number>>): void {
    const { queue } = this.#gpu.device;
    const { label, declared } = this.#parts;
    checkArguments(`${label}: step`, { inputs: [inputs, 'an object'], scalars: [scalars, 'an object'] });
    checkNames(label, 'input', Object.keys(inputs), declared);
    for (const [name, data] of Object.entries(inputs)) {
      const found = this.#parts.inputs.get(name);
      if (!found) continue; // an input that no kernel of this program reads was pruned with its nodes
      const wanted = elements(found.value.shape);
      checkArguments(label, { [`input "${name}"`]: [data, 'an array of numbers'] });
      if (data.length !== wanted)
        throw new MGFError(
          'shape',
          `${label}: input "${name}" has ${data.length} elements, the graph wants ${wanted} ` +
            `${formatShape(found.value.shape)}`,
        );
      const array = ARRAYS[found.value.dtype].name;
      if (Object.prototype.toString.call(data) !== `[object ${array}]`) {
        throw new MGFError(
          'shape',
          `${label}: input "${name}" must be ${found.value.dtype}: give ` + `${array}, not ${describe(data)}`,
        );
      }
      queue.writeBuffer(found.region.buffer, found.region.offset, data);
      this.#missing.delete(name);
    }
    if (this.#missing.size)
      throw new MGFError(
        'shape',
        `${label}: the input "${[...this.#missing][0]}" was never given (it wants ` +
          `${[...this.#parts.inputs.keys()].join(', ')})`,
      );
    if (!this.#parts.scalars.size) return;
    const view = new DataView(this.#parts.uniformData);
    for (const [name, fields] of this.#parts.scalars) {
      const value = scalars[name];
      if (value === undefined) {
        const wanted = [...this.#parts.scalars.keys()];
        const other = Object.keys(scalars).find((given) => !wanted.includes(given));
        const hint = other === undefined ? '' : `; "${other}" is none of them`;
        throw new MGFError(
          'shape',
          `${label}: the per-step scalar "${name}" was not given (it wants ` + `${wanted.join(', ')}${hint})`,
        );
      }
      checkArguments(label, { [`the per-step scalar "${name}"`]: [value, 'a number'] });
      for (const f of fields) writeField(view, f.offset, f.type, value);
    }
    queue.writeBuffer(this.#parts.uniformBuffer, 0, this.#parts.uniformData);
  }

  #raise(): void {
    const failure = this.#gpu.failure();
    if (failure) throw failure;
  }
}

/**
 * Those of `data` that the program has inputs for: one batch can drive several programs, which must not be
 * given names that they do not know.
 */
export function inputsOf(
  program: Program,
  data: Readonly<Record<string, HostArray>>,
): Record<string, HostArray> {
  return Object.fromEntries(Object.entries(data).filter(([name]) => program.inputs.includes(name)));
}

/** Copies a region to the host. */
export async function readRegion(gpu: Gpu, { buffer, offset, size }: Region): Promise<ArrayBuffer> {
  const { device } = gpu;
  const staging = device.createBuffer({
    size: Math.ceil(size / 4) * 4,
    usage: BufferUsage.MAP_READ | BufferUsage.COPY_DST,
  });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, offset, staging, 0, staging.size);
  device.queue.submit([encoder.finish()]);
  await gpu.settle(staging.mapAsync(MapMode.READ));
  const bytes = staging.getMappedRange().slice(0);
  staging.destroy();
  return bytes;
}
