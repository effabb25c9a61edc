/** `mgf kernel dev FILE`: a loop of save, check, time. */
import { existsSync, watch, type FSWatcher } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';
import { Argument, Command, Option } from 'commander';
import { measureCeilings, ofCeiling, type Ceilings } from '../measure/ceilings.ts';
import { kernelFileNotes, timeKernelFile } from '../measure/kernel-file.ts';
import { timeSubject, type KernelTime } from '../measure/own-op.ts';
import { gradcheck } from '../custom/gradcheck.ts';
import { MGFError } from '../errors.ts';
import { adapterOption, formatTable, percent, print, withGpu } from './common.ts';
import { formatGradcheck, subjectsIn } from './gradcheck.ts';
import {
  addKernelOptions,
  KERNEL_OPTIONS,
  kernelSettings,
  loadKernelFile,
  howToCheck,
  readExpected,
  type KernelOptions,
} from './kernel-options.ts';
import { loadUserModule } from './user-module.ts';
import type { GradcheckSubject } from '../custom/gradcheck.ts';
import type { AdapterPreference, Gpu } from '../gpu/device.ts';

interface Options extends KernelOptions {
  once?: boolean;
  adapter?: AdapterPreference;
}

export function kernelCommand(): Command {
  const command = new Command('kernel')
    .summary('write a kernel or a loss: compile, check and time it at ' + 'every save')
    .description(
      'Watches a module with ops and losses, or a .wgsl file. At every save: what the compiler ' +
        'says, with file, line and caret; whether values and gradients are right (of a .wgsl file, where ' +
        'something says what they must be); how long each kernel takes, ' +
        "which part of this adapter's ceiling that is, and how it differs from the last save.",
    )
    .addArgument(new Argument('<what>', 'dev').choices(['dev']))
    .argument(
      '<file>',
      'TypeScript or JavaScript module, or a .wgsl file with "// bench:" lines (mgf bench --help)',
    )
    .addOption(new Option('--once', 'look once, without watching'));
  return addKernelOptions(command)
    .addOption(adapterOption())
    .addHelpText(
      'after',
      '\nExamples:\n  mgf kernel dev my-loss.ts\n  mgf kernel dev my-kernel.wgsl ' +
        '--once\n  mgf kernel dev my-kernel.wgsl --grid 4096 --expect expected.safetensors',
    )
    .action((_what: string, file: string, options: Options) => runDev(file, options));
}

/** Milliseconds after a save in which further ones belong to it: editors write more than once. */
const SETTLE = 50;

async function runDev(file: string, options: Options): Promise<void> {
  const { once, adapter } = options;
  if (!existsSync(file)) throw new MGFError('usage', `There is no file ${file}.`);
  const given = KERNEL_OPTIONS.find((name) => options[name] !== undefined);
  if (given && extname(file) !== '.wgsl')
    throw new MGFError(
      'usage',
      `--${given} is for a .wgsl file: a ` + `module says all that its kernels need.`,
    );
  // A wrong option ends the command; what is wrong in the file waits for the next save.
  kernelSettings(options);
  if (options.expect !== undefined) await readExpected(options.expect);
  await withGpu(adapter, async (gpu) => {
    const session = new Session(gpu, file, await measureCeilings(gpu), options);
    print(session.heading);
    const found = await session.look();
    if (once) {
      if (found === 'WRONG') process.exitCode = 1;
      return;
    }
    print('Watching; Ctrl-C ends.');
    await session.watch();
  });
}

/** What a look found. */
type Found = 'right' | 'WRONG' | 'not checked';

class Session {
  readonly #gpu: Gpu;
  readonly #file: string;
  readonly #ceilings: Ceilings;
  readonly #options: KernelOptions;
  #before = new Map<string, number>();
  #files: readonly string[];

  constructor(gpu: Gpu, file: string, ceilings: Ceilings, options: KernelOptions) {
    this.#gpu = gpu;
    this.#file = file;
    this.#ceilings = ceilings;
    this.#options = options;
    this.#files = [resolve(file)];
  }

  get heading(): string {
    const { gflops, gbps } = this.#ceilings;
    return (
      `${this.#gpu.profile.name}: ${gflops.toPrecision(3)} GFLOP/s of multiply-adds, ` +
      `${gbps.toPrecision(3)} GB/s copied`
    );
  }

  /** One look at the file as it is now. What is wrong with it is printed, never thrown. */
  async look(): Promise<Found> {
    const started = performance.now();
    try {
      const [found, why] = extname(this.#file) === '.wgsl' ? await this.#kernel() : await this.#module();
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      print(`${new Date().toTimeString().slice(0, 8)}  ${found}, ${seconds} s after the save${why}\n`);
      return found;
    } catch (error) {
      if (!(error instanceof MGFError)) throw error;
      print(`${error.message}\n`);
      return 'WRONG';
    }
  }

  /** What was found, and what it was held against. */
  async #kernel(): Promise<[Found, string]> {
    const { file, files } = await loadKernelFile(this.#file, this.#options);
    const { name, source, settings } = file;
    this.#files = files;
    const notes = kernelFileNotes(name, source, settings);
    const timed = await timeKernelFile(this.#gpu, file, { seconds: 0.5 });
    const { timing, bytes, flops, notFinite, against } = timed;
    this.#table([{ kernel: name, ms: timing.median, flops, bytes }]);
    if (notes.length > 0) print(notes.join('\n'));
    if (notFinite.length > 0) {
      print(`  not finite after a run: ${notFinite.join(', ')}`);
      return ['WRONG', ''];
    }
    return against === null ? ['not checked', ` (${howToCheck(this.#file)})`] : ['right', ` (by ${against})`];
  }

  async #module(): Promise<[Found, string]> {
    const { exports, files } = await loadUserModule(this.#file);
    this.#files = files;
    let right = true;
    for (const subject of subjectsIn(this.#file, exports)) {
      const result = await gradcheck(this.#gpu, subject, { families: [this.#gpu.profile.family] });
      print(formatGradcheck(result));
      right &&= result.passed;
      if (result.passed && isTimed(subject)) this.#table(await timeSubject(this.#gpu, subject));
    }
    return [right ? 'right' : 'WRONG', ''];
  }

  #table(times: readonly KernelTime[]): void {
    const rows = times.map(({ kernel, ms, flops, bytes }) => {
      const before = this.#before.get(kernel);
      this.#before.set(kernel, ms);
      return [
        kernel,
        ms.toPrecision(3),
        flops === null ? '-' : (flops / ms / 1e6).toPrecision(3),
        (bytes / ms / 1e6).toPrecision(3),
        percent(ofCeiling(this.#ceilings, flops ?? 0, bytes, ms)),
        before === undefined
          ? ''
          : `${ms < before ? '-' : '+'}${Math.abs((100 * (ms - before)) / before).toFixed(0)} %`,
      ];
    });
    print(
      formatTable(['kernel', 'ms', 'GFLOP/s', 'GB/s', 'of the ceiling', 'time, from the last save'], rows),
    );
  }

  /** Looks again whenever one of the files is saved, until the process is told to end. */
  async watch(): Promise<void> {
    const end = new AbortController();
    let wake = (): void => undefined;
    const stop = (): void => {
      end.abort();
      wake();
    };
    process.once('SIGINT', stop).once('SIGTERM', stop);
    while (!end.signal.aborted) {
      const watchers = watchFiles(this.#files, () => wake());
      await new Promise<void>((done) => {
        wake = done;
      });
      await new Promise((done) => {
        setTimeout(done, SETTLE);
      });
      for (const watcher of watchers) watcher.close();
      if (!end.signal.aborted) await this.look();
    }
  }
}

const isTimed = (
  subject: GradcheckSubject,
): subject is GradcheckSubject & Required<Pick<GradcheckSubject, 'timed'>> => subject.timed !== undefined;

/** By folder: many editors put a new file in the place of the old one. */
function watchFiles(files: readonly string[], changed: () => void): FSWatcher[] {
  return [...new Set(files.map((file) => dirname(file)))].map((folder) =>
    watch(folder, (_, name) => {
      if (name !== null && files.includes(resolve(folder, name))) changed();
    }),
  );
}
