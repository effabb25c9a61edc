/** Element-wise functions that are activations. */
export type Activation = 'gelu' | 'relu' | 'tanh' | 'sigmoid';

/** Float64 reference of one value. */
export function activationReference(f: Activation, x: number): number {
  switch (f) {
    case 'gelu':
      return x < 0 ? 0.5 * x * erfc(-x / Math.SQRT2) : x - 0.5 * x * erfc(x / Math.SQRT2);
    case 'relu':
      return Math.max(x, 0);
    case 'tanh':
      return Math.tanh(x);
    case 'sigmoid':
      return x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x));
  }
}

/** erfc(z) for z >= 0 to about 1e-15: its Taylor series below 2.5, its continued fraction (Lentz) above. */
function erfc(z: number): number {
  if (z < 2.5) {
    let term = z;
    let sum = z;
    for (let n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  if (z > 27) return 0;
  let fraction = 0;
  for (let n = 120; n >= 1; n--) fraction = n / 2 / (z + fraction);
  return Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction);
}
