/** Guest physical addresses: what is one, what is not, and that none is squeezed through 32 bits. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatGpa, gpa, MAX_GPA } from './address.js';

describe('gpa', () => {
  it('keeps every whole number below 2^52 exact', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: MAX_GPA - 1 }), (value) => {
        expect(gpa(value)).toBe(value);
        expect(gpa(BigInt(value))).toBe(value);
      }),
    );
  });

  it.each([0, 0xffff_ffff, 0x1_0000_0000, MAX_GPA - 1])('takes %d', (value) => {
    expect(gpa(value)).toBe(value);
  });

  it.each([-1, 0.5, MAX_GPA, Number.NaN, Number.POSITIVE_INFINITY, -1n, 1n << 52n, (1n << 64n) + 1n])(
    'refuses %s',
    (value) => {
      expect(() => gpa(value)).toThrow(RangeError);
    },
  );
});

describe('formatGpa', () => {
  it.each<[number | bigint, string]>([
    [0, '0x00000000'],
    [0xfee0_0000, '0xfee00000'],
    [0x1_0000_0000, '0x100000000'],
    [0xffn, '0x000000ff'],
  ])('writes %s', (address, text) => {
    expect(formatGpa(address)).toBe(text);
  });
});
