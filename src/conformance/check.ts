import { MGFError } from '../errors.ts';
import { readSafetensors } from '../io/safetensors.ts';

export type Host = { shape: number[]; data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> };

/** One tensor of a golden case: how far it is off, and how far it may be. */
export interface Check {
  readonly name: string;
  readonly error: number;
  readonly tolerance: number;
  readonly passed: boolean;
}

/** A parsed case file. */
export interface CaseFile {
  readonly op: string;
  readonly attrs: Record<string, any>;
  readonly tolerance: number;
  readonly gradTolerance: number;
  readonly gradFloor: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, Host>;
}

export function parseCase(bytes: Uint8Array, origin: string): CaseFile {
  const { metadata, tensors } = readSafetensors(bytes, { origin });
  if (metadata['schema'] !== 'mgf-conformance/1' || !metadata['op']) {
    throw new MGFError(
      'data',
      `${origin} is not a conformance case: its metadata has no schema "mgf-conformance/1" and op`,
    );
  }
  return {
    op: metadata['op'],
    attrs: JSON.parse(metadata['attrs'] ?? '{}') as Record<string, any>,
    metadata,
    tolerance: Number(metadata['tol'] ?? 1e-4),
    gradTolerance: Number(metadata['grad_tol'] ?? 1e-3),
    gradFloor: Number(metadata['grad_floor'] ?? 0),
    tensors: new Map(
      [...tensors].map(([name, t]) => [name, { shape: t.shape, data: t.data as Host['data'] }]),
    ),
  };
}

/** Euclidean norm. */
export const norm = (x: ArrayLike<number>): number => Math.sqrt(Array.from(x).reduce((s, v) => s + v * v, 0));

/** ||got - want|| / scale; NaN and infinities give Infinity, so that they never pass. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>, scale: number): number {
  if (got.length !== want.length) return Infinity;
  let sum = 0;
  for (let i = 0; i < want.length; i++) sum += (got[i]! - want[i]!) ** 2;
  const error = Math.sqrt(sum) / scale;
  return Number.isFinite(error) ? error : Infinity;
}

/** The rule of a case for one output: relative in norm, absolute where everything wanted is zero. */
export function checkOutput(
  name: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  tolerance: number,
): Check {
  const size = norm(want);
  const error = size === 0 ? relativeError(got, want, 1) : relativeError(got, want, Math.max(size, 1e-30));
  return { name: `out.${name}`, error, tolerance, passed: error <= tolerance };
}

/** The rule of a case for one gradient; `largest` is the largest gradient norm of the case. */
export function checkGradient(
  name: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  tolerance: number,
  floor: number,
  largest: number,
): Check {
  const size = Math.max(norm(want), floor * largest);
  const error = relativeError(got, want, size || 1);
  return { name: `grad.${name}`, error, tolerance, passed: error <= tolerance };
}
