/**
 * Training batches prepared ahead in a worker thread, so that decoding and sampling never wait for the GPU or
 * it for them (Node, Deno, Bun).
 */
import { Worker } from 'node:worker_threads';
import { checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { BatchSource, BATCH_OPTIONS } from './source.ts';
import type { ScanReport } from './clips.ts';
import type { Batch, BatchOptions, BatchShape, BatchStats, SamplerState } from './source.ts';
import type { WorkerReply, WorkerRequest } from './worker.ts';

/** The batches that `createLoader` makes, and how far ahead. */
export interface LoaderOptions extends BatchOptions {
  /** Step of the first batch; 0 by default. A run resumed here sees the batches it would have seen. */
  startStep?: number | undefined;
  /** Batches kept ready; 4 by default. */
  prefetch?: number | undefined;
  /** The bundled worker; `audio-worker.js` beside this module by default. */
  workerUrl?: URL | undefined;
  /** Progress of the first pass over the clips. */
  onScan?: ((done: number, total: number) => void) | undefined;
}

const OPTIONS: Rules<LoaderOptions> = {
  ...BATCH_OPTIONS,
  startStep: 'a number?',
  prefetch: 'a number?',
  workerUrl: 'a URL?',
  onScan: 'a function?',
};

/** What a `Loader` has done so far. */
export interface LoaderStats extends BatchStats {
  /**
   * Milliseconds `next` has waited for a batch: above a few percent of the run, decoding is the bottleneck.
   */
  waitedMs: number;
}

/** Batches that a worker decodes ahead. */
export interface Loader {
  readonly shape: BatchShape;
  readonly report: ScanReport;
  readonly stepsPerEpoch: number;
  readonly stats: LoaderStats;
  /**
   * The next batch: startStep, startStep + 1, ... One call at a time. Throws MGFError if the files can no
   * longer be read.
   */
  next(): Promise<Batch>;
  /** Where a step stands in the data, for a checkpoint. */
  state(step: number): SamplerState;
  /** Ends the worker; a `next` under way is rejected. */
  close(): Promise<void>;
}

/**
 * Starts the worker and waits for its first pass over the clips.
 * @throws MGFError 'config' for impossible sizes, 'data' if too few clips are usable.
 */
export async function createLoader(options: LoaderOptions): Promise<Loader> {
  checkOptions('createLoader', options, OPTIONS);
  const {
    startStep = 0,
    prefetch = 4,
    workerUrl = new URL('./audio-worker.js', import.meta.url),
    onScan,
    ...batchOptions
  } = options;
  const shape = BatchSource.shapeOf(batchOptions);
  const worker = new Worker(workerUrl, { workerData: batchOptions });
  const mailbox = new Mailbox(worker, onScan);
  try {
    const { report, stepsPerEpoch, origin } = await mailbox.ready;
    return new WorkerLoader(
      worker,
      mailbox,
      shape,
      report,
      stepsPerEpoch,
      origin,
      options.utterancesPerBatch,
      startStep,
      prefetch,
    );
  } catch (error) {
    await worker.terminate();
    throw error;
  }
}

type Ready = Extract<WorkerReply, { type: 'ready' }>;

/**
 * Turns the worker's messages into promises; after a failure every promise, past or future, rejects with it.
 */
class Mailbox {
  readonly ready: Promise<Ready>;
  stats: BatchStats = { batches: 0, redrawnCrops: 0, silentCrops: 0, replacedUtterances: 0, cachedBytes: 0 };
  readonly #arrived: Batch[] = [];
  #waiting: { resolve: (batch: Batch) => void; reject: (error: Error) => void } | undefined;
  #failure: Error | undefined;
  #rejectReady: (error: Error) => void = () => {};

  constructor(worker: Worker, onScan: LoaderOptions['onScan']) {
    this.ready = new Promise((resolve, reject) => {
      this.#rejectReady = reject;
      worker.on('message', (reply: WorkerReply) => {
        if (reply.type === 'scan') onScan?.(reply.done, reply.total);
        else if (reply.type === 'ready') resolve(reply);
        else if (reply.type === 'batch') this.#deliver(reply.batch, reply.stats);
        else
          this.fail(
            reply.code
              ? new MGFError(reply.code, reply.message)
              : new Error(reply.message, { cause: reply.stack }),
          );
      });
    });
    worker.on('error', (error) => this.fail(error));
    worker.on('exit', (code) =>
      this.fail(new MGFError('io', `The audio worker ended unexpectedly (exit code ${code}).`)),
    );
  }

  take(): Promise<Batch> {
    const batch = this.#arrived.shift();
    if (batch) return Promise.resolve(batch);
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  fail(error: Error): void {
    this.#failure ??= error;
    this.#rejectReady(this.#failure);
    this.#waiting?.reject(this.#failure);
    this.#waiting = undefined;
  }

  #deliver(batch: Batch, stats: BatchStats): void {
    this.stats = stats;
    if (this.#waiting) this.#waiting.resolve(batch);
    else this.#arrived.push(batch);
    this.#waiting = undefined;
  }
}

class WorkerLoader implements Loader {
  #waitedMs = 0;
  #requested: number;

  constructor(
    private readonly worker: Worker,
    private readonly mailbox: Mailbox,
    readonly shape: BatchShape,
    readonly report: ScanReport,
    readonly stepsPerEpoch: number,
    private readonly origin: SamplerState,
    private readonly utterancesPerBatch: number,
    startStep: number,
    prefetch: number,
  ) {
    this.#requested = startStep;
    for (let i = 0; i < Math.max(1, prefetch); i++) this.#request();
  }

  get stats(): LoaderStats {
    return { ...this.mailbox.stats, waitedMs: this.#waitedMs };
  }

  async next(): Promise<Batch> {
    const start = performance.now();
    const batch = await this.mailbox.take();
    this.#waitedMs += performance.now() - start;
    this.#request();
    return batch;
  }

  state(step: number): SamplerState {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    return {
      ...this.origin,
      step,
      epoch,
      position: (step - epoch * this.stepsPerEpoch) * this.utterancesPerBatch,
    };
  }

  async close(): Promise<void> {
    this.mailbox.fail(new MGFError('aborted', 'The loader was closed.'));
    await this.worker.terminate();
  }

  #request(): void {
    this.worker.postMessage({ step: this.#requested++ } satisfies WorkerRequest);
  }
}
