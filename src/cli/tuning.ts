/**
 * What was tested and measured about kernel variants, kept in the user's cache folder: once an adapter,
 * driver and version of this program.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Option } from 'commander';
import * as v from 'valibot';
import { rememberApprovals } from '../plan/self-test.ts';
import { startTuning, type Tuning } from '../plan/tune.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import { cacheFolder, formatTable, plural, print, say } from './common.ts';
import type { AdapterInfo } from '../gpu/adapter.ts';
import type { Gpu } from '../gpu/device.ts';

export type TuneMode = 'auto' | 'off';

/** `--tune`. */
export const tuneOption = () =>
  new Option(
    '--tune <mode>',
    'auto: on a GPU, measure once which kernels are fastest for this work, and remember it; off: estimate',
  )
    .choices(['auto', 'off'] satisfies TuneMode[])
    .default('auto');

const schema = v.object({
  adapter: v.string(),
  runtime: v.string(),
  choices: v.record(v.string(), v.object({ variant: v.string(), ms: v.record(v.string(), v.number()) })),
});

/** The file for what is measured on this device. */
export function tuningFile(gpu: Gpu, version: string, folder = cacheFolder('tuning')): string {
  const driver = (gpu.device as { adapterInfo?: AdapterInfo }).adapterInfo?.description ?? '';
  const key = createHash('sha256')
    .update(JSON.stringify([gpu.profile.name, driver, gpu.profile.runtime, version]))
    .digest('hex')
    .slice(0, 16);
  return join(folder, `${key}.json`);
}

/** What the file holds; null where there is none or it is not sound, which only costs measuring again. */
export async function readTuning(path: string): Promise<Tuning | null> {
  try {
    const parsed = v.safeParse(schema, JSON.parse(await readFile(path, 'utf8')));
    return parsed.success ? parsed.output : null;
  } catch {
    return null;
  }
}

/**
 * Programs compiled for this device take the fastest variants, those measured earlier included. Not in
 * software: one variant is known to be best there. What passed its self-test earlier is not tested again.
 */
export async function useTuning(gpu: Gpu, mode: TuneMode, version: string): Promise<void> {
  await useApprovals(gpu, version);
  if (mode === 'auto' && gpu.profile.kind === 'gpu') await tuneInto(gpu, tuningFile(gpu, version));
}

/** Kernels that passed their self-test on this device with this version are not tested at every start. */
export async function useApprovals(
  gpu: Gpu,
  version: string,
  folder = cacheFolder('approvals'),
): Promise<void> {
  const path = tuningFile(gpu, version, folder);
  const text = await readFile(path, 'utf8').catch(() => '[]');
  const parse = (): unknown => {
    try {
      return JSON.parse(text);
    } catch {
      return [];
    }
  };
  const parsed = v.safeParse(v.array(v.string()), parse());
  rememberApprovals(gpu, {
    known: parsed.success ? parsed.output : [],
    onApproved: (digests) => {
      // Where it cannot be written, the next start tests again.
      keep(path, digests).catch(() => undefined);
    },
  });
}

async function keep(path: string, value: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomically(path, [new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)]);
}

/** Starts tuning with what a file holds, and keeps it up to date. */
export async function tuneInto(gpu: Gpu, path: string): Promise<void> {
  startTuning(gpu, {
    known: await readTuning(path),
    onStart: (products) =>
      say(
        `Measuring once which kernels are fastest on ${gpu.profile.name} for ` +
          `${plural(products, 'kind')} of matrix product ...`,
      ),
    onMeasured: async (tuning) => {
      try {
        await keep(path, tuning);
      } catch (error) {
        say(`${path} could not be written (${(error as Error).message}): the next run measures again.`);
      }
    },
  });
}

/**
 * The table for people: the fastest variant of each product, and how much slower the next and the last are.
 */
export function formatTuning({ choices }: Tuning): string {
  const rows = Object.entries(choices).map(([key, { variant, ms }]) => {
    const times = Object.values(ms);
    const best = ms[variant]!;
    const slower = (t: number | undefined): string => (t === undefined ? '-' : `${(t / best).toFixed(2)}x`);
    return [
      key,
      variant,
      best.toPrecision(3),
      slower(times[1]),
      slower(times.length > 1 ? times.at(-1) : undefined),
    ];
  });
  return formatTable(['product', 'fastest variant', 'ms', 'next', 'slowest timed'], rows);
}

/** `mgf info --tune`. */
export async function showTuning(gpu: Gpu, version: string, json: boolean): Promise<void> {
  const path = tuningFile(gpu, version);
  const tuning = await readTuning(path);
  if (json) return print(JSON.stringify(tuning, null, 2));
  if (tuning) return print(`${formatTuning(tuning)}\n\n${tuning.adapter}; kept in ${path}`);
  const { kind, family, name } = gpu.profile;
  print(
    kind === 'gpu'
      ? `Nothing was measured on ${name} yet: mgf pretrain and mgf bench do it when they first need it.`
      : `${name} is a software adapter: the ${family} family has one best variant for each product, and ` +
          'nothing is measured.',
  );
}
