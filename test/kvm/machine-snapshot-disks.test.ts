/** Disks and networks of flat guests over snapshots: cut at the instant, gone on from, replaced, refused by name. */
import { readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Machine } from '../../lib/machine/index.js';
import { faultyDisk, fileDisk, memoryDisk } from '../../lib/vsp/index.js';
import type { GuestOptions } from '../lib/machine.js';
import { startGuest } from '../lib/machine.js';
import { MEMORIES, MODES, restore, SHORTEST, snapshotFolder } from '../lib/snapshots.js';

const DATA = 0x60000;
const SECTOR = 3;
const GATE = 0x720;
const content = Uint8Array.from({ length: 256 * 512 }, (_, at) => at % 251);
const wanted = Buffer.from(content.slice(SECTOR * 512, (SECTOR + 1) * 512));

let folder: string;
let image: string;
beforeEach(() => {
  folder = snapshotFolder();
  image = path.join(folder, 'disk.img');
  writeFileSync(image, content);
});
const inFolder = (name: string): string => path.join(folder, name);

/** A guest that has not begun: it reads its sector when it runs, and ends with 0x21. */
async function pausedGuest(options: GuestOptions): Promise<Machine> {
  const machine = await startGuest('virtio-blk', {
    mode: 'long64',
    defines: { MSIX: 1, MASTER: 1, GATED: 0, RESETS: 0, SECTOR, DATA, TAKEN: 0x70000, GATE },
    ...options,
  });
  await machine.pause();
  return machine;
}

async function expectReads(machine: Machine): Promise<void> {
  await machine.resume();
  expect(await machine.wait()).toMatchObject({ reason: 'debug-exit', code: 0x21 });
  expect(Buffer.from(machine.memory.read(DATA, 512))).toEqual(wanted);
}

const names = (): string[] => readdirSync(folder).sort();
const start = { start: false };

describe('a writable disk in a file', () => {
  it('is cut: the file belongs to the snapshot, and machine and clones go on in images of their own', async () => {
    const machine = await pausedGuest({ disks: [{ id: 'd', backend: fileDisk(image) }] });
    await machine.snapshot(inFolder('one'), { mode: 'live', maxPauseMs: 20_000 });
    await machine.snapshot(inFolder('two'), { mode: SHORTEST, maxPauseMs: 20_000 });
    expect(names().filter((name) => name.endsWith('.qcow2'))).toHaveLength(2);
    expect(Buffer.from(readFileSync(image))).toEqual(Buffer.from(content));
    await expectReads(machine);
    for (const name of ['one', 'two', 'one']) await expectReads(await restore(inFolder(name), start));
    expect(Buffer.from(readFileSync(image))).toEqual(Buffer.from(content));
  });

  it.each(MODES)('is as it was after a snapshot that failed, mode %s', async (mode) => {
    const machine = await pausedGuest({ disks: [{ id: 'd', backend: fileDisk(image) }] });
    writeFileSync(inFolder('taken'), '');
    await expect(machine.snapshot(inFolder('taken'), { mode })).rejects.toMatchObject({ errno: 'EEXIST' });
    await expect(machine.snapshot(inFolder('short'), { mode, maxPauseMs: 0.0001 })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
    });
    expect(names()).toEqual(['disk.img', 'taken']);
    await expectReads(machine);
  });

  it('that has changed since is refused by name, and one in its place is taken', async () => {
    const machine = await pausedGuest({ disks: [{ id: 'd', backend: fileDisk(image) }] });
    await machine.snapshot(inFolder('s'), { mode: 'paused' });
    await machine.close();
    utimesSync(image, 1, 1);
    const before = names();
    const refused = expect.objectContaining({
      code: 'ERR_DISK_IMAGE',
      message: expect.stringMatching(/disk d: .*disk\.img has changed/) as string,
    }) as Error;
    await expect(restore(inFolder('s'))).rejects.toEqual(refused);
    rmSync(image);
    await expect(restore(inFolder('s'))).rejects.toMatchObject({ code: 'ERR_DISK_IMAGE' });
    expect(names()).toEqual(before.filter((name) => name !== 'disk.img'));
    writeFileSync(inFolder('other.img'), content);
    const bare = faultyDisk(fileDisk(inFolder('other.img')), { without: ['discard', 'write-zeroes', 'flush'] });
    await expectReads(await restore(inFolder('s'), { ...start, overrides: { disks: { d: bare } } }));
  });

  it('leaves no image of a clone that could not be made', async () => {
    const machine = await pausedGuest({
      disks: [
        { id: 'd', backend: fileDisk(image) },
        { id: 'e', backend: memoryDisk('1MiB') },
      ],
    });
    await machine.snapshot(inFolder('s'), { mode: 'paused' });
    const before = names();
    await expect(restore(inFolder('s'), { overrides: { disks: { e: memoryDisk(512) } } })).rejects.toThrow(/'?e'?/);
    expect(names()).toEqual(before);
  });
});

it('a smaller disk in the place of one is refused by name before anything runs', async () => {
  const machine = await pausedGuest({ disks: [{ id: 'd', backend: fileDisk(image) }] });
  await machine.snapshot(inFolder('s'), { mode: 'paused' });
  for (const memory of MEMORIES) {
    await expect(
      restore(inFolder('s'), { memory, overrides: { disks: { d: memoryDisk(512) } } }),
    ).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_/) as string,
      message: expect.stringMatching(/disk d: .*512 byt/) as string,
    });
  }
});

it.each([
  ['changes in memory', (): GuestOptions => ({ disks: [{ id: 'd', backend: fileDisk(image), copyOnWrite: '1MiB' }] })],
  ['read-only', (): GuestOptions => ({ disks: [{ id: 'd', backend: fileDisk(image), readOnly: true }] })],
])('a disk with %s leaves its file alone, and one that changed is refused', async (_what, options) => {
  const machine = await pausedGuest(options());
  await machine.snapshot(inFolder('s'), { mode: SHORTEST, maxPauseMs: 20_000 });
  expect(names()).toEqual(['disk.img', 's']);
  await expectReads(await restore(inFolder('s'), start));
  utimesSync(image, 1, 1);
  await expect(restore(inFolder('s'))).rejects.toMatchObject({ code: 'ERR_DISK_IMAGE' });
  await expectReads(machine);
});

it('a disk keeps its contract over a backend with no function of its own', async () => {
  const machine = await pausedGuest({ disks: [{ id: 'd', backend: memoryDisk('1MiB') }] });
  const functions = Object.keys(machine.device('d').contract.functions).sort();
  await machine.snapshot(inFolder('s'), { mode: 'paused' });
  const bare = faultyDisk(memoryDisk('1MiB'), { without: ['discard', 'write-zeroes', 'flush'] });
  const clone = await restore(inFolder('s'), { ...start, overrides: { disks: { d: bare } } });
  expect(Object.keys(clone.device('d').contract.functions).sort()).toEqual(functions);
  await clone.resume();
  expect(await clone.wait()).toMatchObject({ code: 0x21 });
});
