/**
 * How words are pronounced: the CMU Pronouncing Dictionary, and dictionaries of the user's in its form (Node,
 * Deno, Bun).
 */
import { readFile } from 'node:fs/promises';
import { MGFError } from '../../errors.ts';

/** Pronunciations by word in capitals, each a list of phones. */
export type Lexicon = ReadonlyMap<string, readonly (readonly string[])[]>;

/**
 * Digits that mark the stress of a vowel are left out, with which the 39 phones would be 69, and remarks
 * behind a `#`.
 */
const phonesOf = (text: string): string[] =>
  text
    .replace(/#.*/, '')
    .trim()
    .split(/\s+/)
    .map((phone) => phone.toUpperCase().replace(/[0-2]$/, ''));

/** `read(2)` is another pronunciation of `read`. */
const wordOf = (entry: string): string => entry.toUpperCase().replace(/\(\d+\)$/, '');

function lexiconOf(entries: Iterable<readonly [string, readonly string[]]>): Lexicon {
  const lexicon = new Map<string, (readonly string[])[]>();
  for (const [entry, phones] of entries) {
    const word = wordOf(entry);
    const known = lexicon.get(word);
    if (!known) lexicon.set(word, [phones]);
    else if (!known.some((other) => other.join() === phones.join())) known.push(phones);
  }
  return lexicon;
}

/**
 * North American English: 126,000 words in 39 phones. Source: the CMU Pronouncing Dictionary
 * (http://www.speech.cs.cmu.edu/cgi-bin/cmudict).
 */
export async function englishLexicon(): Promise<Lexicon> {
  const { dictionary } = await import('cmu-pronouncing-dictionary');
  return lexiconOf(Object.entries(dictionary).map(([entry, text]) => [entry, phonesOf(text)]));
}

/**
 * A dictionary file: a word, white space, its phones with white space between them; a word on several lines
 * has several pronunciations; lines that begin with `;;;` are comments. @throws MGFError 'io' where there is
 * none, 'data' for a line without phones.
 */
export async function readLexicon(path: string): Promise<Lexicon> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new MGFError('io', `There is no dictionary "${path}".`, { cause });
  });
  return lexiconOf(
    text.split(/\r?\n/).flatMap((line, i): [string, string[]][] => {
      if (line.trim() === '' || line.startsWith(';;;')) return [];
      const [, word, phones] = /^(\S+)\s+(\S.*)$/.exec(line.trim()) ?? [];
      if (word === undefined || phones === undefined)
        throw new MGFError(
          'data',
          `Line ${i + 1} of "${path}" is no pronunciation: it needs a word and its phones.`,
        );
      return [[word, phonesOf(phones)]];
    }),
  );
}
