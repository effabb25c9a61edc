import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs-core';
import type { Rank, Scalar, Tensor, Tensor2D, Tensor3D, TensorLike, Variable } from '@tensorflow/tfjs-core';
import { MGFError } from '../../src/errors.ts';
import { TORCH_STEP, TORCH_STEP_DATA } from '../workloads/torch-step.ts';
import type { Arm, HostTensors, OpenPeer } from '../workloads/contract.ts';
import { inverse, orders, outputNames, packageVersion, permute, type OpWork } from './layout.ts';
import { withNavigatorGpu } from './shims.ts';

type TF = typeof TensorFlow;
type Tensors = Record<string, Tensor>;

/** tf.conv1d takes channels-last activations and weights [K, Cin, Cout]. */
const CONV = { x: [0, 1, 2], w: [1, 2, 0], y: [0, 1, 2] };

/**
 * TensorFlow.js on its WebGPU backend; gradients by `tf.grads`. Outputs are waited for by reading one element
 * of the last.
 */
export const open: OpenPeer = async (prefer) => {
  const { started: tf, adapter } = await withNavigatorGpu('tfjs', prefer, start);
  if (!tf)
    return {
      missing: 'not installed: npm i -D @tensorflow/tfjs-core @tensorflow/tfjs-backend-webgpu esbuild',
    };
  return {
    engine: 'tfjs',
    version: `${packageVersion('@tensorflow/tfjs-core')}, ${adapter}`,
    unsupported: () => null,
    arm: async ({ work, grad }, sets) =>
      work.op === 'torch_step' ? trainingArm(tf, sets) : opArm(tf, work, grad, sets),
    // Its backend stays, and so can be opened again.
    async close() {},
  };
};

/**
 * Loads the library with its WebGPU backend; null where it is not installed. Its gradients are published as
 * ES modules for bundlers only, which Node cannot import, so all of it is bundled here first. The bundle is
 * evaluated where `navigator.gpu` is, since the backend registers itself only there.
 */
async function start(): Promise<TF | null> {
  const contents = `
    export * from '@tensorflow/tfjs-core';
    import '@tensorflow/tfjs-core/dist/register_all_gradients';
    import '@tensorflow/tfjs-backend-webgpu';`;
  let code: string;
  try {
    const { build } = await import('esbuild');
    const { outputFiles } = await build({
      stdin: { contents, resolveDir: import.meta.dirname ?? process.cwd() },
      bundle: true,
      write: false,
      format: 'cjs',
      platform: 'node',
      logLevel: 'silent',
      mainFields: ['module', 'main'],
    });
    code = outputFiles[0]!.text;
  } catch (error) {
    if (
      (error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND' &&
      !/Could not resolve "@tensorflow/.test((error as Error).message)
    )
      throw error;
    return null;
  }
  const module = { exports: {} };
  new Function('module', 'exports', 'require', code)(module, module.exports, createRequire(import.meta.url));
  const tf = module.exports as TF;
  if (!(await tf.setBackend('webgpu')))
    throw new MGFError('no-adapter', 'the WebGPU backend of TensorFlow.js did not start');
  return tf;
}

function upload(tf: TF, set: HostTensors, order: Record<string, readonly number[]>): Tensors {
  // By itself the library uploads a tensor when a kernel first reads it, which would be part of a run.
  const backend = tf.backend() as unknown as { uploadToGPU(id: object): void };
  return Object.fromEntries(
    Object.entries(set).map(([name, tensor]) => {
      const { shape, data } = order[name] ? permute(tensor, order[name]) : tensor;
      const uploaded = tf.tensor(
        data.slice() as TensorLike,
        [...shape],
        data instanceof Int32Array ? 'int32' : 'float32',
      );
      backend.uploadToGPU(uploaded.dataId);
      return [name, uploaded];
    }),
  );
}

/** Waits for everything submitted so far, of which `last` is the last. */
async function finish(tf: TF, last: Tensor): Promise<void> {
  const one = tf.tidy(() => tf.slice(tf.reshape(last, [-1]), [0], [1]));
  await one.data();
  one.dispose();
}

async function download(
  outputs: Tensors,
  order: Record<string, readonly number[]>,
): Promise<Record<string, Float32Array>> {
  const out: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    const data = Float32Array.from(await tensor.data());
    const axes = order[name.replace(/^d\./, '')];
    out[name] = axes ? (permute({ shape: tensor.shape, data }, inverse(axes)).data as Float32Array) : data;
  }
  return out;
}

function opArm(tf: TF, work: OpWork, grad: boolean, sets: readonly HostTensors[]): Arm {
  const order = orders(work, CONV);
  const resident = sets.map((set) => upload(tf, set, order));
  const wanted = outputNames(sets[0]!, grad);
  const differentiated = wanted.map((name) => name.slice(2));
  const compute = (inputs: Tensors): Tensors =>
    tf.tidy((): Tensors => {
      if (!grad) return { y: forward(tf, work, inputs) };
      const y = (...values: Tensor[]): Tensor =>
        forward(tf, work, {
          ...inputs,
          ...Object.fromEntries(values.map((value, i) => [differentiated[i]!, value])),
        });
      const gradients = tf.grads(y as (...x: Tensor[]) => Tensor)(
        differentiated.map((name) => inputs[name]!),
        inputs['up']!,
      );
      return Object.fromEntries(gradients.map((gradient, i) => [wanted[i]!, gradient]));
    });
  let last: Tensors = {};
  return {
    engine: 'tfjs',
    async run(set) {
      const started = performance.now();
      const outputs = compute(resident[set]!);
      await finish(tf, outputs[wanted.at(-1)!]!);
      const ms = performance.now() - started;
      tf.dispose(last);
      last = outputs;
      return ms;
    },
    outputs: () => download(last, order),
    peakBytes: () => peakBytes(tf, () => compute(resident[0]!)),
    async dispose() {
      tf.dispose([last, ...resident]);
    },
  };
}

/** Peak of the tensors alive, inputs included, in one more run. */
async function peakBytes(tf: TF, run: () => Tensors): Promise<number> {
  const { peakBytes: peak, result } = await tf.profile(run as () => never);
  tf.dispose(result);
  return peak;
}

function forward(tf: TF, work: OpWork, a: Tensors): Tensor {
  switch (work.op) {
    case 'matmul':
      return tf.matMul(a['a']!, a['b']!);
    case 'conv1d':
      return tf.conv1d(a['x'] as Tensor3D, a['w'] as Tensor3D, work.stride, 'valid');
    case 'softmax':
      return tf.softmax(a['x']!, -1);
    case 'layer_norm':
      return layerNorm(tf, a['x']!, a, '');
    case 'attention':
      return attention(tf, a['q']!, a['k']!, a['v']!);
    case 'info_nce': {
      const all = unit(tf, a['candidates']!);
      return tf.reshape(
        tf.mean(contrast(tf, unit(tf, a['anchors']!), all, tf.gather(all, a['negatives']!))),
        [1],
      );
    }
    case 'transformer_layer':
      return block(
        tf,
        a['x']!,
        a,
        { norm1: 'norm1', qkv: 'qkv', proj: 'proj', norm2: 'norm2', ffn1: 'ffn1', ffn2: 'ffn2' },
        work.H,
      );
  }
}

function layerNorm(tf: TF, x: Tensor, a: Tensors, prefix: string): Tensor {
  const { mean, variance } = tf.moments(x, -1, true);
  return tf.add(
    tf.mul(tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-5))), a[`${prefix}weight`]!),
    a[`${prefix}bias`]!,
  );
}

function linear(tf: TF, x: Tensor, a: Tensors, name: string): Tensor {
  const weight = a[`${name}.weight`]!;
  const rows = tf.reshape(x, [-1, weight.shape[1]!]);
  const y = tf.fused.matMul({ a: rows, b: weight, transposeB: true, bias: a[`${name}.bias`]! });
  return tf.reshape(y, [...x.shape.slice(0, -1), weight.shape[0]!]);
}

function gelu(tf: TF, x: Tensor): Tensor {
  return tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1));
}

/** q, k, v [B, H, T, D]. */
function attention(tf: TF, q: Tensor, k: Tensor, v: Tensor): Tensor {
  return tf.matMul(tf.softmax(tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(q.shape[3]!)), -1), v);
}

/** x [B, T, D] through a pre-norm transformer layer whose parts are named by `n`. */
function block(
  tf: TF,
  x: Tensor,
  a: Tensors,
  n: Record<'norm1' | 'qkv' | 'proj' | 'norm2' | 'ffn1' | 'ffn2', string>,
  H: number,
): Tensor {
  const [B, T, D] = x.shape as [number, number, number];
  const qkv = tf.reshape(linear(tf, layerNorm(tf, x, a, `${n.norm1}.`), a, n.qkv), [B, T, 3, H, D / H]);
  const [q, k, v] = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4])) as [Tensor, Tensor, Tensor];
  const mixed = tf.reshape(tf.transpose(attention(tf, q, k, v), [0, 2, 1, 3]), [B, T, D]);
  const y = tf.add(x, linear(tf, mixed, a, n.proj));
  return tf.add(
    y,
    linear(tf, gelu(tf, linear(tf, layerNorm(tf, y, a, `${n.norm2}.`), a, n.ffn1)), a, n.ffn2),
  );
}

/** Rows of unit length. */
function unit(tf: TF, x: Tensor): Tensor {
  return tf.mul(x, tf.rsqrt(tf.sum(tf.square(x), -1, true)));
}

/** Rows of unit length: anchors and truths [N, P], others [N, K, P] -> loss of each anchor [N]. */
function contrast(tf: TF, anchors: Tensor, truths: Tensor, others: Tensor): Tensor {
  const [N] = others.shape as [number];
  const right = tf.sum(tf.mul(anchors, truths), -1, true);
  // With the anchor as the left factor, this library takes half the time that [K, P] times [P, 1] takes it.
  const wrong = tf.reshape(tf.matMul(tf.expandDims(anchors, 1), others, false, true), [N, others.shape[1]!]);
  const logits = tf.mul(tf.concat([right, wrong] as Tensor2D[], 1), 1 / TORCH_STEP.temperature);
  return tf.neg(tf.reshape(tf.slice(tf.logSoftmax(logits, -1), [0, 0], [N, 1]), [N]));
}

const isData = (name: string): boolean => (TORCH_STEP_DATA as readonly string[]).includes(name);

/**
 * The whole step: `tf.variableGrads`, then the decoupled decay before `tf.train.adam`, which together are
 * AdamW.
 */
function trainingArm(tf: TF, sets: readonly HostTensors[]): Arm {
  const { lr, betas, eps, weightDecay } = TORCH_STEP;
  const names = Object.keys(sets[0]!).filter((name) => !isData(name));
  const data = sets.map((set) =>
    upload(tf, Object.fromEntries(TORCH_STEP_DATA.map((name) => [name, set[name]!])), {}),
  );
  const parameters: Record<string, Variable<Rank>> = {};
  for (const name of names) {
    // Convolutions [Cout, Cin, K] as this library wants them.
    const { shape, data: values } =
      sets[0]![name]!.shape.length === 3 ? permute(sets[0]![name]!, [2, 1, 0]) : sets[0]![name]!;
    parameters[name] = tf.variable(tf.tensor(values.slice() as TensorLike, [...shape]), true);
  }
  const optimizer = tf.train.adam(lr, betas[0], betas[1], eps);
  const step = (set: number): Tensor =>
    tf.tidy(() => {
      const { value, grads } = tf.variableGrads(
        () => modelLoss(tf, { ...data[set]!, ...parameters }) as Scalar,
        Object.values(parameters),
      );
      for (const parameter of Object.values(parameters))
        parameter.assign(tf.mul(parameter, 1 - lr * weightDecay));
      optimizer.applyGradients(grads as Record<string, Variable>);
      return value;
    });
  let y: Tensor | null = null;
  return {
    engine: 'tfjs',
    async run(set) {
      const started = performance.now();
      const loss = step(set);
      await finish(tf, parameters[names.at(-1)!]!);
      const ms = performance.now() - started;
      y?.dispose();
      y = loss;
      return ms;
    },
    outputs: () => download(y ? { y } : {}, {}),
    async dispose() {
      optimizer.dispose();
      tf.dispose([y, parameters, ...data] as never);
    },
  };
}

function modelLoss(tf: TF, a: Tensors): Tensor {
  const { strides, layers, heads, width } = TORCH_STEP;
  const [B] = a['wav']!.shape as [number];
  let z: Tensor = tf.expandDims(a['wav']!, 2);
  strides.forEach((stride, i) => {
    z = gelu(tf, tf.conv1d(z as Tensor3D, a[`ext.convs.${i}.weight`] as Tensor3D, stride, 'valid'));
  });
  z = layerNorm(tf, z, a, 'ext.norm.');
  const T = z.shape[1]!;
  let x = tf.where(
    tf.greater(tf.reshape(a['mask']!, [B, T, 1]), 0.5),
    a['mask_emb']!,
    linear(tf, z, a, 'inp'),
  );
  x = tf.add(x, tf.slice(a['pos']!, [0, 0], [T, width]));
  for (let i = 0; i < layers; i++) {
    const b = `blocks.${i}`;
    x = block(
      tf,
      x,
      a,
      {
        norm1: `${b}.n1`,
        qkv: `${b}.qkv`,
        proj: `${b}.proj`,
        norm2: `${b}.n2`,
        ffn1: `${b}.f1`,
        ffn2: `${b}.f2`,
      },
      heads,
    );
  }
  const c = tf.reshape(linear(tf, layerNorm(tf, x, a, 'norm.'), a, 'out'), [B * T, width]);
  const t = unit(tf, tf.reshape(linear(tf, z, a, 'tgt'), [B * T, width]));
  const anchors = unit(tf, tf.gather(c, a['anchor']!));
  const truths = tf.gather(t, a['anchor']!);
  const losses = contrast(tf, anchors, truths, tf.gather(t, a['negatives']!));
  return tf.div(tf.sum(tf.mul(losses, a['weight']!)), tf.sum(a['weight']!));
}
