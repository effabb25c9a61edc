/**
 * Results as Markdown, which also reads well on a terminal. Made from the file's contents alone, so that an
 * old file prints like a new one.
 */
import { formatGrowth, type GrowthPoint } from '../workloads/growth.ts';
import type { Change, Comparison, Result, ResultsFile } from './results.ts';

/** Columns padded to their widest cell; all but the first to the right. */
export function markdownTable(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((name, c) => Math.max(3, name.length, ...rows.map((row) => row[c]!.length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, c) => (c ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))).join(' | ')} |`;
  return [
    line(columns),
    `|${widths.map((w, c) => (c ? `${'-'.repeat(w + 1)}:` : `${'-'.repeat(w + 2)}`)).join('|')}|`,
    ...rows.map(line),
  ].join('\n');
}

const digits = (x: number): string =>
  x >= 1000 ? x.toFixed(0) : x >= 100 ? x.toFixed(1) : x >= 1 ? x.toFixed(2) : x.toPrecision(2);
const optional = (x: number | undefined): string => (x === undefined ? '-' : digits(x));
const percent = (x: number | undefined): string => (x === undefined ? '-' : `${(100 * x).toFixed(1)} %`);
const range = ({ ms }: Pick<Result, 'ms'>): string => `${digits(ms.min)} to ${digits(ms.max)}`;
const mib = (x: number | undefined): string => (x === undefined ? '-' : `${(x / 2 ** 20).toFixed(0)} MiB`);

/** `name: part` of a step's kernels and times. */
const split = (name: string): [string, string] => {
  const at = name.indexOf(': ');
  return at < 0 ? [name, ''] : [name.slice(0, at), name.slice(at + 2)];
};

/** Kernels below this part of a step stay out of tables and plots. */
export const SMALLEST_SHARE = 0.005;

function kernelTables(results: readonly Result[]): string[] {
  const workloads = results.filter((r) => r.share === undefined);
  const out: string[] = [];
  if (workloads.length) {
    out.push(
      '## Kernels\n',
      markdownTable(
        ['workload', 'ms', 'range', 'GFLOP/s', 'GB/s', 'of ceiling', 'clock'],
        workloads.map((r) => [
          r.name,
          digits(r.ms.median),
          range(r),
          optional(r.gflops),
          optional(r.gbps),
          percent(r.of_ceiling),
          r.clock ?? 'wall',
        ]),
      ),
      '',
    );
  }
  for (const step of results.filter((r) => r.share !== undefined && split(r.name)[1] === '')) {
    const kernels = results.filter(
      (r) => r.share !== undefined && split(r.name)[0] === step.name && split(r.name)[1] !== '',
    );
    const shown = kernels.filter((r) => r.share! >= SMALLEST_SHARE);
    const rest = kernels.filter((r) => r.share! < SMALLEST_SHARE);
    out.push(
      `## Kernels of ${step.name}: ${digits(step.ms.median)} ms (${range(step)}) on the device, ` +
        `${step.dispatches ?? 0} dispatches\n`,
      markdownTable(
        ['kernel and variant', 'calls', 'ms', 'share', 'GFLOP/s', 'GB/s', 'of ceiling'],
        shown.map((r) => [
          `\`${split(r.name)[1]}\``,
          String(r.calls ?? 1),
          digits(r.ms.median),
          percent(r.share),
          optional(r.gflops),
          optional(r.gbps),
          percent(r.of_ceiling),
        ]),
      ),
      '',
    );
    if (rest.length)
      out.push(
        `${rest.length} more kernels, each below ${percent(SMALLEST_SHARE)}, take ` +
          `${digits(rest.reduce((sum, r) => sum + r.ms.median, 0))} ms together; a file of results ` +
          `(--json) has them all.\n`,
      );
  }
  return out;
}

function stepTable(results: readonly Result[]): string[] {
  const steps = results.filter((r) => split(r.name)[1] === '');
  const part = (name: string, what: string): Result | undefined =>
    results.find((r) => r.name === `${name}: ${what}`);
  const start = (r: Result | undefined): string => (r ? `${(r.ms.median / 1000).toFixed(1)} s` : '-');
  return [
    '## Training steps\n',
    markdownTable(
      [
        'step',
        'ms',
        'range',
        'dispatches',
        'host ms',
        'GFLOP/s',
        'of ceiling',
        'peak memory',
        'cold start',
        'warm start',
      ],
      steps.map((r) => [
        r.name,
        digits(r.ms.median),
        range(r),
        String(r.dispatches ?? '-'),
        optional(part(r.name, 'host')?.ms.median),
        optional(r.gflops),
        percent(r.of_ceiling),
        mib(r.peak_bytes),
        start(part(r.name, 'cold start')),
        start(part(r.name, 'warm start')),
      ]),
    ),
    '',
  ];
}

function peerTable(results: readonly Result[]): string[] {
  const engines = [...new Set(results.map((r) => r.engine))].sort(
    (a, b) => Number(b === 'mgf') - Number(a === 'mgf'),
  );
  const names = [...new Set(results.map((r) => r.name))];
  const find = (name: string, engine: string): Result | undefined =>
    results.find((r) => r.name === name && r.engine === engine);
  return [
    '## Beside other engines\n',
    markdownTable(
      [
        'workload',
        'mgf ms',
        'range',
        'of ceiling',
        ...engines.slice(1).flatMap((e) => [`${e} ms`, 'range', 'x mgf']),
      ],
      names.map((name) => {
        const own = find(name, 'mgf');
        return [
          name,
          optional(own?.ms.median),
          own ? range(own) : '-',
          percent(own?.of_ceiling),
          ...engines.slice(1).flatMap((engine) => {
            const other = find(name, engine);
            return [
              optional(other?.ms.median),
              other ? range(other) : '-',
              other && own ? (other.ms.median / own.ms.median).toFixed(2) : '-',
            ];
          }),
        ];
      }),
    ),
    '',
    '"x mgf" is the engine\'s time over mgf\'s: above 1, mgf is faster.',
    '',
  ];
}

function fileTable(results: readonly Result[]): string[] {
  const columns = ['kernel file', 'ms', 'range', 'GFLOP/s', 'GB/s', 'of ceiling', 'clock', 'launched with'];
  const row = (r: Result): string[] => [
    r.name,
    digits(r.ms.median),
    range(r),
    optional(r.gflops),
    optional(r.gbps),
    percent(r.of_ceiling),
    r.clock ?? 'wall',
    r.variant ?? '-',
  ];
  return ['## Kernel files\n', markdownTable(columns, results.map(row)), ''];
}

function againstTable(results: readonly Result[]): string[] {
  const row = (r: Result): string[] => [r.name, r.engine, digits(r.ms.median), range(r), String(r.runs ?? 1)];
  return ['## In turns\n', markdownTable(['what', 'of', 'ms', 'range', 'runs'], results.map(row)), ''];
}

/** The whole file: ceilings, a table a suite, and what is missing. */
export function formatReport(file: ResultsFile): string {
  const of = (suite: string): Result[] => file.results.filter((r) => r.suite === suite);
  const out = [`# ${file.adapter}\n`];
  out.push(
    `${file.date}${file.machine ? `, ${file.machine}` : ''}; ${Object.entries(file.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}\n`,
  );
  if (file.complete === false) out.push('Interrupted: what is here was measured before.\n');
  const ceilings = of('ceilings');
  if (ceilings.length) {
    const rate = ({ gflops, gbps }: Result): string =>
      gflops === undefined ? `${optional(gbps)} GB/s` : `${digits(gflops)} GFLOP/s`;
    const list = ceilings.map((r) => `${r.name} ${rate(r)} (${range(r)} ms)`).join(', ');
    out.push(`Ceilings measured in this run: ${list}. Times are medians.\n`);
  }
  const suites: [string, (results: Result[]) => string[]][] = [
    ['kernels', kernelTables],
    ['step', stepTable],
    ['growth', growthTable],
    ['peers', peerTable],
    ['file', fileTable],
    ['against', againstTable],
  ];
  for (const [suite, format] of suites) if (of(suite).length) out.push(...format(of(suite)));
  const missing = (title: string, list: ResultsFile['refused']): void => {
    if (list?.length)
      out.push(`## ${title}\n`, ...list.map((x) => `- ${x.suite} ${x.name}, ${x.engine}: ${x.reason}`), '');
  };
  missing('Refused: not timed', file.refused);
  missing('Left out', file.left_out);
  return out.join('\n').trimEnd();
}

function growthTable(results: readonly Result[]): string[] {
  const points = results
    .filter((r) => r.value !== undefined && r.flops !== undefined && r.peak_bytes !== undefined)
    .map((r): GrowthPoint => {
      const [axis, name] = split(r.name);
      const { median, min, max } = r.ms;
      return {
        axis: axis as GrowthPoint['axis'],
        name,
        value: r.value!,
        flops: r.flops!,
        bytes: r.peak_bytes!,
        gatheredBytes: r.gathered_bytes ?? null,
        timing: {
          median,
          min,
          max,
          spread: (max - min) / median,
          runs: r.runs ?? 1,
          samples: r.samples ?? [],
        },
      };
    });
  return ['## Growth\n', formatGrowth(points), ''];
}

/** What became slower and faster, in words that stand alone. */
export function formatComparison(c: Comparison, before: Pick<ResultsFile, 'date'>): string {
  const table = (changes: readonly Change[]): string =>
    markdownTable(
      ['what', 'before, ms', 'now, ms', 'ratio'],
      changes.map((x) => [
        `${x.suite} ${x.name} (${x.engine})`,
        `${digits(x.before.ms.median)} ` + `(${range(x.before)})`,
        `${digits(x.after.ms.median)} (${range(x.after)})`,
        x.ratio.toFixed(2),
      ]),
    );
  const out = [
    `## Compared with ${before.date}\n`,
    `${c.slower.length} slower, ${c.faster.length} ` +
      `faster, ${c.same} the same within noise${
        c.inconclusive.length ? `, ${c.inconclusive.length} ` + `inconclusive` : ''
      }.`,
  ];
  out.push(...c.warnings.map((w) => `Note: ${w}.`));
  if (c.slower.length) out.push('\nSlower:\n', table(c.slower));
  if (c.faster.length) out.push('\nFaster:\n', table(c.faster));
  if (c.inconclusive.length) {
    out.push(
      '\nInconclusive, no larger than what the ceilings moved (mgf bench --against measures in ' +
        'turns):\n',
      table(c.inconclusive),
    );
  }
  if (c.onlyBefore.length) out.push(`\nNo longer there: ${c.onlyBefore.join(', ')}`);
  if (c.onlyAfter.length) out.push(`\nNew: ${c.onlyAfter.join(', ')}`);
  return out.join('\n');
}
