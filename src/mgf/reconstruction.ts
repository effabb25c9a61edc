/** What the small scales rebuild of a recording that they hear whole, unmasked. */
import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import type { Graph, Value } from '../graph/graph.ts';
import { compile } from '../plan/compile.ts';
import { ParameterStore, type HostTensor } from '../plan/parameters.ts';
import type { Region } from '../plan/storage.ts';
import type { MGFConfig, Scale } from './config.ts';
import { padded } from './encoder.ts';
import { framesOf } from './network.ts';
import { activeScales, pretrainingGraph } from './pretraining.ts';
import { mgfParameters } from './weights.ts';

/**
 * A recording and what was rebuilt of it. Spectrograms are log-mel frames every 10 ms, normalised over time,
 * row-major [frames, mels].
 */
export interface Reconstruction {
  readonly frames: number;
  readonly mels: number;
  readonly target: Float32Array;
  /** By the frame scale. */
  readonly logMel?: Float32Array;
  /** The normalised samples that the frames cover, and what the sample scale makes of them. */
  readonly wave: Float32Array;
  readonly waveReconstruction?: Float32Array;
}

/** The scales of a network that rebuild what they heard. */
export const rebuildingScales = (c: MGFConfig): Scale[] =>
  activeScales(c).filter((s) => s === 'sample' || (s === 'frame' && c.objectives.frame === 'l1'));

/** A network with the heads of these scales, on one device. */
export class Reconstructor {
  readonly #gpu: Gpu;
  readonly #config: MGFConfig;
  readonly #store: ParameterStore;

  /** Throws MGFError 'config' for a network that rebuilds nothing, 'checkpoint' where a weight is missing. */
  constructor(gpu: Gpu, config: MGFConfig, parameters: ReadonlyMap<string, HostTensor>) {
    const scales = rebuildingScales(config);
    if (scales.length === 0)
      throw new MGFError(
        'config',
        'this network rebuilds nothing: neither its sample scale is trained nor its frame scale by l1',
      );
    this.#gpu = gpu;
    this.#config = config;
    this.#store = new ParameterStore(gpu, mgfParameters(config, scales), 'inference');
    this.#store.load(parameters);
  }

  /**
   * Of one clip, 16 kHz mono. Compiles a program for its length. Throws MGFError 'audio' under 400 samples,
   * 'limit' where it is too long for the adapter.
   */
  async rebuild(clip: Float32Array): Promise<Reconstruction> {
    const c = this.#config;
    const L = clip.length;
    const T = framesOf(L, c);
    const place = new Map<Value, Region>();
    if (T < 1)
      throw new MGFError(
        'audio',
        `a clip of ${L} samples has no frame; it needs at least 400 (25 ms at 16 kHz)`,
      );
    const declare = (graph: Graph): ReadonlyMap<string, Value> => {
      const declared = this.#store.declare(graph);
      for (const [name, value] of declared) place.set(value, this.#store.region(name));
      return declared;
    };
    const { graph, reconstruction, predictedLogMel, logMelTarget } = pretrainingGraph(
      c,
      { R: 1, L, N: 0, ragged: false },
      rebuildingScales(c),
      declare,
      false,
    );
    const program = await compile(this.#gpu, graph, {
      place,
      label: 'reconstruction',
      keep: {
        target: logMelTarget,
        ...(reconstruction && { reconstruction }),
        ...(predictedLogMel && { predictedLogMel }),
      },
    });
    try {
      const normalised = padded([clip], L);
      const read = async (name: string) => (await program.read(name)) as Float32Array;
      await program.step({ wave: normalised });
      return {
        frames: 2 * T,
        mels: c.n_mels,
        target: await read('target'),
        wave: normalised.subarray(40, 40 + 320 * T),
        ...(predictedLogMel && { logMel: await read('predictedLogMel') }),
        ...(reconstruction && { waveReconstruction: await read('reconstruction') }),
      };
    } finally {
      program.destroy();
    }
  }

  destroy(): void {
    this.#store.destroy();
  }
}
