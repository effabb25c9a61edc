/**
 * The report's figures as SVG text, drawn on the server by Observable Plot. Colours are CSS variables of the page, so that one drawing serves
 * the light and the dark scheme; figures are drawn at the width of a phone and placed side by side where there is room.
 */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { matrixImage } from './png.ts';
import type { ColourMap } from './png.ts';

export const FIGURE_WIDTH = 360;
/** Spectrograms stand two in a row instead of three. */
const PAIR_WIDTH = 440;
const MARGIN = { left: 44, right: 12, top: 12, bottom: 34 };
/** With a unit above the y axis. */
const UNIT_MARGIN = { ...MARGIN, top: 26 };
/** Long runs are drawn as the means of this many stretches: more points than that fall into the same pixels. */
const MOST_POINTS = 700;

export interface LinePlot {
  /** Read out by screen readers. */
  label: string;
  steps: number[];
  /** One value a step; what is not finite is left out. */
  values: number[];
  /** A dashed line across, with its name. */
  reference?: { value: number; name: string } | undefined;
  log?: boolean;
  /** Show y from 0. */
  zero?: boolean;
  /** Set rather than measured: nothing to smooth. */
  exact?: boolean;
}

/** Raw values drawn thin and their moving average on top; null where there is nothing to draw. */
export function linePlot(plot: LinePlot): string | null {
  const usable = (value: number): boolean => Number.isFinite(value) && (!plot.log || value > 0);
  const kept = plot.steps.map((step, i) => ({ step, value: plot.values[i]! })).filter((point) => usable(point.value));
  if (kept.length === 0) return null;
  const points = thin(kept);
  const smooth = plot.exact ? points : movingAverage(points, plot.log === true);
  const reference = plot.reference && usable(plot.reference.value) ? plot.reference : undefined;
  // Single outliers, such as the first steps of a run, would flatten the rest: the frame holds the smoothed curve and most of the raw one.
  const sorted = points.map((point) => point.value).sort((a, b) => a - b);
  const inView = [sorted[Math.floor(0.005 * (sorted.length - 1))]!, sorted[Math.ceil(0.995 * (sorted.length - 1))]!, ...smooth.map((point) => point.value)];
  if (reference) inView.push(reference.value);
  if (plot.zero) inView.push(0);
  const [low, high] = widen(Math.min(...inView), Math.max(...inView), plot.log === true);
  const only = points.length === 1;
  const ticks = plot.log ? logTicks(low, high) : 5;
  return draw({
    width: FIGURE_WIDTH, height: 210,
    ...margins(MARGIN),
    x: { label: null, ticks: 5, tickFormat: compact, ...(only && { domain: [points[0]!.step - 1, points[0]!.step + 1] }) },
    y: { label: null, domain: [low, high], clamp: true, ticks, tickFormat: number, ...(plot.log && { type: 'log' }) },
    marks: [
      Plot.gridY({ stroke: 'var(--line)', strokeOpacity: 1, ticks }),
      Plot.ruleY([low], { stroke: 'var(--axis)' }),
      Plot.lineY(points, { x: 'step', y: 'value', stroke: 'var(--accent)', strokeWidth: 1, strokeOpacity: 0.3 }),
      Plot.lineY(smooth, { x: 'step', y: 'value', stroke: 'var(--accent)', strokeWidth: 2 }),
      Plot.dot(smooth.slice(-1), { x: 'step', y: 'value', r: 3, fill: 'var(--accent)' }),
      ...(reference ? [
        Plot.ruleY([reference.value], { stroke: 'var(--reference)', strokeWidth: 1.25, strokeDasharray: '5 4' }),
        Plot.text([reference], {
          y: 'value', text: 'name', frameAnchor: 'right', textAnchor: 'end', lineAnchor: reference.value > low + 0.85 * (high - low) ? 'top' : 'bottom',
          dy: reference.value > low + 0.85 * (high - low) ? 4 : -4, fill: 'var(--reference)', stroke: 'var(--surface)', strokeWidth: 4,
        }),
      ] : []),
      Plot.text(['step'], { frameAnchor: 'bottom-right', dy: 31, fill: 'var(--muted)' }),
    ],
  }, plot.label);
}

export interface SpectrogramPlot {
  label: string;
  /** Log-mel values, row-major [frames, mels]. */
  values: Float32Array;
  frames: number;
  hopSeconds: number;
  low: number;
  high: number;
}

/** Time to the right, frequency upwards on the mel scale (HTK, 0 to 8 kHz). */
export function spectrogramPlot(plot: SpectrogramPlot): string {
  const mels = plot.values.length / plot.frames;
  const picture = new Float32Array(plot.values.length);
  for (let t = 0; t < plot.frames; t++) for (let m = 0; m < mels; m++) picture[(mels - 1 - m) * plot.frames + t] = plot.values[t * mels + m]!;
  const top = htkMel(8000);
  const height = 230;
  return draw({
    width: PAIR_WIDTH, height, ...margins(UNIT_MARGIN),
    x: { label: null, domain: [0, plot.frames * plot.hopSeconds], ticks: 5, tickFormat: (t: number) => `${number(t)} s` },
    // Triangle m peaks at (m + 1) of the 81 equal steps between 0 and 8 kHz; a row of pixels is centred on it.
    y: { label: 'kHz', domain: [0.5 * top / (mels + 1), (mels + 0.5) * top / (mels + 1)], ticks: [500, 1000, 2000, 4000, 7000].map(htkMel), tickFormat: melTick },
    marks: [
      pixels(matrixImage(picture, plot.frames, mels, plot.low, plot.high, 'magma'), PAIR_WIDTH, height, UNIT_MARGIN, false),
    ],
  }, plot.label);
}

export interface WavePlot {
  label: string;
  target: Float32Array;
  reconstruction: Float32Array;
  /** Second of the recording at which the excerpt starts. */
  start: number;
  sampleRate: number;
}

/** A few hundredths of a second of two waveforms on top of each other, `width` pixels wide. */
export function wavePlot(plot: WavePlot, width: number): string {
  const line = (wave: Float32Array): Array<{ t: number; v: number }> => Array.from(wave, (v, i) => ({ t: plot.start * 1000 + (1000 * i) / plot.sampleRate, v }));
  return draw({
    width, height: 190, ...margins(UNIT_MARGIN),
    x: { label: null, ticks: width / 90, tickFormat: (t: number) => `${number(t)} ms` },
    y: { label: 'amplitude', ticks: 4, tickFormat: number },
    marks: [
      Plot.gridY({ stroke: 'var(--line)', strokeOpacity: 1, ticks: 4 }),
      Plot.lineY(line(plot.target), { x: 't', y: 'v', stroke: 'var(--muted)', strokeWidth: 1.5 }),
      Plot.lineY(line(plot.reconstruction), { x: 't', y: 'v', stroke: 'var(--accent)', strokeWidth: 1.5 }),
    ],
  }, plot.label);
}

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
  return draw({
    width: FIGURE_WIDTH, height, ...margins(margin),
    x: { axis: null, domain: [0, map.n] },
    y: { axis: null, domain: [map.n, 0] },
    marks: [
      pixels(matrixImage(map.values, map.n, map.n, map.low, map.high, 'viridis'), FIGURE_WIDTH, height, margin, true),
      Plot.ruleX(edges, { stroke: 'var(--surface)', strokeWidth: 1.5 }),
      Plot.ruleY(edges, { stroke: 'var(--surface)', strokeWidth: 1.5 }),
      Plot.text(named, {
        x: () => 0, y: (group: HeatMap['groups'][number]) => (group.start + group.end) / 2, text: (group: HeatMap['groups'][number]) => shorten(group.label),
        textAnchor: 'end', dx: -8, fill: 'var(--ink)',
      }),
    ],
  }, map.label);
}

/** A bar of the colours from `low` to `high`, for the page to put between their values. */
export function colourBar(map: ColourMap): string {
  return matrixImage(Float32Array.from({ length: 256 }, (_, i) => i), 256, 1, 0, 256, map);
}

function pixels(src: string, width: number, height: number, margin: typeof MARGIN, sharp: boolean): Plot.Image {
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  return Plot.image([0], {
    src: () => src, frameAnchor: 'middle', ...inner, preserveAspectRatio: 'none', ...(sharp && { imageRendering: 'pixelated' }),
  });
}

function margins(margin: typeof MARGIN): Plot.PlotOptions {
  return { marginLeft: margin.left, marginRight: margin.right, marginTop: margin.top, marginBottom: margin.bottom };
}

function draw(options: Plot.PlotOptions, label: string): string {
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const svg = Plot.plot({ ...options, document: document as unknown as Document, ariaLabel: label, style: { fontSize: '11px' } });
  // The page carries these rules once, for all figures.
  svg.querySelectorAll('style').forEach((style) => style.remove());
  svg.setAttribute('role', 'img');
  svg.removeAttribute('height');
  return svg.outerHTML;
}

interface Point { step: number; value: number }

function thin(points: Point[]): Point[] {
  if (points.length <= MOST_POINTS) return points;
  return Array.from({ length: MOST_POINTS }, (_, i) => {
    const part = points.slice(Math.floor((i * points.length) / MOST_POINTS), Math.floor(((i + 1) * points.length) / MOST_POINTS));
    return { step: part.at(-1)!.step, value: part.reduce((sum, point) => sum + point.value, 0) / part.length };
  });
}

/** Centred, over a twentieth of the run, over the half of it that there is at both ends; geometric on a logarithmic axis. */
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
  const decades = Array.from({ length: Math.floor(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 }, (_, i) => Math.floor(Math.log10(low)) + i);
  const factors = decades.length > 3 ? [1] : [1, 2, 5];
  return decades.flatMap((decade) => factors.map((factor) => Number(`${factor}e${decade}`))).filter((tick) => tick >= low && tick <= high);
}

const number = (value: number): string => String(Number(value.toPrecision(4)));
const compact = (value: number): string => (Math.abs(value) >= 10_000 ? `${number(value / 1000)}k` : number(value));
const htkMel = (hz: number): number => 2595 * Math.log10(1 + hz / 700);
const melTick = (mel: number): string => number(Math.round((700 * (10 ** (mel / 2595) - 1)) / 100) / 10);
const shorten = (label: string): string => (label.length > 15 ? `${label.slice(0, 14)}…` : label);
