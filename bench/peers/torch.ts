import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import script from '../torch_arms.py';
import { MGFError } from '../../src/errors.ts';
import type { Arm, Engine, HostTensors, OpenPeer, Peer, Workload } from '../workloads/contract.ts';

export const TORCH_ENGINES = [
  'torch-cpu-1',
  'torch-cpu-2',
  'torch-cuda',
  'torch-cuda-tf32',
  'torch-cuda-bf16',
  'torch-cuda-f16',
] as const satisfies readonly Engine[];
export type TorchEngine = (typeof TORCH_ENGINES)[number];

const ARGUMENTS: Readonly<
  Record<
    TorchEngine,
    readonly [device: 'cpu' | 'cuda', threads: number, precision: 'f32' | 'tf32' | 'bf16' | 'f16']
  >
> = {
  'torch-cpu-1': ['cpu', 1, 'f32'],
  'torch-cpu-2': ['cpu', 2, 'f32'],
  'torch-cuda': ['cuda', 1, 'f32'],
  'torch-cuda-tf32': ['cuda', 1, 'tf32'],
  'torch-cuda-bf16': ['cuda', 1, 'bf16'],
  'torch-cuda-f16': ['cuda', 1, 'f16'],
};

type Json = Readonly<Record<string, unknown>>;

/** A Python process that answers one line of JSON with one, in order. */
class Conversation {
  readonly #child: ChildProcess;
  readonly #python: string;
  readonly #waiting: { resolve(reply: Json): void; reject(error: Error): void }[] = [];
  readonly #exited: Promise<void>;
  #stderr = '';
  #ended: MGFError | null = null;

  constructor(python: string, args: readonly string[]) {
    this.#python = python;
    // Threads that wait must not spin: the other engines need the cores.
    this.#child = spawn(python, ['-c', script, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, OMP_WAIT_POLICY: 'PASSIVE', OMP_NUM_THREADS: args[1]! },
    });
    createInterface({ input: this.#child.stdout! }).on('line', (line) =>
      this.#waiting.shift()?.resolve(JSON.parse(line) as Json),
    );
    this.#child.stderr!.on('data', (text: Buffer) => {
      this.#stderr = (this.#stderr + text.toString()).slice(-2000);
    });
    this.#child.stdin!.on('error', () => undefined); // a process that is gone says so by 'close'
    this.#exited = new Promise((resolve) => {
      const end = (why: string): void => {
        this.#ended ??= new MGFError(
          'io',
          `${this.#python} ${why}${this.#stderr.trim() ? `: ${this.#stderr.trim().split('\n').at(-1)!}` : ''}`,
        );
        for (const w of this.#waiting.splice(0)) w.reject(this.#ended);
        resolve();
      };
      this.#child.on('error', (error) => end(`did not start (${error.message})`));
      this.#child.on('close', (code, signal) => end(`ended with ${signal ?? `status ${code}`}`));
    });
  }

  /** The next line of the process. */
  hear(): Promise<Json> {
    return this.#ended
      ? Promise.reject(this.#ended)
      : new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Throws MGFError 'io' with what Python said. */
  async ask(request: Json): Promise<Json> {
    const heard = this.hear();
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    const reply = await heard;
    if (typeof reply['error'] === 'string')
      throw new MGFError('io', `PyTorch: ${reply['error'].split('\n')[0]!}`);
    return reply;
  }

  /** Waits until the process has ended by itself, at the end of its input. */
  async close(): Promise<void> {
    this.#child.stdin!.end();
    await this.#exited;
  }
}

/** Writes tensors one after another, those that share their numbers once; returns where they lie. */
async function writeSets(file: string, sets: readonly HostTensors[]): Promise<Json[]> {
  const offsets = new Map<HostTensors[string]['data'], number>();
  const handle = await open(file, 'w');
  let end = 0;
  try {
    for (const { data } of sets.flatMap((set) => Object.values(set))) {
      if (offsets.has(data)) continue;
      offsets.set(data, end);
      await handle.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      end += data.byteLength;
    }
  } finally {
    await handle.close();
  }
  return sets.map((set) =>
    Object.fromEntries(
      Object.entries(set).map(([name, { shape, data }]) => [
        name,
        { shape, dtype: data instanceof Float32Array ? 'f32' : 'i32', offset: offsets.get(data)! },
      ]),
    ),
  );
}

/** What a precision has nothing to say about. */
function unsupported(engine: TorchEngine, { work }: Workload): string | null {
  if (work.op !== 'softmax' && work.op !== 'layer_norm') return null;
  if (engine === 'torch-cuda-tf32') return 'no matrix product, so the same as torch-cuda';
  if (engine === 'torch-cuda-bf16' || engine === 'torch-cuda-f16')
    return 'autocast computes it in f32, so the same as torch-cuda';
  return null;
}

export interface TorchOptions {
  /** The Python to ask for torch. Default `python3`. */
  readonly python?: string | undefined;
}

/**
 * PyTorch on the CPU with one or two threads, or on a CUDA device in f32 (TF32 off), with TF32, or with bf16
 * or f16 autocast (a forward matrix product: operands that lie in that type): a Python process per engine.
 * Missing where that Python, its torch or the CUDA device is. The version names the CUDA device, or on CPUs
 * the rate of matrix products: a torch on the reference BLAS (few GFLOP/s; Debian's without libopenblas0) is
 * no fair peer.
 */
export const torchPeer =
  (engine: TorchEngine, { python = 'python3' }: TorchOptions = {}): OpenPeer =>
  async () => {
    const args = ARGUMENTS[engine];
    const talk = new Conversation(python, args.map(String));
    let here: Json;
    try {
      here = await talk.hear();
    } catch (error) {
      return { missing: (error as Error).message };
    }
    if (typeof here['missing'] === 'string') {
      await talk.close();
      return { missing: here['missing'] };
    }
    const folder = await mkdtemp(join(tmpdir(), 'mgf-torch-'));
    let arms = 0;
    const peer: Peer = {
      engine,
      version: `${String(here['torch'])} (${String(here['device'])})`,
      unsupported: (workload) => unsupported(engine, workload),
      async arm(workload, sets): Promise<Arm | null> {
        if (unsupported(engine, workload) !== null) return null;
        const arm = ++arms;
        const file = join(folder, `arm-${arm}`);
        try {
          await talk.ask({
            command: 'arm',
            arm,
            work: workload.work,
            grad: workload.grad,
            file,
            sets: await writeSets(file, sets),
          });
        } finally {
          await rm(file, { force: true });
        }
        return {
          engine,
          run: async (set) => (await talk.ask({ command: 'run', arm, set, times: 1 }))['ms'] as number,
          // A launch takes the host longer than a small kernel takes the device: several in a row.
          deviceTime:
            args[0] === 'cpu'
              ? null
              : async (set) =>
                  (await talk.ask({ command: 'run', arm, set, times: 10 }))['device_ms'] as number,
          async outputs() {
            const { outputs } = (await talk.ask({ command: 'outputs', arm, file })) as {
              outputs: { name: string; offset: number; count: number }[];
            };
            const bytes = await readFile(file);
            const whole = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
            await rm(file, { force: true });
            return Object.fromEntries(
              outputs.map(({ name, offset, count }) => [name, new Float32Array(whole, offset, count)]),
            );
          },
          // On the CPU the resident size of the whole process, at its largest since the arm was made.
          peakBytes: async () => (await talk.ask({ command: 'peak' }))['bytes'] as number,
          dispose: async () => {
            await talk.ask({ command: 'dispose', arm });
          },
        };
      },
      async close() {
        await talk.close();
        await rm(folder, { recursive: true, force: true });
      },
    };
    return peer;
  };
