/** Options of every command that reads recordings. */
import { InvalidArgumentError, Option } from 'commander';
import type { Channel } from '../audio/decode.ts';
import { readManifest, withUniqueIds, type Manifest, type ManifestOptions } from '../audio/manifest.ts';

function channel(text: string): Channel {
  if (text === 'left' || text === 'right' || text === 'mix') return text;
  if (/^\d+$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It must be left, right, mix or a number from 0 up.');
}

/** `--channel`. */
export const channelOption = () =>
  new Option(
    '--channel <which>',
    'channel of recordings that have several: left, right, a number from 0, or mix, the mean of all ' +
      '(default: mix; a column channel of the manifest goes before it)',
  ).argParser(channel);

/** `--skip-bad`. */
export const skipBadOption = () =>
  new Option('--skip-bad', 'leave out the broken lines of a manifest, instead of refusing it');

/** The options of a command that say how its list is read. */
export const listOptions = ({ channel: chosen, skipBad }: ManifestOptions): ManifestOptions => ({
  ...(chosen !== undefined && { channel: chosen }),
  ...(skipBad !== undefined && { skipBad }),
});

/** Several files, folders and lists as one, with ids that differ. */
export async function readManifests(specs: readonly string[], options: ManifestOptions): Promise<Manifest> {
  const manifests = await Promise.all(specs.map((spec) => readManifest(spec, listOptions(options))));
  return {
    items: withUniqueIds(manifests.flatMap((m) => m.items)),
    skipped: manifests.flatMap((m) => m.skipped),
  };
}
