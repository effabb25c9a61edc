import { MGFError } from '../errors.ts';
import { HOP, RECEPTIVE_FIELD, SAMPLE_RATE } from '../audio/sampling.ts';

/** In what pieces the network hears a long signal. */
export interface WindowOptions {
  /** Seconds that the network hears at once; a shorter signal is heard as a whole. Default 20, at least 1. */
  readonly window?: number | undefined;
  /**
   * Seconds at each end of a window whose frames are left to its neighbour, which hears what comes after (or
   * came before). Default 1, less than a third of the window.
   */
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
export function windowSizes({ window = 20, context = 1 }: WindowOptions): {
  length: number;
  context: number;
} {
  if (!(window >= 1)) throw new MGFError('usage', `a window of ${window} s is too short: 1 s is the least`);
  if (!(context >= 0.04 && context < window / 3))
    throw new MGFError(
      'usage',
      `context is ${context} s, but must be at least 0.04 s and less than a third of the window, ${window} s`,
    );
  const frames = (seconds: number): number => Math.round((seconds * SAMPLE_RATE) / HOP) * HOP;
  return { length: frames(window), context: frames(context) };
}

/**
 * Cuts a 16 kHz signal of any length into overlapping windows as its samples come in; holds about two windows
 * of it, and what one call brings. Where windows lie depends on the signal's length alone, so that a stream
 * and a file give the same windows however the stream is chopped. The last window is as long as the others
 * (it overlaps more), because features of a very short one would be poor.
 */
export class SignalWindows {
  readonly #length: number;
  readonly #context: number;
  /** Samples `#from` to `#end` of the signal, at the start of a buffer with room for more. */
  #held = new Float32Array(0);
  #from = 0;
  #end = 0;
  /** First sample of the next window, and frames that windows so far have answered for. */
  #next = 0;
  #answered = 0;

  constructor(sizes: { readonly length: number; readonly context: number }) {
    this.#length = sizes.length;
    this.#context = sizes.context;
  }

  /** Windows that these samples complete; take them all before the next call. */
  *push(samples: Float32Array): Generator<SignalWindow> {
    this.#append(samples);
    // The last window of all may begin anywhere after the start of the last one here.
    let keep = this.#from;
    // One sample more than a window shows that it is not the last.
    for (let end = this.#next + this.#length; this.#end > end; end = this.#next + this.#length) {
      const start = this.#answered;
      const until = (end - this.#context) / HOP;
      yield {
        wave: this.#samples(this.#next, end),
        skip: start - this.#next / HOP,
        take: until - start,
        start,
      };
      this.#answered = until;
      keep = this.#next;
      this.#next = end - 2 * this.#context;
    }
    if (keep > this.#from) {
      this.#held.copyWithin(0, keep - this.#from, this.#end - this.#from);
      this.#from = keep;
    }
  }

  /** The last window. Throws MGFError 'audio' where the whole signal is too short for a frame. */
  *end(): Generator<SignalWindow> {
    if (this.#end < RECEPTIVE_FIELD)
      throw new MGFError(
        'audio',
        `the signal has ${this.#end} samples at 16 kHz, but a frame needs ${RECEPTIVE_FIELD} (25 ms)`,
      );
    const begin = Math.max(0, Math.floor((this.#end - this.#length) / HOP) * HOP);
    yield {
      wave: this.#samples(begin, this.#end),
      skip: this.#answered - begin / HOP,
      take: Infinity,
      start: this.#answered,
    };
  }

  #append(samples: Float32Array): void {
    const count = this.#end - this.#from;
    const needed = count + samples.length;
    if (needed > this.#held.length) {
      // Twice as large each time, so that a stream of tiny chunks is not copied at every one of them.
      const larger = new Float32Array(Math.max(needed, 2 * this.#held.length));
      larger.set(this.#held.subarray(0, count));
      this.#held = larger;
    }
    this.#held.set(samples, count);
    this.#end += samples.length;
  }

  #samples(from: number, to: number): Float32Array {
    return this.#held.slice(from - this.#from, to - this.#from);
  }
}

/** All windows of a signal that is there as a whole. */
export function* windowsOf(
  signal: Float32Array,
  sizes: { readonly length: number; readonly context: number },
): Generator<SignalWindow> {
  const windows = new SignalWindows(sizes);
  yield* windows.push(signal);
  yield* windows.end();
}
