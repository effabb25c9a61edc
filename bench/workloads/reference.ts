/**
 * Every workload in float64 with plain loops: the results that an engine must agree with before it is timed.
 * Only a sample of elements where all are dear.
 */
import { elements } from '../../src/graph/shape.ts';
import type { HostTensors, Work, Workload } from './contract.ts';
import { attentionHead, infoNce, rowNorm, rowSoftmax, transformerLayer } from './reference-parts.ts';
import { outputShape } from './workloads.ts';
import { uniforms } from '../../src/random/uniforms.ts';

/** Chosen elements of one tensor: flat indices and what they must be. */
export interface Samples {
  readonly size: number;
  readonly indices: Int32Array;
  readonly values: Float64Array;
}
export type Reference = Readonly<Record<string, Samples>>;

type Arrays = Readonly<Record<string, ArrayLike<number>>>;

/** At most this many elements of a tensor are compared. */
const ELEMENTS = 256;
const ROWS = 8;

/**
 * What a workload must give on these inputs: `y`, or `d.<input>` for each f32 input. A function of the
 * inputs.
 */
export function referenceOf({ work, grad }: Workload, inputs: HostTensors): Reference {
  const arrays = Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, t.data]));
  const random = uniforms(77);
  const pick = (size: number): Int32Array =>
    size <= ELEMENTS
      ? Int32Array.from({ length: size }, (_, i) => i)
      : // The last element is where launches that are cut short show.
        Int32Array.from({ length: ELEMENTS }, (_, i) => (i ? Math.floor(random() * size) : size - 1));
  const each = (shape: readonly number[], value: (i: number) => number): Samples => {
    const size = elements(shape);
    const indices = pick(size);
    return { size, indices, values: Float64Array.from(indices, value) };
  };
  const shape = (name: string): readonly number[] => inputs[name]!.shape;
  switch (work.op) {
    case 'matmul':
      return matmul(work, grad, arrays, each);
    case 'conv1d':
      return conv1d(work, grad, arrays, each, shape);
    case 'softmax':
      return {
        [grad ? 'd.x' : 'y']: rows(work.rows, work.columns, random, (r) =>
          softmaxRow(arrays, r, work.columns, grad),
        ),
      };
    case 'layer_norm':
      return layerNorm(work, grad, arrays, each, random);
    case 'attention':
      return attention(work, grad, arrays, random);
    case 'info_nce': {
      const { N, P } = work;
      const contrast = {
        anchor: Array.from({ length: N }, (_, n) => n),
        negatives: arrays['negatives']!,
        weight: new Array<number>(N).fill(1),
      };
      const { y, da, dz } = infoNce(
        P,
        arrays['anchors']!,
        arrays['candidates']!,
        contrast,
        grad ? arrays['up']![0]! : null,
      );
      if (!grad) return { y: each([1], () => y) };
      return {
        'd.anchors': each(shape('anchors'), (i) => da![i]!),
        'd.candidates': each(shape('candidates'), (i) => dz![i]!),
      };
    }
    case 'transformer_layer': {
      const { y, back } = transformerLayer(work, arrays);
      if (!grad) return { y: each(outputShape(work), (i) => y[i]!) };
      return Object.fromEntries(
        Object.entries(back(arrays['up']!)).map(([name, g]) => [
          `d.${name}`,
          each(shape(name), (i) => g[i]!),
        ]),
      );
    }
    case 'torch_step':
      throw new RangeError(
        'a training step depends on the ones before it: see bench/workloads/reference-step.ts',
      );
  }
}

type Each = (shape: readonly number[], value: (i: number) => number) => Samples;

function sum(n: number, term: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < n; i++) total += term(i);
  return total;
}

function matmul(
  { M, N, K }: Extract<Work, { op: 'matmul' }>,
  grad: boolean,
  x: Arrays,
  each: Each,
): Reference {
  const a = x['a']!;
  const b = x['b']!;
  const up = x['up'];
  if (!grad || !up)
    return {
      y: each([M, N], (i) => {
        const m = Math.floor(i / N);
        const n = i % N;
        return sum(K, (k) => a[m * K + k]! * b[k * N + n]!);
      }),
    };
  return {
    'd.a': each([M, K], (i) => {
      const m = Math.floor(i / K);
      const k = i % K;
      return sum(N, (n) => up[m * N + n]! * b[k * N + n]!);
    }),
    'd.b': each([K, N], (i) => {
      const k = Math.floor(i / N);
      const n = i % N;
      return sum(M, (m) => a[m * K + k]! * up[m * N + n]!);
    }),
  };
}

function conv1d(
  work: Extract<Work, { op: 'conv1d' }>,
  grad: boolean,
  v: Arrays,
  each: Each,
  shape: (name: string) => readonly number[],
): Reference {
  const { B, L, Cin, Cout, K, stride } = work;
  const x = v['x']!;
  const w = v['w']!;
  const up = v['up'];
  const T = outputShape(work)[1]!;
  if (!grad || !up) {
    return {
      y: each([B, T, Cout], (i) => {
        const o = i % Cout;
        const t = Math.floor(i / Cout) % T;
        const b = Math.floor(i / Cout / T);
        // One window is one run of memory.
        return sum(K * Cin, (j) => x[(b * L + t * stride) * Cin + j]! * w[o * K * Cin + j]!);
      }),
    };
  }
  return {
    'd.x': each(shape('x'), (i) => {
      const c = i % Cin;
      const l = Math.floor(i / Cin) % L;
      const b = Math.floor(i / Cin / L);
      return sum(K, (k) => {
        const t = (l - k) / stride;
        return Number.isInteger(t) && t >= 0 && t < T
          ? sum(Cout, (o) => up[(b * T + t) * Cout + o]! * w[(o * K + k) * Cin + c]!)
          : 0;
      });
    }),
    'd.w': each(shape('w'), (i) => {
      const j = i % (K * Cin);
      const o = Math.floor(i / (K * Cin));
      return sum(B * T, (r) => up[r * Cout + o]! * x[(Math.floor(r / T) * L + (r % T) * stride) * Cin + j]!);
    }),
  };
}

/** Whole rows, a few of them. */
function rows(
  count: number,
  width: number,
  random: () => number,
  row: (r: number) => ArrayLike<number>,
): Samples {
  const chosen = [
    ...new Set(
      Array.from({ length: Math.min(ROWS, count) }, (_, i) => (i ? Math.floor(random() * count) : count - 1)),
    ),
  ];
  const indices = new Int32Array(chosen.length * width);
  const values = new Float64Array(indices.length);
  chosen.forEach((r, i) => {
    values.set(row(r), i * width);
    for (let j = 0; j < width; j++) indices[i * width + j] = r * width + j;
  });
  return { size: count * width, indices, values };
}

const slice = (x: ArrayLike<number>, at: number, n: number): Float64Array =>
  Float64Array.from({ length: n }, (_, i) => x[at + i]!);

function softmaxRow(v: Arrays, r: number, width: number, grad: boolean): Float64Array {
  const y = rowSoftmax(slice(v['x']!, r * width, width));
  const up = v['up'];
  if (!grad || !up) return y;
  const inner = sum(width, (i) => y[i]! * up[r * width + i]!);
  return y.map((p, i) => p * (up[r * width + i]! - inner));
}

function layerNorm(
  work: Extract<Work, { op: 'layer_norm' }>,
  grad: boolean,
  v: Arrays,
  each: Each,
  random: () => number,
): Reference {
  const { rows: R, columns: C } = work;
  const weight = slice(v['weight']!, 0, C);
  const bias = v['bias']!;
  const up = v['up'];
  const normalised = (r: number): ReturnType<typeof rowNorm> => rowNorm(slice(v['x']!, r * C, C));
  if (!grad || !up)
    return { y: rows(R, C, random, (r) => normalised(r).y.map((h, i) => h * weight[i]! + bias[i]!)) };
  const dWeight = new Float64Array(C);
  const dBias = new Float64Array(C);
  for (let r = 0; r < R; r++) {
    const { y } = normalised(r);
    for (let i = 0; i < C; i++) {
      dWeight[i]! += up[r * C + i]! * y[i]!;
      dBias[i]! += up[r * C + i]!;
    }
  }
  return {
    'd.x': rows(R, C, random, (r) => {
      const n = normalised(r);
      return n.back(slice(up, r * C, C).map((g, i) => g * weight[i]!));
    }),
    'd.weight': each([C], (i) => dWeight[i]!),
    'd.bias': each([C], (i) => dBias[i]!),
  };
}

/** Rows of one head: the gradients of keys and values need every row of its scores. */
function attention(
  work: Extract<Work, { op: 'attention' }>,
  grad: boolean,
  v: Arrays,
  random: () => number,
): Reference {
  const { B, H, T, D } = work;
  const head = Math.floor(random() * B * H);
  const at = head * T * D;
  const size = B * H * T * D;
  const part = (name: string): Float64Array => slice(v[name]!, at, T * D);
  const computed = attentionHead(part('q'), part('k'), part('v'), D, grad ? part('up') : null);
  const shifted = (row: (r: number) => Float64Array): Samples => {
    const s = rows(T, D, random, row);
    return { size, indices: s.indices.map((i) => i + at), values: s.values };
  };
  if (!computed.back) return { y: shifted(computed.forward) };
  const { dq, dk, dv } = computed.back;
  return { 'd.q': shifted(dq), 'd.k': shifted(dk), 'd.v': shifted(dv) };
}
