/** A small server of files, for looking at the page and for its tests. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { extname, join, normalize, resolve, sep } from 'node:path';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.map': 'application/json', '.opus': 'audio/ogg', '.safetensors': 'application/octet-stream',
};

/** A server of the files below `folder`, on 127.0.0.1. Port 0: any free one. */
export async function serve(folder: string, port: number): Promise<{ url: string; server: Server }> {
  const root = resolve(folder), server = createServer((request, response) => void (async () => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname), file = join(root, normalize(path.endsWith('/') ? `${path}index.html` : path));
    const found = file.startsWith(root + sep) && /^(GET|HEAD)$/.test(request.method ?? '') ? await stat(file).catch(() => null) : null;
    if (!found?.isFile()) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('There is no such file.\n');
      return;
    }
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-length': found.size, 'cache-control': 'no-cache' });
    if (request.method === 'HEAD') response.end();
    else createReadStream(file).pipe(response);
  })().catch(() => response.writeHead(400).end()));
  await new Promise<void>((done, fail) => { server.once('error', fail).listen(port, '127.0.0.1', done); });
  return { url: `http://localhost:${(server.address() as { port: number }).port}/`, server };
}
