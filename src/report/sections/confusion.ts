/** What the best classifier of phones takes for what. */
import { errorsWithinManner, groupByManner, inWords, largestConfusions, rowShares } from '../confusion.ts';
import { escape, figures, grouped, percent } from '../html.ts';
import { confusionPlot, shareOpacity } from '../plots/matrix.ts';
import { bestRow, SOURCES } from './probes.ts';
import type { ProbeResult } from '../../tasks/task.ts';
import type { Section } from '../html.ts';

const MOST = 12;
const FEWEST = 20;

export function confusionSection(probes: readonly ProbeResult[]): Section | null {
  const found = probes
    .filter((p) => p.task === 'phoneme')
    .flatMap((probe) => {
      const rows = probe.rows.filter((r) => r.confusion);
      const row =
        bestRow(
          rows.filter((r) => r.features === 'mgf'),
          'accuracy',
        ) ?? bestRow(rows, 'accuracy');
      return row ? [{ probe, row }] : [];
    })[0];
  if (!found) return null;
  const {
    probe: { classes },
    row,
  } = found;
  const counts = row.confusion!;
  const shares = rowShares(counts, classes.length);
  const { order, groups } = groupByManner(classes);
  const total = counts.reduce((sum, r) => sum + r.reduce((a, b) => a + b, 0), 0);
  const fewest = Math.min(FEWEST, Math.ceil(total / classes.length / 2));
  const listed = largestConfusions(counts, MOST, fewest);
  const within = errorsWithinManner(counts, classes);
  const svg = confusionPlot({
    label:
      `Confusion matrix of ${classes.length} phones in groups of manner; the largest confusions are ` +
      'listed beside it',
    shares: order.map((t) => order.map((p) => shares[t]![p]!)),
    names: order.map((i) => classes[i]!),
    groups,
  });
  const whose =
    `${SOURCES[row.features]}${row.layer === 'sum' ? ', all hidden states summed' : row.layer === null ? '' : `, hidden state ${row.layer}`}, ` +
    `${row.head} head`;
  const swatch = (share: number): string =>
    `<span class="swatch"><i style="opacity:${figures(shareOpacity(share))}"></i><i class="wrong" ` +
    `style="opacity:${figures(shareOpacity(share))}"></i>${figures(100 * share)} %</span>`;
  const line = ({ truth, taken, count, share, occurrences }: (typeof listed)[number]): string =>
    `<li><b>${escape(inWords(classes[truth]!))}</b> taken for ` +
    `<b>${escape(inWords(classes[taken]!))}</b>: ${percent(share)} <span ` +
    `class="interval">${grouped(count)} of ${grouped(occurrences)}</span></li>`;
  return {
    id: 'confusions',
    title: 'Phones taken for others',
    body: `<p class="muted">Of every hundred times that a phone was said (a row), how often each phone was answered (columns): ${escape(whose)}, ${grouped(total)} test frames.
${within === null ? '' : `${percent(within)} of the wrong answers are of the right manner of articulation.`}</p>
<div class="figures confusion"><figure><div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">${svg}</div>
<figcaption class="swatches">right <span class="dot"></span>, wrong <span class="dot wrong"></span>; shares of a row: ${[0.01, 0.05, 0.2, 0.5, 1].map(swatch).join(' ')}</figcaption></figure>
<div class="card words"><h3>Largest confusions</h3><ol>${listed.map(line).join('')}</ol>
<p class="muted">Phones that occur fewer than ${fewest} times are left out.</p></div></div>`,
  };
}
