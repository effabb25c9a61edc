/** How long the kernels of somebody's op take on the device. */
import { elements, type Shape } from '../graph/graph.ts';
import { contents, noise, Prepared, type CaseInput, type Floats } from './prepared.ts';
import type { Gpu } from '../gpu/device.ts';
import type { GradcheckSubject } from './gradcheck.ts';

/** One kernel of a step: its forward, or a gradient. */
export interface KernelTime {
  readonly kernel: string;
  /** Median over the runs, milliseconds. */
  readonly ms: number;
  /** Of the op that launches it. */
  readonly flops: number;
  /** Of what it binds, each once. */
  readonly bytes: number;
}

const RUNS = 7;

/** Times the kernels that are the op's own (those that travel with the engine, such as the sum of partial sums, are left out). Throws MGFError 'limit' without timestamps. */
export async function timeSubject(gpu: Gpu, subject: GradcheckSubject & { readonly timed: Readonly<Record<string, CaseInput>> }): Promise<KernelTime[]> {
  const { timed } = subject, names = Object.keys(timed), wanted = names.filter((name) => timed[name]!.dtype !== 'i32' && timed[name]!.gradient !== false);
  const prepared = await Prepared.create(gpu, subject, timed, wanted, (shape: Shape): Floats => Float32Array.from(noise(elements(shape), 1, 1000)));
  try {
    prepared.write(Object.fromEntries(names.map((name, i) => [name, contents(timed[name]!, 1, i)])));
    const samples: number[][] = [];
    for (let run = 0; run <= RUNS; run++) (await prepared.program.profile()).forEach(({ ms, copyMs }, i) => { if (run > 0) (samples[i] ??= []).push(ms + copyMs); });
    return prepared.program.dispatches.flatMap(({ node, kernel, bound }, i): KernelTime[] => {
      if (!kernel.startsWith(`${subject.name}.`)) return [];
      const { op, inputs, outputs, attrs } = node.of ?? node, sorted = samples[i]!.sort((a, b) => a - b);
      const values = new Set(bound.map(({ value }) => value));
      return [{ kernel, ms: sorted[Math.floor(sorted.length / 2)]!, flops: op.cost(inputs, outputs.map((o) => o!), attrs).flops, bytes: [...values].reduce((sum, { shape }) => sum + 4 * elements(shape), 0) }];
    });
  } finally {
    prepared.destroy();
  }
}
