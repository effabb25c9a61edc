import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { scoreTask } from '../src/tasks/probe/score.ts';
import type { TaskItem } from '../src/tasks/task.ts';

const item = (fields: Partial<TaskItem>): TaskItem => ({
  path: '/a.wav',
  id: 'a',
  columns: {},
  split: 'test',
  speaker: 's',
  label: -1,
  phones: [],
  transcript: '',
  part: '',
  ...fields,
});

test('recognition is scored by characters and by words, over all recordings and each part', () => {
  const items = [
    item({ transcript: 'ONE TWO', part: 'new text' }),
    item({ transcript: 'SIX', part: 'text also in train' }),
  ];
  const { metrics, parts, confusion } = scoreTask(
    { task: 'asr', classes: [] },
    items,
    [{ transcript: 'ONE TO' }, { transcript: '' }],
    1,
  );
  assert.is(metrics.cer!.value, (1 + 3) / 10);
  assert.is(metrics.wer!.value, (1 + 1) / 3);
  assert.is(parts['new text']!.cer!.value, 1 / 7);
  assert.equal(parts['text also in train']!.wer, { value: 1, interval: [1, 1] });
  assert.is(confusion, undefined);
});

test('phones are scored by frames that have a label, and as a sequence without silence', () => {
  const classes = ['A', 'B', 'SIL'];
  const phones = [
    { start: 0, end: 640, label: 2 },
    { start: 640, end: 1280, label: 0 },
    { start: 1280, end: 1600, label: 1 },
  ];
  // frames' centres 200, 520 SIL; 840, 1160 A; 1480 B; 1800 nothing
  const items = [item({ phones, part: 'timit' })];
  const { metrics, confusion } = scoreTask(
    { task: 'phoneme', classes },
    items,
    [{ frames: [2, 0, 0, 0, 1, 1] }],
    1,
  );
  assert.is(metrics.accuracy!.value, 4 / 5);
  assert.is(metrics.phone_error_rate!.value, 0); // A B, as spoken
  assert.equal(confusion, [
    [2, 0, 0],
    [0, 1, 0],
    [1, 0, 1],
  ]);
  assert.is(
    scoreTask({ task: 'phoneme', classes }, items, [{ frames: [2, 0, 2, 0, 2, 2] }], 1).metrics
      .phone_error_rate!.value,
    0.5,
  ); // A A instead of A B
});

test('voices by accuracy, moods by unweighted average recall, both with a confusion matrix', () => {
  const items = [0, 0, 0, 1].map((label) => item({ label }));
  const outcomes = [0, 0, 0, 0].map((label) => ({ label }));
  const voices = scoreTask({ task: 'speaker', classes: ['a', 'b'] }, items, outcomes, 1);
  const moods = scoreTask({ task: 'emotion', classes: ['calm', 'sad'] }, items, outcomes, 1);
  assert.is(voices.metrics.accuracy!.value, 0.75);
  assert.equal(voices.confusion, [
    [3, 0],
    [1, 0],
  ]);
  assert.is(moods.metrics.unweighted_average_recall!.value, 0.5);
  assert.is(moods.metrics.accuracy!.value, 0.75);
});

test.run();
