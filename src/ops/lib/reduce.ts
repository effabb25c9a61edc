import { checkArguments, checkFields, VALUE } from '../../check.ts';
import columnSumsText from '../../../kernels/column_sums.wgsl';
import totalText from '../../../kernels/total.wgsl';
import weightedSumText from '../../../kernels/weighted_sum.wgsl';
import type { AdapterProfile } from '../../gpu/device.ts';
import { elements, type DType, type Shape } from '../../graph/shape.ts';
import type { Value } from '../../graph/graph.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import { ceilDiv, overRows, spread } from '../../launch/grid.ts';

/**
 * Reductions as building blocks of ops. All run in two deterministic passes: a repeated step gives the same
 * bits.
 */

export const columnSumsKernel = kernel('column_sums', columnSumsText);
export const totalKernel = kernel('total', totalText);
export const weightedSumKernel = kernel('weighted_sum', weightedSumText);

/** What the builders need of an op's context. */
export interface ReduceContext {
  readonly adapter: AdapterProfile;
  /** Scratch of the node that asks. */
  temp(shape: Shape, dtype?: DType): Value;
}

/**
 * One invocation per item for launches of few, long-running invocations: on CPU adapters a workgroup is one
 * subgroup, so that both cores get some.
 */
export function overItems(
  count: number,
  adapter: AdapterProfile,
): { constants: { WG: number }; grid: readonly [number, number, number] } {
  const width = adapter.family === 'cpu' ? adapter.subgroupSize : 64;
  return { constants: { WG: width }, grid: spread(ceilDiv(count, width)) };
}

/**
 * Invocations that keep the adapter busy: a few dozen subgroups on CPU adapters, a quarter of what a large
 * GPU holds on GPUs.
 */
const busy = (adapter: AdapterProfile): number =>
  adapter.family === 'cpu' ? 64 * adapter.subgroupSize : 32768;

/** out[columns] = sum over the rows of x, seen as [rows, columns]. */
export function columnSums(
  context: ReduceContext,
  x: Value,
  rows: number,
  columns: number,
  out: Value,
): Dispatch[] {
  checkFields('columnSums', 'context.', context, { adapter: 'an object', temp: 'a function' });
  checkArguments('columnSums', {
    x: [x, VALUE],
    rows: [rows, 'a number'],
    columns: [columns, 'a number'],
    out: [out, VALUE],
  });
  const { adapter } = context;
  const VEC = Number(columns % 4 === 0);
  const width = VEC ? columns / 4 : columns;
  const pass = (from: Value, to: Value, count: number, chunks: number): Dispatch => {
    const { constants, grid } = overItems(chunks * width, adapter);
    const run = adapter.family === 'cpu';
    const per = ceilDiv(count, chunks);
    return {
      kernel: columnSumsKernel,
      constants: { ...constants, VEC },
      grid,
      bind: { x: from, y: to },
      params: { rows: count, columns: width, chunks, per: run ? per : 1, step: run ? 1 : chunks, count: per },
    };
  };
  // In software a second launch costs more than walking down a hundred rows.
  const chunks =
    adapter.family === 'cpu' && rows <= 128
      ? 1
      : Math.max(1, Math.min(ceilDiv(busy(adapter), width), Math.floor(rows / 8), 256));
  if (chunks === 1) return [pass(x, out, rows, 1)];
  const partial = context.temp([chunks, columns]);
  return [pass(x, partial, rows, chunks), pass(partial, out, chunks, 1)];
}

/** What is summed: x itself, |x - y| or (x - y)^2. */
export type Summand = 'value' | 'l1' | 'mse';

/**
 * Elements that share a mask weight, and whether they come as vec4s. Without a mask everything is one group.
 */
export function grouping(x: Value, mask: Value | null): { n: number; group: number; VEC: number } {
  const n = elements(x.shape);
  const group = n / (mask ? elements(mask.shape) : 1);
  const VEC = Number(group % 4 === 0);
  return { n: VEC ? n / 4 : n, group: VEC ? group / 4 : group, VEC };
}

/**
 * Workgroups that own a run of elements each (kernels/weighted_sum.wgsl,
 * kernels/pointwise_loss_backward.wgsl).
 */
export function overSpans(
  n: number,
  group: number,
  adapter: AdapterProfile,
): {
  constants: { WG: number };
  grid: readonly [number, number, number];
  invocations: number;
  params: { n: number; group: number; span: number; jump_groups: number; jump_rest: number };
} {
  const WG = adapter.family === 'cpu' ? adapter.subgroupSize : 64;
  const groups = Math.max(1, Math.min(busy(adapter) / WG, ceilDiv(n, WG)));
  return {
    constants: { WG },
    grid: spread(groups),
    invocations: groups * WG,
    params: {
      n,
      group,
      span: ceilDiv(ceilDiv(n, groups), WG) * WG,
      jump_groups: Math.floor(WG / group),
      jump_rest: WG % group,
    },
  };
}

/**
 * total[0] = sum(weight * f(x, y)) / denominator[0], denominator = max(floor, sum of the weights over all
 * elements of x), or, without a mask, `divisor`. `mask`: weights whose count divides that of x; neighbouring
 * elements of x share one.
 */
export function weightedMean(
  context: ReduceContext,
  summand: Summand,
  x: Value,
  y: Value | null,
  mask: Value | null,
  divisor: number,
  total: Value,
  denominator: Value,
): Dispatch[] {
  const { n, group, VEC } = grouping(x, mask);
  const { constants, grid, params, invocations } = overSpans(n, group, context.adapter);
  const sums = context.temp([invocations]);
  const weights = mask && context.temp([invocations]);
  return [
    {
      kernel: weightedSumKernel,
      constants: {
        ...constants,
        VEC,
        KIND: ['value', 'l1', 'mse'].indexOf(summand),
        MASK: Number(mask !== null),
      },
      grid,
      params,
      bind: { x, ...(y && { y }), ...(mask && { mask, weights: weights! }), sums },
    },
    totals(
      context.adapter,
      sums,
      weights,
      invocations,
      weights ? (VEC ? 4 : 1) : divisor,
      weights ? 1 : 0,
      total,
      denominator,
    ),
  ];
}

/**
 * total[0] = sum(values) / denominator[0], denominator = max(scale * sum(weights), floor); without weights
 * their sum counts as 1. `n`: a multiple of 4.
 */
export function totals(
  adapter: AdapterProfile,
  values: Value,
  weights: Value | null,
  n: number,
  scale: number,
  floor: number,
  total: Value,
  denominator: Value,
): Dispatch {
  const { constants, grid } = overRows(1, adapter);
  return {
    kernel: totalKernel,
    constants: { ...constants, WEIGHTS: Number(weights !== null) },
    grid,
    bind: { values, ...(weights && { weights }), total, denominator },
    params: { n4: n / 4, scale, floor },
  };
}

/** out[0] = sum of all elements of x. */
export const sumAll = (context: ReduceContext, x: Value, out: Value): Dispatch[] =>
  weightedMean(context, 'value', x, null, null, 1, out, context.temp([1]));
