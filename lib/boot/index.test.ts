import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { concatBytes, littleEndian, viewOf } from './bytes.js';
import { loadBoot, ramRanges, type KernelBoot, type MachineShape } from './index.js';
import { buildBzImage, buildElf, packLz4Legacy, pvhNote, type TestBzImage } from './testing.js';

const MiB = 2 ** 20;
const entry64 = 0x100_0000n;
const vmlinux = buildElf({
  bits: 64,
  entry: entry64,
  segments: [
    { paddr: entry64, data: new TextEncoder().encode('STARTUP_64'), memoryBytes: 0x3000n },
    { type: 4, paddr: 0n, data: pvhNote(0x100_0008) },
  ],
});
const lz4 = concatBytes(packLz4Legacy(vmlinux), littleEndian(vmlinux.length, 4));

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
const bzImage = (options: Partial<TestBzImage> = {}): string =>
  save('vmlinuz', buildBzImage({ payload: lz4, ...options }));
const fault = (message: RegExp) =>
  expect.objectContaining({
    code: 'ERR_KERNEL_IMAGE',
    message: expect.stringMatching(message),
    cure: expect.any(String),
  });

async function boot(options: KernelBoot, sizeBytes = 64 * MiB, shape: MachineShape = {}) {
  const memory = new FakeGuestMemory(ramRanges(sizeBytes));
  const loaded = await loadBoot(memory, options, { rngSeed: new Uint8Array(32).fill(0x11), ...shape });
  const u32 = (gpa: number): number => viewOf(memory.read(gpa, 4)).getUint32(0, true);
  const u64 = (gpa: number): bigint => viewOf(memory.read(gpa, 8)).getBigUint64(0, true);
  const text = (gpa: number): string => {
    let end = gpa;
    while (memory.read(end, 1)[0] !== 0) end++;
    return new TextDecoder().decode(memory.read(gpa, end - gpa));
  };
  return { memory, loaded, regs: loaded.state.regs, sregs: loaded.state.sregs, u32, u64, text };
}

describe('a bzImage', () => {
  it.each([
    ['lz4', lz4],
    ['gzip', new Uint8Array(gzipSync(vmlinux))],
  ])('is unpacked on the host and entered directly: %s', async (_format, payload) => {
    const { memory, loaded, regs } = await boot({ kernel: bzImage({ payload }) });
    expect(loaded).toMatchObject({
      kind: 'linux',
      format: 'bzimage',
      entry: '64bit',
      notes: ['kernel unpacked on the host'],
    });
    expect(regs.rip).toBe(entry64);
    expect(new TextDecoder().decode(memory.read(0x100_0000, 10))).toBe('STARTUP_64');
  });

  it('is kept unpacked in the cache', async () => {
    const cacheDir = path.join(directory, 'cache');
    const kernel = bzImage();
    expect((await boot({ kernel, cacheDir })).loaded.notes).toEqual(['kernel unpacked on the host']);
    expect((await boot({ kernel, cacheDir })).loaded.notes).toEqual(['unpacked kernel from the cache']);
  });

  it('finds boot_params, command line, initrd, memory map and seed', async () => {
    const initrd = save('initrd', Uint8Array.of(1, 2, 3));
    const { memory, regs, sregs, u32, u64, text } = await boot({
      kernel: bzImage(),
      initrd,
      cmdline: 'console=ttyS0 ü',
    });
    expect(regs).toMatchObject({ rsi: 0x7000n, rbp: 0n, rdi: 0n, rbx: 0n });
    expect(regs.rflags & 0x200n).toBe(0n);
    const params = 0x7000;
    expect(u32(params + 0x202)).toBe(0x53726448);
    expect(memory.read(params + 0x210, 1)[0]).toBe(0xff);
    expect(text(u32(params + 0x228))).toBe('console=ttyS0 ü');
    expect(u32(params + 0x218)).toBe(64 * MiB - 4096);
    expect(u32(params + 0x21c)).toBe(3);
    expect(memory.read(64 * MiB - 4096, 4)).toEqual(Uint8Array.of(1, 2, 3, 0));
    expect(u64(params + 0x70)).toBe(0xe0000n);
    expect(memory.read(params + 0x1e8, 1)[0]).toBe(4);
    expect(memory.read(params + 0x1ef, 1)[0]).toBe(0);
    expect([0, 1, 2, 3].map((index) => u64(params + 0x2d0 + 20 * index))).toEqual([0n, 0x9fc00n, 0xe0000n, 0x10_0000n]);
    expect(u64(params + 0x2d0 + 68)).toBe(BigInt(63 * MiB));
    const seed = Number(u64(params + 0x250));
    expect([u64(seed), u32(seed + 8), u32(seed + 12)]).toEqual([0n, 9, 32]);
    expect(memory.read(seed + 16, 32)).toEqual(new Uint8Array(32).fill(0x11));

    expect(sregs).toMatchObject({ cr3: 0x9000n, efer: 0x500n, cs: { selector: 0x10, l: 1 }, ds: { selector: 0x18 } });
    expect(sregs.gdt).toMatchObject({ base: 0x500n, limit: 31 });
    expect([u64(0x510), u64(0x518)]).toEqual([0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]);
    expect(u64(0x9000)).toBe(0xa023n);
    expect(u64(0xb000 + 8 * 8)).toBe(0x100_00e3n);
  });

  it('puts initrd archives in a row, aligned', async () => {
    const parts = [Uint8Array.of(1, 2, 3), save('second', Uint8Array.of(4, 5)), Uint8Array.of(6)];
    const { memory, u32 } = await boot({ kernel: bzImage(), initrd: parts });
    expect(memory.read(u32(0x7218), u32(0x721c))).toEqual(Uint8Array.of(1, 2, 3, 0, 4, 5, 0, 0, 6));
  });

  it('keeps the initrd below what the kernel can reach', async () => {
    const { u32 } = await boot({ kernel: bzImage({ initrdMaxGpa: 0x1ff_ffff }), initrd: Uint8Array.of(1) });
    expect(u32(0x7218)).toBe(0x1ff_f000);
  });

  it.each([
    ['when asked to', {}, 'bzimage'],
    ['when its format is unknown', { payload: new Uint8Array(100).fill(1) }, 'auto'],
    ['when what is inside is no kernel', { payload: new Uint8Array(gzipSync('hello, world')) }, 'auto'],
    ['when it names no payload', { payloadBytes: 0 }, 'auto'],
  ] satisfies [string, Partial<TestBzImage>, KernelBoot['entry']][])(
    'unpacks itself %s',
    async (_when, options, entry) => {
      const { memory, loaded, regs } = await boot({ kernel: bzImage(options), entry });
      expect(loaded).toMatchObject({
        format: 'bzimage',
        entry: '64bit',
        notes: ['the kernel unpacks itself in the guest'],
      });
      expect(regs.rip).toBe(0x100_0200n);
      expect(new TextDecoder().decode(memory.read(0x100_0200, 7))).toBe('ENTRY64');
    },
  );

  it('can be entered by PVH', async () => {
    const { loaded, regs, u32, u64, text, memory } = await boot({
      kernel: bzImage(),
      entry: 'pvh',
      cmdline: 'quiet',
      initrd: Uint8Array.of(7),
    });
    expect(loaded.entry).toBe('pvh');
    expect(regs.rip).toBe(0x100_0008n);
    const info = Number(regs.rbx);
    expect([u32(info), u32(info + 4), u32(info + 12)]).toEqual([0x336ec578, 1, 1]);
    expect(text(Number(u64(info + 24)))).toBe('quiet');
    expect(u64(info + 32)).toBe(0xe0000n);
    const module = Number(u64(info + 16));
    expect(memory.read(Number(u64(module)), Number(u64(module + 8)))).toEqual(Uint8Array.of(7));
    const map = Number(u64(info + 40));
    expect(u32(info + 48)).toBe(4);
    expect([u64(map + 72), u64(map + 80), u32(map + 88)]).toEqual([0x10_0000n, BigInt(63 * MiB), 1]);
    expect(loaded.state.sregs).toMatchObject({
      cr0: 0x11n,
      cr4: 0n,
      efer: 0n,
      cs: { l: 0, db: 1, limit: 0xffff_ffff },
    });
  });
});

describe('a vmlinux', () => {
  it('is entered at its 64-bit entry, or by PVH when asked to', async () => {
    const kernel = save('vmlinux', vmlinux);
    const direct = await boot({ kernel, cmdline: 'x' });
    expect(direct.loaded).toMatchObject({ format: 'elf', entry: '64bit' });
    expect(direct.regs.rip).toBe(entry64);
    expect(direct.u32(0x7202)).toBe(0x53726448);
    expect(direct.text(direct.u32(0x7228))).toBe('x');
    const pvh = await boot({ kernel, entry: 'pvh' });
    expect(pvh.loaded.entry).toBe('pvh');
    expect(pvh.regs.rip).toBe(0x100_0008n);
  });

  it('is entered by PVH when that is all it has', async () => {
    const note = { type: 4, paddr: 0n, data: pvhNote(0x100_0008) };
    const segment = { paddr: entry64, data: new Uint8Array(64) };
    for (const [bits, entry] of [
      [64, 0xffff_ffff_8100_0000n],
      [64, 0x100_0008n],
      [32, entry64],
    ] as const) {
      const kernel = save('pvh', buildElf({ bits, entry, segments: [segment, note] }));
      expect((await boot({ kernel })).loaded.entry).toBe('pvh');
    }
  });

  it('is not told of tables that are not there, and has no seed when there is none', async () => {
    const shape = { rsdpGpa: undefined, rngSeed: new Uint8Array(0) };
    const { u64 } = await boot({ kernel: save('vmlinux', vmlinux) }, 64 * MiB, shape);
    expect(u64(0x7070)).toBe(0n);
    expect(u64(0x7250)).toBe(0n);
  });

  it('works on a machine of 5 GiB', async () => {
    const { u32, memory } = await boot({ kernel: save('vmlinux', vmlinux), initrd: Uint8Array.of(5) }, 5 * 1024 * MiB);
    expect(u32(0x7218)).toBe(0x7fff_f000);
    expect(memory.read(0x71e8, 1)[0]).toBe(5);
  });
});

describe('a bad kernel', () => {
  const outside = (paddr: bigint) =>
    buildElf({ bits: 64, entry: paddr, segments: [{ paddr, data: new Uint8Array(64) }] });

  it.each<[string, RegExp, () => string]>([
    ['missing', /kernel '.*nothing': there is no such file/, () => path.join(directory, 'nothing')],
    ['empty', /the file is empty/, () => save('empty', new Uint8Array(0))],
    ['a directory', /it is a directory/, () => directory],
    ['below a file', /no directory/, () => path.join(save('plain', Uint8Array.of(1)), 'x')],
    ['a device', /no regular file/, () => '/dev/null'],
    ['a FIFO', /no regular file/, () => fifo()],
    ['a circle of links', /circle/, () => circle()],
    ['of one byte', /neither a bzImage nor an ELF file/, () => save('one', Uint8Array.of(0x7f))],
    [
      'of wrong magic',
      /begins with 4d5a9000/,
      () => save('exe', concatBytes([0x4d, 0x5a, 0x90, 0], new Uint8Array(9000))),
    ],
    ['of 32 bits', /32-bit only/, () => bzImage({ xloadflags: 0 })],
    [
      'an ELF file of 32 bits',
      /32-bit only/,
      () =>
        save('e32', buildElf({ bits: 32, entry: entry64, segments: [{ paddr: entry64, data: new Uint8Array(8) }] })),
    ],
    ['outside memory', /outside guest memory/, () => save('out', outside(0x8000_0000n))],
    ['below 1 MiB', /lies on the boot tables/, () => save('low', outside(0x8000n))],
    [
      'without an entry',
      /lies outside its segments/,
      () => save('noentry', buildElf({ bits: 64, entry: 1n, segments: [{ paddr: entry64, data: new Uint8Array(8) }] })),
    ],
    [
      'with a damaged payload',
      /packed kernel is damaged/,
      () => bzImage({ payload: concatBytes(lz4.subarray(0, 20), new Uint8Array(40)) }),
    ],
  ])('that is %s is refused with its fault', async (_what, message, kernel) => {
    await expect(boot({ kernel: kernel() })).rejects.toThrow(fault(message));
  });

  it('names the entry that it lacks', async () => {
    const kernel = save('nopvh', outside(entry64));
    await expect(boot({ kernel, entry: 'pvh' })).rejects.toThrow(fault(/no PVH entry/));
  });

  it('is found out when it is cut at any multiple of 4 KiB', async () => {
    // Bytes that do not pack, so that the file has a length worth cutting.
    const noise = Uint8Array.from({ length: 40_000 }, (_, index) => (index * 2654435761) >>> 13);
    const elf = buildElf({
      bits: 64,
      entry: entry64,
      segments: [{ paddr: entry64, data: noise }],
      sectionsAt: 39_000n,
      sectionCount: 4,
    });
    const packed = buildBzImage({ payload: concatBytes(packLz4Legacy(elf), littleEndian(elf.length, 4)) });
    for (const [name, whole] of [
      ['elf', elf],
      ['bzimage', packed],
    ] as const) {
      await boot({ kernel: save(name, whole) });
      for (let length = 4096; length < whole.length; length += 4096) {
        await expect(boot({ kernel: save(name, whole.subarray(0, length)) })).rejects.toThrow(
          fault(/truncated|beyond the end/),
        );
      }
    }
  });

  it('is never more than an error, whatever its bytes', async () => {
    const memory = new FakeGuestMemory(ramRanges(32 * MiB));
    const packed = buildBzImage({ payload: lz4 });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(packed, vmlinux),
        fc.array(fc.tuple(fc.nat(4000), fc.integer({ min: 0, max: 255 })), { maxLength: 12 }),
        async (image, changes) => {
          const bytes = image.slice();
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          const kernel = save('fuzz', bytes);
          const result = await loadBoot(memory, { kernel, initrd: Uint8Array.of(1) }).catch((error: unknown) => error);
          if (result instanceof Error) expect(result).toBeInstanceOf(VmmError);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('leaves no file open', async () => {
    const before = openFiles();
    const kernel = bzImage({ xloadflags: 0 });
    await expect(boot({ kernel })).rejects.toThrow(fault(/./));
    await expect(boot({ kernel: bzImage(), initrd: ['/nowhere'] })).rejects.toThrow(fault(/./));
    await boot({ kernel: bzImage(), initrd: save('i', Uint8Array.of(1)), cacheDir: path.join(directory, 'c2') });
    await boot({ kernel: bzImage(), initrd: save('i', Uint8Array.of(1)), cacheDir: path.join(directory, 'c2') });
    expect(openFiles()).toBe(before);
  });
});

describe('bad company of a good kernel', () => {
  it.each<[string, RegExp, Partial<KernelBoot>]>([
    ['a missing initrd', /initrd '\/nowhere': there is no such file/, { initrd: '/nowhere' }],
    ['an initrd that is a directory', /initrd '\/': it is a directory/, { initrd: '/' }],
    ['an empty initrd', /initrd: it is empty/, { initrd: new Uint8Array(0) }],
    ['no archive at all', /initrd: it is empty/, { initrd: [] }],
    ['an initrd larger than memory', /48 MiB do not fit/, { initrd: new Uint8Array(48 * MiB) }],
    [
      'a command line too long',
      /command line: it has 2048 bytes, and this kernel takes 2047/,
      { cmdline: 'x'.repeat(2048) },
    ],
    ['a command line that is too long in bytes only', /takes 2047/, { cmdline: 'ü'.repeat(1024) }],
    ['a command line with a NUL', /NUL/, { cmdline: 'a\0b' }],
  ])('%s is refused', async (_what, message, options) => {
    await expect(boot({ kernel: bzImage(), ...options })).rejects.toThrow(fault(message));
  });

  it('takes a command line of exactly the length that fits', async () => {
    await boot({ kernel: bzImage(), cmdline: 'x'.repeat(2047) });
    await boot({ kernel: bzImage({ cmdlineBytes: 5 }), cmdline: 'xxxxx' });
    await expect(boot({ kernel: bzImage({ cmdlineBytes: 5 }), cmdline: 'xxxxxx' })).rejects.toThrow(fault(/takes 5/));
    const endless = bzImage({ cmdlineBytes: 0xffff_ffff });
    await expect(boot({ kernel: endless, cmdline: 'x'.repeat(0x30000) })).rejects.toThrow(fault(/command line/));
  });

  it('needs memory: too little is said', async () => {
    await expect(boot({ kernel: bzImage() }, MiB)).rejects.toThrow(fault(/outside guest memory/));
    await expect(boot({ kernel: bzImage(), entry: 'bzimage' }, 16 * MiB)).rejects.toThrow(
      fault(/needs 1 MiB from 16 MiB on, and the machine has 16 MiB/),
    );
  });
});

describe('a flat image', () => {
  it('may be a file', async () => {
    const memory = new FakeGuestMemory(MiB);
    const flat = save('flat', Uint8Array.of(0xf4));
    const loaded = await loadBoot(memory, { flat, address: 0x1000, mode: 'real16' });
    expect(loaded).toMatchObject({ kind: 'flat', state: { regs: { rip: 0x1000n } } });
    expect(memory.read(0x1000, 1)[0]).toBe(0xf4);
    await expect(loadBoot(memory, { flat: '/nowhere', address: 0, mode: 'real16' })).rejects.toThrow(
      fault(/flat image '\/nowhere': there is no such file/),
    );
  });
});

function fifo(): string {
  const file = path.join(directory, 'fifo');
  rmSync(file, { force: true });
  execFileSync('mkfifo', [file]);
  return file;
}

function circle(): string {
  const folder = path.join(directory, 'circle');
  mkdirSync(folder, { recursive: true });
  for (const [from, to] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    rmSync(path.join(folder, from), { force: true });
    symlinkSync(to, path.join(folder, from));
  }
  return path.join(folder, 'a');
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length;
}
