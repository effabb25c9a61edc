import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  align,
  bestPath,
  phoneNetwork,
  quietFrames,
  shortestPath,
  type PhoneState,
} from '../src/tasks/features/align.ts';
import { readTask } from '../src/tasks/data/labelled.ts';
import { SharedGaussians } from '../src/tasks/features/gaussians.ts';
import { englishLexicon, readLexicon } from '../src/tasks/data/lexicon.ts';
import { messageOf } from './audio-wav.ts';
import { testAdapter } from './gpu.ts';
import { generator } from './harness.ts';
import { makeData, phonesOf, type Row } from './tones.ts';

const folder = mkdtempSync(join(tmpdir(), 'mgf-align-'));
const at = (name: string): string => join(folder, name);
const mgfFile = fileURLToPath(new URL('../mgf.js', import.meta.url));
const adapter = testAdapter() ? ['--adapter', testAdapter()!] : [];
test.after(() => rmSync(folder, { recursive: true, force: true }));

test('a dictionary loses stress marks and remarks; words may have several pronunciations', async () => {
  writeFileSync(
    at('words.dict'),
    ';;; made up\nread  R EH1 D\nread(2) R IY1 D # now\nRead(3) R EH0 D\n\nOhio\tOW0 HH AY1 OW0\n',
  );
  const lexicon = await readLexicon(at('words.dict'));
  assert.equal(
    [...lexicon],
    [
      [
        'READ',
        [
          ['R', 'EH', 'D'],
          ['R', 'IY', 'D'],
        ],
      ],
      ['OHIO', [['OW', 'HH', 'AY', 'OW']]],
    ],
  );
  writeFileSync(at('bad.dict'), 'word W ER D\nlonely\n');
  assert.match(
    await messageOf(() => readLexicon(at('bad.dict')), 'data'),
    /Line 2 of .*bad\.dict" is no pronunciation/,
  );
  assert.match(await messageOf(() => readLexicon(at('none.dict')), 'io'), /There is no dictionary/);
});

test('the English dictionary has 39 phones', async () => {
  const lexicon = await englishLexicon();
  assert.equal(lexicon.get('SPEECH'), [['S', 'P', 'IY', 'CH']]);
  assert.ok(lexicon.get('READ')!.length === 2 && lexicon.size > 120_000);
  assert.is(new Set([...lexicon.values()].flat(2)).size, 39);
});

const index = new Map([
  ['SIL', 0],
  ['A', 1],
  ['B', 2],
]);
const lexicon = new Map([
  ['ONE', [['A'], ['B', 'A']]],
  ['TWO', [['B']]],
]);

/** Every path through a network of exactly so many frames that keeps the limits, by trying all. */
function allPaths(states: readonly PhoneState[], frames: number): number[][] {
  const after = states.map((_, s) => states.flatMap(({ before }, n) => (before.includes(s) ? [n] : [])));
  const found: number[][] = [];
  const visit = (s: number, path: number[]): void => {
    for (
      let stay = states[s]!.word < 0 ? 4 : 1;
      stay <= Math.min(frames - path.length, states[s]!.word < 0 ? Infinity : 25);
      stay++
    ) {
      const longer = [...path, ...new Array<number>(stay).fill(s)];
      if (longer.length === frames && states[s]!.last) found.push(longer);
      for (const next of after[s]!) visit(next, longer);
    }
  };
  states.forEach(({ first }, s) => {
    if (first) visit(s, []);
  });
  return found;
}

test('the best path is the best of all', () => {
  const next = generator(3);
  for (const [words, frames] of [
    [['ONE', 'TWO'], 9],
    [['TWO'], 11],
    [['ONE'], 7],
    [['TWO', 'TWO', 'ONE'], 8],
    [[], 6],
  ] as const) {
    const states = phoneNetwork(words, lexicon, index);
    const paths = allPaths(states, frames);
    for (let trial = 0; trial < 10; trial++) {
      const scores = Float32Array.from({ length: frames * 3 }, () => 4 * next() - 2);
      const scoreOf = (path: ArrayLike<number>): number =>
        Array.from(path).reduce((sum, s, t) => sum + scores[3 * t + states[s]!.phone]!, 0);
      const found = bestPath(states, scores, frames)!;
      const best = Math.max(...paths.map(scoreOf));
      assert.ok(
        Math.abs(scoreOf(found) - best) < 1e-6,
        `${words.join(' ')}: ${scoreOf(found)} is not ${best}`,
      );
      assert.ok(
        paths.some((path) => path.join() === Array.from(found).join()),
        'a path that may be',
      );
    }
  }
});

test(
  'the shortest path is the fewest frames that hold the words; a phone lasts half a second at most, a ' +
    'pause as long as it likes',
  () => {
    for (const [words, shortest] of [
      [['ONE', 'TWO'], 2],
      [['TWO', 'TWO', 'ONE'], 3],
      [[], 4],
    ] as const) {
      const states = phoneNetwork(words, lexicon, index);
      assert.is(shortestPath(states), shortest);
      assert.is(bestPath(states, new Float32Array(3 * (shortest - 1)), shortest - 1), undefined);
      assert.ok(bestPath(states, new Float32Array(3 * shortest), shortest));
    }
    // B fits best everywhere, and yet the pause gets what B may not have.
    const states = phoneNetwork(['TWO'], lexicon, index);
    const path = bestPath(
      states,
      Float32Array.from({ length: 300 }, (_, i) => Number(i % 3 === 2)),
      100,
    )!;
    assert.is(path.filter((s) => states[s]!.phone === 2).length, 25);
  },
);

test('quiet frames are pauses where levels differ enough and the quiet lasts', () => {
  const levels = Float32Array.from([
    ...new Array<number>(8).fill(-60),
    ...new Array<number>(10).fill(-20),
    -60,
    -60,
    ...new Array<number>(10).fill(-22),
    ...new Array<number>(6).fill(-58),
  ]);
  assert.equal(
    [...quietFrames(levels)],
    Array.from(levels, (_, t) => Number(t < 8 || t >= 30)),
  );
  assert.is(
    quietFrames(levels.map((level) => level / 10)).reduce((a, b) => a + b),
    0,
    'a range of 4 dB tells nothing',
  );
});

test('Gaussians give the log-likelihoods of their definition, but for what classes share', () => {
  const next = generator(7);
  const rows = 300;
  const labels = Int32Array.from({ length: rows }, (_, r) => (r % 5 === 4 ? -1 : r % 2));
  const groups = Int32Array.from({ length: rows }, (_, r) => Number(r >= 200));
  // Two columns that depend on each other; one class lies apart from the other, and the second group from the
  // first.
  const points = Array.from({ length: rows }, (_, r): [number, number] => {
    const x = next() + (labels[r] === 1 ? 1 : 0);
    return [x + 9 * groups[r]!, 0.5 * x + next()];
  });
  const model = new SharedGaussians({ data: Float32Array.from(points.flat()), width: 2 }, groups, 3);
  model.fit(labels);
  const meanOf = (some: readonly (readonly number[])[]): number[] =>
    [0, 1].map((d) => some.reduce((sum, x) => sum + x[d]!, 0) / some.length);
  const origin = [0, 1].map((g) => meanOf(points.filter((_, r) => groups[r] === g)));
  const centred = points.map((x, r) => x.map((v, d) => v - origin[groups[r]!]![d]!));
  const classes = [0, 1].map((k) => centred.filter((_, r) => labels[r] === k));
  const means = classes.map(meanOf);
  const labelled = classes[0]!.length + classes[1]!.length;
  const total = (i: number, j: number): number => centred.reduce((sum, x) => sum + x[i]! * x[j]!, 0) / rows;
  const ridge = (1e-3 * (total(0, 0) + total(1, 1))) / 2;
  const within = (i: number, j: number): number =>
    total(i, j) -
    means.reduce((sum, m, k) => sum + (classes[k]!.length / labelled) * m[i]! * m[j]!, 0) +
    (i === j ? ridge : 0);
  const [a, b, c] = [within(0, 0), within(0, 1), within(1, 1)];
  const distance = ([x, y]: readonly number[], [u, v]: readonly number[]): number =>
    (c * (x! - u!) ** 2 - 2 * b * (x! - u!) * (y! - v!) + a * (y! - v!) ** 2) / (a * c - b * b);
  const scores = model.scores(190, 20);
  for (let r = 0; r < 20; r++) {
    const expected = 0.5 * (distance(centred[190 + r]!, means[0]!) - distance(centred[190 + r]!, means[1]!));
    assert.ok(
      Math.abs(scores[3 * r + 1]! - scores[3 * r]! - expected) < 1e-3,
      `row ${190 + r}: ${scores[3 * r + 1]! - scores[3 * r]!} is not ${expected}`,
    );
    assert.is(scores[3 * r + 2], -Infinity, 'a class without rows fits nowhere');
  }
});

test('what phones are like is learned from transcripts alone, where their lengths differ', () => {
  const next = generator(11);
  const letters = ['A', 'B', 'C', 'D'];
  const phones = ['SIL', ...letters];
  const words = new Map(letters.map((letter) => [letter, [[letter]]]));
  const data: number[] = [];
  const truth: number[] = [];
  const recordings = Array.from({ length: 60 }, (_, i) => {
    const said = Array.from({ length: 6 }, () => letters[Math.floor(4 * next())]!);
    const first = truth.length;
    for (const letter of said)
      for (let t = 2 + Math.floor(12 * next()); t > 0; t--) {
        truth.push(phones.indexOf(letter));
        letters.forEach((other) =>
          data.push(Number(other === letter) + 2.5 * (next() - 0.5) + 0.3 * (i % 3)),
        );
      }
    const frames = truth.length - first;
    return { words: said, voice: String(i % 3), first, frames, levels: new Float32Array(frames) };
  });
  const right = (rounds: number): number =>
    align(recordings, { data: Float32Array.from(data), width: 4 }, phones, words, { rounds }).reduce(
      (sum, { phones: found }, i) =>
        sum +
        found.reduce(
          (n, { start, end, phone }) =>
            n +
            truth
              .slice(recordings[i]!.first + start, recordings[i]!.first + end)
              .filter((label) => label === phone).length,
          0,
        ),
      0,
    ) / truth.length;
  // What equal shares alone get right: the flat start.
  let flat = 0;
  for (const { words: said, first, frames } of recordings) {
    for (let t = 0; t < frames; t++)
      flat += Number(truth[first + t] === phones.indexOf(said[Math.floor((6 * t) / frames)]!));
  }
  const start = flat / truth.length;
  const once = right(1);
  const settled = right(20);
  const told = `${start}, ${once}, ${settled}`;
  assert.ok(
    start < 0.8 && once > start && settled > once && settled > 0.9,
    `flat start, one round, settled: ${told}`,
  );
});

const NAMES: Readonly<Record<string, string>> = { A: 'ay', B: 'bee', C: 'sea' };
const rowsOf = (word: string, i: number): Row => ({
  name: `clip${i}`,
  word,
  columns: {
    text: [...word].map((letter) => NAMES[letter]!).join(' '),
    speaker: `s${i < 8 ? i % 2 : 2}`,
    split: i < 8 ? 'train' : 'test',
  },
});

test('mgf align finds tones by nothing but their names, and writes what the phoneme task reads', async () => {
  const words = ['ABC', 'CAB', 'BACA', 'CCB', 'ABA', 'BCAB', 'ACB', 'BB', 'CBA', 'CABC'];
  const rows = words.map(rowsOf);
  const list = makeData(at('tones'), [
    ...rows,
    { name: 'unknown', word: 'A', columns: { text: 'ay dee', split: 'train' } },
    { name: 'silent', word: 'B', columns: { split: 'train' } },
    { name: 'long', word: 'A', columns: { text: 'ay '.repeat(80), split: 'train' } },
  ]);
  writeFileSync(at('letters.dict'), 'AY A\nBEE B\nSEA C\n');
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      mgfFile,
      'align',
      list,
      '--out',
      at('aligned'),
      '--dictionary',
      at('letters.dict'),
      '--json',
      ...adapter,
    ],
    { encoding: 'utf8' },
  );
  assert.is(status, 0, stderr);
  const told = JSON.parse(stdout) as {
    recordings: number;
    skipped: { path: string; reason: string }[];
    phones: string[];
    agreement: number;
  };
  assert.equal([told.recordings, told.phones], [10, ['SIL', 'A', 'B', 'C']]);
  assert.equal(
    told.skipped.map(({ reason }) => reason.replace(/.*has/, 'has')),
    ['not in the dictionary: DEE', 'no transcript', 'has 17 frames of 20 ms for 80 phones.'],
  );

  // Tones fade in and out, so that their ends are not heard.
  let right = 0;
  let all = 0;
  const lines = readFileSync(at('aligned/alignments.tsv'), 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split('\t'));
  words.forEach((word, i) => {
    const mine = lines.filter(([file]) => file!.endsWith(`clip${i}.wav`));
    const truth = phonesOf(word);
    assert.is(
      mine
        .map(([, , , phone]) => phone)
        .filter((phone) => phone !== 'SIL')
        .join(''),
      word,
    );
    mine.forEach(([, start], j) => assert.is(start, j === 0 ? '0' : mine[j - 1]![2], 'no gaps'));
    assert.is(Number(mine.at(-1)![2]), truth.at(-1)![1]);
    for (let sample = 160; sample < truth.at(-1)![1]; sample += 320, all++) {
      const of = (spans: readonly (readonly [number, number, string])[]): string | undefined =>
        spans.find(([start, end]) => start <= sample && sample < end)?.[2];
      right += Number(
        of(truth) === of(mine.map(([, start, end, phone]) => [Number(start), Number(end), phone!] as const)),
      );
    }
  });
  assert.ok(right / all > 0.7, `${right} of ${all} frames are right`);

  const data = await readTask('phoneme', at('aligned/utterances.tsv'), {});
  assert.is(data.items.length, 10);
  assert.equal([...data.classes].sort(), ['A', 'B', 'C', 'SIL']);
});

test('mgf align says what is wrong', () => {
  const list = makeData(at('wrong'), [rowsOf('AB', 0)]);
  const align = (...args: string[]): { status: number | null; stderr: string } =>
    spawnSync(process.execPath, [mgfFile, 'align', ...args, ...adapter], { encoding: 'utf8' });
  writeFileSync(at('few.dict'), 'AY A\n');
  const none = align(list, '--out', at('nothing'), '--dictionary', at('few.dict'));
  assert.is(none.status, 1);
  assert.match(none.stderr, /Of 1 recording of .* none can be aligned: .*not in the dictionary: BEE/);
  assert.not.ok(existsSync(at('nothing')));
  assert.is(align(list).status, 2, 'no folder named');
});

test.run();
