/** `mgf export CHECKPOINT`: the weights of a checkpoint alone, small enough to hand on. */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Command, Option } from 'commander';
import { MGFError } from '../errors.ts';
import { CHECKPOINT_FORMAT } from '../mgf/stored-config.ts';
import { checkpointConfig, loadWeights, writeFileAtomically } from '../pretrain/checkpoint.ts';
import { safetensorsParts, type TensorToStore } from '../io/safetensors.ts';
import { collect, jsonOption, print, say } from './common.ts';

interface Options {
  out: string;
  dtype: 'f16' | 'f32';
  heads: boolean;
  note?: string[];
  json?: boolean;
}

/**
 * Of a checkpoint's metadata, what still holds for its weights alone; the hash guards resuming, which the
 * file cannot.
 */
const KEPT = ['format', 'step', 'seed', 'audio_seconds', 'elapsed_seconds', 'config', 'train_config'];

export function exportCommand(): Command {
  return new Command('export')
    .summary('write the weights of a checkpoint alone, to hand on')
    .description(
      "Writes a checkpoint without the optimiser's moments, by default in half precision and without " +
        'the heads of the pre-training losses: about a sixth of its size. ' +
        'Every command that reads a checkpoint takes the file, but no run can be resumed from it.',
    )
    .argument('<checkpoint>', 'checkpoint, or folder of a run (its newest checkpoint)')
    .requiredOption('--out <file>', 'where to write, as model.safetensors')
    .addOption(new Option('--dtype <name>', 'how weights are stored').choices(['f16', 'f32']).default('f16'))
    .option('--heads', 'keep the heads of the pre-training losses, with which reconstructions are drawn')
    .addOption(
      new Option(
        '--note <key=value>',
        'something that the file should say of itself, such as its licence; may be repeated',
      ).argParser(collect),
    )
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf export runs/mine --out mine.safetensors
  mgf export runs/mine/best.safetensors --out mine.safetensors --dtype f32 --heads --note licence=CC-BY-4.0`,
    )
    .action((checkpoint: string, options: Options) => runExport(checkpoint, options));
}

async function runExport(checkpoint: string, { out, dtype, heads, note = [], json }: Options): Promise<void> {
  const { path, metadata, parameters } = await loadWeights(checkpoint);
  if (metadata['format'] !== CHECKPOINT_FORMAT)
    throw new MGFError(
      'checkpoint',
      `${path} is not a checkpoint of this program, so there is nothing to take out of it.`,
    );
  checkpointConfig({ path, metadata });
  const notes = note.map((text): [string, string] => {
    const at = text.indexOf('=');
    if (at < 1) throw new MGFError('usage', `--note is ${JSON.stringify(text)}, but must be KEY=VALUE.`);
    return [`note.${text.slice(0, at)}`, text.slice(at + 1)];
  });
  const kept = [...parameters].filter(([name]) => heads || !name.startsWith('heads.'));
  // Per-channel vectors are few and hold what half precision rounds worst; matrices are nearly all of the
  // file.
  const tensors = new Map(
    kept.map(([name, tensor]): [string, TensorToStore] => [
      name,
      { ...tensor, half: dtype === 'f16' && tensor.shape.length > 1 },
    ]),
  );
  const parts = [
    ...safetensorsParts(
      tensors,
      Object.fromEntries([
        ...KEPT.flatMap((key) => (metadata[key] === undefined ? [] : [[key, metadata[key]]])),
        ...notes,
      ]),
    ),
  ];
  const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
  const count = kept.reduce((sum, [, { data }]) => sum + data.length, 0);
  await mkdir(dirname(out), { recursive: true });
  await writeFileAtomically(out, parts);
  if (json) print(JSON.stringify({ from: path, out, dtype, parameters: count, bytes }, null, 2));
  else say(`${out}: ${count.toLocaleString('en-US')} parameters of ${path}, ${(bytes / 1e6).toFixed(2)} MB`);
}
