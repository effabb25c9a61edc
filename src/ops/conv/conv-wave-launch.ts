import type { Dispatch } from '../../launch/dispatch.ts';
import { ceilDiv } from '../../launch/grid.ts';

/**
 * The first layer of speech models on CPU adapters, directly: x [B, L, 1] * w [Cout, K, 1] -> y [B, T, Cout],
 * without dilation.
 */
export interface Wave {
  readonly B: number;
  readonly L: number;
  readonly T: number;
  readonly Cout: number;
  readonly K: number;
  readonly stride: number;
  readonly padding: number;
}

/**
 * Steps that are unrolled: whole vec4s of samples whatever the stride. With 8, compiling takes lavapipe twice
 * as long (0.7 s) and nothing runs faster.
 */
export const WAVE_BLOCK = 4;

export type Launch = Pick<Dispatch, 'grid'> & {
  readonly constants: Record<string, number>;
  readonly params: Record<string, number>;
};

/** Constants, uniforms and grid of both kernels, for runs of `run` blocks (see kernels/lib/wave.wgsl). */
export function waveLaunch(g: Wave, SG: number, run: number): Launch {
  // Rows that start on a vec4, be it because there is one.
  const VEC = Number(g.L % 4 === 0 || g.B === 1);
  const UNIT = VEC ? 4 : 1;
  const PHASE = VEC ? (4 - (g.padding % 4)) % 4 : 0;
  const V = wide(SG);
  const R = ceilDiv(PHASE + (WAVE_BLOCK - 1) * g.stride + g.K, UNIT * SG);
  return {
    constants: { SG, K: g.K, S: g.stride, NB: WAVE_BLOCK, V, VEC, UNIT, PHASE, R },
    params: {
      L: g.L,
      row: g.B > 1 ? g.L / UNIT : 0,
      first: (-g.padding - PHASE) / UNIT,
      T: g.T,
      co: g.Cout,
      run: run * WAVE_BLOCK,
      taps: g.K,
    },
    grid: [ceilDiv(g.Cout, 4 * SG * V), ceilDiv(ceilDiv(g.T, WAVE_BLOCK), run), g.B],
  };
}

/** Vec4s of outputs a lane owns: tiles of 32 outputs. */
export const wide = (SG: number): number => Math.max(1, Math.floor(8 / SG));
