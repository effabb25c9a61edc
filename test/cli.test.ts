import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { randomStream } from '../src/random/stream.ts';
import { halfToFloat, readSafetensors } from '../src/io/safetensors.ts';
import { wav } from './audio-wav.ts';
import { testAdapter } from './gpu.ts';

/** The real program: bundled tests lie one folder below it. */
const program = fileURLToPath(new URL('../mgf.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'mgf-cli-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);

interface Ended {
  status: number | null;
  out: string;
  err: string;
}

function mgf(
  args: string[],
  {
    env = {},
    onError,
  }: {
    env?: Record<string, string>;
    onError?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
  } = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], {
      cwd: folder,
      env: { ...process.env, ...env },
    });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text;
      onError?.(err, (signal) => child.kill(signal));
    });
    child.on('close', (status) => resolve({ status, out, err }));
  });
}

/** The one line that the program says about a failure; drivers print theirs as they like. */
function complaint({ err }: Ended): string {
  const own = err.split('\n').filter((line) => line.startsWith('mgf: '));
  assert.is(own.length, 1, err);
  assert.not.match(err, /at .*\.js:\d+/, 'no stack');
  return own[0]!;
}

const onDevice = testAdapter() ? ['--adapter', testAdapter()!] : [];

/** Voices enough for a batch: noise whose loudness rises and falls. */
function recordings(name: string, clips = 5): string {
  mkdirSync(at(name), { recursive: true });
  for (let c = 0; c < clips; c++) {
    const random = randomStream(c);
    const samples = Float32Array.from(
      { length: 16000 },
      (_, i) => 0.5 * Math.sin(i / (900 + 100 * c)) ** 2 * (2 * random.uniform() - 1),
    );
    writeFileSync(join(at(name), `clip-${c}.wav`), wav([samples]));
  }
  return at(name);
}

test('every command has help with examples', async () => {
  const main = await mgf(['--help']);
  assert.is(main.status, 0);
  const helps = await Promise.all(
    [
      'quickstart',
      'pretrain',
      'embed',
      'export',
      'align',
      'probe',
      'finetune',
      'predict',
      'report',
      'ablate',
      'gradcheck',
      'kernel',
      'inspect',
      'info',
      'conformance',
      'bench',
    ].map(async (name) => ({ name, ...(await mgf([name, '--help'])) })),
  );
  for (const { name, status, out } of helps) {
    assert.is(status, 0);
    assert.match(main.out, new RegExp(`^  ${name} `, 'm'));
    assert.match(out, /Examples:\n {2}mgf /);
  }
});

test('wrong usage ends with status 2 and the nearest right word', async () => {
  const cases: [string[], RegExp][] = [
    [['pretrian', 'x'], /unknown command 'pretrian'/],
    [['pretrain'], /missing required argument 'data'/],
    [['pretrain', 'x', '--preset', 'nano', '--setp', 'a=1'], /--setp/],
    [['pretrain', 'x', '--steps', 'many'], /number above 0/],
    [['pretrain', 'x', '--steps', '5', '--minutes', '1'], /cannot be used with/],
    [['info', '--adapter', 'vodoo'], /gpu, software, lavapipe, swiftshader/],
  ];
  const ended = await Promise.all(cases.map(([args]) => mgf(args)));
  ended.forEach((e, i) => {
    assert.is(e.status, 2);
    assert.match(complaint(e), cases[i]![1]);
  });
  assert.match(ended[0]!.err, 'Did you mean pretrain?');
  assert.match(ended[2]!.err, 'Did you mean --set?');
});

test('what can be refused without a device is refused in one sentence', async () => {
  const data = recordings('refused');
  mkdirSync(at('empty'));
  writeFileSync(at('broken.json'), '{');
  writeFileSync(at('typo.json'), '{ "hiden_size": 32 }');
  const hostile = Buffer.alloc(64);
  hostile.writeBigUInt64LE(2n ** 60n);
  writeFileSync(at('hostile.safetensors'), hostile);
  const cases: [string[], RegExp][] = [
    [['pretrain', 'nowhere'], /no file or folder "nowhere"/],
    [['pretrain', at('empty')], /No audio files found/],
    [['pretrain', data, '--preset', 'mikro'], /Unknown preset "mikro"; the nearest is "micro"/],
    [
      ['pretrain', data, '--preset', 'nano', '--set', 'lerning_rate=1'],
      /unknown key "lerning_rate"; the nearest known key is "learning_rate"/,
    ],
    [
      ['pretrain', data, '--preset', 'nano', '--set', 'hidden_size=33'],
      /num_attention_heads is 4, but must be a divisor of hidden_size \(33\)/,
    ],
    [['pretrain', data, '--preset', 'nano', '--set', 'utterances_per_batch=1'], /at least 2/],
    [['pretrain', data, '--config', at('broken.json')], /is not JSON/],
    [
      ['pretrain', data, '--config', at('typo.json')],
      /unknown key "hiden_size"; the nearest known key is "hidden_size"/,
    ],
    [['pretrain', data, '--config', at('none.json')], /there is no such file/],
    [['pretrain', data, '--resume', at('hostile.safetensors')], /header claims 1152921504606846976 bytes/],
    [['pretrain', data, '--resume', at('empty')], /holds no checkpoint/],
    [['embed', data, '--checkpoint', at('nothing'), '--out', at('x.jsonl')], /no checkpoint at/],
    [
      ['embed', data, '--checkpoint', at('nothing'), '--out', at('x.csv')],
      /must end in \.npy, \.safetensors, \.jsonl/,
    ],
    [
      ['embed', data, '--checkpoint', at('nothing'), '--out', at('x.npy')],
      /5 recordings have different numbers of frames/,
    ],
    [['conformance', at('empty')], /no conformance cases/],
    [['conformance', at('nowhere')], /no such file or folder/],
    [['quickstart', '--data', at('empty')], /No audio files found/],
  ];
  // A few at a time: each is a process.
  for (let i = 0; i < cases.length; i += 4) {
    const ended = await Promise.all(cases.slice(i, i + 4).map(([args]) => mgf(args)));
    ended.forEach((e, k) => {
      const [args, wanted] = cases[i + k]!;
      assert.match(complaint(e), wanted, args.join(' '));
      assert.is(e.status, /must end in|different numbers/.test(e.err) ? 2 : 1, args.join(' '));
    });
  }
});

test('without the adapter that was asked for, the message says what to install', async () => {
  const ended = await mgf(['info', '--adapter', 'lavapipe'], {
    env: { VK_DRIVER_FILES: at('no-driver.json'), VK_ICD_FILENAMES: at('no-driver.json') },
  });
  assert.is(ended.status, 1);
  assert.match(complaint(ended), 'mesa-vulkan-drivers');
});

// The tests below share one small run, in this order.
const small = [
  '--preset',
  'nano-mel',
  '--set',
  'crop_seconds=0.5',
  '--set',
  'utterances_per_batch=2',
  '--set',
  'log_every=1',
];

test('pretrain trains, leaves bad recordings out by name, and answers in JSON', async () => {
  const data = recordings('data');
  writeFileSync(join(data, 'junk.wav'), 'not audio');
  writeFileSync(join(data, 'short.wav'), wav([new Float32Array(300).fill(0.1)]));
  writeFileSync(join(data, 'silent.wav'), wav([new Float32Array(16000)]));
  const ended = await mgf([
    'pretrain',
    data,
    ...small,
    '--steps',
    '2',
    '--out',
    at('run'),
    '--json',
    ...onDevice,
  ]);
  assert.is(ended.status, 0, ended.err);
  const answer = JSON.parse(ended.out) as {
    steps: number;
    data: { usable: number; skipped: { path: string }[] };
    dispatches: number;
    peakMemory: number;
  };
  assert.is(answer.steps, 2);
  assert.is(answer.data.usable, 5);
  assert.equal(answer.data.skipped.map((s) => s.path.split('/').at(-1)).sort(), [
    'junk.wav',
    'short.wav',
    'silent.wav',
  ]);
  assert.ok(answer.dispatches > 50 && answer.peakMemory > 1e7);
  assert.match(ended.err, /Left out {4}3 clips/);
  for (const file of [
    'checkpoint-000002.safetensors',
    'log.jsonl',
    'config.json',
    'skipped.tsv',
    'report.html',
    'tensorboard',
  ])
    assert.ok(existsSync(join(at('run'), file)), file);
});

test('export writes weights that embed reads, in half precision, and that cannot be resumed', async () => {
  const ended = await mgf([
    'export',
    at('run'),
    '--out',
    at('small/model.safetensors'),
    '--note',
    'licence=CC0',
    '--json',
  ]);
  assert.is(ended.status, 0, ended.err);
  const { metadata, tensors } = readSafetensors(readFileSync(at('small/model.safetensors')), {
    origin: 'small',
  });
  assert.is(metadata['note.licence'], 'CC0');
  assert.is(tensors.get('feature_projection.projection.weight')!.dtype, 'F16');
  assert.is(tensors.get('feature_projection.projection.bias')!.dtype, 'F32');
  assert.not.ok([...tensors.keys()].some((name) => /^(heads|optimizer)\./.test(name)));
  const clip = join(at('data'), 'clip-0.wav');
  const embed = (checkpoint: string, out: string) =>
    mgf(['embed', clip, '--checkpoint', checkpoint, '--out', at(out), ...onDevice]);
  for (const e of [
    await embed(at('small/model.safetensors'), 'small.jsonl'),
    await embed(at('run'), 'whole.jsonl'),
  ])
    assert.is(e.status, 0, e.err);
  const vectors = (name: string) =>
    readFileSync(at(name), 'utf8')
      .trim()
      .split('\n')
      .flatMap((line) => (JSON.parse(line) as { vector: number[] }).vector);
  const [rounded, exact] = [vectors('small.jsonl'), vectors('whole.jsonl')];
  const worst = Math.max(...exact.map((x, i) => Math.abs(x - rounded[i]!)));
  assert.ok(worst > 0 && worst < 0.02, `off by ${worst}`);
  const resumed = await mgf([
    'pretrain',
    at('data'),
    '--resume',
    at('small/model.safetensors'),
    '--steps',
    '4',
  ]);
  assert.is(resumed.status, 1);
  assert.match(complaint(resumed), /cannot be resumed|holds no|no sound/);
});

test('a new run begins with the weights of another, its missing heads random', async () => {
  const ended = await mgf([
    'pretrain',
    at('data'),
    '--init',
    at('small/model.safetensors'),
    '--steps',
    '1',
    '--set',
    'learning_rate=1e-9',
    '--out',
    at('warm'),
    '--json',
    ...onDevice,
  ]);
  assert.is(ended.status, 0, ended.err);
  const weights = (path: string) => readSafetensors(readFileSync(path), { origin: path }).tensors;
  const from = weights(at('small/model.safetensors'));
  const to = weights(at('warm/checkpoint-000001.safetensors'));
  for (const [name, { data }] of from) {
    const found = to.get(name)!.data as Float32Array;
    const stored =
      data instanceof Uint16Array ? Float32Array.from(data, halfToFloat) : (data as Float32Array);
    assert.ok(
      stored.every((x, i) => Math.abs(x - found[i]!) < 1e-6),
      name,
    );
  }
  assert.ok([...to.keys()].some((name) => name.startsWith('heads.')));
  const wider = await mgf([
    'pretrain',
    at('data'),
    '--init',
    at('small/model.safetensors'),
    '--steps',
    '1',
    '--set',
    'intermediate_size=128',
    '--out',
    at('wider'),
    ...onDevice,
  ]);
  assert.match(complaint(wider), /shape .* this configuration wants/);
  const both = await mgf(['pretrain', at('data'), '--init', at('run'), '--preset', 'nano']);
  assert.match(both.err, /cannot be used with/);
});

test('a loss from a file is checked, trains in the same step, and is asked for again when the run goes on', async () => {
  const loss = (slope: string) => `import { defineLoss, linear, type TrainingLoss } from 'mgf-webgpu';
export const squared = defineLoss({ name: 'squared', inputs: ['x', 'goal'], forward: '(x - goal) * (x - goal)', backward: { x: '${slope}' }, reference: ({ x, goal }) => (x - goal) ** 2 });
export default {
  name: 'frame_mse', parameters: ({ n_mels }, width) => [{ name: 'out.weight', shape: [2 * n_mels, width] }],
  build: ({ state, weights, mel }) => squared({ x: linear(state, weights.get('out.weight')), goal: mel.target }, {}, mel.weight),
} satisfies TrainingLoss;`;
  writeFileSync(at('mine.ts'), loss('2.0 * (x - goal)'));
  writeFileSync(at('wrong.ts'), loss('x - goal'));
  writeFileSync(at('broken.ts'), 'export const x = ;');
  const right = await mgf(['gradcheck', at('mine.ts'), '--family', 'cpu', ...onDevice]);
  const wrong = await mgf(['gradcheck', at('wrong.ts'), '--family', 'cpu', ...onDevice]);
  assert.is(right.status, 0, right.err);
  assert.match(right.out, /^squared: right/);
  assert.is(wrong.status, 1);
  assert.match(wrong.out, /d x, .*: element .* is furthest off.*\(0\.500 times\)/);
  const looked = await mgf(['kernel', 'dev', at('mine.ts'), '--once', ...onDevice]);
  const complained = await mgf(['kernel', 'dev', at('wrong.ts'), '--once', ...onDevice]);
  assert.is(looked.status, 0, looked.err);
  assert.match(looked.out, /squared: right[^]*squared\.forward +[\d.]+[^]*squared\.backward\.x +[\d.]+/);
  assert.is(complained.status, 1);
  assert.match(complained.out, /squared: WRONG/);
  writeFileSync(
    at('mine.wgsl'),
    '// bench: grid 1\n// bench: size y=64\n@group(0) @binding(0) var<storage, read_write> y: ' +
      'array<vec4f>;\n@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {\n  ' +
      'var v = vec4f(0.0);\n  v.xy = vec2f(1.0);\n  y[i] = v;\n}',
  );
  assert.match(
    (await mgf(['kernel', 'dev', at('mine.wgsl'), '--once', ...onDevice])).out,
    /mine\.wgsl:6:5 Tint .*swizzle; naga .* refuses it\. Instead, .*\n {4}v\.xy = vec2f\(1\.0\);\n {6}\^\n.*not checked/,
  );
  assert.match(
    (await mgf(['gradcheck', at('broken.ts')])).err,
    /broken\.ts:1:18 .*\n.*export const x = ;\n +\^/,
  );

  const recorded = await mgf(['conformance', at('cases'), '--module', at('mine.ts'), '--record']);
  assert.is(recorded.status, 0, recorded.err);
  assert.ok(existsSync(at('cases/squared-odd-sizes.safetensors')), recorded.out);
  const [same, other] = await Promise.all(
    ['mine.ts', 'wrong.ts'].map((file) =>
      mgf(['conformance', at('cases'), '--module', at(file), ...onDevice]),
    ),
  );
  assert.match(same!.out, /\n5 passed, 0 failed/);
  assert.match(other!.out, /\n0 passed, 5 failed/);
  assert.match((await mgf(['conformance', at('cases'), ...onDevice])).out, /no op "squared"/);

  const trained = await mgf([
    'pretrain',
    at('data'),
    ...small,
    '--steps',
    '2',
    '--loss',
    at('mine.ts'),
    '--attach',
    '1',
    '--weight',
    '0.5',
    '--out',
    at('own'),
    ...onDevice,
  ]);
  assert.is(trained.status, 0, trained.err);
  assert.match(trained.out, /Loss {8}frame_mse on hidden state 1, weight 0\.5/);
  const lines = readFileSync(join(at('own'), 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((l) => JSON.parse(l) as Record<string, number>)
    .filter((l) => 'total' in l);
  for (const l of lines)
    assert.ok(
      Math.abs(l['frame']! + l['phoneme']! + 0.5 * l['sentence']! + 0.5 * l['frame_mse']! - l['total']!) <
        1e-4,
      JSON.stringify(l),
    );
  assert.match(
    complaint(await mgf(['pretrain', at('data'), '--resume', at('own'), '--steps', '3', ...onDevice])),
    /trains with the loss "frame_mse".*--loss/,
  );
  const resumed = await mgf([
    'pretrain',
    at('data'),
    '--resume',
    at('own'),
    '--steps',
    '3',
    '--loss',
    at('mine.ts'),
    ...onDevice,
  ]);
  assert.is(resumed.status, 0, resumed.err);
  const again = ['pretrain', '--resume', at('own'), '--steps', '4', '--loss', at('mine.ts'), '--attach', '1'];
  assert.match(
    complaint(await mgf([...again, '--weight', '0.7', ...onDevice])),
    /--weight is 0\.7 for "frame_mse", and the run has 0\.5/,
  );
  assert.is(
    (await mgf([...again, '--weight', '0.5', ...onDevice])).status,
    0,
    'its own values are no change',
  );
  assert.match(
    complaint(await mgf(['pretrain', at('data'), ...small, '--attach', '1'])),
    /--attach and --weight are for --loss/,
  );
});

test('a finished run is neither overwritten nor resumed without more to do', async () => {
  const again = await mgf(['pretrain', at('data'), ...small, '--out', at('run'), ...onDevice]);
  assert.match(complaint(again), `--resume ${at('run')}`);
  const done = await mgf(['pretrain', at('data'), '--resume', at('run'), ...onDevice]);
  assert.match(complaint(done), /already made all of its 2 steps/);
  const other = await mgf([
    'pretrain',
    at('data'),
    '--resume',
    at('run'),
    '--preset',
    'nano',
    '--steps',
    '9',
    ...onDevice,
  ]);
  assert.match(
    complaint(other),
    /run is one of nano-mel, and --preset names nano: .*made with another configuration: frontend is "mel" there and "conv" here/,
  );
});

test('a resumed run knows its recordings and takes its own options; others are refused with both values', async () => {
  cpSync(at('run'), at('kept'), { recursive: true });
  cpSync(at('data'), at('moved'), { recursive: true });
  const resumed = (...more: string[]): Promise<Ended> =>
    mgf(['pretrain', '--resume', at('kept'), ...more, ...onDevice]);
  // The run was made with settings of its own, so that its network is not quite that of the preset.
  const own = await resumed(...small, '--seed', '1', '--steps', '3');
  assert.is(own.status, 0, own.err);
  const config = await resumed('--config', join(at('kept'), 'config.json'), '--steps', '4');
  assert.is(config.status, 0, config.err);
  const record = JSON.parse(readFileSync(join(at('kept'), 'run.json'), 'utf8')) as {
    sittings: Array<{ data?: string; step: number }>;
  };
  assert.equal(
    record.sittings.map((s) => [s.step, s.data]),
    [
      [0, at('data')],
      [2, at('data')],
      [3, at('data')],
    ],
  );
  writeFileSync(at('other.json'), JSON.stringify({ preset: 'nano-mel', seed: 7 }));
  for (const [options, wanted] of [
    [['--seed', '2'], /seed is 1 there and 2 here/],
    [['--set', 'hidden_size=64'], /hidden_size is 32 there and 64 here/],
    [['--config', at('other.json')], /seed is 1 there and 7 here/],
    [['--preset', 'micro'], /one of nano-mel, and --preset names micro: .*conv_dim is/],
  ] as const)
    assert.match(complaint(await resumed(...options, '--steps', '9')), wanted);

  const rewrite = (data: string | undefined): void =>
    writeFileSync(
      join(at('kept'), 'run.json'),
      JSON.stringify({ ...record, sittings: record.sittings.map((s) => ({ ...s, data })) }),
    );
  rewrite(at('gone'));
  assert.match(
    complaint(await resumed('--steps', '9')),
    new RegExp(
      `learned from ${at('gone')}, which cannot be read any more .*pretrain DATA --resume ${at('kept')}`,
    ),
  );
  rewrite(undefined);
  assert.match(complaint(await resumed('--steps', '9')), /no record of the recordings/);
  rmSync(join(at('kept'), 'run.json'));
  assert.match(
    complaint(await resumed('--steps', '9')),
    new RegExp(`no record of the recordings .*pretrain DATA --resume ${at('kept')}`),
  );
  const named = await mgf(['pretrain', at('moved'), '--resume', at('kept'), '--steps', '5', ...onDevice]);
  assert.is(named.status, 0, named.err);
});

test('Ctrl-C saves and says how to go on, and the run can be resumed', async () => {
  const stopped = await mgf(
    ['pretrain', at('data'), '--resume', at('run'), '--steps', '100000', '--json', ...onDevice],
    {
      onError: (text, kill) => {
        if (/^step \d/m.test(text) && !text.includes('Stopping')) kill('SIGINT');
      },
    },
  );
  assert.is(stopped.status, 130, stopped.err);
  assert.match(stopped.err, new RegExp(`pretrain --resume ${at('run')}`));
  const steps = (JSON.parse(stopped.out) as { steps: number }).steps;
  assert.ok(steps > 2);
  assert.ok(readdirSync(at('run')).includes(`checkpoint-${String(steps).padStart(6, '0')}.safetensors`));
});

test('embed writes a vector per frame with its times, or one per recording', async () => {
  const clip = join(at('data'), 'clip-0.wav');
  const frames = await mgf([
    'embed',
    clip,
    '--checkpoint',
    at('run'),
    '--layer',
    'all',
    '--out',
    at('f.jsonl'),
    ...onDevice,
  ]);
  assert.is(frames.status, 0, frames.err);
  const lines = readFileSync(at('f.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map(
      (l) => JSON.parse(l) as { layer: number; frame: number; start: number; end: number; vector: number[] },
    );
  assert.is(lines.length, 3 * 49, '1 s is 49 frames, of 3 hidden states');
  assert.equal(
    [lines[1]!.frame, lines[1]!.start, lines[1]!.end, lines[1]!.vector.length],
    [1, 0.02, 0.045, 32],
  );
  const pooled = await mgf([
    'embed',
    at('data'),
    '--checkpoint',
    at('run'),
    '--pool',
    'mean',
    '--out',
    at('v.safetensors'),
    ...onDevice,
  ]);
  assert.match(pooled.err, /Left out 2 recordings/);
  const { tensors, metadata } = readSafetensors(readFileSync(at('v.safetensors')), { origin: 'v' });
  assert.is(tensors.size, 6, 'silence is embedded, with a warning');
  assert.equal(tensors.get('clip-0')!.shape, [32]);
  assert.is(metadata['hop_seconds'], '0.02');
  const upper = lines.filter((l) => l.layer === 2);
  const mean = upper.reduce((sum, l) => sum + l.vector[0]!, 0) / upper.length;
  assert.ok(
    Math.abs(mean - Number(tensors.get('clip-0')!.data[0])) < 1e-4,
    'alone and in a batch the features are the same',
  );
});

test(
  'a float recording with samples that are not finite is left out, or mended where that is asked for, ' +
    'and both are told',
  async () => {
    const samples = Float32Array.from(
      { length: 16000 },
      (_, i) => 0.3 * Math.sin(0.05 * i + 3 * Math.sin(i / 3000)),
    );
    samples[777] = NaN;
    mkdirSync(at('bad'), { recursive: true });
    writeFileSync(join(at('bad'), 'bad.wav'), wav([samples], { float: true, bits: 32 }));
    const embed = (...options: string[]) =>
      mgf([
        'embed',
        join(at('bad'), 'bad.wav'),
        '--pool',
        'mean',
        '--out',
        at('bad.npy'),
        ...options,
        ...onDevice,
      ]);
    const refused = await embed();
    assert.is(refused.status, 1);
    assert.match(
      refused.err,
      /none could be used; .*bad\.wav": it contains 1 sample that is not a finite number, the first at index 777 \(NaN\)/,
    );
    assert.not(existsSync(at('bad.npy')));
    const mended = await embed('--on-bad', 'zero');
    assert.is(mended.status, 0, mended.err);
    assert.match(
      mended.err,
      /Warning: ".*bad\.wav" contains 1 sample that is not a finite number, the first at index 777 \(NaN\): replaced by 0\./,
    );
    assert.ok(existsSync(at('bad.npy')));
  },
);

test('embed alone uses the model that comes with the program, and writes over nothing unasked', async () => {
  const clip = join(at('data'), 'clip-1.wav');
  const ended = await mgf(['embed', clip, ...onDevice]);
  assert.is(ended.status, 0, ended.err);
  const { shape, checkpoint } = JSON.parse(readFileSync(at('clip-1.npy.json'), 'utf8')) as {
    shape: number[];
    checkpoint: string;
  };
  assert.equal(shape, [49, 192]);
  assert.match(checkpoint, /models\/mgf-tiny\.safetensors$/);
  const again = await mgf(['embed', clip, ...onDevice]);
  assert.is(again.status, 2);
  assert.match(complaint(again), 'clip-1.npy exists; give `--out clip-1.npy`');
});

test('a layer that does not exist is refused', async () => {
  const ended = await mgf([
    'embed',
    join(at('data'), 'clip-0.wav'),
    '--checkpoint',
    at('run'),
    '--layer',
    '7',
    '--out',
    at('x.npy'),
  ]);
  assert.is(ended.status, 2);
  assert.match(complaint(ended), 'hidden states 0 to 2');
});

test.run();
