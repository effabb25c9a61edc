import { MGFError } from '../errors.ts';
import type { Gpu } from '../gpu/device.ts';
import type { Value } from '../graph/graph.ts';
import { grad } from '../ops/grad.ts';
import { adamw, biasCorrections } from '../optim/adamw.ts';
import { SCALES } from '../mgf/config.ts';
import { parseConfig } from '../mgf/parse-config.ts';
import { framesOf } from '../mgf/network.ts';
import { pretrainingGraph, weightScalar } from '../mgf/pretraining.ts';
import { mgfParameters } from '../mgf/weights.ts';
import { compile } from '../plan/compile.ts';
import { ParameterStore, swapLast } from '../plan/parameters.ts';
import type { Region } from '../plan/storage.ts';
import { checkGradient, checkOutput, norm, type CaseFile, type Check } from './check.ts';

/**
 * A whole pre-training step: the four losses and intermediate tensors, every parameter's gradient, and the
 * losses before each of ten AdamW steps on the one batch of the case.
 */
export async function runModelCase(gpu: Gpu, file: CaseFile): Promise<Check[]> {
  const config = parseConfig(file.attrs['config'], {
    origin: 'the case',
    defaults: { hidden_dropout: 0, attention_dropout: 0 },
  });
  const {
    lr,
    betas,
    eps,
    weight_decay: weightDecay,
  } = file.attrs['optimizer'] as { lr: number; betas: [number, number]; eps: number; weight_decay: number };
  const tensor = (name: string): { shape: readonly number[]; data: Float32Array<ArrayBuffer> } => {
    const found = file.tensors.get(name);
    if (!found) throw new MGFError('data', `the case has no tensor "${name}"`);
    return found as { shape: readonly number[]; data: Float32Array<ArrayBuffer> };
  };
  const specs = mgfParameters(config, SCALES);
  const store = new ParameterStore(gpu, specs, 'training');
  store.load(
    new Map(
      [...file.tensors]
        .filter(([n]) => n.startsWith('param.'))
        .map(([n, t]) => [n.slice(6), t as ReturnType<typeof tensor>]),
    ),
  );

  const [R, L] = tensor('in.wave').shape as [number, number];
  const N = tensor('in.anchor').shape[0]!;
  const ragged = Boolean(file.attrs['ragged']);
  const T = framesOf(L, config);
  const lengths = [...tensor('in.lengths').data];
  const place = new Map<Value, Region>();
  let parameters = new Map<string, Value>();
  const built = pretrainingGraph(
    config,
    { R, L, N, ragged },
    SCALES,
    (graph) => {
      parameters = store.declare(graph);
      for (const [name, value] of parameters) place.set(value, store.region(name));
      return parameters;
    },
    false,
  );
  const names = [...parameters.keys()];
  const gradients = grad(built.total, [...parameters.values()]);
  gradients.forEach((g, i) => place.set(g, store.region(names[i]!, 'gradients')));
  // The golden trajectories decay every parameter.
  const flat = (['values', 'gradients', 'expAvg', 'expAvgSq'] as const).map((name) => {
    const value = built.graph.state(`all ${name}`, [store.length]);
    place.set(value, store.flat(name));
    return value;
  });
  adamw(flat[0]!, flat[1]!, flat[2]!, flat[3]!, { betas, eps, weightDecay });
  const outputs: Record<string, Value> = { total: built.total, accuracy: built.accuracy! };
  for (const s of SCALES) outputs[s] = built.losses[s]!;
  const program = await compile(gpu, built.graph, {
    place,
    outputs,
    label: 'mgf_model',
    keep: {
      z: built.network.z,
      context: built.network.states.at(-1)!,
      reconstruction: built.reconstruction!,
      log_mel_target: built.logMelTarget,
    },
  });
  try {
    program.poison();
    const inputs = {
      wave: tensor('in.wave').data,
      spans: Float32Array.from(tensor('in.mask').data),
      anchor_weight: new Float32Array(N).fill(1),
      anchor: file.tensors.get('in.anchor')!.data,
      negatives: file.tensors.get('in.negatives')!.data,
      ...(ragged && {
        frame_mask: Float32Array.from({ length: R * T }, (_, i) =>
          Number(i % T < framesOf(lengths[Math.floor(i / T)]!, config)),
        ),
        mel_frames: Int32Array.from(lengths, (n) => Math.floor((n - 400) / 160) + 1),
      }),
    };
    const steps = Number(file.attrs['steps']);
    const columns = file.attrs['trajectory_columns'] as string[];
    const trajectory: number[] = [];
    const checks: Check[] = [];
    for (let i = 0; i < steps; i++) {
      const weights = Object.fromEntries(SCALES.map((s) => [weightScalar(s), config.loss_weights[s]]));
      const losses = await program.step(inputs, { ...weights, lr, ...biasCorrections(i + 1, betas) });
      for (const name of columns) trajectory.push(losses[name]![0]!);
      if (i > 0) continue;
      for (const name of [...SCALES, 'total', 'accuracy'])
        checks.push(checkOutput(name, losses[name]!, tensor(`out.${name}`).data, file.tolerance));
      for (const name of ['z', 'context', 'reconstruction', 'log_mel_target']) {
        const got = (await program.read(name)) as Float32Array<ArrayBuffer>;
        const want = tensor(`out.${name}`);
        checks.push(
          checkOutput(
            name,
            name === 'z' ? swapLast(got, built.network.z.shape).data : got,
            want.data,
            file.tolerance,
          ),
        );
      }
      const computed = await store.save('gradients');
      const wanted = [...computed.keys()];
      const largest = Math.max(...wanted.map((name) => norm(tensor(`grad.${name}`).data)));
      for (const name of wanted)
        checks.push(
          checkGradient(
            name,
            computed.get(name)!.data,
            tensor(`grad.${name}`).data,
            file.gradTolerance,
            file.gradFloor,
            largest,
          ),
        );
      const missing = [...file.tensors.keys()].find(
        (n) => n.startsWith('grad.') && !computed.has(n.slice(5)),
      );
      if (missing)
        throw new MGFError('data', `the case wants "${missing}", which this network has no parameter for`);
    }
    const want = tensor('out.trajectory').data;
    const tolerance = Number(file.metadata['trajectory_tol']);
    const error = Math.max(
      ...want.map((w, i) => {
        const e = Math.abs(trajectory[i]! - w) / Math.max(Math.abs(w), 1e-30);
        return Number.isFinite(e) ? e : Infinity;
      }),
    );
    checks.push({ name: 'out.trajectory', error, tolerance, passed: error <= tolerance });
    return checks;
  } finally {
    program.destroy();
    store.destroy();
  }
}
