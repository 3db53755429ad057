import { constants as fsConstants, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../base/logger.js';
import { HostVector } from '../../memory/io-vector.js';
import { blockDeviceFacts, deviceNumber } from './block-device.js';
import { ended } from './disk-model.js';
import { fileDisk } from './file.js';
import type { LockFile } from './image-lock.js';
import { BlockProvider, type BlockProviderOptions } from './provider.js';
import { TestingEngine, type TestingEngineOptions } from './testing-engine.js';

const SIZE = 64 * 1024;
let folder: string;
let image: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'vsp-file-'));
  image = path.join(folder, 'disk.img');
  await writeFile(image, new Uint8Array(SIZE));
});
afterEach(() => rm(folder, { recursive: true }));

const open = (file = image, engine: TestingEngineOptions = {}, options: Partial<BlockProviderOptions> = {}) =>
  BlockProvider.open(fileDisk(file), {
    id: 'root',
    engine: new TestingEngine(engine),
    logger: silentLogger,
    ...options,
  });
/** Undefined for one that has been closed. */
function pathOf(fd: string): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}
const bytes = (length: number) => new HostVector(new Uint8Array(length));

describe('fileDisk', () => {
  it.each<[string, () => Promise<string>, RegExp]>([
    ['missing', () => Promise.resolve(path.join(folder, 'no.img')), /does not exist/],
    ['a directory', () => Promise.resolve(folder), /is a directory/],
    ['in no directory', () => Promise.resolve(path.join(image, 'x')), /does not exist/],
    ['no disk', () => Promise.resolve('/dev/null'), /neither a regular file nor a block device/],
    ['empty', () => truncate(image, 0).then(() => image), /is empty/],
    ['of an odd size', () => truncate(image, SIZE + 1).then(() => image), /65537 bytes, not a multiple of 512/],
  ])('refuses a path that is %s', async (_what, make, message) => {
    const file = await make();
    const failure = await open(file).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'ERR_DISK_IMAGE', cure: expect.any(String) });
    expect((failure as Error).message).toMatch(message);
    expect((failure as Error).message).toContain(file);
  });

  it('leaves what would block to the kernel: its descriptor waits', async () => {
    const provider = await open();
    const flags = readdirSync('/proc/self/fd')
      .filter((fd) => pathOf(fd) === image)
      .map((fd) => /^flags:\s+([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]);
    await provider.close();
    // The image, and what holds its lock where that is another.
    expect(flags.length).toBeGreaterThan(0);
    for (const octal of flags) expect(Number.parseInt(octal!, 8) & fsConstants.O_NONBLOCK).toBe(0);
  });

  it('refuses a file that may not be written, and reads it', async (context) => {
    if (process.getuid?.() === 0) {
      context.skip('root may write everything');
      return;
    }
    await chmod(image, 0o400);
    await expect(open()).rejects.toMatchObject({ code: 'ERR_DISK_IMAGE', cure: expect.stringContaining('readOnly') });
    await (await open(image, {}, { readOnly: true })).close();
  });

  it('has one writer or many readers, also by another path, until it is closed', async () => {
    const link = path.join(folder, 'link.img');
    await symlink(image, link);
    const writer = await open();
    await expect(open(link)).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' });
    await expect(open(image, {}, { readOnly: true })).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' });
    await writer.close();
    const readers = [await open(image, {}, { readOnly: true }), await open(link, {}, { readOnly: true })];
    await expect(open()).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED', cure: expect.any(String) });
    for (const reader of readers) await reader.close();
    await (await open()).close();
  });

  it('asks the kernel for the lock, and respects its answer', async () => {
    const asked: string[] = [];
    const lockFile: LockFile = (_fd, mode) => {
      asked.push(mode);
      return mode === 'shared';
    };
    const source = fileDisk(image, { lockFile });
    const rest = { id: 'root', engine: new TestingEngine(), logger: silentLogger };
    await expect(BlockProvider.open(source, rest)).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' });
    const reader = await BlockProvider.open(source, { ...rest, copyOnWrite: { maxBytes: 4096 } });
    await reader.close();
    expect(asked).toEqual(['exclusive', 'shared']);
  });

  it('refuses misspelled options and what is no path', () => {
    expect(() => fileDisk(image, { readonly: true } as object)).toThrow(/did you mean 'readOnly'/);
    expect(() => fileDisk('')).toThrow(TypeError);
  });

  it('emulates discard and write-zeroes after the first EOPNOTSUPP, and says so', async () => {
    const disk = await open(image, { allocates: [] });
    expect(disk.contract.functions).toMatchObject({ discard: { by: 'native' }, 'write-zeroes': { by: 'native' } });
    expect(await ended((done) => disk.discard(0, 4096, done))).toBeUndefined();
    expect(await ended((done) => disk.writeZeroes(0, 4096, true, done))).toBeUndefined();
    expect(disk.contract.functions).toMatchObject({ discard: { by: 'emulated' }, 'write-zeroes': { by: 'emulated' } });
    await disk.close();
  });

  it('zeroes by what the file system has, and emulates only the rest', async () => {
    const asked: string[] = [];
    const modes = ['punch-hole', 'zero-range'] as const;
    for (const has of modes) {
      const engine = new TestingEngine({ allocates: [has] });
      const { allocate } = engine;
      engine.allocate = (fd, mode, ...rest) => {
        asked.push(mode);
        allocate.call(engine, fd, mode, ...rest);
      };
      const disk = await open(image, {}, { engine });
      for (let round = 0; round < 2; round++) {
        for (const mayUnmap of [false, true]) {
          expect(
            await ended((done) => disk.write(0, new HostVector(new Uint8Array(4096).fill(1)), done)),
          ).toBeUndefined();
          expect(await ended((done) => disk.writeZeroes(512, 1024, mayUnmap, done))).toBeUndefined();
          const data = bytes(4096);
          await ended((done) => disk.read(0, data, done));
          expect(data.bytes.every((byte, at) => byte === (at >= 512 && at < 1536 ? 0 : 1))).toBe(true);
        }
      }
      expect(disk.contract.functions['write-zeroes']).toMatchObject({ by: 'native', calls: 4, errors: 0 });
      await disk.close();
    }
    // tmpfs first: no zeroed range is asked for twice; then a file system without holes.
    expect(asked).toEqual([
      ...['zero-range', 'punch-hole', 'punch-hole'],
      ...['zero-range', 'punch-hole', 'zero-range', 'zero-range', 'zero-range'],
    ]);
  });

  it.each([
    ['ENOSPC', 'no-space'],
    ['EDQUOT', 'no-space'],
    ['EIO', 'io'],
    ['EOPNOTSUPP', 'io'],
  ] as const)('ends a write that met %s with %s', async (errno, code) => {
    const intercept = (what: string) => (what === 'write' ? -constants.errno[errno] : undefined);
    const disk = await open(image, { intercept });
    const error = await ended((done) => disk.write(0, bytes(512), done));
    expect(error).toMatchObject({ code, message: expect.stringContaining(image) });
    await disk.close();
  });

  it('goes on after short counts', async () => {
    const disk = await open(image, { maxBytes: 1000 });
    const data = new HostVector(Uint8Array.from({ length: 8192 }, (_, i) => i % 251));
    expect(await ended((done) => disk.write(512, data, done))).toBeUndefined();
    const read = bytes(8192);
    expect(await ended((done) => disk.read(512, read, done))).toBeUndefined();
    expect(Buffer.compare(read.bytes, data.bytes)).toBe(0);
    await disk.close();
  });

  it("gives 'io' where the file ended underneath, and notices when it is asked to look", async () => {
    const disk = await open();
    await truncate(image, 4096);
    expect((await ended((done) => disk.read(4096, bytes(512), done)))?.code).toBe('io');
    expect(await ended((done) => disk.read(0, bytes(512), done))).toBeUndefined();
    expect((await disk.refreshGeometry()).sizeBytes).toBe(4096);
    expect((await ended((done) => disk.read(4096, bytes(512), done)))?.code).toBe('out-of-range');
    await disk.close();
  });
});

describe('blockDeviceFacts', () => {
  async function device(sysfs: string, where: string, files: Record<string, string>): Promise<void> {
    await mkdir(path.join(sysfs, 'dev/block'), { recursive: true });
    for (const [name, text] of Object.entries(files)) {
      const file = path.join(sysfs, where, name);
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, `${text}\n`);
    }
  }

  it('reads sizes and serial of a disk, and those of the disk for a partition', async () => {
    const sysfs = path.join(folder, 'sys');
    const queue = { logical_block_size: '4096', physical_block_size: '8192', optimal_io_size: '65536' };
    const limits = Object.fromEntries(Object.entries(queue).map(([name, value]) => [`queue/${name}`, value]));
    await device(sysfs, 'devices/sda', { size: '2048', 'device/serial': 'WD-1', ...limits });
    await device(sysfs, 'devices/sda/sda1', { size: '1024', partition: '1' });
    await symlink('../../devices/sda', path.join(sysfs, 'dev/block/8:0'));
    await symlink('../../devices/sda/sda1', path.join(sysfs, 'dev/block/8:1'));
    const blocks = { logicalBlockBytes: 4096, physicalBlockBytes: 8192, optimalIoBytes: 65536 };
    expect(await blockDeviceFacts(0x800n, sysfs)).toEqual({ sizeBytes: 1024 * 1024, ...blocks, serial: 'WD-1' });
    expect(await blockDeviceFacts(0x801n, sysfs)).toEqual({ sizeBytes: 512 * 1024, ...blocks, serial: undefined });
    await expect(blockDeviceFacts(0x900n, sysfs)).rejects.toMatchObject({ code: 'ERR_DISK_IMAGE' });
  });

  it('takes a device number apart as makedev(3) puts it together', () => {
    expect(deviceNumber(0x1030_0005n)).toEqual({ major: 0, minor: 66309 });
    expect(deviceNumber(0xfd00n)).toEqual({ major: 253, minor: 0 });
  });
});
