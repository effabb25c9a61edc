import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { transform } from 'esbuild';
import { suite, test } from 'uvu';
import * as assert from 'uvu/assert';
import { builders } from '../src/conformance/run.ts';
import { elements } from '../src/graph/shape.ts';
import { MGF_DEFAULTS, SCALES, TRAIN_DEFAULTS } from '../src/mgf/config.ts';
import { MGF_FIELDS, TRAIN_FIELDS } from '../src/mgf/config-schema.ts';
import { parseRunConfig, PRESET_NAMES, presetRunConfig } from '../src/mgf/presets.ts';
import { mgfParameters } from '../src/mgf/weights.ts';
import { wav } from './audio-wav.ts';
import { testAdapter } from './gpu.ts';

const dist = join(dirname(fileURLToPath(import.meta.url)), '..');
const mgf = join(dist, 'mgf.js');
const root = join(dist, '..');
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'THIRD_PARTY.md',
  'kernels/README.md',
  ...(await readdir(join(root, 'docs')))
    .filter((f) => f.endsWith('.md'))
    .sort()
    .map((f) => `docs/${f}`),
];
const text = new Map(
  await Promise.all(pages.map(async (page) => [page, await readFile(join(root, page), 'utf8')] as const)),
);

interface Block {
  page: string;
  line: number;
  language: string;
  code: string;
}

const blocks: Block[] = [...text].flatMap(([page, source]) => {
  const found: Block[] = [];
  const lines = source.split('\n');
  for (let i = 0; i < lines.length; i++) {
    const open = /^```(\w*)/.exec(lines[i]!);
    if (!open) continue;
    const end = lines.indexOf('```', i + 1);
    found.push({ page, line: i + 1, language: open[1]!, code: lines.slice(i + 1, end).join('\n') });
    i = end;
  }
  return found;
});
const where = (b: Block) => `${b.page}:${b.line}`;

const execute = promisify(execFile);
const helpTexts = new Map<string, Promise<string>>();
const help = (command: string): Promise<string> => {
  let found = helpTexts.get(command);
  if (!found)
    helpTexts.set(
      command,
      (found = execute(process.execPath, [mgf, ...(command ? [command] : []), '--help']).then(
        ({ stdout }) => stdout,
      )),
    );
  return found;
};
const optionsIn = (source: string) => new Set(source.match(/(?<![\w-])--[a-z][a-z-]*/g) ?? []);
const COMMANDS = [
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
];

// ----------------------------------------------------------------------------------------- TypeScript blocks

const examples = suite('examples');
let folder = '';

examples.before(async () => {
  // Below the checkout, so that `mgf-webgpu` is this package.
  folder = await mkdtemp(join(dist, 'docs-'));
  await mkdir(join(folder, 'recordings'));
  for (let n = 0; n < 6; n++) {
    const samples = Float64Array.from(
      { length: 3 * 16000 },
      (_, i) => 0.3 * Math.sin(0.02 * (n + 1) * i + 3 * Math.sin(i / 2000)) + 0.1 * Math.sin(i * i),
    );
    await writeFile(join(folder, 'recordings', `clip${n}.wav`), wav([samples]));
  }
});
examples.after(() => rm(folder, { recursive: true, force: true }));

async function runExample(block: Block): Promise<void> {
  const prefer = testAdapter();
  const code = prefer
    ? block.code
        .replaceAll('openGpu()', `openGpu({ prefer: '${prefer}' })`)
        .replaceAll('MGF.load()', `MGF.load(undefined, { adapter: '${prefer}' })`)
    : block.code;
  const file = join(folder, `${where(block).replace(/\W+/g, '-')}.mjs`);
  await writeFile(file, (await transform(code, { loader: 'ts', format: 'esm', target: 'es2022' })).code);
  await new Promise<void>((done, fail) => {
    const child = spawn(process.execPath, [file], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (part: string) => {
        output += part;
      });
    child
      .on('error', fail)
      .on('close', (status) =>
        status === 0 ? done() : fail(new Error(`${where(block)} ended with ${status}:\n${output}`)),
      );
  });
}

examples('the examples are sound TypeScript', async () => {
  const sources = join(folder, 'types');
  await mkdir(sources);
  for (const block of blocks.filter((b) => b.language === 'ts'))
    await writeFile(join(sources, `${where(block).replace(/\W+/g, '-')}.ts`), block.code);
  await writeFile(
    join(sources, 'tsconfig.json'),
    JSON.stringify({
      extends: join(root, 'tsconfig.json'),
      compilerOptions: { paths: { 'mgf-webgpu': [join(root, 'src', 'node.ts')] } },
      include: ['*.ts', join(root, 'kernels', 'wgsl.d.ts')],
    }),
  );
  await execute(process.execPath, [
    join(root, 'node_modules', 'typescript', 'bin', 'tsc'),
    '--project',
    sources,
  ]).catch((error: { stdout?: string }) => {
    throw new Error(error.stdout);
  });
});

for (const block of blocks.filter((b) => b.language === 'ts'))
  examples(`the example at ${where(block)} runs`, () => runExample(block));
examples.run();

// ------------------------------------------------------------------------------------- commands, JSON, links

test(
  'every fenced block is TypeScript that runs, a command that is checked, or JSON that is parsed; plain ' +
    'fences hold output',
  () => {
    assert.equal(
      blocks.filter((b) => !['ts', 'bash', 'json', 'wgsl', ''].includes(b.language)).map(where),
      [],
    );
    assert.ok(blocks.filter((b) => b.language === 'ts').length >= 5);
  },
);

test('every command in the documents exists, with every option', async () => {
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const problems: string[] = [];
  for (const block of blocks.filter((b) => b.language === 'bash')) {
    for (const line of block.code
      .replaceAll('\\\n', ' ')
      .split('\n')
      .flatMap((l) => l.replace(/\s#.*$/, '').split('&&'))
      .map((l) => l.trim())
      .filter(Boolean)) {
      const own =
        /^(?:npx mgf|mgf|node dist\/mgf\.js|npm run (?:quickstart|conformance|bench) --)\s+(.*)$/.exec(line);
      const script = /^npm (?:run ([\w:]+)|test)/.exec(line);
      if (script && !scripts[script[1] ?? 'test'])
        problems.push(`${where(block)}: no npm script in "${line}"`);
      if (!own) {
        if (
          !script &&
          !/^(npm (ci|install)|apt-get|sudo apt-get|tensorboard|git clone|cd|node test\/run\.mjs|node build\.mjs|\.ci\/)/.test(
            line,
          )
        )
          problems.push(`${where(block)}: nothing checks "${line}"`);
        continue;
      }
      const named = /^npm run (\w+)/.exec(line)?.[1];
      const command = named ?? own[1]!.split(/\s+/)[0]!;
      if (!COMMANDS.includes(command)) problems.push(`${where(block)}: no command "${command}"`);
      else
        for (const option of optionsIn(own[1]!))
          if (!optionsIn(await help(command)).has(option))
            problems.push(`${where(block)}: mgf ${command} has no ${option}`);
    }
  }
  assert.equal(problems, []);
});

test('docs/cli.md tells of every command and every option', async () => {
  // Told of, not merely used in an example.
  const sections = new Map(
    text
      .get('docs/cli.md')!
      .replace(/^```[^]*?^```/gm, '')
      .split(/^## /m)
      .slice(1)
      .map((s) => [/^`mgf (\w+)`/.exec(s)?.[1] ?? '', s]),
  );
  const all = [...(await help('')).matchAll(/^ {2}(\w+) \[options\]/gm)].map((m) => m[1]!);
  assert.equal(all.sort(), [...COMMANDS].sort());
  for (const command of all) {
    const missing = [...optionsIn(await help(command))].filter(
      (o) => o !== '--help' && !optionsIn(sections.get(command) ?? '').has(o),
    );
    assert.equal(missing, [], `options of ${command} that docs/cli.md leaves out`);
  }
});

test('configurations in the documents are accepted', () => {
  for (const block of blocks.filter((b) => b.language === 'json'))
    parseRunConfig(block.code, { origin: where(block), preset: 'tiny' });
});

test('the README is short: under 200 lines, and its samples have at most 20', () => {
  assert.ok(text.get('README.md')!.split('\n').length < 200);
  const samples = blocks.filter((b) => b.page === 'README.md' && b.language === 'ts');
  assert.is(samples.length, 3);
  assert.equal(samples.filter((b) => b.code.split('\n').length > 20).map(where), []);
});

test('the index names every document', () => {
  const linked = [...text.get('docs/README.md')!.matchAll(/^\| \[[^\]]+\]\(([^)]+)\)/gm)].map((m) => m[1]!);
  const listed = linked.map((link) => join('docs', link));
  const unlisted = pages.filter((page) => !['README.md', 'docs/README.md'].includes(page));
  assert.equal(
    unlisted.filter((page) => !listed.includes(page)),
    [],
  );
});

test('links between the documents lead somewhere', () => {
  const broken = [...text].flatMap(([page, source]) =>
    [...source.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
      .map((m) => m[1]!)
      .filter((link) => !/^https?:/.test(link) && !existsSync(resolve(root, dirname(page), link)))
      .map((link) => `${page}: ${link}`),
  );
  assert.equal(broken, []);
});

test('links of the package lead to files that are in it', async () => {
  const { stdout } = await execute('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root });
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
  const packed = files.map(({ path }) => path);
  const leads = (target: string): boolean =>
    packed.some((file) => file === target || file.startsWith(`${target.replace(/\/$/, '')}/`));
  const broken: string[] = [];
  for (const page of packed.filter((file) => file.endsWith('.md'))) {
    const prose = (await readFile(join(root, page), 'utf8')).replace(/```[^]*?```/g, '');
    for (const [, link] of prose.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (!/^https?:/.test(link!) && !leads(join(dirname(page), link!))) broken.push(`${page}: ${link}`);
    }
  }
  assert.equal(broken, []);
});

// ------------------------------------------------------------------------------- tables that follow the code

const rows = (source: string): string[][] =>
  source
    .split('\n')
    .filter((l) => l.startsWith('|'))
    .map((l) =>
      l
        .split('|')
        .slice(1, -1)
        .map((c) => c.trim()),
    );

test('kernels/README.md lists every kernel', async () => {
  const listed = [...text.get('kernels/README.md')!.matchAll(/^\| \[`([\w/]+\.wgsl)`\]/gm)]
    .map((m) => m[1]!)
    .sort();
  const there = (await readdir(join(root, 'kernels'), { recursive: true }))
    .filter((f) => f.endsWith('.wgsl'))
    .sort();
  assert.equal(listed, there);
});

test('the table of fields in docs/training.md names every field of the configuration with its default', () => {
  const section = /^## Configuration\n([^]*?)^## /m.exec(text.get('docs/training.md')!)![1]!;
  const named = new Map(
    rows(section)
      .filter(([field]) => /^`[a-z_.]+`$/.test(field!))
      .map(([field, value]) => [field!.replaceAll('`', ''), value!]),
  );
  const leaves = [...MGF_FIELDS, ...TRAIN_FIELDS].filter(
    (f, _, all) => !all.some((other) => other.startsWith(`${f}.`)),
  );
  assert.equal([...named.keys()].sort(), [...leaves].sort());
  const defaults: Record<string, unknown> = { ...MGF_DEFAULTS, ...TRAIN_DEFAULTS };
  for (const [field, value] of named) {
    const wanted = field
      .split('.')
      .reduce<unknown>((x, part) => (x as Record<string, unknown> | undefined)?.[part], defaults);
    // What has no default of its own comes with the preset.
    assert.is(value, wanted === undefined ? 'preset' : `\`${JSON.stringify(wanted)}\``, field);
  }
});

test('the table of presets in docs/mgf.md agrees with the code', () => {
  const listed = rows(text.get('docs/mgf.md')!).filter(([name]) =>
    PRESET_NAMES.includes(name!.replaceAll('`', '')),
  );
  const wanted = PRESET_NAMES.map((name) => {
    const { mgf: c, train: t } = presetRunConfig(name);
    const scales = SCALES.filter((s) => c.loss_weights[s] > 0);
    const count = mgfParameters(c, scales)
      .flatMap((p) => p.parts)
      .reduce((sum, p) => sum + elements(p.shape), 0);
    return [
      `\`${name}\``,
      c.conv_dim.at(-1),
      c.hidden_size,
      c.num_hidden_layers,
      c.num_attention_heads,
      c.intermediate_size,
      `${c.conv_pos_depth} x k${c.num_conv_pos_embeddings} g${c.num_conv_pos_embedding_groups}`,
      c.proj_dim,
      count.toLocaleString('en-US'),
      `${t.accumulation > 1 ? `${t.accumulation} x ` : ''}${t.utterances_per_batch} x 2 x ${t.crop_seconds} s`,
      t.learning_rate,
      t.steps.toLocaleString('en-US'),
    ].map(String);
  });
  assert.equal(listed, wanted);
});

test('docs/training.md explains every alarm', async () => {
  const source = await readFile(join(root, 'src', 'mgf', 'health.ts'), 'utf8');
  const kinds = [.../AlarmKind =([^;]+);/.exec(source)![1]!.matchAll(/'([\w-]+)'/g)].map((m) => m[1]!);
  assert.ok(kinds.length > 3);
  const told = rows(text.get('docs/training.md')!).map(([first]) => first!.replaceAll('`', ''));
  assert.equal(
    kinds.filter((k) => !told.includes(k)),
    [],
  );
});

test('docs/conformance.md lists every op that the runner knows', () => {
  const told = rows(text.get('docs/conformance.md')!).flatMap(([first]) =>
    [...first!.matchAll(/`(\w+)`/g)].map((m) => m[1]!),
  );
  assert.equal(
    [...Object.keys(builders), 'mgf_model'].filter((op) => !told.includes(op)),
    [],
  );
});

test(
  'THIRD_PARTY.md names every package that an installation brings, with the licence that the lock file ' +
    'has for it',
  async () => {
    const { packages } = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8')) as {
      packages: Record<
        string,
        { license?: string; dev?: boolean; devOptional?: boolean; optional?: boolean; link?: boolean }
      >;
    };
    const source = text.get('THIRD_PARTY.md')!;
    const missing = Object.entries(packages)
      .filter(
        ([path, p]) => path.includes('node_modules/') && !p.link && !p.dev && !p.devOptional && !p.optional,
      )
      .map(([path, p]) => [path.replace(/.*node_modules\//, ''), p.license ?? ''] as const)
      .filter(
        ([name, licence]) =>
          !source.split('\n').some((line) => line.includes(`\`${name}\``) && line.includes(licence)),
      );
    assert.equal(missing, []);
  },
);

test.run();
