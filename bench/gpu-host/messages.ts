/**
 * What the process of a part tells the report: lines of JSON on standard output, written at once, so that a
 * crash loses nothing that was said before it.
 */
import type { Ceilings } from '../../src/measure/ceilings.ts';
import { Findings } from '../suites/suites.ts';
import type { Excluded, Result } from '../suites/results.ts';
import type { TorchEngine } from '../peers/torch.ts';
import type { AdapterPreference, Precision } from '../../src/gpu/device.ts';
import type { DawnToggles } from '../../src/gpu/dawn.ts';

/** What a part is to do, handed to its process as JSON. */
export interface PartSettings {
  readonly part: string;
  readonly adapter: AdapterPreference;
  readonly toggles: DawnToggles;
  readonly precision: Precision;
  /** Small sizes, few repetitions: shows that everything runs, measures nothing worth keeping. */
  readonly quick: boolean;
  /** Of this adapter; measured again where null. */
  readonly ceilings: Ceilings | null;
  /** When it should be done, milliseconds since 1970. */
  readonly until: number;
  readonly python: string;
  readonly engines: readonly TorchEngine[];
  /** Folder of conformance cases. */
  readonly golden: string;
}

/** Of the device under one set of toggles. */
export interface DeviceFacts {
  readonly adapter: string;
  readonly runtime: string;
  readonly info: Readonly<Record<string, unknown>>;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  readonly language: readonly string[];
  /** What small kernels gave: 'right', or what was wrong. */
  readonly kernels: Readonly<Record<string, string>>;
}

export interface VariantVerdict {
  readonly variant: string;
  readonly precision: Precision;
  readonly verdict: 'passed' | 'rejected' | 'not offered';
  readonly reason?: string;
}

export interface ConformanceLine {
  readonly precision: Precision;
  readonly file: string;
  readonly op: string;
  readonly passed: boolean;
  readonly error: number | null;
  readonly failure?: string;
}

export type Message =
  | { readonly progress: string }
  /** All that it had to do is done; what becomes of its process then is of no interest. */
  | { readonly done: true }
  | { readonly result: Result }
  | { readonly refused: Excluded }
  | { readonly leftOut: Excluded }
  | { readonly version: readonly [name: string, version: string] }
  | { readonly device: DeviceFacts }
  | { readonly ceilings: Ceilings }
  | { readonly variant: VariantVerdict }
  | { readonly conformance: ConformanceLine };

export const tell = (message: Message): void => {
  process.stdout.write(`${JSON.stringify(message)}\n`);
};

function announced<T>(message: (item: T) => Message): T[] {
  const list: T[] = [];
  list.push = (...items: T[]): number => {
    for (const item of items) tell(message(item));
    return Array.prototype.push.apply(list, items);
  };
  return list;
}

/** Findings that are told as they come. */
export class ToldFindings extends Findings {
  override readonly results = announced<Result>((result) => ({ result }));
  override readonly refused = announced<Excluded>((refused) => ({ refused }));
  override readonly leftOut = announced<Excluded>((leftOut) => ({ leftOut }));
}
