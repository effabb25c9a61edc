/**
 * Masked prediction of clusters, as HuBERT has it (Hsu et al. 2021, arXiv 2106.07447): which of 50 clusters
 * of log-mel frames a masked frame falls into, told from its context. HuBERT clusters beforehand; here
 * k-means runs along, a gradient step at a time: the centroids are parameters, and half the squared distance
 * of each frame to its nearest one is their loss. Takes the place of MGF's phoneme scale. The cluster of a
 * frame is an op of the third kind: a kernel in a file of its own, with the record that launches it.
 *
 *   mgf pretrain recordings/ --preset micro-mel --loss examples/hubert-like.ts --set loss_weights.phoneme=0
 *   --attach 3
 */
import {
  add,
  crossEntropy,
  defineElementwise,
  defineOp,
  defineRowLoss,
  kernel,
  linear,
  matmul,
  reshape,
  scale,
  type TrainingLoss,
  type Value,
} from 'mgf-webgpu';
import nearestText from './nearest.wgsl';

const CLUSTERS = 50;

export const square = defineElementwise({
  name: 'square',
  inputs: ['x'],
  forward: 'x * x',
  backward: { x: '2.0 * x' },
  reference: ({ x }) => x * x,
});

/** Half the smallest number of each row. */
export const halfSmallest = defineRowLoss({
  name: 'half_smallest',
  rows: ['d'],
  numbers: { least: { max: '-d' } },
  forward: '-0.5 * least',
  backward: { d: 'select(0.0, 0.5, -d == least)' },
  reference: ({ d }) => 0.5 * Math.min(...d),
});

const nearestOp = defineOp<Record<never, never>>({
  name: 'nearest',
  shape: ([distances]) => [{ shape: [distances!.shape[0]!], dtype: 'i32' }],
  forward(c) {
    const [rows, width] = c.input(0).shape as [number, number];
    return [
      {
        kernel: NEAREST,
        grid: [Math.ceil(rows / 64), 1, 1],
        bind: { distances: c.input(0), mask: c.input(1), labels: c.outputs[0]! },
        params: { rows, width },
      },
    ];
  },
  backward: null, // a choice has no slope
  saves: { inputs: [], outputs: [] },
  differentiable: [],
  cost: ([distances]) => ({
    flops: distances!.shape[0]! * distances!.shape[1]!,
    bytes: 4 * distances!.shape[0]! * distances!.shape[1]!,
  }),
});
const NEAREST = kernel('nearest', nearestText);

/** |x_n - c_k|^2 of x [N, W] and c [K, W] -> [N, K], as |x|^2 - 2 x c + |c|^2. */
function distances(x: Value, c: Value): Value {
  const [N, W] = x.shape as [number, number];
  const K = c.shape[0]!;
  const ones = (rows: number, columns: number): Value =>
    x.graph.constant(`ones ${rows} ${columns}`, [rows, columns], new Float32Array(rows * columns).fill(1));
  const lengths = add(
    matmul(square({ x }), ones(W, K)),
    matmul(ones(N, W), square({ x: c }), { transposeB: true }),
  );
  return add(lengths, scale(matmul(x, c, { transposeB: true }), -2));
}

export default {
  name: 'hubert_like',
  parameters: ({ n_mels }, width) => [
    { name: 'centroids', shape: [CLUSTERS, 2 * n_mels], init: { normal: 0.5 }, decay: false },
    { name: 'classes.weight', shape: [CLUSTERS, width] },
    { name: 'classes.bias', shape: [CLUSTERS] },
  ],
  build({ graph, state, weights, mel, spanMask }) {
    const [R, T, W] = mel.target.shape as [number, number, number];
    const frames = reshape(mel.target, [R * T, W]);
    const apart = distances(frames, weights.get('centroids'));
    const labels = graph.apply(nearestOp, [apart, reshape(spanMask!, [R * T])], {})[0]!;
    const logits = linear(
      reshape(state, [R * T, state.shape[2]!]),
      weights.get('classes.weight'),
      weights.get('classes.bias'),
    );
    return add(crossEntropy(logits, labels), scale(halfSmallest({ d: apart }), 1 / W));
  },
} satisfies TrainingLoss;
