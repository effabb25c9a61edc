/**
 * Runs the parts of the report one after another: whatever becomes of one, the next is run and what was found
 * is kept.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export interface Outcome {
  readonly part: string;
  readonly status: 'done' | 'failed' | 'left out';
  readonly reason?: string;
  readonly seconds: number;
}

export interface PlannedPart {
  readonly name: string;
  /** Seconds that it may take. */
  readonly seconds: number;
  /** Why it is pointless here, decided when its turn comes. */
  skip?(): string | null;
  /** `until`: when it should be done, milliseconds since 1970. Rejects with the reason when it fails. */
  run(until: number): Promise<void>;
}

/** A part is not begun with less time left. */
const LEAST_SECONDS = 5;

/**
 * Runs parts until `deadline` (milliseconds since 1970). `after` is called with each outcome; it may write
 * what there is so far, and must not throw.
 */
export async function runParts(
  parts: readonly PlannedPart[],
  deadline: number,
  after: (outcome: Outcome) => Promise<void>,
): Promise<void> {
  for (const { name, seconds, skip, run } of parts) {
    const started = Date.now();
    const left = (deadline - started) / 1000;
    const spent = (): number => (Date.now() - started) / 1000;
    const pointless =
      left < LEAST_SECONDS ? `${Math.max(0, left).toFixed(0)} s were left` : (skip?.() ?? null);
    if (pointless !== null) {
      await after({ part: name, status: 'left out', reason: pointless, seconds: 0 });
      continue;
    }
    try {
      await run(Math.min(deadline, started + 1000 * seconds));
      await after({ part: name, status: 'done', seconds: spent() });
    } catch (error) {
      await after({ part: name, status: 'failed', reason: (error as Error).message, seconds: spent() });
    }
  }
}

export interface ProcessOptions {
  /** What to run instead of this program. */
  readonly program?: string;
  readonly args: readonly string[];
  /** Ended by force at this time, milliseconds since 1970. */
  readonly killAt: number;
  /** Every line of standard output that is a JSON object. */
  readonly onMessage: (message: Record<string, unknown>) => void;
}

/** Milliseconds for a process to end by itself after it is done. */
const TO_EXIT = 5000;

/**
 * Runs this program again and hands on its messages, until one of them is `{ done: true }`: drivers that
 * crash or hang as a process ends change nothing. Rejects where it crashes, hangs or exits before that,
 * saying how.
 */
export function runProcess({
  program = process.argv[1]!,
  args,
  killAt,
  onMessage,
}: ProcessOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let complaint = '';
    let late = false;
    let done = false;
    let timer = setTimeout(
      () => {
        late = true;
        child.kill('SIGKILL');
      },
      Math.max(0, killAt - Date.now()),
    );
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (!line.startsWith('{')) return; // drivers print too
      let message: unknown;
      try {
        message = JSON.parse(line);
      } catch {
        return;
      }
      if ((message as Record<string, unknown>)['done'] === true) {
        done = true;
        clearTimeout(timer);
        timer = setTimeout(() => child.kill('SIGKILL'), TO_EXIT);
      }
      onMessage(message as Record<string, unknown>);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-2000);
    });
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const said = complaint.trim().split('\n').at(-1) ?? '';
      const because = said ? `: ${said.slice(0, 300)}` : '';
      if (done) resolve();
      else if (late) reject(new Error('it did not end in time and was stopped'));
      else reject(new Error(`its process ended with ${signal ?? `status ${code}`}${because}`));
    });
  });
}
