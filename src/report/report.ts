/**
 * The report of a training run: one HTML file with everything in it, readable without JavaScript and without
 * a network.
 */
import { checkFields } from '../check.ts';
import { escape } from './html.ts';
import { ablationSection } from './sections/ablation.ts';
import { detailsSections } from './sections/details.ts';
import { header, resultSection } from './sections/overview.ts';
import { confusionSection } from './sections/confusion.ts';
import { probeSection } from './sections/probes.ts';
import { recordingSection } from './sections/recordings.ts';
import { healthSection, trainingSection } from './sections/training.ts';
import { similaritySection, voiceSection } from './sections/voices.ts';
import { STYLE } from './style.ts';
import type { ReportData } from './data.ts';
import type { Section } from './html.ts';

export type { CurvePoint, Health, Recording, ReportData, VoiceMaps } from './data.ts';

/**
 * The whole report as HTML text. Pure: the same data give the same text. Throws `MGFError('shape')` where
 * sizes do not fit.
 */
export function renderReport(data: ReportData): string {
  checkFields('renderReport', 'data.', data, { title: 'a text' });
  const sections = [
    resultSection(data.table),
    trainingSection(data),
    healthSection(data),
    probeSection(data.probes),
    confusionSection(data.probes),
    voiceSection(data.voices),
    similaritySection(data.similarity),
    recordingSection(data.recordings, data.audio),
    ablationSection(data.ablation),
    ...detailsSections(data),
  ].filter((section) => section !== null);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>${escape(data.title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${header(data)}
${contents(sections)}
${sections.map(({ id, title, body }) => `<section id="${id}">\n<h2>${escape(title)}</h2>\n${body}\n</section>`).join('\n')}
</main>
</body>
</html>
`;
}

const contents = (sections: readonly Section[]): string =>
  '<nav ' +
  `aria-label="Contents"><ul>${sections.map(({ id, title }) => `<li><a href="#${id}">${escape(title)}</a></li>`).join('')}</ul></nav>`;
