// Node only: libraries written for browsers find here, for as long as they start, the adapter that the engine uses.
import { adapterName, type AdapterInfo, type AdapterPreference } from '../../gpu/adapter.ts';
import { dawnAdapter } from '../../gpu/dawn.ts';
import { MGFError } from '../../errors.ts';

/**
 * Runs `start` while `navigator.gpu` gives the adapter that `openGpu({ prefer })` would take; returns its result and the adapter's name.
 * Afterwards `navigator.gpu` is as it was, so that the engine still finds its adapters its own way. Two things stay, since these libraries read
 * them whenever they compute: the WebGPU constants (GPUBufferUsage, ...), and on Node 20, which has none, a `navigator` with a user agent.
 */
export async function withNavigatorGpu<T>(prefer: AdapterPreference | undefined, start: () => Promise<T>): Promise<{ started: T; adapter: string }> {
  const { globals } = await import('webgpu');
  const scope = globalThis as Record<string, unknown>;
  for (const [name, value] of Object.entries(globals)) scope[name] ??= value;
  if (!scope.navigator) Object.defineProperty(scope, 'navigator', { value: { userAgent: `Node.js/${process.versions.node}` }, configurable: true, writable: true });
  let info: AdapterInfo = {};
  const gpu = {
    async requestAdapter(): Promise<GPUAdapter> {
      const tried: string[] = [];
      const source = await dawnAdapter(prefer, tried);
      if (!source) throw new MGFError('no-adapter', `no adapter for this library (${tried.join('; ')})`);
      info = source.adapter.info;
      return source.adapter;
    },
  };
  const navigator = scope.navigator as object;
  const before = Object.getOwnPropertyDescriptor(navigator, 'gpu');
  Object.defineProperty(navigator, 'gpu', { value: gpu, configurable: true });
  try {
    return { started: await start(), adapter: adapterName(info) };
  } finally {
    delete (navigator as { gpu?: unknown }).gpu;
    if (before) Object.defineProperty(navigator, 'gpu', before);
  }
}
