/** What the log of a run tells: losses, speed, and whether it is healthy. */
import { counted, escape, figure, figures, table } from '../html.ts';
import { rivalName } from '../../mgf/rivals.ts';
import { linePlot } from '../plots/curve.ts';
import { findings, withoutRival } from '../rivals.ts';
import type { Objectives, Scale } from '../../mgf/config.ts';
import type { CurvePoint, ReportData } from '../data.ts';
import type { Section } from '../html.ts';

/** Unit of a loss, and what it measures, by scale and objective. */
const L1 = 'mean absolute error';
const CONTRASTIVE = 'cross-entropy (nats)';
const MEASURES: { [S in keyof Objectives]: Record<Objectives[S], [unit: string, caption: string]> } = {
  frame: {
    l1: [L1, 'Of the predicted log-mel frames, of unit variance.'],
    info_nce: [CONTRASTIVE, "Contrastive: find a frame's log-mel among those of other frames."],
  },
  phoneme: {
    info_nce: [CONTRASTIVE, 'Contrastive: find a masked frame among others.'],
    l1: [L1, 'Mean absolute error of the log-mel of masked frames, of unit variance.'],
  },
  sentence: {
    nt_xent: [CONTRASTIVE, 'Contrastive: find the other crop of a recording.'],
    l1: ['mean absolute error (nats)', "Of a crop's predicted log-mel mean and deviation."],
  },
};

export function trainingSection(data: ReportData): Section | null {
  const { curve, rivals, health, objectives } = data;
  const without = withoutRival(data);
  const steps = curve.map((point) => point.step);
  const marks = health.alarms.map((a) => a.step);
  const plot = (
    key: Exclude<keyof CurvePoint, 'step' | 'extra'> | ((point: CurvePoint) => number | undefined),
    title: string,
    unit: string,
    caption: string,
    extra: {
      rival?: Scale | 'accuracy';
      log?: boolean;
      zero?: boolean;
      exact?: boolean;
      percent?: boolean;
    } = {},
  ): string => {
    const factor = extra.percent ? 100 : 1;
    const sign = extra.percent ? ' %' : '';
    const level = extra.rival && rivals[extra.rival];
    const value = factor * (level ?? NaN);
    const reference =
      extra.rival && level !== undefined
        ? { value, name: `${rivalName(extra.rival, objectives)} ${figures(value)}${sign}` }
        : undefined;
    const svg = linePlot({
      label: `${title} over training steps`,
      unit,
      steps,
      curves: [
        {
          values: curve.map(
            (point) => factor * ((typeof key === 'function' ? key(point) : point[key]) ?? NaN),
          ),
        },
      ],
      reference,
      marks,
      ...(extra.log && { log: true }),
      ...(extra.zero && { zero: true }),
      ...(extra.exact && { exact: true }),
    });
    return svg === null ? '' : figure(title, svg, caption);
  };
  const plots = [
    plot('sample', 'Sample loss', L1, 'Of the decoded waveform, of unit variance.', { rival: 'sample' }),
    plot('frame', 'Frame loss', ...MEASURES.frame[objectives.frame], { rival: 'frame' }),
    plot('phoneme', 'Phoneme loss', ...MEASURES.phoneme[objectives.phoneme], { rival: 'phoneme' }),
    plot('sentence', 'Sentence loss', ...MEASURES.sentence[objectives.sentence], { rival: 'sentence' }),
    plot(
      'accuracy',
      'Phoneme accuracy',
      'masked frames found (%)',
      'Share of masked frames found among others.',
      { rival: 'accuracy', zero: true, percent: true },
    ),
    ...Object.keys(curve.at(-1)?.extra ?? {}).map((name) =>
      plot(
        (point) => point.extra?.[name],
        `Loss ${escape(name)}`,
        'its own',
        'Of a loss that was brought to this run.',
      ),
    ),
    plot('total', 'Total loss', 'weighted sum', 'Of the losses above.'),
    plot('gradNorm', 'Gradient norm', 'L2 norm, logarithmic', 'Of all parameters, before clipping.', {
      log: true,
    }),
    plot('lr', 'Learning rate', 'rate a step', 'As scheduled.', { zero: true, exact: true }),
    plot('audioSecondsPerSecond', 'Speed', 'audio seconds a second', 'Crops trained on, by the clock.', {
      zero: true,
    }),
    plot(
      'lossScale',
      'Loss scale',
      'factor, logarithmic',
      'What gradients are multiplied by in half precision.',
      { log: true, exact: true },
    ),
  ].filter((drawn) => drawn !== '');
  if (plots.length === 0) return null;
  const keys = [
    '<span><span class="key"></span>moving average over a twentieth of the run, each logged step ' +
      'behind it in a lighter line</span>',
    '<span><span class="key dash"></span>what an answer without listening scores: chance, or the ' +
      "median predictor, measured on this run's first crops</span>",
    without ? `<span>${escape(without)}</span>` : '',
    marks.length > 0 ? '<span><span class="key upright"></span>an alarm</span>' : '',
  ]
    .filter((key) => key !== '')
    .join('\n');
  return {
    id: 'training',
    title: 'Training',
    body: `<p class="muted keys">${keys}</p>\n<div class="figures">${plots.join('\n')}</div>`,
  };
}

/** Of its dimensions, under which a representation counts as collapsing (src/mgf/health.ts). */
const LOW_RANK = 0.1;

export function healthSection(data: ReportData): Section | null {
  const { curve, health } = data;
  const { ranks, zWidth, contextWidth, skippedSteps } = health;
  const alarms = findings(data);
  const without = withoutRival(data);
  if (curve.length === 0) return null;
  const svg = linePlot({
    label: 'Effective rank over training steps',
    unit: 'dimensions in use (% of width)',
    steps: ranks.map((r) => r.step),
    zero: true,
    exact: true,
    curves: [
      { name: 'z', values: ranks.map((r) => (100 * r.z) / zWidth) },
      { name: 'context', values: ranks.map((r) => (100 * r.context) / contextWidth) },
    ],
    reference: { value: 100 * LOW_RANK, name: `alarm under ${100 * LOW_RANK} %` },
  });
  const last = ranks.at(-1);
  const rank =
    svg === null
      ? '<p class="muted">The effective rank is measured every 100 steps; this run has not come to one.</p>'
      : figure(
          'Effective rank',
          svg,
          `How many directions are in use: z, the front end's output, ${figures(last!.z)} of ` +
            `${zWidth}; the last hidden state, ${figures(last!.context)} of ${contextWidth}.`,
        );
  const skipped =
    skippedSteps === undefined
      ? ''
      : skippedSteps === 0
        ? 'No update was left out.'
        : `${counted(skippedSteps, 'update was', 'updates were')} left out because the gradient was not ` +
          'finite.';
  const raised =
    alarms.length === 0
      ? '<p><span class="good">No alarm was raised.</span></p>'
      : table(
          ['step', 'alarm'],
          alarms.map((a) => [{ html: String(a.step), number: true }, a.message]),
          'Alarms',
        );
  return {
    id: 'health',
    title: 'Health',
    body: `<div class="split"><div>${rank}</div><div>${raised}${skipped ? `<p class="muted">${escape(skipped)}</p>` : ''}
${without ? `<p class="muted">${escape(without)}</p>\n` : ''}<p class="muted">Watched are: losses and gradients that are not finite, a context network that gives the same output everywhere, answers that leak, collapsing representations,
recordings told apart by their channel, and losses above what an answer without listening scores.</p></div></div>`,
  };
}
