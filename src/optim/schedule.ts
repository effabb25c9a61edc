import { checkArguments } from '../check.ts';
/**
 * Learning rate of a linear warm-up to `peak` over the first `warmup` part of `total` steps, then a linear
 * decay to 0 at the end. `step` is the number of updates already made; no update has rate 0, so that none is
 * wasted.
 */
export function learningRate(step: number, total: number, peak: number, warmup: number): number {
  checkArguments('learningRate', {
    step: [step, 'a number'],
    total: [total, 'a number'],
    peak: [peak, 'a number'],
    warmup: [warmup, 'a number'],
  });
  const rising = Math.max(1, Math.round(warmup * total));
  if (step < rising) return (peak * (step + 1)) / rising;
  return (peak * Math.max(0, total - step)) / Math.max(1, total - rising);
}

/**
 * The same schedule for a run whose length is a time: `progress` in [0, 1] is the part that is over. The rate
 * starts at a hundredth of the peak, because the first update is made at progress 0.
 */
export function progressRate(progress: number, peak: number, warmup: number): number {
  checkArguments('progressRate', {
    progress: [progress, 'a number'],
    peak: [peak, 'a number'],
    warmup: [warmup, 'a number'],
  });
  const p = Math.min(1, Math.max(0, progress));
  if (p < warmup) return peak * Math.max(0.01, p / warmup);
  return (peak * (1 - p)) / (1 - warmup);
}

/** The part of a run that is over: of its steps, or of its minutes where `minutes` is set. */
export function runProgress(
  { steps, minutes }: { steps: number; minutes: number | null },
  step: number,
  elapsedSeconds: number,
): number {
  return Math.min(1, minutes === null ? step / steps : elapsedSeconds / (60 * minutes));
}
