import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { HostVector } from '../../memory/io-vector.js';
import { beginCut, type CutHost, type DiskCut } from './cut.js';
import { ended } from './disk-model.js';
import { diskReferenceState, restoreDisk, type DiskReference } from './disk-reference.js';
import { faultyDisk } from './faulty.js';
import { fileDisk } from './file.js';
import { memoryDisk } from './memory.js';
import { BlockProvider, type BlockProviderOptions } from './provider.js';
import { createQcow2Overlay, qcow2Disk } from './qcow2/index.js';
import type { BlockSource } from './source.js';
import { TestingEngine } from './testing-engine.js';

const SIZE = 256 * 1024;
const PIECE = 4096;
const [FIRST, SECOND, CLONE] = ['1', '2', '3'].map((digit) => `0000000${digit}-0000-4000-8000-000000000000`) as [
  string,
  string,
  string,
];

let folder: string;
beforeEach(() => (folder = mkdtempSync(path.join(tmpdir(), 'vivarium-cut-'))));
afterEach(() => rmSync(folder, { recursive: true }));
const inFolder = (name: string): string => path.join(folder, name);
const imageOf = (generation: string): string =>
  readdirSync(folder).find((name) => name.endsWith(`.${generation}.qcow2`))!;

type DiskOptions = Pick<BlockProviderOptions, 'readOnly' | 'copyOnWrite' | 'limits' | 'clock'>;

function open(source: BlockSource, options: DiskOptions = {}): Promise<BlockProvider> {
  return BlockProvider.open(source, { id: 'root', engine: new TestingEngine(), logger: silentLogger, ...options });
}

async function write(disk: BlockProvider, offset: number, value: number): Promise<void> {
  const data = new HostVector(new Uint8Array(PIECE).fill(value));
  expect(await ended((done) => disk.write(offset, data, done))).toBeUndefined();
}

async function read(disk: BlockProvider, offset: number): Promise<number> {
  const data = new HostVector(new Uint8Array(PIECE));
  expect(await ended((done) => disk.read(offset, data, done))).toBeUndefined();
  expect(new Set(data.bytes).size).toBe(1);
  return data.bytes[0]!;
}

/** A disk as its cut sees it, to be changed for a test. */
function cutHostOf({ id, readOnly, geometry, source, keepsContents }: BlockProvider): CutHost {
  const never = (): never => {
    throw new Error('not to be called');
  };
  return { id, readOnly, geometry, source, keepsContents, ...NEW, freeze: never, rebind: never, flushNow: never };
}
const NEW = { copiesOnWrite: false, changes: 0 };

/** As a snapshot does it: the guest asks for more while the disk is at rest. */
async function cut(disk: BlockProvider, generation: string): Promise<DiskReference> {
  const pending = await beginCut(disk, { generation, folder });
  await disk.prepare();
  const late = write(disk, 0, 99);
  const taken = await pending.take();
  disk.resume();
  await late;
  const reference = await taken.durable();
  // What a file of the snapshot's makes of it.
  return diskReferenceState.load(structuredClone(diskReferenceState.save(reference)));
}

async function restored(reference: DiskReference, options?: DiskOptions, source?: BlockSource): Promise<BlockProvider> {
  const found = await restoreDisk(reference, { folder, clone: CLONE });
  const disk = await open(source ?? found.source!, options);
  if (found.changes) disk.fill(found.changes);
  return disk;
}

it('a block device that is written to is refused by its name, also behind a link and in qcow2', async (context) => {
  const node = inFolder('device');
  try {
    // A number that no driver has: nothing opens it.
    execFileSync('mknod', [node, 'b', '0', '0'], { stdio: 'pipe' });
  } catch (error) {
    context.skip(`no node of a block device can be made: ${(error as Error).message.trim()}`);
  }
  symlinkSync(node, inFolder('link'));
  const disk = await open(memoryDisk(SIZE));
  for (const name of ['device', 'link']) {
    for (const source of [
      fileDisk(inFolder(name)),
      qcow2Disk(inFolder(name)),
      faultyDisk(fileDisk(inFolder(name)), {}),
    ]) {
      const host = { ...cutHostOf(disk), keepsContents: false, source };
      await expect(beginCut(host, { generation: FIRST, folder })).rejects.toMatchObject({
        code: 'ERR_SNAPSHOT_REFUSED',
        message: `disk root can't be cut: ${inFolder(name)} is a block device, beside which no image can lie`,
        cure: expect.stringContaining('copyOnWrite') as string,
      });
    }
  }
  expect(readdirSync(folder).sort()).toEqual(['device', 'link']);
});

describe('a disk that is cut', () => {
  it.each([
    ['raw', (file: string) => fileDisk(file)],
    ['raw, with faults to come', (file: string) => faultyDisk(fileDisk(file), { without: ['discard'] })],
    ['qcow2', (file: string) => qcow2Disk(`${file}.qcow2`)],
  ])('%s: the machine goes on over it, and a clone beside it, each with its own changes', async (_name, source) => {
    writeFileSync(inFolder('disk'), new Uint8Array(SIZE).fill(7));
    await createQcow2Overlay(inFolder('disk.qcow2'), { backing: inFolder('disk'), backingFormat: 'raw' });
    const disk = await open(source(inFolder('disk')));
    await write(disk, PIECE, 1);
    const reference = await cut(disk, FIRST);
    expect(reference).toMatchObject({ kind: 'frozen', id: 'root', generation: FIRST, sizeBytes: SIZE });
    await write(disk, PIECE, 2);
    // Again, while the first one is there: images lie upon each other, names do not grow.
    const second = await cut(disk, SECOND);
    await write(disk, PIECE, 3);
    for (const generation of [FIRST, SECOND]) {
      const image = imageOf(generation);
      expect(image.split('.').filter((part) => part.includes('-'))).toHaveLength(1);
      expect(statSync(inFolder(image)).mode & 0o777).toBe(0o600);
    }
    expect([await read(disk, 0), await read(disk, PIECE), await read(disk, 2 * PIECE)]).toEqual([99, 3, 7]);

    const clone = await restored(reference);
    expect(
      imageOf(CLONE)
        .split('.')
        .filter((part) => part.includes('-')),
    ).toHaveLength(1);
    expect([await read(clone, 0), await read(clone, PIECE), await read(clone, 2 * PIECE)]).toEqual([7, 1, 7]);
    await write(clone, 0, 55);
    rmSync(inFolder(imageOf(CLONE)));
    const next = await restored(second);
    expect(
      imageOf(CLONE)
        .split('.')
        .filter((part) => part.includes('-')),
    ).toHaveLength(1);
    expect([await read(next, 0), await read(next, PIECE)]).toEqual([99, 2]);
    expect([await read(disk, 0), await read(clone, 0)]).toEqual([99, 55]);
    await Promise.all([disk.close(), clone.close(), next.close()]);
  });

  it('goes on as before when the cut is undone, or was not wanted', async () => {
    writeFileSync(inFolder('disk'), new Uint8Array(SIZE).fill(7));
    const disk = await open(fileDisk(inFolder('disk')));
    const unwanted = await beginCut(disk, { generation: FIRST, folder });
    expect(readdirSync(folder)).toHaveLength(2);
    await unwanted.cancel();
    const pending = await beginCut(disk, { generation: SECOND, folder });
    await disk.prepare();
    const taken = await pending.take();
    expect(disk.contract.backend.kind).toBe('qcow2');
    await taken.undo();
    disk.resume();
    expect(disk.contract.backend).toMatchObject({ kind: 'file' });
    expect(readdirSync(folder)).toEqual(['disk']);
    await write(disk, 0, 1);
    await disk.close();
    await expect(beginCut(disk, { generation: FIRST, folder, signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
  });

  it.each([
    ['raw', () => fileDisk(inFolder('disk')), {}],
    ['in memory', () => memoryDisk(SIZE), {}],
    ['only read', () => fileDisk(inFolder('disk')), { readOnly: true }],
    ['with changes in memory', () => fileDisk(inFolder('disk')), { copyOnWrite: { maxBytes: SIZE } }],
  ])(
    '%s: is not when it was rebound meanwhile, and stands on what its user gave it',
    async (_name, source, options) => {
      for (const name of ['disk', 'other']) writeFileSync(inFolder(name), new Uint8Array(SIZE).fill(7));
      const other = fileDisk(inFolder('other'));
      const disk = await open(source(), options);
      const pending = await beginCut(disk, { generation: FIRST, folder });
      await disk.rebind(other);
      await disk.prepare();
      const why = { code: 'ERR_SNAPSHOT_REFUSED', message: expect.stringContaining('rebound') as string };
      await expect(pending.take()).rejects.toMatchObject(why);
      await pending.cancel();
      expect(disk.source).toBe(other);
      expect(readdirSync(folder)).toEqual(['disk', 'other']);
      await disk.close();
    },
  );

  it('is not when a change of its backend stands before it in the queue', async () => {
    for (const name of ['disk', 'other']) writeFileSync(inFolder(name), new Uint8Array(SIZE).fill(7));
    const other = fileDisk(inFolder('other'));
    const disk = await open(fileDisk(inFolder('disk')));
    const pending = await beginCut(disk, { generation: FIRST, folder });
    await disk.prepare();
    const rebound = disk.rebind(other);
    await expect(pending.take()).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_REFUSED' });
    await rebound;
    expect(disk.source).toBe(other);
    expect(readdirSync(folder)).toEqual(['disk', 'other']);
    await disk.close();
  });

  it('released later goes back to what it was, unless the guest has written since', async () => {
    writeFileSync(inFolder('disk'), new Uint8Array(SIZE).fill(7));
    const disk = await open(fileDisk(inFolder('disk')));
    const take = async (generation: string): Promise<DiskCut> => {
      const pending = await beginCut(disk, { generation, folder });
      await disk.prepare();
      const taken = await pending.take();
      disk.resume();
      return taken;
    };
    const vain = await take(FIRST);
    expect(await read(disk, 0)).toBe(7);
    await vain.release();
    await vain.release();
    expect(disk.contract.backend).toMatchObject({ kind: 'file' });
    expect(readdirSync(folder)).toEqual(['disk']);
    const used = await take(SECOND);
    await write(disk, 0, 1);
    await used.release();
    expect(disk.contract.backend).toMatchObject({ kind: 'qcow2' });
    expect(readdirSync(folder)).toEqual(['disk', imageOf(SECOND)]);
    expect(await read(disk, 0)).toBe(1);
    // What its user does with it afterwards is no business of the cut's.
    await disk.rebind(memoryDisk(SIZE));
    await used.release();
    expect(readdirSync(folder)).toEqual(['disk', imageOf(SECOND)]);
    await disk.close();
  });

  it('waits for a flush no longer than its signal lets it, and stands in no line of the guest', async () => {
    writeFileSync(inFolder('disk'), new Uint8Array(SIZE).fill(7));
    const limits = { operationsPerSecond: 1, operationsBurst: 1 };
    const disk = await open(fileDisk(inFolder('disk')), { limits, clock: new ManualClock() });
    const late: Promise<unknown>[] = [];
    for (let at = 0; at < 3; at++) {
      const data = new HostVector(new Uint8Array(PIECE));
      late.push(ended((done) => disk.read(at * PIECE, data, done)));
    }
    expect(disk.inspect().paced).toBe(2);
    const pending = await beginCut(disk, { generation: FIRST, folder });
    await pending.cancel();
    expect(disk.inspect().paced).toBe(2);

    const end = new AbortController();
    const held = { ...cutHostOf(disk), flushNow: () => end.abort() };
    await expect(beginCut(held, { generation: FIRST, folder, signal: end.signal })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    expect(readdirSync(folder)).toEqual(['disk']);
    disk.abandon();
    await Promise.all(late);
    await disk.close();
  });

  it('in memory: its contents are those of the instant', async () => {
    const disk = await open(memoryDisk(SIZE));
    await write(disk, 0, 1);
    await write(disk, 2 * 65536, 2);
    const reference = await cut(disk, FIRST);
    expect(reference).toMatchObject({ kind: 'contents', file: 'disk-root.contents' });
    expect(statSync(inFolder('disk-root.contents')).mode & 0o777).toBe(0o600);
    const clone = await restored(reference);
    expect([await read(clone, 0), await read(clone, 65536), await read(clone, 2 * 65536)]).toEqual([1, 0, 2]);
    expect(await read(disk, 0)).toBe(99);
    truncateSync(inFolder('disk-root.contents'), 100);
    await expect(restored(reference)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT' });
    await Promise.all([disk.close(), clone.close()]);
  });

  it('with changes in memory: these are kept, and the disk below must be the same', async () => {
    writeFileSync(inFolder('base'), new Uint8Array(SIZE).fill(7));
    const options = { copyOnWrite: { maxBytes: SIZE } };
    const disk = await open(fileDisk(inFolder('base')), options);
    await write(disk, PIECE, 1);
    await ended((done) => disk.writeZeroes(2 * PIECE, PIECE, true, done));
    const reference = await cut(disk, FIRST);
    const clone = await restored(reference, options);
    const seen = [await read(clone, 0), await read(clone, PIECE), await read(clone, 2 * PIECE), await read(disk, 0)];
    expect(seen).toEqual([7, 1, 0, 99]);
    await expect(restored(reference, {}, memoryDisk(SIZE))).rejects.toThrow(/disk root keeps no changes/);
    await Promise.all([disk.close(), clone.close()]);
    appendFileSync(inFolder('base'), new Uint8Array(512));
    await expect(restored(reference, options)).rejects.toThrow(/disk root: .*base has changed since/);
    rmSync(inFolder('base'));
    await expect(restored(reference, options)).rejects.toMatchObject({ code: 'ERR_DISK_IMAGE' });
  });

  it('only read: is referred to', async () => {
    writeFileSync(inFolder('base'), new Uint8Array(SIZE).fill(7));
    const disk = await open(fileDisk(inFolder('base')), { readOnly: true });
    const taken = await (await beginCut(disk, { generation: FIRST, folder })).take();
    const reference = await taken.durable();
    expect(reference).toMatchObject({ kind: 'base', base: { path: inFolder('base'), fileBytes: SIZE } });
    const { source, ...nothing } = await restoreDisk(reference, { folder, clone: CLONE });
    expect([source!.describe(), nothing]).toEqual([{ kind: 'file', path: inFolder('base') }, {}]);
    expect(await restoreDisk(reference, { folder, clone: CLONE, isOverridden: true })).toEqual({});
    await disk.close();
    expect(readdirSync(folder)).toEqual(['base']);
  });

  it('is refused by name where nothing can be laid over it', async () => {
    writeFileSync(inFolder('disk'), new Uint8Array(SIZE));
    const { overlay: _none, ...bare } = fileDisk(inFolder('disk'));
    const disk = await open(bare);
    await expect(beginCut(disk, { generation: FIRST, folder })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      message: expect.stringContaining('disk root') as string,
    });
    await disk.close();
  });
});
