import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { inSegments, loadElf, parseElf } from './elf.js';
import { memoryImage } from './errors.js';
import { copySegment } from './segment.js';
import { buildElf, pvhNote, type TestElf, type TestSegment } from './testing.js';

const MiB = 2 ** 20;
const code = Uint8Array.of(0x90, 0xf4, 0xeb, 0xfd);
const good: TestElf = {
  bits: 64,
  entry: 0x100000n,
  segments: [{ paddr: 0x100000n, data: code, memoryBytes: 0x2000n }],
};
const parse = (options: Partial<TestElf>) => parseElf(memoryImage("kernel 'x'", buildElf({ ...good, ...options })));
const segments = (...list: TestSegment[]) => ({ segments: list });
const fault = (message: RegExp) =>
  expect.objectContaining({
    code: 'ERR_KERNEL_IMAGE',
    message: expect.stringMatching(message),
    cure: expect.any(String),
  });

describe('parseElf', () => {
  it('reads ELF64 and ELF32', () => {
    expect(parse({})).toEqual({
      bits: 64,
      entry: 0x100000n,
      segments: [{ fileOffset: 120, fileBytes: 4, gpa: 0x100000, memoryBytes: 0x2000 }],
      pvhEntry: undefined,
    });
    expect(parse({ bits: 32 })).toMatchObject({ bits: 32, entry: 0x100000n, segments: [{ fileOffset: 84 }] });
  });

  it('puts segments in order and leaves out what takes no memory', () => {
    const elf = parse(
      segments(
        { paddr: 0x300000n, data: code },
        { paddr: 0x100000n, data: code },
        { paddr: 0x10n, data: new Uint8Array(0) },
      ),
    );
    expect(elf.segments.map((segment) => segment.gpa)).toEqual([0x100000, 0x300000]);
  });

  it('finds the PVH entry, whatever its width and the notes around it', () => {
    const other = Uint8Array.of(4, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 71, 78, 85, 0, 1, 2, 3, 4, 5, 0, 0, 0);
    const note = (data: Uint8Array): TestSegment => ({ type: 4, paddr: 0n, data });
    for (const width of [4, 8] as const) {
      const notes = Uint8Array.of(...other, ...pvhNote(0x1000850, width));
      expect(parse(segments(good.segments[0]!, note(notes))).pvhEntry).toBe(0x1000850);
    }
    expect(parse(segments(good.segments[0]!, note(other))).pvhEntry).toBeUndefined();
    expect(parse(segments(good.segments[0]!, note(pvhNote(1).subarray(0, 18)))).pvhEntry).toBeUndefined();
    const endless = Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 255, 18, 0, 0, 0);
    expect(parse(segments(good.segments[0]!, note(endless))).pvhEntry).toBeUndefined();
  });

  it.each<[string, RegExp, Partial<TestElf>]>([
    ['for another machine', /machine 183/, { machine: 183 }],
    ['that is big-endian', /big-endian/, { data: 2 }],
    ['that is an object file', /no executable/, { type: 1 }],
    ['without program headers', /no program headers/, { segments: [] }],
    ['with nothing to load', /nothing to load/, segments({ type: 6, paddr: 0n, data: code })],
    [
      'with too many program headers',
      /129 program headers/,
      segments(...Array.from({ length: 129 }, () => good.segments[0]!)),
    ],
    ['with odd program headers', /wrong size/, { segmentHeaderBytes: 32 }],
    ['whose section headers are cut off', /truncated.*section headers/, { sectionsAt: 200n, sectionCount: 3 }],
    ['whose segment lies beyond the file', /beyond the end/, segments({ paddr: 0x100000n, data: code, offset: 121n })],
    [
      'whose segment wraps in the file',
      /beyond the end/,
      segments({ paddr: 0x100000n, data: code, offset: 0xffff_ffff_ffff_fff0n }),
    ],
    [
      'whose segment is larger in the file than in memory',
      /larger in the file/,
      segments({ paddr: 0x100000n, data: code, memoryBytes: 3n }),
    ],
    [
      'whose segment wraps in memory',
      /wraps/,
      segments({ paddr: 0xffff_ffff_ffff_f000n, data: code, memoryBytes: 0x2000n }),
    ],
    ['whose segment is huge', /wraps/, segments({ paddr: 0n, data: code, memoryBytes: 0xffff_ffff_ffff_ffffn })],
    [
      'whose segments overlap',
      /0x100000 and 0x101fff overlap/,
      segments(good.segments[0]!, { paddr: 0x101fffn, data: code }),
    ],
    [
      'whose notes lie beyond the file',
      /notes lie beyond/,
      segments(good.segments[0]!, { type: 4, paddr: 0n, data: code, offset: 999n }),
    ],
  ])('refuses a file %s', (_what, message, options) => {
    expect(() => parse(options)).toThrow(fault(message));
  });

  it('finds out a file that is cut anywhere', () => {
    const whole = buildElf(good);
    for (let length = 0; length < whole.length; length++) {
      expect(() => parseElf(memoryImage("kernel 'x'", whole.subarray(0, length)))).toThrow(fault(/truncated|beyond/));
    }
  });

  it('answers any bytes with a kernel or a VmmError', () => {
    const seed = buildElf({ ...good, segments: [...good.segments, { type: 4, paddr: 0n, data: pvhNote(7) }] });
    const memory = new FakeGuestMemory(4 * MiB);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 4, max: seed.length - 1 }), fc.integer({ min: 0, max: 255 })), {
          maxLength: 8,
        }),
        fc.integer({ min: 0, max: seed.length }),
        (changes, length) => {
          const bytes = seed.slice();
          for (const [at, value] of changes) bytes[at] = value;
          const file = memoryImage("kernel 'x'", bytes.subarray(0, length || bytes.length));
          try {
            const options = { occupied: [], memoryIsZero: true, loadSegment: copySegment };
            loadElf(memory, file, parseElf(file), options);
          } catch (error) {
            expect(error).toBeInstanceOf(VmmError);
          }
        },
      ),
      { numRuns: 3000 },
    );
  });
});

describe('loadElf', () => {
  const load = (elf: TestElf, memory: FakeGuestMemory, memoryIsZero = false) => {
    const file = memoryImage("kernel 'x'", buildElf(elf));
    const occupied = [{ name: 'the boot tables', start: 0, end: 0x40000 }];
    return loadElf(memory, file, parseElf(file), { occupied, memoryIsZero, loadSegment: copySegment });
  };

  it('copies what is in the file and clears the rest', () => {
    const memory = new FakeGuestMemory(2 * MiB);
    memory.fill(MiB, 0xff, 0x3000);
    expect(load(good, memory)).toBe(0x102000);
    expect(memory.read(MiB, 5)).toEqual(Uint8Array.of(...code, 0));
    expect(memory.read(MiB + 0x1fff, 2)).toEqual(Uint8Array.of(0, 0xff));
  });

  it('leaves zeros alone in memory that is zero', () => {
    const memory = new FakeGuestMemory(2 * MiB);
    load(good, memory, true);
    expect([...memory.dirtyPages]).toEqual([0x100]);
  });

  it('refuses segments outside memory, partly or wholly, and on what is occupied', () => {
    const at = (paddr: bigint): TestElf => ({ ...good, segments: [{ ...good.segments[0]!, paddr }] });
    for (const paddr of [0x1ff001n, 0x200000n, 0xfee0_0000n, 1n << 40n]) {
      const memory = new FakeGuestMemory(2 * MiB);
      expect(() => load(at(paddr), memory)).toThrow(fault(/outside guest memory/));
      expect(memory.dirtyPages.size).toBe(0);
    }
    expect(() => load(at(0x3f000n), new FakeGuestMemory(2 * MiB))).toThrow(fault(/lies on the boot tables/));
  });

  it('knows what lies in a segment', () => {
    const elf = parse({});
    expect(inSegments(elf, 0x100000n)).toBe(true);
    expect(inSegments(elf, 0x101fffn)).toBe(true);
    expect(inSegments(elf, 0x102000n)).toBe(false);
    expect(inSegments(elf, 0xffff_ffff_8100_0000n)).toBe(false);
  });
});
