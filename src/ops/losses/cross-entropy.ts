import backwardText from '../../../kernels/cross_entropy_backward.wgsl';
import forwardText from '../../../kernels/cross_entropy.wgsl';
import { checkOptions } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { f32, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { kernel } from '../../launch/dispatch.ts';
import { ceilDiv, overRows } from '../../launch/grid.ts';
import { totals } from '../lib/reduce.ts';

const forwardKernel = kernel('cross_entropy', forwardText);
const backwardKernel = kernel('cross_entropy_backward', backwardText);

function sizes(logits: Spec) {
  const [rows, classes] = logits.shape as [number, number];
  const VEC = Number(classes % 4 === 0);
  return { rows, classes, VEC, width: VEC ? classes / 4 : classes };
}

/**
 * Inputs logits, target. Outputs the loss, and for backward logsumexp [N] and the number of rows that count.
 */
export const crossEntropyOp = defineOp<{ ignoreIndex: number }>({
  name: 'cross_entropy',
  shape([logits, target]) {
    const N = logits!.shape[0];
    if (logits!.shape.length !== 2)
      throw new MGFError('shape', `cross_entropy: logits must be [N, C], got ${formatShape(logits!.shape)}`);
    if (target!.dtype !== 'i32' || target!.shape.length !== 1 || target!.shape[0] !== N) {
      throw new MGFError(
        'shape',
        `cross_entropy: logits ${formatShape(logits!.shape)} need an i32 target [${N}], got ` +
          `${target!.dtype} ${formatShape(target!.shape)}`,
      );
    }
    return [f32(1), f32(N!), f32(1)];
  },
  forward(c) {
    const logits = c.input(0);
    const [loss, logsumexp, denominator] = c.outputs as [Value, Value, Value];
    const { rows, classes, VEC, width } = sizes(logits);
    const padded = ceilDiv(rows, 4) * 4;
    const losses = c.temp([padded]);
    const counted = c.temp([padded]);
    const { constants, grid } = overRows(padded, c.adapter);
    return [
      {
        kernel: forwardKernel,
        constants: { ...constants, VEC },
        grid,
        bind: { logits, targets: c.input(1), logsumexp, losses, counted },
        params: { rows, padded, width, classes, ignored: c.attrs.ignoreIndex },
      },
      totals(c.adapter, losses, counted, padded, 1, 1, loss, denominator),
    ];
  },
  saves: { inputs: [0, 1], outputs: [1, 2] },
  differentiable: [0],
  backward(c) {
    const logits = c.input(0)!;
    const { rows, classes, VEC, width } = sizes(logits);
    const { constants, grid } = overRows(rows, c.adapter);
    return [
      {
        kernel: backwardKernel,
        constants: { ...constants, VEC },
        grid,
        bind: {
          logits,
          targets: c.input(1)!,
          logsumexp: c.output(1),
          up: c.upstream(0)!,
          denominator: c.output(2),
          dlogits: c.grad(0)!,
        },
        params: { rows, width, classes, ignored: c.attrs.ignoreIndex },
      },
    ];
  },
  cost([logits]) {
    const { rows, classes } = sizes(logits!);
    return { flops: 5 * rows * classes, bytes: 4 * rows * classes };
  },
});

/**
 * Mean cross-entropy of logits [N, C] with target i32 [N] -> [1], over the rows whose target is not
 * `ignoreIndex` (default -100, as in PyTorch); 0 when none is. Targets must lie in 0 .. C - 1 otherwise; the
 * caller checks them, the device only keeps them from reading elsewhere.
 * @throws MGFError 'shape'
 */
export const crossEntropy = (logits: Value, target: Value, options: { ignoreIndex?: number } = {}): Value => {
  checkOptions('crossEntropy', options, { ignoreIndex: 'a number?' });
  return apply(crossEntropyOp, [logits, target], { ignoreIndex: options.ignoreIndex ?? -100 })[0]!;
};

/** `crossEntropy` in float64. `C`: classes. */
export function crossEntropyReference(
  logits: Float64Array,
  target: ArrayLike<number>,
  C: number,
  ignoreIndex = -100,
): number {
  let sum = 0;
  let count = 0;
  for (let n = 0; n < target.length; n++) {
    if (target[n] === ignoreIndex) continue;
    const row = logits.subarray(n * C, (n + 1) * C);
    const top = Math.max(...row);
    sum += top + Math.log(row.reduce((s, v) => s + Math.exp(v - top), 0)) - row[target[n]!]!;
    count++;
  }
  return sum / Math.max(count, 1);
}
