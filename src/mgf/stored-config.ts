import { MGFError } from '../errors.ts';
import type { MGFConfig } from './config.ts';
import { parseConfig } from './parse-config.ts';

/**
 * What `metadata.format` says in a checkpoint (src/pretrain/checkpoint.ts) and in a task model
 * (src/tasks/finetune/model.ts).
 */
export const CHECKPOINT_FORMAT = 'mgf-checkpoint/1';
export const TASK_MODEL_FORMAT = 'mgf-task/1';

/** JSON under a key of a file's metadata. Throws MGFError 'checkpoint'. */
export function metadataJson(
  origin: string,
  metadata: Readonly<Record<string, string>>,
  key: string,
): unknown {
  try {
    return JSON.parse(metadata[key] ?? '');
  } catch (error) {
    throw new MGFError(
      'checkpoint',
      `${origin} cannot be used: its metadata has no sound ${key}; use another copy.`,
      { cause: error },
    );
  }
}

/**
 * The configuration that a safetensors file of this engine has in its metadata; null for files of others,
 * whose configuration lies beside them. Throws MGFError 'checkpoint' for damaged metadata, 'config' for a
 * network that this version cannot compute.
 */
export function storedConfig(origin: string, metadata: Readonly<Record<string, string>>): MGFConfig | null {
  if (metadata['format'] !== CHECKPOINT_FORMAT && metadata['format'] !== TASK_MODEL_FORMAT) return null;
  return parseConfig(metadataJson(origin, metadata, 'config'), { origin: `${origin} (its configuration)` });
}
