/**
 * The contract of an op, as far as the graph knows it: shapes, what backward needs, cost. How it runs is
 * src/launch/op.ts.
 */
import type { Spec } from './shape.ts';

/**
 * What an op takes in theory: floating-point operations, and bytes read and written if each tensor passes
 * once.
 */
export interface Cost {
  readonly flops: number;
  readonly bytes: number;
}

/** Attributes of an op: plain data. */
export type Attrs = Readonly<Record<string, unknown>>;

/** What the graph and autograd ask of an op. Plain rules over shapes: no value, no kernel, no device. */
export interface OpRule<A = Attrs> {
  readonly name: string;
  /**
   * Output shapes. Throws MGFError('shape') that names the op, the shapes and the rule. Absent optional
   * inputs are null.
   */
  shape(inputs: readonly (Spec | null)[], attrs: A): Spec[];
  /** null is a statement: this op has no gradient (grad() through it throws unless the input needs none). */
  readonly backward: unknown;
  /** Which forward inputs and outputs backward reads; everything else may be freed. */
  readonly saves: { readonly inputs: readonly number[]; readonly outputs: readonly number[] };
  /** Inputs that can have a gradient; default: every f32 input. */
  readonly differentiable?: readonly number[];
  /**
   * Inputs whose gradient is the upstream gradient of output 0 as it is (a residual, an addend): no copy is
   * made.
   */
  readonly passThrough?: readonly number[];
  /** Inputs that forward overwrites in place (optimiser state). Such a node is never pruned. */
  readonly mutates?: readonly number[];
  /** The output is the input's storage under another shape: no dispatch. */
  readonly alias?: boolean;
  /** For profiles and benchmarks; nothing is chosen by it. */
  cost(inputs: readonly (Spec | null)[], outputs: readonly Spec[], attrs: A): Cost;
}
