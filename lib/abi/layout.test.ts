import { describe, expect, it } from 'vitest';
import { array, bytes, s64, struct, u16, u32, u64, u8 } from './layout.js';

describe('struct', () => {
  const inner = struct('inner', { a: u8, b: u64 });
  const outer = struct('outer', { x: u16, y: u32, list: array(inner, 2), tail: bytes(3), signed: s64 });

  it('aligns as the x86-64 ABI does', () => {
    expect(inner.sizeBytes).toBe(16);
    expect(inner.offsets).toEqual({ a: 0, b: 8 });
    expect(outer.offsets).toEqual({ x: 0, y: 4, list: 8, tail: 40, signed: 48 });
    expect(outer.sizeBytes).toBe(56);
  });

  it('gives back what it was given', () => {
    const value = {
      x: 0xffff,
      y: 0xffff_ffff,
      list: [
        { a: 1, b: 2n ** 64n - 1n },
        { a: 2, b: 0n },
      ],
      tail: new Uint8Array([1, 2, 3]),
      signed: -5n,
    };
    expect(outer.decode(outer.encode(value))).toEqual(value);
  });

  it('decodes from the middle of a buffer and refuses a short one', () => {
    const buffer = new Uint8Array(inner.sizeBytes + 8);
    buffer.set(inner.encode({ a: 9, b: 7n }), 8);
    expect(inner.decode(buffer.subarray(8))).toEqual({ a: 9, b: 7n });
    expect(() => inner.decode(buffer.subarray(9))).toThrow(RangeError);
  });

  it('pads short bytes with zeros and refuses long ones', () => {
    const codec = struct('codec', { data: bytes(4) });
    expect([...codec.encode({ data: new Uint8Array([1]) })]).toEqual([1, 0, 0, 0]);
    expect(() => codec.encode({ data: new Uint8Array(5) })).toThrow(RangeError);
  });
});
