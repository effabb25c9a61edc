import { checkNumbers } from '../lib/check.ts';
import type { KernelCheck } from '../../launch/dispatch.ts';
import { waveLaunch, WAVE_BLOCK } from './conv-wave-launch.ts';

/**
 * Two waveforms in runs of one block, the last one ragged, padded at both ends; outputs that end inside a
 * second tile. `weight`: conv_wave_weight.
 */
export function convWaveCheck(constants: Readonly<Record<string, number>>, weight: boolean): KernelCheck {
  const { K, S, PHASE, VEC, SG, V } = constants as Record<'K' | 'S' | 'PHASE' | 'VEC' | 'SG' | 'V', number>;
  const B = 2;
  const T = 2 * WAVE_BLOCK + 1;
  const Cout = 4 * SG * V + 4;
  const padding = (4 - PHASE) % 4;
  // A multiple of 4 or not, and shorter than the windows reach, so that there is padding behind it too.
  const L = 4 * Math.max(1, Math.floor(((T - 1) * S + K - padding - 1) / 4)) + (VEC ? 0 : -1);
  const { params, grid } = waveLaunch({ B, L, T, Cout, K, stride: S, padding }, SG, 1);
  const runs = grid[1];
  const x = checkNumbers(B * L, 1);
  const w = checkNumbers(Cout * K, 2);
  const dy = checkNumbers(B * T * Cout, 3);
  const bias = constants['BIAS'] ? checkNumbers(Cout, 4) : null;
  const y = new Float64Array(B * T * Cout);
  const part = new Float64Array(B * runs * Cout * K);
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++)
      for (let o = 0; o < Cout; o++) {
        const to = (b * T + t) * Cout + o;
        const chunk = (b * runs + Math.floor(t / WAVE_BLOCK)) * Cout;
        y[to] = bias?.[o] ?? 0;
        for (let j = 0; j < K; j++) {
          const at = t * S + j - padding;
          const v = at < 0 || at >= L ? 0 : x[b * L + at]!;
          y[to]! += v * w[o * K + j]!;
          part[(chunk + o) * K + j]! += v * dy[to]!;
        }
      }
  return {
    inputs: weight ? { x, dy } : { x, w, ...(bias && { bias }) },
    outputs: weight ? { part } : { y },
    params,
    grid,
    tolerance: 1e-4,
  };
}
