import { checkNumbers } from './lib/check.ts';
import type { KernelCheck } from '../launch/dispatch.ts';

const ROWS = 5;
const BLOCK = 2;
const WIDTH = 52;

/** Five rows in blocks of two, the maxima rising and falling along them, for softmax_subgroup. */
export function softmaxCheck(constants: Readonly<Record<string, number>>): KernelCheck {
  const x = checkNumbers(ROWS * WIDTH, 1).map((v, i) => 9 * v + 30 * Math.sin(i));
  const y = new Float64Array(x.length);
  for (let base = 0; base < x.length; base += WIDTH) {
    const row = x.subarray(base, base + WIDTH);
    const top = Math.max(...row);
    const shift = top + Math.log(row.reduce((sum, v) => sum + Math.exp(v - top), 0));
    row.forEach((v, i) => {
      y[base + i] = constants['LOG'] ? v - shift : Math.exp(v - shift);
    });
  }
  return {
    inputs: { x },
    outputs: { y },
    params: { rows: ROWS, block: BLOCK, width: WIDTH / 4 },
    grid: [Math.ceil(ROWS / BLOCK), 1, 1],
    tolerance: 1e-4,
  };
}
