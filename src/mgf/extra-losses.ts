/**
 * Losses that somebody brings, beside MGF's four or in place of one: in the same graph, the same step, the
 * same log.
 */
import { checkArguments, VALUE } from '../check.ts';
import { asTheirs } from '../custom/theirs.ts';
import type { Scalar } from '../launch/dispatch.ts';
import type { LossInputs } from './loss-inputs.ts';
import { MGFError } from '../errors.ts';
import { elements, formatShape, type Shape } from '../graph/shape.ts';
import type { Graph, Value } from '../graph/graph.ts';
import type { Weights } from '../nn/weights.ts';
import { reshape } from '../ops/elementwise.ts';
import { narrow } from '../ops/layout.ts';
import type { MelPairs } from '../ops/log-mel.ts';
import type { MGFConfig } from './config.ts';
import type { NetworkOutputs } from './network.ts';
import type { Init, MGFParameter } from './weights.ts';

/**
 * A parameter of a loss's own head. Its name begins anew: `project.weight` is `heads.NAME.project.weight` in
 * checkpoints.
 */
export interface HeadParameter {
  readonly name: string;
  /** Linear layers [out, in], biases [out]. */
  readonly shape: Shape;
  /** Default: N(0, 0.02) for matrices, 0 for vectors. */
  readonly init?: Init;
  /** Whether weight decay applies. Default: of matrices. */
  readonly decay?: boolean;
}

/**
 * What a loss can read of a training step. R = 2 B rows: row b and row B + b are two crops of one recording.
 * T frames of 20 ms.
 */
export interface LossContext {
  readonly graph: Graph;
  readonly config: MGFConfig;
  /** The parameters that the loss has declared, by their own names: `weights.get('project.weight')`. */
  readonly weights: Weights;
  /** What it is attached to: a hidden state [R, T, D], or zn [R, T, C] for `z`. */
  readonly state: Value;
  /** Everything else of the network: z, zn, all hidden states. */
  readonly network: NetworkOutputs;
  /**
   * Log-mel pairs: `target` [R, T, 2 n_mels] normalised over time, `weight` its weights, `features`,
   * `statistics`.
   */
  readonly mel: MelPairs;
  /** [R, L] waveforms, normalised per crop. */
  readonly wave: Value;
  /**
   * [R, 320 T] what the sample scale decodes, which stands for samples 40 .. 40 + 320 T; null where it is
   * off.
   */
  readonly decoded: Value | null;
  /** [R, T] f32, 1 = masked; null where nothing is masked (no phoneme scale). */
  readonly spanMask: Value | null;
  /** [R, T] f32, 1 = real frame; null when no row is padded. */
  readonly frameMask: Value | null;
  /**
   * A column of the manifest as classes: i32 [R], counted in the order of their sorted names; -100, which
   * `crossEntropy` leaves out, where a recording has none. Throws MGFError 'data' where no recording has one.
   */
  readonly column: (name: string) => Value;
  /** A column of the manifest as numbers: f32 [R]. Throws MGFError 'data' where one is missing or no number. */
  readonly numbers: (name: string) => Value;
  /** How many classes a column has. */
  readonly classes: (name: string) => number;
  /** A number that each step is given anew, for attributes of ops; `at` is told the updates made before. */
  readonly scalar: (name: string, at: (step: number) => number) => Scalar;
}

/** A loss for `pretrain` and `mgf pretrain --loss`. */
export interface TrainingLoss {
  /**
   * A letter, then letters, digits and underscores; names its parameters, its line in the log and its weight
   * in the configuration.
   */
  readonly name: string;
  /**
   * What it trains besides the network; `attachedWidth` is the width of the state that it reads. Default:
   * nothing. `data.classes` tells how many classes a column of the manifest has.
   */
  readonly parameters?: (
    config: MGFConfig,
    attachedWidth: number,
    data: Pick<LossContext, 'classes'>,
  ) => readonly HeadParameter[];
  /** The loss, [1]. Any ops, built-in or one's own. */
  readonly build: (context: LossContext) => Value;
}

/** Width of what a loss is attached to. */
const attachedWidth = (c: MGFConfig, attach: 'z' | number): number =>
  attach === 'z' ? c.conv_dim.at(-1)! : c.hidden_size;

/**
 * The losses that a configuration names with a weight above 0, in its order. Throws MGFError 'usage' where
 * one is missing or nobody asked for it.
 */
export function chosenLosses(
  { extra_losses }: Pick<MGFConfig, 'extra_losses'>,
  losses: readonly TrainingLoss[],
): TrainingLoss[] {
  const stranger = losses.find(({ name }) => !Object.hasOwn(extra_losses, name));
  if (stranger)
    throw new MGFError(
      'usage',
      `The configuration does not name the loss "${stranger.name}"; give it a place in extra_losses.`,
    );
  return Object.keys(extra_losses)
    .filter((name) => extra_losses[name]!.weight > 0)
    .map((name) => {
      const found = losses.find((loss) => loss.name === name);
      if (!found)
        throw new MGFError(
          'usage',
          `This run trains with the loss "${name}", which is not part of the program; give the file ` +
            'that it comes from with --loss.',
        );
      return found;
    });
}

/** Parameters of the losses' heads, under `heads.NAME.`. */
export function extraParameters(
  c: MGFConfig,
  losses: readonly TrainingLoss[],
  given: LossInputs,
): MGFParameter[] {
  return losses.flatMap((loss) => {
    const width = attachedWidth(c, c.extra_losses[loss.name]!.attach);
    const data = { classes: (name: string) => given.classes(loss.name, name).length };
    const declared = asTheirs(`The parameters of the loss "${loss.name}"`, () =>
      loss.parameters?.(c, width, data),
    );
    return (declared ?? []).map(({ name, shape, init, decay }): MGFParameter => {
      const full = `heads.${loss.name}.${name}`;
      const matrix = shape.length > 1;
      return {
        name: full,
        parts: [{ name: full, shape }],
        init: [init ?? (matrix ? { normal: 0.02 } : { constant: 0 })],
        decay: decay ?? matrix,
      };
    });
  });
}

type Given = Pick<LossContext, 'column' | 'numbers' | 'classes' | 'scalar'>;

/** A loss in the graph of a step. Throws MGFError 'shape' where it builds no scalar. */
export function buildExtra(
  c: MGFConfig,
  loss: TrainingLoss,
  w: Weights,
  parts: Omit<LossContext, 'config' | 'weights' | 'state' | keyof Given>,
  given: LossInputs,
): Value {
  const { attach } = c.extra_losses[loss.name]!;
  const { network, graph, wave } = parts;
  const rows = wave.shape[0]!;
  const { name } = loss;
  const value = asTheirs(`The loss "${name}"`, () =>
    loss.build({
      ...parts,
      config: c,
      weights: w.at('heads', loss.name),
      state: attach === 'z' ? network.zn : network.states[attach]!,
      column: (of) => given.declare(name, graph, 'classes', of, rows),
      numbers: (of) => given.declare(name, graph, 'numbers', of, rows),
      classes: (of) => given.classes(name, of).length,
      scalar: (of, at) => given.scalar(name, of, at),
    }),
  );
  if (elements(value.shape) !== 1)
    throw new MGFError(
      'shape',
      `The loss "${loss.name}" builds ${formatShape(value.shape)}, but must build one number, [1].`,
    );
  return value;
}

/** The rows of both crops of each recording: x [2 B, P] -> [B, P] twice. */
export function splitCrops(x: Value): [first: Value, second: Value] {
  checkArguments('splitCrops', { x: [x, VALUE] });
  const [R, P] = x.shape as [number, number];
  const flat = reshape(x, [1, R * P]);
  const half = (start: number): Value => reshape(narrow(flat, start, (R * P) / 2), [R / 2, P]);
  return [half(0), half((R * P) / 2)];
}
