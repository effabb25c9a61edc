/**
 * The training loop: batches prepared ahead, one step in flight ahead, logs, health alarms, checkpoints,
 * exact resume (Node, Deno, Bun).
 */
import { summariseWarnings } from '../audio/samples.ts';
import { columnsOf } from '../mgf/loss-inputs.ts';
import { createLoader } from '../audio/loader.ts';
import { checkOptions, GPU, RUN } from '../check.ts';
import { MGFError } from '../errors.ts';
import { atPrecision } from '../gpu/adapter.ts';
import { checkRunConfig } from '../mgf/parse-config.ts';
import { Pretrainer } from '../mgf/pretrainer.ts';
import { assertResumable, checkRunFolder, writeRunFiles } from './run-files.ts';
import { Sitting } from './sitting.ts';
import type { Loader } from '../audio/loader.ts';
import type { Skipped, Utterance } from '../audio/manifest.ts';
import type { Rules } from '../check.ts';
import type { RunConfig } from '../mgf/config.ts';
import type {
  DataSummary,
  PretrainHooks,
  PretrainOptions,
  PretrainResult,
  TrainableModel,
} from './options.ts';

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
