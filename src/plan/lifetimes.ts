/** The passes between launches and storage: what lives when, and where it has to lie. No device. */
import { MGFError } from '../errors.ts';
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
 * Decides where values lie. `placed` have storage of the caller's; `results` stay after the step. Throws
 * MGFError 'usage' for a parameter that has no storage of the caller's: it would begin at zero and be lost.
 * Other states without a place live in the program and begin at zero.
 */
export function placeValues(
  lifetimes: ReadonlyMap<Value, Lifetime>,
  placed: ReadonlySet<Value>,
  results: readonly Value[],
): Storage {
  const free = [...lifetimes.keys()].filter((v) => !placed.has(v));
  const lost = free.find((v) => v.kind === 'state' && v.requiresGrad && !v.data);
  if (lost) {
    const message =
      `compile: the parameter "${lost.name}" has no place, so that it would begin at zero and could not be ` +
      'saved; give it storage with the option place (a ParameterStore has some).';
    throw new MGFError('usage', message);
  }
  const persistent = new Set(results);
  const transient = free.filter((v) => v.kind === 'result' && !persistent.has(v));
  const others = [...free.filter((v) => v.kind !== 'result'), ...persistent];
  const resident = [...new Set(others)].filter((v) => !placed.has(v));
  const blocks = transient.map((v) => ({ bytes: byteSize(v.shape), ...lifetimes.get(v)! }));
  return { transient, resident, ...placeBlocks(blocks) };
}
