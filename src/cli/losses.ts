/** `--loss`, `--attach` and `--weight`: losses that users bring to pretrain and ablate. */
import { Option } from 'commander';
import { MGFError } from '../errors.ts';
import { overrideRunConfig } from '../mgf/parse-config.ts';
import { collect, positive, words } from './common.ts';
import type { RunConfig } from '../mgf/config.ts';
import type { TrainingLoss } from '../mgf/extra-losses.ts';

export interface LossOptions {
  loss?: string[];
  attach?: string[];
  weight?: number[];
}

export const lossOption = (): Option =>
  new Option(
    '--loss <file>',
    'a loss of your own: a TypeScript or JavaScript module whose default export is a TrainingLoss; may ' +
      'be repeated',
  ).argParser(collect);
export const attachOption = (): Option =>
  new Option(
    '--attach <list>',
    'with --loss: the hidden state that each one reads, or z (default: the last)',
  ).argParser(words);
export const weightOption = (): Option =>
  new Option('--weight <list>', 'with --loss: what each one counts (default: 1)').argParser((text: string) =>
    words(text).map(positive),
  );

/**
 * The losses of `--loss` and the configuration that names them; a resumed run already does. Throws MGFError
 * 'usage' for a module that exports none.
 */
export async function withLosses(
  chosen: RunConfig,
  { loss: files = [], attach = [], weight = [] }: LossOptions,
  resumed = false,
): Promise<{ run: RunConfig; losses: TrainingLoss[] }> {
  if (files.length === 0 && (attach.length > 0 || weight.length > 0))
    throw new MGFError('usage', '--attach and --weight are for --loss.');
  for (const [name, list] of [
    ['--attach', attach],
    ['--weight', weight],
  ] as const) {
    if (list.length > files.length)
      throw new MGFError(
        'usage',
        `${name} has ${list.length} values for ${files.length === 1 ? 'one loss' : `${files.length} losses`}.`,
      );
  }
  if (files.length === 0) return { run: chosen, losses: [] };
  // The bundler is only loaded for those who bring something.
  const { loadUserModule } = await import('./user-module.ts');
  const losses = await Promise.all(
    files.map(async (file) => lossOf(file, (await loadUserModule(file)).exports)),
  );
  if (resumed) {
    assertKept(chosen, losses, { attach, weight });
    return { run: chosen, losses };
  }
  const { mgf } = chosen;
  const extra = Object.fromEntries(
    losses.map(({ name }, i) => {
      const at = attach[i];
      const layer = at === undefined ? mgf.num_hidden_layers : at === 'z' ? 'z' : Number(at);
      return [name, { weight: weight[i] ?? 1, attach: layer, start_step: 0 }];
    }),
  );
  return { run: overrideRunConfig(chosen, { extra_losses: extra }, { origin: '--loss' }), losses };
}

/**
 * Throws MGFError 'usage' where `--attach` or `--weight` is another value than a resumed run has, with both.
 */
function assertKept(
  { mgf }: RunConfig,
  losses: readonly TrainingLoss[],
  asked: Required<Omit<LossOptions, 'loss'>>,
): void {
  const { attach, weight } = asked;
  losses.forEach(({ name }, i) => {
    const own = mgf.extra_losses[name];
    const differing =
      own &&
      (
        [
          ['--attach', attach[i], own.attach],
          ['--weight', weight[i], own.weight],
        ] as const
      ).find(([, wanted, has]) => wanted !== undefined && String(wanted) !== String(has));
    if (!differing) return;
    const [option, wanted, has] = differing;
    throw new MGFError(
      'usage',
      `A resumed run keeps its losses as they are: ${option} is ${wanted} for "${name}", ` +
        `and the run has ${has}; leave ${option} out.`,
    );
  });
}

function lossOf(file: string, exports: Readonly<Record<string, unknown>>): TrainingLoss {
  const found = exports['default'] as Partial<TrainingLoss> | undefined;
  if (typeof found?.build !== 'function' || typeof found.name !== 'string') {
    throw new MGFError(
      'usage',
      `The default export of ${file} is no TrainingLoss; export default { name: 'my_loss', build: ({ ` +
        'state }) => ... } with a loss of shape [1].',
    );
  }
  return found as TrainingLoss;
}
