/** The second pass: every node becomes the dispatches that its op asks for on an adapter. No device. */
import { MGFError } from '../errors.ts';
import type { AdapterProfile } from '../gpu/device.ts';
import type { Node, Value } from '../graph/graph.ts';
import type { DType, Shape } from '../graph/shape.ts';
import type { Dispatch } from '../launch/dispatch.ts';
import { opOf } from '../launch/op.ts';
import { nodeLabel } from './names.ts';

/** What the nodes launch on an adapter. */
export function lower(
  adapter: AdapterProfile,
  nodes: readonly Node[],
): { dispatches: Dispatch[]; owners: Node[] } {
  const dispatches: Dispatch[] = [];
  const owners: Node[] = [];
  let temps = 0;
  for (const node of nodes) {
    if (node.op.alias) continue;
    const temp = (shape: Shape, dtype: DType = 'f32'): Value => {
      temps++;
      return {
        id: -temps,
        name: `${nodeLabel(node)} scratch`,
        shape,
        dtype,
        kind: 'result',
        graph: node.inputs.find(Boolean)!.graph,
        node,
        requiresGrad: false,
      };
    };
    for (const d of dispatchesOf(adapter, node, temp)) {
      dispatches.push(d);
      owners.push(node);
    }
  }
  return { dispatches, owners };
}

function dispatchesOf(
  adapter: AdapterProfile,
  node: Node,
  temp: (shape: Shape, dtype?: DType) => Value,
): Dispatch[] {
  const { attrs, inputs, outputs } = node;
  const op = opOf(node);
  if (node.phase === 'forward') {
    const input = (i: number): Value => {
      const v = inputs[i];
      if (!v) throw new MGFError('shape', `${op.name}: input ${i} was not given`);
      return v;
    };
    return op.forward({ attrs, adapter, inputs, outputs: outputs as Value[], input, temp });
  }
  const { saves } = op;
  const upstreams = node.of!.outputs.length;
  const saved = (list: readonly number[], i: number, base: number, what: string): Value | null => {
    const at = list.indexOf(i);
    if (at < 0)
      throw new MGFError('kernel', `${op.name}.backward reads ${what} ${i}, which its "saves" does not name`);
    return inputs[base + at] ?? null;
  };
  return op.backward!({
    attrs,
    adapter,
    temp,
    upstream: (i) => inputs[i] ?? null,
    input: (i) => saved(saves.inputs, i, upstreams, 'input'),
    output: (i) => saved(saves.outputs, i, upstreams + saves.inputs.length, 'output')!,
    grad: (i) => outputs[i] ?? null,
  });
}
