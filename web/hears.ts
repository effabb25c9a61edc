/**
 * Section: the chosen sound, what the network rebuilds of it, its features, and how alike its moments are.
 */
import { medianError, SAMPLE_RATE } from '../src/index.ts';
import { apart } from '../src/numbers.ts';
import { centre, cosineMatrix } from '../src/tasks/features/similarity.ts';
import { colourScale, image, MARGIN, matrix } from './charts.ts';
import type { Clip, Clips } from './clips.ts';
import { compute } from './cpu.ts';
import { byId, el, Status } from './dom.ts';
import { playButton } from './player.ts';

/** More rows cannot be told apart on a screen. */
const MOST_ROWS = 480;
/** Log-mel frames are drawn over this range, in standard deviations of their bin. */
const RANGE = [-1.6, 2.2] as const;

export function hearsSection(clips: Clips): void {
  const box = byId('hears-figures');
  let shown = '';
  clips.onChange(() => {
    const clip = clips.chosen;
    const state = clip ? `${clip.id} ${Boolean(clip.features)} ${Boolean(clip.rebuilt)}` : '';
    if (state === shown) return;
    shown = state;
    const drawn = clip ? [...spectrograms(clip), ...features(clip)] : [];
    box.className = drawn.length > 0 ? 'figures pair' : 'empty';
    box.replaceChildren(
      ...(drawn.length > 0
        ? drawn
        : [clip ? `${clip.name} is waiting to be heard.` : 'Choose a sound above.']),
    );
  });
}

/** Hz of the HTK mel scale's bins, as places on an axis from 0 to 1. */
function melTicks(): { ticks: number[]; format: (at: number) => string } {
  const mel = (hz: number): number => Math.log10(1 + hz / 700) / Math.log10(1 + 8000 / 700);
  const names = new Map(
    [250, 500, 1000, 2000, 4000, 8000].map((hz) => [mel(hz), hz < 1000 ? String(hz) : `${hz / 1000}k`]),
  );
  return { ticks: [...names.keys()], format: (at) => names.get(at) ?? '' };
}

/** [frames, bins] -> image rows from the highest bin down to the lowest. */
function upright(values: Float32Array, frames: number, bins: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let t = 0; t < frames; t++)
    for (let b = 0; b < bins; b++) out[(bins - 1 - b) * frames + t] = values[t * bins + b]!;
  return out;
}

/** A line across a picture where the sound is that is being heard. */
function playhead(plot: HTMLElement, seconds: number): (at: number | null) => void {
  const line = el('div', { class: 'playhead', hidden: true, 'aria-hidden': 'true' });
  plot.append(line);
  return (at) => {
    line.hidden = at === null || at > seconds;
    const inner = plot.clientWidth - MARGIN.left - MARGIN.right;
    if (at !== null)
      line.setAttribute(
        'style',
        `left: ${MARGIN.left + (at / seconds) * inner}px; top: ${MARGIN.top}px; bottom: ${MARGIN.bottom}px`,
      );
  };
}

function spectrograms(clip: Clip): HTMLElement[] {
  const { rebuilt } = clip;
  if (!rebuilt?.logMel) return [];
  const { frames, mels, target, logMel } = rebuilt;
  const long = frames / 100;
  const status = new Status('hears-status');
  const picture = (values: Float32Array, label: string): HTMLDivElement =>
    matrix({
      label,
      src: image(upright(values, frames, mels), frames, mels, RANGE[0], RANGE[1], 'magma'),
      seconds: long,
      height: (width) => Math.min(230, 120 + 0.2 * width),
      y: { label: 'Hz', domain: [0, 1], ...melTicks() },
    });
  const heard = picture(target, `Spectrogram of ${clip.name}: ${long.toFixed(1)} seconds, 0 to 8 kHz`);
  const inside = picture(logMel, `The network's reconstruction of ${clip.name}, drawn in the same way`);
  let error = 0;
  target.forEach((v, i) => {
    error += Math.abs(v - logMel[i]!) / target.length;
  });
  const [own, rival] = apart(error, medianError(target, mels), 2);
  const original = el('button', { type: 'button' });
  const theirs = el('button', { type: 'button' });
  playButton(original, clip.name, () => clip.wave, { text: true, frame: playhead(heard, long) });
  let sound: Float32Array | null = null;
  playButton(
    theirs,
    `the reconstruction of ${clip.name}`,
    async () => {
      if (!sound) {
        status.busy('Finding a waveform for the reconstructed spectrum.');
        const wave = await compute('sound', { logMel, frames, mels, wave: rebuilt.wave });
        // As loud as the recording.
        const power = (x: Float32Array): number => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length);
        const gain = power(clip.wave) / (power(wave) || 1);
        sound = wave.map((v) => Math.max(-1, Math.min(1, v * gain)));
        status.say('');
      }
      return sound;
    },
    { text: true, frame: playhead(inside, long), failed: (error) => status.fail(error) },
  );
  return [
    el(
      'figure',
      {},
      el('header', {}, el('h3', {}, 'What was said'), original),
      heard,
      el('figcaption', {}, `Energy of ${mels} mel bands every 10 ms, each band normalised over time.`),
      colourScale('magma', `−${-RANGE[0]}`, `${RANGE[1]} standard deviations`),
    ),
    el(
      'figure',
      {},
      el('header', {}, el('h3', {}, 'What is left of it inside'), theirs),
      inside,
      el(
        'figcaption',
        {},
        `Rebuilt from hidden state 2 by the frame scale's head: off by ${own} standard deviations on ` +
          `average; the median of each band is off by ${rival}. Played, its phases are invented.`,
      ),
    ),
  ];
}

function features(clip: Clip): HTMLElement[] {
  if (!clip.features) return [];
  const { data, frames, width, layer } = clip.features;
  const long = clip.wave.length / SAMPLE_RATE;
  const normal = new Float32Array(data.length);
  for (let d = 0; d < width; d++) {
    let mean = 0;
    let square = 0;
    for (let t = 0; t < frames; t++) mean += data[t * width + d]! / frames;
    for (let t = 0; t < frames; t++) square += (data[t * width + d]! - mean) ** 2 / frames;
    for (let t = 0; t < frames; t++)
      normal[t * width + d] = (data[t * width + d]! - mean) / (Math.sqrt(square) || 1);
  }
  const step = Math.ceil(frames / MOST_ROWS);
  const rows = Math.floor(frames / step);
  const pooled = new Float32Array(rows * width);
  for (let t = 0; t < rows * step; t++)
    for (let d = 0; d < width; d++) pooled[Math.floor(t / step) * width + d]! += data[t * width + d]! / step;
  const alike = cosineMatrix(centre(pooled, rows, width), rows, width);
  const flipped = new Float32Array(alike.length);
  for (let r = 0; r < rows; r++)
    flipped.set(alike.subarray((rows - 1 - r) * rows, (rows - r) * rows), r * rows);
  const ticks = Array.from({ length: 5 }, (_, i) => Number(((long * i) / 4).toFixed(1)));
  return [
    el(
      'figure',
      {},
      el('header', {}, el('h3', {}, 'Its moments, compared')),
      matrix({
        label: `Similarity of every two moments of ${clip.name}, cosine from -0.4 to 1`,
        src: image(flipped, rows, rows, -0.4, 1, 'viridis'),
        seconds: long,
        height: (w) => Math.min(w, 460) - MARGIN.left - MARGIN.right + MARGIN.top + MARGIN.bottom,
        y: { label: 'seconds', domain: [0, long], ticks, format: (v) => String(v) },
        sharp: true,
      }),
      el(
        'figcaption',
        {},
        'Cosine similarity of every two frames, their mean removed. Bright squares on the diagonal are ' +
          'stretches of one sound; bright ones beside it are sounds that come back.',
      ),
      colourScale('viridis', '−0.4', '1'),
    ),
    el(
      'figure',
      {},
      el('header', {}, el('h3', {}, 'Its features')),
      matrix({
        label: `Features of ${clip.name}: ${width} numbers for each of ${frames} frames`,
        src: image(upright(normal, frames, width), frames, width, -2.5, 2.5, 'viridis'),
        seconds: long,
        height: () => 300,
        y: {
          label: 'dimension',
          domain: [0, width],
          ticks: [0, width / 4, width / 2, (3 * width) / 4, width],
          format: String,
        },
      }),
      el(
        'figcaption',
        {},
        `Hidden state ${layer}: ${width} numbers every 20 ms, ` +
          `${(frames * width).toLocaleString('en-US')} in all, each dimension normalised over time. What ` +
          'probes and task models read.',
      ),
      colourScale('viridis', '−2.5', '2.5 standard deviations'),
    ),
  ];
}
