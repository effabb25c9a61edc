/** `mgf conformance DIR`: golden cases against this adapter. */
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Command } from 'commander';
import { caseBuilder, recordCases } from '../conformance/record.ts';
import { builders, runCase } from '../conformance/run.ts';
import { MGFError } from '../errors.ts';
import { writeFileAtomically } from '../pretrain/checkpoint.ts';
import { adapterOption, formatTable, ioError, jsonOption, plural, print, withGpu } from './common.ts';
import { subjectsIn } from './gradcheck.ts';
import type { CaseResult } from '../conformance/run.ts';
import type { GradcheckSubject } from '../custom/gradcheck.ts';
import type { AdapterPreference } from '../gpu/device.ts';

interface Options {
  module?: string;
  record?: boolean;
  adapter?: AdapterPreference;
  json?: boolean;
}

export function conformanceCommand(): Command {
  return new Command('conformance')
    .summary('check every op and the whole model against golden cases')
    .description(
      'Runs the conformance cases (.safetensors with inputs, outputs and gradients computed in ' +
        'PyTorch) on this adapter: ' +
        'a line per case, then the largest relative error of each op. Exit status 1 if a case fails or ' +
        'there is none.',
    )
    .argument('<dir>', 'folder of cases, or one case')
    .option(
      '--module <file>',
      'ops of your own that cases are of: a TypeScript or JavaScript module, as for mgf gradcheck',
    )
    .option(
      '--record',
      'with --module: write a case for each of its ops and smooth cases into the folder, from the ' +
        'float64 references, instead of running any',
    )
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Examples:
  mgf conformance cases/
  mgf conformance cases/attention.safetensors --adapter swiftshader
  mgf conformance mine/ --module my-loss.ts --record
  mgf conformance mine/ --module my-loss.ts`,
    )
    .action(async (dir: string, { adapter, json, module, record }: Options) => {
      const subjects = await subjectsOf(module, record);
      if (record) return recordAll(subjects, dir);
      const files = await caseFiles(dir);
      const table = { ...builders, ...Object.fromEntries(subjects.map((s) => [s.name, caseBuilder(s)])) };
      await withGpu(adapter, async (gpu) => {
        const show = json ? () => undefined : print;
        show(`${gpu.profile.name} (${gpu.profile.runtime}), ${gpu.profile.family} kernels`);
        const results: CaseResult[] = [];
        for (const path of files) {
          const bytes = await readFile(path).catch((error: unknown) => {
            throw ioError(error, 'read', path);
          });
          const result = await runCase(gpu, bytes, basename(path), table);
          results.push(result);
          show(formatCase(result));
        }
        const failed = results.filter((r) => !r.passed).length;
        const ops = byOp(results);
        if (json) {
          print(
            JSON.stringify(
              {
                adapter: gpu.profile.name,
                runtime: gpu.profile.runtime,
                family: gpu.profile.family,
                passed: results.length - failed,
                failed,
                ops,
                cases: results,
              },
              // An infinite error (a NaN somewhere) is not JSON.
              (_, value: unknown) =>
                typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
              2,
            ),
          );
        } else {
          print(
            `\n${formatTable(
              ['op', 'cases', 'passed', 'largest error', 'of its tolerance'],
              ops.map((o) => [
                o.op,
                String(o.cases),
                String(o.passed),
                scientific(o.error),
                o.share === null ? '-' : `${(100 * o.share).toFixed(1)} %`,
              ]),
            )}\n\n${results.length - failed} passed, ${failed} failed`,
          );
        }
        if (failed > 0) process.exitCode = 1;
      });
    });
}

/** Ops that a module brings. The bundler is only loaded for those who bring some. */
async function subjectsOf(
  module: string | undefined,
  record: boolean | undefined,
): Promise<GradcheckSubject[]> {
  if (module === undefined) {
    if (record)
      throw new MGFError('usage', '--record writes cases of your own ops; name them with --module.');
    return [];
  }
  const { loadUserModule } = await import('./user-module.ts');
  return subjectsIn(module, (await loadUserModule(module)).exports);
}

async function recordAll(subjects: readonly GradcheckSubject[], dir: string): Promise<void> {
  await mkdir(dir, { recursive: true }).catch((error: unknown) => {
    throw ioError(error, 'write to the folder', dir);
  });
  for (const { file, parts } of subjects.flatMap((subject) => recordCases(subject))) {
    await writeFileAtomically(join(dir, file), parts);
    print(join(dir, file));
  }
}

async function caseFiles(dir: string): Promise<string[]> {
  const isFile = await stat(dir).then(
    (s) => s.isFile(),
    (error: unknown) => {
      throw ioError(error, 'read the cases in', dir);
    },
  );
  if (isFile) return [dir];
  const found = (await readdir(dir))
    .filter((name) => name.endsWith('.safetensors'))
    .sort()
    .map((name) => join(dir, name));
  if (found.length === 0)
    throw new MGFError('data', `There are no conformance cases (.safetensors) in ${dir}.`);
  return found;
}

const scientific = (x: number | null) =>
  x === null ? '-' : Number.isFinite(x) ? x.toExponential(1) : 'not finite';

function formatCase({ file, op, checks, passed, failure }: CaseResult): string {
  const name = `${passed ? 'ok  ' : 'FAIL'}  ${file.padEnd(44)} ${op.padEnd(18)}`;
  if (failure !== undefined) return `${name} ${failure}`;
  const largest = (prefix: string) =>
    Math.max(...checks.filter((c) => c.name.startsWith(prefix)).map((c) => c.error));
  const parts = [...new Set(checks.map((c) => c.name.split('.')[0]!))].map(
    (prefix) => `${prefix} ${scientific(largest(`${prefix}`))}`,
  );
  const bad = checks.filter((c) => !c.passed);
  const lines = bad
    .slice(0, 5)
    .map((c) => `\n        ${c.name}: ${scientific(c.error)}, allowed ${scientific(c.tolerance)}`);
  return (
    `${name} ${parts.join('  ')}  ` +
    `(${plural(checks.length, 'check')})${lines.join('')}${bad.length > 5 ? `\n        and ${bad.length - 5} more` : ''}`
  );
}

interface OpSummary {
  op: string;
  cases: number;
  passed: number;
  /** Largest relative error; null when no check was made. */
  error: number | null;
  /** The largest error as a part of what its check allows. */
  share: number | null;
}

function byOp(results: readonly CaseResult[]): OpSummary[] {
  return [...new Set(results.map((r) => r.op))].sort().map((op) => {
    const own = results.filter((r) => r.op === op);
    const checks = own.flatMap((r) => r.checks);
    return {
      op,
      cases: own.length,
      passed: own.filter((r) => r.passed).length,
      error: checks.length ? Math.max(...checks.map((c) => c.error)) : null,
      share: checks.length ? Math.max(...checks.map((c) => c.error / c.tolerance)) : null,
    };
  });
}
