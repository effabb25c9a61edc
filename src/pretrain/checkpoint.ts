import { createHash } from 'node:crypto';
import { copyFile, link, mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { checkArguments, checkFields, checkOptions, RUN } from '../check.ts';
import { MGFError } from '../errors.ts';
import { sizesApart } from '../numbers.ts';
import { parseConfig, parseTrainConfig } from '../mgf/parse-config.ts';
import type { RunConfig } from '../mgf/config.ts';
import { CHECKPOINT_FORMAT, metadataJson } from '../mgf/stored-config.ts';
import {
  readSafetensorsHeader,
  safetensorsHeaderBytes,
  safetensorsParts,
  toFloat32,
  viewTensor,
} from '../io/safetensors.ts';
import type { StoredTensor, TensorToStore } from '../io/safetensors.ts';

const NAME = /^checkpoint-(\d{6,})\.safetensors$/;
const BEST = 'best.safetensors';
const TEMPORARY = /^\.(checkpoint-\d+|best)\.safetensors\.tmp$/;

/** A checkpoint file as it was read: metadata, and tensors by name in PyTorch's layouts. */
export interface Checkpoint {
  path: string;
  metadata: Record<string, string>;
  tensors: Map<string, StoredTensor>;
}

/** What `CheckpointStore.save` writes. */
export interface CheckpointToSave {
  step: number;
  tensors: ReadonlyMap<string, TensorToStore>;
  metadata: Readonly<Record<string, string>>;
  /** Lower is better; the best so far is kept as `best.safetensors`. */
  metric?: number;
}

const code = (error: unknown) => (error as NodeJS.ErrnoException).code;

/** What writing needs of a file system; tests bring one that is full. */
export type OpenForWriting = (path: string) => Promise<Pick<FileHandle, 'write' | 'sync' | 'close'>>;
const openForWriting: OpenForWriting = (path) => open(path, 'w');

/**
 * Writes `parts` as one file that is either there whole or not at all: a temporary file in the same folder,
 * flushed to the disk, then renamed. Errors (`io`): a full disk, with what was needed; anything else that the
 * file system refuses. An older file of the name stays as it was.
 */
export async function writeFileAtomically(
  path: string,
  parts: Iterable<Uint8Array>,
  openFile: OpenForWriting = openForWriting,
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.tmp`);
  const all = [...parts];
  const needed = all.reduce((n, part) => n + part.length, 0);
  try {
    const file = await openFile(temporary);
    try {
      for (const part of all) {
        for (let at = 0; at < part.length;)
          at += (await file.write(part, at, Math.min(part.length - at, 1 << 28))).bytesWritten;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    if (error instanceof MGFError) throw error;
    if (code(error) === 'ENOSPC' || code(error) === 'EDQUOT' || code(error) === 'EFBIG') {
      const free = await statfs(dirname(path)).then(
        (s) => s.bavail * s.bsize,
        () => undefined,
      );
      const [need, room] = sizesApart(needed, free ?? needed, 'MB', 1);
      throw new MGFError(
        'io',
        `No space is left to write ${path}: it needs ` +
          `${need}${free === undefined ? '' : `, ${room} are free`}; free some space and resume, ` +
          'older checkpoints are intact.',
        { cause: error },
      );
    }
    throw new MGFError('io', `Cannot write ${path} (${code(error) ?? (error as Error).message}).`, {
      cause: error,
    });
  }
}

/**
 * The rename is safe against a power cut only once the folder is on the disk too. Not every system can flush
 * a folder.
 */
async function syncFolder(path: string): Promise<void> {
  try {
    const folder = await open(path, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch (error) {
    if (!['EISDIR', 'EPERM', 'EINVAL', 'EACCES', 'EBADF'].includes(code(error) ?? '')) throw error;
  }
}

/** How many checkpoints a `CheckpointStore` keeps. */
export interface CheckpointStoreOptions {
  /** Newest checkpoints that stay; at least 1. */
  keepLast?: number;
  openFile?: OpenForWriting;
}

/**
 * The checkpoints of one run: `checkpoint-000120.safetensors`, ..., `best.safetensors` in the run's folder.
 */
export class CheckpointStore {
  readonly #keepLast: number;
  readonly #openFile: OpenForWriting;
  #best: number | undefined;

  constructor(
    readonly runDir: string,
    options: CheckpointStoreOptions = {},
  ) {
    checkArguments('CheckpointStore', { runDir: [runDir, 'a text'] });
    checkOptions('CheckpointStore', options, { keepLast: 'a number?', openFile: 'a function?' });
    const { keepLast = 2, openFile = openForWriting } = options;
    this.#keepLast = Math.max(1, keepLast);
    this.#openFile = openFile;
  }

  /** Step and path of each checkpoint, oldest first. */
  list(): Promise<{ step: number; path: string }[]> {
    return listCheckpoints(this.runDir);
  }

  /** The newest checkpoint; undefined where there is none. */
  async latest(): Promise<{ step: number; path: string } | undefined> {
    return (await this.list()).at(-1);
  }

  /**
   * Writes a checkpoint and deletes those beyond the newest `keepLast`; returns its path. Whatever goes
   * wrong, the older ones are untouched: they are deleted only after the new one is on the disk. Errors
   * (`io`) as in `writeFileAtomically`.
   */
  async save({ step, tensors, metadata, metric }: CheckpointToSave): Promise<string> {
    try {
      await mkdir(this.runDir, { recursive: true });
      // Left by a run that was killed while it wrote.
      for (const name of await readdir(this.runDir))
        if (TEMPORARY.test(name)) await rm(join(this.runDir, name), { force: true });
    } catch (error) {
      throw new MGFError('io', `Cannot use the folder ${this.runDir} for checkpoints (${code(error)}).`, {
        cause: error,
      });
    }
    const path = join(this.runDir, `checkpoint-${String(step).padStart(6, '0')}.safetensors`);
    const described = metric === undefined ? metadata : { ...metadata, metric: String(metric) };
    await writeFileAtomically(path, safetensorsParts(tensors, described), this.#openFile);
    if (metric !== undefined && Number.isFinite(metric)) await this.#keepBest(path, metric);
    const all = await this.list();
    for (const { path: old } of all.slice(0, -this.#keepLast))
      if (old !== path) await rm(old, { force: true });
    return path;
  }

  async #keepBest(path: string, metric: number): Promise<void> {
    const best = join(this.runDir, BEST);
    this.#best ??= await readCheckpointMetadata(best).then(
      (m) => (m['metric'] === undefined ? Infinity : Number(m['metric'])),
      () => Infinity,
    );
    if (!(metric < this.#best)) return;
    const temporary = join(this.runDir, `.${BEST}.tmp`);
    try {
      // A second name for the same bytes, where the file system has that.
      await link(path, temporary).catch(() => copyFile(path, temporary));
      await rename(temporary, best);
    } catch (error) {
      await rm(temporary, { force: true });
      throw new MGFError('io', `Cannot keep ${path} as ${BEST} (${code(error)}).`, { cause: error });
    }
    this.#best = metric;
  }
}

async function listCheckpoints(runDir: string): Promise<{ step: number; path: string }[]> {
  let names: string[];
  try {
    names = await readdir(runDir);
  } catch (error) {
    if (code(error) === 'ENOENT') return [];
    throw new MGFError('io', `Cannot list the folder ${runDir} (${code(error)}).`, { cause: error });
  }
  return names
    .flatMap((name) => {
      const match = NAME.exec(name);
      return match ? [{ step: Number(match[1]), path: join(runDir, name) }] : [];
    })
    .sort((a, b) => a.step - b.step);
}

/**
 * A checkpoint's path from itself or from its run's folder, where it is the newest one. Errors: nothing there
 * (`io`), a folder without any (`checkpoint`).
 */
export async function resolveCheckpoint(pathOrRunDir: string): Promise<string> {
  let folder: boolean;
  try {
    folder = (await stat(pathOrRunDir)).isDirectory();
  } catch (error) {
    throw new MGFError(
      'io',
      `There is no checkpoint at ${pathOrRunDir} (${code(error)}); give a .safetensors file or the ` +
        'folder of a run.',
      { cause: error },
    );
  }
  if (!folder) return pathOrRunDir;
  const newest = (await listCheckpoints(pathOrRunDir)).at(-1);
  if (!newest)
    throw new MGFError(
      'checkpoint',
      `The folder ${pathOrRunDir} holds no checkpoint-NNNNNN.safetensors; give the folder of a run, or ` +
        'a .safetensors file.',
    );
  return newest.path;
}

async function withFile<T>(path: string, action: (file: FileHandle, size: number) => Promise<T>): Promise<T> {
  try {
    const file = await open(path, 'r');
    try {
      return await action(file, (await file.stat()).size);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof MGFError) throw error;
    throw new MGFError('io', `Cannot read ${path} (${code(error) ?? (error as Error).message}).`, {
      cause: error,
    });
  }
}

async function readBytes(
  file: FileHandle,
  path: string,
  position: number,
  length: number,
): Promise<Uint8Array> {
  // Whole reads of 2 GiB and more are refused.
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const { bytesRead } = await file.read(bytes, at, Math.min(length - at, 1 << 28), position + at);
    if (bytesRead === 0) throw new MGFError('io', `${path} became shorter while it was read; read it again.`);
    at += bytesRead;
  }
  return bytes;
}

async function readHeader(file: FileHandle, size: number, path: string) {
  const start = await readBytes(file, path, 0, Math.min(8, size));
  const length = safetensorsHeaderBytes(start, size, { origin: path });
  return readSafetensorsHeader(await readBytes(file, path, 0, 8 + length), size, { origin: path });
}

/** The metadata alone, without reading the tensors. Errors as in `loadCheckpoint`. */
export function readCheckpointMetadata(path: string): Promise<Record<string, string>> {
  return withFile(path, async (file, size) => (await readHeader(file, size, path)).metadata);
}

/**
 * Any safetensors file, or the newest checkpoint of a run's folder.
 * Errors: nothing there or unreadable (`io`); a damaged file, a folder without checkpoints (`checkpoint`).
 * `only` picks tensors by name, so that features can be had without reading the optimiser's moments.
 */
export async function loadCheckpoint(
  pathOrRunDir: string,
  options: { only?: (name: string) => boolean } = {},
): Promise<Checkpoint> {
  checkArguments('loadCheckpoint', { pathOrRunDir: [pathOrRunDir, 'a text'] });
  checkOptions('loadCheckpoint', options, { only: 'a function?' });
  const { only = () => true } = options;
  const path = await resolveCheckpoint(pathOrRunDir);
  return withFile(path, async (file, size) => {
    const { metadata, tensors, dataStart } = await readHeader(file, size, path);
    const read = new Map<string, StoredTensor>();
    for (const [name, { dtype, shape, begin, end }] of tensors) {
      if (only(name))
        read.set(name, {
          dtype,
          shape,
          data: viewTensor(dtype, await readBytes(file, path, dataStart + begin, end - begin)),
        });
    }
    return { path, metadata, tensors: read };
  });
}

// ---------------------------------------------------------------------------------- what a run's state holds

/** A tensor of a training state, in PyTorch's layout. */
export interface ParameterTensor {
  shape: number[];
  data: Float32Array<ArrayBuffer>;
}

/** Everything that a resumed run needs to go on as if it had never stopped. */
export interface TrainingState {
  /** Updates made; masks, crops and the sampler's position follow from it and the seed. */
  step: number;
  config: RunConfig;
  parameters: Map<string, ParameterTensor>;
  /** AdamW's moments, by parameter name. */
  expAvg: Map<string, ParameterTensor>;
  expAvgSq: Map<string, ParameterTensor>;
  /** Position of the sampler in the order of the data, in utterances drawn. */
  samplerPosition: number;
  /** Seconds of audio learned from, and of wall-clock time, over all sittings. */
  audioSeconds: number;
  elapsedSeconds: number;
}

const FIRST = 'optimizer.exp_avg.';
const SECOND = 'optimizer.exp_avg_sq.';

/** SHA-256 of a network configuration, whatever the order of its fields. */
export function configHash(config: object): string {
  const sorted = (x: unknown): unknown =>
    typeof x === 'object' && x !== null && !Array.isArray(x)
      ? Object.fromEntries(
          Object.entries(x)
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([k, inner]) => [k, sorted(inner)]),
        )
      : x;
  return createHash('sha256')
    .update(JSON.stringify(sorted(config)))
    .digest('hex');
}

/**
 * Weights under their plain names (those of wav2vec 2.0, so that others can load the file), moments under
 * `optimizer.*`, the rest as metadata.
 */
export function encodeState(state: TrainingState): Omit<CheckpointToSave, 'metric'> {
  checkFields('encodeState', 'state.', state, {
    step: 'a number',
    config: RUN,
    parameters: 'a Map',
    expAvg: 'a Map',
    expAvgSq: 'a Map',
  });
  const { step, config, parameters, expAvg, expAvgSq, samplerPosition, audioSeconds, elapsedSeconds } = state;
  const tensors = new Map<string, TensorToStore>(parameters);
  for (const [name, moment] of expAvg) tensors.set(FIRST + name, moment);
  for (const [name, moment] of expAvgSq) tensors.set(SECOND + name, moment);
  return {
    step,
    tensors,
    metadata: {
      format: CHECKPOINT_FORMAT,
      step: String(step),
      seed: String(config.train.seed),
      sampler_position: String(samplerPosition),
      audio_seconds: String(audioSeconds),
      elapsed_seconds: String(elapsedSeconds),
      config: JSON.stringify(config.mgf),
      config_hash: configHash(config.mgf),
      train_config: JSON.stringify(config.train),
    },
  };
}

function requireFormat({ path, metadata }: Pick<Checkpoint, 'path' | 'metadata'>): void {
  if (metadata['format'] === CHECKPOINT_FORMAT) return;
  const found =
    metadata['format'] === undefined
      ? 'has no format in its metadata'
      : `has the format ${JSON.stringify(metadata['format'].slice(0, 80))}`;
  throw new MGFError(
    'checkpoint',
    `${path} is not a checkpoint of this program: it ${found}, where ${CHECKPOINT_FORMAT} is needed.`,
  );
}

/**
 * The configuration inside a checkpoint. Errors (`checkpoint`): not one of ours, or damaged; (`config`): one
 * that this version cannot use.
 */
export function checkpointConfig(checkpoint: Pick<Checkpoint, 'path' | 'metadata'>): RunConfig {
  checkFields('checkpointConfig', 'checkpoint.', checkpoint, { path: 'a text', metadata: 'an object' });
  requireFormat(checkpoint);
  const origin = `${checkpoint.path} (its configuration)`;
  return {
    mgf: parseConfig(metadataJson(checkpoint.path, checkpoint.metadata, 'config'), { origin }),
    train: parseTrainConfig(metadataJson(checkpoint.path, checkpoint.metadata, 'train_config'), { origin }),
  };
}

/** Error (`checkpoint`): a weight without moments, or moments of another shape. */
function requireMoments({ parameters, expAvg, expAvgSq }: TrainingState, path: string): void {
  for (const [name, { shape }] of parameters) {
    for (const moments of [expAvg, expAvgSq]) {
      const found = moments.get(name)?.shape;
      if (found?.join() !== shape.join()) {
        const what = found ? `of shape [${found.join(', ')}], not [${shape.join(', ')}]` : 'missing';
        throw new MGFError(
          'checkpoint',
          `${path} cannot be resumed: the optimiser's moments of ${name} are ${what}.`,
        );
      }
    }
  }
}

/**
 * The inverse of `encodeState`. Errors as in `checkpointConfig`; also (`checkpoint`) a number or a moment
 * that is missing.
 */
export function decodeState(checkpoint: Checkpoint): TrainingState {
  checkFields('decodeState', 'checkpoint.', checkpoint, {
    path: 'a text',
    metadata: 'an object',
    tensors: 'a Map',
  });
  const config = checkpointConfig(checkpoint);
  const number = (key: string) => {
    const value = metadataJson(checkpoint.path, checkpoint.metadata, key);
    if (typeof value !== 'number' || !(value >= 0))
      throw new MGFError(
        'checkpoint',
        `${checkpoint.path} cannot be used: its metadata has no sound ${key}.`,
      );
    return value;
  };
  const state: TrainingState = {
    step: number('step'),
    config,
    parameters: new Map(),
    expAvg: new Map(),
    expAvgSq: new Map(),
    samplerPosition: number('sampler_position'),
    audioSeconds: number('audio_seconds'),
    elapsedSeconds: number('elapsed_seconds'),
  };
  for (const [name, tensor] of checkpoint.tensors) {
    const stored = { shape: tensor.shape, data: toFloat32(tensor, name, checkpoint.path) };
    if (name.startsWith(FIRST)) state.expAvg.set(name.slice(FIRST.length), stored);
    else if (name.startsWith(SECOND)) state.expAvgSq.set(name.slice(SECOND.length), stored);
    else state.parameters.set(name, stored);
  }
  requireMoments(state, checkpoint.path);
  return state;
}

/** Weights by plain name, without the optimiser's moments; of any safetensors file. */
export async function loadWeights(
  pathOrRunDir: string,
): Promise<{ path: string; metadata: Record<string, string>; parameters: Map<string, ParameterTensor> }> {
  checkArguments('loadWeights', { pathOrRunDir: [pathOrRunDir, 'a text'] });
  const { path, metadata, tensors } = await loadCheckpoint(pathOrRunDir, {
    only: (name) => !name.startsWith('optimizer.'),
  });
  return {
    path,
    metadata,
    parameters: new Map(
      [...tensors].map(([name, tensor]) => [
        name,
        { shape: tensor.shape, data: toFloat32(tensor, name, path) },
      ]),
    ),
  };
}
