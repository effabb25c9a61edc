import type { AdapterProfile } from '../gpu/device.ts';
import { activationReference } from './activation.ts';

/** What a written element must hold after a check, besides a number: nothing was written; anything goes (padding); any finite number. */
export const UNTOUCHED = NaN, ANYTHING = Infinity, WRITTEN = -Infinity;

/** One launch of a kernel variant on a small problem, and what it must compute. */
export interface KernelCheck {
  /** Contents of the bindings that are read. */
  readonly inputs: Readonly<Record<string, Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>>>;
  /** What the bindings that are written must hold: numbers, or one of the marks above. */
  readonly outputs: Readonly<Record<string, Float64Array>>;
  readonly params: Readonly<Record<string, number>>;
  readonly grid: readonly [number, number, number];
  /** Largest |got - want| / (1 + |want|) that rounding explains. */
  readonly tolerance: number;
}

/** Makes the check of a variant from its template constants. */
export type MakeCheck = (constants: Readonly<Record<string, number>>, adapter: AdapterProfile) => KernelCheck;

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
  (x === 0 ? 0.5 : activationReference('gelu', x) / x + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI));
