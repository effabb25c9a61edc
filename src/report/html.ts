/** Text, numbers and tables as HTML. */

import { apart } from '../numbers.ts';

/** Control characters, which HTML does not allow. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

/** Text with a visible mark in the place of each control character. */
export const printable = (text: string): string => text.replace(CONTROL, '\ufffd');

/** Text as HTML, in elements and in quoted attributes. */
export function escape(text: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return printable(text).replace(/[&<>"']/g, (character) => entities[character]!);
}

/** Three significant digits, without an exponent for everyday sizes. */
export function figures(value: number): string {
  if (!Number.isFinite(value)) return 'not a number';
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** Two numbers as `figures` prints them, or with the digits that make different ones read differently. */
export function figuresApart(a: number, b: number): [a: string, b: string] {
  const texts: [string, string] = [figures(a), figures(b)];
  return texts[0] !== texts[1] || a === b ? texts : apart(a, b, 3);
}

/** A share as a percentage with one decimal, its sign held by a space that does not break. */
export const percent = (share: number): string =>
  Number.isFinite(share) ? `${(100 * share).toFixed(1)}\u00a0%` : 'not a number';

/** Percentages from `low` to `high`, in small print. */
export const range = (low: number, high: number): string =>
  `<span class="interval">${(100 * low).toFixed(1)} to ${percent(high)}</span>`;

/** Short facts side by side, each in one piece. */
export const facts = (all: readonly string[]): string =>
  all
    .filter(Boolean)
    .map((f) => `<span class="nowrap">${escape(f)}</span>`)
    .join(' · ');

export const grouped = (value: number): string => Math.round(value).toLocaleString('en-US');

/** `1 clip`, `3 clips`. */
export const counted = (n: number, one: string, many = `${one}s`): string =>
  `${grouped(n)} ${n === 1 ? one : many}`;

export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min ${s} s` : `${figures(seconds)} s`;
}

export const items = (lines: readonly string[]): string =>
  `<ul>${lines.map((line) => `<li>${escape(line)}</li>`).join('')}</ul>`;

/** A cell that is HTML already, with what its column is aligned by. */
export interface Cell {
  html: string;
  number: boolean;
}

const isNumber = (value: string): boolean => /^[-+]?[\d.,]+\s*%?$/.test(value);
const asCell = (value: string | number | Cell): Cell =>
  typeof value === 'object'
    ? value
    : { html: escape(String(value)), number: typeof value === 'number' || isNumber(value) };

/**
 * A table whose columns of numbers stand to the right; cells are printed exactly as given. `caption` is what
 * screen readers call it.
 */
export function table(
  columns: readonly string[],
  rows: ReadonlyArray<ReadonlyArray<string | number | Cell>>,
  caption: string,
): string {
  const cells = rows.map((row) => row.map(asCell));
  const numeric = columns.map(
    (_, c) =>
      cells.some((row) => row[c]?.number) && cells.every((row) => row[c]?.number || row[c]?.html === ''),
  );
  const align = (c: number): string => (numeric[c] ? ' class="n"' : '');
  // A table that is wider than a phone is scrolled on its own, by keys too.
  return `<div class="card" tabindex="0" role="region" aria-label="${escape(caption)}"><table>
<thead><tr>${columns.map((name, c) => `<th scope="col"${align(c)}>${escape(name)}</th>`).join('')}</tr></thead>
<tbody>${cells.map((row) => `<tr>${row.map(({ html }, c) => `<td${align(c)}>${html}</td>`).join('')}</tr>`).join('\n')}</tbody>
</table></div>`;
}

/** A drawing with its name above it and a sentence below it, which is HTML. */
export function figure(title: string, svg: string, caption = '', kind = ''): string {
  return `<figure${kind ? ` class="${kind}"` : ''}>${title ? `<h3>${escape(title)}</h3>` : ''}
${svg}${caption ? `<figcaption>${caption}</figcaption>` : ''}</figure>`;
}

/** A part of the page: its anchor, its name in the table of contents, and its HTML without the heading. */
export interface Section {
  id: string;
  title: string;
  body: string;
}
