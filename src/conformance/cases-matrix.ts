import { attention } from '../ops/attention/attention.ts';
import { conv1d, convTranspose1d } from '../ops/conv/conv.ts';
import { linear } from '../ops/gemm/linear.ts';
import { matmul } from '../ops/gemm/matmul.ts';
import type { CaseBuilder } from './case.ts';

export const cases: Record<string, CaseBuilder> = {
  linear: (c) => ({ y: linear(c.input('x'), c.input('weight'), c.has('bias') ? c.input('bias') : null) }),
  matmul: (c) => ({
    y: matmul(c.input('a'), c.input('b'), {
      transposeA: Boolean(c.attrs['transpose_a']),
      transposeB: Boolean(c.attrs['transpose_b']),
    }),
  }),
  conv1d: (c) => ({
    y: {
      layout: 'swap',
      value: conv1d(c.input('x', 'swap'), c.input('weight', 'swap'), c.has('bias') ? c.input('bias') : null, {
        stride: c.attrs['stride'] ?? 1,
        padding: c.attrs['padding'] ?? 0,
        dilation: c.attrs['dilation'] ?? 1,
        groups: c.attrs['groups'] ?? 1,
      }),
    },
  }),
  conv_transpose1d: (c) => ({
    y: {
      layout: 'swap',
      value: convTranspose1d(
        c.input('x', 'swap'),
        c.input('weight', 'swap'),
        c.has('bias') ? c.input('bias') : null,
        {
          stride: c.attrs['stride'] ?? 1,
          padding: c.attrs['padding'] ?? 0,
          outputPadding: c.attrs['output_padding'] ?? 0,
        },
      ),
    },
  }),
  attention: (c) => {
    const mask = c.has('key_mask') ? c.tensor('key_mask') : null;
    return {
      y: attention(
        c.input('q'),
        c.input('k'),
        c.input('v'),
        mask && c.graph.constant('key_mask', mask.shape, Float32Array.from(mask.data)),
      ),
    };
  },
};
