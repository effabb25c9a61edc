/**
 * Kernel variants are tested before their first use on a device; one that computes wrongly is not used there.
 */
import { checkArguments, checkOptions, GPU } from '../check.ts';
import { MGFError } from '../errors.ts';
import type { AdapterProfile, Gpu } from '../gpu/device.ts';
import { BufferUsage, MapMode } from '../gpu/flags.ts';
import { compileKernel, kernelText, type Compiled } from '../gpu/pipelines.ts';
import type { Dispatch, KernelCheck } from '../launch/dispatch.ts';
import { ANYTHING, WRITTEN } from '../ops/lib/check.ts';
import { copyToImage, createImage, imageCopy, viewImage, type ImageCopy } from './images.ts';
import { writeField } from './storage.ts';

/** A variant that is not used on a device. */
export interface Rejection {
  readonly variant: string;
  readonly kernel: string;
  /**
   * Worst |got - want| / (1 + |want|); infinite where something was not finite, not written, or written that
   * must not be; NaN where it did not compile.
   */
  readonly error: number;
  /** What was wrong, a clause without a subject. */
  readonly reason: string;
}

interface Verdict {
  readonly error: number;
  readonly reason: string | null;
}

/** By what compileKernel returns, which is one promise for one text and device. */
const verdicts = new WeakMap<Promise<Compiled>, Promise<Verdict>>();
const rejected = new WeakMap<GPUDevice, Map<string, Rejection>>();
const approved = new WeakMap<GPUDevice, Set<string>>();

/** What is known from earlier, by digest of the kernel's text. */
export interface ApprovalOptions {
  /** Texts that passed on this adapter, driver and runtime. */
  readonly known: Iterable<string>;
  /** Told all of them whenever there are more. */
  readonly onApproved?: (digests: readonly string[]) => void;
}
interface Remembered {
  readonly digests: Set<string>;
  readonly onApproved: ApprovalOptions['onApproved'];
}
const remembered = new WeakMap<GPUDevice, Remembered>();

/**
 * From now on, texts that passed earlier are not tested again on this device; nothing that failed is
 * remembered, it is tested at every start.
 */
export function rememberApprovals(gpu: Gpu, options: ApprovalOptions): void {
  checkArguments('rememberApprovals', { gpu: [gpu, GPU] });
  checkOptions('rememberApprovals', options, { known: 'an iterable', onApproved: 'a function?' });
  const { known, onApproved } = options;
  remembered.set(gpu.device, { digests: new Set(known), onApproved });
}

/** 64 bits of a text: FNV-1a, and the same with another start and another multiplier. */
function digest(text: string): string {
  let a = 0x811c9dc5;
  let b = 0xc9dc5118;
  for (let i = 0; i < text.length; i++) {
    a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
    b = Math.imul(b ^ text.charCodeAt(i), 0x5bd1e995);
  }
  return [a, b].map((h) => (h >>> 0).toString(16).padStart(8, '0')).join('');
}

const rejectedOn = (gpu: Gpu): Map<string, Rejection> => {
  let found = rejected.get(gpu.device);
  if (!found) rejected.set(gpu.device, (found = new Map()));
  return found;
};

/** The variants that passed all their tests on this device so far. */
export function approvals(gpu: Gpu): readonly string[] {
  checkArguments('approvals', { gpu: [gpu, GPU] });
  return [...(approved.get(gpu.device) ?? [])].filter((variant) => !rejectedOn(gpu).has(variant)).sort();
}

/** The variants that the self-test refused on this device so far. */
export function rejections(gpu: Gpu): readonly Rejection[] {
  checkArguments('rejections', { gpu: [gpu, GPU] });
  return [...rejectedOn(gpu).values()];
}

/**
 * Runs `collect`, which asks ops for their dispatches, until it takes no variant that fails its test on this
 * device. New variants are compiled and tested, all of them in one submit; known ones cost nothing. The user
 * is told of each rejection once.
 * @throws MGFError 'kernel' when a variant fails and its op has no other.
 */
export async function withoutWrongVariants<T extends { readonly dispatches: readonly Dispatch[] }>(
  gpu: Gpu,
  adapter: AdapterProfile,
  collect: (adapter: AdapterProfile) => T,
): Promise<T> {
  for (;;) {
    const known = rejectedOn(gpu);
    const avoided = new Set([...known.keys(), ...(adapter.rejected ?? [])]);
    const collected = collect({ ...adapter, rejected: avoided });
    if (adapter.untested) return collected;
    const stuck = collected.dispatches.find((d) => d.variant !== undefined && known.has(d.variant));
    if (stuck) {
      const { variant, reason } = known.get(stuck.variant!)!;
      throw new MGFError(
        'kernel',
        `${gpu.profile.name}: the kernel variant ${variant} ${reason}, and there is no other for what ` +
          'it does; use another adapter or another driver',
      );
    }
    // The kernels that need no test compile meanwhile; whoever uses them sees their errors.
    for (const d of collected.dispatches) compileKernel(gpu, d.kernel, d.constants).catch(() => undefined);
    await selfTest(gpu, collected.dispatches);
    if (!collected.dispatches.some((d) => d.variant !== undefined && known.has(d.variant))) return collected;
  }
}

/**
 * Tests the variants among `dispatches` that have not been tested on this device; `rejections` then holds
 * those that failed. All pipelines are those that programs use. Throws what the device reported meanwhile
 * ('device-lost', 'out-of-memory').
 */
export async function selfTest(
  gpu: Gpu,
  dispatches: readonly Pick<Dispatch, 'kernel' | 'constants' | 'variant'>[],
): Promise<void> {
  const variants = dispatches.filter((d) => d.variant !== undefined && d.kernel.check);
  const used = new Map(variants.map((d) => [compileKernel(gpu, d.kernel, d.constants), d]));
  const memory = remembered.get(gpu.device);
  const digestOf = (d: Pick<Dispatch, 'kernel' | 'constants'>): string =>
    digest(kernelText(gpu.profile, d.kernel, d.constants));
  const untested = [...used].filter(([compiling]) => !verdicts.has(compiling));
  for (const [compiling, d] of untested)
    if (memory?.digests.has(digestOf(d)))
      verdicts.set(
        compiling,
        compiling.then(() => ({ error: 0, reason: null }), refusal),
      );
  // What a check must give is worked out while the compiler works.
  const fresh = untested
    .filter(([compiling]) => !verdicts.has(compiling))
    .map(([compiling, d]) => ({ compiling, d, check: d.kernel.check!(d.constants ?? {}, gpu.profile) }));
  if (fresh.length) {
    const results = runChecks(gpu, fresh);
    fresh.forEach(({ compiling }, i) =>
      verdicts.set(
        compiling,
        results.then((all) => all[i]!),
      ),
    );
    // A test that could not be run says nothing about the variant.
    const all = await results.catch((error: unknown) => {
      for (const { compiling } of fresh) verdicts.delete(compiling);
      throw error;
    });
    const passed = fresh.filter((_, i) => all[i]!.reason === null);
    if (memory && passed.length) {
      for (const { d } of passed) memory.digests.add(digestOf(d));
      memory.onApproved?.([...memory.digests].sort());
    }
  }
  for (const [compiling, { variant, kernel }] of used) {
    const { error, reason } = await verdicts.get(compiling)!;
    if (reason !== null) reject(gpu, { variant: variant!, kernel: kernel.name, error, reason });
    else approved.set(gpu.device, (approved.get(gpu.device) ?? new Set()).add(variant!));
  }
}

function reject(gpu: Gpu, rejection: Rejection): void {
  const known = rejectedOn(gpu);
  if (known.has(rejection.variant)) return;
  known.set(rejection.variant, rejection);
  gpu.note(
    `${gpu.profile.name}: the kernel variant ${rejection.variant} ${rejection.reason}; it is not used here.`,
  );
}

const align = (n: number): number => Math.ceil(n / 256) * 256;

interface Part {
  readonly name: string;
  readonly buffer: 0 | 1 | 2;
  readonly offset: number;
  readonly size: number;
  readonly image?: { readonly width: number | null };
}

/** What an error of the compiler says about a kernel; throws any other. */
function refusal(error: unknown): Verdict {
  if (!(error instanceof MGFError) || error.code !== 'kernel') throw error;
  return {
    error: NaN,
    reason: `does not compile there (${error.message
      .split('\n')
      .slice(0, 2)
      .map((line) => line.trim())
      .join(' ')})`,
  };
}

/** Runs every check in one submit, and compares; a kernel that the device refuses fails. */
async function runChecks(
  gpu: Gpu,
  tests: readonly { readonly compiling: Promise<Compiled>; readonly check: KernelCheck }[],
): Promise<Verdict[]> {
  const compiled = await Promise.all(tests.map(({ compiling }) => compiling.catch(refusal)));
  const runnable = tests.flatMap(({ check }, i): (readonly [Compiled, KernelCheck])[] => {
    const c = compiled[i]!;
    return 'pipeline' in c ? [[c, check]] : [];
  });
  const verdicts = runnable.length ? await launchChecks(gpu, runnable) : [];
  return compiled.map((c) => ('pipeline' in c ? verdicts.shift()! : c));
}

/** Launches checks with poisoned outputs. */
async function launchChecks(
  gpu: Gpu,
  checks: readonly (readonly [Compiled, KernelCheck])[],
): Promise<Verdict[]> {
  const { device } = gpu;
  const parts: Part[][] = [];
  const ends: [number, number, number] = [0, 0, 0];
  // Three buffers: what is read, what is written, uniforms. No dispatch may bind one buffer for reading and
  // for writing.
  const take = (name: string, buffer: 0 | 1 | 2, size: number): Part => {
    const part = { name, buffer, offset: ends[buffer], size: Math.max(16, Math.ceil(size / 16) * 16) };
    ends[buffer] = align(part.offset + part.size);
    return part;
  };
  for (const [
    {
      name,
      interface: { bindings, fields },
    },
    check,
  ] of checks) {
    parts.push(
      bindings.map(({ name: bound, type }) => {
        if (type === 'uniform') return take(bound, 2, 4 * fields.length);
        const contents = type === 'storage' ? check.outputs[bound] : check.inputs[bound];
        if (!contents)
          throw new MGFError('kernel', `the check of kernel ${name} has nothing for its binding "${bound}"`);
        if (type === 'storage') return take(bound, 1, 4 * contents.length);
        return {
          ...take(bound, 0, contents.byteLength),
          ...(type === 'read-only-storage' ? {} : { image: { width: check.panels?.[bound] ?? null } }),
        };
      }),
    );
  }
  const host = ends.map((size) => new ArrayBuffer(Math.max(256, size)));
  new Float32Array(host[1]!).fill(NaN);
  checks.forEach(
    (
      [
        {
          name,
          interface: { fields },
        },
        check,
      ],
      i,
    ) => {
      for (const { name: bound, buffer, offset } of parts[i]!) {
        const input = buffer === 0 ? check.inputs[bound]! : null;
        if (input)
          new Uint8Array(host[0]!).set(
            new Uint8Array(input.buffer, input.byteOffset, input.byteLength),
            offset,
          );
        if (buffer === 2)
          fields.forEach((f, j) => {
            const value = check.params[f.name];
            if (value === undefined)
              throw new MGFError('kernel', `the check of kernel ${name} has no uniform field "${f.name}"`);
            writeField(new DataView(host[2]!), offset + 4 * j, f.type, value);
          });
      }
    },
  );
  const usage = [
    BufferUsage.STORAGE | BufferUsage.COPY_SRC,
    BufferUsage.STORAGE | BufferUsage.COPY_SRC,
    BufferUsage.UNIFORM,
  ];
  const made: (GPUBuffer | GPUTexture)[] = [];
  const keep = <T extends GPUBuffer | GPUTexture>(resource: T): T => {
    made.push(resource);
    return resource;
  };
  try {
    const buffers = host.map((data, i) =>
      keep(
        device.createBuffer({
          label: 'self-test',
          size: data.byteLength,
          usage: usage[i]! | BufferUsage.COPY_DST,
        }),
      ),
    );
    const staging = keep(
      device.createBuffer({
        label: 'self-test read-back',
        size: host[1]!.byteLength,
        usage: BufferUsage.MAP_READ | BufferUsage.COPY_DST,
      }),
    );
    const images: ImageCopy[] = [];
    const resource = ({ buffer, offset, size, image }: Part): GPUBindingResource => {
      const from = { buffer: buffers[buffer]!, offset, size };
      if (!image) return from;
      const texture = keep(createImage(device, 'self-test', from, image.width));
      images.push(imageCopy(from, image.width, texture));
      return viewImage(texture, image.width !== null);
    };
    gpu.scope('the self-test of kernels', () => {
      buffers.forEach((buffer, i) => device.queue.writeBuffer(buffer, 0, host[i]!));
      const groups = checks.map(([c], i) =>
        device.createBindGroup({
          layout: c.layout,
          entries: c.interface.bindings.map(({ binding }, j) => ({
            binding,
            resource: resource(parts[i]![j]!),
          })),
        }),
      );
      const encoder = device.createCommandEncoder();
      for (const copy of images) copyToImage(encoder, copy);
      const pass = encoder.beginComputePass();
      checks.forEach(([c, check], i) => {
        pass.setPipeline(c.pipeline);
        pass.setBindGroup(0, groups[i]!);
        pass.dispatchWorkgroups(...check.grid);
      });
      pass.end();
      encoder.copyBufferToBuffer(buffers[1]!, 0, staging, 0, staging.size);
      device.queue.submit([encoder.finish()]);
    });
    await gpu.settle(staging.mapAsync(MapMode.READ));
    const failure = gpu.failure();
    if (failure) throw failure;
    const got = staging.getMappedRange();
    return checks.map(([, check], i) =>
      compare(check, (name) => {
        const { offset } = parts[i]!.find((p) => p.name === name && p.buffer === 1)!;
        return new Float32Array(got, offset, check.outputs[name]!.length);
      }),
    );
  } catch (error) {
    throw gpu.failure() ?? error;
  } finally {
    for (const resource of made) resource.destroy();
  }
}

function compare(check: KernelCheck, read: (name: string) => Float32Array): Verdict {
  let worst = 0;
  let reason: string | null = null;
  for (const [name, want] of Object.entries(check.outputs)) {
    const got = read(name);
    for (let i = 0; i < want.length; i++) {
      const g = got[i]!;
      const w = want[i]!;
      if (w === ANYTHING) continue;
      if (Number.isNaN(w)) {
        if (Number.isNaN(g)) continue;
        return { error: Infinity, reason: `writes to an element of "${name}" that is not its own` };
      }
      if (!Number.isFinite(g))
        return { error: Infinity, reason: `leaves an element of "${name}" unwritten or not finite` };
      if (w !== WRITTEN) worst = Math.max(worst, Math.abs(g - w) / (1 + Math.abs(w)));
    }
  }
  if (worst > check.tolerance) reason = `computes wrongly there (off by ${worst.toPrecision(2)})`;
  return { error: worst, reason };
}
