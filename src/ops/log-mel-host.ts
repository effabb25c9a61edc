/**
 * Spectra and log-mel frames on the host, for a few minutes of sound: those of kernels/log_mel.wgsl at its
 * defaults.
 */
import { MGFError } from '../errors.ts';
import { melFilterbank } from './log-mel.ts';

/** Samples of a frame, and between two frames. */
export const WINDOW = 400;
export const HOP = 160;
/** Frequencies of a spectrum. */
export const BINS = WINDOW / 2 + 1;
const FLOOR = 1e-10;
/** Periodic Hann window. */
export const HANN = Float64Array.from({ length: WINDOW }, (_, n) => Math.sin((Math.PI * n) / WINDOW) ** 2);

export interface Complex {
  re: Float64Array;
  im: Float64Array;
}

/** n complex numbers, all 0. */
export const complex = (n: number): Complex => ({ re: new Float64Array(n), im: new Float64Array(n) });

const COS = Float64Array.from({ length: WINDOW }, (_, i) => Math.cos((2 * Math.PI * i) / WINDOW));
const SIN = Float64Array.from({ length: WINDOW }, (_, i) => Math.sin((2 * Math.PI * i) / WINDOW));

/** Forward DFT of WINDOW points by mixed radix: 400 = 2^4 5^2. */
export function dft(
  x: Complex,
  start: number,
  stride: number,
  n: number,
  out: Complex,
  at: number,
  scratch: Complex,
): void {
  if (n === 1) {
    out.re[at] = x.re[start]!;
    out.im[at] = x.im[start]!;
    return;
  }
  const radix = n % 2 === 0 ? 2 : 5;
  const m = n / radix;
  const turn = WINDOW / n;
  for (let r = 0; r < radix; r++) dft(x, start + r * stride, stride * radix, m, scratch, at + r * m, out);
  for (let k = 0; k < n; k++) {
    let re = 0;
    let im = 0;
    for (let r = 0; r < radix; r++) {
      const i = at + r * m + (k % m);
      const w = (((r * k) % n) * turn) % WINDOW;
      const c = COS[w]!;
      const s = SIN[w]!;
      re += c * scratch.re[i]! + s * scratch.im[i]!;
      im += c * scratch.im[i]! - s * scratch.re[i]!;
    }
    out.re[at + k] = re;
    out.im[at + k] = im;
  }
}

/** Windowed spectra [frames, BINS] of a signal, whole frames only. */
export function spectra(wave: Float64Array, frames: number): Complex {
  const out = complex(frames * BINS);
  const x = complex(WINDOW);
  const X = complex(WINDOW);
  const scratch = complex(WINDOW);
  for (let t = 0; t < frames; t++) {
    for (let n = 0; n < WINDOW; n++) x.re[n] = HANN[n]! * wave[t * HOP + n]!;
    dft(x, 0, 1, WINDOW, X, 0, scratch);
    out.re.set(X.re.subarray(0, BINS), t * BINS);
    out.im.set(X.im.subarray(0, BINS), t * BINS);
  }
  return out;
}

/**
 * Log-mel frames [frames, mels] of a waveform, as the network's. Throws MGFError 'shape' under 400 samples.
 */
export function hostLogMel(wave: Float32Array, mels: number): { frames: number; values: Float32Array } {
  const frames = Math.floor((wave.length - WINDOW) / HOP) + 1;
  if (frames < 1) throw new MGFError('shape', `A log-mel frame needs ${WINDOW} samples, got ${wave.length}.`);
  const X = spectra(Float64Array.from(wave), frames);
  const values = new Float32Array(frames * mels);
  const bank = melFilterbank({ nMels: mels }).map((filter) => {
    // A narrow triangle may fall between two frequencies and hold none.
    const first = Math.max(
      0,
      filter.findIndex((w) => w > 0),
    );
    const last = filter.findLastIndex((w) => w > 0);
    return { first, weights: filter.subarray(first, last + 1) };
  });
  for (let t = 0; t < frames; t++) {
    bank.forEach(({ first, weights }, m) => {
      let power = 0;
      for (let k = 0; k < weights.length; k++) {
        const i = t * BINS + first + k;
        power += weights[k]! * (X.re[i]! ** 2 + X.im[i]! ** 2);
      }
      values[t * mels + m] = Math.log(Math.max(power, FLOOR));
    });
  }
  return { frames, values };
}
