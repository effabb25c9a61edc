// Node, Deno and Bun only: adapters through npm `webgpu`, which is Dawn.
import { createRequire } from 'node:module';
import { ask, addAdapterProvider, languageOf } from './device.ts';
import { embeddedDriver, hasVulkanLoader, withEmbedded } from './embedded.ts';
import type { AdapterPreference, AdapterSource } from './adapter.ts';

/**
 * Toggles of Dawn, by their names there (Dawn ignores names that it does not know). NVIDIA:
 * `vulkan_enable_f16_on_nvidia` and `allow_unsafe_apis` would add shader-f16 and subgroup matrices there; not
 * enabled by themselves, because webgpu 0.6 with them aborts the process on some of those GPUs.
 */
export interface DawnToggles {
  readonly enable?: readonly string[];
  readonly disable?: readonly string[];
}

/** What every GPU object is created with, and then these. Timestamps are otherwise rounded to 65.5 us. */
function flagsOf({ enable = [], disable = [] }: DawnToggles): string[] {
  return [
    `disable-dawn-features=${['timestamp_quantization', ...disable].join(',')}`,
    ...(enable.length ? [`enable-dawn-features=${enable.join(',')}`] : []),
  ];
}

/**
 * Every GPU object that create() ever returned: Dawn crashes once it is collected while a device of it lives.
 * On globalThis, so that two copies of this module (two bundles in one process) share it.
 */
interface Kept {
  objects: GPU[];
  byFlags: Record<string, Created>;
}
interface Created {
  /** Asked first, with whatever Vulkan the machine has. */
  system?: GPU;
  /** Created after the loader was pointed at the embedded driver. */
  embedded?: GPU;
}
const key = Symbol.for('mgf-webgpu.dawn');
const kept: Kept = ((globalThis as Record<symbol, unknown>)[key] ??= { objects: [], byFlags: {} }) as Kept;

/**
 * Longest sleep between two looks at the device, and the part of the time waited so far that one may take.
 */
const NAP_MS = 1;
const NAP_PART = 1 / 20;

const cell = new Int32Array(new SharedArrayBuffer(4));
let awaited = 0;
let since = 0;
let napping = false;

/**
 * Dawn's binding looks for news on every turn of the event loop as long as anything is awaited, which keeps
 * one core busy: with two cores a software adapter then has one and a third (768 x 768 x 768 products on
 * lavapipe: 302 ms with the look-out, 199 ms without). So this thread sleeps between turns.
 */
function settle<T>(answer: Promise<T>): Promise<T> {
  if (awaited++ === 0) since = performance.now();
  if (!napping) {
    napping = true;
    setImmediate(nap);
  }
  return answer.finally(() => {
    awaited--;
  });
}

function nap(): void {
  napping = awaited > 0;
  if (!napping) return;
  const ms = Math.min(NAP_MS, NAP_PART * (performance.now() - since));
  if (ms > NAP_MS / 20) Atomics.wait(cell, 0, 0, ms);
  setImmediate(nap);
}

/** Lets `openGpu` reach adapters through npm `webgpu`. */
export function useDawn(): void {
  addAdapterProvider(dawnAdapter);
}

/**
 * An adapter of npm `webgpu` that satisfies the preference; for other libraries of the same process, which
 * look for `navigator.gpu`. `toggles`: further toggles of Dawn for it; a provider of one's own,
 * `addAdapterProvider((prefer, tried) => dawnAdapter(prefer, tried, toggles))`, has `openGpu` use them.
 */
export async function dawnAdapter(
  prefer: AdapterPreference | undefined,
  tried: string[],
  toggles: DawnToggles = {},
): Promise<AdapterSource | null> {
  let dawn: typeof import('webgpu');
  try {
    dawn = await import('webgpu');
  } catch (error) {
    tried.push(`package webgpu (Dawn) did not load: ${(error as Error).message.split('\n')[0]}`);
    return null;
  }
  const runtime = `Dawn (webgpu ${packageVersion()})`;
  const flags = flagsOf(toggles);
  const created = (kept.byFlags[flags.join(' ')] ??= {});
  const create = (): GPU => {
    const gpu = dawn.create(flags);
    kept.objects.push(gpu);
    return gpu;
  };
  if (prefer !== 'swiftshader') {
    if (created.system || hasVulkanLoader()) {
      created.system ??= create();
      const adapter = await ask(created.system, 'installed Vulkan', prefer, tried);
      if (adapter) return { adapter, runtime, language: languageOf(created.system), settle };
    } else {
      tried.push('no Vulkan loader (libvulkan.so.1) is installed');
    }
    if (prefer === 'gpu' || prefer === 'lavapipe') return null;
  }
  const adapter = created.embedded
    ? await ask(created.embedded, 'embedded SwiftShader', prefer, tried)
    : await firstEmbedded(() => (created.embedded = create()), prefer, tried);
  if (!adapter) return null;
  return { adapter, runtime: `${runtime}, embedded SwiftShader`, settle };
}

/**
 * A GPU object that found nothing stays empty for ever, so the embedded driver gets a new one, created while
 * the loader sees that driver.
 */
async function firstEmbedded(
  create: () => GPU,
  prefer: AdapterPreference | undefined,
  tried: string[],
): Promise<GPUAdapter | null> {
  const driver = await embeddedDriver(tried);
  if (!driver) return null;
  return withEmbedded(driver, () => ask(create(), 'embedded SwiftShader', prefer, tried));
}

function packageVersion(): string {
  try {
    return (createRequire(import.meta.url)('webgpu/package.json') as { version: string }).version;
  } catch {
    return 'of unknown version';
  }
}
