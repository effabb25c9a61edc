/**
 * Points of many dimensions on a plane: principal components, and t-SNE that starts from them. Plain float64
 * for a few hundred points, the same picture every time.
 */
import { MGFError } from '../errors.ts';

/** Coordinates, row-major [n, k], and the share of the variance that each of the k components holds. */
export interface Components {
  points: Float64Array;
  shares: number[];
}

/**
 * Principal components of `n` rows of `dim` numbers, largest variance first: the rows' coordinates along
 * them, by power iteration on the products of the centred rows with each other. Each component's sign is such
 * that its coordinate of largest size is positive. Throws MGFError 'shape'.
 */
export function principalComponents(x: Float32Array, n: number, dim: number, k = 2): Components {
  if (x.length !== n * dim || n < 1)
    throw new MGFError(
      'shape',
      `principalComponents: ${n} rows of ${dim} need ${n * dim} numbers, got ${x.length}.`,
    );
  const mean = new Float64Array(dim);
  const gram = new Float64Array(n * n);
  for (let i = 0; i < n * dim; i++) mean[i % dim]! += x[i]! / n;
  for (let a = 0; a < n; a++) {
    for (let b = 0; b <= a; b++) {
      let dot = 0;
      for (let j = 0; j < dim; j++) dot += (x[a * dim + j]! - mean[j]!) * (x[b * dim + j]! - mean[j]!);
      gram[a * n + b] = gram[b * n + a] = dot;
    }
  }
  let total = 0;
  for (let i = 0; i < n; i++) total += gram[i * n + i]!;
  const points = new Float64Array(n * k);
  const shares: number[] = [];
  for (let c = 0; c < k; c++) {
    const { value, vector } = largestEigenpair(gram, n);
    // What rounding leaves of a matrix that is used up has no direction.
    const kept = value > 1e-12 * total ? value : 0;
    const size = Math.sqrt(kept);
    const sign = Math.sign(vector.reduce((top, v) => (Math.abs(v) > Math.abs(top) ? v : top), 0)) || 1;
    for (let i = 0; i < n; i++) points[i * k + c] = sign * size * vector[i]!;
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) gram[i * n + j]! -= kept * vector[i]! * vector[j]!;
    shares.push(total > 0 ? kept / total : 0);
  }
  return { points, shares };
}

function largestEigenpair(matrix: Float64Array, n: number): { value: number; vector: Float64Array } {
  // A start that no symmetric arrangement of points is at a right angle to.
  let vector = Float64Array.from({ length: n }, (_, i) => Math.sin(1 + 2.399963 * i));
  let value = 0;
  for (let sweep = 0; sweep < 500; sweep++) {
    const next = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      let dot = 0;
      for (let j = 0; j < n; j++) dot += matrix[i * n + j]! * vector[j]!;
      next[i] = dot;
    }
    const size = Math.hypot(...next);
    if (size === 0) return { value: 0, vector };
    let change = 0;
    for (let i = 0; i < n; i++) {
      next[i]! /= size;
      change = Math.max(change, Math.abs(next[i]! - vector[i]!));
    }
    [vector, value] = [next, size];
    if (change < 1e-10) break;
  }
  return { value, vector };
}

export interface TsneOptions {
  /** About how many neighbours a point has; made smaller where there are few points. Default: 10. */
  perplexity?: number;
  steps?: number;
}

/**
 * t-SNE [van der Maaten and Hinton 2008]: neighbours in `dim` dimensions stay neighbours in two, [n, 2].
 * Exact, over all pairs, by gradient descent with momentum and gains; early exaggeration for the first
 * quarter. It starts from the first two principal components [Kobak and Berens 2019], so that it draws
 * nothing at random and far groups keep their places as far as they can. Throws MGFError 'shape'.
 */
export function tsne(
  x: Float32Array,
  n: number,
  dim: number,
  { perplexity = 10, steps = 600 }: TsneOptions = {},
): Float64Array {
  const { points } = principalComponents(x, n, dim, 2);
  if (n < 4) return points;
  const p = neighbourhoods(squaredDistances(x, n, dim), n, Math.min(perplexity, (n - 1) / 3));
  const spread = Math.sqrt(points.reduce((sum, v, i) => sum + (i % 2 === 0 ? v * v : 0), 0) / n) || 1;
  const y = points.map((v) => (1e-2 * v) / spread);
  const velocity = new Float64Array(2 * n);
  const gain = new Float64Array(2 * n).fill(1);
  const q = new Float64Array(n * n);
  const gradient = new Float64Array(2 * n);
  const rate = Math.max(n / 12, 20);
  for (let step = 0; step < steps; step++) {
    const early = step < steps / 4;
    const exaggeration = early ? 12 : 1;
    const momentum = early ? 0.5 : 0.8;
    let sum = 0;
    for (let a = 0; a < n; a++) {
      for (let b = 0; b < a; b++) {
        const w = 1 / (1 + (y[2 * a]! - y[2 * b]!) ** 2 + (y[2 * a + 1]! - y[2 * b + 1]!) ** 2);
        q[a * n + b] = q[b * n + a] = w;
        sum += 2 * w;
      }
    }
    gradient.fill(0);
    for (let a = 0; a < n; a++) {
      for (let b = 0; b < n; b++) {
        if (a === b) continue;
        const w = q[a * n + b]!;
        const pull = 4 * (exaggeration * p[a * n + b]! - w / sum) * w;
        gradient[2 * a]! += pull * (y[2 * a]! - y[2 * b]!);
        gradient[2 * a + 1]! += pull * (y[2 * a + 1]! - y[2 * b + 1]!);
      }
    }
    for (let i = 0; i < 2 * n; i++) {
      gain[i] = Math.max(
        0.01,
        Math.sign(gradient[i]!) === Math.sign(velocity[i]!) ? gain[i]! * 0.8 : gain[i]! + 0.2,
      );
      velocity[i] = momentum * velocity[i]! - rate * gain[i]! * gradient[i]!;
      y[i]! += velocity[i]!;
    }
  }
  return y;
}

function squaredDistances(x: Float32Array, n: number, dim: number): Float64Array {
  const d = new Float64Array(n * n);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b < a; b++) {
      let square = 0;
      for (let j = 0; j < dim; j++) square += (x[a * dim + j]! - x[b * dim + j]!) ** 2;
      d[a * n + b] = d[b * n + a] = square;
    }
  }
  return d;
}

/**
 * Symmetric probabilities [n, n] that sum to 1; each point's own bandwidth gives its neighbours the entropy
 * ln(perplexity), found by bisection.
 */
function neighbourhoods(distance: Float64Array, n: number, perplexity: number): Float64Array {
  const conditional = new Float64Array(n * n);
  const wanted = Math.log(perplexity);
  for (let a = 0; a < n; a++) {
    const others = Array.from({ length: n }, (_, b) => b).filter((b) => b !== a);
    const nearest = Math.min(...others.map((b) => distance[a * n + b]!));
    const scale = others.reduce((sum, b) => sum + distance[a * n + b]!, 0) / others.length || 1;
    let low = 0;
    let high = Infinity;
    let beta = 1 / scale;
    for (let round = 0; round < 60; round++) {
      let total = 0;
      let energy = 0;
      for (const b of others) {
        const gap = distance[a * n + b]! - nearest;
        const w = Math.exp(-beta * gap);
        conditional[a * n + b] = w;
        total += w;
        energy += w * beta * gap;
      }
      const entropy = Math.log(total) + energy / total;
      for (const b of others) conditional[a * n + b]! /= total;
      if (Math.abs(entropy - wanted) < 1e-6) break;
      if (entropy > wanted) [low, beta] = [beta, high === Infinity ? 2 * beta : (beta + high) / 2];
      else [high, beta] = [beta, (beta + low) / 2];
    }
  }
  const joint = new Float64Array(n * n);
  for (let a = 0; a < n; a++)
    for (let b = 0; b < n; b++)
      joint[a * n + b] = Math.max((conditional[a * n + b]! + conditional[b * n + a]!) / (2 * n), 1e-12);
  return joint;
}
