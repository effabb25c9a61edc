/**
 * How time and memory grow: of a training step with crop, batch and width, and of the contrastive loss with
 * anchors, negatives and channels.
 */
import { randomStream } from '../../src/random/stream.ts';
import { fixedNegatives } from '../../src/audio/sampling.ts';
import type { Gpu } from '../../src/gpu/device.ts';
import { BufferUsage } from '../../src/gpu/flags.ts';
import { elements } from '../../src/graph/shape.ts';
import { Graph, type Node, type Value } from '../../src/graph/graph.ts';
import type { RunConfig } from '../../src/mgf/config.ts';
import { presetRunConfig } from '../../src/mgf/presets.ts';
import { grad } from '../../src/ops/grad.ts';
import { maskedInfoNCE } from '../../src/ops/losses/info-nce.ts';
import { compile } from '../../src/plan/compile.ts';
import type { PlannedDispatch } from '../../src/plan/program.ts';
import { byteSize, type Region } from '../../src/plan/storage.ts';
import { statistics, type Repetition, type Timing } from '../../src/measure/statistics.ts';
import { openStep } from './step.ts';
import { uniforms } from '../../src/random/uniforms.ts';

/**
 * `crop`: seconds of a crop. `batch`: utterances. `width`: hidden size, all other widths in proportion.
 * `info_nce-*`: the loss alone, forward and backward.
 */
export const GROWTH_AXES = [
  'crop',
  'batch',
  'width',
  'info_nce-N',
  'info_nce-K',
  'info_nce-P',
  'info_nce-NKP',
] as const;
export type GrowthAxis = (typeof GROWTH_AXES)[number];

export interface GrowthPoint {
  readonly axis: GrowthAxis;
  /** Where on the axis; for `info_nce-NKP` N, with K and P in proportion. */
  readonly value: number;
  /** What was run, in words. */
  readonly name: string;
  readonly timing: Timing;
  /** Arithmetic of forward and backward, by the ops' own count. */
  readonly flops: number;
  /** On the device: parameters, gradients, moments, activations, inputs. */
  readonly bytes: number;
  /**
   * Of a tensor of every anchor's candidates [N, K + 1, P], which this engine never has; null where there is
   * no such thing.
   */
  readonly gatheredBytes: number | null;
}

export interface GrowthOptions extends Repetition {
  /** Default: all. */
  readonly axes?: readonly GrowthAxis[];
  readonly progress?: (text: string) => void;
}

/** Something to run again and again. */
interface Probe {
  readonly name: string;
  readonly value: number;
  readonly flops: number;
  readonly bytes: number;
  readonly gatheredBytes: number | null;
  run(): Promise<number>;
  destroy(): void;
}

/** Forward nodes by their op's cost; a backward node counts as twice its forward. */
function arithmetic(dispatches: readonly PlannedDispatch[]): number {
  const nodes = new Set<Node>(dispatches.map((d) => d.node));
  const forward = (n: Node): number =>
    n.op.cost(
      n.inputs,
      n.outputs.filter((o) => o !== null),
      n.attrs,
    ).flops;
  return [...nodes].reduce((sum, n) => sum + (n.phase === 'forward' ? forward(n) : 2 * forward(n.of!)), 0);
}

/** Sizes in software and on a GPU, where small ones would show nothing but launches. */
const STEPS = {
  cpu: {
    preset: 'micro',
    heads: 2,
    utterances: 2,
    seconds: 1.2,
    crop: [0.8, 1.6, 2.4, 3.2],
    batch: [2, 4, 6, 8],
    width: [64, 128, 192, 256],
  },
  gpu: {
    preset: 'small',
    heads: 6,
    utterances: 8,
    seconds: 4,
    crop: [2, 4, 6, 8],
    batch: [4, 8, 12, 16],
    width: [192, 384, 576, 768],
  },
} as const;

const INFO_NCE = { frames: 1600, N: 800, K: 100, P: 256, parts: [0.25, 0.5, 0.75, 1] } as const;

function stepConfig(kind: keyof typeof STEPS, axis: GrowthAxis, value: number): RunConfig {
  const { preset, utterances, seconds } = STEPS[kind];
  const train = {
    accumulation: 1,
    utterances_per_batch: axis === 'batch' ? value : utterances,
    crop_seconds: axis === 'crop' ? value : seconds,
  };
  if (axis !== 'width') return presetRunConfig(preset, { train });
  const of = presetRunConfig(preset).mgf;
  const scaled = (n: number): number => Math.round((n * value) / of.hidden_size);
  return presetRunConfig(preset, {
    train,
    mgf: {
      hidden_size: value,
      intermediate_size: scaled(of.intermediate_size),
      proj_dim: scaled(of.proj_dim),
      conv_dim: of.conv_dim.map(scaled),
    },
  });
}

async function stepProbe(gpu: Gpu, axis: 'crop' | 'batch' | 'width', value: number): Promise<Probe> {
  const run = stepConfig(gpu.profile.family, axis, value);
  const step = await openStep(gpu, run);
  const { train, mgf } = run;
  return {
    name: `${train.utterances_per_batch} x 2 x ${train.crop_seconds} s, width ${mgf.hidden_size}`,
    value,
    flops: arithmetic(step.dispatches),
    bytes: step.deviceBytes,
    gatheredBytes: null,
    run: async () => (await step.step(0)).ms,
    destroy: step.destroy,
  };
}

/** The contrastive loss of N of 1600 frames of 8 utterances. */
async function infoNceProbe(
  gpu: Gpu,
  axis: Exclude<GrowthAxis, 'crop' | 'batch' | 'width'>,
  part: number,
): Promise<Probe> {
  const at = (size: 'N' | 'K' | 'P'): number =>
    INFO_NCE[size] * (axis.slice('info_nce-'.length).includes(size) ? part : 1);
  const { frames: F } = INFO_NCE;
  const N = at('N');
  const K = at('K');
  const P = at('P');
  const rows = 8;
  const T = F / rows;
  const masks = Array.from({ length: rows }, () => new Uint8Array(T).fill(1, 0, N / rows));
  const drawn = fixedNegatives(masks, K, N, randomStream(1, 0, 0, 4));
  const graph = new Graph();
  const place = new Map<Value, Region>();
  const next = uniforms(1);
  const vectors = (name: string): Value => {
    const value = graph.state(name, [rows, T, P], { requiresGrad: true });
    const size = byteSize(value.shape);
    const buffer = gpu.device.createBuffer({
      label: name,
      size,
      usage: BufferUsage.STORAGE | BufferUsage.COPY_DST | BufferUsage.COPY_SRC,
    });
    gpu.device.queue.writeBuffer(
      buffer,
      0,
      Float32Array.from({ length: elements(value.shape) }, () => next() - 0.5),
    );
    place.set(value, { buffer, offset: 0, size });
    return value;
  };
  const c = vectors('c');
  const z = vectors('z');
  const states = [...place.values()];
  const anchor = graph.constant('anchor', [N], Int32Array.from(drawn.anchor));
  const negatives = graph.constant('negatives', [N, K], Int32Array.from(drawn.negatives));
  const [loss] = maskedInfoNCE(c, z, anchor, negatives);
  const [dc, dz] = grad(loss, [c, z]) as [Value, Value];
  const program = await compile(gpu, graph, { place, outputs: { loss }, keep: { dc, dz }, label: axis });
  return {
    name: `N ${N}, K ${K}, P ${P}`,
    value: axis === 'info_nce-NKP' ? N : at(axis.at(-1) as 'N' | 'K' | 'P'),
    flops: arithmetic(program.dispatches),
    bytes: program.bytes + states.reduce((sum, r) => sum + r.size, 0),
    gatheredBytes: 4 * N * (K + 1) * P,
    async run() {
      const started = performance.now();
      await program.step();
      return performance.now() - started;
    },
    destroy() {
      program.destroy();
      states.forEach((r) => r.buffer.destroy());
    },
  };
}

/**
 * Four points an axis. The points of an axis take turns, so that whatever else the machine does meets them
 * alike; each is run once before it is timed. Throws what `compile` throws, among it MGFError 'out-of-memory'
 * and 'limit'.
 */
export async function measureGrowth(gpu: Gpu, options: GrowthOptions = {}): Promise<GrowthPoint[]> {
  const points: GrowthPoint[] = [];
  const rounds = options.minRuns ?? 5;
  for (const axis of options.axes ?? GROWTH_AXES) {
    const probes: Probe[] = [];
    try {
      for (const [i, part] of INFO_NCE.parts.entries()) {
        const step = axis === 'crop' || axis === 'batch' || axis === 'width';
        probes.push(
          await (step
            ? stepProbe(gpu, axis, STEPS[gpu.profile.family][axis][i]!)
            : infoNceProbe(gpu, axis, part)),
        );
        options.progress?.(`growth, ${axis}: ${probes.at(-1)!.name}`);
        await probes.at(-1)!.run();
      }
      const samples = probes.map((): number[] => []);
      const started = performance.now();
      for (
        let round = 0;
        round < rounds ||
        (round < (options.maxRuns ?? 40) &&
          performance.now() - started < 1000 * (options.seconds ?? 1) * probes.length);
        round++
      ) {
        for (const [i, probe] of probes.entries()) samples[i]!.push(await probe.run());
      }
      probes.forEach(({ name, value, flops, bytes, gatheredBytes }, i) =>
        points.push({ axis, value, name, timing: statistics(samples[i]!), flops, bytes, gatheredBytes }),
      );
    } finally {
      probes.forEach((p) => p.destroy());
    }
  }
  return points;
}

/** What the points of an axis follow. */
export interface GrowthFit {
  readonly axis: GrowthAxis;
  /**
   * Exponents of the axis that the four points fit best (log-log): of arithmetic, time and memory. 1 is
   * linear.
   */
  readonly flopsExponent: number;
  readonly msExponent: number;
  readonly bytesExponent: number;
  /**
   * Largest distance of a point's time from the best straight line over the arithmetic, as a part of that
   * line; and of its memory from one over the axis.
   */
  readonly msDeviation: number;
  readonly bytesDeviation: number;
}

/** Least squares of y = a + b x. */
function line(x: readonly number[], y: readonly number[]): { a: number; b: number } {
  const mean = (v: readonly number[]): number => v.reduce((s, n) => s + n, 0) / v.length;
  const mx = mean(x);
  const my = mean(y);
  const b = x.reduce((s, v, i) => s + (v - mx) * (y[i]! - my), 0) / x.reduce((s, v) => s + (v - mx) ** 2, 0);
  return { a: my - b * mx, b };
}

const exponent = (x: readonly number[], y: readonly number[]): number =>
  line(x.map(Math.log), y.map(Math.log)).b;

/**
 * The best line in relative terms: points weigh by 1 / y, so that a small one counts as much as a large one.
 */
function deviation(x: readonly number[], y: readonly number[]): number {
  // y = a + b x divided by y: minimise sum((a / y + b x / y - 1)^2).
  const sums = { uu: 0, uv: 0, vv: 0, u: 0, v: 0 };
  y.forEach((value, i) => {
    const u = 1 / value;
    const v = x[i]! / value;
    sums.uu += u * u;
    sums.uv += u * v;
    sums.vv += v * v;
    sums.u += u;
    sums.v += v;
  });
  const det = sums.uu * sums.vv - sums.uv ** 2;
  const a = (sums.u * sums.vv - sums.v * sums.uv) / det;
  const b = (sums.v * sums.uu - sums.u * sums.uv) / det;
  return Math.max(...y.map((value, i) => Math.abs(value / (a + b * x[i]!) - 1)));
}

/** A fit for each axis that has points. */
export function growthFits(points: readonly GrowthPoint[]): GrowthFit[] {
  return GROWTH_AXES.filter((axis) => points.some((p) => p.axis === axis)).map((axis) => {
    const mine = points.filter((p) => p.axis === axis);
    const x = mine.map((p) => p.value);
    const ms = mine.map((p) => p.timing.median);
    const flops = mine.map((p) => p.flops);
    const bytes = mine.map((p) => p.bytes);
    return {
      axis,
      flopsExponent: exponent(x, flops),
      msExponent: exponent(x, ms),
      bytesExponent: exponent(x, bytes),
      msDeviation: deviation(flops, ms),
      bytesDeviation: deviation(x, bytes),
    };
  });
}

/** Both tables in Markdown: the points, and what they follow. */
export function formatGrowth(points: readonly GrowthPoint[]): string {
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;
  const rows = points.map(
    (p) =>
      `| ${p.axis} | ${p.name} | ${p.timing.median.toFixed(1)} (${p.timing.min.toFixed(1)} to ` +
      `${p.timing.max.toFixed(1)}) | ${(p.flops / 1e9).toFixed(2)} | ${mib(p.bytes)} | ` +
      `${p.gatheredBytes === null ? '' : mib(p.gatheredBytes)} |`,
  );
  const fits = growthFits(points).map(
    (f) =>
      `| ${f.axis} | ${f.flopsExponent.toFixed(2)} | ${f.msExponent.toFixed(2)} | ` +
      `${f.bytesExponent.toFixed(2)} | ${percent(f.msDeviation)} | ${percent(f.bytesDeviation)} |`,
  );
  return [
    '| axis | what | ms, median (range) | GFLOP | MiB | MiB of gathered candidates |',
    '|---|---|---|---|---|---|',
    ...rows,
    '',
    '| axis | exponent of arithmetic | of time | of memory | time off a line over the arithmetic | ' +
      'memory off a line over the axis |',
    '|---|---|---|---|---|---|',
    ...fits,
  ].join('\n');
}
