/**
 * Every engine that this one is compared with. Each is loaded only when peers are asked for; a missing one is
 * told of, not fatal.
 */
import type { AdapterPreference } from '../../src/gpu/device.ts';
import type { Engine, OpenPeer, Peer } from '../workloads/contract.ts';

const OPENERS: Readonly<Record<Exclude<Engine, 'mgf'>, (python?: string) => Promise<OpenPeer>>> = {
  'jax-js': async () => (await import('./jax.ts')).open,
  tfjs: async () => (await import('./tfjs.ts')).open,
  ort: async () => (await import('./ort.ts')).open,
  'torch-cpu-1': async (python) => (await import('./torch.ts')).torchPeer('torch-cpu-1', { python }),
  'torch-cpu-2': async (python) => (await import('./torch.ts')).torchPeer('torch-cpu-2', { python }),
  'torch-cuda': async (python) => (await import('./torch.ts')).torchPeer('torch-cuda', { python }),
  'torch-cuda-tf32': async (python) => (await import('./torch.ts')).torchPeer('torch-cuda-tf32', { python }),
  'torch-cuda-bf16': async (python) => (await import('./torch.ts')).torchPeer('torch-cuda-bf16', { python }),
  'torch-cuda-f16': async (python) => (await import('./torch.ts')).torchPeer('torch-cuda-f16', { python }),
};

export const PEER_ENGINES = Object.keys(OPENERS) as Exclude<Engine, 'mgf'>[];

export interface OpenedPeers {
  readonly peers: Peer[];
  readonly missing: readonly { readonly engine: Engine; readonly reason: string }[];
}

/**
 * Opens the named engines on the adapter that `openGpu({ prefer })` takes; `missing` says in one clause each
 * why the others are not there. `python`: the interpreter that has PyTorch.
 */
export async function openPeers(
  engines: readonly Exclude<Engine, 'mgf'>[],
  prefer?: AdapterPreference,
  python?: string,
): Promise<OpenedPeers> {
  const peers: Peer[] = [];
  const missing: { engine: Engine; reason: string }[] = [];
  for (const engine of engines) {
    try {
      const opened = await (await OPENERS[engine](python))(prefer);
      if ('missing' in opened) missing.push({ engine, reason: opened.missing });
      else peers.push(opened);
    } catch (error) {
      missing.push({ engine, reason: ((error as Error).message ?? String(error)).split('\n')[0]! });
    }
  }
  return { peers, missing };
}
