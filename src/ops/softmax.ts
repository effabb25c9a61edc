import backwardText from '../../kernels/softmax_backward.wgsl';
import forwardText from '../../kernels/softmax.wgsl';
import subgroupText from '../../kernels/softmax_subgroup.wgsl';
import { apply, type Value } from '../graph/graph.ts';
import { elements, f32 } from '../graph/shape.ts';
import { defineOp } from '../launch/op.ts';
import { imageable } from '../launch/image.ts';
import { kernel, type Dispatch, type Kernel } from '../launch/dispatch.ts';
import type { AdapterProfile } from '../gpu/device.ts';
import { ceilDiv, overRows, spread } from '../launch/grid.ts';
import { softmaxCheck } from './softmax-check.ts';

const forwardKernel = kernel('softmax', forwardText);
const subgroupKernel = kernel('softmax_subgroup', subgroupText, softmaxCheck);
const backwardKernel = kernel('softmax_backward', backwardText);

/** A launch over the rows of the last axis, in vec4s where they are a multiple of 4 long. */
function launch(
  adapter: AdapterProfile,
  program: Kernel,
  LOG: number,
  like: Value,
  bind: Record<string, Value>,
): Dispatch {
  const width = like.shape.at(-1)!;
  const rows = elements(like.shape) / width;
  const VEC = Number(width % 4 === 0);
  const { constants, grid } = overRows(rows, adapter);
  return {
    kernel: program,
    constants: { ...constants, VEC, LOG },
    grid,
    bind,
    params: { rows, width: VEC ? width / 4 : width },
  };
}

/** y = softmax or log-softmax of x. */
function forward(adapter: AdapterProfile, LOG: number, x: Value, y: Value): Dispatch {
  const width = x.shape.at(-1)!;
  const rows = elements(x.shape) / width;
  const { name } = subgroupKernel;
  if (adapter.family !== 'cpu' || width % 4 !== 0 || adapter.rejected?.has(name))
    return launch(adapter, forwardKernel, LOG, x, { x, y });
  const block = ceilDiv(rows, 256);
  const IMAGE = Number(Boolean(adapter.images) && imageable(x.shape));
  return {
    kernel: subgroupKernel,
    variant: name,
    constants: { LOG, IMAGE },
    grid: spread(ceilDiv(rows, block)),
    bind: { x, y },
    params: { rows, block, width: width / 4 },
  };
}

/** y = log-softmax of x over the last axis, as a part of another op. */
export const logSoftmaxInto = (adapter: AdapterProfile, x: Value, y: Value): Dispatch =>
  forward(adapter, 1, x, y);

const softmaxLike = (name: string, LOG: number) =>
  defineOp<Record<never, never>>({
    name,
    shape: ([x]) => [f32(...x!.shape)],
    forward: (c) => [forward(c.adapter, LOG, c.input(0), c.outputs[0]!)],
    saves: { inputs: [], outputs: [0] },
    backward: (c) => [
      launch(c.adapter, backwardKernel, LOG, c.grad(0)!, {
        y: c.output(0),
        dy: c.upstream(0)!,
        dx: c.grad(0)!,
      }),
    ],
    cost: ([x]) => ({ flops: 5 * elements(x!.shape), bytes: 8 * elements(x!.shape) }),
  });

export const softmaxOp = softmaxLike('softmax', 0);
export const logSoftmaxOp = softmaxLike('log_softmax', 1);

/** exp(x) / sum(exp(x)) over the last axis; any shape. */
export const softmax = (x: Value): Value => apply(softmaxOp, [x], {})[0]!;

/** x - log(sum(exp(x))) over the last axis; any shape. */
export const logSoftmax = (x: Value): Value => apply(logSoftmaxOp, [x], {})[0]!;

/** `logSoftmax` in float64 over rows of `width`; its exp is `softmax`. */
export function logSoftmaxReference(x: Float64Array, width: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let base = 0; base < x.length; base += width) {
    const row = x.subarray(base, base + width);
    const top = Math.max(...row);
    const shift = top + Math.log(row.reduce((sum, v) => sum + Math.exp(v - top), 0));
    row.forEach((v, i) => {
      y[base + i] = v - shift;
    });
  }
  return y;
}
