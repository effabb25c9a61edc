import { MGFError } from '../errors.ts';
import type { Graph, Node, Value } from './graph.ts';

/**
 * Gradients of sum(seed * output) over the given outputs with respect to `targets`, by walking the graph back
 * once and appending backward nodes. `add` sums two gradients of one value: it is an op, and the graph knows
 * no op by itself. Throws MGFError('shape') when a path runs through an op without a gradient.
 */
export function backpropagate(
  seeds: ReadonlyMap<Value, Value>,
  targets: readonly Value[],
  add: (a: Value, b: Value) => Value,
): Map<Value, Value> {
  const graph = [...seeds.keys()][0]!.graph;
  const last = graph.nodes.length;
  const reaching = nodesBetween(graph, targets, last);
  const gradients = new Map(seeds);
  const accumulate = (value: Value, gradient: Value): void => {
    const sum = gradients.get(value);
    gradients.set(value, sum ? add(sum, gradient) : gradient);
  };

  for (let i = last - 1; i >= 0; i--) {
    const node = graph.nodes[i]!;
    const upstream = node.outputs.map((o) => (o && gradients.get(o)) ?? null);
    if (upstream.every((g) => g === null) || !reaching.nodes.has(node)) continue;
    for (const j of upstream[0] ? (node.op.passThrough ?? []) : []) {
      const v = node.inputs[j];
      if (v && reaching.values.has(v)) accumulate(v, upstream[0]!);
    }
    const wanted = node.inputs.map((v, j) =>
      v && reaching.values.has(v) && differentiable(node, j) && !node.op.passThrough?.includes(j) ? v : null,
    );
    if (wanted.every((v) => v === null)) continue;
    if (!node.op.backward)
      throw new MGFError(
        'shape',
        `grad: ${node.op.name} (${node.scope || 'top level'}) has no gradient, yet ` +
          `"${wanted.find(Boolean)!.name}" needs one`,
      );
    const { saves } = node.op;
    const inputs = [
      ...upstream,
      ...saves.inputs.map((j) => node.inputs[j] ?? null),
      ...saves.outputs.map((j) => node.outputs[j] ?? null),
    ];
    const outputs = graph.append(
      { op: node.op, phase: 'backward', inputs, attrs: node.attrs, of: node },
      wanted.map((v) => v && { shape: v.shape, dtype: v.dtype, requiresGrad: false, name: `d ${v.name}` }),
    );
    // One value can be given to an op twice (x * x): every position has its own gradient.
    wanted.forEach((v, j) => {
      if (v) accumulate(v, outputs[j]!);
    });
  }
  return gradients;
}

const differentiable = (node: Node, input: number): boolean =>
  node.inputs[input]!.dtype === 'f32' && (node.op.differentiable?.includes(input) ?? true);

/** The values that depend on a target, and the nodes on the way: nothing else gets a backward node. */
function nodesBetween(
  graph: Graph,
  targets: readonly Value[],
  last: number,
): { values: Set<Value>; nodes: Set<Node> } {
  const values = new Set(targets);
  const nodes = new Set<Node>();
  for (let i = 0; i < last; i++) {
    const node = graph.nodes[i]!;
    if (
      node.phase === 'backward' ||
      !node.inputs.some((v, j) => v && values.has(v) && differentiable(node, j))
    )
      continue;
    nodes.add(node);
    for (const o of node.outputs) if (o && o.dtype === 'f32') values.add(o);
  }
  return { values, nodes };
}

/** Everything that a value depends on, itself included: a parameter that is not among it has no gradient. */
export function ancestors(value: Value): Set<Value> {
  const seen = new Set<Value>();
  const queue = [value];
  for (let v = queue.pop(); v; v = queue.pop()) {
    if (seen.has(v)) continue;
    seen.add(v);
    for (const input of v.node?.inputs ?? []) if (input) queue.push(input);
  }
  return seen;
}
