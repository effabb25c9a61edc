/** What a launch is: one kernel variant, what it binds, its uniform fields, its grid. */
import type { AdapterProfile } from '../gpu/device.ts';
import type { Value } from '../graph/graph.ts';

/** One launch of a kernel variant on a small problem, and what it must compute. */
export interface KernelCheck {
  /** Contents of the bindings that are read. */
  readonly inputs: Readonly<Record<string, Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>>>;
  /** What the bindings that are written must hold: numbers, or one of the marks of src/ops/lib/check.ts. */
  readonly outputs: Readonly<Record<string, Float64Array>>;
  readonly params: Readonly<Record<string, number>>;
  /** As in Dispatch. */
  readonly panels?: Readonly<Record<string, number>>;
  readonly grid: readonly [number, number, number];
  /** Largest |got - want| / (1 + |want|) that rounding explains. */
  readonly tolerance: number;
}

/** Makes the check of a variant from its template constants. */
export type MakeCheck = (constants: Readonly<Record<string, number>>, adapter: AdapterProfile) => KernelCheck;

/**
 * A kernel by name and template text; its bindings and uniform fields are read from the text
 * (src/wgsl/template.ts).
 */
export interface Kernel {
  readonly name: string;
  readonly source: string;
  /**
   * Makes the test that a variant of this kernel must pass before its first use on a device. For kernels that
   * have an alternative.
   */
  readonly check?: MakeCheck | undefined;
}

/** A kernel from its name and text; see `Kernel`. Nothing is compiled yet: that is `compile`'s affair. */
export const kernel = (name: string, source: string, check?: MakeCheck): Kernel => ({ name, source, check });

/**
 * A per-step number: its name in `program.step(inputs, scalars)`. It travels in the uniform buffer, never in
 * the kernel text.
 */
export interface Scalar {
  readonly scalar: string;
}

/** A field of `Dispatch.params`, or an attribute, that each `program.step` is given anew under this name. */
export const scalar = (name: string): Scalar => ({ scalar: name });

/**
 * Part of a value's storage, in bytes; the offset must be a multiple of 256. For tensors over the adapter's
 * binding limit.
 */
export interface View {
  readonly value: Value;
  readonly offset: number;
  readonly size: number;
}

/**
 * `result` = GELU(`argument`), where `pre` is the argument; or `result` = `argument` * GELU'(`pre`). All of
 * one shape.
 */
export interface ElementwiseMap {
  readonly activation: 'gelu' | 'gelu-backward';
  readonly argument: Value;
  readonly pre: Value;
  readonly result: Value;
}

/** One launch of one kernel. */
export interface Dispatch {
  readonly kernel: Kernel;
  /** Template constants: they choose the variant, one compilation each. Shapes do not belong here. */
  readonly constants?: Readonly<Record<string, number>>;
  /** By the variable name in the WGSL. Whether it is read or written is what the WGSL says. */
  readonly bind: Readonly<Record<string, Value | View>>;
  /** Fields of the kernel's uniform struct, all of them. */
  readonly params?: Readonly<Record<string, number | Scalar>>;
  /** Bindings that are read as images in panels, and the vec4s in a row of each. */
  readonly panels?: Readonly<Record<string, number>>;
  /** Workgroups in x, y, z; each at most 65535. */
  readonly grid: readonly [number, number, number];
  /** An element-wise pass that a matrix product could do as it stores (src/plan/fuse.ts). */
  readonly map?: ElementwiseMap;
  /** A matrix product that writes all of `output`, and could apply an element-wise pass as it stores. */
  readonly product?: {
    readonly output: Value;
    /** The same product with this map in its epilogue. */
    with(map: ElementwiseMap): Dispatch;
  };
  /**
   * Names the variant where the op could take another one instead: what the self-test rejects and what tuning
   * chooses.
   */
  readonly variant?: string;
  /**
   * The key that `adapter.tuned` was asked with: dispatches of one key share the variant that was fastest.
   */
  readonly choice?: string;
}
