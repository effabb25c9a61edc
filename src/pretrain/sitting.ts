/** One run of the training loop: batches, steps in flight, logs, alarms, checkpoints. */
import { dirname, join, resolve } from 'node:path';
import { MGFError } from '../errors.ts';
import { SCALES } from '../mgf/config.ts';
import { effectiveRank, HealthMonitor } from '../mgf/health.ts';
import { hasAccuracy } from '../mgf/pretraining.ts';
import { measureRivals, rivalBatches } from '../mgf/rivals.ts';
import { LossScaler } from '../optim/loss-scale.ts';
import { learningRate, progressRate, runProgress } from '../optim/schedule.ts';
import { CheckpointStore, encodeState } from './checkpoint.ts';
import { JsonlLog, TensorBoardWriter } from './logs.ts';
import { Meters, startedLosses } from './meters.ts';
import type { Loader } from '../audio/loader.ts';
import type { Batch } from '../audio/source.ts';
import type { Precision } from '../gpu/device.ts';
import type { MGFConfig, Scale, TrainConfig } from '../mgf/config.ts';
import type { Alarm, SkippedStep } from '../mgf/health.ts';
import type { StepMetrics } from '../mgf/pretrainer.ts';
import type { Rivals } from '../mgf/rivals.ts';
import type { LogRecord } from './logs.ts';
import type {
  DataSummary,
  LoopState,
  PretrainHooks,
  PretrainOptions,
  PretrainResult,
  TrainableModel,
} from './options.ts';

/** Updates between looks at the effective rank, and the rows it is computed from. */
const RANK_EVERY = 100;
const RANK_ROWS = 1024;
/** The run stops after this many steps in a row without a finite gradient. */
const GIVE_UP = 50;
/** The rate that is shown is the mean over this many steps. */
const RATE_STEPS = 20;
/** Shown together by TensorBoard. */
const LOSSES = new Set<string>(['total', ...SCALES]);

interface Issued {
  /** Updates made before this one. */
  step: number;
  batch: Batch;
  learningRate: number;
  lossScale: number;
  metrics: Promise<StepMetrics>;
}

/** The loss of a scale, or an extra loss of that name. */
const valueOf = (
  values: Pick<StepMetrics, Scale> & { extra?: Readonly<Record<string, number>> },
  name: string,
): number => values.extra?.[name] ?? values[name as Scale];

/** One run of the process: from the start or a resume to the end or an interruption. */
export class Sitting {
  readonly #options: PretrainOptions;
  readonly #hooks: PretrainHooks;
  readonly #store: CheckpointStore;
  readonly #meters = new Meters();
  readonly #health: HealthMonitor;
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
    this.#health = new HealthMonitor({
      config: mgf,
      utterancesPerBatch: train.utterances_per_batch,
      // A run by the clock finds out when its warm-up ends.
      warmupSteps: train.minutes === null ? Math.round(train.warmup * train.steps) : Infinity,
      skippedSteps: resume?.loop?.skippedSteps ?? 0,
    });
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
      this.#rivals = await this.#findRivals();
      this.#health.compareWith(this.#rivals);
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
    if (minutes !== null && progress >= warmup) this.#health.endWarmup(step);
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
