import forwardSource from '../../../kernels/conv_wave.wgsl';
import weightSource from '../../../kernels/conv_wave_weight.wgsl';
import type { AdapterProfile } from '../../gpu/device.ts';
import type { Value } from '../../graph/graph.ts';
import { imageable } from '../../launch/image.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import { ceilDiv } from '../../launch/grid.ts';
import { columnSums, type ReduceContext } from '../lib/reduce.ts';
import { convWaveCheck } from './conv-wave-check.ts';
import { WAVE_BLOCK, waveLaunch, wide, type Launch, type Wave } from './conv-wave-launch.ts';

const FORWARD = kernel('conv_wave', forwardSource, (c) => convWaveCheck(c, false));
const WEIGHT = kernel('conv_wave_weight', weightSource, (c) => convWaveCheck(c, true));

/**
 * Kernel and stride are constants of the text, and K vec4s are held in registers: beyond these a matrix
 * product it is.
 */
const MOST_TAPS = 16;
const MOST_STRIDE = 16;

/**
 * Fewest blocks in a run (loading the weights costs about as much as one block), and workgroups that keep the
 * adapter busy.
 */
const FEWEST_BLOCKS = 8;
const BUSY = 64;

const suits = (adapter: AdapterProfile, g: Wave, variant: string): boolean =>
  adapter.family === 'cpu' &&
  !adapter.rejected?.has(variant) &&
  g.Cout % 4 === 0 &&
  g.K <= MOST_TAPS &&
  g.stride <= MOST_STRIDE &&
  g.B <= 65535;

function launch(g: Wave, adapter: AdapterProfile): Launch {
  const SG = adapter.subgroupSize;
  const blocks = ceilDiv(g.T, WAVE_BLOCK);
  const tiles = g.B * ceilDiv(g.Cout, 4 * SG * wide(SG));
  return waveLaunch(
    g,
    SG,
    ceilDiv(blocks, Math.max(1, Math.min(ceilDiv(BUSY, tiles), Math.floor(blocks / FEWEST_BLOCKS)))),
  );
}

const asImage = (adapter: AdapterProfile, x: Value): number =>
  Number(Boolean(adapter.images && imageable(x.shape)));

/** y = conv(x, w) + bias, or null where this kernel does not apply. */
export function convWave(
  adapter: AdapterProfile,
  g: Wave,
  x: Value,
  w: Value,
  y: Value,
  bias: Value | null,
): Dispatch | null {
  if (!suits(adapter, g, FORWARD.name)) return null;
  const { constants, params, grid } = launch(g, adapter);
  return {
    kernel: FORWARD,
    variant: FORWARD.name,
    grid,
    params,
    bind: { x, w, y, ...(bias && { bias }) },
    constants: {
      ...constants,
      X_IMAGE: constants['VEC']! && asImage(adapter, x),
      W_IMAGE: asImage(adapter, w),
      BIAS: Number(Boolean(bias)),
    },
  };
}

/** dw of y = conv(x, w), or null where this kernel does not apply. */
export function convWaveWeight(c: ReduceContext, g: Wave, dy: Value, x: Value, dw: Value): Dispatch[] | null {
  if (!suits(c.adapter, g, WEIGHT.name)) return null;
  const { constants, params, grid } = launch(g, c.adapter);
  const chunks = grid[1] * grid[2];
  const weights = g.Cout * g.K;
  const part = c.temp([chunks, weights]);
  return [
    {
      kernel: WEIGHT,
      variant: WEIGHT.name,
      grid,
      params,
      bind: { x, dy, part },
      constants: {
        ...constants,
        X_IMAGE: constants['VEC']! && asImage(c.adapter, x),
        Y_IMAGE: asImage(c.adapter, dy),
      },
    },
    ...columnSums(c, part, chunks, weights, dw),
  ];
}
