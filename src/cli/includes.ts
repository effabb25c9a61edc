/** `#include "file"` lines of a kernel that is read from disk, as the build does for the kernels that travel with the program. */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ioError } from './common.ts';

/** Text of a file with its includes replaced by the files, each at most once, relative to the folder of the first. Throws MGFError 'io'. */
export async function resolveIncludes(path: string, folder = dirname(path), seen = new Set<string>()): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => { throw ioError(error, 'read the kernel', path); }), out: string[] = [];
  for (const line of text.split('\n')) {
    const include = /^\s*#include\s+"([^"]+)"/.exec(line), target = include && join(folder, include[1]!);
    if (!target) out.push(line);
    else if (!seen.has(target)) {
      seen.add(target);
      out.push(await resolveIncludes(target, folder, seen));
    }
  }
  return out.join('\n');
}
