import { readdirSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import * as barlow from '../examples/barlow-twins.ts';
import * as hard from '../examples/hard-negatives.ts';
import * as hubert from '../examples/hubert-like.ts';
import { train } from '../examples/plain-graph.ts';
import * as siglip from '../examples/siglip.ts';
import * as softL1 from '../examples/soft-l1.ts';
import * as speakers from '../examples/speaker-labels.ts';
import * as spectral from '../examples/spectral.ts';
import * as vicreg from '../examples/vicreg.ts';
import { defineElementwise } from '../src/custom/elementwise.ts';
import { gradcheck } from '../src/custom/gradcheck.ts';
import { subjectOf } from '../src/custom/subjects.ts';
import { Pretrainer } from '../src/mgf/pretrainer.ts';
import { presetRunConfig } from '../src/mgf/presets.ts';
import { openTestGpu } from './gpu.ts';
import { countCreations, failsWith, speechBatch } from './harness.ts';
import { add, reshape, scale } from '../src/ops/elementwise.ts';
import { linear } from '../src/ops/gemm/linear.ts';
import { crossEntropy } from '../src/ops/losses/cross-entropy.ts';
import { maskedMean } from '../src/ops/masked-mean.ts';
import type { TrainingLoss } from '../src/mgf/extra-losses.ts';
import type { Columns } from '../src/mgf/loss-inputs.ts';

const gpu = await openTestGpu();

/** Each with where it is attached, and the weights of the scales beside it. */
const GALLERY: Readonly<
  Record<
    string,
    {
      module: { default: TrainingLoss };
      preset?: string;
      attach?: 'z' | number;
      scales?: Record<string, number>;
      /** The loss reads columns of the manifest. */
      columns?: boolean;
    }
  >
> = {
  'soft-l1': { module: softL1, scales: { frame: 0 } },
  siglip: { module: siglip, scales: { sentence: 0 } },
  'hard-negatives': { module: hard, attach: 'z', scales: { sentence: 0 } },
  'barlow-twins': { module: barlow, attach: 'z' },
  vicreg: { module: vicreg },
  spectral: { module: spectral, preset: 'nano', scales: { sample: 0.1, phoneme: 0 } },
  'hubert-like': { module: hubert, attach: 2, scales: { phoneme: 0 } },
  'speaker-labels': { module: speakers, columns: true },
};

test('the gallery is complete', () => {
  const files = readdirSync(new URL('../../examples/', import.meta.url))
    .filter((f) => f.endsWith('.ts'))
    .map((f) => f.replace('.ts', ''));
  assert.equal([...Object.keys(GALLERY), 'plain-graph'].sort(), files.sort());
});

/** Recordings 0 and 1 are of one speaker, the next of another, the last of none. */
const speakersOf = (utterances: readonly string[]): Columns =>
  new Map(
    utterances.map((id, b) => [id, { speaker: ['ann', 'ann', 'bob', ''][b % 4]!, age: String(20 + b) }]),
  );

for (const [
  file,
  { module, preset = 'nano-mel', attach = 1, scales = {}, columns = false },
] of Object.entries(GALLERY)) {
  const loss = module.default;
  test(`examples/${file}.ts: its ops are right, and a network learns by it`, async () => {
    for (const subject of Object.values(module)
      .map(subjectOf)
      .filter((s) => s !== undefined)) {
      // What divides by the count of negatives or of a batch wants some of them.
      const cases = subject.cases.filter(
        ({ inputs }) =>
          !(
            file === 'hard-negatives' &&
            (Object.values(inputs)[0]!.shape[1]! % 2 === 1 || Object.values(inputs)[0]!.shape[1]! < 4)
          ),
      );
      const { passed, findings } = await gradcheck(gpu, { ...subject, cases });
      assert.ok(
        passed,
        findings
          .filter((f) => !f.passed)
          .map((f) => `${subject.name}, ${f.of}, ${f.case}, ${f.family}: ${f.message}`)
          .join('\n'),
      );
    }
    const run = presetRunConfig(preset, {
      train: { utterances_per_batch: 4, crop_seconds: 0.64 },
      mgf: {
        loss_weights: scales,
        extra_losses: { [loss.name]: { weight: 1, attach, start_step: 0 } },
        hidden_dropout: 0,
        attention_dropout: 0,
      },
    });
    const batch = speechBatch(run);
    const trainer = await Pretrainer.create(gpu, run, {
      losses: [loss],
      ...(columns && { columns: speakersOf(batch.utterances) }),
    });
    const seen: number[] = [];
    try {
      let counter = { made: {} as Record<string, number>, stop(): void {} };
      for (let step = 0; step < 8; step++) {
        if (step === 2) counter = countCreations(gpu.device);
        const { extra, gradNorm } = await trainer.step([batch], { step, learningRate: 5e-3 });
        assert.ok(Number.isFinite(gradNorm));
        seen.push(extra[loss.name]!);
      }
      counter.stop();
      assert.equal(counter.made, {}, 'a step creates nothing');
      assert.ok(seen.at(-1)! < 0.99 * seen[0]!, `${loss.name}: ${seen.map((v) => v.toFixed(3)).join(' ')}`);
      assert.ok(
        trainer.program.toString().includes(`loss.${loss.name}`),
        'one pass, with a place in the plan',
      );
      if (loss.parameters)
        assert.ok(
          [...(await trainer.state()).parameters.keys()].some((name) =>
            name.startsWith(`heads.${loss.name}.`),
          ),
        );
    } finally {
      trainer.destroy();
    }
  });
}

test('examples/plain-graph.ts: a network without MGF learns, and its steps create nothing', async () => {
  const seen: number[] = [];
  let counter = { made: {} as Record<string, number>, stop(): void {} };
  await train(gpu, 40, (step, loss) => {
    if (step === 2) counter = countCreations(gpu.device);
    if (step === 39) counter.stop();
    seen.push(loss);
  });
  assert.equal(counter.made, {}, 'a step creates nothing');
  // Noise of 1/3 comes in; what gives it back has learnt nothing.
  assert.ok(seen.at(-1)! < 0.1, seen.map((v) => v.toFixed(3)).join(' '));
});

test('a loss reads columns of the manifest as classes and numbers, and a number of each step', async () => {
  const run = presetRunConfig('nano-mel', {
    train: { utterances_per_batch: 4, crop_seconds: 0.64 },
    mgf: {
      loss_weights: { sample: 0, frame: 0, phoneme: 0, sentence: 0 },
      extra_losses: { reads: { weight: 1, attach: 1, start_step: 0 } },
    },
  });
  const batch = speechBatch(run);
  const scaled = defineElementwise({
    name: 'scaled',
    inputs: ['x'],
    attributes: { by: 1 },
    forward: 'by * x',
    backward: { x: 'by' },
    reference: ({ x }, { by }) => by * x,
  });
  const loss = (of: string): TrainingLoss => ({
    name: 'reads',
    parameters: (_, width, { classes }) => [{ name: 'out', shape: [classes('speaker'), width] }],
    build: ({ state, weights, column, numbers, scalar, classes }) => {
      assert.is(classes('speaker'), 2);
      const named = crossEntropy(
        linear(maskedMean(state, null), weights.get('out'), null),
        column('speaker'),
      );
      const zero = scale(named, 0);
      const age = reshape(maskedMean(reshape(numbers(of), [1, 8, 1]), null), [1]);
      return add(zero, scaled({ x: age }, { by: scalar('by', (step) => step + 1) }));
    },
  });
  const trainer = await Pretrainer.create(gpu, run, {
    losses: [loss('age')],
    columns: speakersOf(batch.utterances),
  });
  for (const step of [0, 1, 2]) {
    const { extra } = await trainer.step([batch], { step, learningRate: 0 });
    assert.ok(Math.abs(extra['reads']! - 21.5 * (step + 1)) < 1e-3, `${extra['reads']} at step ${step}`);
  }
  const strangers = { ...batch, utterances: ['x', 'y', 'z', 'w'] };
  await failsWith('data', /recording "x" is not among those/, () =>
    trainer.step([strangers], { step: 3, learningRate: 0 }),
  );
  trainer.destroy();
  const columns = speakersOf(batch.utterances);
  await failsWith('data', /reads the column "ages", which no recording has; the nearest is "age"/, () =>
    Pretrainer.create(gpu, run, { losses: [loss('ages')], columns }),
  );
  await failsWith('data', /reads numbers of "speaker", which is "ann" for/, () =>
    Pretrainer.create(gpu, run, { losses: [loss('speaker')], columns }),
  );
  await failsWith('data', /give a manifest with columns/, () =>
    Pretrainer.create(gpu, run, { losses: [loss('age')] }),
  );
});

test('a loss that nobody gave, that nobody asked for, or that is no number is refused', async () => {
  const run = presetRunConfig('nano-mel', {
    mgf: { extra_losses: { mine: { weight: 1, attach: 1, start_step: 0 } } },
  });
  await failsWith('usage', /trains with the loss "mine".*--loss/, () => Pretrainer.create(gpu, run));
  await failsWith('usage', /does not name the loss "siglip"/, () =>
    Pretrainer.create(gpu, presetRunConfig('nano-mel'), { losses: [siglip.default] }),
  );
  await failsWith('shape', /The loss "mine" builds \[8, 95, 32\], but must build one number/, () =>
    Pretrainer.create(gpu, run, { losses: [{ name: 'mine', build: ({ state }) => state }] }),
  );
  await failsWith('usage', /The loss "mine" throws at .*: it needs the conv front end/, () =>
    Pretrainer.create(gpu, run, {
      losses: [
        {
          name: 'mine',
          build: () => {
            throw new Error('it needs the conv front end');
          },
        },
      ],
    }),
  );
  await failsWith(
    'config',
    /extra_losses\.mine\.attach is 9, but must be at most num_hidden_layers \(2\)/,
    () =>
      presetRunConfig('nano-mel', {
        mgf: { extra_losses: { mine: { weight: 1, attach: 9, start_step: 0 } } },
      }),
  );
});

test.run();
