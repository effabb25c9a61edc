/**
 * The table of workloads: what is computed, on which inputs, and how much arithmetic and memory traffic that
 * is.
 */
import { uniforms } from '../../src/random/uniforms.ts';
import { elements } from '../../src/graph/shape.ts';
import { MGFError } from '../../src/errors.ts';
import type { HostTensor, HostTensors, Work, Workload } from './contract.ts';
import { torchStepSets } from './torch-step.ts';

type Kind = 'normal' | 'gain' | 'small' | 'negatives';

/**
 * An input: its shape and what it is filled with. `normal`: about N(0, scale); `gain`: about N(1, 0.1);
 * `small`: about N(0, 0.1).
 */
export interface InputSpec {
  readonly shape: readonly number[];
  readonly kind: Kind;
  readonly scale?: number;
}

const convFrames = (L: number, K: number, stride: number): number => Math.floor((L - K) / stride) + 1;

/**
 * The inputs of a computation in their order, without `up`. The torch step brings its own
 * (bench/workloads/torch-step.ts).
 */
export function inputsOf(work: Work): Record<string, InputSpec> {
  const normal = (...shape: number[]): InputSpec => ({ shape, kind: 'normal' });
  const weight = (out: number, fanIn: number): InputSpec => ({
    shape: [out, fanIn],
    kind: 'normal',
    scale: 1 / Math.sqrt(fanIn),
  });
  const gain = (n: number): InputSpec => ({ shape: [n], kind: 'gain' });
  const bias = (n: number): InputSpec => ({ shape: [n], kind: 'small' });
  switch (work.op) {
    case 'matmul':
      return { a: normal(work.M, work.K), b: normal(work.K, work.N) };
    case 'conv1d':
      return { x: normal(work.B, work.L, work.Cin), w: normal(work.Cout, work.K, work.Cin) };
    case 'softmax':
      return { x: normal(work.rows, work.columns) };
    case 'layer_norm':
      return { x: normal(work.rows, work.columns), weight: gain(work.columns), bias: bias(work.columns) };
    case 'attention': {
      const shape = [work.B, work.H, work.T, work.D];
      return { q: normal(...shape), k: normal(...shape), v: normal(...shape) };
    }
    case 'info_nce':
      return {
        anchors: normal(work.N, work.P),
        candidates: normal(work.N, work.P),
        negatives: { shape: [work.N, work.K], kind: 'negatives' },
      };
    case 'transformer_layer': {
      const { B, T, D, F } = work;
      return {
        x: normal(B, T, D),
        'norm1.weight': gain(D),
        'norm1.bias': bias(D),
        'qkv.weight': weight(3 * D, D),
        'qkv.bias': bias(3 * D),
        'proj.weight': weight(D, D),
        'proj.bias': bias(D),
        'norm2.weight': gain(D),
        'norm2.bias': bias(D),
        'ffn1.weight': weight(F, D),
        'ffn1.bias': bias(F),
        'ffn2.weight': weight(D, F),
        'ffn2.bias': bias(D),
      };
    }
    case 'torch_step':
      throw new MGFError('usage', 'the torch step makes its own inputs');
  }
}

/** Shape of y. */
export function outputShape(work: Work): readonly number[] {
  switch (work.op) {
    case 'matmul':
      return [work.M, work.N];
    case 'conv1d':
      return [work.B, convFrames(work.L, work.K, work.stride), work.Cout];
    case 'softmax':
    case 'layer_norm':
      return [work.rows, work.columns];
    case 'attention':
      return [work.B, work.H, work.T, work.D];
    case 'transformer_layer':
      return [work.B, work.T, work.D];
    case 'info_nce':
    case 'torch_step':
      return [1];
  }
}

/**
 * FLOPs of the forward pass, counted as the ops' `cost` does: 2 for a multiply-add of a product, 5 an element
 * for softmax, 8 for layer norm.
 */
function forwardFlops(work: Work): number {
  switch (work.op) {
    case 'matmul':
      return 2 * work.M * work.N * work.K;
    case 'conv1d':
      return 2 * elements(outputShape(work)) * work.K * work.Cin;
    case 'softmax':
      return 5 * work.rows * work.columns;
    case 'layer_norm':
      return 8 * work.rows * work.columns;
    case 'attention':
      return work.B * work.H * work.T * work.T * (4 * work.D + 5);
    case 'info_nce':
      return 2 * work.N * (work.K + 1) * work.P + 4 * work.N * work.P;
    case 'transformer_layer': {
      const { B, T, D, F, H } = work;
      return 2 * B * T * D * (4 * D + 2 * F) + B * T * T * (4 * D + 5 * H) + 16 * B * T * D;
    }
    case 'torch_step':
      return torchStepFlops(work.B, work.seconds);
  }
}

/**
 * Convolutions (64 channels), four transformer layers (width 128, inner 512) and projections; see
 * bench/workloads/torch-step.ts. Loss and optimiser left out.
 */
function torchStepFlops(B: number, seconds: number): number {
  let length = 16000 * seconds;
  let flops = 0;
  [
    [10, 5],
    [3, 2],
    [3, 2],
    [3, 2],
    [3, 2],
    [2, 2],
    [2, 2],
  ].forEach(([K, stride], i) => {
    length = convFrames(length, K!, stride!);
    flops += 2 * B * length * 64 * K! * (i ? 64 : 1);
  });
  const layer = forwardFlops({ op: 'transformer_layer', B, T: length, D: 128, H: 4, F: 512 });
  return flops + 4 * layer + 2 * B * length * 128 * (64 + 64 + 128);
}

function workload(suite: string, name: string, work: Work, grad: boolean): Workload {
  // Backward counts as twice forward: a product has two gradients of its own size.
  const flops = forwardFlops(work) * (grad ? 3 : 1);
  if (work.op === 'torch_step')
    return { name, suite, work, grad, flops, bytes: 4 * (16000 * work.seconds * work.B + 7 * 958464) };
  const inputs = Object.values(inputsOf(work));
  const y = elements(outputShape(work));
  const all = inputs.reduce((sum, i) => sum + elements(i.shape), 0);
  const floats = inputs.reduce((sum, i) => sum + (i.kind === 'negatives' ? 0 : elements(i.shape)), 0);
  return { name, suite, work, grad, flops, bytes: 4 * (all + y + (grad ? y + floats : 0)) };
}

const both = (name: string, work: Work): Workload[] => [
  workload('kernels', name, work, false),
  workload('kernels', `${name}-grad`, work, true),
];

/** Everything that engines are compared at. */
export const WORKLOADS: readonly Workload[] = [
  ...both('matmul-1024', { op: 'matmul', M: 1024, N: 1024, K: 1024 }),
  ...both('matmul-1500x768x768', { op: 'matmul', M: 1500, N: 768, K: 768 }),
  ...both('conv1d-512-k3s2', { op: 'conv1d', B: 1, L: 1600, Cin: 512, Cout: 512, K: 3, stride: 2 }),
  ...both('conv1d-1-512-k10s5', { op: 'conv1d', B: 1, L: 16000, Cin: 1, Cout: 512, K: 10, stride: 5 }),
  ...both('softmax-1500x768', { op: 'softmax', rows: 1500, columns: 768 }),
  ...both('layer_norm-1500x768', { op: 'layer_norm', rows: 1500, columns: 768 }),
  ...[150, 500, 1500].flatMap((T) => both(`attention-${T}`, { op: 'attention', B: 1, H: 12, T, D: 64 })),
  ...both('info_nce-800x100x256', { op: 'info_nce', N: 800, K: 100, P: 256 }),
  ...both('transformer-layer', { op: 'transformer_layer', B: 8, T: 99, D: 128, H: 4, F: 512 }),
  workload('step', 'torch-step', { op: 'torch_step', B: 8, seconds: 2 }, true),
];

/** A workload of any size, for tests and studies of growth. */
export const workloadOf = (name: string, work: Work, grad: boolean): Workload =>
  workload('kernels', name, work, grad);

function fill({ shape, kind, scale = 1 }: InputSpec, next: () => number): HostTensor {
  const n = elements(shape);
  if (kind === 'negatives') {
    // Uniform over the other rows.
    const [N, K] = shape as [number, number];
    const data = new Int32Array(n);
    for (let i = 0; i < n; i++) {
      const draw = Math.floor(next() * (N - 1));
      data[i] = draw + Number(draw >= Math.floor(i / K));
    }
    return { shape, data };
  }
  const data = new Float32Array(n);
  const spread = kind === 'normal' ? scale : 0.1;
  const centre = kind === 'gain' ? 1 : 0;
  // The sum of three uniforms has variance 1/4.
  for (let i = 0; i < n; i++) data[i] = centre + spread * 2 * (next() + next() + next() - 1.5);
  return { shape, data };
}

/** Input sets of a workload, for arms to rotate through. */
export const inputSets = (workload: Workload, count = 2): HostTensors[] =>
  workload.work.op === 'torch_step'
    ? torchStepSets(1, workload.work, count)
    : Array.from({ length: count }, (_, i) => createInputs(workload, i + 1));

/** Inputs of a workload by name, a function of the seed; with `up` where gradients are asked for. */
export function createInputs({ work, grad }: Workload, seed: number): HostTensors {
  const specs: Record<string, InputSpec> = {
    ...inputsOf(work),
    ...(grad && { up: { shape: outputShape(work), kind: 'normal' as const } }),
  };
  return Object.fromEntries(
    Object.entries(specs).map(([name, spec], i) => [name, fill(spec, uniforms(1000 * seed + i + 1))]),
  );
}
