/**
 * MGF on WebGPU for Node, Deno and Bun: all of `index.ts`, and what needs files, threads and npm `webgpu`
 * (Dawn).
 *
 *     import { openGpu, presetRunConfig, pretrain, readManifest } from 'mgf-webgpu';
 *     const gpu = await openGpu();
 *     const { items } = await readManifest('recordings/');
 *     const result = await pretrain({ gpu, run: presetRunConfig('micro-mel', { train: { minutes: 20 } }),
 *     items, out: 'runs/first' });
 *     gpu.close();
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { MGF as BrowserMGF } from './app/mgf.ts';
import type { LoadOptions } from './app/mgf.ts';
import { fetchBytes, type ReadBytes } from './app/read.ts';
import { SHIPPED } from './app/shipped.ts';
import { MGFError } from './errors.ts';
import { useDawn } from './gpu/dawn.ts';
import { openGpu as open } from './gpu/device.ts';
import type { Gpu, OpenGpuOptions } from './gpu/device.ts';

export * from './index.ts';

/**
 * Opens a device: the caller's own, `navigator.gpu` where there is one, else npm `webgpu` with a GPU,
 * installed software Vulkan or the embedded SwiftShader, in this order. Throws MGFError `no-adapter` saying
 * what was tried and what to install.
 */
export function openGpu(options: OpenGpuOptions = {}): Promise<Gpu> {
  useDawn();
  return open(options);
}

const readSource: ReadBytes = async (source, options) => {
  const text = String(source);
  const scheme = /^([a-z][a-z\d+.-]+):\/\//i.exec(text)?.[1];
  if (scheme !== undefined && scheme !== 'file') return fetchBytes(source, options);
  try {
    return await readFile(scheme ? fileURLToPath(text) : text, { signal: options.signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new MGFError('io', `cannot read ${text}: ${(error as Error).message}`, { cause: error });
  }
};

/**
 * `MGF` of index.ts that also loads from paths, and mgf-tiny, which comes with this package, where no source
 * is given.
 */
export class MGF extends BrowserMGF {
  static override load(
    source: Parameters<typeof BrowserMGF.load>[0] = SHIPPED,
    options: LoadOptions = {},
    read: ReadBytes = readSource,
  ): Promise<MGF> {
    useDawn();
    return super.load(source, options, read);
  }
}

// Audio and lists of recordings.
export { loadAudio } from './audio/load.ts';
export { readManifest } from './audio/manifest.ts';
export type { ManifestOptions } from './audio/manifest.ts';
export type { Manifest, Skipped, Utterance } from './audio/manifest.ts';
export { createLoader } from './audio/loader.ts';
export type { Loader, LoaderOptions, LoaderStats } from './audio/loader.ts';
export { BatchSource } from './audio/source.ts';
export type { BatchOptions, BatchShape, BatchStats, SamplerState } from './audio/source.ts';
export type { ScanReport, SkippedClip, SkipKind } from './audio/clips.ts';

// Training.
export { pretrain } from './pretrain/loop.ts';
export { readResumePoint } from './pretrain/run-files.ts';
export type {
  DataSummary,
  PretrainHooks,
  PretrainOptions,
  PretrainResult,
  PretrainStart,
  ResumePoint,
  TrainableModel,
} from './pretrain/options.ts';
export {
  checkpointConfig,
  CheckpointStore,
  decodeState,
  encodeState,
  loadCheckpoint,
  loadWeights,
} from './pretrain/checkpoint.ts';
export type {
  Checkpoint,
  CheckpointStoreOptions,
  CheckpointToSave,
  ParameterTensor,
  TrainingState,
} from './pretrain/checkpoint.ts';
export { JsonlLog, readJsonl, TensorBoardWriter } from './pretrain/logs.ts';
export type { LogRecord, ProgressState } from './pretrain/logs.ts';

// The report, and what its table and pictures are made with.
export { renderReport } from './report/report.ts';
export type { ReportData } from './report/report.ts';
export type { CurvePoint, Health, Recording, VoiceMaps } from './report/data.ts';
export { linearProbe } from './report/probe.ts';
export type { LinearProbeOptions, LinearProbeResult, ProbeSet } from './report/probe.ts';

// The ablation: losses left out or of the other kind, each network under the same probes.
export { ablationRows, chooseRows, rowConfig, runAblation } from './tasks/ablation/ablation.ts';
export type { AblationHooks, AblationOptions, Subject } from './tasks/ablation/ablation.ts';
export { labelledScorer } from './tasks/ablation/score.ts';
export type { ScorerOptions } from './tasks/ablation/score.ts';
export { ablationMarkdown, compareRows } from './tasks/ablation/table.ts';
export type { AblationTask, ComparedRow, Summary } from './tasks/ablation/table.ts';
export type { AblationResult, AblationRow } from './tasks/task.ts';

// Downstream tasks: labelled recordings, probes on frozen features, fine-tuning, prediction.
export { frameLabels, readTask, sharedSpeakers } from './tasks/data/labelled.ts';
export type { TaskDataOptions } from './tasks/data/labelled.ts';
export { probe, probeTask } from './tasks/probe/probe.ts';
export type { ProbeOptions, ProbeSettings, ProbeTaskOptions, TrainedHead } from './tasks/probe/probe.ts';
export { finetune, FINE_TUNE_DEFAULTS } from './tasks/finetune/finetune.ts';
export type {
  FineTuneEpoch,
  FineTuneOptions,
  FineTuneResult,
  FineTuneSchedule,
} from './tasks/finetune/finetune.ts';
export type { FineTuneSettings } from './tasks/finetune/finetuner.ts';
export type { HeadSpec } from './tasks/probe/head.ts';
export { loadTaskModel, saveTaskModel } from './tasks/finetune/model.ts';
export type { TaskModel } from './tasks/finetune/model.ts';
export type { NGram } from './tasks/decode/ngram.ts';
export { decodeTranscript } from './tasks/decode/decode.ts';
export type { BeamOptions, ClipLogits } from './tasks/decode/decode.ts';
export { classProbabilities, decodePhones, TaskNetwork } from './tasks/finetune/predict.ts';
export type { TaskParts } from './tasks/finetune/predict.ts';
export type {
  Estimate,
  FeatureSource,
  Metric,
  Phone,
  ProbeResult,
  ProbeRow,
  Split,
  TaskData,
  TaskItem,
  TaskName,
} from './tasks/task.ts';
