/**
 * The raw-waveform training step of bench/workloads/torch-step.ts in float64: the losses that every engine
 * must report at its first steps.
 */
import type { HostTensors } from './contract.ts';
import type { Reference } from './reference.ts';
import {
  dense,
  gelu,
  geluSlope,
  infoNce,
  norm,
  plus,
  transformerLayer,
  type Part,
} from './reference-parts.ts';
import { TORCH_STEP } from './torch-step.ts';

type Parameters = Record<string, Float64Array>;

/**
 * x [B, L, Cin] and w in PyTorch's layout [Cout, Cin, K], no padding; `back` writes the weight's gradient.
 */
function conv(
  x: Float64Array,
  w: Float64Array,
  { B, Cin, K, stride }: { B: number; Cin: number; K: number; stride: number },
  into: (dw: Float64Array) => void,
): Part & { T: number } {
  const L = x.length / B / Cin;
  const Cout = w.length / K / Cin;
  const T = Math.floor((L - K) / stride) + 1;
  const y = new Float64Array(B * T * Cout);
  const run = K * Cin;
  // A window is one run of x; weights in the same order.
  const order = (from: Float64Array, forwards: boolean): Float64Array => {
    const to = new Float64Array(from.length);
    for (let o = 0; o < Cout; o++)
      for (let c = 0; c < Cin; c++)
        for (let k = 0; k < K; k++) {
          const torch = (o * Cin + c) * K + k;
          const window = o * run + k * Cin + c;
          if (forwards) to[window] = from[torch]!;
          else to[torch] = from[window]!;
        }
    return to;
  };
  const weights = order(w, true);
  const start = (b: number, t: number): number => (b * L + t * stride) * Cin;
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++)
      for (let o = 0; o < Cout; o++) {
        let sum = 0;
        for (let i = 0, at = start(b, t); i < run; i++) sum += x[at + i]! * weights[o * run + i]!;
        y[(b * T + t) * Cout + o] = sum;
      }
  return {
    y,
    T,
    back: (dy) => {
      const dx = new Float64Array(x.length);
      const dw = new Float64Array(w.length);
      for (let b = 0; b < B; b++)
        for (let t = 0; t < T; t++)
          for (let o = 0; o < Cout; o++) {
            const g = dy[(b * T + t) * Cout + o]!;
            for (let i = 0, at = start(b, t); i < run; i++) {
              dx[at + i]! += g * weights[o * run + i]!;
              dw[o * run + i]! += g * x[at + i]!;
            }
          }
      into(order(dw, false));
      return dx;
    },
  };
}

/** Loss of one step, and the gradient of every parameter where wanted. */
function evaluate(p: Parameters, set: HostTensors, wanted: boolean): { loss: number; gradients: Parameters } {
  const { channels: C, width: D, kernels, strides, layers, heads: H, hidden: F } = TORCH_STEP;
  const gradients: Parameters = {};
  const [B, T] = set['mask']!.shape as [number, number];
  const mask = set['mask']!.data;
  const data = (name: string): ArrayLike<number> => set[name]!.data;
  const into =
    (name: string) =>
    (dw: Float64Array, db: Float64Array): void => {
      gradients[`${name}.weight`] = dw;
      gradients[`${name}.bias`] = db;
    };
  const linear = (name: string, x: Float64Array, I: number, O: number): Part =>
    dense(x, p[`${name}.weight`]!, p[`${name}.bias`]!, I, O, into(name));
  const normed = (name: string, x: Float64Array, d: number): Part =>
    norm(x, p[`${name}.weight`]!, p[`${name}.bias`]!, d, into(name));
  let x: Float64Array = Float64Array.from(data('wav'));
  const convs = kernels.map((K, i) => {
    const part = conv(x, p[`ext.convs.${i}.weight`]!, { B, Cin: i ? C : 1, K, stride: strides[i]! }, (dw) => {
      gradients[`ext.convs.${i}.weight`] = dw;
    });
    x = part.y.map(gelu);
    return part;
  });
  const z = normed('ext.norm', x, C);
  const inp = linear('inp', z.y, C, D);
  x = inp.y.map((v, i) => (mask[Math.floor(i / D)] ? p['mask_emb']![i % D]! : v) + p['pos']![i % (T * D)]!);
  const blocks = Array.from({ length: layers }, (_, l) => {
    const names: Record<string, string> = {
      norm1: 'n1',
      qkv: 'qkv',
      proj: 'proj',
      norm2: 'n2',
      ffn1: 'f1',
      ffn2: 'f2',
    };
    const own = Object.fromEntries(
      Object.entries(names).flatMap(([to, from]) =>
        ['weight', 'bias'].map((part) => [`${to}.${part}`, p[`blocks.${l}.${from}.${part}`]!]),
      ),
    );
    const block = transformerLayer({ B, T, D, H, F }, { ...own, x });
    x = block.y;
    return {
      back: (dy: Float64Array): Float64Array => {
        const found = block.back(dy);
        for (const [to, from] of Object.entries(names))
          for (const part of ['weight', 'bias'])
            gradients[`blocks.${l}.${from}.${part}`] = found[`${to}.${part}`]!;
        return found['x']!;
      },
    };
  });
  const last = normed('norm', x, D);
  const c = linear('out', last.y, D, D);
  const t = linear('tgt', z.y, C, D);
  const {
    y: loss,
    da,
    dz,
  } = infoNce(
    D,
    c.y,
    t.y,
    { anchor: data('anchor'), negatives: data('negatives'), weight: data('weight') },
    wanted ? 1 : null,
  );
  if (!wanted) return { loss, gradients };
  let dx = last.back(c.back(da!));
  for (const block of blocks.reverse()) dx = block.back(dx);
  const masked = (gradients['mask_emb'] = new Float64Array(D));
  const pos = (gradients['pos'] = new Float64Array(p['pos']!.length));
  const dInp = dx.map((g, i) => {
    pos[i % (T * D)]! += g;
    if (!mask[Math.floor(i / D)]) return g;
    masked[i % D]! += g;
    return 0;
  });
  dx = z.back(plus(inp.back(dInp), t.back(dz!)));
  for (let i = convs.length - 1; i >= 0; i--)
    dx = convs[i]!.back(dx.map((g, at) => g * geluSlope(convs[i]!.y[at]!)));
  return { loss, gradients };
}

/** AdamW's first update in place: with bias correction the moments are the gradient and its square. */
function firstUpdate(p: Parameters, gradients: Parameters): void {
  const { lr, eps, weightDecay } = TORCH_STEP;
  for (const [name, g] of Object.entries(gradients))
    p[name] = p[name]!.map((v, i) => v * (1 - lr * weightDecay) - (lr * g[i]!) / (Math.abs(g[i]!) + eps));
}

/**
 * Losses of a run on set 0 and then on set 1, from the parameters that the sets hold: the second one shows
 * gradients and optimiser. Takes about 20 seconds at 8 x 2 s. More than two sets are not needed: what comes
 * after is the same computation.
 */
export function stepReferences(sets: readonly HostTensors[]): Reference[] {
  const names = Object.keys(sets[0]!).filter(
    (name) => !['wav', 'mask', 'anchor', 'negatives', 'weight'].includes(name),
  );
  const p: Parameters = Object.fromEntries(
    names.map((name) => [name, Float64Array.from(sets[0]![name]!.data)]),
  );
  const first = evaluate(p, sets[0]!, true);
  firstUpdate(p, first.gradients);
  const second = evaluate(p, sets[1]!, false);
  return [first.loss, second.loss].map((loss) => ({
    y: { size: 1, indices: Int32Array.of(0), values: Float64Array.of(loss) },
  }));
}
