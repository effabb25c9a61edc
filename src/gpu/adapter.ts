import { MGFError } from '../errors.ts';

/** A software Vulkan driver, by name: Mesa's lavapipe, Google's SwiftShader, or some other one. */
export type SoftwareAdapter = 'lavapipe' | 'swiftshader' | 'other';

/**
 * Which adapter a caller insists on: a real GPU, any software adapter, or one software adapter by name.
 * Without a preference the order is GPU, installed software Vulkan, embedded SwiftShader.
 */
export type AdapterPreference = 'gpu' | 'software' | 'lavapipe' | 'swiftshader';

/**
 * What matrix products multiply: f32 numbers, or numbers rounded to f16. Sums, and all that is stored, are
 * f32 either way.
 */
export type Precision = 'f32' | 'f16';

/** A matrix unit: a subgroup multiplies M x K by K x N of `type` and adds to f32 sums. */
export interface MatrixUnit {
  readonly type: Precision;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** What the engine needs to know about an adapter to choose kernels and to say where it runs. */
export interface AdapterProfile {
  /** Human-readable: vendor, architecture and description as the driver gives them. */
  name: string;
  kind: 'gpu' | 'cpu';
  /**
   * Kernel family: `cpu` = one subgroup per workgroup and broadcasts, `gpu` = shared-memory tiles (right
   * everywhere).
   */
  family: 'cpu' | 'gpu';
  /** One sentence saying why that family. */
  familyReason: string;
  /** Lanes of a subgroup; 0 where the device has no subgroups or their size varies. */
  subgroupSize: number;
  /** Features of the device (not of the adapter): what kernels may really use. */
  features: ReadonlySet<string>;
  limits: GPUSupportedLimits;
  /** Who implements WebGPU: 'Dawn (webgpu 0.6.2)', 'browser', 'Deno', ... */
  runtime: string;
  software?: SoftwareAdapter;
  /**
   * What a program's matrix products multiply; set by `compile` for the program that it builds. Default: f32.
   */
  precision?: Precision;
  /**
   * Kernel variants (`Dispatch.variant`) that ops must not take, such as those that computed wrongly on this
   * device.
   */
  rejected?: ReadonlySet<string>;
  /**
   * The one of these variants that was fastest on this adapter for a key (`Dispatch.choice`); undefined where
   * nothing was measured.
   */
  tuned?: (key: string, variants: readonly string[]) => string | undefined;
  /** Matrix units with f32 sums, where the device has `chromium-experimental-subgroup-matrix`. */
  matrixUnits?: readonly MatrixUnit[];
  /**
   * Matrix products read their operands from images (src/plan/images.ts): where that is faster than from
   * storage.
   */
  images?: boolean;
  /**
   * Variants are taken without a test: for a device that compiles but runs nothing, such as Dawn's null
   * backend.
   */
  untested?: boolean;
}

/** One way to a GPUAdapter: an implementation of WebGPU and the options to ask it with. */
export interface AdapterSource {
  adapter: GPUAdapter;
  runtime: string;
  /** WGSL language features of the implementation (`GPU.wgslLanguageFeatures`). */
  language?: ReadonlySet<string>;
  /**
   * How to await the device where the adapter is software and merely awaiting would take processor time from
   * it.
   */
  settle?: <T>(answer: Promise<T>) => Promise<T>;
}

/**
 * Returns an adapter that satisfies the preference, or null; appends to `tried` one clause for each way that
 * failed.
 */
export type AdapterProvider = (
  prefer: AdapterPreference | undefined,
  tried: string[],
) => Promise<AdapterSource | null>;

/** `adapter.info` with the fields that @webgpu/types or an implementation may lack. */
export type AdapterInfo = Partial<GPUAdapterInfo> & {
  isFallbackAdapter?: boolean;
  subgroupMatrixConfigs?: Iterable<{
    componentType: string;
    resultComponentType: string;
    M: number;
    N: number;
    K: number;
  }>;
};

/** Names the software driver behind an adapter, or undefined for hardware. */
export function softwareOf(info: AdapterInfo): SoftwareAdapter | undefined {
  const text =
    `${info.vendor ?? ''} ${info.architecture ?? ''} ${info.device ?? ''} ${info.description ?? ''}`.toLowerCase();
  if (/llvmpipe|lavapipe/.test(text)) return 'lavapipe';
  if (/swiftshader/.test(text)) return 'swiftshader';
  return info.isFallbackAdapter === true ? 'other' : undefined;
}

export function satisfies(info: AdapterInfo, prefer: AdapterPreference | undefined): boolean {
  const software = softwareOf(info);
  switch (prefer) {
    case undefined:
      return true;
    case 'gpu':
      return software === undefined;
    case 'software':
      return software !== undefined;
    case 'lavapipe':
    case 'swiftshader':
      return software === prefer;
    default:
      throw new MGFError(
        'usage',
        `unknown adapter "${String(prefer)}": use gpu, software, lavapipe or swiftshader`,
      );
  }
}

/**
 * Name of an adapter for people: the parts that the implementation fills in, less those that a later one
 * repeats.
 */
export function adapterName(info: AdapterInfo): string {
  const all = [info.vendor, info.architecture, info.description || info.device].filter(
    (part) => part && !/^\d+$/.test(part),
  ) as string[];
  const parts = all.filter(
    (part, i) => !all.slice(i + 1).some((later) => later.toLowerCase().includes(part.toLowerCase())),
  );
  return parts.join(' / ') || 'unnamed adapter';
}

/** Profile of an opened device. */
export function profileOf(
  info: AdapterInfo,
  device: GPUDevice,
  runtime: string,
  language?: ReadonlySet<string>,
): AdapterProfile {
  const software = softwareOf(info);
  const features: ReadonlySet<string> = new Set(device.features as Iterable<string>);
  const min = info.subgroupMinSize ?? 0;
  const max = info.subgroupMaxSize ?? 0;
  const subgroupSize = features.has('subgroups') && min > 0 && min === max ? min : 0;
  const kind = software === undefined ? 'gpu' : 'cpu';
  const family = kind === 'cpu' && subgroupSize > 0 ? 'cpu' : 'gpu';
  const profile: AdapterProfile = {
    name: adapterName(info),
    kind,
    family,
    familyReason: reasonFor(kind, subgroupSize, features.has('subgroups')),
    subgroupSize,
    features,
    limits: device.limits,
    runtime,
  };
  if (software !== undefined) profile.software = software;
  if (family === 'cpu' && software === 'lavapipe' && language?.has('readonly_and_readwrite_storage_textures'))
    profile.images = true;
  if (features.has('chromium-experimental-subgroup-matrix')) profile.matrixUnits = matrixUnitsOf(info);
  return profile;
}

function matrixUnitsOf(info: AdapterInfo): MatrixUnit[] {
  return [...(info.subgroupMatrixConfigs ?? [])].flatMap(
    ({ componentType: type, resultComponentType, M, N, K }) =>
      (type === 'f32' || type === 'f16') && resultComponentType === 'f32' ? [{ type, M, N, K }] : [],
  );
}

/**
 * The profile that a program of this precision is built for: the adapter's own, or a copy of it. Kernels of
 * software adapters always multiply in f32: f16 gains nothing there (at best 31.2 GFLOP/s against 30 on
 * lavapipe).
 * @throws MGFError `usage` when f16 is asked for and the device has no shader-f16.
 */
export function atPrecision(profile: AdapterProfile, precision: Precision = 'f32'): AdapterProfile {
  if (precision === 'f32') return profile;
  if (!profile.features.has('shader-f16')) {
    throw new MGFError(
      'usage',
      `${profile.name} (${profile.runtime}) has no half precision (the WebGPU feature shader-f16); ` +
        'choose precision f32, or a driver and runtime that offer it',
    );
  }
  return profile.family === 'gpu' ? { ...profile, precision } : profile;
}

/**
 * An adapter as a runtime without subgroups and matrix units would show it, which is how Firefox and Deno do:
 * what every op has to run on.
 */
export const plainest = (profile: AdapterProfile): AdapterProfile => ({
  ...profile,
  family: 'gpu',
  subgroupSize: 0,
  features: new Set([...profile.features].filter((f) => !/subgroup/.test(f))),
  matrixUnits: [],
  images: false,
});

function reasonFor(kind: 'gpu' | 'cpu', subgroupSize: number, subgroups: boolean): string {
  if (kind === 'gpu') return 'a GPU shares tiles through workgroup memory';
  if (subgroupSize > 0) {
    return (
      `a software adapter with subgroups of ${subgroupSize}: one subgroup per workgroup keeps a tile in ` +
      'vector registers and needs no barrier'
    );
  }
  return subgroups
    ? 'a software adapter whose subgroup size varies, so the shared-memory kernels are used'
    : 'a software adapter without subgroups, so the shared-memory kernels are used';
}
