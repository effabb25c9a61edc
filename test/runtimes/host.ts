/**
 * The suite under Node, Deno and Bun: `host.js PLAN`, PLAN in JSON. Each finding is a line of standard output
 * that begins with MARK.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openGpu, type AdapterPreference } from 'mgf-webgpu';
import { MARK, type Plan } from './plan.ts';
import { runSuite } from './suite.ts';

const plan = JSON.parse(process.argv[2]!) as Plan;
const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

const gpu = await openGpu({ prefer: plan.adapter as AdapterPreference, builtIn: plan.builtIn });
await runSuite({
  gpu,
  cases: plan.cases,
  model: plan.model,
  read: (path) => readFile(join(root, path)),
  tell: (finding) => {
    console.log(MARK + JSON.stringify(finding));
  },
});
gpu.close();
