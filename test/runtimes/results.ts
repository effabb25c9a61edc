/** What the runs are worth: checks counted, embeddings compared, a table. */
import { markdownTable } from '../../bench/suites/tables.ts';
import type { Finding } from './suite.ts';

/**
 * Embeddings may differ from the reference's by this part of its largest number. Orders of summation differ
 * between kernel families, nothing else does.
 */
export const TOLERANCE = 1e-4;

type Of<K extends Finding['kind']> = Extract<Finding, { kind: K }>;

/** One runtime on one adapter. */
export interface Row {
  readonly id: string;
  readonly runtime: string;
  readonly webgpu: 'npm webgpu' | 'its own';
  readonly compiler: 'Tint' | 'naga';
  readonly adapter: string;
}

/** What came of a row. */
export interface Outcome extends Row {
  readonly version: string;
  /** Why it could not be run here; nothing else is known then. */
  readonly absent?: string;
  readonly device?: Omit<Of<'device'>, 'kind'>;
  readonly embedding?: { readonly first_ms: number; readonly median_ms: number; readonly difference: number };
  readonly losses?: readonly number[];
  readonly cases: { readonly passed: number; readonly total: number };
  readonly passed: number;
  /** Each a sentence without a subject; a check that was not reached is one too. */
  readonly failures: readonly string[];
  readonly seconds: number;
}

/** max |got - want| over max |want|; infinite where something is not a number, or missing. */
export function difference(got: readonly number[], want: readonly number[]): number {
  let apart = 0;
  let size = 0;
  for (let i = 0; i < want.length; i++) {
    apart = Math.max(apart, Math.abs(got[i]! - want[i]!));
    size = Math.max(size, Math.abs(want[i]!));
  }
  return got.length === want.length && Number.isFinite(apart) && size > 0 ? apart / size : Infinity;
}

/**
 * Checks of one row: each case, the embedding, the training steps, the resumed run. `trouble`: what ended the
 * run before its end.
 */
export function judge(
  row: Row,
  version: string,
  cases: readonly string[],
  found: readonly Finding[],
  reference: readonly number[] | null,
  trouble: string | null,
  seconds: number,
): Outcome {
  const one = <K extends Finding['kind']>(kind: K): Of<K> | undefined =>
    found.find((f): f is Of<K> => f.kind === kind);
  const embedding = one('embedding');
  const apart = embedding ? difference(embedding.values, reference ?? embedding.values) : NaN;
  const training = one('training');
  const device = one('device');
  const told = new Map(
    found.filter((f): f is Of<'case'> => f.kind === 'case').map((f) => [f.file, f.problem]),
  );
  const names = cases.map((path) => path.slice(path.lastIndexOf('/') + 1));
  const verdict = (name: string, finding: { readonly problem: string | null } | undefined): string | null =>
    !finding ? `${name}: not reached` : finding.problem === null ? null : `${name}: ${finding.problem}`;
  const checks = [
    verdict(
      'embedding',
      embedding && {
        problem:
          apart <= TOLERANCE
            ? null
            : `differs from the reference by ${apart.toExponential(1)} of its size, allowed ` +
              `${TOLERANCE.toExponential(0)}`,
      },
    ),
    verdict('training', training),
    verdict('resume', one('resume')),
    ...names.map((name) => verdict(name, told.has(name) ? { problem: told.get(name)! } : undefined)),
  ];
  const failures = checks.filter((c) => c !== null);
  // A runtime that ends badly after its last check has failed too.
  if (trouble !== null || !one('end')) failures.unshift(trouble ?? 'it ended before its end');
  return {
    ...row,
    version,
    ...(device && { device }),
    ...(training && { losses: training.losses }),
    seconds,
    failures,
    passed: checks.length - checks.filter((c) => c !== null).length,
    ...(embedding && {
      embedding: { first_ms: embedding.firstMs, median_ms: embedding.medianMs, difference: apart },
    }),
    cases: { passed: names.filter((name) => told.get(name) === null).length, total: names.length },
  };
}

export const absent = (row: Row, why: string): Outcome => ({
  ...row,
  version: '',
  absent: why,
  cases: { passed: 0, total: 0 },
  passed: 0,
  failures: [],
  seconds: 0,
});

const COLUMNS = [
  'runtime',
  'WebGPU',
  'compiler',
  'adapter',
  'kernels',
  'cases',
  'training',
  'resume',
  'first embedding, ms',
  'next, ms',
  'difference',
];

export function formatOutcomes(outcomes: readonly Outcome[]): string {
  const failed = (o: Outcome, name: string): boolean => o.failures.some((f) => f.startsWith(`${name}:`));
  const rows = outcomes
    .filter((o) => o.absent === undefined)
    .map((o) => [
      `${o.runtime} ${o.version}`,
      o.webgpu,
      o.compiler,
      o.adapter,
      o.device?.family ?? '-',
      `${o.cases.passed}/${o.cases.total}`,
      failed(o, 'training') ? 'FAIL' : `${o.losses![0]!.toFixed(3)} to ${o.losses!.at(-1)!.toFixed(3)}`,
      failed(o, 'resume') ? 'FAIL' : 'bit for bit',
      o.embedding?.first_ms.toFixed(0) ?? '-',
      o.embedding?.median_ms.toFixed(0) ?? '-',
      o.embedding ? o.embedding.difference.toExponential(1) : '-',
    ]);
  const list = (title: string, lines: readonly string[]): string[] =>
    lines.length ? [`\n${title}\n`, ...lines.map((line) => `- ${line}`)] : [];
  return [
    ...(rows.length ? [markdownTable(COLUMNS, rows)] : []),
    ...list(
      'Failed:',
      outcomes.flatMap((o) => o.failures.map((f) => `${o.id}: ${f}`)),
    ),
    ...list(
      'Not run:',
      outcomes.flatMap((o) => (o.absent === undefined ? [] : [`${o.id}: ${o.absent}`])),
    ),
  ].join('\n');
}
