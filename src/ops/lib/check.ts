import { activationReference } from './activation-reference.ts';

export type { KernelCheck } from '../../launch/dispatch.ts';

/**
 * What a written element must hold after a check, besides a number: nothing was written; anything goes
 * (padding); any finite number.
 */
export const UNTOUCHED = NaN;
export const ANYTHING = Infinity;
export const WRITTEN = -Infinity;

/** Deterministic numbers in [-1, 1). */
export function checkNumbers(n: number, seed: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(n);
  for (let i = 0, state = Math.imul(seed, 0x9e3779b1); i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    out[i] = state / 2 ** 31;
  }
  return out;
}

/** Phi(x) + x phi(x), the derivative of GELU, in float64. */
export const geluSlope = (x: number): number =>
  x === 0 ? 0.5 : activationReference('gelu', x) / x + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
