import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MGFError } from '../src/errors.ts';
import { profileOf, softwareOf } from '../src/gpu/adapter.ts';
import { dawnAdapter } from '../src/gpu/dawn.ts';
import { openGpu } from '../src/gpu/device.ts';
import { embeddedDriver } from '../src/gpu/embedded.ts';
import { openTestGpu, testAdapter } from './gpu.ts';
import type { Gpu } from '../src/gpu/device.ts';

const STORAGE = 0x80;
const COPY_SRC = 0x04;
const COPY_DST = 0x08;
const MAP_READ = 0x01;

/** Squares 0..63 on the device, read back. */
async function squares({ device }: Pick<Gpu, 'device'>): Promise<Uint32Array> {
  const code = `@group(0) @binding(0) var<storage, read_write> squares: array<u32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { squares[id.x] = id.x * id.x; }`;
  const pipeline = device.createComputePipeline({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code }) },
  });
  const buffer = device.createBuffer({ size: 256, usage: STORAGE | COPY_SRC });
  const readback = device.createBuffer({ size: 256, usage: MAP_READ | COPY_DST });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource: { buffer } }],
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(buffer, 0, readback, 0, 256);
  device.queue.submit([encoder.finish()]);
  await readback.mapAsync(1);
  const values = new Uint32Array(readback.getMappedRange().slice(0));
  buffer.destroy();
  readback.destroy();
  return values;
}

async function failsWith(code: string, part: RegExp, run: () => Promise<unknown>): Promise<void> {
  try {
    await run();
  } catch (error) {
    assert.instance(error, MGFError);
    assert.is((error as MGFError).code, code);
    assert.match((error as MGFError).message, part);
    return;
  }
  assert.unreachable('nothing was thrown');
}

const expectedSquares = Uint32Array.from({ length: 64 }, (_, i) => i * i);
const settled = (gpu: Gpu): Promise<undefined> => gpu.device.queue.onSubmittedWorkDone();

test('a shader computes the right values and leaves no error', async () => {
  const gpu = await openTestGpu();
  assert.equal(await squares(gpu), expectedSquares);
  assert.is(gpu.failure(), null);
});

test('whoever awaits a software adapter leaves the processor to it', async () => {
  const { device, profile, settle } = await openTestGpu();
  if (profile.kind === 'gpu') {
    const answer = Promise.resolve();
    assert.is(settle(answer), answer, 'a GPU is awaited as it is');
    return;
  }
  const code = `@group(0) @binding(0) var<storage, read_write> x: array<f32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { for (var i = 0; i < 20000; i++) { x[id.x] = fract(x[id.x] * 3.7 + 0.1); } }`;
  const pipeline = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code }) },
  });
  const buffer = device.createBuffer({ size: 256 * 64, usage: STORAGE });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource: { buffer } }],
  });
  const turns = async (wait: typeof settle): Promise<number> => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(64);
    pass.end();
    device.queue.submit([encoder.finish()]);
    let count = 0;
    let done = false;
    const turn = (): void => {
      count++;
      if (!done) setImmediate(turn);
    };
    setImmediate(turn);
    await wait(device.queue.onSubmittedWorkDone());
    done = true;
    return count;
  };
  await turns(settle);
  const bare = await turns((answer) => answer);
  const settled = await turns(settle);
  assert.ok(settled < bare / 3, `${settled} turns of the event loop, ${bare} without`);
  buffer.destroy();
});

test('the profile names the adapter that was asked for and a fitting kernel family', async () => {
  const { profile } = await openTestGpu();
  const asked = testAdapter();
  if (asked === 'lavapipe' || asked === 'swiftshader') assert.is(profile.software, asked);
  if (asked === 'gpu') assert.is(profile.software, undefined);
  assert.ok(profile.name.length > 3);
  assert.is(profile.kind, profile.software ? 'cpu' : 'gpu');
  if (profile.software === 'lavapipe' || profile.software === 'swiftshader') {
    assert.is(profile.family, 'cpu');
    assert.is.not(profile.subgroupSize, 0);
  }
});

test('limits are raised above the defaults of WebGPU', async () => {
  const { device } = await openTestGpu();
  assert.ok(device.limits.maxComputeWorkgroupStorageSize > 16384);
  assert.ok(device.limits.maxStorageBuffersPerShaderStage > 8);
});

test('an invalid call fails with the label of its own scope, once', async () => {
  const gpu = await openTestGpu();
  gpu.scope('conv1d of layer 3', () =>
    gpu.device.createBuffer({ size: gpu.device.limits.maxBufferSize * 2, usage: STORAGE }),
  );
  gpu.scope('gelu of layer 3', () => undefined);
  await settled(gpu);
  const failure = gpu.failure();
  assert.is(failure?.code, 'validation');
  assert.match(failure!.message, /conv1d of layer 3/);
  assert.not.match(failure!.message, /\n/);
  assert.is(gpu.failure(), null);
});

test('an invalid call outside any scope fails with the latest label', async () => {
  const gpu = await openTestGpu();
  gpu.scope('softmax of layer 1', () => undefined);
  gpu.device.createBuffer({ size: gpu.device.limits.maxBufferSize * 2, usage: STORAGE });
  await settled(gpu);
  assert.match(gpu.failure()!.message, /softmax of layer 1/);
});

test('the first of several failures is kept', async () => {
  const gpu = await openTestGpu();
  for (const name of ['first op', 'second op']) {
    gpu.scope(name, () =>
      gpu.device.createBuffer({ size: gpu.device.limits.maxBufferSize * 2, usage: STORAGE }),
    );
  }
  await settled(gpu);
  assert.match(gpu.failure()!.message, /first op/);
  assert.is(gpu.failure(), null);
});

test('a scope returns the value of what it runs and lets its exception through', async () => {
  const gpu = await openTestGpu();
  assert.is(
    gpu.scope('add', () => 42),
    42,
  );
  assert.throws(
    () =>
      gpu.scope('add', () => {
        throw new Error('from inside');
      }),
    /from inside/,
  );
  assert.equal(await squares(gpu), expectedSquares);
});

test("a caller's device is used as given and outlives close()", async () => {
  const { device } = await openTestGpu();
  const gpu = await openGpu({ device });
  assert.is(gpu.device, device);
  gpu.close();
  assert.is(gpu.failure()?.code, 'device-lost');
  assert.equal(await squares({ device }), expectedSquares);
});

test('close() ends the device and says so', async () => {
  const prefer = testAdapter();
  await openTestGpu();
  const gpu = await openGpu(prefer ? { prefer } : {});
  gpu.close();
  gpu.close();
  const error = await gpu.lost;
  assert.is(error.code, 'device-lost');
  assert.match(error.message, /closed/);
  assert.is(gpu.failure(), error);
});

test('a device that goes away is told with the last operation, each time', async () => {
  const prefer = testAdapter();
  await openTestGpu();
  const gpu = await openGpu(prefer ? { prefer } : {});
  gpu.scope('attention of layer 2', () => undefined);
  gpu.device.destroy();
  const error = await gpu.lost;
  assert.match(error.message, /attention of layer 2/);
  assert.is(gpu.failure()?.code, 'device-lost');
  assert.is(gpu.failure()?.code, 'device-lost');
  gpu.close();
});

test('no adapter is an error that says what was tried and what to install', async () => {
  const gpu = { requestAdapter: () => Promise.resolve(null) } as unknown as GPU;
  await failsWith('no-adapter', /offers no adapter.*apt-get install mesa-vulkan-drivers/, () =>
    openGpu({ gpu }),
  );
});

test('an adapter of another kind than asked for is refused by name', async () => {
  const adapter = { info: { vendor: 'mesa', architecture: 'software', description: 'llvmpipe 1' } };
  const gpu = { requestAdapter: () => Promise.resolve(adapter) } as unknown as GPU;
  await failsWith('no-adapter', /llvmpipe 1.*not what was asked for \(gpu\)/, () =>
    openGpu({ gpu, prefer: 'gpu' }),
  );
});

test('an unknown preference is a usage error', async () => {
  const adapter = { info: { vendor: 'acme' } };
  const gpu = { requestAdapter: () => Promise.resolve(adapter) } as unknown as GPU;
  await failsWith('usage', /prefer is "warp", but must be/, () => openGpu({ gpu, prefer: 'warp' as 'gpu' }));
});

const carried = await embeddedDriver([]);
(carried ? test : test.skip)(
  'the embedded SwiftShader runs beside an installed driver and leaves the environment as it was',
  async () => {
    await openTestGpu();
    const before = process.env.VK_DRIVER_FILES;
    const gpu = await openGpu({ prefer: 'swiftshader' });
    assert.is(gpu.profile.software, 'swiftshader');
    assert.is(process.env.VK_DRIVER_FILES, before);
    assert.equal(await squares(gpu), expectedSquares);
    gpu.close();
  },
);
if (!carried)
  console.log('skip: the embedded SwiftShader (package @sparticuz/chromium, Linux x64) is not installed');

const fakeDevice = (...features: string[]): GPUDevice =>
  ({ features: new Set(features), limits: {} }) as unknown as GPUDevice;

test('a GPU takes the shared-memory kernels whatever its subgroups', () => {
  const info = {
    vendor: 'nvidia',
    architecture: 'hopper',
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    isFallbackAdapter: false,
  };
  const profile = profileOf(info, fakeDevice('subgroups'), 'test');
  assert.equal(
    [profile.kind, profile.family, profile.subgroupSize, profile.software],
    ['gpu', 'gpu', 32, undefined],
  );
});

test('a software adapter without fixed subgroups takes the shared-memory kernels', () => {
  const info = { description: 'SwiftShader Device (Subzero)', subgroupMinSize: 4, subgroupMaxSize: 8 };
  assert.is(profileOf(info, fakeDevice('subgroups'), 'test').family, 'gpu');
  assert.is(profileOf({ ...info, subgroupMaxSize: 4 }, fakeDevice(), 'test').family, 'gpu');
  assert.is(profileOf({ ...info, subgroupMaxSize: 4 }, fakeDevice('subgroups'), 'test').family, 'cpu');
});

test('software drivers are told from hardware', () => {
  assert.is(softwareOf({ description: 'llvmpipe: Mesa 25' }), 'lavapipe');
  assert.is(softwareOf({ vendor: 'google', architecture: 'swiftshader' }), 'swiftshader');
  assert.is(
    softwareOf({ vendor: 'microsoft', description: 'Basic Render Driver', isFallbackAdapter: true }),
    'other',
  );
  assert.is(softwareOf({ vendor: 'intel', architecture: 'xe-lpg' }), undefined);
});

test('a GPU object that is brought is kept, and navigator.gpu can be passed over', async () => {
  const { adapter, runtime } = (await dawnAdapter(testAdapter(), []))!;
  let asked = 0;
  const brought = (): GPU =>
    ({
      requestAdapter: async () => {
        asked++;
        return adapter;
      },
    }) as unknown as GPU;
  const navigator = globalThis.navigator as { gpu?: GPU } | undefined;
  const host = navigator ?? {};
  if (!navigator) Object.assign(globalThis, { navigator: host });
  host.gpu = brought();
  try {
    const passedOver = await openGpu({ builtIn: false, ...(testAdapter() && { prefer: testAdapter() }) });
    assert.equal([passedOver.profile.runtime, asked], [runtime, 0]);
    passedOver.close();
    const object = new WeakRef(host.gpu);
    const gpu = await openGpu({ gpu: host.gpu });
    assert.is(asked, 1);
    gpu.close();
    delete host.gpu;
    setFlagsFromString('--expose-gc');
    await new Promise((turn) => {
      setTimeout(turn, 10);
    });
    (runInNewContext('gc') as () => void)();
    assert.ok(object.deref());
  } finally {
    delete host.gpu;
  }
});

test.run();
