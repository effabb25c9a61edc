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
import { assertSameConfig, checkRunConfig, SCALES } from '../mgf/config.ts';
import { Pretrainer } from '../mgf/pretrainer.ts';
import { hasAccuracy } from '../mgf/pretraining.ts';
import {
  CheckpointStore,
  decodeState,
  encodeState,
  loadCheckpoint,
  writeFileAtomically,
} from './checkpoint.ts';
import { effectiveRank, HealthMonitor } from '../mgf/health.ts';
import { JsonlLog, TensorBoardWriter } from './logs.ts';
import { LossScaler } from '../optim/loss-scale.ts';
import { Meters, startedLosses } from './meters.ts';
import { measureRivals, rivalBatches } from '../mgf/rivals.ts';
import { learningRate, progressRate, runProgress } from '../optim/schedule.ts';
import type { SkippedClip } from '../audio/clips.ts';
import type { Loader, LoaderOptions } from '../audio/loader.ts';
import type { Skipped, Utterance } from '../audio/manifest.ts';
import type { Batch } from '../audio/source.ts';
import type { Gpu, Precision } from '../gpu/device.ts';
import type { MGFConfig, RunConfig, Scale, TrainConfig } from '../mgf/config.ts';
import type { TrainingLoss } from '../mgf/extra-losses.ts';
import type { PretrainerOptions, StepMetrics } from '../mgf/pretrainer.ts';
import type { HostTensor } from '../plan/parameters.ts';
import type { TrainingState } from './checkpoint.ts';
import type { Alarm, HealthOptions, SkippedStep } from '../mgf/health.ts';
import type { LogRecord, ProgressState } from './logs.ts';
import type { LossScaleState } from '../optim/loss-scale.ts';
import type { MeterState } from './meters.ts';
import type { Rivals } from '../mgf/rivals.ts';

/** What the loop needs of a `Pretrainer`. */
export type TrainableModel = Pick<
  Pretrainer,
  'rows' | 'samplesPerCrop' | 'info' | 'step' | 'state' | 'reconstruct' | 'representations' | 'destroy'
>;

/** What the data turned out to be, once every clip was looked at. */
export interface DataSummary {
  usable: number;
  minutes: number;
  /** Speakers of the usable clips; 0 where the manifest names none. */
  speakers: number;
  /** Rows and clips that are left out, each with its reason; also in `skipped.tsv` of the run's folder. */
  skipped: Skipped[];
  stepsPerEpoch: number;
}

/** What is known before the first step of `pretrain`. */
export interface PretrainStart {
  adapter: string;
  parameters: number;
  data: DataSummary;
  /** Updates made before. */
  step: number;
  info: Pretrainer['info'];
  rows: number;
  cropSeconds: number;
  /**
   * What matrix products multiply here; f32 on adapters that gain nothing from the f16 that was asked for.
   */
  precision: Precision;
  /** What the losses are compared with, measured on the run's first crops. */
  rivals: Rivals;
}

/** Whom `pretrain` tells what. */
export interface PretrainHooks {
  /** The first pass over the clips. */
  onScan?: (done: number, total: number) => void;
  /** Once, before the first step. */
  onStart?: (start: PretrainStart) => void;
  /** After each step. */
  onProgress?: (state: ProgressState) => void;
  /** Something is wrong with the run. */
  onAlarm?: (alarm: Alarm) => void;
  /** Something that a user should know, in a sentence. */
  onNote?: (note: string) => void;
  /** A checkpoint was written. */
  onCheckpoint?: (path: string, step: number) => void;
}

/** A run of `pretrain`: device, configuration, recordings, folder. */
export interface PretrainOptions {
  gpu: Gpu;
  run: RunConfig;
  /** Clips to train on, and what reading their list left out. */
  items: readonly Utterance[];
  skipped?: readonly Skipped[];
  /** Folder of the run: checkpoints, log.jsonl, tensorboard/, skipped.tsv, config.json. */
  out: string;
  /** What the run is called, such as its preset; a checkpoint remembers it. */
  name?: string;
  /**
   * Weights to begin with, by checkpoint name; what is missing is random. Step, schedule and moments start
   * anew.
   */
  init?: ReadonlyMap<string, HostTensor> | undefined;
  /** Losses that the configuration's `extra_losses` names. */
  losses?: readonly TrainingLoss[] | undefined;
  /** Where to go on. `run` must describe the same network and the same order of the data. */
  resume?: ResumePoint;
  hooks?: PretrainHooks;
  /** Ends the run after the step in flight; it is saved first. */
  signal?: AbortSignal;
  /** A checkpoint is also saved when the last one is this old. */
  checkpointMinutes?: number;
  /** The bundled audio worker, where it is not beside this module's bundle. */
  workerUrl?: URL;
  /** Replaces the model, for instance by a fake one. */
  createModel?: (gpu: Gpu, run: RunConfig, options: PretrainerOptions) => Promise<TrainableModel>;
  /** Replaces the loader. */
  openLoader?: (options: LoaderOptions) => Promise<Loader>;
}

/** What `pretrain` ended with. */
export interface PretrainResult {
  /** Updates made in all. */
  steps: number;
  /** Stopped by `signal` before its end. */
  interrupted: boolean;
  /** The newest checkpoint. */
  checkpoint: string;
  parameters: number;
  /** Audio learned from and wall-clock seconds, over all sittings. */
  audioSeconds: number;
  elapsedSeconds: number;
  /** Of this sitting, without its first step. */
  audioPerSecond: number;
  /**
   * Seconds from the call to the first pass over the clips done, the model compiled, and the first step done.
   */
  startup: { scan: number; compile: number; firstStep: number };
  /** Largest resident memory of the process, bytes. */
  peakMemory: number;
  info: Pretrainer['info'];
  /** Updates left out because their gradient was not finite. */
  skippedSteps: number;
  alarms: Alarm[];
  data: DataSummary;
  /** What the model makes of the last batch; absent when no step was made or the run was interrupted. */
  example?: Awaited<ReturnType<Pretrainer['reconstruct']>> & { utterances: string[] };
}

/** A checkpoint with all that a run needs to go on. */
export interface ResumePoint {
  path: string;
  state: TrainingState;
  loop: LoopState | undefined;
}

interface LoopState {
  name?: string;
  meters: MeterState;
  skippedSteps: number;
  /** With precision f16. */
  lossScale?: LossScaleState;
  data: { clips: number; digest: string };
  /** Absent in checkpoints from before they were measured. */
  rivals?: Rivals;
}

/** Settings of which a resumed run may not depart: they decide which audio each step sees. */
const FIXED: readonly (keyof TrainConfig)[] = [
  'seed',
  'utterances_per_batch',
  'crop_seconds',
  'accumulation',
];
/** Updates between looks at the effective rank, and the rows it is computed from. */
const RANK_EVERY = 100;
const RANK_ROWS = 1024;
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

/** So many steps in a row without a finite gradient will not mend themselves. */
const GIVE_UP = 50;
/** Steps that the rate shown is averaged over. */
const RATE_STEPS = 20;
/** Shown together by TensorBoard. */
const LOSSES = new Set<string>(['total', ...SCALES]);

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

interface Issued {
  /** Updates made before this one. */
  step: number;
  batch: Batch;
  learningRate: number;
  lossScale: number;
  metrics: Promise<StepMetrics>;
}

/** A scale's loss, or that of one that was brought. */
const valueOf = (
  values: Pick<StepMetrics, Scale> & { extra?: Readonly<Record<string, number>> },
  name: string,
): number => values.extra?.[name] ?? values[name as Scale];

/** One run from its start or its resume to its end or its interruption. */
class Sitting {
  readonly #options: PretrainOptions;
  readonly #hooks: PretrainHooks;
  readonly #store: CheckpointStore;
  readonly #meters = new Meters();
  readonly #health: HealthMonitor;
  readonly #healthOptions: HealthOptions;
  /** With precision f16. */
  readonly #scaler: LossScaler | undefined;
  readonly #alarms: Alarm[] = [];
  readonly #log: JsonlLog;
  readonly #board: TensorBoardWriter;
  /** Updates made, their audio, and the wall-clock time before this sitting. */
  #step: number;
  #audioSeconds: number;
  readonly #elapsedBefore: number;
  #started = 0;
  #firstDone = 0;
  #saved: { path: string; step: number } | undefined;
  #savedAt = 0;
  #settledAt: number[] = [];
  #lastBatch: Batch | undefined;
  /** Batches that were read before the first step, in their order. */
  readonly #ahead: Batch[] = [];
  #rivals: Rivals = {};

  constructor(
    options: PretrainOptions,
    private readonly loader: Loader,
    private readonly model: TrainableModel,
    private readonly data: DataSummary,
    private readonly clock: { called: number; startup: PretrainResult['startup'] },
    private readonly precision: Precision,
  ) {
    const {
      run: { mgf, train },
      out,
      resume,
    } = options;
    this.#options = options;
    this.#hooks = options.hooks ?? {};
    this.#store = new CheckpointStore(out, { keepLast: train.keep_last });
    this.#healthOptions = {
      config: mgf,
      utterancesPerBatch: train.utterances_per_batch,
      // A run by the clock finds out when its warm-up ends.
      warmupSteps: train.minutes === null ? Math.round(train.warmup * train.steps) : Infinity,
      skippedSteps: resume?.loop?.skippedSteps ?? 0,
    };
    this.#health = new HealthMonitor(this.#healthOptions);
    this.#step = resume?.state.step ?? 0;
    this.#audioSeconds = resume?.state.audioSeconds ?? 0;
    this.#elapsedBefore = resume?.state.elapsedSeconds ?? 0;
    if (precision === 'f16')
      this.#scaler = new LossScaler({
        step: this.#step,
        state: resume?.loop?.lossScale,
        ...(resume && { origin: resume.path }),
      });
    if (resume) {
      if (resolve(dirname(resume.path)) === resolve(out))
        this.#saved = { path: resume.path, step: this.#step };
      if (resume.loop) this.#meters.restore(resume.loop.meters, resume.path);
    }
    const resumeStep = resume && { resumeStep: this.#step };
    this.#log = new JsonlLog(join(out, 'log.jsonl'), resumeStep);
    this.#board = new TensorBoardWriter(join(out, 'tensorboard'), resumeStep);
  }

  async run(): Promise<PretrainResult> {
    const {
      gpu,
      run: { train },
      resume,
    } = this.#options;
    const { model, data } = this;
    try {
      this.#rivals = this.#healthOptions.rivals = await this.#findRivals();
      this.#hooks.onStart?.({
        adapter: gpu.profile.name,
        parameters: model.info.parameters,
        data,
        step: this.#step,
        info: model.info,
        rows: model.rows,
        cropSeconds: train.crop_seconds,
        precision: this.precision,
        rivals: this.#rivals,
      });
      const before = resume?.loop?.data;
      const now = this.#dataState();
      if (before && (before.digest !== now.digest || before.clips !== now.clips)) {
        this.#hooks.onNote?.(
          `The data are not those that the checkpoint was made with (${before.clips} usable clips ` +
            `then, ${now.clips} now); ` +
            'the run goes on, but not as it would have without the change.',
        );
      }
      this.#started = this.#savedAt = performance.now();
      const interrupted = await this.#train();
      if (!interrupted) for (const alarm of this.#health.conclude(this.#step)) this.#raise(alarm);
      if (!this.#saved || this.#saved.step !== this.#step) await this.#save();
      return await this.#result(interrupted);
    } catch (error) {
      throw this.#explain(error);
    } finally {
      this.#closeLogs();
    }
  }

  /**
   * Those of the checkpoint, or measured on the crops of the first steps, which are kept for these steps; the
   * log tells of them once.
   */
  async #findRivals(): Promise<Rivals> {
    const {
      run: { mgf, train },
      out,
      resume,
    } = this.#options;
    const known = resume?.loop?.rivals;
    if (resume && known && resolve(dirname(resume.path)) === resolve(out)) return known;
    const rivals = known ?? (await this.#measureRivals(mgf, train));
    this.#log.append({ step: this.#step, rivals });
    return rivals;
  }

  async #measureRivals(mgf: MGFConfig, train: TrainConfig): Promise<Rivals> {
    const steps = train.minutes === null ? Math.max(0, train.steps - this.#step) : Infinity;
    const left = steps * train.accumulation;
    const wanted = Math.min(left, rivalBatches(this.model.rows));
    while (this.#ahead.length < wanted) this.#ahead.push(await this.loader.next());
    return measureRivals(mgf, train.utterances_per_batch, this.#ahead);
  }

  /** Issues steps one ahead until the end; true if it was stopped before. */
  async #train(): Promise<boolean> {
    let pending: Issued | undefined;
    for (let step = this.#step; !this.#options.signal?.aborted && !this.#over(step); step++) {
      const next = await this.#issue(step);
      if (pending) await this.#settle(pending);
      pending = next;
      // What reads the weights must do so between two steps.
      const save = this.#checkpointDue(step + 1);
      if (!save && (step + 1) % RANK_EVERY !== 0) continue;
      await this.#settle(pending);
      pending = undefined;
      if (save) await this.#save();
    }
    if (pending) await this.#settle(pending);
    return !this.#over(this.#step);
  }

  get #elapsed(): number {
    return this.#elapsedBefore + (performance.now() - this.#started) / 1000;
  }

  #over(step: number): boolean {
    const { train } = this.#options.run;
    return train.minutes === null ? step >= train.steps : this.#elapsed >= 60 * train.minutes;
  }

  #checkpointDue(step: number): boolean {
    const {
      run: { train },
      checkpointMinutes = 10,
    } = this.#options;
    return (
      step % train.checkpoint_every === 0 || performance.now() - this.#savedAt > 60_000 * checkpointMinutes
    );
  }

  async #issue(step: number): Promise<Issued> {
    const { train } = this.#options.run;
    const { steps, minutes, learning_rate: peak, warmup } = train;
    const batches: Batch[] = [];
    for (let i = 0; i < train.accumulation; i++)
      batches.push(this.#ahead.shift() ?? (await this.loader.next()));
    const progress = runProgress(train, step, this.#elapsed);
    const rate =
      minutes === null ? learningRate(step, steps, peak, warmup) : progressRate(progress, peak, warmup);
    if (minutes !== null && progress >= warmup)
      this.#healthOptions.warmupSteps = Math.min(this.#healthOptions.warmupSteps, step);
    const lossScale = this.#scaler?.at(step) ?? 1;
    const metrics = this.model.step(batches, { step, learningRate: rate, lossScale });
    // Whoever awaits it sees the failure; a step that is never awaited, because the one before failed, must
    // not end the process.
    metrics.catch(() => undefined);
    return { step, batch: batches[0]!, learningRate: rate, lossScale, metrics };
  }

  /** Waits for a step and tells of it. */
  async #settle(issued: Issued): Promise<void> {
    const { step: before, batch, learningRate: rate, lossScale } = issued;
    const metrics = await issued.metrics;
    const nextScale = this.#scaler?.observe(lossScale, metrics.skipped);
    const {
      run: { mgf, train },
    } = this.#options;
    const step = before + 1;
    const audio = this.model.rows * train.crop_seconds * train.accumulation;
    this.#step = step;
    this.#lastBatch = batch;
    this.#audioSeconds += audio;
    const now = performance.now();
    if (this.#firstDone === 0) {
      this.#firstDone = now;
      this.clock.startup.firstStep = (now - this.clock.called) / 1000;
    }
    this.#settledAt.push(now);
    if (this.#settledAt.length > RATE_STEPS + 1) this.#settledAt.shift();
    const active = startedLosses(mgf, before);
    const losses = Object.fromEntries(active.map((name) => [name, valueOf(metrics, name)]));
    const phoneme = active.includes('phoneme') && hasAccuracy(mgf) ? { accuracy: metrics.accuracy } : {};
    if (metrics.skipped)
      this.#skip({ step, total: metrics.total, gradNorm: metrics.gradNorm, lossScale: nextScale });
    else {
      this.#meters.add(metrics, startedLosses(mgf, Infinity).length === active.length);
      const ranks = step % RANK_EVERY === 0 ? await this.#ranks(batch) : undefined;
      if (ranks) this.#write({ step, rank_z: ranks.z, rank_context: ranks.context });
      for (const alarm of this.#health.observe({
        step,
        losses,
        ...phoneme,
        gradNorm: metrics.gradNorm,
        learningRate: rate,
        ...(ranks && { effectiveRank: ranks }),
      })) {
        this.#raise(alarm);
      }
    }
    if (step === 1 || step % train.log_every === 0) this.#logStep(step, issued, active);
    const perSecond = this.#rate(audio);
    const done = runProgress(train, step, this.#elapsed);
    const left =
      train.minutes !== null
        ? 60 * train.minutes - this.#elapsed
        : perSecond && ((train.steps - step) * audio) / perSecond;
    this.#hooks.onProgress?.({
      step,
      steps: train.minutes === null ? train.steps : null,
      progress: done,
      losses,
      ...phoneme,
      ...(perSecond !== undefined && { audioPerSecond: perSecond }),
      ...(left !== undefined && { secondsLeft: left }),
    });
  }

  /** Seconds of audio a second over the last steps; undefined before the second. */
  #rate(audioPerStep: number): number | undefined {
    const times = this.#settledAt;
    const steps = times.length - 1;
    return steps < 1 ? undefined : (1000 * steps * audioPerStep) / (times.at(-1)! - times[0]!);
  }

  #logStep(step: number, { learningRate, lossScale }: Issued, active: readonly string[]): void {
    const means = this.#meters.flush();
    if (!means) return;
    const {
      run: { mgf, train },
    } = this.#options;
    const perSecond = this.#rate(this.model.rows * train.crop_seconds * train.accumulation);
    const values: Record<string, number> = { total: means.total };
    for (const name of active) values[name] = valueOf(means, name);
    if (active.includes('phoneme') && hasAccuracy(mgf)) values['accuracy'] = means.accuracy;
    this.#write({
      step,
      ...values,
      grad_norm: means.gradNorm,
      learning_rate: learningRate,
      ...(this.#scaler && { loss_scale: lossScale, skipped_steps: this.#health.skippedSteps }),
      ...(perSecond !== undefined && { audio_per_second: perSecond }),
      audio_seconds: this.#audioSeconds,
      elapsed_seconds: this.#elapsed,
    });
  }

  #write(record: LogRecord): void {
    this.#log.append(record);
    const { step, ...values } = record;
    this.#board.scalars(
      step,
      Object.fromEntries(
        Object.entries(values).map(([key, value]) => [
          LOSSES.has(key) || Object.hasOwn(this.#options.run.mgf.extra_losses, key) ? `loss/${key}` : key,
          Number(value),
        ]),
      ),
    );
  }

  #skip(skipped: SkippedStep): void {
    for (const alarm of this.#health.observeSkipped(skipped)) this.#raise(alarm);
    if (this.#health.skippedInARow < GIVE_UP) return;
    const remedy = this.#scaler
      ? 'with a lower learning rate or `--precision f32` '
      : 'with a lower learning rate ';
    throw new MGFError(
      'data',
      `The gradient has not been finite for ${GIVE_UP} steps in a row (the last is ${skipped.step}): ` +
        `the run has diverged; ${this.#wayOn(remedy)}.`,
    );
  }

  #raise(alarm: Alarm): void {
    this.#alarms.push(alarm);
    this.#log.append({ step: alarm.step, alarm: alarm.kind, message: alarm.message });
    this.#hooks.onAlarm?.(alarm);
  }

  async #ranks(batch: Batch): Promise<{ z: number; context: number }> {
    const { z, zWidth, context, contextWidth, rows } = await this.model.representations(batch);
    // Every n-th row: neighbouring frames are nearly alike.
    const stride = Math.ceil(rows / RANK_ROWS);
    const kept = Math.floor(rows / stride);
    const thin = (x: Float32Array, width: number) => {
      const out = new Float32Array(kept * width);
      for (let r = 0; r < kept; r++)
        out.set(x.subarray(r * stride * width, (r * stride + 1) * width), r * width);
      return effectiveRank(out, kept, width);
    };
    return { z: thin(z, zWidth), context: thin(context, contextWidth) };
  }

  #dataState(): LoopState['data'] {
    const { clips, digest } = this.loader.state(0);
    return { clips, digest };
  }

  async #save(): Promise<void> {
    const { run } = this.#options;
    const step = this.#step;
    const sampler = this.loader.state(step * run.train.accumulation);
    const { parameters, expAvg, expAvgSq } = await this.model.state();
    const { name } = this.#options;
    const loop: LoopState = {
      ...(name !== undefined && { name }),
      meters: this.#meters.state(),
      skippedSteps: this.#health.skippedSteps,
      data: this.#dataState(),
      rivals: this.#rivals,
    };
    if (this.#scaler) loop.lossScale = this.#scaler.state();
    const encoded = encodeState({
      step,
      config: run,
      parameters,
      expAvg,
      expAvgSq,
      samplerPosition: sampler.position,
      audioSeconds: this.#audioSeconds,
      elapsedSeconds: this.#elapsed,
    });
    const metric = this.#meters.runningTotal;
    const path = await this.#store.save({
      ...encoded,
      metadata: { ...encoded.metadata, loop: JSON.stringify(loop) },
      ...(metric !== undefined && { metric }),
    });
    this.#saved = { path, step };
    this.#savedAt = performance.now();
    this.#hooks.onCheckpoint?.(path, step);
  }

  #wayOn(how = ''): string {
    return this.#saved
      ? `go on ${how}from step ${this.#saved.step} with \`--resume ${this.#options.out}\``
      : 'no checkpoint had been saved yet, so start again';
  }

  #explain(error: unknown): unknown {
    if (!(error instanceof MGFError) || error.code !== 'device-lost') return error;
    return new MGFError(
      'device-lost',
      `${error.message.replace(/\.$/, '')}; nothing that was saved is affected: ${this.#wayOn()}.`,
      { cause: error },
    );
  }

  /** A log that cannot be closed must not hide why the run ended. */
  #closeLogs(): void {
    for (const log of [this.#log, this.#board]) {
      try {
        log.close();
      } catch (error) {
        this.#hooks.onNote?.((error as Error).message);
      }
    }
  }

  async #result(interrupted: boolean): Promise<PretrainResult> {
    const {
      run: { train },
    } = this.#options;
    const { model } = this;
    const sitting = (performance.now() - this.#firstDone) / 1000;
    const updates = this.#step - (this.#options.resume?.state.step ?? 0);
    const batch = this.#lastBatch;
    const audioPerSecond =
      updates > 1 ? ((updates - 1) * model.rows * train.crop_seconds * train.accumulation) / sitting : NaN;
    return {
      steps: this.#step,
      interrupted,
      checkpoint: this.#saved!.path,
      parameters: model.info.parameters,
      audioSeconds: this.#audioSeconds,
      elapsedSeconds: this.#elapsed,
      audioPerSecond,
      startup: this.clock.startup,
      peakMemory: process.resourceUsage().maxRSS * 1024,
      info: model.info,
      skippedSteps: this.#health.skippedSteps,
      alarms: this.#alarms,
      data: this.data,
      ...(batch &&
        !interrupted && { example: { ...(await model.reconstruct(batch)), utterances: batch.utterances } }),
    };
  }
}
