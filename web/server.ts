/** A small server of files, for looking at the page and for its tests. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize, resolve, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.map': 'application/json',
  '.opus': 'audio/ogg',
  '.safetensors': 'application/octet-stream',
};

/** Answers with a file below `root`; what is no path of one is a 404, whatever it is. */
async function answer(root: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const file = fileOf(root, request.url ?? '/');
  const reads = /^(GET|HEAD)$/.test(request.method ?? '');
  const found = file !== null && reads ? await stat(file).catch(() => null) : null;
  if (file === null || !found?.isFile()) {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('There is no such file.\n');
    return;
  }
  response.writeHead(200, {
    'content-type': TYPES[extname(file)] ?? 'application/octet-stream',
    'content-length': found.size,
    'cache-control': 'no-cache',
  });
  if (request.method === 'HEAD') response.end();
  // A visitor who leaves in the middle is no error of ours.
  else await pipeline(createReadStream(file), response).catch(() => response.destroy());
}

/** The file of an address; null if the address is no URL, has a broken escape or leaves `root`. */
function fileOf(root: string, address: string): string | null {
  try {
    const path = decodeURIComponent(new URL(address, 'http://localhost').pathname);
    const file = join(root, normalize(path.endsWith('/') ? `${path}index.html` : path));
    return file.startsWith(root + sep) && !file.includes('\0') ? file : null;
  } catch {
    return null;
  }
}

/** A server of the files below `folder`. Port 0: any free one. `host`: the interface that it listens on. */
export async function serve(
  folder: string,
  port: number,
  host = '127.0.0.1',
): Promise<{ url: string; server: Server }> {
  const root = resolve(folder);
  const server = createServer((request, response) => void answer(root, request, response));
  await new Promise<void>((done, fail) => {
    server.once('error', fail).listen(port, host, done);
  });
  const { address, family, port: taken } = server.address() as AddressInfo;
  // Browsers offer WebGPU on localhost and over https only.
  const name = address === '127.0.0.1' ? 'localhost' : family === 'IPv6' ? `[${address}]` : address;
  return { url: `http://${name}:${taken}/`, server };
}
