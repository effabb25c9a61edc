import { checkArguments, GPU } from '../check.ts';
import { MGFError } from '../errors.ts';
import { sizesApart } from '../numbers.ts';
import type { Gpu } from '../gpu/device.ts';
import { BufferUsage } from '../gpu/flags.ts';
import { elements, formatShape, type Shape } from '../graph/shape.ts';
import type { Graph, Value } from '../graph/graph.ts';
import { readRegion } from './program.ts';
import type { Region } from './storage.ts';

type FloatArray = Float32Array<ArrayBuffer>;

/** A tensor as checkpoints hold it: PyTorch's layout. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly data: FloatArray;
}

/** A parameter as the engine holds it, and the checkpoint tensors that it is made of. */
export interface ParameterSpec {
  /** Name inside the graph. */
  readonly name: string;
  /**
   * Checkpoint tensors side by side along the first axis; one, except where projections are fused (q, k, v).
   * Shapes in PyTorch's layout.
   */
  readonly parts: readonly { readonly name: string; readonly shape: Shape }[];
  /**
   * The engine keeps the last two axes exchanged (convolution weights: [Cout, K, Cin] here, [Cout, Cin, K]
   * there).
   */
  readonly swap?: boolean;
  /** Weight decay applies. */
  readonly decay: boolean;
}

/** The last two axes of a row-major array exchanged. */
export function swapLast<T extends FloatArray | Int32Array<ArrayBuffer>>(
  data: T,
  shape: readonly number[],
): { data: T; shape: number[] } {
  const [M, N] = shape.slice(-2) as [number, number];
  const out = new (data.constructor as new (n: number) => T)(data.length);
  for (let base = 0; base < data.length; base += M * N) {
    for (let i = 0; i < M; i++) for (let j = 0; j < N; j++) out[base + j * M + i] = data[base + i * N + j]!;
  }
  return { data: out, shape: [...shape.slice(0, -2), N, M] };
}

/** `accumulated` holds the sum of micro-batches' gradients, where there are several. */
export type StoreBuffer = 'values' | 'gradients' | 'accumulated' | 'expAvg' | 'expAvgSq';

const BUFFERS = {
  inference: ['values'],
  training: ['values', 'gradients', 'expAvg', 'expAvgSq'],
  accumulation: ['values', 'gradients', 'accumulated', 'expAvg', 'expAvgSq'],
} as const;

/**
 * All parameters of a network in one flat buffer, their gradients and moments in three more of the same
 * layout: the optimiser is then a few launches whatever the number of tensors. Decayed parameters come first.
 * Several programs share one store.
 */
export class ParameterStore {
  readonly specs: readonly ParameterSpec[];
  /** Elements of each flat buffer, and how many of the first of them belong to decayed parameters. */
  readonly length: number;
  readonly decayed: number;
  readonly #gpu: Gpu;
  readonly #offsets = new Map<string, number>();
  readonly #buffers = new Map<StoreBuffer, GPUBuffer>();

  /**
   * Which buffers there are depends on what the parameters are for. Throws MGFError 'limit' when the network
   * is larger than one buffer may be.
   */
  constructor(gpu: Gpu, specs: readonly ParameterSpec[], use: keyof typeof BUFFERS) {
    checkArguments('ParameterStore', {
      gpu: [gpu, GPU],
      specs: [specs, 'a list'],
      use: [
        use,
        Object.keys(BUFFERS)
          .map((name) => JSON.stringify(name))
          .join('|'),
      ],
    });
    this.#gpu = gpu;
    this.specs = [...specs.filter((s) => s.decay), ...specs.filter((s) => !s.decay)];
    // Every parameter starts where a binding may: 256 bytes. The gaps hold zeros and have zero gradients.
    const align = gpu.profile.limits.minStorageBufferOffsetAlignment / 4;
    let end = 0;
    let decayed = 0;
    for (const spec of this.specs) {
      this.#offsets.set(spec.name, end);
      end += Math.ceil(elements(engineShape(spec)) / align) * align;
      if (spec.decay) decayed = end;
    }
    this.length = end;
    this.decayed = decayed;
    const size = end * 4;
    if (size > gpu.profile.limits.maxBufferSize) {
      const [needed, allowed] = sizesApart(size, gpu.profile.limits.maxBufferSize, 'MiB', 0);
      throw new MGFError(
        'limit',
        `the parameters need a buffer of ${needed} and ${gpu.profile.name} allows ${allowed} ` +
          '(maxBufferSize); use a smaller preset',
      );
    }
    for (const name of BUFFERS[use]) {
      this.#buffers.set(
        name,
        gpu.device.createBuffer({
          label: `parameters ${name}`,
          size,
          usage: BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST,
        }),
      );
    }
  }

  /** Numbers that a checkpoint of the network holds. */
  get count(): number {
    return this.specs.reduce((sum, s) => sum + elements(engineShape(s)), 0);
  }

  /** Declares every parameter in a graph, by name. */
  declare(graph: Graph): Map<string, Value> {
    return new Map(
      this.specs.map((s) => [s.name, graph.state(s.name, engineShape(s), { requiresGrad: true })]),
    );
  }

  /** Where a parameter (or its gradient) lies. */
  region(name: string, buffer: StoreBuffer = 'values'): Region {
    const spec = this.specs.find((s) => s.name === name);
    if (!spec) throw new MGFError('shape', `the network has no parameter "${name}"`);
    return {
      buffer: this.#buffer(buffer),
      offset: this.#offsets.get(name)! * 4,
      size: Math.ceil(elements(engineShape(spec)) / 4) * 16,
    };
  }

  /** A whole flat buffer. */
  flat(buffer: StoreBuffer): Region {
    return { buffer: this.#buffer(buffer), offset: 0, size: this.length * 4 };
  }

  /**
   * Copies checkpoint tensors in. Every parameter must be there with its shape, unless `optional` says it may
   * be missing (it keeps what it holds); tensors of other names are ignored. Throws MGFError 'checkpoint'.
   */
  load(
    tensors: ReadonlyMap<string, HostTensor>,
    buffer: StoreBuffer = 'values',
    optional: (name: string) => boolean = () => false,
  ): void {
    for (const spec of this.specs) {
      let at = this.#offsets.get(spec.name)! * 4;
      for (const part of spec.parts) {
        const found = tensors.get(part.name);
        if (!found && !optional(part.name))
          throw new MGFError(
            'checkpoint',
            `the checkpoint has no tensor "${part.name}", which this configuration needs`,
          );
        if (found && formatShape(found.shape) !== formatShape(part.shape)) {
          throw new MGFError(
            'checkpoint',
            `the checkpoint's "${part.name}" has shape ${formatShape(found.shape)}, this configuration ` +
              `wants ${formatShape(part.shape)}`,
          );
        }
        if (found)
          this.#gpu.device.queue.writeBuffer(
            this.#buffer(buffer),
            at,
            spec.swap ? swapLast(found.data, found.shape).data : found.data,
          );
        at += elements(part.shape) * 4;
      }
    }
  }

  /** Copies everything out, by checkpoint name and in PyTorch's layout. */
  async save(buffer: StoreBuffer = 'values'): Promise<Map<string, { shape: number[]; data: FloatArray }>> {
    const flat = new Float32Array(await readRegion(this.#gpu, this.flat(buffer)));
    const tensors = new Map<string, { shape: number[]; data: FloatArray }>();
    for (const spec of this.specs) {
      let at = this.#offsets.get(spec.name)!;
      for (const { name, shape } of spec.parts) {
        const data = flat.slice(at, (at += elements(shape)));
        tensors.set(name, {
          shape: [...shape],
          data: spec.swap ? swapLast(data, swapped(shape)).data : data,
        });
      }
    }
    return tensors;
  }

  /** Frees the flat buffers; no program over them may run afterwards. */
  destroy(): void {
    for (const buffer of this.#buffers.values()) buffer.destroy();
  }

  #buffer(name: StoreBuffer): GPUBuffer {
    const buffer = this.#buffers.get(name);
    if (!buffer) throw new MGFError('shape', `these parameters were not made with a buffer for ${name}`);
    return buffer;
  }
}

const swapped = (shape: Shape): number[] => [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!];

/** Shape in the engine: parts along the first axis, last two axes exchanged where `swap` says so. */
export function engineShape({ parts, swap }: ParameterSpec): number[] {
  const first = parts[0]!.shape;
  const shape = [parts.reduce((sum, p) => sum + p.shape[0]!, 0), ...first.slice(1)];
  return swap ? swapped(shape) : shape;
}
