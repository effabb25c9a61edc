import { inflateSync } from 'node:zlib';
import { parseHTML } from 'linkedom';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/random/stream.ts';
import type { MGFError } from '../src/errors.ts';
import { MGF_DEFAULTS } from '../src/mgf/config.ts';
import { palette } from '../src/report/palette.ts';
import { matrixImage } from '../src/report/png.ts';
import { linearProbe } from '../src/report/probe.ts';
import type { ProbeSet } from '../src/report/probe.ts';
import { renderReport } from '../src/report/report.ts';
import type { CurvePoint, ReportData } from '../src/report/report.ts';
import { groupByLabel, pairMeans, reorder } from '../src/report/similarity.ts';
import {
  centre,
  cosineMatrix,
  equalErrorRate,
  estimateEqualErrorRate,
} from '../src/tasks/features/similarity.ts';

const HOSTILE = '"><script>alert(1)</script>&\'\u0001';

function gaussian(seed: number): () => number {
  const random = randomStream(seed);
  return () => Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}

function curve(steps: number): CurvePoint[] {
  return Array.from({ length: steps }, (_, i) => ({
    step: i + 1,
    total: 6 - i / steps,
    sample: 0.5,
    frame: 0.8 - 0.1 * (i / steps),
    phoneme: 4.6 - i / steps,
    sentence: 2.7 - i / steps,
    accuracy: 0.1 * (i / steps),
    gradNorm: 2,
    lr: 1e-3,
    audioSecondsPerSecond: 20,
  }));
}

function report(changes: Partial<ReportData> = {}): ReportData {
  const frames = 40;
  const mel = Float32Array.from({ length: frames * 80 }, (_, i) => Math.sin(i / 50));
  const wave = Float32Array.from({ length: 6400 }, (_, i) => Math.sin(i / 8));
  return {
    title: 'A run',
    health: { ranks: [], zWidth: 16, contextWidth: 32, skippedSteps: 0, alarms: [] },
    probes: [],
    audio: true,
    facts: [],
    configuration: [],
    objectives: MGF_DEFAULTS.objectives,
    licences: ['speech: CC BY 4.0'],
    next: ['Then:', 'mgf info'],
    run: {
      command: 'mgf pretrain x',
      preset: 'nano',
      parameters: 123456,
      steps: 50,
      audioSeconds: 600,
      seconds: 60,
      adapter: 'an adapter',
      date: 'today',
    },
    curve: curve(50),
    rivals: { sample: 0.69, frame: 0.8, phoneme: 4.615, sentence: 2.708, accuracy: 1 / 101 },
    warmupSteps: 4,
    recordings: [
      {
        target: mel,
        reconstruction: mel.map((v) => v / 2),
        frames,
        hopSeconds: 0.01,
        label: 'a.wav',
        wave,
        waveReconstruction: wave.map((v) => v / 2),
        sampleRate: 16000,
      },
    ],
    similarity: {
      labels: ['a', 'b', 'a', 'b'],
      values: cosineMatrix(Float32Array.from([1, 0, 0, 1, 1, 0.1, 0.1, 1]), 4, 2),
    },
    table: {
      title: 'Table',
      columns: ['Features', 'Accuracy'],
      rows: [
        ['MGF', 0.123456789],
        ['log-mel', '0.50'],
      ],
      caption: 'c',
    },
    ...changes,
  };
}

const parse = (html: string) => parseHTML(html).document;

test('a report holds every figure, the table as given and needs nothing from outside', () => {
  const html = renderReport(report());
  const document = parse(html);
  assert.is(document.querySelectorAll('script').length, 0);
  assert.is(document.querySelectorAll('link').length, 0);
  for (const element of document.querySelectorAll('[src], [href]')) {
    assert.match(
      element.getAttribute('src') ?? element.getAttribute('href') ?? '',
      /^(data:(image\/png|audio\/wav);base64,|#)/,
    );
  }
  for (const link of document.querySelectorAll('nav a'))
    assert.ok(document.querySelector(link.getAttribute('href')!), link.textContent ?? '');
  const titles = [...document.querySelectorAll('figure h3')].map((h) => h.textContent);
  for (const title of [
    'Sample loss',
    'Frame loss',
    'Phoneme loss',
    'Sentence loss',
    'Phoneme accuracy',
    'Gradient norm',
    'Recording',
    'Reconstruction',
  ]) {
    assert.ok(titles.includes(title), title);
  }
  assert.equal(
    [...document.querySelectorAll('td')].map((td) => td.textContent),
    ['MGF', '0.123456789', 'log-mel', '0.50'],
  );
  assert.is(document.querySelectorAll('audio').length, 2);
  assert.not.match(html.replace(/base64,[^"]*/g, ''), /NaN|undefined|\[object/);
});

test(
  'each loss curve has the line of its rival, by its name, and accuracy the chance that follows from the ' +
    'contrastive loss',
  () => {
    const document = parse(renderReport(report()));
    const text = (title: string): string =>
      [...document.querySelectorAll('figure')]
        .find((f) => f.querySelector('h3')?.textContent === title)
        ?.querySelector('svg')?.textContent ?? '';
    assert.match(text('Sample loss'), 'median predictor 0.69');
    assert.match(text('Frame loss'), 'median predictor 0.8');
    assert.match(text('Phoneme loss'), 'chance 4.62');
    assert.match(text('Sentence loss'), 'chance 2.71');
    assert.match(text('Phoneme accuracy'), 'chance 0.99 %');
    assert.not.match(text('Gradient norm'), 'chance');
  },
);

test(
  'a loss above its rival after the warm-up is told at the top and under health, also without an alarm ' +
    'in the log',
  () => {
    const above = report({ curve: curve(50).map((p) => ({ ...p, sample: 0.6901 })) });
    const document = parse(renderReport(above));
    const sentence =
      /The sample loss, 0\.6901 over the last 5 logged steps, is above 0\.6900, what the median predictor scores/;
    assert.match(document.querySelector('header .alarms')!.textContent, sentence);
    assert.match(document.querySelector('#health')!.textContent, sentence);
    assert.not.match(document.querySelector('#health')!.textContent, 'No alarm was raised');
    assert.match(document.querySelector('.tile')!.textContent, /0\.6901.*median predictor 0\.6900/);
    const told = {
      ...above.health,
      alarms: [{ step: 30, kind: 'sample-above-rival', message: 'It is above.' }],
    };
    assert.not.match(
      parse(renderReport({ ...above, health: told })).querySelector('header')!.textContent,
      sentence,
      'once is enough',
    );
    assert.match(renderReport({ ...above, warmupSteps: 100 }), 'No alarm was raised');
    assert.match(renderReport(report()), 'No alarm was raised');
  },
);

test('a run that stored no rival of its L1 losses gets no line for them, and the report says so', () => {
  const document = parse(
    renderReport(report({ rivals: { phoneme: 4.615, sentence: 2.708, accuracy: 1 / 101 } })),
  );
  const lines = [...document.querySelectorAll('#training svg')].map((svg) => svg.textContent).join(' ');
  assert.not.match(lines, 'median predictor');
  assert.match(lines, 'chance 4.62');
  for (const part of ['header', '#training', '#health']) {
    assert.match(
      document.querySelector(part)!.textContent,
      'has stored no median predictor for its sample and frame losses',
    );
  }
});

test('text from file names, labels and commands is shown, never run', () => {
  const data = report({ title: HOSTILE, licences: [HOSTILE], next: [HOSTILE, `mgf ${HOSTILE}`] });
  data.health = { ...data.health, alarms: [{ step: 1, message: HOSTILE }] };
  data.facts = [{ name: HOSTILE, value: HOSTILE }];
  data.configuration = [{ title: HOSTILE, fields: [{ name: HOSTILE, value: HOSTILE }] }];
  data.run = { ...data.run, command: HOSTILE, preset: HOSTILE, adapter: HOSTILE, date: HOSTILE };
  data.recordings[0]!.label = HOSTILE;
  data.similarity = {
    labels: [HOSTILE, HOSTILE, 'b', 'b'],
    values: data.similarity!.values,
    before: { name: HOSTILE, values: data.similarity!.values },
  };
  data.table = { title: HOSTILE, columns: [HOSTILE, '<b>'], rows: [[HOSTILE, 1]], caption: HOSTILE };
  const html = renderReport(data);
  assert.not.match(html, '<script');
  assert.not.match(html, '<b>"');
  assert.not.match(html, '\u0001');
  assert.is(parse(html).querySelector('h1')?.textContent, HOSTILE.replace('\u0001', '\ufffd'));
});

test('a loss that is switched off, one step, no step and a diverged run all make a report', () => {
  const off = renderReport(
    report({
      curve: curve(50).map((p) => ({ ...p, sentence: NaN })),
      rivals: { sample: 0.69, frame: 0.8, phoneme: 4.6, accuracy: 0.01 },
    }),
  );
  assert.not.match(off, 'Sentence loss');
  assert.match(off, 'Phoneme loss');
  for (const points of [
    curve(1),
    [],
    curve(30).map((p, i) => (i < 20 ? p : { ...p, total: NaN, phoneme: Infinity, gradNorm: NaN })),
  ]) {
    assert.not.match(renderReport(report({ curve: points })).replace(/base64,[^"]*/g, ''), /NaN|Infinity/);
  }
});

test('a run of 100,000 steps stays a small page', () => {
  assert.ok(renderReport(report({ curve: curve(100_000) })).length < 600_000);
});

test('spectrograms of another size than their frames are refused', () => {
  const data = report();
  data.recordings[0]!.reconstruction = new Float32Array(80);
  assert.throws(
    () => renderReport(data),
    (error: MGFError) => error.code === 'shape' && /3200 and 80/.test(error.message),
  );
});

test('an image decodes to the palette entries of its values, clamped, and not-a-number is dark', () => {
  const png = Buffer.from(
    matrixImage(Float32Array.from([0, 0.5, 1, 2, -1, NaN]), 3, 2, 0, 1, 'magma').split(',')[1]!,
    'base64',
  );
  assert.is(png.toString('latin1', 1, 4), 'PNG');
  assert.is(png.readUInt32BE(16), 3);
  assert.is(png.readUInt32BE(20), 2);
  const at = png.indexOf('IDAT');
  assert.equal(
    [...inflateSync(png.subarray(at + 4, at + 4 + png.readUInt32BE(at - 4)))],
    [0, 0, 128, 255, 0, 255, 0, 0],
  );
  // The checksum of the empty IEND chunk is a published constant.
  assert.is(png.readUInt32BE(png.length - 4), 0xae426082);
  const colours = palette('magma');
  assert.equal([...colours.subarray(0, 3)], [0, 0, 4]);
  assert.equal([...colours.subarray(765)], [252, 253, 191]);
});

test('cosine similarity is 1 with itself, 0 at a right angle, -1 opposite, and 0 for a row of zeros', () => {
  const matrix = cosineMatrix(Float32Array.from([1, 0, 0, 3, -2, 0, 0, 0]), 4, 2);
  assert.equal([...matrix], [1, 0, -1, 0, 0, 1, 0, 0, -1, 0, 1, 0, 0, 0, 0, 1]);
  assert.equal([...centre(Float32Array.from([1, 2, 3, 6]), 2, 2)], [-1, -2, 1, 2]);
  assert.throws(() => cosineMatrix(new Float32Array(3), 2, 2), /4 numbers, got 3/);
});

test('clips are grouped by voice, and similarities follow them', () => {
  const { order, groups } = groupByLabel(['b', 'a', 'b']);
  assert.equal(order, [0, 2, 1]);
  assert.equal(groups, [
    { label: 'b', start: 0, end: 2 },
    { label: 'a', start: 2, end: 3 },
  ]);
  assert.equal(
    [...reorder(Float32Array.from([0, 1, 2, 3, 4, 5, 6, 7, 8]), order)],
    [0, 2, 1, 6, 8, 7, 3, 5, 4],
  );
  const means = pairMeans(Float32Array.from([1, 0.25, 0.5, 0.25, 1, 0.75, 0.5, 0.75, 1]), ['b', 'a', 'b']);
  assert.equal(means, { same: 0.5, different: 0.5 });
});

test(
  'the equal error rate is 0 when voices are apart, 1 when they are swapped, a half by chance and a ' +
    'third where one pair in three is wrong',
  () => {
    const rate = (same: number[], different: number[]): number | null => {
      // Clips 0..k share a voice; the pair scores are laid out so that exactly the given scores appear.
      const labels = same.flatMap((_, i) => [`v${i}`, `v${i}`]);
      const n = labels.length;
      const values = new Float32Array(n * n);
      let d = 0;
      for (let a = 0; a < n; a++)
        for (let b = 0; b < a; b++)
          values[a * n + b] = labels[a] === labels[b] ? same[a >> 1]! : different[d++ % different.length]!;
      return equalErrorRate(values, labels);
    };
    assert.is(rate([0.9, 0.8, 0.7], [0.1, 0.2, 0.3]), 0);
    assert.is(rate([0.1, 0.1, 0.1], [0.9]), 1);
    assert.is(rate([0.5, 0.5], [0.5]), 0.5);
    assert.ok(Math.abs(rate([0.9, 0.8, 0.2], [0.1, 0.15, 0.85])! - 1 / 3) < 1e-9);
    assert.is(rate([NaN, 0.5], [0.1]), null);
    assert.is(equalErrorRate(new Float32Array(1), ['a']), null);
  },
);

test('the interval of an equal error rate comes from drawing voices, not pairs', () => {
  // Six voices of three clips each; those of the last two are alike, all others apart.
  const labels = Array.from({ length: 18 }, (_, i) => `v${Math.floor(i / 3)}`);
  const direction = (label: string): number => Math.min(Number(label.slice(1)), 4);
  const x = Float32Array.from(
    labels.flatMap((label) => Array.from({ length: 5 }, (_, d) => Number(d === direction(label)))),
  );
  const values = cosineMatrix(x, 18, 5);
  const { value, interval } = estimateEqualErrorRate(values, labels, 1);
  assert.is(value, equalErrorRate(values, labels));
  assert.ok(interval[0] === 0, 'a draw without one of the two alike is told apart without error');
  assert.ok(interval[1] > value && interval[1] < 0.5, `${interval[1]}`);
  assert.equal(
    estimateEqualErrorRate(values, labels, 1).interval,
    interval,
    'the same seed, the same interval',
  );
});

/** Rows whose first three features lean towards their class, among features that say nothing. */
function clusters(n: number, dim: number, lean: number, seed: number): ProbeSet {
  const random = gaussian(seed);
  const y = Int32Array.from({ length: n }, (_, i) => i % 3);
  const x = Float32Array.from(
    { length: n * dim },
    (_, i) => 100 * (i % dim) + 5 * (random() + (i % dim === y[Math.floor(i / dim)] ? lean : 0)),
  );
  return { x, y };
}

test('the linear probe separates what is linearly separable, with every class found', () => {
  const result = linearProbe({ train: clusters(150, 20, 5, 1), test: clusters(90, 20, 5, 2), classes: 3 });
  assert.ok(result.accuracy > 0.95, `${result.accuracy}`);
  assert.ok(result.recall.every((recall) => recall > 0.9));
  assert.ok(result.interval[0] <= result.accuracy && result.accuracy <= result.interval[1]);
});

test('the linear probe on shuffled labels is at chance, within its interval', () => {
  const shuffle = (set: ProbeSet, seed: number): ProbeSet => {
    const random = randomStream(seed);
    return { x: set.x, y: set.y.map(() => random.below(3)) };
  };
  const result = linearProbe({
    train: shuffle(clusters(240, 20, 5, 3), 1),
    test: shuffle(clusters(240, 20, 5, 4), 2),
    classes: 3,
  });
  assert.ok(
    result.interval[0] < 1 / 3 && 1 / 3 < result.interval[1],
    `${result.accuracy} in ${result.interval}`,
  );
});

test('the linear probe picks a strong penalty where features outnumber the rows and mostly mislead', () => {
  const options = { train: clusters(45, 120, 1.2, 5), test: clusters(300, 120, 1.2, 6), classes: 3 };
  const chosen = linearProbe(options);
  assert.ok(chosen.l2 >= 0.1, `${chosen.l2}`);
  assert.ok(chosen.accuracy >= linearProbe({ ...options, l2grid: [1e-4] }).accuracy - 0.02);
});

test('the linear probe puts the boundary half-way between two symmetric classes', () => {
  const [x, y] = [Float32Array.from([9, 11, 9, 11]), Int32Array.from([0, 1, 0, 1])];
  const test = { x: Float32Array.from([9.999, 10.001]), y: Int32Array.from([0, 1]) };
  assert.equal([...linearProbe({ train: { x, y }, test, classes: 2, l2grid: [0.5] }).predictions], [0, 1]);
});

test(
  'the linear probe gives the same answer for the same seed and refuses labels, sizes and features that ' +
    'do not fit',
  () => {
    const train = clusters(60, 4, 1, 7);
    const run = (): unknown => linearProbe({ train, test: clusters(60, 4, 1, 8), classes: 3, seed: 5 });
    assert.equal(run(), run());
    assert.throws(() => linearProbe({ train, test: train, classes: 2 }), /got the label 2/);
    assert.throws(
      () => linearProbe({ train: { x: train.x.subarray(1), y: train.y }, test: train, classes: 3 }),
      /do not fit/,
    );
    assert.throws(
      () => linearProbe({ train: { x: train.x.map(() => NaN), y: train.y }, test: train, classes: 3 }),
      /not a finite number/,
    );
  },
);

test('a feature that never varies does not disturb the linear probe', () => {
  const [train, held] = [clusters(90, 6, 4, 9), clusters(60, 6, 4, 10)];
  const flat = (set: ProbeSet): ProbeSet => ({ x: set.x.map((v, i) => (i % 6 === 5 ? 7 : v)), y: set.y });
  assert.ok(linearProbe({ train: flat(train), test: flat(held), classes: 3 }).accuracy > 0.9);
});

test.run();
