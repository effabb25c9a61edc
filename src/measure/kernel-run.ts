/** One kernel with its own buffers, launched again and again: the ceilings, and kernels that users bring. */
import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import { BufferUsage } from '../gpu/flags.ts';
import { compileKernel, type Compiled } from '../gpu/pipelines.ts';
import type { Constants } from '../wgsl/template.ts';
import { readRegion } from '../plan/program.ts';
import { writeField } from '../plan/storage.ts';

export interface KernelLaunch {
  readonly name: string;
  readonly source: string;
  /** Entry point; `main` or the only one where left out. */
  readonly entry?: string;
  readonly constants?: Constants;
  /** Storage by variable name; the contents of it. */
  readonly data: Readonly<Record<string, Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer> | number>>;
  readonly params: Readonly<Record<string, number>>;
  readonly grid: readonly [number, number, number];
}

export interface KernelRun {
  readonly compiled: Compiled;
  /** Bytes of all storage, each binding once. */
  readonly bytes: number;
  /** 'timestamps' of the device, or the wall clock from submission until the device is done. */
  readonly clock: 'timestamps' | 'wall';
  /** Launches it once; milliseconds. */
  run(): Promise<number>;
  /** Puts contents into a storage variable, of no more bytes than it has. */
  write(name: string, contents: Uint8Array<ArrayBuffer>): void;
  /** Contents of a storage variable. */
  read(name: string): Promise<ArrayBuffer>;
  destroy(): void;
}

/**
 * Compiles a kernel and binds new buffers of the given contents (a number: that many bytes of zeros). Throws
 * MGFError 'kernel' for what the compiler refuses, 'limit' for a grid or buffer over the adapter's limits,
 * 'validation' where the launch is.
 */
export async function openKernel(gpu: Gpu, launch: KernelLaunch): Promise<KernelRun> {
  const {
    device,
    profile: { limits, name: adapter },
  } = gpu;
  const compiled = await compileKernel(gpu, launch, launch.constants);
  const tooWide = launch.grid.find((n) => n < 1 || n > limits.maxComputeWorkgroupsPerDimension);
  if (tooWide !== undefined)
    throw new MGFError(
      'limit',
      `kernel ${launch.name}: the grid ${launch.grid.join(' x ')} has ${tooWide} workgroups along one ` +
        `axis; ${adapter} allows 1 to ${limits.maxComputeWorkgroupsPerDimension}`,
    );
  const owned: GPUBuffer[] = [];
  const storage = new Map<string, GPUBuffer>();
  const create = (size: number, usage: number): GPUBuffer => {
    const b = device.createBuffer({ label: launch.name, size, usage });
    owned.push(b);
    return b;
  };
  const destroy = (): void => owned.forEach((b) => b.destroy());
  const entries = compiled.interface.bindings.map(({ name, binding, type }): GPUBindGroupEntry => {
    if (type === 'uniform') {
      const { fields } = compiled.interface;
      const bytes = new ArrayBuffer(Math.max(16, Math.ceil(fields.length / 4) * 16));
      const view = new DataView(bytes);
      fields.forEach((f, i) => writeField(view, 4 * i, f.type, launch.params[f.name]!));
      const buffer = create(bytes.byteLength, BufferUsage.UNIFORM | BufferUsage.COPY_DST);
      device.queue.writeBuffer(buffer, 0, bytes);
      return { binding, resource: { buffer } };
    }
    const contents = launch.data[name]!;
    const size = Math.ceil((typeof contents === 'number' ? contents : contents.byteLength) / 16) * 16;
    if (size > limits.maxStorageBufferBindingSize) {
      destroy();
      throw new MGFError(
        'limit',
        `kernel ${launch.name}: "${name}" would take ${size} bytes, and ${adapter} binds at most ` +
          `${limits.maxStorageBufferBindingSize}`,
      );
    }
    const buffer = create(size, BufferUsage.STORAGE | BufferUsage.COPY_DST | BufferUsage.COPY_SRC);
    if (typeof contents !== 'number') device.queue.writeBuffer(buffer, 0, contents);
    storage.set(name, buffer);
    return { binding, resource: { buffer } };
  });
  const group = device.createBindGroup({ label: launch.name, layout: compiled.layout, entries });
  const timestamps = device.features.has('timestamp-query');
  const querySet = timestamps ? device.createQuerySet({ type: 'timestamp', count: 2 }) : null;
  const resolved = timestamps ? create(16, BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC) : null;
  const raise = (): void => {
    const failure = gpu.failure();
    if (failure) throw failure;
  };
  return {
    compiled,
    destroy,
    clock: timestamps ? 'timestamps' : 'wall',
    bytes: [...storage.values()].reduce((sum, b) => sum + b.size, 0),
    async run() {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass(
        querySet
          ? { timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } }
          : {},
      );
      pass.setPipeline(compiled.pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...launch.grid);
      pass.end();
      if (querySet) encoder.resolveQuerySet(querySet, 0, 2, resolved!, 0);
      const started = performance.now();
      gpu.scope(`kernel ${launch.name}`, () => device.queue.submit([encoder.finish()]));
      await gpu.settle(device.queue.onSubmittedWorkDone());
      const wall = performance.now() - started;
      raise();
      if (!resolved) return wall;
      const [begin, end] = new BigUint64Array(
        await readRegion(gpu, { buffer: resolved, offset: 0, size: 16 }),
      );
      return Number(end! - begin!) / 1e6;
    },
    write(name, contents) {
      device.queue.writeBuffer(storage.get(name)!, 0, contents);
    },
    async read(name) {
      const buffer = storage.get(name)!;
      return readRegion(gpu, { buffer, offset: 0, size: buffer.size });
    },
  };
}
