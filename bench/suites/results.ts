/**
 * The file of results: what it holds, how it is read, and what became slower or faster between two of them.
 */
import * as v from 'valibot';
import { MGFError } from '../../src/errors.ts';

const number = v.pipe(v.number(), v.finite(), v.minValue(0));
const count = v.pipe(number, v.integer());

const result = v.object({
  suite: v.string(),
  name: v.string(),
  engine: v.string(),
  /** Milliseconds of one run. */
  ms: v.object({ median: number, min: number, max: number }),
  gflops: v.optional(number),
  gbps: v.optional(number),
  /** Part of this run's own ceilings: 1 is all of it. */
  of_ceiling: v.optional(number),
  peak_bytes: v.optional(number),
  /** Timed by the device, or by the wall clock where left out. */
  clock: v.optional(v.picklist(['timestamps', 'wall'])),
  runs: v.optional(count),
  /** Milliseconds of every run, in their order. */
  samples: v.optional(v.array(number)),
  /** Which of several ways to do the work was measured. */
  variant: v.optional(v.string()),
  dispatches: v.optional(count),
  /** Part of its step's time on the device. */
  share: v.optional(number),
  /** Launches in a step. */
  calls: v.optional(count),
  /** Growth: where on its axis, arithmetic, and bytes of the tensor that this engine does without. */
  value: v.optional(number),
  flops: v.optional(number),
  gathered_bytes: v.optional(number),
});

const excluded = v.object({ suite: v.string(), name: v.string(), engine: v.string(), reason: v.string() });

const file = v.object({
  adapter: v.string(),
  versions: v.record(v.string(), v.string()),
  /** ISO 8601. */
  date: v.string(),
  machine: v.optional(v.string()),
  /** False where the run was interrupted: what is here was measured before. */
  complete: v.optional(v.boolean()),
  results: v.array(result),
  /** Wrong, failed, or not able to do the work. */
  refused: v.optional(v.array(excluded)),
  /** Not tried: budget, memory, filter. */
  left_out: v.optional(v.array(excluded)),
});

export type Result = v.InferOutput<typeof result>;
export type Excluded = v.InferOutput<typeof excluded>;
export type ResultsFile = v.InferOutput<typeof file>;

/** Reads the text of a results file. Throws MGFError 'data' naming what is wrong in it. */
export function parseResults(text: string, origin: string): ResultsFile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new MGFError(
      'data',
      `${origin} is not JSON (${(error as Error).message}); a results file is ` +
        `what \`mgf bench --json FILE\` writes.`,
      { cause: error },
    );
  }
  const parsed = v.safeParse(file, json);
  if (parsed.success) return parsed.output;
  const {
    issues: [first],
  } = parsed;
  throw new MGFError(
    'data',
    `${origin} is not a file of results: ${v.getDotPath(first) ?? 'the top level'}: ${first.message}.`,
  );
}

/** Text of a results file; throws MGFError 'data' for results that reading would refuse. */
export function formatResults(results: ResultsFile): string {
  const lines = JSON.stringify(
    results,
    (_, x: unknown) => (typeof x === 'number' ? Number(x.toPrecision(6)) : x),
    1,
  );
  // A list of numbers takes one line.
  const oneLine = (numbers: string): string => numbers.replaceAll(/\s+/g, ' ');
  const text = `${lines.replace(/\[\s+([-\d.e+,\s]+?)\s+\]/g, (_, list: string) => `[${oneLine(list)}]`)}\n`;
  parseResults(text, 'the results');
  return text;
}

export interface Change {
  readonly suite: string;
  readonly name: string;
  readonly engine: string;
  readonly before: Result;
  readonly after: Result;
  /** Medians, after / before; where the work differs, of the times for the same amount of it. */
  readonly ratio: number;
}

export interface Comparison {
  readonly slower: readonly Change[];
  readonly faster: readonly Change[];
  /** Beyond noise, but not beyond what the adapter's ceilings moved. */
  readonly inconclusive: readonly Change[];
  /** Within noise. */
  readonly same: number;
  readonly onlyBefore: readonly string[];
  readonly onlyAfter: readonly string[];
  /** What makes the two hard to compare: another adapter, ceilings that moved, other work. */
  readonly warnings: readonly string[];
}

/** Differences of medians up to this part are equal, unless told otherwise: a tenth. */
export const COMPARE_THRESHOLD = 0.1;

/** What tells a result from others: suite, name, engine. */
export const resultKey = (r: Pick<Result, 'suite' | 'name' | 'engine'>): string =>
  `${r.suite} ${r.name} (${r.engine})`;

/** FLOP/s, or bytes a second where there are no FLOPs, in G; null where neither was noted. */
const rateOf = (r: Result, as: Result): { value: number; unit: 'GFLOP/s' | 'GB/s' } | null => {
  if (r.gflops && as.gflops) return { value: r.gflops, unit: 'GFLOP/s' };
  return r.gbps && as.gbps ? { value: r.gbps, unit: 'GB/s' } : null;
};

/**
 * How much more work a run of `after` does than one of `before`: 1 within a percent, or where it cannot be
 * told.
 */
export function workRatio(before: Result, after: Result): number {
  const b = rateOf(before, after);
  const a = rateOf(after, before);
  if (!a || !b) return 1;
  const ratio = (a.value * after.ms.median) / (b.value * before.ms.median);
  return Math.abs(ratio - 1) < 0.01 ? 1 : ratio;
}

/** A sentence if two results are of other work, else null. */
export function otherWork(before: Result, after: Result): string | null {
  const ratio = workRatio(before, after);
  const b = rateOf(before, after);
  const a = rateOf(after, before);
  if (ratio === 1 || !a || !b) return null;
  const variants =
    before.variant !== after.variant
      ? `, as ${after.variant ?? 'unknown'} instead of ${before.variant ?? 'unknown'}`
      : '';
  return (
    `${resultKey(after)} does ${ratio.toPrecision(3)} times the work of before${variants}: compared ` +
    `by rate, ${b.value.toPrecision(3)} and now ${a.value.toPrecision(3)} ${a.unit}`
  );
}

/** Rate of a ceiling now over its rate before; by time where no rate was noted. Above 1 it rose. */
export function ceilingRatio(before: Result, after: Result): number {
  return (workRatio(before, after) * before.ms.median) / after.ms.median;
}

/**
 * By how much the ceilings of two runs differ: the larger ratio, turned above 1; null where they have none in
 * common.
 */
export function ceilingsMoved(before: readonly Result[], after: readonly Result[]): number | null {
  const ratios = before
    .filter((r) => r.suite === 'ceilings')
    .flatMap((b) => {
      const a = after.find((r) => resultKey(r) === resultKey(b));
      return a ? [ceilingRatio(b, a)] : [];
    });
  return ratios.length ? Math.max(...ratios.map((r) => Math.max(r, 1 / r))) : null;
}

function ceilingWarning(before: Result, after: Result): string | null {
  const ratio = ceilingRatio(before, after);
  const b = rateOf(before, after);
  const a = rateOf(after, before);
  if (Math.max(ratio, 1 / ratio) <= 1 + COMPARE_THRESHOLD) return null;
  const rates =
    a && b
      ? `was ${b.value.toPrecision(3)} ${b.unit} and is ${a.value.toPrecision(3)} now ` +
        `(${ratio.toFixed(2)} times)`
      : `takes ${(1 / ratio).toFixed(2)} times as long as before`;
  const variants =
    after.variant !== before.variant && before.variant !== undefined
      ? `, reached by another variant (${after.variant ?? 'unknown'}; before: ${before.variant})`
      : '';
  return `the adapter's own ${after.name} ceiling ${rates}${variants}: the machine is not in the same state`;
}

/** What makes two whole files hard to compare. */
function fileWarnings(before: ResultsFile, after: ResultsFile): string[] {
  const out: string[] = [];
  const precision = (f: ResultsFile): string => f.versions['precision'] ?? 'f32';
  if (before.adapter !== after.adapter)
    out.push(`the adapters differ: ${before.adapter}, now ${after.adapter}`);
  if (precision(before) !== precision(after))
    out.push(`the precisions differ: ${precision(before)}, now ${precision(after)}`);
  if (before.complete === false) out.push('the older results are those of a run that was interrupted');
  return out;
}

/**
 * What changed beyond noise: the ranges from the fastest to the slowest run do not overlap, and the medians
 * differ by more than `threshold`
 * (a part: 0.1 is 10 %). Where the work differs, times for the same amount of work are compared. Ceilings are
 * no results of ours: where
 * they moved, the machine did; that is a warning, and differences that are no larger are inconclusive.
 */
export function compareResults(
  before: ResultsFile,
  after: ResultsFile,
  threshold = COMPARE_THRESHOLD,
): Comparison {
  const old = new Map(before.results.map((r) => [resultKey(r), r]));
  const now = new Map(after.results.map((r) => [resultKey(r), r]));
  const changes: Change[] = [];
  const warnings = fileWarnings(before, after);
  const moved = ceilingsMoved(before.results, after.results) ?? 1;
  let same = 0;
  for (const [key, b] of old) {
    const a = now.get(key);
    if (!a) continue;
    const warning = b.suite === 'ceilings' ? ceilingWarning(b, a) : otherWork(b, a);
    if (warning) warnings.push(warning);
    if (b.suite === 'ceilings') continue;
    const work = workRatio(b, a);
    const ratio = a.ms.median / b.ms.median / work;
    const size = Math.max(ratio, 1 / ratio);
    const apart = a.ms.min / work > b.ms.max || a.ms.max / work < b.ms.min;
    if (apart && size > 1 + threshold)
      changes.push({ suite: a.suite, name: a.name, engine: a.engine, before: b, after: a, ratio });
    else same++;
  }
  const size = (c: Change): number => Math.max(c.ratio, 1 / c.ratio);
  const sorted = changes.sort((a, b) => size(b) - size(a));
  const clear = (c: Change): boolean => moved <= 1 + COMPARE_THRESHOLD || size(c) > moved;
  return {
    slower: sorted.filter((c) => clear(c) && c.ratio > 1),
    faster: sorted.filter((c) => clear(c) && c.ratio < 1),
    inconclusive: sorted.filter((c) => !clear(c)),
    same,
    warnings,
    onlyBefore: [...old.keys()].filter((k) => !now.has(k)),
    onlyAfter: [...now.keys()].filter((k) => !old.has(k)),
  };
}
