/** `mgf align LIST`: when each phone of transcribed recordings is said, for the phoneme task. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { DecoderPool } from '../audio/decode.ts';
import { loadAudio } from '../audio/load.ts';
import { readManifest, type Skipped, type Utterance } from '../audio/manifest.ts';
import { frameCount, HOP, RECEPTIVE_FIELD, samplesOfFrames, SAMPLE_RATE } from '../audio/sampling.ts';
import { MGFError } from '../errors.ts';
import { featureLayer } from '../mgf/encoder.ts';
import { align, phoneNetwork, phonesOfWords, shortestPath, type Aligned } from '../tasks/features/align.ts';
import { normaliseTranscript, SILENCE } from '../tasks/data/labelled.ts';
import { extractFeatures, networkFeatures } from '../tasks/features/features.ts';
import { englishLexicon, readLexicon, type Lexicon } from '../tasks/data/lexicon.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import { formatDuration, StageReporter } from '../pretrain/logs.ts';
import {
  adapterOption,
  ioError,
  jsonOption,
  listSkipped,
  percent,
  plural,
  positiveInteger,
  print,
  programName,
  say,
  shellWord,
  withGpu,
} from './common.ts';
import { checkpointOption, loadEncoderWeights } from './weights.ts';
import type { AdapterPreference } from '../gpu/device.ts';

interface Options {
  checkpoint: string;
  out: string;
  dictionary?: string;
  layer?: number;
  rounds: number;
  adapter?: AdapterPreference;
  json?: boolean;
}

export function alignCommand(): Command {
  return new Command('align')
    .summary('find when each phone of transcribed recordings is said')
    .description(
      "Forced alignment from nothing but transcripts, a pronouncing dictionary and a network's " +
        'features: writes the phones of each recording with their times, ' +
        'in the form that the phoneme task of mgf probe and mgf finetune reads. Needs minutes of ' +
        'speech at least, better an hour: what a phone sounds like is learned from the list itself.',
    )
    .argument(
      '<list>',
      'transcribed recordings: a manifest (TSV, CSV, JSONL) with a column text or transcript; its ' +
        'other columns are kept',
    )
    .addOption(checkpointOption())
    .requiredOption('--out <folder>', 'gets utterances.tsv and alignments.tsv')
    .option(
      '--dictionary <file>',
      'pronunciations: a word and its phones on a line (default: the CMU dictionary of North American ' +
        'English)',
    )
    .addOption(
      new Option(
        '--layer <n>',
        'hidden state that frames are told apart by (default: the one three quarters up)',
      ).argParser(Number),
    )
    .addOption(
      new Option('--rounds <n>', 'rounds at most; fewer where hardly a frame changes any more')
        .argParser(positiveInteger)
        .default(20),
    )
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
A recording with a word that the dictionary lacks, or with too few frames for its words, is left out and
listed. The column agreement tells the share of a recording's frames in which no other phone fits better: it is low where something else is said.

Examples:
  mgf align transcribed.tsv --out aligned/
  mgf align transcribed.tsv --out aligned/ --dictionary italian.dict`,
    )
    .action((list: string, options: Options) => runAlign(list, options));
}

interface Candidate {
  readonly item: Utterance;
  readonly transcript: string;
  readonly words: readonly string[];
}

async function runAlign(
  list: string,
  { checkpoint, out, dictionary, layer, rounds, adapter, json }: Options,
): Promise<void> {
  const { items, skipped } = await readManifest(list);
  const lexicon = await (dictionary === undefined ? englishLexicon() : readLexicon(dictionary));
  const known = usable(items, lexicon, skipped);
  const { config, parameters } = await loadEncoderWeights(checkpoint);
  const state = layer ?? featureLayer(config);
  await withGpu(adapter, async (gpu) => {
    const extractor = await networkFeatures(gpu, config, parameters);
    const stages = new StageReporter(process.stderr);
    const decoders = new DecoderPool();
    const phones = phonesOfWords(
      known.flatMap(({ words }) => words),
      lexicon,
    );
    const index = new Map(phones.map((phone, i) => [phone, i]));
    const started = performance.now();
    try {
      // Read once to know what can be used; features come from the samples that are held.
      const heard = await listen(known, lexicon, index, decoders, skipped, (done) =>
        stages.update('Reading the recordings', done, known.length),
      );
      const waves = new Map(heard.map(({ item, wave }) => [item, wave]));
      if (heard.length === 0)
        throw new MGFError(
          'data',
          `Of ${plural(items.length, 'recording')} of "${list}" none can be aligned: ` +
            `${listSkipped(skipped, 1)[0]?.trim() ?? ''}`,
        );
      const [features] = await extractFeatures(
        [{ extractor, states: [state] }],
        heard.map(({ item }) => item),
        {
          pool: 'none',
          load: (item) => Promise.resolve(waves.get(item)!),
          onProgress: (done, total) => stages.update('Features', done, total),
        },
      );
      const matrix = features!.states.get(state)!;
      let first = 0;
      const spoken = heard.map(({ item, words, wave }, i) => ({
        words,
        voice: item.speaker ?? item.path,
        levels: levelsOf(wave),
        frames: features!.frames[i]!,
        first: (first += features!.frames[i]!) - features!.frames[i]!,
      }));
      stages.clear();
      say(
        `Recordings  ${plural(heard.length, 'recording')}, ` +
          `${formatDuration(heard.reduce((sum, { wave }) => sum + wave.length, 0) / SAMPLE_RATE)}, ` +
          `${plural(phones.length - 1, 'phone')}`,
      );
      const aligned = align(spoken, matrix, phones, lexicon, {
        rounds,
        onRound: (round, changed) =>
          say(`Round ${String(round).padStart(2)}    ${percent(changed)} of the frames changed`),
      });
      await write(out, heard, aligned, phones);
      if (skipped.length > 0)
        for (const line of [
          `Left out    ${plural(skipped.length, 'recording')}:`,
          ...listSkipped(skipped, 10),
        ])
          say(line);
      const agreement = aligned.reduce((sum, a, i) => sum + a.agreement * spoken[i]!.frames, 0) / first;
      const seconds = (performance.now() - started) / 1000;
      if (json)
        print(
          JSON.stringify(
            {
              recordings: heard.length,
              skipped,
              phones,
              agreement,
              seconds,
              adapter: gpu.profile.name,
              utterances: join(out, 'utterances.tsv'),
              alignments: join(out, 'alignments.tsv'),
            },
            null,
            2,
          ),
        );
      else
        for (const line of [
          `Agreement   ${percent(agreement)} of the frames fit no other phone better; ` +
            `${formatDuration(seconds)}`,
          `Next: ${programName()} finetune phoneme --data ${shellWord(join(out, 'utterances.tsv'))} ` +
            '--out FOLDER',
        ])
          print(line);
    } finally {
      stages.clear();
      decoders.free();
      extractor.destroy();
    }
  });
}

/** Recordings with a transcript whose words are all known; the others go to `skipped`. */
function usable(items: readonly Utterance[], lexicon: Lexicon, skipped: Skipped[]): Candidate[] {
  return items.flatMap((item) => {
    const transcript = normaliseTranscript(item.columns['text_normalised'] || item.text || '');
    const words = transcript === '' ? [] : transcript.split(' ');
    const unknown = words.filter((word) => !lexicon.has(word));
    const reason =
      words.length === 0
        ? 'no transcript'
        : unknown.length > 0
          ? `not in the dictionary: ${unknown.join(', ')}`
          : undefined;
    if (reason === undefined) return [{ item, transcript, words }];
    skipped.push({ path: item.path, reason });
    return [];
  });
}

interface Heard extends Candidate {
  readonly wave: Float32Array;
}

async function listen(
  candidates: readonly Candidate[],
  lexicon: Lexicon,
  index: ReadonlyMap<string, number>,
  decoders: DecoderPool,
  skipped: Skipped[],
  onProgress: (done: number) => void,
): Promise<Heard[]> {
  const heard: Heard[] = [];
  for (const [i, candidate] of candidates.entries()) {
    const { item, words } = candidate;
    try {
      const wave = await loadAudio(
        item.path,
        { offsetSeconds: item.offset, durationSeconds: item.duration },
        decoders,
      );
      const frames = frameCount(wave.length);
      const needed = shortestPath(phoneNetwork(words, lexicon, index));
      if (frames < needed)
        throw new MGFError(
          'audio',
          `"${item.path}" has ${plural(frames, 'frame')} of 20 ms for ${plural(needed, 'phone')}.`,
        );
      heard.push({ ...candidate, wave });
    } catch (error) {
      if (!(error instanceof MGFError)) throw error;
      skipped.push({ path: item.path, reason: error.message });
    }
    onProgress(i + 1);
  }
  return heard;
}

/** Of each frame's 25 ms, in dB of full scale. */
function levelsOf(wave: Float32Array): Float32Array {
  return Float32Array.from({ length: frameCount(wave.length) }, (_, t) => {
    let squares = 0;
    for (let i = HOP * t; i < HOP * t + RECEPTIVE_FIELD; i++) squares += wave[i]! ** 2;
    return 10 * Math.log10(squares / RECEPTIVE_FIELD + 1e-10);
  });
}

/** Tabs and line ends would break the table. */
const row = (cells: readonly (string | number)[]): string =>
  `${cells.map((cell) => String(cell).replace(/[\t\r\n]+/g, ' ')).join('\t')}\n`;

async function write(
  out: string,
  heard: readonly Heard[],
  aligned: readonly Aligned[],
  phones: readonly string[],
): Promise<void> {
  const OWN = ['path', 'duration_samples', 'transcript', 'alignment', 'agreement'];
  const others = [...new Set(heard.flatMap(({ item }) => Object.keys(item.columns)))].filter(
    (name) => !OWN.includes(name) && !NAMES_OF_FILES.includes(name),
  );
  const utterances = [row([...OWN, ...others])];
  const alignments = [row(['file', 'start_sample', 'end_sample', 'phone', 'word'])];
  heard.forEach(({ item, transcript, words, wave }, i) => {
    const { phones: found, agreement } = aligned[i]!;
    const from = Math.round((item.offset ?? 0) * SAMPLE_RATE);
    utterances.push(
      row([
        item.path,
        item.columns['duration_samples'] ?? wave.length,
        transcript,
        'forced',
        agreement.toFixed(3),
        ...others.map((name) => item.columns[name] ?? ''),
      ]),
    );
    for (const { start, end, phone, word } of found) {
      const span = samplesOfFrames(start, end, found.at(-1)!.end, wave.length);
      alignments.push(
        row([
          item.path,
          from + span.start,
          from + span.end,
          phones[phone]!,
          phones[phone] === SILENCE ? '' : words[word]!,
        ]),
      );
    }
  });
  try {
    await mkdir(out, { recursive: true });
    for (const [name, lines] of [
      ['utterances.tsv', utterances],
      ['alignments.tsv', alignments],
    ] as const)
      await writeFileAtomically(join(out, name), [new TextEncoder().encode(lines.join(''))]);
  } catch (error) {
    throw ioError(error, 'write the alignments to', out);
  }
}

/** Columns that name the file: the table names it by its full path. */
const NAMES_OF_FILES: readonly string[] = [
  'audio',
  'file',
  'audio_filepath',
  'audio_path',
  'filename',
  'wav',
];
