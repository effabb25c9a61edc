import { LossInputs } from './loss-inputs.ts';
import { checkArguments, CONFIG } from '../check.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { scalar } from '../launch/dispatch.ts';
import { Weights } from '../nn/weights.ts';
import { add, scale } from '../ops/elementwise.ts';
import { logMelPairs } from '../ops/log-mel.ts';
import { l1Loss } from '../ops/losses/pointwise.ts';
import { SCALES, type MGFConfig, type Scale } from './config.ts';
import { buildExtra, type TrainingLoss } from './extra-losses.ts';
import {
  decodeSamples,
  frameInfoNCE,
  maskedL1,
  phonemeLoss,
  predictLogMel,
  sampleLoss,
  sentenceLoss,
  statisticsLoss,
} from './losses.ts';
import { encoder, framesOf, type NetworkOutputs } from './network.ts';

/**
 * What one pre-training batch looks like: R rows of L samples, N anchors with K negatives each. `ragged`:
 * rows of unequal length, padded.
 */
export interface BatchShape {
  readonly R: number;
  readonly L: number;
  readonly N: number;
  readonly ragged: boolean;
}

/** The graph of a pre-training step: losses, and what one may want to look at. */
export interface PretrainingGraph {
  readonly graph: Graph;
  /** By scale, or by the name of a loss that was brought. */
  readonly losses: Readonly<Record<string, Value>>;
  /** Sum of `weight.NAME` (a per-step scalar) times each loss. */
  readonly total: Value;
  readonly accuracy: Value | null;
  readonly network: NetworkOutputs;
  readonly reconstruction: Value | null;
  readonly predictedLogMel: Value | null;
  readonly logMelTarget: Value;
  readonly frames: number;
}

/** Name of the per-step scalar that weighs a loss. */
export const weightScalar = (name: string): string => `weight.${name}`;

/**
 * The four losses, and those that are brought (`extra`), as a graph. Inputs: `wave` [R, L]; `spans` [R, T]
 * f32 (1 = masked); `anchor` i32 [N], `negatives` i32 [N, K], `anchor_weight` f32 [N] (0 = unused slot),
 * unless `objectives.phoneme` is l1; `frame_negatives` i32 [R T, K] (for each frame, other real frames of its
 * row) where `objectives.frame` is info_nce; with `ragged` also `frame_mask` [R, T] f32 and `mel_frames` i32
 * [R].
 */
export function pretrainingGraph(
  c: MGFConfig,
  shape: BatchShape,
  scales: readonly Scale[],
  declare: (graph: Graph) => ReadonlyMap<string, Value>,
  training: boolean,
  flash = false,
  extra: readonly TrainingLoss[] = [],
  given = new LossInputs(),
): PretrainingGraph {
  checkArguments('pretrainingGraph', {
    config: [c, CONFIG],
    shape: [shape, 'an object'],
    scales: [scales, 'a list'],
    declare: [declare, 'a function'],
    training: [training, 'true or false'],
  });
  const graph = new Graph();
  const w = new Weights(declare(graph));
  const { R, L, N, ragged } = shape;
  const T = framesOf(L, c);
  const K = c.num_negatives;
  const wave = graph.input('wave', [R, L]);
  const frameMask = ragged ? graph.input('frame_mask', [R, T]) : null;
  const mel = graph.scope('log_mel', () =>
    logMelPairs(wave, {
      nMels: c.n_mels,
      frames: T,
      melFrames: ragged ? graph.input('mel_frames', [R], 'i32') : null,
      frameMask,
    }),
  );
  const spanMask = scales.includes('phoneme') || N > 0 ? graph.input('spans', [R, T]) : null;
  const network = encoder(c, w, { wave, mel: mel.features, frameMask, spanMask }, training, flash);

  const losses: Record<string, Value> = {};
  let accuracy: Value | null = null;
  let reconstruction: Value | null = null;
  let predictedLogMel: Value | null = null;
  for (const s of SCALES.filter((name) => scales.includes(name))) {
    graph.scope(`loss.${s}`, () => {
      if (s === 'sample') {
        reconstruction = decodeSamples(w, network.z);
        losses.sample = sampleLoss(reconstruction, wave, frameMask);
      } else if (s === 'frame' && c.objectives.frame === 'info_nce') {
        losses.frame = frameInfoNCE(
          c,
          w,
          network,
          mel,
          graph.input('frame_negatives', [R * T, K], 'i32'),
          frameMask,
        );
      } else if (s === 'frame') {
        predictedLogMel = predictLogMel(c, w, network);
        losses.frame = l1Loss(predictedLogMel, mel.target, mel.weight);
      } else if (s === 'phoneme' && c.objectives.phoneme === 'l1') {
        losses.phoneme = maskedL1(c, w, network, mel, spanMask!);
      } else if (s === 'phoneme') {
        [losses.phoneme, accuracy] = phonemeLoss(
          c,
          w,
          network,
          graph.input('anchor', [N], 'i32'),
          graph.input('negatives', [N, K], 'i32'),
          graph.input('anchor_weight', [N]),
        );
      } else if (c.objectives.sentence === 'l1') {
        losses.sentence = statisticsLoss(c, w, network, mel, frameMask);
      } else losses.sentence = sentenceLoss(c, w, network, frameMask);
    });
  }
  for (const loss of extra)
    graph.scope(`loss.${loss.name}`, () => {
      const parts = { graph, network, mel, wave, decoded: reconstruction, spanMask, frameMask };
      losses[loss.name] = buildExtra(c, loss, w, parts, given);
    });
  const total = graph.scope('loss', () =>
    Object.entries(losses)
      .map(([name, loss]) => scale(loss, scalar(weightScalar(name))))
      .reduce(add),
  );
  return {
    graph,
    losses,
    total,
    accuracy,
    network,
    reconstruction,
    predictedLogMel,
    logMelTarget: mel.target,
    frames: T,
  };
}

/** Whether a step tells how often the phoneme scale finds the right frame. */
export const hasAccuracy = (c: Pick<MGFConfig, 'loss_weights' | 'objectives'>): boolean =>
  c.loss_weights.phoneme > 0 && c.objectives.phoneme === 'info_nce';

/** The losses that a configuration trains: a weight above 0. */
export const activeScales = (c: MGFConfig): Scale[] => SCALES.filter((s) => c.loss_weights[s] > 0);
