/**
 * Training of a head on fixed features, on the device: AdamW, early stopping and the choice of a learning
 * rate on the development split.
 */
import { Purpose } from '../../random/purposes.ts';
import type { HeadBatch } from './head.ts';
import { permutation, stream } from '../../random/stream.ts';
import { Graph, type Value } from '../../graph/graph.ts';
import { initialValues, type MGFParameter } from '../../mgf/weights.ts';
import { Weights } from '../../nn/weights.ts';
import { crossEntropy } from '../../ops/losses/cross-entropy.ts';
import { ctcLoss } from '../../ops/losses/ctc.ts';
import { reshape } from '../../ops/elementwise.ts';
import { grad } from '../../ops/grad.ts';
import { adamw, biasCorrections } from '../../optim/adamw.ts';
import { ProgramCache } from '../../plan/cache.ts';
import { compile } from '../../plan/compile.ts';
import { ParameterStore, type HostTensor, type StoreBuffer } from '../../plan/parameters.ts';
import type { Gpu } from '../../gpu/device.ts';
import { inputsOf, type HostArray, type Program } from '../../plan/program.ts';
import type { Region } from '../../plan/storage.ts';
import { classifierLogits, classifierParameters, headStates, headWidth, type HeadSpec } from './head.ts';

/** How good a head is on the development split: the larger score wins, then the smaller loss. */
export interface DevScore {
  readonly score: number;
  readonly loss: number;
}

export interface HeadTraining {
  readonly seed: number;
  readonly learningRates: readonly number[];
  /** The batches of an epoch, in any order. */
  readonly batches: number;
  readonly batch: (index: number, epoch: number) => HeadBatch;
  /** Epochs that each learning rate is tried for, at most. */
  readonly trialEpochs: number;
  /**
   * Epochs that the best of them goes on for, and again at a third and a ninth of it, at most; 0: the trial
   * was all.
   */
  readonly moreEpochs: number;
  /** Epochs between scores. */
  readonly evaluateEvery: number;
  /** Scores without a better one before training ends. */
  readonly patience: number;
  readonly score: (trainer: HeadTrainer) => Promise<DevScore>;
  /** Epochs done and how many there can be. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Shapes whose programs are kept, of training and of evaluation each. */
const PROGRAMS = 16;

/** At one score a loss must fall by so much to be worth going on for. */
const WORTH = 0.01;

const better = (a: DevScore, b: DevScore): boolean =>
  a.score > b.score || (a.score === b.score && a.loss < b.loss);

/** A classifier with its moments on the device, and the programs that train and run it. */
export class HeadTrainer {
  readonly spec: HeadSpec;
  readonly #gpu: Gpu;
  readonly #parameters: readonly MGFParameter[];
  readonly #store: ParameterStore;
  readonly #training = new ProgramCache(PROGRAMS);
  readonly #evaluation = new ProgramCache(PROGRAMS);
  #steps = 0;

  constructor(gpu: Gpu, spec: HeadSpec) {
    this.#gpu = gpu;
    this.spec = spec;
    this.#parameters = classifierParameters(spec);
    this.#store = new ParameterStore(gpu, this.#parameters, 'training');
  }

  /** Starting values from a seed. */
  reset(seed: number): void {
    this.load(initialValues(this.#parameters, seed));
  }

  /** Moments are forgotten. */
  load(parameters: ReadonlyMap<string, HostTensor>): void {
    this.#store.load(parameters);
    const encoder = this.#gpu.device.createCommandEncoder();
    for (const name of ['gradients', 'expAvg', 'expAvgSq'] as const)
      encoder.clearBuffer(this.#store.flat(name).buffer);
    this.#gpu.device.queue.submit([encoder.finish()]);
    this.#steps = 0;
  }

  save(): Promise<Map<string, HostTensor>> {
    return this.#store.save();
  }

  /** One AdamW step; resolves when the device is done with it. */
  async step(batch: HeadBatch, learningRate: number): Promise<void> {
    const corrections = biasCorrections(++this.#steps);
    const program = await this.#training.get(key(batch), () => this.#compile(batch, true));
    await program.step(inputsOf(program, inputs(batch)), { lr: learningRate, ...corrections });
  }

  /** Logits [...shape, classes] and the mean loss of a batch. */
  async run(batch: HeadBatch): Promise<{ logits: Float32Array; loss: number }> {
    const program = await this.#evaluation.get(key(batch), () => this.#compile(batch, false));
    const { logits, loss } = await program.step(inputsOf(program, inputs(batch)));
    return { logits: logits as Float32Array, loss: loss![0]! };
  }

  #compile(batch: HeadBatch, training: boolean): Promise<Program> {
    const { spec } = this;
    const store = this.#store;
    const graph = new Graph();
    const place = new Map<Value, Region>();
    const parameters = store.declare(graph);
    for (const [name, value] of parameters) place.set(value, store.region(name));
    const input = (name: string, shape: readonly number[]): Value => graph.input(name, shape, 'i32');
    const logits = classifierLogits(
      new Weights(parameters),
      headStates(spec).map((_, i) => graph.input(`features ${i}`, [...batch.shape, headWidth(spec)])),
      spec,
    );
    const B = batch.shape[0]!;
    const loss =
      spec.task === 'asr'
        ? ctcLoss(
            logits,
            input('targets', [B, batch.labels]),
            input('input_lengths', [B]),
            input('target_lengths', [B]),
          )
        : crossEntropy(reshape(logits, [B, spec.classes]), input('labels', [B]));
    if (!training) return compile(this.#gpu, graph, { place, outputs: { logits, loss }, label: 'head' });
    grad(loss, [...parameters.values()]).forEach((g, i) =>
      place.set(g, store.region([...parameters.keys()][i]!, 'gradients')),
    );
    const [values, gradients, first, second] = (
      ['values', 'gradients', 'expAvg', 'expAvgSq'] as const satisfies StoreBuffer[]
    ).map((name) => {
      const flat = graph.state(name, [store.length]);
      place.set(flat, store.flat(name));
      return flat;
    });
    adamw(values!, gradients!, first!, second!, { decayCount: store.decayed });
    return compile(this.#gpu, graph, { place, label: 'head training' });
  }

  destroy(): void {
    this.#training.destroy();
    this.#evaluation.destroy();
    this.#store.destroy();
  }
}

const key = (batch: HeadBatch): string => [...batch.shape, batch.labels].join();
const inputs = ({ features, targets }: HeadBatch): Record<string, HostArray> => ({
  ...Object.fromEntries(features.map((x, i) => [`features ${i}`, x])),
  ...targets,
});

/** What a rate is divided by when the development score has stopped rising. */
const FURTHER = [1, 3, 9];

/**
 * Trains a head with each learning rate from the same start, goes on from the best state with the best rate,
 * then with smaller ones, each time until the development score stops rising, and leaves the best of all
 * scored states in the trainer.
 */
export async function trainHead(
  trainer: HeadTrainer,
  training: HeadTraining,
): Promise<{ learningRate: number; score: DevScore }> {
  const { seed, learningRates, trialEpochs, moreEpochs } = training;
  const worst: DevScore = { score: -Infinity, loss: Infinity };
  const total = learningRates.length * trialEpochs + FURTHER.length * moreEpochs;
  let best = worst;
  let learningRate = learningRates[0]!;
  let kept: ReadonlyMap<string, HostTensor> | undefined;
  let before = 0;
  const train = async (rate: number, epochs: number, start: DevScore): Promise<void> => {
    let top = start;
    let since = 0;
    for (let epoch = 0; epoch < epochs && since < training.patience; epoch++) {
      await trainEpoch(trainer, training, rate, before + epoch);
      if ((epoch + 1) % training.evaluateEvery !== 0 && epoch + 1 < epochs) continue;
      const score = await training.score(trainer);
      training.onProgress?.(before + epoch + 1, total);
      since++;
      if (score.score > top.score || (score.score === top.score && score.loss < (1 - WORTH) * top.loss))
        [top, since] = [score, 0];
      if (better(score, best)) [best, learningRate, kept] = [score, rate, await trainer.save()];
    }
    before += epochs;
  };
  for (const rate of learningRates) {
    trainer.reset(seed);
    await train(rate, trialEpochs, worst);
  }
  const chosen = learningRate;
  for (const divisor of moreEpochs > 0 ? FURTHER : []) {
    if (kept) trainer.load(kept);
    await train(chosen / divisor, moreEpochs, best);
  }
  if (kept) trainer.load(kept);
  return { learningRate: chosen, score: best };
}

/** The next batch is made while the device works. */
async function trainEpoch(
  trainer: HeadTrainer,
  { seed, batches, batch }: HeadTraining,
  rate: number,
  epoch: number,
): Promise<void> {
  let before: Promise<void> | undefined;
  for (const index of permutation(batches, stream(seed, Purpose.HeadBatchOrder, { step: epoch }))) {
    const next = batch(index, epoch);
    await before;
    before = trainer.step(next, rate);
  }
  await before;
}
