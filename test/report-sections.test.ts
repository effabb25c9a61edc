import { parseHTML } from 'linkedom';
import { suite, test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/random/stream.ts';
import type { MGFError } from '../src/errors.ts';
import {
  errorsWithinManner,
  groupByManner,
  inWords,
  largestConfusions,
  rowShares,
} from '../src/report/confusion.ts';
import { MGF_DEFAULTS } from '../src/mgf/config.ts';
import { hostLogMel } from '../src/ops/log-mel-host.ts';
import { denormalise, resynthesise } from '../src/report/griffin-lim.ts';
import { percent, table } from '../src/report/html.ts';
import { spread } from '../src/report/plots/draw.ts';
import { principalComponents, tsne } from '../src/report/projection.ts';
import type { AblationResult, ProbeResult, ProbeRow } from '../src/tasks/task.ts';
import { ablationSection } from '../src/report/sections/ablation.ts';
import { confusionSection } from '../src/report/sections/confusion.ts';
import { bestRow, probeSection } from '../src/report/sections/probes.ts';
import { recordingSection } from '../src/report/sections/recordings.ts';
import { healthSection } from '../src/report/sections/training.ts';
import { voiceSection } from '../src/report/sections/voices.ts';
import { STYLE } from '../src/report/style.ts';
import { wavUri } from '../src/report/wav.ts';
import type { Section } from '../src/report/html.ts';

const parse = (section: Section | null) => parseHTML(`<html><body>${section!.body}</body></html>`).document;
const words = (element: { textContent: string | null }): string =>
  (element.textContent ?? '').replace(/\s+/g, ' ').trim();
const near = (got: number, want: number, tolerance: number, what = '') =>
  assert.ok(Math.abs(got - want) <= tolerance, `${what} ${got}, not ${want}`);
/** Every section must be free of these, whatever it is given. */
const clean = (section: Section | null): void =>
  assert.not.match(
    section!.body.replace(/base64,[^"]*/g, ''),
    /NaN|Infinity|undefined|\[object|<script|https?:\/\/(?!www\.w3\.org)/,
  );

// ------------------------------------------------------------------------------------------------ confusions

const PHONES = ['aa', 'iy', 'p', 's', 'z', 'sil'];
const COUNTS = [
  [60, 30, 0, 0, 0, 10],
  [5, 95, 0, 0, 0, 0],
  [0, 0, 7, 0, 0, 3],
  [0, 0, 0, 180, 20, 0],
  [0, 0, 0, 25, 25, 0],
  [0, 0, 0, 0, 0, 0],
];

test(
  'a confusion matrix is divided by the occurrences of each true class; a class that never occurs has a ' +
    'row of zeros',
  () => {
    const shares = rowShares(COUNTS, 6);
    assert.equal(shares[0], [0.6, 0.3, 0, 0, 0, 0.1]);
    assert.equal(shares[4], [0, 0, 0, 0.5, 0.5, 0]);
    assert.equal(shares[5], [0, 0, 0, 0, 0, 0]);
    for (const row of shares.slice(0, 5))
      near(
        row.reduce((a, b) => a + b, 0),
        1,
        1e-12,
      );
    assert.throws(
      () => rowShares(COUNTS.slice(1), 6),
      (e: MGFError) => e.code === 'shape' && /6 rows of 6 counts, got 5 rows/.test(e.message),
    );
    assert.throws(
      () =>
        rowShares(
          [
            [1, 2],
            [3, -1],
          ],
          2,
        ),
      /needs 2 rows/,
    );
  },
);

test('phones are grouped by manner whatever their order and case, and what is no phone comes last', () => {
  const { order, groups } = groupByManner(['SIL', 's', 'n', 'x7', 'AA', 'w', 'T']);
  assert.equal(
    order.map((i) => ['SIL', 's', 'n', 'x7', 'AA', 'w', 'T'][i]),
    ['AA', 'T', 's', 'n', 'w', 'SIL', 'x7'],
  );
  assert.equal(
    groups.map((g) => g.name),
    ['vowels', 'stops', 'fricatives', 'nasals', 'approximants', 'silence', 'other'],
  );
  assert.equal(
    groups.map((g) => [g.start, g.end]),
    [
      [0, 1],
      [1, 2],
      [2, 3],
      [3, 4],
      [4, 5],
      [5, 6],
      [6, 7],
    ],
  );
});

test('the largest confusions are found by share, rare classes left out', () => {
  const found = largestConfusions(COUNTS, 3, 20).map((c) => [
    PHONES[c.truth],
    PHONES[c.taken],
    c.count,
    c.share,
    c.occurrences,
  ]);
  assert.equal(found, [
    ['z', 's', 25, 0.5, 50],
    ['aa', 'iy', 30, 0.3, 100],
    ['s', 'z', 20, 0.1, 200],
  ]);
  assert.is(largestConfusions(COUNTS, 9, 1)[2]!.share, 0.3);
  // Wrong: 30 + 10, 5, 3, 20, 25; all but the 10 and the 3 within a manner.
  near(errorsWithinManner(COUNTS, PHONES)!, 80 / 93, 1e-12);
  assert.is(
    errorsWithinManner(
      [
        [3, 0],
        [0, 2],
      ],
      ['s', 'z'],
    ),
    null,
  );
  assert.equal([inWords('ih'), inWords('SIL'), inWords('tone')], ['ih (as in bit)', 'silence', 'tone']);
});

const phonemeRow = (
  features: ProbeRow['features'],
  layer: ProbeRow['layer'],
  value: number,
  more: Partial<ProbeRow> = {},
): ProbeRow => ({
  features,
  layer,
  head: 'linear',
  pool: 'none',
  learningRate: 1e-3,
  metrics: { accuracy: { value, interval: [value - 0.02, value + 0.02] } },
  parts: {},
  ...more,
});
const probe = (rows: ProbeRow[], more: Partial<ProbeResult> = {}): ProbeResult => ({
  task: 'phoneme',
  checkpoint: 'run/checkpoint-000100',
  adapter: 'an adapter',
  date: '2026-01-02T03:04:05Z',
  seed: 1,
  classes: PHONES,
  counts: { train: 1000, dev: 20, test: 30 },
  majority: 0.25,
  rows,
  ...more,
});

test('confusions are those of the best features of the run, in a matrix and in words', () => {
  const section = confusionSection([
    probe([
      phonemeRow('log-mel', null, 0.9, { confusion: COUNTS }),
      phonemeRow('mgf', 1, 0.5, { confusion: COUNTS }),
      phonemeRow('mgf', 2, 0.6, { confusion: COUNTS, head: 'mlp' }),
    ]),
  ]);
  clean(section);
  const document = parse(section);
  assert.match(
    words(document.querySelector('p')!),
    'MGF, hidden state 2, mlp head, 460 test frames. 86.0 % of the wrong answers',
  );
  assert.is(words(document.querySelector('li')!), 'z (as in zoo) taken for s (as in sin): 50.0 % 25 of 50');
  assert.match(document.querySelector('svg title')!.textContent ?? '', 'Confusion matrix of 6 phones');
  // Eleven cells hold something.
  assert.is([...document.querySelectorAll('svg rect[fill-opacity], svg [aria-label=rect] rect')].length, 11);
  assert.is(confusionSection([probe([phonemeRow('mgf', 1, 0.5)])]), null);
});

// ---------------------------------------------------------------------------------------------------- probes

test('percentages have one decimal and a sign that does not break away', () => {
  assert.equal([percent(0.6213), percent(1), percent(0)], ['62.1\u00a0%', '100.0\u00a0%', '0.0\u00a0%']);
});

test('a probe over hidden states is a curve with its baselines, and a table with every number', () => {
  const section = probeSection([
    probe([
      phonemeRow('mgf', 0, 0.41),
      phonemeRow('mgf', 1, 0.5234, {
        parts: { timit: { accuracy: { value: 0.4, interval: [0.31, 0.49] } } },
      }),
      phonemeRow('mgf', 2, 0.5),
      phonemeRow('mgf', 'sum', 0.55),
      phonemeRow('random', 1, 0.3),
      phonemeRow('log-mel', null, 0.45),
    ]),
  ]);
  clean(section);
  const document = parse(section);
  const texts = [...document.querySelectorAll('svg text')].map((t) => t.textContent);
  for (const text of [
    'MGF',
    'log-mel',
    'random weights',
    'accuracy (%)',
    'hidden state',
    '0',
    '1',
    '2',
    'all',
  ])
    assert.ok(texts.includes(text), text);
  assert.match(
    document.querySelector('svg title')!.textContent ?? '',
    'MGF 0: 41 %, 1: 52.34 %, 2: 50 %; log-mel 45 %; random weights 30 %',
  );
  assert.equal([...document.querySelectorAll('th')].map(words), [
    'features',
    'hidden state',
    'accuracy',
    'accuracy, timit',
  ]);
  assert.equal([...document.querySelectorAll('tbody tr')[1]!.querySelectorAll('td')].map(words), [
    'MGF',
    '1',
    '52.3 % 50.3 to 54.3 %',
    '40.0 % 31.0 to 49.0 %',
  ]);
  assert.equal([...document.querySelectorAll('td b')].map(words), ['40.0 %', '55.0 %']);
  assert.match(
    words(document.querySelector('p.under')!),
    '6 classes · 1,000 train, 20 dev, 30 test recordings · linear head · the commonest class is 25.0 % ' +
      'of the test · run/checkpoint-000100 · 2026-01-02 · an adapter · seed 1',
  );
});

test(
  'random weights that were probed on several hidden states are a curve as well; a part that is the ' +
    'whole test has no column',
  () => {
    const parts = (value: number) => ({
      parts: { timit: { accuracy: { value, interval: [0, 1] as const } } },
    });
    const section = probeSection([
      probe([
        phonemeRow('mgf', 0, 0.4, parts(0.4)),
        phonemeRow('mgf', 1, 0.5, parts(0.5)),
        phonemeRow('random', 0, 0.3, parts(0.3)),
        phonemeRow('random', 1, 0.2, parts(0.2)),
      ]),
    ]);
    clean(section);
    assert.match(
      parse(section).querySelector('svg title')!.textContent ?? '',
      'MGF 0: 40 %, 1: 50 %; random weights 0: 30 %, 1: 20 %',
    );
    assert.equal([...parse(section).querySelectorAll('th')].map(words), [
      'features',
      'hidden state',
      'accuracy',
    ]);
  },
);

test(
  'where no hidden states are compared, a dot for each kind of features; errors are said to be better ' +
    'when low',
  () => {
    const row = (features: ProbeRow['features'], value: number): ProbeRow =>
      phonemeRow(features, 'sum', 0, { metrics: { wer: { value, interval: [value - 0.1, value + 0.1] } } });
    const rows = [row('mgf', 0.5), row('mgf', 0.4), row('log-mel', 0.8)];
    const section = probeSection([probe(rows, { task: 'asr', classes: [] })]);
    clean(section);
    assert.is(bestRow(rows, 'wer'), rows[1]);
    const document = parse(section);
    assert.match(document.querySelector('svg')!.textContent ?? '', 'word error rate (%), lower is better');
    assert.match(document.querySelector('svg title')!.textContent ?? '', 'MGF 40 %; log-mel 80 %');
    assert.equal([...document.querySelectorAll('td b')].map(words), ['40.0 %']);
    assert.is(probeSection([]), null);
  },
);

// -------------------------------------------------------------------------------------------------- ablation

test('an ablation shows every seed, means over seeds, and baselines as lines', () => {
  const score = (value: number) => ({ value, interval: [value - 0.05, value + 0.05] as const });
  const ablation: AblationResult = {
    preset: 'nano',
    adapter: 'an adapter',
    date: '2026-01-02',
    rows: [
      {
        name: 'all',
        seed: 1,
        steps: 1000,
        losses: { frame: 0.5, phoneme: 3 },
        scores: { phoneme: score(0.6), speaker: score(0.8) },
      },
      {
        name: 'all',
        seed: 2,
        steps: 1000,
        losses: { frame: 0.7, phoneme: 3 },
        scores: { phoneme: score(0.5), speaker: score(0.9) },
      },
      {
        name: 'without-phoneme',
        seed: 1,
        steps: 1000,
        losses: { frame: 0.4 },
        scores: { phoneme: score(0.3) },
      },
      { name: 'log-mel', seed: 1, steps: 0, losses: {}, scores: { phoneme: score(0.45) } },
    ],
  };
  const section = ablationSection(ablation);
  clean(section);
  const document = parse(section);
  const titles = [...document.querySelectorAll('svg title')].map((t) => t.textContent);
  assert.equal(titles, [
    'Phonemes by network: all 60 %, 50 %; without phoneme 30 %',
    'Speakers by network: all 80 %, 90 %',
  ]);
  assert.ok([...document.querySelectorAll('svg text')].some((t) => t.textContent === 'log-mel'));
  const [means, seeds] = document.querySelectorAll('table');
  const cells = (t: typeof means, row: number) =>
    [...t!.querySelectorAll('tbody tr')[row]!.querySelectorAll('td')].map(words);
  assert.equal(cells(means, 0), ['all', '2', '55.0 % 50.0 to 60.0 %', '85.0 % 80.0 to 90.0 %', '0.6', '3']);
  assert.equal(cells(means, 1), ['without phoneme', '1', '30.0 % 25.0 to 35.0 %', '', '0.4', '']);
  assert.equal(cells(seeds, 1), [
    'all',
    '2',
    '1,000',
    '50.0 % 45.0 to 55.0 %',
    '90.0 % 85.0 to 95.0 %',
    '0.7',
    '3',
  ]);
  assert.is(ablationSection(undefined), null);
});

// -------------------------------------------------------------------------------------------- maps of points

test('principal components of points on a tilted line and its normal are those directions, with their shares', () => {
  // Along (3, 4) / 5 at -2, -1, 0, 1, 2, and along (-4, 3) / 5 a little, balanced so that the two are
  // uncorrelated; the mean is far from 0.
  const along = [-2, -1, 0, 1, 2];
  const across = [0.1, -0.2, 0.2, -0.2, 0.1];
  const x = Float32Array.from(
    along.flatMap((a, i) => [0.6 * a - 0.8 * across[i]! + 100, 0.8 * a + 0.6 * across[i]! - 50, 7]),
  );
  const { points, shares } = principalComponents(x, 5, 3, 3);
  // The sign is that of the coordinate of largest size.
  const sign = Math.sign(points[12]!);
  along.forEach((a, i) => near(points[3 * i]!, sign * a, 2e-5));
  const second = Math.sign(points[3 * 1 + 1]! * across[1]!);
  across.forEach((a, i) => near(points[3 * i + 1]!, second * a, 2e-4));
  for (let i = 0; i < 5; i++) near(points[3 * i + 2]!, 0, 1e-4);
  near(shares[0]!, 10 / 10.14, 1e-5);
  near(
    shares.reduce((a, b) => a + b, 0),
    1,
    1e-5,
  );
  assert.equal([...principalComponents(new Float32Array(6).fill(3), 3, 2).points], [0, 0, 0, 0, 0, 0]);
  assert.throws(() => principalComponents(x, 4, 3), /4 rows of 3 need 12 numbers, got 15/);
});

test('t-SNE keeps three far groups apart and their members together, the same way every time', () => {
  const random = randomStream(3);
  const n = 36;
  const x = Float32Array.from(
    { length: n * 10 },
    (_, i) => (i % 10 === Math.floor(i / 10) % 3 ? 4 : 0) + 0.3 * (random.uniform() - 0.5),
  );
  const y = tsne(x, n, 10);
  const gap = (a: number, b: number): number =>
    Math.hypot(y[2 * a]! - y[2 * b]!, y[2 * a + 1]! - y[2 * b + 1]!);
  let within = 0;
  let between = Infinity;
  for (let a = 0; a < n; a++)
    for (let b = 0; b < a; b++)
      if (a % 3 === b % 3) within = Math.max(within, gap(a, b));
      else between = Math.min(between, gap(a, b));
  assert.ok(between > 1.5 * within, `${between} between, ${within} within`);
  assert.equal([...tsne(x, n, 10)], [...y]);
  assert.ok(tsne(new Float32Array(20), 10, 2).every(Number.isFinite), 'equal points');
});

test('names along an axis keep their order and a distance, near to where they want to be', () => {
  assert.equal(spread([10, 50], 12, 0, 100), [10, 50]);
  assert.equal(spread([50, 50, 50], 10, 0, 100), [40, 50, 60]);
  assert.equal(spread([96, 99, 20], 10, 0, 100), [90, 100, 20]);
  assert.equal(spread([], 10, 0, 100), []);
});

test('voices are drawn in groups of colour and shape with their names, beside equal error rates', () => {
  const labels = ['a', 'b', 'a', 'b', 'a', 'b'];
  const x = Float32Array.from([1, 0, 0, 1, 0.9, 0.1, 0.1, 0.9, 1, 0.2, 0.2, 1]);
  const section = voiceSection({
    labels,
    seconds: 3,
    features: [
      { name: 'MGF', x, dim: 2, drawn: true },
      { name: 'log-mel', x: x.map((v, i) => v * ((i >> 1) % 3)), dim: 2, drawn: false },
    ],
  });
  clean(section);
  const document = parse(section);
  assert.is(document.querySelectorAll('svg').length, 1);
  assert.is(document.querySelectorAll('svg [aria-label=dot] path, svg [aria-label=dot] circle').length, 6);
  const fills = new Set(
    [...document.querySelectorAll('svg [aria-label=dot]')].map((g) => g.getAttribute('fill')),
  );
  assert.equal([...fills], ['var(--v1)', 'var(--v2)']);
  assert.equal([...document.querySelectorAll('svg text')].map((t) => t.textContent).sort(), ['a', 'b']);
  assert.equal([...document.querySelectorAll('tbody tr')[0]!.querySelectorAll('td')].map(words).slice(0, 2), [
    'MGF',
    '0.0 %',
  ]);
  assert.is(voiceSection(undefined), null);
});

// ---------------------------------------------------------------------------------------------------- sounds

test('a WAV data URI decodes to its samples, clipped at full scale', () => {
  const wave = Float32Array.from([0, 0.5, -0.5, 1, -1, 3, NaN]);
  const uri = wavUri(wave, 16000);
  assert.match(uri, /^data:audio\/wav;base64,/);
  const bytes = Buffer.from(uri.split(',')[1]!, 'base64');
  assert.equal(
    [bytes.toString('latin1', 0, 4), bytes.toString('latin1', 8, 16), bytes.toString('latin1', 36, 40)],
    ['RIFF', 'WAVEfmt ', 'data'],
  );
  assert.equal(
    [
      bytes.readUInt32LE(4),
      bytes.readUInt16LE(20),
      bytes.readUInt16LE(22),
      bytes.readUInt32LE(24),
      bytes.readUInt16LE(34),
      bytes.readUInt32LE(40),
    ],
    [bytes.length - 8, 1, 1, 16000, 16, 14],
  );
  assert.equal(
    Array.from({ length: 7 }, (_, i) => bytes.readInt16LE(44 + 2 * i)),
    [0, 16384, -16383, 32767, -32767, 32767, 0],
  );
});

/** A second of a voice-like sound: harmonics of a gliding pitch under a moving formant. */
const voice = Float32Array.from({ length: 16000 }, (_, i) => {
  const t = i / 16000;
  const phase = 2 * Math.PI * (120 * t + 20 * Math.sin(3 * t));
  let sum = 0;
  for (let h = 1; h < 30; h++)
    sum += Math.exp(-(((h * 120 - 700 - 400 * Math.sin(5 * t)) / 500) ** 2)) * Math.sin(h * phase);
  return 0.2 * sum;
});

test(
  'log-mel on the host follows its definition: the power of a steady tone lies in the bin that it ' +
    'belongs to',
  () => {
    const tone = Float32Array.from({ length: 1600 }, (_, i) => Math.sin((2 * Math.PI * 1000 * i) / 16000));
    const { frames, values } = hostLogMel(tone, 80);
    assert.is(frames, 8);
    const first = [...values.subarray(0, 80)];
    const top = first.indexOf(Math.max(...first));
    const mel = 2595 * Math.log10(1 + 1000 / 700);
    const step = (2595 * Math.log10(1 + 8000 / 700)) / 81;
    assert.ok(Math.abs((top + 1) * step - mel) <= step, `bin ${top}`);
    // A bin of 40 Hz holds (400 / 4)^2 of the Hann window's spectrum; its filters see that and half of it on
    // either side.
    near(Math.log(100 ** 2), Math.max(...first), 1.2);
    assert.throws(() => hostLogMel(new Float32Array(399), 80), /needs 400 samples, got 399/);
  },
);

test(
  'a waveform with phases of its own has nearly the log-mel frames that it was made from, and ' +
    'normalising is undone',
  () => {
    const { frames, values } = hostLogMel(voice, 80);
    const sound = resynthesise(values, frames, 80);
    assert.is(sound.length, (frames - 1) * 160 + 400);
    const again = hostLogMel(sound, 80).values;
    const audible = values.map((v) => Math.max(v, -6));
    const mean = audible.reduce((a, b) => a + b, 0) / audible.length;
    const deviation = audible.reduce((sum, v) => sum + Math.abs(v - mean), 0) / audible.length;
    const apart =
      audible.reduce((sum, v, i) => sum + Math.abs(v - Math.max(again[i]!, -6)), 0) / audible.length;
    assert.ok(apart < 0.15 * deviation, `${apart} of ${deviation}`);
    const normalised = values.slice();
    for (let m = 0; m < 80; m++) {
      const own = Array.from({ length: frames }, (_, t) => values[80 * t + m]!);
      const mean = own.reduce((a, b) => a + b, 0) / frames;
      const deviation = Math.sqrt(own.reduce((a, b) => a + (b - mean) ** 2, 0) / frames);
      own.forEach((v, t) => {
        normalised[80 * t + m] = deviation > 0 ? (v - mean) / deviation : 0;
      });
    }
    denormalise(normalised, voice, 80).forEach((v, i) => near(v, values[i]!, 1e-4));
  },
);

const sounds = suite('recordings');
const { frames, values } = hostLogMel(voice, 80);
const whole = values.subarray(0, 80 * 98);
const wave = voice.subarray(0, 15840);
const base = {
  label: 'a.wav',
  sampleRate: 16000,
  frames: Math.min(98, frames),
  hopSeconds: 0.01,
  target: whole,
  wave,
};

sounds(
  'invented phases are said to be so; a decoded waveform is played as it is; without sound there is none',
  () => {
    const mel = parse(recordingSection([{ ...base, reconstruction: whole }], true));
    const conv = parse(
      recordingSection([{ ...base, reconstruction: whole, waveReconstruction: wave }], true),
    );
    assert.equal([...mel.querySelectorAll('.sound span')].map(words), [
      'recording',
      'its spectrogram, phases invented',
      'reconstruction, phases invented',
    ]);
    assert.match(words(mel.querySelector('p')!), 'invented by the Griffin-Lim algorithm');
    assert.equal([...conv.querySelectorAll('.sound span')].map(words), ['recording', 'decoded waveform']);
    assert.match(conv.body.textContent ?? '', 'the loudest 40 ms');
    assert.is(
      parse(recordingSection([{ ...base, reconstruction: whole }], false)).querySelectorAll('audio').length,
      0,
    );
    assert.is(recordingSection([base], true), null);
    const only = recordingSection([{ ...base, waveReconstruction: wave }], true);
    clean(only);
    assert.match(only!.body, 'the frame scale predicts none');
  },
);
sounds.run();

// --------------------------------------------------------------------------------------------- health, style

test('health shows ranks as shares of the widths, skipped updates and alarms', () => {
  const point = {
    step: 1,
    total: 1,
    sample: NaN,
    frame: 1,
    phoneme: 1,
    sentence: 1,
    accuracy: 0.1,
    gradNorm: 1,
    lr: 1e-3,
    audioSecondsPerSecond: 3,
  };
  const data = (health: object) =>
    ({
      curve: [point],
      rivals: { frame: 2 },
      warmupSteps: 0,
      objectives: MGF_DEFAULTS.objectives,
      health: { ranks: [], zWidth: 16, contextWidth: 32, alarms: [], ...health },
    }) as unknown as Parameters<typeof healthSection>[0];
  const well = healthSection(
    data({
      ranks: [
        { step: 100, z: 8, context: 8 },
        { step: 200, z: 4, context: 16 },
      ],
      skippedSteps: 0,
    }),
  );
  clean(well);
  assert.match(
    parse(well).querySelector('svg title')!.textContent ?? '',
    'z 50 at step 100, 25 at step 200; context 25 at step 100, 50 at step 200; alarm under 10 %',
  );
  assert.match(well!.body, 'No alarm was raised.');
  const ill = parse(healthSection(data({ skippedSteps: 3, alarms: [{ step: 7, message: 'It leaks.' }] })));
  assert.equal([...ill.querySelectorAll('td')].map(words), ['7', 'It leaks.']);
  assert.match(ill.body.textContent ?? '', '3 updates were left out');
});

test('every colour variable that is used has a value in light and in dark', () => {
  const [light = '', dark = ''] = STYLE.split('prefers-color-scheme: dark');
  const names = (text: string) => new Set([...text.matchAll(/(--[a-z]+-?[a-z]*\d?):/g)].map((m) => m[1]!));
  const darkNames = names(dark.slice(0, dark.indexOf('@media print')));
  for (const name of names(light)) assert.ok(darkNames.has(name), name);
  for (const [, used] of STYLE.matchAll(/var\((--[\w-]+)\)/g)) assert.ok(names(light).has(used!), used);
});

test('cells of a table are printed exactly as given, numbers to the right', () => {
  const { document } = parseHTML(
    `<html><body>${table(
      ['a', 'b', 'c'],
      [
        ['x', 0.123456789, '1.50'],
        ['<y>', 2, ''],
      ],
      'what',
    )}</body></html>`,
  );
  assert.equal(
    [...document.querySelectorAll('td')].map((td) => td.textContent),
    ['x', '0.123456789', '1.50', '<y>', '2', ''],
  );
  assert.equal(
    [...document.querySelectorAll('th')].map((th) => th.classList.contains('n')),
    [false, true, true],
  );
});

test.run();
