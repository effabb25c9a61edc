/**
 * What the features are good for: each task by hidden state, beside log-mel and random weights, and every
 * number in tables.
 */
import { counted, escape, facts, figure, grouped, percent, range, table } from '../html.ts';
import { PAIR_WIDTH } from '../plots/draw.ts';
import { intervalPlot, layerPlot } from '../plots/estimates.ts';
import type { Estimate, FeatureSource, Metric, ProbeResult, ProbeRow, TaskName } from '../../tasks/task.ts';
import type { Cell, Section } from '../html.ts';
import type { Score } from '../plots/estimates.ts';

interface MetricKind {
  name: string;
  short: string;
  lowerIsBetter: boolean;
}
const METRICS: Readonly<Record<Metric, MetricKind>> = {
  accuracy: { name: 'accuracy', short: 'accuracy', lowerIsBetter: false },
  unweighted_average_recall: {
    name: 'unweighted average recall',
    short: 'average recall',
    lowerIsBetter: false,
  },
  phone_error_rate: { name: 'phone error rate', short: 'phone error rate', lowerIsBetter: true },
  cer: { name: 'character error rate', short: 'character errors', lowerIsBetter: true },
  wer: { name: 'word error rate', short: 'word errors', lowerIsBetter: true },
  equal_error_rate: { name: 'equal error rate', short: 'equal error rate', lowerIsBetter: true },
};

/** The metric that a task is judged by first. */
const FIRST: Readonly<Partial<Record<TaskName, Metric>>> = {
  emotion: 'unweighted_average_recall',
  asr: 'wer',
};
export const TITLES: Readonly<Record<TaskName, string>> = {
  phoneme: 'Phonemes',
  speaker: 'Speakers',
  asr: 'Speech recognition',
  emotion: 'Emotions',
};

export const SOURCES: Readonly<Record<FeatureSource, string>> = {
  mgf: 'MGF',
  random: 'random weights',
  'log-mel': 'log-mel',
};

const metricsOf = ({ task, rows }: ProbeResult): Metric[] => {
  const there = (Object.keys(METRICS) as Metric[]).filter((m) => rows.some((row) => row.metrics[m]));
  const first = FIRST[task];
  return first !== undefined && there.includes(first) ? [first, ...there.filter((m) => m !== first)] : there;
};
const score = ({ value, interval: [low, high] }: Estimate): Score => ({ value, low, high });

/** The row with the best score of a metric; undefined where no row has one. */
export function bestRow(rows: readonly ProbeRow[], metric: Metric): ProbeRow | undefined {
  const sign = METRICS[metric].lowerIsBetter ? -1 : 1;
  return rows
    .filter((r) => r.metrics[metric])
    .reduce<ProbeRow | undefined>(
      (best, r) => (!best || sign * r.metrics[metric]!.value > sign * best.metrics[metric]!.value ? r : best),
      undefined,
    );
}

const axisOf = (metric: Metric): string =>
  `${METRICS[metric].name} (%)${METRICS[metric].lowerIsBetter ? ', lower is better' : ''}`;

/** The curve over hidden states where one head was tried on several; else a dot for each kind of features. */
function drawing(probe: ProbeResult, metric: Metric): string {
  const scored = probe.rows.filter((r) => r.metrics[metric]);
  const title = TITLES[probe.task];
  const mgf = scored.filter((r) => r.features === 'mgf');
  // The best of each hidden state, where one head was tried on several.
  const byLayer = (rows: readonly ProbeRow[]): Array<Score & { layer: number }> => {
    const layers = [...new Set(rows.flatMap((r) => (typeof r.layer === 'number' ? [r.layer] : [])))].sort(
      (a, b) => a - b,
    );
    return layers.length < 2
      ? []
      : layers.map((layer) => ({
          layer,
          ...score(
            bestRow(
              rows.filter((r) => r.layer === layer),
              metric,
            )!.metrics[metric]!,
          ),
        }));
  };
  const curves = [...new Set(mgf.map((r) => r.head))]
    .map((head) => ({ head, points: byLayer(mgf.filter((r) => r.head === head)) }))
    .filter((c) => c.points.length > 0)
    .slice(0, 2);
  const random = byLayer(scored.filter((r) => r.features === 'random'));
  const baseline = (features: FeatureSource): ProbeRow | undefined =>
    bestRow(
      scored.filter((r) => r.features === features),
      metric,
    );
  // Far below everything else it would flatten the picture; the table's foot has it.
  const values = scored.map((r) => r.metrics[metric]!.value);
  const floor = Math.min(...values) - 0.6 * (Math.max(...values) - Math.min(...values));
  const majority =
    metric === 'accuracy' && probe.majority !== undefined && probe.majority >= floor
      ? [{ name: 'commonest class', value: probe.majority, colour: 'var(--muted)' }]
      : [];
  if (curves.length === 0) {
    const rows = (['mgf', 'random', 'log-mel'] as const).flatMap((features) => {
      const best = baseline(features);
      return best
        ? [{ name: SOURCES[features], scores: [score(best.metrics[metric]!)], emphasis: features === 'mgf' }]
        : [];
    });
    return rows.length === 0
      ? ''
      : figure(
          title,
          intervalPlot({
            label: `${title}, ${METRICS[metric].name}`,
            unit: axisOf(metric),
            rows,
            references: majority,
            width: PAIR_WIDTH,
          }),
          'The best of each kind of features, with 95 % intervals.',
        );
  }
  const sum = bestRow(
    mgf.filter((r) => r.layer === 'sum' && r.head === curves[0]!.head),
    metric,
  );
  const svg = layerPlot({
    label: `${title}, ${METRICS[metric].name} by hidden state`,
    unit: axisOf(metric),
    curves: [
      ...curves.map(({ head, points }, i) => ({
        name: curves.length > 1 ? `MGF, ${head}` : 'MGF',
        colour: i === 0 ? 'var(--accent)' : 'var(--second)',
        baseline: false,
        points,
      })),
      ...(random.length > 0
        ? [{ name: SOURCES['random'], colour: 'var(--good)', baseline: true, points: random }]
        : []),
    ],
    ...(sum && { sum: score(sum.metrics[metric]!) }),
    baselines: [
      ...(
        [
          ['log-mel', 'var(--reference)'],
          ['random', 'var(--good)'],
        ] as const
      ).flatMap(([features, colour]) => {
        const best =
          features === 'random' && random.length > 0 ? undefined : baseline(features)?.metrics[metric];
        return best ? [{ name: SOURCES[features], value: best.value, interval: best.interval, colour }] : [];
      }),
      ...majority,
    ],
  });
  return figure(
    title,
    svg,
    `By hidden state, with 95 % intervals${sum ? '; all: a learned sum of all hidden states' : ''}. ` +
      'Dashed: baselines; a band is the interval of one without hidden states.',
  );
}

const estimate = (e: Estimate | undefined, best: boolean): Cell => ({
  html: e ? `${best ? '<b>' : ''}${percent(e.value)}${best ? '</b>' : ''} ${range(...e.interval)}` : '',
  number: true,
});

function probeTable(probe: ProbeResult): string {
  const metrics = metricsOf(probe);
  const columns = metrics.flatMap((metric) => [
    { metric, part: undefined as string | undefined },
    // A part that is the whole test says nothing new.
    ...[...new Set(probe.rows.flatMap((r) => Object.keys(r.parts).filter((p) => r.parts[p]![metric])))]
      .map((part) => ({ metric, part }))
      .filter(({ part }) =>
        probe.rows.some((r) => r.parts[part]?.[metric]?.value !== r.metrics[metric]?.value),
      ),
  ]);
  const of = (row: ProbeRow, { metric, part }: (typeof columns)[number]): Estimate | undefined =>
    (part === undefined ? row.metrics : row.parts[part])?.[metric];
  const top = columns.map((c) => {
    const values = probe.rows.flatMap((r) => of(r, c)?.value ?? []);
    return METRICS[c.metric].lowerIsBetter ? Math.min(...values) : Math.max(...values);
  });
  // What all rows share is said below the table.
  const heads = new Set(probe.rows.map((r) => r.head));
  const pools = new Set(probe.rows.map((r) => r.pool));
  const rows = probe.rows.map((row) => [
    SOURCES[row.features],
    { html: row.layer === 'sum' ? 'all' : row.layer === null ? '' : String(row.layer), number: false },
    ...(heads.size > 1 ? [row.head] : []),
    ...(pools.size > 1 ? [row.pool === 'none' ? '' : row.pool] : []),
    ...columns.map((c, i) => estimate(of(row, c), of(row, c)?.value === top[i])),
  ]);
  const { task, classes, counts, majority, checkpoint, date, adapter, seed } = probe;
  const title = TITLES[task];
  const known = [
    task === 'asr' ? '' : counted(classes.length, 'class', 'classes'),
    Object.entries(counts)
      .map(([split, n]) => `${grouped(n)} ${split}`)
      .join(', ') + ' recordings',
    heads.size === 1 ? `${[...heads][0]} head` : '',
    pools.size === 1 && !pools.has('none') ? `${[...pools][0]} over time` : '',
    majority === undefined ? '' : `the commonest class is ${percent(majority)} of the test`,
    checkpoint,
    date.slice(0, 10),
    adapter,
    `seed ${seed}`,
  ];
  return `<h3>${escape(title)}</h3>
${table(['features', 'hidden state', ...(heads.size > 1 ? ['head'] : []), ...(pools.size > 1 ? ['over time'] : []), ...columns.map((c) => `${METRICS[c.metric].short}${c.part === undefined ? '' : `, ${c.part}`}`)], rows, `${title}: every probe`)}
<p class="muted under">${facts(known)}</p>`;
}

export function probeSection(probes: readonly ProbeResult[]): Section | null {
  const shown = probes.filter((p) => metricsOf(p).length > 0);
  if (shown.length === 0) return null;
  return {
    id: 'probes',
    title: 'What the features tell',
    body: `<p class="muted">Small classifiers on the frozen features, or networks fine-tuned from them, tested on recordings that they were not fitted to.
Intervals are of 95 %, by resampling the test; in the tables the best of a column is bold.</p>
<div class="figures pair">${shown
      .map((p) => drawing(p, metricsOf(p)[0]!))
      .filter(Boolean)
      .join('\n')}</div>
${shown.map(probeTable).join('\n')}`,
  };
}
