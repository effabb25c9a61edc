/** The page's head, and a table that a command brings. */
import { SCALES } from '../../mgf/config.ts';
import { rivalName } from '../../mgf/rivals.ts';
import { duration, escape, figures, figuresApart, grouped, items, table } from '../html.ts';
import { findings, lastSteps, meanOf, withoutRival } from '../rivals.ts';
import type { Scale } from '../../mgf/config.ts';
import type { ReportData } from '../data.ts';
import type { Section } from '../html.ts';

export function header(data: ReportData): string {
  const { title, run, curve, rivals, objectives } = data;
  const tail = lastSteps(curve);
  const alarms = findings(data);
  const without = withoutRival(data);
  const over = tail.length === 1 ? 'last logged step' : `last ${tail.length} logged steps`;
  const loss = (scale: Scale): string =>
    tile(meanOf(tail, scale), `${scale} loss`, rivalName(scale, objectives), rivals[scale]);
  const speed = run.seconds > 0 ? run.audioSeconds / run.seconds : NaN;
  const accuracy = tile(
    100 * meanOf(tail, 'accuracy'),
    'phoneme accuracy',
    'chance',
    rivals.accuracy === undefined ? undefined : 100 * rivals.accuracy,
    ' %',
  );
  const tiles = [...SCALES.map(loss), accuracy].join('');
  return `<header>
<h1>${escape(title)}</h1>
<p class="lead">${escape(run.preset)}, ${grouped(run.parameters)} parameters, ${grouped(run.steps)} steps in ${duration(run.seconds)}${run.adapter ? ` on ${escape(run.adapter)}` : ''}.
It heard ${duration(run.audioSeconds)} of audio${Number.isFinite(speed) ? `, ${figures(speed)} seconds of it each second` : ''}.</p>
${tiles ? `<div class="tiles">${tiles}</div>\n<p class="muted under">Means of the ${over}, on training audio.${without ? ` ${escape(without)}` : ''}</p>` : ''}
${alarms.length > 0 ? `<div class="alarms"><strong>Health alarms</strong>${items(alarms.map((a) => a.message))}</div>` : ''}
</header>`;
}

function tile(value: number, name: string, rivalsName: string, rival: number | undefined, unit = ''): string {
  if (!Number.isFinite(value)) return '';
  const [own, other] = rival === undefined ? [figures(value), ''] : figuresApart(value, rival);
  return (
    '<div ' +
    `class="tile"><b>${own}${unit}</b><span>${name}${other ? `<br>${rivalsName} ${other}${unit}` : ''}</span></div>`
  );
}

export function resultSection(data: ReportData['table']): Section | null {
  if (!data) return null;
  return {
    id: 'result',
    title: data.title,
    body: `<p class="muted">${escape(data.caption)}</p>\n${table(data.columns, data.rows, data.title)}`,
  };
}
