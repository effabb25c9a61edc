/** What the report holds while it grows, and the files that it becomes. */
import type { Ceilings } from '../../src/measure/ceilings.ts';
import type { Excluded, Result, ResultsFile } from '../suites/results.ts';
import type { Precision } from '../../src/gpu/device.ts';
import type { ConformanceLine, DeviceFacts, Message, VariantVerdict } from './messages.ts';
import type { Outcome } from './runner.ts';

/** The device under one set of toggles; `failure` where its process did not end well. */
export interface Probed {
  readonly label: string;
  readonly toggles: readonly string[];
  facts: DeviceFacts | null;
  failure: string | null;
}

interface Collected {
  readonly results: Result[];
  readonly refused: Excluded[];
  readonly leftOut: Excluded[];
}

const nothing = (): Collected => ({ results: [], refused: [], leftOut: [] });

/** Everything found so far. */
export class HostRecord {
  readonly date: string;
  readonly machine: string;
  /** What the system's own tool says of its GPUs; empty where there is none. */
  readonly driver: string;
  readonly versions: Record<string, string>;
  readonly probes: Probed[] = [];
  /** The toggles that the parts run with. */
  toggles: readonly string[] = [];
  adapter = 'no adapter';
  /** The adapter's name without versions of its driver, for names of files. */
  device = 'no adapter';
  ceilings: Ceilings | null = null;
  readonly variants: VariantVerdict[] = [];
  readonly conformance: ConformanceLine[] = [];
  readonly outcomes: Outcome[] = [];
  readonly found: Readonly<Record<Precision, Collected>> = { f32: nothing(), f16: nothing() };

  constructor(about: { date: string; machine: string; driver: string; versions: Record<string, string> }) {
    ({ date: this.date, machine: this.machine, driver: this.driver, versions: this.versions } = about);
  }

  /**
   * Takes in what a part of this precision said. What a part that is run again finds takes the place of what
   * it found before.
   */
  take(message: Message, precision: Precision): void {
    const { results, refused, leftOut } = this.found[precision];
    const put = <T extends { suite: string; name: string; engine: string }>(list: T[], item: T): void => {
      const at = list.findIndex(
        (x) => x.suite === item.suite && x.name === item.name && x.engine === item.engine,
      );
      if (at < 0) list.push(item);
      else list[at] = item;
    };
    if ('result' in message) put(results, message.result);
    else if ('refused' in message) put(refused, message.refused);
    else if ('leftOut' in message) put(leftOut, message.leftOut);
    else if ('version' in message) this.versions[message.version[0]] = message.version[1];
    else if ('ceilings' in message) this.ceilings = message.ceilings;
    else if ('variant' in message)
      this.variants.splice(
        0,
        this.variants.length,
        ...this.variants.filter((v) => v.variant !== message.variant.variant),
        message.variant,
      );
    else if ('conformance' in message) {
      const { file } = message.conformance;
      this.conformance.splice(
        0,
        this.conformance.length,
        ...this.conformance.filter((c) => c.file !== file || c.precision !== message.conformance.precision),
        message.conformance,
      );
    }
  }

  /** The results of one precision, as `mgf bench --from` and `--compare` read them. */
  resultsFile(precision: Precision): ResultsFile {
    const { results, refused, leftOut } = this.found[precision];
    const versions = {
      ...this.versions,
      precision,
      ...(this.toggles.length && { toggles: this.toggles.join(' ') }),
    };
    return {
      adapter: this.adapter,
      versions,
      date: this.date,
      machine: this.machine,
      results,
      refused,
      left_out: leftOut,
    };
  }
}
