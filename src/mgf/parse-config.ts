/** Configurations from untrusted JSON and from `key=value` settings, with errors that name field and rule. */
import * as v from 'valibot';
import { checkArguments, checkOptions, CONFIG, RUN } from '../check.ts';
import { nearestName } from '../edit-distance.ts';
import { MGFError } from '../errors.ts';
import { defaultAttach, MGF_DEFAULTS, receptiveField, SCALES, TRAIN_DEFAULTS } from './config.ts';
import { MGF_FIELDS, mgfSchema, TRAIN_FIELDS, trainSchema } from './config-schema.ts';
import type { DeepPartial, MGFConfig, RunConfig, TrainConfig } from './config.ts';
import type { AnySchema } from './config-schema.ts';

/** An object with keys: neither null nor a list. */
export const isObject = (x: unknown): x is Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x);

/** A value as error messages quote it, at most 60 characters long. */
export function show(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

const fail = (origin: string, field: string, value: unknown, rule: string) =>
  new MGFError(
    'config',
    value === undefined
      ? `${origin}: ${field} is missing; it must be ${rule}.`
      : `${origin}: ${field} is ${show(value)}, but must be ${rule}.`,
  );

export const unknownKey = (origin: string, key: string, known: readonly string[]) =>
  new MGFError(
    'config',
    `${origin}: unknown key ${JSON.stringify(key)}; the nearest known key is "${nearestName(key, known)}".`,
  );

function rejectUnknown(
  value: Record<string, unknown>,
  known: readonly string[],
  origin: string,
  prefix = '',
): void {
  for (const [key, inner] of Object.entries(value)) {
    const name = prefix + key;
    if (!known.includes(name)) throw unknownKey(origin, name, known);
    if (isObject(inner) && known.some((k) => k.startsWith(`${name}.`)))
      rejectUnknown(inner, known, origin, `${name}.`);
  }
}

/** `over` on top of `base`; nested objects field by field, lists as a whole. */
export function merge(base: object, over: object): Record<string, unknown> {
  const out: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    if (value === undefined) continue;
    out[key] = isObject(value) && isObject(out[key]) ? merge(out[key], value) : structuredClone(value);
  }
  return out;
}

function requireObject(json: unknown, origin: string): asserts json is Record<string, unknown> {
  if (!isObject(json))
    throw new MGFError('config', `${origin}: the configuration is ${show(json)}, but must be an object.`);
}

function validate<T>(schema: AnySchema, value: unknown, origin: string): T {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output as T;
  const issue = result.issues[0];
  const path = issue.path ?? [];
  const field = path.reduce(
    (name, p) =>
      typeof p.key === 'number'
        ? `${name}[${p.key}]`
        : name === ''
          ? String(p.key)
          : `${name}.${String(p.key)}`,
    '',
  );
  // A missing key is reported with the rule of the object around it; the field's own rule says more.
  let entry: unknown = schema;
  for (const p of path)
    entry = isObject(entry) && isObject(entry['entries']) ? entry['entries'][String(p.key)] : undefined;
  const own = isObject(entry) && typeof entry['message'] === 'string' ? entry['message'] : issue.message;
  throw fail(origin, field, issue.input, issue.input === undefined ? own : issue.message);
}

const product = (xs: readonly number[]) => xs.reduce((p, x) => p * x, 1);

/** Rules that tie fields together. */
function checkMGF(c: MGFConfig, origin: string): void {
  const no = (field: string, value: unknown, rule: string) => {
    throw fail(origin, field, value, rule);
  };
  for (const field of ['conv_stride', 'conv_dim'] as const) {
    if (c[field].length !== c.conv_kernel.length)
      no(field, c[field], `as long as conv_kernel (${c.conv_kernel.length} layers)`);
  }
  if (product(c.conv_stride) !== 320)
    no('conv_stride', c.conv_stride, 'a list whose product is 320 samples, the hop of two log-mel frames');
  if (receptiveField(c) !== 400)
    no(
      'conv_kernel',
      c.conv_kernel,
      `a list that makes a frame see 400 samples, the log-mel window (this one sees ${receptiveField(c)})`,
    );
  if (c.conv_dim.at(-1)! < 8)
    no(
      'conv_dim',
      c.conv_dim,
      'a list that ends with at least 8 channels, which the sample decoder halves three times',
    );
  if (c.hidden_size % c.num_attention_heads !== 0)
    no('num_attention_heads', c.num_attention_heads, `a divisor of hidden_size (${c.hidden_size})`);
  if (c.hidden_size % c.num_conv_pos_embedding_groups !== 0) {
    no(
      'num_conv_pos_embedding_groups',
      c.num_conv_pos_embedding_groups,
      `a divisor of hidden_size (${c.hidden_size})`,
    );
  }
  if (c.conv_pos_depth > 1 && c.num_conv_pos_embeddings % 2 === 0) {
    no(
      'num_conv_pos_embeddings',
      c.num_conv_pos_embeddings,
      `odd when conv_pos_depth is above 1 (${c.conv_pos_depth})`,
    );
  }
  for (const [scale, layer] of Object.entries(c.attach)) {
    if (layer !== 'z' && layer > c.num_hidden_layers)
      no(`attach.${scale}`, layer, `at most num_hidden_layers (${c.num_hidden_layers})`);
  }
  if (c.frontend === 'mel' && c.loss_weights.sample > 0) {
    no(
      'loss_weights.sample',
      c.loss_weights.sample,
      '0 with the mel front end, because magnitudes carry no phase to decode a waveform from',
    );
  }
  for (const [name, { attach }] of Object.entries(c.extra_losses)) {
    if (!/^[a-z][a-z0-9_]*$/i.test(name) || (SCALES as readonly string[]).includes(name))
      no(
        `extra_losses.${name}`,
        c.extra_losses[name],
        'under a name of letters, digits and underscores that is none of the four scales',
      );
    if (attach !== 'z' && attach > c.num_hidden_layers)
      no(`extra_losses.${name}.attach`, attach, `at most num_hidden_layers (${c.num_hidden_layers})`);
  }
  const active = [
    ...SCALES.filter((s) => c.loss_weights[s] > 0).map((s) => c.loss_start_steps[s]),
    ...Object.values(c.extra_losses)
      .filter((l) => l.weight > 0)
      .map((l) => l.start_step),
  ];
  if (active.length === 0) no('loss_weights', c.loss_weights, 'above 0 for at least one scale');
  if (!active.includes(0))
    no(
      'loss_start_steps',
      c.loss_start_steps,
      '0 for at least one scale with a weight, or the first steps have nothing to learn',
    );
}

/** How messages about a configuration name it. */
export interface ParseOptions {
  /** What the messages call the source: a file name, `--set`, ... */
  origin: string;
}

/**
 * A network configuration from untrusted JSON. Fields that are missing take `defaults`, then those of
 * `MGF_DEFAULTS`; a missing `attach` takes `defaultAttach`. Errors (`config`): an unknown key, with the
 * nearest known one; a wrong type; an impossible value. Each names field, value and rule.
 */
export function parseConfig(
  json: unknown,
  options: ParseOptions & { defaults?: DeepPartial<MGFConfig> },
): MGFConfig {
  checkOptions('parseConfig', options, { origin: 'a text', defaults: 'an object?' });
  const { origin, defaults = {} } = options;
  requireObject(json, origin);
  rejectUnknown(json, MGF_FIELDS, origin);
  const filled = merge(merge(MGF_DEFAULTS, defaults), json);
  const layers = filled['num_hidden_layers'];
  const frontend = filled['frontend'];
  if (Number.isInteger(layers) && (frontend === 'conv' || frontend === 'mel')) {
    const attach = defaultAttach(layers as number, frontend);
    if (filled['attach'] === undefined || isObject(filled['attach']))
      filled['attach'] = merge(attach, (filled['attach'] as object | undefined) ?? {});
  }
  const config = validate<MGFConfig>(mgfSchema, filled, origin);
  checkMGF(config, origin);
  return config;
}

/**
 * Training settings from untrusted JSON; missing fields take `defaults`, then `TRAIN_DEFAULTS`. Errors as in
 * `parseConfig`.
 */
export function parseTrainConfig(
  json: unknown,
  options: ParseOptions & { defaults?: DeepPartial<TrainConfig> },
): TrainConfig {
  checkOptions('parseTrainConfig', options, { origin: 'a text', defaults: 'an object?' });
  const { origin, defaults = {} } = options;
  requireObject(json, origin);
  rejectUnknown(json, TRAIN_FIELDS, origin);
  const config = validate<TrainConfig>(trainSchema, merge(merge(TRAIN_DEFAULTS, defaults), json), origin);
  const { betas } = config;
  if (betas[1] === 0) throw fail(origin, 'betas', betas, 'a list whose second number is above 0');
  return config;
}

/** Rules that tie network and training together. */
export function checkRunConfig(run: RunConfig, origin: string): void {
  checkArguments('checkRunConfig', {
    run: [run, RUN],
    origin: [origin, 'a text'],
    'run.mgf': [run?.mgf, CONFIG],
    'run.train': [run?.train, 'an object'],
  });
  const { mgf, train } = run;
  if (
    mgf.loss_weights.sentence > 0 &&
    mgf.objectives.sentence === 'nt_xent' &&
    train.utterances_per_batch < 2
  ) {
    throw fail(
      origin,
      'utterances_per_batch',
      train.utterances_per_batch,
      'at least 2 while loss_weights.sentence is above 0: the sentence scale contrasts utterances with ' +
        'each other',
    );
  }
}

/** `fields` (network and training mixed, nested or not) on top of `base`. Errors as in `parseConfig`. */
export function overrideRunConfig(
  base: RunConfig,
  fields: Record<string, unknown>,
  { origin }: ParseOptions,
): RunConfig {
  rejectUnknown(fields, [...MGF_FIELDS, ...TRAIN_FIELDS], origin);
  const mgfFields: Record<string, unknown> = {};
  const trainFields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields))
    (MGF_FIELDS.includes(key) ? mgfFields : trainFields)[key] = value;
  const { attach, ...rest } = base.mgf;
  // An attach that nobody chose follows the number of layers; a chosen one stays and is checked against it.
  const chosen =
    JSON.stringify(attach) !== JSON.stringify(defaultAttach(base.mgf.num_hidden_layers, base.mgf.frontend));
  const config = {
    mgf: parseConfig(merge(chosen ? base.mgf : rest, mgfFields), { origin }),
    train: parseTrainConfig(merge(base.train, trainFields), { origin }),
  };
  checkRunConfig(config, origin);
  return config;
}

/**
 * `key=value` settings on top of a configuration: `learning_rate=1e-3`, `loss_weights.sentence=0`,
 * `conv_dim=[64,64,64,64,64,64,64]`, `frontend=mel`. A value is JSON where it can be read as such, else text.
 * Errors as in `parseConfig`.
 */
export function applySettings(
  config: RunConfig,
  settings: readonly string[],
  options: ParseOptions = { origin: '--set' },
): RunConfig {
  checkArguments('applySettings', { config: [config, RUN], settings: [settings, 'a list'] });
  settings.forEach((setting, i) =>
    checkArguments('applySettings', { [`setting ${i}`]: [setting, 'a text'] }),
  );
  checkOptions('applySettings', options, { origin: 'a text' });
  const { origin } = options;
  let fields: Record<string, unknown> = {};
  for (const setting of settings) {
    const at = setting.indexOf('=');
    if (at < 1)
      throw new MGFError(
        'config',
        `${origin}: ${JSON.stringify(setting)} must have the form key=value, such as learning_rate=1e-3.`,
      );
    const key = setting.slice(0, at).trim();
    const text = setting.slice(at + 1).trim();
    const known = [...MGF_FIELDS, ...TRAIN_FIELDS];
    if (!known.includes(key)) throw unknownKey(origin, key, known);
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = text;
    }
    const nested = key.split('.').reduceRight<unknown>((inner, part) => ({ [part]: inner }), value) as Record<
      string,
      unknown
    >;
    fields = merge(fields, nested);
  }
  return overrideRunConfig(config, fields, { origin });
}
