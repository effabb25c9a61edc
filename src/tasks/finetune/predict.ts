/** A network with a head, in use: recordings in, phones, voices, words or moods out. Safe in a browser. */
import { refuseBad } from '../../audio/samples.ts';
import { RECEPTIVE_FIELD, samplesOfFrames } from '../../audio/sampling.ts';
import { checkArguments, checkFields, checkOptions, CONFIG, GPU } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { atPrecision } from '../../gpu/adapter.ts';
import type { Gpu, Precision } from '../../gpu/device.ts';
import { Graph, type Value } from '../../graph/graph.ts';
import type { MGFConfig } from '../../mgf/config.ts';
import { melFrames, padded, paddedLength } from '../../mgf/encoder.ts';
import { encoder, framesOf, wantsFlash } from '../../mgf/network.ts';
import { mgfParameters } from '../../mgf/weights.ts';
import { Weights } from '../../nn/weights.ts';
import { logMelPairs } from '../../ops/log-mel.ts';
import { ProgramCache } from '../../plan/cache.ts';
import { compile } from '../../plan/compile.ts';
import { ParameterStore } from '../../plan/parameters.ts';
import { inputsOf, type HostArray, type Program } from '../../plan/program.ts';
import type { Region } from '../../plan/storage.ts';
import { bestClasses, CLIP_LOGITS, logSoftmaxRows, type ClipLogits } from '../decode/decode.ts';
import { headLogits, headParameters, type HeadSpec } from '../probe/head.ts';
import type { TaskModel } from './model.ts';
import type { Phone } from '../task.ts';

/** Compiled programs kept, one a shape of batch. */
const PROGRAMS = 8;

/** A network and its head, on the device. */
export interface TaskParts {
  readonly config: MGFConfig;
  readonly spec: HeadSpec;
  readonly encoder: ParameterStore;
  readonly head: ParameterStore;
}

/** Rows of `samples` samples each; `ragged`: padded, so that a row has its own number of real frames. */
export interface TaskShape {
  readonly rows: number;
  readonly samples: number;
  readonly ragged: boolean;
}

export interface TaskGraph {
  readonly graph: Graph;
  /** Frames of a row. */
  readonly frames: number;
  /** [rows, frames, C] for tasks that label frames, else [rows, C]. */
  readonly logits: Value;
  /** Encoder and head parameters by name. */
  readonly parameters: { readonly encoder: Map<string, Value>; readonly head: Map<string, Value> };
  readonly place: Map<Value, Region>;
}

/**
 * Encoder and head as a graph. Inputs: `wave` [rows, samples]; with `ragged` also `frame_mask` [rows, frames]
 * and `mel_frames` i32 [rows]; in training also `spans` [rows, frames] (1 = replaced by the mask vector).
 */
export function taskGraph(
  gpu: Gpu,
  { config, spec, encoder: body, head }: TaskParts,
  { rows: R, samples: L, ragged }: TaskShape,
  training: boolean,
): TaskGraph {
  const graph = new Graph();
  const T = framesOf(L, config);
  const place = new Map<Value, Region>();
  const declare = (store: ParameterStore): Map<string, Value> => {
    const values = store.declare(graph);
    for (const [name, value] of values) place.set(value, store.region(name));
    return values;
  };
  const parameters = { encoder: declare(body), head: declare(head) };
  const wave = graph.input('wave', [R, L]);
  const frameMask = ragged ? graph.input('frame_mask', [R, T]) : null;
  const mel =
    config.frontend === 'mel'
      ? logMelPairs(wave, {
          nMels: config.n_mels,
          frames: T,
          melFrames: ragged ? graph.input('mel_frames', [R], 'i32') : null,
          frameMask,
        }).features
      : null;
  const spanMask = training ? graph.input('spans', [R, T]) : null;
  const { states } = encoder(
    config,
    new Weights(parameters.encoder),
    { wave, mel, frameMask, spanMask },
    training,
    wantsFlash(config, gpu.profile, R, T),
  );
  const logits = headLogits(new Weights(parameters.head), states, spec, frameMask);
  return { graph, frames: T, logits, parameters, place };
}

/** The inputs of `taskGraph` for clips of at most `samples` samples, one a row. */
export function taskInputs(
  config: MGFConfig,
  clips: readonly Float32Array[],
  samples: number,
): Record<'wave' | 'frame_mask' | 'mel_frames', HostArray> {
  const T = framesOf(samples, config);
  const frames = clips.map((clip) => framesOf(clip.length, config));
  const mask = Float32Array.from({ length: clips.length * T }, (_, i) =>
    Number(i % T < frames[Math.floor(i / T)]!),
  );
  return { wave: padded(clips, samples), frame_mask: mask, mel_frames: melFrames(clips) };
}

/** A network with a head for inference. */
export class TaskNetwork {
  readonly parts: TaskParts;
  readonly #gpu: Gpu;
  readonly #precision: Precision | undefined;
  readonly #owns: boolean;
  readonly #programs = new ProgramCache(PROGRAMS);

  /** Over parameters that are on the device already: they stay the caller's, unless `owns`. */
  constructor(
    gpu: Gpu,
    parts: TaskParts,
    { precision, owns = false }: { readonly precision?: Precision | undefined; readonly owns?: boolean } = {},
  ) {
    checkArguments('TaskNetwork', { gpu: [gpu, GPU] });
    checkFields('TaskNetwork', 'parts.', parts, {
      config: CONFIG,
      spec: 'an object',
      encoder: 'an object',
      head: 'an object',
    });
    this.#gpu = gpu;
    this.parts = parts;
    this.#precision = precision;
    this.#owns = owns;
  }

  /**
   * From a task model (src/tasks/finetune/model.ts). Throws MGFError 'checkpoint', and 'usage' for precision
   * f16 where the device has none.
   */
  static create(
    gpu: Gpu,
    model: Pick<TaskModel, 'config' | 'spec' | 'encoder' | 'head'>,
    options: { readonly precision?: Precision | undefined } = {},
  ): TaskNetwork {
    checkArguments('TaskNetwork.create', { gpu: [gpu, GPU] });
    checkFields('TaskNetwork.create', 'model.', model, {
      config: CONFIG,
      spec: 'an object',
      encoder: 'a Map',
      head: 'a Map',
    });
    checkOptions('TaskNetwork.create', options, { precision: '"f32"|"f16"?' });
    const { config, spec, encoder: body, head } = model;
    atPrecision(gpu.profile, options.precision);
    const parts = {
      config,
      spec,
      encoder: new ParameterStore(gpu, mgfParameters(config, []), 'inference'),
      head: new ParameterStore(gpu, headParameters(spec), 'inference'),
    };
    const network = new TaskNetwork(gpu, parts, { ...options, owns: true });
    try {
      parts.encoder.load(body);
      parts.head.load(head);
    } catch (error) {
      network.destroy();
      throw error;
    }
    return network;
  }

  /**
   * Logits of clips (16 kHz mono, at least 400 samples) in one batch of `rows` rows of `samples` samples: by
   * default as many as there are clips, and as long as the longest. A caller who keeps to a few such shapes
   * spares compiling more. GroupNorm takes its statistics over time, so that networks with it run clip by
   * clip. Throws MGFError 'audio' for a clip that is too short, 'limit' where a batch is too large for the
   * adapter.
   */
  async logits(
    clips: readonly Float32Array[],
    {
      samples = paddedLength(clips),
      rows = clips.length,
    }: { readonly samples?: number; readonly rows?: number } = {},
  ): Promise<ClipLogits[]> {
    checkArguments('TaskNetwork.logits', { clips: [clips, 'a list'] });
    refuseBad(clips, 'its features would be those of silence; repair the signal.');
    const short = clips.find((clip) => clip.length < RECEPTIVE_FIELD);
    const { config } = this.parts;
    if (short)
      throw new MGFError(
        'audio',
        `a clip has ${short.length} samples; a frame needs at least ${RECEPTIVE_FIELD} (25 ms at 16 kHz).`,
      );
    if (config.frontend === 'mel' || config.feat_extract_norm === 'layer') {
      const filled = Array.from({ length: rows }, (_, i) => clips[i] ?? clips[0]!);
      return (await this.#run(filled, { rows, samples, ragged: true })).slice(0, clips.length);
    }
    const results: ClipLogits[] = [];
    for (const clip of clips)
      results.push(...(await this.#run([clip], { rows: 1, samples: clip.length, ragged: false })));
    return results;
  }

  async #run(clips: readonly Float32Array[], shape: TaskShape): Promise<ClipLogits[]> {
    const { config } = this.parts;
    const T = framesOf(shape.samples, config);
    const program = await this.#programs.get(`${shape.rows} x ${shape.samples} ${shape.ragged}`, () =>
      this.#compile(shape),
    );
    const all = (await program.step(inputsOf(program, taskInputs(config, clips, shape.samples))))[
      'logits'
    ] as Float32Array;
    const perRow = all.length / shape.rows;
    return clips.map((clip, i) => {
      const frames = framesOf(clip.length, config);
      return {
        frames,
        logits: all.slice(
          i * perRow,
          i * perRow + (this.parts.spec.pool === 'none' ? (perRow / T) * frames : perRow),
        ),
      };
    });
  }

  #compile(shape: TaskShape): Promise<Program> {
    const { graph, logits, place } = taskGraph(this.#gpu, this.parts, shape, false);
    return compile(this.#gpu, graph, {
      place,
      outputs: { logits },
      label: 'task network',
      ...(this.#precision && { precision: this.#precision }),
    });
  }

  /** Frees what the network owns on the device. */
  destroy(): void {
    this.#programs.destroy();
    if (!this.#owns) return;
    this.parts.encoder.destroy();
    this.parts.head.destroy();
  }
}

/**
 * Phones from the logits of frames: runs of one best class. Frame t sees the samples [320 t, 320 t + 400),
 * and stands for the 320 around its centre; the first and the last phone reach to the ends of the clip of
 * `samples` samples.
 */
export function decodePhones(clip: ClipLogits, samples: number): Phone[] {
  checkFields('decodePhones', 'clip.', clip, CLIP_LOGITS);
  checkArguments('decodePhones', { samples: [samples, 'a number'] });
  const { frames, logits } = clip;
  const best = bestClasses(logits, frames, logits.length / frames);
  const phones: Phone[] = [];
  for (let t = 0; t < frames;) {
    let end = t + 1;
    while (end < frames && best[end] === best[t]) end++;
    phones.push({ label: best[t]!, ...samplesOfFrames(t, end, frames, samples) });
    t = end;
  }
  return phones;
}

/** Softmax of the logits of a clip, [C]. */
export function classProbabilities(clip: ClipLogits): Float32Array {
  checkFields('classProbabilities', 'clip.', clip, CLIP_LOGITS);
  const { logits } = clip;
  return logSoftmaxRows(logits, logits.length).map(Math.exp);
}
