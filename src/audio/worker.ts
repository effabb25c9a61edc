/**
 * Worker thread of `createLoader`: scans the clips, then answers with one batch per requested step, in order.
 * Built as dist/audio-worker.js.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { MGFError } from '../errors.ts';
import { batchBuffers, BatchSource } from './source.ts';
import type { ErrorCode } from '../errors.ts';
import type { ScanReport } from './clips.ts';
import type { Batch, BatchOptions, BatchStats, SamplerState } from './source.ts';

/** From the loader: make the batch of this step. */
export interface WorkerRequest {
  step: number;
}

export type WorkerReply =
  | { type: 'scan'; done: number; total: number }
  | { type: 'ready'; report: ScanReport; stepsPerEpoch: number; origin: SamplerState }
  | { type: 'batch'; batch: Batch; stats: BatchStats }
  | { type: 'error'; code: ErrorCode | undefined; message: string; stack: string | undefined };

/**
 * Scan messages are sent this often, in ms; a message for each of a million clips would cost more than it
 * tells.
 */
const SCAN_INTERVAL = 100;

async function serve(port: NonNullable<typeof parentPort>): Promise<void> {
  const send = (reply: WorkerReply, transfer: ArrayBuffer[] = []) => port.postMessage(reply, transfer);
  const fail = (error: unknown) => {
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    send({ type: 'error', code: error instanceof MGFError ? error.code : undefined, message, stack });
  };
  const queue: number[] = [];
  let source: BatchSource | undefined;
  let busy = false;
  const work = async () => {
    if (busy || !source) return;
    busy = true;
    try {
      for (let step = queue.shift(); step !== undefined; step = queue.shift()) {
        const batch = await source.batch(step);
        send({ type: 'batch', batch, stats: { ...source.stats } }, batchBuffers(batch));
      }
    } catch (error) {
      fail(error);
    }
    busy = false;
  };
  port.on('message', ({ step }: WorkerRequest) => {
    queue.push(step);
    void work();
  });
  try {
    let last = 0;
    source = await BatchSource.open(workerData as BatchOptions, (done, total) => {
      const now = performance.now();
      if (done < total && now - last < SCAN_INTERVAL) return;
      last = now;
      send({ type: 'scan', done, total });
    });
    send({
      type: 'ready',
      report: source.report,
      stepsPerEpoch: source.stepsPerEpoch,
      origin: source.state(0),
    });
    await work();
  } catch (error) {
    fail(error);
  }
}

if (parentPort) void serve(parentPort);
