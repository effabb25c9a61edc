/**
 * Golden cases of somebody's own op: written from its float64 reference, run again wherever the op should
 * still compute the same.
 */
import { MGFError } from '../errors.ts';
import { elements } from '../graph/shape.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { contents, noise } from '../custom/prepared.ts';
import { safetensorsParts, type TensorToStore } from '../io/safetensors.ts';
import type { GradcheckSubject } from '../custom/gradcheck.ts';
import type { CaseBuilder } from './case.ts';

/** The op of a subject's cases, for `runCase`. */
export const caseBuilder =
  (subject: GradcheckSubject): CaseBuilder =>
  (c) => {
    const names = [...new Set(subject.cases.flatMap(({ inputs }) => Object.keys(inputs)))].filter((name) =>
      c.has(name),
    );
    return { y: subject.build(Object.fromEntries(names.map((name) => [name, c.input(name)]))) };
  };

/** Step of the central differences that give the gradients, which are of float64. */
const STEP = 1e-5;

/**
 * A file for each of the subject's smooth cases: inputs, an upstream gradient, the reference's output and,
 * element by element, the derivatives of its sum with that gradient. Throws MGFError 'usage' for a subject
 * without a reference.
 */
export function recordCases(
  { name, cases, build, reference }: GradcheckSubject,
  seed = 1,
): { readonly file: string; readonly parts: Iterable<Uint8Array> }[] {
  if (!reference) throw new MGFError('usage', `${name} has no reference to record a case from.`);
  return cases
    .filter(({ smooth = true }) => smooth)
    .map(({ name: label, inputs }) => {
      const names = Object.keys(inputs);
      const shapes = Object.fromEntries(names.map((n) => [n, inputs[n]!.shape]));
      const data = Object.fromEntries(names.map((n, i) => [n, contents(inputs[n]!, seed, i)]));
      const exact = Object.fromEntries(names.map((n) => [n, Float64Array.from(data[n]!)]));
      const y = Float64Array.from(reference(exact, shapes));
      // The graph alone, of which nothing runs, tells the shape of the output.
      const graph = new Graph();
      const { shape } = build(
        Object.fromEntries(
          names.map((n): [string, Value] => [n, graph.input(n, inputs[n]!.shape, inputs[n]!.dtype ?? 'f32')]),
        ),
      );
      if (y.length !== elements(shape))
        throw new MGFError(
          'shape',
          `${name}: the reference gives ${y.length} numbers, the op ${elements(shape)}.`,
        );
      const up = Float32Array.from(noise(y.length, seed, 1000));
      const tensors = new Map<string, TensorToStore>();
      const objective = (n: string, x: Float64Array): number => {
        const out = reference({ ...exact, [n]: x }, shapes);
        return up.reduce((sum, u, i) => sum + u * out[i]!, 0);
      };
      for (const n of names) tensors.set(`in.${n}`, { shape: [...inputs[n]!.shape], data: data[n]! });
      tensors.set('out.y', { shape: [...shape], data: Float32Array.from(y) });
      for (const n of names.filter(
        (other) => inputs[other]!.dtype !== 'i32' && inputs[other]!.gradient !== false,
      )) {
        const moved = (i: number, by: number): number =>
          objective(
            n,
            exact[n]!.map((v, j) => (i === j ? v + by : v)),
          );
        tensors.set('up.y', { shape: [...shape], data: up });
        tensors.set(`grad.${n}`, {
          shape: [...inputs[n]!.shape],
          data: Float32Array.from(exact[n]!, (_, i) => (moved(i, STEP) - moved(i, -STEP)) / (2 * STEP)),
        });
      }
      return {
        file: `${name}-${label.replaceAll(/\W+/g, '-')}.safetensors`,
        parts: safetensorsParts(tensors, {
          schema: 'mgf-conformance/1',
          op: name,
          attrs: '{}',
          tol: '1e-5',
          grad_tol: '1e-4',
        }),
      };
    });
}
