/**
 * Serves the built page: node dist/serve.js [port] [--host ADDRESS]. To this machine alone, unless another
 * interface is named.
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { serve } from './server.ts';

try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { host: { type: 'string', default: '127.0.0.1' } },
  });
  const folder = fileURLToPath(new URL('web', import.meta.url));
  const { url } = await serve(folder, Number(positionals[0] ?? 8080), values.host);
  console.log(`The page is at ${url}; Ctrl-C ends it.`);
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  console.error(
    code === 'EADDRINUSE'
      ? 'This port is taken; name another: npm run web -- 8081'
      : `The page could not be served: ${message}`,
  );
  process.exitCode = 1;
}
