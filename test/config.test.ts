import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MGFError } from '../src/errors.ts';
import { assertSameConfig, configDifferences } from '../src/mgf/config-difference.ts';
import { SCALES } from '../src/mgf/config.ts';
import { applySettings, overrideRunConfig, parseConfig, parseTrainConfig } from '../src/mgf/parse-config.ts';
import { fromHuggingFace } from '../src/mgf/huggingface.ts';
import { nearestName } from '../src/edit-distance.ts';
import { parseRunConfig, PRESET_NAMES, presetConfig, presetRunConfig } from '../src/mgf/presets.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import { failsWith } from './harness.ts';

/** The message of the MGFError that `action` throws; anything else fails the test. */
function message(action: () => unknown, code = 'config'): string {
  try {
    action();
  } catch (error) {
    assert.instance(error, MGFError);
    assert.is((error as MGFError).code, code);
    return (error as MGFError).message;
  }
  throw new Error('no error was thrown');
}

const tiny = presetConfig('tiny');
const parse = (over: object) => () => parseConfig({ ...tiny, ...over }, { origin: 'f.json' });

test('every preset is a valid run configuration', () => {
  for (const name of PRESET_NAMES) {
    const { mgf, train } = presetRunConfig(name);
    assert.is(mgf.frontend, name.endsWith('-mel') ? 'mel' : 'conv');
    assert.is(mgf.loss_weights.sample, name.endsWith('-mel') ? 0 : 1);
    assert.ok(train.utterances_per_batch >= 2);
  }
});

test('losses of a preset attach to z or the middle layer, the last layer and the middle layer', () => {
  assert.equal(tiny.attach, { frame: 'z', phoneme: 4, sentence: 2 });
  assert.equal(presetConfig('micro-mel').attach, { frame: 2, phoneme: 3, sentence: 2 });
  assert.equal(presetConfig('tiny', { num_hidden_layers: 3 }).attach, {
    frame: 'z',
    phoneme: 3,
    sentence: 2,
  });
  assert.equal(presetConfig('tiny', { attach: { phoneme: 1 } }).attach, {
    frame: 'z',
    phoneme: 1,
    sentence: 2,
  });
});

test('an unknown preset is answered with the nearest name', () => {
  assert.match(
    message(() => presetConfig('tinny')),
    /Unknown preset "tinny"; the nearest is "tiny"/,
  );
  assert.match(
    message(() => presetConfig('Micro_Mel')),
    /nearest is "micro-mel"/,
  );
  assert.match(
    message(() => presetConfig('__proto__')),
    /Unknown preset/,
  );
});

test('an unknown key is answered with the nearest one, nested and inherited names included', () => {
  assert.match(
    message(parse({ num_attention_head: 3 })),
    /^f\.json: unknown key "num_attention_head"; the nearest known key is "num_attention_heads"\.$/,
  );
  assert.match(
    message(parse({ loss_weights: { ...tiny.loss_weights, phonem: 1 } })),
    /"loss_weights\.phonem"; the nearest known key is "loss_weights\.phoneme"/,
  );
  assert.match(message(parse({ toString: 1 })), /unknown key "toString"/);
  assert.match(
    message(() => parseConfig(JSON.parse('{"__proto__": 1}'), { origin: 'f' })),
    /unknown key "__proto__"/,
  );
  assert.is(nearestName('learning-rte', ['eps', 'learning_rate']), 'learning_rate');
  assert.is(nearestName('offset', ['onBad', 'offsetSeconds']), 'offsetSeconds', 'cut short');
});

test('each wrong or impossible value is one sentence with field, value and rule', () => {
  const cases: [object, RegExp][] = [
    [{ hidden_size: '192' }, /^f\.json: hidden_size is "192", but must be an integer from 1 to 65536\.$/],
    [{ hidden_size: 1.5 }, /hidden_size is 1\.5, but must be an integer/],
    [{ hidden_size: NaN }, /hidden_size is NaN, but must be an integer/],
    [{ conv_dim: [128, 128, 0, 128, 128, 128, 128] }, /conv_dim\[2\] is 0, but must be an integer from 1/],
    [{ conv_dim: [128] }, /conv_dim is \[128\], but must be as long as conv_kernel \(7 layers\)/],
    [{ conv_dim: [8, 8, 8, 8, 8, 8, 4] }, /conv_dim is .* at least 8 channels/],
    [{ conv_stride: [5, 2, 2, 2, 2, 2, 1] }, /conv_stride is .* product is 320/],
    [{ conv_kernel: [10, 3, 3, 3, 3, 2, 3] }, /conv_kernel is .* 400 samples.* sees 560/],
    [{ num_attention_heads: 5 }, /num_attention_heads is 5, but must be a divisor of hidden_size \(192\)/],
    [
      { num_conv_pos_embedding_groups: 7 },
      /num_conv_pos_embedding_groups is 7, but must be a divisor of hidden_size/,
    ],
    [{ num_conv_pos_embeddings: 20 }, /num_conv_pos_embeddings is 20, but must be odd/],
    [
      { attach: { ...tiny.attach, sentence: 5 } },
      /attach\.sentence is 5, but must be at most num_hidden_layers \(4\)/,
    ],
    [
      { attach: { ...tiny.attach, frame: 'c' } },
      /attach\.frame is "c", but must be "z" or the index of a hidden state/,
    ],
    [{ attach: 4 }, /attach is 4, but must be an object with frame, phoneme and sentence/],
    [{ frontend: 'mel' }, /loss_weights\.sample is 1, but must be 0 with the mel front end/],
    [{ frontend: 'fft' }, /frontend is "fft", but must be "conv" or "mel"/],
    [
      { loss_weights: { ...tiny.loss_weights, frame: -1 } },
      /loss_weights\.frame is -1, but must be a number of at least 0/,
    ],
    [
      { loss_weights: { sample: 0, frame: 0, phoneme: 0, sentence: 0 } },
      /loss_weights is .* above 0 for at least one scale/,
    ],
    [
      { loss_start_steps: { sample: 5, frame: 5, phoneme: 5, sentence: 5 } },
      /loss_start_steps is .* 0 for at least one scale/,
    ],
    [{ hidden_dropout: 1 }, /hidden_dropout is 1, but must be at least 0 and below 1/],
    [{ conv_bias: 'no' }, /conv_bias is "no", but must be true or false/],
    [{ sample_rate: 8000 }, /sample_rate is 8000, but must be 16000/],
    [{ mask_time_prob: 0 }, /mask_time_prob is 0, but must be above 0/],
    [{ temperature: 0 }, /temperature is 0, but must be a number above 0/],
  ];
  for (const [over, wanted] of cases) assert.match(message(parse(over)), wanted);
  const { hidden_size: _, ...without } = tiny;
  assert.match(
    message(() => parseConfig(without, { origin: 'f.json' })),
    /hidden_size is missing; it must be an integer from 1/,
  );
  assert.match(
    message(() => parseConfig([], { origin: 'f.json' })),
    /f\.json: the configuration is \[\], but must be an object/,
  );
});

test('training settings and the rule that the sentence scale needs two utterances are checked', () => {
  assert.match(
    message(() => parseTrainConfig({ learning_rate: 0 }, { origin: 't' })),
    /t: learning_rate is 0, but must be a number above 0/,
  );
  assert.match(
    message(() => parseTrainConfig({ betas: [0.9] }, { origin: 't' })),
    /betas\[1\]/,
  );
  assert.match(
    message(() => parseTrainConfig({ crop_seconds: 0.1 }, { origin: 't' })),
    /crop_seconds is 0\.1, but must be from 0\.5 to 60/,
  );
  const run = presetRunConfig('nano');
  assert.match(
    message(() => applySettings(run, ['utterances_per_batch=1'])),
    /--set: utterances_per_batch is 1, but must be at least 2 while loss_weights\.sentence/,
  );
  assert.is(
    applySettings(run, ['utterances_per_batch=1', 'loss_weights.sentence=0']).train.utterances_per_batch,
    1,
  );
});

test('settings reach both halves, nested fields and lists, and leave the rest', () => {
  const run = presetRunConfig('tiny');
  const set = applySettings(run, [
    'learning_rate=1e-3',
    'loss_weights.sentence=0',
    'feat_extract_norm=group',
    'betas=[0.8, 0.95]',
    'minutes=20',
    'attach.frame=1',
  ]);
  assert.is(set.train.learning_rate, 1e-3);
  assert.equal(set.mgf.loss_weights, { sample: 1, frame: 1, phoneme: 1, sentence: 0 });
  assert.is(set.mgf.feat_extract_norm, 'group');
  assert.equal(set.train.betas, [0.8, 0.95]);
  assert.is(set.train.minutes, 20);
  assert.equal(set.mgf.attach, { frame: 1, phoneme: 4, sentence: 2 });
  assert.equal(run, presetRunConfig('tiny'));
  assert.match(
    message(() => applySettings(run, ['learning_rte=1'])),
    /--set: unknown key "learning_rte"; the nearest known key is "learning_rate"/,
  );
  assert.match(
    message(() => applySettings(run, ['sentense=0'])),
    /nearest known key is "loss_weights\.sentence"/,
  );
  assert.match(
    message(() => applySettings(run, ['learning_rate'])),
    /must have the form key=value/,
  );
  assert.match(
    message(() => applySettings(run, ['learning_rate=fast'])),
    /learning_rate is "fast", but must be a number above 0/,
  );
});

test('an attach that nobody chose follows the number of layers, a chosen one is checked', () => {
  const run = presetRunConfig('tiny');
  assert.equal(applySettings(run, ['num_hidden_layers=2']).mgf.attach, {
    frame: 'z',
    phoneme: 2,
    sentence: 1,
  });
  const chosen = applySettings(run, ['attach.sentence=4']);
  assert.match(
    message(() => applySettings(chosen, ['num_hidden_layers=2'])),
    /attach\.\w+ is 4, but must be at most num_hidden_layers \(2\)/,
  );
});

test('the JSON of what gives a configuration is what takes one, for every preset', () => {
  const json = (x: unknown): string => JSON.stringify(x);
  const origin = 'c.json';
  for (const name of PRESET_NAMES) {
    const run = presetRunConfig(name);
    for (const preset of ['tiny', 'nano-mel', name])
      assert.equal(parseRunConfig(json(run), { origin, preset }), run, `${name} on top of ${preset}`);
    assert.equal(
      parseRunConfig(json({ ...run.mgf, ...run.train }), { origin, preset: 'tiny' }),
      run,
      `${name}, mixed`,
    );
    assert.equal(parseConfig(JSON.parse(json(run.mgf)), { origin }), run.mgf);
    assert.equal(parseTrainConfig(JSON.parse(json(run.train)), { origin }), run.train);
    assert.equal(presetRunConfig('tiny', run), run);
    assert.equal(fromHuggingFace(JSON.parse(json(run.mgf))), run.mgf);
  }
  const changed = applySettings(presetRunConfig('nano'), [
    'minutes=3',
    'extra_losses={"tilt": {"weight": 1, "attach": "z", "start_step": 0}}',
  ]);
  assert.equal(parseRunConfig(json(changed), { origin, preset: 'tiny' }), changed);
  assert.equal(
    parseRunConfig('{"train": {"steps": 7}, "mask_time_length": 5}', { origin, preset: 'tiny' }).train.steps,
    7,
  );
});

test('the parts of a configuration file are checked as its fields are', async () => {
  const parse = (text: string) => () => parseRunConfig(text, { origin: 'c.json', preset: 'tiny' });
  assert.match(
    message(parse('{"steps": 7, "train": {"steps": 8}}')),
    /^c\.json: steps is given twice, by itself and in `mgf` or `train`/,
  );
  assert.match(message(parse('{"mgf": 3}')), /^c\.json: mgf is 3, but must be an object/);
  assert.match(message(parse('{"mgf": {"hidden": 3}}')), /unknown key "hidden"/);
  await failsWith(
    'usage',
    /presetRunConfig: unknown option "mfg"; the nearest known one is "mgf"/,
    async () => presetRunConfig('nano', { mfg: {} } as never),
  );
});

test('a configuration file mixes preset, network and training', () => {
  const run = parseRunConfig('{"preset": "micro-mel", "steps": 7, "loss_weights": {"sentence": 0.25}}', {
    origin: 'c.json',
    preset: 'tiny',
  });
  assert.is(run.mgf.hidden_size, 128);
  assert.is(run.train.steps, 7);
  assert.equal(run.mgf.loss_weights, { sample: 0, frame: 1, phoneme: 1, sentence: 0.25 });
  assert.is(parseRunConfig('{}', { origin: 'c.json', preset: 'tiny' }).mgf.hidden_size, 192);
  assert.match(
    message(() => parseRunConfig('{"steps": 7,}', { origin: 'c.json', preset: 'tiny' })),
    /^c\.json is not JSON/,
  );
  assert.match(
    message(() => parseRunConfig('[]', { origin: 'c.json', preset: 'tiny' })),
    /one JSON object/,
  );
  assert.match(
    message(() => overrideRunConfig(run, { stepz: 1 }, { origin: 'c.json' })),
    /nearest known key is "steps"/,
  );
});

test('a checkpoint of another configuration is refused with the first differing fields and both values', () => {
  const other = presetConfig('small');
  assert.equal(configDifferences(tiny, tiny), []);
  assertSameConfig(tiny, presetConfig('tiny'), { origin: 'run' });
  assert.match(
    message(
      () =>
        assertSameConfig(presetConfig('tiny', { proj_dim: 64, loss_weights: { sentence: 0 } }), tiny, {
          origin: 'run/c.safetensors',
        }),
      'checkpoint',
    ),
    /^run\/c\.safetensors was made with another configuration: proj_dim is 64 there and 128 here, loss_weights\.sentence is 0 there and 0\.5 here;/,
  );
  assert.match(
    message(() => assertSameConfig(tiny, other, { origin: 'run' }), 'checkpoint'),
    /\(and \d+ more\)/,
  );
  assertSameConfig(presetConfig('tiny', { proj_dim: 64 }), tiny, { origin: 'run', ignore: ['proj_dim'] });
});

test('a Hugging Face configuration of the wav2vec 2.0 family maps to ours', () => {
  const base = fromHuggingFace({
    model_type: 'wav2vec2',
    mask_time_prob: 0.05,
    vocab_size: 32,
    hidden_act: 'gelu',
  });
  assert.is(base.feat_extract_norm, 'group');
  assert.is(base.do_stable_layer_norm, false);
  assert.is(base.conv_pos_depth, 1);
  assert.is(base.num_conv_pos_embeddings, 128);
  assert.is(base.mask_time_prob, 0.65);
  assert.is(base.proj_dim, 256);
  const large = fromHuggingFace({
    model_type: 'hubert',
    hidden_size: 1024,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    intermediate_size: 4096,
    conv_bias: true,
    feat_extract_norm: 'layer',
    do_stable_layer_norm: true,
    feat_proj_layer_norm: true,
  });
  assert.is(large.conv_bias, true);
  assert.is(large.attach.phoneme, 24);
  const data2vec = fromHuggingFace({
    model_type: 'data2vec-audio',
    num_conv_pos_embeddings: 5,
    conv_pos_kernel_size: 19,
  });
  assert.equal(
    [data2vec.conv_pos_depth, data2vec.num_conv_pos_embeddings, data2vec.feat_extract_norm],
    [5, 19, 'layer'],
  );
  assert.match(
    message(() => fromHuggingFace({ model_type: 'wavlm' })),
    /model_type is "wavlm", but must be one of wav2vec2, hubert/,
  );
  assert.match(
    message(() => fromHuggingFace({ model_type: 'wav2vec2', add_adapter: true })),
    /add_adapter is true, but only false is supported/,
  );
  assert.match(
    message(() => fromHuggingFace({ model_type: 'wav2vec2', hidden_size: 'x' })),
    /config\.json: hidden_size is "x"/,
  );
});

const golden = 'test/golden';
const models = readdirSync(golden).filter((f) => f.startsWith('mgf_model-'));
test("the golden models' configurations parse as they are", () => {
  assert.is(models.length, 4);
  for (const file of models) {
    const { attrs } = readSafetensors(readFileSync(`${golden}/${file}`), { origin: file }).metadata;
    const { config } = JSON.parse(attrs!) as { config: Record<string, unknown> };
    const parsed = parseConfig(config, {
      origin: file,
      defaults: { hidden_dropout: 0, attention_dropout: 0 },
    });
    assert.is(parsed.hidden_dropout, 0);
    for (const [key, value] of Object.entries(config))
      assert.equal((parsed as unknown as Record<string, unknown>)[key], value, key);
    const preset = file.includes('w2v2') ? 'nano-w2v2' : file.includes('mel') ? 'nano-mel' : 'nano';
    assert.equal(presetConfig(preset, { hidden_dropout: 0, attention_dropout: 0 }), parsed);
    assert.is(SCALES.length, Object.keys(parsed.loss_weights).length);
  }
});

test.run();
