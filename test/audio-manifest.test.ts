import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readManifest } from '../src/audio/manifest.ts';
import { messageOf } from './audio-wav.ts';

const test = suite('manifests');
let root = '';

/** Writes files (empty unless given text) below the temporary folder and returns the path of the first. */
async function put(files: Record<string, string>): Promise<string> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), text);
  }
  return join(root, Object.keys(files)[0]!);
}

test.before.each(async () => {
  root = await mkdtemp(join(tmpdir(), 'mgf-manifest-'));
});
test.after.each(() => rm(root, { recursive: true, force: true }));

test('a folder gives every audio file below it, in order of name, whatever the case of its ending', async () => {
  await put({ 'b/2.FLAC': '', 'b/10.wav': '', 'a.mp3': '', 'c/d/e.opus': '', 'c/notes.txt': '' });
  const { items, skipped } = await readManifest(root);
  assert.equal(
    items.map(({ id }) => id),
    ['a', 'b/10', 'b/2', 'c/d/e'],
  );
  assert.is(items[1]!.path, join(root, 'b/10.wav'));
  assert.equal(skipped, []);
});

test('a single file and a glob are taken as they are', async () => {
  await put({ 'x/1.wav': '', 'x/2.wav': '', 'x/2.txt': '', 'y/3.wav': '' });
  assert.equal((await readManifest(join(root, 'x/1.wav'))).items, [
    { path: join(root, 'x/1.wav'), id: '1', columns: {} },
  ]);
  assert.equal(
    (await readManifest(join(root, '*/[12].*'))).items.map(({ path }) => path),
    [join(root, 'x/1.wav'), join(root, 'x/2.wav')],
  );
});

test('a TSV is read without quoting, with speaker, text and length, and keeps its columns', async () => {
  const tsv = await put({
    'data.tsv': 'path\tduration_samples\tspeaker\ttranscript\nclips/1.wav\t32000\tann\tshe said "no\n',
    'clips/1.wav': '',
  });
  assert.equal((await readManifest(tsv)).items, [
    {
      path: join(root, 'clips/1.wav'),
      id: 'clips/1',
      samples: 32000,
      speaker: 'ann',
      text: 'she said "no',
      columns: { path: 'clips/1.wav', duration_samples: '32000', speaker: 'ann', transcript: 'she said "no' },
    },
  ]);
});

test('a CSV may quote its fields, start with a byte order mark and name the path column file or audio', async () => {
  const csv = await put({
    'data.csv': '\uFEFFaudio,text,offset,duration\r\n"a, b.wav","one, ""two""",1.5,2\r\n',
    'a, b.wav': '',
  });
  const [item] = (await readManifest(csv)).items;
  assert.is(item!.path, join(root, 'a, b.wav'));
  assert.is(item!.text, 'one, "two"');
  assert.is(item!.offset, 1.5);
  assert.is(item!.duration, 2);
  assert.is(item!.samples, 32000);
  assert.is(item!.id, 'a, b#1.5');
});

test('paths are looked for beside the manifest, up to two folders above it and in audio/ beside it', async () => {
  await put({ 'wav/1.wav': '' });
  for (const name of ['m.tsv', 'sub/m.tsv', 'sub/sub/m.tsv']) {
    const tsv = await put({ [name]: 'path\nwav/1.wav\n' });
    assert.is((await readManifest(tsv)).items[0]!.path, join(root, 'wav/1.wav'), name);
  }
  const tsv = await put({ 'set/m.tsv': 'path\n1.wav\n', 'set/audio/1.wav': '' });
  assert.is((await readManifest(tsv)).items[0]!.path, join(root, 'set/audio/1.wav'));
});

test('a fairseq manifest names its root on the first line, absolute or relative', async () => {
  await put({ 'corpus/a/1.flac': '', 'corpus/a/2.flac': '' });
  for (const folder of [join(root, 'corpus'), 'corpus']) {
    const tsv = await put({ 'train.tsv': `${folder}\na/1.flac\t16000\na/2.flac\t48000\n` });
    const { items } = await readManifest(tsv);
    assert.equal(
      items.map(({ path, samples }) => [path, samples]),
      [
        [join(root, 'corpus/a/1.flac'), 16000],
        [join(root, 'corpus/a/2.flac'), 48000],
      ],
    );
  }
});

test('a NeMo manifest gives segments with offset, duration, text and speaker', async () => {
  const jsonl = await put({
    'm.jsonl':
      '{"audio_filepath": "long.wav", "offset": 3.25, "duration": 2.5, "text": "hello", "speaker": 7, ' +
      '"extra": null}\n\n{"audio_filepath": "long.wav", "duration": 9}\n',
    'long.wav': '',
  });
  const { items } = await readManifest(jsonl);
  assert.is(items.length, 2);
  assert.equal(items[0], {
    path: join(root, 'long.wav'),
    id: 'long#3.25',
    offset: 3.25,
    duration: 2.5,
    samples: 40000,
    speaker: '7',
    text: 'hello',
    columns: { audio_filepath: 'long.wav', offset: '3.25', duration: '2.5', text: 'hello', speaker: '7' },
  });
  assert.is(items[1]!.offset, undefined);
});

test('rows without a file are skipped with their reason, the others kept', async () => {
  const tsv = await put({
    'm.tsv': 'path\tduration\n1.wav\t1\nmissing.wav\t1\n\t2\n1.wav\t-3\n1.wav\tabc\n',
    '1.wav': '',
  });
  const { items, skipped } = await readManifest(tsv);
  assert.is(items.length, 1);
  assert.equal(
    skipped.map(({ path, reason }) => `${path === tsv ? 'm.tsv' : path}: ${reason}`),
    [
      'missing.wav: no such file',
      'm.tsv: line 4 names no audio file',
      '1.wav: line 5 has an impossible offset or duration',
      '1.wav: line 6 has an impossible offset or duration',
    ],
  );
});

test('what cannot be read gives one sentence each', async () => {
  const endings = '.wav, .wave, .flac, .mp3, .ogg, .oga, .opus';
  const say = (spec: string) => messageOf(() => readManifest(spec), 'data');
  assert.is(
    await say('/nowhere'),
    'There is no file or folder "/nowhere"; give a folder of audio files, a manifest (TSV, CSV, ' +
      'JSONL), an audio file or a glob.',
  );
  assert.is(
    await say(root),
    `No audio files found in "${root}" or the folders below it; files ending in ${endings} are looked for.`,
  );
  assert.is(
    await say(join(root, '*.wav')),
    `No audio files match "${join(root, '*.wav')}"; files ending in ${endings} are looked for.`,
  );
  const columns = await put({ 'columns.tsv': 'name\tlength\nx\t1\n' });
  assert.is(
    await say(columns),
    `The manifest "${columns}" has no column with audio paths (path, audio, file, audio_filepath); its ` +
      'columns are name, length.',
  );
  const empty = await put({ 'empty.csv': '\n' });
  assert.is(await say(empty), `The manifest "${empty}" is empty.`);
  const header = await put({ 'header.csv': 'path\n' });
  assert.is(await say(header), `The manifest "${header}" names no audio file.`);
  const gone = await put({ 'gone.tsv': 'path\na.wav\nb.wav\n' });
  assert.is(
    await say(gone),
    `The manifest "${gone}" lists 2 files, none of which exists; "a.wav" was looked for in ` +
      `${root}, ${dirname(root)}, ${dirname(dirname(root))}, ${join(root, 'audio')}.`,
  );
  const json = await put({ 'bad.jsonl': '{"audio_filepath": "a.wav"}\n{oops\n' });
  assert.match(await say(json), /^Line 2 of ".*bad\.jsonl" is not valid JSON \(.*\)\.$/);
  const keys = await put({ 'keys.jsonl': '{"wave": "a.wav", "text": "b"}\n' });
  assert.is(
    await say(keys),
    `Line 1 of "${keys}" has no audio_filepath (or path, audio, file); its keys are wave, text.`,
  );
  const other = await put({ 'other.bin': 'x' });
  assert.is(
    await say(other),
    `"${other}" is neither an audio file (${endings}) nor a manifest (.tsv, .csv, .jsonl, .json, ` +
      '.ndjson, .manifest, .txt).',
  );
});

test.run();
