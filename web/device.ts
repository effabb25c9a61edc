/**
 * The device behind the page: opened at the start, opened anew when it is lost, and explained where there is
 * none.
 */
import type { MGFError } from '../src/errors.ts';
import { openGpu, type Gpu } from '../src/gpu/device.ts';
import { byId, delay, el, sentence } from './dom.ts';

type State = 'opening' | 'ready' | 'lost' | 'missing';

/** Waits before each attempt to open a new device: the browser starts its graphics process again. */
const ATTEMPTS = [300, 1000, 2000, 4000];

export class DeviceHost {
  #state: State = 'opening';
  #gpu: Gpu | null = null;
  #waiting: Array<(gpu: Gpu) => void> = [];
  readonly #listeners: Array<(gpu: Gpu | null) => void> = [];

  /** Told of every new device, and of its end with null. */
  onChange(listener: (gpu: Gpu | null) => void): void {
    this.#listeners.push(listener);
    if (this.#gpu) listener(this.#gpu);
  }

  /** The device, as soon as there is one. */
  ready(): Promise<Gpu> {
    return this.#gpu
      ? Promise.resolve(this.#gpu)
      : new Promise((resolve) => {
          this.#waiting.push(resolve);
        });
  }

  /** Whether this one is the device of now: work of an older one is void, and its errors say nothing new. */
  current(gpu: Gpu): boolean {
    return gpu === this.#gpu;
  }

  async open(): Promise<void> {
    this.#show('opening', 'Looking for WebGPU.');
    try {
      this.#take(await openGpu());
    } catch (error) {
      this.#show('missing', 'No WebGPU here.');
      explain(error, () => void this.open());
    }
  }

  #take(gpu: Gpu): void {
    this.#gpu = gpu;
    const { profile } = gpu;
    this.#show(
      'ready',
      profile.name +
        (profile.kind === 'cpu' ? ', in software: everything below works, but takes its time' : ''),
    );
    void gpu.lost.then((error) => this.#lose(gpu, error));
    for (const resolve of this.#waiting.splice(0)) resolve(gpu);
    for (const listener of this.#listeners) listener(gpu);
  }

  async #lose(gpu: Gpu, error: MGFError): Promise<void> {
    if (gpu !== this.#gpu) return;
    this.#gpu = null;
    this.#show('lost', 'The device is gone; opening a new one.');
    const why = el('p', {}, sentence(error));
    notice(
      true,
      'The graphics device was lost',
      why,
      el(
        'p',
        {},
        'That happens when a driver restarts or the machine runs out of memory. A new device is being ' +
          'opened; your sounds are still here.',
      ),
    );
    for (const listener of this.#listeners) listener(null);
    for (const wait of ATTEMPTS) {
      await delay(wait);
      try {
        const fresh = await openGpu();
        notice(
          true,
          'The graphics device was lost, and a new one is open',
          why,
          el(
            'p',
            {},
            'Your sounds and what was computed of them are still here. A training or measurement that ' +
              'was running has ended: its weights were on the old device.',
          ),
          dismiss(),
        );
        this.#take(fresh);
        return;
      } catch {
        /* the browser is not ready yet */
      }
    }
    this.#show('lost', 'The device is gone.');
    notice(
      true,
      'The graphics device was lost',
      why,
      el('p', {}, 'The browser gives no new one yet.'),
      el('p', {}, el('button', { type: 'button', click: () => void this.open() }, 'Try again')),
    );
  }

  #show(state: State, text: string): void {
    this.#state = state;
    const line = byId('device');
    line.dataset['state'] = state;
    line.querySelector('span')!.textContent = text;
    if (state === 'opening') byId('notice').hidden = true;
  }

  get state(): State {
    return this.#state;
  }
}

/** At the top of the page; where `everywhere` is set, before whatever is being looked at. */
function notice(everywhere: boolean, title: string, ...content: Node[]): void {
  const box = byId('notice');
  box.classList.toggle('floating', everywhere);
  box.replaceChildren(el('h2', {}, title), ...content);
  box.hidden = false;
}

const dismiss = (): Node =>
  el(
    'p',
    {},
    el(
      'button',
      {
        type: 'button',
        click: () => {
          byId('notice').hidden = true;
          byId('device').focus();
        },
      },
      'Close',
    ),
  );

/** Why there is no device, and how to come by one. */
function explain(error: unknown, again: () => void): void {
  const ways = [
    'Chrome and Edge: since version 113 on Windows, macOS and ChromeOS, since 121 on Android 12 and ' +
      'newer; on Linux by default only with newer Intel and NVIDIA drivers, elsewhere by starting the ' +
      'browser with --enable-unsafe-webgpu --enable-features=Vulkan.',
    'Safari: since version 26, on Mac, iPhone, iPad and Vision Pro.',
    'Firefox: since version 141 on Windows and 145 on Macs with Apple silicon; elsewhere with ' +
      'dom.webgpu.enabled set to true in about:config.',
  ];
  const reason = !globalThis.isSecureContext
    ? 'This page was not loaded over https or from localhost, and browsers offer WebGPU only there.'
    : 'gpu' in navigator
      ? "This browser knows WebGPU, but offers no graphics adapter: its driver may be on the browser's " +
        "block list, or graphics acceleration may be switched off in the browser's settings."
      : 'This browser does not offer WebGPU.';
  notice(
    false,
    'WebGPU is missing',
    el('p', {}, `${reason} Sounds can be loaded and played; everything that computes needs it.`),
    el('ul', {}, ...ways.map((text) => el('li', {}, text))),
    el('p', {}, el('button', { type: 'button', click: again }, 'Look again')),
    el('details', {}, el('summary', {}, 'What was tried'), el('p', {}, sentence(error))),
  );
}
