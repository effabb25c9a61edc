/** Curves over training steps. */
import * as Plot from '@observablehq/plot';
import { AXIS, compact, draw, FIGURE_WIDTH, grid, HALO, MARGIN, margins, number, spread } from './draw.ts';

/**
 * Long runs are drawn as the means of this many stretches: more points than that fall into the same pixels.
 */
const MOST_POINTS = 700;
const HEIGHT = 210;
const COLOURS = ['var(--accent)', 'var(--second)'] as const;

export interface LinePlot {
  /** Read out by screen readers. */
  label: string;
  /** Name of the y axis, with its unit. */
  unit: string;
  steps: number[];
  /**
   * One or two curves, one value a step; what is not finite is left out. Two are told apart by their names at
   * their ends.
   */
  curves: Array<{ name?: string; values: number[] }>;
  /** A dashed line across, with its name. */
  reference?: { value: number; name: string } | undefined;
  /** Steps at which something happened: thin upright lines. */
  marks?: number[];
  log?: boolean;
  /** Show y from 0. */
  zero?: boolean;
  /** Set or counted rather than measured: nothing to smooth. */
  exact?: boolean;
}

interface Point {
  step: number;
  value: number;
}
interface Line {
  name: string | undefined;
  colour: string;
  points: Point[];
  smooth: Point[];
}

/** Raw values drawn thin and their moving average on top; null where there is nothing to draw. */
export function linePlot(plot: LinePlot): string | null {
  const log = plot.log === true;
  const usable = (value: number): boolean => Number.isFinite(value) && (!log || value > 0);
  const lines = plot.curves.flatMap(({ name, values }, c): Line[] => {
    const kept = plot.steps
      .map((step, i) => ({ step, value: values[i]! }))
      .filter((point) => usable(point.value));
    if (kept.length === 0) return [];
    const points = thin(kept);
    return [
      { name, colour: COLOURS[c % 2]!, points, smooth: plot.exact ? points : movingAverage(points, log) },
    ];
  });
  if (lines.length === 0) return null;
  const reference = plot.reference && usable(plot.reference.value) ? plot.reference : undefined;
  // Single outliers, such as the first steps of a run, would flatten the rest: the frame holds the smoothed
  // curve and most of the raw one.
  const inView = lines.flatMap(({ points, smooth }) => {
    const sorted = points.map((point) => point.value).sort((a, b) => a - b);
    return [
      sorted[Math.floor(0.005 * (sorted.length - 1))]!,
      sorted[Math.ceil(0.995 * (sorted.length - 1))]!,
      ...smooth.map((point) => point.value),
    ];
  });
  if (reference) inView.push(reference.value);
  if (plot.zero) inView.push(0);
  const [low, high] = widen(Math.min(...inView), Math.max(...inView), log);
  const first = Math.min(...lines.map((l) => l.points[0]!.step));
  const last = Math.max(...lines.map((l) => l.points.at(-1)!.step));
  const ticks = log ? logTicks(low, high) : 5;
  const named = lines.some((l) => l.name !== undefined);
  const margin = named
    ? { ...MARGIN, right: 14 + 6.4 * Math.max(...lines.map((l) => l.name?.length ?? 0)) }
    : MARGIN;
  const ends = lines.map((l) => l.smooth.at(-1)!);
  const at = (value: number): number => (log ? Math.log(value) : value);
  const pixel = (value: number): number =>
    HEIGHT -
    margin.bottom -
    ((at(value) - at(low)) / (at(high) - at(low))) * (HEIGHT - margin.top - margin.bottom);
  const places = spread(
    ends.map((e) => pixel(e.value)),
    13,
    margin.top,
    HEIGHT - margin.bottom,
  );
  const place =
    reference &&
    referencePlace(
      pixel(reference.value),
      reference.name.length,
      lines
        .flatMap((l) => [...l.smooth, ...l.points])
        .map((p) => ({ x: (p.step - first) / (last - first || 1), y: pixel(p.value) })),
      HEIGHT - margin.bottom,
    );
  const ranges = lines.map(
    ({ name, smooth }) =>
      `${name ? `${name} ` : ''}${number(smooth[0]!.value)} at step ${smooth[0]!.step}, ` +
      `${number(smooth.at(-1)!.value)} at step ${smooth.at(-1)!.step}`,
  );
  return draw(
    {
      width: FIGURE_WIDTH,
      height: HEIGHT,
      ...margins(margin),
      x: {
        ...AXIS,
        label: 'step',
        ticks: first === last ? [first] : 5,
        tickFormat: compact,
        domain: first === last ? [first - 1, last + 1] : [first, last],
      },
      y: {
        ...AXIS,
        label: plot.unit,
        domain: [low, high],
        clamp: true,
        ticks,
        tickFormat: number,
        ...(log && { type: 'log' }),
      },
      marks: [
        grid(ticks),
        Plot.ruleY([low], { stroke: 'var(--axis)' }),
        Plot.ruleX(plot.marks ?? [], { stroke: 'var(--reference)', strokeOpacity: 0.6 }),
        ...lines.flatMap(({ colour, points, smooth }) => [
          ...(points === smooth
            ? []
            : [
                Plot.lineY(points, {
                  x: 'step',
                  y: 'value',
                  stroke: colour,
                  strokeWidth: 1,
                  strokeOpacity: 0.3,
                }),
              ]),
          Plot.lineY(smooth, {
            x: 'step',
            y: 'value',
            stroke: colour,
            strokeWidth: 2,
            ...(named && { marker: 'dot' as const }),
          }),
          Plot.dot(smooth.slice(-1), { x: 'step', y: 'value', r: 3, fill: colour }),
        ]),
        ...(reference
          ? [
              Plot.ruleY([reference.value], {
                stroke: 'var(--reference)',
                strokeWidth: 1.25,
                strokeDasharray: '5 4',
              }),
              Plot.text([reference], {
                y: 'value',
                text: 'name',
                frameAnchor: place!.right ? 'right' : 'left',
                textAnchor: place!.right ? 'end' : 'start',
                dx: place!.right ? 0 : 4,
                lineAnchor: place!.above ? 'bottom' : 'top',
                dy: place!.above ? -4 : 4,
                fill: 'var(--reference)',
                ...HALO,
              }),
            ]
          : []),
        ...lines.flatMap(({ name }, i) =>
          name === undefined
            ? []
            : [
                Plot.text([ends[i]!], {
                  x: 'step',
                  y: 'value',
                  text: () => name,
                  textAnchor: 'start',
                  dx: 8,
                  dy: places[i]! - pixel(ends[i]!.value),
                  fill: 'var(--ink)',
                }),
              ],
        ),
      ],
    },
    `${plot.label}: ${ranges.join('; ')}${reference ? `; ${reference.name}` : ''}`,
  );
}

/**
 * Where the name of a line across hides least of the curves: at the right or the left, above or below the
 * line. `x` runs from 0 to 1, pixels downwards from the top.
 */
function referencePlace(
  line: number,
  characters: number,
  points: Array<{ x: number; y: number }>,
  bottom: number,
): { right: boolean; above: boolean } {
  const wide = Math.min(0.6, characters / 50);
  const places = [true, false].flatMap((right) => [true, false].map((above) => ({ right, above })));
  const cost = ({ right, above }: { right: boolean; above: boolean }): number => {
    const outside = above ? line - 18 < MARGIN.top : line + 18 > bottom;
    const hidden = points.filter(
      (p) =>
        (right ? p.x > 1 - wide : p.x < wide) &&
        (above ? p.y < line + 3 && p.y > line - 18 : p.y > line - 3 && p.y < line + 18),
    ).length;
    return hidden / points.length + (outside ? 1 : 0);
  };
  return places.reduce((best, p) => (cost(p) < cost(best) ? p : best));
}

function thin(points: Point[]): Point[] {
  if (points.length <= MOST_POINTS) return points;
  return Array.from({ length: MOST_POINTS }, (_, i) => {
    const part = points.slice(
      Math.floor((i * points.length) / MOST_POINTS),
      Math.floor(((i + 1) * points.length) / MOST_POINTS),
    );
    return {
      step: part.at(-1)!.step,
      value: part.reduce((sum, point) => sum + point.value, 0) / part.length,
    };
  });
}

/**
 * Centred, over a twentieth of the run, over the half of it that there is at both ends; geometric on a
 * logarithmic axis.
 */
function movingAverage(points: Point[], log: boolean): Point[] {
  const reach = Math.floor(points.length / 40);
  return points.map(({ step }, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    const mean = near.reduce((sum, { value }) => sum + (log ? Math.log(value) : value), 0) / near.length;
    return { step, value: log ? Math.exp(mean) : mean };
  });
}

function widen(low: number, high: number, log: boolean): [number, number] {
  if (log) return [low / 1.15, high * 1.15];
  const pad = high > low ? 0.06 * (high - low) : Math.max(Math.abs(high) * 0.1, 0.1);
  return [low === 0 ? 0 : low - pad, high + pad];
}

/** 1, 2 and 5 times the powers of ten in the range; the powers alone where that would be a crowd. */
function logTicks(low: number, high: number): number[] {
  const decades = Array.from(
    { length: Math.floor(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 },
    (_, i) => Math.floor(Math.log10(low)) + i,
  );
  const factors = decades.length > 3 ? [1] : [1, 2, 5];
  return decades
    .flatMap((decade) => factors.map((factor) => Number(`${factor}e${decade}`)))
    .filter((tick) => tick >= low && tick <= high);
}
