/** What an ablation says: means over seeds, and differences from the row `all` seed by seed. */
import { checkFields } from '../../check.ts';
import type { AblationResult, AblationRow } from '../task.ts';

/** The probes that an ablation can be scored by. */
export type AblationTask = keyof AblationRow['scores'];
export const ABLATION_TASKS: readonly AblationTask[] = ['phoneme', 'speaker', 'emotion'];

/** Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom. */
const T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228] as const;
const t95 = (freedom: number): number => T95[freedom - 1] ?? 1.96 + 2.72 / freedom;

/** One number over several seeds. */
export interface Summary {
  readonly values: readonly number[];
  readonly mean: number;
  /** Standard deviation (n - 1); NaN of one value. */
  readonly deviation: number;
  /** Half of the 95 % t interval of the mean; NaN of one value. */
  readonly margin: number;
}

function summarise(values: readonly number[]): Summary {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const deviation = n > 1 ? Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1)) : NaN;
  return { values, mean, deviation, margin: n > 1 ? (t95(n - 1) * deviation) / Math.sqrt(n) : NaN };
}

/** A row of an ablation over its seeds, and beside the row with all losses. */
export interface ComparedRow {
  readonly name: string;
  readonly seeds: number;
  /** Shares, by task. */
  readonly scores: Readonly<Partial<Record<AblationTask, Summary>>>;
  /**
   * This row less `all` of the same seed (log-mel, which has one score, less every `all`); absent for `all`
   * itself and where no seed has both.
   */
  readonly differences: Readonly<Partial<Record<AblationTask, Summary>>>;
  /** Training losses at the end, means over seeds. */
  readonly losses: Readonly<Record<string, number>>;
}

/** A row a name, in the order of the result. */
export function compareRows(result: Pick<AblationResult, 'rows'>): ComparedRow[] {
  checkFields('compareRows', 'result.', result, { rows: 'a list' });
  const { rows } = result;
  const all = rows.filter((r) => r.name === 'all');
  return [...new Set(rows.map((r) => r.name))].map((name): ComparedRow => {
    const own = rows.filter((r) => r.name === name);
    const scores: Partial<Record<AblationTask, Summary>> = {};
    const differences: Partial<Record<AblationTask, Summary>> = {};
    for (const task of ABLATION_TASKS) {
      const values = own.flatMap((r) => r.scores[task]?.value ?? []);
      if (values.length > 0) scores[task] = summarise(values);
      const paired =
        name === 'all'
          ? []
          : all.flatMap((a) => {
              const other = own.find((r) => r.seed === a.seed || name === 'log-mel')?.scores[task];
              const reference = a.scores[task];
              return other && reference ? [other.value - reference.value] : [];
            });
      if (paired.length > 0) differences[task] = summarise(paired);
    }
    const names = [...new Set(own.flatMap((r) => Object.keys(r.losses)))];
    return {
      name,
      seeds: own.length,
      scores,
      differences,
      losses: Object.fromEntries(
        names.map((s) => [s, own.reduce((sum, r) => sum + (r.losses[s] ?? NaN) / own.length, 0)]),
      ),
    };
  });
}

const percent = (share: number): string => (100 * share).toFixed(1);
const spread = ({ deviation }: Summary): string =>
  Number.isNaN(deviation) ? '' : ` ± ${percent(deviation)}`;
const score = (s: Summary | undefined): string => (s ? percent(s.mean) + spread(s) : '');

/** Whether a difference is larger than its seeds' scatter explains: its 95 % t interval leaves 0 out. */
export const isClear = ({ mean, margin }: Summary): boolean => Math.abs(mean) > margin;

function difference(s: Summary | undefined): string {
  if (!s) return '';
  const points = percent(Math.abs(s.mean));
  const text = `${Number(points) === 0 ? '' : s.mean < 0 ? '-' : '+'}${points}${spread(s)}`;
  return isClear(s) ? `**${text}**` : text;
}

const SCALE_NAMES = ['sample', 'frame', 'phoneme', 'sentence'] as const;
const METRICS: Readonly<Record<AblationTask, string>> = {
  phoneme: 'phonemes, accuracy %',
  speaker: 'speakers, accuracy %',
  emotion: 'emotions, recall %',
};

/** The table as Markdown, with what it needs to be read. */
export function ablationMarkdown(result: AblationResult): string {
  checkFields('ablationMarkdown', 'result.', result, {
    rows: 'a list',
    preset: 'a text',
    adapter: 'a text',
    date: 'a text',
  });
  const rows = compareRows(result);
  const tasks = ABLATION_TASKS.filter((task) => rows.some((r) => r.scores[task]));
  const scales = SCALE_NAMES.filter((s) => rows.some((r) => s in r.losses));
  const steps = [...new Set(result.rows.filter((r) => r.steps > 0).map((r) => r.steps))];
  const loss = (x: number | undefined): string => (x === undefined ? '' : x.toFixed(3));
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [
    `Preset ${result.preset}, ${steps.map((s) => s.toLocaleString('en-US')).join(' and ')} steps, ` +
      `${result.adapter}, ${result.date.slice(0, 10)}. Means over seeds ± standard deviation;`,
    'differences from `all` in points, seed by seed, bold where their 95 % t interval leaves 0 out (of ' +
      'many comparisons, one in twenty does so by chance). Losses are',
    'those of training at its end; where a row swaps a loss, its number is of the other kind.',
    '',
    line([
      'row',
      'seeds',
      ...tasks.flatMap((task) => [METRICS[task], 'from all']),
      ...scales.map((s) => `${s} loss`),
    ]),
    line(['---', '---:', ...tasks.flatMap(() => ['---:', '---:']), ...scales.map(() => '---:')]),
    ...rows.map((r) =>
      line([
        `\`${r.name}\``,
        String(r.seeds),
        ...tasks.flatMap((task) => [score(r.scores[task]), difference(r.differences[task])]),
        ...scales.map((s) => loss(r.losses[s])),
      ]),
    ),
    '',
  ].join('\n');
}
