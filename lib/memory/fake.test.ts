import { describe, expect, it } from 'vitest';
import { FakeGuestMemory } from './fake.js';

const GiB = 2 ** 30;

describe('FakeGuestMemory', () => {
  it('reads back what was written, across its chunks', () => {
    const memory = new FakeGuestMemory(1 << 20);
    const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => index * 7);
    memory.write(60_000, bytes);
    expect(memory.read(60_000, 70_000)).toEqual(bytes);
    expect(memory.read(59_999, 1)).toEqual(Uint8Array.of(0));
  });

  it('has RAM above 4 GiB and a hole below it', () => {
    const memory = new FakeGuestMemory([
      { gpa: 0, sizeBytes: 3 * GiB },
      { gpa: 4 * GiB, sizeBytes: GiB },
    ]);
    memory.write(4 * GiB + 5, Uint8Array.of(9));
    expect(memory.read(4 * GiB + 4, 3)).toEqual(Uint8Array.of(0, 9, 0));
    expect(memory.contains(3 * GiB - 1, 2)).toBe(false);
    expect(memory.contains(5 * GiB - 1, 1)).toBe(true);
    expect(memory.sizeBytes).toBe(4 * GiB);
    expect(() => memory.write(3 * GiB, Uint8Array.of(1))).toThrow(
      expect.objectContaining({ code: 'ERR_GUEST_MEMORY' }),
    );
  });

  it.each([
    [-1, 1],
    [0.5, 1],
    [NaN, 1],
    [4095, 2],
    [0, -1],
  ])('refuses %d, length %d', (gpa, length) => {
    const memory = new FakeGuestMemory(4096);
    expect(memory.contains(gpa, length)).toBe(false);
    expect(() => memory.read(gpa, length)).toThrow(expect.objectContaining({ code: 'ERR_GUEST_MEMORY' }));
  });

  it('fills, and notes the pages that were written', () => {
    const memory = new FakeGuestMemory(1 << 20);
    memory.fill(4090, 0xaa, 10);
    expect([...memory.dirtyPages]).toEqual([0, 1]);
    expect(memory.read(4089, 12)).toEqual(Uint8Array.of(0, ...new Array<number>(10).fill(0xaa), 0));
    memory.fill(4090, 0, 10);
    expect(memory.read(4090, 10)).toEqual(new Uint8Array(10));
    memory.dirtyPages.clear();
    memory.write(8192, new Uint8Array(0));
    expect(memory.dirtyPages.size).toBe(0);
  });
});
