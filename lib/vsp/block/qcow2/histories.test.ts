import { statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createQcow2Image } from './create.js';
import { createQcow2Overlay } from './index.js';
import {
  firstDifference,
  HAS_QEMU_IMG,
  pattern,
  qemuCheck,
  qemuImg,
  random,
  randomHistory,
  temporaryFolder,
  TestDisk,
} from './testing.js';

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => (folder = temporaryFolder()));
afterEach(() => folder.remove());
const inFolder = (name: string): string => path.join(folder.path, name);

const KiB = 1024;
/** Cluster size, refcount bits, size of the disk, backing. */
const SHAPES: [number, number, number, 'none' | 'raw' | 'qcow2' | 'chain'][] = [
  [512, 16, 1536 * KiB + 512, 'none'],
  [512, 64, 1024 * KiB, 'raw'],
  [1024, 1, 1024 * KiB + 512, 'qcow2'],
  [4096, 16, 2048 * KiB + 1536, 'raw'],
  [4096, 8, 2048 * KiB, 'chain'],
  [65536, 16, 3 * KiB * KiB + 512, 'chain'],
  [65536, 4, 2 * KiB * KiB, 'none'],
  [2 * KiB * KiB, 16, 5 * KiB * KiB, 'raw'],
];

async function makeImage(shape: (typeof SHAPES)[number]): Promise<{ image: string; model: Uint8Array }> {
  const [clusterBytes, refcountBits, sizeBytes, kind] = shape;
  const image = inFolder('disk.qcow2');
  const model = new Uint8Array(sizeBytes);
  if (kind === 'none') {
    await createQcow2Image(image, { sizeBytes, clusterBytes, refcountBits });
    return { image, model };
  }
  // Shorter than the overlay, and not whole sectors.
  const base = pattern(7, Math.floor(sizeBytes / 2) + 100);
  writeFileSync(inFolder('base.img'), base);
  model.set(base);
  let backing: { name: string; format: 'raw' | 'qcow2' } = { name: 'base.img', format: 'raw' };
  for (let level = 0; level < (kind === 'raw' ? 0 : kind === 'qcow2' ? 1 : 3); level++) {
    const name = `level${level}.qcow2`;
    const levelSize = Math.ceil((sizeBytes * 3) / 4 / 512) * 512;
    await createQcow2Image(inFolder(name), { sizeBytes: levelSize, clusterBytes: 4096 << level, backing });
    const disk = await TestDisk.open(inFolder(name));
    await randomHistory(disk, model.subarray(0, levelSize), random(level), 10, 40);
    await disk.close();
    backing = { name, format: 'qcow2' };
  }
  await createQcow2Image(image, { sizeBytes, clusterBytes, refcountBits, backing });
  return { image, model };
}

describe('random histories against a plain model', () => {
  const seed = Number(process.env['QCOW2_SEED'] ?? Date.now() % 1_000_000);

  it.each(SHAPES)('clusters of %i bytes, refcounts of %i bits, a disk of %i bytes, backing %s', async (...shape) => {
    const { image, model } = await makeImage(shape);
    const next = random(seed);
    for (let session = 0; session < 3; session++) {
      // Small caches, so that commits under pressure are part of it.
      const disk = await TestDisk.open(image, { cacheBytes: 8 * KiB });
      await randomHistory(disk, model, next, 20, shape[0] > 4096 ? 400 : 60).catch((error: unknown) => {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      });
      expect(firstDifference(await disk.read(0, model.length), model), `seed ${seed}`).toBe(-1);
      await disk.close();
      if (HAS_QEMU_IMG) expect(await qemuCheck(image), `seed ${seed}`).toEqual({ corruptions: 0, leaks: 0, errors: 0 });
    }
    const disk = await TestDisk.open(image, { readOnly: true });
    expect(firstDifference(await disk.read(0, model.length), model), `seed ${seed}`).toBe(-1);
    expect(disk.backend.write).toBeUndefined();
    await disk.close();
    if (HAS_QEMU_IMG) {
      writeFileSync(inFolder('model.img'), model);
      await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', inFolder('model.img'), image);
    }
  });
});

describe('the refcount table', () => {
  it('moves when the file outgrows it, more than once, and leaves nothing behind', async () => {
    const image = inFolder('grow.qcow2');
    const sizeBytes = 20 * KiB * KiB;
    await createQcow2Image(image, { sizeBytes, clusterBytes: 512 });
    const data = pattern(3, sizeBytes);
    const disk = await TestDisk.open(image);
    for (let at = 0; at < sizeBytes; at += KiB * KiB) await disk.write(at, data.subarray(at, at + KiB * KiB));
    await disk.close();
    const again = await TestDisk.open(image);
    expect(firstDifference(await again.read(0, sizeBytes), data)).toBe(-1);
    await again.close();
    if (HAS_QEMU_IMG) expect(await qemuCheck(image)).toEqual({ corruptions: 0, leaks: 0, errors: 0 });
  });
});

describe('an overlay', () => {
  it('hides its backing file where it was discarded, and never changes it', async () => {
    const base = pattern(1, 512 * KiB);
    writeFileSync(inFolder('base.img'), base);
    const image = inFolder('over.qcow2');
    await createQcow2Overlay(image, { backing: inFolder('base.img') });
    await expect(createQcow2Overlay(image, { backing: inFolder('base.img') })).rejects.toMatchObject({
      code: 'ERR_DISK_IMAGE',
    });
    const disk = await TestDisk.open(image);
    await disk.write(0, new Uint8Array(64 * KiB).fill(1));
    await disk.discard(0, 64 * KiB);
    expect((await disk.read(0, 64 * KiB)).every((byte) => byte === 0)).toBe(true);
    await disk.writeZeroes(64 * KiB + 512, 192 * KiB, true);
    const now = await disk.read(64 * KiB, 256 * KiB);
    const expected = base.slice(64 * KiB, 320 * KiB).fill(0, 512, 512 + 192 * KiB);
    expect(firstDifference(now, expected)).toBe(-1);
    await disk.close();
  });

  it('gives space back: what was discarded and flushed is used again', async () => {
    const image = inFolder('reuse.qcow2');
    await createQcow2Image(image, { sizeBytes: 8 * KiB * KiB });
    const disk = await TestDisk.open(image);
    for (let round = 0; round < 20; round++) {
      await disk.write(0, pattern(round, KiB * KiB));
      await disk.flush();
      await disk.discard(0, KiB * KiB);
      await disk.flush();
    }
    await disk.close();
    expect(statSync(image).size).toBeLessThanOrEqual(4 * KiB * KiB);
  });
});
