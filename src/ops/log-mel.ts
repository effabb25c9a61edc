import { checkArguments, checkOptions, VALUE, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, f32, formatShape, type Spec } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, type Dispatch } from '../launch/dispatch.ts';
import foldSource from '../../kernels/log_mel_fold.wgsl';
import melSource from '../../kernels/log_mel.wgsl';
import pairsSource from '../../kernels/log_mel_pairs.wgsl';
import { gemm } from './gemm/gemm.ts';
import { ceilDiv, overElements } from '../launch/grid.ts';
import { overItems } from './lib/reduce.ts';

const FOLD = kernel('log_mel_fold', foldSource);
const MEL = kernel('log_mel', melSource);
const PAIRS = kernel('log_mel_pairs', pairsSource);

/**
 * Frames whose spectrum is held at a time: bounds the scratch memory of long recordings (14 MiB twice at
 * n_fft 400).
 */
const FRAMES_AT_ONCE = 8192;

/** The frames and filters of `logMel`. */
export interface LogMelOptions {
  /** Hz; default 16000. */
  readonly sampleRate?: number;
  /** DFT length, default 400: a multiple of 4, at least 16. */
  readonly nFft?: number;
  /** Length of the periodic Hann window, centred in the DFT; default nFft. Even. */
  readonly winLength?: number;
  /** Samples between frames; default 160. */
  readonly hopLength?: number;
  /** Default 80. */
  readonly nMels?: number;
  /** Range of the filters in Hz; default 0 to half the sample rate. */
  readonly fMin?: number;
  readonly fMax?: number;
  /** Mel power below this counts as this; default 1e-10. */
  readonly floor?: number;
}

type Settings = Required<LogMelOptions>;

const MEL_OPTIONS: Rules<LogMelOptions> = {
  sampleRate: 'a number?',
  nFft: 'a number?',
  winLength: 'a number?',
  hopLength: 'a number?',
  nMels: 'a number?',
  fMin: 'a number?',
  fMax: 'a number?',
  floor: 'a number?',
};

function settings(options: LogMelOptions): Settings {
  const {
    sampleRate = 16000,
    nFft = 400,
    winLength = nFft,
    hopLength = 160,
    nMels = 80,
    fMin = 0,
    fMax = sampleRate / 2,
    floor = 1e-10,
  } = options;
  if (nFft % 4 !== 0 || nFft < 16)
    throw new MGFError(
      'config',
      `log_mel: the DFT length is ${nFft}; it must be a multiple of 4 and at least 16`,
    );
  if (winLength % 2 !== 0 || winLength < 2 || winLength > nFft)
    throw new MGFError(
      'config',
      `log_mel: the window length is ${winLength}; it must be even and at most the DFT length ${nFft}`,
    );
  if (!(fMin >= 0 && fMax > fMin))
    throw new MGFError(
      'config',
      `log_mel: the filters would run from ${fMin} to ${fMax} Hz; the upper end must be the larger`,
    );
  return { sampleRate, nFft, winLength, hopLength, nMels, fMin, fMax, floor };
}

/** Log-mel frames of a signal of `samples`: no padding, whole frames only. */
export function melFrames(samples: number, options: LogMelOptions = {}): number {
  checkArguments('melFrames', { samples: [samples, 'a number'] });
  checkOptions('melFrames', options, MEL_OPTIONS);
  const { nFft = 400, hopLength = 160 } = options;
  return Math.floor((samples - nFft) / hopLength) + 1;
}

/** Periodic Hann window of winLength, centred in nFft values. */
function hannWindow(nFft: number, winLength: number): Float64Array {
  const start = (nFft - winLength) / 2;
  return Float64Array.from({ length: nFft }, (_, n) =>
    n >= start && n < start + winLength ? Math.sin((Math.PI * (n - start)) / winLength) ** 2 : 0,
  );
}

/** HTK triangles [nMels][nFft / 2 + 1] without area normalisation. */
export function melFilterbank(options: LogMelOptions = {}): Float64Array[] {
  const { sampleRate, nFft, nMels, fMin, fMax } = settings(options);
  const toMel = (f: number): number => 2595 * Math.log10(1 + f / 700);
  const toHz = (m: number): number => 700 * (10 ** (m / 2595) - 1);
  const low = toMel(fMin);
  const step = (toMel(fMax) - low) / (nMels + 1);
  const edges = Array.from({ length: nMels + 2 }, (_, i) => toHz(low + step * i));
  return Array.from({ length: nMels }, (_, m) =>
    Float64Array.from({ length: nFft / 2 + 1 }, (_, k) => {
      const hz = (k * sampleRate) / nFft;
      const [a, b, c] = [edges[m]!, edges[m + 1]!, edges[m + 2]!];
      return Math.max(0, Math.min((hz - a) / (b - a), (c - hz) / (c - b)));
    }),
  );
}

const depthOf = (nFft: number): number => ceilDiv(nFft / 4 + 1, 4) * 4;

/** windows [2, depth] of log_mel_fold.wgsl. */
function foldWindows(nFft: number, winLength: number): Float32Array<ArrayBuffer> {
  const window = hannWindow(nFft, winLength);
  const depth = depthOf(nFft);
  const half = nFft / 2;
  const quarter = nFft / 4;
  const out = new Float32Array(2 * depth);
  for (let n = 0; n <= quarter; n++) {
    // Sample 0 has weight 0, sample H is its own mirror image (counted twice by the fold), and n = Q is its
    // own partner in the second fold.
    out[n] = window[n]!;
    out[depth + n] = n === 0 ? window[half]! / 2 : n === quarter ? 0 : window[half - n]!;
  }
  return out;
}

/**
 * cos and sin tables [4, depth, depth] of the folded DFT: cosine of even and odd bins, sine of even and odd
 * bins; [bin, n].
 */
function dftTable(nFft: number): Float32Array<ArrayBuffer> {
  const depth = depthOf(nFft);
  const quarter = nFft / 4;
  const out = new Float32Array(4 * depth * depth);
  for (let z = 0; z < 4; z++) {
    for (let k = z % 2; k <= nFft / 2; k += 2) {
      for (let n = 0; n <= quarter; n++) {
        // Quarter turns are exact zeros and ones: the fold relies on them.
        const turn = (k * n) % nFft;
        const angle = (2 * Math.PI * turn) / nFft;
        const exact =
          turn % quarter === 0
            ? [
                [1, 0, -1, 0],
                [0, 1, 0, -1],
              ][z >> 1]![turn / quarter]!
            : null;
        out[(z * depth + (k >> 1)) * depth + n] = exact ?? (z < 2 ? Math.cos(angle) : Math.sin(angle));
      }
    }
  }
  return out;
}

/** The non-zero weights of each filter: [first bin, count, start in `weights`] a filter. */
function sparseFilters(bank: readonly Float64Array[]): {
  filters: Int32Array<ArrayBuffer>;
  weights: Float32Array<ArrayBuffer>;
} {
  const filters = new Int32Array(3 * bank.length);
  const weights: number[] = [];
  bank.forEach((row, m) => {
    const bins = [...row.keys()].filter((k) => row[k]! > 0);
    filters.set([bins[0] ?? 0, bins.length, weights.length], 3 * m);
    for (const k of bins) weights.push(row[k]!);
  });
  return { filters, weights: Float32Array.from(weights.length ? weights : [0]) };
}

/** Inputs wave and four tables. */
export const logMelOp = defineOp<Settings>({
  name: 'log_mel',
  shape([wave], a) {
    const [R, L] = wave!.shape as [number, number];
    if (wave!.shape.length !== 2 || L < a.nFft)
      throw new MGFError(
        'shape',
        `log_mel: the signal must be [rows, at least ${a.nFft} samples], got ${formatShape(wave!.shape)}`,
      );
    return [f32(R, melFrames(L, a), a.nMels)];
  },
  forward(c) {
    const [wave, windows, table, filters, weights] = [0, 1, 2, 3, 4].map((i) => c.input(i)) as [
      Value,
      Value,
      Value,
      Value,
      Value,
    ];
    const { nFft, hopLength, nMels, floor } = c.attrs;
    const mel = c.outputs[0]!;
    const M = mel.shape[1]!;
    const total = mel.shape[0]! * M;
    const depth = depthOf(nFft);
    const chunk = Math.min(total, FRAMES_AT_ONCE);
    const folded = c.temp([chunk, 4, depth]);
    const spectrum = c.temp([chunk, 4, depth]);
    const dispatches: Dispatch[] = [];
    for (let first = 0; first < total; first += chunk) {
      const frames = Math.min(chunk, total - first);
      const fold = overElements((frames * depth) / 4);
      const sum = overElements(frames * nMels);
      dispatches.push(
        {
          kernel: FOLD,
          constants: fold.constants,
          grid: fold.grid,
          bind: { wave, windows, folded },
          params: {
            n: (frames * depth) / 4,
            first,
            row_frames: M,
            length: wave.shape[1]!,
            hop: hopLength,
            n_fft: nFft,
            depth: depth / 4,
          },
        },
        gemm(c.adapter, {
          mode: 'nt',
          a: folded,
          b: table,
          c: spectrum,
          m: frames,
          n: depth,
          k2: depth,
          batch: [4, 1],
          aZ: [depth, 0],
          aRow: 4 * depth,
          bZ: [depth * depth, 0],
          bRow: depth,
          cZ: [depth, 0],
          cRow: 4 * depth,
          // The quiet bins of a frame lie far below its loud ones, and the logarithm shows them: f16 would
          // fill them with rounding noise.
          exact: true,
        }),
        {
          kernel: MEL,
          constants: sum.constants,
          grid: sum.grid,
          bind: { spectrum, filters, weights, mel },
          params: { n: frames * nMels, first: first * nMels, mels: nMels, depth, floor },
        },
      );
    }
    return dispatches;
  },
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  backward: null,
  cost([wave], [mel], { nFft }) {
    const frames = mel!.shape[0]! * mel!.shape[1]!;
    return {
      flops: 8 * frames * depthOf(nFft) ** 2,
      bytes: 4 * (elements(wave!.shape) + 16 * frames * depthOf(nFft) + elements(mel!.shape)),
    };
  },
});

/**
 * ln(max(floor, mel power)) of whole frames without padding: wave [R, L] -> [R, floor((L - nFft) / hopLength)
 * + 1, nMels]. Periodic Hann window, HTK triangles without area normalisation. No gradient.
 * @throws MGFError 'shape' for a signal shorter than a frame, 'config' for lengths that the folded DFT cannot
 * take
 */
export function logMel(wave: Value, options: LogMelOptions = {}): Value {
  checkArguments('logMel', { wave: [wave, VALUE] });
  checkOptions('logMel', options, MEL_OPTIONS);
  const a = settings(options);
  const { graph } = wave;
  const depth = depthOf(a.nFft);
  const { filters, weights } = sparseFilters(melFilterbank(a));
  return apply(
    logMelOp,
    [
      wave,
      graph.constant('log_mel.windows', [2, depth], foldWindows(a.nFft, a.winLength)),
      graph.constant('log_mel.dft', [4, depth, depth], dftTable(a.nFft)),
      graph.constant('log_mel.filters', [a.nMels, 3], filters),
      graph.constant('log_mel.weights', [weights.length], weights),
    ],
    a,
  )[0]!;
}

/** Inputs mel, mel frames of each row?, frame mask?. */
export const melPairsOp = defineOp<{ frames: number }>({
  name: 'mel_pairs',
  shape([mel, real, mask], { frames }): Spec[] {
    const [R, , D] = mel!.shape as [number, number, number];
    if (real && (real.dtype !== 'i32' || formatShape(real.shape) !== `[${R}]`)) {
      throw new MGFError(
        'shape',
        `mel_pairs: mel ${formatShape(mel!.shape)} needs i32 frame counts [${R}], got ${real.dtype} ` +
          `${formatShape(real.shape)}`,
      );
    }
    if (mask && formatShape(mask.shape) !== formatShape([R, frames]))
      throw new MGFError(
        'shape',
        `mel_pairs: the frame mask must be [${R}, ${frames}], got ${formatShape(mask.shape)}`,
      );
    return [f32(R, frames, 4 * D), f32(R, frames, 2 * D), f32(R, frames, 2), f32(R, 3 * D)];
  },
  forward(c) {
    const mel = c.input(0);
    const real_frames = c.inputs[1];
    const frame_mask = c.inputs[2];
    const [features, pairs, present, stats] = c.outputs as [Value, Value, Value, Value];
    const [R, M, D] = mel.shape as [number, number, number];
    const VEC = Number(D % 4 === 0);
    const width = VEC ? D / 4 : D;
    const { frames } = c.attrs;
    const RAGGED = Number(Boolean(real_frames));
    const params = { width, mel_frames: M, frames };
    const first = overItems(R * width, c.adapter);
    const second = overElements(R * frames * 2 * width);
    return [
      {
        kernel: PAIRS,
        grid: first.grid,
        constants: { ...first.constants, MODE: 0, VEC, RAGGED, MASK: 0 },
        bind: { mel, stats, ...(real_frames && { real_frames }) },
        params: { ...params, n: R * width },
      },
      {
        kernel: PAIRS,
        grid: second.grid,
        constants: { ...second.constants, MODE: 1, VEC, RAGGED, MASK: Number(Boolean(frame_mask)) },
        bind: {
          mel,
          stats,
          features,
          pairs,
          present,
          ...(real_frames && { real_frames }),
          ...(frame_mask && { frame_mask }),
        },
        params: { ...params, n: R * frames * 2 * width },
      },
    ];
  },
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  backward: null,
  cost: ([mel], outputs) => ({
    flops: 10 * elements(mel!.shape),
    bytes: 4 * (2 * elements(mel!.shape) + outputs.reduce((n, o) => n + elements(o.shape), 0)),
  }),
});

/** The frames of `logMelPairs`, and which of them are real. */
export interface MelPairsOptions extends LogMelOptions {
  /** Frames T of the encoder. */
  readonly frames: number;
  /** Log-mel frames that each row really has, i32 [R]; default: all. */
  readonly melFrames?: Value | null;
  /** Real encoder frames, f32 [R, T] of 0 and 1; multiplies `weight`. */
  readonly frameMask?: Value | null;
}

/**
 * Log-mel frames 2t and 2t + 1 side by side for each frame t of the encoder; frames that do not exist are 0.
 * No gradient.
 */
export interface MelPairs {
  /** f32 [R, T, 4 nMels]: both frames divided by 4, then both normalised: what the mel front end reads. */
  readonly features: Value;
  /**
   * f32 [R, T, 2 nMels]: both frames, (m - mean) / (std + 1e-5) per row and bin over real frames: what the
   * frame scale predicts.
   */
  readonly target: Value;
  /** f32 [R, T, 2]: 1 where frame 2t, 2t + 1 exists (and t is real, with a frame mask). */
  readonly weight: Value;
  /**
   * f32 [R, 3 nMels]: mean, standard deviation s and 1 / (s + 1e-5) of each bin over the row's real frames,
   * in nats.
   */
  readonly statistics: Value;
}

/** Log-mel pairs of wave [R, L]; see `logMel`. */
export function logMelPairs(wave: Value, options: MelPairsOptions): MelPairs {
  checkArguments('logMelPairs', { wave: [wave, VALUE] });
  checkOptions('logMelPairs', options, {
    ...MEL_OPTIONS,
    frames: 'a number',
    melFrames: `${VALUE}|null?`,
    frameMask: `${VALUE}|null?`,
  });
  const { frames, melFrames: realFrames = null, frameMask = null, ...melOptions } = options;
  const mel = logMel(wave, melOptions);
  const [features, target, weight, statistics] = apply(
    melPairsOp,
    [mel, realFrames, frameMask],
    { frames },
    1,
  );
  return { features: features!, target: target!, weight: weight!, statistics: statistics! };
}

/** Float64 reference of `logMel`, by the plain DFT. */
export function logMelReference(
  wave: Float64Array,
  R: number,
  L: number,
  options: LogMelOptions = {},
): Float64Array {
  const a = settings(options);
  const { nFft, hopLength, nMels } = a;
  const M = melFrames(L, a);
  const window = hannWindow(nFft, a.winLength);
  const bank = melFilterbank(a);
  const out: number[] = [];
  const cosines = Float64Array.from({ length: nFft }, (_, i) => Math.cos((2 * Math.PI * i) / nFft));
  const sines = Float64Array.from({ length: nFft }, (_, i) => Math.sin((2 * Math.PI * i) / nFft));
  for (let r = 0; r < R; r++) {
    for (let m = 0; m < M; m++) {
      const x = window.map((w, n) => w * wave[r * L + m * hopLength + n]!);
      const power = Float64Array.from({ length: nFft / 2 + 1 }, (_, k) => {
        let re = 0;
        let im = 0;
        for (let n = 0; n < nFft; n++) {
          re += x[n]! * cosines[(k * n) % nFft]!;
          im += x[n]! * sines[(k * n) % nFft]!;
        }
        return re * re + im * im;
      });
      for (let j = 0; j < nMels; j++)
        out.push(
          Math.log(
            Math.max(
              a.floor,
              power.reduce((sum, v, k) => sum + v * bank[j]![k]!, 0),
            ),
          ),
        );
    }
  }
  return Float64Array.from(out);
}

/**
 * Float64 reference of the pairs: mel [R, M, D], the frames each row really has -> features, target, weight
 * (without a frame mask).
 */
export function melPairsReference(
  mel: Float64Array,
  [R, M, D]: readonly [number, number, number],
  T: number,
  real: readonly number[],
): { features: Float64Array; target: Float64Array; weight: Float64Array } {
  const features = new Float64Array(R * T * 4 * D);
  const target = new Float64Array(R * T * 2 * D);
  const weight = new Float64Array(R * T * 2);
  for (let r = 0; r < R; r++) {
    const n = Math.min(real[r]!, M);
    for (let d = 0; d < D; d++) {
      const column = Array.from({ length: n }, (_, m) => mel[(r * M + m) * D + d]!);
      const mean = column.reduce((a, b) => a + b, 0) / n;
      const std = Math.sqrt(column.reduce((a, b) => a + (b - mean) ** 2, 0) / n);
      for (let m = 0; m < Math.min(n, 2 * T); m++) {
        const frame = r * T + (m >> 1);
        const h = m % 2;
        features[frame * 4 * D + h * D + d] = column[m]! / 4;
        features[frame * 4 * D + (2 + h) * D + d] = target[frame * 2 * D + h * D + d] =
          (column[m]! - mean) / (std + 1e-5);
        weight[frame * 2 + h] = 1;
      }
    }
  }
  return { features, target, weight };
}
