import type { AdapterProfile } from '../../gpu/device.ts';
import { checkOptions } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, f32, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import combineSource from '../../../kernels/group_norm_combine.wgsl';
import source from '../../../kernels/group_norm.wgsl';
import { ceilDiv, overRows } from '../../launch/grid.ts';
import { columnSums, overItems } from '../lib/reduce.ts';

const BLOCKS = kernel('group_norm', source);
const COMBINE = kernel('group_norm_combine', combineSource);

interface Attrs {
  groups: number;
  eps: number;
  activation: 'none' | 'gelu';
}

/** Steps that one invocation walks: enough to make loading what belongs to the channel cheap. */
const BLOCK = 64;

function layout(
  x: Spec,
  groups: number,
): {
  B: number;
  T: number;
  C: number;
  width: number;
  VEC: number;
  block: number;
  blocks: number;
  channels: number;
} {
  const [B, T, C] = x.shape as [number, number, number];
  const VEC = Number(C % 4 === 0);
  const block = Math.min(T, BLOCK);
  return { B, T, C, width: VEC ? C / 4 : C, VEC, block, blocks: ceilDiv(T, block), channels: C / groups };
}

function overBlocks(
  mode: 0 | 1 | 2 | 3,
  adapter: AdapterProfile,
  attrs: Attrs,
  x: Value,
  bind: Record<string, Value>,
): Dispatch {
  const { B, T, width, VEC, block, blocks, channels } = layout(x, attrs.groups);
  const n = B * blocks * width;
  const { constants, grid } = overItems(n, adapter);
  return {
    kernel: BLOCKS,
    grid,
    constants: { ...constants, MODE: mode, VEC, ACT: Number(mode > 0 && attrs.activation === 'gelu') },
    bind: { x, ...bind },
    params: { n, width, blocks, steps: T, block, groups: attrs.groups, channels, count: T * channels },
  };
}

function combine(
  adapter: AdapterProfile,
  attrs: Attrs,
  x: Value,
  BACK: number,
  bind: Record<string, Value>,
): Dispatch {
  const { B, T, block, blocks, channels } = layout(x, attrs.groups);
  const { constants, grid } = overRows(B * attrs.groups, adapter);
  return {
    kernel: COMBINE,
    grid,
    constants: { ...constants, BACK },
    bind,
    params: {
      rows: B * attrs.groups,
      groups: attrs.groups,
      channels,
      blocks,
      steps: T,
      block,
      eps: attrs.eps,
    },
  };
}

/**
 * Inputs x, weight, bias. Outputs y and the statistics of each group (see the kernel), which backward needs.
 */
export const groupNormOp = defineOp<Attrs>({
  name: 'group_norm',
  shape([x, weight, bias], { groups }) {
    const C = x!.shape[2];
    if (x!.shape.length !== 3 || C! % groups !== 0)
      throw new MGFError(
        'shape',
        `group_norm: x must be [B, T, C] with C a multiple of ${groups} groups, got ${formatShape(x!.shape)}`,
      );
    for (const [what, v] of [
      ['weight', weight],
      ['bias', bias],
    ] as const) {
      if (formatShape(v!.shape) !== `[${C}]`)
        throw new MGFError(
          'shape',
          `group_norm: x ${formatShape(x!.shape)} needs a ${what} [${C}], got ${formatShape(v!.shape)}`,
        );
    }
    return [{ shape: x!.shape, dtype: 'f32' }, f32(x!.shape[0]!, groups, 4)];
  },
  forward(c) {
    const x = c.input(0);
    const weight = c.input(1);
    const bias = c.input(2);
    const [y, stats] = c.outputs as [Value, Value];
    const { B, C, blocks } = layout(x, c.attrs.groups);
    const part_mean = c.temp([B, blocks, C]);
    const part_m2 = c.temp([B, blocks, C]);
    return [
      overBlocks(0, c.adapter, c.attrs, x, { part_mean, part_m2 }),
      combine(c.adapter, c.attrs, x, 0, { first: part_mean, second: part_m2, x, stats }),
      overBlocks(1, c.adapter, c.attrs, x, { stats, weight, bias, y }),
    ];
  },
  saves: { inputs: [0, 1, 2], outputs: [1] },
  backward(c) {
    const dy = c.upstream(0)!;
    const x = c.input(0)!;
    const weight = c.input(1)!;
    const bias = c.input(2)!;
    const stats = c.output(1);
    const { B, C, blocks } = layout(x, c.attrs.groups);
    const part_dz = c.temp([B, blocks, C]);
    const part_dzx = c.temp([B, blocks, C]);
    const dx = c.grad(0);
    const dw = c.grad(1);
    const db = c.grad(2);
    const dispatches = [overBlocks(2, c.adapter, c.attrs, x, { stats, weight, bias, dy, part_dz, part_dzx })];
    if (dx) {
      const sums = c.temp([B, c.attrs.groups, 2]);
      dispatches.push(combine(c.adapter, c.attrs, x, 1, { first: part_dz, second: part_dzx, weight, sums }));
      dispatches.push(overBlocks(3, c.adapter, c.attrs, x, { stats, weight, bias, dy, sums, dx }));
    }
    if (dw) dispatches.push(...columnSums(c, part_dzx, B * blocks, C, dw));
    if (db) dispatches.push(...columnSums(c, part_dz, B * blocks, C, db));
    return dispatches;
  },
  cost: ([x]) => ({ flops: 10 * elements(x!.shape), bytes: 12 * elements(x!.shape) }),
});

/**
 * Group norm, channels-last: statistics over all T steps and the C / groups channels of a group, then weight
 * and bias per channel, then GELU when asked for. x [B, T, C], weight [C], bias [C] -> [B, T, C]. groups = C
 * is one group per channel, as in wav2vec 2.0 base. Padded steps count like any other (there is no mask), as
 * in the reference implementations. Deterministic.
 * @throws MGFError 'shape'
 */
export function groupNorm(
  x: Value,
  weight: Value,
  bias: Value,
  options: { groups: number; eps?: number; activation?: 'none' | 'gelu' },
): Value {
  checkOptions('groupNorm', options, { groups: 'a number', eps: 'a number?', activation: '"none"|"gelu"?' });
  return apply(groupNormOp, [x, weight, bias], {
    groups: options.groups,
    eps: options.eps ?? 1e-5,
    activation: options.activation ?? 'none',
  })[0]!;
}

/** Float64 reference (before the activation): x [B, T, C]. */
export function groupNormReference(
  x: Float64Array,
  weight: Float64Array,
  bias: Float64Array,
  [B, T, C]: readonly [number, number, number],
  groups: number,
  eps: number,
): Float64Array {
  const y = new Float64Array(x.length);
  const per = C / groups;
  for (let b = 0; b < B; b++) {
    for (let g = 0; g < groups; g++) {
      const at = Array.from(
        { length: T * per },
        (_, i) => (b * T + Math.floor(i / per)) * C + g * per + (i % per),
      );
      const mean = at.reduce((sum, i) => sum + x[i]!, 0) / at.length;
      const rstd = 1 / Math.sqrt(at.reduce((sum, i) => sum + (x[i]! - mean) ** 2, 0) / at.length + eps);
      for (const i of at) y[i] = (x[i]! - mean) * rstd * weight[i % C]! + bias[i % C]!;
    }
  }
  return y;
}
