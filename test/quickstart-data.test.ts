import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  fetchQuickstartSpeech,
  nonSpeech,
  parseCopyright,
  parsePrompts,
} from '../src/cli/quickstart-data.ts';
import type { MGFError } from '../src/errors.ts';

const COPYRIGHT = `Format: http://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2003-2010, Allison Smith
Comment: The CREDITS file:
 Recorded by:
 Allison Smith (http://example.org)
 .
 License: CC-BY-SA-3.0
License: CC-BY-SA-3.0

Files: it-*
Copyright: 2012 Carlo Flora, <http://example.org>
License: CC-BY-3.0

Files: debian/*
Copyright: 2010, A Packager <a@example.org>
License: GPL-2+
    it-* in the text of a licence means nothing

License: CC-BY-SA-3.0
 THE WORK
`;

test('licence and voice come from the paragraph of the language, or else from the general one', () => {
  assert.equal(parseCopyright(COPYRIGHT, 'en'), { licence: 'CC BY-SA 3.0', voice: 'Allison Smith' });
  assert.equal(parseCopyright(COPYRIGHT, 'es'), { licence: 'CC BY-SA 3.0', voice: 'Allison Smith' });
  assert.equal(parseCopyright(COPYRIGHT, 'it'), { licence: 'CC BY 3.0', voice: 'Carlo Flora' });
});

test('recordings whose copyright file names no licence are refused', () => {
  assert.throws(
    () => parseCopyright('Files: fr-*\nCopyright: 2006, Somebody\n', 'fr'),
    (error: MGFError) => error.code === 'data' && /--data FOLDER/.test(error.message),
  );
});

test('prompts are read with byte order mark, comments, empty texts and colons in them', () => {
  const prompts = parsePrompts(
    '\uFEFF; Core: sounds\r\n\r\nactivated: Activated.\r\ndigits/1: uno\ndir-welcome:\noptions: You ' +
      'have:  two options \n',
  );
  assert.equal(
    [...prompts],
    [
      ['activated', 'Activated.'],
      ['digits/1', 'uno'],
      ['options', 'You have: two options'],
    ],
  );
});

test('only prompts that stand wholly in brackets are no speech', () => {
  const prompts = parsePrompts(
    'beep: [a beep]\njoin: <beep>\nsilence/1: (1 second of silence)\nletters/at: at [@]\nvm: (a) or ' +
      '(b)\nspy: IAX (note)\n',
  );
  assert.equal([...nonSpeech(prompts)], ['beep', 'join', 'silence/1']);
});

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'quickstart-'));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function withPath(path: string, body: () => Promise<void>): Promise<void> {
  const before = process.env['PATH'];
  process.env['PATH'] = path;
  try {
    await body();
  } finally {
    process.env['PATH'] = before;
  }
}

async function failure(promise: Promise<unknown>): Promise<MGFError> {
  return promise.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: MGFError) => error,
  );
}

test('a machine without apt-get is told to bring its own folder, and nothing is left behind', () =>
  inFolder(async (folder) => {
    await withPath(join(folder, 'no-programs'), async () => {
      const error = await failure(fetchQuickstartSpeech({ cacheDir: join(folder, 'cache') }));
      assert.is(error.code, 'data');
      assert.match(
        error.message,
        /apt-get .* not on this machine; pass your own recordings with `--data FOLDER`/,
      );
    });
    assert.equal(await readdir(join(folder, 'cache')), []);
  }));

test('an archive that cannot be reached is one sentence with the reason apt-get gave', () =>
  inFolder(async (folder) => {
    const bin = join(folder, 'bin');
    await mkdir(bin);
    await writeFile(
      join(bin, 'apt-get'),
      '#!/bin/sh\necho "W: a warning" >&2\necho "E: Failed to fetch it" >&2\nexit 100\n',
      { mode: 0o755 },
    );
    await withPath(`${bin}:/bin:/usr/bin`, async () => {
      const error = await failure(fetchQuickstartSpeech({ cacheDir: join(folder, 'cache') }));
      assert.is(error.code, 'data');
      assert.match(
        error.message,
        '(Failed to fetch it); go online and try again, or pass your own recordings with `--data FOLDER`.',
      );
    });
    assert.equal(await readdir(join(folder, 'cache')), []);
  }));

test('a whole cache is used as it is, and one with a missing recording is not', () =>
  inFolder(async (folder) => {
    await writeFile(join(folder, 'a.wav'), '');
    await writeFile(
      join(folder, 'speech.tsv'),
      'path\tspeaker\ttranscript\tlanguage\tlicence\na.wav\tA\t\ten\tCC0\n',
    );
    await writeFile(
      join(folder, 'speech.json'),
      JSON.stringify({ layout: 1, licences: ['a: CC0'], files: 1, minutes: 2 }),
    );
    await withPath(join(folder, 'no-programs'), async () => {
      assert.equal(await fetchQuickstartSpeech({ cacheDir: folder }), {
        folder,
        manifest: join(folder, 'speech.tsv'),
        licences: ['a: CC0'],
        files: 1,
        minutes: 2,
      });
      await rm(join(folder, 'a.wav'));
      assert.is((await failure(fetchQuickstartSpeech({ cacheDir: folder }))).code, 'data');
    });
  }));

test.run();
