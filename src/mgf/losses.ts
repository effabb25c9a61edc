import type { Value } from '../graph/graph.ts';
import { dense, norm } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import { gelu } from '../ops/activation.ts';
import { conv1d, convTranspose1d } from '../ops/conv/conv.ts';
import { zeroRows } from '../ops/mask.ts';
import { reshape } from '../ops/elementwise.ts';
import { maskedInfoNCE } from '../ops/losses/info-nce.ts';
import { narrow } from '../ops/layout.ts';
import type { MelPairs } from '../ops/log-mel.ts';
import { l1Loss } from '../ops/losses/pointwise.ts';
import { maskedMean } from '../ops/masked-mean.ts';
import { ntXent } from '../ops/losses/nt-xent.ts';
import type { MGFConfig } from './config.ts';
import { splitCrops } from './extra-losses.ts';
import type { NetworkOutputs } from './network.ts';
import { DECODER } from './weights.ts';

/**
 * Sample scale: z [R, T, C] decoded to [R, 320 T] samples, which stand for samples 40 .. 40 + 320 T of the
 * waveform.
 */
export function decodeSamples(w: Weights, z: Value): Value {
  let x = z;
  DECODER.forEach(({ stride }, i) => {
    const layer = w.at('heads.sample.convs', i);
    x = gelu(convTranspose1d(x, layer.get('weight'), layer.get('bias'), { stride, padding: 2 }));
  });
  const out = w.at('heads.sample.out');
  return reshape(conv1d(x, out.get('weight'), out.get('bias'), { padding: 3 }), [x.shape[0]!, x.shape[1]!]);
}

/** L1 between decoded and real samples of real frames. wave [R, L], frameMask [R, T] -> [1]. */
export function sampleLoss(reconstruction: Value, wave: Value, frameMask: Value | null): Value {
  return l1Loss(reconstruction, narrow(wave, 40, reconstruction.shape[1]!), frameMask);
}

/** Linear, GELU, LayerNorm, as TERA has it in front of a prediction. */
const hidden = (c: MGFConfig, head: Weights, x: Value): Value =>
  norm(head.at('layer_norm'), dense(head.at('dense'), x, { activation: 'gelu' }), c.layer_norm_eps);

/** What the frame scale reads, [R, T, C or D]: zn or a hidden state. */
const frameSource = (c: MGFConfig, net: NetworkOutputs): Value =>
  c.attach.frame === 'z' ? net.zn : net.states[c.attach.frame]!;

/** Frame scale: the two log-mel frames of each frame, [R, T, 2 n_mels], from zn or a hidden state. */
export function predictLogMel(c: MGFConfig, w: Weights, net: NetworkOutputs): Value {
  const head = w.at('heads.frame');
  return dense(head.at('out'), hidden(c, head, frameSource(c, net)));
}

/**
 * Frame scale by InfoNCE: every frame's own log-mel pair, projected, among those of `negatives` i32 [R T, K],
 * other frames of its row -> [1]. All frames are anchors, masked or not; those of frameMask 0 count nothing.
 */
export function frameInfoNCE(
  c: MGFConfig,
  w: Weights,
  net: NetworkOutputs,
  mel: MelPairs,
  negatives: Value,
  frameMask: Value | null,
): Value {
  const head = w.at('heads.frame');
  const [R, T] = mel.target.shape as [number, number];
  const context = dense(head.at('project_context'), hidden(c, head, frameSource(c, net)));
  const target = dense(head.at('project_target'), mel.target);
  const anchor = negatives.graph.constant(
    'every frame',
    [R * T],
    Int32Array.from({ length: R * T }, (_, i) => i),
  );
  return maskedInfoNCE(context, target, anchor, negatives, {
    temperature: c.temperature,
    weights: frameMask,
  })[0];
}

/**
 * Phoneme scale: InfoNCE at the masked frames between context and unmasked targets -> loss [1], accuracy [1].
 */
export function phonemeLoss(
  c: MGFConfig,
  w: Weights,
  net: NetworkOutputs,
  anchor: Value,
  negatives: Value,
  weights: Value | null,
): [loss: Value, accuracy: Value] {
  const head = w.at('heads.phoneme');
  const context = dense(head.at('project_context'), net.states[c.attach.phoneme]!);
  const target = dense(head.at('project_target'), net.zn);
  return maskedInfoNCE(context, target, anchor, negatives, { temperature: c.temperature, weights });
}

/**
 * Phoneme scale by L1: the log-mel pairs of masked frames from the context, which does not see them. spanMask
 * [R, T] -> [1].
 */
export function maskedL1(
  c: MGFConfig,
  w: Weights,
  net: NetworkOutputs,
  mel: MelPairs,
  spanMask: Value,
): Value {
  const head = w.at('heads.phoneme');
  return l1Loss(
    dense(head.at('out'), hidden(c, head, net.states[c.attach.phoneme]!)),
    mel.target,
    zeroRows(mel.weight, spanMask),
  );
}

/** Sentence scale: the mean over real frames of a hidden state, [R, D] after linear and GELU. */
function pooledSentence(c: MGFConfig, head: Weights, net: NetworkOutputs, frameMask: Value | null): Value {
  return dense(head.at('dense'), maskedMean(net.states[c.attach.sentence]!, frameMask), {
    activation: 'gelu',
  });
}

/** Sentence scale by L1: mean and standard deviation of each log-mel bin of the row, in nats -> [1]. */
export function statisticsLoss(
  c: MGFConfig,
  w: Weights,
  net: NetworkOutputs,
  mel: MelPairs,
  frameMask: Value | null,
): Value {
  const head = w.at('heads.sentence');
  return l1Loss(
    dense(head.at('statistics'), pooledSentence(c, head, net, frameMask)),
    narrow(mel.statistics, 0, 2 * c.n_mels),
  );
}

/** Sentence scale: NT-Xent between the two crops of each utterance, rows b and B + b -> [1]. */
export function sentenceLoss(c: MGFConfig, w: Weights, net: NetworkOutputs, frameMask: Value | null): Value {
  const head = w.at('heads.sentence');
  return ntXent(...splitCrops(dense(head.at('out'), pooledSentence(c, head, net, frameMask))), {
    temperature: c.sentence_temperature,
  });
}
