/** The compiled training step: losses, their gradients, clipping and AdamW as one program, or two where micro-batches add up. */
import type { LossInputs } from './loss-inputs.ts';
import type { Batch } from '../audio/source.ts';
import type { Gpu } from '../gpu/device.ts';
import { ancestors } from '../graph/autograd.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { scalar } from '../launch/dispatch.ts';
import { grad } from '../ops/grad.ts';
import { accumulate } from '../optim/accumulate.ts';
import { adamw } from '../optim/adamw.ts';
import { clipCoefficient, gradNorm } from '../optim/clip.ts';
import { compile } from '../plan/compile.ts';
import type { ParameterStore, StoreBuffer } from '../plan/parameters.ts';
import { type HostArray, type Program } from '../plan/program.ts';
import type { Region } from '../plan/storage.ts';
import type { RunConfig, Scale, TrainConfig } from './config.ts';
import { type TrainingLoss } from './extra-losses.ts';
import { framesOf, wantsFlash } from './network.ts';
import { pretrainingGraph, type BatchShape, type PretrainingGraph } from './pretraining.ts';

export function declare(store: ParameterStore, graph: Graph, place: Map<Value, Region>): Map<string, Value> {
  const parameters = store.declare(graph);
  for (const [name, value] of parameters) place.set(value, store.region(name));
  return parameters;
}

/** A flat buffer of the store as a value. */
function flat(store: ParameterStore, graph: Graph, name: StoreBuffer, place: Map<Value, Region>): Value {
  const value = graph.state(`all ${name}`, [store.length]);
  place.set(value, store.flat(name));
  return value;
}

/** Per-step scalars: what the gradients are multiplied by, and what undoes it. */
export const LOSS_SCALE = 'loss_scale';

export const LOSS_UNSCALE = 'loss_unscale';

/** Norm, clipping and AdamW over the flat buffers of scaled gradients; their norm is the only result. */
function optimise(
  train: TrainConfig,
  store: ParameterStore,
  graph: Graph,
  gradients: Value,
  place: Map<Value, Region>,
): Value {
  return graph.scope('optimiser', () => {
    const norm = gradNorm(gradients);
    const { betas, eps, weight_decay: weightDecay } = train;
    adamw(
      flat(store, graph, 'values', place),
      gradients,
      flat(store, graph, 'expAvg', place),
      flat(store, graph, 'expAvgSq', place),
      { betas, eps, weightDecay, decayCount: store.decayed },
      clipCoefficient(norm, train.max_grad_norm, { unscale: scalar(LOSS_UNSCALE) }),
    );
    return norm;
  });
}

/** Losses beside MGF's four, and what they read besides the sound. */
interface ExtraLosses {
  readonly losses: readonly TrainingLoss[];
  readonly given: LossInputs;
}

/** Forward and backward of a run's losses; gradients go to their place in the store. */
export function stepGraph(
  gpu: Gpu,
  run: RunConfig,
  shape: BatchShape,
  scales: readonly Scale[],
  extra: ExtraLosses,
  store: ParameterStore,
  place: Map<Value, Region>,
): PretrainingGraph {
  let parameters = new Map<string, Value>();
  const built = pretrainingGraph(
    run.mgf,
    shape,
    scales,
    (graph) => (parameters = declare(store, graph, place)),
    true,
    wantsFlash(run.mgf, gpu.profile, shape.R, framesOf(shape.L, run.mgf)),
    extra.losses,
    extra.given,
  );
  // A parameter that the active losses do not reach (the mask vector without masks, layers above the highest
  // attached one) has no gradient: its part of the buffer stays 0.
  const reached = ancestors(built.total);
  const trained = [...parameters].filter(([, value]) => reached.has(value));
  grad(
    built.total,
    trained.map(([, value]) => value),
    scalar(LOSS_SCALE),
  ).forEach((g, i) => place.set(g, store.region(trained[i]![0], 'gradients')));
  return built;
}

/**
 * Forward, backward and update in one program; with micro-batches the gradients are added up instead of the
 * update.
 */
export async function compileStep(
  gpu: Gpu,
  run: RunConfig,
  shape: BatchShape,
  scales: readonly Scale[],
  extra: ExtraLosses,
  store: ParameterStore,
  micro: boolean,
): Promise<Program> {
  const place = new Map<Value, Region>();
  const built = stepGraph(gpu, run, shape, scales, extra, store, place);
  const gradients = flat(store, built.graph, 'gradients', place);
  const outputs: Record<string, Value> = {
    ...built.losses,
    total: built.total,
    ...(built.accuracy && { accuracy: built.accuracy }),
  };
  if (micro)
    built.graph.scope('optimiser', () =>
      accumulate(flat(store, built.graph, 'accumulated', place), gradients),
    );
  else outputs['gradNorm'] = optimise(run.train, store, built.graph, gradients, place);
  return compile(gpu, built.graph, {
    place,
    outputs,
    label: 'pretraining step',
    precision: run.train.precision,
  });
}

export async function compileUpdate(gpu: Gpu, train: TrainConfig, store: ParameterStore): Promise<Program> {
  const graph = new Graph();
  const place = new Map<Value, Region>();
  const gradNormValue = optimise(train, store, graph, flat(store, graph, 'accumulated', place), place);
  return compile(gpu, graph, { place, outputs: { gradNorm: gradNormValue }, label: 'optimiser update' });
}

export function batchInputs(batch: Batch): Record<string, HostArray> {
  return {
    wave: batch.wave as Float32Array<ArrayBuffer>,
    spans: Float32Array.from(batch.mask),
    anchor: batch.anchor as Int32Array<ArrayBuffer>,
    negatives: batch.negatives as Int32Array<ArrayBuffer>,
    anchor_weight: batch.anchorWeight as Float32Array<ArrayBuffer>,
  };
}
