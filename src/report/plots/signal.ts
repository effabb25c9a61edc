/** Spectrograms and waveforms. */
import * as Plot from '@observablehq/plot';
import { matrixImage } from '../png.ts';
import { AXIS, draw, grid, MARGIN, margins, number, PAIR_WIDTH } from './draw.ts';
import { pixels } from './matrix.ts';

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
  const top = htkMel(8000);
  const height = 230;
  const picture = new Float32Array(plot.values.length);
  for (let t = 0; t < plot.frames; t++)
    for (let m = 0; m < mels; m++) picture[(mels - 1 - m) * plot.frames + t] = plot.values[t * mels + m]!;
  return draw(
    {
      width: PAIR_WIDTH,
      height,
      ...margins(MARGIN),
      x: {
        ...AXIS,
        label: 'time (s)',
        domain: [0, plot.frames * plot.hopSeconds],
        ticks: 5,
        tickFormat: number,
      },
      // Triangle m peaks at (m + 1) of the 81 equal steps between 0 and 8 kHz; a row of pixels is centred on
      // it.
      y: {
        ...AXIS,
        label: 'frequency (kHz)',
        domain: [(0.5 * top) / (mels + 1), ((mels + 0.5) * top) / (mels + 1)],
        ticks: [500, 1000, 2000, 4000, 7000].map(htkMel),
        tickFormat: melTick,
      },
      marks: [
        pixels(
          matrixImage(picture, plot.frames, mels, plot.low, plot.high, 'magma'),
          PAIR_WIDTH,
          height,
          MARGIN,
          false,
        ),
      ],
    },
    plot.label,
  );
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
  const line = (wave: Float32Array): Array<{ t: number; v: number }> =>
    Array.from(wave, (v, i) => ({ t: plot.start * 1000 + (1000 * i) / plot.sampleRate, v }));
  return draw(
    {
      width,
      height: 190,
      ...margins(MARGIN),
      x: { ...AXIS, label: 'time (ms)', ticks: width / 90, tickFormat: number },
      y: { ...AXIS, label: 'amplitude (standard deviations)', ticks: 4, tickFormat: number },
      marks: [
        grid(4),
        Plot.lineY(line(plot.target), { x: 't', y: 'v', stroke: 'var(--muted)', strokeWidth: 1.5 }),
        Plot.lineY(line(plot.reconstruction), { x: 't', y: 'v', stroke: 'var(--accent)', strokeWidth: 1.5 }),
      ],
    },
    plot.label,
  );
}

const htkMel = (hz: number): number => 2595 * Math.log10(1 + hz / 700);
const melTick = (mel: number): string => number(Math.round((700 * (10 ** (mel / 2595) - 1)) / 100) / 10);
