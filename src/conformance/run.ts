import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import { BufferUsage } from '../gpu/flags.ts';
import { elements, Graph, type Value } from '../graph/graph.ts';
import { vectorJacobianProduct } from '../ops/grad.ts';
import { compile } from '../plan/compile.ts';
import { readSafetensors } from '../train/safetensors.ts';
import { swapLast, type CaseBuilder, type Layout } from './case.ts';
import { cases as matrixCases } from './cases-matrix.ts';
import { cases as lossCases } from './cases-losses.ts';
import { cases as normCases } from './cases-norm.ts';
import { runModelCase } from './model-case.ts';

type Host = { shape: number[]; data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> };

export interface Check { readonly name: string; readonly error: number; readonly tolerance: number; readonly passed: boolean }
export interface CaseResult { readonly file: string; readonly op: string; readonly passed: boolean; readonly checks: Check[]; readonly failure?: string }

export const builders: Readonly<Record<string, CaseBuilder>> = { ...matrixCases, ...lossCases, ...normCases };

/** A parsed case file. */
export interface CaseFile {
  readonly op: string;
  readonly attrs: Record<string, any>;
  readonly tolerance: number;
  readonly gradTolerance: number;
  readonly gradFloor: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, Host>;
}

export function parseCase(bytes: Uint8Array, origin: string): CaseFile {
  const { metadata, tensors } = readSafetensors(bytes, { origin });
  if (metadata['schema'] !== 'mgf-conformance/1' || !metadata['op']) {
    throw new MGFError('data', `${origin} is not a conformance case: its metadata has no schema "mgf-conformance/1" and op`);
  }
  return {
    op: metadata['op'], attrs: JSON.parse(metadata['attrs'] ?? '{}') as Record<string, any>, metadata,
    tolerance: Number(metadata['tol'] ?? 1e-4), gradTolerance: Number(metadata['grad_tol'] ?? 1e-3), gradFloor: Number(metadata['grad_floor'] ?? 0),
    tensors: new Map([...tensors].map(([name, t]) => [name, { shape: t.shape, data: t.data as Host['data'] }])),
  };
}

const norm = (x: ArrayLike<number>): number => Math.sqrt(Array.prototype.reduce.call(x, (s: any, v: any) => s + v * v, 0) as number);

/** ||got - want|| / scale; NaN and infinities give Infinity, so that they never pass. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>, scale: number): number {
  if (got.length !== want.length) return Infinity;
  let sum = 0;
  for (let i = 0; i < want.length; i++) sum += (got[i]! - want[i]!) ** 2;
  const error = Math.sqrt(sum) / scale;
  return Number.isFinite(error) ? error : Infinity;
}

/** The rule of a case for one output: relative in norm, absolute where everything wanted is zero. */
export function checkOutput(name: string, got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): Check {
  const size = norm(want);
  const error = size === 0 ? relativeError(got, want, 1) : relativeError(got, want, Math.max(size, 1e-30));
  return { name: `out.${name}`, error, tolerance, passed: error <= tolerance };
}

/** The rule of a case for one gradient; `largest` is the largest gradient norm of the case. */
export function checkGradient(name: string, got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number, floor: number, largest: number): Check {
  const size = Math.max(norm(want), floor * largest);
  const error = relativeError(got, want, size || 1);
  return { name: `grad.${name}`, error, tolerance, passed: error <= tolerance };
}

/** Runs one case on a device. A case of an op that does not exist fails, it is not skipped. */
export async function runCase(gpu: Gpu, bytes: Uint8Array, file: string): Promise<CaseResult> {
  let op = '?';
  try {
    const parsed = parseCase(bytes, file);
    op = parsed.op;
    const checks = op === 'mgf_model' ? await runModelCase(gpu, parsed) : await runOpCase(gpu, parsed);
    return { file, op, checks, passed: checks.length > 0 && checks.every((c) => c.passed) };
  } catch (error) {
    return { file, op, checks: [], passed: false, failure: (error as Error).message };
  }
}

async function runOpCase(gpu: Gpu, file: CaseFile): Promise<Check[]> {
  const build = builders[file.op];
  if (!build) throw new MGFError('data', `no op "${file.op}"; there are ${Object.keys(builders).sort().join(', ')}, mgf_model`);
  const graph = new Graph(), inputs = new Map<string, { value: Value; layout: Layout; host: Host }>();
  const tensor = (name: string): Host => {
    const found = file.tensors.get(`in.${name}`);
    if (!found) throw new MGFError('data', `the case has no tensor "in.${name}"`);
    return found;
  };
  const built = build({
    graph, attrs: file.attrs, tensor, has: (name) => file.tensors.has(`in.${name}`),
    input(name, layout = 'plain') {
      const host = tensor(name), { data, shape } = layout === 'swap' ? swapLast(host.data, host.shape) : host;
      const dtype = data instanceof Int32Array ? 'i32' as const : 'f32' as const;
      const value = graph.state(`in.${name}`, shape, { dtype, requiresGrad: file.tensors.has(`grad.${name}`) });
      inputs.set(name, { value, layout, host: { data, shape } });
      return value;
    },
  });
  const outputs = Object.entries(built).map(([name, o]) => ({ name, ...('value' in o ? o : { value: o, layout: 'plain' as const }) }));
  const wanted = [...inputs].filter(([name]) => file.tensors.has(`grad.${name}`));
  let gradients: Value[] = [];
  if (wanted.length) {
    const seeds = outputs.flatMap(({ name, value, layout }): [Value, Value][] => {
      const up = file.tensors.get(`up.${name}`);
      if (!up) return [];
      const { data, shape } = layout === 'swap' ? swapLast(up.data, up.shape) : up;
      return [[value, graph.constant(`up.${name}`, shape, data)]];
    });
    gradients = vectorJacobianProduct(new Map(seeds), wanted.map(([, { value }]) => value));
  }
  const keep: Record<string, Value> = {};
  for (const { name, value } of outputs) keep[`out.${name}`] = value;
  wanted.forEach(([name], i) => { keep[`grad.${name}`] = gradients[i]!; });
  const usage = BufferUsage.STORAGE | BufferUsage.COPY_DST | BufferUsage.COPY_SRC;
  const buffers = [...inputs.values()].map(({ value, host }) => {
    const buffer = gpu.device.createBuffer({ label: value.name, size: Math.max(16, Math.ceil(host.data.length / 4) * 16), usage });
    gpu.device.queue.writeBuffer(buffer, 0, host.data);
    return { value, region: { buffer, offset: 0, size: buffer.size } };
  });
  const program = await compile(gpu, graph, { keep, place: new Map(buffers.map(({ value, region }) => [value, region])), label: file.op });
  try {
    program.poison();
    await program.step();
    const read = async (name: string, value: Value, layout: Layout): Promise<ArrayLike<number>> => {
      const data = await program.read(name);
      return layout === 'swap' ? swapLast(data, value.shape).data : data;
    };
    const checks: Check[] = [];
    for (const { name, value, layout } of outputs) {
      const want = file.tensors.get(`out.${name}`);
      if (!want) throw new MGFError('data', `the case has no tensor "out.${name}"`);
      if (elements(value.shape) !== want.data.length) throw new MGFError('shape', `out.${name} has shape [${value.shape.join(', ')}], the case wants [${want.shape.join(', ')}]`);
      checks.push(checkOutput(name, await read(`out.${name}`, value, layout), want.data, file.tolerance));
    }
    const largest = Math.max(0, ...wanted.map(([name]) => norm(file.tensors.get(`grad.${name}`)!.data)));
    for (const [name, { value, layout }] of wanted) {
      checks.push(checkGradient(name, await read(`grad.${name}`, value, layout), file.tensors.get(`grad.${name}`)!.data, file.gradTolerance, file.gradFloor, largest));
    }
    return checks;
  } finally {
    program.destroy();
    for (const { region } of buffers) region.buffer.destroy();
  }
}
