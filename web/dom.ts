/** Small things that every section of the page uses. */
import { MGFError } from '../src/errors.ts';

/** The element of index.html with this id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element #${id}`);
  return found as T;
}

type Child = Node | string;

/** An element with properties and children; text is never read as HTML. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<Record<string, string | boolean | ((event: Event) => void)>> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, '');
    else if (typeof value === 'string') made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** What went wrong as a sentence for people. */
export function sentence(error: unknown): string {
  const text =
    error instanceof MGFError
      ? error.message
      : `Something unforeseen went wrong: ${(error as Error)?.message ?? String(error)}`;
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;
}

/**
 * The line under a heading that says what is going on; what it says is read out, the seconds beside it are
 * not.
 */
export class Status {
  readonly #element: HTMLElement;
  #timer = 0;

  constructor(id: string) {
    this.#element = byId(id);
  }

  /** Nothing is under way. */
  say(text: string): void {
    this.#show(text, false);
  }

  fail(error: unknown): void {
    this.#show(sentence(error), true);
  }

  /** Something takes a while: seconds are counted from now on. */
  busy(text: string): void {
    this.#show(text, false);
    const clock = el('span', { class: 'clock', 'aria-hidden': 'true' });
    const started = performance.now();
    this.#element.append(clock);
    this.#timer = window.setInterval(() => {
      clock.textContent = `${Math.round((performance.now() - started) / 1000)} s`;
    }, 1000);
  }

  #show(text: string, error: boolean): void {
    window.clearInterval(this.#timer);
    this.#element.classList.toggle('error', error);
    this.#element.replaceChildren(text);
  }
}

/** A button's drawing: `play`, `stop` or `remove`, 16 pixels square. */
export function icon(name: 'play' | 'stop' | 'remove'): SVGSVGElement {
  const paths = { play: 'M4 2.5v11l9.5-5.5z', stop: 'M3.5 3.5h9v9h-9z', remove: 'M4 4l8 8M12 4l-8 8' };
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  for (const [key, value] of Object.entries({
    viewBox: '0 0 16 16',
    width: '16',
    height: '16',
    'aria-hidden': 'true',
  }))
    svg.setAttribute(key, value);
  path.setAttribute('d', paths[name]);
  path.setAttribute(name === 'remove' ? 'stroke' : 'fill', 'currentColor');
  if (name === 'remove') path.setAttribute('stroke-width', '1.6');
  svg.append(path);
  return svg;
}

export const seconds = (value: number): string => `${value.toFixed(1)} s`;
/** Three significant digits, as people write them. */
export const figures = (value: number, digits = 3): string =>
  Number(value.toPrecision(digits)).toLocaleString('en-US', { maximumSignificantDigits: digits });

/** Lets the page draw and answer before work goes on; also while it is not in view. */
export const breath = (): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
export const delay = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
