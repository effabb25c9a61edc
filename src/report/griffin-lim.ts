/**
 * Sound from log-mel frames: magnitudes by spreading each mel bin over the frequencies that it was summed from, phases by the fast Griffin-Lim algorithm
 * (Griffin and Lim 1984; Perraudin, Balazs and Søndergaard 2013). The phases are invented: such a sound tells which energies are there, not how a waveform looked.
 * The frames are those of kernels/log_mel.wgsl: 400-sample periodic Hann window, hop 160, natural logarithm of mel power. On the CPU, for a few seconds of sound.
 */
import { MGFError } from '../errors.ts';
import { melFilterbank } from '../ops/log_mel.ts';

const WINDOW = 400, HOP = 160, BINS = WINDOW / 2 + 1, FLOOR = 1e-10, MOMENTUM = 0.99;
const HANN = Float64Array.from({ length: WINDOW }, (_, n) => Math.sin((Math.PI * n) / WINDOW) ** 2);

interface Complex { re: Float64Array; im: Float64Array }

/** Forward DFT of WINDOW points by mixed radix: 400 = 2^4 5^2. */
const COS = Float64Array.from({ length: WINDOW }, (_, i) => Math.cos((2 * Math.PI * i) / WINDOW)), SIN = Float64Array.from({ length: WINDOW }, (_, i) => Math.sin((2 * Math.PI * i) / WINDOW));

function dft(x: Complex, start: number, stride: number, n: number, out: Complex, at: number, scratch: Complex): void {
  if (n === 1) {
    out.re[at] = x.re[start]!;
    out.im[at] = x.im[start]!;
    return;
  }
  const radix = n % 2 === 0 ? 2 : 5, m = n / radix, turn = WINDOW / n;
  for (let r = 0; r < radix; r++) dft(x, start + r * stride, stride * radix, m, scratch, at + r * m, out);
  for (let k = 0; k < n; k++) {
    let re = 0, im = 0;
    for (let r = 0; r < radix; r++) {
      const i = at + r * m + (k % m), w = (((r * k) % n) * turn) % WINDOW, c = COS[w]!, s = SIN[w]!;
      re += c * scratch.re[i]! + s * scratch.im[i]!;
      im += c * scratch.im[i]! - s * scratch.re[i]!;
    }
    out.re[at + k] = re;
    out.im[at + k] = im;
  }
}

const complex = (n: number): Complex => ({ re: new Float64Array(n), im: new Float64Array(n) });

/** Windowed spectra [frames, BINS] of a signal, whole frames only. */
function spectra(wave: Float64Array, frames: number): Complex {
  const out = complex(frames * BINS), x = complex(WINDOW), X = complex(WINDOW), scratch = complex(WINDOW);
  for (let t = 0; t < frames; t++) {
    for (let n = 0; n < WINDOW; n++) x.re[n] = HANN[n]! * wave[t * HOP + n]!;
    dft(x, 0, 1, WINDOW, X, 0, scratch);
    out.re.set(X.re.subarray(0, BINS), t * BINS);
    out.im.set(X.im.subarray(0, BINS), t * BINS);
  }
  return out;
}

/** The signal whose spectra are nearest: windowed overlap-add, divided by the sum of squared windows. */
function overlapAdd(spectrum: Complex, frames: number): Float64Array {
  const length = (frames - 1) * HOP + WINDOW, wave = new Float64Array(length), weight = new Float64Array(length);
  const x = complex(WINDOW), X = complex(WINDOW), scratch = complex(WINDOW);
  for (let t = 0; t < frames; t++) {
    // The inverse of a spectrum is the conjugate of the forward transform of its conjugate; the signal is real.
    for (let k = 0; k < WINDOW; k++) {
      const mirrored = k < BINS ? k : WINDOW - k;
      x.re[k] = spectrum.re[t * BINS + mirrored]!;
      x.im[k] = (k < BINS ? -1 : 1) * spectrum.im[t * BINS + mirrored]!;
    }
    dft(x, 0, 1, WINDOW, X, 0, scratch);
    for (let n = 0; n < WINDOW; n++) {
      wave[t * HOP + n]! += (HANN[n]! * X.re[n]!) / WINDOW;
      weight[t * HOP + n]! += HANN[n]! ** 2;
    }
  }
  return wave.map((v, i) => v / Math.max(weight[i]!, 1e-3));
}

/** Log-mel frames [frames, mels] of a waveform, as the network's. Throws MGFError 'shape' under 400 samples. */
export function hostLogMel(wave: Float32Array, mels: number): { frames: number; values: Float32Array } {
  const frames = Math.floor((wave.length - WINDOW) / HOP) + 1;
  if (!(frames >= 1)) throw new MGFError('shape', `A log-mel frame needs ${WINDOW} samples, got ${wave.length}.`);
  const bank = melFilterbank({ nMels: mels }), X = spectra(Float64Array.from(wave), frames), values = new Float32Array(frames * mels);
  for (let t = 0; t < frames; t++) {
    bank.forEach((filter, m) => {
      let power = 0;
      for (let k = 0; k < BINS; k++) if (filter[k]! > 0) power += filter[k]! * (X.re[t * BINS + k]! ** 2 + X.im[t * BINS + k]! ** 2);
      values[t * mels + m] = Math.log(Math.max(power, FLOOR));
    });
  }
  return { frames, values };
}

/** Log-mel frames from frames that were normalised over time, with the mean and spread that each bin has in `wave`, the recording that they are about. */
export function denormalise(normalised: Float32Array, wave: Float32Array, mels: number): Float32Array {
  const { frames, values } = hostLogMel(wave, mels), out = new Float32Array(normalised.length);
  for (let m = 0; m < mels; m++) {
    let mean = 0, square = 0;
    for (let t = 0; t < frames; t++) mean += values[t * mels + m]! / frames;
    for (let t = 0; t < frames; t++) square += (values[t * mels + m]! - mean) ** 2 / frames;
    for (let i = m; i < out.length; i += mels) out[i] = mean + Math.sqrt(square) * normalised[i]!;
  }
  return out;
}

/**
 * A waveform at 16 kHz of (frames - 1) * 160 + 400 samples whose log-mel frames are near `logMel`, row-major [frames, mels]. `rounds`: steps of the search for phases.
 * Throws MGFError 'shape'.
 */
export function resynthesise(logMel: Float32Array, frames: number, mels: number, rounds = 32): Float32Array {
  if (logMel.length !== frames * mels || frames < 1) throw new MGFError('shape', `resynthesise: ${frames} frames of ${mels} bins need ${frames * mels} values, got ${logMel.length}.`);
  const magnitude = magnitudes(logMel, frames, mels), size = frames * BINS;
  const estimate = complex(size), ahead = complex(size);
  // Phases of a steady tone at each bin's frequency, from frame to frame.
  for (let i = 0; i < size; i++) {
    const phase = (2 * Math.PI * (i % BINS) * Math.floor(i / BINS) * HOP) / WINDOW + 2.399963 * (i % BINS);
    estimate.re[i] = ahead.re[i] = magnitude[i]! * Math.cos(phase);
    estimate.im[i] = ahead.im[i] = magnitude[i]! * Math.sin(phase);
  }
  for (let round = 0; round < rounds; round++) {
    const projected = spectra(overlapAdd(ahead, frames), frames);
    for (let i = 0; i < size; i++) {
      const length = Math.hypot(projected.re[i]!, projected.im[i]!), scale = length > 0 ? magnitude[i]! / length : 0;
      const re = scale * projected.re[i]!, im = scale * projected.im[i]!;
      ahead.re[i] = re + MOMENTUM * (re - estimate.re[i]!);
      ahead.im[i] = im + MOMENTUM * (im - estimate.im[i]!);
      estimate.re[i] = re;
      estimate.im[i] = im;
    }
  }
  return Float32Array.from(overlapAdd(estimate, frames));
}

/** Magnitudes [frames, BINS] from mel powers by multiplicative updates, which keep every power positive. */
function magnitudes(logMel: Float32Array, frames: number, mels: number): Float64Array {
  const bank = melFilterbank({ nMels: mels }), out = new Float64Array(frames * BINS), covered = new Float64Array(BINS);
  // Only bins that a filter sees; a filter between two bins has none.
  const members = bank.map((filter) => [...filter.keys()].filter((k) => filter[k]! > 0));
  bank.forEach((filter, m) => { for (const k of members[m]!) covered[k]! += filter[k]!; });
  for (let t = 0; t < frames; t++) {
    const power = covered.map((c) => (c > 0 ? 1 : 0));
    for (let round = 0; round < 12; round++) {
      const ratio = new Float64Array(BINS);
      bank.forEach((filter, m) => {
        const have = members[m]!.reduce((sum, k) => sum + filter[k]! * power[k]!, 0);
        if (have > 0) for (const k of members[m]!) ratio[k]! += filter[k]! * (Math.exp(logMel[t * mels + m]!) / have);
      });
      for (let k = 0; k < BINS; k++) if (covered[k]! > 0) power[k]! *= ratio[k]! / covered[k]!;
    }
    for (let k = 0; k < BINS; k++) out[t * BINS + k] = Math.sqrt(power[k]!);
  }
  return out;
}
