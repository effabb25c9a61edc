/**
 * What a report may hold. Only the run's curve and its facts are always there; a part that is absent is left
 * out of the page.
 */
import type { Objectives } from '../mgf/config.ts';
import type { AblationResult, ProbeResult } from '../tasks/task.ts';
import type { StepValues } from '../pretrain/meters.ts';
import type { Rivals } from '../mgf/rivals.ts';

/**
 * One logged step. What a run does not compute (a loss that is switched off) is NaN and is left out of the
 * report.
 */
export interface CurvePoint extends StepValues {
  step: number;
  lr: number;
  audioSecondsPerSecond: number;
  /** With precision f16. */
  lossScale?: number;
}

/** Signs of a healthy run. */
export interface Health {
  /**
   * Effective rank of the front end's output z and of the last hidden state, of `zWidth` and `contextWidth`
   * dimensions; NaN where it was not measured.
   */
  ranks: Array<{ step: number; z: number; context: number }>;
  zWidth: number;
  contextWidth: number;
  /** Updates left out because their gradient was not finite; undefined where the run has not said. */
  skippedSteps?: number | undefined;
  /** Alarms that were raised, a sentence each. */
  alarms: Array<{ step: number; message: string; kind?: string }>;
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

/**
 * A recording beside what the model makes of it. Spectrograms are log-mel frames normalised over time,
 * row-major [frames, mels].
 */
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

/** Everything that `renderReport` shows. */
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
  /** What each loss is compared with; a run from before they were measured has none for its L1 losses. */
  rivals: Rivals;
  /** Steps of the warm-up, after which losses are compared; Infinity where it is not over. */
  warmupSteps: number;
  /** What the losses are. */
  objectives: Objectives;
  health: Health;
  probes: ProbeResult[];
  ablation?: AblationResult | undefined;
  voices?: VoiceMaps | undefined;
  recordings: Recording[];
  /** Whether recordings can be listened to: their samples are in the page then. */
  audio: boolean;
  similarity?:
    | {
        /** The voice of each of n clips. */
        labels: string[];
        /** Cosine similarity of the clips' features, row-major [n, n]. */
        values: Float32Array;
        /** The same clips under other features, such as those of random weights. */
        before?: { name: string; values: Float32Array };
      }
    | undefined;
  /** Cells are printed exactly as given. */
  table?:
    { title: string; columns: string[]; rows: Array<Array<string | number>>; caption: string } | undefined;
  licences: string[];
  /** What to run next: lines of text; a line that starts with `mgf ` or `npm ` is set as a command. */
  next: string[];
}
