/** Pieces of the float64 references that have a gradient of their own. */
type Numbers = ArrayLike<number>;

const dot = (a: Numbers, ai: number, b: Numbers, bi: number, n: number): number => {
  let total = 0;
  for (let i = 0; i < n; i++) total += a[ai + i]! * b[bi + i]!;
  return total;
};

export function rowSoftmax(x: Float64Array): Float64Array {
  let top = -Infinity;
  let total = 0;
  for (const v of x) top = Math.max(top, v);
  const y = x.map((v) => {
    const e = Math.exp(v - top);
    total += e;
    return e;
  });
  return y.map((e) => e / total);
}

/**
 * Normalised row (before weight and bias; eps 1e-5), and the gradient of the row from that of the normalised
 * one.
 */
export function rowNorm(x: Float64Array): { y: Float64Array; back: (dy: Float64Array) => Float64Array } {
  const n = x.length;
  const mean = x.reduce((a, b) => a + b, 0) / n;
  const rstd = 1 / Math.sqrt(x.reduce((a, b) => a + (b - mean) ** 2, 0) / n + 1e-5);
  const y = x.map((v) => (v - mean) * rstd);
  return {
    y,
    back: (dy) => {
      const m = dy.reduce((a, b) => a + b, 0) / n;
      const p = dot(dy, 0, y, 0, n) / n;
      return dy.map((g, i) => rstd * (g - m - y[i]! * p));
    },
  };
}

type RowOf = (r: number) => Float64Array;

/**
 * One head, row by row: q, k, v and up [T, D]; scores scaled by 1 / sqrt(D). Nothing of size T x T is kept.
 */
export function attentionHead(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  D: number,
  up: Float64Array | null,
): { forward: RowOf; back: { dq: RowOf; dk: RowOf; dv: RowOf } | null } {
  const T = q.length / D;
  const alpha = 1 / Math.sqrt(D);
  const row = (t: number): { y: Float64Array; p: Float64Array; shift: number } => {
    const p = new Float64Array(T);
    const y = new Float64Array(D);
    let top = -Infinity;
    let total = 0;
    for (let s = 0; s < T; s++) {
      p[s] = alpha * dot(q, t * D, k, s * D, D);
      top = Math.max(top, p[s]!);
    }
    for (let s = 0; s < T; s++) {
      p[s] = Math.exp(p[s]! - top);
      total += p[s]!;
    }
    for (let s = 0; s < T; s++) {
      p[s]! /= total;
      for (let d = 0; d < D; d++) y[d]! += p[s]! * v[s * D + d]!;
    }
    return { y, p, shift: top + Math.log(total) };
  };
  if (!up) return { forward: (t) => row(t).y, back: null };
  const shift = new Float64Array(T);
  const inner = new Float64Array(T);
  for (let t = 0; t < T; t++) {
    const computed = row(t);
    shift[t] = computed.shift;
    inner[t] = dot(up, t * D, computed.y, 0, D);
  }
  /** Probability and gradient of the scaled score. */
  const pair = (t: number, s: number): { p: number; ds: number } => {
    const p = Math.exp(alpha * dot(q, t * D, k, s * D, D) - shift[t]!);
    return { p, ds: alpha * p * (dot(up, t * D, v, s * D, D) - inner[t]!) };
  };
  const over = (weight: (i: number) => number, of: Float64Array): Float64Array => {
    const out = new Float64Array(D);
    for (let i = 0; i < T; i++) {
      const w = weight(i);
      for (let d = 0; d < D; d++) out[d]! += w * of[i * D + d]!;
    }
    return out;
  };
  return {
    forward: (t) => row(t).y,
    back: {
      dq: (t) => over((s) => pair(t, s).ds, k),
      dk: (s) => over((t) => pair(t, s).ds, q),
      dv: (s) => over((t) => pair(t, s).p, up),
    },
  };
}

const TEMPERATURE = 0.1;

export interface Contrast {
  anchor: Numbers;
  negatives: Numbers;
  /** Of an anchor in the mean; the sum of them divides it. */ weight: Numbers;
}

/**
 * Masked InfoNCE over rows of P channels: the weighted mean over anchors of the cross-entropy of cosine / 0.1
 * of a[anchor] with z[anchor] against those with z[negatives], and both gradients times `up`.
 */
export function infoNce(
  P: number,
  a: Numbers,
  z: Numbers,
  { anchor, negatives, weight }: Contrast,
  up: number | null,
): { y: number; da: Float64Array | null; dz: Float64Array | null } {
  const F = a.length / P;
  const N = anchor.length;
  const K = negatives.length / N;
  const total = Math.max(
    1,
    Array.from(weight).reduce((x, w) => x + w, 0),
  );
  const norms = (x: Numbers): Float64Array =>
    Float64Array.from({ length: F }, (_, r) => Math.sqrt(dot(x, r * P, x, r * P, P)));
  const an = norms(a);
  const zn = norms(z);
  const da = up === null ? null : new Float64Array(F * P);
  const dz = up === null ? null : new Float64Array(F * P);
  let y = 0;
  for (let n = 0; n < N; n++) {
    if (!weight[n]) continue;
    const own = anchor[n]!;
    const rows = [own, ...Array.from({ length: K }, (_, k) => negatives[n * K + k]!)];
    const cosines = rows.map((r) => dot(a, own * P, z, r * P, P) / (an[own]! * zn[r]!));
    const p = rowSoftmax(Float64Array.from(cosines, (c) => c / TEMPERATURE));
    const share = weight[n]! / total;
    y -= share * Math.log(p[0]!);
    if (!da || !dz) continue;
    rows.forEach((r, j) => {
      // d cos(a, z) / d a = (z / |z| - cos a / |a|) / |a|, and the same the other way round.
      const g = (up! * share * (p[j]! - Number(j === 0))) / TEMPERATURE;
      for (let i = 0; i < P; i++) {
        const ua = a[own * P + i]! / an[own]!;
        const uz = z[r * P + i]! / zn[r]!;
        da[own * P + i]! += (g * (uz - cosines[j]! * ua)) / an[own]!;
        dz[r * P + i]! += (g * (ua - cosines[j]! * uz)) / zn[r]!;
      }
    });
  }
  return { y, da, dz };
}

// ------------------------------------------------------------------------------------- the transformer layer

/** erf to float64 (series for small, continued fraction for large arguments). */
function erf(x: number): number {
  const z = Math.abs(x);
  if (z < 2.5) {
    let term = z;
    let total = z;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total) && n < 200; n++) {
      term *= (-z * z) / n;
      total += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * total) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / (Math.sqrt(Math.PI) * (z + fraction)));
}

export const gelu = (x: number): number => 0.5 * x * (1 + erf(x / Math.SQRT2));
export const geluSlope = (x: number): number =>
  0.5 * (1 + erf(x / Math.SQRT2)) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);

export interface Part {
  y: Float64Array;
  back: (dy: Float64Array) => Float64Array;
}

/** y = x w^T + b over rows; `back` writes the parameters' gradients and returns that of x. */
export function dense(
  x: Float64Array,
  w: Numbers,
  b: Numbers,
  I: number,
  O: number,
  into: (dw: Float64Array, db: Float64Array) => void,
): Part {
  const M = x.length / I;
  const y = new Float64Array(M * O);
  const weights = Float64Array.from(w);
  for (let m = 0; m < M; m++)
    for (let o = 0; o < O; o++) y[m * O + o] = b[o]! + dot(x, m * I, weights, o * I, I);
  return {
    y,
    back: (dy) => {
      const dx = new Float64Array(x.length);
      const dw = new Float64Array(O * I);
      const db = new Float64Array(O);
      for (let m = 0; m < M; m++) {
        for (let o = 0; o < O; o++) {
          const g = dy[m * O + o]!;
          db[o]! += g;
          for (let i = 0; i < I; i++) {
            dx[m * I + i]! += g * weights[o * I + i]!;
            dw[o * I + i]! += g * x[m * I + i]!;
          }
        }
      }
      into(dw, db);
      return dx;
    },
  };
}

export function norm(
  x: Float64Array,
  weight: Numbers,
  bias: Numbers,
  D: number,
  into: (dw: Float64Array, db: Float64Array) => void,
): Part {
  const rows = Array.from({ length: x.length / D }, (_, r) => rowNorm(x.subarray(r * D, (r + 1) * D)));
  const y = new Float64Array(x.length);
  rows.forEach((row, r) =>
    row.y.forEach((h, i) => {
      y[r * D + i] = h * weight[i]! + bias[i]!;
    }),
  );
  return {
    y,
    back: (dy) => {
      const dx = new Float64Array(x.length);
      const dw = new Float64Array(D);
      const db = new Float64Array(D);
      rows.forEach((row, r) => {
        const g = dy.subarray(r * D, (r + 1) * D);
        g.forEach((v, i) => {
          dw[i]! += v * row.y[i]!;
          db[i]! += v;
        });
        dx.set(row.back(g.map((v, i) => v * weight[i]!)), r * D);
      });
      into(dw, db);
      return dx;
    },
  };
}

/** All heads at once on qkv [B T, 3 D]. */
function heads(qkv: Float64Array, { B, T, D, H }: { B: number; T: number; D: number; H: number }): Part {
  const d = D / H;
  const y = new Float64Array(B * T * D);
  const take = (x: Float64Array, width: number, b: number, offset: number): Float64Array => {
    const out = new Float64Array(T * d);
    for (let t = 0; t < T; t++)
      out.set(x.subarray((b * T + t) * width + offset, (b * T + t) * width + offset + d), t * d);
    return out;
  };
  const all = (b: number, h: number, up: Float64Array | null): ReturnType<typeof attentionHead> =>
    attentionHead(
      take(qkv, 3 * D, b, h * d),
      take(qkv, 3 * D, b, D + h * d),
      take(qkv, 3 * D, b, 2 * D + h * d),
      d,
      up,
    );
  const each = (visit: (b: number, h: number) => void): void => {
    for (let b = 0; b < B; b++) for (let h = 0; h < H; h++) visit(b, h);
  };
  each((b, h) => {
    const { forward } = all(b, h, null);
    for (let t = 0; t < T; t++) y.set(forward(t), (b * T + t) * D + h * d);
  });
  return {
    y,
    back: (dy) => {
      const dx = new Float64Array(qkv.length);
      each((b, h) => {
        const { dq, dk, dv } = all(b, h, take(dy, D, b, h * d)).back!;
        [dq, dk, dv].forEach((rowOf, part) => {
          for (let t = 0; t < T; t++) dx.set(rowOf(t), (b * T + t) * 3 * D + part * D + h * d);
        });
      });
      return dx;
    },
  };
}

export const plus = (a: Float64Array, b: Float64Array): Float64Array => a.map((v, i) => v + b[i]!);

/** Pre-norm layer as the contract describes it; gradients of sum(y * up) by input name. */
export function transformerLayer(
  work: { B: number; T: number; D: number; H: number; F: number },
  v: Readonly<Record<string, Numbers>>,
): { y: Float64Array; back: (up: Numbers) => Record<string, Float64Array> } {
  const { D, F } = work;
  const gradients: Record<string, Float64Array> = {};
  const x = Float64Array.from(v['x']!);
  const into =
    (name: string) =>
    (dw: Float64Array, db: Float64Array): void => {
      gradients[`${name}.weight`] = dw;
      gradients[`${name}.bias`] = db;
    };
  const linear = (name: string, input: Float64Array, I: number, O: number): Part =>
    dense(input, v[`${name}.weight`]!, v[`${name}.bias`]!, I, O, into(name));
  const normed = (name: string, input: Float64Array): Part =>
    norm(input, v[`${name}.weight`]!, v[`${name}.bias`]!, D, into(name));
  const norm1 = normed('norm1', x);
  const qkv = linear('qkv', norm1.y, D, 3 * D);
  const attended = heads(qkv.y, work);
  const proj = linear('proj', attended.y, D, D);
  const h = plus(x, proj.y);
  const norm2 = normed('norm2', h);
  const ffn1 = linear('ffn1', norm2.y, D, F);
  const ffn2 = linear('ffn2', ffn1.y.map(gelu), F, D);
  const y = plus(h, ffn2.y);
  return {
    y,
    back: (up) => {
      const dy = Float64Array.from(up);
      const slopes = ffn2.back(dy).map((g, i) => g * geluSlope(ffn1.y[i]!));
      const dh = plus(dy, norm2.back(ffn1.back(slopes)));
      gradients['x'] = plus(dh, norm1.back(qkv.back(attended.back(proj.back(dh)))));
      return gradients;
    },
  };
}
