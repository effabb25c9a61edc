/**
 * `#include "file"` lines of a kernel that is read from disk, as the build does for the kernels that travel
 * with the program.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ioError } from './common.ts';

/** The kernels that travel with the program, whose `lib/` others may include. */
const KERNELS = fileURLToPath(new URL('../kernels/', import.meta.url));

/**
 * Text of a file with its includes replaced by the files, each at most once: relative to the folder of the
 * first, else `lib/rows.wgsl` and its like of this program. Throws MGFError 'io'.
 */
export async function resolveIncludes(
  path: string,
  folder = dirname(path),
  seen = new Set<string>(),
): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw ioError(error, 'read the kernel', path);
  });
  const out: string[] = [];
  for (const line of text.split('\n')) {
    const include = /^\s*#include\s+"([^"]+)"/.exec(line)?.[1];
    const own = include && join(folder, include);
    const target = include && (existsSync(own!) ? own! : join(KERNELS, include));
    if (!target) out.push(line);
    else if (!seen.has(target)) {
      seen.add(target);
      out.push(await resolveIncludes(target, target === own ? folder : KERNELS, seen));
    }
  }
  return out.join('\n');
}
