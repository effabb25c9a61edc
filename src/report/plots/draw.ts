/**
 * What the report's figures share: SVG text drawn on the server by Observable Plot. Colours are CSS variables
 * of the page, so that one drawing serves the light and the dark scheme; figures are drawn at the width of a
 * phone and placed side by side where there is room.
 */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { printable } from '../html.ts';

export const FIGURE_WIDTH = 360;
/** For figures that stand two in a row instead of three. */
export const PAIR_WIDTH = 400;

export interface Margin {
  left: number;
  right: number;
  top: number;
  bottom: number;
}
/** Room for the tick labels and the names of both axes. */
export const MARGIN: Margin = { left: 44, right: 14, top: 26, bottom: 38 };

/** Names of axes stand at their ends, as plain words. */
export const AXIS = { labelArrow: 'none' } as const;

export const grid = (ticks: number | number[]): Plot.Markish =>
  Plot.gridY({ stroke: 'var(--line)', strokeOpacity: 1, ticks });
/** Text that stays legible on top of lines. */
export const HALO = { stroke: 'var(--surface)', strokeWidth: 4 } as const;

export function margins(margin: Margin): Plot.PlotOptions {
  return {
    marginLeft: margin.left,
    marginRight: margin.right,
    marginTop: margin.top,
    marginBottom: margin.bottom,
  };
}

/** The drawing as SVG text; `label` is its title, which screen readers say. */
export function draw(options: Plot.PlotOptions, label: string): string {
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const svg = Plot.plot({
    ...options,
    document: document as unknown as Document,
    style: { fontSize: '11px', color: 'var(--muted)' },
  });
  // The page carries these rules once, for all figures.
  svg.querySelectorAll('style').forEach((style) => style.remove());
  svg.setAttribute('role', 'img');
  svg.removeAttribute('height');
  const title = document.createElementNS('http://www.w3.org/2000/svg', 'title');
  title.textContent = label;
  svg.prepend(title as unknown as Node);
  return printable(svg.outerHTML);
}

/** Tick labels: four significant digits; thousands as k. */
export const number = (value: number): string => String(Number(value.toPrecision(4)));
export const compact = (value: number): string =>
  Math.abs(value) >= 10_000 ? `${number(value / 1000)}k` : number(value);
export const shorten = (label: string, most = 16): string =>
  label.length > most ? `${label.slice(0, most - 1)}…` : label;

/**
 * Places along an axis, at least `gap` apart, each as near as can be to where it wants to be, between `low`
 * and `high`; in the order of `wanted`.
 */
export function spread(wanted: readonly number[], gap: number, low: number, high: number): number[] {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a]! - wanted[b]!);
  // Runs that would overlap are joined and centred on the mean of what their members want.
  const runs: { members: number[]; start: number }[] = [];
  const place = (members: number[]): number => {
    const centre = members.reduce((sum, m, k) => sum + wanted[m]! - k * gap, 0) / members.length;
    return Math.max(low, Math.min(centre, high - (members.length - 1) * gap));
  };
  for (const i of order) {
    let run = { members: [i], start: place([i]) };
    for (
      let last = runs.at(-1);
      last && last.start + last.members.length * gap > run.start;
      last = runs.at(-1)
    ) {
      runs.pop();
      const members = [...last.members, ...run.members];
      run = { members, start: place(members) };
    }
    runs.push(run);
  }
  const out: number[] = [];
  for (const { members, start } of runs)
    members.forEach((m, k) => {
      out[m] = start + k * gap;
    });
  return out;
}
