/** The page's side of worker.ts. */
import { MGFError } from '../src/errors.ts';
import type { Answer, Request, Tasks } from './worker.ts';

let worker: Worker | null = null;
let asked = 0;
const waiting = new Map<number, { resolve: (output: never) => void; reject: (error: unknown) => void }>();

function start(): Worker {
  const made = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
  made.addEventListener('message', ({ data }: MessageEvent<Answer>) => {
    const { resolve, reject } = waiting.get(data.id)!;
    waiting.delete(data.id);
    if ('error' in data) reject(new MGFError('data', data.error));
    else resolve(data.output as never);
  });
  made.addEventListener('error', (event) => {
    for (const { reject } of waiting.values())
      reject(
        new MGFError(
          'io',
          `the page's worker did not start (${event.message || 'worker.js could not be loaded'}); ` +
            'reload the page',
        ),
      );
    waiting.clear();
    worker = null;
  });
  return made;
}

/** Runs one of the worker's tasks; inputs are copied. Throws what the task throws, by its sentence. */
export function compute<K extends keyof Tasks>(
  task: K,
  input: Parameters<Tasks[K]>[0],
): Promise<ReturnType<Tasks[K]>> {
  worker ??= start();
  const request: Request<K> = { id: asked++, task, input };
  worker.postMessage(request);
  return new Promise((resolve, reject) => {
    waiting.set(request.id, { resolve, reject });
  });
}
