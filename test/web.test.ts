/**
 * The page in real browsers: the embedded Chromium, and Debian's where it is installed. WebGPU is SwiftShader
 * in both.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { builtinModules } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium, type Browser, type Page } from 'playwright-core';
import { suite, test } from 'uvu';
import * as assert from 'uvu/assert';
import { framesOf, presetConfig, Pretrainer } from '../src/index.ts';
import { checkpointConfig } from '../src/pretrain/checkpoint.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import { drawBatch, planRun } from '../web/batches.ts';
import { madeUpSounds } from '../web/clips.ts';
import { serve } from '../web/server.ts';
import { fixture, wav } from './audio-wav.ts';
import { openTestGpu } from './gpu.ts';
import { failsWith, speechLike } from './harness.ts';

const dist = join(dirname(fileURLToPath(import.meta.url)), '..');
const root = join(dist, '..');

test('the bundles of the page hold no Node module, and nothing that only the command line needs', async () => {
  const { metafile } = await build({
    absWorkingDir: root,
    bundle: true,
    platform: 'browser',
    format: 'esm',
    splitting: true,
    outdir: 'unused',
    write: false,
    metafile: true,
    logLevel: 'silent',
    loader: { '.wgsl': 'text' },
    target: 'es2022',
    entryPoints: ['web/main.ts', 'web/worker.ts'],
  });
  const outputs = Object.values(metafile.outputs);
  const inputs = outputs.flatMap((o) => Object.keys(o.inputs));
  assert.equal(
    outputs
      .flatMap((o) => o.imports)
      .filter((i) => i.external || i.path.startsWith('node:') || builtinModules.includes(i.path)),
    [],
  );
  assert.ok(inputs.some((i) => i.endsWith('src/mgf/pretrainer.ts')));
  assert.equal(
    inputs.filter((i) => /node_modules\/(webgpu|commander|csv-parse|linkedom|@viz-js)\/|src\/cli\//.test(i)),
    [],
  );
});

test('a batch of the page is what a training step takes, the same for the same step', async () => {
  const waves = madeUpSounds().map((s) => s.wave);
  const plan = planRun(waves, 'nano-mel', 0.64, 10);
  const { mgf, train } = plan.run;
  const gpu = await openTestGpu();
  assert.ok(plan.pieces.length > waves.length, 'long sounds give several stretches');
  assert.equal(drawBatch(plan, 3), drawBatch(plan, 3));
  assert.not.equal(drawBatch(plan, 3).wave, drawBatch(plan, 4).wave);
  const batch = drawBatch(plan, 0);
  const T = framesOf(batch.wave.length / (2 * train.utterances_per_batch), mgf);
  assert.is(new Set(batch.utterances).size, train.utterances_per_batch);
  assert.ok(batch.maskedFrames > 0 && batch.mask.length === 2 * train.utterances_per_batch * T);
  const model = await Pretrainer.create(gpu, plan.run);
  const { total } = await model.step([batch], { step: 0, learningRate: 0 });
  assert.ok(total > 0 && Number.isFinite(total));
  model.destroy();
});

test('few sounds are trained on by shorter crops, and too little sound is refused in a sentence', async () => {
  const wave = speechLike(3 * 16000, 1);
  assert.is(planRun([wave], 'nano', 1.92, 10).run.train.crop_seconds, 0.64);
  assert.is(
    planRun(
      Array.from({ length: 4 }, (_, i) => speechLike(4 * 16000, i)),
      'nano',
      1.92,
      10,
    ).run.train.crop_seconds,
    1.92,
  );
  await failsWith('data', /two different stretches/, () =>
    planRun([wave.subarray(0, 8000)], 'nano', 1.92, 10),
  );
});

// -------------------------------------------------------------------------------------------------- browsers

interface Candidate {
  name: string;
  path(): Promise<string> | string;
  journey: 'all' | 'short';
}
type Embedded = { default: { executablePath(): Promise<string> } };
const candidates: Candidate[] = [
  {
    name: 'the embedded Chromium',
    journey: 'all',
    path: async () => ((await import('@sparticuz/chromium')) as Embedded).default.executablePath(),
  },
  ...['/usr/bin/chromium']
    .filter(existsSync)
    .map((path): Candidate => ({ name: 'Chromium of the system', journey: 'short', path: () => path })),
];
const FAKE_MICROPHONE = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

const launch = (executablePath: string, ...args: string[]): Promise<Browser> =>
  chromium.launch({
    executablePath,
    headless: true,
    chromiumSandbox: false,
    args: ['--no-sandbox', ...FAKE_MICROPHONE, ...args],
  });

/** Why no test of a browser ran; a machine may lack the libraries that Chromium links. */
const skipped = (name: string, error: unknown): void =>
  console.log(
    `skipped: the page in ${name}: it does not start here (${
      String((error as Error).message)
        .split('\n')
        .find((l) => /error|cannot|missing|not found/i.test(l)) ?? String(error).split('\n')[0]
    })`,
  );

const { url, server } = await serve(join(dist, 'web'), 0);

/** A page that notes what goes wrong on it, and every address that it asks for. */
async function open(
  browser: Browser,
  options: { width?: number; before?: () => void } = {},
): Promise<{ page: Page; problems: string[]; requests: string[] }> {
  const context = await browser.newContext({
    viewport: { width: options.width ?? 1280, height: 900 },
    acceptDownloads: true,
    reducedMotion: 'reduce',
  });
  const page = await context.newPage();
  const problems: string[] = [];
  const requests: string[] = [];
  page.on('console', (m) => {
    if (m.type() === 'error') problems.push(m.text());
  });
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('request', (r) => requests.push(r.url()));
  if (options.before) await page.addInitScript(options.before);
  page.setDefaultTimeout(60_000);
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById('device')!.dataset['state'] !== 'opening');
  return { page, problems, requests };
}

/** Drops files onto the page, as a hand would. */
async function drop(page: Page, ...files: Array<{ name: string; bytes: Uint8Array }>): Promise<void> {
  const transfer = await page.evaluateHandle(
    (list) => {
      const data = new DataTransfer();
      for (const { name, base64 } of list)
        data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name));
      return data;
    },
    files.map(({ name, bytes }) => ({ name, base64: Buffer.from(bytes).toString('base64') })),
  );
  await page.dispatchEvent('#drop', 'drop', { dataTransfer: transfer });
}

const speech = (seconds: number, seed: number): Uint8Array =>
  wav([speechLike(seconds * 16000, seed).map((v) => v / 4)]);
const text = (page: Page, id: string): Promise<string> => page.locator(`#${id}`).innerText();
const heard = (page: Page, n: number): Promise<unknown> =>
  page.waitForFunction(
    (count) =>
      new RegExp(count === 1 ? 'One sound heard' : `${count} sounds heard`).test(
        document.getElementById('hears-status')!.textContent,
      ),
    n,
  );
/** Presses the button and waits until it has its first name again. */
async function through(page: Page, button: string, name: string): Promise<void> {
  await page.click(button);
  await page.waitForFunction(
    ([id, wanted]) =>
      document.querySelector(id!)!.textContent === wanted &&
      document.querySelector(`${id!}-status`)!.textContent !== '',
    [button, name],
  );
}

/** Values that the drawing of a scale tells screen readers: at the first and at the last step. */
async function losses(page: Page, scale: string): Promise<{ first: number; last: number; steps: number }> {
  const label = await page.locator(`[data-scale="${scale}"] svg`).getAttribute('aria-label');
  const found = /: ([\d.,]+) at step 1, ([\d.,]+) at step (\d+)/.exec(label ?? '');
  assert.ok(found, `the curve of the ${scale} scale says "${label}"`);
  return { first: Number(found![1]), last: Number(found![2]), steps: Number(found![3]) };
}

const found: Array<Candidate & { executable: string; browser: Browser }> = [];
for (const candidate of candidates) {
  try {
    const executable = await candidate.path();
    found.push({ ...candidate, executable, browser: await launch(executable, '--enable-unsafe-webgpu') });
  } catch (error) {
    skipped(candidate.name, error);
  }
}
// All suites are registered in one turn, so that they run one after the other.
test.run();

for (const { name, browser, executable, journey } of found) {
  const it = suite(name);
  let page: Page;
  let problems: string[];
  let requests: string[];
  it.before(async () => {
    ({ page, problems, requests } = await open(browser));
  });
  it.after(() => browser.close());

  it('loads, and names its device', async () => {
    assert.is(await page.locator('#device').getAttribute('data-state'), 'ready');
    assert.match(await text(page, 'device'), /swiftshader, in software/i);
    assert.equal(problems, []);
  });

  it('a dropped file is heard: spectrogram, reconstruction, similarity and features, with a name each', async () => {
    await drop(page, { name: 'my voice.wav', bytes: speech(2, 1) });
    await heard(page, 1);
    assert.equal(await page.locator('#clips .choose b').allInnerTexts(), ['my voice']);
    assert.equal(await page.locator('#hears-figures h3').allInnerTexts(), [
      'What was said',
      'What is left of it inside',
      'Its moments, compared',
      'Its features',
    ]);
    const labels = await page
      .locator('#hears-figures svg[role=img]')
      .evaluateAll((all) => all.map((svg) => svg.getAttribute('aria-label') ?? ''));
    assert.is(labels.filter((l) => l.includes('my voice')).length, 4);
    const [error = NaN, median = NaN] = [
      ...(await text(page, 'hears-figures')).matchAll(/off by (\d+\.\d+)/g),
    ].map((found) => Number(found[1]));
    assert.ok(
      error > 0.05 && error < median,
      `the reconstruction is off by ${error}, the median by ${median}`,
    );
    // Drawn from numbers that differ: one colour alone would be a blank picture.
    const colours = await page.locator('#hears-figures svg image').evaluateAll((all) =>
      Promise.all(
        all.map(async (image) => {
          const picture = new Image();
          const canvas = document.createElement('canvas');
          picture.src = image.getAttribute('href')!;
          await picture.decode();
          [canvas.width, canvas.height] = [picture.width, picture.height];
          const context = canvas.getContext('2d')!;
          context.drawImage(picture, 0, 0);
          return new Set(new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer))
            .size;
        }),
      ),
    );
    assert.ok(colours.length === 4 && colours.every((n) => n > 50), colours.join());
  });

  if (journey === 'all') {
    it('the nearest sound to a reader is the same reader, and every sound is on the map', async () => {
      await page.click('#clips [aria-label="Remove my voice"]');
      await page.click('#examples');
      await heard(page, 8);
      await page.waitForSelector('#voices-figures .nearest');
      for (const [reader, other] of [
        ['Reader 2412, one', 'Reader 2412, two'],
        ['Reader 6476, two', 'Reader 6476, one'],
      ]) {
        await page.click(`#clips .choose:has-text("${reader!}")`);
        await page.waitForFunction(
          (wanted) => document.querySelector('#voices-figures h3')?.textContent === `Nearest to ${wanted!}`,
          reader,
        );
        assert.is(await page.locator('#voices-figures .nearest b').first().innerText(), other);
      }
      assert.is(
        (await page.locator('#voices-figures .map circle[r="6.5"]').count()) ||
          (await page
            .locator('#voices-figures .map g circle')
            .evaluateAll((all) => all.filter((c) => c.getAttribute('r') === '6.5').length)),
        8,
      );
    });

    it('the reconstruction can be played: a waveform is found for it', async () => {
      await page.click('#hears-figures button[aria-label^="Play the reconstruction"]');
      await page.waitForSelector('#hears-figures button[aria-label^="Stop the reconstruction"]');
      await page.waitForFunction(
        () => document.querySelector('#hears-figures button[aria-label^="Play the reconstruction"]') !== null,
      );
      assert.is(await page.locator('.status.error').count(), 0);
    });

    it('twenty steps of training lower the loss, and the weights can be saved', async () => {
      await page.fill('#train-steps', '20');
      await through(page, '#train', 'Train');
      assert.match(await text(page, 'train-status'), /^Done: 20 steps/);
      for (const scale of ['frame', 'phoneme']) {
        const { first, last, steps } = await losses(page, scale);
        assert.is(steps, 20);
        assert.ok(last < 0.97 * first, `${scale}: ${first} to ${last}`);
      }
      const [download] = await Promise.all([page.waitForEvent('download'), page.click('#train-save')]);
      const { metadata, tensors } = readSafetensors(await readFile(await download.path()), {
        origin: 'the saved file',
      });
      const { mgf, train } = checkpointConfig({ path: 'the saved file', metadata });
      assert.equal([mgf.frontend, mgf.hidden_size, train.steps], ['mel', 32, 20]);
      assert.ok(
        [...tensors.values()].every((t) => (t.data as Float32Array).every(Number.isFinite)) &&
          tensors.size > 50,
      );
    });

    it('the small benchmark ends: every kernel checked, timed and drawn under its ceilings', async () => {
      await page.selectOption('#bench-size', 'small');
      await through(page, '#bench', 'Measure');
      assert.match(await text(page, 'bench-status'), /^Measured 12 of 12 .*all of them right/);
      const shares = await page.locator('#bench-result tbody tr td:nth-child(5)').allInnerTexts();
      assert.is(shares.length, 12);
      assert.ok(
        shares.every((s) => parseFloat(s) > 0 && parseFloat(s) < 300),
        shares.join(),
      );
      assert.match(
        (await page.locator('#bench-result svg').getAttribute('aria-label')) ?? '',
        /^Roofline of .*swiftshader/,
      );
    });

    it('asked for nothing but what it was served with', () => {
      assert.equal(
        [
          ...new Set(
            requests
              .filter((r) => !r.startsWith('data:') && !r.startsWith('blob:'))
              .map((r) => new URL(r).origin),
          ),
        ],
        [new URL(url).origin],
      );
    });

    it('every control has a name, every picture too, and headings follow each other', async () => {
      const nameless = await page
        .locator('button, input, select, a, [role=img], img, progress')
        .evaluateAll((all) =>
          all
            .filter((e) => {
              const labels = (e as HTMLInputElement).labels;
              const named =
                e.getAttribute('aria-label') ??
                (labels?.length ? labels[0]!.textContent : (e.getAttribute('alt') ?? e.textContent));
              return !named?.trim();
            })
            .map((e) => e.outerHTML.slice(0, 100)),
        );
      assert.equal(nameless, []);
      const levels = await page
        .locator('h1, h2, h3')
        .evaluateAll((all) =>
          all.filter((h) => h.getClientRects().length > 0).map((h) => Number(h.tagName[1])),
        );
      assert.ok(levels[0] === 1 && levels.every((l, i) => i === 0 || l <= levels[i - 1]! + 1), levels.join());
      const ids = await page.locator('[id]').evaluateAll((all) => all.map((e) => e.id));
      assert.is(new Set(ids).size, ids.length);
    });

    it('the keyboard reaches files, sounds, training and measurement, and shows where it is', async () => {
      await page.evaluate(() => {
        document.body.tabIndex = -1;
        document.body.focus();
        window.scrollTo(0, 0);
      });
      const reached: string[] = [];
      const unseen: string[] = [];
      for (let i = 0; i < 70; i++) {
        await page.keyboard.press('Tab');
        const at = await page.evaluate(() => {
          const e = document.activeElement!;
          const shown = e.id === 'files' ? document.querySelector('label[for=files]')! : e;
          return {
            tag: e.tagName,
            name: e.id || e.getAttribute('aria-label') || e.textContent!.trim().slice(0, 20),
            outline: getComputedStyle(shown).outlineStyle,
          };
        });
        reached.push(at.name);
        // Past the last control the focus is the browser's own.
        if (at.outline === 'none' && at.tag !== 'BODY') unseen.push(at.name);
      }
      for (const wanted of [
        'files',
        'record',
        'examples',
        'Play Reader 2412, one',
        'train-preset',
        'train',
        'bench-size',
        'bench',
      ])
        assert.ok(reached.includes(wanted), `${wanted} is not among ${reached.join(', ')}`);
      assert.equal(unseen, []);
      // Sounds are chosen without a mouse.
      await page.focus('#clips li:nth-child(3) .choose');
      await page.keyboard.press('Enter');
      assert.is(await page.locator('#clips li:nth-child(3) .choose').getAttribute('aria-pressed'), 'true');
    });

    it('fits a phone: nothing sticks out at 390 pixels', async () => {
      await page.setViewportSize({ width: 390, height: 844 });
      await page.waitForFunction(
        () => (document.querySelector('#hears-figures svg')?.clientWidth ?? 390) < 390,
      );
      assert.is(await page.evaluate(() => document.documentElement.scrollWidth), 390);
      await page.setViewportSize({ width: 1280, height: 900 });
    });

    it('a damaged file and silence are refused in a sentence; the others of a drop are kept', async () => {
      await drop(
        page,
        { name: 'broken.mp3', bytes: new Uint8Array(2000).fill(7) },
        { name: 'silence.wav', bytes: wav([new Float32Array(16000)]) },
        { name: 'sound.wav', bytes: speech(1, 4) },
      );
      await page.waitForSelector('#sounds-status.error');
      const said = await text(page, 'sounds-status');
      for (const part of [/broken\.mp3/, /silen/i, /the other file is there/i]) assert.match(said, part);
      assert.is(await page.locator('#clips .choose b', { hasText: 'sound' }).count(), 1);
    });

    it('records from the microphone', async () => {
      await page.click('#record');
      await page.waitForSelector('#record.recording');
      await page.waitForTimeout(1500);
      await page.click('#record');
      await page.waitForSelector('#clips .choose:has-text("Recording 1")');
    });

    it('says that its device is lost, opens a new one without being loaded anew, and works on', async () => {
      await page.fill('#train-steps', '5000');
      await page.click('#train');
      await page.waitForSelector('#train-figures svg');
      const session = await browser.newBrowserCDPSession();
      const { processInfo } = await session.send('SystemInfo.getProcessInfo');
      process.kill(processInfo.find((p) => p.type === 'GPU')!.id, 'SIGKILL');
      await page.waitForSelector('#notice:has-text("was lost")');
      await page.waitForFunction(() => document.getElementById('device')!.dataset['state'] === 'ready');
      assert.match(await text(page, 'notice'), /a new one is open/);
      await page.waitForSelector('#train-status.error');
      assert.match(await text(page, 'train-status'), /device was lost.*press Train/);
      await drop(page, { name: 'afterwards.wav', bytes: speech(1, 9) });
      await page.click('#clips .choose:has-text("afterwards")');
      await page.waitForFunction(() =>
        document.querySelector('#hears-figures svg')?.getAttribute('aria-label')?.includes('afterwards'),
      );
      await page.fill('#train-steps', '5');
      await through(page, '#train', 'Train');
      assert.match(await text(page, 'train-status'), /^Done: 5 steps/);
      await page.click('#notice button');
      assert.not(await page.isVisible('#notice'));
    });

    it('decodes by the engine what the browser cannot decode', async () => {
      const other = await open(browser, {
        before: () => {
          OfflineAudioContext.prototype.decodeAudioData = () => Promise.reject(new Error('no such format'));
        },
      });
      for (const file of ['tone.opus', 'tone-44k-stereo.flac', 'tone.mp3']) {
        await drop(other.page, { name: file, bytes: await readFile(fixture(file)) });
        await other.page.waitForSelector(`#clips .choose:has-text("${file.replace(/\.\w+$/, '')}")`);
      }
      assert.equal(other.problems, []);
      await other.page.close();
    });

    it('explains itself without WebGPU, and still takes sounds', async () => {
      const without = await launch(executable);
      try {
        const bare = await open(without);
        assert.is(await bare.page.locator('#device').getAttribute('data-state'), 'missing');
        const said = await text(bare.page, 'notice');
        for (const part of [
          /WebGPU is missing/,
          /Chrome and Edge/,
          /Safari/,
          /Firefox/,
          /--enable-unsafe-webgpu/,
        ])
          assert.match(said, part);
        await drop(bare.page, { name: 'one.wav', bytes: speech(1, 2) });
        await bare.page.waitForSelector('#clips .choose:has-text("one")');
        assert.ok((await bare.page.isDisabled('#train')) && (await bare.page.isDisabled('#bench')));
        assert.equal(bare.problems, []);
      } finally {
        await without.close();
      }
    });
  }

  it('runs the page without a bundler, examples/apps/browser.html', async () => {
    const small = createServer((request, response) => {
      const path = new URL(request.url!, 'http://page').pathname;
      const file =
        path === '/'
          ? 'examples/apps/browser.html'
          : path.startsWith('/mgf/')
            ? `dist/page/${path.slice(5)}`
            : `models${path}`;
      readFile(join(root, file)).then(
        (bytes) =>
          response
            .setHeader(
              'content-type',
              file.endsWith('.js')
                ? 'text/javascript'
                : file.endsWith('.html')
                  ? 'text/html'
                  : 'application/octet-stream',
            )
            .end(bytes),
        () => response.writeHead(404).end(),
      );
    }).listen(0, '127.0.0.1');
    const context = await browser.newContext();
    const bare = await context.newPage();
    try {
      await bare.goto(`http://127.0.0.1:${(small.address() as AddressInfo).port}/`);
      await bare.setInputFiles('input', {
        name: 'one.wav',
        mimeType: 'audio/wav',
        buffer: Buffer.from(speech(2, 1)),
      });
      await bare.waitForFunction(() => /frames of/.test(document.querySelector('output')!.value), undefined, {
        timeout: 60_000,
      });
      const said = await bare.evaluate(() => document.querySelector('output')!.value);
      const [, frames, on] = /^(\d+) frames of 192 numbers on (.*)$/.exec(said) ?? [];
      assert.is(Number(frames), framesOf(2 * 16000, presetConfig('tiny-mel')), said);
      assert.match(on!, /swiftshader/i);
    } finally {
      await context.close();
      small.close();
    }
  });

  it('had nothing to complain of all the while', () => {
    // The browser itself tells of a graphics process that was killed.
    assert.equal(
      problems.filter((p) => !/external Instance|GPU process|context/i.test(p)),
      [],
    );
  });
  it.run();
}

const end = suite('the server');
end(
  'is closed',
  () =>
    new Promise<void>((done) => {
      server.close(() => done());
    }),
);
end.run();
