/**
 * Small labelled corpora of tones whose pitch is the label, as WAV files with manifests in a temporary
 * folder.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { wav } from './audio-wav.ts';
import { generator } from './harness.ts';

/** Hz by label; silence is quiet noise. */
export const PITCHES: Readonly<Record<string, number>> = {
  AA: 300,
  IY: 800,
  UW: 2000,
  anger: 300,
  joy: 800,
  neutral: 2000,
  A: 300,
  B: 800,
  C: 2000,
};

/** Segments of labels and samples, a speaker's pitch a little apart from the others', with noise. */
export function tones(
  segments: readonly { label: string; samples: number }[],
  speaker: number,
  seed: number,
): Float32Array {
  const next = generator(seed * 97 + 5);
  const x = new Float32Array(segments.reduce((sum, s) => sum + s.samples, 0));
  let at = 0;
  let phase = 0;
  for (const { label, samples } of segments) {
    const hz = (PITCHES[label] ?? 0) * (1 + 0.01 * speaker);
    for (let i = 0; i < samples; i++, at++) {
      phase += (2 * Math.PI * hz) / 16000;
      x[at] = (hz > 0 ? 0.3 * Math.sin(phase) : 0) + 0.02 * (next() - 0.5);
    }
  }
  return x;
}

const line = (...cells: (string | number)[]): string => cells.join('\t');

export class Corpus {
  readonly folder = mkdtempSync(join(tmpdir(), 'mgf-tasks-'));

  write(name: string, text: string | Uint8Array): string {
    const path = join(this.folder, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, text);
    return path;
  }

  audio(name: string, samples: Float32Array): string {
    this.write(name, wav([samples]));
    return name;
  }

  /**
   * Six speakers, the last two for the test, four recordings each of silence and three phones in an order
   * drawn by the seed.
   */
  phonemes({ shuffled = false } = {}): string {
    const rows = [line('path', 'duration_samples', 'speaker', 'split')];
    const phones = [line('file', 'start_sample', 'end_sample', 'phone')];
    const next = generator(4);
    for (let speaker = 0; speaker < 6; speaker++) {
      for (let take = 0; take < 4; take++) {
        const segments = [
          'SIL',
          ...[0, 1, 2, 3].map(() => ['AA', 'IY', 'UW'][Math.floor(next() * 3)]!),
          'SIL',
        ].map((label) => ({ label, samples: 1600 + 320 * Math.floor(next() * 4) }));
        const samples = segments.reduce((sum, s) => sum + s.samples, 0);
        const file = this.audio(
          `audio/toy/s${speaker}/p${take}.wav`,
          tones(segments, speaker, 10 * speaker + take),
        );
        rows.push(line(file, samples, `s${speaker}`, speaker < 4 ? 'train' : 'test'));
        let at = 0;
        for (const { label, samples: n } of segments) {
          phones.push(
            line(
              file,
              at,
              at + n,
              shuffled && speaker < 4 ? ['SIL', 'AA', 'IY', 'UW'][Math.floor(next() * 4)]! : label,
            ),
          );
          at += n;
        }
      }
    }
    this.write(shuffled ? 'shuffled/alignments.tsv' : 'phonemes/alignments.tsv', `${phones.join('\n')}\n`);
    return this.write(
      shuffled ? 'shuffled/utterances.tsv' : 'phonemes/utterances.tsv',
      `${rows.join('\n')}\n`,
    );
  }

  /** Six speakers in three folds, each in three moods, `takes` recordings each. */
  emotions({ takes = 3, shuffled = false } = {}): string {
    const rows = [line('path', 'duration_samples', 'speaker', 'emotion', 'split', 'fold')];
    const moods = ['anger', 'joy', 'neutral'];
    const next = generator(11);
    for (let speaker = 0; speaker < 6; speaker++) {
      for (const mood of moods) {
        for (let take = 0; take < takes; take++) {
          const samples = 6400 + 800 * take;
          const file = this.audio(
            `audio/toy/s${speaker}/${mood}${take}.wav`,
            tones([{ label: mood, samples }], speaker, 100 * speaker + take),
          );
          rows.push(
            line(
              file,
              samples,
              `s${speaker}`,
              shuffled && speaker < 4 ? moods[Math.floor(next() * 3)]! : mood,
              speaker < 4 ? 'train' : 'test',
              speaker % 3,
            ),
          );
        }
      }
    }
    return this.write(shuffled ? 'emotion/shuffled.tsv' : 'emotion/emotion.tsv', `${rows.join('\n')}\n`);
  }

  /** Four speakers, six recordings each in both splits. */
  speakers(): string {
    const rows = [line('path', 'duration_samples', 'speaker', 'split')];
    for (let speaker = 0; speaker < 4; speaker++) {
      for (let take = 0; take < 6; take++) {
        const file = this.audio(
          `audio/toy/v${speaker}/${take}.wav`,
          tones([{ label: 'AA', samples: 6400 }], 30 * speaker, 50 * speaker + take),
        );
        rows.push(line(file, 6400, `v${speaker}`, take < 4 ? 'train' : 'test'));
      }
    }
    return this.write('speakers/speakers.tsv', `${rows.join('\n')}\n`);
  }

  /** Letters as tones with silence between them, four speakers; the last one is the test's. */
  asr(): string {
    const rows = [line('path', 'duration_samples', 'speaker', 'text', 'split')];
    const next = generator(3);
    for (let speaker = 0; speaker < 4; speaker++) {
      for (let take = 0; take < 6; take++) {
        const letters = Array.from(
          { length: 2 + Math.floor(next() * 2) },
          () => ['A', 'B', 'C'][Math.floor(next() * 3)]!,
        );
        const segments = [
          { label: 'SIL', samples: 1600 },
          ...letters.flatMap((label) => [
            { label, samples: 2560 },
            { label: 'SIL', samples: 1600 },
          ]),
        ];
        const file = this.audio(
          `audio/toy/r${speaker}/${take}.wav`,
          tones(segments, speaker, 70 * speaker + take),
        );
        rows.push(
          line(
            file,
            segments.reduce((sum, s) => sum + s.samples, 0),
            `r${speaker}`,
            letters.join('').toLowerCase(),
            speaker < 3 ? 'train' : 'test',
          ),
        );
      }
    }
    return this.write('asr/asr.tsv', `${rows.join('\n')}\n`);
  }
}
