/** The first pass: which nodes of a graph are needed. Plain data, no device. */
import { MGFError } from '../errors.ts';
import type { Graph, Node, Value } from '../graph/graph.ts';

/**
 * Nodes that some wanted value depends on, and those that change state, in creation order. Throws MGFError
 * 'usage' for a value of another graph.
 */
export function prune(graph: Graph, wanted: readonly Value[]): Node[] {
  const stranger = wanted.find((v) => v.graph !== graph);
  if (stranger) {
    const message = `compile: "${stranger.name}" is a value of another graph, not of the one that is compiled.`;
    throw new MGFError('usage', message);
  }
  const needed = new Set<Node>();
  for (const v of wanted) if (v.node) needed.add(v.node);
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const node = graph.nodes[i]!;
    if (node.phase === 'forward' && node.op.mutates?.length) needed.add(node);
    if (needed.has(node)) for (const v of node.inputs) if (v?.node) needed.add(v.node);
  }
  return graph.nodes.filter((n) => needed.has(n));
}

/** The value whose storage a value shares: that of which it is another shape, else its own. */
export type Root = (v: Value) => Value;

/** Finds storage roots among these nodes. */
export function storageRoots(nodes: readonly Node[]): Root {
  const roots = new Map<Value, Value>();
  for (const { op, inputs, outputs } of nodes) {
    if (op.alias) roots.set(outputs[0]!, roots.get(inputs[0]!) ?? inputs[0]!);
  }
  return (v) => roots.get(v) ?? v;
}
