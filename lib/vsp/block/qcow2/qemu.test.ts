import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isPromised } from '../../../base/testing-promises.js';
import { createQcow2Overlay } from './index.js';
import { checkImage } from './testing-check.js';
import {
  firstDifference,
  HAS_QEMU_IMG,
  pattern,
  qemuCheck,
  qemuImg,
  qemuIo,
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
const WITHOUT = 'qemu-img is not installed (Debian: qemu-utils; npm run setup installs it as root)';

it('qemu-img is there, where the run promises it', (context) => {
  if (!HAS_QEMU_IMG && !isPromised('qemu-img')) {
    context.skip(WITHOUT);
  }
  expect(HAS_QEMU_IMG).toBe(true);
});

describe('images that QEMU made', () => {
  beforeEach((context) => context.skip(!HAS_QEMU_IMG, WITHOUT));

  it.each([
    ['512', '16'],
    ['4k', '1'],
    ['64k', '16'],
    ['64k', '64'],
    ['2M', '16'],
  ])(
    'with clusters of %s and refcounts of %s bits are read, changed, and read by QEMU again',
    async (cluster, bits) => {
      const model = new Uint8Array(3 * KiB * KiB);
      model.set(pattern(5, KiB * KiB), 300 * KiB);
      writeFileSync(inFolder('model.img'), model);
      const image = inFolder('disk.qcow2');
      const shape = `cluster_size=${cluster},refcount_bits=${bits},compat=1.1`;
      await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', '-o', shape, inFolder('model.img'), image);
      // A zero cluster with a place, one without, and one that was given back.
      await qemuIo(
        image,
        'qcow2',
        'write -P 0x41 2M 512k',
        'write -z 2M 64k',
        'write -z -u 2176k 64k',
        'discard 2304k 64k',
      );
      model.fill(0x41, 2048 * KiB, 2560 * KiB);
      model.fill(0, 2048 * KiB, 2112 * KiB);
      model.fill(0, 2176 * KiB, 2240 * KiB);
      const disk = await TestDisk.open(image);
      const discarded = await disk.read(2304 * KiB, 64 * KiB);
      model.set(discarded, 2304 * KiB);
      expect(firstDifference(await disk.read(0, model.length), model)).toBe(-1);
      await randomHistory(disk, model, random(1), 30, 100);
      await disk.close();
      writeFileSync(inFolder('model.img'), model);
      await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', inFolder('model.img'), image);
      expect(await qemuCheck(image)).toMatchObject({ corruptions: 0, errors: 0 });
      expect(checkImage(readFileSync(image)).corruptions).toBe(0);
      // And on with QEMU.
      await qemuIo(image, 'qcow2', 'write -P 0x42 1M 1M');
      model.fill(0x42, KiB * KiB, 2 * KiB * KiB);
      const again = await TestDisk.open(image, { readOnly: true });
      expect(firstDifference(await again.read(0, model.length), model)).toBe(-1);
      await again.close();
    },
  );

  it('of version 2 are read, and not written', async () => {
    const model = pattern(6, 256 * KiB);
    writeFileSync(inFolder('model.img'), model);
    const image = inFolder('disk.qcow2');
    await qemuImg('convert', '-O', 'qcow2', '-o', 'compat=0.10', '-f', 'raw', inFolder('model.img'), image);
    await expect(TestDisk.open(image)).rejects.toThrow(/version: 2 can only be read/);
    const disk = await TestDisk.open(image, { readOnly: true });
    expect(firstDifference(await disk.read(0, model.length), model)).toBe(-1);
    await disk.close();
  });

  it('are refused by the name of what is not supported', async () => {
    const create = (name: string, ...options: string[]) =>
      qemuImg('create', '-f', 'qcow2', ...options, inFolder(name), '1M');
    await create('external.qcow2', '-o', `data_file=${inFolder('data')}`);
    await create('extended.qcow2', '-o', 'extended_l2=on');
    await create('zstd.qcow2', '-o', 'compression_type=zstd');
    // Not by qemu-img: it times its key derivation, and fails now and then with "Unable to get accurate CPU usage".
    await create('luks.qcow2');
    const header = readFileSync(inFolder('luks.qcow2'));
    header.writeUInt32BE(2, 32); // crypt_method: LUKS
    writeFileSync(inFolder('luks.qcow2'), header);
    await create('snapshot.qcow2');
    await qemuImg('snapshot', '-c', 'one', inFolder('snapshot.qcow2'));
    for (const [name, why] of [
      ['external', /external data file/],
      ['extended', /extended L2/],
      ['zstd', /compression type/],
      ['luks', /crypt_method/],
      ['snapshot', /nb_snapshots/],
    ] as const) {
      await expect(TestDisk.open(inFolder(`${name}.qcow2`)), name).rejects.toMatchObject({
        code: 'ERR_DISK_IMAGE',
        message: expect.stringMatching(why),
      });
    }
    writeFileSync(inFolder('raw.img'), pattern(1, 256 * KiB));
    await qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', inFolder('raw.img'), inFolder('deflate.qcow2'));
    const disk = await TestDisk.open(inFolder('deflate.qcow2'));
    await expect(disk.read(0, 4096)).rejects.toMatchObject({ code: 'unsupported' });
    await disk.close();
  });

  it('stand on our overlays and under them', async () => {
    const model = pattern(4, KiB * KiB);
    writeFileSync(inFolder('raw.img'), model);
    await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'raw.img', '-F', 'raw', inFolder('a.qcow2'));
    await qemuIo(inFolder('a.qcow2'), 'qcow2', 'write -P 1 10k 100k');
    model.fill(1, 10 * KiB, 110 * KiB);
    await createQcow2Overlay(inFolder('b.qcow2'), { backing: inFolder('a.qcow2'), sizeBytes: 2 * KiB * KiB });
    const disk = await TestDisk.open(inFolder('b.qcow2'));
    await disk.write(50 * KiB, new Uint8Array(KiB).fill(2));
    await disk.close();
    const all = new Uint8Array(2 * KiB * KiB);
    all.set(model);
    all.fill(2, 50 * KiB, 51 * KiB);
    await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'b.qcow2', '-F', 'qcow2', inFolder('c.qcow2'));
    const top = await TestDisk.open(inFolder('c.qcow2'));
    expect(firstDifference(await top.read(0, all.length), all)).toBe(-1);
    await top.close();
    writeFileSync(inFolder('all.img'), all);
    await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', inFolder('all.img'), inFolder('c.qcow2'));
  });
});
