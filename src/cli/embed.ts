/** `mgf embed FILES...`: hidden states of recordings, as arrays for other programs. */
import { channelOption, readManifests, skipBadOption } from './recordings.ts';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname, extname } from 'node:path';
import { Command, Option } from 'commander';
import { DecoderPool } from '../audio/decode.ts';
import { meanOverFrames } from '../app/compare.ts';
import { loadAudio } from '../audio/load.ts';
import { segmentOf, type ManifestOptions, type Skipped, type Utterance } from '../audio/manifest.ts';
import { batchesBySeconds, HOP, isSilent, RECEPTIVE_FIELD, SAMPLE_RATE } from '../audio/sampling.ts';
import { MGFError } from '../errors.ts';
import { Encoder, featureLayer } from '../mgf/encoder.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import { writeNpy } from '../io/npy.ts';
import { safetensorsParts } from '../io/safetensors.ts';
import {
  adapterOption,
  ioError,
  jsonOption,
  listSkipped,
  plural,
  positive,
  precisionOption,
  print,
  say,
  withGpu,
} from './common.ts';
import { checkpointOption, loadEncoderWeights } from './weights.ts';
import type { OnBad } from '../audio/samples.ts';
import type { AdapterPreference, Precision } from '../gpu/device.ts';
import type { MGFConfig } from '../mgf/config.ts';
import type { TensorToStore } from '../io/safetensors.ts';

interface Options extends ManifestOptions {
  checkpoint: string;
  layer?: string;
  pool: 'none' | 'mean';
  out?: string;
  batchSeconds: number;
  onBad: OnBad;
  precision?: Precision;
  adapter?: AdapterPreference;
  json?: boolean;
}

const FORMATS = ['.npy', '.safetensors', '.jsonl'] as const;

export function embedCommand(): Command {
  return new Command('embed')
    .summary('turn recordings into features with a trained model')
    .description(
      'Writes hidden states of recordings: one vector each 20 ms, or with --pool mean one per ' +
        'recording. Frame t covers the samples ' +
        '[320 t, 320 t + 400) of the recording at 16 kHz.',
    )
    .argument('<files...>', 'audio files, folders, globs, or manifests (TSV, CSV, JSONL)')
    .addOption(checkpointOption())
    .option(
      '--layer <n>',
      'hidden state: 0 is the input of the first layer, the number of layers the output of the last, ' +
        'or all (default: the one three quarters up)',
    )
    .addOption(
      new Option('--pool <how>', 'none: a vector per frame; mean: one per recording')
        .choices(['none', 'mean'])
        .default('none'),
    )
    .option(
      '--out <file>',
      'f.npy (one recording, or one row per recording when pooled), f.safetensors or f.jsonl (default: ' +
        'the name of the one recording with .npy, else features.safetensors, here)',
    )
    .addOption(
      new Option('--batch-seconds <s>', 'audio in a batch: more is faster, and needs more memory')
        .argParser(positive)
        .default(30),
    )
    .addOption(
      new Option(
        '--on-bad <how>',
        'samples that are NaN or infinite: refuse leaves the recording out; ' +
          'zero replaces them by 0 and warns',
      )
        .choices(['refuse', 'zero'])
        .default('refuse'),
    )
    .addOption(precisionOption())
    .addOption(channelOption())
    .addOption(skipBadOption())
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf embed speech.wav                                                  (writes speech.npy)
  mgf embed recordings/ --checkpoint runs/first --pool mean --out voices.npy
  mgf embed list.tsv --checkpoint runs/first/best.safetensors --layer all --out features.safetensors
  mgf embed speech.flac --checkpoint runs/first --out speech.jsonl      (a line per frame, with its times in seconds)`,
    )
    .action((files: string[], options: Options) => runEmbed(files, options));
}

/** Hidden states to read. `--layer` is text because it may be `all`. */
function chosenLayers(text: string | undefined, config: MGFConfig): number[] {
  const layers = config.num_hidden_layers;
  if (text === undefined) return [featureLayer(config)];
  if (text === 'all') return Array.from({ length: layers + 1 }, (_, i) => i);
  const layer = Number(text);
  if (text.trim() === '' || !Number.isInteger(layer) || layer < 0 || layer > layers) {
    throw new MGFError(
      'usage',
      `--layer is ${JSON.stringify(text)}, but this model has the hidden states 0 to ${layers}; give ` +
        'one of them, or all.',
    );
  }
  return [layer];
}

/** Features of one recording. */
interface Embedded {
  item: Utterance;
  frames: number;
  /** By layer [frames, D], or [1, D] when pooled. */
  layers: Float32Array[];
}

export interface EmbedOptions {
  layers: readonly number[];
  pool: 'none' | 'mean';
  batchSeconds: number;
  /**
   * Samples that are NaN or infinite: the recording is left out (default), or they are replaced by 0, with a
   * warning.
   */
  onBad?: OnBad;
  onProgress?: (done: number, total: number) => void;
  /** A recording that was embedded but looks wrong: samples replaced by 0, silence. */
  onWarning?: (text: string) => void;
}

/**
 * Embeds recordings in batches of similar length; what cannot be used is in `skipped`. In the order of
 * `items`.
 */
export async function embedAll(
  encoder: Encoder,
  items: readonly Utterance[],
  options: EmbedOptions,
): Promise<{ embedded: Embedded[]; skipped: Skipped[] }> {
  const skipped: Skipped[] = [];
  const clips = new Map<number, Float32Array>();
  const results = new Map<number, Embedded>();
  let done = 0;
  // Decoded in groups, so that a long list is never in memory as a whole, yet clips of similar length meet.
  const flush = async () => {
    const indices = [...clips.keys()];
    const waves = indices.map((i) => clips.get(i)!);
    for (const batch of batchesBySeconds(
      waves.map((w) => w.length / SAMPLE_RATE),
      options.batchSeconds,
    )) {
      const features = await encodeBatch(
        encoder,
        batch.map((b) => waves[b]!),
        batch.map((b) => items[indices[b]!]!),
        options.layers,
      );
      features.forEach(({ frames, layers }, k) => {
        const index = indices[batch[k]!]!;
        results.set(index, {
          item: items[index]!,
          frames,
          layers: options.pool === 'mean' ? layers.map((x) => meanOverFrames(x, x.length / frames)) : layers,
        });
      });
      done += batch.length;
      options.onProgress?.(done + skipped.length, items.length);
    }
    clips.clear();
  };
  const decoders = new DecoderPool();
  let waiting = 0;
  for (const [index, item] of items.entries()) {
    try {
      const wave = await loadAudio(
        item.path,
        {
          ...segmentOf(item),
          onBad: options.onBad,
          onWarning: ({ message }) => options.onWarning?.(message),
        },
        decoders,
      );
      if (wave.length < RECEPTIVE_FIELD)
        throw new MGFError(
          'audio',
          `"${item.path}" has ${wave.length} samples; one frame needs ${RECEPTIVE_FIELD} (25 ms at 16 kHz).`,
        );
      if (isSilent(wave))
        options.onWarning?.(`"${item.path}" is silent or constant; its features mean little.`);
      clips.set(index, wave);
      waiting += wave.length / SAMPLE_RATE;
    } catch (error) {
      if (!(error instanceof MGFError)) throw error;
      skipped.push({ path: item.path, reason: error.message });
    }
    if (waiting < 20 * options.batchSeconds) continue;
    await flush();
    waiting = 0;
  }
  decoders.free();
  await flush();
  return { embedded: [...results].sort(([a], [b]) => a - b).map(([, e]) => e), skipped };
}

async function encodeBatch(
  encoder: Encoder,
  waves: Float32Array[],
  items: readonly Utterance[],
  layers: readonly number[],
) {
  try {
    return await encoder.embed(waves, { layers });
  } catch (error) {
    if (!(error instanceof MGFError) || (error.code !== 'limit' && error.code !== 'out-of-memory'))
      throw error;
    const longest = waves.reduce((best, wave, i) => (wave.length > waves[best]!.length ? i : best), 0);
    const remedy =
      waves.length > 1
        ? 'lower --batch-seconds'
        : 'cut it into segments, for instance with the columns offset and duration of a manifest';
    throw new MGFError(
      error.code,
      `"${items[longest]!.path}" (${(waves[longest]!.length / SAMPLE_RATE).toFixed(1)} s, in a batch ` +
        `of ${waves.length}) is too long for this adapter ` +
        `(${error.message.replace(/\.$/, '')}); ${remedy}.`,
      { cause: error },
    );
  }
}

/** Where features go when nobody says: into the current folder, over nothing that is there. */
function defaultOut(items: readonly Utterance[]): string {
  const [first] = items;
  const out =
    items.length === 1 ? `${basename(first!.path, extname(first!.path))}.npy` : 'features.safetensors';
  if (existsSync(out))
    throw new MGFError('usage', `${out} exists; give \`--out ${out}\` to write over it, or another name.`);
  return out;
}

async function runEmbed(files: string[], options: Options): Promise<void> {
  const { items, skipped: listed } = await readManifests(files, options);
  const out = options.out ?? defaultOut(items);
  const format = extname(out).toLowerCase();
  if (!(FORMATS as readonly string[]).includes(format))
    throw new MGFError('usage', `--out is ${JSON.stringify(out)}, but must end in ${FORMATS.join(', ')}.`);
  if (format === '.npy' && options.pool === 'none' && items.length > 1) {
    throw new MGFError(
      'usage',
      `A .npy file holds one array, but ${items.length} recordings have different numbers of frames; ` +
        'use --pool mean, or --out with .safetensors or .jsonl.',
    );
  }
  const { path, config, parameters } = await loadEncoderWeights(options.checkpoint);
  const layers = chosenLayers(options.layer, config);
  await mkdir(dirname(out), { recursive: true }).catch((error: unknown) => {
    throw ioError(error, 'write to the folder', dirname(out));
  });
  await withGpu(options.adapter, async (gpu) => {
    const encoder = await Encoder.create(gpu, config, parameters, { precision: options.precision });
    const started = performance.now();
    try {
      let shown = started;
      const { embedded, skipped: failed } = await embedAll(encoder, items, {
        layers,
        pool: options.pool,
        batchSeconds: options.batchSeconds,
        onBad: options.onBad,
        onWarning: (text) => say(`Warning: ${text}`),
        onProgress: (done, total) => {
          if (performance.now() - shown < 5000) return;
          shown = performance.now();
          say(`${done} of ${total} recordings`);
        },
      });
      const skipped = [...listed, ...failed];
      if (embedded.length === 0) {
        throw new MGFError(
          'data',
          `Of ${plural(items.length, 'recording')} none could be ` +
            `used${skipped[0] ? `; the first: ${skipped[0].reason.replace(/\.$/, '')}` : ''}.`,
        );
      }
      const seconds = (performance.now() - started) / 1000;
      const audio = embedded.reduce((sum, e) => sum + (HOP * e.frames) / SAMPLE_RATE, 0);
      const meta = {
        checkpoint: path,
        sample_rate: SAMPLE_RATE,
        hop_seconds: HOP / SAMPLE_RATE,
        window_seconds: RECEPTIVE_FIELD / SAMPLE_RATE,
        layers,
        pool: options.pool,
        width: config.hidden_size,
        files: embedded.map(({ item, frames }) => ({
          id: item.id,
          path: item.path,
          frames,
          ...(item.offset !== undefined && { offset: item.offset }),
        })),
      };
      try {
        await write({ out, pool: options.pool }, format, embedded, layers, config.hidden_size, meta);
      } catch (error) {
        throw ioError(error, 'write', out);
      }
      if (skipped.length > 0) {
        say(`Left out ${plural(skipped.length, 'recording')}:`);
        for (const line of listSkipped(skipped, 10)) say(line);
      }
      const summary =
        `${plural(embedded.length, 'recording')}, ${plural(
          embedded.reduce((n, e) => n + e.frames, 0),
          'frame',
        )}, layer ${layers.join(', ')}, ` +
        `${(audio / seconds).toFixed(1)} audio s/s on ${gpu.profile.name}: ${out}`;
      print(
        options.json
          ? JSON.stringify({ out, adapter: gpu.profile.name, seconds, ...meta, skipped }, null, 2)
          : summary,
      );
    } finally {
      encoder.destroy();
    }
  });
}

type Meta = Record<string, unknown>;
interface Target {
  out: string;
  pool: Options['pool'];
}

async function write(
  { out, pool }: Target,
  format: string,
  embedded: readonly Embedded[],
  layers: readonly number[],
  width: number,
  meta: Meta,
): Promise<void> {
  const encode = (text: string) => new TextEncoder().encode(text);
  if (format === '.jsonl') await writeFileAtomically(out, jsonLines(embedded, layers, width, pool, encode));
  else if (format === '.safetensors') {
    const tensors = new Map<string, TensorToStore>();
    for (const { item, frames, layers: values } of embedded) {
      layers.forEach((layer, i) => {
        const name = layers.length > 1 ? `${item.id}/layer.${layer}` : item.id;
        tensors.set(name, { shape: pool === 'mean' ? [width] : [frames, width], data: values[i]! });
      });
    }
    await writeFileAtomically(
      out,
      safetensorsParts(
        tensors,
        Object.fromEntries(
          Object.entries(meta).map(([k, v]) => [k, typeof v === 'string' ? v : JSON.stringify(v)]),
        ),
      ),
    );
  } else {
    const rows = pool === 'mean' ? [embedded.length] : [];
    const many = layers.length > 1 ? [layers.length] : [];
    const frames = pool === 'mean' ? [] : [embedded[0]!.frames];
    const shape = [...rows, ...many, ...frames, width];
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    let at = 0;
    for (const { layers: values } of embedded)
      for (const value of values) {
        data.set(value, at);
        at += value.length;
      }
    await writeFileAtomically(out, [writeNpy(data, shape)]);
    // An array has no room for the names of its rows and the times of its frames.
    await writeFileAtomically(`${out}.json`, [encode(`${JSON.stringify({ shape, ...meta }, null, 2)}\n`)]);
  }
}

function* jsonLines(
  embedded: readonly Embedded[],
  layers: readonly number[],
  width: number,
  pool: 'none' | 'mean',
  encode: (text: string) => Uint8Array,
): Generator<Uint8Array> {
  for (const { item, frames, layers: values } of embedded) {
    const time = (sample: number) => Number(((item.offset ?? 0) + sample / SAMPLE_RATE).toFixed(6));
    for (const [i, layer] of layers.entries()) {
      for (let t = 0; t < (pool === 'mean' ? 1 : frames); t++) {
        const where =
          pool === 'mean'
            ? { frames, start: time(0), end: time(HOP * (frames - 1) + RECEPTIVE_FIELD) }
            : { frame: t, start: time(HOP * t), end: time(HOP * t + RECEPTIVE_FIELD) };
        yield encode(
          `${JSON.stringify({ id: item.id, path: item.path, layer, ...where, vector: Array.from(values[i]!.subarray(t * width, (t + 1) * width)) })}\n`,
        );
      }
    }
  }
}
