import { checkArguments, checkOptions, type Rules } from '../check.ts';
import { nearestName } from '../edit-distance.ts';
import { MGFError } from '../errors.ts';
import { checkRunConfig, merge, overrideRunConfig, parseConfig, parseTrainConfig } from './parse-config.ts';
import type { DeepPartial, MGFConfig, RunConfig, TrainConfig } from './config.ts';

interface Preset {
  mgf: DeepPartial<MGFConfig>;
  train: DeepPartial<TrainConfig>;
}

/** Seven convolutions of one width. */
const channels = (width: number) => ({ conv_dim: Array<number>(7).fill(width) });

const NANO = {
  ...channels(16),
  hidden_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  intermediate_size: 64,
  num_conv_pos_embedding_groups: 4,
  proj_dim: 16,
  num_negatives: 10,
};

/**
 * Batch and length grow with the network: the small ones are for a processor without a GPU, the large ones
 * for a GPU.
 */
const PRESETS: Readonly<Record<string, Preset>> = {
  nano: {
    mgf: { ...NANO, num_conv_pos_embeddings: 5, conv_pos_depth: 2 },
    train: { steps: 300, crop_seconds: 1.92, learning_rate: 3e-3, checkpoint_every: 100 },
  },
  'nano-w2v2': {
    mgf: {
      ...NANO,
      feat_extract_norm: 'group',
      do_stable_layer_norm: false,
      num_conv_pos_embeddings: 16,
      conv_pos_depth: 1,
      attach: { frame: 1, phoneme: 2, sentence: 1 },
    },
    train: { steps: 300, crop_seconds: 1.92, learning_rate: 3e-3, checkpoint_every: 100 },
  },
  micro: {
    mgf: {
      ...channels(64),
      hidden_size: 128,
      num_hidden_layers: 3,
      num_attention_heads: 2,
      intermediate_size: 512,
      num_conv_pos_embedding_groups: 8,
      proj_dim: 64,
    },
    train: { steps: 2000, crop_seconds: 1.92, learning_rate: 1e-3, checkpoint_every: 200 },
  },
  tiny: {
    mgf: {
      ...channels(128),
      hidden_size: 192,
      num_hidden_layers: 4,
      num_attention_heads: 3,
      intermediate_size: 768,
      num_conv_pos_embedding_groups: 8,
      proj_dim: 128,
    },
    train: { steps: 10000 },
  },
  small: {
    mgf: {
      ...channels(256),
      hidden_size: 384,
      num_hidden_layers: 6,
      num_attention_heads: 6,
      intermediate_size: 1536,
      num_conv_pos_embedding_groups: 16,
      proj_dim: 256,
    },
    train: {
      steps: 100000,
      utterances_per_batch: 8,
      crop_seconds: 4,
      accumulation: 4,
      checkpoint_every: 1000,
    },
  },
  base: {
    mgf: {
      ...channels(512),
      hidden_size: 768,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      intermediate_size: 3072,
      num_conv_pos_embedding_groups: 16,
      proj_dim: 256,
    },
    train: {
      steps: 400000,
      utterances_per_batch: 8,
      crop_seconds: 6,
      accumulation: 8,
      checkpoint_every: 1000,
    },
  },
};

/** Every name that `presetConfig` knows; NAME-mel is NAME with the mel front end. */
export const PRESET_NAMES: readonly string[] = Object.keys(PRESETS).flatMap((name) =>
  name === 'nano-w2v2' ? [name] : [name, `${name}-mel`],
);

function lookup(name: string): { preset: Preset; mel: boolean } {
  checkArguments('preset', { name: [name, 'a text'] });
  if (!PRESET_NAMES.includes(name)) {
    const nearest = nearestName(name, PRESET_NAMES);
    throw new MGFError(
      'config',
      `Unknown preset ${JSON.stringify(name)}; the nearest is "${nearest}" (all: ${PRESET_NAMES.join(', ')}).`,
    );
  }
  const mel = name.endsWith('-mel');
  return { preset: PRESETS[mel ? name.slice(0, -'-mel'.length) : name]!, mel };
}

/**
 * The network of a preset, with `overrides` on top. Errors (`config`): unknown preset, with the nearest;
 * overrides as in `parseConfig`.
 */
export function presetConfig(name: string, overrides: DeepPartial<MGFConfig> = {}): MGFConfig {
  checkArguments('presetConfig', { name: [name, 'a text'], overrides: [overrides, 'an object'] });
  const { preset, mel } = lookup(name);
  // Magnitudes carry no phase, so that the mel front end cannot learn the sample scale.
  const base = mel ? merge(preset.mgf, { frontend: 'mel', loss_weights: { sample: 0 } }) : preset.mgf;
  return parseConfig(merge(base, overrides), { origin: `preset ${name}` });
}

/** The training settings that go with a preset, with `overrides` on top. Errors as in `presetConfig`. */
export function presetTrainConfig(name: string, overrides: DeepPartial<TrainConfig> = {}): TrainConfig {
  checkArguments('presetTrainConfig', { name: [name, 'a text'], overrides: [overrides, 'an object'] });
  return parseTrainConfig(merge(lookup(name).preset.train, overrides), { origin: `preset ${name}` });
}

interface RunOverrides {
  mgf?: DeepPartial<MGFConfig>;
  train?: DeepPartial<TrainConfig>;
}
const RUN_OVERRIDES: Rules<RunOverrides> = { mgf: 'an object?', train: 'an object?' };

/**
 * Both halves of a preset. Errors as in `presetConfig`; 'usage' for overrides other than `mgf` and `train`.
 */
export function presetRunConfig(name: string, overrides: RunOverrides = {}): RunConfig {
  checkOptions('presetRunConfig', overrides, RUN_OVERRIDES);
  const config = { mgf: presetConfig(name, overrides.mgf), train: presetTrainConfig(name, overrides.train) };
  checkRunConfig(config, `preset ${name}`);
  return config;
}

/**
 * Fields of network and training, mixed, from an object that has them mixed, in its parts `mgf` and `train`
 * as a RunConfig has, or both.
 */
function mixedFields(json: Record<string, unknown>, origin: string): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  const add = (key: string, value: unknown): void => {
    if (Object.hasOwn(fields, key)) {
      const twice = `${key} is given twice, by itself and in \`mgf\` or \`train\``;
      throw new MGFError('config', `${origin}: ${twice}; leave one out.`);
    }
    Object.defineProperty(fields, key, { value, enumerable: true });
  };
  for (const [key, value] of Object.entries(json)) {
    const part = key === 'mgf' || key === 'train';
    if (part && (typeof value !== 'object' || value === null || Array.isArray(value))) {
      throw new MGFError(
        'config',
        `${origin}: ${key} is ${JSON.stringify(value)}, but must be an object ` +
          'with fields of the configuration.',
      );
    }
    const inside = part ? Object.entries(value as object) : [[key, value] as const];
    for (const [name, inner] of inside) add(name, inner);
  }
  return fields;
}

/**
 * What a configuration file holds: the preset that it names, if any, and its fields, unchecked. Errors
 * (`config`): not one JSON object; a preset that is no text.
 */
export function parseRunFields(
  text: string,
  origin: string,
): { preset?: string; fields: Record<string, unknown> } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new MGFError('config', `${origin} is not JSON (${(error as Error).message}).`, { cause: error });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new MGFError('config', `${origin} must hold one JSON object with fields of the configuration.`);
  }
  const { preset, ...fields } = json as Record<string, unknown>;
  if (preset === undefined) return { fields: mixedFields(fields, origin) };
  if (typeof preset !== 'string')
    throw new MGFError(
      'config',
      `${origin}: preset is ${JSON.stringify(preset)}, but must be the name of a preset.`,
    );
  return { preset, fields: mixedFields(fields, origin) };
}

/**
 * A configuration file: one JSON object with any fields of network and training, mixed or in parts `mgf` and
 * `train` (as JSON of a RunConfig has them), and optionally `preset`, which they are put on top of. `preset`
 * here is the one to use when the file names none. Errors (`config`): not JSON; otherwise as in
 * `presetConfig` and `parseConfig`.
 */
export function parseRunConfig(text: string, options: { origin: string; preset: string }): RunConfig {
  checkArguments('parseRunConfig', { text: [text, 'a text'] });
  checkOptions('parseRunConfig', options, { origin: 'a text', preset: 'a text' });
  const { origin, preset } = options;
  const { preset: named = preset, fields } = parseRunFields(text, origin);
  return overrideRunConfig(presetRunConfig(named), fields, { origin });
}
