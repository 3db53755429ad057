/** Two CPUs that note what they have seen of each other, saved at random moments: no snapshot has an effect without its cause. */
import path from 'node:path';
import { rmSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { Machine } from '../../lib/machine/index.js';
import { readU64, startGuest, until } from '../lib/machine.js';
import { MEMORIES, MODES, restore, snapshotFolder } from '../lib/snapshots.js';

const COUNTERS = 0x20_0000;
const NOTES = 0x40_0000;
const PAGES = 1024;
const SNAPSHOTS = process.env['VIVARIUM_SOAK'] === undefined ? 30 : 100;
const CPUS = [0, 1] as const;

const counter = (machine: Machine, cpu: number): number => Number(readU64(machine, COUNTERS + 4096 * cpu));

interface Note {
  readonly own: number;
  readonly seen: number;
}

function notesOf(machine: Machine, cpu: number): Note[] {
  return Array.from({ length: PAGES }, (_, page) => {
    const at = NOTES + 4096 * (cpu * PAGES + page);
    return { own: Number(readU64(machine, at)), seen: Number(readU64(machine, at + 8)) };
  });
}

/** Throws when the memory is not that of one instant; the counters. */
function checkInstant(machine: Machine): [number, number] {
  const counters: [number, number] = [counter(machine, 0), counter(machine, 1)];
  const notes = CPUS.map((cpu) => notesOf(machine, cpu));
  for (const cpu of CPUS) {
    const mine = notes[cpu]!;
    const last = Math.max(...mine.map(({ own }) => own));
    const others = Math.max(...notes[1 - cpu]!.map(({ own }) => own));
    // The note of a number is written just before it.
    expect(last - counters[cpu]).toBeGreaterThanOrEqual(0);
    expect(last - counters[cpu]).toBeLessThanOrEqual(1);
    expect(Math.max(...mine.map(({ seen }) => seen))).toBeGreaterThan(0);
    mine.forEach(({ own, seen }, page) => {
      const behind = (((last - 1 - page) % PAGES) + PAGES) % PAGES;
      if (own !== Math.max(last - behind, 0)) throw new Error(`CPU ${cpu}: page ${page} has ${own}, last was ${last}`);
      if (seen > counters[1 - cpu]!)
        throw new Error(`CPU ${cpu} had read ${seen}, and ${counters[1 - cpu]} was written`);
      if (seen > others) throw new Error(`CPU ${cpu} had read ${seen}, and ${others} was noted`);
    });
  }
  return counters;
}

async function bothGoOn(machine: Machine, by = 1): Promise<void> {
  const from = CPUS.map((cpu) => counter(machine, cpu));
  await until(() => CPUS.every((cpu) => counter(machine, cpu) >= from[cpu]! + by));
}

it.each(MODES)(
  'of two CPUs that watch each other each snapshot has one instant, mode %s',
  { timeout: 120_000 },
  async (mode) => {
    const folder = snapshotFolder();
    const machine = await startGuest('two-writers', {
      ...{ mode: 'long64', memory: '24MiB', cpus: 2 },
      defines: { COUNTERS, NOTES, PAGES },
    });
    // Each has seen the other: the first that ran had nothing to see.
    await until(() => CPUS.every((cpu) => notesOf(machine, cpu).some(({ seen }) => seen > 0)));
    for (let round = 0; round < SNAPSHOTS / 3; round++) {
      await bothGoOn(machine, 1 + Math.floor(Math.random() * 5000));
      const dir = path.join(folder, `s${round}`);
      await machine.snapshot(dir, { mode, maxPauseMs: 20_000 });
      const clone = await restore(dir, { memory: MEMORIES[round % MEMORIES.length]!, start: false });
      const saved = checkInstant(clone);
      for (const cpu of CPUS) expect(counter(machine, cpu)).toBeGreaterThanOrEqual(saved[cpu]);
      await clone.resume();
      await bothGoOn(clone);
      await clone.pause();
      const later = checkInstant(clone);
      for (const cpu of CPUS) expect(later[cpu]).toBeGreaterThan(saved[cpu]);
      await clone.close();
      rmSync(dir, { recursive: true });
    }
  },
);
