/** Rebinds where the old and the new backend stand on the same files, so that what one keeps in memory may be stale. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Qcow2Header } from '../../../abi/qcow2.js';
import { silentLogger } from '../../../base/logger.js';
import { MiB } from '../../../base/units.js';
import type { IoDone } from '../../../memory/io-engine.js';
import { HostVector, type IoVector } from '../../../memory/io-vector.js';
import { checkAll, DiskModel, driveLoad, ended } from '../disk-model.js';
import { faultyDisk } from '../faulty.js';
import { fileDisk } from '../file.js';
import { memoryDisk } from '../memory.js';
import { BlockProvider } from '../provider.js';
import type { BlockSource } from '../source.js';
import { TestingEngine } from '../testing-engine.js';
import { createQcow2Image } from './create.js';
import { createQcow2Overlay, qcow2Disk } from './index.js';
import { checkImage } from './testing-check.js';
import { HAS_QEMU_IMG, qemuCheck, temporaryFolder } from './testing.js';

const { EIO } = constants.errno;
const SIZE = 256 * 1024;
const ALL_OFF = ['flush', 'discard', 'write-zeroes', 'identify', 'resize', 'topology'] as const;
let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => (folder = temporaryFolder()));
afterEach(() => folder.remove());
const inFolder = (name: string): string => path.join(folder.path, name);
const open = (source: BlockSource) =>
  BlockProvider.open(source, { id: 'root', engine: new TestingEngine(), logger: silentLogger });

async function expectSound(image: string): Promise<void> {
  expect(checkImage(readFileSync(image))).toEqual({ corruptions: 0, leaks: 0 });
  if (HAS_QEMU_IMG) expect(await qemuCheck(image)).toEqual({ corruptions: 0, leaks: 0, errors: 0 });
}

it('leaves an image whose sync failed as its last commit left it', async () => {
  const image = inFolder('dying.qcow2');
  await createQcow2Image(image, { sizeBytes: SIZE });
  let fails = false;
  let hasSwitched = (): boolean => false;
  let lateWrites = 0;
  const intercept = (call: string): number | undefined => {
    if (call === 'write' && hasSwitched()) lateWrites++;
    return call === 'sync' && fails ? -EIO : undefined;
  };
  const engine = new TestingEngine({ intercept });
  const disk = await BlockProvider.open(qcow2Disk(image), { id: 'root', engine, logger: silentLogger });
  const write = (offset: number, value: number) =>
    ended((done) => disk.write(offset, new HostVector(new Uint8Array(4096).fill(value)), done));
  await write(0, 1);
  expect(await ended((done) => disk.flush(done))).toBeUndefined();
  fails = true;
  await write(128 * 1024, 2);
  await expect(disk.rebind(memoryDisk(SIZE))).rejects.toMatchObject({
    code: 'ERR_DISK_IMAGE',
    cure: expect.stringContaining('acceptLoss'),
  });
  // Onto the same image: what the old one still had in mind must not come over what the new one writes.
  hasSwitched = () => disk.contract.rebinds > 0;
  const { lost } = await disk.rebind(qcow2Disk(image), { acceptLoss: true });
  expect(lost).toContain('sync');
  expect(lateWrites).toBe(0);
  fails = false;
  expect(await ended((done) => disk.flush(done))).toMatchObject({ code: 'io' });
  const data = new HostVector(new Uint8Array(4096));
  expect(await ended((done) => disk.read(0, data, done))).toBeUndefined();
  expect(data.bytes.every((byte) => byte === 1)).toBe(true);
  await write(64 * 1024, 3);
  expect(await ended((done) => disk.flush(done))).toBeUndefined();
  await disk.close();
  expect(checkImage(readFileSync(image))).toMatchObject({ corruptions: 0 });
});

/** Changes the backend again and again while a load checks all that it reads. */
async function rebindUnderLoad(disk: BlockProvider, model: DiskModel, ways: readonly BlockSource[]): Promise<void> {
  let over = false;
  const load = (async () => {
    for (let seed = 100; !over; seed++) await driveLoad(disk, model, { seed, requests: 40, depth: 16 });
  })();
  for (const way of ways) await disk.rebind(way);
  over = true;
  await load;
  await checkAll(disk, model);
  expect(Object.values(disk.contract.functions).reduce((sum, { errors }) => sum + errors, 0)).toBe(0);
}

/** Has something done before or after the first read of the file's start. */
class GrowingEngine extends TestingEngine {
  readonly #when: 'before' | 'after';
  #grow: (() => Promise<void>) | undefined;

  constructor(when: 'before' | 'after', grow: () => Promise<void>) {
    super();
    this.#when = when;
    this.#grow = grow;
  }

  override read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const grow = this.#grow;
    if (offset !== 0 || grow === undefined) {
      super.read(fd, offset, data, done);
      return;
    }
    this.#grow = undefined;
    if (this.#when === 'before') void grow().then(() => super.read(fd, offset, data, done));
    else super.read(fd, offset, data, (result) => void grow().then(() => done(result)));
  }
}

describe('a rebind of a qcow2 image', () => {
  it('to itself keeps every byte and the image, 60 times under load', async () => {
    const image = inFolder('disk.qcow2');
    await createQcow2Image(image, { sizeBytes: SIZE, clusterBytes: 1024 });
    const same = qcow2Disk(image, { cacheBytes: 8192 });
    const disk = await open(same);
    const model = new DiskModel(SIZE / 512);
    const ways = [same, faultyDisk(same, { without: ALL_OFF }), qcow2Disk(image)];
    await rebindUnderLoad(
      disk,
      model,
      Array.from({ length: 60 }, (_, index) => ways[index % ways.length]!),
    );
    expect(disk.contract.rebinds).toBe(60);
    await disk.close();
    await expectSound(image);
  });

  it('to an overlay over it, and over that, keeps every byte', async () => {
    writeFileSync(inFolder('level0'), new Uint8Array(SIZE));
    const disk = await open(fileDisk(inFolder('level0')));
    const model = new DiskModel(SIZE / 512);
    await driveLoad(disk, model, { seed: 1, requests: 50, depth: 8 });
    const ways: BlockSource[] = [];
    for (let level = 1; level <= 4; level++) {
      const backing = inFolder(`level${level - 1}`);
      await createQcow2Overlay(inFolder(`level${level}`), { backing, clusterBytes: 1024 });
      ways.push(qcow2Disk(inFolder(`level${level}`)));
    }
    await rebindUnderLoad(disk, model, ways);
    await disk.close();
    for (const level of [1, 2, 3, 4]) await expectSound(inFolder(`level${level}`));
    // The lower ones are as they were left.
    const top = await open(qcow2Disk(inFolder('level4')));
    await checkAll(top, model);
    await top.close();
  });

  it.each(['itself', 'an overlay over it'])('to %s sees what was written after it was opened', async (what) => {
    const image = inFolder('disk.qcow2');
    await createQcow2Image(image, { sizeBytes: SIZE, clusterBytes: 512 });
    const disk = await open(qcow2Disk(image));
    let next = qcow2Disk(image);
    if (what !== 'itself') {
      await createQcow2Overlay(inFolder('over.qcow2'), { backing: image });
      next = qcow2Disk(inFolder('over.qcow2'));
    }
    const sectors = [0, 100, 511].map((at) => at * 512);
    const late: BlockSource = {
      ...next,
      open: async (context) => {
        const backend = await next.open(context);
        for (const at of sectors) {
          const data = new HostVector(new Uint8Array(512).fill(7));
          expect(await ended((done) => disk.write(at, data, done))).toBeUndefined();
        }
        return backend;
      },
    };
    await disk.rebind(late);
    for (const at of sectors) {
      const data = new HostVector(new Uint8Array(512));
      expect(await ended((done) => disk.read(at, data, done))).toBeUndefined();
      expect(data.bytes.every((byte) => byte === 7)).toBe(true);
    }
    await disk.close();
    await expectSound(image);
  });

  it.each(['before', 'after'] as const)(
    'to itself is not refused when the old backend makes the file grow %s the header is read',
    async (when) => {
      const image = inFolder('disk.qcow2');
      const sizeBytes = 16 * MiB;
      await createQcow2Image(image, { sizeBytes, clusterBytes: 512 });
      const disk = await open(qcow2Disk(image));
      const beforeBytes = statSync(image).size;
      const tableBefore = readFileSync(image).readBigUInt64BE(Qcow2Header.REFCOUNT_OFFSET);
      // Enough for new L2 tables and for a refcount table that has to move.
      const data = new HostVector(new Uint8Array(10 * MiB).fill(7));
      const grow = async () => {
        expect(await ended((done) => disk.write(0, data, done))).toBeUndefined();
        expect(await ended((done) => disk.flush(done))).toBeUndefined();
      };
      const engine = new GrowingEngine(when, grow);
      await disk.rebind({
        ...qcow2Disk(image),
        open: (context) => qcow2Disk(image).open({ ...context, engine }),
      });
      expect(statSync(image).size).toBeGreaterThan(beforeBytes);
      expect(readFileSync(image).readBigUInt64BE(Qcow2Header.REFCOUNT_OFFSET)).not.toBe(tableBefore);
      const read = new HostVector(new Uint8Array(10 * MiB));
      expect(await ended((done) => disk.read(0, read, done))).toBeUndefined();
      expect(Buffer.compare(read.bytes, data.bytes)).toBe(0);
      await disk.close();
      await expectSound(image);
    },
  );

  it('to a larger overlay over it grows the disk', async () => {
    const image = inFolder('disk.qcow2');
    await createQcow2Image(image, { sizeBytes: SIZE });
    const disk = await open(qcow2Disk(image));
    const sizes: number[] = [];
    disk.onGeometry(({ sizeBytes }) => sizes.push(sizeBytes));
    const data = new HostVector(new Uint8Array(512).fill(3));
    await ended((done) => disk.write(0, data, done));
    await createQcow2Overlay(inFolder('larger.qcow2'), { backing: image, sizeBytes: 4 * SIZE });
    await disk.rebind(qcow2Disk(inFolder('larger.qcow2')), { allowLarger: true });
    expect(sizes).toEqual([4 * SIZE]);
    expect(await ended((done) => disk.write(4 * SIZE - 512, data, done))).toBeUndefined();
    const read = new HostVector(new Uint8Array(1024));
    expect(await ended((done) => disk.read(0, read.slice(0, 512), done))).toBeUndefined();
    expect(await ended((done) => disk.read(4 * SIZE - 512, read.slice(512, 512), done))).toBeUndefined();
    expect(read.bytes.every((byte) => byte === 3)).toBe(true);
    await disk.close();
    await expectSound(inFolder('larger.qcow2'));
  });

  it('is refused to somebody else, and to an image that names another backing file by then', async () => {
    const image = inFolder('disk.qcow2');
    for (const name of ['a', 'b']) writeFileSync(inFolder(name), new Uint8Array(SIZE));
    await createQcow2Image(image, { sizeBytes: SIZE, backing: { name: 'a', format: 'raw' } });
    const disk = await open(qcow2Disk(image));
    await expect(open(qcow2Disk(image))).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' });
    const turned: BlockSource = {
      ...qcow2Disk(image),
      open: async (context) => {
        const backend = await qcow2Disk(image).open(context);
        const bytes = readFileSync(image);
        bytes[Number(bytes.readBigUInt64BE(8))] = 'b'.charCodeAt(0);
        writeFileSync(image, bytes);
        return backend;
      },
    };
    await expect(disk.rebind(turned)).rejects.toThrow(/another one is named/);
    const data = new HostVector(new Uint8Array(512).fill(1));
    expect(await ended((done) => disk.write(0, data, done))).toBeUndefined();
    await disk.close();
  });
});
