import { adapterName, type AdapterPreference } from '../../src/gpu/adapter.ts';
import { dawnAdapter } from '../../src/gpu/dawn.ts';
import { TORCH_STEP } from '../workloads/torch-step.ts';
import type { Arm, HostTensor, HostTensors, OpenPeer, Workload } from '../workloads/contract.ts';
import { inverse, orders, packageVersion, permute, type OpWork } from './layout.ts';
import { OnnxGraph } from './onnx.ts';

/** What is used of onnxruntime-node, which is no dependency of this package (see `open`). */
interface Ort {
  Tensor: new (type: 'float32' | 'int32', data: HostTensor['data'], dims: readonly number[]) => OrtTensor;
  InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
}
interface OrtTensor {
  readonly data: Float32Array<ArrayBuffer>;
  readonly dims: readonly number[];
}
interface Session {
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

const PACKAGE = 'onnxruntime-node';

/** Conv is channels-first. */
const CONV = { x: [0, 2, 1], w: [0, 2, 1], y: [0, 2, 1] };
/** MultiHeadAttention has heads beside their channels. */
const ATTENTION = { q: [0, 2, 1, 3], k: [0, 2, 1, 3], v: [0, 2, 1, 3], y: [0, 2, 1, 3] };

/**
 * onnxruntime-node on its WebGPU execution provider, forward only. Weights are constants of the model, as
 * they would be in practice; data goes in from host memory and the output comes back to it, so those copies
 * are part of a run (an output left on the device is not waited for).
 *
 * It is in no list of dependencies: its install script fetches CUDA libraries from elsewhere than the
 * registry and fails where that is out of reach, and it would add 290 MB to every checkout.
 */
export const open: OpenPeer = async (prefer) => {
  let ort: Ort;
  try {
    const module = (await import(PACKAGE)) as { default?: Ort } & Ort;
    ort = module.default ?? module;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    return { missing: `not installed: npm i --no-save --ignore-scripts ${PACKAGE}@1.30.0` };
  }
  const adapter = await firstAdapter(prefer);
  if (typeof adapter !== 'string') return adapter;
  return {
    engine: 'ort',
    version:
      `${packageVersion(PACKAGE)}, its own Dawn on the first adapter (${adapter}), copies from and to ` +
      'the host included',
    unsupported,
    arm: async (workload, sets) => (unsupported(workload) ? null : arm(ort, workload.work as OpWork, sets)),
    async close() {},
  };
};

function unsupported({ work, grad }: Workload): string | null {
  return grad || work.op === 'torch_step' ? 'inference only: it has no backward' : null;
}

/**
 * Its adapter can neither be chosen nor asked for its name. It is the system's first one, which has to be the
 * one that is preferred.
 */
async function firstAdapter(prefer: AdapterPreference | undefined): Promise<string | { missing: string }> {
  const tried: string[] = [];
  const [first, wanted] = [await dawnAdapter(undefined, tried), await dawnAdapter(prefer, tried)];
  if (!first || !wanted) return { missing: `no adapter (${tried.join('; ')})` };
  const names = [first, wanted].map(({ adapter }) => adapterName(adapter.info)) as [string, string];
  if (names[0] !== names[1]) return { missing: `it would take ${names[0]}, not ${names[1]}` };
  if (first.runtime.includes('embedded')) return { missing: 'no Vulkan driver is installed' };
  return names[0];
}

const isWeight = (work: OpWork, name: string): boolean =>
  (work.op === 'conv1d' && name === 'w') ||
  (work.op === 'layer_norm' && name !== 'x') ||
  (work.op === 'transformer_layer' && name !== 'x');

async function arm(ort: Ort, work: OpWork, sets: readonly HostTensors[]): Promise<Arm> {
  const order: Record<string, readonly number[]> = work.op === 'attention' ? ATTENTION : orders(work, CONV);
  const sessions: Session[] = [];
  const feeds: Record<string, OrtTensor>[] = [];
  for (const set of sets) {
    const graph = new OnnxGraph();
    const fed: Record<string, OrtTensor> = {};
    for (const [name, given] of Object.entries(set)) {
      const tensor = order[name] ? permute(given, order[name]) : given;
      if (isWeight(work, name)) {
        // Linear layers multiply by the transposed weight, which a model file holds as such.
        graph.constant(
          name,
          work.op === 'transformer_layer' && tensor.shape.length === 2 ? permute(tensor, [1, 0]) : tensor,
        );
        continue;
      }
      graph.input(name, tensor);
      fed[name] = new ort.Tensor(
        tensor.data instanceof Int32Array ? 'int32' : 'float32',
        tensor.data,
        tensor.shape,
      );
    }
    feeds.push(fed);
    const { value, shape } = forward(graph, work);
    if (sessions.length > 0 && Object.keys(set).every((name) => !isWeight(work, name))) continue;
    sessions.push(
      await ort.InferenceSession.create(await graph.encode(value, shape), {
        // What it cannot run on the device is an error, not run by the CPU.
        executionProviders: ['webgpu'],
        logSeverityLevel: 3,
        extra: { session: { disable_cpu_ep_fallback: '1' } },
      }),
    );
  }
  let last: OrtTensor | null = null;
  return {
    engine: 'ort',
    async run(set) {
      const session = sessions[set] ?? sessions[0]!;
      const started = performance.now();
      last = (await session.run(feeds[set]!))['y']!;
      return performance.now() - started;
    },
    async outputs() {
      const out: Record<string, Float32Array> = {};
      if (last)
        out['y'] = (
          order['y'] ? permute({ shape: last.dims, data: last.data }, inverse(order['y'])).data : last.data
        ) as Float32Array;
      return out;
    },
    async dispose() {
      for (const session of sessions) await session.release();
    },
  };
}

function forward(g: OnnxGraph, work: OpWork): { value: string; shape: readonly number[] } {
  switch (work.op) {
    case 'matmul':
      return { value: g.node('MatMul', ['a', 'b']), shape: [work.M, work.N] };
    case 'conv1d':
      return {
        value: g.node('Conv', ['x', 'w'], {
          kernel_shape: { ints: [work.K] },
          strides: { ints: [work.stride] },
        }),
        shape: [work.B, work.Cout, Math.floor((work.L - work.K) / work.stride) + 1],
      };
    case 'softmax':
      return { value: g.node('Softmax', ['x'], { axis: { i: -1 } }), shape: [work.rows, work.columns] };
    case 'layer_norm':
      return { value: layerNorm(g, 'x', ''), shape: [work.rows, work.columns] };
    case 'attention': {
      const { B, H, T, D } = work;
      const rows = ['q', 'k', 'v'].map((name) => g.node('Reshape', [name, g.integers([B, T, H * D])]));
      return {
        value: g.node('Reshape', [attention(g, rows, H), g.integers([B, T, H, D])]),
        shape: [B, T, H, D],
      };
    }
    case 'info_nce':
      return { value: infoNce(g, work.N, work.K, work.P), shape: [1] };
    case 'transformer_layer':
      return { value: layer(g, work), shape: [work.B, work.T, work.D] };
  }
}

function layerNorm(g: OnnxGraph, x: string, prefix: string): string {
  return g.node('LayerNormalization', [x, `${prefix}weight`, `${prefix}bias`], {
    axis: { i: -1 },
    epsilon: { f: 1e-5 },
  });
}

function linear(g: OnnxGraph, x: string, name: string): string {
  return g.node('Add', [g.node('MatMul', [x, `${name}.weight`]), `${name}.bias`]);
}

/** Queries, keys and values [B, T, H D]. */
function attention(g: OnnxGraph, qkv: readonly string[], H: number): string {
  return g.node('com.microsoft.MultiHeadAttention', qkv, { num_heads: { i: H } });
}

function layer(g: OnnxGraph, { H }: Extract<OpWork, { op: 'transformer_layer' }>): string {
  const qkv = g.node(
    'Split',
    [linear(g, layerNorm(g, 'x', 'norm1.'), 'qkv')],
    { axis: { i: -1 }, num_outputs: { i: 3 } },
    3,
  );
  const mixed = attention(
    g,
    [0, 1, 2].map((i) => `${qkv} ${i}`),
    H,
  );
  const y = g.node('Add', ['x', linear(g, mixed, 'proj')]);
  const hidden = g.node('com.microsoft.Gelu', [linear(g, layerNorm(g, y, 'norm2.'), 'ffn1')]);
  return g.node('Add', [y, linear(g, hidden, 'ffn2')]);
}

function infoNce(g: OnnxGraph, N: number, K: number, P: number): string {
  const last = g.integers([-1]);
  const sum = (x: string): string => g.node('ReduceSum', [x, last], { keepdims: { i: 1 } });
  const unit = (x: string): string => g.node('Div', [x, g.node('Sqrt', [sum(g.node('Mul', [x, x]))])]);
  const anchors = unit('anchors');
  const candidates = unit('candidates');
  const right = sum(g.node('Mul', [anchors, candidates]));
  const others = g.node('Gather', [candidates, 'negatives'], { axis: { i: 0 } });
  const wrong = g.node('Reshape', [
    g.node('MatMul', [others, g.node('Reshape', [anchors, g.integers([N, P, 1])])]),
    g.integers([N, K]),
  ]);
  const temperature = g.constant('temperature', { shape: [], data: Float32Array.of(TORCH_STEP.temperature) });
  const logits = g.node('Div', [g.node('Concat', [right, wrong], { axis: { i: 1 } }), temperature]);
  const truth = g.node('Slice', [logits, g.integers([0]), g.integers([1]), g.integers([1])]);
  // Shifted by its maximum, 10 at most for cosines over 0.1, the sum of exponentials stays in range without
  // finding the maximum first.
  const total = g.node('Log', [sum(g.node('Exp', [logits]))]);
  return g.node('Reshape', [
    g.node('ReduceMean', [g.node('Sub', [total, truth]), g.integers([0])], { keepdims: { i: 0 } }),
    g.integers([1]),
  ]);
}
