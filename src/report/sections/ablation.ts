/** Which scales matter: networks trained with some of their losses left out or attached elsewhere. */
import { escape, facts, figure, figures, grouped, percent, range, table } from '../html.ts';
import { intervalPlot } from '../plots/estimates.ts';
import { ABLATION_TASKS, type AblationTask } from '../../tasks/ablation/table.ts';
import { TITLES } from './probes.ts';
import type { AblationResult, Estimate } from '../../tasks/task.ts';
import type { Cell, Section } from '../html.ts';

const BASELINES: Readonly<Record<string, string>> = { random: 'var(--good)', 'log-mel': 'var(--reference)' };
const METRIC: Readonly<Record<AblationTask, string>> = {
  phoneme: 'accuracy',
  speaker: 'accuracy',
  emotion: 'unweighted average recall',
};

const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
/** `without-phoneme` as `without phoneme`. */
const spoken = (name: string): string =>
  name in BASELINES ? (name === 'random' ? 'random weights' : name) : name.replaceAll('-', ' ');

export function ablationSection(ablation: AblationResult | undefined): Section | null {
  if (!ablation || ablation.rows.length === 0) return null;
  const { rows, preset, adapter, date } = ablation;
  const names = [...new Set(rows.map((r) => r.name))];
  const tasks = ABLATION_TASKS.filter((task) => rows.some((r) => r.scores[task]));
  const scales = [...new Set(rows.flatMap((r) => Object.keys(r.losses)))];
  const scoresOf = (name: string, task: AblationTask): Estimate[] =>
    rows.filter((r) => r.name === name).flatMap((r) => r.scores[task] ?? []);
  const plots = tasks.map((task) =>
    figure(
      TITLES[task],
      intervalPlot({
        label: `${TITLES[task]} by network`,
        unit: `${METRIC[task]} (%)`,
        rows: names
          .filter((name) => !(name in BASELINES) && scoresOf(name, task).length > 0)
          .map((name) => ({
            name: spoken(name),
            emphasis: name === 'all',
            scores: scoresOf(name, task).map(({ value, interval: [low, high] }) => ({ value, low, high })),
          })),
        references: names
          .filter((name) => name in BASELINES && scoresOf(name, task).length > 0)
          .map((name) => ({
            name: spoken(name),
            value: mean(scoresOf(name, task).map((s) => s.value)),
            colour: BASELINES[name]!,
          })),
      }),
    ),
  );
  return {
    id: 'ablation',
    title: 'Which scales matter',
    body: `<p class="muted">Networks of preset ${escape(preset)}, each trained anew with losses left out or given other objectives, under the same probes.
A dot is a seed, with its 95 % interval; dashed: baselines.</p>
<div class="figures">${plots.join('\n')}</div>
${summary(ablation, names, tasks, scales)}
<p class="muted under">${facts([adapter, date.slice(0, 10)])}${rows.some((r) => scales.some((s) => r.losses[s] === undefined)) ? '. An empty loss is one that was off.' : ''}</p>
${names.length < rows.length ? `<details class="card"><summary>Every seed</summary>${seedBySeed(ablation, tasks, scales)}</details>` : ''}`,
  };
}

const columnsOf = (tasks: readonly AblationTask[], scales: readonly string[]): string[] => [
  ...tasks.map((task) => `${TITLES[task].toLowerCase()}, ${METRIC[task]}`),
  ...scales.map((s) => `${s} loss`),
];
const loss = (value: number): Cell => ({ html: Number.isFinite(value) ? figures(value) : '', number: true });
const bold = (html: string, is: boolean): string => (is ? `<b>${html}</b>` : html);

/** A row a network: means over its seeds and their range, or the interval of the only one. */
function summary(
  { rows }: AblationResult,
  names: readonly string[],
  tasks: readonly AblationTask[],
  scales: readonly string[],
): string {
  const means = names.map((name) => {
    const own = rows.filter((r) => r.name === name);
    return {
      name,
      seeds: own.length,
      losses: scales.map((s) => mean(own.flatMap((r) => r.losses[s] ?? []))),
      scores: tasks.map((task) => {
        const scores = own.flatMap((r) => r.scores[task] ?? []);
        const values = scores.map((s) => s.value);
        if (scores.length === 0) return null;
        return {
          value: mean(values),
          range:
            scores.length > 1 ? ([Math.min(...values), Math.max(...values)] as const) : scores[0]!.interval,
        };
      }),
    };
  });
  const best = tasks.map((_, t) => Math.max(...means.flatMap((m) => m.scores[t]?.value ?? [])));
  const several = means.some((m) => m.seeds > 1);
  return (
    table(
      ['network', ...(several ? ['seeds'] : []), ...columnsOf(tasks, scales)],
      means.map((m) => [
        spoken(m.name),
        ...(several ? [m.seeds] : []),
        ...m.scores.map((s, t): Cell => ({
          html: s ? `${bold(percent(s.value), s.value === best[t])} ${range(...s.range)}` : '',
          number: true,
        })),
        ...m.losses.map(loss),
      ]),
      'Scores and losses of every network',
    ) +
    (several
      ? '\n<p class="muted under">Means over seeds, from the lowest to the highest seed; of a single ' +
        'seed its 95 % interval.</p>'
      : '')
  );
}

function seedBySeed(
  { rows }: AblationResult,
  tasks: readonly AblationTask[],
  scales: readonly string[],
): string {
  return table(
    ['network', 'seed', 'steps', ...columnsOf(tasks, scales)],
    rows.map((r) => [
      spoken(r.name),
      r.seed,
      { html: r.steps > 0 ? grouped(r.steps) : '', number: true },
      ...tasks.map((task): Cell => {
        const s = r.scores[task];
        return { html: s ? `${percent(s.value)} ${range(...s.interval)}` : '', number: true };
      }),
      ...scales.map((s) => loss(r.losses[s] ?? NaN)),
    ]),
    'Scores and losses, seed by seed',
  );
}
