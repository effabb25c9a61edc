import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { serve } from '../web/server.ts';

const test = suite('the server of the page');
const folder = mkdtempSync(join(tmpdir(), 'mgf-server-'));
writeFileSync(join(folder, 'index.html'), '<p>a page</p>');
const { url, server } = await serve(folder, 0);

/** Status and length of the body; the path goes out as it is written. */
const ask = (path: string, method = 'GET'): Promise<[number, number]> =>
  new Promise((resolve, reject) => {
    const { port } = new URL(url);
    const asked = request({ host: '127.0.0.1', port, path, method }, (response) => {
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
      });
      response.on('end', () => resolve([response.statusCode!, length]));
    });
    asked.on('error', reject).end();
  });

test('it gives files, and only those below its folder', async () => {
  assert.equal(await ask('/'), [200, 13]);
  assert.equal(await ask('/index.html?x=1', 'HEAD'), [200, 0]);
  for (const path of ['/none', '//', '/%', '/%00', '/..%2f..%2fetc%2fpasswd', '/../../etc/passwd']) {
    assert.is((await ask(path))[0], 404, path);
  }
  assert.is((await ask('/', 'POST'))[0], 404);
});

test('visitors who leave do not end it', async () => {
  writeFileSync(join(folder, 'large.bin'), new Uint8Array(1 << 24));
  await new Promise<void>((resolve) => {
    const asked = request(`${url}large.bin`, (response) => {
      response.once('data', () => asked.destroy());
      response.on('error', () => undefined).on('close', resolve);
    });
    asked.on('error', () => undefined).end();
  });
  assert.equal(await ask('/'), [200, 13]);
});

test('it listens to this machine alone unless told otherwise', async () => {
  assert.match(url, /^http:\/\/localhost:/);
  assert.is((server.address() as { address: string }).address, '127.0.0.1');
  const other = await serve(folder, 0, '::1').catch(() => null);
  if (other) assert.match(other.url, /^http:\/\/\[::1\]:/);
  other?.server.close();
});

test.after(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});
test.run();
