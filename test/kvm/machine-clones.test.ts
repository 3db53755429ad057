/** Machines of one snapshot in one process: they share its memory until they write to it, and nothing else. */
import { closeSync, openSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { loadBinding } from '../../lib/kvm/binding.js';
import type { Machine } from '../../lib/machine/index.js';
import { memoryDisk } from '../../lib/vsp/index.js';
import { until } from '../lib/machine.js';
import {
  CAN_PAGE,
  heardDisk,
  MODES,
  PAGES,
  patternOf,
  progress,
  restore,
  runsOn,
  snapshotFolder,
  startPattern,
} from '../lib/snapshots.js';

const MIB = 2 ** 20;
/** Of the pattern's memory, what the guest never writes to. */
const QUIET_GPA = 0x200000 + PAGES * 4096 + 2 * MIB;
const MAPPED = 'memfd:vivarium-clones';

let folder: string;
let dir: string;
beforeEach(async () => {
  folder = snapshotFolder();
  dir = path.join(folder, 'snap');
  const machine = await startPattern({ disks: [{ id: 'd', backend: memoryDisk('1MiB') }] });
  await until(() => progress(machine) > PAGES);
  machine.memory.write(QUIET_GPA, new Uint8Array(MIB).fill(0x5a));
  await machine.snapshot(dir, { mode: 'paused', compress: 'none' });
  await machine.close();
});

const disks = { d: memoryDisk('1MiB') };
const clone = (more = {}): Promise<Machine> =>
  restore(dir, { memory: 'lazy', share: true, start: false, overrides: { disks }, ...more });

/** Of all mappings of stores in this process, in bytes: what is mapped, and what is no longer the store's. */
function mapped(): { sizeBytes: number; ownBytes: number } {
  let sizeBytes = 0;
  let ownBytes = 0;
  for (const part of readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    if (!part.split('\n', 1)[0]!.includes(MAPPED)) continue;
    const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(part)?.[1]) * 1024;
    sizeBytes += field('Size');
    ownBytes += field('Anonymous');
  }
  return { sizeBytes, ownBytes };
}

function readAll(machine: Machine): void {
  for (let gpa = 0; gpa < machine.memory.sizeBytes; gpa += 65_536) machine.memory.read(gpa, 1);
}

if (CAN_PAGE) {
  describe('clones that share', () => {
    it('have the memory of the instant, and none sees what another writes', async () => {
      const [first, second] = [await clone(), await clone()];
      const saved = patternOf(first);
      first.memory.write(QUIET_GPA, Uint8Array.of(1, 2, 3));
      expect(second.memory.read(QUIET_GPA, 3)).toEqual(Uint8Array.of(0x5a, 0x5a, 0x5a));
      await first.resume();
      await until(() => progress(first) > saved + PAGES);
      expect(patternOf(second)).toBe(saved);
      await second.resume();
      await runsOn(second);
      await Promise.all([first.pause(), second.pause()]);
      for (const machine of [first, second]) expect(patternOf(machine)).toBeGreaterThan(saved);
      const third = await clone();
      expect(patternOf(third)).toBe(saved);
      expect(third.memory.read(QUIET_GPA, 3)).toEqual(Uint8Array.of(0x5a, 0x5a, 0x5a));
      expect(first.memory.read(QUIET_GPA, 4)).toEqual(Uint8Array.of(1, 2, 3, 0x5a));
    });

    it('have of their own what they wrote, and no more', async () => {
      const clones = [await clone(), await clone(), await clone()];
      for (const machine of clones) await machine.restored!.complete;
      clones.forEach(readAll);
      const { sizeBytes } = mapped();
      expect(sizeBytes).toBeGreaterThan(3 * PAGES * 4096);
      // What the restores themselves write: KVM's clocks, rings of devices.
      expect(mapped().ownBytes).toBeLessThan(3 * 64 * 1024);
      const before = mapped().ownBytes;
      for (const machine of clones) machine.memory.write(QUIET_GPA, new Uint8Array(256 * 1024));
      expect(mapped().ownBytes - before).toBe(3 * 256 * 1024);
    });

    it.each(MODES)('are saved as they are: %s', { timeout: 120_000 }, async (mode) => {
      const [first, second] = [await clone(), await clone({ start: true })];
      await first.resume();
      // Perhaps before all of its memory is there.
      await first.snapshot(path.join(folder, 'early'), { mode, maxPauseMs: 5000 });
      await runsOn(first);
      await second.restored!.complete;
      await second.pause();
      await second.resume();
      await second.snapshot(path.join(folder, 'late'), { mode, maxPauseMs: 5000, parent: dir });
      await Promise.all([first.close(), second.close()]);
      for (const name of ['early', 'late']) {
        const again = await restore(path.join(folder, name), { start: false, overrides: { disks } });
        expect(patternOf(again)).toBeGreaterThan(0);
        expect(again.memory.read(QUIET_GPA, 1)).toEqual(Uint8Array.of(0x5a));
      }
    });

    it('are all there before anything runs, where memory is eager', async () => {
      const machine = await clone({ memory: 'eager' });
      expect((await machine.restored!.complete).missingGroups).toBe(0);
      expect(machine.inspect()).toMatchObject({ memory: { pager: { missingGroups: 0 }, clones: { isSealed: true } } });
      expect(patternOf(machine)).toBeGreaterThan(0);
    });

    it('leave nothing behind', async () => {
      const stores = (): number => loadBinding().dispatcher.runtime.counts().groupStores;
      const [first, second] = [await clone(), await clone()];
      expect(stores()).toBe(1);
      await first.close();
      await runs(second);
      await second.close();
      expect([stores(), mapped().sizeBytes]).toEqual([0, 0]);
    });

    async function runs(machine: Machine): Promise<void> {
      await machine.resume();
      await runsOn(machine);
    }
  });

  describe('whether memory is shared', () => {
    const shares = (machine: Machine): boolean =>
      (machine.inspect() as { memory: object }).memory.hasOwnProperty('clones');

    it('is so for those that come while another is there, unless they are asked not to', async () => {
      const share = undefined;
      const first = await clone({ share });
      const second = await clone({ share });
      const own = await clone({ share: false });
      const eager = await clone({ share, memory: 'eager' });
      expect([first, second, own, eager].map(shares)).toEqual([false, true, false, false]);
      const saved = patternOf(second);
      for (const machine of [first, own, eager]) expect(patternOf(machine)).toBe(saved);
      for (const machine of [first, second, own, eager]) await machine.close();
      expect(shares(await clone({ share }))).toBe(false);
    });

    it('is refused by name where it can not be', async () => {
      const machine = await startPattern({ memoryBacking: 'memfd' });
      const other = path.join(folder, 'memfd');
      await machine.snapshot(other, { mode: 'paused' });
      await expect(restore(other, { share: true })).rejects.toMatchObject({
        code: 'ERR_SNAPSHOT_HOST',
        cure: 'share: false',
      });
      const [first, second] = [await restore(other, { start: false }), await restore(other, { start: false })];
      expect([shares(first), shares(second)]).toEqual([false, false]);
      await expect(restore(other, { share: 'yes' as never })).rejects.toThrow(TypeError);
    });

    it('is told by the files, not by the names: a snapshot that has changed is another one', async () => {
      const first = await clone();
      await first.restored!.complete;
      flip(0.95);
      const second = await clone({ share: undefined }).catch((error: unknown) => error as Error);
      const failure = second instanceof Error ? second : (await second.wait()).error;
      expect(failure).toMatchObject({ code: 'ERR_PAGER' });
      await first.resume();
      await runsOn(first);
    });
  });

  it('a clone needs nothing of the file that another has read', async () => {
    const first = await clone();
    await first.restored!.complete;
    const second = await clone({ overrides: { disks: { d: heardDisk(() => flip(0.95)) } } });
    expect((await second.restored!.complete).missingGroups).toBe(0);
    expect(patternOf(second)).toBe(patternOf(first));
  });

  it('a group that is not what was saved fails each clone that needs it', async () => {
    const bad = { overrides: { disks: { d: heardDisk(() => flip(0.95)) } } };
    const clones = [await clone(bad), await clone({ overrides: { disks } })].map((machine) => machine.wait());
    // The first has told; the file of the second is another one by then.
    for (const { reason, error } of await Promise.all(clones)) {
      expect([reason, error]).toEqual(['failed', expect.objectContaining({ code: 'ERR_PAGER' }) as Error]);
    }
  });

  /** One bit at that part of the memory's file. */
  function flip(part: number): void {
    const file = path.join(dir, 'memory');
    const at = Math.floor(statSync(file).size * part);
    const fd = openSync(file, 'r+');
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, at);
    byte[0]! ^= 0x10;
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);
  }
} else {
  it('clones of a user without userfaultfd have memory of their own; that it is shared is refused by name', async () => {
    await expect(clone()).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_HOST' });
    const [first, second] = [
      await clone({ memory: 'eager', share: false }),
      await clone({ memory: 'eager', share: false }),
    ];
    first.memory.write(QUIET_GPA, Uint8Array.of(1, 2, 3));
    expect(second.memory.read(QUIET_GPA, 3)).toEqual(Uint8Array.of(0x5a, 0x5a, 0x5a));
    expect(mapped()).toEqual({ sizeBytes: 0, ownBytes: 0 });
  });
}
