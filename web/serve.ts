/** Serves the built page from this machine, to this machine alone: node dist/serve.js [port] */
import { fileURLToPath } from 'node:url';
import { serve } from './server.ts';

const port = Number(process.argv[2] ?? 8080);
try {
  const { url } = await serve(fileURLToPath(new URL('web', import.meta.url)), port);
  console.log(`The page is at ${url}; Ctrl-C ends it.`);
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  console.error(code === 'EADDRINUSE' ? `Port ${port} is taken; name another: npm run web -- ${port + 1}` : `The page could not be served: ${message}`);
  process.exitCode = 1;
}
