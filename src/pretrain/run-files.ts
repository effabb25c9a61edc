/** The folder of a run: the checkpoint to go on from, whether the run may write there, its files. */
import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { checkArguments } from '../check.ts';
import { MGFError } from '../errors.ts';
import { assertSameConfig } from '../mgf/config-difference.ts';
import { CheckpointStore, decodeState, loadCheckpoint, writeFileAtomically } from './checkpoint.ts';
import type { SkippedClip } from '../audio/clips.ts';
import type { Skipped } from '../audio/manifest.ts';
import type { RunConfig, TrainConfig } from '../mgf/config.ts';
import type { DataSummary, LoopState, ResumePoint } from './options.ts';

/** Settings of which a resumed run may not depart: they decide which audio each step sees. */
const FIXED: readonly (keyof TrainConfig)[] = [
  'seed',
  'utterances_per_batch',
  'crop_seconds',
  'accumulation',
];

/**
 * Reads a checkpoint (a file, or the newest one of a run's folder) to go on from. Errors as in
 * `loadCheckpoint` and `decodeState`.
 */
export async function readResumePoint(pathOrRunDir: string): Promise<ResumePoint> {
  checkArguments('readResumePoint', { pathOrRunDir: [pathOrRunDir, 'a text'] });
  const checkpoint = await loadCheckpoint(pathOrRunDir);
  const state = decodeState(checkpoint);
  const text = checkpoint.metadata['loop'];
  let loop: LoopState | undefined;
  try {
    loop = text === undefined ? undefined : (JSON.parse(text) as LoopState);
  } catch (error) {
    throw new MGFError('checkpoint', `${checkpoint.path} cannot be used: its metadata has no sound loop.`, {
      cause: error,
    });
  }
  return { path: checkpoint.path, state, loop };
}

/**
 * Whether a run may write to `out`. Error (`checkpoint`): a new run over another one's checkpoints, or a
 * resumed one over newer ones.
 */
export async function checkRunFolder(out: string, resume?: ResumePoint): Promise<void> {
  const newest = await new CheckpointStore(out).latest();
  if (!newest) return;
  if (!resume) {
    throw new MGFError(
      'checkpoint',
      `${out} already holds a run (checkpoint of step ${newest.step}); go on with \`--resume ${out}\`, ` +
        `or choose another folder with \`--out\`.`,
    );
  }
  if (newest.step > resume.state.step || resolve(dirname(resume.path)) !== resolve(out)) {
    throw new MGFError(
      'checkpoint',
      `${out} already holds a checkpoint of step ${newest.step}, which a run from step ` +
        `${resume.state.step} of ${resume.path} ` +
        'would overwrite; choose another folder with `--out`.',
    );
  }
}

/** Error (`checkpoint`): a run that differs from its checkpoint in more than may change, with both values. */
export function assertResumable({ state: { config }, path }: ResumePoint, { mgf, train }: RunConfig): void {
  const fixed = (t: TrainConfig) => Object.fromEntries(FIXED.map((key) => [key, t[key]]));
  assertSameConfig({ ...config.mgf, ...fixed(config.train) }, { ...mgf, ...fixed(train) }, { origin: path });
}

/** Makes the folder of a run, with its configuration and the list of the clips that are left out. */
export async function writeRunFiles(out: string, run: RunConfig, { skipped }: DataSummary): Promise<void> {
  try {
    await mkdir(out, { recursive: true });
  } catch (error) {
    throw new MGFError(
      'io',
      `Cannot make the folder ${out} (${(error as NodeJS.ErrnoException).code}); choose another one ` +
        `with \`--out\`.`,
      { cause: error },
    );
  }
  const text = (s: string) => [new TextEncoder().encode(s)];
  await writeFileAtomically(
    join(out, 'config.json'),
    text(`${JSON.stringify({ ...run.mgf, ...run.train }, null, 2)}\n`),
  );
  const row = (s: Skipped | SkippedClip) =>
    [s.path, s.reason].map((cell) => cell.replace(/[\t\r\n]+/g, ' ')).join('\t');
  if (skipped.length > 0)
    await writeFileAtomically(
      join(out, 'skipped.tsv'),
      text(`path\treason\n${skipped.map(row).join('\n')}\n`),
    );
}
