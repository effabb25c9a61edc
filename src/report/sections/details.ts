/** How the run was made, whose recordings it used, and what to do next. */
import { duration, escape, grouped, items } from '../html.ts';
import type { ReportData } from '../data.ts';
import type { Section } from '../html.ts';

const list = (fields: ReadonlyArray<{ name: string; value: string }>): string =>
  `<dl>${fields.map(({ name, value }) => `<dt>${escape(name)}</dt><dd>${value}</dd>`).join('')}</dl>`;

export function detailsSections({
  run,
  facts,
  configuration,
  licences,
  next,
}: ReportData): Array<Section | null> {
  const known = [
    ...(run.command ? [{ name: 'Command', value: `<code>${escape(run.command)}</code>` }] : []),
    { name: 'Preset', value: escape(run.preset) },
    { name: 'Parameters', value: grouped(run.parameters) },
    { name: 'Steps', value: grouped(run.steps) },
    { name: 'Audio trained on', value: duration(run.audioSeconds) },
    { name: 'Wall time', value: duration(run.seconds) },
    ...(run.adapter ? [{ name: 'Adapter', value: escape(run.adapter) }] : []),
    { name: 'Date', value: escape(run.date) },
    ...facts.map(({ name, value }) => ({ name, value: escape(value) })),
  ];
  const settings = configuration.map(
    ({ title, fields }) =>
      '<details ' +
      `class="card"><summary>${escape(title)}</summary>${list(fields.map(({ name, value }) => ({ name, value: `<code>${escape(value)}</code>` })))}</details>`,
  );
  return [
    { id: 'run', title: 'The run', body: `${list(known)}\n${settings.join('\n')}` },
    licences.length === 0
      ? null
      : { id: 'licences', title: 'Licences of the recordings', body: items(licences) },
    next.length === 0
      ? null
      : {
          id: 'next',
          title: 'What to run next',
          body: next
            .map((line) =>
              /^(mgf|npm|npx|node) /.test(line)
                ? `<pre><code>${escape(line)}</code></pre>`
                : `<p>${escape(line)}</p>`,
            )
            .join('\n'),
        },
  ];
}
