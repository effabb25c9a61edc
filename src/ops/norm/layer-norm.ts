import type { AdapterProfile } from '../../gpu/device.ts';
import { checkOptions } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, f32, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { imageable } from '../../launch/image.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import backwardSource from '../../../kernels/layer_norm_backward.wgsl';
import columnsSource from '../../../kernels/layer_norm_columns.wgsl';
import subgroupBackwardSource from '../../../kernels/layer_norm_subgroup_backward.wgsl';
import subgroupSource from '../../../kernels/layer_norm_subgroup.wgsl';
import walkSource from '../../../kernels/layer_norm_walk.wgsl';
import forwardSource from '../../../kernels/layer_norm.wgsl';
import { ceilDiv, overRows, spread } from '../../launch/grid.ts';
import { columnSums, overItems } from '../lib/reduce.ts';
import { rowLayout } from '../lib/rows.ts';
import { layerNormCheck } from './layer-norm-check.ts';

const FORWARD = kernel('layer_norm', forwardSource);
const BACKWARD = kernel('layer_norm_backward', backwardSource);
const SUBGROUP = kernel('layer_norm_subgroup', subgroupSource, (c) => layerNormCheck(c, false));
const WALK = kernel('layer_norm_walk', walkSource, (c) => layerNormCheck(c, false));
const SUBGROUP_BACKWARD = kernel('layer_norm_subgroup_backward', subgroupBackwardSource, (c) =>
  layerNormCheck(c, true),
);
const COLUMNS = kernel('layer_norm_columns', columnsSource);

interface Attrs {
  eps: number;
  activation: 'none' | 'gelu';
}

const flags = (weight: Value | null, bias: Value | null, attrs: Attrs): Record<string, number> => ({
  WEIGHT: Number(weight !== null),
  BIAS: Number(bias !== null),
  ACT: Number(attrs.activation === 'gelu'),
});

/**
 * Vec4s of a row that a lane may hold. The text is unrolled: compiling it takes lavapipe 2 s for rows of 128,
 * 4 s for 192, 9 s for 256; a GPU compiles fast and has registers for 8.
 */
const mostHeld = (adapter: AdapterProfile): number =>
  adapter.family === 'cpu' ? 32 / adapter.subgroupSize : 8;

/**
 * Launch of the kernels that hold a row in a subgroup's registers, or null where they do not apply: subgroups
 * of no fixed size, or an odd or long row. Rows are read from images where that pays for the copies: not
 * where GELU is most of the work.
 */
function overSubgroups(
  x: Spec,
  { activation }: Attrs,
  adapter: AdapterProfile,
): {
  constants: { SG: number; V: number; IMAGE: number };
  grid: readonly [number, number, number];
  block: number;
  blocks: number;
} | null {
  const { rows, d } = rowLayout(x);
  const SG = adapter.subgroupSize;
  if (adapter.rejected?.has(SUBGROUP.name)) return null;
  if (SG < 4 || SG > 32 || d % (4 * SG) !== 0 || d / (4 * SG) > mostHeld(adapter)) return null;
  const block = ceilDiv(rows, Math.min(adapter.family === 'cpu' ? 256 : 2048, ceilDiv(rows, 8)));
  const blocks = ceilDiv(rows, block);
  const IMAGE = Number(Boolean(adapter.images) && activation === 'none' && imageable(x.shape));
  return { constants: { SG, V: d / (4 * SG), IMAGE }, grid: spread(blocks), block, blocks };
}

/**
 * Inputs x, weight?, bias?. Outputs y and the statistics of each row (see the kernel), which backward needs.
 */
export const layerNormOp = defineOp<Attrs>({
  name: 'layer_norm',
  shape([x, weight, bias]) {
    const d = x!.shape.at(-1);
    if (d === undefined) throw new MGFError('shape', 'layer_norm: x must have at least one axis');
    for (const [what, v] of [
      ['weight', weight],
      ['bias', bias],
    ] as const) {
      if (v && formatShape(v.shape) !== `[${d}]`)
        throw new MGFError(
          'shape',
          `layer_norm: x ${formatShape(x!.shape)} needs a ${what} [${d}], got ${formatShape(v.shape)}`,
        );
    }
    return [{ shape: x!.shape, dtype: 'f32' }, f32(elements(x!.shape) / d, 4)];
  },
  forward(c) {
    const x = c.input(0);
    const weight = c.inputs[1] ?? null;
    const bias = c.inputs[2] ?? null;
    const { rows, width, VEC } = rowLayout(x);
    const held = overSubgroups(x, c.attrs, c.adapter);
    const bind = {
      x,
      y: c.outputs[0]!,
      stats: c.outputs[1]!,
      ...(weight && { weight }),
      ...(bias && { bias }),
    };
    if (held) {
      return [
        {
          kernel: SUBGROUP,
          variant: SUBGROUP.name,
          grid: held.grid,
          constants: { ...held.constants, ...flags(weight, bias, c.attrs) },
          bind,
          params: { rows, block: held.block, eps: c.attrs.eps },
        },
      ];
    }
    if (c.adapter.family === 'cpu' && VEC && !c.adapter.rejected?.has(WALK.name)) {
      const block = 4 * ceilDiv(rows, 4 * 128);
      const IMAGE = Number(Boolean(c.adapter.images) && imageable(x.shape));
      return [
        {
          kernel: WALK,
          variant: WALK.name,
          grid: spread(ceilDiv(rows, block)),
          constants: { ...flags(weight, bias, c.attrs), IMAGE },
          bind,
          params: { rows, block, width, eps: c.attrs.eps },
        },
      ];
    }
    const { constants, grid } = overRows(rows, c.adapter);
    return [
      {
        kernel: FORWARD,
        grid,
        constants: { ...constants, ...flags(weight, bias, c.attrs), VEC },
        bind,
        params: { rows, width, eps: c.attrs.eps },
      },
    ];
  },
  saves: { inputs: [0, 1, 2], outputs: [1] },
  backward(c) {
    const dy = c.upstream(0)!;
    const x = c.input(0)!;
    const weight = c.input(1);
    const bias = c.input(2);
    const stats = c.output(1);
    const { rows, d, width, VEC } = rowLayout(x);
    const act = c.attrs.activation === 'gelu';
    const dispatches: Dispatch[] = [];
    const dx = c.grad(0);
    const dw = c.grad(1);
    const db = c.grad(2);
    const held = dx && overSubgroups(x, c.attrs, c.adapter);
    if (held) {
      const part_weight = weight && c.temp([held.blocks, d]);
      const part_bias = bias && c.temp([held.blocks, d]);
      dispatches.push({
        kernel: SUBGROUP_BACKWARD,
        variant: SUBGROUP.name,
        grid: held.grid,
        constants: { ...held.constants, ...flags(weight, bias, c.attrs) },
        bind: {
          dy,
          x,
          stats,
          dx,
          ...(weight && { weight, part_weight: part_weight! }),
          ...(bias && { part_bias: part_bias!, ...(act && { bias }) }),
        },
        params: { rows, block: held.block, held: held.constants.V },
      });
      if (dw) dispatches.push(...columnSums(c, part_weight!, held.blocks, d, dw));
      if (db) dispatches.push(...columnSums(c, part_bias!, held.blocks, d, db));
      return dispatches;
    }
    if (dx) {
      const { constants, grid } = overRows(rows, c.adapter);
      dispatches.push({
        kernel: BACKWARD,
        grid,
        constants: { ...constants, ...flags(weight, bias, c.attrs), VEC },
        bind: { dy, x, stats, dx, ...(weight && { weight }), ...(bias && act && { bias }) },
        params: { rows, width },
      });
    }
    if (dw || db) {
      // Blocks small enough for every lane to have work, large enough for the partial sums to be few.
      const blocks = Math.min(c.adapter.family === 'cpu' ? 256 : ceilDiv(65536, width), ceilDiv(rows, 16));
      const block = ceilDiv(rows, blocks);
      const used = ceilDiv(rows, block);
      const partWeight = weight && c.temp([used, d]);
      const partBias = bias && c.temp([used, d]);
      const { constants, grid } = overItems(used * width, c.adapter);
      dispatches.push({
        kernel: COLUMNS,
        grid,
        constants: { ...constants, ...flags(weight, bias, c.attrs), VEC },
        bind: {
          dy,
          x,
          stats,
          ...(weight && { weight, part_weight: partWeight! }),
          ...(bias && { part_bias: partBias!, ...(act && { bias }) }),
        },
        params: { rows, width, block, n: used * width },
      });
      if (dw) dispatches.push(...columnSums(c, partWeight!, used, d, dw));
      if (db) dispatches.push(...columnSums(c, partBias!, used, d, db));
    }
    return dispatches;
  },
  cost: ([x]) => ({ flops: 8 * elements(x!.shape), bytes: 8 * elements(x!.shape) }),
});

/**
 * Layer norm over the last axis: (x - mean) / sqrt(var + eps) * weight + bias, with the population variance,
 * then GELU when asked for. x [..., D]; weight, bias [D] or null -> [..., D]. Accurate for rows whose mean is
 * much larger than their spread.
 * @throws MGFError 'shape'
 */
export function layerNorm(
  x: Value,
  weight: Value | null,
  bias: Value | null,
  options: { eps?: number; activation?: 'none' | 'gelu' } = {},
): Value {
  checkOptions('layerNorm', options, { eps: 'a number?', activation: '"none"|"gelu"?' });
  return apply(
    layerNormOp,
    [x, weight, bias],
    { eps: options.eps ?? 1e-5, activation: options.activation ?? 'none' },
    1,
  )[0]!;
}

/** Float64 reference (before the activation): x [rows, D]. */
export function layerNormReference(
  x: Float64Array,
  weight: Float64Array | null,
  bias: Float64Array | null,
  d: number,
  eps: number,
): Float64Array {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += d) {
    const row = x.subarray(at, at + d);
    const mean = row.reduce((a, b) => a + b, 0) / d;
    const rstd = 1 / Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / d + eps);
    for (let i = 0; i < d; i++) y[at + i] = (row[i]! - mean) * rstd * (weight?.[i] ?? 1) + (bias?.[i] ?? 0);
  }
  return y;
}
