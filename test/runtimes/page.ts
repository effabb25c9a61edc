/**
 * The suite in a page: a plain module script beside an import map. Findings, and what went wrong, are posted
 * to the server that the page came from.
 */
import { openGpu } from 'mgf-webgpu';
import type { Plan } from './plan.ts';
import { runSuite } from './suite.ts';

const post = (path: string, body: unknown): Promise<Response> =>
  fetch(path, { method: 'POST', body: JSON.stringify(body) });

// Findings arrive in the order in which they were told.
let told: Promise<unknown> = Promise.resolve();
try {
  const plan = (await (await fetch('/plan')).json()) as Plan;
  const gpu = await openGpu({
    onNote: (note) => {
      told = told.then(() => post('/note', note));
    },
  });
  await runSuite({
    gpu,
    cases: plan.cases,
    model: plan.model,
    read: async (path) => new Uint8Array(await (await fetch(`/${path}`)).arrayBuffer()),
    tell: (finding) => {
      told = told.then(() => post('/finding', finding));
    },
  });
  await told;
  await post('/done', null);
} catch (error) {
  await told;
  await post('/done', (error as Error).message);
}
