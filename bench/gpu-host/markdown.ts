/** The report for people: what no table of `mgf bench` shows, then those tables. */
import type { Result, ResultsFile } from '../suites/results.ts';
import { formatReport, markdownTable } from '../suites/tables.ts';
import type { HostRecord } from './record.ts';

const digits = (x: number): string => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));
const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;
const split = (name: string): [string, string] => {
  const at = name.indexOf(': ');
  return at < 0 ? [name, ''] : [name.slice(0, at), name.slice(at + 2)];
};
const unique = <T>(list: readonly T[]): T[] => [...new Set(list)];
/** Feature names carry nothing that a cell of a table cannot hold; messages may. */
const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

/** Base features that every WebGPU adapter of today has say nothing. */
const TELLING = ['shader-f16', 'subgroups', 'timestamp-query', 'chromium-experimental-subgroup-matrix'];

function adapterSection({ probes, driver, toggles }: HostRecord): string[] {
  const configs = (info: Readonly<Record<string, unknown>>): string => {
    const list = info['subgroupMatrixConfigs'] as
      { componentType: string; resultComponentType: string; M: number; N: number; K: number }[] | undefined;
    return list?.length
      ? list.map((c) => `${c.M}x${c.N}x${c.K} ${c.componentType} to ${c.resultComponentType}`).join(', ')
      : '-';
  };
  const out = [
    '## Adapter\n',
    ...(driver ? [`\`\`\`\n${driver}\n\`\`\`\n`] : []),
    markdownTable(
      ['toggles', 'features', ...TELLING, 'matrix units', 'small kernels', 'end'],
      probes.map(({ label, facts, failure }) => [
        label,
        facts ? String(facts.features.length) : '-',
        ...TELLING.map((f) => (facts?.features.includes(f) ? 'yes' : '-')),
        facts ? configs(facts.info) : '-',
        facts
          ? cell(
              Object.entries(facts.kernels)
                .map(([name, verdict]) => `${name} ${verdict}`)
                .join(', '),
            ) || 'none ended'
          : '-',
        failure ? cell(failure) : 'well',
      ]),
    ),
    '',
    `The rest of this report ran with ${toggles.length ? toggles.join(' and ') : 'no toggles'} (and ` +
      `timestamps that are not quantised).\n`,
  ];
  const facts = probes.findLast((p) => p.facts)?.facts;
  if (facts) {
    out.push(
      `Features: ${facts.features.join(', ')}.\n`,
      `Limits: ${Object.entries(facts.limits)
        .map(([name, n]) => `${name} ${n}`)
        .join(', ')}.\n`,
    );
    out.push(
      `Info: ${Object.entries(facts.info)
        .filter(([name]) => name !== 'subgroupMatrixConfigs')
        .map(([name, v]) => `${name} ${JSON.stringify(v)}`)
        .join(', ')}.\n`,
    );
  }
  return out;
}

function checkSections({ variants, conformance }: HostRecord): string[] {
  const out: string[] = [];
  if (variants.length) {
    const offered = variants.filter((v) => v.verdict !== 'not offered');
    const missing = variants.filter((v) => v.verdict === 'not offered');
    out.push(
      '## Self-test of matrix products\n',
      markdownTable(
        ['variant', 'precision', 'verdict', 'why'],
        offered.map((v) => [v.variant, v.precision, v.verdict, cell(v.reason ?? '')]),
      ),
      '',
    );
    if (missing.length)
      out.push(`Not offered by this adapter: ${missing.map((v) => v.variant).join(', ')}.\n`);
  }
  if (conformance.length) {
    out.push('## Conformance\n');
    for (const precision of unique(conformance.map((c) => c.precision))) {
      const mine = conformance.filter((c) => c.precision === precision);
      const failed = mine.filter((c) => !c.passed);
      const errors = mine.flatMap((c) => c.error ?? []);
      out.push(
        `${precision}: ${mine.length - failed.length} of ${mine.length} cases pass; the largest ` +
          'relative error is ' +
          `${errors.length ? Math.max(...errors).toExponential(1) : 'unknown'}${precision === 'f16' ? ' (2e-2 is allowed)' : ''}.\n`,
      );
      if (failed.length)
        out.push(
          markdownTable(
            ['case', 'what failed'],
            failed.map((c) => [c.file, cell(c.failure ?? '')]),
          ),
          '',
        );
    }
  }
  return out;
}

function launchSection(results: readonly Result[]): string[] {
  if (!results.length) return [];
  const us = (ms: number): string => (1000 * ms).toFixed(2);
  return [
    '## Launches\n',
    markdownTable(
      ['what', 'us', 'range'],
      results.map((r) => [r.name, us(r.ms.median), `${us(r.ms.min)} to ${us(r.ms.max)}`]),
    ),
    '',
  ];
}

/** The best of what is named `name: ...` by this engine and label. */
const best = (
  results: readonly Result[],
  name: string,
  wanted: (label: string, engine: string) => boolean,
): Result | undefined =>
  results
    .filter((r) => split(r.name)[0] === name && wanted(split(r.name)[1], r.engine))
    .sort((a, b) => a.ms.median - b.ms.median)[0];

const isHalf = (label: string): boolean => label.includes('f16');

function gemmSection(results: readonly Result[], fmaGflops: number | null): string[] {
  if (!results.length) return [];
  const sizes = unique(results.map((r) => split(r.name)[0]));
  const rows = unique(results.map((r) => (r.engine === 'mgf' ? split(r.name)[1] : r.engine)));
  const find = (size: string, row: string): Result | undefined =>
    results.find(
      (r) => split(r.name)[0] === size && (r.engine === 'mgf' ? split(r.name)[1] : r.engine) === row,
    );
  const out = [
    '## Matrix products: TFLOP/s (of the f32 multiply-add ceiling)\n',
    markdownTable(
      ['variant', ...sizes.map((s) => s.slice('matmul-'.length))],
      rows.map((row) => [
        row,
        ...sizes.map((size) => {
          const r = find(size, row);
          return r
            ? `${digits(r.gflops! / 1000)}${fmaGflops ? ` (${percent(r.gflops! / fmaGflops)})` : ''}`
            : '-';
        }),
      ]),
    ),
    '',
    '`f32` and `f16` are what the engine chooses by itself. PyTorch in bf16 and f16 multiplies ' +
      'operands that lie in that type.\n',
  ];
  const ratio = (a: Result | undefined, b: Result | undefined): string =>
    a && b ? percent(b.ms.median / a.ms.median) : '-';
  out.push(
    '## Beside the goals\n',
    markdownTable(
      [
        'matrix product',
        'f32, of the ceiling (80 %)',
        'f32, of cuBLAS f32 (60 %)',
        'matrix units, of cuBLAS f16 (35 %)',
        'choice of the best, f32',
        'f16',
      ],
      sizes.map((size) => {
        const f32 = best(results, size, (label, engine) => engine === 'mgf' && !isHalf(label));
        const half = best(results, size, (label, engine) => engine === 'mgf' && isHalf(label));
        const units = best(results, size, (label, engine) => engine === 'mgf' && label.startsWith('matrix-'));
        const torch = (engine: string): Result | undefined => best(results, size, (_, e) => e === engine);
        return [
          size,
          f32 && fmaGflops ? percent(f32.gflops! / fmaGflops) : '-',
          ratio(f32, torch('torch-cuda')),
          ratio(units, torch('torch-cuda-f16')),
          ratio(find(size, 'f32'), f32),
          ratio(find(size, 'f16'), half),
        ];
      }),
    ),
    '',
  );
  return out;
}

function pairsSection(title: string, results: readonly Result[]): string[] {
  if (!results.length) return [];
  const names = unique(results.map((r) => split(r.name)[0]));
  const labels = unique(results.map((r) => split(r.name)[1]));
  const find = (name: string, label: string): Result | undefined =>
    results.find((r) => r.name === `${name}: ${label}`);
  return [
    `## ${title}\n`,
    markdownTable(
      ['ms', ...labels, `${labels[0]} over the fastest`],
      names.map((name) => {
        const all = labels.flatMap((label) => find(name, label)?.ms.median ?? []);
        const first = find(name, labels[0]!)?.ms.median;
        return [
          name,
          ...labels.map((label) => {
            const r = find(name, label);
            return r ? `${digits(r.ms.median)} (${digits(r.ms.min)} to ${digits(r.ms.max)})` : '-';
          }),
          first ? (first / Math.min(...all)).toFixed(2) : '-',
        ];
      }),
    ),
    '',
  ];
}

/** The tables of `mgf bench` for the suites that it knows, without its title. */
function suiteTables(file: ResultsFile, title: string): string[] {
  const known = ['kernels', 'step', 'peers'];
  const results = file.results.filter((r) => known.includes(r.suite));
  if (!results.length && !file.refused?.length && !file.left_out?.length) return [];
  const text = formatReport({ ...file, results })
    .split('\n')
    .slice(4)
    .join('\n');
  return [`# ${title}\n`, text, ''];
}

export function formatMarkdown(record: HostRecord): string {
  const { f32, f16 } = record.found;
  const of = (results: readonly Result[], suite: string): Result[] =>
    results.filter((r) => r.suite === suite);
  const { ceilings, outcomes } = record;
  return [
    `# ${record.adapter}\n`,
    `${record.date}, ${record.machine}; ${Object.entries(record.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}\n`,
    ...(ceilings
      ? [
          `Ceilings measured in this run: multiply-add ${digits(ceilings.gflops / 1000)} TFLOP/s ` +
            `(${ceilings.fma.variant}), copy ${digits(ceilings.gbps)} GB/s (${ceilings.copy.variant}). ` +
            `Times are medians.\n`,
        ]
      : []),
    ...adapterSection(record),
    ...checkSections(record),
    ...launchSection(of(f32.results, 'dispatch')),
    ...gemmSection(of(f32.results, 'gemm'), ceilings?.gflops ?? null),
    ...pairsSection('Flash attention beside kept scores, f32', of(f32.results, 'flash')),
    ...pairsSection('Flash attention beside kept scores, f16', of(f16.results, 'flash')),
    ...pairsSection('Toggles', of(f32.results, 'toggles')),
    ...suiteTables(record.resultsFile('f32'), 'Kernels, steps and peers, f32'),
    ...suiteTables(record.resultsFile('f16'), 'Kernels and steps, f16'),
    '# Parts of this report\n',
    markdownTable(
      ['part', 'status', 's', 'why'],
      outcomes.map((o) => [o.part, o.status, o.seconds.toFixed(1), cell(o.reason ?? '')]),
    ),
  ]
    .join('\n')
    .trimEnd();
}
