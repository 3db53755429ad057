import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concatBytes, littleEndian } from './bytes.js';
import { payloadFormat, unpackedSize, unpackPayload } from './payload.js';
import { packLz4Legacy } from './testing.js';

/** What all samples unpack to. */
const kernel = new TextEncoder().encode(`\x7fELF${'vivarium '.repeat(40)}`);
const sized = (packed: Uint8Array, size = kernel.length): Uint8Array => concatBytes(packed, littleEndian(size, 4));
const base64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));

// Packed by zstd 1.5 -19, and by xz 5.4 with --x86 --check=crc32, as the kernel's build does, and with --format=lzma.
const zstd = base64('KLUv/QRopQAAaH9FTEZ2aXZhcml1bSABAFxUyxepJgnQ');
const xz = base64(
  '/Td6WFoAAAFpIt42AgEEACEBCADSuXTL4AFrABZdAD+RRYRsmgqB7K3WYxlFpzhcd5UUAAAAAACDeXTiAAEu7AIAAADOUt65PjANiwIAAAAAAVla',
);
const lzma = base64('XQAAgAD//////////wA/kUWEbJoKgeyt1mMZRac4XHefuZX///r+oAA=');

describe('unpackPayload', () => {
  it.each([
    ['gzip', new Uint8Array(gzipSync(kernel))],
    ['lz4', sized(packLz4Legacy(kernel))],
    ['zstd', sized(zstd)],
  ])('unpacks %s', async (format, payload) => {
    expect(payloadFormat(payload)).toBe(format);
    expect(unpackedSize(payload)).toBe(kernel.length);
    expect(new Uint8Array((await unpackPayload(payload))!)).toEqual(kernel);
  });

  it.each([
    ['xz', sized(xz)],
    ['lzma', sized(lzma)],
  ])('unpacks %s where the system has the command, and says so where it has not', async (format, payload) => {
    expect(payloadFormat(payload)).toBe(format);
    const unpacked = await unpackPayload(payload);
    if (unpacked !== undefined) expect(new Uint8Array(unpacked)).toEqual(kernel);
  });

  it.each([
    ['bzip2', [0x42, 0x5a, 0x68]],
    ['lzo', [0x89, 0x4c, 0x5a, 0x4f]],
    ['elf', [0x7f, 0x45, 0x4c, 0x46]],
    ['unknown', [1, 2, 3, 4]],
  ])('leaves %s to the guest', async (format, magic) => {
    const payload = concatBytes(magic, new Uint8Array(20));
    expect(payloadFormat(payload)).toBe(format);
    expect(await unpackPayload(payload)).toBeUndefined();
  });

  it.each([
    ['a wrong size', sized(packLz4Legacy(kernel), 9)],
    ['a zstd frame that is too long', sized(zstd, 5)],
    ['a size beyond all kernels', sized(packLz4Legacy(kernel), 0xffff_ffff)],
    ['damaged gzip', concatBytes(gzipSync(kernel).subarray(0, 30), littleEndian(kernel.length, 4))],
    ['damaged zstd', sized(zstd.subarray(0, 12))],
    ['too few bytes', Uint8Array.of(0x1f, 0x8b)],
  ])('refuses %s', async (_what, payload) => {
    await expect(unpackPayload(payload)).rejects.toThrow(Error);
  });

  it('refuses or unpacks any damaged payload, never more than the size that it names', async () => {
    const samples = [sized(packLz4Legacy(kernel)), sized(zstd), new Uint8Array(gzipSync(kernel))];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...samples),
        fc.array(fc.tuple(fc.integer({ min: 4, max: 70 }), fc.integer({ min: 0, max: 255 })), { maxLength: 3 }),
        async (sample, changes) => {
          const bytes = sample.slice();
          for (const [at, value] of changes) if (at < bytes.length - 4) bytes[at] = value;
          const result = await unpackPayload(bytes).catch((error: unknown) => error);
          if (result instanceof Uint8Array) expect(result.length).toBe(unpackedSize(bytes));
          else expect(result).toBeInstanceOf(Error);
        },
      ),
      { numRuns: 200 },
    );
  });
});
