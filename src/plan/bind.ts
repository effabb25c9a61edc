/** The pass that freezes bind groups: every binding of a kernel gets the storage of the value it is of. */
import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import type { Compiled } from '../gpu/pipelines.ts';
import type { Node, Value } from '../graph/graph.ts';
import type { Dispatch } from '../launch/dispatch.ts';
import type { ImageAccess, ImagePlan, ImageRead } from './images.ts';
import { isView, valueOf } from './lifetimes.ts';
import { tooLarge } from './limits.ts';
import { nodeLabel } from './names.ts';
import type { Uniforms } from './pack.ts';
import type { PlannedDispatch } from './program.ts';
import type { Root } from './prune.ts';
import type { Region } from './storage.ts';

/** A dispatch with the kernel that it launches and the node that it is of. */
export interface Launch {
  readonly dispatch: Dispatch;
  readonly compiled: Compiled;
  readonly node: Node;
}

/** Where everything lies that dispatches bind. */
export interface Layout {
  readonly root: Root;
  readonly regions: ReadonlyMap<Value, Region>;
  readonly slots: readonly GPUBuffer[];
  readonly images: ImagePlan;
  readonly uniforms: Uniforms & { readonly buffer: GPUBuffer };
}

/** Vec4s in a row of a binding that is read in panels; null of any other. */
const panelWidth = (d: Dispatch, name: string): number | null => d.panels?.[name] ?? null;

const isImage = (type: string): boolean => type === 'image' || type === 'panels';

/** What a dispatch reads as images, and which buffers it writes. Throws MGFError 'kernel' for an image of a view. */
export function imageAccess(
  { dispatch, compiled, node }: Launch,
  root: Root,
  regions: ReadonlyMap<Value, Region>,
): ImageAccess {
  const reads: ImageRead[] = [];
  const writes = new Set<GPUBuffer>();
  for (const { name, type } of compiled.interface.bindings) {
    const bound = dispatch.bind[name];
    if (!bound || type === 'uniform' || type === 'read-only-storage') continue;
    if (isView(bound) && isImage(type)) {
      throw new MGFError(
        'kernel',
        `${nodeLabel(node)}: kernel ${compiled.name} reads "${name}" as an image, which is of a whole ` +
          'tensor, not of a view',
      );
    }
    const value = root(valueOf(bound));
    const region = regions.get(value)!;
    if (isImage(type)) reads.push({ value, from: region, width: panelWidth(dispatch, name) });
    else writes.add(region.buffer);
  }
  return { reads, writes };
}

/** Throws MGFError for bindings that the kernel does not declare ('kernel') and a grid out of limits ('limit'). */
function checkLaunch({ dispatch, compiled, node }: Launch): void {
  const declared = compiled.interface.bindings.map((b) => b.name);
  const extra = Object.keys(dispatch.bind).find((name) => !declared.includes(name));
  if (extra) {
    throw new MGFError(
      'kernel',
      `${nodeLabel(node)}: the op binds "${extra}", which kernel ${compiled.name} does not declare (it has ` +
        `${declared.join(', ')})`,
    );
  }
  if (dispatch.grid.some((n) => n > 65535 || n < 1)) {
    throw new MGFError(
      'limit',
      `${nodeLabel(node)}: kernel ${compiled.name} would need a grid of ${dispatch.grid.join(' x ')} ` +
        'workgroups; each must be 1 to 65535',
    );
  }
}

/** The entries of a dispatch's bind group. `i`: which dispatch it is. */
function entriesOf(gpu: Gpu, launch: Launch, i: number, layout: Layout): GPUBindGroupEntry[] {
  const { dispatch, compiled, node } = launch;
  const { root, regions, images, uniforms } = layout;
  const where = nodeLabel(node);
  const writable = new Map<GPUBuffer, boolean>();
  return compiled.interface.bindings.map(({ name, binding, type }) => {
    if (type === 'uniform') {
      const { buffer, offsets, sizes } = uniforms;
      return { binding, resource: { buffer, offset: offsets[i]!, size: sizes[i]! } };
    }
    const bound = dispatch.bind[name];
    if (!bound) {
      throw new MGFError(
        'kernel',
        `${where}: kernel ${compiled.name} has a binding "${name}" that the op does not bind (it binds ` +
          `${Object.keys(dispatch.bind).join(', ')})`,
      );
    }
    if (isImage(type)) {
      return { binding, resource: images.view(i, root(bound as Value), panelWidth(dispatch, name)) };
    }
    const base = regions.get(root(valueOf(bound)))!;
    const resource = isView(bound)
      ? { buffer: base.buffer, offset: base.offset + bound.offset, size: bound.size }
      : base;
    if (resource.size > gpu.profile.limits.maxStorageBufferBindingSize) {
      throw tooLarge(gpu.profile, where, resource.size, 'maxStorageBufferBindingSize');
    }
    const write = type === 'storage';
    if ((writable.get(base.buffer) ?? write) !== write) {
      throw new MGFError(
        'kernel',
        `${where}: kernel ${compiled.name} reads and writes the buffer of "${name}" in one dispatch, which ` +
          'WebGPU forbids',
      );
    }
    writable.set(base.buffer, write);
    return { binding, resource };
  });
}

/** Bind groups of all dispatches. Throws MGFError 'kernel' and 'limit' where op, kernel and adapter disagree. */
export function bindAll(gpu: Gpu, launches: readonly Launch[], layout: Layout): PlannedDispatch[] {
  return launches.map((launch, i) => {
    const { dispatch, compiled, node } = launch;
    const entries = entriesOf(gpu, launch, i, layout);
    checkLaunch(launch);
    const label = nodeLabel(node);
    return {
      node,
      label,
      kernel: compiled.name,
      constants: dispatch.constants ?? {},
      pipeline: compiled.pipeline,
      grid: dispatch.grid,
      copies: layout.images.copies(i),
      group: gpu.device.createBindGroup({ label, layout: compiled.layout, entries }),
      bound: Object.entries(dispatch.bind).map(([name, bound]) => {
        const value = valueOf(bound);
        return { name, value, slot: layout.slots.indexOf(layout.regions.get(layout.root(value))!.buffer) };
      }),
    };
  });
}
