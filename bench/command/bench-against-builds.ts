/** `mgf bench WHAT --against BUILD`: two builds of this program in turns, each round a process of each. */
import { existsSync, statSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { LEVEL, smallestP } from '../../src/measure/judge.ts';
import {
  ceilingsMoved,
  otherWork,
  parseResults,
  resultKey,
  type Result,
  type ResultsFile,
} from '../suites/results.ts';
import { MGFError } from '../../src/errors.ts';
import { finish, type Outcome, type Pair } from './bench-against.ts';
import { interruptible } from './bench-record.ts';
import { runChild, withTemporaryFolder } from '../../src/cli/children.ts';
import { plural, say } from '../../src/cli/common.ts';
import type { BenchOptions, Target } from './bench-options.ts';

/** With 7 rounds against 7 the test can tell 80 results apart. */
const BUILD_ROUNDS = 7;

/**
 * The program of a build: a folder with mgf.js, or a checkout or package with dist/mgf.js, or the file
 * itself.
 */
function programOf(path: string): string {
  const found = [path, join(path, 'mgf.js'), join(path, 'dist', 'mgf.js')].find(
    (file) => existsSync(file) && statSync(file).isFile(),
  );
  if (found?.endsWith('.js')) return found;
  throw new MGFError(
    'usage',
    `--against ${path} is no build: it must be a folder with mgf.js, as dist/ is, or for a .wgsl file ` +
      `another .wgsl file.`,
  );
}

async function runBuild(
  program: string,
  what: string | undefined,
  options: BenchOptions,
  folder: string,
): Promise<ResultsFile> {
  const json = join(folder, 'results.json');
  const args = ['bench', ...(what ? [what] : []), '--json', json];
  if (options.filter) args.push('--filter', options.filter.source);
  if (options.budget !== undefined) args.push('--budget', String(options.budget));
  if (options.precision) args.push('--precision', options.precision);
  if (what !== 'step') args.push('--tune', options.tune);
  if (options.adapter) args.push('--adapter', options.adapter);
  await rm(json, { force: true });
  const { status, said } = await runChild(program, args);
  const text = await readFile(json, 'utf8').catch(() => null);
  if (text === null)
    throw new MGFError(
      'io',
      `${program} wrote no results (exit status ${status ?? 'none'}): ${said ?? 'it said nothing'}`,
    );
  return parseResults(text, `the results of ${program}`);
}

/** Medians of each result of each round; what is not in all rounds of both is named. */
function pairUp(here: readonly ResultsFile[], there: readonly ResultsFile[]): Outcome {
  const rounds = Math.min(here.length, there.length);
  const both = [here.slice(0, rounds), there.slice(0, rounds)] as const;
  const find = (file: ResultsFile, key: string): Result | undefined =>
    file.results.find((r) => resultKey(r) === key);
  const all = [
    ...new Set(both.flat().flatMap((f) => f.results.filter((r) => r.suite !== 'ceilings').map(resultKey))),
  ];
  const pairs: Pair[] = [];
  const notes: string[] = [];
  for (const key of all) {
    const [a, b] = both.map((files) => files.flatMap((f) => find(f, key) ?? [])) as [Result[], Result[]];
    if (a.length < rounds || b.length < rounds) {
      notes.push(
        `${key} was measured in ${a.length} of ${plural(rounds, 'round')} here and in ${b.length} there, ` +
          `and is not compared`,
      );
      continue;
    }
    const times = (results: Result[]): number[] => results.map((r) => r.ms.median);
    pairs.push({ name: key, here: a[0]!, there: b[0]!, a: times(a), b: times(b) });
    const work = otherWork(b[0]!, a[0]!);
    if (work) notes.push(work);
  }
  const refused = here
    .slice(0, 1)
    .flatMap((f) => f.refused ?? [])
    .map((x) => `${x.suite} ${x.name} is refused here: ${x.reason}`);
  const adapters = new Set(both.flat().map((f) => f.adapter));
  if (adapters.size > 1) notes.push(`the adapters differ: ${[...adapters].join(', ')}`);
  if (rounds && smallestP(rounds) * pairs.length >= LEVEL) {
    notes.push(
      `${plural(rounds, 'round')} cannot tell ${plural(pairs.length, 'result')} apart, however different: ` +
        `give more with --rounds, or fewer results with --filter`,
    );
  }
  const ends = [here.at(-1), there.at(-1)].map((end) => end?.results ?? []);
  const ratios = ends.map((end) => ceilingsMoved(here[0]?.results ?? [], end));
  const moved = ratios.includes(null) ? null : Math.max(...ratios.map(Number));
  return { pairs, moved, notes: [...refused, ...notes] };
}

/**
 * Two builds of this program, each round a process of each; who begins alternates. `own`: the program of this
 * build.
 * Throws MGFError where one of them writes no results.
 */
export async function benchBuildsInTurns(
  target: Target,
  options: BenchOptions,
  own = process.argv[1]!,
): Promise<void> {
  const what = target === 'short' ? undefined : target;
  const programs = [own, programOf(options.against!)] as const;
  const rounds = options.rounds ?? BUILD_ROUNDS;
  const found: readonly [ResultsFile[], ResultsFile[]] = [[], []];
  const end = (complete: boolean): void => {
    const outcome = pairUp(...found);
    const last = found[0].at(-1);
    if (!last || outcome.pairs.length === 0) {
      if (complete) throw new MGFError('usage', 'Nothing was measured that both builds have.');
      return say('Interrupted before the first round had ended.');
    }
    const { results, refused, ...file } = last;
    finish(
      outcome,
      file,
      results.filter((r) => r.suite === 'ceilings'),
      options,
      complete,
    );
    if (complete && refused?.some((r) => r.engine === 'mgf')) process.exitCode = 1;
  };
  await withTemporaryFolder(async (folder) => {
    await interruptible(
      async () => {
        for (let round = 0; round < rounds; round++) {
          for (const at of round % 2 ? ([1, 0] as const) : ([0, 1] as const)) {
            const started = performance.now();
            found[at].push(await runBuild(programs[at], what, options, folder));
            say(
              `round ${round + 1} of ${rounds}, ${at ? 'the other' : 'this'} build: ` +
                `${((performance.now() - started) / 1000).toFixed(0)} s`,
            );
          }
        }
      },
      () => end(false),
    );
    end(true);
  });
}
