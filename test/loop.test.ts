import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MGFError } from '../src/errors.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { loadWeights } from '../src/pretrain/checkpoint.ts';
import { readJsonl } from '../src/pretrain/logs.ts';
import { pretrain } from '../src/pretrain/loop.ts';
import { readResumePoint } from '../src/pretrain/run-files.ts';
import type { Loader, LoaderOptions } from '../src/audio/loader.ts';
import type { Batch } from '../src/audio/source.ts';
import type { Gpu } from '../src/gpu/device.ts';
import type { RunConfig, TrainConfig } from '../src/mgf/config.ts';
import type { MomentState, StepMetrics } from '../src/mgf/pretrainer.ts';
import type { PretrainOptions, PretrainStart, TrainableModel } from '../src/pretrain/options.ts';

const folder = mkdtempSync(join(tmpdir(), 'mgf-loop-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
let runs = 0;
const newFolder = () => join(folder, `run-${runs++}`);

const gpu = { profile: { name: 'a fake adapter' } } as Gpu;

/** A loader whose batches are told apart by one number, their step. */
function fakeLoader(seen: number[]): (options: LoaderOptions) => Promise<Loader> {
  return (options) => {
    let step = options.startStep ?? 0;
    return Promise.resolve({
      shape: { R: 4, L: 8, T: 2, K: 1, capacity: 2 },
      stepsPerEpoch: 7,
      stats: {} as Loader['stats'],
      report: {
        usable: 28,
        seconds: 60,
        skipped: [{ path: 'short.wav', reason: 'too short', kind: 'shorter than the crop' }],
        trusted: 0,
        warnings: [],
      },
      next() {
        seen.push(step);
        const wave = Float32Array.from({ length: 4 * 640 }, (_, i) =>
          Math.sin(options.seed + step + i * (1 + i / 1000)),
        );
        return Promise.resolve({
          step: step++,
          wave,
          mask: new Int32Array(4),
          utterances: ['a', 'b'],
        } as unknown as Batch);
      },
      state: (at) => ({
        seed: options.seed,
        step: at,
        epoch: Math.floor(at / 7),
        position: 4 * (at % 7),
        clips: 28,
        digest: 'abc',
      }),
      close: () => Promise.resolve(),
    });
  };
}

interface Fake extends TrainableModel {
  inFlight: number;
  mostInFlight: number;
  destroyed: boolean;
}
type Trouble = (step: number) => 'skip' | MGFError | undefined;

/** A model whose weights and moments are a function of all it has seen, in order. */
function fakeModel(
  trouble: Trouble = () => undefined,
  made: Fake[] = [],
): NonNullable<PretrainOptions['createModel']> {
  return (_gpu, _run, { state }) => {
    const read = (part: keyof MomentState) =>
      state?.[part]?.get('w')?.data[0] ?? (part === 'parameters' ? 1 : 0);
    let w = read('parameters');
    let m = read('expAvg');
    let v = read('expAvgSq');
    let queue: Promise<unknown> = Promise.resolve();
    const tensor = (x: number) => new Map([['w', { shape: [1], data: Float32Array.of(x) }]]);
    const model: Fake = {
      rows: 4,
      samplesPerCrop: 8,
      inFlight: 0,
      mostInFlight: 0,
      destroyed: false,
      info: { parameters: 1, dispatches: 3, pipelines: 2, activationBytes: 64, compileMs: 1 },
      step(batches, { step, learningRate }) {
        model.mostInFlight = Math.max(model.mostInFlight, ++model.inFlight);
        const done = queue.then(async (): Promise<StepMetrics> => {
          await new Promise((r) => {
            setTimeout(r, 1);
          });
          model.inFlight--;
          const bad = trouble(step);
          if (bad instanceof MGFError) throw bad;
          const gradient = batches.reduce((sum, b) => sum + b.wave[0]!, 0) - w;
          if (bad !== 'skip') {
            m = Math.fround(0.9 * m + 0.1 * gradient);
            v = Math.fround(0.98 * v + 0.02 * gradient ** 2);
            w = Math.fround(w + learningRate * 10 * m);
          }
          const total = bad === 'skip' ? NaN : Math.abs(gradient);
          return {
            total,
            sample: NaN,
            frame: total / 4,
            phoneme: 2,
            sentence: 1,
            accuracy: 0.2,
            gradNorm: bad === 'skip' ? NaN : total,
            skipped: bad === 'skip',
            extra: {},
          };
        });
        queue = done.catch(() => undefined);
        return done;
      },
      async state() {
        await queue;
        return { parameters: tensor(w), expAvg: tensor(m), expAvgSq: tensor(v) };
      },
      reconstruct: () =>
        Promise.resolve({
          wave: new Float32Array(),
          waveTarget: new Float32Array(4),
          logMel: new Float32Array(2),
          logMelTarget: new Float32Array(2),
          frames: 2,
        }),
      representations: () =>
        Promise.resolve({
          z: Float32Array.from({ length: 32 }, (_, i) => Math.sin(i * i)),
          zWidth: 4,
          context: Float32Array.from({ length: 32 }, (_, i) => Math.cos(i * i)),
          contextWidth: 4,
          rows: 8,
        }),
      destroy() {
        model.destroyed = true;
      },
    };
    made.push(model);
    return Promise.resolve(model);
  };
}

function config(train: Partial<TrainConfig> = {}): RunConfig {
  return presetRunConfig('nano', {
    mgf: { loss_weights: { sample: 0 } },
    train: {
      steps: 20,
      crop_seconds: 2,
      checkpoint_every: 10,
      log_every: 4,
      utterances_per_batch: 2,
      ...train,
    },
  });
}

const start = (out: string, run: RunConfig, more: Partial<PretrainOptions> = {}) =>
  pretrain({ gpu, run, items: [], out, openLoader: fakeLoader([]), createModel: fakeModel(), ...more });

/** What must not depend on interruptions: everything but the clock. */
const timeless = (out: string) =>
  readJsonl(join(out, 'log.jsonl')).map(({ elapsed_seconds: _e, audio_per_second: _a, ...rest }) =>
    JSON.stringify(rest),
  );
const weights = async (out: string) => (await loadWeights(out)).parameters.get('w')!.data[0];

/** The error that an action ends with. */
async function failure(action: Promise<unknown>): Promise<MGFError> {
  try {
    await action;
  } catch (error) {
    assert.instance(error, MGFError);
    return error as MGFError;
  }
  throw new Error('it was expected to fail');
}

test('a run that is interrupted between two log lines and resumed equals one that never stopped', async () => {
  const straight = newFolder();
  const broken = newFolder();
  const run = config();
  const abort = new AbortController();
  await start(straight, run);
  const first = await start(broken, run, {
    signal: abort.signal,
    hooks: {
      onProgress: ({ step }) => {
        if (step === 6) abort.abort();
      },
    },
  });
  assert.ok(first.interrupted);
  assert.is(first.steps, 7, 'the step in flight is finished');
  const seen: number[] = [];
  const second = await start(broken, run, {
    resume: await readResumePoint(broken),
    openLoader: fakeLoader(seen),
  });
  assert.is(seen[0], 7);
  assert.not(second.interrupted);
  assert.is(second.audioSeconds, 20 * 4 * 2);
  assert.equal(timeless(broken), timeless(straight));
  assert.is(await weights(broken), await weights(straight));
  const best = async (out: string) =>
    (await readResumePoint(join(out, 'checkpoint-000020.safetensors'))).loop?.meters;
  assert.equal(await best(broken), await best(straight));
});

test('a run that was killed after a checkpoint repeats the steps after it', async () => {
  const straight = newFolder();
  const killed = newFolder();
  const run = config();
  await start(straight, run);
  // Steps 11 to 15 are logged, not saved, and lost.
  await failure(
    start(killed, run, {
      createModel: fakeModel((step) => (step === 15 ? new MGFError('device-lost', 'gone') : undefined)),
    }),
  );
  const point = await readResumePoint(killed);
  assert.is(point.state.step, 10);
  await start(killed, run, { resume: point });
  assert.equal(timeless(killed), timeless(straight));
  assert.is(await weights(killed), await weights(straight));
});

test('rivals are measured on the first crops, logged once, and the same for a resumed run', async () => {
  const out = newFolder();
  const starts: PretrainStart[] = [];
  const hooks = { onStart: (s: PretrainStart) => starts.push(s) };
  const seen: number[] = [];
  await start(out, config(), { hooks, openLoader: fakeLoader(seen) });
  assert.equal(
    seen,
    Array.from({ length: 20 }, (_, i) => i),
    'no batch is read twice or left out',
  );
  await start(out, config({ steps: 30 }), { hooks, resume: await readResumePoint(out) });
  const logged = readJsonl(join(out, 'log.jsonl')).filter((r) => 'rivals' in r);
  assert.is(logged.length, 1);
  assert.equal(
    starts.map((s) => s.rivals),
    [logged[0]!['rivals'], logged[0]!['rivals']],
  );
  const { frame, phoneme, sample } = starts[0]!.rivals;
  assert.ok(frame! > 0.3 && frame! < 1.2, `${frame}`);
  assert.is(phoneme, Math.log(11));
  assert.is(sample, undefined, 'its weight is 0');
});

test('a checkpoint from before rivals were stored gets them when it goes on', async () => {
  const out = newFolder();
  await start(out, config());
  const resume = await readResumePoint(out);
  const starts: PretrainStart[] = [];
  delete resume.loop!.rivals;
  await start(out, config({ steps: 30 }), { resume, hooks: { onStart: (s) => starts.push(s) } });
  assert.ok(starts[0]!.rivals.frame! > 0.3);
  assert.ok(readJsonl(join(out, 'log.jsonl')).some((r) => 'rivals' in r && r.step === 20));
});

test('a run whose loss ends above its rival is told so at its end, in the log too', async () => {
  const out = newFolder();
  const run = config();
  // The fake model's phoneme loss is 2, above ln 6.
  run.mgf.num_negatives = 5;
  const { alarms } = await start(out, run);
  assert.equal(
    alarms.map((a) => `${a.kind}@${a.step}`),
    ['phoneme-above-rival@20'],
  );
  assert.match(
    alarms[0]!.message,
    /^The phoneme loss, 2\.000 over the last 10 steps, is above 1\.792, what chance scores/,
  );
  assert.is(readJsonl(join(out, 'log.jsonl')).at(-1)!['alarm'], 'phoneme-above-rival');
});

test('each step takes its own micro-batches, also after a resume', async () => {
  const out = newFolder();
  const seen: number[] = [];
  const run = config({ accumulation: 3, steps: 10, checkpoint_every: 4 });
  const abort = new AbortController();
  await start(out, run, {
    openLoader: fakeLoader(seen),
    signal: abort.signal,
    hooks: { onCheckpoint: () => abort.abort() },
  });
  assert.equal(
    seen,
    Array.from({ length: 16 }, (_, i) => i),
    '12 for the steps, in order, and those read ahead for the rivals',
  );
  const later: number[] = [];
  await start(out, run, { openLoader: fakeLoader(later), resume: await readResumePoint(out) });
  assert.equal(
    later,
    Array.from({ length: 18 }, (_, i) => 12 + i),
  );
});

test('one step is issued ahead, never two', async () => {
  const made: Fake[] = [];
  await start(newFolder(), config(), { createModel: fakeModel(undefined, made) });
  assert.is(made[0]!.mostInFlight, 2);
  assert.ok(made[0]!.destroyed);
});

test('a scale that is off is not logged, the others are, with the rate and the audio heard', async () => {
  const out = newFolder();
  await start(out, config());
  const records = readJsonl(join(out, 'log.jsonl'));
  assert.equal(
    records.map((r) => r.step),
    [0, 1, 4, 8, 12, 16, 20],
    'the rivals, then the steps',
  );
  const last = records.at(-1)!;
  assert.not.ok('sample' in last);
  assert.is(last['phoneme'], 2);
  assert.is(last['audio_seconds'], 20 * 4 * 2);
  assert.ok(Number(last['learning_rate']) > 0);
  assert.is(readdirSync(join(out, 'tensorboard')).length, 1);
  assert.match(readFileSync(join(out, 'skipped.tsv'), 'utf8'), 'short.wav\ttoo short');
});

test('the newest checkpoints and the best one stay', async () => {
  const out = newFolder();
  await start(out, config({ checkpoint_every: 5, keep_last: 2 }));
  assert.equal(
    readdirSync(out)
      .filter((f) => f.endsWith('.safetensors'))
      .sort(),
    ['best.safetensors', 'checkpoint-000015.safetensors', 'checkpoint-000020.safetensors'],
  );
});

test('an update without a finite gradient is left out and counted, with one alarm', async () => {
  const out = newFolder();
  const alarms: string[] = [];
  const result = await start(out, config(), {
    createModel: fakeModel((step) => (step === 3 || step === 8 ? 'skip' : undefined)),
    hooks: { onAlarm: (a) => alarms.push(a.message) },
  });
  assert.is(result.skippedSteps, 2);
  assert.is(alarms.length, 1);
  assert.match(alarms[0]!, 'step 4');
  assert.ok(
    readJsonl(join(out, 'log.jsonl'))
      .filter((r) => 'total' in r)
      .every((r) => Number.isFinite(r['total'])),
    'the means leave it out',
  );
});

test('a run that has diverged for good ends and says from where to go on', async () => {
  const out = newFolder();
  const error = await failure(
    start(out, config({ steps: 200 }), {
      createModel: fakeModel((step) => (step >= 12 ? 'skip' : undefined)),
    }),
  );
  assert.match(error.message, '50 steps in a row');
  assert.match(error.message, `--resume ${out}`);
});

test('a lost device ends the run with the step to go on from', async () => {
  const out = newFolder();
  const error = await failure(
    start(out, config(), {
      createModel: fakeModel((step) =>
        step >= 12 ? new MGFError('device-lost', 'the device is gone.') : undefined,
      ),
    }),
  );
  assert.is(error.code, 'device-lost');
  assert.match(error.message, 'from step 10');
  assert.match(error.message, `--resume ${out}`);
  const early = await failure(
    start(newFolder(), config(), {
      createModel: fakeModel(() => new MGFError('device-lost', 'the device is gone')),
    }),
  );
  assert.match(early.message, 'no checkpoint');
});

test('a new run never writes over another one', async () => {
  const out = newFolder();
  await start(out, config());
  const error = await failure(start(out, config()));
  assert.is(error.code, 'checkpoint');
  assert.match(error.message, `--resume ${out}`);
  const point = await readResumePoint(join(out, 'checkpoint-000010.safetensors'));
  assert.match((await failure(start(out, config(), { resume: point }))).message, 'would overwrite');
  const branch = newFolder();
  assert.is((await start(branch, config(), { resume: point })).steps, 20, 'into another folder it may');
});

test('a checkpoint of another network or another order of the data is refused by name', async () => {
  const out = newFolder();
  await start(out, config());
  const resume = await readResumePoint(out);
  const wider = config();
  wider.mgf.intermediate_size = 128;
  assert.match(
    (await failure(start(out, wider, { resume }))).message,
    'intermediate_size is 64 there and 128 here',
  );
  assert.match(
    (await failure(start(out, config({ utterances_per_batch: 3 }), { resume }))).message,
    'utterances_per_batch is 2 there and 3 here',
  );
  const result = await start(out, config({ steps: 30, learning_rate: 1e-4 }), { resume });
  assert.is(result.steps, 30, 'length and rate may change');
});

test('changed data are told, not refused', async () => {
  const out = newFolder();
  const run = config();
  const notes: string[] = [];
  const abort = new AbortController();
  await start(out, run, { signal: abort.signal, hooks: { onCheckpoint: () => abort.abort() } });
  const resume = await readResumePoint(out);
  resume.loop!.data = { clips: 20, digest: 'other' };
  await start(out, run, { resume, hooks: { onNote: (n) => notes.push(n) } });
  assert.match(notes.join(), '20 usable clips then, 28 now');
});

test('a run by the clock ends when its time is over, and its rate falls to nothing', async () => {
  const out = newFolder();
  const result = await start(out, config({ minutes: 0.005, log_every: 1, checkpoint_every: 10_000 }));
  assert.ok(result.elapsedSeconds >= 0.3 && result.elapsedSeconds < 3, `${result.elapsedSeconds} s`);
  const rates = readJsonl(join(out, 'log.jsonl'))
    .filter((r) => 'learning_rate' in r)
    .map((r) => Number(r['learning_rate']));
  assert.ok(rates.at(-1)! < 0.2 * Math.max(...rates));
  assert.is(result.checkpoint, join(out, `checkpoint-${String(result.steps).padStart(6, '0')}.safetensors`));
});

test.run();
