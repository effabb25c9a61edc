import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { elements } from '../../src/graph/shape.ts';
import type { HostTensor, HostTensors, Work } from '../workloads/contract.ts';

/** The tensor with its axes in another order: axis i of the result is axis order[i] of the argument. */
export function permute({ shape, data }: HostTensor, order: readonly number[]): HostTensor {
  const strides = shape.map((_, i) => elements(shape.slice(i + 1)));
  const to = order.map((axis) => shape[axis]!);
  const by = order.map((axis) => strides[axis]!);
  const out = data.slice();
  const at = to.map(() => 0);
  for (let i = 0, from = 0; i < out.length; i++) {
    out[i] = data[from]!;
    for (let axis = to.length - 1; axis >= 0; axis--) {
      from += by[axis]!;
      if (++at[axis]! < to[axis]!) break;
      from -= by[axis]! * to[axis]!;
      at[axis] = 0;
    }
  }
  return { shape: to, data: out };
}

/** The order that undoes `order`. */
export const inverse = (order: readonly number[]): number[] => order.map((_, i) => order.indexOf(i));

/** A single computation, without a state that goes on from run to run. */
export type OpWork = Exclude<Work, { op: 'torch_step' }>;

/**
 * Axis orders of a workload's tensors for an engine whose convolution has another layout; an `up` has its
 * output's.
 */
export function orders(
  work: Work,
  conv: Record<'x' | 'w' | 'y', readonly number[]>,
): Record<string, readonly number[]> {
  return work.op === 'conv1d' ? { ...conv, up: conv.y } : {};
}

/** The outputs of a workload, in the order of its inputs. */
export function outputNames(inputs: HostTensors, grad: boolean): string[] {
  if (!grad) return ['y'];
  return Object.keys(inputs)
    .filter((name) => name !== 'up' && inputs[name]!.data instanceof Float32Array)
    .map((name) => `d.${name}`);
}

/** Version of an installed package, read beside its main module, since `exports` may hide package.json. */
export function packageVersion(name: string): string {
  const require = createRequire(import.meta.url);
  for (let folder = dirname(require.resolve(name)); folder !== dirname(folder); folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (!existsSync(file)) continue;
    const found = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string };
    if (found.name === name && found.version) return found.version;
  }
  return 'of unknown version';
}
