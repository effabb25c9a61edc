/**
 * MGF on WebGPU: a small compute engine with hand-written WGSL kernels, a graph with gradients, a static
 * memory plan, and on top of it MGF, self-supervised speech representations at four time scales.
 *
 * This is the part of the API that runs everywhere, browsers included: nothing here imports a Node module.
 * Under Node, Deno and Bun the package's main entry (src/node.ts) is this and what needs files, threads and
 * npm `webgpu`.
 *
 * Conventions. Tensors are row-major, activations channels-last [B, T, C], weights as PyTorch has them except
 * convolutions ([Cout, K, Cin / groups]). Audio is mono, 16 kHz, full scale 1. Whatever goes wrong is an
 * `MGFError` with a code and one sentence: what, where, and what to do.
 */
import type { DecodedAudio, Segment } from './audio/decode.ts';

export { MGFError } from './errors.ts';
export type { ErrorCode } from './errors.ts';

// ---------------------------------------------------------------------------------------------------- device
// `openGpu()` takes the best adapter there is, or the caller's own `GPUDevice`, and says what it knows about
// it.
export { openGpu } from './gpu/device.ts';
export type {
  AdapterPreference,
  AdapterProfile,
  Gpu,
  OpenGpuOptions,
  Precision,
  SoftwareAdapter,
} from './gpu/device.ts';
export type { MatrixUnit } from './gpu/adapter.ts';

// --------------------------------------------------------------------------------------- graph and gradients
// A graph is pure data: values with shapes, nodes that apply ops. Calling an op records a node; nothing runs.
export { elements, f32, formatShape, i32 } from './graph/shape.ts';
export { Graph } from './graph/graph.ts';
export type { DType, Shape, Spec } from './graph/shape.ts';
export type { Node, Value, ValueKind } from './graph/graph.ts';
export { grad, vectorJacobianProduct } from './ops/grad.ts';

// ------------------------------------------------------------------------------------------ ops of one's own
// One op, one record: shape rule, forward, backward, cost. The built-in ops have no other means than these.
export { defineOp } from './launch/op.ts';
export { kernel, scalar } from './launch/dispatch.ts';
export type { Attrs, Cost, OpRule } from './graph/op.ts';
export type { BackwardContext, ForwardContext, Op } from './launch/op.ts';
export type {
  Dispatch,
  ElementwiseMap,
  Kernel,
  KernelCheck,
  MakeCheck,
  Scalar,
  View,
} from './launch/dispatch.ts';
// Grids: one invocation per element, or a row per invocation (CPU adapters) or per workgroup (GPUs).
export { ceilDiv, overElements, overRows, spread } from './launch/grid.ts';
// By expression: element-wise ops and losses, losses of rows. The engine has the bindings, bounds, weights
// and reductions.
export { defineElementwise, defineLoss } from './custom/elementwise.ts';
export type {
  Attribute,
  Attributes,
  ElementwiseDefinition,
  ElementwiseLoss,
  ElementwiseOp,
} from './custom/elementwise.ts';
export { defineRowLoss } from './custom/rows.ts';
export type { RowDefinition, RowLoss, RowNumber } from './custom/rows.ts';
// Whether they compute what they say.
export { gradcheck } from './custom/gradcheck.ts';
export type { CaseInput } from './custom/prepared.ts';
export type {
  GradcheckCase,
  GradcheckFinding,
  GradcheckOptions,
  GradcheckResult,
  GradcheckSubject,
} from './custom/gradcheck.ts';
export { elementwiseSubject, lossSubject, rowSubject } from './custom/subjects.ts';
// Dispatches to build on: matrix products with general addresses, sums over rows.
export { gemm } from './ops/gemm/gemm.ts';
export type { Gemm } from './ops/gemm/product.ts';
export { columnSums } from './ops/lib/reduce.ts';
export type { ReduceContext } from './ops/lib/reduce.ts';

// ------------------------------------------------------------------------------------------------------- ops
export { gelu, relu, sigmoid, tanh } from './ops/activation.ts';
export { affine } from './ops/affine.ts';
export { attention, selfAttention } from './ops/attention/attention.ts';
export { conv1d, convTranspose1d } from './ops/conv/conv.ts';
export type { ConvAttrs, TransposeAttrs } from './ops/conv/conv.ts';
export { crossEntropy } from './ops/losses/cross-entropy.ts';
export { ctcLoss } from './ops/losses/ctc.ts';
export { dropout, dropoutAdd } from './ops/dropout.ts';
export { add, fillLike, reshape, scale, scaleByScalar } from './ops/elementwise.ts';
export { groupNorm } from './ops/norm/group-norm.ts';
export { maskedInfoNCE } from './ops/losses/info-nce.ts';
export { layerNorm } from './ops/norm/layer-norm.ts';
export { narrow, transpose } from './ops/layout.ts';
export { linear } from './ops/gemm/linear.ts';
export type { Activation } from './ops/gemm/linear.ts';
export { logMel, logMelPairs, melFrames } from './ops/log-mel.ts';
export type { LogMelOptions, MelPairs, MelPairsOptions } from './ops/log-mel.ts';
export { l1Loss, mseLoss } from './ops/losses/pointwise.ts';
export { maskRows, zeroRows } from './ops/mask.ts';
export { maskedMean } from './ops/masked-mean.ts';
export { matmul } from './ops/gemm/matmul.ts';
export type { MatmulAttrs } from './ops/gemm/matmul.ts';
export { mix } from './ops/mix.ts';
export { ntXent } from './ops/losses/nt-xent.ts';
export { logSoftmax, softmax } from './ops/softmax.ts';
export { statisticsPool } from './ops/statistics-pool.ts';
export { weightNorm } from './ops/norm/weight-norm.ts';

// ---------------------------------------------------------------------------------------------- optimisation
// Ops over flat buffers that change them in place; a step whose gradient is not finite changes nothing.
export { accumulate } from './optim/accumulate.ts';
export { adamw, biasCorrections } from './optim/adamw.ts';
export type { AdamWOptions } from './optim/adamw.ts';
export { clipCoefficient, gradNorm, scaleBy } from './optim/clip.ts';
export type { ClipAttrs, NormAttrs } from './optim/clip.ts';
export { LossScaler } from './optim/loss-scale.ts';
export type { LossScaleOptions, LossScaleState } from './optim/loss-scale.ts';
export { learningRate, progressRate } from './optim/schedule.ts';

// ------------------------------------------------------------------------------------------------- compiling
// `compile` prunes, plans memory, compiles all kernels and freezes bind groups; `Program.step` replays the
// result in one submit.
export { compile } from './plan/compile.ts';
export type { CompileOptions } from './plan/compile.ts';
export { Program } from './plan/program.ts';
export type { HostArray, PlannedDispatch, Profiled } from './plan/program.ts';
// A program as a timeline for trace viewers, and its graph for Graphviz.
export { chromeTrace, graphDot } from './plan/inspect.ts';
export type { TraceEvent } from './plan/inspect.ts';
export { ParameterStore } from './plan/parameters.ts';
export type { HostTensor, ParameterSpec, StoreBuffer } from './plan/parameters.ts';
export type { Region } from './plan/storage.ts';
/**
 * Kernel variants that the self-test refused on a device, and those that passed: every variant is tested
 * before its first use, or once for all where that is remembered.
 */
export { approvals, rejections, rememberApprovals } from './plan/self-test.ts';
export type { ApprovalOptions, Rejection } from './plan/self-test.ts';
// Measures which variants of matrix products are fastest on a GPU; what is known can be kept as JSON.
export { startTuning, tuningOf } from './plan/tune.ts';
export type { Candidate, Choice, TuneOptions, Tuning } from './plan/tune.ts';

// ------------------------------------------------------------------------------------------------------- MGF
export { applySettings, checkRunConfig, parseConfig, parseTrainConfig } from './mgf/parse-config.ts';
export { defaultAttach, SCALES } from './mgf/config.ts';
export type {
  Attach,
  DeepPartial,
  ExtraLoss,
  MGFConfig,
  Objectives,
  RunConfig,
  Scale,
  TrainConfig,
} from './mgf/config.ts';
export type { ParseOptions } from './mgf/parse-config.ts';
export {
  parseRunConfig,
  PRESET_NAMES,
  presetConfig,
  presetRunConfig,
  presetTrainConfig,
} from './mgf/presets.ts';
export { fromHuggingFace } from './mgf/huggingface.ts';
export { framesOf } from './mgf/network.ts';
export type { NetworkOutputs } from './mgf/network.ts';
export { initialValues, mgfParameters } from './mgf/weights.ts';
export type { Init, MGFParameter } from './mgf/weights.ts';
export type { Weights } from './nn/weights.ts';
export { pretrainingGraph } from './mgf/pretraining.ts';
export type { PretrainingGraph } from './mgf/pretraining.ts';
export { Pretrainer } from './mgf/pretrainer.ts';
export type { MomentState, PretrainerOptions, StepMetrics } from './mgf/pretrainer.ts';
export { splitCrops } from './mgf/extra-losses.ts';
export type { HeadParameter, LossContext, TrainingLoss } from './mgf/extra-losses.ts';
export { columnsOf, NO_CLASS } from './mgf/loss-inputs.ts';
export type { Columns } from './mgf/loss-inputs.ts';
export type { InputKind } from './custom/definition.ts';
export { Encoder } from './mgf/encoder.ts';
export type { ClipFeatures, EncoderOptions } from './mgf/encoder.ts';

// ---------------------------------------------------------------------------------------------- applications
// A trained network as an application wants it: one call to load, one to embed, one for streams.
export { MGF } from './app/mgf.ts';
export type {
  AudioWarning,
  Embedding,
  EmbedOptions,
  FeatureOptions,
  LoadOptions,
  LoadProgress,
  OnBad,
  ReadBytes,
  Samples,
  SignalOptions,
  StreamedFrames,
  WindowOptions,
} from './app/mgf.ts';
// How alike clips are: cosines of embeddings, with what all embeddings share taken off.
export { center, compare } from './app/compare.ts';
export type { Center, Comparable, CompareOptions } from './app/compare.ts';

// ----------------------------------------------------------------------------------------------------- audio
/**
 * Decodes a whole WAV, FLAC, MP3, Ogg Vorbis or Ogg Opus file held in memory; the format is told by its first
 * bytes. `nameForErrors` is what messages call it. The decoders (6 MB of WebAssembly) are loaded by the first
 * call. Throws MGFError 'audio': unknown, damaged, truncated or empty.
 */
export const decodeAudio = async (bytes: Uint8Array, nameForErrors: string): Promise<DecodedAudio> =>
  (await import('./audio/decode.ts')).decodeAudio(bytes, nameForErrors);
/**
 * The mean of the channels at 16 kHz, of the whole recording or of a segment. Throws MGFError 'audio' for a
 * segment after the end.
 */
export const toMono16k = async (
  audio: DecodedAudio,
  nameForErrors: string,
  segment: Segment = {},
): Promise<Float32Array> => (await import('./audio/decode.ts')).toMono16k(audio, nameForErrors, segment);
/**
 * Band-limited conversion of mono samples from `rate` (Hz) to 16 kHz. Throws MGFError 'audio' for a rate
 * outside 1 to 768 kHz.
 */
export const resampleTo16k = async (samples: Float32Array, rate: number): Promise<Float32Array> =>
  (await import('./audio/resample.ts')).resampleTo16k(samples, rate);
export type { Channel, DecodedAudio, Segment } from './audio/decode.ts';
// What a training batch is drawn with: pure functions of seeds and counters.
export { permutation, randomStream } from './random/stream.ts';
export type { RandomStream } from './random/stream.ts';
export {
  anchorCapacity,
  cropStarts,
  fixedNegatives,
  frameCount,
  isSilent,
  normaliseCrop,
  SAMPLE_RATE,
  spanMask,
} from './audio/sampling.ts';
export type { FixedNegatives, MaskConfig } from './audio/sampling.ts';
export type { Batch } from './audio/source.ts';

// -------------------------------------------------------------------------------- health, files, conformance
export { effectiveRank, HealthMonitor } from './mgf/health.ts';
export { chanceRivals, measureRivals, medianError, rivalBatches, rivalName } from './mgf/rivals.ts';
export type { RivalName, Rivals } from './mgf/rivals.ts';
export type { AboveRival, Alarm, AlarmKind, HealthOptions, SkippedStep, StepHealth } from './mgf/health.ts';
export { readSafetensors, toFloat32, writeSafetensors } from './io/safetensors.ts';
export type {
  ReadOptions,
  SafetensorsFile,
  StoredTensor,
  TensorData,
  TensorToStore,
} from './io/safetensors.ts';
export { writeNpy } from './io/npy.ts';
/** Runs one golden case (docs/conformance.md) on a device. */
export { runCase } from './conformance/run.ts';
export type { CaseResult } from './conformance/run.ts';
export type { Check } from './conformance/check.ts';
