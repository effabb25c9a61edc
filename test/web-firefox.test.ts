/**
 * The page in Firefox, where one is installed: the short way through it, on lavapipe. Firefox of the system
 * is driven by puppeteer-core, which speaks WebDriver BiDi to it: playwright-core drives only a Firefox of
 * its own.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { serve } from '../web/server.ts';
import { wav } from './audio-wav.ts';
import { testAdapter } from './gpu.ts';
import { speechLike } from './harness.ts';
import { FIREFOX_PREFERENCES } from './runtimes/browsers.ts';
import { Absent, driverManifest, findBrowser } from './runtimes/find.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const LIMIT = 120_000;

/**
 * Firefox, or null after a line that says why there is none. Its compiler, naga, is under test here: lavapipe
 * is what it runs on in less time.
 */
async function launch(): Promise<Browser | null> {
  try {
    if (testAdapter() === 'swiftshader')
      throw new Absent('it runs on lavapipe, and these are the tests on SwiftShader');
    const manifest = await driverManifest('lavapipe');
    const { executable } = await findBrowser(['firefox-esr', 'firefox']);
    return await puppeteer.launch({
      browser: 'firefox',
      executablePath: executable,
      headless: true,
      env: { ...process.env, VK_DRIVER_FILES: manifest },
      extraPrefsFirefox: FIREFOX_PREFERENCES,
    });
  } catch (error) {
    if (!(error instanceof Absent)) throw error;
    console.log(`skipped: the page in Firefox: ${error.message}`);
    return null;
  }
}

const text = (page: Page, id: string): Promise<string> =>
  page.$eval(`#${id}`, (e) => (e as HTMLElement).innerText);

/**
 * Presses the button and waits until it has its first name again, which says that what it began has ended.
 */
async function through(page: Page, button: string, name: string): Promise<void> {
  await page.click(button);
  await page.waitForFunction(
    (id, wanted) =>
      document.querySelector(id)!.textContent === wanted &&
      document.querySelector(`${id}-status`)!.textContent !== '',
    {},
    button,
    name,
  );
}

test('the guide names the preferences that WebGPU needs here', async () => {
  const guide = await readFile(join(root, '..', 'docs', 'runtimes.md'), 'utf8');
  for (const name of Object.keys(FIREFOX_PREFERENCES).filter((n) => n.includes('webgpu')))
    assert.match(guide, `\`${name}\``);
});

const browser = await launch();
if (browser) {
  const { url, server } = await serve(join(root, 'web'), 0);
  const page = await browser.newPage();
  const problems: string[] = [];
  page.setDefaultTimeout(LIMIT);
  page.on('pageerror', (error) => problems.push(String(error)));
  await page.goto(url);

  test("loads, and opens a device of Firefox's own WebGPU", async () => {
    await page.waitForFunction(() => document.getElementById('device')!.dataset['state'] !== 'opening');
    assert.is(await page.$eval('#device', (e) => (e as HTMLElement).dataset['state']), 'ready');
  });

  test('a dropped file is heard: four pictures, and a reconstruction that is better than knowing nothing', async () => {
    const base64 = Buffer.from(wav([speechLike(2 * 16000, 1).map((v) => v / 4)])).toString('base64');
    await page.evaluate((content) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(
        new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], 'my voice.wav'),
      );
      document
        .getElementById('drop')!
        .dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
    }, base64);
    await page.waitForFunction(() =>
      /One sound heard/.test(document.getElementById('hears-status')!.textContent),
    );
    assert.is(
      await page.$$eval(
        '#hears-figures svg[role=img]',
        (all) => all.filter((svg) => svg.getAttribute('aria-label')?.includes('my voice')).length,
      ),
      4,
    );
    const [error = NaN, median = NaN] = [
      ...(await text(page, 'hears-figures')).matchAll(/off by (\d+\.\d+)/g),
    ].map((found) => Number(found[1]));
    assert.ok(
      error > 0.05 && error < median,
      `the reconstruction is off by ${error}, the median by ${median}`,
    );
  });

  test('twenty steps of training lower the losses', async () => {
    await page.click('#examples');
    await page.waitForFunction(() =>
      /9 sounds heard/.test(document.getElementById('hears-status')!.textContent),
    );
    await page.$eval('#train-steps', (e) => {
      (e as HTMLInputElement).value = '20';
    });
    await through(page, '#train', 'Train');
    assert.match(await text(page, 'train-status'), /^Done: 20 steps/);
    for (const scale of ['frame', 'phoneme']) {
      const label = await page.$eval(
        `[data-scale="${scale}"] svg`,
        (svg) => svg.getAttribute('aria-label') ?? '',
      );
      const [, first, last, steps] = /: ([\d.,]+) at step 1, ([\d.,]+) at step (\d+)/.exec(label) ?? [];
      assert.is(Number(steps), 20, label);
      assert.ok(Number(last) < 0.97 * Number(first), label);
    }
  });

  test('the small benchmark ends, with every kernel right', async () => {
    await page.select('#bench-size', 'small');
    await through(page, '#bench', 'Measure');
    assert.match(await text(page, 'bench-status'), /^Measured 12 of 12 .*all of them right/);
  });

  test('no script of the page failed on the way', () => {
    assert.equal(problems, []);
  });

  test.after(async () => {
    await browser.close();
    server.close();
  });
}
test.run();
