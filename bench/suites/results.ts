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
      `${origin} is not JSON (${(error as Error).message}); a results file is what \`mgf bench --json ` +
        `FILE\` writes.`,
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
  const text = `${JSON.stringify(results, (_, x: unknown) => (typeof x === 'number' ? Number(x.toPrecision(6)) : x), 1)}\n`;
  parseResults(text, 'the results');
  return text;
}

export interface Change {
  readonly suite: string;
  readonly name: string;
  readonly engine: string;
  readonly before: Result['ms'];
  readonly after: Result['ms'];
  /** after / before, medians. */ readonly ratio: number;
}

export interface Comparison {
  readonly slower: readonly Change[];
  readonly faster: readonly Change[];
  /** Within noise. */
  readonly same: number;
  readonly onlyBefore: readonly string[];
  readonly onlyAfter: readonly string[];
  /** What makes the two hard to compare: another adapter, ceilings that moved. */
  readonly warnings: readonly string[];
}

/** Medians closer than this are equal. */
export const THRESHOLD = 1.1;

const key = (r: Pick<Result, 'suite' | 'name' | 'engine'>): string => `${r.suite} ${r.name} (${r.engine})`;

/**
 * What changed beyond noise: the ranges from the fastest to the slowest run do not overlap, and the medians
 * differ by more than 10 %. Ceilings are no results of ours: where they moved, the machine did, and that is a
 * warning.
 */
export function compareResults(before: ResultsFile, after: ResultsFile): Comparison {
  const old = new Map(before.results.map((r) => [key(r), r]));
  const now = new Map(after.results.map((r) => [key(r), r]));
  const changes: Change[] = [];
  const warnings: string[] = [];
  let same = 0;
  if (before.adapter !== after.adapter)
    warnings.push(`the adapters differ: ${before.adapter}, now ${after.adapter}`);
  const precision = (f: ResultsFile): string => f.versions['precision'] ?? 'f32';
  if (precision(before) !== precision(after))
    warnings.push(`the precisions differ: ${precision(before)}, now ${precision(after)}`);
  for (const [k, b] of old) {
    const a = now.get(k);
    if (!a) continue;
    const ratio = a.ms.median / b.ms.median;
    const apart = a.ms.min > b.ms.max || a.ms.max < b.ms.min;
    const clear = ratio > THRESHOLD || ratio < 1 / THRESHOLD;
    if (b.suite === 'ceilings') {
      if (clear)
        warnings.push(
          `the adapter's own ${b.name} ceiling takes ${ratio.toFixed(2)} times as long as before: the ` +
            'machine is not in the same state',
        );
    } else if (apart && clear)
      changes.push({ suite: a.suite, name: a.name, engine: a.engine, before: b.ms, after: a.ms, ratio });
    else same++;
  }
  const bySize = (a: Change, b: Change): number => Math.abs(Math.log(b.ratio)) - Math.abs(Math.log(a.ratio));
  return {
    slower: changes.filter((c) => c.ratio > 1).sort(bySize),
    faster: changes.filter((c) => c.ratio < 1).sort(bySize),
    same,
    warnings,
    onlyBefore: [...old.keys()].filter((k) => !now.has(k)),
    onlyAfter: [...now.keys()].filter((k) => !old.has(k)),
  };
}
