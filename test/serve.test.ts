import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testAdapter } from './gpu.ts';

/** The service as its users start it: on the built package, in a process of its own. */
const root = fileURLToPath(new URL('../..', import.meta.url));
const adapter = testAdapter();
const tone = readFileSync(join(root, 'test', 'fixtures', 'audio', 'tone-44k-stereo.flac'));
const child = spawn(
  process.execPath,
  [join(root, 'examples', 'apps', 'serve.mjs'), '--port', '0', ...(adapter ? ['--adapter', adapter] : [])],
  { stdio: ['ignore', 'pipe', 'pipe'] },
);
let output = '';
const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
const url = await new Promise<string>((resolve, reject) => {
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      const found = /(http:\/\/127\.0\.0\.1:\d+) on /.exec(output);
      if (found) resolve(found[1]!);
    });
  void ended.then(() => reject(new Error(`the service ended: ${output}`)));
});
const post = (path: string, body: BodyInit) => fetch(`${url}${path}`, { method: 'POST', body });
interface Answer {
  readonly frames: number;
  readonly width: number;
  readonly layer: number;
  readonly data: number[];
  readonly error: string;
  readonly requests: number;
}
const json = async (response: Response): Promise<Answer> => (await response.json()) as Answer;

test('a recording is answered with its features', async () => {
  const response = await post('/embed', tone);
  const { frames, width, layer, data } = await json(response);
  assert.equal([response.status, width, layer, data.length], [200, 192, 3, frames * width]);
  assert.ok(frames > 10 && data.every(Number.isFinite));
  const pooled = await json(await post('/embed?pool=mean&layer=1', tone));
  assert.equal([pooled.data.length, pooled.layer, pooled.frames], [192, 1, frames]);
});

test('requests that come together get the answers that they get alone', async () => {
  const [alone, ...together] = await Promise.all(
    Array.from({ length: 6 }, async () => json(await post('/embed?pool=mean', tone))),
  );
  for (const { data } of together) assert.ok(data.every((x, i) => Math.abs(x - alone!.data[i]!) < 1e-4));
});

test('what cannot be answered is refused in words', async () => {
  for (const [path, body, status, words] of [
    ['/embed', 'no audio', 422, /the recording/],
    ['/embed?layer=9', tone, 422, /hidden states 0 to 4; there is no layer 9/],
    ['/embed?pool=max', tone, 422, /pool is "max"/],
    ['/embed', new Uint8Array(21e6), 413, /larger than 20 MB/],
    ['/elsewhere', tone, 404, /POST \/embed/],
  ] as const) {
    const response = await post(path, body);
    assert.is(response.status, status, path);
    assert.match((await json(response)).error, words);
  }
  assert.is((await fetch(`${url}/embed`)).status, 405);
});

test('a form with a file is read, one without is refused with the right call', async () => {
  const form = new FormData();
  form.append('note', 'a tone');
  form.append('file', new Blob([tone]), 'tone.flac');
  const { frames, data } = await json(await post('/embed?pool=mean', form));
  assert.equal([frames > 10, data.length], [true, 192]);
  const empty = new FormData();
  empty.append('note', 'nothing');
  const refused = await post('/embed', empty);
  assert.is(refused.status, 415);
  assert.match((await json(refused)).error, /holds no file; send one as: curl -F file=@speech.wav/);
});

/** A request written byte by byte; resolves with all that was answered when the connection ends. */
function raw(
  text: string | Buffer,
  more?: (write: (text: string | Buffer) => void) => void,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    let answer = '';
    const socket = connect(Number(port), hostname, () => {
      socket.write(text);
      more?.((next) => socket.write(next));
    });
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      answer += chunk;
    });
    socket.on('close', () => resolve(answer)).on('error', reject);
  });
}
const head = (length: number): string =>
  `POST /embed?pool=mean HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${length}\r\n\r\n`;

test('slow senders shut nobody out, and are cut off', async () => {
  const slow = Array.from({ length: 64 }, () => raw(head(tone.length)));
  assert.is((await post('/embed?pool=mean', tone)).status, 200);
  assert.is((await json(await fetch(`${url}/health`))).requests, 0);
  for (const answer of await Promise.all(slow)) assert.match(answer, /^HTTP\/1.1 408 [^]*came at less than/);
});

test('when too many recordings wait, further ones are told to come back, and those are answered', async () => {
  const answers = await Promise.all(Array.from({ length: 100 }, () => post('/embed?pool=mean', tone)));
  const refused = answers.filter(({ status }) => status === 503);
  const answered = answers.filter(({ status }) => status === 200);
  assert.is(refused.length + answered.length, 100);
  assert.ok(answered.length >= 64);
  for (const response of refused) {
    assert.is(response.headers.get('retry-after'), '1');
    assert.match((await json(response)).error, /too many requests are waiting/);
  }
});

test('an upload that is aborted, and an address that is none, leave no trace', async () => {
  const before = output;
  await new Promise<void>((resolve) => {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname, () => {
      socket.write(head(tone.length));
      socket.write(tone.subarray(0, 100), () => socket.resetAndDestroy());
    });
    socket.on('close', resolve).on('error', () => undefined);
  });
  assert.match(await raw('GET // HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /^HTTP\/1.1 404 /);
  assert.is((await fetch(`${url}/health`)).status, 200);
  assert.is(output, before);
});

test('it listens to this machine alone', async () => {
  const { networkInterfaces } = await import('node:os');
  const others = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  for (const { address, internal, family } of others) {
    if (internal || family !== 'IPv4') continue;
    const reached = await fetch(`http://${address}:${new URL(url).port}/health`).catch(() => null);
    assert.is(reached, null, address);
  }
});

test('a signal lets it finish what it has begun, and it ends by itself', async () => {
  const last = post('/embed', tone);
  // The request has to be there before the signal.
  await new Promise((resolve) => {
    setTimeout(resolve, 300);
  });
  child.kill('SIGTERM');
  assert.is((await last).status, 200);
  assert.is(await ended, 0, output);
});

test.after(() => {
  child.kill('SIGKILL');
});
test.run();
