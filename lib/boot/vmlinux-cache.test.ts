import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { concatBytes, littleEndian } from './bytes.js';
import { parseBzImage } from './bzimage.js';
import { openImage, type ImageFile } from './errors.js';
import { buildBzImage, buildElf, packLz4Legacy } from './testing.js';
import { keepUnpackedKernel } from './load-kernel.js';
import { unpackKernel } from './vmlinux-cache.js';

const elf = buildElf({
  bits: 64,
  entry: 0x100_0000n,
  segments: [{ paddr: 0x100_0000n, data: new Uint8Array(500).fill(7) }],
});
const payload = concatBytes(packLz4Legacy(elf), littleEndian(elf.length, 4));

let directory: string;
let cacheDir: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'vivarium-boot-'));
  cacheDir = path.join(directory, 'cache', 'kernels');
});

function kernel(bytes = payload): ImageFile {
  const file = path.join(directory, 'vmlinuz');
  writeFileSync(file, buildBzImage({ payload: bytes }));
  const image = openImage('kernel', file);
  onTestFinished(() => {
    image.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return image;
}

/** The same file as it is seen long after its last change. */
function aged(image: ImageFile): ImageFile {
  return { ...image, stat: { ...image.stat, ctimeNs: 1n }, read: image.read.bind(image), close: () => undefined };
}

async function unpack(image: ImageFile, directoryOfCache: string | undefined = cacheDir) {
  const result = await unpackKernel(image, parseBzImage(image).payload!, directoryOfCache);
  if (!result) throw new Error('nothing was unpacked');
  const bytes = result.file.read(0, result.file.sizeBytes);
  result.file.close();
  return { ...result, bytes };
}

const links = (): string[] => readdirSync(cacheDir).filter((name) => name.startsWith('by-file-'));
const kernels = (): string[] => readdirSync(cacheDir).filter((name) => name.startsWith('vmlinux-'));

describe('unpackKernel', () => {
  it('unpacks once, and finds the kernel again', async () => {
    const image = kernel();
    expect(await unpack(image)).toMatchObject({ from: 'unpacked', cacheFault: undefined, bytes: elf });
    expect(await unpack(image)).toMatchObject({ from: 'cache', bytes: elf });
    expect(readdirSync(cacheDir)).toEqual(kernels());
    expect(readFileSync(path.join(cacheDir, kernels()[0]!))).toEqual(Buffer.from(elf));
  });

  it('knows a settled file without reading it', async () => {
    const image = aged(kernel());
    await unpack(image);
    expect(links()).toHaveLength(1);
    const blind = {
      ...image,
      read: (at: number, length: number) => (length === payload.length ? neverRead() : image.read(at, length)),
    };
    const found = await unpackKernel(
      blind,
      { offset: parseBzImage(image).payload!.offset, lengthBytes: payload.length },
      cacheDir,
    );
    expect(found?.from).toBe('cache');
    found?.file.close();
  });

  it('does not trust a file that has just changed to be known', async () => {
    const image = kernel();
    utimesSync(image.path, 1, 1);
    await unpack(image);
    expect(links()).toEqual([]);
  });

  it.each([
    ['cut', (file: string) => truncateSync(file, 10)],
    ['empty', (file: string) => truncateSync(file, 0)],
    ['overwritten', (file: string) => writeFileSync(file, new Uint8Array(elf.length))],
    ['gone', (file: string) => rmSync(file)],
  ])('unpacks again when the kept file is %s', async (_what, spoil) => {
    const image = aged(kernel());
    await unpack(image);
    spoil(path.join(cacheDir, kernels()[0]!));
    expect(await unpack(image)).toMatchObject({ from: 'unpacked', bytes: elf });
    expect(await unpack(image)).toMatchObject({ from: 'cache', bytes: elf });
  });

  it('goes on without a cache, and with one that cannot be written', async () => {
    const image = kernel();
    const withoutCache = await unpackKernel(image, parseBzImage(image).payload!, undefined);
    expect(withoutCache).toMatchObject({ from: 'unpacked', cacheFault: undefined });
    writeFileSync(path.join(directory, 'file'), '');
    const unwritable = await unpack(image, path.join(directory, 'file', 'cache'));
    expect(unwritable).toMatchObject({ from: 'unpacked', bytes: elf, cacheFault: expect.stringMatching(/ENOTDIR/) });
  });

  it('leaves no temporary file behind when writing fails', async () => {
    const image = kernel();
    await unpack(image);
    const name = kernels()[0]!;
    rmSync(path.join(cacheDir, name));
    // A folder that is not empty stands where the file should go: the rename fails.
    mkdirSync(path.join(cacheDir, name, 'x'), { recursive: true });
    expect(await unpack(image)).toMatchObject({ from: 'unpacked', cacheFault: expect.any(String), bytes: elf });
    expect(readdirSync(cacheDir)).toEqual([name]);
  });

  it('names the kernel when its payload is damaged', async () => {
    const damaged = payload.slice();
    damaged.fill(0xff, 8, 30);
    const image = kernel(damaged);
    await expect(unpackKernel(image, parseBzImage(image).payload!, cacheDir)).rejects.toMatchObject({
      code: 'ERR_KERNEL_IMAGE',
      message: expect.stringMatching(/kernel '.*vmlinuz': its packed kernel is damaged/),
    });
  });

  it('has no answer for formats that are left to the guest', async () => {
    const image = kernel(concatBytes([0x42, 0x5a, 0x68], new Uint8Array(100)));
    expect(await unpackKernel(image, parseBzImage(image).payload!, cacheDir)).toBeUndefined();
    expect(await unpackKernel(image, { offset: 0, lengthBytes: 3 }, cacheDir)).toBeUndefined();
  });
});

function neverRead(): never {
  throw new Error('the kernel was read again');
}

describe('keepUnpackedKernel', () => {
  it('leaves the kernel in the cache for who boots it', async () => {
    const image = kernel();
    await keepUnpackedKernel(path.join(directory, 'vmlinuz'), cacheDir);
    expect(kernels()).toHaveLength(1);
    expect(await unpack(image)).toMatchObject({ from: 'cache' });
  });

  it('leaves other files alone', async () => {
    kernel();
    const other = path.join(directory, 'vmlinux');
    writeFileSync(other, elf);
    await keepUnpackedKernel(other, cacheDir);
    expect(readdirSync(directory)).not.toContain('cache');
  });
});
