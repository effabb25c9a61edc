import source from '../../kernels/mix.wgsl';
import weightsSource from '../../kernels/mix_weights.wgsl';
import { checkArguments } from '../check.ts';
import { MGFError } from '../errors.ts';
import { apply, type Value } from '../graph/graph.ts';
import { elements, formatShape } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { kernel, type Dispatch } from '../launch/dispatch.ts';
import { axisSum } from './layout.ts';
import { ceilDiv, overElements } from '../launch/grid.ts';
import { overItems } from './lib/reduce.ts';

const MIX = kernel('mix', source);
const MIX_WEIGHTS = kernel('mix_weights', weightsSource);

function term(x: Value, weights: Value, index: number, y: Value, add: boolean): Dispatch {
  const n = ceilDiv(elements(x.shape), 4);
  const { constants, grid } = overElements(n);
  return {
    kernel: MIX,
    constants: { ...constants, ADD: Number(add) },
    grid,
    bind: { x, weights, y },
    params: { n, index },
  };
}

/** The most tensors: their positions must be known before a node is. */
const MOST = 63;

/** Inputs weights, then the tensors. */
export const mixOp = defineOp<Record<never, never>>({
  name: 'mix',
  shape([weights, ...tensors]) {
    const shapes = tensors.map((x) => formatShape(x!.shape));
    if (tensors.length === 0 || shapes.some((s) => s !== shapes[0]))
      throw new MGFError('shape', `mix: the tensors must have one shape, got ${shapes.join(', ') || 'none'}`);
    if (tensors.length > MOST)
      throw new MGFError('shape', `mix: ${tensors.length} tensors are more than ${MOST}`);
    if (elements(weights!.shape) !== tensors.length)
      throw new MGFError(
        'shape',
        `mix: ${tensors.length} tensors need as many weights, got ${formatShape(weights!.shape)}`,
      );
    return [{ shape: tensors[0]!.shape, dtype: 'f32' }];
  },
  forward: (c) => c.inputs.slice(1).map((x, i) => term(x!, c.input(0), i, c.outputs[0]!, i > 0)),
  // Positions that a node lacks are null.
  saves: { inputs: Array.from({ length: MOST + 1 }, (_, i) => i), outputs: [] },
  backward(c) {
    const up = c.upstream(0)!;
    const weights = c.input(0)!;
    const dWeights = c.grad(0);
    const dispatches: Dispatch[] = [];
    const count = elements(weights.shape);
    const n = elements(up.shape);
    for (let i = 0; i < count; i++) {
      const dx = c.grad(i + 1);
      if (dx) dispatches.push(term(up, weights, i, dx, false));
    }
    if (!dWeights) return dispatches;
    const run = c.adapter.family === 'cpu';
    const parts = Math.min(ceilDiv(n, 16), run ? 64 * c.adapter.subgroupSize : 4096);
    const per = ceilDiv(n, parts);
    const sums = c.temp([count, parts]);
    const { constants, grid } = overItems(parts, c.adapter);
    for (let index = 0; index < count; index++) {
      dispatches.push({
        kernel: MIX_WEIGHTS,
        constants,
        grid,
        bind: { x: c.input(index + 1)!, up, sums },
        params: { n, parts, index, per: run ? per : 1, step: run ? 1 : parts, count: per },
      });
    }
    return [...dispatches, axisSum(sums, dWeights, parts, 1)];
  },
  cost: (inputs, [y]) => ({
    flops: 2 * (inputs.length - 1) * elements(y!.shape),
    bytes: 4 * inputs.length * elements(y!.shape),
  }),
});

/**
 * Weighted sum of tensors of one shape: sum over i of weights[i] tensors[i]. weights: as many numbers as
 * there are tensors, of any shape; softmax of a parameter gives SUPERB's mixture of hidden states (Yang et
 * al. 2021).
 * @throws MGFError 'shape'
 */
export function mix(tensors: readonly Value[], weights: Value): Value {
  checkArguments('mix', { tensors: [tensors, 'a list'] });
  return apply(mixOp, [weights, ...tensors], {})[0]!;
}

/** `mix` in float64. */
export const mixReference = (tensors: readonly Float64Array[], weights: Float64Array): Float64Array =>
  tensors[0]!.map((_, i) => tensors.reduce((sum, x, l) => sum + weights[l]! * x[i]!, 0));
