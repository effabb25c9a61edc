/** Audio files from disk (Node, Deno, Bun). */
import { readFile } from 'node:fs/promises';
import { checkArguments, checkOptions, describe } from '../check.ts';
import { MGFError } from '../errors.ts';
import { decodeAudio, SEGMENT_OPTIONS, toMono16k } from './decode.ts';
import { audioError } from './wav.ts';
import type { DecodedAudio, DecoderPool, Segment } from './decode.ts';

/**
 * Reads and decodes one file as it is: its own rate, all channels. Throws MGFError 'audio' with one sentence
 * on any failure.
 */
export async function decodeFile(path: string, pool?: DecoderPool): Promise<DecodedAudio> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') throw new MGFError('audio', `There is no file "${path}".`, { cause: error });
    const problems: Record<string, string> = {
      EISDIR: 'it is a folder',
      EACCES: 'permission denied',
      ERR_INVALID_ARG_VALUE: 'its name contains a NUL character',
    };
    const problem = problems[code ?? ''] ?? String(code ?? error);
    throw audioError(path, problem, { cause: error });
  }
  return decodeAudio(bytes, path, pool);
}

/**
 * One file, or a segment of it, as mono samples at 16 kHz. Throws MGFError 'audio' with one sentence on any
 * failure.
 */
export async function loadAudio(
  path: string,
  segment: Segment = {},
  pool?: DecoderPool,
): Promise<Float32Array> {
  if (ArrayBuffer.isView(path) || Object.prototype.toString.call(path) === '[object ArrayBuffer]') {
    throw new MGFError(
      'usage',
      `loadAudio: path is ${describe(path)}, but must be the path of a file; for ` +
        'bytes use decodeAudio(bytes, name) and toMono16k.',
    );
  }
  checkArguments('loadAudio', { path: [path, 'a text'] });
  checkOptions('loadAudio', segment, SEGMENT_OPTIONS);
  return toMono16k(await decodeFile(path, pool), path, segment);
}
