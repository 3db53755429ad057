/** Sizes as users write them, and page arithmetic: examples, limits, and properties over random input. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { alignDown, alignUp, formatSize, GiB, KiB, MiB, PAGE_SIZE, parseSize } from './units.js';

describe('parseSize', () => {
  it.each([
    ['0', 0],
    ['1', 1],
    ['4096', 4096],
    ['256M', 256 * MiB],
    ['256MiB', 256 * MiB],
    ['256mib', 256 * MiB],
    ['1g', GiB],
    [' 2 GiB ', 2 * GiB],
    ['1.5G', 1.5 * GiB],
    ['64k', 64 * KiB],
    ['10b', 10],
    ['1T', 1024 * GiB],
  ])('reads %j', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it('takes numbers as bytes', () => {
    expect(parseSize(4096)).toBe(4096);
    expect(parseSize(0)).toBe(0);
    expect(parseSize(Number.MAX_SAFE_INTEGER)).toBe(Number.MAX_SAFE_INTEGER);
  });

  it.each(['', ' ', 'M', '256X', '256MB', '-1M', '+1', '0x100', '1e6', '1 2', '1_000', '１', '256M\0', 'NaN', '1..5G'])(
    'refuses %j as no size',
    (text) => {
      expect(() => parseSize(text, 'memory')).toThrow(TypeError);
      expect(() => parseSize(text, 'memory')).toThrow(/^memory: /);
    },
  );

  it.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '0.3', '1.0001k', '99999999999T'])(
    'refuses %j as not a whole, positive number of bytes',
    (value) => {
      expect(() => parseSize(value)).toThrow(RangeError);
    },
  );

  it.each([undefined, null, true, 10n, {}, [], () => 1])('refuses what is neither number nor text: %o', (value) => {
    expect(() => parseSize(value as never)).toThrow(TypeError);
  });

  it('agrees with multiplication for every suffix', () => {
    const suffixes = fc.constantFrom<[string, number]>(
      ['', 1],
      ['k', KiB],
      ['MiB', MiB],
      ['g', GiB],
      ['TIB', 1024 * GiB],
    );
    fc.assert(
      fc.property(fc.nat(8191), suffixes, (count, [suffix, factor]) => {
        expect(parseSize(`${count}${suffix}`)).toBe(count * factor);
      }),
    );
  });

  it('never answers with anything but a whole number of bytes, whatever the text', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9.]{1,12} ?[a-zA-Z]{0,4}$/)), (text) => {
        let bytes: number;
        try {
          bytes = parseSize(text);
        } catch (error) {
          expect(error instanceof TypeError || error instanceof RangeError).toBe(true);
          return;
        }
        expect(Number.isSafeInteger(bytes) && bytes >= 0).toBe(true);
      }),
    );
  });
});

describe('formatSize', () => {
  it.each([
    [0, '0 bytes'],
    [1023, '1023 bytes'],
    [KiB, '1 KiB'],
    [1536, '1.5 KiB'],
    [256 * MiB, '256 MiB'],
    [4 * GiB, '4 GiB'],
  ])('writes %d', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });

  it('writes whole units so that parseSize reads them back', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1023 }), fc.constantFrom(KiB, MiB, GiB), (count, unit) => {
        expect(parseSize(formatSize(count * unit))).toBe(count * unit);
      }),
    );
  });
});

describe('alignUp and alignDown', () => {
  it('bracket the value by less than one step', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 45 }), fc.constantFrom(1, 16, PAGE_SIZE, 2 * MiB, 3), (value, alignment) => {
        const down = alignDown(value, alignment);
        const up = alignUp(value, alignment);
        expect(down % alignment).toBe(0);
        expect(up % alignment).toBe(0);
        expect(down).toBeLessThanOrEqual(value);
        expect(up).toBeGreaterThanOrEqual(value);
        expect(up - down).toBe(value % alignment === 0 ? 0 : alignment);
      }),
    );
  });
});
