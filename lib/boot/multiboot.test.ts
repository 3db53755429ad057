import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { concatBytes, viewOf } from './bytes.js';
import { loadBoot, ramRanges } from './index.js';
import { buildElf, multibootHeader } from './testing.js';

const MiB = 2 ** 20;
const code = Uint8Array.of(0xfa, 0xf4);
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'vivarium-boot-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function save(name: string, bytes: Uint8Array): string {
  const file = path.join(directory, name);
  writeFileSync(file, bytes);
  return file;
}

const fault = (message: RegExp) =>
  expect.objectContaining({
    code: 'ERR_KERNEL_IMAGE',
    message: expect.stringMatching(message),
    cure: expect.any(String),
  });

const elf32 = (header = multibootHeader(3), paddr = 0x10_0000n): Uint8Array =>
  buildElf({
    bits: 32,
    entry: paddr + 12n,
    segments: [{ paddr, data: concatBytes(header, code), memoryBytes: 0x5000n }],
  });

/** Reads the information structure as a kernel would. */
function readInfo(memory: FakeGuestMemory, gpa: number) {
  const word = (at: number): number => viewOf(memory.read(at, 4)).getUint32(0, true);
  const text = (at: number): string => {
    let end = at;
    while (memory.read(end, 1)[0] !== 0) end++;
    return new TextDecoder().decode(memory.read(at, end - at));
  };
  const modules = Array.from({ length: word(gpa + 20) }, (_, index) => {
    const at = word(gpa + 24) + index * 16;
    return { bytes: memory.read(word(at), word(at + 4) - word(at)), gpa: word(at), text: text(word(at + 8)) };
  });
  const map: { gpa: bigint; sizeBytes: bigint; type: number }[] = [];
  for (let at = word(gpa + 48); at < word(gpa + 48) + word(gpa + 44); at += word(at) + 4) {
    const view = viewOf(memory.read(at + 4, 20));
    map.push({
      gpa: view.getBigUint64(0, true),
      sizeBytes: view.getBigUint64(8, true),
      type: view.getUint32(16, true),
    });
  }
  return {
    flags: word(gpa),
    lowerKiB: word(gpa + 4),
    upperKiB: word(gpa + 8),
    cmdline: text(word(gpa + 16)),
    modules,
    map,
    loader: text(word(gpa + 64)),
  };
}

describe('a multiboot image', () => {
  it('gets its information, modules and entry state', async () => {
    const memory = new FakeGuestMemory(ramRanges(64 * MiB));
    const multiboot = save('kernel.elf', elf32());
    const one = save('one', new Uint8Array(5000).fill(1));
    const two = save('two', Uint8Array.of(2, 2));
    const loaded = await loadBoot(memory, {
      multiboot,
      cmdline: 'a=b c',
      modules: [one, { path: two, cmdline: 'with text' }],
    });
    expect(loaded).toMatchObject({ kind: 'multiboot', entry: '32bit' });
    const { regs, sregs } = loaded.state;
    expect(regs.rax).toBe(0x2bad_b002n);
    expect(regs.rip).toBe(0x10_000cn);
    expect(sregs.cr0 & 0x8000_0001n).toBe(1n);
    expect(sregs.cs).toMatchObject({ base: 0n, limit: 0xffff_ffff, db: 1, type: 0xb });
    expect(sregs.ds).toMatchObject({ base: 0n, limit: 0xffff_ffff, db: 1, type: 3 });
    const info = readInfo(memory, Number(regs.rbx));
    expect(info).toMatchObject({
      flags: 0b10_0100_1101,
      lowerKiB: 639,
      upperKiB: 63 * 1024,
      cmdline: `${multiboot} a=b c`,
      loader: 'vivarium',
      modules: [
        { gpa: 0x10_5000, text: one, bytes: new Uint8Array(5000).fill(1) },
        { gpa: 0x10_7000, text: `${two} with text`, bytes: Uint8Array.of(2, 2) },
      ],
    });
    expect(info.map.filter((entry) => entry.type === 1)).toEqual([
      { gpa: 0n, sizeBytes: 0x9fc00n, type: 1 },
      { gpa: 0x10_0000n, sizeBytes: 63n * 0x10_0000n, type: 1 },
    ]);
  });

  it('is recognised when it is given as a kernel, its initrd being the first module', async () => {
    const memory = new FakeGuestMemory(ramRanges(16 * MiB));
    const initrd = save('initrd', Uint8Array.of(9));
    const loaded = await loadBoot(memory, { kernel: save('k.elf', elf32()), initrd, cmdline: 'x' });
    expect(loaded.kind).toBe('multiboot');
    const info = readInfo(memory, Number(loaded.state.regs.rbx));
    expect(info.modules).toMatchObject([{ text: initrd, bytes: Uint8Array.of(9) }]);
    expect(info.cmdline).toMatch(/k\.elf x$/);
  });

  it('loads by the addresses in its header, whatever the file is', async () => {
    const memory = new FakeGuestMemory(ramRanges(16 * MiB));
    memory.fill(0x20_0000, 0xff, 0x10000);
    // 256 bytes that are not loaded, then the header 64 bytes into the text.
    const load = 0x20_0000;
    const bytes = concatBytes(
      new Uint8Array(256).fill(7),
      new Uint8Array(64).fill(8),
      multibootHeader(1 << 16, [load + 64, load, load + 100, load + 0x1000, load + 96]),
      new Uint8Array(50).fill(9),
    );
    const loaded = await loadBoot(memory, { multiboot: save('aout', bytes) });
    expect(loaded.state.regs.rip).toBe(BigInt(load + 96));
    expect(memory.read(load, 100)).toEqual(bytes.subarray(256, 356));
    expect(memory.read(load + 100, 0x1000 - 100).every((byte) => byte === 0)).toBe(true);
    expect(memory.read(load + 0x1000, 1)).toEqual(Uint8Array.of(0xff));

    const toTheEnd = bytes.slice();
    viewOf(toTheEnd).setUint32(256 + 64 + 20, 0, true);
    viewOf(toTheEnd).setUint32(256 + 64 + 24, 0, true);
    await loadBoot(memory, { multiboot: save('aout2', toTheEnd) });
    expect(memory.read(load, toTheEnd.length - 256)).toEqual(toTheEnd.subarray(256));
  });
});

describe('a bad multiboot image', () => {
  const load = (bytes: Uint8Array, extra: { modules?: string[]; cmdline?: string } = {}) =>
    loadBoot(new FakeGuestMemory(ramRanges(16 * MiB)), { multiboot: save('bad', bytes), ...extra });
  const at = 0x10_0000;

  it.each<[string, RegExp, Uint8Array]>([
    ['without a header', /no multiboot header/, elf32(new Uint8Array(12))],
    ['whose header comes too late', /no multiboot header/, concatBytes(new Uint8Array(8192 - 8), multibootHeader(0))],
    ['whose header is not aligned', /no multiboot header/, concatBytes([0], multibootHeader(0), [0, 0, 0])],
    [
      'whose sum is wrong',
      /no multiboot header/,
      multibootHeader(3).map((byte, index) => (index === 8 ? byte ^ 1 : byte)),
    ],
    ['that wants a video mode', /video mode/, elf32(multibootHeader(1 << 2))],
    ['that wants the unknown', /unknown requirements \(0x100\)/, elf32(multibootHeader(1 << 8))],
    ['that is no ELF and has no addresses', /no addresses/, concatBytes(multibootHeader(0), new Uint8Array(64))],
    [
      'that is 64-bit',
      /64-bit ELF file/,
      buildElf({ bits: 64, entry: 0x10_0000n, segments: [{ paddr: 0x10_0000n, data: multibootHeader(0) }] }),
    ],
    ['whose addresses are cut off', /cut off/, concatBytes(multibootHeader(1 << 16), new Uint8Array(8))],
    ['whose header is before its text', /contradict/, multibootHeader(1 << 16, [at, at + 4, 0, 0, at])],
    ['whose text begins before the file', /contradict/, multibootHeader(1 << 16, [at + 64, at, 0, 0, at])],
    ['whose text ends before it begins', /contradict/, multibootHeader(1 << 16, [at, at, at - 4, 0, at])],
    ['whose bss ends before the text', /contradict/, multibootHeader(1 << 16, [at, at, at + 32, at + 8, at])],
    ['that is cut off', /truncated/, multibootHeader(1 << 16, [at, at, at + 33, 0, at])],
    ['that lies outside memory', /not all guest memory/, multibootHeader(1 << 16, [0xf000_0000, 0xf000_0000, 0, 0, 0])],
    ['whose bss is huge', /not all guest memory/, multibootHeader(1 << 16, [at, at, 0, 0xffff_ffff, at])],
    [
      'that lies on the information',
      /lies on the multiboot information/,
      multibootHeader(1 << 16, [0x6000, 0x6000, 0, 0, 0]),
    ],
    ['that lies on the BIOS area', /video and BIOS area/, elf32(multibootHeader(0), 0xf_0000n)],
  ])('%s is refused', async (_what, message, bytes) => {
    await expect(load(bytes)).rejects.toThrow(fault(message));
  });

  it('is refused with modules or texts that do not fit', async () => {
    await expect(load(elf32(), { modules: ['/nowhere/at/all'] })).rejects.toThrow(
      fault(/module '\/nowhere.*no such file/),
    );
    const big = save('big', new Uint8Array(17 * MiB));
    await expect(load(elf32(), { modules: [big] })).rejects.toThrow(fault(/module '.*big'.*do not fit/));
    await expect(load(elf32(), { cmdline: 'x'.repeat(0x20000) })).rejects.toThrow(fault(/command line/));
    await expect(load(elf32(), { cmdline: 'a\0b' })).rejects.toThrow(fault(/NUL/));
    const small = save('small', Uint8Array.of(1));
    await expect(load(elf32(), { modules: new Array<string>(300).fill(small) })).rejects.toThrow(
      fault(/modules are too many/),
    );
  });

  it('is never more than an error, whatever its bytes', async () => {
    const seed = concatBytes(multibootHeader(1 << 16, [at, at, at + 40, at + 64, at]), new Uint8Array(16));
    const memory = new FakeGuestMemory(ramRanges(4 * MiB));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(seed, elf32()),
        fc.array(fc.tuple(fc.nat(100), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
        async (image, changes) => {
          const bytes = image.slice();
          for (const [offset, value] of changes) if (offset < bytes.length) bytes[offset] = value;
          // The sum is made right again, so that the fields behind it are looked at.
          const view = viewOf(bytes);
          const header = image === seed ? 0 : 84;
          view.setUint32(
            header + 8,
            (2 ** 33 - view.getUint32(header, true) - view.getUint32(header + 4, true)) % 2 ** 32,
            true,
          );
          const result = await loadBoot(memory, { multiboot: save('fuzz', bytes) }).catch((error: unknown) => error);
          if (result instanceof Error) expect(result).toBeInstanceOf(VmmError);
        },
      ),
      { numRuns: 400 },
    );
  });
});
