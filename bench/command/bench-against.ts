/**
 * `mgf bench --against`: what was measured in turns, judged: pairs of samples, the table, the file of
 * results.
 */
import { judge, type Judged } from '../../src/measure/judge.ts';
import { formatResults, workRatio, type Result, type ResultsFile } from '../suites/results.ts';
import { statistics } from '../../src/measure/statistics.ts';
import { Findings } from '../suites/suites.ts';
import { markdownTable } from '../suites/tables.ts';
import { write } from './bench-record.ts';
import { print, say } from '../../src/cli/common.ts';
import type { BenchOptions } from './bench-options.ts';

/** Differences up to this part do not count, unless --threshold says otherwise. */
const AGAINST_THRESHOLD = 0.05;

/** One result with the samples of both sides. */
export interface Pair {
  readonly name: string;
  readonly here: Result;
  readonly there: Result;
  readonly a: readonly number[];
  readonly b: readonly number[];
}

/** Everything that was measured in turns. */
export interface Outcome {
  readonly pairs: readonly Pair[];
  /** Ratio by which the ceilings moved from the first measurement to the last; null without a last one. */
  readonly moved: number | null;
  readonly notes: readonly string[];
}

const threshold = (options: BenchOptions): number =>
  options.threshold === undefined ? AGAINST_THRESHOLD : options.threshold / 100;

const ms = (samples: readonly number[]): string => {
  const { median, min, max } = statistics(samples);
  return `${median.toPrecision(4)} (${min.toPrecision(3)} to ${max.toPrecision(3)})`;
};

/** Times for the same work: those of the other side are scaled where it does another amount. */
function judged({ pairs, moved }: Outcome, options: BenchOptions): Judged[] {
  const rows = pairs.map(({ here, there, a, b }) => {
    const work = workRatio(there, here);
    return { a, b: b.map((x) => x * work) };
  });
  return judge(rows, { threshold: threshold(options), moved });
}

/** The table, what makes it doubtful, and a line that says how many are slower. */
function formatOutcome(
  outcome: Outcome,
  verdicts: readonly Judged[],
  against: string,
  options: BenchOptions,
): string {
  const { pairs, moved, notes } = outcome;
  const count = (v: Judged['verdict']): number => verdicts.filter((j) => j.verdict === v).length;
  const columns = ['what', 'this, ms', 'other, ms', 'ratio', '95 % interval', 'p', 'verdict'];
  const rows = pairs.map(({ name, a, b }, i) => {
    const { ratio, low, high, p, verdict, why } = verdicts[i]!;
    return [
      name,
      ms(a),
      ms(b),
      ratio.toFixed(3),
      `${low.toFixed(3)} to ${high.toFixed(3)}`,
      p.toPrecision(2),
      why ? `${verdict}: ${why}` : verdict,
    ];
  });
  const out = [`## Against ${against}, in turns\n`];
  out.push(
    `${count('slower')} slower, ${count('faster')} faster, ${count('no difference')} without a ` +
      `difference, ${count('inconclusive')} inconclusive ` +
      `(threshold ${(100 * threshold(options)).toPrecision(2)} %).`,
  );
  out.push(...notes.map((note) => `Note: ${note}.`));
  const ceilings =
    moved === null
      ? 'were not measured twice'
      : `moved by a factor of ${moved.toFixed(2)} from the first measurement to the last`;
  out.push(`The ceilings ${ceilings}.\n`);
  if (rows.length) out.push(markdownTable(columns, rows));
  out.push('\n"ratio" is the time of this over that of the other: above 1, this is slower.');
  return out.join('\n');
}

/** Both sides as results. */
function pairResults({ pairs }: Outcome, findings: Findings): void {
  for (const { name, here, there, a, b } of pairs) {
    const { gflops, gbps, clock, variant } = here;
    findings.add('against', name, 'this', statistics(a), {
      ...(gflops && { gflops }),
      ...(gbps && { gbps }),
      ...(clock && { clock }),
      ...(variant && { variant }),
    });
    findings.add('against', name, 'other', statistics(b), {
      ...(there.gflops && { gflops: there.gflops }),
      ...(there.gbps && { gbps: there.gbps }),
      ...(there.variant && { variant: there.variant }),
    });
  }
}

/** Judges, prints, writes, and sets the exit status 1 where something is slower. */
export function finish(
  outcome: Outcome,
  file: Omit<ResultsFile, 'results'>,
  ceilings: readonly Result[],
  options: BenchOptions,
  complete: boolean,
): void {
  const verdicts = judged(outcome, options);
  const findings = new Findings();
  print(formatOutcome(outcome, verdicts, options.against!, options));
  pairResults(outcome, findings);
  const results: ResultsFile = {
    ...file,
    ...(!complete && { complete }),
    results: [...ceilings, ...findings.results],
  };
  if (options.json !== undefined) write(options.json, formatResults(results));
  if (complete && verdicts.some((j) => j.verdict === 'slower')) process.exitCode = 1;
  if (!complete) say('Interrupted: the rounds that had ended are judged.');
}
