/** Section: a small network trained on the sounds of the page, a step at a time. */
import {
  learningRate,
  measureRivals,
  Pretrainer,
  rivalBatches,
  rivalName,
  SCALES,
  writeSafetensors,
  MGFError,
  type Rivals,
  type RunConfig,
  type Scale,
  type StepMetrics,
} from '../src/index.ts';
import type { Gpu } from '../src/gpu/device.ts';
import { CHECKPOINT_FORMAT } from '../src/mgf/stored-config.ts';
import { drawBatch, planRun } from './batches.ts';
import { curve } from './charts.ts';
import type { Clips } from './clips.ts';
import type { DeviceHost } from './device.ts';
import { breath, byId, el, figures, Status } from './dom.ts';

/** Curves are drawn anew at most this often. */
const REDRAW_MS = 400;

const NAMES: Readonly<Record<Scale, { title: string; unit: string; says: string }>> = {
  sample: { title: 'Sample scale', unit: 'L1', says: 'rebuild the waveform' },
  frame: { title: 'Frame scale', unit: 'L1', says: 'rebuild the spectrum of every frame' },
  phoneme: { title: 'Phoneme scale', unit: 'InfoNCE, nats', says: 'tell a hidden stretch from others' },
  sentence: { title: 'Sentence scale', unit: 'NT-Xent, nats', says: 'tell which two crops belong together' },
};

interface Run {
  config: RunConfig;
  rivals: Rivals;
  steps: StepMetrics[];
  parameters: number;
  stepsPerSecond: number;
}

export function trainingSection(clips: Clips, host: DeviceHost): void {
  const button = byId<HTMLButtonElement>('train');
  const save = byId<HTMLButtonElement>('train-save');
  const status = new Status('train-status');
  const preset = byId<HTMLSelectElement>('train-preset');
  const steps = byId<HTMLInputElement>('train-steps');
  const crop = byId<HTMLSelectElement>('train-crop');
  let gpu: Gpu | null = null;
  let running = false;
  let model: { pretrainer: Pretrainer; gpu: Gpu; run: Run } | null = null;

  /** Cleared by the button. */
  const go = { on: false };

  const enable = (): void => {
    button.disabled = !gpu || (clips.list.length === 0 && !running);
    button.textContent = running ? 'Stop' : 'Train';
    save.disabled = running || !model;
    for (const control of [preset, steps, crop]) control.disabled = running;
    if (!running && clips.list.length === 0) status.say('Add a sound first.');
    else if (!running && byId('train-status').textContent === 'Add a sound first.') status.say('');
  };
  clips.onChange(enable);
  host.onChange((now) => {
    gpu = now;
    if (!now) model = null;
    // Software takes seconds for what a graphics card does in milliseconds.
    if (now?.profile.kind === 'cpu') crop.value = '0.96';
    enable();
  });
  enable();

  const train = async (device: Gpu): Promise<void> => {
    const total = Math.max(5, Math.min(20000, Math.round(Number(steps.value)) || 300));
    steps.value = String(total);
    const plan = planRun(
      clips.list.map((c) => c.wave),
      preset.value,
      Number(crop.value),
      total,
    );
    const { mgf, train: settings } = plan.run;
    model?.pretrainer.destroy();
    model = null;
    status.busy('Compiling the training step: kernels, memory plan, one submission for everything.');
    // The crops of the first steps, drawn once more for the steps themselves.
    const crops = Array.from({ length: rivalBatches(2 * settings.utterances_per_batch) }, (_, step) =>
      drawBatch(plan, step),
    );
    const rivals = measureRivals(mgf, settings.utterances_per_batch, crops);
    const pretrainer = await Pretrainer.create(device, plan.run);
    const run: Run = {
      config: plan.run,
      rivals,
      steps: [],
      parameters: pretrainer.info.parameters,
      stepsPerSecond: NaN,
    };
    model = { pretrainer, gpu: device, run };
    const stretches =
      `${plan.pieces.length} stretches of sound, crops of ${settings.crop_seconds} s, ` +
      `${2 * settings.utterances_per_batch} a step`;
    status.say(`Training on ${stretches}.`);
    let drawn = 0;
    let since = performance.now();
    let done = 0;
    while (go.on && run.steps.length < total) {
      const step = run.steps.length;
      run.steps.push(
        await pretrainer.step([drawBatch(plan, step)], {
          step,
          learningRate: learningRate(step, total, settings.learning_rate, settings.warmup),
        }),
      );
      const now = performance.now();
      done++;
      if (now - drawn > REDRAW_MS) {
        run.stepsPerSecond = (1000 * done) / (now - since);
        // The rate is of the last seconds, not of the first step, which warms caches.
        if (now - since > 4000 || step === 0) {
          since = now;
          done = 0;
        }
        drawn = now;
        draw(run);
      }
      await breath();
    }
    if (run.steps.length === 0) {
      status.say('Stopped before the first step.');
      return;
    }
    draw(run);
    const heard = run.steps.length * pretrainer.rows * settings.crop_seconds;
    status.say(
      `${run.steps.length < total ? 'Stopped after' : 'Done:'} ${run.steps.length} steps, ` +
        `${figures(heard)} seconds of crops, by ` +
        `${Object.values(mgf.loss_weights).filter((w) => w > 0).length} scales.`,
    );
  };

  button.addEventListener('click', () => {
    if (running) {
      go.on = false;
      status.busy('Stopping after this step.');
      return;
    }
    if (!gpu) return;
    const device = gpu;
    running = go.on = true;
    enable();
    void train(device)
      .catch((error: unknown) => {
        model = null;
        if (host.current(device)) status.fail(error);
        else
          status.fail(
            new MGFError(
              'device-lost',
              'the training ended because its device was lost, and its weights with it; press Train to ' +
                'begin anew',
            ),
          );
      })
      .finally(() => {
        running = false;
        enable();
      });
  });

  save.addEventListener(
    'click',
    () =>
      void (async () => {
        if (!model) return;
        try {
          status.busy('Reading the weights.');
          const { pretrainer, run } = model;
          const { parameters } = await pretrainer.state();
          // What a checkpoint says of itself, so that the command line reads the file.
          const file = writeSafetensors(parameters, {
            format: CHECKPOINT_FORMAT,
            step: String(run.steps.length),
            seed: String(run.config.train.seed),
            config: JSON.stringify(run.config.mgf),
            train_config: JSON.stringify(run.config.train),
          });
          const address = URL.createObjectURL(new Blob([file as Uint8Array<ArrayBuffer>]));
          const link = el('a', { href: address, download: 'mgf-page.safetensors' });
          link.click();
          setTimeout(() => URL.revokeObjectURL(address), 60_000);
          status.say(
            'Saved as mgf-page.safetensors; mgf embed FILES --checkpoint mgf-page.safetensors reads it.',
          );
        } catch (error) {
          status.fail(error);
        }
      })(),
  );
}

const reference = (value: number | undefined, name: string) =>
  value === undefined ? {} : { reference: { value, name } };

function draw({ config: { mgf, train }, rivals, steps, parameters, stepsPerSecond }: Run): void {
  const scales = SCALES.filter((s) => mgf.loss_weights[s] > 0);
  const last = steps.at(-1)!;
  const facts = byId('train-facts');
  const audio = stepsPerSecond * 2 * train.utterances_per_batch * train.crop_seconds;
  const values: Array<[string, string]> = [
    ['step', `${steps.length.toLocaleString('en-US')} of ${train.steps.toLocaleString('en-US')}`],
    ['steps a second', figures(stepsPerSecond)],
    ['audio, times real time', figures(audio)],
    ['loss, all scales', figures(last.total)],
    ['parameters', parameters.toLocaleString('en-US')],
  ];
  facts.hidden = false;
  facts.replaceChildren(
    ...values.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))),
  );
  const box = byId('train-figures');
  box.className = 'figures many';
  box.replaceChildren(
    ...scales.map((s) =>
      el(
        'figure',
        { 'data-scale': s },
        el('h3', {}, NAMES[s].title),
        curve({
          label: `${NAMES[s].title}, loss`,
          unit: NAMES[s].unit,
          values: steps.map((m) => m[s]),
          ...reference(rivals[s], rivalName(s, mgf.objectives)),
        }),
        el('figcaption', {}, `Learns to ${NAMES[s].says}.`),
      ),
    ),
    el(
      'figure',
      {},
      el('h3', {}, 'Hidden stretches found'),
      curve({
        label: 'Share of hidden stretches found',
        unit: 'of masked frames',
        values: steps.map((m) => m.accuracy),
        ...reference(rivals.accuracy, 'chance'),
        share: true,
      }),
      el(
        'figcaption',
        {},
        `Which of ${mgf.num_negatives + 1} candidates belongs where the network was deafened.`,
      ),
    ),
  );
}
