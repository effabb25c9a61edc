/**
 * Sound from log-mel frames: magnitudes by spreading each mel bin over the frequencies that it was summed
 * from, phases by the fast Griffin-Lim algorithm (Griffin and Lim 1984; Perraudin, Balazs and Søndergaard
 * 2013). The phases are invented: such a sound tells which energies are there, not how a waveform looked. The
 * frames are those of kernels/log_mel.wgsl: 400-sample periodic Hann window, hop 160, natural logarithm of
 * mel power. On the CPU, for a few seconds of sound.
 */
import { MGFError } from '../errors.ts';
import { melFilterbank } from '../ops/log-mel.ts';
import { BINS, complex, dft, HANN, HOP, hostLogMel, spectra, WINDOW } from '../ops/log-mel-host.ts';
import type { Complex } from '../ops/log-mel-host.ts';

const MOMENTUM = 0.99;

/** The signal whose spectra are nearest: windowed overlap-add, divided by the sum of squared windows. */
function overlapAdd(spectrum: Complex, frames: number): Float64Array {
  const length = (frames - 1) * HOP + WINDOW;
  const wave = new Float64Array(length);
  const weight = new Float64Array(length);
  const x = complex(WINDOW);
  const X = complex(WINDOW);
  const scratch = complex(WINDOW);
  for (let t = 0; t < frames; t++) {
    // The inverse of a spectrum is the conjugate of the forward transform of its conjugate; the signal is
    // real.
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

/**
 * Log-mel frames from frames that were normalised over time, with the mean and spread that each bin has in
 * `wave`, the recording that they are about.
 */
export function denormalise(normalised: Float32Array, wave: Float32Array, mels: number): Float32Array {
  const { frames, values } = hostLogMel(wave, mels);
  const out = new Float32Array(normalised.length);
  for (let m = 0; m < mels; m++) {
    let mean = 0;
    let square = 0;
    for (let t = 0; t < frames; t++) mean += values[t * mels + m]! / frames;
    for (let t = 0; t < frames; t++) square += (values[t * mels + m]! - mean) ** 2 / frames;
    for (let i = m; i < out.length; i += mels) out[i] = mean + Math.sqrt(square) * normalised[i]!;
  }
  return out;
}

/**
 * A waveform at 16 kHz of (frames - 1) * 160 + 400 samples whose log-mel frames are near `logMel`, row-major
 * [frames, mels]. `rounds`: steps of the search for phases. Throws MGFError 'shape'.
 */
export function resynthesise(logMel: Float32Array, frames: number, mels: number, rounds = 32): Float32Array {
  if (logMel.length !== frames * mels || frames < 1)
    throw new MGFError(
      'shape',
      `resynthesise: ${frames} frames of ${mels} bins need ${frames * mels} values, got ${logMel.length}.`,
    );
  const magnitude = magnitudes(logMel, frames, mels);
  const size = frames * BINS;
  const estimate = complex(size);
  const ahead = complex(size);
  // Phases of a steady tone at each bin's frequency, from frame to frame.
  for (let i = 0; i < size; i++) {
    const phase = (2 * Math.PI * (i % BINS) * Math.floor(i / BINS) * HOP) / WINDOW + 2.399963 * (i % BINS);
    estimate.re[i] = ahead.re[i] = magnitude[i]! * Math.cos(phase);
    estimate.im[i] = ahead.im[i] = magnitude[i]! * Math.sin(phase);
  }
  for (let round = 0; round < rounds; round++) {
    const projected = spectra(overlapAdd(ahead, frames), frames);
    for (let i = 0; i < size; i++) {
      const length = Math.hypot(projected.re[i]!, projected.im[i]!);
      const scale = length > 0 ? magnitude[i]! / length : 0;
      const re = scale * projected.re[i]!;
      const im = scale * projected.im[i]!;
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
  const bank = melFilterbank({ nMels: mels });
  const out = new Float64Array(frames * BINS);
  const covered = new Float64Array(BINS);
  // Only bins that a filter sees; a filter between two bins has none.
  const members = bank.map((filter) => [...filter.keys()].filter((k) => filter[k]! > 0));
  bank.forEach((filter, m) => {
    for (const k of members[m]!) covered[k]! += filter[k]!;
  });
  for (let t = 0; t < frames; t++) {
    const power = covered.map((c) => (c > 0 ? 1 : 0));
    for (let round = 0; round < 12; round++) {
      const ratio = new Float64Array(BINS);
      bank.forEach((filter, m) => {
        const have = members[m]!.reduce((sum, k) => sum + filter[k]! * power[k]!, 0);
        if (have > 0)
          for (const k of members[m]!) ratio[k]! += filter[k]! * (Math.exp(logMel[t * mels + m]!) / have);
      });
      for (let k = 0; k < BINS; k++) if (covered[k]! > 0) power[k]! *= ratio[k]! / covered[k]!;
    }
    for (let k = 0; k < BINS; k++) out[t * BINS + k] = Math.sqrt(power[k]!);
  }
  return out;
}
