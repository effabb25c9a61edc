/**
 * A character n-gram for CTC decoding: counts of the transcripts, interpolated by Witten and Bell's method
 * (IEEE Trans. Inf. Theory 37(4), 1991).
 */
import { MGFError } from '../../errors.ts';
import { ctcLabels } from './labels.ts';
import type { TaskData } from '../task.ts';

/**
 * What comes next in a transcript. Labels are CTC classes, 1 to classes - 1; 0, the blank there, is the end
 * of the transcript here.
 */
export interface CharLM {
  readonly classes: number;
  /** log p(label | the labels before it) of every label, [classes]; index 0: the transcript ends. */
  logProbabilities(history: readonly number[]): Float64Array;
}

/** Of the character model that goes with a recogniser: a history of three, and the next. */
const ORDER = 4;

/** The character model of a recogniser: of the transcripts of its training split. */
export const transcriptModel = ({ classes, items }: Pick<TaskData, 'classes' | 'items'>): NGram =>
  NGram.train(
    items.filter(({ split }) => split === 'train').map(({ transcript }) => ctcLabels(transcript, classes)),
    { order: ORDER, classes: classes.length + 1 },
  );

/** What came after one history, and how often. */
interface Followers {
  total: number;
  counts: Map<number, number>;
}

/** Before the first label. */
const START = -1;

/**
 * p(w | h) = (count(h w) + types(h) p(w | h without its first label)) / (count(h) + types(h)), where types(h)
 * counts the different labels seen after h; below a history of no labels lies the uniform distribution, so
 * that nothing is impossible.
 */
export class NGram implements CharLM {
  readonly classes: number;
  /** Labels of a history plus one. */
  readonly order: number;
  readonly #followers = new Map<string, Followers>();
  readonly #known = new Map<string, Float64Array>();

  private constructor(order: number, classes: number) {
    this.order = order;
    this.classes = classes;
  }

  /** Counts transcripts (labels 1 to classes - 1). Throws MGFError 'data' for a label outside them. */
  static train(
    transcripts: readonly (readonly number[])[],
    { order, classes }: { readonly order: number; readonly classes: number },
  ): NGram {
    const grams = new Map<string, { gram: number[]; count: number }>();
    for (const labels of transcripts) {
      const padded = [...new Array<number>(order - 1).fill(START), ...labels, 0];
      for (let end = order; end <= padded.length; end++) {
        const gram = padded.slice(end - order, end);
        const known = grams.get(gram.join());
        if (known) known.count++;
        else grams.set(gram.join(), { gram, count: 1 });
      }
    }
    return NGram.fromTable(
      Int32Array.from([...grams.values()].flatMap(({ gram, count }) => [...gram, count])),
      { order, classes },
    );
  }

  /** From what `table` gave. Throws MGFError 'data' for a table that is none. */
  static fromTable(
    table: Int32Array,
    { order, classes }: { readonly order: number; readonly classes: number },
  ): NGram {
    const model = new NGram(order, classes);
    const row = order + 1;
    if (order < 1 || table.length % row !== 0)
      throw new MGFError(
        'data',
        `${table.length} numbers are not the table of a character model of order ${order}.`,
      );
    for (let at = 0; at < table.length; at += row) {
      const gram = [...table.subarray(at, at + order)];
      const label = gram.pop()!;
      const count = table[at + order]!;
      if (label < 0 || label >= classes || count < 1)
        throw new MGFError(
          'data',
          `a character model of ${classes - 1} characters cannot have counted label ${label} ${count} times.`,
        );
      for (let skip = 0; skip < order; skip++) model.#count(gram.slice(skip).join(), label, count);
    }
    return model;
  }

  /**
   * Every n-gram of the full order with its count, [n, order + 1]; a history shorter than that begins with
   * -1.
   */
  table(): Int32Array {
    const rows: number[] = [];
    for (const [key, { counts }] of this.#followers) {
      const history = key === '' ? [] : key.split(',').map(Number);
      if (history.length === this.order - 1)
        for (const [label, count] of counts) rows.push(...history, label, count);
    }
    return Int32Array.from(rows);
  }

  logProbabilities(history: readonly number[]): Float64Array {
    const length = this.order - 1;
    const context = history.slice(Math.max(0, history.length - length));
    while (context.length < length) context.unshift(START);
    const key = context.join();
    let known = this.#known.get(key);
    if (!known) this.#known.set(key, (known = this.#distribution(context).map(Math.log)));
    return known;
  }

  #count(history: string, label: number, count: number): void {
    let followers = this.#followers.get(history);
    if (!followers) this.#followers.set(history, (followers = { total: 0, counts: new Map() }));
    followers.total += count;
    followers.counts.set(label, (followers.counts.get(label) ?? 0) + count);
  }

  #distribution(context: readonly number[]): Float64Array {
    let p = new Float64Array(this.classes).fill(1 / this.classes);
    for (let length = 0; length <= context.length; length++) {
      const followers = this.#followers.get(context.slice(context.length - length).join());
      if (!followers) break;
      const { total, counts } = followers;
      const types = counts.size;
      p = p.map((lower, label) => ((counts.get(label) ?? 0) + types * lower) / (total + types));
    }
    return p;
  }
}
