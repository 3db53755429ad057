/** Snapshots and restores that can't be: what they say, that the machine goes on, and that nothing is left behind. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { Machine, type RestoreOptions, type SnapshotOptions } from '../../lib/machine/index.js';
import { memoryDisk } from '../../lib/vsp/index.js';
import { type GuestOptions, until } from '../lib/machine.js';
import {
  interceptOf,
  MEMORIES,
  MODES,
  patternOf,
  restore,
  progress,
  runsOn,
  SHORTEST,
  snapshotFolder,
  startPattern,
} from '../lib/snapshots.js';

let folder: string;
beforeEach(() => void (folder = snapshotFolder()));
const inFolder = (name: string): string => path.join(folder, name);

/** Only root may mount a file system that is too small, or read-only. */
const isRoot = process.getuid?.() === 0;

/** The machine runs, nothing holds its writes, nothing of a snapshot is in that folder, and it can be saved elsewhere. */
async function expectUntouched(machine: Machine, where: string): Promise<void> {
  expect(machine.state).toBe('running');
  expect(readdirSync(where).filter((name) => name !== 'kept')).toEqual([]);
  expect(interceptOf(machine)).toBe('off');
  await runsOn(machine);
  const dir = path.join(snapshotFolder(), 'snap');
  await machine.snapshot(dir, { mode: SHORTEST, maxPauseMs: 20_000 });
  expect(patternOf(await restore(dir, { start: false }))).toBeGreaterThan(0);
}

describe.each(MODES)('a snapshot, mode %s,', (mode) => {
  const how: SnapshotOptions = { mode, maxPauseMs: 20_000, compress: 'none' };

  it('beyond the largest file that the process may have is refused', async () => {
    const machine = await startPattern();
    // Enough groups that are not zero, however little of a CPU the guest gets.
    await until(() => progress(machine) >= 1024);
    limitFiles(2 ** 20);
    try {
      await expect(machine.snapshot(inFolder('snap'), how)).rejects.toMatchObject({
        code: 'ERR_SYSTEM',
        errno: 'EFBIG',
      });
    } finally {
      limitFiles('unlimited');
    }
    await expectUntouched(machine, folder);
  });

  it('into a place that is taken, or can not be, is refused', async () => {
    const machine = await startPattern();
    writeFileSync(inFolder('kept'), '');
    const saves = (name: string): Promise<unknown> => machine.snapshot(inFolder(name), how);
    await expect(saves('kept')).rejects.toMatchObject({ errno: 'EEXIST' });
    await expect(saves('kept/snap')).rejects.toMatchObject({ errno: 'ENOTDIR' });
    await expect(saves('nowhere/snap')).rejects.toMatchObject({ code: 'ERR_SNAPSHOT', cause: { errno: 'ENOENT' } });
    await expectUntouched(machine, folder);
  });

  if (isRoot) {
    it('that fills its file system in the middle, or can not write to it, is refused', async () => {
      const machine = await startPattern();
      const mounted = mountTmpfs('8m');
      await expect(machine.snapshot(path.join(mounted, 'snap'), how)).rejects.toMatchObject({ errno: 'ENOSPC' });
      await expectUntouched(machine, mounted);
      execFileSync('mount', ['-o', 'remount,ro', mounted]);
      await expect(machine.snapshot(path.join(mounted, 'snap'), how)).rejects.toMatchObject({ errno: 'EROFS' });
      await expectUntouched(machine, mounted);
    });
  }

  it("of a machine with devices of its user's own is refused by their name", async () => {
    const device = { name: 'own', read: () => 0, write: () => undefined, reset: () => undefined, inspect: () => ({}) };
    const portDevices = [{ firstPort: 0x700, portCount: 1, device }];
    const owns: Record<string, GuestOptions> = {
      portDevices: { portDevices },
      virtioDevices: { virtioDevices: () => [] },
    };
    for (const [name, own] of Object.entries(owns)) {
      const machine = await startPattern(own);
      await expect(machine.snapshot(inFolder('snap'), how)).rejects.toMatchObject({
        code: 'ERR_SNAPSHOT_REFUSED',
        message: expect.stringContaining(name) as string,
      });
      expect(readdirSync(folder)).toEqual([]);
      await runsOn(machine);
    }
  });
});

it('wrong options are mistakes of the caller, before anything is touched', async () => {
  const machine = await startPattern();
  const saves = (options: unknown): Promise<unknown> => machine.snapshot(inFolder('snap'), options as SnapshotOptions);
  for (const options of [
    { mode: 'quick' },
    { compress: 'gzip' },
    { track: 1 },
    { whenBusy: 'wait' },
    { parent: '' },
    { pauseMs: 1 },
    null,
  ]) {
    await expect(saves(options), JSON.stringify(options)).rejects.toThrow(TypeError);
  }
  for (const maxPauseMs of [0, -1, NaN, Infinity, '1']) {
    await expect(saves({ maxPauseMs })).rejects.toThrow(RangeError);
  }
  await expect(machine.snapshot('')).rejects.toThrow(TypeError);
  await expect(machine.snapshot('a\0b')).rejects.toThrow(TypeError);
  const restores = (options: unknown): Promise<unknown> => Machine.restore(inFolder('snap'), options as RestoreOptions);
  for (const options of [
    { memory: 'hot' },
    { clock: 'stop' },
    { start: 'yes' },
    { mask: 1 },
    { overrides: { disk: {} } },
    { overrides: null },
    { speed: 1 },
    null,
  ]) {
    await expect(restores(options), JSON.stringify(options)).rejects.toThrow(TypeError);
  }
  expect(readdirSync(folder)).toEqual([]);
});

it('overrides of what the machine does not have, and wrong names, are refused before anything is opened', async () => {
  const machine = await startPattern();
  const dir = inFolder('snap');
  await machine.snapshot(dir, { mode: 'paused' });
  let opened = false;
  const disk = memoryDisk('1MiB');
  const heard = { ...disk, open: (context: never) => ((opened = true), disk.open(context)) };
  await expect(restore(dir, { overrides: { disks: { none: heard } } })).rejects.toThrow(/'none'/);
  await expect(restore(dir, { name: '-' })).rejects.toThrow(TypeError);
  await expect(restore(dir, { pit: { policy: 'never' as never } })).rejects.toThrow(TypeError);
  expect(opened).toBe(false);
  expect(readdirSync(folder)).toEqual(['snap']);
});

it.each(MEMORIES)('a machine that is restored %s and not started is paused, and masks what it may', async (memory) => {
  const machine = await startPattern();
  const dir = inFolder('snap');
  await machine.snapshot(dir, { mode: 'paused' });
  const clone = await restore(dir, { memory, start: false, mask: true, name: 'clone' });
  expect([clone.state, clone.name]).toEqual(['paused', 'clone']);
  const saved = patternOf(clone);
  await clone.restored!.running;
  await clone.restored!.complete;
  expect(patternOf(clone)).toBe(saved);
  await clone.start();
  await runsOn(clone);
  await clone.pause();
  expect(patternOf(clone)).toBeGreaterThan(saved);
  // Never started, it can be saved and closed too.
  const still = await restore(dir, { memory, start: false });
  await still.snapshot(inFolder('still'), { mode: SHORTEST, maxPauseMs: 20_000 });
  expect(still.state).toBe('paused');
  expect(patternOf(await restore(inFolder('still'), { start: false }))).toBe(saved);
});

it('an aborted restore leaves nothing open, whenever it is', async () => {
  const machine = await startPattern();
  const dir = inFolder('snap');
  await machine.snapshot(dir, { mode: 'paused' });
  for (const memory of MEMORIES) {
    for (const ms of [0, 1, 5, 10]) {
      const ended = await restore(dir, { memory, signal: AbortSignal.timeout(ms) }).then(
        async (clone) => {
          await runsOn(clone);
          return 'restored';
        },
        (error: unknown) => (error as { code?: string }).code,
      );
      expect(['restored', 'ERR_ABORTED']).toContain(ended);
    }
  }
});

/** RLIMIT_FSIZE of this process, soft. */
function limitFiles(bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`]);
}

function mountTmpfs(size: string): string {
  const target = inFolder('mounted');
  mkdirSync(target);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'vivarium-test', target], { stdio: 'pipe' });
  // Lazily: a failed test may have left a file open.
  onTestFinished(() => void execFileSync('umount', ['-l', target]));
  return target;
}
