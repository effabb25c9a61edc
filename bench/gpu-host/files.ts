/** The files that a report becomes. */
import { formatResults } from '../suites/results.ts';
import { formatMarkdown } from './markdown.ts';
import type { HostRecord } from './record.ts';

/** Adapter and date, as names of files have them. */
const fileStem = ({ device, date }: HostRecord): string => {
  const slug = device
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
  return `${slug.slice(0, 60)}-${date.slice(0, 10)}`;
};

/** Names of files without folder -> contents. */
export function recordFiles(record: HostRecord): Record<string, string> {
  const stem = fileStem(record);
  const { adapter, date, machine, driver, versions, toggles, probes, ceilings, variants, conformance } =
    record;
  const host = {
    adapter,
    date,
    machine,
    driver,
    versions,
    toggles,
    probes,
    ceilings,
    self_test: variants,
    conformance,
    parts: record.outcomes,
  };
  const out: Record<string, string> = {
    [`${stem}.md`]: `${formatMarkdown(record)}\n`,
    [`${stem}-host.json`]: `${JSON.stringify(host, null, 1)}\n`,
  };
  const names = { f32: `${stem}.json`, f16: `${stem}-f16.json` } as const;
  for (const precision of ['f32', 'f16'] as const) {
    const file = record.resultsFile(precision);
    if (file.results.length > 0 || file.refused?.length) out[names[precision]] = formatResults(file);
  }
  return out;
}
