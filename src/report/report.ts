/** The report of a training run: one HTML file with everything in it, readable without JavaScript and without a network. */
import { MGFError } from '../errors.ts';
import { colourBar, FIGURE_WIDTH, heatMap, linePlot, spectrogramPlot, wavePlot } from './plots.ts';
import type { Objectives } from '../mgf/config.ts';
import type { ColourMap } from './png.ts';
import { equalErrorRate, groupByLabel, pairMeans, reorder } from './similarity.ts';
import { STYLE } from './style.ts';

/** One logged step. What a run does not compute (a loss that is switched off) is NaN and is left out of the report. */
export interface CurvePoint {
  step: number;
  total: number;
  sample: number;
  frame: number;
  phoneme: number;
  sentence: number;
  /** Share of masked frames whose true target scored highest, 0 to 1. */
  accuracy: number;
  gradNorm: number;
  lr: number;
  audioSecondsPerSecond: number;
}

export interface ReportData {
  title: string;
  run: {
    command: string;
    preset: string;
    /** Number of trained parameters. */
    parameters: number;
    steps: number;
    /** Audio trained on, crops counted each time, in seconds. */
    audioSeconds: number;
    /** Wall time in seconds. */
    seconds: number;
    adapter: string;
    date: string;
  };
  curve: CurvePoint[];
  /** Each loss of a model that has learnt nothing; NaN where there is none. */
  chance: { sample: number; frame: number; phoneme: number; sentence: number };
  /** What the losses are, where they are not the default ones. */
  objectives?: Objectives;
  spectrogram?: {
    /** Log-mel, row-major [frames, mels]. */
    target: Float32Array;
    reconstruction: Float32Array;
    frames: number;
    hopSeconds: number;
    /** Which recording it is. */
    label: string;
    waveTarget?: Float32Array;
    waveReconstruction?: Float32Array;
    sampleRate: number;
  };
  similarity?: {
    /** The voice of each of n clips. */
    labels: string[];
    /** Cosine similarity of the clips' features, row-major [n, n]. */
    values: Float32Array;
    /** The same clips under other features, such as those of random weights. */
    before?: { name: string; values: Float32Array };
  };
  /** Cells are printed exactly as given. */
  table?: { title: string; columns: string[]; rows: Array<Array<string | number>>; caption: string };
  /** Health alarms that fired, a sentence each. */
  alarms: string[];
  licences: string[];
  /** What to run next: lines of text; a line that starts with `mgf ` or `npm ` is set as a command. */
  next: string[];
}

/** The whole report as HTML text. Pure: the same data give the same text. Throws `MGFError('shape')` where sizes do not fit. */
export function renderReport(data: ReportData): string {
  const sections = [
    header(data), alarms(data.alarms), resultTable(data.table), losses(data), reconstruction(data.spectrogram), similarity(data.similarity),
    details(data), list('Recordings', 'Licences of the recordings that this run used.', data.licences), next(data.next),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>${escape(data.title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${sections.filter((section) => section !== '').join('\n')}
</main>
</body>
</html>
`;
}

function header({ title, run, curve, chance }: ReportData): string {
  const tail = curve.slice(-Math.max(1, Math.min(20, Math.floor(curve.length / 10))));
  const over = tail.length === 1 ? 'last step' : `last ${tail.length} logged steps`;
  const loss = (key: 'sample' | 'frame' | 'phoneme' | 'sentence', name: string): string => tile(mean(tail, key), name, chance[key]);
  const accuracy = mean(tail, 'accuracy');
  const speed = run.seconds > 0 ? run.audioSeconds / run.seconds : NaN;
  return `<header>
<h1>${escape(title)}</h1>
<p class="lead">${escape(run.preset)}, ${grouped(run.parameters)} parameters, ${grouped(run.steps)} steps in ${duration(run.seconds)}
on ${escape(run.adapter)}. It heard ${duration(run.audioSeconds)} of audio${Number.isFinite(speed) ? `, ${figures(speed)} seconds of it each second` : ''}.</p>
<div class="tiles">
${loss('sample', 'sample loss')}${loss('frame', 'frame loss')}${loss('phoneme', 'phoneme loss')}${loss('sentence', 'sentence loss')}
${Number.isFinite(accuracy) ? `<div class="tile"><b>${figures(100 * accuracy)} %</b><span>phoneme accuracy${chanceAccuracy(chance.phoneme)}</span></div>` : ''}
</div>
<p class="muted" style="margin-top:10px">Means of the ${over}, on training audio.</p>
</header>`;
}

function tile(value: number, name: string, chance: number): string {
  if (!Number.isFinite(value)) return '';
  return `<div class="tile"><b>${figures(value)}</b><span>${name}${Number.isFinite(chance) ? `<br>chance ${figures(chance)}` : ''}</span></div>`;
}

/** The contrastive loss of a model that knows nothing is the logarithm of the number of candidates, one of which is right. */
function chanceAccuracy(loss: number): string {
  return Number.isFinite(loss) ? `<br>chance ${figures(100 * Math.exp(-loss))} %` : '';
}

function alarms(lines: string[]): string {
  return lines.length === 0 ? '' : `<section class="alarms"><strong>Health alarms</strong>${items(lines)}</section>`;
}

function resultTable(table: ReportData['table']): string {
  if (!table) return '';
  const isNumber = (value: string | number | undefined): boolean => typeof value === 'number' || /^[-+]?[\d.,]+\s*%?$/.test(value ?? '');
  const numeric = table.columns.map((_, c) => table.rows.some((row) => isNumber(row[c])) && table.rows.every((row) => isNumber(row[c]) || row[c] === ''));
  const cell = (tag: 'th' | 'td', value: string | number, c: number): string => `<${tag}${numeric[c] ? ' class="n"' : ''}>${escape(String(value))}</${tag}>`;
  return `<section>
<h2>${escape(table.title)}</h2>
<p class="muted">${escape(table.caption)}</p>
<div class="card"><table>
<thead><tr>${table.columns.map((name, c) => cell('th', name, c)).join('')}</tr></thead>
<tbody>${table.rows.map((row) => `<tr>${row.map((value, c) => cell('td', value, c)).join('')}</tr>`).join('\n')}</tbody>
</table></div>
</section>`;
}

/** What a loss measures, by scale and objective. */
const CAPTIONS = {
  frame: { l1: 'Mean absolute error of the decoded log-mel frames.', info_nce: 'Contrastive: find a frame\'s log-mel among those of other frames, in nats.' },
  phoneme: { info_nce: 'Contrastive: find a masked frame among others, in nats.', l1: 'Mean absolute error of the log-mel of masked frames.' },
  sentence: { nt_xent: 'Contrastive: find the other crop of a recording, in nats.', l1: 'Mean absolute error of a crop\'s log-mel mean and deviation, in nats.' },
} as const;

function losses({ curve, chance, objectives }: ReportData): string {
  const steps = curve.map((point) => point.step);
  const plot = (key: keyof CurvePoint, title: string, caption: string, extra: { chance?: number; log?: boolean; zero?: boolean; exact?: boolean } = {}): string => {
    const reference = extra.chance !== undefined && Number.isFinite(extra.chance) ? { value: extra.chance, name: `chance ${figures(extra.chance)}` } : undefined;
    const svg = linePlot({
      label: `${title} over training steps`, steps, values: curve.map((point) => point[key]), reference,
      ...(extra.log && { log: true }), ...(extra.zero && { zero: true }), ...(extra.exact && { exact: true }),
    });
    return svg === null ? '' : `<figure><h3>${title}</h3>${svg}<figcaption>${caption}</figcaption></figure>`;
  };
  const accuracyChance = Number.isFinite(chance.phoneme) ? { chance: Math.exp(-chance.phoneme) } : {};
  const plots = [
    plot('sample', 'Sample loss', 'Mean absolute error of the decoded waveform.', { chance: chance.sample }),
    plot('frame', 'Frame loss', CAPTIONS.frame[objectives?.frame ?? 'l1'], { chance: chance.frame }),
    plot('phoneme', 'Phoneme loss', CAPTIONS.phoneme[objectives?.phoneme ?? 'info_nce'], { chance: chance.phoneme }),
    plot('sentence', 'Sentence loss', CAPTIONS.sentence[objectives?.sentence ?? 'nt_xent'], { chance: chance.sentence }),
    plot('accuracy', 'Phoneme accuracy', 'Share of masked frames found.', { ...accuracyChance, zero: true }),
    plot('total', 'Total loss', 'Weighted sum of the four.'),
    plot('gradNorm', 'Gradient norm', 'Before clipping, on a logarithmic axis.', { log: true }),
    plot('lr', 'Learning rate', 'As scheduled.', { zero: true, exact: true }),
    plot('audioSecondsPerSecond', 'Speed', 'Seconds of audio a second.', { zero: true }),
  ].filter((figure) => figure !== '');
  if (plots.length === 0) return '';
  return `<section>
<h2>Training</h2>
<p class="muted"><span class="key"></span>moving average over a twentieth of the run, each step behind it in a lighter line
<span class="key dash"></span>what a model that has learnt nothing scores</p>
<div class="figures">${plots.join('\n')}</div>
</section>`;
}

function reconstruction(spectrogram: ReportData['spectrogram']): string {
  if (!spectrogram) return '';
  const { target, reconstruction: rebuilt, frames, hopSeconds, waveTarget, waveReconstruction, sampleRate } = spectrogram;
  if (frames < 1 || target.length !== rebuilt.length || target.length % frames !== 0 || target.length === 0) {
    throw new MGFError('shape', `The report's spectrograms do not fit: ${target.length} and ${rebuilt.length} values for ${frames} frames.`);
  }
  const sorted = Float32Array.from(target).sort();
  const [low, high] = [sorted[Math.floor(0.01 * (sorted.length - 1))]!, sorted[Math.floor(0.995 * (sorted.length - 1))]!];
  const gap = target.reduce((sum, value, i) => sum + Math.abs(value - rebuilt[i]!), 0) / target.length;
  const gain = waveTarget || waveReconstruction ? 0.9 / Math.max(peak(waveTarget), peak(waveReconstruction), 1e-9) : 1;
  const figure = (values: Float32Array, name: string, wave: Float32Array | undefined): string => `<figure><h3>${name}</h3>
${spectrogramPlot({ label: `${name}: log-mel spectrogram`, values, frames, hopSeconds, low, high })}
${wave ? `<audio controls preload="none" src="${wavUri(wave, sampleRate, gain)}"></audio>` : ''}</figure>`;
  return `<section>
<h2>A recording and what the model made of it</h2>
<p class="muted">${escape(spectrogram.label)}: log-mel spectrogram, mean absolute difference ${figures(gap)}. Both pictures share their colours${
  waveReconstruction ? '; the sound is what the waveform decoder gives' : ''}.</p>
<div class="figures pair">${figure(target, 'Recording', waveTarget)}${figure(rebuilt, 'Reconstruction', waveReconstruction)}${
  waveTarget && waveReconstruction ? excerpt(waveTarget, waveReconstruction, sampleRate) : ''}</div>
${bar('magma', low, high, 'log energy, normalised')}
</section>`;
}

/** The loudest 40 ms, where the fine structure of a voice can be seen. */
function excerpt(target: Float32Array, rebuilt: Float32Array, sampleRate: number): string {
  const length = Math.min(Math.round(0.04 * sampleRate), target.length, rebuilt.length);
  let best = { start: 0, energy: -1 };
  for (let start = 0; start + length <= Math.min(target.length, rebuilt.length); start += Math.max(1, length >> 1)) {
    const energy = target.subarray(start, start + length).reduce((sum, v) => sum + v * v, 0);
    if (energy > best.energy) best = { start, energy };
  }
  const cut = (wave: Float32Array): Float32Array => wave.subarray(best.start, best.start + length);
  const plot = { label: 'Forty milliseconds of both waveforms', target: cut(target), reconstruction: cut(rebuilt), start: best.start / sampleRate, sampleRate };
  // Drawn for a desk and for a phone: one drawing scaled to both would have unreadable numbers on one of them.
  return `<figure class="wide"><h3>Waveform</h3><div class="on-desk">${wavePlot(plot, 1080)}</div><div class="on-phone">${wavePlot(plot, FIGURE_WIDTH)}</div>
<figcaption><span class="key other" style="margin-left:0"></span>recording <span class="key" style="margin-left:12px"></span>reconstruction; the loudest 40 ms</figcaption></figure>`;
}

function similarity(data: ReportData['similarity']): string {
  if (!data || data.labels.length < 2) return '';
  const { order, groups } = groupByLabel(data.labels);
  const n = data.labels.length;
  const maps = [{ name: data.before ? 'Trained' : '', values: data.values }, ...(data.before ? [data.before] : [])]
    .map(({ name, values }) => ({ name, values: reorder(values, order), means: pairMeans(values, data.labels), eer: equalErrorRate(values, data.labels) }));
  const sorted = maps.flatMap(({ values }) => Array.from(values).filter((value, i) => i % (n + 1) !== 0 && Number.isFinite(value))).sort((a, b) => a - b);
  const [low, high] = [sorted[Math.floor(0.01 * (sorted.length - 1))] ?? 0, sorted[Math.ceil(0.99 * (sorted.length - 1))] ?? 1];
  const caption = ({ means, eer }: (typeof maps)[number]): string => [
    means.same !== null && `same voice ${figures(means.same)}`, means.different !== null && `different voices ${figures(means.different)}`,
    eer !== null && `equal error rate ${figures(100 * eer)} %`,
  ].filter(Boolean).join(' · ');
  const drawn = maps.map((map) => `<figure class="square">${map.name ? `<h3>${escape(map.name)}</h3>` : ''}
${heatMap({ label: `Similarity of ${n} clips, by voice`, values: map.values, n, groups, low, high })}
<figcaption>${caption(map)}</figcaption></figure>`);
  return `<section>
<h2>Similarity between voices</h2>
<p class="muted">Cosine similarity of ${n} clips of ${groups.length} ${groups.length === 1 ? 'voice' : 'voices'}, a row and a column each, the clips of one voice side by side.
Bright squares along the diagonal mean that clips of one voice are alike.</p>
<div class="figures pair">${drawn.join('\n')}</div>
${bar('viridis', low, high, 'cosine similarity')}
</section>`;
}

function bar(map: ColourMap, low: number, high: number, name: string): string {
  return `<div class="bar"><span>${figures(low)}</span><img src="${colourBar(map)}" alt="colour scale"><span>${figures(high)}</span><span>${name}</span></div>`;
}

function details({ run }: ReportData): string {
  const rows: Array<[string, string]> = [
    ['Command', `<code>${escape(run.command)}</code>`], ['Preset', escape(run.preset)], ['Parameters', grouped(run.parameters)],
    ['Steps', grouped(run.steps)], ['Audio trained on', duration(run.audioSeconds)], ['Wall time', duration(run.seconds)],
    ['Adapter', escape(run.adapter)], ['Date', escape(run.date)],
  ];
  return `<section><h2>The run</h2><dl>${rows.map(([name, value]) => `<dt>${name}</dt><dd>${value}</dd>`).join('')}</dl></section>`;
}

function next(lines: string[]): string {
  if (lines.length === 0) return '';
  return `<section><h2>What to run next</h2>${lines.map((line) => (/^(mgf|npm|npx|node) /.test(line)
    ? `<pre><code>${escape(line)}</code></pre>` : `<p>${escape(line)}</p>`)).join('\n')}</section>`;
}

function list(title: string, intro: string, lines: string[]): string {
  return lines.length === 0 ? '' : `<section><h2>${title}</h2><p class="muted">${intro}</p>${items(lines)}</section>`;
}

function items(lines: string[]): string {
  return `<ul>${lines.map((line) => `<li>${escape(line)}</li>`).join('')}</ul>`;
}

/** Text as HTML, in elements and in quoted attributes; control characters, which HTML does not allow, become a visible mark. */
function escape(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  // oxlint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, '\ufffd').replace(/[&<>"']/g, (character) => entities[character]!);
}

function mean(points: CurvePoint[], key: keyof CurvePoint): number {
  const values = points.map((point) => point[key]).filter(Number.isFinite);
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function peak(wave: Float32Array | undefined): number {
  return wave ? wave.reduce((top, value) => Math.max(top, Math.abs(value)), 0) : 0;
}

/** Three significant digits, without an exponent for everyday sizes. */
function figures(value: number): string {
  if (!Number.isFinite(value)) return 'not a number';
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min ${s} s` : `${figures(seconds)} s`;
}

/** 16-bit mono PCM as a WAV data URI. */
function wavUri(wave: Float32Array, sampleRate: number, gain: number): string {
  const bytes = Buffer.alloc(44 + 2 * wave.length);
  bytes.write('RIFF', 0, 'latin1');
  bytes.writeUInt32LE(36 + 2 * wave.length, 4);
  bytes.write('WAVEfmt ', 8, 'latin1');
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(sampleRate, 24);
  bytes.writeUInt32LE(2 * sampleRate, 28);
  bytes.writeUInt16LE(2, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write('data', 36, 'latin1');
  bytes.writeUInt32LE(2 * wave.length, 40);
  wave.forEach((value, i) => bytes.writeInt16LE(Math.round(32767 * Math.max(-1, Math.min(1, value * gain || 0))), 44 + 2 * i));
  return `data:audio/wav;base64,${bytes.toString('base64')}`;
}
