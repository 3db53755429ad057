/**
 * The network device. Flat: without a guest, frames of the mock driver's through device, provider and back, what each costs in CPU time,
 * and how many that makes a second on one core; no network is behind it. Embedded: under stock Linux on a tap, against QEMU
 * (lib/net-embedded.ts).
 */
import type { Bench, Figures } from './lib/bench.js';
import { measureEmbedded } from './lib/net-embedded.js';
import { NetRig, type NetSample } from './lib/net-rig.js';
import { summarise } from './lib/stats.js';

const DEFAULT_RUNS = { flat: 11, embedded: 3 };
const DEFAULT_SECONDS = 6;
const FRAMES = 2 ** 18;
/** The least that an Ethernet carries, without its check sequence, and a full frame. */
const SIZES = { Small: 60, Full: 1514 } as const;

export const bench: Bench = {
  name: 'net',
  stage: 'flat+embedded',
  about:
    "frames; to reach: alone 500,000 a second each way on one core; under Linux at least QEMU's, at most its CPU time",
  async run({ runs, seconds = DEFAULT_SECONDS, stages, progress }) {
    const flat = stages.includes('flat') ? await measureFlat(runs ?? DEFAULT_RUNS.flat, progress) : {};
    if (!stages.includes('embedded')) return { metrics: flat, peers: {}, runs: runs ?? DEFAULT_RUNS.flat };
    const embedded = await measureEmbedded({ runs: runs ?? DEFAULT_RUNS.embedded, seconds, progress });
    const { metrics, peers } = embedded;
    return { metrics: { ...flat, ...metrics }, peers, runs: runs ?? DEFAULT_RUNS.embedded };
  },
};

async function measureFlat(runs: number, progress: (line: string) => void): Promise<Figures> {
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
  return metrics;
}

function figuresOf(name: string, samples: readonly NetSample[]): Figures {
  const each = (figure: (sample: NetSample) => number) => summarise(samples.map(figure));
  return {
    [`${name}CpuUs`]: each(({ cpuMs, frames }) => (cpuMs * 1000) / frames),
    [`${name}PerCpuSecond`]: each(({ cpuMs, frames }) => (frames / cpuMs) * 1000),
    [`${name}DriverUs`]: each(({ driverMs, frames }) => (driverMs * 1000) / frames),
  };
}
