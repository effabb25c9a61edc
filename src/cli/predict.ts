/** `mgf predict CHECKPOINT FILES...`: phones, voices, words or moods of recordings, from a task model. */
import { channelOption, readManifests, skipBadOption } from './recordings.ts';
import { Command, Option } from 'commander';
import { DecoderPool } from '../audio/decode.ts';
import { loadAudio } from '../audio/load.ts';
import { segmentOf, type ManifestOptions, type Skipped, type Utterance } from '../audio/manifest.ts';
import { batchesBySeconds, RECEPTIVE_FIELD, SAMPLE_RATE } from '../audio/sampling.ts';
import { MGFError } from '../errors.ts';
import { loadTaskModel, type TaskModel } from '../tasks/finetune/model.ts';
import { decodeTranscript, type ClipLogits } from '../tasks/decode/decode.ts';
import { classProbabilities, decodePhones, TaskNetwork } from '../tasks/finetune/predict.ts';
import {
  adapterOption,
  jsonOption,
  listSkipped,
  plural,
  positive,
  positiveInteger,
  precisionOption,
  print,
  say,
  withGpu,
} from './common.ts';
import type { AdapterPreference, Precision } from '../gpu/device.ts';
import type { BeamOptions } from '../tasks/decode/decode.ts';

interface Options extends ManifestOptions {
  beam?: number;
  lm?: number;
  insertionBonus?: number;
  top: number;
  batchSeconds: number;
  precision?: Precision;
  adapter?: AdapterPreference;
  json?: boolean;
}

/** Decoded audio that is held at once, in batches. */
const GROUP = 10;

export function predictCommand(): Command {
  return new Command('predict')
    .summary('say what a task model hears in recordings')
    .description(
      'Runs a task model, made by mgf finetune or saved by mgf probe: phones with their times, the ' +
        'speaker or the mood with probabilities, or the transcript.',
    )
    .argument('<model>', 'task model, or the folder of the fine-tuning run that made it')
    .argument('<files...>', 'audio files, folders, globs, or manifests (TSV, CSV, JSONL)')
    .addOption(
      new Option('--beam <n>', 'asr: prefix beam search of this width (default: the best path)').argParser(
        positiveInteger,
      ),
    )
    .addOption(
      new Option(
        '--lm <weight>',
        "asr: weight of the model's own character statistics of its training transcripts, with --beam",
      ).argParser(positive),
    )
    .addOption(
      new Option('--insertion-bonus <b>', 'asr: added for each character, with --lm').argParser(positive),
    )
    .addOption(
      new Option('--top <n>', 'speaker, emotion: classes shown').argParser(positiveInteger).default(3),
    )
    .addOption(
      new Option('--batch-seconds <s>', 'audio in a batch: more is faster, and needs more memory')
        .argParser(positive)
        .default(30),
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
  mgf predict runs/recogniser speech.wav
  mgf predict runs/recogniser recordings/ --beam 16 --lm 0.5 --json
  mgf predict speaker.safetensors a.flac b.mp3 --top 5
  mgf predict runs/phones speech.ogg      (a line a phone: start, end, phone)`,
    )
    .action((model: string, files: string[], options: Options) => runPredict(model, files, options));
}

/** What is told of one recording, as `--json` has it. */
interface Answer {
  readonly id: string;
  readonly path: string;
  readonly seconds: number;
  readonly phones?: readonly { readonly start: number; readonly end: number; readonly phone: string }[];
  readonly transcript?: string;
  readonly class?: string;
  readonly probabilities?: Readonly<Record<string, number>>;
}

async function runPredict(file: string, files: string[], options: Options): Promise<void> {
  const model = await loadTaskModel(file);
  const beam = beamOf(model, options);
  const { task } = model.spec;
  const { items, skipped } = await readManifests(files, options);
  const answers: Answer[] = [];
  await withGpu(options.adapter, async (gpu) => {
    const network = TaskNetwork.create(gpu, model, { precision: options.precision });
    try {
      for await (const group of groupsOf(items, GROUP * options.batchSeconds, skipped)) {
        const logits = await logitsOf(network, group, options.batchSeconds);
        group.forEach(({ item, wave }, i) => {
          const answer = answerOf(model, item, wave.length, logits[i]!, beam);
          answers.push(answer);
          if (!options.json) for (const line of linesOf(answer, items.length > 1, options.top)) print(line);
        });
      }
    } finally {
      network.destroy();
    }
    if (skipped.length > 0) {
      say(`Left out ${plural(skipped.length, 'recording')}:`);
      for (const line of listSkipped(skipped, 10)) say(line);
    }
    if (answers.length === 0)
      throw new MGFError('data', `Of ${plural(items.length, 'recording')} none could be used.`);
    if (options.json)
      print(
        JSON.stringify(
          {
            model: model.path,
            task,
            classes: model.classes,
            adapter: gpu.profile.name,
            recordings: answers,
            skipped,
          },
          null,
          2,
        ),
      );
  });
}

/** Checks the options that only a recogniser has. */
function beamOf(
  { spec, lm, path }: TaskModel & { path: string },
  { beam, lm: lmWeight, insertionBonus }: Options,
): BeamOptions | undefined {
  const asked = beam !== undefined || lmWeight !== undefined || insertionBonus !== undefined;
  if (asked && spec.task !== 'asr')
    throw new MGFError(
      'usage',
      `--beam and --lm are for recognisers, and ${path} is of the ${spec.task} task.`,
    );
  if (beam === undefined && asked)
    throw new MGFError(
      'usage',
      '--lm and --insertion-bonus need --beam: the best path knows no alternatives.',
    );
  if (lmWeight !== undefined && !lm)
    throw new MGFError('usage', `${path} has no character statistics; leave --lm out.`);
  return beam === undefined
    ? undefined
    : {
        beam,
        ...(lmWeight !== undefined && { lm: lm!, lmWeight }),
        ...(insertionBonus !== undefined && { insertionBonus }),
      };
}

interface Heard {
  readonly item: Utterance;
  readonly wave: Float32Array;
}

/**
 * Recordings in groups of about so many seconds, so that a long list is never in memory as a whole; what
 * cannot be used goes to `skipped`.
 */
async function* groupsOf(
  items: readonly Utterance[],
  seconds: number,
  skipped: Skipped[],
): AsyncGenerator<Heard[]> {
  const decoders = new DecoderPool();
  let group: Heard[] = [];
  let held = 0;
  try {
    for (const item of items) {
      try {
        const wave = await loadAudio(
          item.path,
          { ...segmentOf(item), onWarning: ({ message }) => say(`Warning: ${message}`) },
          decoders,
        );
        if (wave.length < RECEPTIVE_FIELD)
          throw new MGFError(
            'audio',
            `"${item.path}" has ${wave.length} samples; one frame needs ${RECEPTIVE_FIELD} (25 ms at 16 kHz).`,
          );
        group.push({ item, wave });
        held += wave.length / SAMPLE_RATE;
      } catch (error) {
        if (!(error instanceof MGFError)) throw error;
        skipped.push({ path: item.path, reason: error.message });
      }
      if (held < seconds) continue;
      yield group;
      [group, held] = [[], 0];
    }
    if (group.length > 0) yield group;
  } finally {
    decoders.free();
  }
}

/** In the order of the group. */
async function logitsOf(
  network: TaskNetwork,
  group: readonly Heard[],
  batchSeconds: number,
): Promise<ClipLogits[]> {
  const found = new Array<ClipLogits>(group.length);
  for (const batch of batchesBySeconds(
    group.map(({ wave }) => wave.length / SAMPLE_RATE),
    batchSeconds,
  )) {
    (await network.logits(batch.map((b) => group[b]!.wave))).forEach((logits, i) => {
      found[batch[i]!] = logits;
    });
  }
  return found;
}

function answerOf(
  { spec: { task }, classes }: TaskModel,
  { id, path, offset = 0 }: Utterance,
  samples: number,
  logits: ClipLogits,
  beam: BeamOptions | undefined,
): Answer {
  const about = { id, path, seconds: samples / SAMPLE_RATE };
  const time = (at: number): number => Number((offset + at / SAMPLE_RATE).toFixed(4));
  if (task === 'asr') return { ...about, transcript: decodeTranscript(logits, classes, beam) };
  if (task === 'phoneme')
    return {
      ...about,
      phones: decodePhones(logits, samples).map(({ start, end, label }) => ({
        start: time(start),
        end: time(end),
        phone: classes[label]!,
      })),
    };
  const p = classProbabilities(logits);
  const order = classes.map((_, i) => i).sort((a, b) => p[b]! - p[a]!);
  return {
    ...about,
    class: classes[order[0]!]!,
    probabilities: Object.fromEntries(order.map((i) => [classes[i]!, Number(p[i]!.toFixed(6))])),
  };
}

function linesOf(
  { path, phones, transcript, probabilities: all }: Answer,
  many: boolean,
  top: number,
): string[] {
  const before = many ? `${path}\t` : '';
  if (phones)
    return phones.map(({ start, end, phone }) => `${before}${start.toFixed(2)}\t${end.toFixed(2)}\t${phone}`);
  if (transcript !== undefined) return [before + transcript];
  return [
    before +
      Object.entries(all!)
        .slice(0, top)
        .map(([name, p]) => `${name} ${(100 * p).toFixed(1)} %`)
        .join('\t'),
  ];
}
