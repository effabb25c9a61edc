/** The two compilers of WGSL: Tint in Chromium and Dawn (npm `webgpu`), naga in Firefox and Deno. */
export type Compiler = 'Tint' | 'naga';

/**
 * Who compiles WGSL under a runtime (`AdapterProfile.runtime`); null where that cannot be told, such as for a
 * device that the caller brought.
 */
export function compilerOf(runtime: string): Compiler | null {
  const agent =
    runtime === 'browser'
      ? ((globalThis as { navigator?: { userAgent?: string } }).navigator?.userAgent ?? '')
      : runtime;
  if (/^Dawn|Chrom(e|ium)\//.test(agent)) return 'Tint';
  return /^Deno|Firefox\//.test(agent) ? 'naga' : null;
}
