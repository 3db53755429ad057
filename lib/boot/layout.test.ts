import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findOverlap, lowRamEnd, memoryMap, placeHigh, ramRanges } from './layout.js';

const MiB = 2 ** 20;
const GiB = 2 ** 30;

describe('ramRanges', () => {
  it('keeps the hole below 4 GiB free', () => {
    expect(ramRanges(256 * MiB)).toEqual([{ gpa: 0, sizeBytes: 256 * MiB }]);
    expect(ramRanges(3 * GiB)).toEqual([{ gpa: 0, sizeBytes: 3 * GiB }]);
    expect(ramRanges(3 * GiB + 4096)).toEqual([
      { gpa: 0, sizeBytes: 3 * GiB },
      { gpa: 4 * GiB, sizeBytes: 4096 },
    ]);
    expect(ramRanges(1024 * GiB)[1]).toEqual({ gpa: 4 * GiB, sizeBytes: 1021 * GiB });
  });

  it.each([0, 1, 4095, 4097, -4096, 0.5, NaN, Infinity])('refuses %d bytes', (size) => {
    expect(() => ramRanges(size)).toThrow(RangeError);
  });
});

describe('memoryMap', () => {
  it('is that of a PC', () => {
    expect(memoryMap(ramRanges(5 * GiB), [{ gpa: 0xfeff_c000, sizeBytes: 0x4000 }])).toEqual([
      { gpa: 0, sizeBytes: 0x9fc00, type: 1 },
      { gpa: 0x9fc00, sizeBytes: 0x400, type: 2 },
      { gpa: 0xe0000, sizeBytes: 0x20000, type: 2 },
      { gpa: 0x100000, sizeBytes: 3 * GiB - MiB, type: 1 },
      { gpa: 0xfeff_c000, sizeBytes: 0x4000, type: 2 },
      { gpa: 4 * GiB, sizeBytes: 2 * GiB, type: 1 },
    ]);
  });

  it('says nothing of what a tiny machine does not have', () => {
    expect(memoryMap(ramRanges(0x80000))).toEqual([{ gpa: 0, sizeBytes: 0x80000, type: 1 }]);
  });

  it('takes a reserved area out of RAM', () => {
    const map = memoryMap(ramRanges(16 * MiB), [{ gpa: 8 * MiB, sizeBytes: MiB }]);
    expect(map.slice(-3)).toEqual([
      { gpa: MiB, sizeBytes: 7 * MiB, type: 1 },
      { gpa: 8 * MiB, sizeBytes: MiB, type: 2 },
      { gpa: 9 * MiB, sizeBytes: 7 * MiB, type: 1 },
    ]);
  });

  it('is in order, without overlap, and has no RAM that is none', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2_000_000 }),
        fc.array(fc.integer({ min: 0, max: 0x100 }), { maxLength: 3 }),
        (pages, reservedSlots) => {
          const ranges = ramRanges(pages * 4096);
          const reserved = [...new Set(reservedSlots)].map((slot) => ({ gpa: (slot + 2) * MiB, sizeBytes: MiB }));
          const map = memoryMap(ranges, reserved);
          for (const [index, entry] of map.entries()) {
            expect(entry.sizeBytes).toBeGreaterThan(0);
            const next = map[index + 1];
            if (next) expect(entry.gpa + entry.sizeBytes).toBeLessThanOrEqual(next.gpa);
            if (entry.type !== 1) continue;
            expect(ranges.some((r) => entry.gpa >= r.gpa && entry.gpa + entry.sizeBytes <= r.gpa + r.sizeBytes)).toBe(
              true,
            );
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('places', () => {
  it('puts things as high as they may be', () => {
    const memory = { ranges: ramRanges(64 * MiB) };
    expect(placeHigh(memory, 5000, MiB, 2 * GiB)).toBe(64 * MiB - 8192);
    expect(placeHigh(memory, 4096, MiB, 32 * MiB)).toBe(32 * MiB - 4096);
    expect(placeHigh(memory, 63 * MiB, 0, 2 * GiB)).toBe(MiB);
    expect(placeHigh(memory, 63 * MiB + 1, 0, 2 * GiB)).toBeUndefined();
    expect(placeHigh(memory, 4096, 64 * MiB - 4095, 2 * GiB)).toBeUndefined();
    expect(placeHigh(memory, 65 * MiB, 0, 2 * GiB)).toBeUndefined();
  });

  it('knows low RAM and overlaps', () => {
    expect(lowRamEnd({ ranges: ramRanges(8 * GiB) })).toBe(3 * GiB);
    expect(lowRamEnd({ ranges: [] })).toBe(0);
    const regions = [{ name: 'a', start: 10, end: 20 }];
    expect(findOverlap(regions, 0, 10)).toBeUndefined();
    expect(findOverlap(regions, 20, 30)).toBeUndefined();
    expect(findOverlap(regions, 19, 30)?.name).toBe('a');
    expect(findOverlap(regions, 0, 100)?.name).toBe('a');
  });
});
