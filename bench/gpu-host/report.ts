/**
 * Everything worth knowing about this engine on one GPU, in one run and a few files: see README.md beside
 * this file.
 *
 *   node gpu-host.js [--out FOLDER] [--minutes 9] [--adapter gpu|lavapipe|swiftshader|software] [--quick]
 *   [--parts REGEX] [--python python3] [--engines torch-cuda,...]
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, platform, totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { version } from '../../package.json';
import { TORCH_ENGINES, type TorchEngine } from '../peers/torch.ts';
import type { AdapterPreference } from '../../src/gpu/device.ts';
import type { DawnToggles } from '../../src/gpu/dawn.ts';
import { tell, type Message, type PartSettings } from './messages.ts';
import { FEATURE_TOGGLES, PARTS, runPart, type Part } from './parts.ts';
import { HostRecord, type Probed } from './record.ts';
import { recordFiles } from './files.ts';
import { runParts, runProcess, type Outcome, type PlannedPart } from './runner.ts';

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: 'gpu-host-report' },
    minutes: { type: 'string' },
    adapter: { type: 'string', default: 'gpu' },
    quick: { type: 'boolean', default: false },
    parts: { type: 'string', default: '' },
    python: { type: 'string', default: 'python3' },
    engines: { type: 'string', default: TORCH_ENGINES.filter((e) => e.startsWith('torch-cuda')).join() },
    golden: { type: 'string' },
    settings: { type: 'string' },
  },
});

/** Folder of conformance cases: packed beside this program, or where a checkout has them. */
function goldenFolder(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  return (
    [join(here, 'golden'), join(here, '..', '..', 'test', 'golden')].find((f) => existsSync(f)) ??
    join(here, 'golden')
  );
}

/** What the driver's own tool says, where there is one. */
function driverText(): string {
  const asked = spawnSync(
    'nvidia-smi',
    [
      '--query-gpu=name,driver_version,vbios_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit',
      '--format=csv',
    ],
    { encoding: 'utf8', timeout: 20_000 },
  );
  return asked.status === 0 ? asked.stdout.trim() : '';
}

/** What toggles can add that the engine can use. */
const USABLE = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];

/**
 * The smallest set of toggles that adds all that can be added and under which the device opened and every
 * small kernel was right.
 */
function chooseToggles(probes: readonly Probed[]): Probed | null {
  const good = probes.filter(
    (p) =>
      p.failure === null && p.facts && Object.values(p.facts.kernels).every((verdict) => verdict === 'right'),
  );
  const usable = (p: Probed): number => USABLE.filter((f) => p.facts!.features.includes(f)).length;
  return good.reduce<Probed | null>((best, p) => (!best || usable(p) > usable(best) ? p : best), null);
}

/** Seconds after its time that a part is given to end by itself. */
const GRACE = 15;

async function main(): Promise<void> {
  const quick = values.quick;
  const minutes = Number(values.minutes ?? (quick ? 3 : 9));
  const engines = values.engines.split(',').filter(Boolean) as TorchEngine[];
  const unknown = engines.find((e) => !TORCH_ENGINES.includes(e));
  if (!(minutes > 0) || unknown !== undefined)
    throw new Error(
      unknown === undefined
        ? '--minutes must be a number above 0'
        : `--engines: "${unknown}" is none of ${TORCH_ENGINES.join(', ')}`,
    );
  const wanted = new RegExp(values.parts);
  const started = Date.now();
  const deadline = started + 60_000 * minutes;
  const out = resolve(values.out);
  await mkdir(out, { recursive: true });
  const record = new HostRecord({
    date: new Date().toISOString(),
    driver: driverText(),
    versions: { mgf: version, node: process.versions.node },
    machine:
      `${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${availableParallelism()} threads, ` +
      `${(totalmem() / 2 ** 30).toFixed(0)} GiB, ${platform()}`,
  });
  const say = (line: string): void =>
    console.log(`[${((Date.now() - started) / 1000).toFixed(0).padStart(3)} s] ${line}`);
  const common = {
    adapter: values.adapter as AdapterPreference,
    quick,
    python: values.python,
    engines,
    golden: values.golden === undefined ? goldenFolder() : resolve(values.golden),
  };
  // Shares are of nine minutes; quick parts are short anyway.
  const share = (seconds: number): number => Math.max(10, (seconds * minutes) / 9);

  const start = (
    part: string,
    until: number,
    more: { toggles: DawnToggles; precision: PartSettings['precision'] },
    onMessage: (message: Message) => void,
  ): Promise<void> => {
    const settings: PartSettings = { ...common, ...more, part, until, ceilings: record.ceilings };
    return runProcess({
      args: ['--settings', JSON.stringify(settings)],
      killAt: Math.min(until, deadline) + 1000 * GRACE,
      onMessage: (m) => onMessage(m as unknown as Message),
    });
  };

  const probe = (label: string, toggles: readonly string[]): PlannedPart => ({
    name: `features, toggles: ${label}`,
    seconds: 30,
    async run(until) {
      const probed: Probed = { label, toggles, facts: null, failure: null };
      record.probes.push(probed);
      try {
        await start('probe', until, { toggles: { enable: toggles }, precision: 'f32' }, (m) => {
          if ('device' in m) probed.facts = m.device;
        });
      } catch (error) {
        probed.failure = (error as Error).message;
        throw error;
      } finally {
        const chosen = chooseToggles(record.probes);
        if (chosen) {
          record.toggles = chosen.toggles;
          record.adapter = chosen.facts!.adapter;
          record.device = String(chosen.facts!.info['device'] || chosen.facts!.adapter);
          record.versions['webgpu'] = chosen.facts!.runtime;
        }
      }
    },
  });

  const planned = (part: Part): PlannedPart => ({
    name: part.name,
    seconds: share(part.seconds),
    skip() {
      const chosen = chooseToggles(record.probes);
      if (!chosen) return 'no device opened';
      return part.precision === 'f16' && !chosen.facts!.features.includes('shader-f16')
        ? 'the adapter offers no shader-f16'
        : null;
    },
    async run(until) {
      const attempt = (enable: readonly string[]): Promise<void> =>
        start(
          part.name,
          until,
          {
            toggles: {
              enable: [...enable, ...(part.toggles?.enable ?? [])],
              disable: part.toggles?.disable ?? [],
            },
            precision: part.precision,
          },
          (message) => {
            if ('progress' in message) say(`  ${message.progress}`);
            record.take(message, part.precision);
          },
        );
      try {
        await attempt(record.toggles);
      } catch (error) {
        // Where toggles that unlock features may be to blame, the part is run again without them.
        if (record.toggles.length === 0 || part.precision === 'f16' || Date.now() > until) throw error;
        say(`  ${(error as Error).message}; again without toggles`);
        const [second] = await Promise.allSettled([attempt([])]);
        const then =
          second.status === 'rejected'
            ? (second.reason as Error).message
            : 'it ended well, and those results stand';
        throw new Error(`${(error as Error).message}; without toggles: ${then}`, { cause: error });
      }
    },
  });

  let written: string[] = [];
  const write = async (): Promise<void> => {
    const files = recordFiles(record);
    for (const [name, text] of Object.entries(files)) {
      // Renamed into place: whoever ends this program must not find half a file.
      await writeFile(join(out, `${name}.part`), text);
      await rename(join(out, `${name}.part`), join(out, name));
    }
    for (const name of written) if (!(name in files)) await rm(join(out, name), { force: true });
    written = Object.keys(files);
  };
  const after = async (outcome: Outcome): Promise<void> => {
    record.outcomes.push(outcome);
    say(
      `${outcome.part}: ` +
        `${outcome.status}${outcome.status === 'left out' ? '' : ` in ${outcome.seconds.toFixed(1)} s`}${outcome.reason ? `: ${outcome.reason}` : ''}`,
    );
    await write().catch((error: unknown) => say(`cannot write the report: ${(error as Error).message}`));
  };

  say(`${minutes} minutes${quick ? ', quick' : ''}; writing to ${out}`);
  await runParts(
    [
      ...Object.entries(FEATURE_TOGGLES).map(([label, toggles]) => probe(label, toggles)),
      ...PARTS.filter(({ name }) => wanted.test(name)).map(planned),
    ],
    deadline,
    after,
  );
  await write();
  say(
    `report: ${(await readdir(out))
      .filter((name) => written.includes(name))
      .map((name) => join(out, name))
      .join(', ')}`,
  );
}

if (values.settings === undefined) {
  await main();
} else {
  await runPart(JSON.parse(values.settings) as PartSettings).then(
    () => tell({ done: true }),
    (error: unknown) => {
      tell({ progress: `failed: ${(error as Error).message}` });
      process.stderr.write(`${(error as Error).message.split('\n')[0]!}\n`);
      process.exitCode = 1;
    },
  );
}
