import type { AdapterProfile } from '../gpu/device.ts';
import type { DType, Shape, Spec, Value } from './graph.ts';

/** One launch of a kernel variant on a small problem, and what it must compute. */
export interface KernelCheck {
  /** Contents of the bindings that are read. */
  readonly inputs: Readonly<Record<string, Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>>>;
  /** What the bindings that are written must hold: numbers, or one of the marks of src/ops/check.ts. */
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

/** A kernel by name and template text; its bindings and uniform fields are read from the text (src/gpu/template.ts). */
export interface Kernel {
  readonly name: string;
  readonly source: string;
  /** Makes the test that a variant of this kernel must pass before its first use on a device. For kernels that have an alternative. */
  readonly check?: MakeCheck | undefined;
}

/** A kernel from its name and text; see `Kernel`. Nothing is compiled yet: that is `compile`'s affair. */
export const kernel = (name: string, source: string, check?: MakeCheck): Kernel => ({ name, source, check });

/** A per-step number: its name in `program.step(inputs, scalars)`. It travels in the uniform buffer, never in the kernel text. */
export interface Scalar { readonly scalar: string }

/** A field of `Dispatch.params`, or an attribute, that each `program.step` is given anew under this name. */
export const scalar = (name: string): Scalar => ({ scalar: name });

/** Part of a value's storage, in bytes; the offset must be a multiple of 256. For tensors over the adapter's binding limit. */
export interface View { readonly value: Value; readonly offset: number; readonly size: number }

/**
 * Whether a tensor may be bound as an image: a binding `texture_storage_2d<rgba32float, read>` then reads a copy of it, vec4 number i at texel
 * (i % 1024, i / 1024), which the plan makes before the dispatch. An image has at most 8192 rows of 1024 texels, 128 MiB.
 */
export const imageable = (shape: Shape): boolean => shape.reduce((a, b) => a * b, 1) <= 8192 * 1024 * 4;

/** Vec4s across a panel, and rows in a layer of an image in panels. */
export const PANEL_COLUMNS = 8, PANEL_ROWS = 1024;

/**
 * Layers that each panel of a tensor takes as an image in panels, which a binding `texture_storage_2d_array<rgba32float, read>` reads: vec4 c of row r lies at
 * texel (c % 8, r % 1024) of layer (c / 8) * layers + r / 1024. Null where it cannot be one: rows must be multiples of 64 numbers.
 */
export function panelLayers(shape: Shape, maxLayers: number): number | null {
  const row = shape.at(-1) ?? 1, layers = Math.ceil(shape.slice(0, -1).reduce((a, b) => a * b, 1) / PANEL_ROWS);
  return row % 64 === 0 && (row / 4 / PANEL_COLUMNS) * layers <= maxLayers ? layers : null;
}

/** `result` = GELU(`argument`), where `pre` is the argument; or `result` = `argument` * GELU'(`pre`). All of one shape. */
export interface ElementwiseMap { readonly activation: 'gelu' | 'gelu-backward'; readonly argument: Value; readonly pre: Value; readonly result: Value }

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
  /** Names the variant where the op could take another one instead: what the self-test rejects and what tuning chooses. */
  readonly variant?: string;
  /** The key that `adapter.tuned` was asked with: dispatches of one key share the variant that was fastest. */
  readonly choice?: string;
}

/** What an op takes in theory: floating-point operations, and bytes read and written if each tensor passes once. */
export interface Cost { readonly flops: number; readonly bytes: number }

/** Attributes of an op: plain data. */
export type Attrs = Readonly<Record<string, unknown>>;

/** What `forward` sees. Optional inputs that were not given are null. */
export interface ForwardContext<A> {
  readonly attrs: A;
  readonly inputs: readonly (Value | null)[];
  readonly outputs: readonly Value[];
  /** The kernel family and limits to build for. */
  readonly adapter: AdapterProfile;
  /** Input i; throws when it was not given. */
  input(i: number): Value;
  /** Scratch that lives for this node's dispatches only. */
  temp(shape: Shape, dtype?: DType): Value;
}

/** What `backward` sees: the upstream gradients, what `saves` asked to keep, and the gradients it must write. */
export interface BackwardContext<A> {
  readonly attrs: A;
  readonly adapter: AdapterProfile;
  /** Gradient of output i, or null when nothing downstream used it. */
  upstream(i: number): Value | null;
  /** Saved input i (named in `saves.inputs`), or null when it was not given. */
  input(i: number): Value | null;
  /** Saved output i (named in `saves.outputs`). */
  output(i: number): Value;
  /** Where the gradient of input i goes, or null when nobody needs it. Every element must be written. */
  grad(i: number): Value | null;
  /** Scratch that lives for this node's dispatches only. */
  temp(shape: Shape, dtype?: DType): Value;
}

/** An op: shape rule, forward, backward and cost in one record. The only way an op exists, built-in or a user's. */
export interface Op<A = Attrs> {
  readonly name: string;
  /** Output shapes. Throws MGFError('shape') that names the op, the shapes and the rule. Absent optional inputs are null. */
  shape(inputs: readonly (Spec | null)[], attrs: A): Spec[];
  /** What computes the outputs on this adapter, in order; every element of each must be written. */
  forward(context: ForwardContext<A>): Dispatch[];
  /** null is a statement: this op has no gradient (grad() through it throws unless the input needs none). */
  readonly backward: ((context: BackwardContext<A>) => Dispatch[]) | null;
  /** Which forward inputs and outputs backward reads; everything else may be freed. */
  readonly saves: { readonly inputs: readonly number[]; readonly outputs: readonly number[] };
  /** Inputs that can have a gradient; default: every f32 input. */
  readonly differentiable?: readonly number[];
  /** Inputs whose gradient is the upstream gradient of output 0 as it is (a residual, an addend): no copy is made. */
  readonly passThrough?: readonly number[];
  /** Inputs that forward overwrites in place (optimiser state). Such a node is never pruned. */
  readonly mutates?: readonly number[];
  /** The output is the input's storage under another shape: no dispatch. */
  readonly alias?: boolean;
  /** For profiles and benchmarks; nothing is chosen by it. */
  cost(inputs: readonly (Spec | null)[], outputs: readonly Spec[], attrs: A): Cost;
}

/** Declares an op. */
export const defineOp = <A>(op: Op<A>): Op<A> => op;
