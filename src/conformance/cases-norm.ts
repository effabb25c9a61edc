import { gelu, relu, sigmoid, tanh } from '../ops/activation.ts';
import { groupNorm } from '../ops/norm/group-norm.ts';
import { layerNorm } from '../ops/norm/layer-norm.ts';
import { logMel } from '../ops/log-mel.ts';
import { adamw, biasCorrections } from '../optim/adamw.ts';
import { clipCoefficient, gradNorm, scaleBy } from '../optim/clip.ts';
import { MGFError } from '../errors.ts';
import type { CaseBuilder } from './case.ts';

export const cases: Record<string, CaseBuilder> = {
  layer_norm: (c) => ({
    y: layerNorm(
      c.input('x'),
      c.has('weight') ? c.input('weight') : null,
      c.has('bias') ? c.input('bias') : null,
      { eps: c.attrs['eps'] ?? 1e-5 },
    ),
  }),
  group_norm: (c) => ({
    y: {
      layout: 'swap',
      value: groupNorm(c.input('x', 'swap'), c.input('weight'), c.input('bias'), {
        groups: c.attrs['groups'],
        eps: c.attrs['eps'] ?? 1e-5,
      }),
    },
  }),
  gelu: (c) => ({ y: gelu(c.input('x')) }),
  relu: (c) => ({ y: relu(c.input('x')) }),
  tanh: (c) => ({ y: tanh(c.input('x')) }),
  sigmoid: (c) => ({ y: sigmoid(c.input('x')) }),
  log_mel: (c) => {
    const a = c.attrs;
    const fixed = { mel_scale: 'htk', norm: null, center: false, power: 2, log: 'ln' } as const;
    for (const [name, value] of Object.entries(fixed)) {
      if (name in a && a[name] !== value)
        throw new MGFError(
          'data',
          `log_mel: ${name} = ${String(a[name])} is not supported, only ${String(value)}`,
        );
    }
    return {
      y: logMel(c.input('wave'), {
        sampleRate: a['sample_rate'],
        nFft: a['n_fft'],
        winLength: a['win_length'],
        hopLength: a['hop_length'],
        nMels: a['n_mels'],
        fMin: a['f_min'],
        fMax: a['f_max'],
        floor: a['floor'],
      }),
    };
  },
  adamw: (c) => {
    const param = c.input('param');
    const exp_avg = c.input('exp_avg');
    const exp_avg_sq = c.input('exp_avg_sq');
    const betas = [c.attrs['beta1'], c.attrs['beta2']] as const;
    adamw(param, c.input('grad'), exp_avg, exp_avg_sq, {
      betas,
      eps: c.attrs['eps'],
      weightDecay: c.attrs['weight_decay'],
      lr: c.attrs['lr'],
      ...biasCorrections(c.attrs['step'], betas),
    });
    return { param, exp_avg, exp_avg_sq };
  },
  clip_grad_norm: (c) => {
    const names: string[] = [];
    while (c.has(`g${names.length}`)) names.push(`g${names.length}`);
    const gradients = names.map((name) => c.input(name));
    const norm = gradNorm(gradients);
    const coefficient = clipCoefficient(norm, c.attrs['max_norm']);
    return {
      norm,
      ...Object.fromEntries(names.map((name, i) => [name, scaleBy(gradients[i]!, coefficient)])),
    };
  },
};
