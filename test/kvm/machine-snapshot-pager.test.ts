/** Machines that are restored lazily from a snapshot whose files go wrong underneath: they end by name, or don't notice. */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Machine } from '../../lib/machine/index.js';
import { memoryDisk } from '../../lib/vsp/index.js';
import { until } from '../lib/machine.js';
import {
  CAN_PAGE,
  heardDisk,
  patternOf,
  progress,
  restore,
  runsOn,
  snapshotFolder,
  startPattern,
} from '../lib/snapshots.js';

/** 96 MiB. */
const pages = 24_576;

let folder: string;
let dir: string;
let memory: string;
beforeEach(async () => {
  folder = snapshotFolder();
  dir = path.join(folder, 'snap');
  memory = path.join(dir, 'memory');
  const machine = await startPattern({ pages, disks: [{ id: 'd', backend: memoryDisk('1MiB') }] });
  await machine.snapshot(dir, { mode: 'paused', compress: 'none' });
  await machine.close();
});

/** Restored lazily, when something happens to the snapshot after it was opened, and before any of its memory is read. */
function restoreWhile(happens: () => void, more = {}): Promise<Machine> {
  return restore(dir, { memory: 'lazy', overrides: { disks: { d: heardDisk(happens) } }, ...more });
}

/** At that part of its memory's file. */
function flip(part: number): void {
  const at = Math.floor(statSync(memory).size * part);
  const file = openSync(memory, 'r+');
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  byte[0]! ^= 0x10;
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
}

function cutOff(part: number): void {
  truncateSync(memory, Math.floor(statSync(memory).size * part));
}

const pagerError = (why: string) =>
  expect.objectContaining({
    code: 'ERR_PAGER',
    message: expect.stringMatching(/group \d+ of guest memory .*offset \d+/) as string,
    cause: expect.objectContaining({ why, group: expect.any(Number) as number }) as object,
  }) as Error;

/** Offsets of memory that can't be read, by 64 KiB. */
function unreadable(machine: Machine): unknown[] {
  const errors: unknown[] = [];
  for (let gpa = 0; gpa < machine.memory.sizeBytes; gpa += 65_536) {
    try {
      machine.memory.read(gpa, 1);
    } catch (error) {
      errors.push(error);
    }
  }
  return errors;
}

if (CAN_PAGE) {
  describe.each([
    ['is cut off', cutOff, 'short-read'],
    ['has a bit flipped', flip, 'checksum'],
  ] as const)('a machine whose snapshot %s', (_what, harm, why) => {
    it('fails by the name of the group, and everything about it ends', async () => {
      // Nearly at the end, so that it runs for a while.
      const machine = await restoreWhile(() => harm(0.95)).catch((error: unknown) => error as Error);
      // On a slow host it may be met before the machine runs.
      if (machine instanceof Error) return expect(machine).toEqual(pagerError(why));
      expect(await machine.wait()).toMatchObject({ reason: 'failed', error: pagerError(why) });
      expect(machine.state).toBe('failed');
      await expect(machine.restored!.complete).rejects.toEqual(pagerError(why));
      const errors = unreadable(machine);
      expect(errors.length).toBeGreaterThan(0);
      for (const error of errors) expect(error).toEqual(pagerError(why));
      for (const mode of ['paused', 'live', 'instant'] as const) {
        await expect(machine.snapshot(path.join(folder, 'never'), { mode })).rejects.toEqual(pagerError(why));
      }
      await expect(machine.resume()).rejects.toMatchObject({ code: 'ERR_STATE' });
      expect(JSON.stringify(machine.inspect())).toContain(why);
      expect(readdirSync(folder)).toEqual(['snap']);
      await machine.close();
    });

    it('fails while it is paused, too', async () => {
      const machine = await restoreWhile(() => harm(0.95), { start: false }).catch((error: unknown) => error as Error);
      if (machine instanceof Error) return expect(machine).toEqual(pagerError(why));
      expect(await machine.wait()).toMatchObject({ reason: 'failed', error: pagerError(why) });
      await expect(machine.start()).rejects.toMatchObject({ code: 'ERR_STATE' });
    });

    it('fails in the middle of a snapshot, of which nothing is left', async () => {
      const machine = await restoreWhile(() => harm(0.95)).catch((error: unknown) => error as Error);
      if (machine instanceof Error) return expect(machine).toEqual(pagerError(why));
      const saving = machine.snapshot(path.join(folder, 'never'), { mode: 'instant' });
      await expect(saving).rejects.toEqual(pagerError(why));
      expect(await machine.wait()).toMatchObject({ reason: 'failed', error: pagerError(why) });
      expect(readdirSync(folder)).toEqual(['snap']);
    });

    it('is not made when that is met before it runs', async () => {
      const ended = await restoreWhile(() => harm(0)).then(
        (machine) => machine.wait().then(({ error }) => error),
        (error: unknown) => error,
      );
      expect(ended).toEqual(pagerError(why));
    });

    it('is not made when its memory is wanted first', async () => {
      await expect(restoreWhile(() => harm(0.5), { memory: 'eager' })).rejects.toThrow(/group/);
    });
  });

  it.each([
    ['is deleted', () => rmSync(dir, { recursive: true })],
    [
      'is replaced by another',
      () => {
        renameSync(dir, path.join(folder, 'aside'));
        mkdirSync(dir);
        writeFileSync(memory, 'not this one');
      },
    ],
  ])('a machine goes on when its snapshot %s', async (_what, happens) => {
    const machine = await restoreWhile(happens);
    const saved = progress(machine);
    expect((await machine.restored!.complete).missingGroups).toBe(0);
    await until(() => progress(machine) > saved);
    await machine.pause();
    expect(patternOf(machine, pages)).toBeGreaterThan(0);
    await machine.snapshot(path.join(folder, 'again'), { mode: 'instant' });
  });

  it('a failed clone harms no other clone', async () => {
    const good = await restore(dir, { overrides: { disks: { d: memoryDisk('1MiB') } } });
    await good.restored!.complete;
    const bad = await restoreWhile(() => flip(0.95)).catch(() => undefined);
    await bad?.wait();
    await bad?.close();
    await runsOn(good);
    await good.pause();
    expect(patternOf(good, pages)).toBeGreaterThan(0);
    const from = progress(good);
    await good.resume();
    await until(() => progress(good) > from);
  });
} else {
  it('who has no userfaultfd is refused a lazy restore, and says so', async () => {
    await expect(restore(dir, { memory: 'lazy' })).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_HOST' });
  });
}
