/** The page: sections share the list of sounds and the device, and know nothing of each other. */
import { Analysis } from './analysis.ts';
import { benchmarkSection } from './benchmark.ts';
import { Clips } from './clips.ts';
import { DeviceHost } from './device.ts';
import { hearsSection } from './hears.ts';
import { soundsSection } from './sounds.ts';
import { trainingSection } from './training.ts';
import { voicesSection } from './voices.ts';

const clips = new Clips();
const host = new DeviceHost();
soundsSection(clips);
hearsSection(clips);
voicesSection(clips);
trainingSection(clips, host);
benchmarkSection(host);
new Analysis(clips, host).start();
await host.open();
