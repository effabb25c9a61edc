import { MGFError } from '../errors.ts';
import { backpropagate } from '../graph/autograd.ts';
import { elements, formatShape, type Value } from '../graph/graph.ts';
import { add, fillLike } from './elementwise.ts';

/**
 * Gradients of the scalar `loss` with respect to each target, in their order; nodes are appended to the loss's graph.
 * Throws MGFError('shape') when the loss is no scalar, a target does not influence it, or the path has an op without a gradient.
 */
export function grad(loss: Value, targets: readonly Value[]): Value[] {
  if (elements(loss.shape) !== 1) throw new MGFError('shape', `grad: the loss must be a scalar, "${loss.name}" has shape ${formatShape(loss.shape)}`);
  return vectorJacobianProduct(new Map([[loss, fillLike(loss, 1)]]), targets);
}

/** Gradients of the sum of seed * output (same shapes) with respect to each target. Throws as `grad`. */
export function vectorJacobianProduct(seeds: ReadonlyMap<Value, Value>, targets: readonly Value[]): Value[] {
  const gradients = backpropagate(seeds, targets, add);
  return targets.map((t) => {
    const g = gradients.get(t);
    if (!g) throw new MGFError('shape', `grad: "${t.name}" does not influence ${[...seeds.keys()].map((v) => `"${v.name}"`).join(', ')}`);
    return g;
  });
}
