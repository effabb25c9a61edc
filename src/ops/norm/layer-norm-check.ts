import { activationReference } from '../lib/activation-reference.ts';
import { checkNumbers, geluSlope } from '../lib/check.ts';
import type { KernelCheck } from '../../launch/dispatch.ts';
import { ceilDiv, spread } from '../../launch/grid.ts';

const ROWS = 5;
const BLOCK = 2;
const EPS = 1e-5;

/** A row as layer_norm leaves it: normalised, and its statistics (shift, centre, rstd, 0). */
function normalised(row: Float32Array): { xh: Float64Array; stats: number[] } {
  const mean = row.reduce((a, b) => a + b, 0) / row.length;
  const rstd = 1 / Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / row.length + EPS);
  return { xh: Float64Array.from(row, (v) => (v - mean) * rstd), stats: [row[0]!, mean - row[0]!, rstd, 0] };
}

/** Rows of layer_norm_walk, which takes any number of vec4s. */
const WALKED = 76;

/**
 * Five rows in blocks of two, far from zero mean, for layer_norm_subgroup and layer_norm_walk (`backward`
 * false) and layer_norm_subgroup_backward.
 */
export function layerNormCheck(constants: Readonly<Record<string, number>>, backward: boolean): KernelCheck {
  const D = constants['V'] ? 4 * constants['SG']! * constants['V'] : WALKED;
  const blocks = ceilDiv(ROWS, BLOCK);
  const ACT = Boolean(constants['ACT']);
  const x = checkNumbers(ROWS * D, 1).map((v) => v + 3);
  const dy = checkNumbers(ROWS * D, 2);
  const weight = constants['WEIGHT'] ? checkNumbers(D, 3) : null;
  const bias = constants['BIAS'] ? checkNumbers(D, 4) : null;
  const y = new Float64Array(ROWS * D);
  const dx = new Float64Array(ROWS * D);
  const stats = new Float64Array(4 * ROWS);
  const partWeight = new Float64Array(blocks * D);
  const partBias = new Float64Array(blocks * D);
  for (let r = 0; r < ROWS; r++) {
    const at = r * D;
    const part = Math.floor(r / BLOCK) * D;
    const { xh, stats: row } = normalised(x.subarray(at, at + D));
    const g = new Float64Array(D);
    stats.set(row, 4 * r);
    for (let i = 0; i < D; i++) {
      const u = xh[i]! * (weight?.[i] ?? 1) + (bias?.[i] ?? 0);
      const upstream = dy[at + i]! * (ACT ? geluSlope(u) : 1);
      y[at + i] = ACT ? activationReference('gelu', u) : u;
      partBias[part + i]! += upstream;
      partWeight[part + i]! += upstream * xh[i]!;
      g[i] = upstream * (weight?.[i] ?? 1);
    }
    const mean = g.reduce((a, b) => a + b, 0) / D;
    const slope = g.reduce((a, b, i) => a + b * xh[i]!, 0) / D;
    for (let i = 0; i < D; i++) dx[at + i] = (g[i]! - mean - xh[i]! * slope) * row[2]!;
  }
  const affine = { ...(weight && { weight }), ...(bias && (!backward || ACT) && { bias }) };
  return {
    inputs: backward ? { dy, x, stats: Float32Array.from(stats), ...affine } : { x, ...affine },
    outputs: backward
      ? { dx, ...(weight && { part_weight: partWeight }), ...(bias && { part_bias: partBias }) }
      : { y, stats },
    params: {
      rows: ROWS,
      block: BLOCK,
      width: D / 4,
      ...(backward ? { held: constants['V']! } : { eps: EPS }),
    },
    grid: spread(blocks),
    tolerance: 1e-4,
  };
}
