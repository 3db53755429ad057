import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FakeGuestMemory } from '../memory/fake.js';
import { loadElf, parseElf } from './elf.js';
import { trimZeros } from './elf-trim.js';
import { memoryImage } from './errors.js';
import { copySegment } from './segment.js';
import { buildElf } from './testing.js';

const MiB = 2 ** 20;

function elf(used: number, zeros: number): Uint8Array {
  const data = new Uint8Array(used + zeros).fill(7, 0, used);
  return buildElf({ bits: 64, entry: 0x10_0000n, segments: [{ paddr: 0x10_0000n, data }] });
}

const fileBytes = (bytes: Uint8Array): number => parseElf(memoryImage('x', bytes)).segments[0]!.fileBytes;

describe('trimZeros', () => {
  it.each([
    [5000, 20_000, 8192],
    [4096, 4096, 4096],
    [4097, 4095, 8192],
    [100, 0, 100],
    [100, 50, 150],
    [0, 9000, 0],
  ])('of %d bytes and %d zeros loads %d', (used, zeros, loaded) => {
    const bytes = elf(used, zeros);
    trimZeros(bytes);
    expect(fileBytes(bytes)).toBe(loaded);
    // Also where the bytes do not begin on a word.
    const odd = new Uint8Array(bytes.length + 1).subarray(1);
    odd.set(elf(used, zeros));
    trimZeros(odd);
    expect(odd).toEqual(bytes);
  });

  it('changes nothing in memory', () => {
    fc.assert(
      fc.property(fc.nat(9000), fc.nat(9000), (used, zeros) => {
        if (used + zeros === 0) return;
        const load = (bytes: Uint8Array): Buffer => {
          const memory = new FakeGuestMemory(2 * MiB);
          memory.fill(MiB, 0xff, 32 * 1024);
          const file = memoryImage('x', bytes);
          loadElf(memory, file, parseElf(file), { occupied: [], memoryIsZero: false, loadSegment: copySegment });
          return Buffer.from(memory.read(MiB, 32 * 1024));
        };
        const trimmed = elf(used, zeros);
        trimZeros(trimmed);
        expect(load(trimmed).equals(load(elf(used, zeros)))).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it('leaves odd files as they are', () => {
    const whole = elf(100, 9000);
    const wrongEnd = whole.slice();
    new DataView(wrongEnd.buffer).setBigUint64(64 + 32, 1n << 60n, true);
    const wrongTable = whole.slice();
    new DataView(wrongTable.buffer).setBigUint64(32, 1n << 60n, true);
    const elf32 = buildElf({ bits: 32, entry: 0n, segments: [{ paddr: 0n, data: new Uint8Array(9000) }] });
    for (const bytes of [wrongEnd, wrongTable, elf32, new Uint8Array(10_000), new Uint8Array(3)]) {
      const before = bytes.slice();
      trimZeros(bytes);
      expect(Buffer.compare(bytes, before)).toBe(0);
    }
  });
});
