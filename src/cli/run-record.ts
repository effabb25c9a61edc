/** `run.json` of a run's folder: what its checkpoints and its log do not know, for reports. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve, join } from 'node:path';
import * as v from 'valibot';
import { MGFError } from '../errors.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import type { PretrainStart } from '../pretrain/options.ts';
import { programVersion, shellWord } from './common.ts';

const FILE = 'run.json';

const recordSchema = v.object({
  sittings: v.array(
    v.object({
      command: v.string(),
      date: v.string(),
      version: v.string(),
      runtime: v.string(),
      adapter: v.string(),
      preset: v.string(),
      step: v.number(),
      data: v.optional(v.string()),
      clips: v.number(),
      minutes: v.number(),
      speakers: v.number(),
      skipped: v.number(),
    }),
  ),
  title: v.optional(v.string()),
  licences: v.optional(v.array(v.string())),
  table: v.optional(
    v.object({
      title: v.string(),
      columns: v.array(v.string()),
      rows: v.array(v.array(v.union([v.string(), v.number()]))),
      caption: v.string(),
    }),
  ),
});

/**
 * The sittings of a run, first to last, and what a command showed at its end. `data`: absolute path of what
 * was named as data; `step`: updates made before.
 */
export type RunRecord = v.InferOutput<typeof recordSchema>;

/**
 * The record of a run's folder; undefined where there is none. Throws MGFError 'data' for one that is
 * damaged.
 */
export function readRunRecord(runDir: string): RunRecord | undefined {
  const path = join(runDir, FILE);
  if (!existsSync(path)) return undefined;
  try {
    return v.parse(recordSchema, JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    throw new MGFError(
      'data',
      `${path} is damaged (${(error as Error).message}); delete it, and the report will leave out what ` +
        'it told.',
      { cause: error },
    );
  }
}

const write = (runDir: string, record: RunRecord): Promise<void> =>
  writeFileAtomically(join(runDir, FILE), [new TextEncoder().encode(`${JSON.stringify(record, null, 2)}\n`)]);

/** The command that runs, as it would be typed. */
export const currentCommand = (): string => ['mgf', ...process.argv.slice(2).map(shellWord)].join(' ');

const runtime = (): string => {
  const { node, bun, deno } = process.versions as Record<string, string | undefined>;
  return bun ? `Bun ${bun}` : deno ? `Deno ${deno}` : `Node ${node}`;
};

/** Adds a sitting; those that started at or after its step, whose updates it makes again, are forgotten. */
export async function recordSitting(
  runDir: string,
  preset: string,
  data: string,
  start: PretrainStart,
): Promise<void> {
  const before = start.step > 0 ? readRunRecord(runDir) : undefined;
  const { usable, minutes, speakers, skipped } = start.data;
  await write(runDir, {
    ...before,
    sittings: [
      ...(before?.sittings ?? []).filter((s) => s.step < start.step),
      {
        command: currentCommand(),
        date: new Date().toISOString(),
        version: programVersion(),
        runtime: runtime(),
        adapter: start.adapter,
        preset,
        step: start.step,
        data: resolve(data),
        clips: usable,
        minutes,
        speakers,
        skipped: skipped.length,
      },
    ],
  });
}

/** Adds what a command shows at the end of a run. */
export async function recordOutcome(runDir: string, outcome: Omit<RunRecord, 'sittings'>): Promise<void> {
  await write(runDir, { ...(readRunRecord(runDir) ?? { sittings: [] }), ...outcome });
}
