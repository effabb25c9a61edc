import { readFile } from 'node:fs/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { decodeAudio, DecoderPool, toMono16k } from '../src/audio/decode.ts';
import { decodeFile, loadAudio } from '../src/audio/load.ts';
import { resampleTo16k } from '../src/audio/resample.ts';
import { fixture, messageOf, sine, tone, wav } from './audio-wav.ts';
import type { AudioWarning } from '../src/audio/samples.ts';
import type { WavOptions } from './audio-wav.ts';

const near = (actual: number, expected: number, tolerance: number, what: string) =>
  assert.ok(
    Math.abs(actual - expected) <= tolerance,
    `${what}: ${actual}, expected ${expected} within ${tolerance}`,
  );

const left = sine(440, 0.1, 16000);
const right = sine(700, 0.1, 16000, 0.25);

for (const [options, step] of [
  [{ bits: 8 }, 1 / 128],
  [{ bits: 16 }, 1 / 32768],
  [{ bits: 24 }, 1 / 8388608],
  [{ bits: 32 }, 2 ** -24],
  [{ bits: 32, float: true }, 0],
  [{ bits: 64, float: true }, 0],
  [{ bits: 24, extensible: true }, 1 / 8388608],
  [{ bits: 32, float: true, extensible: true }, 0],
] as [WavOptions, number][]) {
  test(
    `WAV with ${options.bits} ` +
      `bits${options.float ? ' float' : ''}${options.extensible ? ', extensible header' : ''} gives its ` +
      'samples back',
    async () => {
      const { sampleRate, channels } = await decodeAudio(
        wav([left, right], { ...options, rate: 22050 }),
        'x.wav',
      );
      assert.is(sampleRate, 22050);
      assert.is(channels.length, 2);
      for (const [c, wanted] of [left, right].entries()) {
        assert.is(channels[c]!.length, wanted.length);
        const worst = wanted.reduce((max, v, i) => Math.max(max, Math.abs(channels[c]![i]! - v)), 0);
        assert.ok(worst <= step / 2 + 1e-9, `channel ${c} is off by ${worst}`);
      }
    },
  );
}

test('WAV chunks before the samples, odd ones padded, are passed over', async () => {
  const plain = wav([left]);
  const list = new Uint8Array([...'LIST'].map((c) => c.charCodeAt(0)).concat([3, 0, 0, 0, 1, 2, 3, 0]));
  const { channels } = await decodeAudio(
    new Uint8Array([...plain.subarray(0, 36), ...list, ...plain.subarray(36)]),
    'x.wav',
  );
  assert.is(channels[0]!.length, left.length);
});

const bytesOf = (text: string): number[] => [...text].map((c) => c.charCodeAt(0));
const chunk = (id: string, body: number[], size = body.length): number[] => [
  ...bytesOf(id),
  ...[0, 8, 16, 24].map((bit) => (size >>> bit) & 255),
  ...body,
];

/** A mono file of 100 samples, its data chunk between what `before` and `after` hold. */
const plain = wav([left.slice(0, 100)]);
const assembled = (before: number[], after: number[], data = [...plain.subarray(36)]): Uint8Array =>
  new Uint8Array([...plain.subarray(0, 36), ...before, ...data, ...after]);
const lengthOf = async (bytes: Uint8Array): Promise<number> =>
  (await decodeAudio(bytes, 'x.wav')).channels[0]!.length;

test('WAV chunks of odd size are passed over whether their writer padded them or not', async () => {
  for (const before of [chunk('LIST', [1, 2, 3, 0], 3), chunk('LIST', [1, 2, 3]), chunk('bext', [7])]) {
    assert.is(await lengthOf(assembled(before, [])), 100);
  }
});

test('WAV chunks and stray bytes behind the samples are no samples', async () => {
  for (const after of [chunk('LIST', [1, 2, 3]), chunk('id3 ', [0, 1]), [0, 0, 0, 0, 0, 0, 0, 0, 0]]) {
    assert.is(await lengthOf(assembled([], after)), 100);
  }
});

test('several data chunks of a WAV are one recording', async () => {
  const more = chunk('data', [...plain.subarray(44, 64)]);
  const { channels } = await decodeAudio(assembled([], [...chunk('LIST', [0, 0]), ...more]), 'x.wav');
  assert.is(channels[0]!.length, 110);
  assert.equal([...channels[0]!.subarray(100)], [...channels[0]!.subarray(0, 10)]);
});

test('the size of an RF64 data chunk is that of its ds64 chunk; what follows is no samples', async () => {
  const sizes = chunk('ds64', [
    ...new Array<number>(8).fill(0),
    200,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    ...new Array(12).fill(0),
  ]);
  const open = chunk('data', [...plain.subarray(44)], 0xffffffff);
  for (const magic of ['RF64', 'BW64']) {
    const file = assembled(sizes, chunk('LIST', [1, 2]), open);
    file.set(bytesOf(magic));
    assert.is(await lengthOf(file), 100);
  }
});

test('an empty data chunk before others is empty, not the rest of the file', async () => {
  const file = assembled([], chunk('LIST', [1, 2]), chunk('data', []));
  assert.match(await messageOf(() => decodeAudio(file, 'x.wav'), 'audio'), 'contains no samples');
});

/** An ID3v2 tag of `size` bytes, with or without a footer. */
const id3 = (size: number, footer = false): Uint8Array => {
  const tag = new Uint8Array(10 + size + (footer ? 10 : 0)).fill(0x55);
  tag.set([...bytesOf('ID3'), 4, 0, footer ? 0x10 : 0, ...[21, 14, 7, 0].map((bit) => (size >> bit) & 127)]);
  return tag;
};
const joined = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
const trailer = (): Uint8Array => {
  const ape = new Uint8Array(32 + 20 + 32);
  ape.set(bytesOf('APETAGEX'), 52);
  new DataView(ape.buffer).setUint32(52 + 12, 20 + 32, true);
  new DataView(ape.buffer).setUint32(52 + 20, 0x80000000, true);
  return joined(
    ape,
    new Uint8Array(128).map((_, i) => bytesOf('TAG')[i] ?? 0),
  );
};

test('tags before and behind audio of any format, with cover art of any size, change nothing', async () => {
  for (const name of ['tone.mp3', 'tone.opus', 'tone-vorbis.ogg', 'tone-44k-stereo.flac']) {
    const file = new Uint8Array(await readFile(fixture(name)));
    const bare = await decodeAudio(file, name);
    for (const before of [id3(300_000), id3(3, true), joined(id3(20), id3(5000))]) {
      const tagged = await decodeAudio(joined(before, file, trailer()), name);
      assert.is(tagged.channels[0]!.length, bare.channels[0]!.length, name);
      assert.equal(tagged.channels[0]!.subarray(0, 1000), bare.channels[0]!.subarray(0, 1000), name);
    }
  }
  assert.is(await lengthOf(joined(id3(7), plain)), 100);
  const cut = id3(1000).subarray(0, 500);
  assert.match(await messageOf(() => decodeAudio(cut, 'x.mp3'), 'audio'), 'ends within its ID3 tag');
  assert.match(await messageOf(() => decodeAudio(id3(40), 'x.mp3'), 'audio'), 'holds tags and no audio');
});

test('channels that cancel each other are told, and one can be chosen', async () => {
  const stereo = await decodeAudio(wav([left, left.map((x) => -x)]), 'x.wav');
  const told: AudioWarning[] = [];
  const onWarning = (warning: AudioWarning): number => told.push(warning);
  const mono = await toMono16k(stereo, 'x.wav', { onWarning });
  assert.ok(mono.every((x) => Math.abs(x) < 1e-4));
  assert.equal(
    told.map(({ kind }) => kind),
    ['cancelled'],
  );
  assert.match(told[0]!.message, /"x.wav" cancel each other.*--channel left/);
  for (const channel of ['left', 0] as const) {
    const heard = await toMono16k(stereo, 'x.wav', { channel, onWarning });
    near(Math.max(...heard), Math.max(...left), 1e-4, 'the left channel');
  }
  assert.is(told.length, 1);
  const third = () => toMono16k(stereo, 'x.wav', { channel: 2 });
  assert.match(await messageOf(third, 'audio'), 'it has channels 0 to 1, not 2');
});

test('a stated duration that is longer than the file is told', async () => {
  const told: string[] = [];
  const audio = await decodeAudio(wav([new Float32Array(24_000).fill(0.1)]), 'x.wav');
  const onWarning = ({ message }: AudioWarning): number => told.push(message);
  const heard = await toMono16k(audio, 'x.wav', { durationSeconds: 99, onWarning });
  assert.is(heard.length, 24_000);
  assert.equal(told, ['"x.wav" ends after 1.50 s, but 99.00 s were asked for: it is used to its end.']);
  await toMono16k(audio, 'x.wav', { durationSeconds: 1.52, onWarning });
  assert.is(told.length, 1);
});

test('decoders print nothing about damaged files; the error tells it', async () => {
  const printed: unknown[] = [];
  const { error } = console;
  console.error = (...said: unknown[]) => printed.push(said);
  try {
    for (const name of ['tone.mp3', 'tone.opus']) {
      const file = new Uint8Array(await readFile(fixture(name)));
      for (let i = 600; i < 2000; i += 7) file[i]! ^= 0xa5;
      await decodeAudio(file, name).catch(() => undefined);
    }
  } finally {
    console.error = error;
  }
  assert.equal(printed, []);
});

test('WAV written as a stream, with an open size, is read to its end', async () => {
  const bytes = wav([left]);
  new DataView(bytes.buffer).setUint32(40, 0xffffffff, true);
  assert.is((await decodeAudio(bytes, 'x.wav')).channels[0]!.length, left.length);
});

// name, rate, channels, samples, amplitude, tolerance
const files: [string, number, number, number, number, number][] = [
  ['tone-44k-stereo.flac', 44100, 2, 13230, 0.501, 0.001],
  ['tone-24bit.flac', 44100, 2, 13230, 0.501, 0.001],
  ['tone.oga', 16000, 1, 4800, 0.501, 0.001],
  ['tone-vorbis.ogg', 44100, 2, 13230, 0.501, 0.01],
  ['tone.opus', 16000, 1, 4800, 0.501, 0.01],
  ['tone.mp3', 44100, 2, 13230, 0.476, 0.01],
];
for (const [name, rate, channelCount, samples, amplitude, tolerance] of files) {
  test(`${name}, a tone of 440 Hz for 0.3 s, decodes to its exact length, level and timing`, async () => {
    const audio = await decodeFile(fixture(name));
    assert.is(audio.sampleRate, rate);
    assert.is(audio.channels.length, channelCount);
    assert.is(audio.channels[0]!.length, samples);
    const x = await loadAudio(fixture(name));
    assert.is(x.length, 4800);
    const found = tone(x, 440, 16000, 800, 4000);
    near(found.amplitude, amplitude, tolerance, 'amplitude');
    near(found.phase, 0, 0.02, 'phase');
  });
}

test('MP3 at 22.05 kHz without a tag decodes with the encoder padding left in', async () => {
  const x = await loadAudio(fixture('tone-22k.mp3'));
  near(tone(x, 440, 16000, 1600, 4800).amplitude, 0.476, 0.01, 'amplitude');
});

test('one pool decodes file after file like fresh decoders do, and leaves the bytes as they were', async () => {
  const pool = new DecoderPool();
  for (const name of [
    'tone-44k-stereo.flac',
    'tone.opus',
    'tone-24bit.flac',
    'tone.mp3',
    'tone.oga',
    'tone-vorbis.ogg',
    'tone.opus',
    'tone-44k-stereo.flac',
    'tone.mp3',
  ]) {
    const bytes = await readFile(fixture(name));
    const before = new Uint8Array(bytes);
    const pooled = await decodeAudio(bytes, name, pool);
    const fresh = await decodeAudio(bytes, name);
    assert.equal(pooled.channels, fresh.channels, name);
    assert.equal(new Uint8Array(bytes), before, name);
  }
  pool.free();
});

test('a pool goes on working after a file it could not read', async () => {
  const pool = new DecoderPool();
  const bytes = await readFile(fixture('tone-44k-stereo.flac'));
  await messageOf(() => decodeAudio(bytes.subarray(0, 3000), 'cut.flac', pool), 'audio');
  assert.is((await decodeAudio(bytes, 'whole.flac', pool)).channels[0]!.length, 13230);
  pool.free();
});

test('the format is told by the bytes, whatever the file is called', async () => {
  assert.is(
    (await decodeAudio(await readFile(fixture('tone.opus')), 'speech.wav')).channels[0]!.length,
    4800,
  );
});

test('a segment is cut in seconds of the file, and ends with the recording at the latest', async () => {
  const ramp = Float32Array.from({ length: 32000 }, (_, i) => i / 32768);
  const audio = await decodeAudio(wav([ramp, ramp]), 'ramp.wav');
  const x = await toMono16k(audio, 'ramp.wav', { offsetSeconds: 0.5, durationSeconds: 0.25 });
  assert.is(x.length, 4000);
  near(x[0]!, 8000 / 32768, 1e-7, 'first sample');
  assert.is((await toMono16k(audio, 'ramp.wav', { offsetSeconds: 1.5, durationSeconds: 9 })).length, 8000);
  assert.is(
    await messageOf(() => toMono16k(audio, 'ramp.wav', { offsetSeconds: 2.5 }), 'audio'),
    'Cannot read "ramp.wav": the segment starts at 2.5 s, but the recording ends after 2.00 s.',
  );
  assert.is(
    await messageOf(() => toMono16k(audio, 'ramp.wav', { offsetSeconds: -1 }), 'data'),
    'The segment of "ramp.wav" from -1 s for Infinity s makes no sense; an offset is at least 0, a ' +
      'duration above 0.',
  );
});

test('mono is the mean of the channels', async () => {
  const x = await toMono16k(
    await decodeAudio(
      wav(
        [
          [0.5, -0.25],
          [0, 0.75],
        ],
        { float: true, bits: 32 },
      ),
      'x.wav',
    ),
    'x.wav',
  );
  assert.equal([...x], [0.25, 0.25]);
});

for (const rate of [8000, 11025, 22050, 44100, 48000]) {
  test(`resampling from ${rate} Hz keeps frequency, level, timing and length`, async () => {
    const y = await resampleTo16k(sine(1000, 2, rate), rate);
    assert.is(y.length, 32000);
    const found = tone(y, 1000, 16000, 1600, 30400);
    near(found.amplitude, 0.5, 0.001, 'amplitude');
    near(found.phase, 0, 0.001, 'phase');
    let worst = 0; // everything that is not the tone
    for (let i = 1600; i < 30400; i++)
      worst = Math.max(worst, Math.abs(y[i]! - 0.5 * Math.sin((2 * Math.PI * 1000 * i) / 16000)));
    assert.ok(worst < 5e-4, `distortion ${worst}`);
  });
}

test('resampling lets no tone above 8 kHz through: aliases stay below -60 dB', async () => {
  for (const [hz, rate] of [
    [8900, 44100],
    [9000, 44100],
    [15000, 44100],
    [12000, 48000],
    [20000, 48000],
  ] as const) {
    const y = await resampleTo16k(sine(hz, 1, rate), rate);
    const rms = Math.sqrt(y.subarray(1600, 14400).reduce((sum, v) => sum + v * v, 0) / 12800);
    const level = 20 * Math.log10(rms / (0.5 / Math.SQRT2));
    assert.ok(level < -60, `${hz} Hz at ${rate} Hz leaves ${level.toFixed(1)} dB`);
  }
});

test('a clip resampled after another is not touched by it, however long it is', async () => {
  const short = sine(500, 0.5, 44100);
  const alone = await resampleTo16k(short, 44100);
  const long = await resampleTo16k(sine(300, 12, 48000, 0.9), 48000);
  assert.is(long.length, 192000);
  near(tone(long, 300, 16000, 16000, 176000).amplitude, 0.9, 0.001, 'amplitude over 12 s');
  assert.equal(await resampleTo16k(short, 44100), alone);
});

test('samples of a float file that are not finite are replaced by 0 where that is wanted, and it is told once', async () => {
  const file = await decodeAudio(wav([[0.5, NaN, -0.25, -Infinity]], { float: true, bits: 32 }), 'a.wav');
  const told: AudioWarning[] = [];
  assert.equal(
    [...(await toMono16k(file, 'a.wav', { onBad: 'zero', onWarning: (warning) => told.push(warning) }))],
    [0.5, 0, -0.25, 0],
  );
  assert.equal(told, [
    {
      kind: 'not-finite',
      clips: [0],
      message:
        '"a.wav" contains 2 samples that are not finite numbers, the first at index 1 (NaN): replaced by 0.',
    },
  ]);
  // A segment counts from the start of the file.
  const later = { offsetSeconds: 3 / 16000 };
  assert.match(
    await messageOf(async () => toMono16k(file, 'a.wav', later), 'audio'),
    /1 sample that is not a finite number, the first at index 3 \(-Infinity\)/,
  );
});

test('bad files give one sentence each', async () => {
  const flac = await readFile(fixture('tone-44k-stereo.flac'));
  const mp3 = await readFile(fixture('tone.mp3'));
  const spoiled = new Uint8Array(flac);
  spoiled[4000]! ^= 0xff;
  const say = (bytes: Uint8Array, name: string) => messageOf(() => decodeAudio(bytes, name), 'audio');
  const ascii = (s: string) => new Uint8Array([...s].map((c) => c.charCodeAt(0)));
  const known = 'WAV, FLAC, MP3, Ogg Vorbis and Ogg Opus are read.';
  assert.is(await say(new Uint8Array(), 'a.wav'), 'Cannot read "a.wav": the file is empty.');
  assert.is(
    await say(ascii('hello, this is text'), 'a.txt'),
    `Cannot read "a.txt": it is no audio file that is known here; ${known}`,
  );
  assert.is(
    await say(ascii('\0\0\0 ftypM4A '), 'a.m4a'),
    `Cannot read "a.m4a": MP4/M4A (AAC) is not supported; ${known}`,
  );
  assert.is(
    await say(wav([left]).subarray(0, 44 + 1600), 'a.wav'),
    'Cannot read "a.wav": it is truncated (its header promises 0.10 s of audio, 0.05 s are there); ' +
      'copy or export it again.',
  );
  assert.is(
    await say(wav([left]).subarray(0, 30), 'a.wav'),
    'Cannot read "a.wav": its WAV header is damaged (format chunk too short).',
  );
  assert.is(
    await say(wav([left]).subarray(0, 36), 'a.wav'),
    'Cannot read "a.wav": it is a WAV file without samples (no data chunk).',
  );
  assert.is(await say(wav([[]]), 'a.wav'), 'Cannot read "a.wav": it contains no samples.');
  const law = wav([left]);
  law[20] = 7;
  assert.is(
    await say(law, 'a.wav'),
    'Cannot read "a.wav": WAV format 7 with 16 bits a sample is not supported; convert it to 16-bit ' +
      'PCM WAV or FLAC.',
  );
  assert.is(
    await say(flac.subarray(0, flac.length - 20), 'a.flac'),
    'Cannot read "a.flac": it is truncated or damaged (its header promises 0.30 s of audio, 0.28 s are ' +
      'there); copy or export it again.',
  );
  assert.is(
    await say(spoiled, 'a.flac'),
    'Cannot read "a.flac": it is truncated or damaged (its header promises 0.30 s of audio, 0.09 s are ' +
      'there); copy or export it again.',
  );
  assert.is(
    await say(flac.subarray(0, 20), 'a.flac'),
    'Cannot read "a.flac": its FLAC header is damaged or cut off.',
  );
  assert.is(
    await say(mp3.subarray(0, mp3.length / 2), 'a.mp3'),
    'Cannot read "a.mp3": it is truncated or damaged (its header promises 0.34 s of audio, 0.13 s are ' +
      'there); copy or export it again.',
  );
  for (const name of ['tone.opus', 'tone-vorbis.ogg', 'tone.oga']) {
    const bytes = await readFile(fixture(name));
    assert.is(
      await say(bytes.subarray(0, bytes.length - 50), name),
      `Cannot read "${name}": it is truncated (it ends within an Ogg page); copy or export it again.`,
    );
  }
  const tagless = await readFile(fixture('tone-22k.mp3'));
  assert.is(
    await say(tagless.subarray(0, 1000), 'a.mp3'),
    'Cannot read "a.mp3": it is truncated (it ends within an MP3 frame); copy or export it again.',
  );
  assert.is(
    await messageOf(
      async () => toMono16k(await decodeAudio(wav([[0, NaN]], { float: true, bits: 32 }), 'a.wav'), 'a.wav'),
      'audio',
    ),
    'Cannot read "a.wav": it contains 1 sample that is not a finite number, the first at index 1 (NaN).',
  );
  assert.is(
    await messageOf(
      async () => toMono16k(await decodeAudio(wav([left], { rate: 7 }), 'a.wav'), 'a.wav'),
      'audio',
    ),
    "A sample rate of 7 Hz is outside 1000-768000 Hz; the file's header is probably damaged.",
  );
  assert.is(
    await messageOf(() => loadAudio('/nowhere/a.wav'), 'audio'),
    'There is no file "/nowhere/a.wav".',
  );
});

test.run();
