/** `mgf gradcheck FILE`: whether the ops and losses of a module compute what they say. */
import { Command, Option } from 'commander';
import { gradcheck, type GradcheckFinding, type GradcheckResult } from '../custom/gradcheck.ts';
import { subjectOf } from '../custom/subjects.ts';
import { MGFError } from '../errors.ts';
import { adapterOption, formatTable, jsonOption, positive, print, seed, withGpu } from './common.ts';
import { loadUserModule } from './user-module.ts';
import type { GradcheckSubject } from '../custom/gradcheck.ts';
import type { AdapterPreference } from '../gpu/device.ts';

interface Options {
  tolerance?: number;
  gradTolerance?: number;
  family?: 'cpu' | 'gpu';
  seed: number;
  adapter?: AdapterPreference;
  json?: boolean;
}

export function gradcheckCommand(): Command {
  return new Command('gradcheck')
    .summary('check ops and losses of your own against their references')
    .description(
      'Checks what a module exports (ops and losses by expression, or subjects with cases of their ' +
        'own) on this adapter: values against the float64 reference, gradients against its ' +
        'derivatives along random directions, on odd sizes, under weights, at zero and at large ' +
        'numbers, on both kernel families; every number must be written.',
    )
    .argument('<file>', 'TypeScript or JavaScript module')
    .addOption(
      new Option('--tolerance <t>', 'largest error of a value, relative (default: 1e-5)').argParser(positive),
    )
    .addOption(
      new Option(
        '--grad-tolerance <t>',
        'largest error of a derivative, relative (default: 1e-4, without a reference 2e-2)',
      ).argParser(positive),
    )
    .addOption(
      new Option('--family <name>', 'only this kernel family (default: both)').choices(['cpu', 'gpu']),
    )
    .addOption(new Option('--seed <n>', 'of inputs and directions').argParser(seed).default(1))
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      '\nExamples:\n  mgf gradcheck my-loss.ts\n  mgf gradcheck my-loss.ts --grad-tolerance 1e-3 --json',
    )
    .action((file: string, options: Options) => runGradcheck(file, options));
}

/** What a module exports to be checked, each once. Throws MGFError 'usage' where there is nothing. */
export function subjectsIn(file: string, exports: Readonly<Record<string, unknown>>): GradcheckSubject[] {
  const subjects = [...new Set(Object.values(exports))].map(subjectOf).filter((s) => s !== undefined);
  if (subjects.length === 0)
    throw new MGFError(
      'usage',
      `${file} exports nothing to check (it exports ${Object.keys(exports).join(', ') || 'nothing'}); ` +
        'export what defineElementwise, defineLoss or defineRowLoss returns, or { name, build, ' +
        'reference, cases }.',
    );
  return subjects;
}

async function runGradcheck(
  file: string,
  { tolerance, gradTolerance, family, seed: chosen, adapter, json }: Options,
): Promise<void> {
  const subjects = subjectsIn(file, (await loadUserModule(file)).exports);
  const results: GradcheckResult[] = [];
  await withGpu(adapter, async (gpu) => {
    for (const subject of subjects) {
      results.push(
        await gradcheck(gpu, subject, {
          ...(tolerance !== undefined && { tolerance }),
          ...(gradTolerance !== undefined && { gradTolerance }),
          ...(family && { families: [family] }),
          seed: chosen,
        }),
      );
      if (!json) print(formatGradcheck(results.at(-1)!));
    }
    if (json) print(JSON.stringify({ file, adapter: gpu.profile.name, results }, null, 2));
  });
  if (results.some(({ passed }) => !passed)) process.exitCode = 1;
}

/** For each output and gradient its worst case; what failed in full; what not every compiler takes. */
export function formatGradcheck({ name, passed, findings, notes }: GradcheckResult): string {
  const rows = [...new Set(findings.map(({ of }) => of))].map((of) => {
    const own = findings.filter((f) => f.of === of);
    const worst = own.reduce((a, b) => (b.error > a.error ? b : a));
    const wrong = own.filter((f) => !f.passed).length;
    return [
      of,
      String(own.length),
      wrong === 0 ? 'all right' : `${wrong} wrong`,
      worst.error.toExponential(1),
      worst.tolerance.toExponential(0),
      `${worst.case}, ${worst.family}`,
    ];
  });
  const failures = findings
    .filter((f: GradcheckFinding) => !f.passed)
    .map((f) => `  ${f.of}, ${f.case}, ${f.family} kernels: ${f.message}.`);
  return [
    `${name}: ${passed ? 'right' : 'WRONG'}`,
    formatTable(['of', 'cases', 'result', 'largest error', 'allowed', 'in case'], rows),
    ...failures,
    ...notes,
  ].join('\n');
}
