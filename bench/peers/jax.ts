import type { Array as JaxArray } from '@jax-js/jax';
import { TORCH_STEP, TORCH_STEP_DATA } from '../workloads/torch-step.ts';
import type { Arm, HostTensors, OpenPeer, Peer } from '../workloads/contract.ts';
import { inverse, orders, outputNames, packageVersion, permute, type OpWork } from './layout.ts';
import { withNavigatorGpu } from './shims.ts';

type Jax = typeof import('@jax-js/jax');
/**
 * Named arrays; as an argument of a function of this file each is read through `.ref`, and its owner disposes
 * of it.
 */
type Arrays = Record<string, JaxArray>;

/** lax.conv is channels-first. */
const CONV = { x: [0, 2, 1], w: [0, 2, 1], y: [0, 2, 1] };

/**
 * jax-js on its WebGPU backend: every workload is one `jit` function, its gradients by `grad`. Outputs are
 * waited for by `blockUntilReady`.
 */
export const open: OpenPeer = async (prefer) => {
  let jax: Jax;
  try {
    jax = await import('@jax-js/jax');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    return { missing: 'not installed: npm i -D @jax-js/jax' };
  }
  const { started, adapter } = await withNavigatorGpu('jax-js', prefer, () => jax.init('webgpu'));
  if (!started.includes('webgpu')) return { missing: 'jax-js found no WebGPU adapter' };
  jax.defaultDevice('webgpu');
  const peer: Peer = {
    engine: 'jax-js',
    version: `${packageVersion('@jax-js/jax')}, ${adapter}`,
    unsupported: () => null,
    arm: (workload, sets) =>
      workload.work.op === 'torch_step'
        ? trainingArm(jax, sets)
        : opArm(jax, workload.work, workload.grad, sets),
    // It keeps its device for as long as the process lives, and so can be opened again.
    async close() {},
  };
  return peer;
};

async function upload(jax: Jax, set: HostTensors, order: Record<string, readonly number[]>): Promise<Arrays> {
  const arrays: Arrays = {};
  for (const [name, tensor] of Object.entries(set)) {
    const { shape, data } = order[name] ? permute(tensor, order[name]) : tensor;
    arrays[name] = jax.numpy.array(data, {
      shape: [...shape],
      dtype: data instanceof Int32Array ? jax.numpy.int32 : jax.numpy.float32,
    });
  }
  await jax.blockUntilReady(arrays);
  return arrays;
}

async function opArm(jax: Jax, work: OpWork, grad: boolean, sets: readonly HostTensors[]): Promise<Arm> {
  const order = orders(work, CONV);
  const resident = await Promise.all(sets.map((set) => upload(jax, set, order)));
  const names = Object.keys(sets[0]!);
  const wanted = outputNames(sets[0]!, grad);
  // By position: the order of an object's keys is not the caller's.
  const compute = jax.jit((...values: JaxArray[]): JaxArray[] => {
    const of = (some: readonly JaxArray[]): Arrays =>
      Object.fromEntries(some.map((value, i) => [names[i]!, value]));
    if (!grad) return [disposing(values, () => forward(jax, work, of(values)))];
    const argnums = names.flatMap((name, i) => (wanted.includes(`d.${name}`) ? [i] : []));
    const loss = (...all: JaxArray[]): JaxArray =>
      disposing(all, () => forward(jax, work, of(all)).mul(of(all)['up']!.ref).sum());
    return jax.grad(loss, { argnums })(...values) as JaxArray[];
  });
  let last: JaxArray[] = [];
  return {
    engine: 'jax-js',
    async run(set) {
      const inputs = resident[set]!;
      const started = performance.now();
      const outputs = compute(...names.map((name) => inputs[name]!.ref));
      await jax.blockUntilReady(outputs);
      const ms = performance.now() - started;
      jax.tree.dispose(last);
      last = outputs;
      return ms;
    },
    async outputs() {
      return download(Object.fromEntries(last.map((value, i) => [wanted[i]!, value])), order);
    },
    async dispose() {
      jax.tree.dispose(last);
      for (const inputs of resident) jax.tree.dispose(inputs);
      compute.dispose();
    },
  };
}

function disposing<T>(owned: readonly JaxArray[], run: () => T): T {
  const result = run();
  for (const array of owned) array.dispose();
  return result;
}

async function download(
  arrays: Arrays,
  order: Record<string, readonly number[]>,
): Promise<Record<string, Float32Array>> {
  const out: Record<string, Float32Array> = {};
  for (const [name, array] of Object.entries(arrays)) {
    const { shape } = array;
    const data = Float32Array.from((await array.ref.data()) as Float32Array);
    const axes = order[name.replace(/^d\./, '')];
    out[name] = axes ? (permute({ shape, data }, inverse(axes)).data as Float32Array) : data;
  }
  return out;
}

function forward(jax: Jax, work: OpWork, a: Arrays): JaxArray {
  const { numpy: np, nn, lax } = jax;
  switch (work.op) {
    case 'matmul':
      return np.matmul(a['a']!.ref, a['b']!.ref);
    case 'conv1d':
      return lax.conv(a['x']!.ref, a['w']!.ref, [work.stride], 'VALID');
    case 'softmax':
      return nn.softmax(a['x']!.ref, -1);
    case 'layer_norm':
      return layerNorm(jax, a['x']!.ref, a, '');
    case 'attention':
      return attention(jax, a['q']!.ref, a['k']!.ref, a['v']!.ref);
    case 'info_nce': {
      const all = unit(jax, a['candidates']!.ref);
      return contrast(jax, unit(jax, a['anchors']!.ref), all.ref, np.take(all, a['negatives']!.ref, 0))
        .mean()
        .reshape([1]);
    }
    case 'transformer_layer':
      return block(
        jax,
        a['x']!.ref,
        a,
        { norm1: 'norm1', qkv: 'qkv', proj: 'proj', norm2: 'norm2', ffn1: 'ffn1', ffn2: 'ffn2' },
        work.H,
      );
  }
}

function layerNorm({ nn }: Jax, x: JaxArray, a: Arrays, prefix: string): JaxArray {
  return nn.standardize(x, -1, { epsilon: 1e-5 }).mul(a[`${prefix}weight`]!.ref).add(a[`${prefix}bias`]!.ref);
}

function linear({ numpy: np }: Jax, x: JaxArray, a: Arrays, name: string): JaxArray {
  return np.matmul(x, a[`${name}.weight`]!.ref.transpose()).add(a[`${name}.bias`]!.ref);
}

/** q, k, v [B, H, T, D]; `nn.dotProductAttention` computes the same but needs Node 22. */
function attention({ numpy: np, nn }: Jax, q: JaxArray, k: JaxArray, v: JaxArray): JaxArray {
  const scale = 1 / Math.sqrt(q.shape[3]!);
  return np.matmul(nn.softmax(np.matmul(q, k.transpose([0, 1, 3, 2])).mul(scale), -1), v);
}

/** x [B, T, D] through a pre-norm transformer layer whose parts are named by `n`. */
function block(
  jax: Jax,
  x: JaxArray,
  a: Arrays,
  n: Record<'norm1' | 'qkv' | 'proj' | 'norm2' | 'ffn1' | 'ffn2', string>,
  H: number,
): JaxArray {
  const { numpy: np, nn } = jax;
  const [B, T, D] = x.shape as [number, number, number];
  const qkv = linear(jax, layerNorm(jax, x.ref, a, `${n.norm1}.`), a, n.qkv)
    .reshape([B, T, 3, H, D / H])
    .transpose([2, 0, 3, 1, 4]);
  const [q, k, v] = np.unstack(qkv) as [JaxArray, JaxArray, JaxArray];
  const mixed = attention(jax, q, k, v).transpose([0, 2, 1, 3]).reshape([B, T, D]);
  const y = x.add(linear(jax, mixed, a, n.proj));
  const hidden = nn.gelu(linear(jax, layerNorm(jax, y.ref, a, `${n.norm2}.`), a, n.ffn1), {
    approximate: false,
  });
  return y.add(linear(jax, hidden, a, n.ffn2));
}

/** Rows of unit length. */
function unit({ numpy: np }: Jax, x: JaxArray): JaxArray {
  return x.div(np.sqrt(np.square(x.ref).sum(-1, { keepdims: true })));
}

/** Rows of unit length: anchors and truths [N, P], others [N, K, P] -> loss of each anchor [N]. */
function contrast({ numpy: np, nn }: Jax, anchors: JaxArray, truths: JaxArray, others: JaxArray): JaxArray {
  const [N, K] = others.shape as [number, number, number];
  const right = anchors.ref.mul(truths).sum(-1, { keepdims: true });
  // Both negated: the gradient of a gather under jit fails on a mere view, which it would be given without an
  // operation here.
  const wrong = np.matmul(others.neg(), anchors.neg().reshape([N, -1, 1])).reshape([N, K]);
  const logits = np.concatenate([right, wrong], 1).div(TORCH_STEP.temperature);
  return nn.logSoftmax(logits, -1).slice([], 0).neg();
}

const isData = (name: string): boolean => (TORCH_STEP_DATA as readonly string[]).includes(name);

/**
 * The whole step as one `jit` function from parameters, moments and data to the loss and the next parameters
 * and moments.
 */
async function trainingArm(jax: Jax, sets: readonly HostTensors[]): Promise<Arm> {
  const { numpy: np } = jax;
  const {
    lr,
    betas: [beta1, beta2],
    eps,
    weightDecay,
  } = TORCH_STEP;
  const all = await Promise.all(sets.map((set) => upload(jax, set, {})));
  const names = Object.keys(all[0]!).filter((name) => !isData(name));
  const zeros = (): JaxArray[] => names.map((name) => np.zeros(all[0]![name]!.shape));
  let state = { values: names.map((name) => all[0]![name]!.ref), first: zeros(), second: zeros() };
  const step = jax.jit((s: typeof state, data: JaxArray[], corrections: JaxArray[]) => {
    const loss = (values: JaxArray[]): JaxArray => {
      const a = Object.fromEntries([
        ...names.map((name, i) => [name, values[i]!]),
        ...TORCH_STEP_DATA.map((name, i) => [name, data[i]!]),
      ]) as Arrays;
      return disposing(values, () => modelLoss(jax, a));
    };
    const [y, gradients] = jax.valueAndGrad(loss)(s.values.map((value) => value.ref)) as unknown as [
      JaxArray,
      JaxArray[],
    ];
    const [c1, c2] = corrections as [JaxArray, JaxArray];
    const first = s.first.map((m, i) => m.mul(beta1).add(gradients[i]!.ref.mul(1 - beta1)));
    const second = s.second.map((v, i) => v.mul(beta2).add(np.square(gradients[i]!).mul(1 - beta2)));
    const values = s.values.map((value, i) =>
      value.mul(1 - lr * weightDecay).sub(
        first[i]!.ref.div(c1.ref)
          .mul(lr)
          .div(np.sqrt(second[i]!.ref.div(c2.ref)).add(eps)),
      ),
    );
    jax.tree.dispose([data, corrections]);
    return { y, state: { values, first, second } };
  });
  let steps = 0;
  let y: JaxArray | null = null;
  return {
    engine: 'jax-js',
    async run(set) {
      const started = performance.now();
      steps++;
      const corrections = [beta1, beta2].map((beta) => np.array(1 - beta ** steps));
      const result = step(
        state,
        TORCH_STEP_DATA.map((name) => all[set]![name]!.ref),
        corrections,
      ) as { y: JaxArray; state: typeof state };
      await jax.blockUntilReady(result as unknown as JaxArray[]);
      const ms = performance.now() - started;
      y?.dispose();
      ({ y, state } = result);
      return ms;
    },
    async outputs() {
      return download(y ? { y } : {}, {});
    },
    async dispose() {
      y?.dispose();
      jax.tree.dispose(state as unknown as JaxArray[]);
      for (const arrays of all) jax.tree.dispose(arrays);
      step.dispose();
    },
  };
}

function modelLoss(jax: Jax, a: Arrays): JaxArray {
  const { numpy: np, nn, lax } = jax;
  const { strides, layers, heads, width } = TORCH_STEP;
  const [B, L] = a['wav']!.shape as [number, number];
  let z = a['wav']!.ref.reshape([B, 1, L]);
  strides.forEach((stride, i) => {
    z = nn.gelu(lax.conv(z, a[`ext.convs.${i}.weight`]!.ref, [stride], 'VALID'), { approximate: false });
  });
  z = layerNorm(jax, z.transpose([0, 2, 1]), a, 'ext.norm.');
  const T = z.shape[1]!;
  let x = np.where(
    a['mask']!.ref.reshape([B, T, 1]).greater(0.5),
    a['mask_emb']!.ref,
    linear(jax, z.ref, a, 'inp'),
  );
  x = x.add(a['pos']!.ref.slice([0, T]));
  for (let i = 0; i < layers; i++) {
    const b = `blocks.${i}`;
    x = block(
      jax,
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
  const c = linear(jax, layerNorm(jax, x, a, 'norm.'), a, 'out').reshape([B * T, width]);
  const t = unit(jax, linear(jax, z, a, 'tgt').reshape([B * T, width]));
  const anchors = unit(jax, np.take(c, a['anchor']!.ref, 0));
  const truths = np.take(t.ref, a['anchor']!.ref, 0);
  const losses = contrast(jax, anchors, truths, np.take(t, a['negatives']!.ref, 0));
  return losses.mul(a['weight']!.ref).sum().div(a['weight']!.ref.sum());
}
