/** Scores with their 95 % intervals: by hidden state, and by name. Shares are drawn as percentages. */
import * as Plot from '@observablehq/plot';
import {
  AXIS,
  draw,
  FIGURE_WIDTH,
  grid,
  MARGIN,
  margins,
  number,
  PAIR_WIDTH,
  shorten,
  spread,
} from './draw.ts';

export interface Score {
  value: number;
  low: number;
  high: number;
}

export interface LayerPlot {
  label: string;
  /** Name of the y axis, such as `accuracy (%)`. */
  unit: string;
  /** Curves over hidden states; those that others are compared with are dashed. */
  curves: Array<{
    name: string;
    colour: string;
    baseline: boolean;
    points: Array<Score & { layer: number }>;
  }>;
  /** Baselines across, with their intervals as bands where they have one. */
  baselines: Array<{
    name: string;
    value: number;
    interval?: readonly [number, number] | undefined;
    colour: string;
  }>;
  /** One score of all hidden states together, beside the last one. */
  sum?: Score | undefined;
}

/** Shares 0 to 1 over hidden states, as percentages; lines are named at their right ends. */
export function layerPlot({ label, unit, curves, baselines, sum }: LayerPlot): string {
  const height = 260;
  const margin = { ...MARGIN, right: 108 };
  const scores = [...curves.flatMap((c) => c.points), ...(sum ? [sum] : [])];
  const all = [
    ...scores.flatMap((s) => [s.low, s.high]),
    ...baselines.flatMap((b) => [b.value, ...(b.interval ?? [])]),
  ].map((v) => 100 * v);
  const layers = [...new Set(curves.flatMap((c) => c.points.map((p) => p.layer)))].sort((a, b) => a - b);
  const last = layers.at(-1)!;
  const beyond = last + 1;
  const pad = Math.max(1.5, 0.06 * (Math.max(...all) - Math.min(...all)));
  const low = Math.max(0, Math.min(...all) - pad);
  const high = Math.min(Math.max(100, ...all), Math.max(...all) + pad);
  const left = layers[0]! - 0.3;
  const right = (sum ? beyond : last) + 0.3;
  const pixel = (v: number): number =>
    height - margin.bottom - ((v - low) / (high - low)) * (height - margin.top - margin.bottom);
  const names = [
    ...curves.map((c) => ({
      name: c.name,
      value: 100 * c.points.at(-1)!.value,
      colour: c.colour,
      bold: !c.baseline,
    })),
    ...baselines.map((b) => ({ name: b.name, value: 100 * b.value, colour: b.colour, bold: false })),
  ];
  const places = spread(
    names.map((n) => pixel(n.value)),
    14,
    margin.top,
    height - margin.bottom,
  );
  // Curves stand a little beside each other, so that no interval hides another.
  const beside = (c: LayerPlot['curves'][number]): number =>
    4 * (curves.indexOf(c) - (curves.length - 1) / 2);
  const whiskers = (points: Array<Score & { layer: number }>, stroke: string, dx = 0): Plot.Markish[] => [
    Plot.ruleX(points, {
      x: 'layer',
      y1: (p: Score) => 100 * p.low,
      y2: (p: Score) => 100 * p.high,
      dx,
      stroke,
      strokeWidth: 1.5,
    }),
    Plot.dot(points, {
      x: 'layer',
      y: (p: Score) => 100 * p.value,
      dx,
      r: 3.5,
      fill: stroke,
      stroke: 'var(--surface)',
    }),
  ];
  const told = curves
    .map((c) => `${c.name} ${c.points.map((p) => `${p.layer}: ${number(100 * p.value)} %`).join(', ')}`)
    .concat(baselines.map((b) => `${b.name} ${number(100 * b.value)} %`));
  return draw(
    {
      width: PAIR_WIDTH,
      height,
      ...margins(margin),
      x: {
        ...AXIS,
        label: 'hidden state',
        domain: [left, right],
        ticks: thinned(layers).concat(sum ? [beyond] : []),
        tickFormat: (l: number) => (sum && l === beyond ? 'all' : String(l)),
      },
      y: { ...AXIS, label: unit, domain: [low, high], ticks: 5, tickFormat: number },
      marks: [
        grid(5),
        Plot.ruleY([low], { stroke: 'var(--axis)' }),
        ...baselines.flatMap((b) => [
          ...(b.interval
            ? [
                Plot.rect([b.interval], {
                  x1: () => left,
                  x2: () => right,
                  y1: (i: readonly number[]) => 100 * i[0]!,
                  y2: (i: readonly number[]) => 100 * i[1]!,
                  fill: b.colour,
                  fillOpacity: 0.1,
                }),
              ]
            : []),
          Plot.ruleY([100 * b.value], { stroke: b.colour, strokeWidth: 1.25, strokeDasharray: '5 4' }),
        ]),
        ...curves
          .toSorted((a, b) => Number(b.baseline) - Number(a.baseline))
          .flatMap((c) => {
            const { points, colour, baseline } = c;
            const dx = beside(c);
            return [
              Plot.lineY(points, {
                x: 'layer',
                y: (p: Score) => 100 * p.value,
                dx,
                stroke: colour,
                strokeWidth: baseline ? 1.25 : 2,
                ...(baseline && { strokeDasharray: '5 4' }),
              }),
              ...whiskers(points, colour, dx),
            ];
          }),
        ...(sum ? whiskers([{ ...sum, layer: beyond }], curves[0]!.colour) : []),
        ...names.map((n, i) =>
          Plot.text([n], {
            x: () => right,
            y: 'value',
            text: 'name',
            textAnchor: 'start',
            dx: 7,
            dy: places[i]! - pixel(n.value),
            fill: n.colour,
            ...(n.bold && { fontWeight: 600 }),
          }),
        ),
      ],
    },
    `${label}: ${told.join('; ')}`,
  );
}

/** Every layer while there is room for their numbers, then every second, third, ... */
const thinned = (layers: number[]): number[] =>
  layers.filter((_, i) => i % Math.ceil(layers.length / 14) === 0);

export interface IntervalPlot {
  label: string;
  /** Name of the x axis. */
  unit: string;
  /**
   * From top to bottom; several scores of one name (seeds) share a row. `emphasis`: drawn in the accent
   * colour.
   */
  rows: Array<{ name: string; scores: Score[]; emphasis: boolean }>;
  /** Upright lines. */
  references: Array<{ name: string; value: number; colour: string }>;
  /** Width of the drawing; as wide as a phone by default. */
  width?: number;
}

/** A row a name: a dot for each score, and its interval. */
export function intervalPlot({ label, unit, rows, references, width = FIGURE_WIDTH }: IntervalPlot): string {
  const longest = Math.max(...rows.map((r) => shorten(r.name, 20).length));
  const row = 24;
  const margin = { left: 14 + 6.2 * longest, right: 16, top: references.length > 0 ? 30 : 10, bottom: 38 };
  const all = rows
    .flatMap((r) => r.scores.flatMap((s) => [s.low, s.high]))
    .concat(references.map((r) => r.value))
    .map((v) => 100 * v);
  const pad = Math.max(1, 0.05 * (Math.max(...all) - Math.min(...all)));
  const domain: [number, number] = [
    Math.max(0, Math.min(...all) - pad),
    Math.min(Math.max(100, ...all), Math.max(...all) + pad),
  ];
  const inner = width - margin.left - margin.right;
  const pixel = (v: number): number => ((v - domain[0]) / (domain[1] - domain[0])) * inner;
  // Names above the frame, moved apart where they would overlap, and kept within the drawing.
  const widest = 6.2 * Math.max(0, ...references.map((r) => r.name.length));
  const places = spread(
    references.map((r) => pixel(100 * r.value)),
    widest + 6,
    0,
    inner + margin.right - widest / 2,
  );
  const points = rows.flatMap((r, y) =>
    r.scores.map((s, k) => ({
      ...s,
      y: y + 0.5 + (r.scores.length > 1 ? ((k + 0.5) / r.scores.length - 0.5) * 0.6 : 0),
      colour: r.emphasis ? 'var(--accent)' : 'var(--ink)',
    })),
  );
  return draw(
    {
      width,
      height: rows.length * row + margin.top + margin.bottom,
      ...margins(margin),
      x: { ...AXIS, label: unit, domain, ticks: 5, tickFormat: number },
      y: { axis: null, domain: [rows.length, 0] },
      marks: [
        Plot.gridX({ stroke: 'var(--line)', strokeOpacity: 1, ticks: 5 }),
        ...references.map((r) =>
          Plot.ruleX([100 * r.value], { stroke: r.colour, strokeWidth: 1.25, strokeDasharray: '5 4' }),
        ),
        ...references.map((r, i) =>
          Plot.text([r], {
            x: (d: { value: number }) => 100 * d.value,
            frameAnchor: 'top',
            text: 'name',
            dx: places[i]! - pixel(100 * r.value),
            dy: -12,
            textAnchor: 'middle',
            fill: r.colour,
          }),
        ),
        ...[...new Set(points.map((p) => p.colour))].flatMap((stroke) => {
          const own = points.filter((p) => p.colour === stroke);
          return [
            Plot.ruleY(own, {
              y: 'y',
              x1: (p: Score) => 100 * p.low,
              x2: (p: Score) => 100 * p.high,
              stroke,
              strokeWidth: 1.5,
              strokeOpacity: 0.7,
            }),
            Plot.dot(own, {
              y: 'y',
              x: (p: Score) => 100 * p.value,
              r: 3.5,
              fill: stroke,
              stroke: 'var(--surface)',
            }),
          ];
        }),
        Plot.text(rows, {
          x: () => domain[0],
          y: (_: unknown, i: number) => i + 0.5,
          text: (r: IntervalPlot['rows'][number]) => shorten(r.name, 20),
          textAnchor: 'end',
          dx: -8,
          fill: 'var(--ink)',
        }),
      ],
    },
    `${label}: ` +
      `${rows.map((r) => `${r.name} ${r.scores.map((s) => `${number(100 * s.value)} %`).join(', ')}`).join('; ')}`,
  );
}
