/** `mgf inspect`: a training step as text, picture and timeline. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { dispatchCosts, profileProgram } from '../measure/profile.ts';
import { syntheticBatch } from '../mgf/synthetic-batch.ts';
import { formatShape } from '../graph/shape.ts';
import { applySettings } from '../mgf/parse-config.ts';
import { Pretrainer } from '../mgf/pretrainer.ts';
import { PRESET_NAMES, presetRunConfig } from '../mgf/presets.ts';
import { chromeTrace, graphDot } from '../plan/inspect.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import {
  adapterOption,
  collect,
  formatTable,
  ioError,
  jsonOption,
  percent,
  positiveInteger,
  precisionOption,
  print,
  withGpu,
} from './common.ts';
import { attachOption, lossOption, weightOption, withLosses, type LossOptions } from './losses.ts';
import type { Node } from '../graph/graph.ts';
import type { AdapterPreference, Gpu, Precision } from '../gpu/device.ts';
import type { HostArray, Profiled, Program } from '../plan/program.ts';

interface Options extends LossOptions {
  preset: string;
  set?: string[];
  out: string;
  top: number;
  value?: string[];
  precision?: Precision;
  adapter?: AdapterPreference;
  json?: boolean;
}

export function inspectCommand(): Command {
  return new Command('inspect')
    .summary('show a training step: every dispatch with shapes, bytes and time')
    .description(
      'Compiles the training step of a preset, with losses of your own if you like, runs it on made-up ' +
        'speech, and writes plan.txt (order, bindings, memory), graph.svg and graph.dot (the forward ' +
        'graph, the darker the slower), and trace.json (a timeline for Perfetto or chrome://tracing). ' +
        'Prints the kernels that take longest.',
    )
    .option('--preset <name>', `size of the model: ${PRESET_NAMES.join(', ')}`, 'micro-mel')
    .addOption(
      new Option('--set <key=value>', 'set any field of the configuration; may be repeated').argParser(
        collect,
      ),
    )
    .addOption(lossOption())
    .addOption(attachOption())
    .addOption(weightOption())
    .option('--out <folder>', 'gets the files', 'inspect')
    .addOption(new Option('--top <n>', 'dispatches that are printed').argParser(positiveInteger).default(15))
    .addOption(
      new Option(
        '--value <name>',
        'also print statistics of a tensor by its name in plan.txt, or of its gradient: "d NAME"; may ' +
          'be repeated',
      ).argParser(collect),
    )
    .addOption(precisionOption())
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf inspect --preset micro-mel
  mgf inspect --preset nano --loss my-loss.ts --attach 1 --out inspect/mine
  mgf inspect --preset nano-mel --value "encoder.layers.0/linear" --value "d encoder.layers.0/linear"`,
    )
    .action((options: Options) => runInspect(options));
}

/** Profiles of which each dispatch's shortest time counts. */
const RUNS = 5;

async function runInspect({
  preset,
  set = [],
  out,
  top,
  value: names = [],
  precision,
  adapter,
  json,
  ...own
}: Options): Promise<void> {
  const { run, losses } = await withLosses(
    applySettings(presetRunConfig(preset), [...set, ...(precision ? [`precision=${precision}`] : [])]),
    own,
  );
  await mkdir(out, { recursive: true }).catch((error: unknown) => {
    throw ioError(error, 'write to the folder', out);
  });
  await withGpu(adapter, async (gpu) => {
    const model = await Pretrainer.create(gpu, run, { losses });
    const batch = syntheticBatch(run, 1);
    try {
      await model.step(Array(run.train.accumulation).fill(batch), { step: 0, learningRate: 0 });
      const { program } = model;
      const profile = await fastest(gpu, program);
      const costs = dispatchCosts(program.dispatches);
      const text = (s: string): Uint8Array[] => [new TextEncoder().encode(s)];
      const ms = new Map<Node, number>();
      for (const {
        dispatch: { node },
        ms: own_,
        copyMs,
      } of profile)
        ms.set(node.of ?? node, (ms.get(node.of ?? node) ?? 0) + own_ + copyMs);
      const dot = graphDot(
        program.dispatches
          .map(({ node }) => node.of ?? node)
          .filter((node, i, all) => all.indexOf(node) === i),
        ms,
      );
      // Graphviz is the slowest to load.
      const { instance } = await import('@viz-js/viz');
      const svg = (await instance()).renderString(dot, { format: 'svg' });
      for (const [file, content] of Object.entries({
        'plan.txt': `${program.toString()}\n`,
        'graph.dot': `${dot}\n`,
        'graph.svg': svg,
        'trace.json': JSON.stringify({
          traceEvents: chromeTrace(profile, `${preset} on ${gpu.profile.name}`),
        }),
      })) {
        await writeFileAtomically(join(out, file), text(content));
      }
      const total = profile.reduce((sum, d) => sum + d.ms + d.copyMs, 0);
      const values = names.length > 0 ? await model.values(batch, names) : new Map<string, never>();
      const rows = profile
        .map(({ dispatch, ms: own_, copyMs }, i) => ({
          op: dispatch.label,
          kernel: dispatch.kernel,
          variant: dispatch.constants,
          grid: dispatch.grid,
          shapes: dispatch.bound.map(({ name, value: v }) => `${name} ${formatShape(v.shape)}`),
          ...costs[i]!,
          ms: own_,
          copyMs,
        }))
        .sort((a, b) => b.ms + b.copyMs - a.ms - a.copyMs);
      const tensors = [...values].map(([name, { shape, data }]) => ({ name, shape, ...statistics(data) }));
      if (json)
        return print(
          JSON.stringify(
            {
              preset,
              adapter: gpu.profile.name,
              out,
              info: model.info,
              ms: total,
              dispatches: rows,
              values: tensors,
            },
            null,
            2,
          ),
        );
      const { dispatches, pipelines, activationBytes } = model.info;
      print(
        `${preset} on ${gpu.profile.name}: ${dispatches} dispatches, ${pipelines} pipelines, ` +
          `${(activationBytes / 1e6).toFixed(0)} MB, ${total.toFixed(1)} ms by ` +
          `${gpu.device.features.has('timestamp-query') ? "the device's clock" : 'the wall clock'}`,
      );
      print(
        formatTable(
          ['op', 'kernel', 'ms', 'of the step', 'GFLOP/s', 'GB/s'],
          rows
            .slice(0, top)
            .map((r) => [
              r.op,
              r.kernel,
              (r.ms + r.copyMs).toFixed(2),
              percent((r.ms + r.copyMs) / total),
              r.flops === null ? '-' : (r.flops / (r.ms + r.copyMs) / 1e6).toPrecision(3),
              (r.bytes / (r.ms + r.copyMs) / 1e6).toPrecision(3),
            ]),
        ),
      );
      for (const t of tensors)
        print(
          `${t.name} ${formatShape(t.shape)}: mean ${t.mean.toPrecision(4)}, deviation ` +
            `${t.deviation.toPrecision(4)}, least ${t.least.toPrecision(4)}, most ` +
            `${t.most.toPrecision(4)}${t.notFinite > 0 ? `, ${t.notFinite} not finite` : ''}; begins ` +
            `${t.first.map((v) => v.toPrecision(4)).join(' ')}`,
        );
      print(`${out}: plan.txt, graph.svg, graph.dot, trace.json (open it in ui.perfetto.dev)`);
    } finally {
      model.destroy();
    }
  });
}

/** Of each dispatch its shortest time. */
async function fastest(gpu: Gpu, program: Program): Promise<Profiled[]> {
  let best: Profiled[] = [];
  for (let i = 0; i < RUNS; i++)
    best = (await profileProgram(gpu, program)).map((d, k) =>
      best[k] && best[k].ms + best[k].copyMs < d.ms + d.copyMs ? best[k] : d,
    );
  return best;
}

function statistics(data: HostArray): {
  mean: number;
  deviation: number;
  least: number;
  most: number;
  notFinite: number;
  first: number[];
} {
  let sum = 0;
  let square = 0;
  let least = Infinity;
  let most = -Infinity;
  let notFinite = 0;
  for (const v of data) {
    if (!Number.isFinite(v)) {
      notFinite++;
      continue;
    }
    sum += v;
    square += v * v;
    least = Math.min(least, v);
    most = Math.max(most, v);
  }
  const n = Math.max(1, data.length - notFinite);
  const mean = sum / n;
  return {
    mean,
    deviation: Math.sqrt(Math.max(0, square / n - mean * mean)),
    least,
    most,
    notFinite,
    first: Array.from(data.subarray(0, 4)),
  };
}
