import type { Graph, Value } from '../graph/graph.ts';

/** `swap`: the last two axes are exchanged between PyTorch's layout and the engine's (activations [B, C, L] <-> [B, L, C], convolution weights). */
export type Layout = 'plain' | 'swap';

export interface CaseInputs {
  readonly graph: Graph;
  /** Attributes of the case as the file gives them. */
  readonly attrs: Readonly<Record<string, any>>;
  has(name: string): boolean;
  /** Tensor `in.NAME` as a value that needs a gradient when the file has `grad.NAME`. */
  input(name: string, layout?: Layout): Value;
  /** Tensor `in.NAME` on the host. */
  tensor(name: string): { shape: number[]; data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> };
}

/** Builds the graph of a case and says which value is which output of the file. */
export type CaseBuilder = (c: CaseInputs) => Record<string, Value | { value: Value; layout: Layout }>;

/** The last two axes of a row-major array exchanged. */
export function swapLast<T extends Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>>(data: T, shape: readonly number[]): { data: T; shape: number[] } {
  const [M, N] = shape.slice(-2) as [number, number];
  const out = new (data.constructor as new (n: number) => T)(data.length);
  for (let base = 0; base < data.length; base += M * N) {
    for (let i = 0; i < M; i++) for (let j = 0; j < N; j++) out[base + j * M + i] = data[base + i * N + j]!;
  }
  return { data: out, shape: [...shape.slice(0, -2), N, M] };
}
