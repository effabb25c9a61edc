/**
 * Audio files to samples: WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, Ogg FLAC. The format is told by the first
 * bytes, never by the name. Compressed formats go through the WebAssembly builds of their reference decoders.
 * Safe in a browser.
 */
import { FLACDecoder } from '@wasm-audio-decoders/flac';
import { OggVorbisDecoder } from '@wasm-audio-decoders/ogg-vorbis';
import { MPEGDecoder } from 'mpg123-decoder';
import { OggOpusDecoder } from 'ogg-opus-decoder';
import { checkArguments, checkOptions, type Rules } from '../check.ts';
import { MGFError } from '../errors.ts';
import { mp3End, oggEnd, oggPacketStart, opusSamples, startsWith } from './containers.ts';
import { splitFlac } from './flac.ts';
import { resampleTo16k } from './resample.ts';
import { SAMPLE_RATE } from './sampling.ts';
import { badSamples, describeBad, withoutBad, type AudioWarning, type OnBad } from './samples.ts';
import { audioError, decodeWav, truncatedError } from './wav.ts';
import type { DecodedAudio } from './wav.ts';

export type { DecodedAudio } from './wav.ts';

/** File name endings looked for in folders. */
export const AUDIO_EXTENSIONS = ['wav', 'wave', 'flac', 'mp3', 'ogg', 'oga', 'opus'] as const;

type Compressed = 'flac' | 'ogg-flac' | 'mp3' | 'vorbis' | 'opus';

/** What the WASM decoders have in common. */
interface WasmDecoder {
  ready: Promise<void>;
  /** Decodes a whole file; for FLAC its packets. */
  decode(packets: Uint8Array[]): Promise<WasmAudio>;
  reset(): Promise<void>;
  free(): void;
}
interface WasmAudio {
  channelData: Float32Array[];
  samplesDecoded: number;
  sampleRate: number;
  errors: { message: string }[];
}

function openDecoder(format: Compressed): WasmDecoder {
  if (format === 'flac') {
    const flac = new FLACDecoder();
    return {
      ready: flac.ready,
      decode: (packets) => flac.decodeFrames(packets),
      reset: () => flac.reset(),
      free: () => flac.free(),
    };
  }
  if (format === 'mp3') {
    const mp3 = new MPEGDecoder();
    return {
      ready: mp3.ready,
      decode: async ([bytes]) => mp3.decode(bytes!),
      reset: () => mp3.reset(),
      free: () => mp3.free(),
    };
  }
  const decoder =
    format === 'ogg-flac'
      ? new FLACDecoder()
      : format === 'vorbis'
        ? new OggVorbisDecoder()
        : new OggOpusDecoder(OPUS_OPTIONS);
  // decodeFile ends with a reset of its own.
  return {
    ready: decoder.ready,
    decode: ([bytes]) => decoder.decodeFile(bytes!),
    reset: async () => {},
    free: () => decoder.free(),
  };
}

/**
 * Opus decodes to 16 kHz by itself, several times faster than to 48 kHz with a resampling after it. The
 * package's types lack the option.
 */
const OPUS_OPTIONS = { sampleRate: SAMPLE_RATE } as ConstructorParameters<typeof OggOpusDecoder>[0];

/**
 * Decoders kept open between files, because starting one costs as much as decoding a second of audio. One
 * file at a time; `free` when done.
 */
export class DecoderPool {
  readonly #open = new Map<Compressed, WasmDecoder>();

  async decode(format: Compressed, packets: Uint8Array[]): Promise<WasmAudio> {
    const decoder = this.#open.get(format) ?? openDecoder(format);
    this.#open.delete(format);
    try {
      await decoder.ready;
      const audio = await decoder.decode(packets);
      await decoder.reset();
      this.#open.set(format, decoder);
      return audio;
    } catch (error) {
      decoder.free(); // its state is unknown after a failure
      throw error;
    }
  }

  free(): void {
    for (const decoder of this.#open.values()) decoder.free();
    this.#open.clear();
  }
}

/** Formats people try that are not read, by their first bytes. */
const OTHERS: [string, number, string][] = [
  ['ftyp', 4, 'MP4/M4A (AAC)'],
  ['FORM', 0, 'AIFF'],
  ['.snd', 0, 'Sun AU'],
  ['NIST_1A', 0, 'NIST SPHERE'],
  ['caff', 0, 'Core Audio'],
  ['\x1a\x45\xdf\xa3', 0, 'WebM/Matroska'],
  ['#!AMR', 0, 'AMR'],
  ['0&\xb2u', 0, 'Windows Media'],
];

function sniff(bytes: Uint8Array, name: string): 'wav' | Compressed {
  if (bytes.length === 0) throw audioError(name, 'the file is empty');
  if ((startsWith(bytes, 'RIFF') || startsWith(bytes, 'RF64')) && startsWith(bytes, 'WAVE', 8)) return 'wav';
  if (startsWith(bytes, 'fLaC')) return 'flac';
  if (startsWith(bytes, 'OggS')) {
    const packet = oggPacketStart(bytes);
    if (startsWith(bytes, 'OpusHead', packet)) return 'opus';
    if (startsWith(bytes, '\x01vorbis', packet)) return 'vorbis';
    if (startsWith(bytes, '\x7fFLAC', packet)) return 'ogg-flac';
    throw audioError(name, 'it is an Ogg file, but holds neither Vorbis, Opus nor FLAC');
  }
  // 11 sync bits; layer bits 00 would be AAC.
  if (
    startsWith(bytes, 'ID3') ||
    (bytes[0] === 0xff && (bytes[1]! & 0xe0) === 0xe0 && (bytes[1]! & 0x06) !== 0)
  )
    return 'mp3';
  const other = OTHERS.find(([magic, at]) => startsWith(bytes, magic, at));
  const what = other ? `${other[2]} is not supported` : 'it is no audio file that is known here';
  throw audioError(name, `${what}; WAV, FLAC, MP3, Ogg Vorbis and Ogg Opus are read`);
}

/** MP3 encoders pad by up to three frames, which gapless decoding removes again. */
const MP3_PADDING = 4 * 1152;
/** The longest Opus packet (120 ms) and a usual pre-skip (80 ms). */
const OPUS_PADDING = 0.2 * SAMPLE_RATE;

/**
 * Decodes a whole file held in memory.
 * @param bytes the file
 * @param nameForErrors how to call it in messages
 * @param pool decoders to reuse; without one, a decoder is opened and freed
 * @throws MGFError 'audio', one sentence: empty, unknown or unsupported format, damaged header, truncated, no
 * samples.
 *   A truncated file is an error in every format: half a recording is no longer what its label says.
 */
export async function decodeAudio(
  bytes: Uint8Array,
  nameForErrors: string,
  pool?: DecoderPool,
): Promise<DecodedAudio> {
  checkArguments('decodeAudio', { bytes: [bytes, 'a Uint8Array'], nameForErrors: [nameForErrors, 'a text'] });
  const format = sniff(bytes, nameForErrors);
  const audio =
    format === 'wav'
      ? decodeWav(bytes, nameForErrors)
      : await decodeCompressed(format, bytes, nameForErrors, pool);
  if (audio.channels.length === 0 || audio.channels[0]!.length === 0)
    throw audioError(nameForErrors, 'it contains no samples');
  return audio;
}

async function decodeCompressed(
  format: Compressed,
  bytes: Uint8Array,
  name: string,
  pool?: DecoderPool,
): Promise<DecodedAudio> {
  const mp3 = format === 'mp3' ? mp3End(bytes) : undefined;
  if ((mp3?.cut && mp3.promised === 0) || (startsWith(bytes, 'OggS') && oggEnd(bytes).cut)) {
    throw audioError(
      name,
      `it is truncated (it ends within ${mp3 ? 'an MP3 frame' : 'an Ogg page'}); copy or export it again`,
    );
  }
  const flac = format === 'flac' ? splitFlac(bytes) : undefined;
  if (format === 'flac' && !flac) throw audioError(name, 'its FLAC header is damaged or cut off');
  const decoders = pool ?? new DecoderPool();
  let audio: WasmAudio;
  try {
    audio = await decoders.decode(format, flac?.packets ?? [bytes]);
  } catch (error) {
    throw audioError(
      name,
      `the ${format} decoder gave up (${error instanceof Error ? error.message : String(error)})`,
      { cause: error },
    );
  } finally {
    if (!pool) decoders.free();
  }
  const header = flac ?? mp3;
  const sampleRate =
    audio.samplesDecoded > 0 && !flac ? audio.sampleRate : (header?.sampleRate ?? audio.sampleRate);
  const promised = header?.promised ?? 0;
  if (promised - audio.samplesDecoded > (mp3 ? MP3_PADDING : 0)) {
    throw truncatedError(name, promised / sampleRate, audio.samplesDecoded / sampleRate, true);
  }
  if (audio.errors.length > 0)
    throw audioError(name, `its ${format} data are damaged (${audio.errors[0]!.message})`);
  let channels = audio.channelData;
  const opus = format === 'opus' ? opusSamples(bytes, sampleRate) : 0;
  // The decoder leaves the padding of the last packet in. More than that is a chained stream, whose granules
  // start again.
  if (opus > 0 && audio.samplesDecoded - opus <= OPUS_PADDING)
    channels = channels.map((c) => c.subarray(0, opus));
  return { sampleRate, channels };
}

/** A stretch of a recording, in seconds; the whole of it by default. */
export interface Segment {
  offsetSeconds?: number | undefined;
  durationSeconds?: number | undefined;
  /**
   * Samples that are NaN or infinite, as float WAV files can have: `refuse` (default) throws; `zero` replaces
   * them by 0 and warns.
   */
  onBad?: OnBad | undefined;
  /** Told of samples that were replaced. Default: `console.warn` of the message. */
  onWarning?: ((warning: AudioWarning) => void) | undefined;
}

/** Options of `toMono16k` and `loadAudio`. */
export const SEGMENT_OPTIONS: Rules<Segment> = {
  offsetSeconds: 'a number?',
  durationSeconds: 'a number?',
  onBad: '"refuse"|"zero"?',
  onWarning: 'a function?',
};

/**
 * The mean of the channels at 16 kHz, of the whole recording or a segment. A segment that ends after the
 * recording is cut at its end.
 * @throws MGFError 'audio' if the segment starts after the end, or a sample is not finite and `onBad` is not
 * `zero`.
 */
export async function toMono16k(
  audio: DecodedAudio,
  nameForErrors: string,
  segment: Segment = {},
): Promise<Float32Array> {
  checkArguments('toMono16k', { audio: [audio, 'an object'], nameForErrors: [nameForErrors, 'a text'] });
  checkArguments('toMono16k', {
    'audio.channels': [audio.channels, 'a list'],
    'audio.sampleRate': [audio.sampleRate, 'a number'],
  });
  checkOptions('toMono16k', segment, SEGMENT_OPTIONS);
  const { sampleRate, channels } = audio;
  const total = channels[0]!.length;
  const { offsetSeconds = 0, durationSeconds = Infinity } = segment;
  if (!(offsetSeconds >= 0) || !(durationSeconds > 0)) {
    throw new MGFError(
      'data',
      `The segment of "${nameForErrors}" from ${offsetSeconds} s for ${durationSeconds} s makes no ` +
        'sense; an offset is at least 0, a duration above 0.',
    );
  }
  const start = Math.round(offsetSeconds * sampleRate);
  if (start >= total) {
    throw audioError(
      nameForErrors,
      `the segment starts at ${offsetSeconds} s, but the recording ends after ` +
        `${(total / sampleRate).toFixed(2)} s`,
    );
  }
  const end = Math.min(total, start + Math.round(durationSeconds * sampleRate));
  const mono = new Float32Array(end - start);
  for (const channel of channels) {
    for (let i = start; i < end; i++) mono[i - start]! += channel[i]! / channels.length;
  }
  const sound = finiteSamples(mono, nameForErrors, start, segment);
  return sampleRate === SAMPLE_RATE ? sound : resampleTo16k(sound, sampleRate);
}

/**
 * The samples as they are, or with 0 for those that are not finite where that is wanted; `start` is the index
 * of the first in the file.
 */
function finiteSamples(
  mono: Float32Array,
  name: string,
  start: number,
  { onBad, onWarning }: Segment,
): Float32Array {
  const bad = badSamples(mono);
  if (!bad) return mono;
  if (onBad !== 'zero') throw audioError(name, `it contains ${describeBad(bad, start)}`);
  const message = `"${name}" contains ${describeBad(bad, start)}: replaced by 0.`;
  if (onWarning) onWarning({ kind: 'not-finite', clips: [0], message });
  else console.warn(message);
  return withoutBad(mono);
}
