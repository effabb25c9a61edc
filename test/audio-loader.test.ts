import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ClipStore, describeSkipped } from '../src/audio/clips.ts';
import { createLoader } from '../src/audio/loader.ts';
import { randomStream } from '../src/random/stream.ts';
import { BatchSource } from '../src/audio/source.ts';
import { fixture, messageOf, wav } from './audio-wav.ts';
import type { Utterance } from '../src/audio/manifest.ts';
import type { Batch, BatchOptions } from '../src/audio/source.ts';

const test = suite('loader');
/** The worker is bundled one folder above the tests. */
const workerUrl = new URL('../audio-worker.js', import.meta.url);
let root = '';
const items: Utterance[] = [];

/** Noise between `from` and `to` seconds of a clip that is silent elsewhere. */
function noise(seconds: number, seed: number, from = 0, to = seconds): Float32Array {
  const random = randomStream(seed);
  return Float32Array.from({ length: seconds * 16000 }, (_, i) =>
    i >= from * 16000 && i < to * 16000 ? random.uniform() - 0.5 : 0,
  );
}

async function clip(name: string, samples: Float32Array | Uint8Array): Promise<Utterance> {
  const path = join(root, `${name}.wav`);
  await writeFile(path, samples instanceof Uint8Array ? samples : wav([samples]));
  return { path, id: name, columns: {} };
}

test.before(async () => {
  root = await mkdtemp(join(tmpdir(), 'mgf-loader-'));
  for (let i = 0; i < 7; i++) items.push(await clip(`clip${i}`, noise(0.6 + 0.2 * i, i)));
});
test.after(() => rm(root, { recursive: true, force: true }));

const options = (over: Partial<BatchOptions> = {}): BatchOptions => ({
  items,
  seed: 42,
  utterancesPerBatch: 3,
  cropSeconds: 0.5,
  negatives: 5,
  ...over,
});

async function batches(steps: number[], over: Partial<BatchOptions> = {}): Promise<Batch[]> {
  const source = await BatchSource.open(options(over));
  const result: Batch[] = [];
  for (const step of steps) result.push(await source.batch(step));
  source.free();
  return result;
}

test('a batch has the promised shapes, normalised rows, masks that match its anchors', async () => {
  const source = await BatchSource.open(options());
  const { R, L, T, K, capacity } = source.shape;
  assert.equal([R, L, T, K], [6, 8000, 24, 5]);
  const batch = await source.batch(0);
  assert.equal(
    [
      batch.wave.length,
      batch.mask.length,
      batch.anchor.length,
      batch.negatives.length,
      batch.anchorWeight.length,
    ],
    [R * L, R * T, capacity, capacity * K, capacity],
  );
  for (let r = 0; r < R; r++) {
    const row = batch.wave.subarray(r * L, (r + 1) * L);
    const mean = row.reduce((a, b) => a + b, 0) / L;
    assert.ok(
      Math.abs(mean) < 1e-5 && Math.abs(row.reduce((a, b) => a + b * b, 0) / L - 1) < 1e-3,
      `row ${r} is not normalised`,
    );
  }
  const masked = [...batch.mask].flatMap((m, i) => (m ? [i] : []));
  assert.is(batch.maskedFrames, masked.length);
  assert.equal([...batch.anchor.subarray(0, masked.length)], masked);
  assert.is(
    batch.anchorWeight.reduce((a, b) => a + b, 0),
    masked.length,
  );
  source.free();
});

test('rows b and B + b are crops of utterance b, disjoint if both fit', async () => {
  const ramp = (seconds: number) =>
    Float32Array.from({ length: seconds * 16000 }, (_, i) => Math.sin(i * i * 1e-6));
  const long = [
    await clip('long0', ramp(2)),
    await clip(
      'long1',
      ramp(2).map((v) => -v),
    ),
  ];
  const source = await BatchSource.open(options({ items: long, utterancesPerBatch: 2, epochShuffle: false }));
  const { wave } = await source.batch(3);
  const raw = ramp(2);
  const L = 8000;
  /** Where in the clip a row was taken, by its correlation with every place. */
  const placeOf = (row: number, sign: number) => {
    let best = -1;
    let at = 0;
    for (let start = 0; start <= raw.length - L; start++) {
      let c = 0;
      for (let i = 0; i < L; i += 97) c += sign * raw[start + i]! * wave[row * L + i]!;
      if (c > best) {
        best = c;
        at = start;
      }
    }
    return at;
  };
  for (const b of [0, 1]) {
    const [first, second] = [placeOf(b, b ? -1 : 1), placeOf(2 + b, b ? -1 : 1)];
    assert.ok(second! >= first! + L, `crops of utterance ${b} start at ${first} and ${second}`);
  }
  source.free();
});

test('the same seed and step give the same batch from a fresh source, in any order, whatever came before', async () => {
  const forward = await batches([0, 1, 2, 3, 4, 5]);
  const backward = await batches([5, 3, 0]);
  assert.equal(backward, [forward[5], forward[3], forward[0]]);
  const [other] = await batches([3], { seed: 43 });
  assert.not.equal(other!.wave, forward[3]!.wave);
  assert.not.equal(other!.mask, forward[3]!.mask);
});

test('batches do not depend on how much audio is kept in memory', async () => {
  assert.equal(await batches([0, 1, 2, 3], { cacheBytes: 30_000 }), await batches([0, 1, 2, 3]));
});

test(
  'an epoch shows every utterance at most once, in another order than the next; without shuffling in the ' +
    'order of the items',
  async () => {
    const seen = (await batches([0, 1, 2, 3])).map(({ utterances }) => utterances);
    for (const epoch of [0, 1]) assert.is(new Set(seen.slice(2 * epoch, 2 * epoch + 2).flat()).size, 6);
    assert.not.equal(seen.slice(0, 2), seen.slice(2));
    assert.equal(
      (await batches([0, 1, 2], { epochShuffle: false })).map(({ utterances }) => utterances.join(' ')),
      ['clip0 clip1 clip2', 'clip3 clip4 clip5', 'clip0 clip1 clip2'],
    );
  },
);

test(
  'clips that cannot be used are left out, each with its reason, and the order of the rest depends on ' +
    'the files alone',
  async () => {
    const bad = [
      { path: join(root, 'gone.wav'), id: 'gone', columns: {} },
      await clip('cut', wav([noise(1, 9)]).subarray(0, 9000)),
      await clip('short', noise(0.3, 9)),
      await clip('tiny', new Float32Array(300).fill(0.1)),
      await clip('silent', new Float32Array(16000)),
      await clip('text', new Uint8Array([104, 105, 33, 33])),
    ];
    const source = await BatchSource.open(options({ items: [...bad, ...items] }));
    assert.equal(
      source.report.skipped.map(
        ({ path, kind, reason }) =>
          `${path.slice(root.length + 1)} | ${kind} | ${reason.replaceAll(`${root}/`, '')}`,
      ),
      [
        'gone.wav | unreadable | There is no file "gone.wav".',
        'cut.wav | unreadable | Cannot read "cut.wav": it is truncated (its header promises 1.00 s of ' +
          'audio, 0.28 s are there); copy or export it again.',
        'short.wav | shorter than the crop | "short.wav" lasts 0.3 s, less than the crop of 0.5 s.',
        'tiny.wav | shorter than 400 samples | "tiny.wav" has 300 samples; one frame needs 400.',
        'silent.wav | silent | "silent.wav" is silent.',
        'text.wav | unreadable | Cannot read "text.wav": it is no audio file that is known here; WAV, ' +
          'FLAC, MP3, Ogg Vorbis and Ogg Opus are read.',
      ],
    );
    assert.is(
      describeSkipped(source.report.skipped, 0.5),
      '6 clips left out: 3 unreadable, 1 shorter than the crop of 0.5 s, 1 shorter than 400 samples, 1 silent',
    );
    assert.is(source.report.usable, 7);
    assert.ok(Math.abs(source.report.seconds - 8.4) < 0.01);
    assert.equal([await source.batch(4)], await batches([4]));
    source.free();
  },
);

test('segments of one recording are separate clips', async () => {
  const long = await clip('recording', noise(4, 77));
  const segments = [0, 1, 2, 3].map((offset) => ({
    ...long,
    id: `recording#${offset}`,
    offset,
    duration: 0.9,
  }));
  const store = await ClipStore.open({ items: segments, minSamples: 400 });
  const clips = await Promise.all(segments.map((s) => store.get(s)));
  assert.equal(
    clips.map(({ samples }) => samples),
    [14400, 14400, 14400, 14400],
  );
  const raw = noise(4, 77);
  assert.ok(Math.abs(clips[2]!.slice(100, 101)[0]! - raw[32100]!) < 2 ** -15);
  store.free();
});

test(
  'lengths stated by a manifest too large for the memory are trusted, and a file that breaks the promise ' +
    'is replaced by the same one each time',
  async () => {
    const promised = [...items, await clip('liar', noise(0.2, 5))].map((item, i) => ({
      ...item,
      samples: Math.round((i < 7 ? 0.6 + 0.2 * i : 1) * 16000),
    }));
    const run = async (order: number[]) => {
      const source = await BatchSource.open(
        options({ items: promised, cacheBytes: 50_000, utterancesPerBatch: 4 }),
      );
      assert.equal([source.report.trusted, source.report.usable], [8, 8]);
      const result: Batch[] = [];
      for (const step of order) result[step] = await source.batch(step);
      assert.is(source.stats.replacedUtterances, 2, 'the liar comes once in each of two epochs');
      assert.ok(source.stats.cachedBytes <= 50_000 + 60_000);
      source.free();
      return result;
    };
    const forward = await run([0, 1, 2, 3]);
    for (const { utterances } of forward) assert.is(new Set(utterances.filter((u) => u !== 'liar')).size, 4);
    assert.equal(await run([3, 2, 1, 0]), forward);
  },
);

test('silent crops are drawn again; where there is nothing else they are used and counted', async () => {
  const half = [await clip('half0', noise(3, 1, 0, 2)), await clip('half1', noise(3, 2, 0, 2))];
  const source = await BatchSource.open(options({ items: half, utterancesPerBatch: 2 }));
  for (let step = 0; step < 10; step++) await source.batch(step);
  assert.ok(source.stats.redrawnCrops > 0, 'a third of the clip is silent, so some crop was');
  assert.is(source.stats.silentCrops, 0);
  source.free();
  const click = [await clip('click0', noise(3, 3, 0, 0.001)), await clip('click1', noise(3, 4, 0, 0.001))];
  const hopeless = await BatchSource.open(options({ items: click, utterancesPerBatch: 2 }));
  const { wave } = await hopeless.batch(0);
  assert.ok(hopeless.stats.silentCrops >= 2);
  assert.ok(wave.every(Number.isFinite));
  hopeless.free();
});

test('the state names epoch, position and the clips', async () => {
  const source = await BatchSource.open(options());
  const fewer = await BatchSource.open(options({ items: items.slice(1) }));
  const { digest, ...state } = source.state(5);
  assert.equal(state, { seed: 42, step: 5, epoch: 2, position: 3, clips: 7 });
  assert.match(digest, /^[0-9a-f]{8}$/);
  assert.not.equal(fewer.state(5).digest, digest);
  source.free();
  fewer.free();
});

test('too few clips and impossible sizes give one sentence each', async () => {
  const say = (over: Partial<BatchOptions>, code: string) =>
    messageOf(() => BatchSource.open(options(over)), code);
  assert.is(
    await say({ items: items.slice(0, 2) }, 'data'),
    'Only 2 usable clips remain of 2, but a batch needs 3 different ones.',
  );
  assert.is(
    await say({ items: [{ path: '/nowhere.wav', id: 'x', columns: {} }] }, 'data'),
    'No usable clip remains of 1, but a batch needs 3 different ones (1 clip left out: 1 unreadable; ' +
      'for example: There is no file "/nowhere.wav").',
  );
  assert.is(
    await say({ items: items.slice(0, 1), utterancesPerBatch: 1 }, 'data'),
    'Only 1 usable clip remains of 1, but a batch needs 2 different ones.',
  );
  assert.is(
    await say({ cropSeconds: 0.02 }, 'config'),
    'A crop of 0.02 s is too short to mask frames in; it needs 0.065 s (3 frames) or more.',
  );
  assert.is(
    await say({ utterancesPerBatch: 0 }, 'config'),
    'The utterances per batch must be a whole number from 1 up, not 0.',
  );
  assert.is(
    await say({ negatives: 1.5 }, 'config'),
    'The number of negatives must be a whole number from 1 up, not 1.5.',
  );
  assert.is(await say({ seed: -1 }, 'config'), 'The seed must be a whole number from 0 to 2^53 - 1, not -1.');
});

test(
  'the worker gives the batches of the source in order from its start step, with progress, report and ' +
    'state',
  async () => {
    const scans: number[] = [];
    const compressed = ['tone-44k-stereo.flac', 'tone.opus'].map((name) => ({
      path: fixture(name),
      id: name,
      columns: {},
    }));
    const all = [...items, ...compressed];
    const loader = await createLoader({
      ...options({ items: all }),
      startStep: 3,
      prefetch: 2,
      workerUrl,
      onScan: (done, total) => {
        scans.push(done / total);
      },
    });
    assert.is(scans.at(-1), 1);
    assert.equal(
      loader.report.skipped.map(({ kind }) => kind),
      ['shorter than the crop', 'shorter than the crop'],
    );
    const received = [await loader.next(), await loader.next(), await loader.next(), await loader.next()];
    assert.equal(received, await batches([3, 4, 5, 6], { items: all }));
    const source = await BatchSource.open(options({ items: all }));
    assert.equal(
      [loader.state(5), loader.stepsPerEpoch, loader.shape],
      [source.state(5), source.stepsPerEpoch, source.shape],
    );
    assert.ok(loader.stats.batches >= 4 && loader.stats.waitedMs >= 0);
    source.free();
    await loader.close();
    assert.is(
      await messageOf(
        () =>
          loader
            .next()
            .then(() => loader.next())
            .then(() => loader.next()),
        'aborted',
      ),
      'The loader was closed.',
    );
  },
);

test('errors of the worker reach the caller with their code, while opening and while reading', async () => {
  assert.is(
    await messageOf(() => createLoader({ ...options({ items: items.slice(0, 1) }), workerUrl }), 'data'),
    'Only 1 usable clip remains of 1, but a batch needs 3 different ones.',
  );
  const fleeting = [
    await clip('f0', noise(1, 1)),
    await clip('f1', noise(1, 2)),
    await clip('f2', noise(1, 3)),
  ];
  const loader = await createLoader({
    ...options({ items: fleeting, cacheBytes: 0 }),
    workerUrl,
    prefetch: 1,
  });
  await loader.next();
  await Promise.all(fleeting.map(({ path }) => rm(path)));
  const message = await messageOf(async () => {
    for (;;) await loader.next();
  }, 'data');
  assert.match(
    message,
    /^Step \d cannot be filled with 3 readable clips; the last failure: There is no file ".*f\d\.wav"\.$/,
  );
  await loader.close();
});

test.run();
