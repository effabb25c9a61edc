/** What a report may hold. Only the run's curve and its facts are always there; a part that is absent is left out of the page. */
import type { Objectives } from '../mgf/config.ts';

/** One logged step. What a run does not compute (a loss that is switched off) is NaN and is left out of the report. */
export interface CurvePoint {
  step: number;
  total: number;
  sample: number;
  frame: number;
  phoneme: number;
  sentence: number;
  /** Share of masked frames whose true target scored highest, 0 to 1. */
  accuracy: number;
  gradNorm: number;
  lr: number;
  audioSecondsPerSecond: number;
  /** With precision f16. */
  lossScale?: number;
}

/** Signs of a healthy run. */
export interface Health {
  /** Effective rank of the front end's output z and of the last hidden state, of `zWidth` and `contextWidth` dimensions; NaN where it was not measured. */
  ranks: Array<{ step: number; z: number; context: number }>;
  zWidth: number;
  contextWidth: number;
  /** Updates left out because their gradient was not finite; undefined where the run has not said. */
  skippedSteps?: number | undefined;
  /** Alarms that were raised, a sentence each. */
  alarms: Array<{ step: number; message: string }>;
}

/** A share, 0 to 1, with its 95 % interval. */
export interface Scored {
  readonly value: number;
  readonly interval: readonly [number, number];
}

/** Features of one kind under one probe; the shape of `ProbeRow` in src/tasks/task.ts. */
export interface ReportProbeRow {
  /** `mgf`, `random` or `log-mel`. */
  readonly features: string;
  /** A hidden state; `sum`: a learned weighted sum of all; null for log-mel. */
  readonly layer: number | 'sum' | null;
  readonly head: string;
  readonly pool: string;
  readonly learningRate: number;
  readonly metrics: Readonly<Partial<Record<string, Scored>>>;
  /** The same for parts of the test set. */
  readonly parts: Readonly<Record<string, Readonly<Partial<Record<string, Scored>>>>>;
  /** Test counts [true class][predicted class]. */
  readonly confusion?: readonly (readonly number[])[] | undefined;
}

/** One task's results; the shape of `ProbeResult` in src/tasks/task.ts. */
export interface ReportProbe {
  readonly task: string;
  readonly checkpoint: string;
  readonly adapter: string;
  readonly date: string;
  readonly seed: number;
  readonly classes: readonly string[];
  /** Recordings of each split. */
  readonly counts: Readonly<Record<string, number>>;
  /** What always answering with the commonest class scores. */
  readonly majority?: number | undefined;
  readonly rows: readonly ReportProbeRow[];
}

/** The shape of `AblationResult` in src/tasks/task.ts. */
export interface ReportAblation {
  readonly preset: string;
  readonly adapter: string;
  readonly date: string;
  readonly rows: ReadonlyArray<{
    readonly name: string;
    readonly seed: number;
    readonly steps: number;
    readonly losses: Readonly<Record<string, number>>;
    readonly scores: Readonly<Partial<Record<string, Scored>>>;
  }>;
}

/** A voice of each of n clips, and what features make of them. */
export interface VoiceMaps {
  labels: string[];
  seconds: number;
  features: Array<{
    name: string;
    /** Embeddings averaged over time, row-major [n, dim]. */
    x: Float32Array;
    dim: number;
    /** Drawn as a map, or in the table alone. */
    drawn: boolean;
  }>;
}

/** A recording beside what the model makes of it. Spectrograms are log-mel frames normalised over time, row-major [frames, mels]. */
export interface Recording {
  /** Which one it is. */
  label: string;
  sampleRate: number;
  frames: number;
  hopSeconds: number;
  target: Float32Array;
  /** What the frame scale predicts; absent where it is off. */
  reconstruction?: Float32Array | undefined;
  /** The waveform, normalised to zero mean and unit variance. */
  wave: Float32Array;
  /** What the sample scale decodes; absent where it is off. */
  waveReconstruction?: Float32Array | undefined;
}

export interface ReportData {
  title: string;
  run: {
    command: string;
    preset: string;
    /** Number of trained parameters. */
    parameters: number;
    steps: number;
    /** Audio trained on, crops counted each time, in seconds. */
    audioSeconds: number;
    /** Wall time in seconds. */
    seconds: number;
    adapter: string;
    date: string;
  };
  /** More of what is known, a name and a value each. */
  facts: Array<{ name: string; value: string }>;
  /** The whole configuration by field, in parts. */
  configuration: Array<{ title: string; fields: Array<{ name: string; value: string }> }>;
  curve: CurvePoint[];
  /** Each loss of a model that has learnt nothing; NaN where there is none. */
  chance: { sample: number; frame: number; phoneme: number; sentence: number; accuracy: number };
  /** What the losses are. */
  objectives: Objectives;
  health: Health;
  probes: ReportProbe[];
  ablation?: ReportAblation | undefined;
  voices?: VoiceMaps | undefined;
  recordings: Recording[];
  /** Whether recordings can be listened to: their samples are in the page then. */
  audio: boolean;
  similarity?: {
    /** The voice of each of n clips. */
    labels: string[];
    /** Cosine similarity of the clips' features, row-major [n, n]. */
    values: Float32Array;
    /** The same clips under other features, such as those of random weights. */
    before?: { name: string; values: Float32Array };
  } | undefined;
  /** Cells are printed exactly as given. */
  table?: { title: string; columns: string[]; rows: Array<Array<string | number>>; caption: string } | undefined;
  licences: string[];
  /** What to run next: lines of text; a line that starts with `mgf ` or `npm ` is set as a command. */
  next: string[];
}
