/**
 * The suite in browsers: a server for the page and its files, and a browser that opens it. The page posts
 * what it finds.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { chromium } from 'playwright-core';
import type { Found } from './find.ts';
import type { Plan } from './plan.ts';
import type { Finding } from './suite.ts';

const PAGE =
  '<!doctype html><meta charset="utf-8"><title>mgf</title><link rel="icon" href="data:,"><script ' +
  'type="module" src="/dist/test/runtimes/page.js"></script>\n';
const SERVED = /^\/(dist|test\/golden|models)\/[\w./-]+$/;

/**
 * Runs the suite in a page that `open` shows. Rejects with what the page says went wrong, when the browser
 * ends before the page is done, and after `limitMs`.
 */
export async function runPage(
  root: string,
  plan: Plan,
  limitMs: number,
  tell: (finding: Finding) => void,
  note: (text: string) => void,
  open: (url: string) => Promise<Opened>,
): Promise<void> {
  let done!: () => void;
  let failed!: (error: Error) => void;
  const finished = new Promise<void>((resolve, reject) => {
    done = resolve;
    failed = reject;
  });
  const server = createServer((request, response) => {
    void (async () => {
      const path = normalize(new URL(request.url!, 'http://page').pathname);
      if (request.method === 'POST') {
        const body = JSON.parse(await textOf(request)) as unknown;
        response.end();
        if (path === '/finding') tell(body as Finding);
        else if (path === '/note') note(body as string);
        else if (body === null) done();
        else failed(new Error(String(body)));
      } else if (path === '/' || path === '/plan') {
        response
          .setHeader('content-type', path === '/' ? 'text/html' : 'application/json')
          .end(path === '/' ? PAGE : JSON.stringify(plan));
      } else {
        const bytes = SERVED.test(path) ? await readFile(join(root, path)).catch(() => null) : null;
        response.setHeader(
          'content-type',
          extname(path) === '.js' ? 'text/javascript' : 'application/octet-stream',
        );
        response.writeHead(bytes ? 200 : 404).end(bytes ?? undefined);
      }
    })().catch(failed);
  });
  await new Promise<void>((listening) => {
    server.listen(0, '127.0.0.1', listening);
  });
  const timer = setTimeout(() => {
    failed(new Error(`not done after ${limitMs / 60000} minutes`));
  }, limitMs);
  let browser: Opened | null = null;
  try {
    browser = await open(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    browser.ended.then((why) => {
      failed(new Error(why));
    }, failed);
    await finished;
  } finally {
    clearTimeout(timer);
    await browser?.close();
    server.closeAllConnections();
    server.close();
  }
}

async function textOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

/** A browser that shows the page. `ended` resolves, with the reason, when it goes by itself. */
export interface Opened {
  readonly ended: Promise<string>;
  close(): Promise<void>;
}

/** Chromium, old and new alike, gives no adapter without --enable-unsafe-webgpu where there is no GPU. */
export async function openChromium({ executable, env }: Found, url: string): Promise<Opened> {
  const root = process.getuid?.() === 0;
  const browser = await chromium.launch({
    executablePath: executable,
    headless: true,
    chromiumSandbox: !root,
    args: ['--enable-unsafe-webgpu', ...(root ? ['--no-sandbox'] : [])],
    env: { ...process.env, ...env } as Record<string, string>,
  });
  const page = await browser.newPage();
  const ended = new Promise<string>((end) => {
    page.on('crash', () => {
      end('the page crashed');
    });
    page.on('pageerror', (error) => {
      end(`the page's script ended: ${error.message}`);
    });
    browser.on('disconnected', () => {
      end('the browser ended');
    });
  });
  await page.goto(url);
  return { ended, close: () => browser.close() };
}

/** WebGPU in Firefox ESR on Linux stands behind two preferences. */
export const FIREFOX_PREFERENCES = {
  'dom.webgpu.enabled': true,
  'gfx.webgpu.ignore-blocklist': true,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
};

export async function openFirefox(
  { executable, env }: Found,
  manifest: string,
  url: string,
): Promise<Opened> {
  const profile = await mkdtemp(join(tmpdir(), 'mgf-firefox-'));
  await writeFile(
    join(profile, 'user.js'),
    Object.entries(FIREFOX_PREFERENCES)
      .map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${String(value)});\n`)
      .join(''),
  );
  const child = spawn(executable, ['--headless', '--no-remote', '--profile', profile, url], {
    stdio: 'ignore',
    detached: true,
    env: { ...process.env, ...env, VK_DRIVER_FILES: manifest },
  });
  // Its processes are a group of their own, which goes with this one.
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      /* gone already */
    }
  };
  process.on('exit', kill);
  const ended = new Promise<string>((end) => {
    child.on('error', (error) => {
      end(`${executable} did not start: ${error.message}`);
    });
    child.on('close', (status, signal) => {
      end(`the browser ended (${signal ?? status})`);
    });
  });
  return {
    ended,
    async close() {
      kill();
      process.off('exit', kill);
      await ended;
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
