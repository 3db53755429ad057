import { describe, expect, it } from 'vitest';
import { describeBoot, toJson } from './inspect.js';

describe('describeBoot', () => {
  it('tells images in memory by their size, wherever they stand', () => {
    const bytes = new Uint8Array(10_000_000);
    expect(describeBoot({ kernel: 'k', initrd: bytes })).toEqual({ kernel: 'k', initrd: '10000000 bytes' });
    expect(describeBoot({ kernel: 'k', initrd: ['a', bytes] })).toEqual({
      kernel: 'k',
      initrd: ['a', '10000000 bytes'],
    });
    expect(describeBoot({ flat: bytes, address: 0, mode: 'real16' })).toMatchObject({ flat: '10000000 bytes' });
  });
});

describe('toJson', () => {
  it('has a place for everything', () => {
    expect(toJson({ a: 1n, b: undefined, c: [NaN], d: new Error('no'), e: Uint8Array.of(1), f: null })).toEqual({
      a: '1',
      c: ['NaN'],
      d: 'Error: no',
      e: [1],
      f: null,
    });
  });
});
