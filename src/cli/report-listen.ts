/**
 * The parts of a report that need a device: a map of voices, and recordings beside what the model makes of
 * them.
 */
import { Purpose } from '../random/purposes.ts';
import { permutation, stream } from '../random/stream.ts';
import { SAMPLE_RATE } from '../audio/sampling.ts';
import type { Utterance } from '../audio/manifest.ts';
import type { Gpu } from '../gpu/device.ts';
import type { RunConfig } from '../mgf/config.ts';
import { Encoder, featureLayer } from '../mgf/encoder.ts';
import { rebuildingScales, Reconstructor } from '../mgf/reconstruction.ts';
import type { HostTensor } from '../plan/parameters.ts';
import { MAP_COLOURS } from '../report/plots/map.ts';
import type { Recording, VoiceMaps } from '../report/report.ts';
import { decode, EXCERPT_SECONDS, hidden, logMel, pooled, SHORTEST_SECONDS, voiceOf } from './voices.ts';
import type { Decoded, VoiceClip } from './voices.ts';

const CLIPS_A_VOICE = 12;
const FEWEST_CLIPS = 4;
const RECORDINGS = 2;

/** Clips of the voices that have most of them, as many of each; empty where there are not two voices. */
export function chooseVoices(items: readonly Utterance[], seed: number): VoiceClip[] {
  const byVoice = new Map<string, Utterance[]>();
  for (const item of items) {
    const voice = voiceOf(item);
    if (voice !== undefined && (item.samples ?? Infinity) >= SHORTEST_SECONDS * SAMPLE_RATE)
      byVoice.set(voice, [...(byVoice.get(voice) ?? []), item]);
  }
  const voices = [...byVoice]
    .filter(([, own]) => own.length >= FEWEST_CLIPS)
    .sort(([, a], [, b]) => Math.min(b.length, CLIPS_A_VOICE) - Math.min(a.length, CLIPS_A_VOICE));
  // Of equals, those that a draw puts first, so that a corpus of many voices is not told by the first of its
  // names.
  const full = voices.filter(([, own]) => own.length >= CLIPS_A_VOICE);
  const drawn = [
    ...permutation(full.length, stream(seed, Purpose.ReportVoices), Math.min(full.length, MAP_COLOURS)),
  ].map((i) => full[i]!);
  const chosen = [...drawn, ...voices.slice(full.length)].slice(0, MAP_COLOURS);
  if (chosen.length < 2) return [];
  return chosen.flatMap(([voice, own], v) =>
    [
      ...permutation(
        own.length,
        stream(seed, Purpose.ReportVoices, { step: v + 1 }),
        Math.min(own.length, CLIPS_A_VOICE),
      ),
    ].map((i) => ({ item: own[i]!, voice })),
  );
}

/**
 * Features of the clips under the trained network, the same with random weights, and log-mel. Undefined where
 * fewer than two voices can be read.
 */
export async function mapVoices(
  gpu: Gpu,
  { mgf, train }: RunConfig,
  parameters: ReadonlyMap<string, HostTensor>,
  clips: readonly VoiceClip[],
): Promise<VoiceMaps | undefined> {
  const decoded = await decode(clips);
  if (new Set(decoded.map((c) => c.voice)).size < 2) return undefined;
  const trained = await Encoder.create(gpu, mgf, parameters);
  const random = await Encoder.random(gpu, mgf, train.seed);
  const layer = featureLayer(mgf);
  try {
    const features = [
      { ...(await pooled(`MGF, hidden state ${layer}`, decoded, hidden(trained, layer))), drawn: true },
      { ...(await pooled('log-mel', decoded, logMel(trained))), drawn: true },
      {
        ...(await pooled(`random weights, hidden state ${layer}`, decoded, hidden(random, layer))),
        drawn: false,
      },
    ];
    return {
      labels: decoded.map((c) => c.voice),
      seconds: EXCERPT_SECONDS,
      features: features.map(({ name, x, width, drawn }) => ({ name, x, dim: width, drawn })),
    };
  } finally {
    trained.destroy();
    random.destroy();
  }
}

/** A few recordings of different voices where voices are known. */
export async function chooseRecordings(items: readonly Utterance[], seed: number): Promise<Decoded[]> {
  const chosen: Decoded[] = [];
  const taken = new Set<string>();
  for (const i of permutation(
    items.length,
    stream(seed, Purpose.ReportRecordings),
    Math.min(items.length, 50),
  )) {
    const item = items[i]!;
    const voice = voiceOf(item) ?? item.id;
    if (taken.has(voice)) continue;
    const [clip] = await decode([{ item, voice }]);
    if (!clip) continue;
    taken.add(voice);
    chosen.push(clip);
    if (chosen.length === RECORDINGS) break;
  }
  return chosen;
}

/** What the sample and the frame scale rebuild of unmasked clips. Empty where the run has neither. */
export async function rebuild(
  gpu: Gpu,
  { mgf }: RunConfig,
  parameters: ReadonlyMap<string, HostTensor>,
  clips: readonly Decoded[],
): Promise<Recording[]> {
  if (rebuildingScales(mgf).length === 0) return [];
  const network = new Reconstructor(gpu, mgf, parameters);
  const recordings: Recording[] = [];
  try {
    for (const { item, wave: clip } of clips) {
      const { frames, target, logMel, wave, waveReconstruction } = await network.rebuild(clip);
      recordings.push({
        label: item.id,
        sampleRate: SAMPLE_RATE,
        frames,
        hopSeconds: 0.01,
        target,
        wave,
        ...(logMel && { reconstruction: logMel }),
        ...(waveReconstruction && { waveReconstruction }),
      });
    }
  } finally {
    network.destroy();
  }
  return recordings;
}
