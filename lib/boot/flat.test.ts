import { describe, expect, it } from 'vitest';
import { FakeGuestMemory } from '../memory/fake.js';
import { viewOf } from './bytes.js';
import { loadFlat } from './flat.js';
import type { CpuState } from './registers.js';

const MiB = 2 ** 20;
const code = Uint8Array.of(0xf4);
const fault = (message: RegExp) =>
  expect.objectContaining({
    code: 'ERR_KERNEL_IMAGE',
    message: expect.stringMatching(message),
    cure: expect.any(String),
  });

function generalRegisters({ regs }: CpuState): bigint[] {
  const { rip: _rip, rsp: _rsp, rflags: _rflags, ...rest } = regs;
  return Object.values(rest);
}

describe('every mode', () => {
  it.each(['real16', 'protected32', 'long64'] as const)(
    '%s: bytes, entry, stack, and nothing else in registers',
    (mode) => {
      const memory = new FakeGuestMemory(MiB);
      const state = loadFlat(memory, Uint8Array.of(1, 2, 3), { address: 0x1000, entry: 0x1002, mode });
      expect(memory.read(0xfff, 5)).toEqual(Uint8Array.of(0, 1, 2, 3, 0));
      expect(state.regs.rip).toBe(0x1002n);
      expect(state.regs.rsp).toBe(0x7000n);
      // Interrupts off, direction clear.
      expect(state.regs.rflags & 0x600n).toBe(0n);
      expect(state.regs.rflags & 2n).toBe(2n);
      expect(generalRegisters(state).every((value) => value === 0n)).toBe(true);
      expect(loadFlat(memory, code, { address: 0x2000, mode }).regs.rip).toBe(0x2000n);
    },
  );

  it.each(['real16', 'protected32', 'long64'] as const)('%s: refuses what is not in memory', (mode) => {
    const memory = new FakeGuestMemory(MiB);
    const load = (address: number, image: Uint8Array, entry = 0x1000) =>
      loadFlat(memory, image, { address, entry, mode });
    expect(() => load(0x1000, new Uint8Array(0))).toThrow(fault(/empty/));
    expect(() => load(MiB, code)).toThrow(fault(/not inside guest memory/));
    expect(() => load(MiB - 1, new Uint8Array(2))).toThrow(fault(/2 bytes at 0xfffff/));
    expect(() => load(2 ** 45, code)).toThrow(fault(/not inside guest memory/));
    expect(() => load(-1, code)).toThrow(RangeError);
    expect(() => load(0.5, code)).toThrow(RangeError);
    expect(() => load('0' as never, code)).toThrow(TypeError);
    expect(() => load(0x1000, code, -1)).toThrow(RangeError);
    expect(memory.dirtyPages.size).toBe(0);
  });

  it('refuses an unknown mode', () => {
    expect(() => loadFlat(new FakeGuestMemory(MiB), code, { address: 0, mode: 'long32' as never })).toThrow(TypeError);
  });
});

describe('real16', () => {
  it('has bases and selectors 0, and limits of real mode', () => {
    const { sregs } = loadFlat(new FakeGuestMemory(MiB), code, { address: 0x500, mode: 'real16' });
    for (const name of ['cs', 'ds', 'es', 'fs', 'gs', 'ss'] as const) {
      expect(sregs[name]).toMatchObject({
        base: 0n,
        selector: 0,
        limit: 0xffff,
        present: 1,
        s: 1,
        dpl: 0,
        db: 0,
        l: 0,
      });
    }
    expect(sregs.cr0 & 0x8000_0001n).toBe(0n);
    expect(sregs.efer).toBe(0n);
    expect(sregs.idt).toMatchObject({ base: 0n, limit: 0x3ff });
  });

  it('starts below 64 KiB only', () => {
    const memory = new FakeGuestMemory(MiB);
    expect(() => loadFlat(memory, code, { address: 0x10000, mode: 'real16' })).toThrow(RangeError);
    expect(loadFlat(memory, code, { address: 0x10000, entry: 0xffff, mode: 'real16' }).regs.rip).toBe(0xffffn);
  });
});

describe('protected32', () => {
  it('has flat segments and no paging', () => {
    const memory = new FakeGuestMemory(MiB);
    const { sregs } = loadFlat(memory, code, { address: 0x10000, mode: 'protected32' });
    expect(sregs.cs).toMatchObject({
      base: 0n,
      limit: 0xffff_ffff,
      selector: 0x08,
      db: 1,
      l: 0,
      g: 1,
      dpl: 0,
      type: 0xb,
    });
    for (const name of ['ds', 'es', 'fs', 'gs', 'ss'] as const) {
      expect(sregs[name]).toMatchObject({ base: 0n, limit: 0xffff_ffff, selector: 0x10, db: 1, g: 1, type: 3 });
    }
    expect(sregs.cr0 & 0x8000_0001n).toBe(1n);
    expect(sregs.gdt).toMatchObject({ base: 0x8000n, limit: 23 });
    expect(viewOf(memory.read(0x8000, 24)).getBigUint64(8, true)).toBe(0x00cf_9b00_0000_ffffn);
    expect(viewOf(memory.read(0x8000, 24)).getBigUint64(16, true)).toBe(0x00cf_9300_0000_ffffn);
  });

  it('leaves an image alone that wants the place of the table', () => {
    const memory = new FakeGuestMemory(MiB);
    const image = new Uint8Array(0x3000).fill(0x90);
    const { sregs } = loadFlat(memory, image, { address: 0x7000, mode: 'protected32' });
    expect(memory.read(0x7000, 0x3000)).toEqual(image);
    expect(sregs.gdt.limit).toBe(0);
  });
});

describe('long64', () => {
  const memory = new FakeGuestMemory(MiB);
  const { regs, sregs } = loadFlat(memory, code, { address: 0x10000, mode: 'long64' });
  const word = (gpa: number): bigint => viewOf(memory.read(gpa, 8)).getBigUint64(0, true);

  it('is in long mode with IOPL 3 and SSE', () => {
    expect(regs.rflags).toBe(0x3002n);
    expect(sregs.cr0 & 0x8000_0003n).toBe(0x8000_0003n);
    expect(sregs.cr0 & 4n).toBe(0n); // EM
    expect(sregs.cr4 & 0x620n).toBe(0x620n);
    expect(sregs.efer).toBe(0x500n);
    expect(sregs.cs).toMatchObject({ selector: 0x08, l: 1, db: 0, dpl: 0, type: 0xb });
    expect(sregs.ss).toMatchObject({ selector: 0x10, dpl: 0, type: 3 });
  });

  it('has descriptors for ring 0 and ring 3, and a TSS that can be loaded again', () => {
    expect(sregs.gdt).toMatchObject({ base: 0x8000n, limit: 55 });
    expect([0, 8, 16, 24, 32].map((at) => word(0x8000 + at))).toEqual([
      0n,
      0x00af_9b00_0000_ffffn,
      0x00cf_9300_0000_ffffn,
      0x00cf_f300_0000_ffffn,
      0x00af_fb00_0000_ffffn,
    ]);
    expect(word(0x8028)).toBe(0x0000_8900_8100_0067n);
    expect(word(0x8030)).toBe(0n);
    expect(sregs.tr).toMatchObject({ base: 0x8100n, selector: 0x28, limit: 103, type: 0xb, s: 0 });
    expect(word(0x8104)).toBe(0x10000n);
    expect(viewOf(memory.read(0x8100, 104)).getUint16(102, true)).toBe(104);
  });

  it('maps the first 4 GiB onto themselves, for ring 3 too', () => {
    expect(sregs.cr3).toBe(0x9000n);
    for (const address of [0n, 0x10000n, 0x7fff_ffffn, 0xc000_0000n, 0xfee0_0000n, 0xffff_ffffn]) {
      const pml4e = word(0x9000 + Number((address >> 39n) & 511n) * 8);
      const pdpte = word(Number(pml4e & ~0xfffn) + Number((address >> 30n) & 511n) * 8);
      const pde = word(Number(pdpte & ~0xfffn) + Number((address >> 21n) & 511n) * 8);
      for (const entry of [pml4e, pdpte, pde]) expect(entry & 7n).toBe(7n); // present, writable, user
      expect(pde & 0x80n).toBe(0x80n);
      expect(pde & ~0x1f_ffffn).toBe(address & ~0x1f_ffffn);
    }
    expect(word(0x9008)).toBe(0n);
    expect(word(0xa020)).toBe(0n);
  });

  it('stays between 0x8000 and 0x10000', () => {
    const pages = [...memory.dirtyPages].filter((page) => page !== 0x10);
    expect(Math.min(...pages)).toBe(8);
    expect(Math.max(...pages)).toBeLessThan(16);
  });

  it('refuses an image on its tables', () => {
    const load = (address: number, length: number) =>
      loadFlat(new FakeGuestMemory(MiB), new Uint8Array(length), { address, mode: 'long64' });
    expect(() => load(0x7fff, 2)).toThrow(fault(/tables of long64/));
    expect(() => load(0xffff, 1)).toThrow(fault(/tables of long64/));
    expect(() => load(0x1000, 0x20000)).toThrow(fault(/tables of long64/));
    expect(load(0x7fff, 1).regs.rip).toBe(0x7fffn);
    expect(load(0x10000, 1).regs.rip).toBe(0x10000n);
    expect(() => loadFlat(new FakeGuestMemory(0xf000), code, { address: 0, mode: 'long64' })).toThrow(fault(/tables/));
  });
});
