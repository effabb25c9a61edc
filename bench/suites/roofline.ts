/**
 * The roofline of an adapter from a file of results: its measured ceilings, workloads and a step's kernels.
 */
import { MGFError } from '../../src/errors.ts';
import { picture } from '../../src/report/plots/picture.ts';
import type { Result, ResultsFile } from './results.ts';
import { rooflineOptions, type Dot } from '../../src/measure/roofline-plot.ts';
import { SMALLEST_SHARE } from './tables.ts';

function dots(results: readonly Result[]): Dot[] {
  return results
    .filter((r) => r.suite === 'kernels' && r.gflops && r.gbps && (r.share ?? 1) >= SMALLEST_SHARE)
    .map((r): Dot => ({
      name: r.name,
      intensity: r.gflops! / r.gbps!,
      gflops: r.gflops!,
      kind: r.share !== undefined ? 'step' : r.name.endsWith('-grad') ? 'gradient' : 'forward',
    }));
}

/** SVG text. Throws MGFError 'data' when the file holds no ceilings or no kernel with both rates. */
export function rooflinePlot(file: ResultsFile): string {
  const points = dots(file.results);
  const find = (name: string): Result | undefined =>
    file.results.find((r) => r.suite === 'ceilings' && r.name === name);
  const gflops = find('multiply-add')?.gflops;
  const gbps = find('copy')?.gbps;
  if (!gflops || !gbps || points.length === 0)
    throw new MGFError(
      'data',
      'A roofline needs both ceilings and at least one kernel with GFLOP/s and GB/s; measure with `mgf ' +
        'bench kernels --json FILE`.',
    );
  return picture(
    rooflineOptions({
      adapter: file.adapter,
      gflops,
      gbps,
      dots: points,
      width: 960,
      height: 560,
      right: 190,
    }),
  );
}
