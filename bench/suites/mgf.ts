/**
 * This engine's arm: a workload built of public ops and compiled to one Program per input set, so that
 * nothing is uploaded while it is timed.
 */
import { MGFError } from '../../src/errors.ts';
import type { Gpu, Precision } from '../../src/gpu/device.ts';
import { BufferUsage } from '../../src/gpu/flags.ts';
import { Graph, type Value } from '../../src/graph/graph.ts';
import { transformerLayer } from '../../src/nn/layers.ts';
import { Weights } from '../../src/nn/weights.ts';
import { attention } from '../../src/ops/attention/attention.ts';
import { conv1d } from '../../src/ops/conv/conv.ts';
import { vectorJacobianProduct } from '../../src/ops/grad.ts';
import { maskedInfoNCE } from '../../src/ops/losses/info-nce.ts';
import { layerNorm } from '../../src/ops/norm/layer-norm.ts';
import { matmul } from '../../src/ops/gemm/matmul.ts';
import { softmax } from '../../src/ops/softmax.ts';
import { compile } from '../../src/plan/compile.ts';
import type { Program } from '../../src/plan/program.ts';
import { byteSize, type Region } from '../../src/plan/storage.ts';
import type { HostTensors, Work, Workload } from '../workloads/contract.ts';
import type { OwnArm } from './measure.ts';
import { deviceTime } from '../../src/measure/profile.ts';
import {
  buildTorchStep,
  TORCH_STEP_DATA,
  type TorchStepBatch,
  type TorchStepWork,
} from '../workloads/torch-step.ts';

type Values = Readonly<Record<string, Value>>;

/** y of a computation, from its inputs by name. */
export type BuildWork = (work: Work, inputs: Values) => Value;

/** Names of the contract -> names of src/nn/layers.ts. */
const LAYER: Readonly<Record<string, string>> = {
  norm1: 'layer_norm',
  qkv: 'attention.qkv_proj',
  proj: 'attention.out_proj',
  norm2: 'final_layer_norm',
  ffn1: 'feed_forward.intermediate_dense',
  ffn2: 'feed_forward.output_dense',
};

/** The computation as a user would write it. */
export const buildWork: BuildWork = (work, v) => {
  switch (work.op) {
    case 'matmul':
      return matmul(v['a']!, v['b']!);
    case 'conv1d':
      return conv1d(v['x']!, v['w']!, null, { stride: work.stride });
    case 'softmax':
      return softmax(v['x']!);
    case 'layer_norm':
      return layerNorm(v['x']!, v['weight']!, v['bias']!);
    case 'attention':
      return attention(v['q']!, v['k']!, v['v']!);
    case 'info_nce': {
      const anchors = v['anchors']!;
      const own = anchors.graph.constant(
        'own rows',
        [work.N],
        Int32Array.from({ length: work.N }, (_, i) => i),
      );
      return maskedInfoNCE(anchors, v['candidates']!, own, v['negatives']!)[0];
    }
    case 'transformer_layer': {
      const weights = new Map(
        Object.entries(LAYER).flatMap(([from, to]) =>
          ['weight', 'bias'].map((part): [string, Value] => [`${to}.${part}`, v[`${from}.${part}`]!]),
        ),
      );
      return transformerLayer(new Weights(weights), v['x']!, {
        heads: work.H,
        eps: 1e-5,
        stable: true,
        keyMask: null,
        hiddenDropout: 0,
        attentionDropout: 0,
      });
    }
    case 'torch_step':
      throw new MGFError('usage', 'the torch step is compiled by bench/workloads/torch-step.ts');
  }
};

/** The training step: the data of a set go up with it, as in training; parameters go on from run to run. */
async function torchStepArm(
  gpu: Gpu,
  { B, seconds }: TorchStepWork,
  sets: readonly HostTensors[],
): Promise<OwnArm> {
  const part = (set: HostTensors, data: boolean): HostTensors =>
    Object.fromEntries(
      Object.entries(set).filter(([name]) => (TORCH_STEP_DATA as readonly string[]).includes(name) === data),
    );
  let current = 0;
  let count = 0;
  let loss = NaN;
  const step = await buildTorchStep(gpu, {
    B,
    seconds,
    inputs: {
      frames: sets[0]!['mask']!.shape[1]!,
      anchors: sets[0]!['anchor']!.shape[0]!,
      parameters: part(sets[0]!, false),
      batch: () => part(sets[current]!, true) as unknown as TorchStepBatch,
    },
  });
  return {
    engine: 'mgf',
    deviceTime: null,
    precision: 'f32',
    async run(set) {
      current = set;
      const result = await step.step(count++);
      loss = result.loss;
      return result.ms;
    },
    poison: () => step.programs.forEach((p) => p.poison()),
    outputs: async () => ({ y: Float32Array.of(loss) }),
    peakBytes: async () => step.bytes,
    dispose: async () => step.destroy(),
  };
}

/**
 * Opens the arm of a workload; `precision` is what matrix products multiply (the torch step keeps to f32).
 * Throws what `compile` throws, among it MGFError 'limit' for tensors that the adapter has no room for.
 */
export async function mgfArm(
  gpu: Gpu,
  { name, work, grad }: Workload,
  sets: readonly HostTensors[],
  { build = buildWork, precision = 'f32' }: { build?: BuildWork; precision?: Precision } = {},
): Promise<OwnArm> {
  if (work.op === 'torch_step') return torchStepArm(gpu, work, sets);
  const buffers: GPUBuffer[] = [];
  const programs: Program[] = [];
  const wanted = Object.entries(sets[0]!)
    .filter(([input, t]) => input !== 'up' && t.data instanceof Float32Array)
    .map(([input]) => input);
  const dispose = (): void => {
    programs.forEach((p) => p.destroy());
    buffers.forEach((b) => b.destroy());
  };
  const resident = ({ shape, data }: HostTensors[string]): Region => {
    const buffer = gpu.device.createBuffer({
      label: name,
      size: byteSize(shape),
      usage: BufferUsage.STORAGE | BufferUsage.COPY_DST | BufferUsage.COPY_SRC,
    });
    gpu.device.queue.writeBuffer(buffer, 0, data);
    buffers.push(buffer);
    return { buffer, offset: 0, size: buffer.size };
  };
  try {
    for (const inputs of sets) {
      const graph = new Graph();
      const place = new Map<Value, Region>();
      const values = Object.fromEntries(
        Object.entries(inputs).map(([input, t]): [string, Value] => {
          const value = graph.state(input, t.shape, {
            dtype: t.data instanceof Float32Array ? 'f32' : 'i32',
            requiresGrad: grad && wanted.includes(input),
          });
          place.set(value, resident(t));
          return [input, value];
        }),
      );
      const y = build(work, values);
      const keep: Record<string, Value> = { y };
      // y is kept beside the gradients: forward is part of what is timed, even where no gradient needs its
      // result.
      if (grad)
        vectorJacobianProduct(
          new Map([[y, values['up']!]]),
          wanted.map((input) => values[input]!),
        ).forEach((g, i) => {
          keep[`d.${wanted[i]!}`] = g;
        });
      programs.push(await compile(gpu, graph, { place, keep, label: name, precision }));
    }
  } catch (error) {
    dispose();
    throw error;
  }
  const names = grad ? wanted.map((input) => `d.${input}`) : ['y'];
  let last = 0;
  const run = async (set: number): Promise<number> => {
    last = set;
    const started = performance.now();
    await programs[set]!.step();
    return performance.now() - started;
  };
  return {
    engine: 'mgf',
    run,
    precision,
    poison: () => programs.forEach((p) => p.poison()),
    deviceTime: gpu.device.features.has('timestamp-query') ? (set) => deviceTime(gpu, programs[set]!) : null,
    outputs: async () => {
      const out: Record<string, Float32Array> = {};
      for (const output of names) out[output] = (await programs[last]!.read(output)) as Float32Array;
      return out;
    },
    peakBytes: async () => programs[0]!.bytes + buffers.reduce((sum, b) => sum + b.size, 0) / sets.length,
    dispose: async () => dispose(),
  };
}
