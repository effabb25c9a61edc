/** The network that comes along: fetched once, kept as bytes, so that a new device is served without the net. */
import { MGFError } from '../src/errors.ts';
import { parseConfig, type MGFConfig } from '../src/mgf/config.ts';
import type { HostTensor } from '../src/plan/parameters.ts';
import { readSafetensors, toFloat32 } from '../src/train/safetensors.ts';

/** Bytes of a file. `progress`: the part that has arrived, 0 to 1. Throws MGFError 'io'. */
export async function fetchBytes(url: string, progress: (part: number) => void = () => undefined): Promise<Uint8Array> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new MGFError('io', `${url} could not be fetched (${(error as Error).message}); is the page's server still running?`, { cause: error });
  }
  if (!response.ok || !response.body) throw new MGFError('io', `${url} could not be fetched: the server answered ${response.status}.`);
  const total = Number(response.headers.get('content-length') ?? 0), parts: Uint8Array[] = [], reader = response.body.getReader();
  let bytes = 0;
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    parts.push(chunk.value);
    bytes += chunk.value.length;
    if (total > 0) progress(bytes / total);
  }
  const all = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

/** Configuration and weights of a checkpoint. Throws MGFError 'checkpoint' or 'config'. */
export function readNetwork(bytes: Uint8Array, origin: string): { config: MGFConfig; parameters: Map<string, HostTensor> } {
  const { metadata, tensors } = readSafetensors(bytes, { origin });
  if (metadata['config'] === undefined) throw new MGFError('checkpoint', `${origin} says nothing of the network that it is of; give a checkpoint of this program.`);
  const parameters = [...tensors].map(([name, tensor]): [string, HostTensor] => [name, { shape: tensor.shape, data: toFloat32(tensor, name, origin) }]);
  return { config: parseConfig(JSON.parse(metadata['config']), { origin }), parameters: new Map(parameters) };
}
