/**
 * What a classifier of phones takes for what: shares, groups by manner of articulation, the largest
 * confusions.
 */
import { MGFError } from '../errors.ts';

export type Counts = readonly (readonly number[])[];

/** ARPAbet by manner of articulation; affricates stand with the stops that they begin as. */
export const MANNERS: readonly { name: string; phones: readonly string[] }[] = [
  {
    name: 'vowels',
    phones: ['iy', 'ih', 'ey', 'eh', 'ae', 'aa', 'ah', 'ao', 'ow', 'uh', 'uw', 'er', 'ay', 'aw', 'oy'],
  },
  { name: 'stops', phones: ['p', 'b', 't', 'd', 'k', 'g', 'ch', 'jh'] },
  { name: 'fricatives', phones: ['f', 'v', 'th', 'dh', 's', 'z', 'sh', 'zh', 'hh'] },
  { name: 'nasals', phones: ['m', 'n', 'ng'] },
  { name: 'approximants', phones: ['l', 'r', 'w', 'y'] },
  { name: 'silence', phones: ['sil', 'sp', 'pau'] },
];

/** A word in which a phone is heard. */
const EXAMPLES: Readonly<Record<string, string>> = {
  iy: 'beet',
  ih: 'bit',
  ey: 'bait',
  eh: 'bet',
  ae: 'bat',
  aa: 'father',
  ah: 'but',
  ao: 'bought',
  ow: 'boat',
  uh: 'book',
  uw: 'boot',
  er: 'bird',
  ay: 'bite',
  aw: 'bout',
  oy: 'boy',
  p: 'pie',
  b: 'buy',
  t: 'tie',
  d: 'die',
  k: 'key',
  g: 'guy',
  ch: 'chin',
  jh: 'gin',
  f: 'fin',
  v: 'vine',
  th: 'thin',
  dh: 'then',
  s: 'sin',
  z: 'zoo',
  sh: 'shin',
  zh: 'measure',
  hh: 'hat',
  m: 'map',
  n: 'nap',
  ng: 'sing',
  l: 'lay',
  r: 'ray',
  w: 'way',
  y: 'yes',
};

export interface PhoneGroup {
  name: string;
  start: number;
  /** Excluded. */
  end: number;
}

/**
 * Indices of `classes` with phones of one manner side by side, in the order above; what is no ARPAbet phone
 * comes last, as `other`.
 */
export function groupByManner(classes: readonly string[]): { order: number[]; groups: PhoneGroup[] } {
  const order: number[] = [];
  const groups: PhoneGroup[] = [];
  const known = new Set(MANNERS.flatMap((m) => m.phones));
  const add = (name: string, members: number[]): void => {
    if (members.length > 0) groups.push({ name, start: order.length, end: order.push(...members) });
  };
  const lower = classes.map((c) => c.toLowerCase());
  for (const { name, phones } of MANNERS)
    add(
      name,
      phones.flatMap((phone) => lower.flatMap((c, i) => (c === phone ? [i] : []))),
    );
  add(
    'other',
    lower.flatMap((c, i) => (known.has(c) ? [] : [i])),
  );
  return { order, groups };
}

/**
 * Each row divided by its sum, as shares 0 to 1; a class that never occurs has a row of zeros. Throws
 * MGFError 'shape' unless the counts are square and of `classes`.
 */
export function rowShares(counts: Counts, classes: number): number[][] {
  if (
    counts.length !== classes ||
    counts.some((row) => row.length !== classes || row.some((n) => !(n >= 0)))
  ) {
    throw new MGFError(
      'shape',
      `A confusion matrix of ${classes} classes needs ${classes} rows of ${classes} counts, got ` +
        `${counts.length} rows of ${[...new Set(counts.map((r) => r.length))].join(' or ')}.`,
    );
  }
  return counts.map((row) => {
    const sum = row.reduce((a, b) => a + b, 0);
    return row.map((n) => (sum > 0 ? n / sum : 0));
  });
}

export interface Confusion {
  truth: number;
  taken: number;
  count: number;
  /** Of all occurrences of the true class. */
  share: number;
  occurrences: number;
}

/**
 * The `most` largest confusions by share of the true class; classes that occur fewer than `fewest` times are
 * left out, since their shares are chance.
 */
export function largestConfusions(counts: Counts, most: number, fewest: number): Confusion[] {
  const found: Confusion[] = [];
  counts.forEach((row, truth) => {
    const occurrences = row.reduce((a, b) => a + b, 0);
    if (occurrences < fewest) return;
    row.forEach((count, taken) => {
      if (taken !== truth && count > 0)
        found.push({ truth, taken, count, share: count / occurrences, occurrences });
    });
  });
  return found
    .sort((a, b) => b.share - a.share || b.count - a.count || a.truth - b.truth || a.taken - b.taken)
    .slice(0, most);
}

/** Of all wrong answers, the share that is at least of the right manner; null where nothing is wrong. */
export function errorsWithinManner(counts: Counts, classes: readonly string[]): number | null {
  const { order, groups } = groupByManner(classes);
  const manner = new Map<number, string>();
  for (const { name, start, end } of groups) for (const i of order.slice(start, end)) manner.set(i, name);
  let wrong = 0;
  let within = 0;
  counts.forEach((row, truth) =>
    row.forEach((n, taken) => {
      if (taken === truth) return;
      wrong += n;
      if (manner.get(truth) === manner.get(taken)) within += n;
    }),
  );
  return wrong > 0 ? within / wrong : null;
}

/** `ih (as in bit)`; `silence`; anything else as it is. */
export function inWords(phone: string): string {
  const lower = phone.toLowerCase();
  if (MANNERS.at(-1)!.phones.includes(lower)) return 'silence';
  return EXAMPLES[lower] ? `${phone} (as in ${EXAMPLES[lower]})` : phone;
}
