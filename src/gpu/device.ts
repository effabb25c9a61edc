import { checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { profileOf, satisfies, adapterName } from './adapter.ts';
import type {
  AdapterInfo,
  AdapterPreference,
  AdapterProfile,
  AdapterProvider,
  AdapterSource,
} from './adapter.ts';

export type { AdapterPreference, AdapterProfile, Precision, SoftwareAdapter } from './adapter.ts';

/** Which device `openGpu` opens. Without any of these, the best adapter there is. */
export interface OpenGpuOptions {
  /** Used as given; `close()` leaves it alive, its owner destroys it. */
  device?: GPUDevice;
  /** Used as given; a device is requested from it (an adapter serves one device only). */
  adapter?: GPUAdapter;
  /**
   * The object to ask for an adapter instead of `navigator.gpu`. It is kept for as long as the process lives:
   * Dawn crashes once it is collected.
   */
  gpu?: GPU;
  /** False passes over the runtime's own WebGPU (`navigator.gpu`): under Deno, npm `webgpu` is then taken. */
  builtIn?: boolean;
  /** An adapter to insist on; an error, never another adapter, when it is not there. */
  prefer?: AdapterPreference;
  /** False leaves out `timestamp-query`, which is otherwise requested where offered. */
  timestamps?: boolean;
  /**
   * Told what a user should know, in a sentence, such as a kernel that this adapter computes wrongly.
   * Default: console.warn.
   */
  onNote?: (note: string) => void;
}

const OPTIONS: Rules<OpenGpuOptions> = {
  device: 'an object?',
  adapter: 'an object?',
  gpu: 'an object?',
  builtIn: 'true or false?',
  prefer: '"gpu"|"software"|"lavapipe"|"swiftshader"?',
  timestamps: 'true or false?',
  onNote: 'a function?',
};

/** An opened device with what the engine knows about it. */
export interface Gpu {
  readonly device: GPUDevice;
  readonly profile: AdapterProfile;
  /** Resolves (never rejects) once the device is lost or closed. */
  readonly lost: Promise<MGFError>;
  /**
   * Takes the first error that nobody caught (code `validation` or `out-of-memory`), naming the label of its
   * scope; null if there is none. A lost device is told each time (code `device-lost`). Errors arrive with
   * the device's answers: look after awaiting one.
   */
  failure(): MGFError | null;
  /** Tells the user something, through `onNote` of `openGpu`. */
  note(text: string): void;
  /**
   * Awaits an answer of the device (mapped memory, finished work, a compiled pipeline) without taking
   * processor time from a software adapter meanwhile.
   */
  settle<T>(answer: Promise<T>): Promise<T>;
  /**
   * Runs `run` with `label` as the name of the operation in flight; errors of the calls it makes before
   * returning carry that label.
   */
  scope<T>(label: string, run: () => T): T;
  /** Destroys the device (unless the caller brought it), so that the process can exit. */
  close(): void;
}

const optionalFeatures = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];

/** Limits that kernels and the memory plan can use; each is raised to what the adapter offers. */
const raisedLimits = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupsPerDimension',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
  'maxTextureArrayLayers',
] as const;

const providers: AdapterProvider[] = [];
const brought = new Set<GPU>();

/** Adds a way to an adapter, asked when `navigator.gpu` is absent or offers none that will do. */
export function addAdapterProvider(provider: AdapterProvider): void {
  if (!providers.includes(provider)) providers.push(provider);
}

/**
 * Opens a device: the caller's own, or the best adapter there is, with the features and limits the engine can
 * use.
 * @throws MGFError `no-adapter` saying what was tried and what to install.
 */
export async function openGpu(options: OpenGpuOptions = {}): Promise<Gpu> {
  checkOptions('openGpu', options, OPTIONS);
  if (options.device) {
    const info = (options.device as { adapterInfo?: AdapterInfo }).adapterInfo ?? {};
    return wrap(options.device, profileOf(info, options.device, "the caller's device"), false, options);
  }
  const { adapter, runtime, language, settle } = await findAdapter(options);
  const wanted = options.timestamps === false ? optionalFeatures : [...optionalFeatures, 'timestamp-query'];
  const requiredLimits: Record<string, number> = {};
  for (const limit of raisedLimits) {
    const offered = adapter.limits[limit];
    if (offered !== undefined) requiredLimits[limit] = offered;
  }
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({
      label: 'mgf',
      requiredFeatures: wanted.filter((f) => adapter.features.has(f)) as GPUFeatureName[],
      requiredLimits,
    });
  } catch (cause) {
    throw new MGFError(
      'no-adapter',
      `adapter ${adapterName(adapter.info)} gave no device: ${(cause as Error).message}`,
      { cause },
    );
  }
  return wrap(device, profileOf(adapter.info, device, runtime, language), true, options, settle);
}

async function findAdapter(options: OpenGpuOptions): Promise<AdapterSource> {
  if (options.adapter) return { adapter: options.adapter, runtime: "the caller's adapter" };
  const tried: string[] = [];
  if (options.gpu) {
    brought.add(options.gpu);
    const adapter = await ask(options.gpu, "the caller's GPU object", options.prefer, tried);
    if (adapter) return { adapter, runtime: "the caller's GPU object", language: languageOf(options.gpu) };
    throw noAdapter(options.prefer, tried);
  }
  const built = options.builtIn === false ? null : builtIn();
  if (built) {
    const adapter = await ask(built.gpu, 'navigator.gpu', options.prefer, tried);
    if (adapter) return { adapter, runtime: built.runtime, language: languageOf(built.gpu) };
  } else {
    tried.push(options.builtIn === false ? 'navigator.gpu was to be passed over' : 'navigator.gpu is absent');
  }
  for (const provider of providers) {
    const found = await provider(options.prefer, tried);
    if (found) return found;
  }
  throw noAdapter(options.prefer, tried);
}

export const languageOf = (gpu: GPU): ReadonlySet<string> =>
  new Set((gpu.wgslLanguageFeatures ?? []) as Iterable<string>);

function builtIn(): { gpu: GPU; runtime: string } | null {
  const gpu = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (!gpu) return null;
  return { gpu, runtime: 'Deno' in globalThis ? 'Deno' : 'browser' };
}

/**
 * Asks one GPU object; a null, a refusal and an adapter of another kind than the caller insists on are all
 * noted in `tried`.
 */
export async function ask(
  gpu: GPU,
  who: string,
  prefer: AdapterPreference | undefined,
  tried: string[],
): Promise<GPUAdapter | null> {
  const request: GPURequestAdapterOptions =
    prefer === undefined || prefer === 'gpu'
      ? { powerPreference: 'high-performance' }
      : { forceFallbackAdapter: true };
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter(request);
    // Deno and some browsers know no fallback adapters by that name yet offer a software one.
    if (!adapter && request.forceFallbackAdapter) adapter = await gpu.requestAdapter();
  } catch (error) {
    tried.push(`${who}: ${(error as Error).message.split('\n')[0]}`);
    return null;
  }
  if (!adapter) {
    tried.push(`${who} offers no adapter`);
    return null;
  }
  if (satisfies(adapter.info, prefer)) return adapter;
  tried.push(
    `${who} offers ${adapterName(adapter.info)}, which is not what was asked for (${String(prefer)})`,
  );
  return null;
}

function noAdapter(prefer: AdapterPreference | undefined, tried: string[]): MGFError {
  const wanted = prefer === undefined ? 'WebGPU adapter' : prefer === 'gpu' ? 'GPU' : `${prefer} adapter`;
  const inBrowser = 'document' in globalThis || 'WorkerGlobalScope' in globalThis;
  const remedy = inBrowser
    ? 'use a browser with WebGPU enabled'
    : prefer === 'gpu'
      ? 'install the Vulkan driver of the GPU, or leave the choice of adapter open to run in software'
      : prefer === 'swiftshader'
        ? 'run `npm install --save-optional @sparticuz/chromium` (Linux x64), which carries it'
        : 'run `apt-get install mesa-vulkan-drivers` (23 or newer; on Debian 12 from backports)' +
          (prefer === 'lavapipe'
            ? ''
            : ', or `npm install --save-optional @sparticuz/chromium` (Linux x64), which carries a slower one');
  return new MGFError('no-adapter', `no ${wanted} found (${tried.join('; ')}): ${remedy}`);
}

/** The implementation's message on one line, without the stack of its own code. */
function oneLine(message: string): string {
  return message
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !/^at .*\(.*\)$/.test(line))
    .join(' ');
}

function wrap(
  device: GPUDevice,
  profile: AdapterProfile,
  owned: boolean,
  { onNote: note = console.warn }: OpenGpuOptions,
  settle?: AdapterSource['settle'],
): Gpu {
  let label = 'an operation outside any scope';
  let pending: MGFError | null = null;
  let loss: MGFError | null = null;
  let closed = false;

  const record = (error: GPUError, where: string): void => {
    if (loss || closed) return;
    const code = error.constructor.name === 'GPUOutOfMemoryError' ? 'out-of-memory' : 'validation';
    const what =
      code === 'out-of-memory'
        ? `${profile.name} ran out of memory in ${where}: use smaller batches or crops`
        : `invalid use of the GPU in ${where}`;
    pending ??= new MGFError(code, `${what} (${oneLine(error.message)})`);
  };
  const onUncaptured = (event: GPUUncapturedErrorEvent): void => {
    event.preventDefault();
    record(event.error, label);
  };
  device.addEventListener('uncapturederror', onUncaptured);

  const lost = device.lost.then((info) => {
    const why = closed
      ? 'it was closed'
      : `${info.message.trim() || info.reason || 'no reason given'}; the last operation was ${label}`;
    loss = new MGFError('device-lost', `the device ${profile.name} is gone: ${why}`);
    return loss;
  });

  return {
    device,
    profile,
    lost,
    note,
    settle: (profile.kind === 'cpu' && settle) || ((answer) => answer),
    failure() {
      if (loss) return loss;
      const error = pending;
      pending = null;
      return error;
    },
    scope(name, run) {
      label = name;
      // Errors reach the device's listener later than the calls that cause them; error scopes tie each to its
      // own label.
      device.pushErrorScope('out-of-memory');
      device.pushErrorScope('validation');
      try {
        return run();
      } finally {
        for (const popped of [device.popErrorScope(), device.popErrorScope()]) {
          popped.then(
            (error) => {
              if (error) record(error, name);
            },
            () => {
              /* a lost device: `lost` tells */
            },
          );
        }
      }
    },
    close() {
      if (closed) return;
      closed = true;
      device.removeEventListener('uncapturederror', onUncaptured);
      if (owned) device.destroy();
      else loss = new MGFError('device-lost', `the device ${profile.name} is gone: it was closed`);
    },
  };
}
