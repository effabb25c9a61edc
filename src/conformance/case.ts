import type { Graph, Value } from '../graph/graph.ts';

/**
 * `swap`: the last two axes are exchanged between PyTorch's layout and the engine's (activations [B, C, L]
 * <-> [B, L, C], convolution weights).
 */
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
