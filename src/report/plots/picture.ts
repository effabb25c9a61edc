/** A picture of its own, in a file: SVG text that carries its colours with it. */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';

/** One picture for light and dark pages: colours follow the reader's scheme, also inside an <img>. */
const STYLE = `svg { --surface: #fff; --ink: #1c1d1f; --muted: #64686e; --line: #e7e7e3; --axis: #b5b7b3; --accent: #2563c9; --reference: #b4530a; background: var(--surface); color: var(--muted);
font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) { svg { --surface: #1c1e21; --ink: #eceded; --muted: #9ba1a8; --line: #2c2f33; --axis: #51565c; --accent: #7ab0ff; --reference: #f0a35e; } }
text { white-space: pre; }`;

/** A drawing as the text of an SVG file. */
export function picture(options: Plot.PlotOptions): string {
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const svg = Plot.plot({ ...options, document: document as unknown as Document });
  svg.querySelectorAll('style').forEach((style) => style.remove());
  const style = document.createElementNS('http://www.w3.org/2000/svg', 'style');
  style.textContent = STYLE;
  svg.insertBefore(style as unknown as SVGElement, svg.firstChild);
  svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  svg.setAttribute('role', 'img');
  return svg.outerHTML;
}
