/**
 * The network device without a guest: frames of the mock driver's through device, provider and back, what each costs in CPU time, and
 * how many that makes a second on one core. No network is behind it.
 */
import type { Bench, Figures } from './lib/bench.js';
import { NetRig, type NetSample } from './lib/net-rig.js';
import { summarise } from './lib/stats.js';

const DEFAULT_RUNS = 11;
const FRAMES = 2 ** 18;
/** The least that an Ethernet carries, without its check sequence, and a full frame. */
const SIZES = { Small: 60, Full: 1514 } as const;

export const bench: Bench = {
  name: 'net',
  stage: 'flat',
  about: 'frames through the device model alone; to reach: 500,000 a second in each direction on one core',
  async run({ runs = DEFAULT_RUNS, progress }) {
    const metrics: Record<string, Figures[string]> = {};
    for (const [size, bytes] of Object.entries(SIZES)) {
      const rig = await NetRig.open(bytes);
      try {
        for (const direction of ['send', 'receive'] as const) {
          const samples: NetSample[] = [];
          for (let round = -1; round < runs; round++) {
            const sample = rig[direction](FRAMES);
            // One round that is not counted: code is compiled.
            if (round >= 0) samples.push(sample);
          }
          Object.assign(metrics, figuresOf(`${direction}${size}`, samples));
          progress(`${direction}, ${bytes} bytes: done`);
        }
      } finally {
        await rig.close();
      }
    }
    return { metrics, peers: {}, runs };
  },
};

function figuresOf(name: string, samples: readonly NetSample[]): Figures {
  const each = (figure: (sample: NetSample) => number) => summarise(samples.map(figure));
  return {
    [`${name}CpuUs`]: each(({ cpuMs, frames }) => (cpuMs * 1000) / frames),
    [`${name}PerCpuSecond`]: each(({ cpuMs, frames }) => (frames / cpuMs) * 1000),
    [`${name}DriverUs`]: each(({ driverMs, frames }) => (driverMs * 1000) / frames),
  };
}
