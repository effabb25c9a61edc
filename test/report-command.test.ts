import { spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseHTML } from 'linkedom';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomStream } from '../src/random/stream.ts';
import { readAblation, readProbe } from '../src/cli/report.ts';
import { readRunFolder } from '../src/cli/run-report.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { wav } from './audio-wav.ts';
import { testAdapter } from './gpu.ts';
import { failsWith } from './harness.ts';

/** The real program: bundled tests lie one folder below it. */
const program = fileURLToPath(new URL('../mgf.js', import.meta.url));
const fixtures = fileURLToPath(new URL('../../test/fixtures/report/', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'mgf-report-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);

interface Ended {
  status: number | null;
  out: string;
  err: string;
}

function mgf(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], { cwd: folder });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text;
    });
    child.on('close', (status) => resolve({ status, out, err }));
  });
}

const page = (name: string) => parseHTML(readFileSync(at(name), 'utf8')).document;
const sections = (name: string) => [...page(name).querySelectorAll('section')].map((s) => s.id);

/** A run that has logged two lines and saved nothing yet. */
function begunRun(name: string): string {
  mkdirSync(at(name), { recursive: true });
  const { mgf: network, train } = presetRunConfig('nano');
  writeFileSync(join(at(name), 'config.json'), JSON.stringify({ ...network, ...train }));
  const line = (step: number) =>
    JSON.stringify({
      step,
      total: 5,
      sample: 0.5,
      frame: 0.7,
      phoneme: 2.2,
      sentence: 1.5,
      accuracy: 0.15,
      grad_norm: 2,
      learning_rate: 1e-3,
      audio_per_second: 20,
      audio_seconds: 15 * step,
      elapsed_seconds: step,
    });
  const alarm = JSON.stringify({
    step: 15,
    alarm: 'leak',
    message: 'Phoneme accuracy is too good to be learned.',
  });
  writeFileSync(join(at(name), 'log.jsonl'), `${line(10)}\n${alarm}\n${line(20)}\n{"step": 3`);
  return name;
}

test('a run in progress is reported from its log, with probes and ablation found beside it, without a device', async () => {
  const run = begunRun('begun');
  for (const name of ['probe-phoneme.json', 'ablation.json'])
    copyFileSync(join(fixtures, name), join(at(run), name));
  // An adapter that is not there is an error where a device is opened.
  const { status, out, err } = await mgf('report', run, '--adapter', 'gpu', '--json');
  assert.is(status, 0, err);
  assert.match(err, 'the run has saved no checkpoint yet');
  const { report, step, probes, bytes } = JSON.parse(out) as {
    report: string;
    step: number;
    probes: number;
    bytes: number;
  };
  assert.equal([report, step, probes], [join('begun', 'report.html'), 20, 1]);
  assert.is(bytes, readFileSync(at(report)).length);
  assert.equal(sections(report), ['training', 'health', 'probes', 'confusions', 'ablation', 'run', 'next']);
  const text = page(report).body.textContent ?? '';
  for (const told of [
    '31,657 parameters',
    '20 steps in 20 s',
    'Phoneme accuracy is too good to be learned.',
    '63.2\u00a0%',
    'aa (as in father) taken for iy (as in beet)',
  ])
    assert.ok(text.includes(told), told);
  assert.is(page(report).querySelectorAll('script, link').length, 0);
});

test(
  'results elsewhere are named by --probe and --ablation; what only looks like them is told of and left ' +
    'out',
  async () => {
    const run = begunRun('named');
    writeFileSync(join(at(run), 'result.json'), '{"task": "song"}');
    const { status, err } = await mgf(
      'report',
      run,
      '--probe',
      join(fixtures, 'probe-phoneme.json'),
      join(fixtures, 'probe-phoneme.json'),
      '--ablation',
      join(fixtures, 'ablation.json'),
      '--out',
      'named.html',
    );
    assert.is(status, 0, err);
    assert.match(err, /Left out: .*result\.json does not hold results of a probe/);
    assert.is(page('named.html').querySelectorAll('#probes table').length, 2);
    assert.not.ok(existsSync(join(at(run), 'report.html')));
  },
);

test('a folder that is no run, files that are no results and data that are not there are one sentence each', async () => {
  mkdirSync(at('empty'));
  const run = begunRun('sound');
  const confusion = JSON.parse(readFileSync(join(fixtures, 'probe-phoneme.json'), 'utf8')) as {
    classes: string[];
  };
  writeFileSync(at('broken.json'), '{');
  writeFileSync(at('short.json'), JSON.stringify({ ...confusion, classes: ['aa'] }));
  mkdirSync(at('damaged'));
  for (const name of ['config.json', 'log.jsonl'])
    copyFileSync(join(at(run), name), join(at('damaged'), name));
  writeFileSync(join(at('damaged'), 'run.json'), '{"sittings": 3}');
  const ended = await Promise.all([mgf('report', 'empty'), mgf('report', run, '--probe', 'nowhere.json')]);
  assert.equal(
    ended.map((e) => e.status),
    [2, 1],
  );
  for (const { err } of ended) assert.is(err.split('\n').filter((l) => l.startsWith('mgf: ')).length, 1, err);
  assert.match(
    ended[0]!.err,
    /^mgf: empty is not the folder of a run \(no config\.json and no log\.jsonl\); give a folder/,
  );
  assert.match(
    ended[1]!.err,
    /Cannot read results of a probe nowhere\.json \(there is no such file or folder\)/,
  );
  await failsWith('usage', /nowhere is not the folder of a run/, () => readRunFolder(at('nowhere')));
  await failsWith('data', /run\.json is damaged/, () => readRunFolder(at('damaged')));
  await failsWith('data', /broken\.json is not JSON/, () => readProbe(at('broken.json')));
  await failsWith('data', /ablation\.json does not hold results of a probe: task/, () =>
    readProbe(join(fixtures, 'ablation.json')),
  );
  await failsWith('data', /a confusion matrix is not of its 1 classes/, () => readProbe(at('short.json')));
  await failsWith('data', /does not hold results of an ablation: preset/, () =>
    readAblation(join(fixtures, 'probe-phoneme.json')),
  );
});

test('a finished run is reported with a map of the voices that it learned from and recordings to listen to', async () => {
  const rows = ['path\tspeaker'];
  mkdirSync(at('clips'));
  for (let clip = 0; clip < 8; clip++) {
    const random = randomStream(clip);
    const pitch = clip % 2 ? 0.05 : 0.11;
    const samples = Float32Array.from(
      { length: 19200 },
      (_, i) =>
        0.3 * Math.sin(pitch * i) * Math.sin(i / (1500 + 200 * clip)) + 0.05 * (random.uniform() - 0.5),
    );
    writeFileSync(join(at('clips'), `${clip}.wav`), wav([samples]));
    rows.push(`${clip}.wav\t${clip % 2 ? 'Ada' : 'Ben'}`);
  }
  writeFileSync(join(at('clips'), 'list.tsv'), `${rows.join('\n')}\n`);
  const device = testAdapter() ? ['--adapter', testAdapter()!] : [];
  const trained = await mgf(
    'pretrain',
    'clips/list.tsv',
    '--preset',
    'nano',
    '--steps',
    '2',
    '--out',
    'run',
    '--set',
    'crop_seconds=1',
    '--set',
    'utterances_per_batch=2',
    ...device,
  );
  assert.is(trained.status, 0, trained.err);
  assert.equal(sections('run/report.html'), ['training', 'health', 'recordings', 'run', 'next']);
  const [sitting] = (
    JSON.parse(readFileSync(at('run/run.json'), 'utf8')) as { sittings: Record<string, unknown>[] }
  ).sittings;
  assert.equal(
    [sitting!['data'], sitting!['clips'], sitting!['speakers'], sitting!['step'], sitting!['preset']],
    [at('clips/list.tsv'), 8, 2, 0, 'nano'],
  );

  const told = await mgf('report', 'run', ...device);
  assert.is(told.status, 0, told.err);
  assert.match(told.out, /Report of 2 steps, 0 probes, \d\.\d\d MB: run.report\.html/);
  assert.equal(sections('run/report.html'), ['training', 'health', 'voices', 'recordings', 'run', 'next']);
  const document = page('run/report.html');
  assert.equal(
    [...document.querySelectorAll('#voices td:first-child')].map((td) => td.textContent),
    ['MGF, hidden state 2', 'log-mel', 'random weights, hidden state 2'],
  );
  assert.match(document.querySelector('#voices p')!.textContent ?? '', '8 clips of 2 voices');
  const sounds = [...document.querySelectorAll('audio')].map((a) =>
    Buffer.from(a.getAttribute('src')!.split(',')[1]!, 'base64'),
  );
  assert.is(sounds.length, 4);
  // 59 frames of 320 samples of each.
  for (const bytes of sounds) assert.is(bytes.length, 44 + 2 * 320 * 59);
  assert.match(
    document.querySelector('#run dl')!.textContent ?? '',
    /Commandmgf pretrain clips\/list\.tsv .*Data.*list\.tsv: 8 clips/,
  );

  rmSync(at('clips'), { recursive: true });
  const silent = await mgf('report', 'run', '--no-audio', '--adapter', 'gpu');
  assert.is(silent.status, 0, silent.err);
  assert.match(silent.err, /No map of voices and no recordings: There is no file or folder/);
  assert.equal(sections('run/report.html'), ['training', 'health', 'run', 'next']);
});

test.run();
