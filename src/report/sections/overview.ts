/** The page's head, and a table that a command brings. */
import { duration, escape, figures, grouped, items, table } from '../html.ts';
import type { CurvePoint, ReportData } from '../data.ts';
import type { Section } from '../html.ts';

export function header({ title, run, curve, chance, health }: ReportData): string {
  const tail = curve.slice(-Math.max(1, Math.min(20, Math.floor(curve.length / 10))));
  const over = tail.length === 1 ? 'last logged step' : `last ${tail.length} logged steps`;
  const loss = (key: 'sample' | 'frame' | 'phoneme' | 'sentence', name: string): string => tile(mean(tail, key), name, chance[key]);
  const accuracy = mean(tail, 'accuracy'), speed = run.seconds > 0 ? run.audioSeconds / run.seconds : NaN;
  const tiles = [
    loss('sample', 'sample loss'), loss('frame', 'frame loss'), loss('phoneme', 'phoneme loss'), loss('sentence', 'sentence loss'),
    Number.isFinite(accuracy) ? `<div class="tile"><b>${figures(100 * accuracy)} %</b><span>phoneme accuracy${Number.isFinite(chance.accuracy) ? `<br>chance ${figures(100 * chance.accuracy)} %` : ''}</span></div>` : '',
  ].join('');
  return `<header>
<h1>${escape(title)}</h1>
<p class="lead">${escape(run.preset)}, ${grouped(run.parameters)} parameters, ${grouped(run.steps)} steps in ${duration(run.seconds)}${run.adapter ? ` on ${escape(run.adapter)}` : ''}.
It heard ${duration(run.audioSeconds)} of audio${Number.isFinite(speed) ? `, ${figures(speed)} seconds of it each second` : ''}.</p>
${tiles ? `<div class="tiles">${tiles}</div>\n<p class="muted under">Means of the ${over}, on training audio.</p>` : ''}
${health.alarms.length > 0 ? `<div class="alarms"><strong>Health alarms</strong>${items(health.alarms.map((a) => a.message))}</div>` : ''}
</header>`;
}

function tile(value: number, name: string, chance: number): string {
  if (!Number.isFinite(value)) return '';
  return `<div class="tile"><b>${figures(value)}</b><span>${name}${Number.isFinite(chance) ? `<br>chance ${figures(chance)}` : ''}</span></div>`;
}

function mean(points: CurvePoint[], key: 'sample' | 'frame' | 'phoneme' | 'sentence' | 'accuracy'): number {
  const values = points.map((point) => point[key]).filter(Number.isFinite);
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function resultSection(data: ReportData['table']): Section | null {
  if (!data) return null;
  return { id: 'result', title: data.title, body: `<p class="muted">${escape(data.caption)}</p>\n${table(data.columns, data.rows, data.title)}` };
}
