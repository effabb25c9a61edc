/** What a run of `mgf bench` has found so far, as a file of results; an interruption prints and writes it. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, platform, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { formatResults, type ResultsFile } from '../suites/results.ts';
import { formatReport } from '../suites/tables.ts';
import { endChildren } from '../../src/cli/children.ts';
import { ioError, print, say } from '../../src/cli/common.ts';
import type { Findings } from '../suites/suites.ts';
import type { AdapterProfile } from '../../src/gpu/adapter.ts';

/** Writes a file, with its folder. Throws MGFError 'io'. */
export function write(path: string, text: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  } catch (error) {
    throw ioError(error, 'write', path);
  }
  say(`wrote ${path}`);
}

const machine = (): string =>
  `${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${availableParallelism()} threads, ` +
  `${(totalmem() / 2 ** 30).toFixed(0)} GiB, ${platform()}`;

/** The file of results of what was found. */
export function resultsOf(
  profile: Pick<AdapterProfile, 'name'>,
  versions: Record<string, string>,
  findings: Findings,
  complete = true,
): ResultsFile {
  const { results, refused, leftOut } = findings;
  const date = new Date().toISOString();
  return {
    adapter: profile.name,
    versions,
    date,
    machine: machine(),
    ...(!complete && { complete }),
    results,
    refused,
    left_out: leftOut,
  };
}

/** Prints and writes results that are not complete. */
export function reportInterrupted(results: ResultsFile, json: string | undefined): void {
  print(formatReport({ ...results, complete: false }));
  if (json !== undefined) write(json, formatResults({ ...results, complete: false }));
  say('Interrupted: what was being measured is not in the results, what was measured before is.');
}

/**
 * Runs `action`; on Ctrl-C calls `finish` at once and ends the process with 130. A second Ctrl-C cuts nothing
 * short.
 */
export async function interruptible<T>(action: () => Promise<T>, finish: () => void): Promise<T> {
  const stop = (): void => {
    endChildren();
    try {
      finish();
    } catch (error) {
      say(`mgf: ${(error as Error).message}`);
    }
    process.exit(130);
  };
  process.on('SIGINT', stop);
  try {
    return await action();
  } finally {
    process.off('SIGINT', stop);
  }
}
