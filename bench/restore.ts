/**
 * What a restore costs: lazily, to the guest's first instruction, against making a machine of the same size; eagerly, against reading
 * the same file; a guest's work after it, with and without counters of what it uses, against a machine that never
 * stopped; and ten clones of one snapshot.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { Machine } from '#lib/index.js';
import type { Bench } from './lib/bench.js';
import { exitAtOnce, GUEST_ADDRESS } from './lib/guests.js';
import { fill, pacedMachine, setCycles, written } from './lib/paced-guest.js';
import { rawReadMs } from './lib/raw-file.js';
import { Samples } from './lib/samples.js';

const MIB = 2 ** 20;
const DEFAULT_RUNS = 5;
const SIZES_MIB = [128, 1024, 4096];
const FILLED_MIB = 512;
const EAGER_MIB = 512;
const WORK_WINDOW_BYTES = 64 * MIB;
const WORK_ROUNDS = 500;
const WORK_AFTER = [
  ['workCold', 'cold', false],
  ['workHot', 'hot', false],
  ['workHotTracked', 'hot', true],
] as const;
const CLONES = 10;
const CLONE_WINDOW_BYTES = 2 * MIB;
const CLONE_FILLED_MIB = 128;

export const bench: Bench = {
  name: 'restore',
  stage: 'flat',
  about:
    'lazy restore to the first instruction (create + 10 ms), eager against raw reads (1.25), hot set (1.1), clones',
  async run({ runs = DEFAULT_RUNS, progress }) {
    const folder = mkdtempSync(path.resolve('build/bench-restore-'));
    const samples = new Samples();
    try {
      for (const sizeMiB of SIZES_MIB) {
        progress(`first instruction, ${sizeMiB} MiB`);
        await firstInstruction(path.join(folder, `first${sizeMiB}`), sizeMiB, runs, samples);
      }
      progress('eager');
      await eager(path.join(folder, 'eager'), runs, samples);
      progress('hot set');
      await hotSet(path.join(folder, 'hot'), runs, samples);
      progress('clones');
      await clones(path.join(folder, 'clones'), true, samples);
      await clones(path.join(folder, 'clones'), undefined, samples);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    const lazyMs = (sizeMiB: number): number => samples.median(`lazyAt${sizeMiB}MiBMs`);
    const lazyGrowthRatio = Number((lazyMs(4096) / lazyMs(128)).toPrecision(4));
    return { metrics: { ...samples.figures(), lazyGrowthRatio }, peers: {}, runs };
  },
};

/** real16: spins until the byte at 0x2000 is set, then its first write to a port is its last. */
const waitsForByte = Uint8Array.of(0x80, 0x3e, 0x00, 0x20, 0x00, 0x74, 0xf9, 0xe6, 0xf4);

async function firstInstruction(dir: string, sizeMiB: number, runs: number, samples: Samples): Promise<void> {
  const memory = sizeMiB * MIB;
  const boot = { address: GUEST_ADDRESS, mode: 'real16' } as const;
  const machine = await Machine.create({ memory, debugExit: true, boot: { ...boot, flat: waitsForByte } });
  fill(machine, Math.min(sizeMiB, FILLED_MIB) * MIB);
  await machine.start();
  await machine.pause();
  machine.memory.write(0x2000, Uint8Array.of(1));
  await machine.snapshot(dir, { mode: 'paused', compress: 'none' });
  await machine.close();
  for (let run = -1; run < runs; run++) {
    const times: Record<string, number> = {};
    for (const how of ['create', 'lazy'] as const) {
      const startMs = performance.now();
      const next =
        how === 'lazy'
          ? await Machine.restore(dir, { memory: 'lazy' })
          : await Machine.create({ memory, debugExit: true, boot: { ...boot, flat: exitAtOnce } });
      if (how === 'create') await next.start();
      const { reason } = await next.wait();
      times[how] = performance.now() - startMs;
      const endMs = performance.now();
      await next.close();
      times[`${how}Close`] = performance.now() - endMs;
      if (reason !== 'debug-exit') throw new Error(`the guest ended by ${reason}`);
    }
    const prefix = run < 0 ? 'first' : '';
    // What the first restore in a process costs is told apart, once.
    if (run < 0 && sizeMiB !== SIZES_MIB[0]) continue;
    const name = (how: string): string => (prefix === '' ? how : `${prefix}${how[0]!.toUpperCase()}${how.slice(1)}`);
    for (const how of ['create', 'lazy', 'createClose', 'lazyClose'])
      samples.add(`${name(how)}At${sizeMiB}MiBMs`, times[how]!);
    samples.add(`${name('lazy')}BeyondCreateAt${sizeMiB}MiBMs`, times['lazy']! - times['create']!);
  }
  rmSync(dir, { recursive: true });
}

async function eager(dir: string, runs: number, samples: Samples): Promise<void> {
  const bytes = EAGER_MIB * MIB;
  const machine = await pacedMachine({ memoryBytes: bytes, filledBytes: bytes, windowBytes: WORK_WINDOW_BYTES });
  await machine.start();
  await machine.pause();
  await machine.snapshot(dir, { mode: 'paused', compress: 'none' });
  await machine.close();
  for (let run = -1; run < runs; run++) {
    const rawMs = rawReadMs(path.join(dir, 'memory'), bytes);
    const startMs = performance.now();
    const restored = await Machine.restore(dir, { memory: 'eager', start: false });
    const eagerMs = performance.now() - startMs;
    await restored.close();
    if (run < 0) continue;
    samples.add('rawReadMiBPerSecond', EAGER_MIB / (rawMs / 1000));
    samples.add('eagerMiBPerSecond', EAGER_MIB / (eagerMs / 1000));
    samples.add('eagerTimeRatio', eagerMs / rawMs);
  }
  rmSync(dir, { recursive: true });
}

/** ms until the guest has gone round its window so often. */
async function workMs(machine: Machine): Promise<number> {
  const startMs = performance.now();
  await machine.resume();
  const until = written(machine) + (WORK_ROUNDS * WORK_WINDOW_BYTES) / 4096;
  while (written(machine) < until) await new Promise((resolve) => setTimeout(resolve, 1));
  await machine.pause();
  return performance.now() - startMs;
}

async function hotSet(folder: string, runs: number, samples: Samples): Promise<void> {
  const bytes = EAGER_MIB * MIB;
  const machine = await pacedMachine({ memoryBytes: bytes, filledBytes: bytes, windowBytes: WORK_WINDOW_BYTES });
  await machine.start();
  await machine.pause();
  await workMs(machine);
  await machine.snapshot(`${folder}-cold`, { mode: 'paused', compress: 'none', track: false });
  const taught = await Machine.restore(`${folder}-cold`, { memory: 'lazy', start: false });
  await workMs(taught);
  await taught.snapshot(`${folder}-hot`, { mode: 'paused', compress: 'none', track: false });
  await taught.close();
  for (let run = 0; run < runs; run++) {
    const stayedMs = await workMs(machine);
    samples.add('workStayedMs', stayedMs);
    // The machine that stayed notes nothing of what it writes; restored with its defaults a machine does.
    for (const [name, kind, track] of WORK_AFTER) {
      const startMs = performance.now();
      const restored = await Machine.restore(`${folder}-${kind}`, { memory: 'lazy', start: false, track });
      if (kind === 'hot') samples.add(`${name}LoadedMs`, (await restored.restored!.hotLoaded).ms);
      const ms = await workMs(restored);
      samples.add(`${name}Ms`, ms);
      samples.add(`${name}WithRestoreMs`, performance.now() - startMs);
      samples.add(`${name}Ratio`, ms / stayedMs);
      const closingMs = performance.now();
      await restored.close();
      samples.add(`${name}CloseMs`, performance.now() - closingMs);
    }
  }
  await machine.close();
  for (const kind of ['cold', 'hot']) rmSync(`${folder}-${kind}`, { recursive: true });
}

/** `share`: whether the first of them shares as well, or has memory of its own. */
async function clones(dir: string, share: true | undefined, samples: Samples): Promise<void> {
  const sizes = { memoryBytes: 512 * MIB, filledBytes: CLONE_FILLED_MIB * MIB, windowBytes: CLONE_WINDOW_BYTES };
  const machine = await pacedMachine(sizes);
  setCycles(machine, 100_000);
  await machine.start();
  while (written(machine) < CLONE_WINDOW_BYTES / 4096) await new Promise((resolve) => setTimeout(resolve, 10));
  await machine.snapshot(dir, { mode: 'paused', compress: 'none' });
  await machine.close();
  const beforeBytes = anonymousBytes();
  const startMs = performance.now();
  const all = await Promise.all(
    Array.from({ length: CLONES }, async (_, index) => {
      const clone = await Machine.restore(dir, { memory: 'lazy', name: `clone-${index}`, ...(share && { share }) });
      const from = written(clone);
      while (written(clone) <= from) await new Promise((resolve) => setTimeout(resolve, 1));
      return clone;
    }),
  );
  const name = share ? 'tenClones' : 'tenClonesUnasked';
  samples.add(`${name}AnswerMs`, performance.now() - startMs);
  samples.add(`${name}WhenAnsweredMiB`, (anonymousBytes() - beforeBytes) / MIB);
  await Promise.all(all.map((clone) => clone.restored!.complete));
  samples.add(`${name}CompleteMs`, performance.now() - startMs);
  const changedBytes = CLONES * CLONE_WINDOW_BYTES;
  samples.add(`${name}BeyondChangedMiB`, (anonymousBytes() - beforeBytes - changedBytes) / MIB);
  await Promise.all(all.map((clone) => clone.close()));
  rmSync(dir, { recursive: true });
}

/** Of this process, private or shared, each page by its share. */
function anonymousBytes(): number {
  const pss = /^Pss:\s+(\d+) kB/m.exec(readFileSync('/proc/self/smaps_rollup', 'utf8'));
  return Number(pss?.[1]) * 1024;
}
