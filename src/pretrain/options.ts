/** What `pretrain` is given, what it reports and what it returns. */
import type { Loader, LoaderOptions } from '../audio/loader.ts';
import type { Skipped, Utterance } from '../audio/manifest.ts';
import type { Gpu, Precision } from '../gpu/device.ts';
import type { RunConfig } from '../mgf/config.ts';
import type { TrainingLoss } from '../mgf/extra-losses.ts';
import type { Alarm } from '../mgf/health.ts';
import type { Pretrainer, PretrainerOptions } from '../mgf/pretrainer.ts';
import type { Rivals } from '../mgf/rivals.ts';
import type { LossScaleState } from '../optim/loss-scale.ts';
import type { HostTensor } from '../plan/parameters.ts';
import type { TrainingState } from './checkpoint.ts';
import type { ProgressState } from './logs.ts';
import type { MeterState } from './meters.ts';

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

/** What a checkpoint says of the loop beside weights and moments. */
export interface LoopState {
  name?: string;
  meters: MeterState;
  skippedSteps: number;
  /** With precision f16. */
  lossScale?: LossScaleState;
  data: { clips: number; digest: string };
  /** Absent in checkpoints from before they were measured. */
  rivals?: Rivals;
}
