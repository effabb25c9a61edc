/**
 * Forced alignment from a flat start: when is each phone of a transcript said? Nothing is known but the
 * words, a dictionary and the features of a network.
 *
 * A first guess gives every phone of a recording the same share of its speech. Then rounds of two steps,
 * until few frames change [Viterbi training; Rabiner, "A tutorial on hidden Markov models", 1989]: a Gaussian
 * for each phone from the frames that it has, and for each recording the best path through its words, with a
 * pause between words or none and the pronunciation that fits best. A frame of a contextual network says
 * enough for one state a phone.
 */
import { MGFError } from '../../errors.ts';
import { SILENCE } from '../data/labelled.ts';
import { SharedGaussians } from './gaussians.ts';
import type { FeatureMatrix } from './features.ts';
import type { Lexicon } from '../data/lexicon.ts';

/** A phone in the network of what a recording may say; it is stayed in for one frame or more. */
export interface PhoneState {
  /** Index into the phones. */
  readonly phone: number;
  /** Which word of the transcript, -1 in a pause. */
  readonly word: number;
  /** States from which it is entered; itself is not among them. */
  readonly before: readonly number[];
  /** Whether a recording may begin in it, and end in it. */
  readonly first: boolean;
  readonly last: boolean;
}

/**
 * The network of a transcript: its words in order, every pronunciation a branch, and a pause before, between
 * and behind them that may be left out. Words must be in the lexicon. `index`: place of each phone, silence
 * among them.
 */
export function phoneNetwork(
  words: readonly string[],
  lexicon: Lexicon,
  index: ReadonlyMap<string, number>,
): PhoneState[] {
  const states: (PhoneState & { first: boolean; last: boolean })[] = [];
  const add = (phone: string, word: number, before: readonly number[], first: boolean): number =>
    states.push({ phone: index.get(phone)!, word, before, first, last: false }) - 1;
  // The ends of the word before, and of the pause behind it.
  let ends: number[] = [];
  words.forEach((word, w) => {
    const pause = add(SILENCE, -1, ends, w === 0);
    const entries = [...ends, pause];
    ends = lexicon
      .get(word)!
      .map((phones) =>
        phones.reduce((before, phone, i) => [add(phone, w, before, w === 0 && i === 0)], entries).at(-1)!,
      );
  });
  const pause = add(SILENCE, -1, ends, words.length === 0);
  for (const end of [...ends, pause]) states[end]!.last = true;
  return states;
}

/**
 * Frames that a phone lasts at most, half a second: without it one phone that fits a voice well swallows its
 * neighbours.
 */
const LONGEST = 25;
/** Frames that a pause lasts at least, 80 ms: the closure before a plosive is quiet too. */
const SHORTEST_PAUSE = 4;

/** Frames that the shortest path through a network takes: fewer cannot hold its words. */
export function shortestPath(states: readonly PhoneState[]): number {
  const frames: number[] = [];
  for (const { word, first, before } of states)
    frames.push((word < 0 ? SHORTEST_PAUSE : 1) + (first ? 0 : Math.min(...before.map((b) => frames[b]!))));
  return Math.min(...states.map(({ last }, s) => (last ? frames[s]! : Infinity)));
}

/**
 * The best path: the state of each frame, [frames], the sum of whose scores [frames, phones] is largest;
 * undefined where there are too few frames for any. States come after those they are entered from.
 */
export function bestPath(
  states: readonly PhoneState[],
  scores: Float32Array,
  frames: number,
): Int32Array | undefined {
  const S = states.length;
  const K = scores.length / frames;
  // Of the best path that leaves a state behind frame t - 1: its score, how long it stays, and the state
  // before, [frames + 1, S].
  const left = new Float64Array((frames + 1) * S).fill(-Infinity);
  const stay = new Int32Array((frames + 1) * S);
  const before = new Int32Array((frames + 1) * S).fill(-1);
  const entered = new Float64Array(frames + 1);
  const sums = new Float64Array(frames + 1);
  const origin = new Int32Array(frames + 1);
  for (const [s, state] of states.entries()) {
    for (let t = 0; t <= frames; t++) {
      entered[t] = state.first && t === 0 ? 0 : -Infinity;
      origin[t] = -1;
      for (const b of state.before)
        if (left[t * S + b]! > entered[t]!) [entered[t], origin[t]] = [left[t * S + b]!, b];
      if (t < frames) sums[t + 1] = sums[t]! + scores[t * K + state.phone]!;
    }
    for (let t = 1; t <= frames; t++) {
      const at = t * S + s;
      if (state.word < 0) {
        // A pause has no upper limit: the best one that is left now was left a frame ago, or is as short as
        // can be.
        const from = Math.max(0, t - SHORTEST_PAUSE);
        const on = left[at - S]! + sums[t]! - sums[t - 1]!;
        const fresh = t - from < SHORTEST_PAUSE ? -Infinity : entered[from]! + sums[t]! - sums[from]!;
        left[at] = Math.max(on, fresh);
        stay[at] = on > fresh ? stay[at - S]! + 1 : t - from;
      } else {
        let best = -Infinity;
        let from = t - 1;
        for (let u = t - 1; u >= 0 && u >= t - LONGEST; u--)
          if (entered[u]! - sums[u]! > best) [best, from] = [entered[u]! - sums[u]!, u];
        left[at] = best + sums[t]!;
        stay[at] = t - from;
      }
      before[at] = origin[t - stay[at]!]!;
    }
  }
  let state = -1;
  for (let s = 0; s < S; s++)
    if (states[s]!.last && left[frames * S + s]! > (state < 0 ? -Infinity : left[frames * S + state]!))
      state = s;
  if (state < 0) return undefined;
  const path = new Int32Array(frames);
  for (let t = frames; t > 0;) {
    const at = t * S + state;
    path.fill(state, t - stay[at]!, t);
    t -= stay[at]!;
    state = before[at]!;
  }
  return path;
}

/** Frames of at least this many in a row that are quiet are a pause in the first guess: 100 ms. */
const PAUSE = 5;
/**
 * Quiet: in the lower part of the recording's range of levels; a recording whose levels differ by less than
 * `RANGE` dB has no pauses that levels tell.
 */
const QUIET = 0.35;
const RANGE = 12;

/** Frames of a recording, [frames], that are pauses by their levels in dB: what the first guess goes by. */
export function quietFrames(levels: Float32Array): Uint8Array {
  const sorted = levels.slice().sort();
  const low = sorted[Math.floor(0.05 * (sorted.length - 1))]!;
  const high = sorted[Math.floor(0.95 * (sorted.length - 1))]!;
  const quiet = Uint8Array.from(levels, (level) =>
    Number(high - low > RANGE && level < low + QUIET * (high - low)),
  );
  for (let t = 0; t < quiet.length;) {
    let end = t + 1;
    while (end < quiet.length && quiet[end] === quiet[t]) end++;
    if (quiet[t] === 1 && end - t < PAUSE) quiet.fill(0, t, end);
    t = end;
  }
  return quiet;
}

/** A recording that is to be aligned: its words, and its frames in the matrix of features. */
export interface Spoken {
  readonly words: readonly string[];
  /**
   * Who speaks, and perhaps into what: recordings of one voice are compared with each other, not with those
   * of others.
   */
  readonly voice: string;
  /** Row of its first frame. */
  readonly first: number;
  readonly frames: number;
  /** Level of each frame in dB, [frames]. */
  readonly levels: Float32Array;
}

/** What was found for a recording; frames are 20 ms. */
export interface Aligned {
  /**
   * In order, without gaps: `end` is the frame after the last, `word` an index into the transcript's words,
   * -1 in a pause.
   */
  readonly phones: readonly {
    readonly start: number;
    readonly end: number;
    readonly phone: number;
    readonly word: number;
  }[];
  /** Share of its frames in which no other phone fits better: low where the words are not what is said. */
  readonly agreement: number;
}

export interface AlignOptions {
  /** Rounds at most. Default 20. */
  readonly rounds?: number | undefined;
  /** Told after each round: which it is, and the share of frames whose phone changed. */
  readonly onRound?: ((round: number, changed: number) => void) | undefined;
}

/** Rounds end when fewer frames than this share change. */
const SETTLED = 0.002;

/** The phones of a lexicon's words, silence first. */
export function phonesOfWords(words: Iterable<string>, lexicon: Lexicon): string[] {
  const phones = new Set<string>();
  for (const word of words)
    for (const pronunciation of lexicon.get(word)!) for (const phone of pronunciation) phones.add(phone);
  phones.delete(SILENCE);
  return [SILENCE, ...[...phones].sort()];
}

/**
 * Aligns recordings with their words; in the order of `recordings`. `features`: the rows of all their frames.
 * `phones`: as `phonesOfWords` gives them.
 * @throws MGFError 'data' where no recording is there, a word is not in the lexicon, or a recording has fewer
 * frames than phones (`shortestPath`).
 */
export function align(
  recordings: readonly Spoken[],
  features: FeatureMatrix,
  phones: readonly string[],
  lexicon: Lexicon,
  { rounds = 20, onRound }: AlignOptions = {},
): Aligned[] {
  if (recordings.length === 0) throw new MGFError('data', 'There is no recording to align.');
  const strange = recordings.flatMap(({ words }) => words).find((word) => !lexicon.has(word));
  if (strange !== undefined)
    throw new MGFError('data', `The word ${JSON.stringify(strange)} is not in the dictionary.`);
  const index = new Map(phones.map((phone, i) => [phone, i]));
  const networks = recordings.map(({ words }) => phoneNetwork(words, lexicon, index));
  const short = recordings.findIndex(({ frames }, i) => shortestPath(networks[i]!) > frames);
  if (short >= 0)
    throw new MGFError(
      'data',
      `Recording ${short} has ${recordings[short]!.frames} frames, too few for its ` +
        `${recordings[short]!.words.length} words.`,
    );

  const voices = [...new Set(recordings.map(({ voice }) => voice))];
  const groups = new Int32Array(features.data.length / features.width);
  for (const { voice, first, frames } of recordings)
    groups.fill(voices.indexOf(voice), first, first + frames);
  const model = new SharedGaussians(features, groups, phones.length);
  const labels = new Int32Array(features.data.length / features.width).fill(-1);
  const paths: Int32Array[] = [];
  for (const recording of recordings) labels.set(flatStart(recording, lexicon, index), recording.first);
  let agreement: number[] = [];
  for (let round = 1, changed = 1; round <= rounds && changed >= SETTLED; round++) {
    model.fit(labels);
    let different = 0;
    let all = 0;
    agreement = [];
    recordings.forEach(({ first, frames }, i) => {
      const scores = model.scores(first, frames);
      const states = networks[i]!;
      const path = bestPath(states, scores, frames)!;
      let agreed = 0;
      for (let t = 0; t < frames; t++) {
        const { phone } = states[path[t]!]!;
        const row = scores.subarray(t * phones.length, (t + 1) * phones.length);
        agreed += Number(row.every((score) => score <= row[phone]!));
        different += Number(labels[first + t] !== phone);
        labels[first + t] = phone;
      }
      paths[i] = path;
      agreement.push(agreed / frames);
      all += frames;
    });
    onRound?.(round, (changed = different / all));
  }
  return recordings.map((_, i) => ({ phones: segments(paths[i]!, networks[i]!), agreement: agreement[i]! }));
}

/**
 * The first guess: silence where it is quiet, else equal shares for the phones of each word's first
 * pronunciation. Classes, [frames].
 */
function flatStart(
  { words, frames, levels }: Spoken,
  lexicon: Lexicon,
  index: ReadonlyMap<string, number>,
): Int32Array {
  const said = words.flatMap((word) => lexicon.get(word)![0]!.map((phone) => index.get(phone)!));
  const quiet = quietFrames(levels);
  // Where hardly anything is left between pauses, levels mislead.
  const spoken = quiet.reduce((sum, q) => sum + 1 - q, 0);
  const usable = spoken >= said.length;
  const total = usable ? spoken : frames;
  const silence = index.get(SILENCE)!;
  let at = 0;
  return Int32Array.from({ length: frames }, (_, t) =>
    (usable && quiet[t] === 1) || said.length === 0
      ? silence
      : said[Math.floor((at++ * said.length) / total)]!,
  );
}

/** Runs of one state. */
function segments(path: Int32Array, states: readonly PhoneState[]): Aligned['phones'] {
  const found: { start: number; end: number; phone: number; word: number }[] = [];
  for (let t = 0; t < path.length;) {
    let end = t + 1;
    while (end < path.length && path[end] === path[t]) end++;
    found.push({ start: t, end, phone: states[path[t]!]!.phone, word: states[path[t]!]!.word });
    t = end;
  }
  return found;
}
