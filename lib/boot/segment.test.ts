import { describe, expect, it } from 'vitest';
import { FakeGuestMemory } from '../memory/fake.js';
import { memoryImage } from './errors.js';
import { copySegment } from './segment.js';

const GiB = 2 ** 30;

/** Guest memory with views, in the way of the real one: none crosses a multiple of 2 GiB. */
class WindowedFake extends FakeGuestMemory {
  readonly windows: { gpa: number; bytes: Uint8Array }[] = [];
  readonly marked: [number, number][] = [];

  window(gpa: number, length: number): Uint8Array {
    if (Math.floor(gpa / (2 * GiB)) !== Math.floor((gpa + length - 1) / (2 * GiB))) throw new Error('across two views');
    const bytes = new Uint8Array(length);
    this.windows.push({ gpa, bytes });
    return bytes;
  }

  override markDirty(gpa: number, length: number): void {
    this.marked.push([gpa, length]);
  }
}

describe('copySegment', () => {
  const bytes = Uint8Array.from({ length: 2_500_000 }, (_, index) => index % 249);
  const file = memoryImage('kernel', bytes);

  it('copies in pieces', () => {
    const memory = new FakeGuestMemory(4 * 2 ** 20);
    copySegment(memory, file, 100, 0x1001, 2_400_000);
    expect(Buffer.compare(memory.read(0x1001, 2_400_000), bytes.subarray(100, 2_400_100))).toBe(0);
    expect(memory.read(0x1000, 1)[0]).toBe(0);
    copySegment(memory, file, 0, 0, 0);
  });

  it('reads straight into views, split where they end, and marks them dirty', () => {
    const memory = new WindowedFake([{ gpa: 0, sizeBytes: 3 * GiB }]);
    copySegment(memory, file, 5, 2 * GiB - 1000, 3000);
    expect(memory.marked).toEqual([
      [2 * GiB - 1000, 1000],
      [2 * GiB, 2000],
    ]);
    expect(memory.windows.map(({ gpa }) => gpa)).toEqual([2 * GiB - 1000, 2 * GiB]);
    expect(memory.windows[0]!.bytes).toEqual(bytes.subarray(5, 1005));
    expect(memory.windows[1]!.bytes).toEqual(bytes.subarray(1005, 3005));
    expect(memory.dirtyPages.size).toBe(0);
  });
});
