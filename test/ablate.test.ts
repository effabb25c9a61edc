/**
 * The ablation: its grid, its folder, its table and picture. A number made of the weights stands in for the
 * probes, which have tests of their own.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readManifest } from '../src/audio/manifest.ts';
import { SCALES } from '../src/mgf/config.ts';
import { initialValues, mgfParameters } from '../src/mgf/weights.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import {
  ablationRows,
  chooseRows,
  readAblation,
  rowConfig,
  runAblation,
  type AblationOptions,
  type Subject,
} from '../src/tasks/ablation/ablation.ts';
import { ablationPlot } from '../src/report/plots/differences.ts';
import { labelledScorer } from '../src/tasks/ablation/score.ts';
import { ablationMarkdown, compareRows, isClear } from '../src/tasks/ablation/table.ts';
import { readResumePoint } from '../src/pretrain/run-files.ts';
import { readJsonl } from '../src/pretrain/logs.ts';
import type { AblationRow } from '../src/tasks/task.ts';
import { wav } from './audio-wav.ts';
import { openTestGpu, testAdapter } from './gpu.ts';
import { failsWith, speechLike } from './harness.ts';

const gpu = await openTestGpu();
const folder = mkdtempSync(join(tmpdir(), 'mgf-ablate-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

// ------------------------------------------------------------------------------------------------------ grid

const small = (preset: string, train: Parameters<typeof presetRunConfig>[1] = {}) =>
  presetRunConfig(preset, {
    ...train,
    train: { steps: 3, utterances_per_batch: 2, crop_seconds: 0.5, log_every: 1, ...train.train },
  });
const conv = small('nano');
const mel = small('nano-mel');

test(
  'the grid has every scale alone and left out, three swaps and two baselines; the sample scale is off ' +
    'with the mel front end',
  () => {
    assert.equal(ablationRows(conv.mgf), [
      'all',
      'only-sample',
      'only-frame',
      'only-phoneme',
      'only-sentence',
      'without-sample',
      'without-frame',
      'without-phoneme',
      'without-sentence',
      'swap-frame',
      'swap-phoneme',
      'swap-sentence',
      'random',
      'log-mel',
    ]);
    assert.equal(
      ablationRows(mel.mgf),
      ablationRows(conv.mgf).filter((name) => !name.endsWith('-sample')),
    );
    assert.equal(
      ablationRows(
        presetRunConfig('nano', { mgf: { loss_weights: { sample: 0, frame: 0, sentence: 0 } } }).mgf,
      ),
      ['all', 'swap-phoneme', 'random', 'log-mel'],
    );
    const own = presetRunConfig('nano-mel', {
      mgf: { extra_losses: { mine: { weight: 0.5, attach: 1, start_step: 0 } } },
    });
    assert.equal(
      ablationRows(own.mgf).filter((name) => name.endsWith('-mine')),
      ['only-mine', 'without-mine'],
    );
    const weights = (name: string) => {
      const { mgf } = rowConfig(own, name, 1);
      return [mgf.loss_weights.frame, mgf.extra_losses['mine']!.weight];
    };
    assert.equal(['all', 'only-mine', 'without-mine', 'only-frame', 'without-frame'].map(weights), [
      [1, 0.5],
      [0, 0.5],
      [1, 0],
      [1, 0],
      [0, 0.5],
    ]);
  },
);

test('rows come in the order of the grid, and an unknown one is answered with the nearest', async () => {
  assert.equal(chooseRows(mel.mgf, ['log-mel', 'swap-frame', 'all']), ['all', 'swap-frame', 'log-mel']);
  await failsWith('usage', /no row "only-phonem"; the nearest is "only-phoneme" \(all: all, only-frame/, () =>
    chooseRows(mel.mgf, ['all', 'only-phonem']),
  );
  await failsWith('usage', /no row "without-sample"/, () => chooseRows(mel.mgf, ['without-sample']));
});

test('a row changes losses alone: weights or one objective', () => {
  const base = { ...conv, train: { ...conv.train, seed: 7, keep_last: 1 } };
  const of = (name: string) => rowConfig(conv, name, 7);
  assert.equal(of('all'), base);
  assert.equal(of('only-sentence'), {
    ...base,
    mgf: { ...base.mgf, loss_weights: { sample: 0, frame: 0, phoneme: 0, sentence: 0.5 } },
  });
  assert.equal(of('without-sample'), {
    ...base,
    mgf: { ...base.mgf, loss_weights: { ...base.mgf.loss_weights, sample: 0 } },
  });
  for (const [name, objectives] of [
    ['swap-frame', { frame: 'info_nce' }],
    ['swap-phoneme', { phoneme: 'l1' }],
    ['swap-sentence', { sentence: 'l1' }],
  ] as const) {
    assert.equal(of(name), {
      ...base,
      mgf: { ...base.mgf, objectives: { ...base.mgf.objectives, ...objectives } },
    });
  }
});

// --------------------------------------------------------------------------------------------------- running

for (let c = 0; c < 5; c++)
  writeFileSync(join(folder, `clip-${c}.wav`), wav([speechLike(32000, c + 1).map((v) => 0.2 * v)]));
const { items } = await readManifest(folder);

/** A share that hangs on every weight. */
function fakeScore({ parameters }: Subject): AblationRow['scores'] {
  let sum = 0.25;
  for (const { data } of parameters?.values() ?? []) for (const v of data) sum += Math.abs(v);
  const value = sum % 1;
  return {
    phoneme: { value, interval: [value - 0.1, value + 0.1] },
    speaker: { value: 1 - value, interval: [0, 1] },
  };
}
const options = (out: string, more: Partial<AblationOptions> = {}): AblationOptions => ({
  gpu,
  base: mel,
  preset: 'nano-mel',
  items,
  data: 'made up',
  probes: { labels: 'none', tasks: ['phoneme', 'speaker'] },
  rows: ablationRows(mel.mgf),
  seeds: [1],
  out: join(folder, out),
  score: (s) => Promise.resolve(fakeScore(s)),
  ...more,
});

for (const [preset, base] of [
  ['nano-mel', mel],
  ['nano', conv],
] as const) {
  test(
    `every row of ${preset} trains three steps: its losses, its gradient and its moments are finite, and ` +
      'no two networks are alike',
    async () => {
      const out = `grid-${preset}`;
      const { result, interrupted } = await runAblation(
        options(out, { base, preset, rows: ablationRows(base.mgf) }),
      );
      assert.not(interrupted);
      assert.equal(
        result.rows.map((r) => r.name),
        ablationRows(base.mgf),
      );
      assert.equal(JSON.parse(readFileSync(join(folder, out, 'ablation.json'), 'utf8')).rows, result.rows);
      const trained = result.rows.filter((r) => r.steps > 0);
      assert.equal(
        result.rows.filter((r) => r.steps === 0).map((r) => [r.name, r.losses]),
        [
          ['random', {}],
          ['log-mel', {}],
        ],
      );
      for (const row of trained) {
        const run = rowConfig(base, row.name, 1);
        const at = join(folder, out, 'runs', `${row.name}-1`);
        const { state } = await readResumePoint(at);
        assert.equal(
          Object.keys(row.losses),
          SCALES.filter((s) => run.mgf.loss_weights[s] > 0),
          row.name,
        );
        assert.ok(
          Object.values(row.losses).every((x) => Number.isFinite(x) && x > 0),
          `${row.name}: ${JSON.stringify(row.losses)}`,
        );
        assert.is(row.steps, 3);
        assert.equal(
          readJsonl(join(at, 'log.jsonl'))
            .filter((r) => 'total' in r)
            .map((r) => [r.step, Number(r['grad_norm']) > 0 && Number.isFinite(Number(r['grad_norm']))]),
          [
            [1, true],
            [2, true],
            [3, true],
          ],
          row.name,
        );
        for (const [name, { data }] of state.expAvg) {
          assert.ok(data.every(Number.isFinite), `${row.name}: ${name}`);
          if (name.startsWith('heads.'))
            assert.ok(
              data.some((v) => v !== 0),
              `${row.name}: ${name} has no gradient`,
            );
        }
      }
      assert.is(new Set(result.rows.map((r) => r.scores.phoneme!.value)).size, result.rows.length);
    },
  );
}

const clockless = ({ rows }: { rows: readonly AblationRow[] }) => rows.map((r) => JSON.stringify(r));

test(
  'a grid that is interrupted within a training and started again ends as one that never stopped, and ' +
    'repeats no finished cell',
  async () => {
    const rows = ['all', 'swap-phoneme', 'log-mel'];
    const seeds = [1, 2];
    const base = small('nano-mel', { train: { steps: 6, checkpoint_every: 2 } });
    const cells: string[] = [];
    const abort = new AbortController();
    const scored: { done: number; total: number; secondsLeft: number }[] = [];
    const straight = await runAblation(
      options('straight', { base, rows, seeds, hooks: { onScored: (_, progress) => scored.push(progress) } }),
    );
    assert.equal(
      straight.result.rows.map((r) => `${r.name} ${r.seed}`),
      ['all 1', 'all 2', 'swap-phoneme 1', 'swap-phoneme 2', 'log-mel 1'],
      'log-mel has no seed',
    );
    assert.equal(
      scored.map(({ done, total }) => [done, total]),
      [
        [1, 5],
        [2, 5],
        [3, 5],
        [4, 5],
        [5, 5],
      ],
    );
    assert.ok(scored.slice(0, 4).every(({ secondsLeft }) => secondsLeft > 0) && scored[4]!.secondsLeft === 0);

    let steps = 0;
    const hooks = {
      onCell: ({ name, seed }: { name: string; seed: number }) => {
        cells.push(`${name} ${seed}`);
      },
      onProgress: () => {
        if (++steps === 9) abort.abort();
      },
    };
    const first = await runAblation(options('broken', { base, rows, seeds, hooks, signal: abort.signal }));
    assert.ok(first.interrupted);
    assert.equal(
      first.result.rows.map((r) => r.name),
      ['all'],
    );
    const {
      state: { step },
    } = await readResumePoint(join(folder, 'broken', 'runs', 'swap-phoneme-1'));
    assert.ok(step > 0 && step < 6, `stopped at ${step}`);
    const before = steps;
    const second = await runAblation(options('broken', { base, rows, seeds, hooks }));
    assert.not(second.interrupted);
    assert.is(steps - before, 3 * 6 - step, 'the rest of the cell and two more');
    assert.equal(cells, [
      'all 1',
      'swap-phoneme 1',
      'swap-phoneme 1',
      'log-mel 1',
      'all 2',
      'swap-phoneme 2',
    ]);
    assert.equal(clockless(second.result), clockless(straight.result));
    assert.equal(
      ablationMarkdown({ ...second.result, date: '2026-01-01' }),
      ablationMarkdown({ ...straight.result, date: '2026-01-01' }),
    );
    // Probes that failed are run again on the trained network.
    const again = await runAblation(
      options('broken', {
        base,
        rows,
        seeds: [1, 2, 3],
        hooks,
        score: () => Promise.reject(new Error('no probe')),
      }),
    ).catch((error: Error) => error);
    assert.match((again as Error).message, 'no probe');
    const made = steps;
    const third = await runAblation(options('broken', { base, rows: ['all'], seeds: [1, 2, 3], hooks }));
    assert.is(steps, made);
    assert.equal(
      third.result.rows.filter((r) => r.name === 'all').map((r) => r.seed),
      [1, 2, 3],
    );
  },
);

test('a folder with another ablation or a damaged result is refused, and so is a run by the clock', async () => {
  await failsWith(
    'checkpoint',
    /config\.json was made with another configuration: steps is 3 there and 4 here/,
    () => runAblation(options('grid-nano-mel', { base: small('nano-mel', { train: { steps: 4 } }) })),
  );
  await failsWith('checkpoint', /data is ".*made up" there/, () =>
    runAblation(options('grid-nano-mel', { data: 'others' })),
  );
  await failsWith('checkpoint', /probes\.families is null there and \["timit"\] here/, () =>
    runAblation(
      options('grid-nano-mel', {
        probes: { labels: 'none', tasks: ['phoneme', 'speaker'], families: ['timit'] },
      }),
    ),
  );
  await failsWith('config', /only-frame: loss_start_steps is .*, but must be 0 for at least one scale/, () =>
    runAblation(options('late', { base: small('nano-mel', { mgf: { loss_start_steps: { frame: 1 } } }) })),
  );
  await failsWith('usage', /counted in steps/, () =>
    runAblation(options('clock', { base: small('nano-mel', { train: { minutes: 1 } }) })),
  );
  writeFileSync(join(folder, 'straight', 'ablation.json'), '{"rows": [{"name": "all"}]}');
  await failsWith('data', /ablation\.json is damaged/, () => readAblation(join(folder, 'straight')));
});

// --------------------------------------------------------------------------------------- probes, the command

/** Three made-up voices, eight clips each, two of them for the test. */
function labelled(): string {
  const at = join(folder, 'labelled');
  const lines = ['path\tspeaker\tsplit'];
  mkdirSync(join(at, 'speakers'), { recursive: true });
  mkdirSync(join(at, 'audio'), { recursive: true });
  for (let voice = 0; voice < 3; voice++) {
    const whole = speechLike(8 * 8000, 11 + voice);
    for (let c = 0; c < 8; c++) {
      writeFileSync(
        join(at, 'audio', `${voice}-${c}.wav`),
        wav([whole.subarray(c * 8000, (c + 1) * 8000).map((v) => 0.2 * v)]),
      );
      lines.push(`audio/${voice}-${c}.wav\tvoice ${voice}\t${c < 6 ? 'train' : 'test'}`);
    }
  }
  writeFileSync(join(at, 'speakers', 'speakers.tsv'), `${lines.join('\n')}\n`);
  return at;
}
const labels = labelled();

test('the same weights get the same score, and log-mel needs none', async () => {
  const score = await labelledScorer(gpu, labels, { tasks: ['speaker'] });
  const { mgf } = mel;
  const parameters = initialValues(mgfParameters(mgf, []), 1);
  const network = await score({ mgf, parameters });
  const logMel = await score({ mgf, parameters: null });
  assert.equal(Object.keys(network), ['speaker']);
  assert.equal(await score({ mgf, parameters: new Map([...parameters].reverse()) }), network);
  assert.ok(
    logMel.speaker!.value > 0.6,
    `three voices are told apart better than by chance, not at ${logMel.speaker!.value}`,
  );
  await failsWith('data', /no phonemes\/utterances\.tsv/, () =>
    labelledScorer(gpu, labels, { tasks: ['phoneme'] }),
  );
});

const program = fileURLToPath(new URL('../mgf.js', import.meta.url));
function ablate(args: readonly string[]): Promise<{ status: number | null; out: string; err: string }> {
  const adapter = testAdapter() ? ['--adapter', testAdapter()!] : [];
  return new Promise((done) => {
    const child = spawn(
      process.execPath,
      [
        program,
        'ablate',
        folder,
        '--labels',
        labels,
        '--preset',
        'nano-mel',
        '--tasks',
        'speaker',
        ...args,
        ...adapter,
      ],
      { cwd: folder },
    );
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text;
    });
    child.on('close', (status) => done({ status, out, err }));
  });
}

test('the command writes results, table and picture, and a second one finds nothing left to do', async () => {
  const args = [
    '--rows',
    'all,swap-sentence,log-mel',
    '--seeds',
    '4',
    '--steps',
    '2',
    '--set',
    'crop_seconds=0.5',
    '--set',
    'utterances_per_batch=2',
    '--out',
    'told',
  ];
  const first = await ablate(args);
  const at = join(folder, 'told');
  assert.is(first.status, 0, first.err);
  for (const text of ['1 of 3: all, seed 4', '3 of 3 done', /swap-sentence +1 /, 'Plot: '])
    assert.match(first.out, text);
  assert.equal(
    (JSON.parse(readFileSync(join(at, 'ablation.json'), 'utf8')) as { rows: AblationRow[] }).rows.map((r) => [
      r.name,
      r.seed,
      r.steps,
    ]),
    [
      ['all', 4, 2],
      ['swap-sentence', 4, 2],
      ['log-mel', 4, 0],
    ],
  );
  assert.match(readFileSync(join(at, 'ablation.md'), 'utf8'), '| `swap-sentence` | 1 |');
  assert.ok(existsSync(join(at, 'ablation.svg')));
  const again = await ablate([...args, '--json']);
  assert.is(again.status, 0, again.err);
  assert.not.match(again.err, 'of 3: ');
  assert.is((JSON.parse(again.out) as { rows: unknown[] }).rows.length, 3);
});

test('the command refuses a row and a task that there are not', async () => {
  const [row, task, none] = await Promise.all([
    ablate(['--rows', 'all,swap-sentense']),
    ablate(['--tasks', 'speakers']),
    ablate(['--seeds', ',']),
  ]);
  assert.match(row.err, /no row "swap-sentense"; the nearest is "swap-sentence"/);
  assert.match(task.err, /--tasks takes phoneme, speaker, emotion, not "speakers"/);
  assert.match(none.err, /--seeds.*list with commas/);
  assert.equal([row.status, task.status, none.status], [2, 2, 2]);
});

// -------------------------------------------------------------------------------------------- table, picture

const row = (
  name: string,
  seed: number,
  phoneme: number,
  speaker: number,
  losses: Record<string, number> = {},
): AblationRow => ({
  name,
  seed,
  steps: name === 'log-mel' ? 0 : 10,
  losses,
  scores: { phoneme: { value: phoneme, interval: [0, 1] }, speaker: { value: speaker, interval: [0, 1] } },
});
const made = {
  preset: 'nano-mel',
  adapter: 'paper',
  date: '2026-11-23T10:00:00Z',
  rows: [
    row('all', 1, 0.5, 0.6, { frame: 0.5 }),
    row('all', 2, 0.54, 0.8, { frame: 0.7 }),
    row('all', 3, 0.46, 0.7, { frame: 0.6 }),
    row('swap-frame', 1, 0.47, 0.7),
    row('swap-frame', 2, 0.515, 0.7),
    row('swap-frame', 3, 0.425, 0.7),
    row('log-mel', 1, 0.4, 0.65),
  ],
};

test('differences are taken seed by seed, and are clear when they are alike', () => {
  const [all, swap, logMel] = compareRows(made);
  assert.equal([all!.seeds, all!.differences, all!.losses['frame']!.toFixed(4)], [3, {}, '0.6000']);
  assert.ok(
    Math.abs(all!.scores.phoneme!.mean - 0.5) < 1e-12 &&
      Math.abs(all!.scores.phoneme!.deviation - 0.04) < 1e-12,
  );
  const d = swap!.differences.phoneme!;
  assert.equal(
    d.values.map((v) => v.toFixed(3)),
    ['-0.030', '-0.025', '-0.035'],
  );
  // mean -0.03, deviation 0.005, t(2) = 4.303: margin 4.303 * 0.005 / sqrt(3) = 0.01242.
  assert.is(d.margin.toFixed(5), '0.01242');
  assert.ok(isClear(d) && !isClear(swap!.differences.speaker!));
  assert.equal(
    logMel!.differences.phoneme!.values.map((v) => v.toFixed(2)),
    ['-0.10', '-0.14', '-0.06'],
    'one score against every seed',
  );
  assert.ok(Number.isNaN(logMel!.scores.phoneme!.deviation));
  assert.not(
    isClear(compareRows({ rows: made.rows.filter((r) => r.seed === 1) })[1]!.differences.phoneme!),
    'one seed says nothing of scatter',
  );
});

test('the table has a line a row, differences with their sign, clear ones bold', () => {
  const lines = ablationMarkdown(made)
    .split('\n')
    .filter((l) => l.startsWith('|'));
  assert.equal(lines, [
    '| row | seeds | phonemes, accuracy % | from all | speakers, accuracy % | from all | frame loss |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    '| `all` | 3 | 50.0 ± 4.0 |  | 70.0 ± 10.0 |  | 0.600 |',
    '| `swap-frame` | 3 | 47.0 ± 4.5 | **-3.0 ± 0.5** | 70.0 ± 0.0 | 0.0 ± 10.0 |  |',
    '| `log-mel` | 1 | 40.0 | **-10.0 ± 4.0** | 65.0 | -5.0 ± 10.0 |  |',
  ]);
});

test(
  'the picture has a panel a task and a mark for every difference and every seed; without `all` there is ' +
    'none',
  () => {
    const svg = ablationPlot(made)!;
    assert.match(svg, /^<svg[^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    for (const text of ['Phonemes', 'Speakers', 'swap-frame', 'log-mel', 'all: 50.0 %'])
      assert.match(svg, text);
    assert.not.match(svg, 'Emotions');
    assert.not.match(svg, 'NaN');
    assert.is((svg.match(/<circle/g) ?? []).length, 2 * 2 + 2 * 2 * 3);
    assert.is(ablationPlot({ ...made, rows: made.rows.filter((r) => r.name !== 'all') }), null);
  },
);

test.run();
