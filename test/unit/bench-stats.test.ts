/** The arithmetic behind every figure in bench/results/. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { pairedRatio, quantile, summarise } from '../../bench/lib/stats.js';

const samples = fc.array(fc.integer({ min: -1_000_000, max: 1_000_000 }), { minLength: 1, maxLength: 50 });

describe('quantile', () => {
  it.each([
    [[5], 0.5, 5],
    [[3, 1, 2], 0.5, 2],
    [[4, 1, 2, 3], 0.5, 2.5],
    [[0, 10], 0.1, 1],
    [[1, 2, 3], 0, 1],
    [[1, 2, 3], 1, 3],
  ])('of %j at %d is %d', (values, q, wanted) => {
    expect(quantile(values, q)).toBeCloseTo(wanted, 12);
  });

  it('lies within the samples, grows with q, and does not mind their order', () => {
    fc.assert(
      fc.property(samples, fc.double({ min: 0, max: 1, noNaN: true }), (values, q) => {
        const value = quantile(values, q);
        expect(value).toBeGreaterThanOrEqual(Math.min(...values));
        expect(value).toBeLessThanOrEqual(Math.max(...values));
        expect(quantile(values, 1)).toBeGreaterThanOrEqual(value);
        expect(quantile([...values].reverse(), q)).toBe(value);
      }),
    );
  });

  it('leaves the samples as they were', () => {
    const values = [3, 1, 2];
    quantile(values, 0.5);
    expect(values).toEqual([3, 1, 2]);
  });

  it.each([
    [[], 0.5],
    [[1], -0.1],
    [[1], 1.1],
    [[1], Number.NaN],
  ])('refuses %j at %d', (values, q) => {
    expect(() => quantile(values, q)).toThrow(RangeError);
  });
});

describe('pairedRatio', () => {
  it('compares pair by pair: a machine that doubles its speed midway changes nothing', () => {
    expect(pairedRatio([10, 5, 10, 5], [5, 2.5, 5, 2.5])).toEqual({ median: 2, low: 2, high: 2, samples: 4 });
  });

  it('refuses lists of different length', () => {
    expect(() => pairedRatio([1], [1, 2])).toThrow(RangeError);
  });
});

describe('summarise', () => {
  it('keeps four digits', () => {
    expect(summarise([1.234567, 1.234567])).toEqual({ median: 1.235, low: 1.235, high: 1.235, samples: 2 });
  });
});
