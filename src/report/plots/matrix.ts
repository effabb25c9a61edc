/** Squares of numbers: similarities of clips, confusions of phones. */
import * as Plot from '@observablehq/plot';
import { matrixImage } from '../png.ts';
import type { ColourMap } from '../palette.ts';
import { draw, FIGURE_WIDTH, margins, shorten } from './draw.ts';
import type { Margin } from './draw.ts';

export interface HeatMap {
  label: string;
  /** Row-major [n, n], clips of a group side by side. */
  values: Float32Array;
  n: number;
  groups: Array<{ label: string; start: number; end: number }>;
  low: number;
  high: number;
}

/** A square of pairwise values with its groups named on the left and ruled off. */
export function heatMap(map: HeatMap): string {
  const named = map.groups.filter((group) => ((group.end - group.start) / map.n) * 240 >= 11);
  const margin = { left: named.length > 0 ? 96 : 12, right: 12, top: 8, bottom: 10 };
  const height = FIGURE_WIDTH - margin.left - margin.right + margin.top + margin.bottom;
  const edges = map.groups.slice(1).map((group) => group.start);
  return draw(
    {
      width: FIGURE_WIDTH,
      height,
      ...margins(margin),
      x: { axis: null, domain: [0, map.n] },
      y: { axis: null, domain: [map.n, 0] },
      marks: [
        pixels(
          matrixImage(map.values, map.n, map.n, map.low, map.high, 'viridis'),
          FIGURE_WIDTH,
          height,
          margin,
          true,
        ),
        Plot.ruleX(edges, { stroke: 'var(--surface)', strokeWidth: 1.5 }),
        Plot.ruleY(edges, { stroke: 'var(--surface)', strokeWidth: 1.5 }),
        Plot.text(named, {
          x: () => 0,
          y: (group: HeatMap['groups'][number]) => (group.start + group.end) / 2,
          text: (group: HeatMap['groups'][number]) => shorten(group.label, 15),
          textAnchor: 'end',
          dx: -8,
          fill: 'var(--ink)',
        }),
      ],
    },
    map.label,
  );
}

/** A bar of the colours from `low` to `high`, for the page to put between their values. */
export function colourBar(map: ColourMap): string {
  return matrixImage(
    Float32Array.from({ length: 256 }, (_, i) => i),
    256,
    1,
    0,
    256,
    map,
  );
}

export function pixels(
  src: string,
  width: number,
  height: number,
  margin: Margin,
  sharp: boolean,
): Plot.Image {
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  return Plot.image([0], {
    src: () => src,
    frameAnchor: 'middle',
    ...inner,
    preserveAspectRatio: 'none',
    ...(sharp && { imageRendering: 'pixelated' }),
  });
}

export interface ConfusionPlot {
  label: string;
  /** [true class][predicted class], shares 0 to 1; classes of a group side by side. */
  shares: number[][];
  names: string[];
  groups: Array<{ name: string; start: number; end: number }>;
}

export const CONFUSION_WIDTH = 680;
/**
 * Ink of a share: its square root, so that a confusion of a few percent can be seen beside a class that is
 * nearly always right.
 */
export const shareOpacity = (share: number): number => Math.sqrt(Math.min(1, Math.max(0, share)));
/** Fainter cells cannot be seen. */
const FAINTEST = 0.004;

/**
 * Rows are what was said, columns what was answered: the diagonal is right (one colour), the rest wrong
 * (another).
 */
export function confusionPlot({ label, shares, names, groups }: ConfusionPlot): string {
  const n = names.length;
  const margin = { left: 124, right: 26, top: 66, bottom: 8 };
  const side = CONFUSION_WIDTH - margin.left - margin.right;
  const height = side + margin.top + margin.bottom;
  const cells = shares.flatMap((row, t) =>
    row.flatMap((share, p) =>
      share >= FAINTEST
        ? [{ x: p, y: t, opacity: Number(shareOpacity(share).toFixed(3)), right: p === t }]
        : [],
    ),
  );
  const edges = groups.slice(1).map((g) => g.start);
  const middle = (g: ConfusionPlot['groups'][number]): number => (g.start + g.end) / 2;
  // A name that would run into the one before it stands a line higher.
  const ends = [-Infinity, -Infinity];
  const lines = groups.map((g) => {
    const centre = middle(g) * (side / n);
    const half = 3.1 * g.name.length;
    const line = ends[0]! + 6 < centre - half ? 0 : 1;
    ends[line] = centre + half;
    return line;
  });
  const size = Math.min(11, Math.max(6, (side / n) * 0.72));
  const each = names.map((name, i) => ({ name, at: i + 0.5 }));
  return draw(
    {
      width: CONFUSION_WIDTH,
      height,
      ...margins(margin),
      x: { axis: null, domain: [0, n] },
      y: { axis: null, domain: [n, 0] },
      marks: [
        ...[true, false].map((right) =>
          Plot.rect(
            cells.filter((c) => c.right === right),
            {
              x1: 'x',
              x2: (c: { x: number }) => c.x + 1,
              y1: 'y',
              y2: (c: { y: number }) => c.y + 1,
              inset: 0.5,
              fill: right ? 'var(--accent)' : 'var(--reference)',
              fillOpacity: 'opacity',
            },
          ),
        ),
        Plot.ruleX([0, ...edges, n], { stroke: 'var(--axis)', strokeWidth: 0.75 }),
        Plot.ruleY([0, ...edges, n], { stroke: 'var(--axis)', strokeWidth: 0.75 }),
        Plot.text(each, {
          x: () => 0,
          y: 'at',
          text: 'name',
          textAnchor: 'end',
          dx: -5,
          fontSize: size,
          fill: 'var(--ink)',
        }),
        Plot.text(each, {
          x: 'at',
          y: () => 0,
          text: 'name',
          rotate: -90,
          textAnchor: 'start',
          dy: -5,
          fontSize: size,
          fill: 'var(--ink)',
        }),
        Plot.text(groups, {
          x: () => 0,
          y: middle,
          text: 'name',
          textAnchor: 'end',
          dx: -34,
          fill: 'var(--muted)',
        }),
        ...[0, 1].map((line) =>
          Plot.text(
            groups.filter((_, i) => lines[i] === line),
            { x: middle, y: () => 0, text: 'name', dy: -32 - 14 * line, fill: 'var(--muted)' },
          ),
        ),
        Plot.text(['said ↓   answered →'], {
          frameAnchor: 'top-left',
          dx: 4 - margin.left,
          dy: 8 - margin.top,
          textAnchor: 'start',
          lineAnchor: 'top',
          fill: 'var(--ink)',
          fontWeight: 600,
        }),
      ],
    },
    label,
  );
}
