/**
 * The ablation that tests MGF's claim: networks trained with losses left out or of the other kind, each under
 * the same probes (Node, Deno, Bun).
 */
import { mkdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { BatchSource } from '../../audio/source.ts';
import { checkArguments, checkFields, checkOptions, GPU, RUN, type Rules } from '../../check.ts';
import { MGFError } from '../../errors.ts';
import { nearestName } from '../../edit-distance.ts';
import { assertSameConfig } from '../../mgf/config-difference.ts';
import { overrideRunConfig } from '../../mgf/parse-config.ts';
import { SCALES } from '../../mgf/config.ts';
import { initialValues, mgfParameters } from '../../mgf/weights.ts';
import { CheckpointStore, loadWeights, writeFileAtomically } from '../../pretrain/checkpoint.ts';
import { readJsonl } from '../../pretrain/logs.ts';
import { pretrain } from '../../pretrain/loop.ts';
import { readResumePoint } from '../../pretrain/run-files.ts';
import { startedLosses } from '../../pretrain/meters.ts';
import type { Loader, LoaderOptions } from '../../audio/loader.ts';
import type { Skipped, Utterance } from '../../audio/manifest.ts';
import type { Gpu } from '../../gpu/device.ts';
import type { MGFConfig, Objectives, RunConfig, Scale } from '../../mgf/config.ts';
import type { TrainingLoss } from '../../mgf/extra-losses.ts';
import type { HostTensor } from '../../plan/parameters.ts';
import type { PretrainHooks } from '../../pretrain/options.ts';
import type { AblationResult, AblationRow } from '../task.ts';

// ------------------------------------------------------------------------------------------------------ grid

/** The kind of loss that each scale does not have, by the one that it has. */
const OTHER_KIND: { readonly [S in keyof Objectives]: Readonly<Record<Objectives[S], Objectives[S]>> } = {
  frame: { l1: 'info_nce', info_nce: 'l1' },
  phoneme: { info_nce: 'l1', l1: 'info_nce' },
  sentence: { nt_xent: 'l1', l1: 'nt_xent' },
};

/** Rows that train nothing: the network's starting weights, and log-mel frames. */
const UNTRAINED: readonly string[] = ['random', 'log-mel'];

/**
 * The rows of the grid for a configuration: of the scales that it trains (three with the mel front end), and
 * of losses that were brought.
 */
export function ablationRows(config: Pick<MGFConfig, 'loss_weights' | 'extra_losses'>): string[] {
  checkFields('ablationRows', 'config.', config, { loss_weights: 'an object', extra_losses: 'an object' });
  const { loss_weights, extra_losses } = config;
  const scales: string[] = [
    ...SCALES.filter((s) => loss_weights[s] > 0),
    ...Object.keys(extra_losses).filter((name) => extra_losses[name]!.weight > 0),
  ];
  const several = scales.length > 1;
  return [
    'all',
    ...(several ? [...scales.map((s) => `only-${s}`), ...scales.map((s) => `without-${s}`)] : []),
    ...scales.filter((s) => s in OTHER_KIND).map((s) => `swap-${s}`),
    ...UNTRAINED,
  ];
}

/**
 * The rows asked for, in the order of the grid. Error (`usage`): a name that the grid has not, with the
 * nearest one.
 */
export function chooseRows(mgf: MGFConfig, wanted?: readonly string[]): string[] {
  checkArguments('chooseRows', { wanted: [wanted, 'a list?'] });
  const rows = ablationRows(mgf);
  const unknown = wanted?.find((name) => !rows.includes(name));
  if (unknown !== undefined)
    throw new MGFError(
      'usage',
      `The grid has no row "${unknown}"; the nearest is "${nearestName(unknown, rows)}" (all: ` +
        `${rows.join(', ')}).`,
    );
  return wanted ? rows.filter((name) => wanted.includes(name)) : rows;
}

/** The configuration that a row of the grid trains; everything but losses and seed is that of `base`. */
export function rowConfig(base: RunConfig, name: string, seed: number): RunConfig {
  checkArguments('rowConfig', { base: [base, RUN], name: [name, 'a text'], seed: [seed, 'a number'] });
  const [kind, scale] = name.split(/-(.*)/) as [string, Scale];
  const { loss_weights, objectives, extra_losses } = base.mgf;
  const off = (loss: string): boolean =>
    (kind === 'only' && loss !== scale) || (kind === 'without' && loss === scale);
  const weights = Object.fromEntries(SCALES.map((s) => [s, off(s) ? 0 : loss_weights[s]]));
  const extra = Object.fromEntries(
    Object.entries(extra_losses).map(([n, loss]) => [n, { ...loss, weight: off(n) ? 0 : loss.weight }]),
  );
  const swap =
    kind === 'swap'
      ? {
          [scale]: (OTHER_KIND as Record<string, Record<string, string>>)[scale]![
            objectives[scale as keyof Objectives]
          ],
        }
      : {};
  return overrideRunConfig(
    base,
    { loss_weights: weights, extra_losses: extra, objectives: swap, seed, keep_last: 1 },
    { origin: name },
  );
}

// ------------------------------------------------------------------------------------------------------- run

/** What a row's features come from. */
export interface Subject {
  readonly mgf: MGFConfig;
  /** Weights by name, trained or as they start; null: log-mel, without a network. */
  readonly parameters: ReadonlyMap<string, HostTensor> | null;
}

/** Whom `runAblation` tells what. */
export interface AblationHooks extends Pick<PretrainHooks, 'onScan' | 'onProgress'> {
  /** Before a cell is trained or scored. `done` of `total` cells are finished. */
  onCell?: (cell: { name: string; seed: number; done: number; total: number }) => void;
  /** After it; `secondsLeft` for the rest of the grid, from the cells of this sitting. */
  onScored?: (
    row: AblationRow,
    progress: { done: number; total: number; seconds: number; secondsLeft: number },
  ) => void;
  /** Something that a user should know, in a sentence. */
  onNote?: (note: string) => void;
}

/** A grid of runs: what they depart from, which rows and seeds, and what they are scored by. */
export interface AblationOptions {
  gpu: Gpu;
  /**
   * The run that every row departs from; its seed is not used. Counted in steps, so that every row learns
   * equally long.
   */
  base: RunConfig;
  /** Losses that `base` names beside the scales. */
  losses?: readonly TrainingLoss[] | undefined;
  preset: string;
  items: readonly Utterance[];
  skipped?: readonly Skipped[];
  /** The recordings' place, and what the probes are made of; a folder goes on only with the same ones. */
  data: string;
  probes: {
    readonly labels: string;
    readonly tasks: readonly string[];
    readonly families?: readonly string[] | undefined;
  };
  rows: readonly string[];
  seeds: readonly number[];
  /** Gets ablation.json, config.json and a run's folder a cell (`runs/ROW-SEED`). */
  out: string;
  /** The probes. */
  score: (subject: Subject) => Promise<AblationRow['scores']>;
  hooks?: AblationHooks;
  signal?: AbortSignal;
}

const OPTIONS: Rules<AblationOptions> = {
  gpu: GPU,
  base: RUN,
  losses: 'a list?',
  preset: 'a text',
  items: 'a list',
  skipped: 'a list?',
  data: 'a text',
  probes: 'an object',
  rows: 'a list',
  seeds: 'a list',
  out: 'a text',
  score: 'a function',
  hooks: 'an object?',
  signal: 'an AbortSignal?',
};

const bytes = (text: string): Uint8Array[] => [new TextEncoder().encode(text)];
const isTrained = (name: string): boolean => !UNTRAINED.includes(name);

/**
 * Trains and scores every cell of rows x seeds that `out` does not hold yet, a seed after the other, so that
 * the first is a whole grid soonest. A training that was interrupted goes on from its checkpoint. Every
 * result is on the disk before the next cell starts. What does not depend on the seed (log-mel) is scored
 * once. `interrupted`: `signal` came first.
 * @throws MGFError 'usage' for a base run by the clock, 'config' for a row that the base does not allow,
 * 'checkpoint' when `out` holds another ablation, 'data' for a damaged ablation.json; what training and
 * probes throw
 */
export async function runAblation(
  options: AblationOptions,
): Promise<{ result: AblationResult; interrupted: boolean }> {
  checkOptions('runAblation', options, OPTIONS);
  const { gpu, base, preset, rows, seeds, out, score, hooks = {}, signal } = options;
  if (base.train.minutes !== null)
    throw new MGFError(
      'usage',
      'An ablation is counted in steps, so that every row learns equally long; set `steps` instead of ' +
        '`minutes`.',
    );
  // A row that the base makes impossible (the one scale left starts late) is said before anything is trained.
  for (const name of rows) rowConfig(base, name, 0);
  await checkFolder(options);
  const finished = await readAblation(out);
  const cells = seeds.flatMap((seed, i) =>
    rows.filter((name) => i === 0 || name !== 'log-mel').map((name) => ({ name, seed })),
  );
  const isDone = ({ name, seed }: { name: string; seed: number }): boolean =>
    finished.some((row) => row.name === name && (name === 'log-mel' || row.seed === seed));
  const result = (): AblationResult => ({
    preset,
    adapter: gpu.profile.name,
    date: new Date().toISOString(),
    rows: inOrder(finished, ablationRows(base.mgf)),
  });
  const clock = new Clock();
  const total = cells.length;
  let audio: { seed: number; source: BatchSource } | undefined;
  try {
    for (const cell of cells.filter((c) => !isDone(c))) {
      if (signal?.aborted) return { result: result(), interrupted: true };
      const { name, seed } = cell;
      const started = performance.now();
      const run = rowConfig(base, name, seed);
      hooks.onCell?.({ name, seed, done: cells.filter(isDone).length, total });
      let trained: Trained | undefined;
      if (isTrained(name)) {
        // Recordings are decoded once a seed, not once a cell.
        if (audio?.seed !== seed) {
          audio?.source.free();
          audio = { seed, source: await openSource(run, options) };
        }
        trained = await train(options, run, name, audio.source);
        if (!trained) return { result: result(), interrupted: true };
      }
      const scores = await score({
        mgf: run.mgf,
        parameters:
          trained?.parameters ?? (name === 'random' ? initialValues(mgfParameters(run.mgf, []), seed) : null),
      });
      const row: AblationRow = {
        name,
        seed,
        steps: trained?.steps ?? 0,
        losses: trained?.losses ?? {},
        scores,
      };
      finished.push(row);
      await writeFileAtomically(join(out, 'ablation.json'), bytes(`${JSON.stringify(result(), null, 2)}\n`));
      clock.add(isTrained(name), (performance.now() - started) / 1000);
      const left = cells.filter((c) => !isDone(c));
      hooks.onScored?.(row, {
        done: total - left.length,
        total,
        seconds: (performance.now() - started) / 1000,
        secondsLeft: clock.left(left.map((c) => isTrained(c.name))),
      });
    }
    return { result: result(), interrupted: false };
  } finally {
    audio?.source.free();
  }
}

/** Seconds that cells take, trained ones and others apart. */
class Clock {
  readonly #seconds: Record<'true' | 'false', number[]> = { true: [], false: [] };

  add(trained: boolean, seconds: number): void {
    this.#seconds[`${trained}`].push(seconds);
  }

  left(cells: readonly boolean[]): number {
    const mean = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0) / x.length;
    const all = mean([...this.#seconds.true, ...this.#seconds.false]);
    return cells.reduce(
      (sum, trained) =>
        sum + (this.#seconds[`${trained}`].length > 0 ? mean(this.#seconds[`${trained}`]) : all),
      0,
    );
  }
}

function inOrder(found: readonly AblationRow[], names: readonly string[]): AblationRow[] {
  return [...found].sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name) || a.seed - b.seed);
}

// ---------------------------------------------------------------------------------------------------- folder

/** The results in a folder, or none. Error (`data`): the file is no result of an ablation. */
export async function readAblation(out: string): Promise<AblationRow[]> {
  const path = join(out, 'ablation.json');
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) return [];
  try {
    const { rows } = JSON.parse(text) as AblationResult;
    if (
      rows.every(
        ({ name, seed, scores }) =>
          typeof name === 'string' && Number.isInteger(seed) && typeof scores === 'object',
      )
    )
      return [...rows];
  } catch {
    /* said below */
  }
  throw new MGFError(
    'data',
    `${path} is damaged or no result of mgf ablate; remove it, and the cells are scored again from ` +
      'their checkpoints.',
  );
}

/** Whether a folder is new or holds this very ablation, perhaps with other rows and seeds. */
async function checkFolder({ base, data, probes, out }: AblationOptions): Promise<void> {
  const path = join(out, 'config.json');
  const { seed: _, ...train } = base.train;
  const wanted = {
    data: resolve(data),
    probes: { labels: resolve(probes.labels), tasks: probes.tasks, families: probes.families ?? null },
    ...base.mgf,
    ...train,
  };
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text !== undefined) {
    let found: object;
    try {
      found = JSON.parse(text) as object;
    } catch (error) {
      throw new MGFError('checkpoint', `${path} is damaged; choose another folder with \`--out\`.`, {
        cause: error,
      });
    }
    assertSameConfig(found, wanted, { origin: path });
    return;
  }
  await mkdir(out, { recursive: true }).catch((error: unknown) => {
    throw new MGFError('io', `Cannot make the folder ${out} (${(error as NodeJS.ErrnoException).code}).`, {
      cause: error,
    });
  });
  await writeFileAtomically(path, bytes(`${JSON.stringify(wanted, null, 2)}\n`));
}

// -------------------------------------------------------------------------------------------------- training

interface Trained {
  steps: number;
  losses: Record<string, number>;
  parameters: Map<string, HostTensor>;
}

/** The part of a run, at its end, over which its losses are averaged. */
const TAIL = 0.1;

function openSource({ mgf, train: t }: RunConfig, { items, hooks }: AblationOptions): Promise<BatchSource> {
  return BatchSource.open(
    {
      items,
      seed: t.seed,
      utterancesPerBatch: t.utterances_per_batch,
      cropSeconds: t.crop_seconds,
      negatives: mgf.num_negatives,
      mask: {
        probability: mgf.mask_time_prob,
        length: mgf.mask_time_length,
        minMasks: mgf.mask_time_min_masks,
      },
    },
    hooks?.onScan,
  );
}

/** Batches of a source that stays open for the next cell. */
function loaderOf(source: BatchSource, { startStep = 0 }: LoaderOptions): Loader {
  let step = startStep;
  return {
    shape: source.shape,
    report: source.report,
    stepsPerEpoch: source.stepsPerEpoch,
    get stats() {
      return { ...source.stats, waitedMs: 0 };
    },
    next: () => source.batch(step++),
    state: (at) => source.state(at),
    close: () => Promise.resolve(),
  };
}

/** Trains a cell to its end, from its checkpoint if it has one; undefined when interrupted. */
async function train(
  { gpu, items, losses, skipped, out, hooks, signal }: AblationOptions,
  run: RunConfig,
  name: string,
  source: BatchSource,
): Promise<Trained | undefined> {
  const folder = join(out, 'runs', `${name}-${run.train.seed}`);
  const cell = `${name}, seed ${run.train.seed}`;
  const resume = (await new CheckpointStore(folder).latest()) ? await readResumePoint(folder) : undefined;
  if (!resume || resume.state.step < run.train.steps) {
    const { interrupted } = await pretrain({
      gpu,
      run,
      items,
      losses: (losses ?? []).filter((l) => run.mgf.extra_losses[l.name]!.weight > 0),
      out: folder,
      name,
      openLoader: (o) => Promise.resolve(loaderOf(source, o)),
      ...(skipped && { skipped }),
      ...(resume && { resume }),
      ...(signal && { signal }),
      hooks: {
        ...(hooks?.onProgress && { onProgress: hooks.onProgress }),
        onAlarm: (alarm) => hooks?.onNote?.(`${cell}: ${alarm.message}`),
        onNote: (note) => hooks?.onNote?.(`${cell}: ${note}`),
      },
    });
    if (interrupted) return undefined;
  }
  const { steps } = run.train;
  const log = readJsonl(join(folder, 'log.jsonl')).filter((r) => 'total' in r);
  const tail = log.filter((r) => r.step > (1 - TAIL) * steps);
  const ends = Object.fromEntries(
    startedLosses(run.mgf, Infinity).map((s) => [
      s,
      tail.reduce((sum, r) => sum + Number(r[s]) / tail.length, 0),
    ]),
  );
  return { steps, losses: ends, parameters: (await loadWeights(folder)).parameters };
}
