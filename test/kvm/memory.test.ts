/** Guest memory on real mappings: bounds, both sides of the 32-bit hole, the dirty bitmap of user space. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { ramRanges } from '../../lib/boot/index.js';
import { AddressSpace } from '../../lib/memory/index.js';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;

function space(sizeBytes: number, backing: 'anonymous' | 'memfd' = 'anonymous'): AddressSpace {
  const memory = new AddressSpace({ ranges: ramRanges(sizeBytes), backing });
  onTestFinished(() => memory.close());
  return memory;
}

describe.each(['anonymous', 'memfd'] as const)('AddressSpace, %s', (backing) => {
  it('gives copies of what was written, across its inner borders', () => {
    const memory = space(6 * GiB, backing);
    const bytes = new Uint8Array(8192).map((_, index) => index % 251);
    // 2 GiB and 6 GiB are where one view ends and the next begins.
    for (const gpa of [0, 2 * GiB - 4096, 3 * GiB - 8192, 4 * GiB, 6 * GiB - 4096, 7 * GiB - 8192]) {
      memory.write(gpa, bytes);
      expect(memory.read(gpa, bytes.length)).toEqual(bytes);
    }
    const copy = memory.read(0, 4);
    copy.fill(9);
    expect(memory.read(0, 4)).toEqual(bytes.subarray(0, 4));
  });

  it('refuses what is not wholly inside one range', () => {
    const memory = space(4 * GiB, backing);
    const refused = expect.objectContaining({ code: 'ERR_GUEST_MEMORY' });
    for (const [gpa, length] of [
      [3 * GiB - 1, 2],
      [3 * GiB, 1],
      [4 * GiB - 1, 1],
      [5 * GiB, 1],
      [5 * GiB - 1, 2],
      [-1, 1],
      [0.5, 1],
      [Number.NaN, 1],
      [2 ** 52, 1],
      [0, 6 * GiB],
    ] as const) {
      expect(() => memory.read(gpa, length)).toThrow(refused);
      expect(memory.contains(gpa, length)).toBe(false);
    }
    expect(() => memory.read(0, -1)).toThrow(RangeError);
    expect(() => memory.write(3 * GiB - 1, new Uint8Array(2))).toThrow(refused);
    expect(memory.read(5 * GiB - 1, 1)).toEqual(new Uint8Array(1));
  });
});

describe('the dirty bitmap of user space', () => {
  it('has each page that was written, once, by range', () => {
    const memory = space(3 * GiB + 64 * 4096);
    memory.write(4095, new Uint8Array(2));
    memory.fill(40 * 4096, 1, 4096);
    memory.write(3 * GiB - 1, new Uint8Array(1));
    memory.write(4 * GiB + 5, new Uint8Array(1));
    const [low, high] = memory.takeDirty();
    expect(low?.pages).toEqual([0, 1, 40, (3 * GiB) / 4096 - 1]);
    expect(high?.pages).toEqual([0]);
    expect(memory.takeDirty().flatMap(({ pages }) => pages)).toEqual([]);
  });

  it('is not set by reads, nor by a write that was refused', () => {
    const memory = space(MiB);
    memory.read(0, MiB);
    expect(() => memory.write(MiB - 1, new Uint8Array(2))).toThrow();
    expect(memory.takeDirty().flatMap(({ pages }) => pages)).toEqual([]);
  });

  it('keeps the bits of another range that shares a word', () => {
    const memory = new AddressSpace({
      ranges: [
        { gpa: 0 as never, sizeBytes: 40 * 4096 },
        { gpa: (1 * MiB) as never, sizeBytes: 40 * 4096 },
      ],
    });
    onTestFinished(() => memory.close());
    memory.write(39 * 4096, new Uint8Array(1));
    memory.write(MiB, new Uint8Array(1));
    memory.write(MiB + 39 * 4096, new Uint8Array(1));
    expect(memory.takeDirty().map(({ pages }) => pages)).toEqual([[39], [0, 39]]);
  });
});

describe('memory that can not be had', () => {
  it('is a typed error', () => {
    expect(() => space(2 ** 47)).toThrow(expect.objectContaining({ code: 'ERR_GUEST_MEMORY' }));
  });
});
