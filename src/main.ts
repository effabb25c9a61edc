#!/usr/bin/env node
/**
 * The command line: `mgf pretrain | embed | export | align | probe | finetune | predict | report | ablate |
 * gradcheck | kernel | inspect | info | conformance | quickstart | bench`. Exit status: 0 done, 1 failed, 2
 * wrong usage, 130 interrupted.
 */
import { Command, CommanderError } from 'commander';
import { MGFError } from './errors.ts';
import { adapterOption, jsonOption, print, programVersion, withGpu } from './cli/common.ts';
import { ablateCommand } from './cli/ablate.ts';
import { alignCommand } from './cli/align.ts';
import { benchCommand } from '../bench/command/bench.ts';
import { conformanceCommand } from './cli/conformance.ts';
import { embedCommand } from './cli/embed.ts';
import { exportCommand } from './cli/export.ts';
import { finetuneCommand } from './cli/finetune.ts';
import { gradcheckCommand } from './cli/gradcheck.ts';
import { collectInfo, formatInfo } from './cli/info.ts';
import { inspectCommand } from './cli/inspect.ts';
import { kernelCommand } from './cli/kernel.ts';
import { predictCommand } from './cli/predict.ts';
import { pretrainCommand } from './cli/pretrain.ts';
import { probeCommand } from './cli/probe.ts';
import { quickstartCommand } from './cli/quickstart.ts';
import { reportCommand } from './cli/report.ts';
import { showTuning } from './cli/tuning.ts';
import type { AdapterPreference } from './gpu/device.ts';

function infoCommand(): Command {
  return new Command('info')
    .summary('say which adapter, limits and kernels are used here, and what would be faster')
    .description(
      'Opens the adapter that the other commands would take; prints its limits and features, which ' +
        'kernel family runs on it and why, ' +
        'and what to install to be faster.',
    )
    .option('--tune', 'show what pretrain and bench measured here about variants of matrix products')
    .addOption(adapterOption())
    .addOption(jsonOption())
    .addHelpText('after', '\nExamples:\n  mgf info\n  mgf info --adapter lavapipe --json\n  mgf info --tune')
    .action(
      async ({ adapter, json, tune }: { adapter?: AdapterPreference; json?: boolean; tune?: boolean }) => {
        if (tune) return withGpu(adapter, (gpu) => showTuning(gpu, programVersion(), Boolean(json)));
        const info = await collectInfo(adapter ? { adapter } : {});
        print(json ? JSON.stringify(info, null, 2) : formatInfo(info));
      },
    );
}

function program(): Command {
  const mgf = new Command('mgf')
    .description('Pre-trains and runs MGF speech representations on WebGPU.')
    .version(programVersion())
    .usage('COMMAND [options]')
    .helpCommand(false)
    .addHelpText(
      'after',
      '\nStart with:\n  mgf quickstart               real speech, a small model, a report: under ten ' +
        'minutes\n' +
        '  mgf pretrain FOLDER --out runs/mine\n  mgf COMMAND --help           options and examples of ' +
        'a command',
    );
  for (const command of [
    quickstartCommand(),
    pretrainCommand(programVersion()),
    embedCommand(),
    exportCommand(),
    alignCommand(),
    probeCommand(),
    finetuneCommand(),
    predictCommand(),
    reportCommand(),
    infoCommand(),
    conformanceCommand(),
    ablateCommand(programVersion()),
    gradcheckCommand(),
    kernelCommand(),
    inspectCommand(),
    benchCommand(programVersion()),
  ])
    mgf.addCommand(command);
  for (const command of [mgf, ...mgf.commands]) {
    command.exitOverride().configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'mgf: ')),
    });
    command.showHelpAfterError(
      command === mgf
        ? '(mgf --help lists the commands)'
        : `(mgf ${command.name()} --help lists the options)`,
    );
  }
  return mgf;
}

async function main(): Promise<number> {
  // `mgf embed ... | head` ends when head does.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
  });
  const mgf = program();
  if (process.argv.length <= 2) {
    mgf.outputHelp();
    return 0;
  }
  try {
    await mgf.parseAsync();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof MGFError) {
      process.stderr.write(`mgf: ${error.message}\n`);
      return error.code === 'usage' ? 2 : 1;
    }
    // A mistake of ours: the stack is what a report of it needs.
    process.stderr.write(
      `mgf: unexpected failure, please report it:\n${(error as Error)?.stack ?? String(error)}\n`,
    );
    return 1;
  }
}

process.exitCode = await main();
