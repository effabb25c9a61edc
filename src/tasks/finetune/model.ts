/** Task models: a network and its head in one file that needs nothing beside it (Node, Deno, Bun). */
import { mkdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { checkArguments, checkFields, checkOptions, CONFIG } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import type { MGFConfig } from '../../mgf/config.ts';
import { wav2vec2Names } from '../../mgf/encoder.ts';
import { metadataJson, storedConfig, TASK_MODEL_FORMAT } from '../../mgf/stored-config.ts';
import { mgfParameters } from '../../mgf/weights.ts';
import type { HostTensor } from '../../plan/parameters.ts';
import { loadCheckpoint, writeFileAtomically } from '../../pretrain/checkpoint.ts';
import { safetensorsParts, toFloat32, type TensorToStore } from '../../io/safetensors.ts';
import { headParameters, type HeadSpec } from '../probe/head.ts';
import { NGram } from '../decode/ngram.ts';
import { TASKS } from '../task.ts';

/** What the folder of a fine-tuning run calls its model. */
export const TASK_MODEL_FILE = 'model.safetensors';

/** A network with the head of a task, as a file holds it. */
export interface TaskModel {
  readonly config: MGFConfig;
  readonly spec: HeadSpec;
  /** Names of the task's classes; for asr its characters, without the blank. */
  readonly classes: readonly string[];
  /**
   * At least the encoder's weights by checkpoint name, in PyTorch's layouts (others are left out of the
   * file); names of the wav2vec 2.0 family will do.
   */
  readonly encoder: ReadonlyMap<string, HostTensor>;
  /** Weights and feature statistics of the head, by the names of `headParameters`. */
  readonly head: ReadonlyMap<string, HostTensor>;
  /** asr: a character model of the training transcripts. */
  readonly lm?: NGram | undefined;
  /** Whatever else should be known of it, such as the checkpoint that it began with. */
  readonly notes?: Readonly<Record<string, string>> | undefined;
}

const LM = 'task.ngrams';
const NOTE = 'note.';
/** Of a network whose mask vector nobody ever needed. */
const OPTIONAL = 'masked_spec_embed';

const specs = (
  list: readonly {
    readonly parts: readonly { readonly name: string; readonly shape: readonly number[] }[];
  }[],
) => list.flatMap(({ parts }) => parts);

/**
 * Writes a task model as one safetensors file: `mgf predict`, `mgf embed` and `mgf finetune` take it as they
 * take a checkpoint. `half` stores the encoder's weights as f16. A probe's head (`onRow` of `probeTask`) goes
 * with the checkpoint's own weights:
 *
 *     await saveTaskModel('speaker.safetensors', { config, spec: head.spec, classes: data.classes, encoder:
 *     parameters, head: head.parameters });
 *
 * Throws MGFError 'shape' for a tensor that is missing or does not fit, 'io' as `writeFileAtomically`.
 */
export async function saveTaskModel(
  path: string,
  model: TaskModel,
  options: { readonly half?: boolean | undefined } = {},
): Promise<void> {
  checkArguments('saveTaskModel', { path: [path, 'a text'] });
  checkFields('saveTaskModel', 'model.', model, {
    config: CONFIG,
    spec: 'an object',
    classes: 'a list',
    encoder: 'a Map',
    head: 'a Map',
  });
  checkOptions('saveTaskModel', options, { half: 'true or false?' });
  const { config, spec, classes, encoder, head, lm, notes = {} } = model;
  const { half = false } = options;
  const tensors = new Map<string, TensorToStore>();
  const given = wav2vec2Names(encoder);
  const put = (
    from: ReadonlyMap<string, HostTensor>,
    { name, shape }: { readonly name: string; readonly shape: readonly number[] },
    asHalf: boolean,
  ): void => {
    const tensor =
      from.get(name) ?? (name === OPTIONAL ? { shape, data: new Float32Array(shape[0]!) } : undefined);
    if (tensor?.shape.join() !== shape.join())
      throw new MGFError(
        'shape',
        `a task model needs the tensor "${name}" of shape [${shape.join(', ')}], got ` +
          `${tensor ? `[${tensor.shape.join(', ')}]` : 'none'}`,
      );
    tensors.set(name, { shape, data: tensor.data, half: asHalf });
  };
  for (const part of specs(mgfParameters(config, []))) put(given, part, half);
  for (const part of specs(headParameters(spec))) put(head, part, false);
  if (lm) {
    // As floats, which hold counts as exactly: whoever reads weights expects nothing else in a file.
    const table = lm.table();
    tensors.set(LM, { shape: [table.length / (lm.order + 1), lm.order + 1], data: Float32Array.from(table) });
  }
  const metadata = {
    format: TASK_MODEL_FORMAT,
    task: spec.task,
    config: JSON.stringify(config),
    head: JSON.stringify(spec),
    classes: JSON.stringify(classes),
    ...Object.fromEntries(Object.entries(notes).map(([key, value]) => [NOTE + key, value])),
  };
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomically(path, safetensorsParts(tensors, metadata));
}

/** Whether the metadata of a file says that it is a task model. */
export const isTaskModel = (metadata: Readonly<Record<string, string>>): boolean =>
  metadata['format'] === TASK_MODEL_FORMAT;

/**
 * Reads a task model: its file, or the folder of the fine-tuning run that made it.
 * Throws MGFError 'checkpoint' for a file that has no head or is damaged, 'io' where there is nothing.
 */
export async function loadTaskModel(fileOrFolder: string): Promise<TaskModel & { readonly path: string }> {
  checkArguments('loadTaskModel', { fileOrFolder: [fileOrFolder, 'a text'] });
  const inside = join(fileOrFolder, TASK_MODEL_FILE);
  const folder = await stat(inside).then(
    () => true,
    () => false,
  );
  const { path, metadata, tensors } = await loadCheckpoint(folder ? inside : fileOrFolder, {
    only: (name) => !name.startsWith('optimizer.'),
  });
  if (!isTaskModel(metadata)) {
    throw new MGFError(
      'checkpoint',
      `${path} is a pre-trained encoder without a head, which knows no task: \`mgf probe TASK --save\` ` +
        `or \`mgf finetune TASK\` makes one.`,
    );
  }
  const config = storedConfig(path, metadata)!;
  const spec = headSpec(path, metadataJson(path, metadata, 'head'));
  const classes = metadataJson(path, metadata, 'classes');
  if (!Array.isArray(classes) || !classes.every((name) => typeof name === 'string'))
    throw damaged(path, 'classes');
  const read = (
    wanted: readonly { readonly name: string; readonly shape: readonly number[] }[],
  ): Map<string, HostTensor> =>
    new Map(
      wanted.map(({ name, shape }) => {
        const tensor = tensors.get(name);
        if (tensor?.shape.join() !== shape.join())
          throw new MGFError(
            'checkpoint',
            `${path} lacks the tensor "${name}" of shape [${shape.join(', ')}], which its ` +
              'configuration needs; use another copy.',
          );
        return [name, { shape, data: toFloat32(tensor, name, path) }];
      }),
    );
  const table = tensors.get(LM);
  const lm =
    table &&
    NGram.fromTable(Int32Array.from(toFloat32(table, LM, path)), {
      order: (table.shape[1] ?? 0) - 1,
      classes: classes.length + 1,
    });
  const notes = Object.fromEntries(
    Object.entries(metadata).flatMap(([key, value]) =>
      key.startsWith(NOTE) ? [[key.slice(NOTE.length), value]] : [],
    ),
  );
  return {
    path,
    config,
    spec,
    classes,
    encoder: read(specs(mgfParameters(config, []))),
    head: read(specs(headParameters(spec))),
    notes,
    ...(lm && { lm }),
  };
}

const damaged = (path: string, what: string): MGFError =>
  new MGFError('checkpoint', `${path} cannot be used: its metadata has no sound ${what}; use another copy.`);

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const headSchema = v.object({
  task: v.picklist(TASKS),
  classes: count,
  layer: v.union([count, v.literal('sum'), v.null()]),
  layers: count,
  dim: count,
  head: v.picklist(['linear', 'mlp']),
  pool: v.picklist(['none', 'mean', 'mean+std']),
});

function headSpec(path: string, value: unknown): HeadSpec {
  const { success, output } = v.safeParse(headSchema, value);
  if (!success || output.classes < 1 || (typeof output.layer === 'number' && output.layer > output.layers))
    throw damaged(path, 'head');
  return output;
}
