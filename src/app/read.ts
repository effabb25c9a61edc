import { MGFError } from '../errors.ts';
import type { MGFConfig } from '../mgf/config.ts';
import { storedConfig } from '../mgf/stored-config.ts';
import type { HostTensor } from '../plan/parameters.ts';
import { readSafetensors, toFloat32 } from '../io/safetensors.ts';

/** Bytes that have arrived, and of how many; null where the server does not say. */
export interface LoadProgress {
  readonly loaded: number;
  readonly total: number | null;
}

/** Reads the bytes behind a URL or path. */
export type ReadBytes = (
  source: string | URL,
  options: {
    readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
    readonly signal?: AbortSignal | undefined;
  },
) => Promise<Uint8Array>;

/**
 * Weights of a safetensors file by name, without an optimiser's moments, and the configuration that a file of
 * this engine holds (null in files of others). Throws MGFError 'checkpoint' or 'config', naming `origin`.
 */
export function readNetwork(
  bytes: Uint8Array,
  origin: string,
): { config: MGFConfig | null; parameters: Map<string, HostTensor> } {
  const { metadata, tensors } = readSafetensors(bytes, { origin });
  const parameters = [...tensors]
    .filter(([name]) => !name.startsWith('optimizer.'))
    .map(([name, t]): [string, HostTensor] => [name, { shape: t.shape, data: toFloat32(t, name, origin) }]);
  return { config: storedConfig(origin, metadata), parameters: new Map(parameters) };
}

/** Downloads, telling how far it is. */
export const fetchBytes: ReadBytes = async (source, { onProgress, signal }) => {
  let response: Response;
  try {
    response = await fetch(source, { signal: signal ?? null });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new MGFError('io', `cannot download ${String(source)}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  // The length of a compressed answer is that of the compressed bytes.
  const length = response.headers.get('content-encoding')
    ? NaN
    : Number(response.headers.get('content-length') ?? NaN);
  const total = Number.isFinite(length) ? length : null;
  const chunks: Uint8Array[] = [];
  const reader = response.body!.getReader();
  let loaded = 0;
  for (let { value } = await reader.read(); value; { value } = await reader.read()) {
    chunks.push(value);
    loaded += value.length;
    onProgress?.({ loaded, total });
  }
  const bytes = new Uint8Array(loaded);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
};
