import type { Node, Value } from '../graph/graph.ts';
import type { Dispatch, View } from '../launch/dispatch.ts';

export interface Launches {
  readonly dispatches: readonly Dispatch[];
  readonly owners: readonly Node[];
}

const isView = (x: Value | View): x is View => 'value' in x;

/**
 * Moves element-wise maps into the matrix products before them, which apply them as they store: a pass over
 * memory and a dispatch less. Dispatches say what they are (`Dispatch.map`, `Dispatch.product`). A map moves
 * when the product is all that writes its argument, and
 *   - GELU: always; the product then writes argument and result, both of which somebody may still want;
 *   - the gradient through GELU: when nobody else reads its argument, which then disappears. `wanted` are the
 *     values that must exist.
 * `root` gives the value whose storage a value shares.
 */
export function fuseMaps(
  { dispatches, owners }: Launches,
  root: (value: Value) => Value,
  wanted: ReadonlySet<Value>,
): Launches {
  const users = new Map<Value, number[]>();
  dispatches.forEach((d, i) => {
    for (const bound of Object.values(d.bind)) {
      const value = root(isView(bound) ? bound.value : bound);
      const list = users.get(value);
      if (list) list.push(i);
      else users.set(value, [i]);
    }
  });
  const fused = [...dispatches];
  const gone = new Set<number>();
  dispatches.forEach(({ map }, at) => {
    if (!map) return;
    const argument = root(map.argument);
    const [first, ...others] = users.get(argument)!;
    const product = fused[first!]!.product;
    // The product comes first and everybody else reads, unless a second writer comes before the map.
    if (!product || root(product.output) !== argument || others[0] !== at) return;
    const disappears = map.activation === 'gelu-backward';
    if (disappears && (others.length > 1 || wanted.has(argument) || users.get(root(map.pre))![0]! >= first!))
      return;
    fused[first!] = product.with(map);
    gone.add(at);
  });
  const stays = (_: unknown, i: number): boolean => !gone.has(i);
  return { dispatches: fused.filter(stays), owners: owners.filter(stays) };
}
