/** An op as the engine runs it: the rule that the graph knows, and the dispatches of forward and backward. */
import { checkFields, checkOptions, type Rules } from '../check.ts';
import type { AdapterProfile } from '../gpu/device.ts';
import type { Node, Value } from '../graph/graph.ts';
import type { Attrs, OpRule } from '../graph/op.ts';
import type { DType, Shape } from '../graph/shape.ts';
import type { Dispatch } from './dispatch.ts';

/** What `forward` sees. Optional inputs that were not given are null. */
export interface ForwardContext<A> {
  readonly attrs: A;
  readonly inputs: readonly (Value | null)[];
  readonly outputs: readonly Value[];
  /** The kernel family and limits to build for. */
  readonly adapter: AdapterProfile;
  /** Input i; throws when it was not given. */
  input(i: number): Value;
  /** Scratch that lives for this node's dispatches only. */
  temp(shape: Shape, dtype?: DType): Value;
}

/**
 * What `backward` sees: the upstream gradients, what `saves` asked to keep, and the gradients it must write.
 */
export interface BackwardContext<A> {
  readonly attrs: A;
  readonly adapter: AdapterProfile;
  /** Gradient of output i, or null when nothing downstream used it. */
  upstream(i: number): Value | null;
  /** Saved input i (named in `saves.inputs`), or null when it was not given. */
  input(i: number): Value | null;
  /** Saved output i (named in `saves.outputs`). */
  output(i: number): Value;
  /** Where the gradient of input i goes, or null when nobody needs it. Every element must be written. */
  grad(i: number): Value | null;
  /** Scratch that lives for this node's dispatches only. */
  temp(shape: Shape, dtype?: DType): Value;
}

/**
 * An op: shape rule, forward, backward and cost in one record. The only way an op exists, built-in or a
 * user's.
 */
export interface Op<A = Attrs> extends OpRule<A> {
  /** What computes the outputs on this adapter, in order; every element of each must be written. */
  forward(context: ForwardContext<A>): Dispatch[];
  /** null is a statement: this op has no gradient (grad() through it throws unless the input needs none). */
  readonly backward: ((context: BackwardContext<A>) => Dispatch[]) | null;
}

const KEYS: Rules<Op> = {
  name: 'a text',
  shape: 'a function',
  forward: 'a function',
  backward: 'a function|null',
  saves: 'an object',
  differentiable: 'a list?',
  passThrough: 'a list?',
  mutates: 'a list?',
  alias: 'true or false?',
  cost: 'a function',
};

/** Declares an op. Throws MGFError 'usage' for a key that is unknown, missing or of a wrong kind. */
export function defineOp<A>(op: Op<A>): Op<A> {
  checkOptions('defineOp', op, KEYS as Rules<Op<A>>);
  checkFields(`defineOp of ${op.name}`, 'saves.', op.saves, { inputs: 'a list', outputs: 'a list' });
  return op;
}

/** The op of a node. The graph keeps only the rule; whatever it records was declared by `defineOp`. */
export const opOf = (node: Node): Op<unknown> => node.op as Op<unknown>;
