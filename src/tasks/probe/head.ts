/** Heads of the downstream tasks: hidden states to logits. Graphs and their parameters, no data. */
import type { Value } from '../../graph/graph.ts';
import type { MGFParameter } from '../../mgf/weights.ts';
import { dense } from '../../nn/layers.ts';
import type { Weights } from '../../nn/weights.ts';
import { affine } from '../../ops/affine.ts';
import { maskedMean } from '../../ops/masked-mean.ts';
import { mix } from '../../ops/mix.ts';
import { softmax } from '../../ops/softmax.ts';
import { statisticsPool } from '../../ops/statistics-pool.ts';
import type { HostTensor } from '../../plan/parameters.ts';
import type { Standard } from '../features/standard.ts';
import type { ProbeRow, TaskData, TaskName } from '../task.ts';

/** What a head is; together with its parameters all that running it needs. */
export interface HeadSpec {
  readonly task: TaskName;
  /** Of the logits; for asr the blank, class 0, is counted. */
  readonly classes: number;
  /**
   * The hidden state that it reads; `sum`: a learned softmax-weighted sum of all; null: features that come
   * from no network.
   */
  readonly layer: ProbeRow['layer'];
  /** Transformer layers of the network: hidden states are 0 to `layers`. */
  readonly layers: number;
  /** Width of a hidden state. */
  readonly dim: number;
  /** mlp: one hidden layer of 1024 units with GELU. */
  readonly head: ProbeRow['head'];
  /** Over real frames; `none` gives logits for each frame. */
  readonly pool: ProbeRow['pool'];
}

const HIDDEN = 1024;

/** Classes of a task's logits: its classes, and for asr the blank of CTC as class 0. */
export const logitClasses = ({ task, classes }: Pick<TaskData, 'task' | 'classes'>): number =>
  classes.length + Number(task === 'asr');

/** Width of what a head classifies: of a hidden state, twice that with deviations. */
export const headWidth = ({ dim, pool }: Pick<HeadSpec, 'dim' | 'pool'>): number =>
  pool === 'mean+std' ? 2 * dim : dim;

/** The hidden states that a head reads. */
export const headStates = ({ layer, layers }: Pick<HeadSpec, 'layer' | 'layers'>): number[] =>
  layer === 'sum' ? Array.from({ length: layers + 1 }, (_, i) => i) : [layer ?? 0];

/**
 * Parameters of a head, all under `head.`: the weights of the sum (`mix.weight`), the affine map that
 * standardises each pooled state (`norms.I.scale` and `.shift`, I counting the states read; the identity to
 * start with), the hidden layer of an mlp and the output layer. A linear head starts at zero: its loss is
 * convex.
 */
export function headParameters(spec: HeadSpec): MGFParameter[] {
  return [...normParameters(spec), ...classifierParameters(spec)];
}

function normParameters(spec: HeadSpec): MGFParameter[] {
  const width = headWidth(spec);
  return headStates(spec).flatMap((_, i) => [
    vector(`head.norms.${i}.scale`, width, 1),
    vector(`head.norms.${i}.shift`, width, 0),
  ]);
}

/** The parameters that follow standardisation: all that a probe trains. */
export function classifierParameters(spec: HeadSpec): MGFParameter[] {
  const width = headWidth(spec);
  const states = headStates(spec).length;
  const list: MGFParameter[] = [];
  const dense = (name: string, out: number, input: number, bound: number): void => {
    const init = bound === 0 ? { constant: 0 } : { uniform: bound };
    list.push({
      name: `${name}.weight`,
      parts: [{ name: `${name}.weight`, shape: [out, input] }],
      init: [init],
      decay: true,
    });
    list.push({
      name: `${name}.bias`,
      parts: [{ name: `${name}.bias`, shape: [out] }],
      init: [init],
      decay: false,
    });
  };
  if (spec.layer === 'sum') list.push(vector('head.mix.weight', states, 0));
  if (spec.head === 'linear') dense('head.out', spec.classes, width, 0);
  else {
    dense('head.hidden', HIDDEN, width, 1 / Math.sqrt(width));
    dense('head.out', spec.classes, HIDDEN, 1 / Math.sqrt(HIDDEN));
  }
  return list;
}

/**
 * What standardises pooled features, as the parameters `head.norms.I` of `headParameters`: x scale + shift.
 */
export const normsOf = (standards: readonly Standard[]): [string, HostTensor][] =>
  standards.flatMap(({ mean, scale }, i): [string, HostTensor][] => [
    [`head.norms.${i}.scale`, { shape: [scale.length], data: Float32Array.from(scale) }],
    [
      `head.norms.${i}.shift`,
      { shape: [scale.length], data: Float32Array.from(scale, (s, d) => -mean[d]! * s) },
    ],
  ]);

const vector = (name: string, n: number, constant: number): MGFParameter => ({
  name,
  parts: [{ name, shape: [n] }],
  init: [{ constant }],
  decay: false,
});

/**
 * Logits of a network's hidden states (`NetworkOutputs.states`, each [R, T, dim]): [R, classes], or [R, T,
 * classes] where nothing is pooled. Each state is pooled over its real frames (frameMask [R, T] f32, 1 =
 * real; null: all), standardised, then they are summed and classified. `weights` has the parameters of
 * `headParameters` by their full names.
 */
export function headLogits(
  weights: Weights,
  states: readonly Value[],
  spec: HeadSpec,
  frameMask: Value | null,
): Value {
  return states[0]!.graph.scope('head', () => {
    const pooled = headStates(spec).map((layer, i) => {
      const state = states[layer]!;
      const norm = weights.at('head.norms', i);
      const x =
        spec.pool === 'none'
          ? state
          : spec.pool === 'mean'
            ? maskedMean(state, frameMask)
            : statisticsPool(state, frameMask);
      return affine(x, norm.get('scale'), norm.get('shift'));
    });
    return classifierLogits(weights, pooled, spec);
  });
}

/**
 * Logits of features that are pooled and standardised already, one tensor [..., width] for each state that
 * the head reads.
 */
export function classifierLogits(weights: Weights, features: readonly Value[], spec: HeadSpec): Value {
  const w = weights.at('head');
  const x = spec.layer === 'sum' ? mix(features, softmax(w.get('mix.weight'))) : features[0]!;
  return dense(w.at('out'), spec.head === 'mlp' ? dense(w.at('hidden'), x, { activation: 'gelu' }) : x);
}

/**
 * Standardised features and their targets. `shape`: [rows] with `labels` i32 [rows] (-100: does not count),
 * or [B, T] with CTC's `targets` i32 [B, S], `input_lengths` and `target_lengths` i32 [B].
 */
export interface HeadBatch {
  readonly shape: readonly number[];
  /** One a state that the head reads, [...shape, width]. */
  readonly features: readonly Float32Array<ArrayBuffer>[];
  readonly targets: Readonly<Record<string, Int32Array<ArrayBuffer>>>;
  /** Labels that a transcript may have; 0 where rows are classified. */
  readonly labels: number;
}
