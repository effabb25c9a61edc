/** A graph of somebody's ops on the device, for contents that may change: what checks and timings run. */
import { Purpose } from '../random/purposes.ts';
import { stream } from '../random/stream.ts';
import { asTheirs } from './theirs.ts';
import { MGFError } from '../errors.ts';
import { BufferUsage } from '../gpu/flags.ts';
import { elements, formatShape, type Shape } from '../graph/shape.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { vectorJacobianProduct } from '../ops/grad.ts';
import { kernelText } from '../gpu/pipelines.ts';
import { compile } from '../plan/compile.ts';
import { lower } from '../plan/lower.ts';
import type { AdapterProfile, Gpu } from '../gpu/device.ts';
import type { Program } from '../plan/program.ts';
import type { Region } from '../plan/storage.ts';

export type Floats = Float32Array<ArrayBuffer>;

/** A tensor of a case. Without `data`: f32 of unit variance; i32 from 0 to `below` - 1. */
export interface CaseInput {
  readonly shape: Shape;
  readonly dtype?: 'f32' | 'i32';
  readonly below?: number;
  readonly data?: ArrayLike<number>;
  /** Whether a gradient is asked for. Default: of every f32. */
  readonly gradient?: boolean;
}

/** Roughly normal numbers of unit variance. */
export function noise(n: number, seed: number, step: number): Float64Array {
  const random = stream(seed, Purpose.GradcheckNumbers, { step });
  return Float64Array.from(
    { length: n },
    () => 2 * (random.uniform() + random.uniform() + random.uniform() - 1.5),
  );
}

export function contents(
  { shape, dtype = 'f32', below = 1, data }: CaseInput,
  seed: number,
  step: number,
): Floats | Int32Array<ArrayBuffer> {
  const n = elements(shape);
  if (data && data.length !== n)
    throw new MGFError('shape', `gradcheck: ${data.length} numbers for shape ${formatShape(shape)}.`);
  if (dtype === 'i32') {
    const random = stream(seed, Purpose.GradcheckIndices, { step });
    return Int32Array.from({ length: n }, (_, i) => data?.[i] ?? random.below(below));
  }
  return Float32Array.from(data ?? noise(n, seed, step));
}

type Contents = Readonly<Record<string, Floats | Int32Array<ArrayBuffer>>>;
interface Run {
  readonly y: Floats;
  readonly gradients: Readonly<Record<string, Floats>>;
}

type Buildable = { readonly name: string; build(inputs: Readonly<Record<string, Value>>): Value };

/** The inputs that a gradient is asked for of. */
export const wantedOf = (inputs: Readonly<Record<string, CaseInput>>): string[] =>
  Object.keys(inputs).filter((name) => inputs[name]!.dtype !== 'i32' && inputs[name]!.gradient !== false);

/** A subject's graph: its inputs, its output, and what is wanted of it by name, `y` and `d NAME`. */
function drawn(
  subject: Buildable,
  inputs: Readonly<Record<string, CaseInput>>,
  wanted: readonly string[],
  up: (shape: Shape) => Floats,
): {
  graph: Graph;
  values: Readonly<Record<string, Value>>;
  y: Value;
  keep: Readonly<Record<string, Value>>;
} {
  const graph = new Graph();
  const values = Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, dtype = 'f32' }]) => [
      name,
      graph.state(name, shape, { dtype, requiresGrad: wanted.includes(name) }),
    ]),
  );
  const y = asTheirs(`${subject.name}: build`, () => subject.build(values));
  const keep: Record<string, Value> = { y };
  if (wanted.length > 0)
    vectorJacobianProduct(
      new Map([[y, graph.constant('upstream', y.shape, up(y.shape))]]),
      wanted.map((name) => values[name]!),
    ).forEach((g, i) => {
      keep[`d ${wanted[i]}`] = g;
    });
  return { graph, values, y, keep };
}

/**
 * The texts that a subject's kernels would have on another adapter, by text the kernel's name; nothing is
 * compiled.
 */
export function textsOn(
  adapter: AdapterProfile,
  subject: Buildable,
  inputs: Readonly<Record<string, CaseInput>>,
): ReadonlyMap<string, string> {
  const { graph } = drawn(subject, inputs, wantedOf(inputs), (shape) => new Float32Array(elements(shape)));
  return new Map(
    lower(adapter, graph.nodes).dispatches.map(({ kernel, constants }) => [
      kernelText(adapter, kernel, constants),
      kernel.name,
    ]),
  );
}

/** A subject's graph on the device, for contents that may change. */
export class Prepared {
  readonly shape: Shape;
  readonly #gpu: Gpu;
  readonly program: Program;
  readonly #wanted: readonly string[];
  readonly #buffers: ReadonlyMap<string, GPUBuffer>;

  private constructor(
    gpu: Gpu,
    shape: Shape,
    program: Program,
    wanted: readonly string[],
    buffers: ReadonlyMap<string, GPUBuffer>,
  ) {
    this.#gpu = gpu;
    this.shape = shape;
    this.program = program;
    this.#wanted = wanted;
    this.#buffers = buffers;
  }

  static async create(
    gpu: Gpu,
    subject: Buildable,
    inputs: Readonly<Record<string, CaseInput>>,
    wanted: readonly string[],
    up: (shape: Shape) => Floats,
  ): Promise<Prepared> {
    const { graph, values, y, keep } = drawn(subject, inputs, wanted, up);
    const place = new Map<Value, Region>();
    const buffers = new Map<string, GPUBuffer>();
    for (const [name, value] of Object.entries(values)) {
      const buffer = gpu.device.createBuffer({
        size: Math.max(16, 16 * Math.ceil(elements(value.shape) / 4)),
        usage: BufferUsage.STORAGE | BufferUsage.COPY_DST | BufferUsage.COPY_SRC,
      });
      buffers.set(name, buffer);
      place.set(value, { buffer, offset: 0, size: buffer.size });
    }
    try {
      const program = await compile(gpu, graph, { keep, place, label: subject.name });
      return new Prepared(gpu, y.shape, program, wanted, buffers);
    } catch (error) {
      for (const buffer of buffers.values()) buffer.destroy();
      throw error;
    }
  }

  /**
   * Everything that the program computes holds NaN before, so that an element nobody writes shows, and what
   * is left of an earlier step.
   */
  async run(data: Contents): Promise<Run> {
    for (const [name, x] of Object.entries(data))
      this.#gpu.device.queue.writeBuffer(this.#buffers.get(name)!, 0, x);
    this.program.poison();
    await this.program.step();
    const gradients: Record<string, Floats> = {};
    for (const name of this.#wanted) gradients[name] = (await this.program.read(`d ${name}`)) as Floats;
    return { y: (await this.program.read('y')) as Floats, gradients };
  }

  destroy(): void {
    this.program.destroy();
    for (const buffer of this.#buffers.values()) buffer.destroy();
  }
}
