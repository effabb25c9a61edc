/**
 * The one list of what random numbers are drawn for. A stream is (seed, step, row, purpose): two purposes
 * never share a number, whatever their steps and rows are.
 *
 * These numbers are part of the checkpoint format. A resumed run draws what it would have drawn without the
 * interruption, so a number never changes and is never given to another purpose.
 */
export const Purpose = {
  /** Dropout, drawn in kernels: the row is the node's number (src/ops/dropout.ts). */
  Dropout: 0,
  /** Order of the clips in an epoch (the step), position of crops, masked spans, InfoNCE's negatives. */
  ClipOrder: 1,
  Crop: 2,
  Mask: 3,
  Negatives: 4,
  /** Clips that take the place of one that cannot be read. */
  Replacement: 5,
  /** Recordings or speakers of a development split. */
  DevSplit: 8,
  /** Order of the batches, and of the rows in them, that a task head is trained on. */
  HeadBatchOrder: 9,
  HeadRowOrder: 10,
  /** Order of an epoch of fine-tuning, recordings whose features give its statistics, its masked spans. */
  FineTuneOrder: 11,
  FineTuneStatistics: 12,
  FineTuneMask: 13,
  /** Resampled units of a bootstrap interval. */
  Bootstrap: 14,
  /** Recordings that a report listens to, and those of each of its voices (the step). */
  ReportRecordings: 15,
  ReportVoices: 16,
  /** Recordings of a voice (the step) that the map of voices takes. */
  VoiceRecordings: 17,
  /** Masks and negatives of made-up batches. */
  MadeUpMask: 77,
  MadeUpNegatives: 78,
  /** Inputs of gradient checks: real numbers and indices. */
  GradcheckNumbers: 0x67636b,
  GradcheckIndices: 0x67636c,
  /** Negatives of the frame scale where it is contrastive. */
  FrameNegatives: 0x66726e67,
} as const;
export type Purpose = (typeof Purpose)[keyof typeof Purpose];

/**
 * The step of initial weights, whose row is a hash of the parameter's name. They were given a step of dropout's
 * purpose before there was a list, and keep it so that a seed goes on meaning the same network: no run comes to
 * 1.8 billion steps.
 */
export const WEIGHTS_STEP = 0x696e6974;
