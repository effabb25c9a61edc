/** Section: ceilings and kernels of this device, checked, timed and drawn. */
import type * as Plot from '@observablehq/plot';
import { measureCeilings, ofCeiling, type Ceilings } from '../src/measure/ceilings.ts';
import type { Work, Workload } from '../bench/workloads/contract.ts';
import { disagreement } from '../bench/suites/measure.ts';
import { mgfArm } from '../bench/suites/mgf.ts';
import { rooflineOptions, type Dot } from '../src/measure/roofline-plot.ts';
import { statistics } from '../src/measure/statistics.ts';
import { inputSets, WORKLOADS, workloadOf } from '../bench/workloads/workloads.ts';
import { MGFError } from '../src/errors.ts';
import type { Gpu } from '../src/gpu/device.ts';
import { plot } from './charts.ts';
import { compute } from './cpu.ts';
import type { DeviceHost } from './device.ts';
import { breath, byId, el, figures, sentence, Status } from './dom.ts';

/**
 * What the page measures, by what it is called. The published tables' sizes, and ones that a processor does
 * in seconds.
 */
const KERNELS: ReadonlyArray<{ title: string; full: string; small: Work }> = [
  { title: 'matrix product', full: 'matmul-1024', small: { op: 'matmul', M: 256, N: 256, K: 256 } },
  {
    title: 'convolution',
    full: 'conv1d-512-k3s2',
    small: { op: 'conv1d', B: 1, L: 400, Cin: 128, Cout: 128, K: 3, stride: 2 },
  },
  { title: 'layer norm', full: 'layer_norm-1500x768', small: { op: 'layer_norm', rows: 400, columns: 256 } },
  { title: 'softmax', full: 'softmax-1500x768', small: { op: 'softmax', rows: 400, columns: 256 } },
  { title: 'attention', full: 'attention-500', small: { op: 'attention', B: 1, H: 4, T: 100, D: 64 } },
  { title: 'InfoNCE', full: 'info_nce-800x100x256', small: { op: 'info_nce', N: 200, K: 50, P: 64 } },
];

const workloads = (size: string): Array<{ title: string; workload: Workload }> =>
  KERNELS.flatMap(({ title, full, small }) =>
    [false, true].map((grad) => ({
      title,
      workload:
        size === 'full'
          ? WORKLOADS.find((w) => w.name === `${full}${grad ? '-grad' : ''}`)!
          : workloadOf(title, small, grad),
    })),
  );

/**
 * The longest that one launch of the ceilings may take: browsers end a device that does not answer for
 * seconds.
 */
const CEILING_MS = 40;
/**
 * A batch of runs is at least this long, and this many times as long as being told of its end takes (browsers
 * may look only ten times a second).
 */
const BATCH_MS = 50;
const BATCH_WAITS = 8;
const MOST_RUNS = 4096;
const BATCHES = { least: 5, most: 9, milliseconds: 400 };

interface Row {
  title: string;
  grad: boolean;
  tag: string;
  ms: number;
  gflops: number;
  gbps: number;
  share: number;
  intensity: number;
  refused?: string;
}

/** Milliseconds until the page learns that the device has nothing to do. */
async function waitingTime({ device: { queue } }: Gpu): Promise<number> {
  const samples: number[] = [];
  for (let i = 0; i < 3; i++) {
    const started = performance.now();
    queue.submit([]);
    await queue.onSubmittedWorkDone();
    samples.push(performance.now() - started);
  }
  return statistics(samples).median;
}

/** Milliseconds of one run: the median of batches that are submitted at once. */
async function time(gpu: Gpu, run: () => Promise<unknown>): Promise<number> {
  const batch = async (n: number): Promise<number> => {
    const started = performance.now();
    await Promise.all(Array.from({ length: n }, run));
    await breath();
    return performance.now() - started;
  };
  await batch(1);
  const wanted = Math.max(BATCH_MS, BATCH_WAITS * (await waitingTime(gpu)));
  const samples: number[] = [];
  let n = 1;
  for (let took = await batch(n); took < wanted && n < MOST_RUNS; took = await batch(n))
    n = Math.min(MOST_RUNS, n * Math.max(2, Math.min(4, Math.ceil(wanted / took))));
  for (
    let spent = 0;
    samples.length < BATCHES.least || (samples.length < BATCHES.most && spent < BATCHES.milliseconds);
    spent += n * samples.at(-1)!
  )
    samples.push((await batch(n)) / n);
  return statistics(samples).median;
}

async function measureOne(gpu: Gpu, workload: Workload): Promise<{ ms: number } | { refused: string }> {
  const sets = inputSets(workload, 1);
  const arm = await mgfArm(gpu, workload, sets);
  try {
    arm.poison();
    const [reference] = await Promise.all([compute('reference', { workload, seed: 1 }), arm.run(0)]);
    const wrong = disagreement(await arm.outputs(), reference);
    return wrong === null ? { ms: await time(gpu, () => arm.run(0)) } : { refused: `wrong result: ${wrong}` };
  } finally {
    await arm.dispose();
  }
}

export function benchmarkSection(host: DeviceHost): void {
  const button = byId<HTMLButtonElement>('bench');
  const size = byId<HTMLSelectElement>('bench-size');
  const progress = byId<HTMLProgressElement>('bench-progress');
  const status = new Status('bench-status');
  let gpu: Gpu | null = null;
  let running = false;
  /** Cleared by the button. */
  const go = { on: false };
  const enable = (): void => {
    button.disabled = !gpu;
    button.textContent = running ? 'Stop' : 'Measure';
    size.disabled = running;
    progress.hidden = !running;
  };
  let first = true;
  host.onChange((now) => {
    gpu = now;
    if (now && first) {
      size.value = now.profile.kind === 'gpu' ? 'full' : 'small';
      first = false;
    }
    enable();
  });

  const measure = async (device: Gpu): Promise<void> => {
    const work = workloads(size.value);
    const rows: Row[] = [];
    const started = performance.now();
    progress.max = work.length + 1;
    progress.value = 0;
    byId('bench-result').replaceChildren();
    status.busy('Measuring the ceilings: multiply-adds in registers, then copying through memory.');
    const ceilings = await measureCeilings(device, { milliseconds: CEILING_MS });
    for (const [i, { title, workload }] of work.entries()) {
      if (!go.on) break;
      progress.value = i + 1;
      status.busy(
        `${title}${workload.grad ? ' with gradients' : ''}, ${i + 1} of ${work.length}: compiling, ` +
          'checking, timing.',
      );
      const measured = await measureOne(device, workload).catch((error: unknown) => {
        if (!host.current(device)) throw error;
        return { refused: sentence(error) };
      });
      const ms = 'ms' in measured ? measured.ms : NaN;
      rows.push({
        title,
        grad: workload.grad,
        tag: String(i + 1),
        ms,
        gflops: workload.flops / ms / 1e6,
        gbps: workload.bytes / ms / 1e6,
        share: ofCeiling(ceilings, workload.flops, workload.bytes, ms),
        intensity: workload.flops / workload.bytes,
        ...('refused' in measured && { refused: measured.refused }),
      });
      show(device, ceilings, rows);
    }
    if (rows.length === 0) show(device, ceilings, rows);
    const wrong = rows.filter((r) => r.refused).length;
    status.say(
      `${rows.length < work.length ? 'Stopped after' : 'Measured'} ${rows.length} of ${work.length} in ` +
        `${Math.round((performance.now() - started) / 1000)} ` +
        `s${wrong > 0 ? `; ${wrong} refused` : ', all of them right'}.`,
    );
  };

  button.addEventListener('click', () => {
    if (running) {
      go.on = false;
      status.busy('Stopping after this kernel.');
      return;
    }
    if (!gpu) return;
    const device = gpu;
    running = go.on = true;
    enable();
    void measure(device)
      .catch((error: unknown) => {
        status.fail(
          host.current(device)
            ? error
            : new MGFError(
                'device-lost',
                'the measurement ended because its device was lost; press Measure to begin anew',
              ),
        );
      })
      .finally(() => {
        running = false;
        enable();
      });
  });
}

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** A row as a screen reader says it. */
const spoken = ({ title, grad, gflops, share }: Row): string =>
  `${title}${grad ? ' with gradients' : ''} ${figures(gflops)} GFLOP/s, ${percent(share)} of the ceiling`;

function show(gpu: Gpu, ceilings: Ceilings, rows: readonly Row[]): void {
  const right = rows.filter((r) => !r.refused);
  const { name, runtime } = gpu.profile;
  const dots = (narrow: boolean): Dot[] =>
    right.map((r) => ({
      name: narrow ? r.tag : `${r.title}${r.grad ? ', gradients' : ''}`,
      intensity: r.intensity,
      gflops: r.gflops,
      kind: r.grad ? 'gradient' : 'forward',
    }));
  const cells = (r: Row): Node[] =>
    r.refused
      ? [el('td', { class: 'refused', colspan: '5' }, r.refused)]
      : [
          el('td', { class: 'n' }, figures(r.ms)),
          el('td', { class: 'n' }, figures(r.gflops)),
          el('td', { class: 'n' }, figures(r.gbps)),
          el('td', { class: 'n' }, percent(r.share)),
          el('td', {}, r.gflops / ceilings.gflops > r.gbps / ceilings.gbps ? 'arithmetic' : 'memory'),
        ];
  byId('bench-result').replaceChildren(
    el(
      'dl',
      { class: 'facts' },
      ...[
        ['adapter', name],
        ['multiply-adds', `${figures(ceilings.gflops)} GFLOP/s`],
        ['copying', `${figures(ceilings.gbps)} GB/s`],
        ['WebGPU by', runtime],
      ].map(([term, value]) => el('div', {}, el('dt', {}, term!), el('dd', {}, value!))),
    ),
    ...(right.length === 0
      ? []
      : [
          el(
            'figure',
            { style: 'margin-top: 30px' },
            plot(`Roofline of ${name}: ${right.map(spoken).join('; ')}`, (width): Plot.PlotOptions => {
              const narrow = width < 620;
              return rooflineOptions({
                adapter: name,
                gflops: ceilings.gflops,
                gbps: ceilings.gbps,
                dots: dots(narrow),
                width,
                height: narrow ? 340 : 460,
                right: narrow ? 16 : 150,
              });
            }),
            el(
              'figcaption',
              {},
              'Arithmetic per byte, and what came of it, both logarithmic. The line is what this ' +
                'device reached on multiply-adds alone and on copying alone; numbers are those of the ' +
                'table. Above the line: data that stay in caches.',
            ),
          ),
        ]),
    ...(rows.length === 0
      ? []
      : [
          el(
            'div',
            { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table of measurements' },
            el(
              'table',
              {},
              el(
                'thead',
                {},
                el(
                  'tr',
                  {},
                  ...['kernel', 'ms', 'GFLOP/s', 'GB/s', 'of ceiling', 'bound by'].map((text, i) =>
                    el('th', { scope: 'col', ...(i > 0 && i < 5 && { class: 'n' }) }, text),
                  ),
                ),
              ),
              el(
                'tbody',
                {},
                ...rows.map((r) =>
                  el(
                    'tr',
                    {},
                    el(
                      'th',
                      { scope: 'row' },
                      el('span', { class: 'tag' }, r.tag),
                      `${r.title}${r.grad ? ', with gradients' : ''}`,
                    ),
                    ...cells(r),
                  ),
                ),
              ),
            ),
          ),
        ]),
  );
}
