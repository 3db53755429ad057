import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { unpackLz4Block, unpackLz4Legacy } from './lz4.js';
import { packLz4Legacy } from './testing.js';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const magic = [0x02, 0x21, 0x4c, 0x18];
const block = (...bytes: number[]): Uint8Array => Uint8Array.of(...magic, bytes.length, 0, 0, 0, ...bytes);

describe('unpackLz4Legacy', () => {
  it('unpacks literals only', async () => {
    expect(await unpackLz4Legacy(block(0x30, 97, 98, 99), 3)).toEqual(text('abc'));
  });

  it('repeats a pattern when a match reaches into itself', async () => {
    // "ab", then 6 bytes from 2 back, then the literal "!".
    expect(await unpackLz4Legacy(block(0x22, 97, 98, 2, 0, 0x10, 33), 9)).toEqual(text('abababab!'));
  });

  it('follows lengths of many bytes', async () => {
    const data = new Uint8Array(3000).fill(7);
    // One literal, a match of 4 + 15 + 11 * 255 + 175 = 2999 bytes from 1 back.
    const coded = block(0x1f, 7, 1, 0, ...new Array<number>(11).fill(255), 175, 0x00);
    expect(await unpackLz4Legacy(coded, 3000)).toEqual(data);
  });

  it('goes on over several blocks and a second frame', async () => {
    const one = block(0x10, 1);
    const two = Uint8Array.of(...one, ...one.subarray(4), ...one);
    let pauses = 0;
    const unpacked = await unpackLz4Legacy(two, 3, () => {
      pauses++;
      return Promise.resolve();
    });
    expect(unpacked).toEqual(Uint8Array.of(1, 1, 1));
    expect(pauses).toBe(3);
  });

  it.each([
    ['another magic', Uint8Array.of(4, 0x22, 0x4d, 0x18, 0, 0, 0, 0), 1],
    ['no bytes at all', new Uint8Array(0), 1],
    ['a block longer than the data', Uint8Array.of(...magic, 9, 0, 0, 0, 0x10, 1), 1],
    ['a block of no bytes', Uint8Array.of(...magic, 0, 0, 0, 0), 0],
    ['a block of 4 GiB', Uint8Array.of(...magic, 255, 255, 255, 255, 0), 1],
    ['literals beyond the block', block(0x50, 1), 5],
    ['literals beyond the output', block(0x20, 1, 2), 1],
    ['a length that is cut off', block(0xf0, 255), 400],
    ['an offset of 0', block(0x10, 1, 0, 0, 0x00), 5],
    ['an offset before the start', block(0x10, 1, 2, 0, 0x00), 5],
    ['an offset that is cut off', block(0x10, 1, 1), 5],
    ['a match beyond the output', block(0x10, 1, 1, 0, 0x00), 4],
    ['a match length that is cut off', block(0x1f, 1, 1, 0), 30],
    ['too few bytes', block(0x10, 1), 2],
    ['bytes after the last block', Uint8Array.of(...block(0x10, 1), 0, 0), 1],
  ])('refuses %s', async (_what, coded, size) => {
    await expect(unpackLz4Legacy(coded, size)).rejects.toThrow(Error);
  });

  it('gives back what was packed', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(0, 0, 0, 1, 2, 255), { maxLength: 600 }),
        fc.integer({ min: 16, max: 700 }),
        async (bytes, blockBytes) => {
          const data = Uint8Array.from(bytes);
          expect(await unpackLz4Legacy(packLz4Legacy(data, blockBytes), data.length)).toEqual(data);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('never writes outside its limits, whatever the block holds', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.integer({ min: 0, max: 100 }), (input, limit) => {
        const output = new Uint8Array(200).fill(0xee);
        try {
          expect(unpackLz4Block(input, 0, input.length, output, 50, 50 + limit)).toBeLessThanOrEqual(50 + limit);
        } catch (error) {
          expect((error as Error).message).toMatch(/LZ4/);
        }
        expect(output.subarray(0, 50).every((byte) => byte === 0xee)).toBe(true);
        expect(output.subarray(50 + limit).every((byte) => byte === 0xee)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
