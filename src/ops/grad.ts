import { checkArguments, VALUE } from '../check.ts';
import { MGFError } from '../errors.ts';
import { backpropagate } from '../graph/autograd.ts';
import { elements, formatShape } from '../graph/shape.ts';
import type { Value } from '../graph/graph.ts';
import type { Scalar } from '../launch/dispatch.ts';
import { add, fillLike, scale } from './elementwise.ts';

/**
 * Gradients of the scalar `loss` with respect to each target, in their order; nodes are appended to the
 * loss's graph. `seed`: what they are multiplied by, a number or a per-step scalar (a loss scale). Throws
 * MGFError('shape') when the loss is no scalar, a target does not influence it, or the path has an op without
 * a gradient.
 */
export function grad(loss: Value, targets: readonly Value[], seed: number | Scalar = 1): Value[] {
  checkArguments('grad', {
    loss: [loss, VALUE],
    targets: [targets, 'a list'],
    seed: [seed, 'a number|a per-step scalar'],
  });
  if (elements(loss.shape) !== 1)
    throw new MGFError(
      'shape',
      `grad: the loss must be a scalar, "${loss.name}" has shape ${formatShape(loss.shape)}`,
    );
  return vectorJacobianProduct(new Map([[loss, fillLike(loss, seed)]]), targets);
}

/** Gradients of the sum of seed * output (same shapes) with respect to each target. Throws as `grad`. */
export function vectorJacobianProduct(seeds: ReadonlyMap<Value, Value>, targets: readonly Value[]): Value[] {
  checkArguments('vectorJacobianProduct', { seeds: [seeds, 'a Map'], targets: [targets, 'a list'] });
  targets.forEach((target, i) =>
    checkArguments('vectorJacobianProduct', { [`target ${i}`]: [target, VALUE] }),
  );
  if (seeds.size === 0 || targets.length === 0) {
    throw new MGFError('usage', 'vectorJacobianProduct: give at least one seed and one target.');
  }
  const gradients = backpropagate(seeds, targets, add);
  // An addend's gradient is its sum's own gradient, not a copy. Who asked for it may put it into storage of
  // its own, so it gets one.
  const owners = new Map<Value, number>();
  for (const g of gradients.values()) owners.set(g, (owners.get(g) ?? 0) + 1);
  return targets.map((t) => {
    const g = gradients.get(t);
    if (!g)
      throw new MGFError(
        'shape',
        `grad: "${t.name}" does not influence ${[...seeds.keys()].map((v) => `"${v.name}"`).join(', ')}`,
      );
    return owners.get(g)! > 1 ? scale(g, 1) : g;
  });
}
