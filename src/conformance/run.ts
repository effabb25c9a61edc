import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import { BufferUsage } from '../gpu/flags.ts';
import { elements } from '../graph/shape.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { vectorJacobianProduct } from '../ops/grad.ts';
import { compile } from '../plan/compile.ts';
import { swapLast } from '../plan/parameters.ts';
import type { HostArray } from '../plan/program.ts';
import { checkArguments, GPU } from '../check.ts';
import {
  checkGradient,
  checkOutput,
  norm,
  parseCase,
  type CaseFile,
  type Check,
  type Host,
} from './check.ts';
import type { CaseBuilder, Layout } from './case.ts';
import { cases as matrixCases } from './cases-matrix.ts';
import { cases as lossCases } from './cases-losses.ts';
import { cases as normCases } from './cases-norm.ts';
import { runModelCase } from './model-case.ts';

/** What a golden case gave; `failure` where it could not be run. */
export interface CaseResult {
  readonly file: string;
  readonly op: string;
  readonly passed: boolean;
  readonly checks: Check[];
  readonly failure?: string;
}

export const builders: Readonly<Record<string, CaseBuilder>> = { ...matrixCases, ...lossCases, ...normCases };

/** Runs one case on a device. A case of an op that `table` does not hold fails, it is not skipped. */
export async function runCase(
  gpu: Gpu,
  bytes: Uint8Array,
  file: string,
  table: Readonly<Record<string, CaseBuilder>> = builders,
): Promise<CaseResult> {
  checkArguments('runCase', { gpu: [gpu, GPU], bytes: [bytes, 'a Uint8Array'], file: [file, 'a text'] });
  let op = '?';
  try {
    const parsed = parseCase(bytes, file);
    op = parsed.op;
    const checks = op === 'mgf_model' ? await runModelCase(gpu, parsed) : await runOpCase(gpu, parsed, table);
    return { file, op, checks, passed: checks.length > 0 && checks.every((c) => c.passed) };
  } catch (error) {
    return { file, op, checks: [], passed: false, failure: (error as Error).message };
  }
}

async function runOpCase(
  gpu: Gpu,
  file: CaseFile,
  table: Readonly<Record<string, CaseBuilder>>,
): Promise<Check[]> {
  const build = table[file.op];
  if (!build)
    throw new MGFError(
      'data',
      `no op "${file.op}"; there are ${Object.keys(table).sort().join(', ')}, mgf_model`,
    );
  const graph = new Graph();
  const inputs = new Map<string, { value: Value; layout: Layout; host: Host }>();
  const tensor = (name: string): Host => {
    const found = file.tensors.get(`in.${name}`);
    if (!found) throw new MGFError('data', `the case has no tensor "in.${name}"`);
    return found;
  };
  const built = build({
    graph,
    attrs: file.attrs,
    tensor,
    has: (name) => file.tensors.has(`in.${name}`),
    input(name, layout = 'plain') {
      const host = tensor(name);
      const { data, shape } = layout === 'swap' ? swapLast(host.data, host.shape) : host;
      const dtype = data instanceof Int32Array ? ('i32' as const) : ('f32' as const);
      const value = graph.state(`in.${name}`, shape, {
        dtype,
        requiresGrad: file.tensors.has(`grad.${name}`),
      });
      inputs.set(name, { value, layout, host: { data, shape } });
      return value;
    },
  });
  const outputs = Object.entries(built).map(([name, o]) => ({
    name,
    ...('value' in o ? o : { value: o, layout: 'plain' as const }),
  }));
  const wanted = [...inputs].filter(([name]) => file.tensors.has(`grad.${name}`));
  let gradients: Value[] = [];
  if (wanted.length) {
    const seeds = outputs.flatMap(({ name, value, layout }): [Value, Value][] => {
      const up = file.tensors.get(`up.${name}`);
      if (!up) return [];
      const { data, shape } = layout === 'swap' ? swapLast(up.data, up.shape) : up;
      return [[value, graph.constant(`up.${name}`, shape, data)]];
    });
    gradients = vectorJacobianProduct(
      new Map(seeds),
      wanted.map(([, { value }]) => value),
    );
  }
  const keep: Record<string, Value> = {};
  for (const { name, value } of outputs) keep[`out.${name}`] = value;
  wanted.forEach(([name], i) => {
    keep[`grad.${name}`] = gradients[i]!;
  });
  const usage = BufferUsage.STORAGE | BufferUsage.COPY_DST | BufferUsage.COPY_SRC;
  const buffers = [...inputs.values()].map(({ value, host }) => {
    const buffer = gpu.device.createBuffer({
      label: value.name,
      size: Math.max(16, Math.ceil(host.data.length / 4) * 16),
      usage,
    });
    gpu.device.queue.writeBuffer(buffer, 0, host.data);
    return { value, region: { buffer, offset: 0, size: buffer.size } };
  });
  const program = await compile(gpu, graph, {
    keep,
    place: new Map(buffers.map(({ value, region }) => [value, region])),
    label: file.op,
  });
  try {
    program.poison();
    await program.step();
    const read = async (name: string, value: Value, layout: Layout): Promise<ArrayLike<number>> => {
      // The cases have no u32 tensors.
      const data = (await program.read(name)) as Exclude<HostArray, Uint32Array>;
      return layout === 'swap' ? swapLast(data, value.shape).data : data;
    };
    const checks: Check[] = [];
    for (const { name, value, layout } of outputs) {
      const want = file.tensors.get(`out.${name}`);
      if (!want) throw new MGFError('data', `the case has no tensor "out.${name}"`);
      if (elements(value.shape) !== want.data.length)
        throw new MGFError(
          'shape',
          `out.${name} has shape [${value.shape.join(', ')}], the case wants [${want.shape.join(', ')}]`,
        );
      checks.push(checkOutput(name, await read(`out.${name}`, value, layout), want.data, file.tolerance));
    }
    const largest = Math.max(0, ...wanted.map(([name]) => norm(file.tensors.get(`grad.${name}`)!.data)));
    for (const [name, { value, layout }] of wanted) {
      checks.push(
        checkGradient(
          name,
          await read(`grad.${name}`, value, layout),
          file.tensors.get(`grad.${name}`)!.data,
          file.gradTolerance,
          file.gradFloor,
          largest,
        ),
      );
    }
    return checks;
  } finally {
    program.destroy();
    for (const { region } of buffers) region.buffer.destroy();
  }
}
