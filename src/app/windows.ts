import { MGFError } from '../errors.ts';
import { RECEPTIVE_FIELD, SAMPLE_RATE } from '../audio/sampling.ts';

/** Samples between frames. */
const HOP = 320;

export interface WindowOptions {
  /** Seconds that the network hears at once; a shorter signal is heard as a whole. Default 20, at least 1. */
  readonly window?: number | undefined;
  /** Seconds at each end of a window whose frames are left to its neighbour, which hears what comes after (or came before). Default 1, less than a third of the window. */
  readonly context?: number | undefined;
}

/** A piece to encode by itself, and which of its frames belong to the answer. */
export interface SignalWindow {
  readonly wave: Float32Array;
  /** Frames of it to leave out at its start. */
  readonly skip: number;
  /** Frames after those that count; infinite for the last window. */
  readonly take: number;
  /** Number of the first counted frame in the whole signal. */
  readonly start: number;
}

/** Sizes in samples, whole frames. Throws MGFError 'usage'. */
export function windowSizes({ window = 20, context = 1 }: WindowOptions): { length: number; context: number } {
  if (!(window >= 1)) throw new MGFError('usage', `a window of ${window} s is too short: 1 s is the least`);
  if (!(context >= 0.04 && context < window / 3)) throw new MGFError('usage', `context is ${context} s, but must be at least 0.04 s and less than a third of the window, ${window} s`);
  const frames = (seconds: number): number => Math.round((seconds * SAMPLE_RATE) / HOP) * HOP;
  return { length: frames(window), context: frames(context) };
}

/**
 * Cuts a 16 kHz signal of any length into overlapping windows as its samples come in; holds at most two windows of it, and what one call brings.
 * Where windows lie depends on the signal's length alone, so that a stream and a file give the same windows however the stream is chopped.
 * The last window is as long as the others (it overlaps more), because features of a very short one would be poor.
 */
export class SignalWindows {
  readonly #length: number;
  readonly #context: number;
  /** Samples from number `#from` on. */
  #held = new Float32Array(0);
  #from = 0;
  /** First sample of the next window, and frames that windows so far have answered for. */
  #next = 0;
  #answered = 0;

  constructor(sizes: { readonly length: number; readonly context: number }) {
    this.#length = sizes.length;
    this.#context = sizes.context;
  }

  /** Windows that these samples complete. */
  * push(samples: Float32Array): Generator<SignalWindow> {
    const joined = new Float32Array(this.#held.length + samples.length);
    joined.set(this.#held);
    joined.set(samples, this.#held.length);
    this.#held = joined;
    // One sample more than a window shows that it is not the last.
    for (let end = this.#next + this.#length; this.#from + this.#held.length > end; end = this.#next + this.#length) {
      const start = this.#answered, until = (end - this.#context) / HOP;
      yield { wave: this.#held.slice(this.#next - this.#from, end - this.#from), skip: start - this.#next / HOP, take: until - start, start };
      this.#answered = until;
      // The last window may begin anywhere after the start of this one.
      this.#held = this.#held.slice(this.#next - this.#from);
      this.#from = this.#next;
      this.#next = end - 2 * this.#context;
    }
  }

  /** The last window, where there is one. Throws MGFError 'audio' where the whole signal is too short for a frame. */
  * end(): Generator<SignalWindow> {
    const samples = this.#from + this.#held.length;
    if (samples < RECEPTIVE_FIELD) throw new MGFError('audio', `the signal has ${samples} samples at 16 kHz, but a frame needs ${RECEPTIVE_FIELD} (25 ms)`);
    const begin = Math.max(0, Math.floor((samples - this.#length) / HOP) * HOP);
    yield { wave: this.#held.slice(begin - this.#from), skip: this.#answered - begin / HOP, take: Infinity, start: this.#answered };
  }
}

/** All windows of a signal that is there as a whole. */
export function* windowsOf(signal: Float32Array, sizes: { readonly length: number; readonly context: number }): Generator<SignalWindow> {
  const windows = new SignalWindows(sizes);
  yield* windows.push(signal);
  yield* windows.end();
}
