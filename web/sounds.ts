/** Section: files, the microphone, examples, and the list of what is there. */
import { fetchBytes } from '../src/app/read.ts';
import { MGFError } from '../src/errors.ts';
import { SAMPLE_RATE } from '../src/index.ts';
import { decodeFile, LONGEST_SECONDS, madeUpSounds, type Clips } from './clips.ts';
import { byId, el, icon, seconds, sentence, Status } from './dom.ts';
import { playButton } from './player.ts';

/** Excerpts of LibriSpeech: two of each of four readers. */
const EXAMPLES = [
  ['2412-153948-0000', 'Reader 2412, one'],
  ['2412-153948-0001', 'Reader 2412, two'],
  ['4397-15668-0003', 'Reader 4397, one'],
  ['4397-15668-0007', 'Reader 4397, two'],
  ['5678-43303-0024', 'Reader 5678, one'],
  ['5678-43303-0032', 'Reader 5678, two'],
  ['6476-57446-0019', 'Reader 6476, one'],
  ['6476-57446-0019b', 'Reader 6476, two'],
] as const;

export function soundsSection(clips: Clips): void {
  const status = new Status('sounds-status');
  const drop = byId('drop');
  const input = byId<HTMLInputElement>('files');

  const addFiles = async (files: readonly File[]): Promise<void> => {
    const failures: unknown[] = [];
    for (const [i, file] of files.entries()) {
      status.busy(`Decoding ${file.name}${files.length > 1 ? ` (${i + 1} of ${files.length})` : ''}.`);
      try {
        clips.add(
          file.name.replace(/\.\w+$/, ''),
          'your file',
          await decodeFile(new Uint8Array(await file.arrayBuffer()), file.name),
        );
      } catch (error) {
        failures.push(error);
      }
    }
    const added = files.length - failures.length;
    if (failures.length > 0)
      status.fail(
        new MGFError(
          'audio',
          failures.map(sentence).join(' ') +
            (added > 0 ? ` The other ${added === 1 ? 'file is' : `${added} files are`} there.` : ''),
        ),
      );
    else status.say(added === 1 ? `${files[0]!.name} is there.` : `${added} files are there.`);
  };

  input.addEventListener('change', () => {
    void addFiles([...(input.files ?? [])]).then(() => {
      input.value = '';
    });
  });
  let inside = 0;
  const over =
    (change: number) =>
    (event: DragEvent): void => {
      event.preventDefault();
      inside = Math.max(0, inside + change);
      drop.classList.toggle('over', inside > 0);
    };
  // The whole page takes files, so that one dropped beside the frame does not replace the page.
  document.addEventListener('dragenter', over(1));
  document.addEventListener('dragleave', over(-1));
  document.addEventListener('dragover', (event) => event.preventDefault());
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    inside = 0;
    drop.classList.remove('over');
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length > 0) void addFiles(files);
  });

  byId('examples').addEventListener(
    'click',
    () =>
      void (async () => {
        try {
          for (const [i, [file, name]] of EXAMPLES.entries()) {
            if (clips.list.some((c) => c.name === name)) continue;
            status.busy(`Fetching example ${i + 1} of ${EXAMPLES.length}.`);
            const bytes = await fetchBytes(`clips/${file}.opus`, {});
            clips.add(name, 'LibriSpeech', await decodeFile(bytes as Uint8Array<ArrayBuffer>, name));
          }
          status.say('Eight clips of four readers are there.');
        } catch (error) {
          status.fail(error);
        }
      })(),
  );

  byId('synthetic').addEventListener('click', () => {
    for (const { name, wave } of madeUpSounds())
      if (!clips.list.some((c) => c.name === name)) clips.add(name, 'made here', wave);
    status.say('Four made-up sounds are there: no speech, but with its rhythm.');
  });

  recorder(clips, status);
  list(clips);
}

/** Records until it is pressed again, 30 seconds at most. */
function recorder(clips: Clips, status: Status): void {
  const button = byId<HTMLButtonElement>('record');
  let recording: MediaRecorder | null = null;
  let count = 0;
  const start = async (): Promise<void> => {
    if (!navigator.mediaDevices?.getUserMedia || typeof MediaRecorder === 'undefined')
      throw new MGFError(
        'audio',
        'this browser gives pages no microphone here; over https or from localhost it would',
      );
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
      });
    } catch (error) {
      const { name } = error as DOMException;
      throw new MGFError(
        'audio',
        name === 'NotFoundError'
          ? 'there is no microphone'
          : "the microphone was not allowed; allow it in the browser's settings of this page, or choose " +
              'a file',
        { cause: error },
      );
    }
    const parts: Blob[] = [];
    const own = new MediaRecorder(stream);
    recording = own;
    const limit = window.setTimeout(() => own.stop(), 1000 * LONGEST_SECONDS);
    own.addEventListener('dataavailable', ({ data }) => parts.push(data));
    own.addEventListener(
      'stop',
      () =>
        void (async () => {
          window.clearTimeout(limit);
          recording = null;
          stream.getTracks().forEach((track) => track.stop());
          button.textContent = 'Record';
          button.classList.remove('recording');
          const name = `Recording ${++count}`;
          try {
            clips.add(
              name,
              'microphone',
              await decodeFile(new Uint8Array(await new Blob(parts).arrayBuffer()), name),
            );
            status.say(`${name} is there.`);
          } catch (error) {
            status.fail(error);
          }
        })(),
    );
    own.start();
    button.textContent = 'Stop recording';
    button.classList.add('recording');
    status.busy('Recording.');
  };
  button.addEventListener('click', () => {
    if (recording) recording.stop();
    else void start().catch((error: unknown) => status.fail(error));
  });
}

function list(clips: Clips): void {
  const box = byId('clips');
  const rows = new Map<number, HTMLLIElement>();
  clips.onChange(() => {
    for (const [id, row] of rows)
      if (!clips.list.some((c) => c.id === id)) {
        row.remove();
        rows.delete(id);
      }
    for (const clip of clips.list) {
      let row = rows.get(clip.id);
      if (!row) {
        const sound = el('button', { type: 'button', class: 'plain' });
        playButton(sound, clip.name, () => clip.wave);
        const choose = el(
          'button',
          { type: 'button', class: 'choose', click: () => clips.choose(clip.id) },
          el('i', { style: `--dot: ${clip.colour}`, 'aria-hidden': 'true' }),
          el('b', {}, clip.name),
          el('span', {}, `${seconds(clip.wave.length / SAMPLE_RATE)}, ${clip.origin}`),
        );
        row = el(
          'li',
          {},
          choose,
          sound,
          el(
            'button',
            {
              type: 'button',
              class: 'plain',
              'aria-label': `Remove ${clip.name}`,
              click: () => {
                clips.remove(clip.id);
                (box.querySelector<HTMLElement>('.choose') ?? byId('files')).focus();
              },
            },
            icon('remove'),
          ),
        );
        rows.set(clip.id, row);
        box.append(row);
      }
      const chosen = clip === clips.chosen;
      row.classList.toggle('chosen', chosen);
      row.querySelector('.choose')!.setAttribute('aria-pressed', String(chosen));
    }
  });
}
