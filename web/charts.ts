/**
 * Drawings: Observable Plot with the page's colours. All have axes with units, a name for screen readers, and
 * follow the width of their place.
 */
import * as Plot from '@observablehq/plot';
import { palette, type ColourMap } from '../src/report/palette.ts';
import { el, figures } from './dom.ts';

const COLOURS = new Map<ColourMap, Uint8Array>();
/** Ticks in whole numbers of seconds would be words apart: axis names stand at the ends, as plain words. */
export const AXIS = { labelArrow: 'none' } as const;
export const MARGIN = { left: 50, right: 12, top: 10, bottom: 36 };

/** A drawing that is made anew when its place becomes wider or narrower. */
export function plot(label: string, make: (width: number) => Plot.PlotOptions): HTMLDivElement {
  // The ruler is watched in the box's place: it has no height, so that a drawing does not change what is
  // watched, which the observer calls an error ("loop completed with undelivered notifications") and answers
  // a frame later.
  const ruler = el('div');
  const box = el('div', { class: 'plot' }, ruler);
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(ruler.clientWidth);
    if (width === 0 || width === drawn) return;
    drawn = width;
    const svg = Plot.plot({
      ...make(width),
      style: { fontSize: '11px', color: 'var(--muted)', background: 'none' },
    });
    svg.setAttribute('role', 'img');
    svg.setAttribute('aria-label', label);
    box.querySelector('svg')?.remove();
    box.append(svg);
  }).observe(ruler);
  return box;
}

/** Values, row-major [height, width] with row 0 on top, as the address of an image. */
export function image(
  values: Float32Array,
  width: number,
  height: number,
  low: number,
  high: number,
  map: ColourMap,
): string {
  const colours = COLOURS.get(map) ?? palette(map);
  const canvas = el('canvas');
  const pixels = new ImageData(width, height);
  COLOURS.set(map, colours);
  for (let i = 0; i < width * height; i++) {
    const share = (values[i]! - low) / (high - low || 1);
    const c = 3 * (share > 0 ? Math.min(255, Math.floor(256 * share)) : 0);
    pixels.data.set([colours[c]!, colours[c + 1]!, colours[c + 2]!, 255], 4 * i);
  }
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext('2d')!.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

/** The colours from the lowest to the highest value, with both. */
export function colourScale(map: ColourMap, low: string, high: string): HTMLElement {
  return el(
    'div',
    { class: 'scale' },
    low,
    el('img', {
      src: image(
        Float32Array.from({ length: 256 }, (_, i) => i),
        256,
        1,
        0,
        256,
        map,
      ),
      alt: 'colours from dark to bright',
    }),
    high,
  );
}

export interface Matrix {
  label: string;
  src: string;
  /** Seconds along x. */
  seconds: number;
  height: (width: number) => number;
  y: { label: string; domain: [number, number]; ticks: number[]; format: (value: number) => string };
  sharp?: boolean;
}

/** A picture of numbers over seconds. */
export function matrix({ label, src, seconds, height, y, sharp }: Matrix): HTMLDivElement {
  return plot(label, (width) => {
    const tall = height(width);
    const inner = { width: width - MARGIN.left - MARGIN.right, height: tall - MARGIN.top - MARGIN.bottom };
    return {
      width,
      height: tall,
      marginLeft: MARGIN.left,
      marginRight: MARGIN.right,
      marginTop: MARGIN.top,
      marginBottom: MARGIN.bottom,
      x: {
        ...AXIS,
        domain: [0, seconds],
        label: 'seconds',
        ticks: Math.max(3, Math.min(9, Math.floor(inner.width / 70))),
      },
      y: { ...AXIS, domain: y.domain, label: null, ticks: y.ticks, tickFormat: y.format },
      marks: [
        Plot.image([0], {
          src: () => src,
          frameAnchor: 'middle',
          ...inner,
          preserveAspectRatio: 'none',
          ...(sharp && { imageRendering: 'pixelated' }),
        }),
        Plot.text([y.label], {
          frameAnchor: 'left',
          rotate: -90,
          dx: -MARGIN.left + 8,
          textAnchor: 'middle',
          fill: 'var(--muted)',
        }),
      ],
    };
  });
}

export interface Curve {
  label: string;
  unit: string;
  values: readonly number[];
  reference?: { value: number; name: string };
  share?: boolean;
}

/** A value over training steps from 1 on, raw and smoothed, with what an answer without listening scores. */
export function curve({ label, unit, values, reference, share }: Curve): HTMLDivElement {
  const points = values.map((value, i) => ({ step: i + 1, value })).filter((p) => Number.isFinite(p.value));
  const reach = Math.max(1, Math.floor(points.length / 30));
  const smooth = points.map(({ step }, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return { step, value: near.reduce((sum, p) => sum + p.value, 0) / near.length };
  });
  const all = [...points.map((p) => p.value), ...(reference ? [reference.value] : [])];
  const low = Math.min(...all);
  const high = Math.max(...all);
  const pad = 0.08 * (high - low || 1);
  // The name of the line stands where the curve is far from it.
  const apart = (p?: { value: number }): number => Math.abs((p?.value ?? 0) - (reference?.value ?? 0));
  const side = apart(smooth.at(-1)) > apart(smooth[0]) ? 'right' : 'left';
  const last = points.at(-1);
  const spoken = last
    ? `${label}: ${figures(points[0]!.value)} at step 1, ${figures(last.value)} at step ${last.step}`
    : label;
  return plot(spoken, (width) => ({
    width,
    height: 190,
    marginLeft: 44,
    marginRight: 14,
    marginTop: 22,
    marginBottom: 36,
    x: {
      ...AXIS,
      label: 'step',
      domain: [1, Math.max(2, last?.step ?? 2)],
      ticks: 5,
      tickFormat: (v: number) => (Number.isInteger(v) ? v.toLocaleString('en-US') : ''),
    },
    y: {
      ...AXIS,
      label: unit,
      domain: [share ? 0 : low - pad, high + pad],
      ticks: 4,
      ...(share && { tickFormat: '.0%' }),
    },
    marks: [
      Plot.gridY({ stroke: 'var(--line)', strokeOpacity: 1, ticks: 4 }),
      ...(reference
        ? [
            Plot.ruleY([reference.value], {
              stroke: 'var(--reference)',
              strokeDasharray: '5 4',
              strokeWidth: 1.25,
            }),
            Plot.text([reference], {
              y: 'value',
              text: 'name',
              frameAnchor: side,
              textAnchor: side === 'right' ? 'end' : 'start',
              lineAnchor: 'bottom',
              dx: side === 'right' ? 0 : 4,
              dy: -4,
              fill: 'var(--reference)',
              stroke: 'var(--page)',
              strokeWidth: 4,
            }),
          ]
        : []),
      Plot.lineY(points, {
        x: 'step',
        y: 'value',
        stroke: 'var(--accent)',
        strokeOpacity: 0.3,
        strokeWidth: 1,
      }),
      Plot.lineY(smooth, { x: 'step', y: 'value', stroke: 'var(--accent)', strokeWidth: 2 }),
      Plot.dot(smooth.slice(-1), { x: 'step', y: 'value', r: 3, fill: 'var(--accent)' }),
    ],
  }));
}
