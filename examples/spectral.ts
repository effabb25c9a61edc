/**
 * Multi-resolution spectral reconstruction (Yamamoto et al. 2020, arXiv 1910.11480): the decoded waveform is
 * compared with the real one by the logarithm of its magnitudes in three short-time Fourier transforms, where
 * phase does not count. A Fourier transform is a convolution with cosines and sines, so a built-in op does
 * it. Needs the sample scale's decoder, and so the raw waveform; a small weight keeps that scale's own loss.
 *
 *   mgf pretrain recordings/ --preset micro --set loss_weights.sample=0.1 --loss examples/spectral.ts
 *   --weight 0.5
 */
import {
  add,
  conv1d,
  defineElementwise,
  l1Loss,
  narrow,
  reshape,
  scale,
  type TrainingLoss,
  type Value,
} from 'mgf-webgpu';

/** log |re + i im|, with a floor under the power. */
export const logMagnitude = defineElementwise({
  name: 'log_magnitude',
  inputs: ['re', 'im'],
  attributes: { floor: 1e-3 },
  forward: '0.5 * log(re * re + im * im + floor)',
  backward: { re: 're / (re * re + im * im + floor)', im: 'im / (re * re + im * im + floor)' },
  reference: ({ re, im }, { floor }) => 0.5 * Math.log(re * re + im * im + floor),
});

/** Samples of a window; the hop is a quarter of it. */
const WINDOWS = [128, 256, 512];

/**
 * Hann window times cosine or sine of each frequency, [K / 2 + 1, K, 1], scaled so that white noise of unit
 * variance has unit power.
 */
function wavelets(K: number, wave: (phase: number) => number): Float32Array<ArrayBuffer> {
  const F = K / 2 + 1;
  return Float32Array.from({ length: F * K }, (_, i) => {
    const f = Math.floor(i / K);
    const k = i % K;
    const hann = 0.5 - 0.5 * Math.cos((2 * Math.PI * k) / K);
    return (hann * wave((2 * Math.PI * f * k) / K)) / Math.sqrt((3 / 8) * K);
  });
}

/** x [R, S] -> [R, frames, K / 2 + 1] */
function spectrum(x: Value, K: number): Value {
  const [R, S] = x.shape as [number, number];
  const samples = reshape(x, [R, S, 1]);
  const part = (name: string, wave: (phase: number) => number): Value =>
    conv1d(samples, x.graph.constant(`${name} ${K}`, [K / 2 + 1, K, 1], wavelets(K, wave)), null, {
      stride: K / 4,
    });
  return logMagnitude({ re: part('cosines', Math.cos), im: part('sines', Math.sin) });
}

export default {
  name: 'spectral',
  build({ decoded, wave }) {
    if (!decoded)
      throw new Error(
        'examples/spectral.ts compares decoded waveforms: it needs the conv front end and a weight of ' +
          'the sample scale above 0',
      );
    const real = narrow(wave, 40, decoded.shape[1]!);
    return scale(
      WINDOWS.map((K) => l1Loss(spectrum(decoded, K), spectrum(real, K))).reduce(add),
      1 / WINDOWS.length,
    );
  },
} satisfies TrainingLoss;
