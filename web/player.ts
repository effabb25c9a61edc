/** Plays one sound at a time. */
import { SAMPLE_RATE } from '../src/index.ts';
import { icon } from './dom.ts';

interface Playing {
  source: AudioBufferSourceNode;
  ended: () => void;
}

let context: AudioContext | null = null;
let playing: Playing | null = null;

/** Ends what is playing. */
export function stop(): void {
  const { source, ended } = playing ?? {};
  playing = null;
  source?.stop();
  ended?.();
}

/**
 * Plays samples at 16 kHz, instead of what was playing. `frame` is told the seconds since the start until the
 * end, which is told by null.
 */
export async function play(
  wave: Float32Array,
  ended: () => void,
  frame?: (seconds: number | null) => void,
): Promise<void> {
  stop();
  context ??= new AudioContext();
  await context.resume();
  const buffer = context.createBuffer(1, wave.length, SAMPLE_RATE);
  const source = context.createBufferSource();
  const started = context.currentTime;
  buffer.getChannelData(0).set(wave);
  source.buffer = buffer;
  source.connect(context.destination);
  const own: Playing = {
    source,
    ended: () => {
      frame?.(null);
      ended();
    },
  };
  playing = own;
  source.addEventListener('ended', () => {
    if (playing === own) stop();
  });
  source.start();
  const tick = (): void => {
    if (playing !== own) return;
    frame?.(context!.currentTime - started);
    requestAnimationFrame(tick);
  };
  if (frame) tick();
}

/**
 * Makes a button play what `sound` gives (perhaps after computing it), and stop it again. Its name says
 * which.
 */
export function playButton(
  button: HTMLButtonElement,
  what: string,
  sound: () => Float32Array | Promise<Float32Array>,
  {
    text = false,
    frame,
    failed,
  }: { text?: boolean; frame?: (seconds: number | null) => void; failed?: (error: unknown) => void } = {},
): void {
  let on = false;
  const show = (now: boolean): void => {
    on = now;
    button.setAttribute('aria-label', `${on ? 'Stop' : 'Play'} ${what}`);
    button.replaceChildren(text ? (on ? 'Stop' : 'Play') : icon(on ? 'stop' : 'play'));
  };
  show(false);
  button.addEventListener('click', () => {
    if (on) {
      stop();
      return;
    }
    stop();
    show(true);
    void (async () => {
      try {
        const wave = await sound();
        if (on) await play(wave, () => show(false), frame);
      } catch (error) {
        show(false);
        failed?.(error);
      }
    })();
  });
}
