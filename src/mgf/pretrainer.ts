import { LossInputs, type Columns } from './loss-inputs.ts';
import { Purpose } from '../random/purposes.ts';
import { stream } from '../random/stream.ts';
import { anchorCapacity, negativeIndices } from '../audio/sampling.ts';
import type { Batch } from '../audio/source.ts';
import { nearestName } from '../edit-distance.ts';
import { checkArguments, checkOptions, GPU, RUN } from '../check.ts';
import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import { type Value } from '../graph/graph.ts';
import type { Shape } from '../graph/shape.ts';
import { biasCorrections } from '../optim/adamw.ts';
import { compile } from '../plan/compile.ts';
import { ParameterStore, type HostTensor, type StoreBuffer } from '../plan/parameters.ts';
import { inputsOf, type HostArray, type Program } from '../plan/program.ts';
import type { Region } from '../plan/storage.ts';
import type { RunConfig, Scale } from './config.ts';
import { chosenLosses, extraParameters, type TrainingLoss } from './extra-losses.ts';
import { framesOf, wantsFlash } from './network.ts';
import { activeScales, pretrainingGraph, weightScalar, type BatchShape } from './pretraining.ts';
import { initialValues, mgfParameters } from './weights.ts';
import {
  declare,
  LOSS_SCALE,
  LOSS_UNSCALE,
  stepGraph,
  compileStep,
  compileUpdate,
  batchInputs,
} from './step-program.ts';

/** Losses of a step; a scale that is switched off is NaN. */
export interface StepMetrics extends Record<Scale, number> {
  total: number;
  /** Share of masked frames whose positive beats every negative; NaN without the phoneme scale. */
  accuracy: number;
  /** Global gradient norm before clipping. */
  gradNorm: number;
  /** Losses that were brought, by name. */
  extra: Readonly<Record<string, number>>;
  /** The gradient was not finite: parameters and moments were left as they were. */
  skipped: boolean;
}

type Tensors = ReadonlyMap<string, HostTensor>;

/** What training changes, in PyTorch's layouts and names. */
export interface MomentState {
  parameters: Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>;
  expAvg: Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>;
  expAvgSq: Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>;
}

/** What a `Pretrainer` begins with. */
export interface PretrainerOptions {
  /**
   * Continue from here: parameters, or parameters and moments. Default: random weights from the run's seed.
   */
  readonly state?: { readonly parameters: Tensors; readonly expAvg?: Tensors; readonly expAvgSq?: Tensors };
  /**
   * Begin with these parameters, moments at zero; those that are not among them (heads that were not handed
   * on) are random.
   */
  readonly init?: Tensors | undefined;
  /** Those that `extra_losses` of the configuration names. */
  readonly losses?: readonly TrainingLoss[] | undefined;
  /** Columns of the recordings, for losses that read some (`columnsOf`). */
  readonly columns?: Columns | undefined;
}

/** MGF in pre-training on one device: parameters, moments and the compiled step. */
export class Pretrainer {
  /** L: samples of a crop. T: its frames. R = 2B rows. */
  readonly samplesPerCrop: number;
  readonly framesPerCrop: number;
  readonly rows: number;
  readonly anchorCapacity: number;
  readonly #gpu: Gpu;
  readonly #run: RunConfig;
  readonly #scales: readonly Scale[];
  readonly #extra: readonly TrainingLoss[];
  readonly #given: LossInputs;
  readonly #store: ParameterStore;
  readonly #step: Program;
  /** The optimiser's part, apart where several micro-batches come before it. */
  readonly #update: Program | null;
  #evaluation: Promise<Program> | null = null;

  private constructor(
    gpu: Gpu,
    run: RunConfig,
    extra: readonly TrainingLoss[],
    given: LossInputs,
    shape: BatchShape,
    store: ParameterStore,
    step: Program,
    update: Program | null,
  ) {
    checkArguments('Pretrainer (made by Pretrainer.create)', {
      gpu: [gpu, GPU],
      run: [run, RUN],
      shape: [shape, 'an object'],
    });
    this.#gpu = gpu;
    this.#run = run;
    this.#scales = activeScales(run.mgf);
    this.#extra = extra;
    this.#given = given;
    this.#store = store;
    this.#step = step;
    this.#update = update;
    this.samplesPerCrop = shape.L;
    this.framesPerCrop = framesOf(shape.L, run.mgf);
    this.rows = shape.R;
    this.anchorCapacity = shape.N;
  }

  /**
   * Compiles the training step. Throws MGFError 'config' without an active loss, 'usage' for precision f16
   * where the device has none, 'limit' or 'out-of-memory' where the batch is too large, 'checkpoint' for a
   * state of another configuration.
   */
  static async create(gpu: Gpu, run: RunConfig, options: PretrainerOptions = {}): Promise<Pretrainer> {
    checkArguments('Pretrainer.create', { gpu: [gpu, GPU], run: [run, RUN] });
    checkOptions('Pretrainer.create', options, {
      state: 'an object?',
      init: 'a Map?',
      losses: 'a list?',
      columns: 'a Map?',
    });
    const { mgf, train } = run;
    const scales = activeScales(mgf);
    const extra = chosenLosses(mgf, options.losses ?? []);
    const given = new LossInputs(options.columns);
    if (!scales.length && !extra.length)
      throw new MGFError(
        'config',
        'every loss has weight 0, so there is nothing to train; give loss_weights.sample, frame, ' +
          'phoneme or sentence a weight above 0',
      );
    const R = 2 * train.utterances_per_batch;
    const L = Math.round(train.crop_seconds * mgf.sample_rate);
    const T = framesOf(L, mgf);
    const N = anchorCapacity(R, T, {
      probability: mgf.mask_time_prob,
      length: mgf.mask_time_length,
      minMasks: mgf.mask_time_min_masks,
    });
    const shape = { R, L, N, ragged: false };
    const micro = train.accumulation > 1;
    const parameters = [...mgfParameters(mgf, scales), ...extraParameters(mgf, extra, given)];
    const store = new ParameterStore(gpu, parameters, micro ? 'accumulation' : 'training');
    store.load(
      options.state?.parameters ??
        new Map([...initialValues(parameters, train.seed), ...(options.init ?? [])]),
    );
    if (options.state?.expAvg && options.state.expAvgSq) {
      store.load(options.state.expAvg, 'expAvg');
      store.load(options.state.expAvgSq, 'expAvgSq');
    }
    try {
      return new Pretrainer(
        gpu,
        run,
        extra,
        given,
        shape,
        store,
        await compileStep(gpu, run, shape, scales, { losses: extra, given }, store, micro),
        micro ? await compileUpdate(gpu, train, store) : null,
      );
    } catch (error) {
      store.destroy();
      throw error;
    }
  }

  /**
   * What was compiled: trained numbers, launches and pipelines of a step, bytes beside the parameters,
   * milliseconds of compiling.
   */
  get info(): {
    parameters: number;
    dispatches: number;
    pipelines: number;
    activationBytes: number;
    compileMs: number;
  } {
    const programs = this.#update ? [this.#step, this.#update] : [this.#step];
    const dispatches = programs.flatMap((p) => p.dispatches);
    const sum = (f: (p: Program) => number): number => programs.reduce((a, p) => a + f(p), 0);
    return {
      parameters: this.#store.count,
      dispatches: dispatches.length,
      pipelines: new Set(dispatches.map((d) => d.pipeline)).size,
      activationBytes: sum((p) => p.bytes),
      compileMs: sum((p) => p.compileMs),
    };
  }

  /** The compiled step, for plans, profiles and benchmarks. */
  get program(): Program {
    return this.#step;
  }

  /**
   * One optimiser update from `accumulation` micro-batches, whose gradients add up to those of the whole
   * batch: the phoneme loss is a mean over all masked frames, the others are means over rows. (The sentence
   * scale's negatives come from the micro-batch.) `step` counts updates from 0. Steps may be issued before
   * earlier ones have resolved. `lossScale` (a power of two, default 1): what the loss is multiplied by on
   * its way back, so that small gradients survive f16; neither parameters nor `gradNorm` show it, except that
   * too large a scale overflows and the step is skipped.
   */
  async step(
    batches: readonly Batch[],
    at: { readonly step: number; readonly learningRate: number; readonly lossScale?: number },
  ): Promise<StepMetrics> {
    const { mgf, train } = this.#run;
    const lossScale = at.lossScale ?? 1;
    if (batches.length !== train.accumulation)
      throw new MGFError('shape', `a step takes ${train.accumulation} micro-batches, got ${batches.length}`);
    const optimiser = {
      lr: at.learningRate,
      ...biasCorrections(at.step + 1, train.betas),
      [LOSS_SCALE]: lossScale,
      [LOSS_UNSCALE]: 1 / lossScale,
    };
    const maskedFrames = batches.reduce((sum, b) => sum + b.maskedFrames, 0);
    const shares = batches.map((b) => ({
      phoneme: b.maskedFrames / Math.max(1, maskedFrames),
      others: 1 / batches.length,
    }));
    const results = batches.map((batch, i) => {
      const weights: Record<string, number> = {};
      for (const s of this.#scales)
        weights[weightScalar(s)] =
          at.step < mgf.loss_start_steps[s]
            ? 0
            : mgf.loss_weights[s] * (s === 'phoneme' ? shares[i]!.phoneme : shares[i]!.others);
      for (const { name } of this.#extra) {
        const { weight, start_step } = mgf.extra_losses[name]!;
        weights[weightScalar(name)] = at.step < start_step ? 0 : weight * shares[i]!.others;
      }
      const draw = at.step * batches.length + i;
      return this.#step.step(
        inputsOf(this.#step, {
          ...batchInputs(batch),
          ...this.#given.inputs(batch),
          ...this.#frameNegatives(draw),
        }),
        {
          ...weights,
          ...this.#given.scalars(at.step),
          ...optimiser,
          ...this.#random(draw),
          keep: Number(i > 0),
        },
      );
    });
    const update = this.#update?.step({}, optimiser);
    const outputs = await Promise.all(results);
    const norm = ((await update) ?? outputs[0]!)['gradNorm']![0]! / lossScale;
    const mean = (name: string, share: 'phoneme' | 'others'): number =>
      outputs.reduce((sum, o, i) => sum + (o[name] ? o[name][0]! * shares[i]![share] : NaN), 0);
    return {
      sample: mean('sample', 'others'),
      frame: mean('frame', 'others'),
      phoneme: mean('phoneme', 'phoneme'),
      sentence: mean('sentence', 'others'),
      accuracy: mean('accuracy', 'phoneme'),
      total: outputs.reduce((sum, o) => sum + o['total']![0]!, 0),
      gradNorm: norm,
      skipped: !Number.isFinite(norm),
      extra: Object.fromEntries(this.#extra.map(({ name }) => [name, mean(name, 'others')])),
    };
  }

  /**
   * For a frame scale that learns by InfoNCE: K other frames of the row for every frame, as the phoneme scale
   * draws its own.
   */
  #frameNegatives(step: number): Record<string, HostArray> {
    const {
      mgf: { loss_weights, num_negatives, objectives },
      train,
    } = this.#run;
    if (loss_weights.frame === 0 || objectives.frame === 'l1') return {};
    const rows = Array<Uint8Array>(this.rows).fill(new Uint8Array(this.framesPerCrop).fill(1));
    return {
      frame_negatives: negativeIndices(
        rows,
        num_negatives,
        stream(train.seed, Purpose.FrameNegatives, { step }),
      ).negatives as Int32Array<ArrayBuffer>,
    };
  }

  #random(step: number): Record<string, number> {
    const { seed } = this.#run.train;
    return { seed_lo: seed >>> 0, seed_hi: Math.floor(seed / 2 ** 32) >>> 0, step };
  }

  /** Parameters and moments, copied to the host. */
  async state(): Promise<MomentState> {
    const save = (buffer: StoreBuffer): ReturnType<ParameterStore['save']> => this.#store.save(buffer);
    return {
      parameters: await save('values'),
      expAvg: await save('expAvg'),
      expAvgSq: await save('expAvgSq'),
    };
  }

  /**
   * Reconstructions of a batch without dropout, and their targets: waveforms [R, 320 T] (sample scale) and
   * normalised log-mel [R, T, 2 n_mels] (frame scale). A scale that is switched off, or that reconstructs
   * nothing (`objectives`), gives an empty reconstruction.
   */
  async reconstruct(batch: Batch): Promise<{
    wave: Float32Array;
    waveTarget: Float32Array;
    logMel: Float32Array;
    logMelTarget: Float32Array;
    frames: number;
  }> {
    const program = await this.#evaluate(batch);
    const L = this.samplesPerCrop;
    const length = 320 * this.framesPerCrop;
    const waveTarget = new Float32Array(this.rows * length);
    for (let r = 0; r < this.rows; r++)
      waveTarget.set(batch.wave.subarray(r * L + 40, r * L + 40 + length), r * length);
    const read = async (name: string, scale: Scale, there = true): Promise<Float32Array> =>
      there && this.#scales.includes(scale)
        ? ((await program.read(name)) as Float32Array)
        : new Float32Array();
    return {
      wave: await read('reconstruction', 'sample'),
      waveTarget,
      logMel: await read('predicted_log_mel', 'frame', this.#run.mgf.objectives.frame === 'l1'),
      logMelTarget: (await program.read('log_mel_target')) as Float32Array,
      frames: this.framesPerCrop,
    };
  }

  /**
   * z [R T, C] and the last hidden state [R T, D] of a batch without dropout and masks: what the health
   * checks look at.
   */
  async representations(
    batch: Batch,
  ): Promise<{ z: Float32Array; zWidth: number; context: Float32Array; contextWidth: number; rows: number }> {
    const program = await this.#evaluate(batch);
    const rows = this.rows * this.framesPerCrop;
    const z = (await program.read('z')) as Float32Array;
    const context = (await program.read('context')) as Float32Array;
    return { z, zWidth: z.length / rows, context, contextWidth: context.length / rows, rows };
  }

  /**
   * Values of a batch by the names that `program.toString()` shows, with dropout and masks as in training,
   * nothing updated: `loss.phoneme/cosine`, or `d NAME` for the gradient of one. Several tensors of one name:
   * the first. Compiles a program of its own. Throws MGFError 'usage' for a name that the graph has not, with
   * the nearest.
   */
  async values(
    batch: Batch,
    names: readonly string[],
  ): Promise<Map<string, { readonly shape: Shape; readonly data: HostArray }>> {
    const place = new Map<Value, Region>();
    const shape = { R: this.rows, L: this.samplesPerCrop, N: this.anchorCapacity, ragged: false };
    const { graph } = stepGraph(
      this.#gpu,
      this.#run,
      shape,
      this.#scales,
      { losses: this.#extra, given: this.#given },
      this.#store,
      place,
    );
    const computed = graph.values.filter((v) => v.kind === 'result');
    const keep = Object.fromEntries(
      names.map((name) => {
        const found = computed.find((v) => v.name === name);
        if (!found)
          throw new MGFError(
            'usage',
            `The graph has no value "${name}"; the nearest is "${nearestName(
              name,
              computed.map((v) => v.name),
            )}".`,
          );
        return [name, found];
      }),
    );
    const program = await compile(this.#gpu, graph, {
      place,
      keep,
      label: 'values',
      precision: this.#run.train.precision,
    });
    try {
      const weights = Object.fromEntries([
        ...this.#scales.map((s) => [weightScalar(s), this.#run.mgf.loss_weights[s]]),
        ...this.#extra.map(({ name }) => [weightScalar(name), this.#run.mgf.extra_losses[name]!.weight]),
      ]) as Record<string, number>;
      await program.step(
        inputsOf(program, {
          ...batchInputs(batch),
          ...this.#given.inputs(batch),
          ...this.#frameNegatives(0),
        }),
        {
          ...weights,
          ...this.#given.scalars(0),
          ...this.#random(0),
          [LOSS_SCALE]: 1,
        },
      );
      return new Map(
        await Promise.all(
          names.map(
            async (name) => [name, { shape: keep[name]!.shape, data: await program.read(name) }] as const,
          ),
        ),
      );
    } finally {
      program.destroy();
    }
  }

  async #evaluate(batch: Batch): Promise<Program> {
    this.#evaluation ??= this.#compileEvaluation();
    const program = await this.#evaluation;
    await program.step(
      inputsOf(program, { ...batchInputs(batch), spans: new Float32Array(this.rows * this.framesPerCrop) }),
    );
    return program;
  }

  async #compileEvaluation(): Promise<Program> {
    const place = new Map<Value, Region>();
    const shape = { R: this.rows, L: this.samplesPerCrop, N: this.anchorCapacity, ragged: false };
    const built = pretrainingGraph(
      this.#run.mgf,
      shape,
      this.#scales,
      (graph) => declare(this.#store, graph, place),
      false,
      wantsFlash(this.#run.mgf, this.#gpu.profile, shape.R, this.framesPerCrop),
      this.#extra,
      this.#given,
    );
    const { network, reconstruction, predictedLogMel, logMelTarget } = built;
    return compile(this.#gpu, built.graph, {
      place,
      label: 'evaluation',
      precision: this.#run.train.precision,
      keep: {
        z: network.z,
        context: network.states.at(-1)!,
        log_mel_target: logMelTarget,
        ...(reconstruction && { reconstruction }),
        ...(predictedLogMel && { predicted_log_mel: predictedLogMel }),
      },
    });
  }

  /** Frees everything on the device. */
  destroy(): void {
    this.#step.destroy();
    this.#update?.destroy();
    void this.#evaluation?.then(
      (p) => p.destroy(),
      () => undefined,
    );
    this.#store.destroy();
  }
}
