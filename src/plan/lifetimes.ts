/** The passes between launches and storage: what lives when, and where it has to lie. No device. */
import type { Value } from '../graph/graph.ts';
import type { Dispatch, View } from '../launch/dispatch.ts';
import { placeBlocks, type Placement } from './memory.ts';
import type { Root } from './prune.ts';
import { byteSize } from './storage.ts';

/** The dispatches that touch a value first and last. */
export interface Lifetime {
  first: number;
  last: number;
}

export const isView = (x: Value | View): x is View => 'value' in x;
/** The value that a binding is of. */
export const valueOf = (bound: Value | View): Value => (isView(bound) ? bound.value : bound);

/** Lifetimes of the values that have storage. */
export function lifetimesOf(dispatches: readonly Dispatch[], root: Root): Map<Value, Lifetime> {
  const lifetimes = new Map<Value, Lifetime>();
  dispatches.forEach((d, i) => {
    for (const bound of Object.values(d.bind)) {
      const v = root(valueOf(bound));
      const life = lifetimes.get(v);
      if (life) life.last = i;
      else lifetimes.set(v, { first: i, last: i });
    }
  });
  return lifetimes;
}

/** Where values lie: in slots that they share, or in buffers of their own. */
export interface Storage extends Placement {
  /** Results that nobody asks for; the i-th lies in slot `slotOf[i]`. */
  readonly transient: readonly Value[];
  /** Inputs, states without a place of the caller's, and results that stay. */
  readonly resident: readonly Value[];
}

/**
 * Decides where values lie. `placed` have storage of the caller's; `results` stay after the step. States
 * without a place live in the program, begin at zero and go with it.
 */
export function placeValues(
  lifetimes: ReadonlyMap<Value, Lifetime>,
  placed: ReadonlySet<Value>,
  results: readonly Value[],
): Storage {
  const free = [...lifetimes.keys()].filter((v) => !placed.has(v));
  const persistent = new Set(results);
  const transient = free.filter((v) => v.kind === 'result' && !persistent.has(v));
  const others = [...free.filter((v) => v.kind !== 'result'), ...persistent];
  const resident = [...new Set(others)].filter((v) => !placed.has(v));
  const blocks = transient.map((v) => ({ bytes: byteSize(v.shape), ...lifetimes.get(v)! }));
  return { transient, resident, ...placeBlocks(blocks) };
}
