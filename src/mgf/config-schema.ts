/** The shape of a configuration, field by field. Rules that tie fields together are in parse-config.ts. */
import * as v from 'valibot';
import type { MGFConfig, TrainConfig } from './config.ts';

// A message is the rule alone, worded to follow "must be"; parse-config.ts puts field and value before it.

const integer = (min: number, max = 65536) => {
  const rule = `an integer from ${min} to ${max}`;
  return v.pipe(v.number(rule), v.integer(rule), v.minValue(min, rule), v.maxValue(max, rule));
};
const number = (rule: string, holds: (x: number) => boolean) =>
  v.pipe(v.number(rule), v.finite(rule), v.check(holds, rule));
const positive = () => number('a number above 0', (x) => x > 0);
const nonNegative = () => number('a number of at least 0', (x) => x >= 0);
const fraction = () => number('at least 0 and below 1', (x) => x >= 0 && x < 1);
const boolean = () => v.boolean('true or false');
const oneOf = <const T extends string[]>(...names: T) =>
  v.picklist(names, names.map((n) => JSON.stringify(n)).join(' or '));
const integers = () =>
  v.pipe(v.array(integer(1), 'a list of integers'), v.nonEmpty('a list with at least one integer'));
const perScale = <T extends v.GenericSchema<unknown, number>>(schema: T) =>
  v.object(
    { sample: schema, frame: schema, phoneme: schema, sentence: schema },
    'an object with sample, frame, phoneme and sentence',
  );

export const mgfSchema = v.object(
  {
    sample_rate: v.literal(16000, '16000 (recordings of any other rate are resampled on load)'),
    frontend: oneOf('conv', 'mel'),
    conv_kernel: integers(),
    conv_stride: integers(),
    conv_bias: boolean(),
    conv_dim: integers(),
    feat_extract_norm: oneOf('layer', 'group'),
    do_stable_layer_norm: boolean(),
    layer_norm_eps: positive(),
    num_conv_pos_embeddings: integer(1, 1024),
    conv_pos_depth: integer(1, 64),
    num_conv_pos_embedding_groups: integer(1),
    hidden_size: integer(1),
    num_hidden_layers: integer(1, 256),
    num_attention_heads: integer(1),
    intermediate_size: integer(1, 262144),
    mask_time_prob: number('above 0 and at most 1', (x) => x > 0 && x <= 1),
    mask_time_length: integer(1, 10000),
    mask_time_min_masks: integer(1, 10000),
    num_negatives: integer(1, 10000),
    temperature: positive(),
    sentence_temperature: positive(),
    n_mels: integer(1, 200),
    proj_dim: integer(1),
    loss_weights: perScale(nonNegative()),
    loss_start_steps: perScale(integer(0, Number.MAX_SAFE_INTEGER)),
    objectives: v.object(
      {
        frame: oneOf('l1', 'info_nce'),
        phoneme: oneOf('info_nce', 'l1'),
        sentence: oneOf('nt_xent', 'l1'),
      },
      'an object with frame, phoneme and sentence',
    ),
    attach: v.object(
      {
        frame: v.union([v.literal('z'), integer(0)], '"z" or the index of a hidden state'),
        phoneme: integer(0),
        sentence: integer(0),
      },
      'an object with frame, phoneme and sentence',
    ),
    extra_losses: v.record(
      v.string(),
      v.object(
        {
          weight: nonNegative(),
          attach: v.union([v.literal('z'), integer(0)], '"z" or the index of a hidden state'),
          start_step: integer(0, Number.MAX_SAFE_INTEGER),
        },
        'an object with weight, attach and start_step',
      ),
      'an object with an entry for each loss',
    ),
    hidden_dropout: fraction(),
    attention_dropout: fraction(),
  },
  'an object',
) satisfies v.GenericSchema<unknown, MGFConfig>;

const beta = fraction();
export const trainSchema = v.object(
  {
    seed: integer(0, 0xffffffff),
    steps: integer(1, Number.MAX_SAFE_INTEGER),
    minutes: v.nullable(positive()),
    utterances_per_batch: integer(1),
    crop_seconds: number('from 0.5 to 60', (x) => x >= 0.5 && x <= 60),
    accumulation: integer(1),
    learning_rate: positive(),
    warmup: fraction(),
    betas: v.tuple([beta, beta], 'a list of two numbers'),
    eps: positive(),
    weight_decay: nonNegative(),
    max_grad_norm: positive(),
    precision: oneOf('f32', 'f16'),
    log_every: integer(1, Number.MAX_SAFE_INTEGER),
    checkpoint_every: integer(1, Number.MAX_SAFE_INTEGER),
    keep_last: integer(1),
  },
  'an object',
) satisfies v.GenericSchema<unknown, TrainConfig>;

/** The schema of a network or of its training. */
export type AnySchema = typeof mgfSchema | typeof trainSchema;

/** Dotted names of all fields of a schema, objects themselves included: `attach`, `attach.frame`, ... */
function fieldNames(schema: AnySchema): string[] {
  return Object.entries(schema.entries as Record<string, v.GenericSchema>).flatMap(([key, entry]) =>
    'entries' in entry
      ? [key, ...Object.keys(entry.entries as object).map((inner) => `${key}.${inner}`)]
      : [key],
  );
}

export const MGF_FIELDS: readonly string[] = fieldNames(mgfSchema);
export const TRAIN_FIELDS: readonly string[] = fieldNames(trainSchema);
