/** `mgf report RUN`: everything known of a run as one page. */
import { readdir, readFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import * as v from 'valibot';
import { readManifest } from '../audio/manifest.ts';
import { MGFError } from '../errors.ts';
import { loadWeights } from '../pretrain/checkpoint.ts';
import { TASKS } from '../tasks/task.ts';
import {
  adapterOption,
  ioError,
  jsonOption,
  plural,
  print,
  programName,
  say,
  shellWord,
  withGpu,
} from './common.ts';
import type { Manifest } from '../audio/manifest.ts';
import type { AdapterPreference } from '../gpu/device.ts';
import type { AblationResult, ProbeResult } from '../tasks/task.ts';
import type { RunFolder } from './run-report.ts';

interface Options {
  out?: string;
  data?: string;
  probe?: string[];
  ablation?: string;
  audio: boolean;
  adapter?: AdapterPreference;
  json?: boolean;
}

export function reportCommand(): Command {
  return new Command('report')
    .summary('write all that is known of a run as one page')
    .description(
      'One HTML file that needs no network and no scripts: losses, health, probes by hidden state, ' +
        'phones taken for others, a map of voices, recordings beside what the model ' +
        'makes of them (with sound), ablations, configuration. Probes (probe-*.json, result.json) and ' +
        "ablation.json are looked for in the run's folder.",
    )
    .argument('<run>', 'folder of a run, finished or not')
    .option('--out <file>', 'the page (default: RUN/report.html)')
    .option(
      '--data <manifest>',
      'recordings for the map of voices and to listen to (default: those that the run learned from)',
    )
    .option('--probe <files...>', 'more results of probes or of fine-tuning')
    .option('--ablation <file>', 'results of an ablation (default: RUN/ablation.json)')
    .option('--no-audio', 'no sounds in the page')
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf report runs/first
  mgf report runs/first --data voices.tsv --out first.html
  mgf report runs/first --probe probes/phoneme.json probes/speaker.json --no-audio`,
    )
    .action(runReport);
}

// --------------------------------------------------------------------------------- results of other commands

const share = v.pipe(v.number(), v.finite());
const estimate = v.object({ value: share, interval: v.tuple([share, share]) });
const metrics = v.record(v.string(), estimate);
const counts = v.array(v.array(v.pipe(v.number(), v.minValue(0))));
const probeSchema = v.object({
  task: v.picklist(TASKS),
  checkpoint: v.string(),
  adapter: v.string(),
  date: v.string(),
  seed: v.number(),
  classes: v.array(v.string()),
  counts: v.object({ train: v.number(), dev: v.number(), test: v.number() }),
  majority: v.optional(share),
  rows: v.array(
    v.object({
      features: v.picklist(['mgf', 'random', 'log-mel']),
      layer: v.union([v.number(), v.literal('sum'), v.null()]),
      head: v.picklist(['linear', 'mlp']),
      pool: v.picklist(['none', 'mean', 'mean+std']),
      learningRate: v.number(),
      metrics,
      parts: v.record(v.string(), metrics),
      confusion: v.optional(counts),
    }),
  ),
});
const ablationSchema = v.object({
  preset: v.string(),
  adapter: v.string(),
  date: v.string(),
  rows: v.array(
    v.object({
      name: v.string(),
      seed: v.number(),
      steps: v.number(),
      losses: v.record(v.string(), share),
      scores: v.record(v.picklist(['phoneme', 'speaker', 'emotion']), v.optional(estimate)),
    }),
  ),
});

async function readResults<S extends v.GenericSchema>(
  path: string,
  schema: S,
  what: string,
): Promise<v.InferOutput<S>> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw ioError(error, `read ${what}`, path);
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new MGFError('data', `${path} is not JSON (${(error as Error).message}).`, { cause: error });
  }
  const parsed = v.safeParse(schema, json);
  if (parsed.success) return parsed.output;
  const { message, path: field } = parsed.issues[0];
  throw new MGFError(
    'data',
    `${path} does not hold ${what}: ${field?.map((f) => String(f.key)).join('.') ?? 'the whole'}: ${message}.`,
  );
}

/** A probe's results, as `mgf probe` writes them. Throws MGFError 'io' and 'data'. */
export async function readProbe(path: string): Promise<ProbeResult> {
  const result = (await readResults(path, probeSchema, 'results of a probe')) as ProbeResult;
  const n = result.classes.length;
  if (
    result.rows.some(
      (r) => r.confusion && (r.confusion.length !== n || r.confusion.some((row) => row.length !== n)),
    )
  ) {
    throw new MGFError(
      'data',
      `${path} does not hold results of a probe: a confusion matrix is not of its ${n} classes.`,
    );
  }
  return result;
}

export const readAblation = async (path: string): Promise<AblationResult> =>
  (await readResults(path, ablationSchema, 'results of an ablation')) as AblationResult;

/**
 * Results in a run's folder and in the folders right below it, by name; what only looks like them is told and
 * left out.
 */
async function foundProbes(dir: string): Promise<ProbeResult[]> {
  const entries = (await readdir(dir, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1));
  const found: ProbeResult[] = [];
  const paths = [
    ...entries
      .filter((e) => e.isFile() && /^(probe-.*|result)\.json$/.test(e.name))
      .map((e) => join(dir, e.name)),
    ...entries
      .filter((e) => e.isDirectory())
      .map((e) => join(dir, e.name, 'result.json'))
      .filter((path) => existsSync(path)),
  ];
  for (const path of paths) {
    try {
      found.push(await readProbe(path));
    } catch (error) {
      if (!(error instanceof MGFError)) throw error;
      say(`Left out: ${error.message}`);
    }
  }
  return found;
}

// ----------------------------------------------------------------------------------------------- the command

/** Recordings of `--data`, or those that the run learned from where they are still there. */
async function recordings(folder: RunFolder, data: string | undefined): Promise<Manifest | undefined> {
  if (data !== undefined) return readManifest(data);
  const source = folder.record?.sittings.at(-1)?.data;
  if (source === undefined) {
    say(
      'No map of voices and no recordings: the run does not say which it learned from; name some with --data.',
    );
    return undefined;
  }
  try {
    return await readManifest(source);
  } catch (error) {
    if (!(error instanceof MGFError)) throw error;
    say(`No map of voices and no recordings: ${error.message}`);
    return undefined;
  }
}

async function runReport(dir: string, options: Options): Promise<void> {
  // The plotting library is the slowest to load; only a report needs it.
  const { readRunFolder, reportOf, writeReport } = await import('./run-report.ts');
  const folder = await readRunFolder(dir);
  const beside = join(dir, 'ablation.json');
  const ablation = options.ablation ?? (existsSync(beside) ? beside : undefined);
  const given = await Promise.all((options.probe ?? []).map(readProbe));
  const data = {
    ...reportOf(folder),
    audio: options.audio,
    probes: [...(await foundProbes(dir)), ...given].sort(
      (a, b) => TASKS.indexOf(a.task) - TASKS.indexOf(b.task),
    ),
    ...(ablation !== undefined && { ablation: await readAblation(ablation) }),
    next: [`${programName()} embed FILES --checkpoint ${shellWord(dir)} --out features.npy`],
  };
  if (folder.checkpoint) {
    const manifest = await recordings(folder, options.data);
    if (manifest) Object.assign(data, await listen(folder, manifest, options.adapter));
  } else say('No map of voices and no recordings: the run has saved no checkpoint yet.');
  const out = options.out ?? join(dir, 'report.html');
  const bytes = await writeReport(out, data);
  if (options.json)
    print(
      JSON.stringify(
        {
          report: out,
          bytes,
          run: dir,
          step: data.run.steps,
          probes: data.probes.length,
          ablation: ablation ?? null,
        },
        null,
        2,
      ),
    );
  else
    print(
      `Report of ${plural(data.run.steps, 'step')}, ${plural(data.probes.length, 'probe')}, ` +
        `${(bytes / 1e6).toFixed(2)} MB: ${out}`,
    );
}

/** What a device has to compute; none is opened where nothing can be drawn. */
async function listen(folder: RunFolder, { items }: Manifest, adapter: AdapterPreference | undefined) {
  const { chooseRecordings, chooseVoices, mapVoices, rebuild } = await import('./report-listen.ts');
  const { config } = folder;
  const seed = config.train.seed;
  const voices = chooseVoices(items, seed);
  const clips = await chooseRecordings(items, seed);
  if (voices.length === 0)
    say(
      'No map of voices: it needs two voices with four clips each, by a speaker column or a folder a voice.',
    );
  if (voices.length === 0 && clips.length === 0) return {};
  const { parameters } = await loadWeights(folder.checkpoint!.path);
  return withGpu(adapter, async (gpu) => ({
    voices: voices.length > 0 ? await mapVoices(gpu, config, parameters, voices) : undefined,
    recordings: await rebuild(gpu, config, parameters, clips),
  }));
}
