/** How long the kernels of somebody's op take on the device. */
import { contents, noise, Prepared, wantedOf, type CaseInput, type Floats } from '../custom/prepared.ts';
import { elements, type Shape } from '../graph/shape.ts';
import { dispatchCosts, profileProgram, type DispatchCost } from './profile.ts';
import { statistics } from './statistics.ts';
import type { GradcheckSubject } from '../custom/gradcheck.ts';
import type { Gpu } from '../gpu/device.ts';

/** One kernel of a step: its forward, or a gradient. `ms`: median over the runs. */
export interface KernelTime extends DispatchCost {
  readonly kernel: string;
  readonly ms: number;
}

const RUNS = 7;

/**
 * Times the kernels that are the op's own (those that travel with the engine, such as the sum of partial
 * sums, are left out).
 */
export async function timeSubject(
  gpu: Gpu,
  subject: GradcheckSubject & { readonly timed: Readonly<Record<string, CaseInput>> },
): Promise<KernelTime[]> {
  const { timed } = subject;
  const names = Object.keys(timed);
  const prepared = await Prepared.create(gpu, subject, timed, wantedOf(timed), (shape: Shape): Floats =>
    Float32Array.from(noise(elements(shape), 1, 1000)),
  );
  try {
    const data = Object.fromEntries(names.map((name, i) => [name, contents(timed[name]!, 1, i)]));
    const { program } = prepared;
    const samples: number[][] = [];
    await prepared.run(data);
    for (let run = 0; run < RUNS; run++)
      (await profileProgram(gpu, program)).forEach(({ ms, copyMs }, i) => {
        (samples[i] ??= []).push(ms + copyMs);
      });
    const costs = dispatchCosts(program.dispatches);
    return program.dispatches.flatMap(({ kernel }, i): KernelTime[] =>
      kernel.startsWith(`${subject.name}.`)
        ? [{ kernel, ms: statistics(samples[i]!).median, ...costs[i]! }]
        : [],
    );
  } finally {
    prepared.destroy();
  }
}
