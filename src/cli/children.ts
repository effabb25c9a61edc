/** Programs of ours that a command starts, and its temporary folders: none outlives the command. */
import { spawn, type ChildProcess } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface EndedChild {
  /** Exit status; null where a signal ended it. */
  readonly status: number | null;
  /** Standard output. */
  readonly out: string;
  /** The last complaint of the program itself, without its name; null if there was none. */
  readonly said: string | null;
}

const running = new Set<ChildProcess>();
const folders = new Set<string>();

/** Ends all that still run and removes their folders, at once: for a command that is interrupted. */
export function endChildren(): void {
  for (const child of running) child.kill('SIGKILL');
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}

/** Gives `action` a new temporary folder, and removes it afterwards. */
export async function withTemporaryFolder<T>(action: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'mgf-bench-'));
  folders.add(folder);
  try {
    return await action(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
    folders.delete(folder);
  }
}

/**
 * Runs a program file with this Node, `env` added to the environment. Rejects with Node's error where it
 * cannot be started.
 */
export function runChild(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<EndedChild> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    let out = '';
    let complaint = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-2000);
    });
    child.on('error', reject);
    child.on('close', (status) => {
      running.delete(child);
      const said =
        complaint
          .split('\n')
          .filter((line) => line.startsWith('mgf: '))
          .at(-1)
          ?.slice('mgf: '.length) ?? null;
      resolve({ status, out, said });
    });
  });
}
