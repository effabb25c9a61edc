/** Numbers in messages that compare two of them: what differs must read differently. */

type Pair = [string, string];

/**
 * The shortest texts, of `decimals` to `most` decimals, that differ where the numbers do; undefined where
 * none do.
 */
function shortest(a: number, b: number, decimals: number, most: number): Pair | undefined {
  for (let digits = decimals; digits <= Math.max(decimals, most); digits++) {
    const texts: Pair = [a.toFixed(digits), b.toFixed(digits)];
    if (texts[0] !== texts[1] || a === b) return texts;
  }
  return undefined;
}

/**
 * Both numbers with `decimals` decimals, or with as many more as make two different numbers read differently.
 */
export function apart(a: number, b: number, decimals: number): Pair {
  return shortest(a, b, decimals, 8) ?? [String(a), String(b)];
}

const UNITS = { MB: 1e6, MiB: 2 ** 20, GiB: 2 ** 30 } as const;

/**
 * Two sizes, given in bytes, as text, such as what is needed and what there is. Different sizes read
 * differently, in bytes where two decimals of the unit do not tell them apart.
 */
export function sizesApart(a: number, b: number, unit: keyof typeof UNITS, decimals: number): Pair {
  const texts = shortest(a / UNITS[unit], b / UNITS[unit], decimals, 2);
  return texts ? [`${texts[0]} ${unit}`, `${texts[1]} ${unit}`] : [`${a} bytes`, `${b} bytes`];
}
