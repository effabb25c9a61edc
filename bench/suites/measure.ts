/** Checks and times engines on one workload. Nothing is timed that was not found right first. */
import type { Gpu, Precision } from '../../src/gpu/device.ts';
import type { Arm, Engine, HostTensors, Workload } from '../workloads/contract.ts';
import { referenceOf, type Reference } from '../workloads/reference.ts';
import { stepReferences } from '../workloads/reference-step.ts';
import { statistics, wantsMore, type Repetition, type Timing } from '../../src/measure/statistics.ts';

/** An arm that can say more than the contract asks for. */
export interface OwnArm extends Arm {
  /** Fills everything that a run computes with NaN. */
  poison(): void;
  readonly deviceTime: ((set: number) => Promise<number>) | null;
  readonly precision: Precision;
}

export interface MeasureOptions extends Repetition {
  /**
   * Take the device's clock where an arm has one; otherwise the wall's, which is the only one that all
   * engines share.
   */
  readonly deviceClock?: boolean;
  /**
   * How to await a run (`Gpu.settle`): every engine's, so that none has the processor taken from its software
   * adapter by the waiting itself.
   */
  readonly settle?: Gpu['settle'];
  readonly progress?: (text: string) => void;
}

/** What became of one engine: a timing, or the reason why there is none. */
export interface Measured {
  readonly engine: Engine;
  readonly timing: Timing | null;
  readonly clock: 'timestamps' | 'wall';
  readonly refused: string | null;
  readonly peakBytes: number | null;
}

/**
 * The largest error that an engine may have, as a part of the root mean square of what the tensor must be.
 * f32 sums of the sizes here are off by 1e-5 and less; tf32 and f16 have 10 fraction bits, bf16 has 7.
 */
const TOLERANCE: Readonly<Partial<Record<Engine, number>>> = {
  'torch-cuda-tf32': 2e-2,
  'torch-cuda-f16': 2e-2,
  'torch-cuda-bf16': 0.15,
};
const F32_TOLERANCE = 5e-4;
const F16_TOLERANCE = 2e-2;

const toleranceOf = (arm: Arm): number =>
  'precision' in arm && (arm as OwnArm).precision === 'f16'
    ? F16_TOLERANCE
    : (TOLERANCE[arm.engine] ?? F32_TOLERANCE);

/** Null when the outputs agree with the reference; otherwise one sentence naming the worst element. */
export function disagreement(
  outputs: Readonly<Record<string, ArrayLike<number>>>,
  reference: Reference,
  tolerance = F32_TOLERANCE,
): string | null {
  let worst: { ratio: number; text: string } | null = null;
  for (const [name, { size, indices, values }] of Object.entries(reference)) {
    const got = outputs[name];
    if (!got) return `${name} is missing`;
    if (got.length !== size) return `${name} has ${got.length} elements instead of ${size}`;
    for (let i = 0; i < size; i++) if (!Number.isFinite(got[i]!)) return `${name}[${i}] is ${got[i]!}`;
    const scale = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length) || 1;
    indices.forEach((at, i) => {
      const ratio = Math.abs(got[at]! - values[i]!) / scale;
      if (ratio > tolerance && ratio > (worst?.ratio ?? 0)) {
        worst = {
          ratio,
          text:
            `${name}[${at}] is ${got[at]!.toPrecision(6)}, must be ${values[i]!.toPrecision(6)}: off by ` +
            `${ratio.toExponential(1)} of the tensor's size, ${tolerance} is allowed`,
        };
      }
    });
  }
  return (worst as { text: string } | null)?.text ?? null;
}

/** Runs every set once and compares; the reason to refuse the arm, or null. */
async function check(arm: Arm, references: readonly Reference[]): Promise<string | null> {
  for (const [set, reference] of references.entries()) {
    if ('poison' in arm) (arm as OwnArm).poison();
    await arm.run(set);
    const wrong = disagreement(await arm.outputs(), reference, toleranceOf(arm));
    if (wrong) return `wrong result on input set ${set}: ${wrong}`;
  }
  return null;
}

const reason = (error: unknown): string =>
  `failed: ${((error as Error)?.message ?? String(error)).split('\n')[0]!}`;

/** The references of all input sets, in the order in which an arm runs them first. */
export const referencesOf = (workload: Workload, sets: readonly HostTensors[]): Reference[] =>
  workload.work.op === 'torch_step'
    ? stepReferences(sets)
    : sets.map((inputs) => referenceOf(workload, inputs));

/**
 * Times arms on one workload in turns: every round runs each of them once, in an order that rotates with the
 * round, on input set `round mod sets`. An arm whose result is wrong or that fails is reported with the
 * reason and takes no further part. Arms are not disposed of.
 */
export async function measure(
  arms: readonly Arm[],
  references: readonly Reference[],
  options: MeasureOptions = {},
): Promise<Measured[]> {
  const refused = new Map<Arm, string>();
  const samples = new Map<Arm, number[]>(arms.map((a) => [a, []]));
  const attempt = async (arm: Arm, action: () => Promise<string | null>): Promise<void> => {
    const why = await action().catch(reason);
    if (why !== null) refused.set(arm, why);
  };
  for (const arm of arms) {
    options.progress?.(`${arm.engine}: check`);
    await attempt(arm, () => check(arm, references));
  }
  const clockOf = (arm: Arm): ((set: number) => Promise<number>) | null =>
    (options.deviceClock && arm.deviceTime) || null;
  const standing = (): Arm[] => arms.filter((a) => !refused.has(a));
  const settle = options.settle ?? (<T>(answer: Promise<T>): Promise<T> => answer);
  const run = (arm: Arm, round: number): Promise<number> =>
    settle((clockOf(arm) ?? ((set: number) => arm.run(set)))(round % references.length));
  for (const arm of standing())
    await attempt(arm, async () => {
      await run(arm, 0);
      return null;
    });
  const started = performance.now();
  for (
    let round = 0;
    standing().length && wantsMore(round, (performance.now() - started) / standing().length, options);
    round++
  ) {
    options.progress?.(`round ${round + 1}`);
    const turn = standing();
    for (let i = 0; i < turn.length; i++) {
      const arm = turn[(i + round) % turn.length]!;
      await attempt(arm, async () => {
        samples.get(arm)!.push(await run(arm, round));
        return null;
      });
    }
  }
  const measured: Measured[] = [];
  for (const arm of arms) {
    const why = refused.get(arm) ?? null;
    measured.push({
      engine: arm.engine,
      timing: why === null ? statistics(samples.get(arm)!) : null,
      clock: clockOf(arm) ? 'timestamps' : 'wall',
      refused: why,
      peakBytes: why === null && arm.peakBytes ? await arm.peakBytes() : null,
    });
  }
  return measured;
}
