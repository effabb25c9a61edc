/** A matrix product as ops describe it, and as both kernel families launch it. */
import type { Value } from '../../graph/graph.ts';

/**
 * C[z] = epilogue(alpha * sum over (k1, k2) of A[z] B[z]); see kernels/lib/gemm.wgsl for what the addresses
 * mean. All strides and offsets in elements. Fields left out are 0, except counts and steps, whose neutral
 * value is 1, and lengths, which are then unbounded.
 */
export interface Gemm {
  readonly mode: 'nt' | 'nn' | 'tn';
  readonly a: Value;
  readonly b: Value;
  readonly c: Value;
  readonly m: number;
  readonly n: number;
  readonly k2: number;
  readonly k1?: number;
  readonly alpha?: number;
  /** Batch counts z0, z1 and the strides of a, b, c along them. */
  readonly batch?: readonly [number, number];
  readonly aZ?: readonly [number, number];
  readonly bZ?: readonly [number, number];
  readonly cZ?: readonly [number, number];
  /** Rows per outer index; default: all of them. */
  readonly mInner?: number;
  readonly aRow: number;
  readonly aOuter?: number;
  readonly aOffset?: number;
  readonly aPosition?: {
    readonly start?: number;
    readonly step?: number;
    readonly tap?: number;
    readonly length: number;
  };
  readonly bRow: number;
  readonly bK1?: number;
  readonly bOffset?: number;
  /** Columns fall into taps of `inner` columns, each `tap` positions further (tn). */
  readonly bPosition?: {
    readonly start?: number;
    readonly step?: number;
    readonly tap: number;
    readonly inner: number;
    readonly length: number;
  };
  readonly cRow: number;
  readonly cOuter?: number;
  readonly cOffset?: number;
  readonly cPosition?: {
    readonly start?: number;
    readonly step?: number;
    readonly z1?: number;
    readonly length: number;
  };
  /** Phase z1 uses ceil((k1 - z1) / phases) taps: the input gradient of a convolution with that stride. */
  readonly phases?: number;
  /** The columns from n to the next multiple of 4 are padding of C and may be overwritten. */
  readonly paddedColumns?: boolean;
  readonly bias?: Value | null;
  /** Bias elements per z0 (groups). */
  readonly biasZ0?: number;
  readonly residual?: Value | null;
  /** 'gelu': C = gelu(x) and `pre` receives x. 'gelu-backward': C = x * gelu'(pre). `pre` has C's layout. */
  readonly activation?: 'gelu' | 'gelu-backward';
  readonly pre?: Value;
  /**
   * Multiplies f32 numbers even in a program of precision f16: for products whose operands f16 is too coarse
   * or too narrow for.
   */
  readonly exact?: boolean;
}

/** A matrix product as its kernels want it: only the tile is still to be chosen. */
export interface Product {
  readonly gemm: Gemm;
  readonly params: Readonly<Record<string, number>>;
  readonly constants: Readonly<Record<string, number>>;
  readonly bind: Readonly<Record<string, Value>>;
  readonly batches: number;
}
