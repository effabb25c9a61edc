import type { AdapterPreference } from '../../src/gpu/adapter.ts';

/**
 * What is measured: the computation alone, so that every engine can be given the same one. All tensors are
 * f32, row-major, audio channels-last.
 */
export type Work =
  /** a [M, K], b [K, N] -> y [M, N]. */
  | { readonly op: 'matmul'; readonly M: number; readonly N: number; readonly K: number }
  /** x [B, L, Cin], w [Cout, K, Cin], no padding, no bias -> y [B, T, Cout]. */
  | {
      readonly op: 'conv1d';
      readonly B: number;
      readonly L: number;
      readonly Cin: number;
      readonly Cout: number;
      readonly K: number;
      readonly stride: number;
    }
  /** x [rows, columns] -> y; over columns. */
  | { readonly op: 'softmax'; readonly rows: number; readonly columns: number }
  /** x [rows, columns], weight [columns], bias [columns] -> y; eps 1e-5. */
  | { readonly op: 'layer_norm'; readonly rows: number; readonly columns: number }
  /** q, k, v [B, H, T, D] -> y [B, H, T, D]; scaled by 1 / sqrt(D), no mask. */
  | {
      readonly op: 'attention';
      readonly B: number;
      readonly H: number;
      readonly T: number;
      readonly D: number;
    }
  /**
   * anchors [N, P], candidates [N, P], negatives i32 [N, K] (row indices of candidates, never the anchor's
   * own) -> y [1]: the mean over anchors of the cross-entropy of the true candidate (same row) against the K
   * negatives, logits = cosine similarity / 0.1.
   */
  | { readonly op: 'info_nce'; readonly N: number; readonly K: number; readonly P: number }
  /**
   * One pre-norm transformer layer as in PyTorch: x [B, T, D], norm1.weight [D], norm1.bias [D], qkv.weight
   * [3 D, D], qkv.bias [3 D], proj.weight [D, D], proj.bias [D], norm2.weight, norm2.bias, ffn1.weight [F,
   * D], ffn1.bias [F], ffn2.weight [D, F], ffn2.bias [D] -> y [B, T, D]; GELU (erf), no dropout.
   */
  | {
      readonly op: 'transformer_layer';
      readonly B: number;
      readonly T: number;
      readonly D: number;
      readonly H: number;
      readonly F: number;
    }
  /** The whole optimisation step of a small raw-waveform model; see bench/workloads/torch-step.ts. */
  | { readonly op: 'torch_step'; readonly B: number; readonly seconds: number };

export interface Workload {
  /** 'matmul-1024', 'conv1d-512-k3s2-grad', ... */
  readonly name: string;
  readonly suite: string;
  readonly work: Work;
  /**
   * True: the timed run is forward and backward of sum(y * up) with respect to every f32 input ('up' has y's
   * shape and is one more input); outputs to check are then `d.<input>` for each. False: forward only; the
   * output to check is `y`.
   */
  readonly grad: boolean;
  readonly flops: number;
  /** Bytes that must be read and written at least once. */
  readonly bytes: number;
}

export interface HostTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
}
export type HostTensors = Readonly<Record<string, HostTensor>>;

export type Engine =
  | 'mgf'
  | 'jax-js'
  | 'tfjs'
  | 'ort'
  | 'torch-cpu-1'
  | 'torch-cpu-2'
  | 'torch-cuda'
  | 'torch-cuda-tf32'
  | 'torch-cuda-bf16'
  | 'torch-cuda-f16';

/** One engine made ready to run one workload; inputs are resident where the engine computes. */
export interface Arm {
  readonly engine: Engine;
  /**
   * Runs once on input set `set`, waits for the device, and returns the milliseconds that took by the wall
   * clock.
   */
  run(set: number): Promise<number>;
  /**
   * Milliseconds of the device's own clock for one run on input set `set`; null or left out where there is
   * none.
   */
  readonly deviceTime?: ((set: number) => Promise<number>) | null;
  /** What the last run computed, in the workload's layouts: `y`, or `d.<input>` for each. */
  outputs(): Promise<Record<string, Float32Array>>;
  /** Peak memory in bytes, where the engine can tell. */
  peakBytes?(): Promise<number>;
  dispose(): Promise<void>;
}

/** An engine to compare with. */
export interface Peer {
  readonly engine: Engine;
  /** Version for the table, once open. */
  readonly version: string;
  /**
   * Null when this engine cannot do the workload (the reason is then `unsupported(workload)`); throws when it
   * should but failed.
   */
  arm(workload: Workload, sets: readonly HostTensors[]): Promise<Arm | null>;
  unsupported(workload: Workload): string | null;
  close(): Promise<void>;
}

/**
 * Opens a peer on the adapter that `openGpu({ prefer })` takes, or says in one clause why it cannot run here.
 */
export type OpenPeer = (prefer?: AdapterPreference) => Promise<Peer | { readonly missing: string }>;
