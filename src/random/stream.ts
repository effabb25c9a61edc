/**
 * Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy
 * as 1, 2, 3", SC 2011; Random123). A number is a pure function of (seed, counters), so any step of a run can
 * be replayed without replaying the ones before it, and a kernel can draw the same numbers
 * (kernels/lib/philox.wgsl). The block function in src/random/philox.ts is u32 arithmetic alone:
 *
 *   key = (seed mod 2^32, floor(seed / 2^32)), counter = (c0, c1, c2, c3); ten times:
 *     hi0:lo0 = 0xD2511F53 * c0, hi1:lo1 = 0xCD9E8D57 * c2 (64-bit products; hi by 16-bit halves where there
 *     is no u64)
 *     counter = (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0)
 *     key = (k0 + 0x9E3779B9, k1 + 0xBB67AE85) (after every round; the last one is not used)
 *
 * A stream holds (c1, c2, c3) = (step, row, purpose) and counts c0 = 0, 1, 2 ... in blocks of four words,
 * used in the order 0, 1, 2, 3. Derived values: uniform = (word >> 8) * 2^-24, exact in f32; below(n) = the
 * high word of word * n.
 */

import { checkArguments, checkFields } from '../check.ts';
import { mulHigh, philox4x32 } from './philox.ts';
import type { Purpose } from './purposes.ts';

/** A sequence of random numbers that depends on nothing but the seed and counters it was opened with. */
export interface RandomStream {
  /** The next word, uniform over [0, 2^32). */
  u32(): number;
  /** Uniform over [0, 1), a multiple of 2^-24. */
  uniform(): number;
  /** Uniform integer in [0, n), 1 <= n < 2^32; each value's probability is within 2^-32 of 1/n. */
  below(n: number): number;
}

/**
 * Opens the stream (seed, c1, c2, c3). The seed is an integer in [0, 2^53); counters are taken modulo 2^32.
 * Two streams that differ in any of the four share no block.
 */
export function randomStream(seed: number, c1 = 0, c2 = 0, c3 = 0): RandomStream {
  checkArguments('randomStream', {
    seed: [seed, 'a number'],
    c1: [c1, 'a number'],
    c2: [c2, 'a number'],
    c3: [c3, 'a number'],
  });
  const k0 = seed >>> 0;
  const k1 = Math.floor(seed / 0x100000000) >>> 0;
  const words = new Uint32Array(4);
  let block = 0;
  let used = 4;
  const u32 = () => {
    if (used === 4) {
      philox4x32(block++, c1 >>> 0, c2 >>> 0, c3 >>> 0, k0, k1, words);
      used = 0;
    }
    return words[used++]!;
  };
  return { u32, uniform: () => (u32() >>> 8) * 2 ** -24, below: (n) => mulHigh(u32(), n) };
}

/**
 * The stream that everything in the engine draws from: one a seed, purpose, step and row. `step` and `row`
 * default to 0.
 */
export const stream = (
  seed: number,
  purpose: Purpose,
  { step = 0, row = 0 }: { readonly step?: number; readonly row?: number } = {},
): RandomStream => randomStream(seed, step, row, purpose);

/** The first `count` entries of a random permutation of 0..n-1 (Fisher-Yates, one draw an entry). */
export function permutation(n: number, random: RandomStream, count = n): Uint32Array {
  checkArguments('permutation', { n: [n, 'a number'], count: [count, 'a number'] });
  checkFields('permutation', 'random.', random, { below: 'a function' });
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = 0; i < Math.min(count, n - 1); i++) {
    const j = i + random.below(n - i);
    const swap = order[i]!;
    order[i] = order[j]!;
    order[j] = swap;
  }
  return order.subarray(0, count);
}
