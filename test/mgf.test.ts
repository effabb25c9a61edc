import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { center, compare } from '../src/app/compare.ts';
import { MGF as BrowserMGF } from '../src/app/mgf.ts';
import { readNetwork } from '../src/app/read.ts';
import { SignalWindows, windowsOf, windowSizes } from '../src/app/windows.ts';
import { loadAudio } from '../src/audio/load.ts';
import { resampleTo16k, streamResampler } from '../src/audio/resample.ts';
import { Encoder } from '../src/mgf/encoder.ts';
import { MGF } from '../src/node.ts';
import { storedConfig } from '../src/mgf/stored-config.ts';
import { readSafetensors, toFloat32 } from '../src/io/safetensors.ts';
import type { AudioWarning, Samples } from '../src/audio/samples.ts';
import { openTestGpu, testAdapter } from './gpu.ts';
import { distance, failsWith, noise, speechLike } from './harness.ts';

const gpu = await openTestGpu();
const root = fileURLToPath(new URL('../..', import.meta.url));
const TINY = join(root, 'models', 'mgf-tiny.safetensors');
const tinyBytes = new Uint8Array(readFileSync(TINY));
const mgf = await MGF.load(TINY, { gpu });

const file = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(join(root, 'test', 'fixtures', 'huggingface', path)));
async function* chopped(signal: Float32Array, sizes: readonly number[]): AsyncGenerator<Float32Array> {
  for (let at = 0, i = 0; at < signal.length; at += sizes[i++ % sizes.length]!)
    yield signal.subarray(at, at + sizes[i % sizes.length]!);
}
const gathered = async (
  frames: AsyncIterable<{ data: Float32Array; start: number; frames: number }>,
): Promise<{ data: Float32Array; parts: number }> => {
  const all: number[] = [];
  let next = 0;
  let parts = 0;
  for await (const part of frames) {
    assert.is(part.start, next, 'frames come without a gap');
    next += part.frames;
    parts++;
    for (const value of part.data) all.push(value);
  }
  return { data: Float32Array.from(all), parts };
};

// --------------------------------------------------------------------------------------------------- windows

test('windows cover every frame of a signal once, whatever its length', () => {
  const sizes = windowSizes({ window: 1, context: 0.1 });
  for (const samples of [400, 719, 720, 15999, 16000, 16001, 16320, 28000, 28800, 28801, 100_000, 100_001]) {
    const frames = Math.floor((samples - 400) / 320) + 1;
    let next = 0;
    for (const { wave, skip, take, start } of windowsOf(new Float32Array(samples), sizes)) {
      const own = Math.floor((wave.length - 400) / 320) + 1;
      assert.is(start, next, `${samples} samples`);
      assert.ok(
        samples <= 16000 ? wave.length === samples : wave.length >= 16000 && wave.length < 16320,
        `${wave.length} of ${samples} samples in a window`,
      );
      // What stands at the start and the end of a window inside the signal is left to its neighbours.
      if (start > 0) assert.ok(skip >= 5, `${skip} frames before frame ${start}`);
      if (take !== Infinity) assert.ok(own - skip - take >= 4, `${own - skip - take} frames after`);
      next = start + Math.min(take, own - skip);
    }
    assert.is(next, frames, `${samples} samples`);
  }
});

test('windows hold the samples of their place, and are the same however the signal is chopped', () => {
  const sizes = windowSizes({ window: 1, context: 0.1 });
  const signal = noise(70_123, 1);
  const whole = [...windowsOf(signal, sizes)];
  for (const size of [1000, 16000, 50_000]) {
    const windows = new SignalWindows(sizes);
    const found = [];
    for (let i = 0; i < signal.length; i += size) found.push(...windows.push(signal.subarray(i, i + size)));
    found.push(...windows.end());
    assert.equal(found, whole);
  }
  for (const { wave, skip, start } of whole)
    assert.equal(wave, signal.slice((start - skip) * 320, (start - skip) * 320 + wave.length));
});

test('a window that is too short, and a context that leaves nothing, are refused', async () => {
  await failsWith('usage', /a window of 0.5 s is too short/, () => windowSizes({ window: 0.5 }));
  await failsWith('usage', /context is 2 s, but must be at least 0.04 s and less than a third/, () =>
    windowSizes({ window: 4, context: 2 }),
  );
});

// ------------------------------------------------------------------------------------------------ resampling

test('a signal converted piece by piece is the one converted whole', async () => {
  for (const rate of [8000, 44100, 48000]) {
    const signal = noise(2 * rate + 17, 3);
    const stream = await streamResampler(rate);
    const parts: number[] = [];
    for (let i = 0; i < signal.length; i += 4410) parts.push(...stream.push(signal.subarray(i, i + 4410)));
    parts.push(...stream.end());
    stream.free();
    const want = await resampleTo16k(signal, rate);
    assert.is(parts.length, want.length);
    assert.ok(distance(parts, want) < 1e-6, `${rate} Hz: ${distance(parts, want)}`);
  }
});

// --------------------------------------------------------------------------------------------------- loading

test('loads from a path, a file URL, bytes, a Blob, and over HTTP with progress', async () => {
  const clip = speechLike(8000, 1);
  const want = (await mgf.embed(clip)).data;
  const server = createServer((_, response) => {
    response.setHeader('content-length', tinyBytes.length);
    response.end(tinyBytes);
  }).listen(0);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mgf-tiny.safetensors`;
  const seen: number[] = [];
  try {
    for (const source of [
      `file://${TINY}`,
      new URL(`file://${TINY}`),
      tinyBytes,
      tinyBytes.slice().buffer,
      new Blob([tinyBytes]),
      url,
    ]) {
      const loaded = await MGF.load(source, {
        gpu,
        onProgress: ({ loaded: n, total }) => {
          assert.is(total, tinyBytes.length);
          seen.push(n);
        },
      });
      assert.equal((await loaded.embed(clip)).data, want);
      loaded.dispose();
    }
    const unwatched = await MGF.load(url, { gpu });
    assert.equal((await unwatched.embed(clip)).data, want);
    unwatched.dispose();
  } finally {
    server.close();
  }
  assert.is(seen.at(-1), tinyBytes.length);
  assert.equal(
    [...seen].sort((a, b) => a - b),
    seen,
  );
});

test('says which network it has, where it runs, and how wide its vectors are', () => {
  assert.equal([mgf.layers, mgf.width, mgf.config.frontend, mgf.adapter], [4, 192, 'mel', gpu.profile.name]);
});

test('what cannot be loaded is told in words', async () => {
  await failsWith('io', /cannot read \/no\/such\.safetensors/, () =>
    MGF.load('/no/such.safetensors', { gpu }),
  );
  await failsWith('io', /cannot download http:\/\/127\.0\.0\.1:9\/x/, () =>
    MGF.load('http://127.0.0.1:9/x', { gpu }),
  );
  await failsWith('checkpoint', /the checkpoint is not a sound safetensors file/, () =>
    MGF.load(tinyBytes.subarray(0, 1000), { gpu }),
  );
  await failsWith('checkpoint', /needs the config\.json of its network: give its contents as `config`/, () =>
    MGF.load(file('hubert-large/model.safetensors'), { gpu }),
  );
  await failsWith('config', /model_type is "wavlm"/, () =>
    MGF.load(file('hubert-large/model.safetensors'), { gpu, config: { model_type: 'wavlm' } }),
  );
});

test('loading can be aborted', async () => {
  const reason = new Error('enough');
  const already = AbortSignal.abort(reason);
  for (const source of [tinyBytes, TINY, 'http://127.0.0.1:9/x']) {
    const error = await MGF.load(source, { gpu, signal: already }).then(
      () => null,
      (e: unknown) => e,
    );
    assert.ok(error === reason || (error as Error)?.name === 'AbortError', String(error));
  }
});

// The checkpoints are made by test/fixtures/huggingface/make.py, the hidden states computed by Transformers.
for (const layout of ['wav2vec2-base', 'wav2vec2-large', 'hubert-large', 'data2vec-audio']) {
  test(`a ${layout} checkpoint gives the hidden states that Transformers computes`, async () => {
    const folder = join(root, 'test', 'fixtures', 'huggingface', layout);
    const expected = readSafetensors(file(`${layout}/expected.safetensors`), { origin: layout }).tensors;
    const loaded = await MGF.load(join(folder, 'model.safetensors'), { gpu });
    const bytes = file(`${layout}/model.safetensors`);
    const also = await BrowserMGF.load(bytes, {
      gpu,
      config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as unknown,
    });
    const tensor = (name: string): Float32Array => toFloat32(expected.get(name)!, name, layout);
    for (let layer = 0; layer <= 2; layer++) {
      const { data, frames, width } = await loaded.embed(tensor('pcm'), { layer });
      const want = tensor(`hidden_states.${layer}`);
      assert.equal([frames, width], [15, 32]);
      assert.ok(distance(data, want) < 2e-5, `hidden state ${layer} is off by ${distance(data, want)}`);
      assert.equal((await also.embed(tensor('pcm'), { layer })).data, data);
    }
    loaded.dispose();
    also.dispose();
  });
}

// ------------------------------------------------------------------------------------------------- embedding

test('a clip has the features that the encoder computes, by default three quarters up', async () => {
  const { metadata, tensors } = readSafetensors(tinyBytes, { origin: 'tiny' });
  const encoder = await Encoder.create(
    gpu,
    storedConfig('tiny', metadata)!,
    new Map([...tensors].map(([n, t]) => [n, { shape: t.shape, data: toFloat32(t, n, 'tiny') }])),
  );
  const clip = speechLike(20_000, 2);
  const [want] = await encoder.embed([clip], { layers: [0, 3] });
  const { data, frames, width, layer } = await mgf.embed(clip);
  assert.equal([frames, width, layer, data], [62, 192, 3, want!.layers[1]]);
  assert.equal((await mgf.embed(clip, { layer: 0 })).data, want!.layers[0]);
  encoder.destroy();
});

test('clips of unequal length come back in their order, each as if it were alone', async () => {
  const clips = [30_000, 500, 16_000, 8000].map((n, i) => speechLike(n, i + 1));
  const together = await mgf.embed(clips);
  assert.equal(
    together.map((e) => e.frames),
    [93, 1, 49, 24],
  );
  for (const [i, clip] of clips.entries()) {
    const off = distance(together[i]!.data, (await mgf.embed(clip)).data);
    assert.ok(off < 2e-5, `clip ${i} is off by ${off}`);
  }
  assert.equal(await mgf.embed([]), []);
});

test('the mean over frames is one vector', async () => {
  const clip = speechLike(16_000, 5);
  const { data, frames, width } = await mgf.embed(clip);
  const pooled = await mgf.embed(clip, { pool: 'mean' });
  const want = Float32Array.from({ length: width }, (_, d) => {
    let s = 0;
    for (let t = 0; t < frames; t++) s += data[t * width + d]!;
    return s / frames;
  });
  assert.equal([pooled.frames, pooled.width, pooled.data.length], [frames, width, width]);
  assert.ok(distance(pooled.data, want) < 1e-6);
});

test('a signal at 48 kHz is converted first', async () => {
  const signal = speechLike(48_000, 6);
  assert.equal(
    await mgf.embed(signal, { sampleRate: 48_000 }),
    await mgf.embed(await resampleTo16k(signal, 48_000)),
  );
});

test('what cannot be embedded is told in words', async () => {
  await failsWith('audio', /clip 1 has 399 samples at 16 kHz, but a frame needs 400/, () =>
    mgf.embed([new Float32Array(400), new Float32Array(399)]),
  );
  await failsWith('usage', /hidden states 0 to 4; there is no layer 5/, () =>
    mgf.embed(new Float32Array(8000), { layer: 5 }),
  );
  await failsWith('usage', /pool is "max", but must be "none" or "mean"/, () =>
    mgf.embed(new Float32Array(8000), { pool: 'max' as 'mean' }),
  );
  await failsWith('audio', /sample rate of 3 Hz/, () => mgf.embed(new Float32Array(8000), { sampleRate: 3 }));
});

// ------------------------------------------------------------------------------------------------- what the
// samples are like

const signalOf = (seed: number): Float32Array => speechLike(8000, seed);
const withBad = (): Float32Array => {
  const clip = signalOf(3).slice();
  clip[777] = NaN;
  clip[5000] = -Infinity;
  return clip;
};

test('one sample that is not finite is refused with its clip and index, in clips, streams and the encoder', async () => {
  const bad = /has 2 samples that are not finite numbers, the first at index 777 \(NaN\)/;
  await failsWith('audio', bad, () => mgf.embed(withBad()));
  await failsWith('audio', /clip 1 has 2 samples .* give onBad: "zero"/, () =>
    mgf.embed([signalOf(1), withBad()]),
  );
  await failsWith('audio', bad, () => mgf.embed(withBad(), { sampleRate: 48_000 }));
  await failsWith('audio', /first at index 8777 \(NaN\) of the stream/, () =>
    gathered(mgf.stream([signalOf(1), withBad()])),
  );
  const { config, parameters } = readNetwork(tinyBytes, TINY);
  const encoder = await Encoder.create(gpu, config!, parameters);
  await failsWith('audio', /clip 1 has 2 samples/, () =>
    encoder.embed([signalOf(1), withBad()], { layers: [1] }),
  );
  await failsWith('audio', /clip 0 has 2 samples/, () => encoder.logMel([withBad()]));
  encoder.destroy();
});

test('onBad: "zero" replaces such samples by 0 and tells it once a call', async () => {
  const told: AudioWarning[] = [];
  const options = { onBad: 'zero', onWarning: (warning: AudioWarning) => told.push(warning) } as const;
  const mended = withBad().map((x) => (Number.isFinite(x) ? x : 0));
  const want = await mgf.embed(mended);
  const given = withBad();
  const embedded = await mgf.embed([signalOf(1), given, withBad()], options);
  assert.ok(distance(embedded[1]!.data, want.data) < 2e-5);
  assert.ok(Number.isNaN(given[777]!), 'the caller keeps the samples');
  assert.is(told.length, 1);
  assert.equal([told[0]!.kind, told[0]!.clips], ['not-finite', [1, 2]]);
  assert.match(
    told[0]!.message,
    /^MGF\.embed: clip 1 has 2 samples .*, clip 2 has 2 samples .*: replaced by 0\.$/,
  );
  told.length = 0;
  const { data } = await gathered(mgf.stream([given.subarray(0, 3000), given.subarray(3000)], options));
  assert.ok(distance(data, want.data) < 2e-5);
  assert.equal(
    told.map(({ message }) => message),
    [
      'MGF.stream: a chunk has 1 sample that is not a finite number, the first at index 777 (NaN) of ' +
        'the stream: replaced by 0, as are all that follow.',
    ],
  );
});

test('silence and a constant are told once a call, by console.warn where nobody listens', async () => {
  const told: AudioWarning[] = [];
  const onWarning = (warning: AudioWarning): void => {
    told.push(warning);
  };
  const offset = new Float32Array(8000).fill(0.3);
  const silence = new Float32Array(8000);
  await mgf.embed([offset, signalOf(1), silence], { onWarning });
  assert.equal(told, [
    {
      kind: 'constant',
      clips: [0, 2],
      message: 'MGF.embed: clip 0, clip 2 are silent or constant; such features mean little.',
    },
  ]);
  told.length = 0;
  await mgf.embed(offset, { sampleRate: 48_000, onWarning, pool: 'mean' });
  await gathered(mgf.stream([offset.subarray(0, 100), offset.subarray(100)], { onWarning }));
  assert.equal(
    told.map(({ kind, clips }) => [kind, clips]),
    [
      ['constant', [0]],
      ['constant', [0]],
    ],
  );
  told.length = 0;
  await mgf.embed([signalOf(1)], { onWarning });
  await gathered(mgf.stream([signalOf(1), offset], { onWarning }));
  assert.equal(told, [], 'a signal is not told');
  const { warn } = console;
  const printed: unknown[] = [];
  console.warn = (text: unknown) => {
    printed.push(text);
  };
  try {
    await mgf.embed(silence);
  } finally {
    console.warn = warn;
  }
  assert.equal(printed, ['MGF.embed: the clip is silent or constant; such features mean little.']);
});

test('other arrays of samples are converted by their full scale, and what holds none is refused by its type', async () => {
  const pcm = Int16Array.from(signalOf(4), (x) => Math.max(-32768, Math.min(32767, Math.round(3000 * x))));
  const f32 = Float32Array.from(pcm, (x) => x / 32768);
  const want = await mgf.embed(f32);
  const eight = Int8Array.from(pcm, (x) => x >> 8);
  const same: Samples[] = [
    pcm,
    Int32Array.from(pcm, (x) => x * 65536),
    Float64Array.from(f32),
    Array.from(f32),
  ];
  for (const samples of same) assert.equal(await mgf.embed(samples), want);
  assert.equal((await mgf.embed(same)).length, 4);
  assert.equal(
    await mgf.embed(Uint8Array.from(eight, (x) => x + 128)),
    await mgf.embed(Float32Array.from(eight, (x) => x / 128)),
  );
  assert.equal(
    (await gathered(mgf.stream([pcm.subarray(0, 3000), Array.from(f32.subarray(3000))]))).data,
    want.data,
  );
  const refused: [unknown, RegExp][] = [
    ['a.wav', /the clip is "a\.wav", not samples; read files with loadAudio\(path\)/],
    [null, /the clip is null, but samples must be/],
    [new Uint16Array(8000), /the clip is a Uint16Array/],
    [Buffer.alloc(8000), /the clip is a Buffer, not samples/],
    [new TextEncoder().encode(`RIFF${'.'.repeat(8000)}`), /the clip is the bytes of a file/],
    [new ArrayBuffer(8), /the clip is an ArrayBuffer/],
    [{ length: 8000 }, /the clip is an object/],
    [7, /the clip is 7/],
    [[signalOf(1), 'b.wav'], /clip 1 is "b\.wav"/],
    [[0, '1'], /sample 1 of the list is "1"/],
  ];
  for (const [samples, message] of refused)
    await failsWith('usage', message, () => mgf.embed(samples as Float32Array));
});

test('an option that does not exist is answered with the nearest, and one of a wrong kind with its rule', async () => {
  await failsWith(
    'usage',
    /MGF\.embed: unknown option "samplerate"; the nearest known one is "sampleRate"/,
    () => mgf.embed(signalOf(1), { samplerate: 1 } as never),
  );
  await failsWith('usage', /the option sampleRate is "16k", but must be a number/, () =>
    mgf.embed(signalOf(1), { sampleRate: '16k' } as never),
  );
  await failsWith('usage', /the option onBad is "mend", but must be "refuse" or "zero"/, () =>
    mgf.embed(signalOf(1), { onBad: 'mend' } as never),
  );
  await failsWith('usage', /MGF\.embed: options is 16000, but must be an object/, () =>
    mgf.embed(signalOf(1), 16000 as never),
  );
  await failsWith('usage', /MGF\.load: unknown option "precison"; the nearest known one is "precision"/, () =>
    MGF.load(TINY, { precison: 'f16' } as never),
  );
  await failsWith('usage', /MGF\.load: source is null, but must be a text or a URL/, () =>
    MGF.load(null as never),
  );
  await failsWith('usage', /loadAudio: path is a Uint8Array, .* decodeAudio\(bytes, name\)/, () =>
    loadAudio(new Uint8Array(30) as never),
  );
  await failsWith(
    'usage',
    /loadAudio: unknown option "offset"; the nearest known one is "offsetSeconds"/,
    () => loadAudio('a.wav', { offset: 1 } as never),
  );
});

test('the configuration that a model gives is one that loading takes', async () => {
  const folder = join(root, 'test', 'fixtures', 'huggingface', 'hubert-large');
  const first = await MGF.load(join(folder, 'model.safetensors'), { gpu });
  const again = await MGF.load(file('hubert-large/model.safetensors'), {
    gpu,
    config: JSON.parse(JSON.stringify(first.config)) as unknown,
  });
  assert.equal(again.config, first.config);
  assert.equal((await again.embed(signalOf(1))).data, (await first.embed(signalOf(1))).data);
  first.dispose();
  again.dispose();
});

//
// -----------------------------------------------------------------------------------------------------------
// comparing

test("centred cosines tell the readers of the page's clips apart, where raw ones are all large", async () => {
  const folder = join(root, 'web', 'clips');
  const names = readdirSync(folder).filter((name) => name.endsWith('.opus'));
  const clips = await mgf.embed(await Promise.all(names.map((name) => loadAudio(join(folder, name)))), {
    pool: 'mean',
  });
  const reference = center(clips);
  const reader = (i: number): string => names[i]!.split('-')[0]!;
  const pairs = clips.flatMap((a, i) =>
    clips.slice(i + 1).map((b, j) => ({
      same: reader(i) === reader(i + 1 + j),
      raw: compare(a, b, { center: null }),
      centred: compare(a, b, { center: reference }),
    })),
  );
  const of = (same: boolean, kind: 'raw' | 'centred'): number[] =>
    pairs.filter((pair) => pair.same === same).map((pair) => pair[kind]);
  assert.is(of(true, 'raw').length, 4);
  assert.ok(Math.min(...pairs.map((pair) => pair.raw)) > 0.6, 'raw cosines of different readers are large');
  const median = of(false, 'centred').sort((a, b) => a - b)[12]!;
  assert.ok(median < 0, `different readers: ${median}`);
  assert.ok(Math.min(...of(true, 'centred')) > 0.8, `one reader: ${of(true, 'centred').join(', ')}`);
});

test('comparing: the cosine after the mean is taken off, of vectors, pooled embeddings and frames', () => {
  const { mean, apply } = center([
    [1, 0],
    [3, 4],
  ]);
  assert.equal([...mean], [2, 2]);
  assert.equal([...apply([5, 1])], [3, -1]);
  assert.is(compare([3, 2], [2, 5], { center: { mean } }), 0);
  assert.is(compare([3, 2], [1, 2], { center: { mean } }), -1);
  assert.ok(Math.abs(compare([3, 4], [4, 3], { center: null }) - 24 / 25) < 1e-6);
  assert.is(
    compare({ data: Float32Array.of(0, 0, 2, 4), width: 2 }, [2, 4], { center: null }),
    1,
    'the mean over frames',
  );
});

test('comparing what cannot be compared is told in words', async () => {
  await failsWith('usage', /compare: options is undefined/, async () =>
    compare([1], [1], undefined as never),
  );
  await failsWith('usage', /compare: unknown option "centre"; the nearest known one is "center"/, async () =>
    compare([1], [1], { centre: null } as never),
  );
  await failsWith('usage', /compare: a is "x", but must be an embedding or a vector/, async () =>
    compare('x' as never, [1], { center: null }),
  );
  await failsWith('shape', /a has 2 numbers, and b has 1/, async () =>
    compare([1, 2], [1], { center: null }),
  );
  await failsWith('shape', /compare: a has 2 numbers, but the centre has 1/, async () =>
    compare([1, 2], [1, 2], { center: { mean: Float32Array.of(1) } }),
  );
  await failsWith('data', /b has no direction: it is the centre itself/, async () =>
    compare([2], [1], { center: { mean: Float32Array.of(1) } }),
  );
  await failsWith('data', /vector 1 holds numbers that are not finite/, async () => center([[1], [NaN]]));
  await failsWith('usage', /a reference set of 1/, async () => center([[1]]));
  await failsWith('shape', /vector 1 has 2 numbers, and vector 0 has 1/, async () => center([[1], [1, 2]]));
});

test('work that was aborted is rejected with the reason', async () => {
  const controller = new AbortController();
  const reason = new Error('enough');
  const running = mgf.embed(
    Array.from({ length: 3 }, () => speechLike(16_000, 1)),
    { signal: controller.signal, window: 1, context: 0.1 },
  );
  controller.abort(reason);
  assert.is(
    await running.then(
      () => null,
      (e: unknown) => e,
    ),
    reason,
  );
});

// ------------------------------------------------------------------------------------------------- streaming

test('a stream gives the frames that the whole signal gives, however it is chopped', async () => {
  const signal = speechLike(120_000, 8);
  const options = { window: 2, context: 0.3 };
  const whole = await mgf.embed(signal, options);
  for (const sizes of [[1600], [7, 30_000, 12_345], [200_000]]) {
    const { data, parts } = await gathered(mgf.stream(chopped(signal, sizes), options));
    assert.is(parts, 5);
    assert.ok(
      distance(data, whole.data) < 2e-5,
      `chunks of ${sizes.join()}: off by ${distance(data, whole.data)}`,
    );
  }
});

test('a signal within one window is heard as a whole, streamed or not', async () => {
  const signal = speechLike(40_000, 9);
  const { data } = await gathered(mgf.stream([signal.subarray(0, 100), signal.subarray(100)]));
  assert.equal(data, (await mgf.embed(signal)).data);
});

test('a stream at 44.1 kHz is converted as it comes', async () => {
  const signal = speechLike(90_000, 10);
  const options = { sampleRate: 44_100, window: 1, context: 0.1 };
  const off = distance(
    (await gathered(mgf.stream(chopped(signal, [5000]), options))).data,
    (await mgf.embed(signal, options)).data,
  );
  assert.ok(off < 1e-4, `off by ${off}`);
});

test('a stream that is left early, aborted, or too short ends cleanly', async () => {
  let returned = false;
  async function* endless(): AsyncGenerator<Float32Array> {
    try {
      for (let i = 0; ; i++) yield speechLike(8000, i);
    } finally {
      returned = true;
    }
  }
  for await (const { frames } of mgf.stream(endless(), { window: 1, context: 0.1 })) {
    assert.ok(frames > 0);
    break;
  }
  assert.ok(returned, 'the source is told');
  const reason = new Error('enough');
  const error = await gathered(mgf.stream(endless(), { signal: AbortSignal.abort(reason) })).then(
    () => null,
    (e: unknown) => e,
  );
  assert.is(error, reason);
  await failsWith('audio', /the signal has 200 samples at 16 kHz/, () =>
    gathered(mgf.stream([new Float32Array(200)])),
  );
  await failsWith('usage', /MGF\.stream: a chunk is 0, but must be an array/, () =>
    gathered(mgf.stream([0, 1] as unknown as Float32Array[])),
  );
  await failsWith('usage', /MGF\.stream: chunks is a Float32Array, but must be an iterable/, () =>
    gathered(mgf.stream(signalOf(1) as never)),
  );
});

// ------------------------------------------------------------------------------------------------ the device

test("a model on the caller's device leaves it alive, and one that was disposed says so", async () => {
  const own = await MGF.load(TINY, { device: gpu.device });
  const clip = speechLike(4000, 1);
  assert.equal((await own.embed(clip)).frames, 12);
  own.dispose();
  own.dispose();
  await failsWith('usage', /was disposed; load it again/, () => own.embed(clip));
  assert.equal((await mgf.embed(clip)).frames, 12, 'the device still works');
});

test('a lost device ends the work with its error, and another model can be loaded', async () => {
  const kind = testAdapter();
  const options = kind ? { adapter: kind } : {};
  const other = await MGF.load(TINY, options);
  const clip = speechLike(4000, 1);
  const { data } = await other.embed(clip);
  other.dispose();
  assert.is((await other.lost).code, 'device-lost');
  const again = await MGF.load(TINY, options);
  assert.equal((await again.embed(clip)).data, data);
  again.dispose();
});

test.run();
