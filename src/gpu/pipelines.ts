import { MGFError } from '../errors.ts';
import { compilerOf } from '../wgsl/compiler.ts';
import { chooseEntry } from '../wgsl/declarations.ts';
import type { AdapterProfile, Gpu } from './device.ts';
import { ShaderStage } from './flags.ts';
import { complaint } from '../wgsl/diagnostics.ts';
import { expandTemplate, type Constants } from '../wgsl/template.ts';
import { reflect, type KernelInterface } from '../wgsl/reflect.ts';

export interface Compiled {
  readonly name: string;
  readonly wgsl: string;
  readonly interface: KernelInterface;
  readonly layout: GPUBindGroupLayout;
  readonly pipeline: GPUComputePipeline;
  readonly entry: string;
}

/** `entry`: the entry point; `main` or the only one where left out. */
export interface KernelText {
  readonly name: string;
  readonly source: string;
  readonly entry?: string;
}

const caches = new WeakMap<GPUDevice, Map<string, Promise<Compiled>>>();
const texts = new WeakMap<object, Map<string, string>>();

/**
 * The text of a variant; expanding a long template takes about a millisecond, and programs ask for each
 * variant many times.
 */
function textOf(kernel: { name: string; source: string }, constants: Constants): string {
  let known = texts.get(kernel);
  if (!known) texts.set(kernel, (known = new Map()));
  const key = Object.entries(constants).join();
  let text = known.get(key);
  if (text === undefined) known.set(key, (text = expandTemplate(kernel.name, kernel.source, constants)));
  return text;
}

/** What `compileKernel` compiles on an adapter. */
export const kernelText = (
  { subgroupSize, family }: AdapterProfile,
  kernel: { name: string; source: string },
  constants: Constants = {},
): string => textOf(kernel, { SG: subgroupSize, CPU: Number(family === 'cpu'), ...constants });

/**
 * Compiles a kernel variant, once per device and text: the expanded WGSL is the cache key, so nothing that is
 * baked into it can be forgotten. Every template may use SG (subgroup width, 0 if it varies) and CPU (1 for
 * the CPU-adapter family). Throws MGFError('kernel') with the compiler's messages and the lines they mean.
 */
export function compileKernel(gpu: Gpu, kernel: KernelText, constants: Constants = {}): Promise<Compiled> {
  let cache = caches.get(gpu.device);
  if (!cache) caches.set(gpu.device, (cache = new Map()));
  const wgsl = kernelText(gpu.profile, kernel, constants);
  const key = kernel.entry === undefined ? wgsl : `${kernel.entry}\n${wgsl}`;
  let compiled = cache.get(key);
  if (!compiled) {
    compiled = build(gpu, kernel.name, wgsl, kernel.entry);
    cache.set(key, compiled);
  }
  return compiled;
}

/** Variants compiled on this device so far. */
export const pipelineCount = (gpu: Gpu): number => caches.get(gpu.device)?.size ?? 0;

/** What only one of the two compilers takes: needed by the errors of texts, and before naga sees one. */
const portable = () => import('../wgsl/portability.ts');

async function build(gpu: Gpu, name: string, wgsl: string, wanted?: string): Promise<Compiled> {
  const {
    device,
    profile: { runtime },
  } = gpu;
  const compiler = compilerOf(runtime);
  const speaker = compiler ? `${compiler} (${runtime})` : `the compiler of ${runtime}`;
  const entry = chooseEntry(name, wgsl, wanted);
  const kernelInterface = reflect(name, wgsl, entry);
  // What would end the process has to be found before the compiler sees it. Where nothing can, the table is
  // not even loaded.
  const deadly =
    compiler === 'naga'
      ? (await portable()).portabilityNotes(name, wgsl, ({ refuses, ends }) => refuses === 'naga' && ends)
      : [];
  if (deadly.length)
    throw new MGFError(
      'kernel',
      `kernel ${name} was not given to ${speaker} (lines of a template are counted when it is ` +
        `expanded):\n${deadly.join('\n')}`,
    );
  const layout = device.createBindGroupLayout({
    label: name,
    entries: kernelInterface.bindings.map(({ binding, type }) => ({
      binding,
      visibility: ShaderStage.COMPUTE,
      ...(type === 'image' || type === 'panels'
        ? {
            storageTexture: {
              access: 'read-only',
              format: 'rgba32float',
              viewDimension: type === 'image' ? '2d' : '2d-array',
            },
          }
        : { buffer: { type } }),
    })),
  });
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ label: name, code: wgsl });
  const invalid = device.popErrorScope();
  // Asked for at once, so that other threads compile while this one reads the next text. What is wrong with
  // the text is told better by the module.
  const made = gpu.settle(
    device.createComputePipelineAsync({
      label: name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: entry },
    }),
  );
  made.catch(() => undefined);
  const { messages } = await module.getCompilationInfo();
  await invalid;
  const errors = messages.filter((m) => m.type === 'error');
  if (errors.length) {
    const elsewhere = (await portable()).portabilityNotes(
      name,
      wgsl,
      ({ refuses }) => compiler === null || refuses === compiler,
    );
    throw new MGFError(
      'kernel',
      `kernel ${name} does not compile; ${speaker} says (lines of a template are counted when it is ` +
        `expanded):\n${[...errors.map((m) => complaint(name, wgsl, m)), ...elsewhere].join('\n')}`,
    );
  }
  try {
    const pipeline = await made;
    return { name, wgsl, interface: kernelInterface, layout, pipeline, entry };
  } catch (error) {
    throw new MGFError('kernel', `kernel ${name} was refused by the device: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
