/** Which voice is speaking: linear probe and similarity on MGF features, on random weights and on log-mel. */
import { segmentOf } from '../audio/manifest.ts';
import { Purpose } from '../random/purposes.ts';
import { permutation, stream } from '../random/stream.ts';
import { DecoderPool } from '../audio/decode.ts';
import { loadAudio } from '../audio/load.ts';
import { batchesBySeconds, isSilent, SAMPLE_RATE } from '../audio/sampling.ts';
import { MGFError } from '../errors.ts';
import { linearProbe } from '../report/probe.ts';
import { percent } from './common.ts';
import { centre, cosineMatrix } from '../tasks/features/similarity.ts';
import type { Utterance } from '../audio/manifest.ts';
import { featureLayer, type Encoder } from '../mgf/encoder.ts';
import type { ReportData } from '../report/report.ts';

/** A clip with its voice. */
export interface VoiceClip {
  item: Utterance;
  voice: string;
}

/** Clips for the probe; the test clips are kept out of pre-training. */
export interface VoiceSplit {
  voices: string[];
  train: VoiceClip[];
  test: VoiceClip[];
}

const MOST_VOICES = 20;
const MOST_CLIPS = 240;
const FEWEST_CLIPS = 6;
/** Clips are cut to this, so that the comparison takes seconds and long recordings do not dominate. */
export const EXCERPT_SECONDS = 3;
export const SHORTEST_SECONDS = 1;
const SIMILARITY_CLIPS = 48;

/** The manifest's speaker, or else the first folder of the recording's path. */
export function voiceOf(item: Utterance): string | undefined {
  return item.speaker ?? (item.id.includes('/') ? item.id.slice(0, item.id.indexOf('/')) : undefined);
}

/**
 * A split within each voice, a third of its clips for the test, drawn by seed; undefined where there are not
 * two voices with six clips each. Of many voices, those with the most clips are taken.
 */
export function splitVoices(items: readonly Utterance[], seed: number): VoiceSplit | undefined {
  const byVoice = new Map<string, Utterance[]>();
  for (const item of items) {
    const voice = voiceOf(item);
    if (voice !== undefined) byVoice.set(voice, [...(byVoice.get(voice) ?? []), item]);
  }
  const voices = [...byVoice]
    .filter(([, own]) => own.length >= FEWEST_CLIPS)
    .sort(([, a], [, b]) => b.length - a.length)
    .slice(0, MOST_VOICES);
  if (voices.length < 2) return undefined;
  const each = Math.floor(MOST_CLIPS / voices.length);
  const split: VoiceSplit = { voices: voices.map(([voice]) => voice), train: [], test: [] };
  voices.forEach(([voice, own], v) => {
    const drawn = [
      ...permutation(
        own.length,
        stream(seed, Purpose.VoiceRecordings, { step: v }),
        Math.min(each, own.length),
      ),
    ].map((i) => ({ item: own[i]!, voice }));
    const tested = Math.max(2, Math.round(drawn.length / 3));
    split.test.push(...drawn.slice(0, tested));
    split.train.push(...drawn.slice(tested));
  });
  return split;
}

export interface Decoded extends VoiceClip {
  wave: Float32Array;
}

/** Excerpts of the clips that can be used. */
export async function decode(clips: readonly VoiceClip[]): Promise<Decoded[]> {
  const decoded: Decoded[] = [];
  const decoders = new DecoderPool();
  for (const clip of clips) {
    try {
      const wave = (
        await loadAudio(
          clip.item.path,
          // Told by the training run.
          { ...segmentOf(clip.item), onWarning: () => undefined },
          decoders,
        )
      ).slice(0, EXCERPT_SECONDS * SAMPLE_RATE);
      if (wave.length >= SHORTEST_SECONDS * SAMPLE_RATE && !isSilent(wave)) decoded.push({ ...clip, wave });
    } catch (error) {
      // An unreadable clip was already listed by the training run.
      if (!(error instanceof MGFError)) throw error;
    }
  }
  decoders.free();
  return decoded;
}

/** One vector a clip, row-major [clips, width]. */
export interface Features {
  name: string;
  x: Float32Array;
  width: number;
}

type Pooler = (waves: Float32Array[]) => Promise<Float32Array[]>;

export async function pooled(name: string, clips: readonly Decoded[], pooler: Pooler): Promise<Features> {
  const rows = new Map<number, Float32Array>();
  for (const batch of batchesBySeconds(
    clips.map((c) => c.wave.length / SAMPLE_RATE),
    8 * EXCERPT_SECONDS,
  )) {
    (await pooler(batch.map((i) => clips[i]!.wave))).forEach((row, k) => rows.set(batch[k]!, row));
  }
  const width = rows.get(0)!.length;
  const x = new Float32Array(clips.length * width);
  for (const [i, row] of rows) x.set(row, i * width);
  return { name, x, width };
}

function mean(x: Float32Array, frames: number): Float32Array {
  const width = x.length / frames;
  const sum = new Float64Array(width);
  x.forEach((value, i) => {
    sum[i % width]! += value / frames;
  });
  return Float32Array.from(sum);
}

export const hidden =
  (encoder: Encoder, layer: number): Pooler =>
  async (waves) =>
    (await encoder.embed(waves, { layers: [layer] })).map(({ frames, layers }) => mean(layers[0]!, frames));

export const logMel =
  (encoder: Encoder): Pooler =>
  async (waves) =>
    (await encoder.logMel(waves)).map(({ frames, features }) => mean(features, frames));

export interface VoiceRow {
  features: string;
  width: number;
  accuracy: number;
  interval: readonly [number, number];
}

export interface VoiceComparison {
  rows: VoiceRow[];
  /** Test accuracy of always answering with the most frequent voice. */
  majority: number;
  voices: number;
  trainClips: number;
  testClips: number;
  layer: number;
  similarity: NonNullable<ReportData['similarity']>;
}

/**
 * Compares the features of a trained and a random encoder and log-mel, all averaged over time. Undefined
 * where too few clips can be used.
 */
export async function compareVoices(
  split: VoiceSplit,
  trained: Encoder,
  random: Encoder,
  seed: number,
): Promise<VoiceComparison | undefined> {
  const train = await decode(split.train);
  const test = await decode(split.test);
  const voices = split.voices.filter((voice) =>
    [train, test].every((part) => part.some((c) => c.voice === voice)),
  );
  const keep = (part: Decoded[]) => part.filter((c) => voices.includes(c.voice));
  const clips = [...keep(train), ...keep(test)];
  const boundary = keep(train).length;
  if (voices.length < 2) return undefined;
  const layer = featureLayer(trained.config);
  const sets = [
    await pooled('MGF, this run', clips, hidden(trained, layer)),
    await pooled('MGF, random weights', clips, hidden(random, layer)),
    await pooled('log-mel', clips, logMel(trained)),
  ];
  const labels = Int32Array.from(clips, (c) => voices.indexOf(c.voice));
  const tested = labels.subarray(boundary);
  const rows = sets.map(({ name, x, width }): VoiceRow => {
    const { accuracy, interval } = linearProbe({
      train: { x: x.subarray(0, boundary * width), y: labels.subarray(0, boundary) },
      test: { x: x.subarray(boundary * width), y: tested },
      classes: voices.length,
      seed,
    });
    return { features: name, width, accuracy, interval };
  });
  // A few test clips of each voice; a picture of hundreds could not be read.
  const each = Math.max(2, Math.floor(SIMILARITY_CLIPS / voices.length));
  const seen = new Map<string, number>();
  const shown = clips.flatMap((c, i) => {
    const count = seen.get(c.voice) ?? 0;
    if (i < boundary || count >= each) return [];
    seen.set(c.voice, count + 1);
    return [i];
  });
  const cosine = ({ x, width }: Features) => {
    const picked = new Float32Array(shown.length * width);
    shown.forEach((i, k) => picked.set(x.subarray(i * width, (i + 1) * width), k * width));
    return cosineMatrix(centre(picked, shown.length, width), shown.length, width);
  };
  return {
    rows,
    majority: Math.max(...voices.map((_, v) => tested.filter((y) => y === v).length)) / tested.length,
    voices: voices.length,
    trainClips: boundary,
    testClips: tested.length,
    layer,
    similarity: {
      labels: shown.map((i) => clips[i]!.voice),
      values: cosine(sets[0]!),
      before: { name: 'Random weights', values: cosine(sets[1]!) },
    },
  };
}

/** The comparison as a table for people. */
export function voiceTable(c: VoiceComparison): NonNullable<ReportData['table']> {
  return {
    title: 'Which voice is speaking',
    columns: ['features', 'accuracy', '95 % interval', 'numbers a clip'],
    rows: [
      ...c.rows.map((row) => [
        row.features,
        percent(row.accuracy),
        `${percent(row.interval[0])} to ${percent(row.interval[1])}`,
        row.width,
      ]),
      ['most frequent voice', percent(c.majority), '', ''],
    ],
    caption:
      `Linear probe on features averaged over time: ${c.voices} voices, ${c.trainClips} clips to fit, ` +
      `${c.testClips} to test (none of which was pre-trained on). ` +
      `MGF features are hidden state ${c.layer}. Random weights are the same network before training.`,
  };
}
