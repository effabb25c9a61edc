import alphaBetaText from '../../../kernels/ctc_alpha_beta.wgsl';
import gradientText from '../../../kernels/ctc_gradient.wgsl';
import { checkOptions } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import type { AdapterProfile } from '../../gpu/device.ts';
import { apply, type Value } from '../../graph/graph.ts';
import { f32, formatShape, type Spec } from '../../graph/shape.ts';
import { defineOp } from '../../launch/op.ts';
import { kernel, type Dispatch } from '../../launch/dispatch.ts';
import { ceilDiv } from '../../launch/grid.ts';
import { overItems, totals } from '../lib/reduce.ts';
import { logSoftmaxInto, logSoftmaxReference } from '../softmax.ts';

const alphaBetaKernel = kernel('ctc_alpha_beta', alphaBetaText);
const gradientKernel = kernel('ctc_gradient', gradientText);

interface CTCAttrs {
  readonly blank: number;
  readonly zeroInfinity: boolean;
}

/** Bits of +infinity in f32: WGSL has no literal for it. */
const INFINITY_BITS = 0x7f800000;

function sizes(logits: Spec, targets: Spec) {
  const [B, T, C] = logits.shape as [number, number, number];
  const S = targets.shape[1]!;
  return { B, T, C, S, padded: ceilDiv(B, 4) * 4 };
}

function recursion(
  adapter: AdapterProfile,
  BETA: number,
  logp: Value,
  targets: Value,
  attrs: CTCAttrs,
  bind: Record<string, Value>,
): Dispatch {
  const { B, T, C, S, padded } = sizes(logp, targets);
  const WG = adapter.family === 'cpu' ? adapter.subgroupSize : 128;
  return {
    kernel: alphaBetaKernel,
    constants: { WG, BETA },
    grid: [B, 1, 1],
    bind: { logp, targets, ...bind },
    params: {
      batch: B,
      padded,
      time: T,
      labels: S,
      classes: C,
      blank: attrs.blank,
      impossible: attrs.zeroInfinity ? 0 : INFINITY_BITS,
    },
  };
}

/**
 * Inputs logits, targets, input lengths, target lengths. Outputs the loss, and for backward log-softmax,
 * alpha [B, T, 2S + 1] and facts [B, 4].
 */
export const ctcLossOp = defineOp<CTCAttrs>({
  name: 'ctc_loss',
  shape([logits, targets, inputLengths, targetLengths], { blank }) {
    const fail = (why: string): never => {
      throw new MGFError('shape', `ctc_loss: ${why}`);
    };
    const [B, T, C] = logits!.shape;
    if (logits!.shape.length !== 3) fail(`logits must be [B, T, C], got ${formatShape(logits!.shape)}`);
    if (targets!.shape.length !== 2 || targets!.shape[0] !== B)
      fail(`targets must be [${B}, S], got ${formatShape(targets!.shape)}`);
    for (const [what, lengths] of [
      ['input', inputLengths!],
      ['target', targetLengths!],
    ] as const) {
      if (lengths.shape.length !== 1 || lengths.shape[0] !== B)
        fail(`${what} lengths must be [${B}], got ${formatShape(lengths.shape)}`);
    }
    if ([targets!, inputLengths!, targetLengths!].some((v) => v.dtype !== 'i32'))
      fail('targets and lengths must be i32');
    if (!(Number.isInteger(blank) && blank >= 0 && blank < C!))
      fail(`blank must be a class in 0 .. ${C! - 1}, got ${blank}`);
    return [f32(1), f32(B!, T!, C!), f32(B!, T!, 2 * targets!.shape[1]! + 1), f32(B!, 4)];
  },
  forward(c): Dispatch[] {
    const [logits, targets, input_lengths, target_lengths] = [0, 1, 2, 3].map((i) => c.input(i)) as [
      Value,
      Value,
      Value,
      Value,
    ];
    const [loss, logp, states, facts] = c.outputs as [Value, Value, Value, Value];
    const { B, padded } = sizes(logits, targets);
    const losses = c.temp([padded]);
    return [
      logSoftmaxInto(c.adapter, logits, logp),
      recursion(c.adapter, 0, logp, targets, c.attrs, {
        input_lengths,
        target_lengths,
        states,
        facts,
        losses,
      }),
      totals(c.adapter, losses, null, padded, B, 1, loss, c.temp([1])),
    ];
  },
  saves: { inputs: [1, 2, 3], outputs: [1, 2, 3] },
  differentiable: [0],
  backward(c): Dispatch[] {
    const [targets, input_lengths, target_lengths] = [1, 2, 3].map((i) => c.input(i)!) as [
      Value,
      Value,
      Value,
    ];
    const [logp, alpha, facts] = [1, 2, 3].map((i) => c.output(i)) as [Value, Value, Value];
    const { B, T, C, S } = sizes(logp, targets);
    const beta = c.temp(alpha.shape);
    const { constants, grid } = overItems(B * T, c.adapter);
    return [
      recursion(c.adapter, 1, logp, targets, c.attrs, { input_lengths, target_lengths, states: beta }),
      {
        kernel: gradientKernel,
        constants,
        grid,
        bind: { logp, alpha, beta, targets, facts, up: c.upstream(0)!, dlogits: c.grad(0)! },
        params: { batch: B, time: T, labels: S, classes: C, blank: c.attrs.blank },
      },
    ];
  },
  cost([logits, targets]) {
    const { B, T, C, S } = sizes(logits!, targets!);
    return { flops: 10 * B * T * (2 * S + 1) + 5 * B * T * C, bytes: 4 * B * T * (2 * C + 2 * (2 * S + 1)) };
  },
});

/**
 * Connectionist temporal classification (Graves et al. 2006) of logits [B, T, C] against targets i32 [B, S]
 * -> [1]; the softmax is inside. inputLengths, targetLengths i32 [B], at most T and S; targets lie in 0 .. C
 * - 1 and are not `blank` (default 0). Each -log p(target) is divided by max(target length, 1), then the mean
 * over B is taken (PyTorch's reduction 'mean'). An utterance too short for its target has no path: its loss
 * is infinite, or 0 with `zeroInfinity` (default true); its gradient is 0 either way. Memory: B T (2S + 1)
 * numbers kept for backward.
 * @throws MGFError 'shape'
 */
export function ctcLoss(
  logits: Value,
  targets: Value,
  inputLengths: Value,
  targetLengths: Value,
  options: { blank?: number; zeroInfinity?: boolean } = {},
): Value {
  checkOptions('ctcLoss', options, { blank: 'a number?', zeroInfinity: 'true or false?' });
  return apply(ctcLossOp, [logits, targets, inputLengths, targetLengths], {
    blank: options.blank ?? 0,
    zeroInfinity: options.zeroInfinity ?? true,
  })[0]!;
}

/** `ctcLoss` in float64, one utterance at a time by the same recursion. shape: [B, T, C]. */
export function ctcLossReference(
  logits: Float64Array,
  targets: ArrayLike<number>,
  inputLengths: ArrayLike<number>,
  targetLengths: ArrayLike<number>,
  [B, T, C]: readonly [number, number, number],
  { blank, zeroInfinity }: CTCAttrs,
): number {
  const add = (...terms: number[]): number => {
    const top = Math.max(...terms);
    return top === -Infinity ? top : top + Math.log(terms.reduce((sum, v) => sum + Math.exp(v - top), 0));
  };
  const pitch = targets.length / B;
  const logp = logSoftmaxReference(logits, C);
  let mean = 0;
  for (let b = 0; b < B; b++) {
    const S = targetLengths[b]!;
    const labels = Array.from({ length: 2 * S + 1 }, (_, s) =>
      s % 2 ? targets[b * pitch + (s - 1) / 2]! : blank,
    );
    let alpha = labels.map(() => -Infinity);
    for (let t = 0; t < inputLengths[b]!; t++) {
      const before = alpha;
      alpha = labels.map((label, s) => {
        const one = s > 0 ? before[s - 1]! : -Infinity;
        const two = s > 1 && label !== blank && label !== labels[s - 2] ? before[s - 2]! : -Infinity;
        return (
          (t === 0 ? (s < 2 ? 0 : -Infinity) : add(before[s]!, one, two)) + logp[(b * T + t) * C + label]!
        );
      });
    }
    const loss = -add(alpha.at(-1)!, S ? alpha.at(-2)! : -Infinity) / Math.max(S, 1);
    mean += (loss === Infinity && zeroInfinity ? 0 : loss) / B;
  }
  return mean;
}
