/**
 * The networks that commands begin with: checkpoints, exported weights, task models, wav2vec 2.0's files, and
 * the model that comes with this program.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Option } from 'commander';
import { SHIPPED } from '../app/shipped.ts';
import { MGFError } from '../errors.ts';
import { fromHuggingFace } from '../mgf/huggingface.ts';
import { CHECKPOINT_FORMAT, storedConfig } from '../mgf/stored-config.ts';
import { checkpointConfig, loadWeights } from '../pretrain/checkpoint.ts';
import type { MGFConfig, TrainConfig } from '../mgf/config.ts';
import type { HostTensor } from '../plan/parameters.ts';

/** `--checkpoint`, the same for every command that uses a network. */
export const checkpointOption = (): Option =>
  new Option(
    '--checkpoint <file>',
    'checkpoint, folder of a run (its newest checkpoint), exported weights, task model, or a wav2vec 2.0 ' +
      'model.safetensors with its config.json',
  ).default(fileURLToPath(SHIPPED), 'mgf-tiny, which comes with this program');

export interface NetworkFile {
  readonly path: string;
  readonly config: MGFConfig;
  /** How it was trained, where the file knows. */
  readonly train?: TrainConfig;
  readonly parameters: Map<string, HostTensor>;
}

/**
 * A network's weights and configuration: ours, those of a task model, or one of the wav2vec 2.0 family with
 * the `config.json` beside it.
 */
export async function loadEncoderWeights(checkpoint: string): Promise<NetworkFile> {
  const { path, metadata, parameters } = await loadWeights(checkpoint);
  if (metadata['format'] === CHECKPOINT_FORMAT) {
    const { mgf, train } = checkpointConfig({ path, metadata });
    return { path, config: mgf, train, parameters };
  }
  const stored = storedConfig(path, metadata);
  if (stored) return { path, config: stored, parameters };
  const beside = join(dirname(path), 'config.json');
  let text: string;
  try {
    text = await readFile(beside, 'utf8');
  } catch (error) {
    throw new MGFError(
      'checkpoint',
      `${path} was not made by this program, and there is no config.json of the wav2vec 2.0 family beside it.`,
      { cause: error },
    );
  }
  try {
    return { path, config: fromHuggingFace(JSON.parse(text), { origin: beside }), parameters };
  } catch (error) {
    if (error instanceof MGFError) throw error;
    throw new MGFError('config', `${beside} is not JSON (${(error as Error).message}).`, { cause: error });
  }
}
