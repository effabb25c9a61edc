import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testAdapter } from './gpu.ts';

/** The service as its users start it: on the built package, in a process of its own. */
const root = fileURLToPath(new URL('../..', import.meta.url)), adapter = testAdapter();
const tone = readFileSync(join(root, 'test', 'fixtures', 'audio', 'tone-44k-stereo.flac'));
const child = spawn(process.execPath, [join(root, 'examples', 'apps', 'serve.mjs'), '--port', '0', ...(adapter ? ['--adapter', adapter] : [])], { stdio: ['ignore', 'pipe', 'pipe'] });
let output = '';
const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
const url = await new Promise<string>((resolve, reject) => {
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    const found = /(http:\/\/127\.0\.0\.1:\d+) on /.exec(output);
    if (found) resolve(found[1]!);
  });
  void ended.then(() => reject(new Error(`the service ended: ${output}`)));
});
const post = (path: string, body: BodyInit) => fetch(`${url}${path}`, { method: 'POST', body });
interface Answer { readonly frames: number; readonly width: number; readonly layer: number; readonly data: number[]; readonly error: string; readonly requests: number }
const json = async (response: Response): Promise<Answer> => await response.json() as Answer;

test('a recording is answered with its features', async () => {
  const response = await post('/embed', tone), { frames, width, layer, data } = await json(response);
  assert.equal([response.status, width, layer, data.length], [200, 192, 3, frames * width]);
  assert.ok(frames > 10 && data.every(Number.isFinite));
  const pooled = await json(await post('/embed?pool=mean&layer=1', tone));
  assert.equal([pooled.data.length, pooled.layer, pooled.frames], [192, 1, frames]);
});

test('requests that come together get the answers that they get alone', async () => {
  const [alone, ...together] = await Promise.all(Array.from({ length: 6 }, async () => json(await post('/embed?pool=mean', tone))));
  for (const { data } of together) assert.ok(data.every((x, i) => Math.abs(x - alone!.data[i]!) < 1e-4));
});

test('what cannot be answered is refused in words', async () => {
  for (const [path, body, status, words] of [
    ['/embed', 'no audio', 422, /the recording/], ['/embed?layer=9', tone, 422, /hidden states 0 to 4; there is no layer 9/], ['/embed?pool=max', tone, 422, /pool is "max"/],
    ['/embed', new Uint8Array(21e6), 413, /larger than 20 MB/], ['/elsewhere', tone, 404, /POST \/embed/],
  ] as const) {
    const response = await post(path, body);
    assert.is(response.status, status, path);
    assert.match((await json(response)).error, words);
  }
  assert.is((await fetch(`${url}/embed`)).status, 405);
});

test('when too many are there, another is refused at once, and those are answered', async () => {
  let release!: () => void;
  const released = new Promise<void>((resolve) => { release = resolve; });
  // Uploads that do not end until they are told to.
  const slow = (): Promise<Response> => fetch(`${url}/embed?pool=mean`, {
    method: 'POST', duplex: 'half',
    body: new ReadableStream({ async start(controller) { controller.enqueue(tone.subarray(0, 100)); await released; controller.enqueue(tone.subarray(100)); controller.close(); } }),
  } as RequestInit);
  const uploads = Array.from({ length: 64 }, slow);
  for (let inside = 0; inside < 64;) inside = (await json(await fetch(`${url}/health`))).requests;
  const refused = await post('/embed', tone);
  assert.equal([refused.status, refused.headers.get('retry-after')], [503, '1']);
  assert.match((await json(refused)).error, /too many requests/);
  release();
  assert.equal((await Promise.all(uploads)).map((r) => r.status), Array.from({ length: 64 }, () => 200));
  assert.is((await fetch(`${url}/health`)).status, 200);
});

test('a signal lets it finish what it has begun, and it ends by itself', async () => {
  const last = post('/embed', tone);
  // The request has to be there before the signal.
  await new Promise((resolve) => { setTimeout(resolve, 300); });
  child.kill('SIGTERM');
  assert.is((await last).status, 200);
  assert.is(await ended, 0, output);
});

test.after(() => { child.kill('SIGKILL'); });
test.run();
