/** A compiled program for people and their tools: a timeline for trace viewers, the graph for Graphviz. */
import { checkArguments, checkFields } from '../check.ts';
import { formatShape } from '../graph/shape.ts';
import type { Node, Value } from '../graph/graph.ts';
import type { Profiled } from './program.ts';

/** One event of the trace event format, which Perfetto and Chrome read. */
export interface TraceEvent {
  readonly name: string;
  readonly cat: string;
  readonly ph: 'X' | 'M';
  /** Microseconds. */
  readonly ts?: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly args: Readonly<Record<string, unknown>>;
}

/**
 * The dispatches of a profile one after the other, as the device runs them, a line for each phase; copies
 * into images are events of their own.
 */
export function chromeTrace(profiled: readonly Profiled[], label: string): TraceEvent[] {
  checkArguments('chromeTrace', { profiled: [profiled, 'a list'], label: [label, 'a text'] });
  const LINES = ['forward', 'backward', 'copies'];
  const events: TraceEvent[] = [
    { name: 'process_name', cat: '', ph: 'M', pid: 1, tid: 0, args: { name: label } },
    ...LINES.map((name, tid): TraceEvent => ({
      name: 'thread_name',
      cat: '',
      ph: 'M',
      pid: 1,
      tid,
      args: { name },
    })),
  ];
  let at = 0;
  for (const { dispatch: d, ms, copyMs } of profiled) {
    if (copyMs > 0) {
      events.push({
        name: `${d.kernel}: images`,
        cat: 'copy',
        ph: 'X',
        ts: at,
        dur: 1000 * copyMs,
        pid: 1,
        tid: 2,
        args: { for: d.label },
      });
      at += 1000 * copyMs;
    }
    const tensors = Object.fromEntries(
      d.bound.map(({ name, value }) => [name, `${value.name} ${formatShape(value.shape)} ${value.dtype}`]),
    );
    events.push({
      name: d.kernel,
      cat: d.node.op.name,
      ph: 'X',
      ts: at,
      dur: 1000 * ms,
      pid: 1,
      tid: d.node.phase === 'backward' ? 1 : 0,
      args: { label: d.label, grid: d.grid.join(' x '), ...tensors },
    });
    at += 1000 * ms;
  }
  return events;
}

const quoted = (text: string): string => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;

/** What a value is drawn as: the node that computes it, or itself where nothing does. */
const idOf = (v: Value): string => (v.node ? `n${v.node.id}` : `v${v.id}`);

/** A value under another shape is drawn as what it is a shape of. */
function original(v: Value): Value {
  for (; v.node?.op.alias; v = v.node.inputs[0]!);
  return v;
}

/** Forward nodes that compute the loss, not those that add up gradients. */
function forwardNodes(nodes: readonly Node[]): Node[] {
  const backward = new Set<Node>();
  return nodes.filter((node) => {
    const ofGradients =
      node.phase === 'backward' ||
      node.inputs.some((v) => v?.node && (v.node.phase === 'backward' || backward.has(v.node)));
    if (ofGradients) backward.add(node);
    return !ofGradients && !node.op.alias;
  });
}

/**
 * What computes the loss, as a Graphviz graph: ops in boxes by scope, inputs and constants around them,
 * shapes on the edges. Parameters are left out, or nothing else could be seen. `ms`: time of a node, forward
 * and backward together; the darker its box.
 */
export function graphDot(nodes: readonly Node[], ms: ReadonlyMap<Node, number> = new Map()): string {
  checkArguments('graphDot', { nodes: [nodes, 'a list'], ms: [ms, 'a Map'] });
  nodes.forEach((node, i) =>
    checkFields('graphDot', `node ${i}: `, node, { op: 'an object', inputs: 'a list', outputs: 'a list' }),
  );
  const forward = forwardNodes(nodes);
  const longest = Math.max(...ms.values(), 1e-9);
  const scopes = new Map<string, Node[]>();
  for (const node of forward) scopes.set(node.scope, [...(scopes.get(node.scope) ?? []), node]);
  const box = (node: Node): string => {
    const time = ms.get(node);
    const shade = Math.round(100 - 45 * ((time ?? 0) / longest));
    const label = `${node.op.name}${time === undefined ? '' : `\\n${time.toPrecision(2)} ms`}`;
    return (
      `    n${node.id} [label=${quoted(label).replaceAll('\\\\n', '\\n')}, fillcolor="0.58 ` +
      `${((100 - shade) / 100).toFixed(2)} 1.0"];`
    );
  };
  const clusters = [...scopes].map(
    ([scope, own], i) =>
      `  subgraph cluster_${i} {\n    label=${quoted(scope || 'top level')};\n${own.map(box).join('\n')}\n  }`,
  );
  const drawn = new Set(forward);
  const leaves = new Set<Value>();
  const edges: string[] = [];
  for (const node of forward) {
    for (const given of node.inputs) {
      const input = given && original(given);
      if (!input || (input.kind === 'state' && !input.data) || (input.node && !drawn.has(input.node)))
        continue;
      if (!input.node) leaves.add(input);
      edges.push(`  ${idOf(input)} -> n${node.id} [label=${quoted(formatShape(given.shape))}];`);
    }
  }
  const around = [...leaves].map(
    (v) => `  v${v.id} [label=${quoted(v.name)}, shape=ellipse, fillcolor=white];`,
  );
  return [
    'digraph {',
    '  node [shape=box, style="filled,rounded", fontname="sans-serif", fontsize=11, margin="0.12,0.05"];',
    '  edge [fontname="sans-serif", fontsize=9, color="#888888", fontcolor="#666666"];',
    '  graph [fontname="sans-serif", fontsize=11, color="#cccccc", style=rounded];',
    ...clusters,
    ...around,
    ...edges,
    '}',
  ].join('\n');
}
