import { existsSync, readdirSync } from 'node:fs';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { openGpu } from '../gpu/device.ts';
import { MGFError } from '../errors.ts';
import { useDawn } from '../gpu/dawn.ts';
import { Graph } from '../graph/graph.ts';
import { grad } from '../ops/grad.ts';
import { layerNorm } from '../ops/norm/layer-norm.ts';
import { linear } from '../ops/gemm/linear.ts';
import { mseLoss } from '../ops/losses/pointwise.ts';
import { compile } from '../plan/compile.ts';
import { approvals, rejections } from '../plan/self-test.ts';
import type { AdapterInfo } from '../gpu/adapter.ts';
import type { AdapterPreference, AdapterProfile, Gpu, Precision } from '../gpu/device.ts';

export interface InfoOptions {
  /** Adapter to insist on instead of the usual choice. */
  adapter?: AdapterPreference;
}

/** Answer of `mgf info --json`; sizes are in bytes. */
export interface Info {
  adapter: {
    name: string;
    kind: 'gpu' | 'cpu';
    software: string | null;
    driver: string;
    runtime: string;
    subgroupSize: number;
  };
  /**
   * `tested`: variants of a few basic kernels that compute rightly here; `rejected`: those that do not and
   * are not used.
   */
  kernels: {
    family: 'cpu' | 'gpu';
    reason: string;
    tested: readonly string[];
    rejected: { variant: string; reason: string }[];
  };
  /** What matrix products can multiply, and why not f16. */
  precision: { offered: Precision[]; note: string };
  features: string[];
  limits: Record<string, number>;
  machine: { system: string; processor: string; threads: number; memory: number; javascript: string };
  /** What would make it faster, best first; empty where nothing would. */
  faster: string[];
}

const limitsThatMatter = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupsPerDimension',
] as const;

/**
 * Opens the adapter that the other commands would take and describes it.
 * @throws MGFError `no-adapter` as openGpu does.
 */
export async function collectInfo(options: InfoOptions = {}): Promise<Info> {
  useDawn();
  const gpu = await openGpu({
    ...(options.adapter && { prefer: options.adapter }),
    onNote: () => {
      /* the answer tells */
    },
  });
  try {
    await tryBasicKernels(gpu);
    const { profile, device } = gpu;
    const info = (device as { adapterInfo?: AdapterInfo }).adapterInfo;
    return {
      adapter: {
        name: profile.name,
        kind: profile.kind,
        software: profile.software ?? null,
        driver: info?.description || 'not told',
        runtime: profile.runtime,
        subgroupSize: profile.subgroupSize,
      },
      kernels: {
        family: profile.family,
        reason: profile.familyReason,
        tested: approvals(gpu),
        rejected: rejections(gpu).map(({ variant, reason }) => ({ variant, reason })),
      },
      precision: precisions(profile),
      features: [...profile.features].sort(),
      limits: Object.fromEntries(limitsThatMatter.map((limit) => [limit, profile.limits[limit]])),
      machine: {
        system: `${platform()} ${arch()} ${release()}`,
        processor: cpus()[0]?.model.trim() || 'unknown',
        threads: availableParallelism(),
        memory: totalmem(),
        javascript: javascriptRuntime(),
      },
      faster: faster(profile, options.adapter),
    };
  } finally {
    gpu.close();
  }
}

function precisions({ family, features }: AdapterProfile): Info['precision'] {
  if (!features.has('shader-f16')) return { offered: ['f32'], note: 'the device has no shader-f16' };
  // Accepted, so that a run can move between adapters, but without effect.
  if (family === 'cpu')
    return {
      offered: ['f32'],
      note: 'software kernels gain nothing from f16, and compute in f32 where it is asked for',
    };
  return { offered: ['f32', 'f16'], note: '--precision f16 multiplies in f16 and adds in f32' };
}

/**
 * A linear layer, a layer norm and their gradients: compiling them runs the self-test of the variants that
 * they take.
 */
async function tryBasicKernels(gpu: Gpu): Promise<void> {
  const g = new Graph();
  const x = g.state('x', [64, 64], { requiresGrad: true });
  const w = g.state('w', [64, 64], { requiresGrad: true });
  const loss = mseLoss(layerNorm(linear(x, w), null, null), g.input('target', [64, 64]));
  const [dx, dw] = grad(loss, [x, w]);
  try {
    (await compile(gpu, g, { keep: { dx: dx!, dw: dw! } })).destroy();
  } catch (error) {
    // Where no variant is left, those that were tried are in the answer.
    if (!(error instanceof MGFError) || error.code !== 'kernel' || rejections(gpu).length === 0) throw error;
  }
}

function javascriptRuntime(): string {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  return bun ? `Bun ${bun}` : deno ? `Deno ${deno}` : `Node ${node}`;
}

function faster(profile: AdapterProfile, asked: AdapterPreference | undefined): string[] {
  if (profile.kind === 'gpu') return [];
  const advice: string[] = [];
  const nodes = gpuNodes();
  if (asked !== undefined && asked !== 'gpu') {
    advice.push(`without --adapter ${asked}, a GPU is taken if there is one`);
  } else if (nodes.length > 0) {
    advice.push(
      `this machine shows a GPU (${nodes.join(', ')}), but no Vulkan driver offers it: install the ` +
        'Vulkan driver of its maker',
    );
  } else {
    advice.push('a GPU with its Vulkan driver; none is visible here');
  }
  if (profile.software === 'swiftshader' && asked !== 'swiftshader') {
    advice.push(
      'Mesa lavapipe, 3 to 5 times as fast as SwiftShader: `apt-get install mesa-vulkan-drivers` (23 ' +
        'or newer; on Debian 12 from backports)',
    );
  }
  if (!profile.features.has('subgroups'))
    advice.push('a runtime with subgroups, such as npm `webgpu` under Node');
  return advice;
}

/** Device files that GPU drivers of the kernel make. */
function gpuNodes(): string[] {
  const render = existsSync('/dev/dri')
    ? readdirSync('/dev/dri')
        .filter((f) => f.startsWith('renderD'))
        .map((f) => `/dev/dri/${f}`)
    : [];
  return existsSync('/dev/nvidiactl') ? ['/dev/nvidiactl', ...render] : render;
}

/** `mgf info` for people. */
export function formatInfo(info: Info): string {
  const { adapter, kernels, machine } = info;
  const lines: [string, string][] = [
    ['Adapter', `${adapter.name}${adapter.kind === 'cpu' ? ' (software: runs on the processor)' : ''}`],
    ['Driver', adapter.driver],
    ['Runtime', `${adapter.runtime} under ${machine.javascript}`],
    ['Kernels', `${kernels.family} family: ${kernels.reason}`],
    ['Precision', `${info.precision.offered.join(' or ')}: ${info.precision.note}`],
    [
      'Self-test',
      kernels.tested.length > 0 ? `${kernels.tested.join(', ')}: right` : 'no variant computes rightly',
    ],
    ...kernels.rejected.map(({ variant, reason }): [string, string] => [
      '',
      `${variant} ${reason}: not used`,
    ]),
    ['Subgroups', adapter.subgroupSize > 0 ? `${adapter.subgroupSize} lanes` : 'none of a fixed size'],
    ['Features', info.features.join(', ') || 'none'],
    [
      'Machine',
      `${machine.system}, ${machine.processor}, ${machine.threads} threads, ${bytes(machine.memory)}`,
    ],
  ];
  const text = lines.map(([name, value]) => `${name.padEnd(11)}${value}`);
  text.push('Limits');
  for (const [name, value] of Object.entries(info.limits)) {
    text.push(`  ${name.padEnd(34)}${name.endsWith('Size') ? bytes(value) : value}`);
  }
  text.push(info.faster.length > 0 ? 'Faster would be' : 'Nothing to install would make it faster.');
  for (const advice of info.faster) text.push(`  - ${advice}`);
  return text.join('\n');
}

function bytes(count: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  let value = count;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}
