/** How the losses of a run compare with their rivals, for the head of the page and its health section. */
import { SCALES } from '../mgf/config.ts';
import { aboveRivalMessage } from '../mgf/health.ts';
import { rivalName } from '../mgf/rivals.ts';
import type { CurvePoint, ReportData } from './data.ts';
import type { Scale } from '../mgf/config.ts';

/** The last logged steps, which the page's head tells means of. */
export function lastSteps(curve: readonly CurvePoint[]): CurvePoint[] {
  return curve.slice(-Math.max(1, Math.min(20, Math.floor(curve.length / 10))));
}

/** Mean over the points that have a value; NaN where none has. */
export function meanOf(points: readonly CurvePoint[], key: Scale | 'accuracy'): number {
  const values = points.map((point) => point[key]).filter(Number.isFinite);
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * The alarms of the run, and a sentence for each loss that ends above its rival without an alarm that says
 * so.
 */
export function findings(data: ReportData): ReportData['health']['alarms'] {
  const { curve, rivals, warmupSteps, objectives, health } = data;
  const tail = lastSteps(curve);
  const last = tail.at(-1);
  if (last === undefined || last.step < warmupSteps) return health.alarms;
  const over = tail.length === 1 ? 'the last logged step' : `the last ${tail.length} logged steps`;
  const above = SCALES.flatMap((scale) => {
    const loss = meanOf(tail, scale);
    const rival = rivals[scale];
    const told = health.alarms.some((alarm) => alarm.kind === `${scale}-above-rival`);
    if (rival === undefined || !(loss > rival) || told) return [];
    return [{ step: last.step, message: aboveRivalMessage(scale, loss, rival, objectives, over) }];
  });
  return [...health.alarms, ...above];
}

/** A sentence that names the losses without a rival; undefined where each has one. */
export function withoutRival({ curve, rivals, objectives }: ReportData): string | undefined {
  const lacking = SCALES.filter((scale) => {
    const missing = rivals[scale] === undefined && rivalName(scale, objectives) === 'median predictor';
    return missing && curve.some((point) => Number.isFinite(point[scale]));
  });
  if (lacking.length === 0) return undefined;
  const [losses, they] = lacking.length === 1 ? ['loss', 'it is'] : ['losses', 'they are'];
  return (
    `This run has stored no median predictor for its ${lacking.join(' and ')} ${losses} ` +
    `(it was made before they were measured), so that ${they} compared with nothing.`
  );
}
