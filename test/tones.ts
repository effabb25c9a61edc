import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { randomStream } from '../src/random/stream.ts';
import { wav } from './audio-wav.ts';

/** Hz of the letters that the made-up speech below is spelled with. */
const LETTERS: Readonly<Record<string, number>> = { A: 400, B: 1000, C: 2400 };
/** Samples of a letter, and of the silence before each and at the end. */
const LETTER = 2400;
const GAP = 1600;

/**
 * Words of A, B, C as tones with a little noise: every letter has its pitch, which a `voice` above 1 raises.
 */
export function spoken(word: string, voice = 1, seed = 0): Float32Array {
  const random = randomStream(seed);
  const samples = new Float32Array(GAP + word.length * (LETTER + GAP)).map(
    () => 0.01 * (2 * random.uniform() - 1),
  );
  [...word].forEach((letter, i) => {
    const start = GAP + i * (LETTER + GAP);
    for (let n = 0; n < LETTER; n++)
      samples[start + n]! +=
        0.4 *
        Math.sin((2 * Math.PI * LETTERS[letter]! * voice * n) / 16000) *
        Math.sin((Math.PI * n) / LETTER);
  });
  return samples;
}

/** Where the letters of `spoken` lie: [start, end, letter or SIL] in samples. */
export const phonesOf = (word: string): [number, number, string][] =>
  [...word]
    .flatMap((letter, i): [number, number, string][] => [
      [i * (LETTER + GAP), i * (LETTER + GAP) + GAP, 'SIL'],
      [i * (LETTER + GAP) + GAP, (i + 1) * (LETTER + GAP), letter],
    ])
    .concat([[word.length * (LETTER + GAP), word.length * (LETTER + GAP) + GAP, 'SIL']]);

export interface Row {
  readonly name: string;
  readonly word: string;
  readonly voice?: number;
  readonly columns: Readonly<Record<string, string>>;
}

/** Writes recordings and a manifest of all the columns that the rows have; returns the manifest's path. */
export function makeData(folder: string, rows: readonly Row[]): string {
  mkdirSync(folder, { recursive: true });
  const names = [...new Set(rows.flatMap(({ columns }) => Object.keys(columns)))];
  const manifest = join(folder, 'data.tsv');
  rows.forEach(({ name, word, voice }, i) =>
    writeFileSync(join(folder, `${name}.wav`), wav([spoken(word, voice, i)])),
  );
  writeFileSync(
    manifest,
    [
      ['path', ...names].join('\t'),
      ...rows.map(({ name, columns }) => [`${name}.wav`, ...names.map((n) => columns[n] ?? '')].join('\t')),
    ].join('\n'),
  );
  return manifest;
}
