/** Picture of an ablation: how far each row lies from `all`, a panel a task. */
import * as Plot from '@observablehq/plot';
import { ABLATION_TASKS, compareRows, isClear, type AblationTask } from '../../tasks/ablation/table.ts';
import type { AblationResult } from '../../tasks/task.ts';
import { picture } from './picture.ts';

const WIDTH = 960;
const ROW = 26;
const MARGIN = { left: 120, right: 16, top: 52, bottom: 40 };

const TITLES: Readonly<Record<AblationTask, string>> = {
  phoneme: 'Phonemes',
  speaker: 'Speakers',
  emotion: 'Emotions',
};

interface Dot {
  task: string;
  row: string;
  points: number;
}
interface Mark extends Dot {
  clear: boolean;
}

/**
 * SVG text: a small dot a seed, a large one their mean, filled where the difference is clear (`isClear`).
 * Null while no row can be compared with `all`.
 */
export function ablationPlot(result: AblationResult): string | null {
  const rows = compareRows(result);
  const tasks = ABLATION_TASKS.filter((task) => rows.some((r) => r.differences[task]));
  const compared = rows.filter((r) => tasks.some((task) => r.differences[task]));
  if (tasks.length === 0) return null;
  const mean = (task: AblationTask): string => {
    const own = rows.find((r) => r.name === 'all')!.scores[task]!;
    return `all: ${(100 * own.mean).toFixed(1)} %`;
  };
  const dots: Dot[] = [];
  const marks: Mark[] = [];
  for (const { name, differences } of compared)
    for (const task of tasks) {
      const found = differences[task];
      if (!found) continue;
      marks.push({ task, row: name, points: 100 * found.mean, clear: isClear(found) });
      if (found.values.length > 1)
        dots.push(...found.values.map((value) => ({ task, row: name, points: 100 * value })));
    }
  return picture({
    width: WIDTH,
    height: compared.length * ROW + MARGIN.top + MARGIN.bottom,
    marginLeft: MARGIN.left,
    marginRight: MARGIN.right,
    marginTop: MARGIN.top,
    marginBottom: MARGIN.bottom,
    ariaLabel:
      'Differences from all scales together: ' +
      `${marks.map((m) => `${m.row}, ${m.task} ${m.points.toFixed(1)}`).join('; ')}`,
    fx: { domain: tasks, axis: null, padding: 0.08 },
    y: { domain: compared.map((r) => r.name), label: null, tickSize: 0, padding: 0.4 },
    x: { label: 'points from all', labelAnchor: 'center', labelArrow: 'none', ticks: 5, nice: true },
    marks: [
      Plot.gridX({ stroke: 'var(--line)', strokeOpacity: 1, ticks: 5 }),
      Plot.ruleX([0], { stroke: 'var(--axis)' }),
      Plot.text(tasks, {
        fx: (t: AblationTask) => t,
        frameAnchor: 'top-left',
        dy: -38,
        text: (t: AblationTask) => TITLES[t],
        fill: 'var(--ink)',
        fontWeight: 600,
        fontSize: 13,
      }),
      Plot.text(tasks, {
        fx: (t: AblationTask) => t,
        frameAnchor: 'top-left',
        dy: -20,
        text: mean,
        fill: 'var(--muted)',
      }),
      Plot.ruleY(marks, {
        fx: 'task',
        y: 'row',
        x1: 0,
        x2: 'points',
        stroke: 'var(--accent)',
        strokeOpacity: 0.35,
      }),
      Plot.dot(marks, {
        fx: 'task',
        y: 'row',
        x: 'points',
        r: 4.5,
        stroke: 'var(--accent)',
        strokeWidth: 1.5,
        fill: (m: Mark) => (m.clear ? 'var(--accent)' : 'var(--surface)'),
      }),
      Plot.dot(dots, {
        fx: 'task',
        y: 'row',
        x: 'points',
        r: 2.5,
        fill: 'var(--muted)',
        stroke: 'var(--surface)',
        strokeWidth: 0.75,
      }),
    ],
  });
}
