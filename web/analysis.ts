/**
 * Computes what the network makes of every clip, one after the other, the chosen one first, and again on a
 * new device if the old one goes.
 */
import { MGF } from '../src/app/mgf.ts';
import { fetchBytes, readNetwork } from '../src/app/read.ts';
import { MGFError } from '../src/errors.ts';
import type { Gpu } from '../src/gpu/device.ts';
import { Reconstructor } from '../src/mgf/reconstruction.ts';
import type { Clip, Clips } from './clips.ts';
import type { DeviceHost } from './device.ts';
import { breath, Status } from './dom.ts';

const MODEL = 'mgf-tiny.safetensors';

interface Networks {
  gpu: Gpu;
  mgf: MGF;
  reconstructor: Reconstructor;
  used: boolean;
}

export class Analysis {
  readonly #clips: Clips;
  readonly #host: DeviceHost;
  readonly #status = new Status('hears-status');
  #bytes: Uint8Array | null = null;
  #networks: Networks | null = null;
  #running = false;

  constructor(clips: Clips, host: DeviceHost) {
    this.#clips = clips;
    this.#host = host;
  }

  start(): void {
    this.#clips.onChange(() => void this.#run());
    this.#host.onChange((gpu) => {
      if (gpu) void this.#run();
      else this.#networks = null;
    });
  }

  /** What is to be done next, most wanted first. */
  #next(): { clip: Clip; what: 'features' | 'rebuilt' } | null {
    const { list, chosen } = this.#clips;
    const open = (c: Clip): boolean => c.error === undefined;
    if (chosen && open(chosen) && !chosen.features) return { clip: chosen, what: 'features' };
    if (chosen && open(chosen) && !chosen.rebuilt) return { clip: chosen, what: 'rebuilt' };
    const clip = list.find((c) => open(c) && !c.features);
    return clip ? { clip, what: 'features' } : null;
  }

  async #run(): Promise<void> {
    if (this.#running || this.#host.state === 'missing') return;
    this.#running = true;
    try {
      for (let next = this.#next(); next; next = this.#next()) {
        const { clip, what } = next;
        const gpu = await this.#host.ready();
        try {
          const networks = await this.#open(gpu);
          const left = this.#clips.list.filter((c) => !c.features && c.error === undefined).length;
          const first = networks.used ? '' : ' Kernels are compiled for this device first.';
          this.#status.busy(
            what === 'features'
              ? `Listening to ${clip.name}${left > 1 ? `, ${left} sounds left` : ''}.${first}`
              : `Rebuilding ${clip.name}.${first}`,
          );
          if (what === 'features') clip.features = await networks.mgf.embed(clip.wave);
          else clip.rebuilt = await networks.reconstructor.rebuild(clip.wave);
          networks.used = true;
        } catch (error) {
          // The same is tried again on the next device; anything else is the clip's own trouble.
          if (!this.#host.current(gpu) || (error instanceof MGFError && error.code === 'device-lost')) {
            this.#status.busy('Waiting for a new device.');
            await gpu.lost;
            await breath();
            continue;
          }
          if (!this.#bytes) {
            this.#status.fail(error);
            return;
          }
          clip.error = error;
        }
        const failed = this.#clips.chosen?.error;
        if (failed === undefined) this.#status.say(this.#next() ? 'Listening.' : this.#summary());
        else this.#status.fail(failed);
        this.#clips.changed();
        await breath();
      }
    } finally {
      this.#running = false;
    }
  }

  #summary(): string {
    const { list } = this.#clips;
    const done = list.filter((c) => c.features).length;
    return done === 0 ? '' : `${done === 1 ? 'One sound' : `${done} sounds`} heard.`;
  }

  async #open(gpu: Gpu): Promise<Networks> {
    if (this.#networks?.gpu === gpu) return this.#networks;
    if (!this.#bytes) {
      this.#status.busy('Fetching the network, 5 MB.');
      this.#bytes = await fetchBytes(MODEL, {});
    }
    // Kept as bytes, so that a new device is served without the net.
    const mgf = await MGF.load(this.#bytes, { gpu });
    this.#networks = {
      gpu,
      mgf,
      reconstructor: new Reconstructor(gpu, mgf.config, readNetwork(this.#bytes, MODEL).parameters),
      used: false,
    };
    return this.#networks;
  }
}
