/** Section: sounds and their seconds as points of a plane, and which sounds are nearest to the chosen one. */
import * as Plot from '@observablehq/plot';
import { meanOverFrames } from '../src/app/compare.ts';
import { centre, cosineMatrix } from '../src/tasks/features/similarity.ts';
import { plot } from './charts.ts';
import type { Clip, Clips } from './clips.ts';
import { compute } from './cpu.ts';
import { byId, el, Status } from './dom.ts';
import { playButton } from './player.ts';

/** Frames of a second. */
const SECOND = 50;
/** With more points t-SNE takes long: parts become longer. */
const MOST_POINTS = 240;
const NEAREST = 3;

interface Point {
  clip: Clip;
  whole: boolean;
  x: number;
  y: number;
}

/** A vector each for every sound and for every part of it. */
function vectors(clips: readonly Clip[]): Array<{ clip: Clip; whole: boolean; x: Float32Array }> {
  const heard = clips.filter((c) => c.features);
  const all = heard.reduce((sum, c) => sum + Math.floor(c.features!.frames / SECOND), 0);
  const part = SECOND * Math.max(1, Math.ceil(all / MOST_POINTS));
  return heard.flatMap((clip) => {
    const { data, frames, width } = clip.features!;
    const parts = Math.floor(frames / part);
    const pieces = Array.from({ length: parts < 2 ? 0 : parts }, (_, i) => ({
      clip,
      whole: false,
      x: meanOverFrames(data.subarray(i * part * width, (i + 1) * part * width), width),
    }));
    return [{ clip, whole: true, x: meanOverFrames(data, width) }, ...pieces];
  });
}

/** Rows of length 1 about their mean. */
function directions(rows: readonly Float32Array[]): Float32Array {
  const width = rows[0]!.length;
  const x = new Float32Array(rows.length * width);
  rows.forEach((row, i) => x.set(row, i * width));
  const centred = centre(x, rows.length, width);
  for (let i = 0; i < rows.length; i++) {
    const row = centred.subarray(i * width, (i + 1) * width);
    const size = Math.hypot(...row) || 1;
    row.forEach((v, j) => {
      row[j] = v / size;
    });
  }
  return centred;
}

export function voicesSection(clips: Clips): void {
  const box = byId('voices-figures');
  const status = new Status('voices-status');
  const left = el('figure');
  const right = el('div', { class: 'near' });
  let placed: Point[] = [];
  let made = '';
  let running = false;
  let drawn = '';
  const wanted = (): string =>
    clips.list
      .filter((c) => c.features)
      .map((c) => c.id)
      .join();

  const draw = (): void => {
    const { chosen } = clips;
    const state = `${made} ${chosen?.id}`;
    if (state === drawn) return;
    drawn = state;
    const there = placed.length > 0;
    box.className = there ? 'figures pair' : 'empty';
    if (!there) {
      box.replaceChildren('The map needs three sounds, or one of some seconds.');
      return;
    }
    left.replaceChildren(...map(placed, chosen, (id) => clips.choose(id)));
    right.replaceChildren(...nearest(clips.list, chosen));
    if (!box.contains(left)) box.replaceChildren(left, right);
  };

  const place = async (): Promise<void> => {
    if (running) return;
    running = true;
    try {
      while (made !== wanted()) {
        const key = wanted();
        const rows = vectors(clips.list);
        if (rows.length < 3) placed = [];
        else {
          status.busy(`Placing ${rows.length} points.`);
          const x = directions(rows.map((r) => r.x));
          const at = await compute('plane', { x, n: rows.length, width: rows[0]!.x.length });
          placed = rows.map(({ clip, whole }, i) => ({ clip, whole, x: at[2 * i]!, y: at[2 * i + 1]! }));
          status.say('');
        }
        made = key;
      }
    } catch (error) {
      status.fail(error);
    } finally {
      running = false;
    }
    draw();
  };
  clips.onChange(() => {
    if (made === wanted()) draw();
    else void place();
  });
}

function map(
  points: readonly Point[],
  chosen: Clip | undefined,
  choose: (id: number) => void,
): HTMLElement[] {
  const whole = points.filter((p) => p.whole);
  const names = whole.length <= 12;
  const drawing = plot(
    `Map of ${whole.length} sounds and their seconds: ${whole.map((p) => p.clip.name).join(', ')}`,
    (width) => {
      const height = Math.min(440, Math.max(300, 0.8 * width));
      const room = 38;
      const centred = (values: number[]): [number, number] => [Math.min(...values), Math.max(...values)];
      const [x0, x1] = centred(points.map((p) => p.x));
      const [y0, y1] = centred(points.map((p) => p.y));
      const px = (p: Point): number =>
        width / 2 + (p.x - (x0 + x1) / 2) * ((width - 2 * room) / (x1 - x0 || 1));
      const py = (p: Point): number =>
        height / 2 - (p.y - (y0 + y1) / 2) * ((height - 2 * room) / (y1 - y0 || 1));
      const labels = names
        ? labelled(
            whole.map((p) => ({ text: p.clip.name, x: px(p), y: py(p), own: p.clip === chosen })),
            points.map((p) => ({ x: px(p), y: py(p) })),
            width,
            height,
          )
        : [];
      const colour = (p: Point): string => p.clip.colour;
      return {
        width,
        height,
        margin: 0,
        x: { axis: null, domain: [0, width] },
        y: { axis: null, domain: [height, 0] },
        marks: [
          Plot.frame({ stroke: 'var(--line)', rx: 10 }),
          Plot.link(
            points.filter((p) => !p.whole).map((p) => ({ p, w: whole.find((q) => q.clip === p.clip)! })),
            {
              x1: ({ p }: { p: Point }) => px(p),
              y1: ({ p }: { p: Point }) => py(p),
              x2: ({ w }: { w: Point }) => px(w),
              y2: ({ w }: { w: Point }) => py(w),
              stroke: ({ p }: { p: Point }) => colour(p),
              strokeOpacity: 0.25,
            },
          ),
          Plot.dot(
            points.filter((p) => !p.whole),
            { x: px, y: py, r: 3, fill: colour, fillOpacity: 0.7 },
          ),
          Plot.dot(whole, { x: px, y: py, r: 6.5, fill: colour, stroke: 'var(--page)', strokeWidth: 1.5 }),
          Plot.dot(
            whole.filter((p) => p.clip === chosen),
            { x: px, y: py, r: 11, stroke: 'var(--accent)', strokeWidth: 2 },
          ),
          Plot.link(labels, {
            x1: 'x',
            y1: 'y',
            x2: 'lx',
            y2: 'ly',
            stroke: 'var(--axis)',
            strokeWidth: 0.75,
          }),
          ...[true, false].map((own) =>
            Plot.text(
              labels.filter((l) => l.own === own),
              {
                x: 'lx',
                y: 'ly',
                text: 'text',
                fill: 'var(--ink)',
                stroke: 'var(--page)',
                strokeWidth: 4,
                fontWeight: own ? 700 : 450,
              },
            ),
          ),
        ],
      };
    },
  );
  // The list of sounds does the same for the keyboard.
  drawing.classList.add('map');
  drawing.addEventListener('click', (event) => {
    const circles = [...drawing.querySelectorAll('circle')];
    const i = circles.indexOf(event.target as SVGCircleElement);
    const ordered = [...points.filter((p) => !p.whole), ...whole];
    const hit = ordered[i];
    if (hit) choose(hit.clip.id);
  });
  return [
    drawing,
    el(
      'figcaption',
      {},
      'Large dots are whole sounds, small ones their seconds, a colour a sound. A projection (t-SNE, ' +
        'or principal components of few points) keeps neighbours; directions and far distances mean ' +
        'nothing.',
    ),
  ];
}

interface Spot {
  x: number;
  y: number;
}
interface Label extends Spot {
  text: string;
  own: boolean;
}

/** A place for every name near its dot, where it covers the fewest dots and no other name. */
function labelled(
  labels: readonly Label[],
  dots: readonly Spot[],
  width: number,
  height: number,
): Array<Label & { lx: number; ly: number }> {
  const placed: Array<Label & { lx: number; ly: number; half: number }> = [];
  for (const label of labels) {
    const half = 3.3 * label.text.length;
    let best = { lx: label.x, ly: label.y, cost: Infinity };
    for (const r of [16, 26, 38, 54, 72]) {
      for (let k = 0; k < 16; k++) {
        const angle = (Math.PI * k) / 8;
        const lx = label.x + (r + half * Math.abs(Math.cos(angle))) * Math.cos(angle);
        const ly = label.y + r * Math.sin(angle);
        const names = placed.filter(
          (o) => Math.abs(o.lx - lx) < o.half + half + 6 && Math.abs(o.ly - ly) < 16,
        ).length;
        const hidden = dots.filter((d) => Math.abs(d.x - lx) < half + 6 && Math.abs(d.y - ly) < 11).length;
        const outside = Number(lx < half + 6 || lx > width - half - 6 || ly < 12 || ly > height - 12);
        const cost = 40 * names + 3 * hidden + 60 * outside + r / 10;
        if (cost < best.cost) best = { lx, ly, cost };
      }
    }
    placed.push({ ...label, lx: best.lx, ly: best.ly, half });
  }
  return placed;
}

/**
 * Cosine similarity of the chosen sound to the others; the mean of all is removed where there are enough to
 * have one.
 */
function nearest(list: readonly Clip[], chosen: Clip | undefined): HTMLElement[] {
  const heard = list.filter((c) => c.features);
  const at = heard.findIndex((c) => c === chosen);
  const n = heard.length;
  if (!chosen || at < 0 || n < 2)
    return [
      el('h3', {}, 'Nearest sounds'),
      el('p', { class: 'status' }, 'Another sound is needed to compare with.'),
    ];
  const width = chosen.features!.width;
  const rows = new Float32Array(n * width);
  heard.forEach((c, i) => rows.set(meanOverFrames(c.features!.data, width), i * width));
  const centred = n >= 4;
  const alike = cosineMatrix(centred ? centre(rows, n, width) : rows, n, width);
  const others = heard
    .map((clip, i) => ({ clip, value: alike[at * n + i]! }))
    .filter(({ clip }) => clip !== chosen)
    .sort((a, b) => b.value - a.value)
    .slice(0, NEAREST);
  return [
    el('h3', {}, `Nearest to ${chosen.name}`),
    el(
      'ol',
      { class: 'nearest' },
      ...others.map(({ clip, value }) => {
        const sound = el('button', { type: 'button', class: 'plain' });
        playButton(sound, clip.name, () => clip.wave);
        return el(
          'li',
          {},
          el('b', {}, clip.name),
          el('span', { class: 'value' }, value.toFixed(2).replace('-', '−')),
          sound,
          el(
            'span',
            { class: 'bar', 'aria-hidden': 'true' },
            el('i', { style: `width: ${Math.round(100 * Math.max(0, value))}%` }),
          ),
        );
      }),
    ),
    el(
      'p',
      { class: 'status' },
      centred
        ? 'Cosine similarity of their means, the mean of all sounds removed: 0 is as alike as any two.'
        : 'Cosine similarity of their means. With four sounds or more the mean of all is removed, and ' +
            'the numbers say more.',
    ),
  ];
}
