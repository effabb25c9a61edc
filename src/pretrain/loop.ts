/**
 * The training loop: batches prepared ahead, one step in flight ahead, logs, health alarms, checkpoints,
 * exact resume (Node, Deno, Bun).
 */
import { columnsOf } from '../mgf/loss-inputs.ts';
import { summariseWarnings } from '../audio/samples.ts';
import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { createLoader } from '../audio/loader.ts';
import { checkArguments, checkOptions, GPU, RUN, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { atPrecision } from '../gpu/adapter.ts';
import { assertSameConfig } from '../mgf/config-difference.ts';
import { checkRunConfig } from '../mgf/parse-config.ts';
import { Pretrainer } from '../mgf/pretrainer.ts';
import { CheckpointStore, decodeState, loadCheckpoint, writeFileAtomically } from './checkpoint.ts';
import type { SkippedClip } from '../audio/clips.ts';
import type { Loader } from '../audio/loader.ts';
import type { Skipped, Utterance } from '../audio/manifest.ts';
import type { RunConfig, TrainConfig } from '../mgf/config.ts';
import type {
  TrainableModel,
  DataSummary,
  PretrainHooks,
  PretrainOptions,
  PretrainResult,
  ResumePoint,
  LoopState,
} from './options.ts';
import { Sitting } from './sitting.ts';

/** Settings of which a resumed run may not depart: they decide which audio each step sees. */
const FIXED: readonly (keyof TrainConfig)[] = [
  'seed',
  'utterances_per_batch',
  'crop_seconds',
  'accumulation',
];

const HOOKS: Rules<PretrainHooks> = {
  onScan: 'a function?',
  onStart: 'a function?',
  onProgress: 'a function?',
  onAlarm: 'a function?',
  onNote: 'a function?',
  onCheckpoint: 'a function?',
};

const OPTIONS: Rules<PretrainOptions> = {
  gpu: GPU,
  run: RUN,
  items: 'a list',
  skipped: 'a list?',
  out: 'a text',
  name: 'a text?',
  init: 'a Map?',
  losses: 'a list?',
  resume: 'an object?',
  hooks: 'an object?',
  signal: 'an AbortSignal?',
  checkpointMinutes: 'a number?',
  workerUrl: 'a URL?',
  createModel: 'a function?',
  openLoader: 'a function?',
};

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

/**
 * Pre-trains until the schedule ends or `signal` aborts. A run of a given seed repeats bit for bit on one
 * adapter, and one that was interrupted at any checkpoint goes on exactly as if it had not been (with a
 * budget in minutes, the learning rate follows the clock and differs).
 * @throws MGFError `checkpoint` when `out` holds another run or the checkpoint another configuration; `data`
 * when too little audio is usable; `usage` for precision f16 where the device has none; `io` when the disk is
 * full (older checkpoints stay intact); `device-lost` with the step to resume from; what the device and the
 * model throw.
 */
export async function pretrain(options: PretrainOptions): Promise<PretrainResult> {
  checkOptions('pretrain', options, OPTIONS);
  checkOptions('pretrain', options.hooks ?? {}, HOOKS);
  const {
    gpu,
    run,
    out,
    resume,
    hooks = {},
    createModel = Pretrainer.create,
    openLoader = createLoader,
  } = options;
  const { mgf, train } = run;
  const called = performance.now();
  const startup = { scan: 0, compile: 0, firstStep: 0 };
  checkRunConfig(run, 'The configuration');
  const precision = atPrecision(gpu.profile, train.precision).precision ?? 'f32';
  if (resume) assertResumable(resume, run);
  await checkRunFolder(out, resume);
  const loader = await openLoader({
    items: options.items,
    seed: train.seed,
    utterancesPerBatch: train.utterances_per_batch,
    cropSeconds: train.crop_seconds,
    negatives: mgf.num_negatives,
    mask: {
      probability: mgf.mask_time_prob,
      length: mgf.mask_time_length,
      minMasks: mgf.mask_time_min_masks,
    },
    startStep: (resume?.state.step ?? 0) * train.accumulation,
    prefetch: Math.max(4, train.accumulation),
    onScan: hooks.onScan,
    workerUrl: options.workerUrl,
  });
  startup.scan = (performance.now() - called) / 1000;
  let model: TrainableModel | undefined;
  try {
    const data = summarise(options.items, options.skipped ?? [], loader);
    for (const sentence of summariseWarnings(loader.report.warnings)) hooks.onNote?.(sentence);
    await writeRunFiles(out, run, data);
    const state = resume && {
      parameters: resume.state.parameters,
      expAvg: resume.state.expAvg,
      expAvgSq: resume.state.expAvgSq,
    };
    model = await createModel(gpu, run, {
      losses: options.losses,
      columns: columnsOf(options.items),
      ...(state ? { state } : { init: options.init }),
    }).catch((error: unknown) => {
      throw explainSize(error, run);
    });
    startup.compile = (performance.now() - called) / 1000 - startup.scan;
    return await new Sitting(options, loader, model, data, { called, startup }, precision).run();
  } finally {
    model?.destroy();
    await loader.close();
  }
}

/** What to do where a step does not fit the adapter. */
function explainSize(error: unknown, { train }: RunConfig): unknown {
  if (!(error instanceof MGFError) || (error.code !== 'limit' && error.code !== 'out-of-memory'))
    return error;
  return new MGFError(
    error.code,
    `A step of ${2 * train.utterances_per_batch} crops of ${train.crop_seconds} s does not fit this ` +
      `adapter (${error.message.replace(/\.$/, '')}); ` +
      'lower utterances_per_batch or crop_seconds, and raise accumulation instead.',
    { cause: error },
  );
}

function summarise(
  items: readonly Utterance[],
  listed: readonly Skipped[],
  { report, stepsPerEpoch }: Loader,
): DataSummary {
  const bad = new Set(report.skipped.map((s) => s.path));
  const speakers = new Set(
    items.filter((i) => i.speaker !== undefined && !bad.has(i.path)).map((i) => i.speaker),
  ).size;
  return {
    usable: report.usable,
    minutes: report.seconds / 60,
    speakers,
    skipped: [...listed, ...report.skipped],
    stepsPerEpoch,
  };
}

async function writeRunFiles(out: string, run: RunConfig, { skipped }: DataSummary): Promise<void> {
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
