import { checkOptions } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { elements, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp, type BackwardContext } from '../../launch/op.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import narrowSource from '../../../kernels/conv_narrow.wgsl';
import narrowWeightSource from '../../../kernels/conv_narrow_weight.wgsl';
import { convWave, convWaveWeight } from './conv-wave.ts';
import { gemm, gemmSplit } from '../gemm/gemm.ts';
import { overElements } from '../../launch/grid.ts';
import { stridedCopy } from '../layout.ts';
import { columnSums } from '../lib/reduce.ts';

const NARROW = kernel('conv_narrow', narrowSource);
const NARROW_WEIGHT = kernel('conv_narrow_weight', narrowWeightSource);

/** A strided, padded, dilated, grouped convolution x [B, L, Cin] * w [Cout, K, Cin / G] -> y [B, T, Cout]. */
interface Geometry {
  B: number;
  L: number;
  Cin: number;
  T: number;
  Cout: number;
  K: number;
  stride: number;
  padding: number;
  dilation: number;
  groups: number;
}

type Context = Pick<BackwardContext<unknown>, 'adapter' | 'temp'>;

/**
 * Few output columns leave most of a matrix product's tile idle; below these sizes the direct kernels win
 * (measured at the decoders of nano to tiny). Only without groups, and backwards not with stride and dilation
 * together.
 */
const NARROW_COLUMNS = 4;
const NARROW_SUM = 128;
const NARROW_WEIGHTS = 64;

const narrowParams = (g: Geometry): Record<string, number> => ({
  L: g.L,
  ci: g.Cin,
  T: g.T,
  co: g.Cout,
  K: g.K,
  stride: g.stride,
  padding: g.padding,
  dilation: g.dilation,
});

function narrow(g: Geometry, mode: 0 | 1, x: Value, w: Value, y: Value, bias: Value | null): Dispatch {
  const n = mode === 0 ? g.B * Math.ceil(g.T / 4) * g.Cout : g.B * g.L * g.Cin;
  const { constants, grid } = overElements(n);
  return {
    kernel: NARROW,
    grid,
    constants: { ...constants, MODE: mode, BIAS: Number(Boolean(bias)) },
    bind: { x, w, y, ...(bias && { bias }) },
    params: { n, ...narrowParams(g) },
  };
}

function narrowWeight(c: Context, g: Geometry, dy: Value, x: Value, dw: Value): Dispatch[] {
  const weights = elements(dw.shape);
  const rows = g.B * g.T;
  const per = Math.max(64, Math.ceil((rows * weights) / 16384));
  const chunks = Math.ceil(rows / per);
  const part = c.temp([chunks, weights]);
  const n = chunks * weights;
  const { constants, grid } = overElements(n);
  return [
    {
      kernel: NARROW_WEIGHT,
      grid,
      constants,
      bind: { x, y: dy, part },
      params: { n, rows, per, ...narrowParams(g) },
    },
    ...columnSums(c, part, chunks, weights, dw),
  ];
}

/** One channel of samples, as the first layer over a waveform has: on CPU adapters it has its own kernels. */
const wave = (g: Geometry): boolean => g.Cin === 1 && g.dilation === 1;

/**
 * One window is one run of memory: no padding between samples, no dilation, all channels. Then taps and
 * channels are one inner axis.
 */
const dense = (g: Geometry): boolean => g.padding === 0 && g.dilation === 1 && g.groups === 1;

/**
 * y[b, t, o] = bias[o] + sum over (j, i) of x[b, t s + j d - p, i] w[o, j, i]: a matrix product whose rows of
 * A are overlapping windows, no im2col.
 */
function convolve(c: Context, g: Geometry, x: Value, w: Value, y: Value, bias: Value | null): Dispatch {
  const { B, L, Cin, T, Cout, K, groups } = g;
  const ci = Cin / groups;
  const co = Cout / groups;
  const direct = wave(g) ? convWave(c.adapter, g, x, w, y, bias) : null;
  if (direct) return direct;
  if (groups === 1 && Cout <= NARROW_COLUMNS && K * Cin <= NARROW_SUM) return narrow(g, 0, x, w, y, bias);
  const rows = { m: B * T, mInner: T, aOuter: L * Cin, cRow: Cout, cOuter: T * Cout, bias };
  if (dense(g))
    return gemm(c.adapter, {
      mode: 'nt',
      a: x,
      b: w,
      c: y,
      ...rows,
      n: Cout,
      k2: K * Cin,
      aRow: g.stride * Cin,
      bRow: K * Cin,
    });
  return gemm(c.adapter, {
    mode: 'nt',
    a: x,
    b: w,
    c: y,
    ...rows,
    n: co,
    k1: K,
    k2: ci,
    batch: [groups, 1],
    biasZ0: co,
    aZ: [ci, 0],
    aRow: Cin,
    aPosition: { start: -g.padding, step: g.stride, tap: g.dilation, length: L },
    bZ: [co * K * ci, 0],
    bRow: K * ci,
    bK1: ci,
    cZ: [co, 0],
  });
}

/**
 * dx[b, p, i] = bias[i] + sum over (t, j) with t s + j d - pad = p of dy[b, t, o] w[o, j, i]; also the
 * transposed convolution. Positions fall into `stride` phases, each a matrix product over its own taps; with
 * dilation as well, dy is first spread out to stride 1.
 */
function convolveBack(
  c: Context,
  g: Geometry,
  dy: Value,
  w: Value,
  dx: Value,
  bias: Value | null,
): Dispatch[] {
  const { B, L, Cin, T, Cout, K, stride, dilation, groups } = g;
  const ci = Cin / groups;
  const co = Cout / groups;
  if (stride > 1 && dilation > 1) {
    const spread = c.temp([B, T * stride, Cout]);
    return [
      stridedCopy(dy, spread, { d1: 1, d2: stride * Cout, s0: Cout, s1: 0, s2: 1, lo: 0, hi: Cout }),
      ...convolveBack(c, { ...g, T: T * stride, stride: 1 }, spread, w, dx, bias),
    ];
  }
  if (groups === 1 && Cin <= NARROW_COLUMNS && Math.ceil(K / stride) * Cout <= NARROW_SUM)
    return [narrow(g, 1, dx, w, dy, bias)];
  const mInner = Math.floor((L - 1 + g.padding) / stride) + 1;
  return [
    gemm(c.adapter, {
      mode: 'nn',
      a: dy,
      b: w,
      c: dx,
      m: B * mInner,
      mInner,
      n: ci,
      k1: K,
      k2: co,
      batch: [groups, stride],
      phases: stride,
      bias,
      biasZ0: ci,
      aZ: [co, 0],
      aRow: Cout,
      aOuter: T * Cout,
      aPosition: { tap: -dilation, length: T },
      bZ: [co * K * ci, ci],
      bRow: K * ci,
      bK1: stride * ci,
      cZ: [ci, 0],
      cRow: Cin,
      cOuter: L * Cin,
      cPosition: { start: -g.padding, step: stride, z1: 1, length: L },
    }),
  ];
}

/** dw[o, j, i] = sum over (b, t) of dy[b, t, o] x[b, t s + j d - p, i]. */
function convolveWeight(c: Context, g: Geometry, dy: Value, x: Value, dw: Value): Dispatch[] {
  const { B, L, Cin, T, Cout, K, groups } = g;
  const ci = Cin / groups;
  const co = Cout / groups;
  const direct = wave(g) ? convWaveWeight(c, g, dy, x, dw) : null;
  if (direct) return direct;
  if (groups === 1 && elements(dw.shape) <= NARROW_WEIGHTS) return narrowWeight(c, g, dy, x, dw);
  const sums = { k1: B, k2: T, aRow: Cout, aOuter: T * Cout, bK1: L * Cin };
  if (dense(g))
    return gemmSplit(c, {
      mode: 'tn',
      a: dy,
      b: x,
      c: dw,
      ...sums,
      m: Cout,
      n: K * Cin,
      bRow: g.stride * Cin,
      cRow: K * Cin,
    });
  return gemmSplit(c, {
    mode: 'tn',
    a: dy,
    b: x,
    c: dw,
    ...sums,
    m: co,
    n: K * ci,
    batch: [groups, 1],
    aZ: [co, 0],
    bZ: [ci, 0],
    bRow: Cin,
    bPosition: { start: -g.padding, step: g.stride, tap: g.dilation, inner: ci, length: L },
    cZ: [co * K * ci, 0],
    cRow: K * ci,
  });
}

/** Of `conv1d`, in positions along L; `trim`: outputs at the end that are left out. */
export interface ConvAttrs {
  stride: number;
  padding: number;
  dilation: number;
  groups: number;
  trim: number;
}

function convGeometry(x: Spec, w: Spec, a: ConvAttrs): Geometry {
  const [B, L, Cin] = x.shape;
  const [Cout, K, ci] = w.shape;
  const what =
    `conv1d: x ${formatShape(x.shape)} [B, L, Cin] and weight ${formatShape(w.shape)} [Cout, K, Cin / ` +
    `groups] with ${a.groups} groups`;
  if (x.shape.length !== 3 || w.shape.length !== 3)
    throw new MGFError('shape', `${what}: both need three dimensions`);
  if (Cin! % a.groups || Cout! % a.groups || ci !== Cin! / a.groups)
    throw new MGFError(
      'shape',
      `${what}: groups must divide both channel counts and the weight must have Cin / groups channels`,
    );
  const T = Math.floor((L! + 2 * a.padding - a.dilation * (K! - 1) - 1) / a.stride) + 1 - a.trim;
  if (T < 1)
    throw new MGFError(
      'shape',
      `${what}: the window of ${a.dilation * (K! - 1) + 1} is longer than the ${L! + 2 * a.padding} samples`,
    );
  return { B: B!, L: L!, Cin: Cin!, T, Cout: Cout!, K: K!, ...a };
}

const macs = (g: Geometry): number => g.B * g.T * g.Cout * g.K * (g.Cin / g.groups);

export const conv1dOp = defineOp<ConvAttrs>({
  name: 'conv1d',
  shape([x, w, b], attrs) {
    const g = convGeometry(x!, w!, attrs);
    if (b && elements(b.shape) !== g.Cout)
      throw new MGFError(
        'shape',
        `conv1d: a weight ${formatShape(w!.shape)} needs a bias [${g.Cout}], got ${formatShape(b.shape)}`,
      );
    return [{ shape: [g.B, g.T, g.Cout], dtype: 'f32' }];
  },
  forward: (c) => [
    convolve(
      c,
      convGeometry(c.input(0), c.input(1), c.attrs),
      c.input(0),
      c.input(1),
      c.outputs[0]!,
      c.inputs[2] ?? null,
    ),
  ],
  saves: { inputs: [0, 1], outputs: [] },
  backward(c) {
    const x = c.input(0)!;
    const w = c.input(1)!;
    const dy = c.upstream(0)!;
    const g = convGeometry(x, w, c.attrs);
    const dx = c.grad(0);
    const dw = c.grad(1);
    const db = c.grad(2);
    return [
      ...(dx ? convolveBack(c, g, dy, w, dx, null) : []),
      ...(dw ? convolveWeight(c, g, dy, x, dw) : []),
      ...(db ? columnSums(c, dy, g.B * g.T, g.Cout, db) : []),
    ];
  },
  cost([x, w], [y], attrs) {
    const g = convGeometry(x!, w!, attrs);
    return { flops: 2 * macs(g), bytes: 4 * (elements(x!.shape) + elements(w!.shape) + elements(y!.shape)) };
  },
});

/**
 * 1-D convolution (cross-correlation, as PyTorch). x [B, L, Cin], weight [Cout, K, Cin / groups], bias [Cout]
 * -> [B, T, Cout], T = floor((L + 2 padding - dilation (K - 1) - 1) / stride) + 1 - trim. `trim` drops the
 * last outputs (wav2vec 2.0's even positional kernel).
 * @throws MGFError 'shape'
 */
export function conv1d(
  x: Value,
  weight: Value,
  bias: Value | null = null,
  options: Partial<ConvAttrs> = {},
): Value {
  checkOptions('conv1d', options, {
    stride: 'a number?',
    padding: 'a number?',
    dilation: 'a number?',
    groups: 'a number?',
    trim: 'a number?',
  });
  return apply(
    conv1dOp,
    [x, weight, bias],
    { stride: 1, padding: 0, dilation: 1, groups: 1, trim: 0, ...options },
    2,
  )[0]!;
}

/** Of `convTranspose1d`, in positions along its output. */
export interface TransposeAttrs {
  stride: number;
  padding: number;
  outputPadding: number;
}

/** The convolution that this one is the transpose of: its x is our output, its y our input. */
function transposeGeometry(x: Spec, w: Spec, { stride, padding, outputPadding }: TransposeAttrs): Geometry {
  const [B, T, Cout] = x.shape;
  const [wIn, K, Cin] = w.shape;
  const what =
    `conv_transpose1d: x ${formatShape(x.shape)} [B, T, Cin] and weight ${formatShape(w.shape)} [Cin, K, ` +
    'Cout]';
  if (x.shape.length !== 3 || w.shape.length !== 3 || wIn !== Cout)
    throw new MGFError('shape', `${what}: the weight's first axis must be Cin`);
  const L = (T! - 1) * stride - 2 * padding + K! + outputPadding;
  if (L < 1) throw new MGFError('shape', `${what}: the output would be empty`);
  return { B: B!, L, Cin: Cin!, T: T!, Cout: Cout!, K: K!, stride, padding, dilation: 1, groups: 1 };
}

export const convTranspose1dOp = defineOp<TransposeAttrs>({
  name: 'conv_transpose1d',
  shape([x, w, b], attrs) {
    const g = transposeGeometry(x!, w!, attrs);
    if (b && elements(b.shape) !== g.Cin)
      throw new MGFError(
        'shape',
        `conv_transpose1d: a weight ${formatShape(w!.shape)} needs a bias [${g.Cin}], got ` +
          `${formatShape(b.shape)}`,
      );
    return [{ shape: [g.B, g.L, g.Cin], dtype: 'f32' }];
  },
  forward: (c) =>
    convolveBack(
      c,
      transposeGeometry(c.input(0), c.input(1), c.attrs),
      c.input(0),
      c.input(1),
      c.outputs[0]!,
      c.inputs[2] ?? null,
    ),
  saves: { inputs: [0, 1], outputs: [] },
  backward(c) {
    const x = c.input(0)!;
    const w = c.input(1)!;
    const dy = c.upstream(0)!;
    const g = transposeGeometry(x, w, c.attrs);
    const dx = c.grad(0);
    const dw = c.grad(1);
    const db = c.grad(2);
    return [
      ...(dx ? [convolve(c, g, dy, w, dx, null)] : []),
      ...(dw ? convolveWeight(c, g, x, dy, dw) : []),
      ...(db ? columnSums(c, dy, g.B * g.L, g.Cin, db) : []),
    ];
  },
  cost([x, w], [y], attrs) {
    const g = transposeGeometry(x!, w!, attrs);
    return { flops: 2 * macs(g), bytes: 4 * (elements(x!.shape) + elements(w!.shape) + elements(y!.shape)) };
  },
});

/**
 * Transposed 1-D convolution, as PyTorch. x [B, T, Cin], weight [Cin, K, Cout], bias [Cout] -> [B, (T - 1)
 * stride - 2 padding + K + outputPadding, Cout].
 * @throws MGFError 'shape'
 */
export function convTranspose1d(
  x: Value,
  weight: Value,
  bias: Value | null = null,
  options: Partial<TransposeAttrs> = {},
): Value {
  checkOptions('convTranspose1d', options, {
    stride: 'a number?',
    padding: 'a number?',
    outputPadding: 'a number?',
  });
  return apply(
    convTranspose1dOp,
    [x, weight, bias],
    { stride: 1, padding: 0, outputPadding: 0, ...options },
    2,
  )[0]!;
}

/** Float64 reference of conv1d: x [B, L, Cin], w [Cout, K, Cin / groups] -> [B, T, Cout]. */
export function conv1dReference(
  x: Float64Array,
  w: Float64Array,
  bias: Float64Array | null,
  shapes: { x: Spec; w: Spec },
  attrs: Partial<ConvAttrs> = {},
): Float64Array {
  const g = convGeometry(shapes.x, shapes.w, {
    stride: 1,
    padding: 0,
    dilation: 1,
    groups: 1,
    trim: 0,
    ...attrs,
  });
  const ci = g.Cin / g.groups;
  const co = g.Cout / g.groups;
  const y = new Float64Array(g.B * g.T * g.Cout);
  for (let b = 0; b < g.B; b++)
    for (let t = 0; t < g.T; t++)
      for (let o = 0; o < g.Cout; o++) {
        let sum = bias ? bias[o]! : 0;
        for (let j = 0; j < g.K; j++) {
          const at = t * g.stride + j * g.dilation - g.padding;
          if (at < 0 || at >= g.L) continue;
          for (let i = 0; i < ci; i++)
            sum += x[(b * g.L + at) * g.Cin + Math.floor(o / co) * ci + i]! * w[(o * g.K + j) * ci + i]!;
        }
        y[(b * g.T + t) * g.Cout + o] = sum;
      }
  return y;
}

/**
 * Float64 reference of conv_transpose1d: x [B, T, Cin], w [Cin, K, Cout] -> [B, (T - 1) stride - 2 padding +
 * K + outputPadding, Cout].
 */
export function convTranspose1dReference(
  x: Float64Array,
  w: Float64Array,
  bias: Float64Array | null,
  shapes: { x: Spec; w: Spec },
  attrs: Partial<TransposeAttrs> = {},
): Float64Array {
  // Names as in the convolution that this one transposes: its output has Cout channels, which are our
  // input's.
  const g = transposeGeometry(shapes.x, shapes.w, { stride: 1, padding: 0, outputPadding: 0, ...attrs });
  const y = new Float64Array(g.B * g.L * g.Cin);
  if (bias)
    y.forEach((_, i) => {
      y[i] = bias[i % g.Cin]!;
    });
  for (let b = 0; b < g.B; b++)
    for (let t = 0; t < g.T; t++)
      for (let j = 0; j < g.K; j++) {
        const at = t * g.stride + j - g.padding;
        if (at < 0 || at >= g.L) continue;
        for (let o = 0; o < g.Cout; o++)
          for (let i = 0; i < g.Cin; i++)
            y[(b * g.L + at) * g.Cin + i]! += x[(b * g.T + t) * g.Cout + o]! * w[(o * g.K + j) * g.Cin + i]!;
      }
  return y;
}
