/** Points on a plane, told apart by colour, shape and a name beside each group. */
import * as Plot from '@observablehq/plot';
import { draw, margins, PAIR_WIDTH, shorten } from './draw.ts';

/** Colours of the style sheet; after Okabe and Ito, darker or lighter to stand out from the page. */
export const MAP_COLOURS = 8;
const SYMBOLS = ['circle', 'triangle', 'square', 'diamond', 'star', 'cross', 'wye', 'times'] as const;

export interface PointMap {
  label: string;
  /** [n, 2] */
  points: Float64Array;
  /** Group of each point; at most `MAP_COLOURS` different ones. */
  labels: readonly string[];
}

const HEIGHT = 350;

/**
 * Both axes to one scale, turned to fill the frame, without ticks: of a projection only nearness means
 * something.
 */
export function pointMap({ label, points, labels }: PointMap): string {
  const n = labels.length;
  const names = [...new Set(labels)];
  const width = PAIR_WIDTH - 44;
  const height = HEIGHT - 56;
  const centre = (v: number[]): number => (Math.min(...v) + Math.max(...v)) / 2;
  const extent = (v: number[]): number => Math.max(...v) - Math.min(...v);
  // Directions mean nothing, so the points are turned to where they fill the frame best.
  const turned = Array.from({ length: 36 }, (_, k) => {
    const c = Math.cos((Math.PI * k) / 36);
    const s = Math.sin((Math.PI * k) / 36);
    const xs = Array.from({ length: n }, (_, i) => c * points[2 * i]! - s * points[2 * i + 1]!);
    const ys = Array.from({ length: n }, (_, i) => s * points[2 * i]! + c * points[2 * i + 1]!);
    return { xs, ys, scale: Math.min(width / (extent(xs) || 1), height / (extent(ys) || 1)) };
  });
  const { xs, ys, scale } = turned.reduce((best, t) => (t.scale > best.scale ? t : best));
  const [cx, cy] = [centre(xs), centre(ys)];
  const at = xs.map((x, i) => ({
    x: PAIR_WIDTH / 2 + (x - cx) * scale,
    y: HEIGHT / 2 - (ys[i]! - cy) * scale,
    name: labels[i]!,
  }));
  const texts = placeNames(at, names);
  return draw(
    {
      width: PAIR_WIDTH,
      height: HEIGHT,
      ...margins({ left: 0, right: 0, top: 0, bottom: 0 }),
      x: { axis: null, domain: [0, PAIR_WIDTH] },
      y: { axis: null, domain: [HEIGHT, 0] },
      symbol: { range: [...SYMBOLS] },
      marks: [
        ...names.map((name, k) =>
          Plot.dot(
            at.filter((p) => p.name === name),
            {
              x: 'x',
              y: 'y',
              r: 4,
              symbol: SYMBOLS[k % SYMBOLS.length]!,
              fill: `var(--v${(k % MAP_COLOURS) + 1})`,
              fillOpacity: 0.85,
              stroke: 'var(--surface)',
              strokeWidth: 0.75,
            },
          ),
        ),
        Plot.text(texts, {
          x: 'x',
          y: 'y',
          text: 'text',
          fill: 'var(--ink)',
          stroke: 'var(--surface)',
          strokeWidth: 4,
          fontWeight: 600,
        }),
      ],
    },
    label,
  );
}

interface Spot {
  x: number;
  y: number;
}

/** A name beside the middle point of its group, where it hides the fewest points and no other name. */
function placeNames(
  at: ReadonlyArray<Spot & { name: string }>,
  names: readonly string[],
): Array<Spot & { text: string }> {
  const placed: Array<Spot & { text: string; w: number }> = [];
  const groups = names.map((name) => at.filter((p) => p.name === name)).sort((a, b) => b.length - a.length);
  for (const own of groups) {
    const text = shorten(own[0]!.name, 18);
    const w = 6.6 * text.length;
    const distance = (a: Spot, b: Spot): number => Math.hypot(a.x - b.x, a.y - b.y);
    const total = (p: Spot): number => own.reduce((sum, q) => sum + distance(p, q), 0);
    const middle = own.reduce((best, p) => (total(p) < total(best) ? p : best));
    let best = { x: middle.x, y: middle.y, cost: Infinity };
    for (const r of [14, 24, 36, 52]) {
      for (let k = 0; k < 12; k++) {
        const angle = (Math.PI * k) / 6;
        const x = middle.x + (r + 0.42 * w * Math.abs(Math.cos(angle))) * Math.cos(angle);
        const y = middle.y + r * Math.sin(angle);
        const hidden = at.filter((p) => Math.abs(p.x - x) < w / 2 + 4 && Math.abs(p.y - y) < 10).length;
        const overlaps = placed.filter(
          (p) => Math.abs(p.x - x) < (p.w + w) / 2 + 4 && Math.abs(p.y - y) < 15,
        ).length;
        const outside = x < w / 2 + 2 || x > PAIR_WIDTH - w / 2 - 2 || y < 9 || y > HEIGHT - 9 ? 1 : 0;
        const cost = 2 * hidden + 30 * overlaps + 50 * outside + r / 8;
        if (cost < best.cost) best = { x, y, cost };
      }
    }
    placed.push({ x: best.x, y: best.y, text, w });
  }
  return placed;
}
