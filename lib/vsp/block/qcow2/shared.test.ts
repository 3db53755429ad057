import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createQcow2Image } from './create.js';
import { checkImage } from './testing-check.js';
import { firstDifference, HAS_QEMU_IMG, pattern, qemuCheck, temporaryFolder, TestDisk } from './testing.js';

let folder: ReturnType<typeof temporaryFolder>;
let image: string;
beforeEach(() => {
  folder = temporaryFolder();
  image = path.join(folder.path, 'shared.qcow2');
});
afterEach(() => folder.remove());

const CLUSTER = 4096;
const at = (bytes: Buffer, offset: number): number => Number(bytes.readBigUInt64BE(offset) & 0x00fffffffffffe00n);

/** An image whose guest clusters 0 and 1 lie at one place, counted twice, as after a copy by reference. */
async function makeShared(): Promise<void> {
  await createQcow2Image(image, { sizeBytes: 16 * CLUSTER, clusterBytes: CLUSTER });
  const disk = await TestDisk.open(image);
  await disk.write(0, pattern(1, CLUSTER));
  await disk.close();
  const bytes = readFileSync(image);
  const l2 = at(bytes, at(bytes, 40));
  const host = at(bytes, l2);
  for (const entry of [l2, l2 + 8]) bytes.writeBigUInt64BE(BigInt(host), entry);
  bytes.writeUInt16BE(2, at(bytes, at(bytes, 48)) + 2 * (host / CLUSTER));
  writeFileSync(image, bytes);
  expect(checkImage(bytes)).toEqual({ corruptions: 0, leaks: 0 });
}

describe('a cluster that two guest clusters share', () => {
  it.each<[string, (disk: TestDisk) => Promise<void>, number]>([
    ['writes', (disk) => disk.write(512, pattern(2, 512)), 2],
    ['discards', (disk) => disk.discard(0, CLUSTER), 0],
    ['clears', (disk) => disk.writeZeroes(0, CLUSTER, true), 0],
  ])('keeps its bytes for the second when the guest %s the first', async (_what, change, value) => {
    await makeShared();
    const disk = await TestDisk.open(image);
    await change(disk);
    await disk.flush();
    await disk.flush();
    expect(firstDifference(await disk.read(CLUSTER, CLUSTER), pattern(1, CLUSTER))).toBe(-1);
    const first = value === 0 ? new Uint8Array(512) : pattern(value, 512);
    expect(firstDifference(await disk.read(512, 512), first)).toBe(-1);
    await disk.close();
    // The second one's entry does not say that it is alone now, as QEMU's would not; its last use gives the place back.
    const again = await TestDisk.open(image);
    await again.discard(CLUSTER, CLUSTER);
    await again.close();
    expect(checkImage(readFileSync(image))).toEqual({ corruptions: 0, leaks: 0 });
    if (HAS_QEMU_IMG) expect(await qemuCheck(image)).toEqual({ corruptions: 0, leaks: 0, errors: 0 });
  });
});

describe('a guest cluster that lies on metadata, not marked as its own', () => {
  it.each<[string, (disk: TestDisk) => Promise<void>]>([
    ['write', (disk) => disk.write(0, pattern(2, 512))],
    ['discard', (disk) => disk.discard(0, CLUSTER)],
    ['write-zeroes', (disk) => disk.writeZeroes(0, CLUSTER, true)],
  ])('is refused to a %s, and the table stays', async (_what, change) => {
    await makeShared();
    const bytes = readFileSync(image);
    const block = at(bytes, at(bytes, 48));
    bytes.writeBigUInt64BE(BigInt(block), at(bytes, at(bytes, 40)));
    writeFileSync(image, bytes);
    const disk = await TestDisk.open(image);
    await expect(change(disk)).rejects.toMatchObject({ code: 'corrupt' });
    await disk.close();
    expect(readFileSync(image).subarray(block, block + CLUSTER)).toEqual(bytes.subarray(block, block + CLUSTER));
  });
});
