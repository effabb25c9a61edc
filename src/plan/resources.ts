import { BufferUsage } from '../gpu/flags.ts';

const STORAGE = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;

/** Buffers and textures on their way into a program: whatever fails before it is whole frees all of them. */
export class Resources {
  readonly #device: GPUDevice;
  readonly #owned: (GPUBuffer | GPUTexture)[] = [];
  readonly #scopes: Promise<GPUError | null>[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  get owned(): readonly (GPUBuffer | GPUTexture)[] {
    return this.#owned;
  }

  storage(label: string, size: number): GPUBuffer {
    return this.#keep(this.#device.createBuffer({ label, size, usage: STORAGE }));
  }

  uniforms(label: string, data: ArrayBuffer): GPUBuffer {
    const usage = BufferUsage.UNIFORM | BufferUsage.COPY_DST;
    const buffer = this.#keep(this.#device.createBuffer({ label, size: data.byteLength, usage }));
    this.#device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  }

  createTexture(descriptor: GPUTextureDescriptor): GPUTexture {
    return this.#keep(this.#device.createTexture(descriptor));
  }

  /** Creates resources with an eye on the device's memory; `outOfMemory` tells. */
  watched<T>(create: () => T): T {
    this.#device.pushErrorScope('out-of-memory');
    try {
      return create();
    } finally {
      const scope = this.#device.popErrorScope();
      // Whoever awaits it sees a lost device; what failed before must not be hidden by it.
      scope.catch(() => undefined);
      this.#scopes.push(scope);
    }
  }

  /** Whether the device had no room for something that was watched. */
  async outOfMemory(): Promise<boolean> {
    return (await Promise.all(this.#scopes)).some((error) => error !== null);
  }

  free(): void {
    for (const resource of this.#owned) resource.destroy();
  }

  #keep<T extends GPUBuffer | GPUTexture>(resource: T): T {
    this.#owned.push(resource);
    return resource;
  }
}
