/**
 * The roofline of an adapter as a drawing that a file and a page can show: its measured ceilings as lines,
 * work as dots. Safe in a browser.
 */
import * as Plot from '@observablehq/plot';

export interface Dot {
  name: string;
  intensity: number;
  gflops: number;
  kind: 'forward' | 'gradient' | 'step';
}

export interface Roofline {
  /** Name of the adapter. */
  adapter: string;
  /** Ceilings: multiply-adds in GFLOP/s, copying in GB/s. */
  gflops: number;
  gbps: number;
  dots: readonly Dot[];
  width: number;
  height: number;
  /** Room at the right for names of dots. */
  right: number;
}

const MARGIN = { left: 56, top: 28, bottom: 44 };

interface Legend {
  name: string;
  kind: Dot['kind'];
  at: number;
  r: number;
  fill: string;
  stroke: string;
}
const LEGEND: readonly Omit<Legend, 'at'>[] = [
  { name: 'forward', kind: 'forward', r: 4, fill: 'var(--accent)', stroke: 'var(--accent)' },
  { name: 'forward and backward', kind: 'gradient', r: 4, fill: 'var(--surface)', stroke: 'var(--accent)' },
  { name: 'kernels of training steps', kind: 'step', r: 2.5, fill: 'var(--muted)', stroke: 'none' },
];
/** A dot's name beside it, moved up or down until it covers no other. */
interface Label {
  dot: Dot;
  x: number;
  y: number;
  at: number;
}

const logTicks = ([low, high]: [number, number]): number[] => {
  const first = Math.ceil(Math.log10(low));
  const last = Math.floor(Math.log10(high));
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(`1e${first + i}`));
};

/** GFLOP/s against FLOPs per byte on logarithmic axes. */
export function rooflineOptions({
  adapter,
  gflops: peak,
  gbps: bandwidth,
  dots: points,
  width,
  height,
  right: room,
}: Roofline): Plot.PlotOptions {
  const legend = LEGEND.filter((l) => points.some((p) => p.kind === l.kind)).map((entry, i): Legend => ({
    ...entry,
    at: MARGIN.top + 14 + 17 * i,
  }));
  const spread = (values: number[], factor: number): [number, number] => [
    Math.min(...values) / factor,
    Math.max(...values) * factor,
  ];
  const ridge = peak / bandwidth;
  const x = spread([...points.map((p) => p.intensity), ridge], 2);
  const y = spread([...points.map((p) => p.gflops), peak], 1.6);
  const scale = (value: number, [low, high]: [number, number], from: number, to: number): number =>
    from + ((Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (to - from);
  const unscale = (pixel: number, [low, high]: [number, number], from: number, to: number): number =>
    low * (high / low) ** ((pixel - from) / (to - from));
  const px = (v: number): number => scale(v, x, MARGIN.left, width - room);
  const py = (v: number): number => scale(v, y, height - MARGIN.bottom, MARGIN.top);
  const labels = place(
    points
      .filter((p) => p.kind !== 'step')
      .map((dot) => ({ dot, x: px(dot.intensity), y: py(dot.gflops), at: 0 })),
    height,
  );
  const back = (pixel: number): number => unscale(pixel, y, height - MARGIN.bottom, MARGIN.top);
  const right = (l: Label): number => unscale(l.x + 9, x, MARGIN.left, width - room);
  const corner = Math.max(x[0], y[0] / bandwidth);
  const roof = [
    { i: corner, g: bandwidth * corner },
    { i: ridge, g: peak },
    { i: x[1], g: peak },
  ];
  return {
    width,
    height,
    marginLeft: MARGIN.left,
    marginRight: room,
    marginTop: MARGIN.top,
    marginBottom: MARGIN.bottom,
    ariaLabel: `Roofline of ${adapter}`,
    x: { type: 'log', domain: x, label: 'FLOPs per byte', ticks: logTicks(x), tickFormat: String },
    y: { type: 'log', domain: y, label: 'GFLOP/s', ticks: logTicks(y), tickFormat: String },
    marks: [
      Plot.gridX({ stroke: 'var(--line)', strokeOpacity: 1, ticks: logTicks(x) }),
      Plot.gridY({ stroke: 'var(--line)', strokeOpacity: 1, ticks: logTicks(y) }),
      Plot.line(roof, { x: 'i', y: 'g', stroke: 'var(--reference)', strokeWidth: 2 }),
      Plot.text([`${peak.toFixed(0)} GFLOP/s multiply-add`], {
        x: () => x[1],
        y: () => peak,
        textAnchor: 'end',
        dy: -8,
        fill: 'var(--reference)',
      }),
      Plot.text([`${bandwidth.toFixed(1)} GB/s copy`], {
        x: () => corner,
        y: () => bandwidth * corner,
        textAnchor: 'start',
        dx: 12,
        dy: 4,
        fill: 'var(--reference)',
      }),
      Plot.dot(legend, {
        x: () => x[0],
        y: (l: Legend) => back(l.at),
        dx: 16,
        r: (l: Legend) => l.r,
        fill: 'fill',
        stroke: 'stroke',
        strokeWidth: 1.5,
      }),
      Plot.text(legend, {
        x: () => x[0],
        y: (l: Legend) => back(l.at),
        text: 'name',
        textAnchor: 'start',
        dx: 26,
        fill: 'var(--ink)',
      }),
      Plot.dot(
        points.filter((p) => p.kind === 'step'),
        { x: 'intensity', y: 'gflops', r: 2.5, fill: 'var(--muted)', fillOpacity: 0.7, title: 'name' },
      ),
      Plot.link(labels, {
        x1: (l: Label) => l.dot.intensity,
        y1: (l: Label) => l.dot.gflops,
        x2: right,
        y2: (l: Label) => back(l.at),
        stroke: 'var(--axis)',
        strokeWidth: 0.75,
      }),
      Plot.dot(
        points.filter((p) => p.kind !== 'step'),
        {
          x: 'intensity',
          y: 'gflops',
          r: 4,
          fill: (p: Dot) => (p.kind === 'forward' ? 'var(--accent)' : 'var(--surface)'),
          stroke: 'var(--accent)',
          strokeWidth: 1.5,
          title: 'name',
        },
      ),
      Plot.text(labels, {
        x: right,
        y: (l: Label) => back(l.at),
        text: (l: Label) => l.dot.name,
        textAnchor: 'start',
        dx: 2,
        fill: 'var(--ink)',
        stroke: 'var(--surface)',
        strokeWidth: 3,
      }),
    ],
  };
}

/**
 * Puts every label as near its dot as the labels and dots that lie around it allow, from the right to the
 * left, where it is most crowded first.
 */
function place(labels: Label[], bottom: number): Label[] {
  const height = 13;
  const wide = (l: Label): number => 9 + 6.3 * l.dot.name.length;
  const placed: Label[] = [];
  const covers = (l: Label, at: number, x0: number, x1: number, y: number, room: number): boolean =>
    l.x + 9 < x1 && x0 < l.x + wide(l) && Math.abs(at - y) < room;
  for (const label of [...labels].sort((a, b) => b.x - a.x)) {
    const candidates = Array.from(
      { length: 60 },
      (_, i) => label.y + (i % 2 ? 1 : -1) * Math.ceil(i / 2) * (height / 2),
    ).filter((at) => at > MARGIN.top && at < bottom - MARGIN.bottom - 4);
    const free = candidates.find(
      (at) =>
        placed.every((o) => !covers(label, at, o.x + 9, o.x + wide(o), o.at, height)) &&
        labels.every((o) => o === label || !covers(label, at, o.x - 5, o.x + 5, o.y, 9)),
    );
    placed.push({ ...label, at: free ?? label.y });
  }
  return placed;
}
