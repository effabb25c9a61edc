/** Which clips features find alike: a map of voices, and similarities of all pairs. */
import { counted, escape, figure, figures, percent, table } from '../html.ts';
import { colourBar, heatMap } from '../plots/matrix.ts';
import { pointMap } from '../plots/map.ts';
import { tsne } from '../projection.ts';
import { centre, cosineMatrix, equalErrorRate } from '../../tasks/features/similarity.ts';
import { groupByLabel, pairMeans, reorder } from '../similarity.ts';
import type { ReportData, VoiceMaps } from '../data.ts';
import type { Section } from '../html.ts';
import type { ColourMap } from '../palette.ts';

const similarity = (value: number | null): string => (value === null ? '' : value.toFixed(2));

export function voiceSection(data: VoiceMaps | undefined): Section | null {
  if (!data || data.labels.length < 4) return null;
  const { labels, seconds } = data;
  const n = labels.length;
  const voices = new Set(labels).size;
  const sets = data.features.map(({ name, x, dim, drawn }) => {
    // Directions, as the similarities see them.
    const centred = centre(x, n, dim);
    const unit = unitRows(centred, n, dim);
    const cosines = cosineMatrix(centred, n, dim);
    return {
      name,
      dim,
      drawn,
      unit,
      eer: equalErrorRate(cosines, labels),
      means: pairMeans(cosines, labels),
    };
  });
  const rate = (eer: number | null): string => (eer === null ? '' : percent(eer));
  const maps = sets
    .filter((s) => s.drawn)
    .map(({ name, dim, unit, eer }) =>
      figure(
        name,
        pointMap({
          label: `Map of ${n} clips of ${voices} voices by ${name}, equal error rate ${rate(eer)}`,
          points: tsne(unit, n, dim),
          labels,
        }),
        eer === null ? '' : `Equal error rate ${rate(eer)}.`,
      ),
    );
  return {
    id: 'voices',
    title: 'A map of voices',
    body: `<p class="muted">${counted(n, 'clip')} of ${counted(voices, 'voice')}, ${figures(seconds)} seconds of each at most: features averaged over time, on a plane by t-SNE from their principal
components. Near points are alike; distances between far groups, directions and axes mean nothing.</p>
<div class="figures pair">${maps.join('\n')}</div>
${table(
  ['features', 'equal error rate', 'same voice', 'different voices', 'numbers a clip'],
  sets.map((s) => [s.name, rate(s.eer), similarity(s.means.same), similarity(s.means.different), s.dim]),
  'Telling voices apart',
)}
<p class="muted under">Equal error rate: telling same-voice pairs from others by their similarity, as many of one kind wrong as of the other; 50 % is chance. Same voice, different voices: mean cosine similarity of such pairs, the mean of all clips removed.</p>`,
  };
}

function unitRows(x: Float32Array, n: number, dim: number): Float32Array {
  const out = new Float32Array(n * dim);
  for (let i = 0; i < n; i++) {
    const row = x.subarray(i * dim, (i + 1) * dim);
    const size = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0)) || 1;
    out.set(
      row.map((v) => v / size),
      i * dim,
    );
  }
  return out;
}

export function similaritySection(data: ReportData['similarity']): Section | null {
  if (!data || data.labels.length < 2) return null;
  const { order, groups } = groupByLabel(data.labels);
  const n = data.labels.length;
  const maps = [
    { name: data.before ? 'Trained' : '', values: data.values },
    ...(data.before ? [data.before] : []),
  ].map(({ name, values }) => ({
    name,
    values: reorder(values, order),
    means: pairMeans(values, data.labels),
    eer: equalErrorRate(values, data.labels),
  }));
  const sorted = maps
    .flatMap(({ values }) =>
      Array.from(values).filter((value, i) => i % (n + 1) !== 0 && Number.isFinite(value)),
    )
    .sort((a, b) => a - b);
  const [low, high] = [
    sorted[Math.floor(0.01 * (sorted.length - 1))] ?? 0,
    sorted[Math.ceil(0.99 * (sorted.length - 1))] ?? 1,
  ];
  const caption = ({ means, eer }: (typeof maps)[number]): string =>
    [
      means.same !== null && `same voice ${figures(means.same)}`,
      means.different !== null && `different voices ${figures(means.different)}`,
      eer !== null && `equal error rate ${figures(100 * eer)} %`,
    ]
      .filter(Boolean)
      .join(' · ');
  const drawn = maps.map((map) =>
    figure(
      map.name,
      heatMap({
        label: `Similarity of ${n} clips, by voice${map.name ? `, ${map.name}` : ''}`,
        values: map.values,
        n,
        groups,
        low,
        high,
      }),
      caption(map),
      'square',
    ),
  );
  return {
    id: 'similarity',
    title: 'Similarity between voices',
    body: `<p class="muted">Cosine similarity of ${n} clips of ${counted(groups.length, 'voice')}, a row and a column each, the clips of one voice side by side.
Bright squares along the diagonal mean that clips of one voice are alike.</p>
<div class="figures pair">${drawn.join('\n')}</div>
${bar('viridis', low, high, 'cosine similarity')}`,
  };
}

export function bar(map: ColourMap, low: number, high: number, name: string): string {
  return (
    `<div class="bar"><span>${figures(low)}</span><img src="${colourBar(map)}" alt="colour scale from ` +
    `${figures(low)} to ${figures(high)}"><span>${figures(high)}</span><span>${escape(name)}</span></div>`
  );
}
