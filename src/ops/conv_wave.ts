import forwardSource from '../../kernels/conv_wave.wgsl';
import weightSource from '../../kernels/conv_wave_weight.wgsl';
import type { AdapterProfile } from '../gpu/device.ts';
import type { Value } from '../graph/graph.ts';
import { imageable, kernel, type Dispatch } from '../graph/op.ts';
import { ceilDiv } from './launch.ts';
import { columnSums, type ReduceContext } from './reduce.ts';

/** The first layer of speech models on CPU adapters, directly: x [B, L, 1] * w [Cout, K, 1] -> y [B, T, Cout], without dilation. */
export interface Wave {
  readonly B: number; readonly L: number; readonly T: number; readonly Cout: number;
  readonly K: number; readonly stride: number; readonly padding: number;
}

const FORWARD = kernel('conv_wave', forwardSource);
const WEIGHT = kernel('conv_wave_weight', weightSource);

/** Kernel and stride are constants of the text, and K vec4s are held in registers: beyond these a matrix product it is. */
const MOST_TAPS = 16, MOST_STRIDE = 16;

/** Steps that are unrolled: whole vec4s of samples whatever the stride. With 8, compiling takes lavapipe twice as long (0.7 s) and nothing runs faster. */
export const WAVE_BLOCK = 4;

/** Fewest blocks in a run (loading the weights costs about as much as one block), and workgroups that keep the adapter busy. */
const FEWEST_BLOCKS = 8, BUSY = 64;

const suits = (adapter: AdapterProfile, g: Wave, variant: string): boolean =>
  adapter.family === 'cpu' && !adapter.rejected?.has(variant) && g.Cout % 4 === 0 && g.K <= MOST_TAPS && g.stride <= MOST_STRIDE && g.B <= 65535;

type Launch = Pick<Dispatch, 'grid'> & { readonly constants: Record<string, number>; readonly params: Record<string, number> };

/** Constants, uniforms and grid of both kernels, for runs of `run` blocks (see kernels/lib/wave.wgsl). */
export function waveLaunch(g: Wave, SG: number, run: number): Launch {
  // Rows that start on a vec4, be it because there is one.
  const VEC = Number(g.L % 4 === 0 || g.B === 1), UNIT = VEC ? 4 : 1, PHASE = VEC ? (4 - (g.padding % 4)) % 4 : 0, V = wide(SG);
  const R = ceilDiv(PHASE + (WAVE_BLOCK - 1) * g.stride + g.K, UNIT * SG);
  return {
    constants: { SG, K: g.K, S: g.stride, NB: WAVE_BLOCK, V, VEC, UNIT, PHASE, R },
    params: { L: g.L, row: g.B > 1 ? g.L / UNIT : 0, first: (-g.padding - PHASE) / UNIT, T: g.T, co: g.Cout, run: run * WAVE_BLOCK, taps: g.K },
    grid: [ceilDiv(g.Cout, 4 * SG * V), ceilDiv(ceilDiv(g.T, WAVE_BLOCK), run), g.B],
  };
}

/** Vec4s of outputs a lane owns: tiles of 32 outputs. */
const wide = (SG: number): number => Math.max(1, Math.floor(8 / SG));

function launch(g: Wave, adapter: AdapterProfile): Launch {
  const SG = adapter.subgroupSize, blocks = ceilDiv(g.T, WAVE_BLOCK), tiles = g.B * ceilDiv(g.Cout, 4 * SG * wide(SG));
  return waveLaunch(g, SG, ceilDiv(blocks, Math.max(1, Math.min(ceilDiv(BUSY, tiles), Math.floor(blocks / FEWEST_BLOCKS)))));
}

const asImage = (adapter: AdapterProfile, x: Value): number => Number(Boolean(adapter.images && imageable(x.shape)));

/** y = conv(x, w) + bias, or null where this kernel does not apply. */
export function convWave(adapter: AdapterProfile, g: Wave, x: Value, w: Value, y: Value, bias: Value | null): Dispatch | null {
  if (!suits(adapter, g, FORWARD.name)) return null;
  const { constants, params, grid } = launch(g, adapter);
  return {
    kernel: FORWARD, variant: FORWARD.name, grid, params, bind: { x, w, y, ...(bias && { bias }) },
    constants: { ...constants, X_IMAGE: constants['VEC']! && asImage(adapter, x), W_IMAGE: asImage(adapter, w), BIAS: Number(Boolean(bias)) },
  };
}

/** dw of y = conv(x, w), or null where this kernel does not apply. */
export function convWaveWeight(c: ReduceContext, g: Wave, dy: Value, x: Value, dw: Value): Dispatch[] | null {
  if (!suits(c.adapter, g, WEIGHT.name)) return null;
  const { constants, params, grid } = launch(g, c.adapter), chunks = grid[1] * grid[2], weights = g.Cout * g.K, part = c.temp([chunks, weights]);
  return [
    {
      kernel: WEIGHT, variant: WEIGHT.name, grid, params, bind: { x, dy, part },
      constants: { ...constants, X_IMAGE: constants['VEC']! && asImage(c.adapter, x), Y_IMAGE: asImage(c.adapter, dy) },
    },
    ...columnSums(c, part, chunks, weights, dw),
  ];
}
