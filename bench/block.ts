/**
 * The block device without a guest: 4 KiB requests of the mock driver over a file in the page cache, what each costs in
 * CPU time (driver, device model, system calls), and how much of that is JavaScript; by io_uring and by threads. And how
 * long a change of the backend stops the device beyond the drain of what is in flight.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileDisk } from '#lib/vsp/index.js';
import type { Bench, Figures } from './lib/bench.js';
import { BlockRig, type BlockRigOptions, type BlockSample } from './lib/block-rig.js';
import { summarise } from './lib/stats.js';

const DEFAULT_RUNS = 11;
const DISK_BYTES = 64 * 2 ** 20;
const REQUESTS = { read: 200_000, write: 50_000 } as const;
const REQUESTS_ALONE = { read: 50_000, write: 10_000 } as const;
const DEPTH = 32;
const REBINDS_A_RUN = 5;

export const bench: Bench = {
  name: 'block',
  stage: 'flat',
  about:
    '4 KiB requests from page cache; to reach: 300,000 a second on one core, a rebind stops for 5 ms beyond the drain',
  async run({ runs = DEFAULT_RUNS, progress }) {
    const folder = await mkdtemp(path.join(tmpdir(), 'vivarium-bench-'));
    try {
      const files = ['a.img', 'b.img'].map((name) => path.join(folder, name));
      for (const file of files) await writeFile(file, Buffer.alloc(DISK_BYTES, 1));
      const metrics: Record<string, Figures[string]> = {};
      const threads: Record<string, Figures[string]> = {};
      for (const kind of ['read', 'write'] as const) {
        for (const depth of [DEPTH, 1]) {
          const name = `${kind}${depth === 1 ? 'Alone' : ''}`;
          const requests = (depth === 1 ? REQUESTS_ALONE : REQUESTS)[kind];
          for (const [engine, into] of [
            ['io_uring', metrics],
            ['threads', threads],
          ] as const) {
            const samples = await measure({ file: files[0]!, engine, depth, kind }, requests, runs);
            Object.assign(into, figuresOf(name, samples));
          }
          progress(`${name}: done`);
        }
        const { beyondDrainMs, gapMs, drainMs } = await measureRebind(files, kind, runs);
        metrics[`${kind}RebindMs`] = summarise(beyondDrainMs);
        metrics[`${kind}RebindDrainMs`] = summarise(drainMs);
        metrics[`${kind}RebindGapMs`] = summarise(gapMs);
      }
      return { metrics, peers: { threads }, runs };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};

async function measure(options: BlockRigOptions, requests: number, runs: number): Promise<BlockSample[]> {
  const rig = await BlockRig.open(options);
  try {
    const samples: BlockSample[] = [];
    for (let round = -1; round < runs; round++) {
      const sample = await rig.run(requests);
      // One round that is not counted: code is compiled.
      if (round >= 0) samples.push(sample);
    }
    return samples;
  } finally {
    await rig.close();
  }
}

function figuresOf(name: string, samples: readonly BlockSample[]): Figures {
  const each = (figure: (sample: BlockSample) => number) => summarise(samples.map(figure));
  return {
    [`${name}CpuUs`]: each(({ cpuMs, requests }) => (cpuMs * 1000) / requests),
    [`${name}PerCpuSecond`]: each(({ cpuMs, requests }) => (requests / cpuMs) * 1000),
    [`${name}PerSecond`]: each(({ elapsedMs, requests }) => (requests / elapsedMs) * 1000),
    // Only where the thread is never idle: cached reads end while they are submitted.
    ...(name === 'read' && { readScriptPercent: each(({ elapsedMs, nativeMs }) => (1 - nativeMs / elapsedMs) * 100) }),
    [`${name}DriverUs`]: each(({ driverMs, requests }) => (driverMs * 1000) / requests),
  };
}

/** Changes between two files while requests are in flight all the time. */
async function measureRebind(files: readonly string[], kind: 'read' | 'write', runs: number) {
  const rig = await BlockRig.open({ file: files[0]!, engine: 'io_uring', depth: DEPTH, kind });
  const beyondDrainMs: number[] = [];
  const drainMs: number[] = [];
  const gapMs: number[] = [];
  try {
    const running = rig.run(Number.MAX_SAFE_INTEGER);
    for (let change = 1; change <= runs * REBINDS_A_RUN; change++) {
      rig.longestGapMs = 0;
      const { holdNs, drainNs } = await rig.provider.rebind(fileDisk(files[change % files.length]!));
      beyondDrainMs.push((holdNs - drainNs) / 1e6);
      drainMs.push(drainNs / 1e6);
      await delay(20);
      gapMs.push(rig.longestGapMs);
    }
    rig.stop();
    await running;
  } finally {
    await rig.close();
  }
  return { beyondDrainMs, drainMs, gapMs };
}
