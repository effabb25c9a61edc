/**
 * A network and its head in training on one device: parameters, moments and the compiled step. Safe in a
 * browser.
 */
import { Purpose } from '../../random/purposes.ts';
import { spanMask } from '../../audio/sampling.ts';
import { stream } from '../../random/stream.ts';
import type { Gpu } from '../../gpu/device.ts';
import { ancestors } from '../../graph/autograd.ts';
import type { Graph, Value } from '../../graph/graph.ts';
import type { MGFConfig } from '../../mgf/config.ts';
import { wav2vec2Names } from '../../mgf/encoder.ts';
import { framesOf } from '../../mgf/network.ts';
import { mgfParameters } from '../../mgf/weights.ts';
import { crossEntropy } from '../../ops/losses/cross-entropy.ts';
import { ctcLoss } from '../../ops/losses/ctc.ts';
import { reshape } from '../../ops/elementwise.ts';
import { grad } from '../../ops/grad.ts';
import { scalar } from '../../launch/dispatch.ts';
import { adamw, biasCorrections } from '../../optim/adamw.ts';
import { clipCoefficient, gradNorm } from '../../optim/clip.ts';
import { ProgramCache } from '../../plan/cache.ts';
import { compile } from '../../plan/compile.ts';
import { ParameterStore, type HostTensor, type StoreBuffer } from '../../plan/parameters.ts';
import { inputsOf, type HostArray, type Program } from '../../plan/program.ts';
import { headParameters, type HeadSpec } from '../probe/head.ts';
import { taskGraph, taskInputs, TaskNetwork, type TaskParts, type TaskShape } from './predict.ts';

type Tensors = ReadonlyMap<string, HostTensor>;

/** What a step needs to know. */
export interface FineTuneSettings {
  readonly seed: number;
  /** Of hidden states and attention weights. */
  readonly dropout: number;
  /**
   * Coverage of the spans of frames that are replaced by the mask vector, and their length in frames:
   * SpecAugment's masking in time (Park et al. 2019).
   */
  readonly maskProbability: number;
  readonly maskLength: number;
  readonly weightDecay: number;
  /** The gradient norm of network and head together is clipped to this. */
  readonly maxGradNorm: number;
}

/**
 * A recording of a batch and what should come out: a class (speaker, emotion), the class of each frame with
 * -1 for none (phoneme), labels of CTC (asr).
 */
export interface Example {
  /** Mono, 16 kHz, at least 400 samples. */
  readonly clip: Float32Array;
  readonly target: number | ArrayLike<number>;
}

export interface FineTuneMetrics {
  readonly loss: number;
  /** Of network and head together, before clipping. */
  readonly gradNorm: number;
  /** The gradient was not finite: nothing was changed. */
  readonly skipped: boolean;
}

/** Programs kept, one a shape of batch. */
const PROGRAMS = 12;
const BETAS = [0.9, 0.98] as const;

export class FineTuner {
  /** The network as it is now, without dropout and masks. */
  readonly network: TaskNetwork;
  readonly #gpu: Gpu;
  readonly #parts: TaskParts;
  readonly #settings: FineTuneSettings;
  readonly #programs = new ProgramCache(PROGRAMS);

  private constructor(gpu: Gpu, parts: TaskParts, settings: FineTuneSettings) {
    this.#gpu = gpu;
    this.#parts = {
      ...parts,
      config: { ...parts.config, hidden_dropout: settings.dropout, attention_dropout: settings.dropout },
    };
    this.#settings = settings;
    this.network = new TaskNetwork(gpu, parts);
  }

  /** From weights by checkpoint name. Throws MGFError 'checkpoint' for weights of another network. */
  static create(
    gpu: Gpu,
    model: {
      readonly config: MGFConfig;
      readonly spec: HeadSpec;
      readonly encoder: Tensors;
      readonly head: Tensors;
    },
    settings: FineTuneSettings,
  ): FineTuner {
    const { config, spec } = model;
    const encoder = new ParameterStore(gpu, mgfParameters(config, []), 'training');
    const head = new ParameterStore(gpu, headParameters(spec), 'training');
    const tuner = new FineTuner(gpu, { config, spec, encoder, head }, settings);
    try {
      tuner.load(model);
    } catch (error) {
      tuner.destroy();
      throw error;
    }
    return tuner;
  }

  /** Numbers that are trained. */
  get parameters(): number {
    return this.#parts.encoder.count + this.#parts.head.count;
  }

  /** Takes weights by checkpoint name; the optimiser's moments are forgotten. */
  load({ encoder, head }: { readonly encoder: Tensors; readonly head: Tensors }): void {
    this.#parts.encoder.load(wav2vec2Names(encoder), 'values', (name) => name === 'masked_spec_embed');
    this.#parts.head.load(head);
    const commands = this.#gpu.device.createCommandEncoder();
    for (const store of [this.#parts.encoder, this.#parts.head])
      for (const name of ['gradients', 'expAvg', 'expAvgSq'] as const)
        commands.clearBuffer(store.flat(name).buffer);
    this.#gpu.device.queue.submit([commands.finish()]);
  }

  /** The weights, copied to the host. */
  async weights(): Promise<{ encoder: Map<string, HostTensor>; head: Map<string, HostTensor> }> {
    return { encoder: await this.#parts.encoder.save(), head: await this.#parts.head.save() };
  }

  /**
   * One update from a batch, padded to `samples` samples a row and for asr `labels` labels a target; each
   * shape is compiled once. `step` counts updates from 0, and with the seed decides masks and dropout. A
   * learning rate of 0 leaves its part as it is.
   */
  async step(
    examples: readonly Example[],
    pad: { readonly samples: number; readonly labels: number },
    at: { readonly step: number; readonly rate: number; readonly headRate: number },
  ): Promise<FineTuneMetrics> {
    const shape = { rows: examples.length, samples: pad.samples, ragged: true };
    const { seed } = this.#settings;
    const program = await this.#programs.get(`${shape.rows} x ${shape.samples}, ${pad.labels}`, () =>
      this.#compile(shape, pad.labels),
    );
    const result = await program.step(inputsOf(program, this.#inputs(examples, pad, at.step)), {
      lr: at.rate,
      [HEAD_RATE]: at.headRate,
      ...biasCorrections(at.step + 1, BETAS),
      seed_lo: seed >>> 0,
      seed_hi: Math.floor(seed / 2 ** 32) >>> 0,
      step: at.step,
    });
    const norm = result['gradNorm']![0]!;
    return { loss: result['loss']![0]!, gradNorm: norm, skipped: !Number.isFinite(norm) };
  }

  #inputs(
    examples: readonly Example[],
    { samples, labels }: { samples: number; labels: number },
    step: number,
  ): Record<string, HostArray> {
    const { config, spec } = this.#parts;
    const { seed, maskProbability, maskLength } = this.#settings;
    const T = framesOf(samples, config);
    const clips = examples.map(({ clip }) => clip);
    const frames = clips.map((clip) => framesOf(clip.length, config));
    const spans = new Float32Array(examples.length * T);
    frames.forEach((n, row) =>
      spans.set(
        spanMask(
          T,
          n,
          { probability: maskProbability, length: maskLength, minMasks: 0 },
          stream(seed, Purpose.FineTuneMask, { step, row }),
        ),
        row * T,
      ),
    );
    const targets = (width: number, filler: number): Int32Array<ArrayBuffer> => {
      const all = new Int32Array(examples.length * width).fill(filler);
      examples.forEach(({ target }, row) => all.set(Array.from(target as ArrayLike<number>), row * width));
      return all;
    };
    const inputs = { ...taskInputs(config, clips, samples), spans };
    if (spec.task === 'asr') {
      const lengths = Int32Array.from(examples, ({ target }) => (target as ArrayLike<number>).length);
      return {
        ...inputs,
        targets: targets(labels, 1),
        target_lengths: lengths,
        frames: Int32Array.from(frames),
      };
    }
    if (spec.task === 'phoneme')
      return { ...inputs, targets: targets(T, IGNORED).map((label) => (label < 0 ? IGNORED : label)) };
    return { ...inputs, targets: Int32Array.from(examples, ({ target }) => target as number) };
  }

  #compile(shape: TaskShape, labels: number): Promise<Program> {
    const built = taskGraph(this.#gpu, this.#parts, shape, true);
    const { graph, parameters, place } = built;
    const loss = graph.scope('loss', () => taskLoss(built.graph, built.logits, this.#parts.spec, labels));
    const reached = ancestors(loss);
    const flat = (store: ParameterStore, which: string, name: StoreBuffer): Value => {
      const value = graph.state(`${which} ${name}`, [store.length]);
      place.set(value, store.flat(name));
      return value;
    };
    // Layers above the one that the head reads have no gradient: their part of the buffer stays 0.
    const trained = (['encoder', 'head'] as const).flatMap((which) =>
      [...parameters[which]]
        .filter(([, value]) => reached.has(value))
        .map(([name, value]) => ({ which, name, value })),
    );
    grad(
      loss,
      trained.map(({ value }) => value),
    ).forEach((g, i) => place.set(g, this.#parts[trained[i]!.which].region(trained[i]!.name, 'gradients')));
    const norm = graph.scope('optimiser', () => {
      const gradients = {
        encoder: flat(this.#parts.encoder, 'encoder', 'gradients'),
        head: flat(this.#parts.head, 'head', 'gradients'),
      };
      const total = gradNorm([gradients.encoder, gradients.head]);
      const { weightDecay, maxGradNorm } = this.#settings;
      const coefficient = clipCoefficient(total, maxGradNorm);
      for (const [which, lr] of [
        ['encoder', scalar('lr')],
        ['head', scalar(HEAD_RATE)],
      ] as const) {
        const store = this.#parts[which];
        const state = (name: StoreBuffer): Value => flat(store, which, name);
        adamw(
          state('values'),
          gradients[which],
          state('expAvg'),
          state('expAvgSq'),
          { betas: BETAS, weightDecay, decayCount: store.decayed, lr },
          coefficient,
        );
      }
      return total;
    });
    return compile(this.#gpu, graph, { place, outputs: { loss, gradNorm: norm }, label: 'fine-tuning step' });
  }

  destroy(): void {
    this.network.destroy();
    this.#programs.destroy();
    this.#parts.encoder.destroy();
    this.#parts.head.destroy();
  }
}

/** Per-step scalar: the head's learning rate. */
const HEAD_RATE = 'head_lr';
/** Target of a frame that does not count. */
const IGNORED = -100;

/**
 * Loss of a task's logits -> [1]. Inputs: `targets` i32, [R, labels] for asr with `target_lengths` and
 * `frames` i32 [R], [R T] for phoneme (-100 = does not count), else [R].
 */
function taskLoss(graph: Graph, logits: Value, { task }: HeadSpec, labels: number): Value {
  const R = logits.shape[0]!;
  const ints = (name: string, ...shape: number[]): Value => graph.input(name, shape, 'i32');
  if (task === 'asr')
    return ctcLoss(logits, ints('targets', R, labels), ints('frames', R), ints('target_lengths', R));
  if (task === 'phoneme')
    return crossEntropy(
      reshape(logits, [R * logits.shape[1]!, logits.shape[2]!]),
      ints('targets', R * logits.shape[1]!),
      { ignoreIndex: IGNORED },
    );
  return crossEntropy(logits, ints('targets', R));
}
