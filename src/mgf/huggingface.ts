import { checkOptions } from '../check.ts';
import { MGFError } from '../errors.ts';
import { parseConfig } from './parse-config.ts';
import type { MGFConfig } from './config.ts';

/**
 * Model types whose encoders compute what ours does. (WavLM has relative positions inside attention; the
 * conformers have other layers.)
 */
const FAMILY = ['wav2vec2', 'hubert', 'data2vec-audio', 'unispeech', 'unispeech-sat'] as const;

/** What the family's configuration classes assume for a field that `config.json` leaves out. */
const FAMILY_DEFAULTS = {
  hidden_size: 768,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  intermediate_size: 3072,
  conv_dim: [512, 512, 512, 512, 512, 512, 512],
  conv_kernel: [10, 3, 3, 3, 3, 2, 2],
  conv_stride: [5, 2, 2, 2, 2, 2, 2],
  conv_bias: false,
  feat_extract_norm: 'group',
  do_stable_layer_norm: false,
  layer_norm_eps: 1e-5,
  num_conv_pos_embeddings: 128,
  num_conv_pos_embedding_groups: 16,
  hidden_dropout: 0.1,
  attention_dropout: 0.1,
  num_negatives: 100,
  contrastive_logits_temperature: 0.1,
  proj_codevector_dim: 256,
};

/** Fields that change what is computed, with the only value that ours computes; absent is that value. */
const REQUIRED: readonly (readonly [field: string, value: unknown])[] = [
  ['hidden_act', 'gelu'],
  ['feat_extract_activation', 'gelu'],
  ['add_adapter', false],
  ['adapter_attn_dim', null],
  ['feat_proj_layer_norm', true],
  ['conv_pos_batch_norm', false],
];

/**
 * Our configuration of a Hugging Face `config.json` of the wav2vec 2.0 family (wav2vec2, hubert,
 * data2vec-audio, unispeech, unispeech-sat). Masking stays at our defaults: the file's `mask_time_prob` is
 * meant for fine-tuning and under-masks pre-training. A configuration of this engine, which has `frontend`
 * and no `model_type`, is checked and returned. Errors (`config`): another model type, or a setting that the
 * encoder here does not compute.
 */
export function fromHuggingFace(
  json: unknown,
  options: { origin: string } = { origin: 'config.json' },
): MGFConfig {
  checkOptions('fromHuggingFace', options, { origin: 'a text' });
  const { origin } = options;
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new MGFError('config', `${origin} must hold one JSON object.`);
  const given = json as Record<string, unknown>;
  const type = given['model_type'];
  // Only our own configurations name a front end; what `mgf.config` or this function gave is taken back.
  if (type === undefined && 'frontend' in given) return parseConfig(given, { origin });
  if (!FAMILY.includes(type as (typeof FAMILY)[number])) {
    throw new MGFError(
      'config',
      `${origin}: model_type is ${JSON.stringify(type) ?? 'missing'}, but must be one of ` +
        `${FAMILY.join(', ')}.`,
    );
  }
  for (const [field, wanted] of REQUIRED) {
    const value = given[field] ?? wanted;
    if (value !== wanted)
      throw new MGFError(
        'config',
        `${origin}: ${field} is ${JSON.stringify(value)}, but only ${JSON.stringify(wanted)} is supported.`,
      );
  }
  const hf: Record<string, unknown> = { ...FAMILY_DEFAULTS };
  for (const [key, value] of Object.entries(given))
    if (value !== null && Object.hasOwn(FAMILY_DEFAULTS, key)) hf[key] = value;
  const data2vec = type === 'data2vec-audio';
  const encoder = {
    ...hf,
    // data2vec counts the convolutions of its stack where the others give the kernel of their only one, and
    // always norms layer-wise, post-LN.
    conv_pos_depth: data2vec ? (given['num_conv_pos_embeddings'] ?? 5) : (given['conv_pos_depth'] ?? 1),
    num_conv_pos_embeddings: data2vec ? (given['conv_pos_kernel_size'] ?? 19) : hf['num_conv_pos_embeddings'],
    ...(data2vec ? { feat_extract_norm: 'layer', do_stable_layer_norm: false } : {}),
    temperature: hf['contrastive_logits_temperature'],
    proj_dim: hf['proj_codevector_dim'],
  };
  const {
    contrastive_logits_temperature: _t,
    proj_codevector_dim: _p,
    ...fields
  } = encoder as Record<string, unknown>;
  return parseConfig(fields, { origin });
}
