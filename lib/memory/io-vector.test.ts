import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FakeGuestMemory } from './fake.js';
import { GuestVector, HostVector } from './io-vector.js';

const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + 1) & 0xff);

describe('GuestVector', () => {
  it('reads and writes like one run of bytes, whatever its pieces', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 8 }),
        fc.nat(),
        fc.nat(),
        (lengths, a, b) => {
          const memory = new FakeGuestMemory(16 * 65536);
          const gpas = lengths.map((_, i) => (lengths.length - i) * 65536 + i * 13);
          const vector = new GuestVector(memory, gpas, lengths);
          const bytes = pattern(vector.lengthBytes);
          vector.copyFrom(bytes);
          const from = a % vector.lengthBytes;
          const length = b % (vector.lengthBytes - from + 1);
          const part = new Uint8Array(length);
          vector.slice(from, length).copyTo(part);
          expect(part).toEqual(bytes.subarray(from, from + length));
          vector.slice(from, length).fill(0);
          const all = new Uint8Array(vector.lengthBytes);
          vector.copyTo(all);
          expect(all).toEqual(bytes.fill(0, from, from + length));
        },
      ),
    );
  });

  it('marks the pages of its pieces and no other', () => {
    const memory = new FakeGuestMemory(0x10000);
    new GuestVector(memory, [0x1ff0, 0x5000], [0x20, 1]).markDirty();
    expect([...memory.dirtyPages]).toEqual([1, 2, 5]);
  });

  it('refuses a part that is not inside', () => {
    const vector = new GuestVector(new FakeGuestMemory(0x10000), [0x1000], [512]);
    expect(() => vector.slice(1, 512)).toThrow(RangeError);
    expect(() => vector.copyFrom(new Uint8Array(513))).toThrow(RangeError);
    expect(() => vector.copyTo(new Uint8Array(513))).toThrow(RangeError);
  });
});

describe('HostVector', () => {
  it('is its bytes, without a copy', () => {
    const bytes = pattern(16);
    const part = new HostVector(bytes).slice(4, 8);
    part.fill(0);
    part.slice(0, 2).copyFrom(Uint8Array.of(9, 8));
    expect([...bytes.subarray(3, 7)]).toEqual([22, 9, 8, 0]);
    expect(() => part.slice(0, 9)).toThrow(RangeError);
  });
});
