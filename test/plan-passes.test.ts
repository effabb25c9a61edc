import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { defineElementwise } from '../src/custom/elementwise.ts';
import { Graph, type Value } from '../src/graph/graph.ts';
import { kernel, scalar } from '../src/launch/dispatch.ts';
import { add, reshape, scale } from '../src/ops/elementwise.ts';
import { matmul } from '../src/ops/gemm/matmul.ts';
import { compile } from '../src/plan/compile.ts';
import { lifetimesOf, placeValues } from '../src/plan/lifetimes.ts';
import { lower } from '../src/plan/lower.ts';
import { packUniforms } from '../src/plan/pack.ts';
import { prune, storageRoots } from '../src/plan/prune.ts';
import type { AdapterProfile } from '../src/gpu/device.ts';
import { openTestGpu } from './gpu.ts';
import { failsWith } from './harness.ts';

const test = suite('passes of the plan');

/** An adapter that exists on paper alone. */
const paper = {
  name: 'paper',
  kind: 'cpu',
  family: 'cpu',
  subgroupSize: 8,
  features: new Set(['subgroups']),
  limits: { maxStorageBufferBindingSize: 2 ** 27 },
  runtime: 'none',
} as unknown as AdapterProfile;

test('prune leaves out what no wanted value depends on', () => {
  const graph = new Graph();
  const x = graph.input('x', [4]);
  const wanted = scale(x, 2);
  scale(wanted, 3);
  assert.equal(prune(graph, [wanted]), [wanted.node]);
});

test('a reshaped value shares the storage of what it is a shape of', () => {
  const graph = new Graph();
  const x = graph.input('x', [2, 2]);
  const flat = reshape(reshape(x, [4]), [1, 4]);
  assert.is(storageRoots(prune(graph, [flat]))(flat), x);
});

test('lower asks every op for its dispatches, in order', () => {
  const graph = new Graph();
  const x = graph.input('x', [4]);
  const { dispatches, owners } = lower(paper, prune(graph, [add(scale(x, 2), x)]));
  assert.equal(
    owners.map((node) => node.op.name),
    ['scale', 'add'],
  );
  assert.is(dispatches.length, 2);
});

test('values that do not live at one time share a slot; those that are wanted have their own', () => {
  const graph = new Graph();
  const x = graph.input('x', [64]);
  const chain: Value[] = [x];
  for (let i = 0; i < 4; i++) chain.push(scale(chain.at(-1)!, 2));
  const y = chain.at(-1)!;
  const nodes = prune(graph, [y]);
  const root = storageRoots(nodes);
  const lifetimes = lifetimesOf(lower(paper, nodes).dispatches, root);
  assert.equal(lifetimes.get(chain[1]!), { first: 0, last: 1 });
  const { transient, resident, slotBytes } = placeValues(lifetimes, new Set(), [y]);
  assert.equal([transient.length, slotBytes], [3, [256, 256]]);
  assert.equal(resident, [x, y]);
});

test('uniform fields are packed by name, per-step ones are remembered', () => {
  const graph = new Graph();
  const { node } = scale(graph.input('x', [4]), 2);
  const fields = [
    { name: 'n', type: 'u32' as const },
    { name: 'rate', type: 'f32' as const },
  ];
  const compiled = { name: 'k', interface: { bindings: [], fields } };
  const dispatch = { kernel: kernel('k', ''), bind: {}, grid: [1, 1, 1] as const };
  const pack = (params: Record<string, number | ReturnType<typeof scalar>>) =>
    packUniforms(256, [{ ...dispatch, params }], [compiled], [node!]);
  const { data, scalars, offsets } = pack({ n: 7, rate: scalar('lr') });
  assert.equal([new Uint32Array(data)[0], data.byteLength, offsets], [7, 256, [0]]);
  assert.equal(scalars.get('lr'), [{ offset: 4, type: 'f32' }]);
  assert.throws(() => pack({ n: 7 }), 'needs a uniform field "rate"');
  assert.throws(() => pack({ n: 7, rate: 1, m: 2 }), 'has no uniform field "m"');
});

const gpu = await openTestGpu();

/** What a device made and has not destroyed, while its n-th creation fails. */
class Failing {
  readonly alive = new Set<GPUBuffer | GPUTexture>();
  made = 0;

  constructor(device: GPUDevice, failAt: number) {
    for (const name of ['createBuffer', 'createTexture'] as const) {
      const original = (device[name] as (d: never) => GPUBuffer | GPUTexture).bind(device);
      Object.assign(device, {
        [name]: (descriptor: never) => {
          if (this.made++ === failAt) throw new RangeError('no room');
          const resource = original(descriptor);
          const destroy = resource.destroy.bind(resource);
          resource.destroy = () => {
            this.alive.delete(resource);
            destroy();
            return undefined;
          };
          this.alive.add(resource);
          return resource;
        },
      });
    }
  }

  stop(device: GPUDevice): void {
    for (const name of ['createBuffer', 'createTexture'] as const) Reflect.deleteProperty(device, name);
  }
}

/** A graph with slots, constants, images and uniforms: every kind of thing that a program owns. */
function someGraph(): { graph: Graph; outputs: Record<string, Value> } {
  const graph = new Graph();
  const data = Float32Array.from({ length: 64 * 64 }, (_, i) => Math.sin(i));
  const x = graph.input('x', [64, 64]);
  const w = graph.constant('w', [64, 64], data);
  return { graph, outputs: { y: matmul(scale(matmul(x, w), 2), w), z: scale(x, 3) } };
}

test('whichever creation fails, compile leaves nothing behind, and its error scopes are popped', async () => {
  // The first compile of a device also tests its kernel variants.
  const warm = someGraph();
  (await compile(gpu, warm.graph, { outputs: warm.outputs })).destroy();
  const whole = new Failing(gpu.device, -1);
  const { graph, outputs } = someGraph();
  const program = await compile(gpu, graph, { outputs });
  const { made } = whole;
  whole.stop(gpu.device);
  program.destroy();
  assert.is(whole.alive.size, 0, 'a program frees all that it owns');
  assert.ok(made >= 5, `${made} creations`);
  let leaked = 0;
  for (let n = 0; n < made; n++) {
    const failing = new Failing(gpu.device, n);
    const again = someGraph();
    const error = await compile(gpu, again.graph, { outputs: again.outputs }).then(
      (p) => p.destroy(),
      (e: unknown) => e,
    );
    failing.stop(gpu.device);
    assert.instance(error, RangeError, `creation ${n} fails`);
    leaked += failing.alive.size;
  }
  console.log(`${made} creations, each failed once: ${leaked} resources leaked`);
  assert.is(leaked, 0);
  // A scope that was left open would have swallowed this error.
  gpu.device.pushErrorScope('validation');
  assert.is(await gpu.device.popErrorScope(), null);
  let unbalanced = false;
  await gpu.device.popErrorScope().catch(() => {
    unbalanced = true;
  });
  assert.ok(unbalanced, 'no scope is open any more');
});

test('a kernel that does not compile leaves no buffer behind', async () => {
  const watching = new Failing(gpu.device, -1);
  const graph = new Graph();
  const broken = defineElementwise({
    name: 'broken',
    inputs: ['x'],
    forward: 'nowhere',
    backward: null,
    reference: ({ x }) => x,
  });
  const y = scale(broken({ x: graph.input('x', [4]) }), 2);
  await failsWith('kernel', /nowhere/, () => compile(gpu, graph, { outputs: { y } }));
  watching.stop(gpu.device);
  assert.ok(watching.made > 0, 'buffers were there before the kernel failed');
  assert.is(watching.alive.size, 0);
});

test.run();
