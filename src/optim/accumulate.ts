import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, scalar } from '../launch/dispatch.ts';
import { ceilDiv, overElements } from '../launch/grid.ts';
import source from '../../kernels/accumulate.wgsl';
import { chunks } from './chunks.ts';

const ACCUMULATE = kernel('accumulate', source);

/** Inputs sum, x; no outputs: sum is overwritten. */
export const accumulateOp = defineOp<Record<never, never>>({
  name: 'accumulate',
  shape([sum, x]) {
    if (elements(sum!.shape) !== elements(x!.shape))
      throw new MGFError(
        'shape',
        `accumulate: ${elements(sum!.shape)} and ${elements(x!.shape)} elements must be as many`,
      );
    return [];
  },
  forward(c) {
    return chunks(c.input(0), c.adapter).map((chunk) => {
      const n = ceilDiv(chunk.elements, 4);
      const { constants, grid } = overElements(n);
      return {
        kernel: ACCUMULATE,
        constants,
        grid,
        bind: { sum: chunk.of(c.input(0)), x: chunk.of(c.input(1)) },
        params: { n, keep: scalar('keep') },
      };
    });
  },
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  backward: null,
  mutates: [0],
  cost: ([x]) => ({ flops: 2 * elements(x!.shape), bytes: 12 * elements(x!.shape) }),
});

/**
 * sum = keep * sum + x in place over flat buffers; `keep` is the per-step scalar of that name (0 starts
 * anew).
 */
export function accumulate(sum: Value, x: Value): void {
  apply(accumulateOp, [sum, x], {});
}
