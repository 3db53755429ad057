import { mkdirSync, openSync, readFileSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createQcow2Image } from './create.js';
import { createQcow2Overlay, qcow2Disk } from './index.js';
import { firstDifference, pattern, temporaryFolder, TestDisk } from './testing.js';

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => (folder = temporaryFolder()));
afterEach(() => folder.remove());
const inFolder = (...names: string[]): string => path.join(folder.path, ...names);
const SIZE = 256 * 1024;

function patch(file: string, at: number, bytes: number[]): void {
  writeSync(openSync(file, 'r+'), new Uint8Array(bytes), 0, bytes.length, at);
}
const refused = (message: RegExp) => ({ code: 'ERR_DISK_IMAGE', message: expect.stringMatching(message) });

describe('qcow2Disk', () => {
  it('takes a path, and options that there are', () => {
    expect(() => qcow2Disk('')).toThrow(TypeError);
    expect(() => qcow2Disk('x', { backingFolder: [] } as never)).toThrow(/did you mean 'backingFolders'/);
    expect(qcow2Disk('x').describe()).toEqual({ kind: 'qcow2', path: 'x' });
  });

  it('refuses what is no image, naming it', async () => {
    mkdirSync(inFolder('folder'));
    writeFileSync(inFolder('empty'), '');
    writeFileSync(inFolder('raw'), new Uint8Array(4096));
    await expect(TestDisk.open(inFolder('folder'))).rejects.toMatchObject(refused(/is a directory/));
    await expect(TestDisk.open(inFolder('none'))).rejects.toMatchObject(refused(/does not exist/));
    await expect(TestDisk.open(inFolder('empty'))).rejects.toMatchObject(refused(/0 bytes/));
    await expect(TestDisk.open(inFolder('raw'))).rejects.toMatchObject(refused(/magic/));
    await createQcow2Image(inFolder('cut'), { sizeBytes: SIZE });
    truncateSync(inFolder('cut'), 65536);
    await expect(TestDisk.open(inFolder('cut'))).rejects.toMatchObject(refused(/behind the file/));
  });

  it('names unknown features, and respects dirty and corrupt', async () => {
    const image = inFolder('x.qcow2');
    await createQcow2Image(image, { sizeBytes: SIZE });
    patch(image, 72, [0x40]);
    await expect(TestDisk.open(image)).rejects.toMatchObject(refused(/unknown bit 62/));
    for (const [bit, name] of [
      [1, /dirty/],
      [2, /corrupt/],
    ] as const) {
      patch(image, 72, [0, 0, 0, 0, 0, 0, 0, bit]);
      await expect(TestDisk.open(image)).rejects.toMatchObject(refused(name));
      await (await TestDisk.open(image, { readOnly: true })).close();
    }
  });

  it('clears autoclear bits before it writes, not when it only reads', async () => {
    const image = inFolder('x.qcow2');
    await createQcow2Image(image, { sizeBytes: SIZE });
    patch(image, 88, [0, 0, 0, 0, 0, 0, 0, 1]);
    await (await TestDisk.open(image, { readOnly: true })).close();
    expect(readFileSync(image)[95]).toBe(1);
    await (await TestDisk.open(image)).close();
    expect(readFileSync(image)[95]).toBe(0);
  });

  it('takes locks: exclusive for what it writes, shared for the chain', async () => {
    writeFileSync(inFolder('base.img'), pattern(1, SIZE));
    await createQcow2Overlay(inFolder('x.qcow2'), { backing: inFolder('base.img') });
    const modes: string[] = [];
    const lock = (_fd: number, mode: string) => modes.push(mode) > 0;
    await (await TestDisk.open(inFolder('x.qcow2'), { lock })).close();
    expect(modes).toEqual(['exclusive', 'shared']);
    await expect(TestDisk.open(inFolder('x.qcow2'), { lock: () => false })).rejects.toMatchObject({
      code: 'ERR_DISK_LOCKED',
    });
  });
});

describe('backing files', () => {
  it('stay in the folder of the image, by whatever way they are named', async () => {
    mkdirSync(inFolder('in'));
    mkdirSync(inFolder('out'));
    writeFileSync(inFolder('out', 'secret'), pattern(1, SIZE));
    symlinkSync('../out/secret', inFolder('in', 'link'));
    for (const name of ['../out/secret', inFolder('out', 'secret'), 'link']) {
      const image = inFolder('in', `${name.replaceAll('/', '_')}.qcow2`);
      await createQcow2Image(image, { sizeBytes: SIZE, backing: { name, format: 'raw' } });
      await expect(TestDisk.open(image)).rejects.toMatchObject(refused(/leaves the folder/));
      const disk = await TestDisk.open(image, { backingFolders: [inFolder('out')] });
      expect(firstDifference(await disk.read(0, SIZE), pattern(1, SIZE))).toBe(-1);
      await disk.close();
    }
  });

  it('are files, of a stated format', async () => {
    const open = async (name: string, format: 'raw' | 'qcow2') => {
      const image = inFolder(`${Math.random()}.qcow2`);
      await createQcow2Image(image, { sizeBytes: SIZE, backing: { name, format } });
      await TestDisk.open(image);
    };
    await expect(open('nbd://host/x', 'raw')).rejects.toMatchObject(refused(/no path/));
    await expect(open('json:{}', 'raw')).rejects.toMatchObject(refused(/no path/));
    await expect(open('none', 'raw')).rejects.toMatchObject(refused(/does not exist/));
    await expect(open('none', 'vmdk' as never)).rejects.toMatchObject(refused(/neither raw nor qcow2/));
    const image = inFolder('x.qcow2');
    writeFileSync(inFolder('base'), pattern(1, SIZE));
    await createQcow2Image(image, { sizeBytes: SIZE, backing: { name: 'base', format: 'raw' } });
    // An unknown extension instead of the format.
    patch(image, 104, [1, 2, 3, 4]);
    await expect(TestDisk.open(image)).rejects.toMatchObject(refused(/has no format/));
    await (await TestDisk.open(image, { backingFormat: 'raw' })).close();
  });

  it('are no loop, and no endless chain', async () => {
    for (let index = 0; index < 20; index++) {
      const backing = { name: `${index + 1}.qcow2`, format: 'qcow2' as const };
      await createQcow2Image(inFolder(`${index}.qcow2`), { sizeBytes: SIZE, backing });
    }
    await createQcow2Image(inFolder('20.qcow2'), { sizeBytes: SIZE, backing: { name: '19.qcow2', format: 'qcow2' } });
    await expect(TestDisk.open(inFolder('0.qcow2'))).rejects.toMatchObject(refused(/more than 16 files/));
    await expect(TestDisk.open(inFolder('18.qcow2'))).rejects.toMatchObject(refused(/loop/));
  });
});

describe('concurrent writes', () => {
  it('to one cluster without a place get one, and lose nothing', async () => {
    const image = inFolder('x.qcow2');
    writeFileSync(inFolder('base.img'), pattern(1, SIZE));
    await createQcow2Overlay(image, { backing: inFolder('base.img') });
    const disk = await TestDisk.open(image);
    const model = pattern(1, SIZE);
    const jobs: Promise<void>[] = [];
    for (let sector = 0; sector < SIZE / 512; sector += 3) {
      const bytes = pattern(sector, 512);
      model.set(bytes, sector * 512);
      jobs.push(disk.write(sector * 512, bytes));
    }
    jobs.push(disk.flush());
    await Promise.all(jobs);
    expect(firstDifference(await disk.read(0, SIZE), model)).toBe(-1);
    await disk.close();
    // Header, tables, and four clusters of data; no cluster was given twice.
    const again = await TestDisk.open(image, { readOnly: true });
    expect(firstDifference(await again.read(0, SIZE), model)).toBe(-1);
    await again.close();
  });
});
