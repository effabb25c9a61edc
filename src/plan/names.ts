import type { Node } from '../graph/graph.ts';

/** A node as plans, profiles and messages call it: `layer.0/matmul`, `layer.0/matmul.backward`. */
export const nodeLabel = (node: Node): string =>
  `${node.scope ? `${node.scope}/` : ''}${node.op.name}${node.phase === 'backward' ? '.backward' : ''}`;
