// Node only: libraries written for browsers find here, for as long as they start, the adapter that the engine
// uses.
import { adapterName, type AdapterPreference } from '../../src/gpu/adapter.ts';
import { dawnAdapter } from '../../src/gpu/dawn.ts';
import { MGFError } from '../../src/errors.ts';

interface Running {
  readonly prefer: AdapterPreference | undefined;
  readonly started: unknown;
  readonly adapter: string;
}

/** Such libraries keep their device for as long as the process lives. */
const running = new Map<string, Running>();

/**
 * Runs `start` while `navigator.gpu` gives the adapter that `openGpu({ prefer })` would take; returns its
 * result and the adapter's name, the same ones when the library is asked for again. Afterwards
 * `navigator.gpu` is as it was, so that the engine still finds its adapters its own way. Two things stay,
 * since these libraries read them whenever they compute: the WebGPU constants (GPUBufferUsage, ...), and on
 * Node 20, which has none, a `navigator` with a user agent.
 * @throws MGFError `no-adapter`; `usage` when the library already runs with another preference.
 */
export async function withNavigatorGpu<T>(
  library: string,
  prefer: AdapterPreference | undefined,
  start: () => Promise<T>,
): Promise<{ started: T; adapter: string }> {
  const before = running.get(library);
  if (before) {
    if (before.prefer !== prefer)
      throw new MGFError(
        'usage',
        `${library} keeps the adapter it started with (${before.adapter}): use a process for each`,
      );
    return before as Running & { started: T };
  }
  const tried: string[] = [];
  const source = await dawnAdapter(prefer, tried);
  if (!source) throw new MGFError('no-adapter', `no adapter for ${library} (${tried.join('; ')})`);
  const { globals } = await import('webgpu');
  const scope = globalThis as Record<string, unknown>;
  for (const [name, value] of Object.entries(globals)) scope[name] ??= value;
  if (!scope['navigator']) {
    Object.defineProperty(scope, 'navigator', {
      value: { userAgent: `Node.js/${process.versions.node}` },
      configurable: true,
      writable: true,
    });
  }
  const navigator = scope['navigator'] as object;
  const own = Object.getOwnPropertyDescriptor(navigator, 'gpu');
  Object.defineProperty(navigator, 'gpu', {
    value: { requestAdapter: async () => source.adapter },
    configurable: true,
  });
  try {
    const result = { prefer, started: await start(), adapter: adapterName(source.adapter.info) };
    running.set(library, result);
    return result;
  } finally {
    delete (navigator as { gpu?: unknown }).gpu;
    if (own) Object.defineProperty(navigator, 'gpu', own);
  }
}
