import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  frameLabels,
  normaliseTranscript,
  partsOf,
  readTask,
  sharedSpeakers,
} from '../src/tasks/data/labelled.ts';
import { TASKS, type Split, type TaskData, type TaskItem } from '../src/tasks/task.ts';
import { failsWith } from './harness.ts';
import { Corpus } from './tasks-corpus.ts';

const corpus = new Corpus();
test.after(() => rmSync(corpus.folder, { recursive: true, force: true }));

/** The bundled tests lie two folders below the project. */
const SHARED = fileURLToPath(new URL('../../../shared/data', import.meta.url));
const shared = existsSync(SHARED);
if (!shared) console.log('skip the counts of a large labelled set: there is no ../shared/data');

const inSplit = (data: TaskData, split: Split): TaskItem[] =>
  data.items.filter((item) => item.split === split);
const speakers = (data: TaskData, split: Split): Set<string> =>
  new Set(inSplit(data, split).map((item) => item.speaker));
const meet = (a: Set<string>, b: Set<string>): string[] => [...a].filter((x) => b.has(x));

test('phonemes: classes are sorted, phones cover the recording, dev is whole speakers', async () => {
  const data = await readTask('phoneme', corpus.phonemes(), { devShare: 0.25 });
  assert.equal(data.classes, ['AA', 'IY', 'SIL', 'UW']);
  assert.equal(
    ['train', 'dev', 'test'].map((s) => inSplit(data, s as Split).length),
    [12, 4, 8],
  );
  for (const item of data.items) {
    assert.is(item.phones[0]!.start, 0);
    assert.is(item.phones.at(-1)!.end, item.samples);
    item.phones.slice(1).forEach((phone, i) => assert.is(phone.start, item.phones[i]!.end));
    assert.is(item.part, 'toy');
  }
  assert.equal(meet(speakers(data, 'train'), speakers(data, 'dev')), []);
  assert.equal(
    meet(speakers(data, 'test'), new Set([...speakers(data, 'train'), ...speakers(data, 'dev')])),
    [],
  );
});

test('the development split hangs on the seed and on nothing else', async () => {
  const path = corpus.emotions();
  const dev = async (seed: number): Promise<string> =>
    inSplit(await readTask('emotion', path, { seed }), 'dev')
      .map((item) => item.id)
      .join();
  assert.is(await dev(1), await dev(1));
  const drawn = new Set(await Promise.all([1, 2, 3, 4, 5, 6].map(dev)));
  assert.ok(drawn.size > 1, 'six seeds drew one split');
});

test('speakers: the development split takes recordings of every speaker', async () => {
  const data = await readTask('speaker', corpus.speakers());
  assert.equal(data.classes, ['v0', 'v1', 'v2', 'v3']);
  assert.equal([...speakers(data, 'dev')].sort(), data.classes);
  for (const item of data.items) assert.is(data.classes[item.label], item.speaker);
});

test('emotions: each fold is the test split in turn, and its speakers are nowhere else', async () => {
  const path = corpus.emotions();
  const tested: string[] = [];
  for (const fold of [0, 1, 2]) {
    const data = await readTask('emotion', path, { fold });
    assert.equal(
      inSplit(data, 'test').map((item) => item.columns['fold']),
      inSplit(data, 'test').map(() => String(fold)),
    );
    assert.equal(
      meet(speakers(data, 'test'), new Set([...speakers(data, 'train'), ...speakers(data, 'dev')])),
      [],
    );
    tested.push(...speakers(data, 'test'));
  }
  assert.equal(tested.sort(), ['s0', 's1', 's2', 's3', 's4', 's5']);
});

test('asr: transcripts are normalised, and parts tell seen texts from new ones', async () => {
  const data = await readTask('asr', corpus.asr());
  assert.equal(data.classes, ['A', 'B', 'C']);
  const known = new Set(data.items.filter((item) => item.split !== 'test').map((item) => item.transcript));
  for (const item of inSplit(data, 'test'))
    assert.equal(partsOf(item), [known.has(item.transcript) ? 'text also in train' : 'new text', 'toy']);
  assert.equal(sharedSpeakers(data), []);
  assert.is(normaliseTranscript("  Père said:  it’s\t7 o'clock! "), "PERE SAID IT'S O'CLOCK");
});

test('a speaker in training and test is refused', async () => {
  const path = corpus.write(
    'leak.tsv',
    'path\tspeaker\temotion\tsplit\naudio/toy/s0/joy0.wav\ts0\tjoy\ttrain\naudio/toy/s0/joy1.wav\ts0\tjoy\ttest\n',
  );
  corpus.emotions();
  await failsWith('data', [/s0/, /train and the test split/], () => readTask('emotion', path));
});

test('what a manifest lacks is said', async () => {
  corpus.emotions();
  corpus.phonemes();
  const row = 'audio/toy/s0/joy0.wav';
  await failsWith('data', [/no column split/], () =>
    readTask('emotion', corpus.write('a.tsv', `path\tspeaker\temotion\n${row}\ts0\tjoy\n`)),
  );
  await failsWith('data', [/has no speaker/], () =>
    readTask('emotion', corpus.write('b.tsv', `path\temotion\tsplit\n${row}\tjoy\ttrain\n`)),
  );
  await failsWith('data', [/no recordings for the test split/], () =>
    readTask('emotion', corpus.write('c.tsv', `path\tspeaker\temotion\tsplit\n${row}\ts0\tjoy\ttrain\n`)),
  );
  await failsWith('data', [/emotion surprise/], () =>
    readTask(
      'emotion',
      corpus.write(
        'd.tsv',
        `path\tspeaker\temotion\tsplit\n${row}\ts0\tjoy\ttrain\naudio/toy/s1/joy0.wav\ts1\tjoy\ttrain\naudio/toy/s2/joy0.wav\ts2\tsurprise\ttest\n`,
      ),
    ),
  );
  await failsWith('data', [/no table of phones/], () =>
    readTask(
      'phoneme',
      corpus.write(
        'elsewhere/utterances.tsv',
        `path\tspeaker\tsplit\n${join(corpus.folder, row)}\ts0\ttrain\n`,
      ),
    ),
  );
  await failsWith('data', [/emotion\/emotion.tsv/], () => readTask('emotion', join(corpus.folder, 'audio')));
  await failsWith('data', [/radio/, /toy/], () =>
    readTask('emotion', corpus.emotions(), { families: ['radio'] }),
  );
});

test('a frame has the phone at its centre, 200 samples after its start', () => {
  const phones = [
    { start: 0, end: 200, label: 3 },
    { start: 200, end: 521, label: 1 },
    { start: 521, end: 700, label: 2 },
  ];
  assert.equal([...frameLabels(phones, 4)], [1, 1, -1, -1]);
  assert.equal(
    [
      ...frameLabels(
        [
          { start: 0, end: 201, label: 3 },
          { start: 201, end: 841, label: 1 },
        ],
        3,
      ),
    ],
    [3, 1, 1],
  );
});

if (shared) {
  test('the large set has the splits that its description says, and no speaker leaks', async () => {
    const counts: Record<string, number[]> = {};
    const classes: Record<string, number> = {};
    for (const task of TASKS) {
      const data = await readTask(task, SHARED);
      const n = (split: Split): number => inSplit(data, split).length;
      counts[task] = [n('train') + n('dev'), n('test')];
      classes[task] = data.classes.length;
      if (task !== 'speaker') assert.equal(meet(speakers(data, 'train'), speakers(data, 'dev')), [], task);
      if (task === 'phoneme' || task === 'emotion') assert.equal(sharedSpeakers(data), [], task);
    }
    assert.equal(counts, { phoneme: [693, 140], speaker: [400, 100], asr: [987, 250], emotion: [678, 182] });
    assert.equal(classes, { phoneme: 40, speaker: 50, asr: 28, emotion: 8 });
    const asr = await readTask('asr', SHARED);
    assert.is(inSplit(asr, 'test').filter((item) => item.part === 'text also in train').length, 106);
    const ravdess = await readTask('emotion', SHARED, { families: ['ravdess'], fold: 3 });
    assert.equal(
      [ravdess.items.length, inSplit(ravdess, 'test').length, ravdess.classes.length],
      [560, 112, 7],
    );
  });
}

test.run();
