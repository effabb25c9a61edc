/**
 * What launches cost where the work itself is nothing: per dispatch, pass and submission, and the way there
 * and back.
 */
import type { Findings } from '../suites/suites.ts';
import { statistics } from '../../src/measure/statistics.ts';
import type { Gpu } from '../../src/gpu/device.ts';
import { BufferUsage } from '../../src/gpu/flags.ts';
import { compileKernel } from '../../src/gpu/pipelines.ts';
import { readRegion } from '../../src/plan/program.ts';

const EMPTY = { name: 'empty', source: '@compute @workgroup_size(1) fn main() {}' };
/** Each dispatch needs the one before it; the count tells whether all of them ran, in order. */
const COUNT = {
  name: 'count',
  source:
    '@group(0) @binding(0) var<storage, read_write> x: array<u32>;\n@compute @workgroup_size(1) fn ' +
    'main() { x[0] = x[0] + 1u; }',
};

/**
 * Adds results of the suite 'dispatch': milliseconds of one dispatch, pass, submission or transfer. Refuses
 * the chain where its count is wrong.
 */
export async function measureDispatches(
  gpu: Gpu,
  findings: Findings,
  { quick }: { quick: boolean },
): Promise<void> {
  const { device } = gpu;
  const [empty, count] = await Promise.all([compileKernel(gpu, EMPTY), compileKernel(gpu, COUNT)]);
  const buffer = device.createBuffer({
    label: 'count',
    size: 16,
    usage: BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST,
  });
  const none = device.createBindGroup({ layout: empty.layout, entries: [] });
  const counting = device.createBindGroup({
    layout: count.layout,
    entries: [{ binding: 0, resource: { buffer } }],
  });
  const rounds = quick ? 3 : 20;
  const many = quick ? 100 : 1000;
  let counted = 0;
  const encode = (passes: number, dispatches: number, chain: boolean): GPUCommandBuffer => {
    const encoder = device.createCommandEncoder();
    for (let p = 0; p < passes; p++) {
      const pass = encoder.beginComputePass();
      for (let i = 0; i < dispatches; i++) {
        // As a program does: pipeline and group are set for every dispatch.
        pass.setPipeline((chain ? count : empty).pipeline);
        pass.setBindGroup(0, chain ? counting : none);
        pass.dispatchWorkgroups(1);
      }
      pass.end();
    }
    if (chain) counted += passes * dispatches;
    return encoder.finish();
  };
  const measure = async (name: string, times: number, run: () => Promise<number>): Promise<void> => {
    await run();
    const samples: number[] = [];
    for (let i = 0; i < rounds; i++) samples.push((await run()) / times);
    findings.add('dispatch', name, 'mgf', statistics(samples), { clock: 'wall' });
  };
  const untilDone = async (buffers: () => GPUCommandBuffer[][]): Promise<number> => {
    const started = performance.now();
    for (const list of buffers()) device.queue.submit(list);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - started;
  };
  await measure('one dispatch of many in a pass', many, () => untilDone(() => [[encode(1, many, false)]]));
  await measure('one dispatch of a chain in a pass', many, () => untilDone(() => [[encode(1, many, true)]]));
  await measure('one dispatch, host time to encode', many, async () => {
    const started = performance.now();
    const commands = encode(1, many, true);
    const encoded = performance.now() - started;
    await untilDone(() => [[commands]]);
    return encoded;
  });
  await measure('one pass of one dispatch', many / 5, () => untilDone(() => [[encode(many / 5, 1, true)]]));
  await measure('one submission of one dispatch', many / 5, () =>
    untilDone(() => Array.from({ length: many / 5 }, () => [encode(1, 1, true)])),
  );
  await measure('one submission, awaited', 1, () => untilDone(() => [[encode(1, 1, true)]]));
  await measure('16 bytes to the host', 1, async () => {
    const started = performance.now();
    await readRegion(gpu, { buffer, offset: 0, size: 16 });
    return performance.now() - started;
  });
  const [got] = new Uint32Array(await readRegion(gpu, { buffer, offset: 0, size: 16 }));
  if (got !== counted)
    findings.refused.push({
      suite: 'dispatch',
      name: 'chain',
      engine: 'mgf',
      reason: `${counted} dispatches counted to ${got}`,
    });
  buffer.destroy();
}
