import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MGF as BrowserMGF } from '../src/app/mgf.ts';
import { SignalWindows, windowsOf, windowSizes } from '../src/app/windows.ts';
import { resampleTo16k, streamResampler } from '../src/audio/resample.ts';
import { Encoder } from '../src/mgf/encoder.ts';
import { MGF } from '../src/node.ts';
import { storedConfig } from '../src/mgf/stored-config.ts';
import { readSafetensors, toFloat32 } from '../src/io/safetensors.ts';
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
  await failsWith('usage', /Float32Array chunks/, () =>
    gathered(mgf.stream([[0, 1]] as unknown as Float32Array[])),
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
