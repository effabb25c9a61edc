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
import { withoutTags } from './tags.ts';
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

/** What the decoders print about damaged data; it is in `errors` of the audio, too, and told from there. */
const PRINTED = /^(mpg123-decoder: |libopus )/;
let decoding = 0;
let printError = console.error;

/** Runs a decoder without what it prints. Everything else that is printed meanwhile is let through. */
async function quietly<T>(run: () => Promise<T>): Promise<T> {
  if (decoding++ === 0) {
    printError = console.error;
    console.error = (...said: unknown[]) => {
      if (typeof said[0] !== 'string' || !PRINTED.test(said[0])) printError(...said);
    };
  }
  try {
    return await run();
  } finally {
    if (--decoding === 0) console.error = printError;
  }
}

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
      const audio = await quietly(async () => {
        const decoded = await decoder.decode(packets);
        await decoder.reset();
        return decoded;
      });
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
  ['RIFX', 0, 'big-endian WAV (RIFX)'],
  ['riff', 0, 'Sony Wave64'],
  ['.snd', 0, 'Sun AU'],
  ['NIST_1A', 0, 'NIST SPHERE'],
  ['caff', 0, 'Core Audio'],
  ['\x1a\x45\xdf\xa3', 0, 'WebM/Matroska'],
  ['#!AMR', 0, 'AMR'],
  ['0&\xb2u', 0, 'Windows Media'],
];

/** Whether the first bytes are those of a format other than MP3. */
const known = (bytes: Uint8Array): boolean =>
  ['RIFF', 'RF64', 'BW64', 'fLaC', 'OggS'].some((magic) => startsWith(bytes, magic)) ||
  OTHERS.some(([magic, at]) => startsWith(bytes, magic, at));

/** The format of a file without its tags. */
function sniff(bytes: Uint8Array, name: string): 'wav' | Compressed {
  if (['RIFF', 'RF64', 'BW64'].some((magic) => startsWith(bytes, magic)) && startsWith(bytes, 'WAVE', 8)) {
    return 'wav';
  }
  if (startsWith(bytes, 'fLaC')) return 'flac';
  if (startsWith(bytes, 'OggS')) {
    const packet = oggPacketStart(bytes);
    if (startsWith(bytes, 'OpusHead', packet)) return 'opus';
    if (startsWith(bytes, '\x01vorbis', packet)) return 'vorbis';
    if (startsWith(bytes, '\x7fFLAC', packet)) return 'ogg-flac';
    throw audioError(name, 'it is an Ogg file, but holds neither Vorbis, Opus nor FLAC');
  }
  // 11 sync bits; layer bits 00 would be AAC.
  if (bytes[0] === 0xff && (bytes[1]! & 0xe0) === 0xe0 && (bytes[1]! & 0x06) !== 0) return 'mp3';
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
  if (bytes.length === 0) throw audioError(nameForErrors, 'the file is empty');
  const { audio: file, cut, tagged } = withoutTags(bytes);
  if (cut) throw audioError(nameForErrors, 'it is truncated (it ends within its ID3 tag); copy it again');
  if (file.length === 0) throw audioError(nameForErrors, 'it holds tags and no audio');
  // Behind a tag, MP3 may begin with bytes that belong to no frame.
  const format = tagged && !known(file) ? 'mp3' : sniff(file, nameForErrors);
  const audio =
    format === 'wav'
      ? decodeWav(file, nameForErrors)
      : await decodeCompressed(format, file, nameForErrors, pool);
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

/** One channel of a recording, counted from 0 or by name, or the mean of all. */
export type Channel = number | 'left' | 'right' | 'mix';

/** A stretch of a recording, in seconds, and its channel; the mean of the channels of all of it by default. */
export interface Segment {
  offsetSeconds?: number | undefined;
  durationSeconds?: number | undefined;
  channel?: Channel | undefined;
  /**
   * Samples that are NaN or infinite, as float WAV files can have: `refuse` (default) throws; `zero` replaces
   * them by 0 and warns.
   */
  onBad?: OnBad | undefined;
  /**
   * Told of samples that were replaced, channels that cancel each other, and a segment that is longer than
   * the recording. Default: `console.warn` of the message.
   */
  onWarning?: ((warning: AudioWarning) => void) | undefined;
}

/** Options of `toMono16k` and `loadAudio`. */
export const SEGMENT_OPTIONS: Rules<Segment> = {
  offsetSeconds: 'a number?',
  durationSeconds: 'a number?',
  channel: 'a number|"left"|"right"|"mix"?',
  onBad: '"refuse"|"zero"?',
  onWarning: 'a function?',
};

/**
 * One channel, or the mean of all, at 16 kHz, of the whole recording or a segment. A segment that ends after
 * the recording is cut at its end, which is told.
 * @throws MGFError 'audio' if the segment starts after the end, a channel is not there, or a sample is not
 * finite and `onBad` is not `zero`.
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
  const [start, end] = stretch(audio, nameForErrors, segment);
  const mono = mix(chosenChannels(audio, nameForErrors, segment.channel), start, end);
  if (mono.cancelled) {
    tell(segment, {
      kind: 'cancelled',
      message:
        `The channels of "${nameForErrors}" cancel each other: their mean is near silence; choose one ` +
        'with the option channel (--channel left).',
    });
  }
  const sound = finiteSamples(mono.samples, nameForErrors, start, segment);
  return audio.sampleRate === SAMPLE_RATE ? sound : resampleTo16k(sound, audio.sampleRate);
}

/** Differences below this, in seconds, between a stated duration and the file are rounding. */
const DURATION_ROUNDING = 0.05;

/** First sample of a segment, and the one after its last, at the rate of the file. */
function stretch({ sampleRate, channels }: DecodedAudio, name: string, segment: Segment): [number, number] {
  const total = channels[0]!.length;
  const { offsetSeconds = 0, durationSeconds = Infinity } = segment;
  if (!(offsetSeconds >= 0) || !(durationSeconds > 0)) {
    throw new MGFError(
      'data',
      `The segment of "${name}" from ${offsetSeconds} s for ${durationSeconds} s makes no ` +
        'sense; an offset is at least 0, a duration above 0.',
    );
  }
  const start = Math.round(offsetSeconds * sampleRate);
  const lasts = total / sampleRate;
  if (start >= total) {
    const message = `the segment starts at ${offsetSeconds} s, but the recording ends after ${lasts.toFixed(2)} s`;
    throw audioError(name, message);
  }
  const ends = offsetSeconds + durationSeconds;
  if (Number.isFinite(durationSeconds) && ends > lasts + DURATION_ROUNDING) {
    const message =
      `"${name}" ends after ${lasts.toFixed(2)} s, but ${ends.toFixed(2)} s were asked for: it is used to ` +
      'its end.';
    tell(segment, { kind: 'shorter', message });
  }
  return [start, Math.min(total, start + Math.round(durationSeconds * sampleRate))];
}

function chosenChannels(audio: DecodedAudio, name: string, channel: Channel = 'mix'): Float32Array[] {
  const { channels } = audio;
  if (channel === 'mix') return channels;
  const index = channel === 'left' ? 0 : channel === 'right' ? 1 : channel;
  if (channels[index]) return [channels[index]];
  const there = channels.length === 1 ? 'one channel' : `channels 0 to ${channels.length - 1}`;
  throw audioError(
    name,
    `it has ${there}, not ${typeof channel === 'string' ? `a ${channel} one` : channel}`,
  );
}

/** A mean this far below the loudest channel, as a part of its power (-30 dB), comes of channels that cancel. */
const CANCELLED = 1e-3;

function mix(
  channels: readonly Float32Array[],
  start: number,
  end: number,
): { samples: Float32Array; cancelled: boolean } {
  const samples = new Float32Array(end - start);
  let loudest = 0;
  for (const channel of channels) {
    let power = 0;
    for (let i = start; i < end; i++) {
      samples[i - start]! += channel[i]! / channels.length;
      power += channel[i]! ** 2;
    }
    loudest = Math.max(loudest, power);
  }
  const power = samples.reduce((sum, x) => sum + x * x, 0);
  return { samples, cancelled: channels.length > 1 && loudest > 0 && power < CANCELLED * loudest };
}

function tell({ onWarning }: Segment, { kind, message }: Pick<AudioWarning, 'kind' | 'message'>): void {
  if (onWarning) onWarning({ kind, clips: [0], message });
  else console.warn(message);
}

/**
 * The samples as they are, or with 0 for those that are not finite where that is wanted; `start` is the index
 * of the first in the file.
 */
function finiteSamples(mono: Float32Array, name: string, start: number, segment: Segment): Float32Array {
  const bad = badSamples(mono);
  if (!bad) return mono;
  if (segment.onBad !== 'zero') throw audioError(name, `it contains ${describeBad(bad, start)}`);
  tell(segment, {
    kind: 'not-finite',
    message: `"${name}" contains ${describeBad(bad, start)}: replaced by 0.`,
  });
  return withoutBad(mono);
}
