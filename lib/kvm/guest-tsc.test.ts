import { describe, expect, it } from 'vitest';
import { isSameFrequency, signed, together, tscAt, wrap } from './guest-tsc.js';

const KHZ = 2_596_140;

describe('a guest’s TSC', () => {
  it('moves by what kvmclock moved, and stands where that stands', () => {
    expect(tscAt(1_000n, 5_000n, 5_000n, KHZ)).toBe(1_000n);
    expect(tscAt(1_000n, 5_000n, 1_000_005_000n, KHZ)).toBe(1_000n + 2_596_140_000n);
    expect(tscAt(2n ** 64n - 1n, 0n, 1_000_000n, 1_000_000)).toBe(999_999n);
    expect(tscAt(7n, 0n, 1_000_000_000n, 0)).toBe(7n);
  });

  it('is kept together with those that only were read later, and apart from others', () => {
    expect(together([100n, 2_000n, 50n], KHZ)).toEqual([100n, 100n, 100n]);
    expect(together([100n, 100n + 10_000_000n], KHZ)).toEqual([100n, 10_000_100n]);
    expect(together([wrap(-5n), 20n], KHZ)).toEqual([wrap(-5n), wrap(-5n)]);
    expect(together([5n, 6n], 0)).toEqual([5n, 6n]);
  });

  it('has a host’s frequency within 250 ppm, or where one is not known', () => {
    expect(isSameFrequency(2_600_000, 2_600_600)).toBe(true);
    expect(isSameFrequency(2_600_000, 2_601_000)).toBe(false);
    expect(isSameFrequency(0, 5)).toBe(true);
    expect(isSameFrequency(5, 0)).toBe(true);
    expect(signed(wrap(-3n))).toBe(-3n);
  });
});
