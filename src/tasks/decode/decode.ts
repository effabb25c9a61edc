/** From the logits of connectionist temporal classification to labels. Class 0 is the blank. */
import { checkArguments, checkFields, type Rules } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import type { CharLM } from './ngram.ts';

/** The best class of each of `frames` rows of `classes` numbers; of equals, the first. */
export function bestClasses(logits: Float32Array, frames: number, classes: number): Int32Array {
  if (logits.length !== frames * classes)
    throw new MGFError(
      'shape',
      `${frames} frames of ${classes} classes need ${frames * classes} numbers, got ${logits.length}.`,
    );
  return Int32Array.from({ length: frames }, (_, t) => {
    let best = 0;
    for (let c = 1; c < classes; c++) if (logits[t * classes + c]! > logits[t * classes + best]!) best = c;
    return best;
  });
}

/** What a head says of one clip: [frames, C] for tasks that label frames, else [C]. */
export interface ClipLogits {
  readonly frames: number;
  readonly logits: Float32Array;
}
export const CLIP_LOGITS: Rules<ClipLogits> = { frames: 'a number', logits: 'a Float32Array' };

/**
 * The labels of the best path: repeats are merged, then blanks left out, as `aa_ab` -> `aab`. logits:
 * [frames, classes]. @throws MGFError 'shape'
 */
export function greedyCTC(logits: Float32Array, frames: number, classes: number): number[] {
  const best = bestClasses(logits, frames, classes);
  return [...best].filter((label, t) => label !== 0 && (t === 0 || label !== best[t - 1]));
}

/** The beam search of `decodeTranscript`. */
export interface BeamOptions {
  /** Prefixes kept after each frame. */
  readonly beam: number;
  readonly lm?: CharLM;
  /**
   * Weight of the language model's log probability, the transcript's end included. Default 0.5 with an `lm`.
   */
  readonly lmWeight?: number;
  /** Added for each label, against a language model's preference for short transcripts. Default 0. */
  readonly insertionBonus?: number;
}

/** A prefix of the transcript: a node of a tree, so that prefixes which begin alike share their beginning. */
interface Prefix {
  readonly parent: Prefix | null;
  /** 0 at the root. */
  readonly label: number;
  readonly children: Map<number, Prefix>;
  /** Weighted log probability of the language model, and bonuses. */
  readonly bonus: number;
  /**
   * log p of all paths of this prefix so far that end in a blank, and that do not; then the same with the
   * frame under way.
   */
  blank: number;
  nonBlank: number;
  nextBlank: number;
  nextNonBlank: number;
  /** The last frame that reached it. */
  frame: number;
  /** Weighted log probabilities of what comes next. */
  following: Float64Array | null;
}

/**
 * Prefix beam search (Graves and Jaitly 2014; Hannun et al. 2014, arXiv 1408.2873): the labels whose paths
 * have the largest summed probability, times the language model's to the power `lmWeight`. Exact where `beam`
 * holds every prefix. logProbabilities: [frames, classes], a log-softmax.
 * @throws MGFError 'shape', 'usage'
 */
export function prefixBeamCTC(
  logProbabilities: Float32Array,
  frames: number,
  classes: number,
  { beam, lm, lmWeight = 0.5, insertionBonus = 0 }: BeamOptions,
): number[] {
  if (logProbabilities.length !== frames * classes)
    throw new MGFError(
      'shape',
      `${frames} frames of ${classes} classes need ${frames * classes} numbers, got ` +
        `${logProbabilities.length}.`,
    );
  if (!Number.isInteger(beam) || beam < 1)
    throw new MGFError('usage', `a beam must be a whole number of at least 1, got ${beam}.`);
  if (lm && lm.classes !== classes)
    throw new MGFError(
      'shape',
      `the language model knows ${lm.classes} classes, the logits have ${classes}.`,
    );
  const prefix = (parent: Prefix | null, label: number, bonus: number): Prefix => ({
    parent,
    label,
    bonus,
    children: new Map(),
    blank: -Infinity,
    nonBlank: -Infinity,
    nextBlank: -Infinity,
    nextNonBlank: -Infinity,
    frame: -1,
    following: null,
  });
  const following = (p: Prefix): Float64Array | null =>
    lm ? (p.following ??= lm.logProbabilities(labelsOf(p)).map((v) => lmWeight * v)) : null;
  const root = prefix(null, 0, 0);
  root.blank = 0;
  let kept = [root];
  for (let t = 0; t < frames; t++) {
    const reached: Prefix[] = [];
    const at = (c: number): number => logProbabilities[t * classes + c]!;
    const touch = (p: Prefix): Prefix => {
      if (p.frame !== t) {
        p.frame = t;
        p.nextBlank = p.nextNonBlank = -Infinity;
        reached.push(p);
      }
      return p;
    };
    for (const p of kept) {
      const all = logAdd(p.blank, p.nonBlank);
      const self = touch(p);
      self.nextBlank = logAdd(self.nextBlank, all + at(0));
      if (p.parent) self.nextNonBlank = logAdd(self.nextNonBlank, p.nonBlank + at(p.label));
      for (let c = 1; c < classes; c++) {
        // A label after itself is a new one only behind a blank.
        const from = c === p.label ? p.blank : all;
        if (from === -Infinity || at(c) === -Infinity) continue;
        let child = p.children.get(c);
        if (!child)
          p.children.set(c, (child = prefix(p, c, p.bonus + insertionBonus + (following(p)?.[c] ?? 0))));
        touch(child).nextNonBlank = logAdd(child.nextNonBlank, from + at(c));
      }
    }
    for (const p of reached) [p.blank, p.nonBlank] = [p.nextBlank, p.nextNonBlank];
    reached.sort((a, b) => score(b) - score(a));
    for (const p of reached.slice(beam)) p.blank = p.nonBlank = -Infinity;
    kept = reached.slice(0, beam);
  }
  const final = (p: Prefix): number => score(p) + (following(p)?.[0] ?? 0);
  return labelsOf(kept.reduce((best, p) => (final(p) > final(best) ? p : best)));
}

const score = (p: Prefix): number => logAdd(p.blank, p.nonBlank) + p.bonus;

function labelsOf(p: Prefix): number[] {
  const labels: number[] = [];
  for (let node: Prefix | null = p; node?.parent; node = node.parent) labels.push(node.label);
  return labels.reverse();
}

/** log(exp(a) + exp(b)) */
function logAdd(a: number, b: number): number {
  if (a === -Infinity) return b;
  if (b === -Infinity) return a;
  return Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
}

/**
 * Transcript from the logits of CTC (class i + 1 is `classes[i]`): the best path, or with a `beam` the best
 * labels; one space between words.
 */
export function decodeTranscript(clip: ClipLogits, classes: readonly string[], beam?: BeamOptions): string {
  checkFields('decodeTranscript', 'clip.', clip, CLIP_LOGITS);
  checkArguments('decodeTranscript', { classes: [classes, 'a list'], beam: [beam, 'an object?'] });
  const { frames, logits } = clip;
  const C = classes.length + 1;
  const labels = beam
    ? prefixBeamCTC(logSoftmaxRows(logits, C), frames, C, beam)
    : greedyCTC(logits, frames, C);
  return labels
    .map((label) => classes[label - 1]!)
    .join('')
    .replace(/ +/g, ' ')
    .trim();
}

/** Log-softmax of each of the rows of `classes` numbers, in f64 inside. */
export function logSoftmaxRows(logits: Float32Array, classes: number): Float32Array {
  const out = new Float32Array(logits.length);
  for (let start = 0; start < logits.length; start += classes) {
    let top = -Infinity;
    let sum = 0;
    for (let c = 0; c < classes; c++) top = Math.max(top, logits[start + c]!);
    for (let c = 0; c < classes; c++) sum += Math.exp(logits[start + c]! - top);
    for (let c = 0; c < classes; c++) out[start + c] = logits[start + c]! - top - Math.log(sum);
  }
  return out;
}
