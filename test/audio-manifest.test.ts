import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readManifest, withUniqueIds } from '../src/audio/manifest.ts';
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

test('a file that links lead to again counts once, and a folder that holds itself is no trap', async () => {
  await put({ 'a/1.wav': '', 'b/2.wav': '' });
  await symlink(root, join(root, 'a', 'again'));
  await symlink(join(root, 'a/1.wav'), join(root, 'b/same.wav'));
  const { items } = await readManifest(root);
  assert.equal(
    items.map(({ id }) => id),
    ['a/1', 'b/2'],
  );
  assert.is((await readManifest(join(root, '*/*.wav'))).items.length, 2);
});

test('every broken line of a manifest is named, or left out where that is wanted', async () => {
  const good = '{"audio_filepath": "1.wav"}';
  const jsonl = await put({ 'list.jsonl': `${good}\n{"audio\n[1]\n${good}\n{"x": 1}`, '1.wav': '' });
  const message = await messageOf(() => readManifest(jsonl), 'data');
  assert.match(
    message,
    /has 3 broken lines: line 2 is not valid JSON .*; line 3 is not a JSON object; line 5/,
  );
  const { items, skipped } = await readManifest(jsonl, { skipBad: true });
  assert.equal([items.length, skipped.length], [2, 3]);
  assert.match(skipped[2]!.reason, 'line 5 has no audio_filepath');
  const many = await put({ 'many.jsonl': [good, ...new Array<string>(14).fill('{')].join('\n') });
  assert.match(await messageOf(() => readManifest(many), 'data'), /14 broken lines: .*; and 4 more/);
  const csv = await put({ 'list.csv': 'path,text\n1.wav,"good"\n1.wav,"bad" quote\n1.wav,x' });
  assert.match(await messageOf(() => readManifest(csv), 'data'), /2 broken lines: line 3 cannot be read/);
  assert.is((await readManifest(csv, { skipBad: true })).items.length, 1);
});

test('a NUL character in a name is told where it enters', async () => {
  assert.match(await messageOf(() => readManifest('a\0b.tsv'), 'data'), 'contains a NUL character');
  const tsv = await put({ 'list.tsv': 'path\n1.wav\n2\0.wav', '1.wav': '' });
  const { items, skipped } = await readManifest(tsv);
  assert.is(items.length, 1);
  assert.match(skipped[0]!.reason, 'line 3 names a path with a NUL character');
});

test('ids differ: files of one name keep the folders that tell them apart', async () => {
  await put({ 'x/a/1.wav': '', 'x/a/1.flac': '', 'x/b/2.wav': '' });
  assert.equal(
    (await readManifest(join(root, 'x'))).items.map(({ id }) => id),
    ['1.flac', '1.wav', 'b/2'],
  );
  const tsv = await put({ 'list.tsv': 'path\tid\nx/a/1.wav\tone\nx/b/2.wav\tone\nx/b/2.wav\tother' });
  assert.equal(
    (await readManifest(tsv)).items.map(({ id }) => id),
    ['1.wav', '2.wav', 'other'],
  );
  await put({ 'y/a/1.wav': '' });
  const both = [
    ...(await readManifest(join(root, 'x/a/1.wav'))).items,
    ...(await readManifest(join(root, 'y/a/1.wav'))).items,
  ];
  assert.equal(
    withUniqueIds(both).map(({ id }) => id),
    ['x/a/1.wav', 'y/a/1.wav'],
  );
  const segments = await put({ 's.tsv': 'path\tid\toffset\nx/a/1.wav\ts\t0\nx/a/1.wav\ts\t2' });
  assert.equal(
    (await readManifest(segments)).items.map(({ id }) => id),
    ['1.wav#0', '1.wav#2'],
  );
});

test('a channel is that of the row, else that of the list', async () => {
  const tsv = await put({ 'list.tsv': 'path\tchannel\n1.wav\tright\n2.wav\t', '1.wav': '', '2.wav': '' });
  const { items } = await readManifest(tsv, { channel: 0 });
  assert.equal(
    items.map(({ channel }) => channel),
    ['right', 0],
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
  assert.match(
    await say(json),
    /bad\.jsonl" has a broken line: line 2 is not valid JSON \(.*\)\. Mend them, or/,
  );
  const keys = await put({ 'keys.jsonl': '{"wave": "a.wav", "text": "b"}\n' });
  assert.is(
    await say(keys),
    `"${keys}" has a broken line: line 1 has no audio_filepath (or path, audio, file); its keys are ` +
      'wave, text. Mend them, or leave them out (--skip-bad).',
  );
  const other = await put({ 'other.bin': 'x' });
  assert.is(
    await say(other),
    `"${other}" is neither an audio file (${endings}) nor a manifest (.tsv, .csv, .jsonl, .json, ` +
      '.ndjson, .manifest, .txt).',
  );
});

test.run();
