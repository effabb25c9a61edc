/** The ablation: its grid, its folder, its table and picture. A number made of the weights stands in for the probes, which have tests of their own. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readManifest } from '../src/audio/manifest.ts';
import { SCALES } from '../src/mgf/config.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { ablationRows, chooseRows, readAblation, rowConfig, runAblation, type AblationOptions, type Subject } from '../src/tasks/ablation.ts';
import { ablationPlot } from '../src/tasks/ablation-plot.ts';
import { ablationMarkdown, compareRows, isClear } from '../src/tasks/ablation-table.ts';
import { readResumePoint } from '../src/train/loop.ts';
import { readJsonl } from '../src/train/logs.ts';
import type { AblationRow } from '../src/tasks/task.ts';
import { wav } from './audio-wav.ts';
import { openTestGpu } from './gpu.ts';
import { failsWith, speechLike } from './harness.ts';

const gpu = await openTestGpu();
const folder = mkdtempSync(join(tmpdir(), 'mgf-ablate-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

// ----------------------------------------------------------------------------------------------------------------------- grid

const small = (preset: string, train: Parameters<typeof presetRunConfig>[1] = {}) => presetRunConfig(preset, { ...train, train: { steps: 3, utterances_per_batch: 2, crop_seconds: 0.5, log_every: 1, ...train.train } });
const conv = small('nano'), mel = small('nano-mel');

test('the grid has every scale alone and left out, three swaps and two baselines; the sample scale is off with the mel front end', () => {
  assert.equal(ablationRows(conv.mgf), [
    'all', 'only-sample', 'only-frame', 'only-phoneme', 'only-sentence', 'without-sample', 'without-frame', 'without-phoneme', 'without-sentence',
    'swap-frame', 'swap-phoneme', 'swap-sentence', 'random', 'log-mel',
  ]);
  assert.equal(ablationRows(mel.mgf), ablationRows(conv.mgf).filter((name) => !name.endsWith('-sample')));
  assert.equal(ablationRows(presetRunConfig('nano', { mgf: { loss_weights: { sample: 0, frame: 0, sentence: 0 } } }).mgf), ['all', 'swap-phoneme', 'random', 'log-mel']);
});

test('rows come in the order of the grid, and an unknown one is answered with the nearest', async () => {
  assert.equal(chooseRows(mel.mgf, ['log-mel', 'swap-frame', 'all']), ['all', 'swap-frame', 'log-mel']);
  await failsWith('usage', /no row "only-phonem"; the nearest is "only-phoneme" \(all: all, only-frame/, () => chooseRows(mel.mgf, ['all', 'only-phonem']));
  await failsWith('usage', /no row "without-sample"/, () => chooseRows(mel.mgf, ['without-sample']));
});

test('a row changes losses alone: weights or one objective', () => {
  const base = { ...conv, train: { ...conv.train, seed: 7, keep_last: 1 } }, of = (name: string) => rowConfig(conv, name, 7);
  assert.equal(of('all'), base);
  assert.equal(of('only-sentence'), { ...base, mgf: { ...base.mgf, loss_weights: { sample: 0, frame: 0, phoneme: 0, sentence: 0.5 } } });
  assert.equal(of('without-sample'), { ...base, mgf: { ...base.mgf, loss_weights: { ...base.mgf.loss_weights, sample: 0 } } });
  for (const [name, objectives] of [['swap-frame', { frame: 'info_nce' }], ['swap-phoneme', { phoneme: 'l1' }], ['swap-sentence', { sentence: 'l1' }]] as const) {
    assert.equal(of(name), { ...base, mgf: { ...base.mgf, objectives: { ...base.mgf.objectives, ...objectives } } });
  }
});

// --------------------------------------------------------------------------------------------------------------------- running

for (let c = 0; c < 5; c++) writeFileSync(join(folder, `clip-${c}.wav`), wav([speechLike(32000, c + 1).map((v) => 0.2 * v)]));
const { items } = await readManifest(folder);

/** A share that hangs on every weight. */
function fakeScore({ source, parameters, seed }: Subject): AblationRow['scores'] {
  let sum = 0;
  for (const { data } of parameters?.values() ?? []) for (const v of data) sum += Math.abs(v);
  const value = parameters ? sum % 1 : source === 'random' ? seed / 10 : 0.25;
  return { phoneme: { value, interval: [value - 0.1, value + 0.1] }, speaker: { value: 1 - value, interval: [0, 1] } };
}
const options = (out: string, more: Partial<AblationOptions> = {}): AblationOptions => ({
  gpu, base: mel, preset: 'nano-mel', items, data: 'made up', labels: 'none', rows: ablationRows(mel.mgf), seeds: [1], out: join(folder, out), score: (s) => Promise.resolve(fakeScore(s)), ...more,
});

for (const [preset, base] of [['nano-mel', mel], ['nano', conv]] as const) {
  test(`every row of ${preset} trains three steps: its losses, its gradient and its moments are finite, and no two networks are alike`, async () => {
    const out = `grid-${preset}`, { result, interrupted } = await runAblation(options(out, { base, preset, rows: ablationRows(base.mgf) }));
    assert.not(interrupted);
    assert.equal(result.rows.map((r) => r.name), ablationRows(base.mgf));
    assert.equal(JSON.parse(readFileSync(join(folder, out, 'ablation.json'), 'utf8')).rows, result.rows);
    const trained = result.rows.filter((r) => r.steps > 0);
    assert.equal(result.rows.filter((r) => r.steps === 0).map((r) => [r.name, r.losses]), [['random', {}], ['log-mel', {}]]);
    for (const row of trained) {
      const run = rowConfig(base, row.name, 1), at = join(folder, out, 'runs', `${row.name}-1`), { state } = await readResumePoint(at);
      assert.equal(Object.keys(row.losses), SCALES.filter((s) => run.mgf.loss_weights[s] > 0), row.name);
      assert.ok(Object.values(row.losses).every((x) => Number.isFinite(x) && x > 0), `${row.name}: ${JSON.stringify(row.losses)}`);
      assert.is(row.steps, 3);
      assert.equal(readJsonl(join(at, 'log.jsonl')).map((r) => [r.step, Number(r['grad_norm']) > 0 && Number.isFinite(Number(r['grad_norm']))]), [[1, true], [2, true], [3, true]], row.name);
      for (const [name, { data }] of state.expAvg) {
        assert.ok(data.every(Number.isFinite), `${row.name}: ${name}`);
        if (name.startsWith('heads.')) assert.ok(data.some((v) => v !== 0), `${row.name}: ${name} has no gradient`);
      }
    }
    assert.is(new Set(trained.map((r) => r.scores.phoneme!.value)).size, trained.length);
  });
}

const clockless = ({ rows }: { rows: readonly AblationRow[] }) => rows.map((r) => JSON.stringify(r));

test('a grid that is interrupted within a training and started again ends as one that never stopped, and repeats no finished cell', async () => {
  const rows = ['all', 'swap-phoneme', 'log-mel'], seeds = [1, 2], base = small('nano-mel', { train: { steps: 6, checkpoint_every: 2 } }), cells: string[] = [], abort = new AbortController();
  const scored: { done: number; total: number; secondsLeft: number }[] = [];
  const straight = await runAblation(options('straight', { base, rows, seeds, hooks: { onScored: (_, progress) => scored.push(progress) } }));
  assert.equal(straight.result.rows.map((r) => `${r.name} ${r.seed}`), ['all 1', 'all 2', 'swap-phoneme 1', 'swap-phoneme 2', 'log-mel 1'], 'log-mel has no seed');
  assert.equal(scored.map(({ done, total }) => [done, total]), [[1, 5], [2, 5], [3, 5], [4, 5], [5, 5]]);
  assert.ok(scored.slice(0, 4).every(({ secondsLeft }) => secondsLeft > 0) && scored[4]!.secondsLeft === 0);

  let steps = 0;
  const hooks = { onCell: ({ name, seed }: { name: string; seed: number }) => { cells.push(`${name} ${seed}`); }, onProgress: () => { if (++steps === 9) abort.abort(); } };
  const first = await runAblation(options('broken', { base, rows, seeds, hooks, signal: abort.signal }));
  assert.ok(first.interrupted);
  assert.equal(first.result.rows.map((r) => r.name), ['all']);
  const { state: { step } } = await readResumePoint(join(folder, 'broken', 'runs', 'swap-phoneme-1'));
  assert.ok(step > 0 && step < 6, `stopped at ${step}`);
  const before = steps, second = await runAblation(options('broken', { base, rows, seeds, hooks }));
  assert.not(second.interrupted);
  assert.is(steps - before, 3 * 6 - (step), 'the rest of the cell and two more');
  assert.equal(cells, ['all 1', 'swap-phoneme 1', 'swap-phoneme 1', 'log-mel 1', 'all 2', 'swap-phoneme 2']);
  assert.equal(clockless(second.result), clockless(straight.result));
  assert.equal(ablationMarkdown({ ...second.result, date: '2026-01-01' }), ablationMarkdown({ ...straight.result, date: '2026-01-01' }));
  // Probes that failed are run again on the trained network.
  const again = await runAblation(options('broken', { base, rows, seeds: [1, 2, 3], hooks, score: () => Promise.reject(new Error('no probe')) })).catch((error: Error) => error);
  assert.match((again as Error).message, 'no probe');
  const made = steps, third = await runAblation(options('broken', { base, rows: ['all'], seeds: [1, 2, 3], hooks }));
  assert.is(steps, made);
  assert.equal(third.result.rows.filter((r) => r.name === 'all').map((r) => r.seed), [1, 2, 3]);
});

test('a folder with another ablation or a damaged result is refused, and so is a run by the clock', async () => {
  await failsWith('checkpoint', /config\.json was made with another configuration: steps is 3 there and 4 here/, () => runAblation(options('grid-nano-mel', { base: small('nano-mel', { train: { steps: 4 } }) })));
  await failsWith('checkpoint', /data is ".*made up" there/, () => runAblation(options('grid-nano-mel', { data: 'others' })));
  await failsWith('usage', /counted in steps/, () => runAblation(options('clock', { base: small('nano-mel', { train: { minutes: 1 } }) })));
  writeFileSync(join(folder, 'straight', 'ablation.json'), '{"rows": [{"name": "all"}]}');
  await failsWith('data', /ablation\.json is damaged/, () => readAblation(join(folder, 'straight')));
});

// --------------------------------------------------------------------------------------------------------------- table, picture

const row = (name: string, seed: number, phoneme: number, speaker: number, losses: Record<string, number> = {}): AblationRow =>
  ({ name, seed, steps: name === 'log-mel' ? 0 : 10, losses, scores: { phoneme: { value: phoneme, interval: [0, 1] }, speaker: { value: speaker, interval: [0, 1] } } });
const made = {
  preset: 'nano-mel', adapter: 'paper', date: '2026-11-23T10:00:00Z',
  rows: [
    row('all', 1, 0.50, 0.6, { frame: 0.5 }), row('all', 2, 0.54, 0.8, { frame: 0.7 }), row('all', 3, 0.46, 0.7, { frame: 0.6 }),
    row('swap-frame', 1, 0.47, 0.7), row('swap-frame', 2, 0.515, 0.7), row('swap-frame', 3, 0.425, 0.7), row('log-mel', 1, 0.4, 0.65),
  ],
};

test('differences are taken seed by seed, and are clear when they are alike', () => {
  const [all, swap, logMel] = compareRows(made);
  assert.equal([all!.seeds, all!.differences, all!.losses['frame']!.toFixed(4)], [3, {}, '0.6000']);
  assert.ok(Math.abs(all!.scores.phoneme!.mean - 0.5) < 1e-12 && Math.abs(all!.scores.phoneme!.deviation - 0.04) < 1e-12);
  const d = swap!.differences.phoneme!;
  assert.equal(d.values.map((v) => v.toFixed(3)), ['-0.030', '-0.025', '-0.035']);
  // mean -0.03, deviation 0.005, t(2) = 4.303: margin 4.303 * 0.005 / sqrt(3) = 0.01242.
  assert.is(d.margin.toFixed(5), '0.01242');
  assert.ok(isClear(d) && !isClear(swap!.differences.speaker!));
  assert.equal(logMel!.differences.phoneme!.values.map((v) => v.toFixed(2)), ['-0.10', '-0.14', '-0.06'], 'one score against every seed');
  assert.ok(Number.isNaN(logMel!.scores.phoneme!.deviation));
  assert.not(isClear(compareRows({ rows: made.rows.filter((r) => r.seed === 1) })[1]!.differences.phoneme!), 'one seed says nothing of scatter');
});

test('the table has a line a row, differences with their sign, clear ones bold', () => {
  const lines = ablationMarkdown(made).split('\n').filter((l) => l.startsWith('|'));
  assert.equal(lines, [
    '| row | seeds | phonemes, accuracy % | from all | speakers, accuracy % | from all | frame loss |', '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    '| `all` | 3 | 50.0 ± 4.0 |  | 70.0 ± 10.0 |  | 0.600 |', '| `swap-frame` | 3 | 47.0 ± 4.5 | **-3.0 ± 0.5** | 70.0 ± 0.0 | 0.0 ± 10.0 |  |',
    '| `log-mel` | 1 | 40.0 | **-10.0 ± 4.0** | 65.0 | -5.0 ± 10.0 |  |',
  ]);
});

test('the picture has a panel a task and a mark for every difference and every seed; without `all` there is none', () => {
  const svg = ablationPlot(made)!;
  assert.match(svg, /^<svg[^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  for (const text of ['Phonemes', 'Speakers', 'swap-frame', 'log-mel', 'all: 50.0 %']) assert.match(svg, text);
  assert.not.match(svg, 'Emotions');
  assert.not.match(svg, 'NaN');
  assert.is((svg.match(/<circle/g) ?? []).length, 2 * 2 + 2 * 2 * 3);
  assert.is(ablationPlot({ ...made, rows: made.rows.filter((r) => r.name !== 'all') }), null);
});

test.run();
