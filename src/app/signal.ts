/** What `MGF.embed` and `MGF.stream` do with the samples they are given, before the network hears them. */
import { badSamples, describeBad, Level, toSamples, withoutBad } from '../audio/samples.ts';
import { isSilent } from '../audio/sampling.ts';
import { describe } from '../check.ts';
import { MGFError } from '../errors.ts';
import type { AudioWarning, OnBad, Samples } from '../audio/samples.ts';

/** What is done about samples that make features meaningless. */
export interface SignalOptions {
  /**
   * Samples that are NaN or infinite: `refuse` (default) throws MGFError 'audio'; `zero` replaces them by 0
   * and warns.
   */
  readonly onBad?: OnBad | undefined;
  /**
   * Told once a call and kind of warning: samples that were replaced, clips that are silent or constant.
   * Default: `console.warn` of the message.
   */
  readonly onWarning?: ((warning: AudioWarning) => void) | undefined;
}

const ADVICE = 'repair the signal, or give onBad: "zero" to have them replaced by 0';
/** Clips that a message names before it says how many there are besides. */
const NAMED = 5;

const listed = (names: readonly string[]): string =>
  names.slice(0, NAMED).join(', ') + (names.length > NAMED ? ` and ${names.length - NAMED} more` : '');

function warn({ onWarning }: SignalOptions, warning: AudioWarning): void {
  if (onWarning) onWarning(warning);
  else console.warn(warning.message);
}

/** Whether one clip was given, rather than a list of clips. */
export const isOneClip = (pcm: Samples | readonly Samples[]): pcm is Samples =>
  !Array.isArray(pcm) || typeof (pcm as readonly unknown[])[0] === 'number';

/**
 * Clips as checked f32 samples. Throws MGFError 'usage' for what holds no samples, 'audio' for a sample that
 * is not finite where `onBad` is not `zero`.
 */
export function checkedClips(
  where: string,
  pcm: Samples | readonly Samples[],
  options: SignalOptions,
): Float32Array[] {
  const single = isOneClip(pcm);
  const mended: string[] = [];
  const mendedClips: number[] = [];
  const constant: number[] = [];
  const name = (i: number): string => (single ? 'the clip' : `clip ${i}`);
  const clips = (single ? [pcm] : pcm).map((given, i) => {
    const samples = toSamples(`${where}: ${name(i)}`, given);
    const bad = badSamples(samples);
    if (bad && options.onBad !== 'zero') {
      throw new MGFError('audio', `${where}: clip ${i} has ${describeBad(bad)}; ${ADVICE}.`);
    }
    const clip = bad ? withoutBad(samples) : samples;
    if (bad) {
      mendedClips.push(i);
      mended.push(`${name(i)} has ${describeBad(bad)}`);
    }
    if (clip.length && isSilent(clip)) constant.push(i);
    return clip;
  });
  if (mended.length) {
    warn(options, {
      kind: 'not-finite',
      clips: mendedClips,
      message: `${where}: ${listed(mended)}: replaced by 0.`,
    });
  }
  if (constant.length) {
    const are = constant.length === 1 ? 'is' : 'are';
    const message = `${where}: ${listed(constant.map(name))} ${are} silent or constant; such features mean little.`;
    warn(options, { kind: 'constant', clips: constant, message });
  }
  return clips;
}

/** The same for the chunks of a stream, in order. */
export class StreamCheck {
  readonly #where: string;
  readonly #options: SignalOptions;
  readonly #level = new Level();
  #read = 0;
  #warned = false;

  constructor(where: string, options: SignalOptions) {
    this.#where = where;
    this.#options = options;
  }

  /** A chunk as checked f32 samples. Throws as `checkedClips`. */
  push(chunk: Samples): Float32Array {
    if (chunk === null || typeof chunk !== 'object') {
      throw new MGFError(
        'usage',
        `${this.#where}: a chunk is ${describe(chunk)}, but must be an array of ` + 'mono samples.',
      );
    }
    const samples = toSamples(`${this.#where}: a chunk`, chunk);
    const bad = badSamples(samples);
    if (bad && this.#options.onBad !== 'zero') {
      throw new MGFError(
        'audio',
        `${this.#where}: a chunk has ${describeBad(bad, this.#read)} of the ` + `stream; ${ADVICE}.`,
      );
    }
    if (bad && !this.#warned) {
      this.#warned = true;
      const what = `a chunk has ${describeBad(bad, this.#read)} of the stream`;
      const message = `${this.#where}: ${what}: replaced by 0, as are all that follow.`;
      warn(this.#options, { kind: 'not-finite', clips: [0], message });
    }
    const clean = bad ? withoutBad(samples) : samples;
    this.#read += samples.length;
    this.#level.push(clean);
    return clean;
  }

  end(): void {
    if (!this.#level.constant) return;
    const message = `${this.#where}: the stream is silent or constant; its features mean little.`;
    warn(this.#options, { kind: 'constant', clips: [0], message });
  }
}
