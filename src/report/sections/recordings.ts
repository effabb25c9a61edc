/** Recordings beside what the model makes of them, to look at and to listen to. */
import { MGFError } from '../../errors.ts';
import { escape, figure, figures as digits } from '../html.ts';
import { denormalise, resynthesise } from '../griffin-lim.ts';
import { FIGURE_WIDTH } from '../plots/draw.ts';
import { spectrogramPlot, wavePlot } from '../plots/signal.ts';
import { peak, wavUri } from '../wav.ts';
import { bar } from './voices.ts';
import type { Recording } from '../data.ts';
import type { Section } from '../html.ts';

/** Null where no scale of the run rebuilds anything. */
export function recordingSection(recordings: readonly Recording[], audio: boolean): Section | null {
  const rebuilt = recordings.filter((r) => r.reconstruction || r.waveReconstruction);
  if (rebuilt.length === 0) return null;
  for (const { target, reconstruction, frames } of rebuilt) {
    if (
      frames < 1 ||
      target.length === 0 ||
      target.length % frames !== 0 ||
      (reconstruction && reconstruction.length !== target.length)
    ) {
      throw new MGFError(
        'shape',
        `The report's spectrograms do not fit: ${target.length} and ${reconstruction?.length ?? 0} ` +
          `values for ${frames} frames.`,
      );
    }
  }
  const sorted = Float32Array.from(rebuilt.flatMap((r) => [...r.target])).sort();
  const [low, high] = [
    sorted[Math.floor(0.01 * (sorted.length - 1))]!,
    sorted[Math.floor(0.995 * (sorted.length - 1))]!,
  ];
  const decoded = rebuilt.some((r) => r.waveReconstruction);
  const invented = audio && rebuilt.some((r) => r.reconstruction && !r.waveReconstruction);
  const how = decoded
    ? 'The sound of a reconstruction is what the waveform decoder gives.'
    : invented
      ? 'A spectrogram has no phases: for the sounds marked so they were invented by the Griffin-Lim ' +
        "algorithm, for the recording's own spectrogram too, so that the two can be compared."
      : '';
  return {
    id: 'recordings',
    title:
      rebuilt.length === 1
        ? 'A recording and what the model made of it'
        : 'Recordings and what the model made of them',
    body: `<p class="muted">Log-mel spectrograms of unmasked recordings, normalised over time in each frequency band; all pictures share their colours. ${audio ? how : ''}</p>
${rebuilt.map((r) => one(r, low, high, audio)).join('\n')}
${bar('magma', low, high, 'log energy, normalised')}`,
  };
}

function one(recording: Recording, low: number, high: number, audio: boolean): string {
  const { label, target, reconstruction, frames, hopSeconds, wave, waveReconstruction, sampleRate } =
    recording;
  const mels = target.length / frames;
  const picture = (values: Float32Array, name: string): string =>
    spectrogramPlot({
      label: `${name} of ${label}: log-mel spectrogram`,
      values,
      frames,
      hopSeconds,
      low,
      high,
    });
  const gap =
    reconstruction &&
    target.reduce((sum, value, i) => sum + Math.abs(value - reconstruction[i]!), 0) / target.length;
  // With phases found by the same means, what both spectrograms sound like can be compared.
  const invented = (normalised: Float32Array): Float32Array =>
    resynthesise(denormalise(normalised, wave, mels), frames, mels);
  const sounds = (...all: Array<[name: string, wave: Float32Array]>): string =>
    audio ? all.map(([name, samples]) => player(name, samples, sampleRate)).join('') : '';
  const rebuilt = reconstruction
    ? picture(reconstruction, 'Reconstruction')
    : '<p class="muted">No spectrogram: the frame scale predicts none.</p>';
  return `<h3 class="clip">${escape(label)}${gap === undefined ? '' : ` <span class="interval">mean absolute difference ${digits(gap)}</span>`}</h3>
<div class="figures pair">${[
    figure(
      'Recording',
      picture(target, 'Recording') +
        (waveReconstruction || !reconstruction
          ? sounds(['recording', wave])
          : sounds(['recording', wave], ['its spectrogram, phases invented', invented(target)])),
    ),
    figure(
      'Reconstruction',
      rebuilt +
        (waveReconstruction
          ? sounds(['decoded waveform', waveReconstruction])
          : sounds(['reconstruction, phases invented', invented(reconstruction!)])),
    ),
    waveReconstruction ? excerpt(wave, waveReconstruction, sampleRate) : '',
  ].join('')}</div>`;
}

function player(name: string, wave: Float32Array, sampleRate: number): string {
  return (
    `<div class="sound"><span>${escape(name)}</span><audio controls preload="none" aria-label="Listen: ` +
    `${escape(name)}" src="${wavUri(wave, sampleRate, 0.9 / Math.max(peak(wave), 1e-9))}"></audio></div>`
  );
}

/** The loudest 40 ms, where the fine structure of a voice can be seen. */
function excerpt(target: Float32Array, rebuilt: Float32Array, sampleRate: number): string {
  const length = Math.min(Math.round(0.04 * sampleRate), target.length, rebuilt.length);
  let best = { start: 0, energy: -1 };
  for (
    let start = 0;
    start + length <= Math.min(target.length, rebuilt.length);
    start += Math.max(1, length >> 1)
  ) {
    const energy = target.subarray(start, start + length).reduce((sum, v) => sum + v * v, 0);
    if (energy > best.energy) best = { start, energy };
  }
  const cut = (wave: Float32Array): Float32Array => wave.subarray(best.start, best.start + length);
  const plot = {
    label: 'Forty milliseconds of both waveforms',
    target: cut(target),
    reconstruction: cut(rebuilt),
    start: best.start / sampleRate,
    sampleRate,
  };
  // Drawn for a desk and for a phone: one drawing scaled to both would have unreadable numbers on one of
  // them.
  return figure(
    'Waveform',
    `<div class="on-desk">${wavePlot(plot, 1080)}</div><div ` +
      `class="on-phone">${wavePlot(plot, FIGURE_WIDTH)}</div>`,
    '<span class="key other"></span>recording <span class="key"></span>reconstruction; the loudest 40 ms',
    'wide',
  );
}
