/**
 * The engine without MGF: three convolutions learn to take the noise off a tone. Everything that training is
 * made of is on this page: parameters, a graph, its gradients, the optimiser, a program, a loop. Nothing is
 * specific to sound, and there is nothing else to call.
 *
 *   npm run build && node examples/plain-graph.ts (Node from 22.18, which reads TypeScript, or deno run -A)
 */
import {
  adamw,
  biasCorrections,
  compile,
  conv1d,
  elements,
  gelu,
  grad,
  Graph,
  mseLoss,
  openGpu,
  ParameterStore,
  randomStream,
  type Gpu,
} from 'mgf-webgpu';

const B = 16;
const L = 256;
const WIDTH = 16;
const K = 9; // tones a step, samples a tone, channels, taps of a filter
const random = randomStream(1);

/** Fresh tones [B, L, 1] of any pitch and phase, and the same under noise whose mean square is 1/3. */
function tones(): { noisy: Float32Array<ArrayBuffer>; clean: Float32Array<ArrayBuffer> } {
  const pitch = Array.from({ length: B }, () => 0.1 + 0.3 * random.uniform());
  const phase = pitch.map(() => 6.28 * random.uniform());
  const clean = Float32Array.from({ length: B * L }, (_, i) =>
    Math.sin(pitch[Math.floor(i / L)]! * (i % L) + phase[Math.floor(i / L)]!),
  );
  return { clean, noisy: clean.map((v) => v + 2 * random.uniform() - 1) };
}

export async function train(
  gpu: Gpu,
  steps = 200,
  onStep: (step: number, loss: number) => void = () => {},
): Promise<void> {
  // 1. Parameters, in PyTorch's shapes. They lie side by side in one flat buffer; their gradients and AdamW's
  // two moments lie in three more of the same layout.
  const shapes = {
    'conv1.weight': [WIDTH, 1, K],
    'conv1.bias': [WIDTH],
    'conv2.weight': [WIDTH, WIDTH, K],
    'conv2.bias': [WIDTH],
    'conv3.weight': [1, WIDTH, K],
    'conv3.bias': [1],
  };
  const specs = Object.entries(shapes).map(([name, shape]) => ({
    name,
    parts: [{ name, shape }],
    swap: shape.length === 3,
    decay: shape.length === 3,
  })); // swap: [Cout, K, Cin] on the device
  const store = new ParameterStore(gpu, specs, 'training');
  store.load(
    new Map(
      Object.entries(shapes).map(([name, shape]) => [
        name,
        { shape, data: Float32Array.from({ length: elements(shape) }, () => 0.4 * (random.uniform() - 0.5)) },
      ]),
    ),
  );

  // 2. The network and its loss. Calling an op checks shapes and records a node; nothing runs. Activations
  // are channels-last, [B, L, C].
  const graph = new Graph();
  const w = store.declare(graph);
  const weight = (name: keyof typeof shapes) => w.get(name)!;
  const noisy = graph.input('noisy', [B, L, 1]);
  const clean = graph.input('clean', [B, L, 1]);
  const h1 = gelu(conv1d(noisy, weight('conv1.weight'), weight('conv1.bias'), { padding: 4 }));
  const h2 = gelu(conv1d(h1, weight('conv2.weight'), weight('conv2.bias'), { padding: 4 }));
  const loss = mseLoss(conv1d(h2, weight('conv3.weight'), weight('conv3.bias'), { padding: 4 }), clean);

  // 3. Gradients are nodes of the same graph. `place` says which values live outside of the program: each
  // parameter, and where its gradient goes.
  const place = new Map([...w].map(([name, value]) => [value, store.region(name)]));
  const names = [...w.keys()];
  grad(loss, [...w.values()]).forEach((gradient, i) =>
    place.set(gradient, store.region(names[i]!, 'gradients')),
  );

  // 4. So is the update: one op over the flat buffers, whatever the number of tensors.
  const flat = (name: 'values' | 'gradients' | 'expAvg' | 'expAvgSq') => {
    const all = graph.state(name, [store.length]);
    place.set(all, store.flat(name));
    return all;
  };
  adamw(flat('values'), flat('gradients'), flat('expAvg'), flat('expAvgSq'));

  // 5. A program: order, memory and kernels are settled here. A step uploads its inputs and scalars, is one
  // submit, and creates nothing.
  const program = await compile(gpu, graph, { place, outputs: { loss }, label: 'plain graph' });
  for (let step = 0; step < steps; step++) {
    const { loss: value } = await program.step(tones(), { lr: 0.01, ...biasCorrections(step + 1) });
    onStep(step, value![0]!);
  }
  program.destroy();
  store.destroy();
}

if (process.argv[1]?.endsWith('plain-graph.ts')) {
  const gpu = await openGpu();
  console.log(gpu.profile.name);
  await train(gpu, 200, (step, loss) => {
    if (step % 20 === 0 || step === 199) console.log(`step ${step}: mean square error ${loss.toFixed(4)}`);
  });
  gpu.close();
}
