/**
 * What a loss can read besides the sound: columns of the manifest, by recording, and numbers that change from
 * step to step.
 */
import type { Batch } from '../audio/source.ts';
import { checkArguments } from '../check.ts';
import { nearestName } from '../edit-distance.ts';
import { MGFError } from '../errors.ts';
import type { Graph, Value } from '../graph/graph.ts';
import { scalar, type Scalar } from '../launch/dispatch.ts';
import type { HostArray } from '../plan/program.ts';

/** The columns of every recording, as text, by the recording's id (`Batch.utterances`). */
export type Columns = ReadonlyMap<string, Readonly<Record<string, string>>>;

/** The class of a recording whose column is empty; `crossEntropy` leaves such rows out, as PyTorch does. */
export const NO_CLASS = -100;

type Kind = 'classes' | 'numbers';

/** Columns and per-step numbers that the losses of one run ask for. */
export class LossInputs {
  readonly #columns: Columns;
  readonly #values = new Map<string, ReadonlyMap<string, number>>();
  readonly #classes = new Map<string, readonly string[]>();
  readonly #scalars = new Map<string, (step: number) => number>();
  readonly #declared = new WeakMap<Graph, Map<string, Value>>();

  constructor(columns: Columns = new Map()) {
    this.#columns = columns;
  }

  /**
   * The distinct values of a column, sorted by code unit: class i is the i-th. Throws MGFError 'data' where no
   * recording has the column, naming the nearest.
   */
  classes(loss: string, name: string): readonly string[] {
    let classes = this.#classes.get(name);
    if (!classes) {
      const found = new Set(this.#texts(loss, name).values());
      found.delete('');
      this.#classes.set(name, (classes = [...found].sort()));
    }
    return classes;
  }

  /** An input [rows]: i32 classes, or f32 numbers. Both crops of a recording have the same. */
  declare(loss: string, graph: Graph, kind: Kind, name: string, rows: number): Value {
    const key = `${kind} of ${name}`;
    if (!this.#values.has(key)) {
      this.#values.set(key, kind === 'classes' ? this.#ids(loss, name) : this.#numbers(loss, name));
    }
    let own = this.#declared.get(graph);
    if (!own) this.#declared.set(graph, (own = new Map()));
    let value = own.get(key);
    if (!value) own.set(key, (value = graph.input(key, [rows], kind === 'classes' ? 'i32' : 'f32')));
    return value;
  }

  /** A number of each step, which counts updates from 0. */
  scalar(loss: string, name: string, at: (step: number) => number): Scalar {
    const full = `${loss}.${name}`;
    this.#scalars.set(full, at);
    return scalar(full);
  }

  /** The declared inputs of a batch: rows b and B + b are the crops of its recording b. */
  inputs({ utterances }: Pick<Batch, 'utterances'>): Record<string, HostArray> {
    const rows = [...utterances, ...utterances];
    return Object.fromEntries(
      [...this.#values].map(([key, values]) => {
        const read = (_: unknown, row: number): number => {
          const value = values.get(rows[row]!);
          if (value !== undefined) return value;
          throw new MGFError(
            'data',
            `The recording "${rows[row]}" is not among those whose columns were given.`,
          );
        };
        const shape = { length: rows.length };
        return [
          key,
          key.startsWith('classes') ? Int32Array.from(shape, read) : Float32Array.from(shape, read),
        ];
      }),
    );
  }

  /** The declared numbers of a step. Throws MGFError 'usage' for one that is not finite. */
  scalars(step: number): Record<string, number> {
    return Object.fromEntries(
      [...this.#scalars].map(([name, at]) => {
        const value = at(step);
        if (typeof value === 'number' && Number.isFinite(value)) return [name, value];
        throw new MGFError('usage', `The per-step number ${name} is ${String(value)} at step ${step}.`);
      }),
    );
  }

  #texts(loss: string, name: string): Map<string, string> {
    const texts = new Map([...this.#columns].map(([id, columns]) => [id, columns[name] ?? '']));
    if ([...texts.values()].some((text) => text !== '')) return texts;
    const known = [...new Set([...this.#columns.values()].flatMap((columns) => Object.keys(columns)))];
    const advice =
      known.length === 0
        ? 'give a manifest with columns'
        : `the nearest is "${nearestName(name, known)}" (all: ${known.join(', ')})`;
    throw new MGFError(
      'data',
      `The loss "${loss}" reads the column "${name}", which no recording has; ${advice}.`,
    );
  }

  #ids(loss: string, name: string): Map<string, number> {
    const ids = new Map(this.classes(loss, name).map((text, id) => [text, id]));
    return new Map([...this.#texts(loss, name)].map(([id, text]) => [id, ids.get(text) ?? NO_CLASS]));
  }

  #numbers(loss: string, name: string): Map<string, number> {
    const numbers = new Map<string, number>();
    for (const [id, text] of this.#texts(loss, name)) {
      const value = text.trim() === '' ? NaN : Number(text);
      if (!Number.isFinite(value)) {
        const what = JSON.stringify(text);
        throw new MGFError(
          'data',
          `The loss "${loss}" reads numbers of "${name}", which is ${what} for "${id}".`,
        );
      }
      numbers.set(id, value);
    }
    return numbers;
  }
}

/** The columns of a list of recordings; `speaker` and `text` by these names, whatever the manifest calls them. */
export const columnsOf = (
  items: readonly {
    readonly id: string;
    readonly speaker?: string;
    readonly text?: string;
    readonly columns: Readonly<Record<string, string>>;
  }[],
): Columns => {
  checkArguments('columnsOf', { items: [items, 'a list'] });
  return new Map(
    items.map(({ id, speaker, text, columns }) => [
      id,
      { ...columns, ...(speaker !== undefined && { speaker }), ...(text !== undefined && { text }) },
    ]),
  );
};
