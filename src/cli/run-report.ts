/** What a run's log and its last batch give for the HTML report. */
import { join } from 'node:path';
import { writeFileAtomically } from '../train/checkpoint.ts';
import { chanceLevels } from '../train/health.ts';
import { readJsonl } from '../train/logs.ts';
import { renderReport } from '../report/report.ts';
import { shellWord } from './common.ts';
import type { RunConfig } from '../mgf/config.ts';
import type { CurvePoint, ReportData } from '../report/report.ts';
import type { PretrainResult } from '../train/loop.ts';

/** Steps from the log of a run. */
export function readCurve(runDir: string): CurvePoint[] {
  const number = (x: unknown) => (typeof x === 'number' ? x : NaN);
  return readJsonl(join(runDir, 'log.jsonl')).filter((r) => 'total' in r).map((r) => ({
    step: r.step, total: number(r['total']), sample: number(r['sample']), frame: number(r['frame']), phoneme: number(r['phoneme']), sentence: number(r['sentence']),
    accuracy: number(r['accuracy']), gradNorm: number(r['grad_norm']), lr: number(r['learning_rate']), audioSecondsPerSecond: number(r['audio_per_second']),
  }));
}

/** The first crop of the last batch beside what the model makes of it. */
function spectrogramOf(example: NonNullable<PretrainResult['example']>, { mgf }: RunConfig): NonNullable<ReportData['spectrogram']> {
  // A frame's 2 * n_mels values are its two log-mel frames one after the other.
  const { frames, utterances } = example, values = 2 * mgf.n_mels * frames, samples = 320 * frames;
  return {
    target: example.logMelTarget.subarray(0, values), reconstruction: example.logMel.subarray(0, values), frames: 2 * frames, hopSeconds: 0.01,
    label: utterances[0]!, sampleRate: mgf.sample_rate,
    ...(mgf.loss_weights.sample > 0 && { waveTarget: example.waveTarget.subarray(0, samples), waveReconstruction: example.wave.subarray(0, samples) }),
  };
}

export interface RunReport {
  runDir: string;
  title: string;
  preset: string;
  adapter: string;
  run: RunConfig;
  result: PretrainResult;
  similarity?: ReportData['similarity'];
  table?: ReportData['table'];
  licences?: string[];
  next: string[];
}

/** Writes `report.html` into the run's folder and returns its path. Errors as in `writeFileAtomically`. */
export async function writeRunReport({ runDir, title, preset, adapter, run, result, similarity, table, licences = [], next }: RunReport): Promise<string> {
  const chance = chanceLevels(run.mgf, run.train.utterances_per_batch), weights = run.mgf.loss_weights;
  const level = (scale: 'sample' | 'frame' | 'phoneme' | 'sentence') => (weights[scale] > 0 ? chance[scale] : NaN);
  const html = renderReport({
    title,
    run: {
      command: ['mgf', ...process.argv.slice(2).map(shellWord)].join(' '), preset, parameters: result.parameters, steps: result.steps,
      audioSeconds: result.audioSeconds, seconds: result.elapsedSeconds, adapter, date: new Date().toISOString().slice(0, 10),
    },
    curve: readCurve(runDir), chance: { sample: level('sample'), frame: level('frame'), phoneme: level('phoneme'), sentence: level('sentence') },
    objectives: run.mgf.objectives,
    // A frame scale that is off or contrastive rebuilds nothing.
    ...(result.example && result.example.logMel.length > 0 && { spectrogram: spectrogramOf(result.example, run) }), ...(similarity && { similarity }), ...(table && { table }),
    alarms: result.alarms.map((a) => a.message), licences, next,
  });
  const path = join(runDir, 'report.html');
  await writeFileAtomically(path, [new TextEncoder().encode(html)]);
  return path;
}
