import { checkArguments, checkFields, checkOptions, VALUE } from '../check.ts';
import { MGFError } from '../errors.ts';
import type { OpRule } from './op.ts';
import { elements, formatShape, type DType, type Shape, type Spec } from './shape.ts';

const DTYPES = '"f32"|"i32"|"u32"';

/**
 * Where a value comes from: `input` is uploaded each step, `state` lives on the device across steps
 * (parameters, moments, constants), `result` is computed by a node.
 */
export type ValueKind = 'input' | 'state' | 'result';

/** A tensor in the graph: shape and origin, no storage. Row-major; activations are channels-last. */
export interface Value extends Spec {
  readonly id: number;
  readonly name: string;
  readonly kind: ValueKind;
  readonly graph: Graph;
  /** The node that computes it (null for inputs and state). */
  readonly node: Node | null;
  readonly requiresGrad: boolean;
  /** Contents of a constant: uploaded once when a program is compiled. */
  readonly data?: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
}

/** One application of an op, or of its backward. */
export interface Node {
  readonly id: number;
  // An op's attribute type is its own business; the graph only carries the record.
  readonly op: OpRule<any>;
  readonly phase: 'forward' | 'backward';
  /**
   * forward: the op's inputs. backward: upstream gradients, then saved inputs, then saved outputs, as listed
   * in `slots`.
   */
  readonly inputs: readonly (Value | null)[];
  /** forward: the op's outputs. backward: gradient per op input, null where not needed. */
  readonly outputs: readonly (Value | null)[];
  readonly attrs: any;
  /** The forward node this is the backward of. */
  readonly of: Node | null;
  readonly scope: string;
}

/** A graph under construction. Appending is the only change, so creation order is a topological order. */
export class Graph {
  readonly values: Value[] = [];
  readonly nodes: Node[] = [];
  #scopes: string[] = [];

  /** Uploaded by the caller at every step. */
  input(name: string, shape: Shape, dtype: DType = 'f32'): Value {
    checkArguments('Graph.input', {
      name: [name, 'a text'],
      shape: [shape, 'a list'],
      dtype: [dtype, DTYPES],
    });
    if (this.values.some((v) => v.kind === 'input' && v.name === name))
      throw new MGFError('shape', `the graph has an input named "${name}" already`);
    return this.#value({ name, shape, dtype, kind: 'input', node: null, requiresGrad: false });
  }

  /** Lives on the device across steps. `requiresGrad` makes it a parameter. */
  state(name: string, shape: Shape, options: { dtype?: DType; requiresGrad?: boolean } = {}): Value {
    checkArguments('Graph.state', { name: [name, 'a text'], shape: [shape, 'a list'] });
    checkOptions('Graph.state', options, { dtype: `${DTYPES}?`, requiresGrad: 'true or false?' });
    return this.#value({
      name,
      shape,
      dtype: options.dtype ?? 'f32',
      kind: 'state',
      node: null,
      requiresGrad: options.requiresGrad ?? false,
    });
  }

  /** A table computed on the host, such as a filterbank. Has no gradient. */
  constant(name: string, shape: Shape, data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>): Value {
    checkArguments('Graph.constant', {
      name: [name, 'a text'],
      shape: [shape, 'a list'],
      data: [data, 'a Float32Array|an Int32Array'],
    });
    if (data.length !== elements(shape))
      throw new MGFError(
        'shape',
        `constant "${name}": ${data.length} numbers for shape ${formatShape(shape)}`,
      );
    return this.#value({
      name,
      shape,
      dtype: data instanceof Int32Array ? 'i32' : 'f32',
      kind: 'state',
      node: null,
      requiresGrad: false,
      data,
    });
  }

  /** Names every node created inside `build` with a prefix, for plans, profiles and error messages. */
  scope<T>(name: string, build: () => T): T {
    this.#scopes.push(name);
    try {
      return build();
    } finally {
      this.#scopes.pop();
    }
  }

  /** Appends a forward node and returns its outputs. */
  apply<A>(op: OpRule<A>, inputs: readonly (Value | null)[], attrs: A): Value[] {
    checkFields('Graph.apply', 'op.', op, { name: 'a text', shape: 'a function' });
    checkArguments('Graph.apply', { inputs: [inputs, 'a list'] });
    for (const v of inputs)
      if (v && v.graph !== this)
        throw new MGFError('shape', `${op.name}: input "${v.name}" belongs to another graph`);
    const specs = op.shape(inputs, attrs);
    const differentiable = op.differentiable ?? inputs.map((_, i) => i);
    const requiresGrad = differentiable.some((i) => inputs[i]?.requiresGrad);
    return this.append(
      { op, phase: 'forward', inputs, attrs, of: null },
      specs.map((s) => ({ ...s, requiresGrad: requiresGrad && s.dtype === 'f32' })),
    ) as Value[];
  }

  /**
   * Appends a node with the given output specs (null: that output is not wanted). Used by `apply` and by
   * autograd.
   */
  append(
    node: Omit<Node, 'id' | 'outputs' | 'scope'>,
    outputs: readonly ((Spec & { requiresGrad: boolean; name?: string }) | null)[],
  ): (Value | null)[] {
    const scope = node.of ? node.of.scope : this.#scopes.join('.');
    const created: { -readonly [K in keyof Node]: Node[K] } = {
      ...node,
      id: this.nodes.length,
      outputs: [],
      scope,
    };
    const label = `${scope ? `${scope}/` : ''}${node.op.name}${node.phase === 'backward' ? '.backward' : ''}`;
    created.outputs = outputs.map(
      (o, i) =>
        o &&
        this.#value({
          name: o.name ?? (outputs.length > 1 ? `${label}:${i}` : label),
          shape: o.shape,
          dtype: o.dtype,
          kind: 'result',
          node: created,
          requiresGrad: o.requiresGrad,
        }),
    );
    this.nodes.push(created);
    return created.outputs as (Value | null)[];
  }

  #value(fields: Omit<Value, 'id' | 'graph'>): Value {
    if (fields.shape.some((n) => !Number.isInteger(n) || n < 1)) {
      throw new MGFError(
        'shape',
        `"${fields.name}" would have shape ${formatShape(fields.shape)}; every dimension must be a ` +
          'whole number of at least 1',
      );
    }
    const value: Value = { ...fields, id: this.values.length, graph: this };
    this.values.push(value);
    return value;
  }
}

/**
 * Records an op on the graph of its first input and returns the outputs. The first `required` inputs must be
 * given, the others may be null.
 * Throws MGFError 'usage' for an input that is no Value, and what `Graph.apply` throws.
 */
export function apply<A>(
  op: OpRule<A>,
  inputs: readonly (Value | null)[],
  attrs: A,
  required = inputs.length,
): Value[] {
  inputs.forEach((x, i) => {
    if (i < required || x !== null) checkArguments(op.name, { [`input ${i}`]: [x, VALUE] });
  });
  return inputs[0]!.graph.apply(op, inputs, attrs);
}
