/** Snapshots of machines with disks: what is left of one that failed, and what a clone stands on. */
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { type BlockSource, callbackConsole, fileDisk, memoryDisk } from '../../lib/vsp/index.js';
import { MODES, progress, restore, runsOn, snapshotFolder, startPattern } from '../lib/snapshots.js';

const SIZE = 2 ** 20;

let folder: string;
let image: string;
let base: string;
beforeEach(() => {
  folder = snapshotFolder();
  [image, base] = ['disk.img', 'base.img'].map((name) => path.join(folder, name)) as [string, string];
  for (const file of [image, base]) writeFileSync(file, new Uint8Array(SIZE));
});

const disks = () => [
  { id: 'root', backend: fileDisk(image) },
  { id: 'scratch', backend: memoryDisk(SIZE) },
  { id: 'kept', backend: fileDisk(base), copyOnWrite: SIZE },
  { id: 'read', backend: fileDisk(base), readOnly: true },
];

/** Only read. The snapshot asks it what it is when it makes disks durable, which is after the instant. */
function tellingDisk(onDurable: () => void): BlockSource {
  const disk = fileDisk(base);
  return {
    ...disk,
    describe: () => {
      onDurable();
      return disk.describe();
    },
  };
}

it.each(MODES)('one that fails after its instant leaves no file and no longer chain: %s', async (mode) => {
  let end = new AbortController();
  const telling = { id: 'telling', backend: tellingDisk(() => end.abort()), readOnly: true };
  const machine = await startPattern({ disks: [...disks(), telling] });
  for (let time = 0; time < 3; time++) {
    end = new AbortController();
    const saving = machine.snapshot(path.join(folder, 'never'), { mode, signal: end.signal, maxPauseMs: 5000 });
    await expect(saving).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(end.signal.aborted).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['base.img', 'disk.img']);
    expect(machine.device('root').contract.backend).toMatchObject({ kind: 'file', path: image });
    await runsOn(machine);
  }
});

it(
  'a clone stands on the same, each with its own changes, and one that fails leaves nothing',
  { timeout: 60_000 },
  async () => {
    const ports = [{ id: 'port', backend: callbackConsole(() => undefined) }];
    const machine = await startPattern({ disks: disks(), consolePorts: ports });
    const { dir } = await machine.snapshot(path.join(folder, 'snap'), { mode: 'paused' });
    await machine.close();
    const before = readdirSync(folder);
    const changedMs = statSync(image).mtimeMs;
    await expect(restore(dir)).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT',
      cure: expect.stringContaining("console: { 'port'") as string,
    });
    const console = { port: callbackConsole(() => undefined) };
    await expect(restore(dir, { overrides: { console, disks: { rot: memoryDisk(SIZE) } } })).rejects.toThrow(
      RangeError,
    );
    // Too small, which is known when it is open.
    const small = { root: memoryDisk(512) };
    await expect(restore(dir, { overrides: { console, disks: { ...small } } })).rejects.toMatchObject({
      code: 'ERR_DISK_IMAGE',
    });
    const kept = { kept: memoryDisk(512) };
    await expect(restore(dir, { overrides: { console, disks: kept } })).rejects.toMatchObject({
      code: 'ERR_DISK_IMAGE',
    });
    await expect(restore(dir, { overrides: { console }, name: 'no name' })).rejects.toThrow(TypeError);
    expect(readdirSync(folder)).toEqual(before);

    const clone = await restore(dir, { overrides: { console } });
    const backends = ['root', 'scratch', 'kept', 'read'].map((id) => clone.device(id).contract.backend);
    expect(backends.map(({ kind }) => kind)).toEqual(['qcow2', 'memory', 'copy-on-write', 'file']);
    expect(backends[2]).toMatchObject({ base: { kind: 'file', path: base } });
    await runsOn(clone);
    expect(progress(clone)).toBeGreaterThan(0);
    expect(readdirSync(folder)).toHaveLength(before.length + 1);
    expect(statSync(image).mtimeMs).toBe(changedMs);
  },
);
