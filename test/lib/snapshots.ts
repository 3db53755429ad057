/**
 * What tests of snapshots of whole machines share: a folder for them, the guest whose memory tells one instant from two, and
 * clones that are closed when the test ends.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { Machine, type RestoreOptions } from '../../lib/machine/index.js';
import { memoryDisk } from '../../lib/vsp/index.js';
import type { BlockSource } from '../../lib/vsp/index.js';
import { type GuestOptions, readU64, startGuest, until } from './machine.js';
import { pagerLack } from './pager-rig.js';

const BASE = 0x200000;
/** 32 MiB of them. */
export const PAGES = 8192;

/** This user has userfaultfd; an ordinary one seldom has, and is refused what needs it. */
export const CAN_PAGE = pagerLack('instant') === undefined && pagerLack('lazy') === undefined;
export const MODES = CAN_PAGE ? (['paused', 'live', 'instant'] as const) : (['paused', 'live'] as const);
export const MEMORIES = CAN_PAGE ? (['lazy', 'eager'] as const) : (['eager'] as const);
/** The one that stops the guest for the shortest time. */
export const SHORTEST = MODES.at(-1)!;

/** A folder of this test's own. */
export function snapshotFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-snapshot-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

export async function restore(dir: string, options: RestoreOptions = {}): Promise<Machine> {
  const machine = await Machine.restore(dir, options);
  onTestFinished(() => machine.close());
  return machine;
}

/** A guest that writes growing numbers through PAGES pages, or as many as are wanted, at full speed, and has begun to. */
export async function startPattern(options: GuestOptions & { readonly pages?: number } = {}): Promise<Machine> {
  const { pages = PAGES, ...more } = options;
  const machine = await startGuest('pattern', {
    ...{ mode: 'long64', memory: 2 ** 24 + 4096 * pages, defines: { BASE, PAGES: pages } },
    ...more,
  });
  await runsOn(machine);
  return machine;
}

/** Its last number but for a round; it grows while the guest runs. */
export const progress = (machine: Machine): number => Number(readU64(machine, BASE));

/** Resolves when the guest has done something more. */
export async function runsOn(machine: Machine): Promise<void> {
  const from = progress(machine);
  await until(() => progress(machine) > from);
}

/** The value that was written last; throws when the words are not those of one instant. */
export function patternOf(machine: Machine, pages = PAGES): number {
  const words = Array.from({ length: pages }, (_, page) => Number(readU64(machine, BASE + 4096 * page)));
  const last = Math.max(...words);
  words.forEach((word, page) => {
    const behind = (((last - 1 - page) % pages) + pages) % pages;
    if (word !== Math.max(last - behind, 0)) throw new Error(`page ${page} has ${word} when ${last} was last`);
  });
  return last;
}

/** A disk whose opening is heard: of a restore, after its snapshot was opened and before the first page of memory is read. */
export function heardDisk(onOpen: () => void): BlockSource {
  const disk = memoryDisk('1MiB');
  return {
    ...disk,
    open: (context) => {
      onOpen();
      return disk.open(context);
    },
  };
}

interface InspectedMemory {
  readonly memory: { readonly pager?: { readonly intercept: string; readonly missingGroups?: number } };
}

/** What the pager does to the machine's memory: 'off' is nothing. */
export function interceptOf(machine: Machine): string {
  return (machine.inspect() as unknown as InspectedMemory).memory.pager?.intercept ?? 'off';
}
