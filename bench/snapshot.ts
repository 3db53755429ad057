/**
 * What a snapshot costs: the stop of `instant` as memory grows, the guest's speed meanwhile and its worst write; the stop of
 * `live` while the guest dirties 100 MiB/s; and the rate of memory that does not get smaller, against the same bytes written
 * and synced by one thread in the same place. Embedded: a fresh Linux guest in each mode, and restored, against QEMU
 * (lib/save-embedded.ts).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { randomFillSync } from 'node:crypto';
import type { Machine, SnapshotOptions, SnapshotStats } from '#lib/machine/index.js';
import type { Bench, Figures } from './lib/bench.js';
import { pace, pacedMachine, rateOver, setCycles, written } from './lib/paced-guest.js';
import { rawWriteMs } from './lib/raw-file.js';
import { Samples } from './lib/samples.js';
import { measureSavesEmbedded } from './lib/save-embedded.js';

const MIB = 2 ** 20;
const DEFAULT_RUNS = 5;
/** Of a machine of 4 GiB as much is filled as of one of 1 GiB; all of it is protected. */
const SIZES_MIB = [128, 1024, 4096];
const FILLED_MIB = 1024;
const WINDOW_BYTES = 64 * MIB;
const DIRTIED_PER_SECOND = 100 * MIB;
const RATE_MIB = 512;

export const bench: Bench = {
  name: 'snapshot',
  stage: 'flat+embedded',
  about:
    "stops of instant (at most 10 ms at 1 GiB) and live (20 ms), time of a save against raw writes (1.25) and QEMU's (0.5)",
  async run({ runs = DEFAULT_RUNS, stages, progress }) {
    const flat = stages.includes('flat') ? await measureFlat(runs, progress) : {};
    if (!stages.includes('embedded')) return { metrics: flat, peers: {}, runs };
    const { metrics, qemu } = await measureSavesEmbedded({ runs, progress });
    return { metrics: { ...flat, ...metrics }, peers: { qemu }, runs };
  },
};

async function measureFlat(runs: number, progress: (line: string) => void): Promise<Figures> {
  const folder = mkdtempSync(path.resolve('build/bench-snapshot-'));
  const samples = new Samples();
  try {
    for (const sizeMiB of SIZES_MIB) {
      progress(`instant, ${sizeMiB} MiB`);
      await instant(folder, sizeMiB, runs, samples);
    }
    progress('live');
    await live(folder, runs, samples);
    progress('rate');
    await rate(folder, runs, samples);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  // From 128 MiB to 4 GiB memory grows 32 times.
  const growth = samples.median('instantAt4096MiBStopMs') / samples.median('instantAt128MiBStopMs');
  const instantGrowthOfMemoryRatio = Number(((growth - 1) / (4096 / 128 - 1)).toPrecision(4));
  return { ...samples.figures(), instantGrowthOfMemoryRatio };
}

/** One snapshot, removed again. */
async function save(machine: Machine, folder: string, options: SnapshotOptions): Promise<SnapshotStats> {
  const dir = path.join(folder, 'snapshot');
  const { stats } = await machine.snapshot(dir, options);
  rmSync(dir, { recursive: true });
  return stats;
}

async function instant(folder: string, sizeMiB: number, runs: number, samples: Samples): Promise<void> {
  const filledBytes = Math.min(sizeMiB, FILLED_MIB) * MIB;
  const machine = await pacedMachine({ memoryBytes: sizeMiB * MIB, filledBytes, windowBytes: WINDOW_BYTES });
  await machine.start();
  await pace(machine, DIRTIED_PER_SECOND);
  const at = `instantAt${sizeMiB}MiB`;
  // The first one in a process loads code.
  await save(machine, folder, { mode: 'instant' });
  for (let run = 0; run < runs; run++) {
    const { pauseMs, intercept } = await save(machine, folder, { mode: 'instant' });
    samples.add(`${at}StopMs`, pauseMs);
    samples.add(`${at}ProtectMs`, intercept!.protectNs / 1e6);
  }
  if (sizeMiB === 1024) {
    for (const kind of ['paced', 'fast'] as const) {
      if (kind === 'fast') setCycles(machine, 0);
      for (let run = 0; run < runs; run++) {
        const undisturbed = await rateOver(machine, 500);
        const from = written(machine);
        const startMs = performance.now();
        const { intercept } = await save(machine, folder, { mode: 'instant' });
        const during = (written(machine) - from) / ((performance.now() - startMs) / 1000);
        samples.add(`${kind}GuestSlowdownRatio`, undisturbed / during);
        samples.add(`${kind}GuestWorstWriteMs`, (intercept!.faultMaxNs + intercept!.stallMaxNs) / 1e6);
        samples.add(`${kind}GuestFaultUs`, intercept!.faultNs / 1e3 / Math.max(1, intercept!.faults));
        samples.add(`${kind}GuestStalls`, intercept!.stalls);
      }
    }
  }
  await machine.close();
}

async function live(folder: string, runs: number, samples: Samples): Promise<void> {
  const sizes = { memoryBytes: 1024 * MIB, filledBytes: 1024 * MIB, windowBytes: WINDOW_BYTES };
  const machine = await pacedMachine(sizes);
  await machine.start();
  for (let run = 0; run < runs; run++) {
    samples.add('liveDirtiedMiBPerSecond', (await pace(machine, DIRTIED_PER_SECOND)) / MIB);
    const { pauseMs, rounds } = await save(machine, folder, { mode: 'live' });
    samples.add('liveStopMs', pauseMs);
    samples.add('liveRounds', rounds);
  }
  await machine.close();
}

async function rate(folder: string, runs: number, samples: Samples): Promise<void> {
  const bytes = RATE_MIB * MIB;
  const machine = await pacedMachine({ memoryBytes: bytes, filledBytes: bytes, windowBytes: WINDOW_BYTES });
  const raw = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += MIB) randomFillSync(raw, at, MIB);
  await machine.start();
  await machine.pause();
  for (let run = -1; run < runs; run++) {
    const rawMs = rawWriteMs(path.join(folder, 'raw'), raw);
    for (const compress of ['zstd', 'none'] as const) {
      const { totalMs, bytesWritten } = await save(machine, folder, { mode: 'paused', compress });
      if (run < 0) continue;
      const perSecond = bytesWritten / MIB / (totalMs / 1000);
      samples.add(`${compress}SaveMiBPerSecond`, perSecond);
      samples.add(`${compress}SaveTimeRatio`, RATE_MIB / (rawMs / 1000) / perSecond);
    }
    if (run >= 0) samples.add('rawWriteMiBPerSecond', RATE_MIB / (rawMs / 1000));
  }
  await machine.close();
}
