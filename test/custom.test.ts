import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { defineElementwise, defineLoss } from '../src/custom/elementwise.ts';
import { gradcheck } from '../src/custom/gradcheck.ts';
import { defineRowLoss } from '../src/custom/rows.ts';
import { elementwiseSubject, lossSubject, rowSubject } from '../src/custom/subjects.ts';
import { elements, type Shape } from '../src/graph/shape.ts';
import { Graph } from '../src/graph/graph.ts';
import { defineOp } from '../src/launch/op.ts';
import { kernel, scalar } from '../src/launch/dispatch.ts';
import { grad } from '../src/ops/grad.ts';
import { compile } from '../src/plan/compile.ts';
import { openTestGpu } from './gpu.ts';
import { failsWith } from './harness.ts';
import type { GradcheckResult, GradcheckSubject } from '../src/custom/gradcheck.ts';

const gpu = await openTestGpu();

const softL1 = defineLoss({
  name: 'soft_l1',
  inputs: ['x', 'goal'],
  attributes: { beta: 0.5 },
  forward: 'let d = abs(x - goal); return select(d - 0.5 * beta, 0.5 * d * d / beta, d < beta);',
  backward: { x: 'clamp((x - goal) / beta, -1.0, 1.0)', goal: 'clamp((goal - x) / beta, -1.0, 1.0)' },
  reference: ({ x, goal }, { beta }) => {
    const d = Math.abs(x - goal);
    return d < beta ? (0.5 * d * d) / beta : d - 0.5 * beta;
  },
});
const swish = defineElementwise({
  name: 'swish',
  inputs: ['x'],
  forward: 'x / (1.0 + exp(-x))',
  backward: { x: 'let s = 1.0 / (1.0 + exp(-x));\nreturn s * (1.0 + x * (1.0 - s));' },
  reference: ({ x }) => x / (1 + Math.exp(-x)),
});
/** Cross-entropy whose logits are sharpened. */
const sharp = defineRowLoss({
  name: 'sharp_cross_entropy',
  rows: ['logits'],
  indices: ['label'],
  attributes: { tau: 0.5 },
  numbers: { total: { logsumexp: 'logits / tau' } },
  forward: 'total - logits_at(label) / tau',
  backward: { logits: '(exp(logits / tau - total) - f32(j == label)) / tau' },
  reference: ({ logits, label }, { tau }) => {
    const top = Math.max(...logits);
    return (
      top / tau +
      Math.log(logits.reduce((sum, v) => sum + Math.exp((v - top) / tau), 0)) -
      logits[label]! / tau
    );
  },
});
/** 1 - cosine, and every kind of number in one loss. */
const angle = defineRowLoss({
  name: 'angle',
  rows: ['a', 'b'],
  numbers: {
    length_a: { norm: 'a' },
    length_b: { norm: 'b' },
    product: { dot: ['a', 'b'] },
    mean: { sum: 'a / n' },
    peak: { max: 'b' },
    cosine: { value: 'product / (length_a * length_b)' },
  },
  forward: '1.0 - cosine + 0.1 * mean + 0.0 * peak',
  backward: { a: '0.1 / n - (b / length_b - cosine * a / length_a) / length_a' },
  reference: ({ a, b }) => {
    const dot = (x: Float64Array, y: Float64Array): number => x.reduce((s, v, i) => s + v * y[i]!, 0);
    return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) + (0.1 * a.reduce((s, v) => s + v)) / a.length;
  },
});

const problems = ({ findings }: GradcheckResult): string =>
  findings
    .filter(({ passed }) => !passed)
    .map((f) => `${f.family}, ${f.case}, ${f.of}: ${f.error}: ${f.message}`)
    .join('\n');

test(
  'losses and ops by expression are right on both kernel families: odd sizes, weights, zeros, large ' +
    'numbers',
  async () => {
    for (const subject of [lossSubject(softL1), elementwiseSubject(swish), rowSubject(sharp)]) {
      const result = await gradcheck(gpu, subject);
      assert.ok(result.passed, `${result.name}\n${problems(result)}`);
      assert.ok(result.findings.some(({ of }) => of.startsWith('d ')));
    }
    // A cosine of zeros is not a number, there as in the reference.
    const subject = rowSubject(angle);
    const result = await gradcheck(gpu, {
      ...subject,
      cases: subject.cases.filter(({ name }) => name !== 'zeros'),
    });
    assert.ok(result.passed, problems(result));
  },
);

/** The findings that failed, by what they are of. */
const failed = ({ findings }: GradcheckResult, of: string): readonly string[] =>
  findings.filter((f) => !f.passed && f.of === of).map(({ message }) => message);

test('the gradient check finds a missing factor, and says by how much', async () => {
  const wrong = defineElementwise({
    ...swish.definition,
    backward: { x: 'let s = 1.0 / (1.0 + exp(-x));\nreturn 2.0 * s * (1.0 + x * (1.0 - s));' },
  });
  const result = await gradcheck(gpu, elementwiseSubject(wrong));
  assert.not.ok(result.passed);
  assert.equal(failed(result, 'forward'), []);
  for (const message of failed(result, 'd x'))
    assert.match(message, /^element \[\d.*\] is furthest off.*: .*, not .* \(2\.00 times\)$/);
  assert.ok(failed(result, 'd x').length >= 6, 'in every smooth case of both families');
});

test('the gradient check finds a swapped index and names an element', async () => {
  const wrong = defineRowLoss({
    ...sharp.definition,
    backward: { logits: '(exp(logits / tau - total) - f32(j + 1u == label)) / tau' },
  });
  const messages = failed(await gradcheck(gpu, rowSubject(wrong)), 'd logits');
  assert.ok(messages.length > 0);
  assert.match(messages[0]!, /element \[\d+, \d+\] is furthest off/);
});

test('the gradient check finds a number that is none at zero', async () => {
  const pole = defineLoss({
    name: 'absolute',
    inputs: ['x'],
    forward: 'abs(x)',
    backward: { x: 'x / abs(x)' },
    reference: ({ x }) => Math.abs(x),
  });
  assert.match(failed(await gradcheck(gpu, lossSubject(pole)), 'd x')[0]!, /element \[\d\] is NaN/);
});

/** y = x^2, its gradient from a saved copy of x; `missing`: last elements that are not written. */
const square = (
  missing: { forward?: number; saved?: number },
  ruled = (shape: Shape): Shape => shape,
): GradcheckSubject => {
  const text = kernel(
    'square_saving',
    `
struct P { n: u32, saved: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> copy: array<f32>;
@group(0) @binding(3) var<uniform> p: P;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < p.n) { y[id.x] = x[id.x] * x[id.x]; }
  if (id.x < p.saved) { copy[id.x] = x[id.x]; }
}`,
  );
  const back = kernel(
    'square_saving_backward',
    `
struct P { n: u32 }
@group(0) @binding(0) var<storage, read> copy: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> p: P;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < p.n) { dx[id.x] = 2.0 * copy[id.x] * up[id.x]; }
}`,
  );
  const op = defineOp<Record<never, never>>({
    name: 'square_saving',
    shape: ([x]) => [
      { shape: ruled(x!.shape), dtype: 'f32' },
      { shape: x!.shape, dtype: 'f32' },
    ],
    forward: (c) => {
      const n = elements(c.input(0).shape);
      return [
        {
          kernel: text,
          grid: [Math.ceil(n / 64), 1, 1],
          bind: { x: c.input(0), y: c.outputs[0]!, copy: c.outputs[1]! },
          params: { n: n - (missing.forward ?? 0), saved: n - (missing.saved ?? 0) },
        },
      ];
    },
    saves: { inputs: [], outputs: [1] },
    backward: (c) => {
      const n = elements(c.grad(0)!.shape);
      return [
        {
          kernel: back,
          grid: [Math.ceil(n / 64), 1, 1],
          bind: { copy: c.output(1), up: c.upstream(0)!, dx: c.grad(0)! },
          params: { n },
        },
      ];
    },
    cost: ([x]) => ({ flops: elements(x!.shape), bytes: 8 * elements(x!.shape) }),
  });
  return {
    name: 'square',
    build: ({ x }) => x!.graph.apply(op, [x!], {})[0]!,
    reference: ({ x }) => x!.map((v) => v * v),
    cases: [{ name: 'odd', inputs: { x: { shape: [7, 11] } } }],
  };
};

test(
  'the gradient check finds elements that nobody writes: of the output, and of a tensor saved for the ' +
    'backward pass, which then is stale',
  async () => {
    const sound = await gradcheck(gpu, square({}));
    assert.ok(sound.passed, problems(sound));
    assert.match(
      failed(await gradcheck(gpu, square({ forward: 1 })), 'forward')[0]!,
      /^element \[6, 10\] is NaN, not .*: it is not written/,
    );
    const stale = await gradcheck(gpu, square({ saved: 2 }));
    assert.equal(failed(stale, 'forward'), []);
    assert.match(failed(stale, 'd x')[0]!, /^element \[6, 9\] is NaN: it is not written, or computed from/);
  },
);

test('the gradient check finds a shape rule that lies', async () => {
  const forward = failed(
    await gradcheck(
      gpu,
      square({}, ([M, N]) => [M!, N! + 1]),
    ),
    'forward',
  );
  assert.match(forward[0]!, 'the reference gives 77 numbers, the op 84: its shape rule says [7, 12]');
});

test('without a reference, gradients are checked against differences of the device', async () => {
  const subject = { ...elementwiseSubject(swish), reference: null };
  const result = await gradcheck(gpu, subject);
  assert.ok(result.passed, problems(result));
  const wrong = {
    ...elementwiseSubject(defineElementwise({ ...swish.definition, backward: { x: '1.0' } })),
    reference: null,
  };
  assert.not.ok((await gradcheck(gpu, wrong)).passed);
});

test('derivatives by differences pass the check that is theirs, with a kink and without', async () => {
  const huber = defineLoss({
    name: 'huber',
    inputs: ['x', 'goal'],
    attributes: { delta: 1 },
    forward: 'let d = abs(x - goal); return select(delta * (d - 0.5 * delta), 0.5 * d * d, d <= delta);',
    backward: 'numeric',
    reference: ({ x, goal }, { delta }) => {
      const d = Math.abs(x - goal);
      return d <= delta ? 0.5 * d * d : delta * (d - 0.5 * delta);
    },
  });
  const smooth = defineElementwise({ ...swish.definition, backward: 'numeric' });
  for (const subject of [lossSubject(huber), elementwiseSubject(smooth)]) {
    const checked = await gradcheck(gpu, subject);
    assert.ok(checked.passed, problems(checked));
  }
  const numeric = defineLoss({ ...softL1.definition, backward: 'numeric' });
  const result = await gradcheck(gpu, lossSubject(numeric));
  assert.ok(result.passed, problems(result));
  assert.ok(
    result.findings.some(({ of }) => of === 'd goal'),
    'by every input',
  );
});

test('attributes change the value, may be per-step scalars, and nothing else is taken for one', async () => {
  const graph = new Graph();
  const x = graph.input('x', [3]);
  const goal = graph.input('goal', [3]);
  const program = await compile(gpu, graph, {
    outputs: { a: softL1({ x, goal }, { beta: 2 }), b: softL1({ x, goal }, { beta: scalar('b') }) },
  });
  const step = async (b: number): Promise<number[]> => {
    const { a, b: y } = await program.step({ x: Float32Array.of(1, 2, 4), goal: new Float32Array(3) }, { b });
    return [a![0]!, y![0]!];
  };
  const want = (beta: number): number =>
    [1, 2, 4].reduce((sum, v) => sum + softL1.definition.reference({ x: v, goal: 0 }, { beta }) / 3, 0);
  for (const b of [0.5, 3])
    (await step(b)).forEach((got, i) => assert.ok(Math.abs(got - want(i ? b : 2)) < 1e-6, `${got}`));
  program.destroy();
  await failsWith(
    'usage',
    /soft_l1: the attribute beta is "0\.5", but must be a finite number or scalar\('name'\)/,
    () => softL1({ x, goal }, { beta: '0.5' as never }),
  );
  await failsWith('usage', /soft_l1 has no attribute betta; it has beta/, () =>
    softL1({ x, goal }, { betta: 1 } as never),
  );
  await failsWith('usage', /soft_l1 needs the input goal/, () => softL1({ x } as never));
  await failsWith('shape', /soft_l1: x \[3\] and goal \[4\] must have one shape/, () =>
    softL1({ x, goal: graph.input('longer', [4]) }),
  );
  await failsWith('usage', /cannot name an input/, () =>
    defineLoss({ ...softL1.definition, inputs: ['2x'] } as never),
  );
});

test('keys of definitions are checked: unknown ones by the nearest, missing ones and wrong kinds by name', async () => {
  const base = { ...softL1.definition };
  for (const [message, act] of [
    [
      /defineLoss of soft_l1: unknown key "refrence"; the nearest known one is "reference"/,
      () => defineLoss({ ...base, refrence: 1 } as never),
    ],
    [
      /defineLoss of soft_l1: forward is undefined, but must be a text/,
      () => defineLoss({ ...base, forward: undefined } as never),
    ],
    [
      /defineLoss of soft_l1: reference is undefined, but must be a function/,
      () => defineLoss({ ...base, reference: undefined } as never),
    ],
    [/defineLoss: definition is null/, () => defineLoss(null as never)],
    [
      /defineLoss of soft_l1: backward.x is 1, but must be a text/,
      () => defineLoss({ ...base, backward: { x: 1 } } as never),
    ],
    [
      /defineRowLoss of angle: .*unknown kind of number "summ"; the nearest known one is "sum"/,
      () => defineRowLoss({ ...angle.definition, numbers: { a1: { summ: 'a' } } } as never),
    ],
    [
      /defineElementwise of swish: unknown input in kinds "y"/,
      () => defineElementwise({ ...swish.definition, kinds: { y: 'mask' } } as never),
    ],
    [
      /defineOp: unknown option "bakward"; the nearest known one is "backward"/,
      () => defineOp({ ...swish.op, bakward: null } as never),
    ],
    [
      /defineOp: the option forward is undefined, but must be a function/,
      () => defineOp({ ...swish.op, forward: undefined } as never),
    ],
  ] as const) {
    await failsWith('usage', message, act);
  }
});

test('what a reference of the user throws is told as theirs, with its place', async () => {
  const typo = defineLoss({
    ...softL1.definition,
    reference: ({ x }) => (x as never as { y: { z: number } }).y.z,
  });
  await failsWith('usage', /^soft_l1: reference throws at .*custom\.test.*:\d+:\d+: Cannot read/, () =>
    gradcheck(gpu, lossSubject(typo)),
  );
  const build = (): never => {
    throw new Error('no such layer');
  };
  await failsWith('usage', /^swish: build throws at .*: no such layer/, () =>
    gradcheck(gpu, { ...elementwiseSubject(swish), build }),
  );
});

test('names that WGSL keeps for itself, and those that a row has, are refused; others cannot meet ours', async () => {
  for (const name of ['self', 'fn', 'target', 'mgf_h']) {
    await failsWith('usage', /cannot be called .*; call it my_/, () =>
      defineLoss({ ...softL1.definition, inputs: [name, 'goal'], backward: null } as never),
    );
  }
  await failsWith('usage', /row is a name that every row has already/, () =>
    defineRowLoss({ ...angle.definition, rows: ['row', 'b'] } as never),
  );
  const step = defineElementwise({
    name: 'named_as_ours',
    inputs: ['value', 'step', 'user'],
    forward: 'value * step + user',
    backward: 'numeric',
    reference: ({ value, step: s, user }) => value * s + user,
  });
  const result = await gradcheck(gpu, elementwiseSubject(step));
  assert.ok(result.passed, problems(result));
});

test('a row loss reads three tensors, and says how many it could', async () => {
  const triplet = defineRowLoss({
    name: 'triplet_dot',
    rows: ['anchor', 'near', 'far'],
    numbers: { good: { dot: ['anchor', 'near'] }, bad: { dot: ['anchor', 'far'] } },
    forward: 'bad - good + 0.0 * f32(row)',
    backward: { anchor: 'far - near', near: '-anchor', far: 'anchor' },
    reference: ({ anchor, near, far }) => anchor.reduce((sum, a, i) => sum + a * (far[i]! - near[i]!), 0),
  });
  const result = await gradcheck(gpu, rowSubject(triplet));
  assert.ok(result.passed, problems(result));
  await failsWith('usage', /at most 3 tensors and indices together .*; it has 3 and 1/, () =>
    defineRowLoss({ ...triplet.definition, indices: ['label'] } as never),
  );
});

test('checks fill inputs by their kind', async () => {
  const seen: number[] = [];
  const masked = defineLoss({
    name: 'masked',
    inputs: ['x', 'mask', 'p'],
    kinds: { mask: 'mask', p: 'probability' },
    forward: 'mask * p * x * x',
    backward: { x: '2.0 * mask * p * x' },
    reference: ({ x, mask, p }) => {
      seen.push(mask);
      assert.ok(p > 0 && p < 1, `${p} is no probability`);
      return mask * p * x * x;
    },
  });
  const result = await gradcheck(gpu, lossSubject(masked));
  assert.ok(result.passed, problems(result));
  assert.equal([...new Set(seen)].sort(), [0, 1]);
});

test('a parameter without a place is told, and values of another graph are refused', async () => {
  const graph = new Graph();
  const w = graph.state('w', [3], { requiresGrad: true });
  const notes: string[] = [];
  const telling = { ...gpu, note: (text: string) => void notes.push(text) };
  (await compile(telling, graph, { outputs: { y: swish({ x: w }) } })).destroy();
  assert.match(notes.join(), 'program: the parameter w has no place');
  const other = new Graph().input('elsewhere', [3]);
  await failsWith('usage', /"elsewhere" is a value of another graph/, () =>
    compile(gpu, graph, { outputs: { other } }),
  );
});

test('a mistake in the WGSL is told in the lines of its author, with a caret', async () => {
  const graph = new Graph();
  const x = graph.input('x', [3]);
  const wrong = defineElementwise({
    name: 'wrong',
    inputs: ['x'],
    forward: 'let s = 1.0;\n  return s * xx;',
    backward: null,
    reference: ({ x: v }) => v,
  });
  await failsWith('kernel', [/wrong\.forward:2:14 .*xx/, /\n {4}return s \* xx;\n {15}\^/], () =>
    compile(gpu, graph, { outputs: { y: wrong({ x }) } }),
  );
  await failsWith('shape', /wrong .*has no gradient, yet "v" needs one/, () => {
    const g = new Graph();
    const v = g.state('v', [1], { requiresGrad: true });
    grad(wrong({ x: v }), [v]);
  });
});

test.run();
