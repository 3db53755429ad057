import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CpuidEntry } from '../kvm/index.js';
import { cpuidForVcpu, type CpuidOptions, offeredKvmFeatures } from './cpuid.js';
import { initialMsrs } from './msrs.js';

/** function, index, eax, ebx, ecx, edx: what KVM reported on an AMD host, shortened. */
const amd = rows([
  [0x0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65],
  [0x1, 0, 0x00a00f11, 0x00020800, 0x81202000 | (1 << 27) | (1 << 15), 0x078bfbff],
  [0x6, 0, 0x4, 0, 9, 0],
  [0x7, 0, 0, 0x01800006, 0x4, 0xa8000000],
  [0xa, 0, 0x07300402, 1, 2, 3],
  [0xb, 0, 9, 9, 9, 9],
  [0xd, 0, 0x207, 0x988, 0x988, 0],
  [0x80000000, 0, 0x80000022, 0x68747541, 0x444d4163, 0x69746e65],
  [0x80000001, 0, 0x00a00f11, 0x40000000, 0x00c00397, 0x23d3fbff],
  [0x80000008, 0, 0x3030, 0x110ad205, 0x0003_7001, 0],
  [0x8000000a, 0, 1, 0x8000, 0, 0xff],
  [0x8000001d, 0, 0x121, 0x01c0003f, 0x3f, 0],
  [0x8000001d, 2, 0x143, 0x01c0003f, 0x3ff, 2],
  [0x8000001d, 3, 0x4163, 0x03c0003f, 0x7fff, 1],
  [0x8000001d, 4, 0, 0, 0, 0],
  [0x8000001e, 0, 77, 77, 77, 0],
  [0x80000022, 0, 1, 6, 0, 0],
  [0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d],
  [0x40000001, 0, 0x01007efb, 0, 0, 0],
]);

/** The same of an Intel host. */
const intel = rows([
  [0x0, 0, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69],
  [0x1, 0, 0x000806f8, 0x00010800, 0xf7fab223 | (1 << 5), 0x1f8bfbff],
  [0x4, 0, 0xfc004121, 0x02c0003f, 0x3f, 0],
  [0x4, 2, 0xfc00c143, 0x03c0003f, 0x7ff, 0],
  [0x4, 3, 0xfc1fc163, 0x0380003f, 0x1bfff, 4],
  [0x4, 4, 0, 0, 0, 0],
  [0x12, 0, 1, 2, 3, 4],
  [0x80000008, 0, 0x3030, 0, 0, 0],
  [0x8000001e, 0, 0, 0, 0, 0],
]);

function rows(list: number[][]): CpuidEntry[] {
  return list.map((row) => {
    const [leaf, index, eax, ebx, ecx, edx] = row.map((value) => value >>> 0) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    return { function: leaf, index, flags: index > 0 || leaf === 4 ? 1 : 0, eax, ebx, ecx, edx };
  });
}

function cpu(options: CpuidOptions, supported = amd) {
  const table = cpuidForVcpu(supported, options);
  return {
    table,
    leaf(leaf: number, index = 0): CpuidEntry {
      const found = table.filter((row) => row.function === leaf && row.index === index);
      if (found.length !== 1) throw new Error(`${found.length} rows for leaf ${leaf.toString(16)}.${index}`);
      return found[0]!;
    },
    has: (leaf: number) => table.some((row) => row.function === leaf),
  };
}

const bits = (value: number, low: number, count: number): number => (value >>> low) & (2 ** count - 1);
const topologies = fc.integer({ min: 1, max: 32 }).chain((count) => fc.tuple(fc.constant(count), fc.nat(count - 1)));

describe('topology', () => {
  it('is right for every CPU of every machine of 1 to 32', () => {
    for (const supported of [amd, intel]) {
      for (let count = 1; count <= 32; count++) {
        const shift = Math.ceil(Math.log2(count));
        const ids = new Set<number>();
        for (let id = 0; id < count; id++) {
          const { leaf } = cpu({ id, count }, supported);
          expect(bits(leaf(1).ebx, 24, 8)).toBe(id);
          expect(bits(leaf(1).ebx, 16, 8)).toBe(count);
          expect(bits(leaf(1).edx, 28, 1)).toBe(count > 1 ? 1 : 0);
          for (const topology of supported === intel ? [0xb, 0x1f] : [0xb]) {
            expect(leaf(topology, 0)).toMatchObject({ flags: 1, eax: 0, ebx: 1, ecx: 0x100, edx: id });
            expect(leaf(topology, 1)).toMatchObject({ flags: 1, eax: shift, ebx: count, ecx: 0x201, edx: id });
            expect(leaf(topology, 2)).toMatchObject({ flags: 1, eax: 0, ebx: 0, ecx: 2, edx: id });
            // What is left of the id beyond the cores is the socket: all in one.
            expect(id >> leaf(topology, 1).eax).toBe(0);
          }
          ids.add(leaf(0xb).edx);
        }
        expect(ids.size).toBe(count);
      }
    }
  });

  it('has all of AMD: cores, id size, caches', () => {
    fc.assert(
      fc.property(topologies, ([count, id]) => {
        const { leaf } = cpu({ id, count });
        const sizes = leaf(0x80000008).ecx;
        expect(bits(sizes, 0, 8)).toBe(count - 1);
        expect(2 ** bits(sizes, 12, 4)).toBeGreaterThanOrEqual(count);
        expect(bits(sizes, 16, 2)).toBe(3);
        expect(leaf(0x8000001e)).toMatchObject({ eax: id, ebx: id, ecx: 0, edx: 0 });
        expect(bits(leaf(0x80000001).ecx, 1, 1)).toBe(count > 1 ? 1 : 0);
        expect([0, 2, 3].map((index) => bits(leaf(0x8000001d, index).eax, 14, 12))).toEqual([0, 0, count - 1]);
        expect(leaf(0x8000001d, 4).eax).toBe(0);
        expect(leaf(0x8000001d, 2).eax & 0x3fff).toBe(0x143);
      }),
    );
  });

  it('has all of Intel: caches and cores as powers of two, and nothing of AMD', () => {
    fc.assert(
      fc.property(topologies, ([count, id]) => {
        const { leaf } = cpu({ id, count }, intel);
        const ids = 2 ** Math.ceil(Math.log2(count)) - 1;
        expect([0, 2, 3].map((index) => bits(leaf(4, index).eax, 14, 12))).toEqual([0, 0, ids]);
        expect([0, 2, 3].map((index) => bits(leaf(4, index).eax, 26, 6))).toEqual([ids, ids, ids]);
        expect(leaf(4, 4).eax).toBe(0);
        expect(leaf(4, 3).eax & 0x3fff).toBe(0x163);
        expect(leaf(0x80000008).ecx).toBe(0);
        expect(leaf(0x8000001e).eax).toBe(0);
      }),
    );
  });

  it('counts beyond 8 bits where a leaf has room', () => {
    const { leaf } = cpu({ id: 299, count: 300 });
    expect(leaf(0xb, 1)).toMatchObject({ eax: 9, ebx: 300, edx: 299 });
    expect(bits(leaf(1).ebx, 16, 8)).toBe(255);
    expect(bits(leaf(1).ebx, 24, 8)).toBe(299 & 0xff);
    expect(bits(leaf(0x80000008).ecx, 0, 8)).toBe(255);
  });

  it.each([
    [0, 0],
    [2, 2],
    [-1, 1],
    [0.5, 2],
    [0, 5000],
  ])('refuses CPU %d of %d', (id, count) => {
    expect(() => cpuidForVcpu(amd, { id, count })).toThrow(RangeError);
  });

  it('makes room for leaf 0xB on an old CPU', () => {
    const { leaf } = cpu({ id: 0, count: 1 }, rows([[0, 0, 5, 0x756e6547, 0, 0]]));
    expect(leaf(0).eax).toBe(0xb);
  });
});

describe('features', () => {
  it('are those of a guest: hypervisor, x2APIC, no OSXSAVE, no counters, no nesting, no enclaves', () => {
    const { leaf, table } = cpu({ id: 0, count: 2 });
    const { ecx } = leaf(1);
    expect([31, 27, 24, 21, 15, 5].map((bit) => bits(ecx, bit, 1))).toEqual([1, 0, 0, 1, 0, 0]);
    expect(leaf(6)).toMatchObject({ eax: 4, ebx: 0, ecx: 0, edx: 0 });
    expect(bits(leaf(7).ebx, 2, 1)).toBe(0);
    expect(leaf(7).ebx).toBe(0x01800002);
    for (const empty of [0xa, 0x8000000a, 0x80000022]) {
      expect(leaf(empty)).toMatchObject({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
    }
    expect([2, 23, 22].map((bit) => bits(leaf(0x80000001).ecx, bit, 1))).toEqual([0, 0, 1]);
    expect(leaf(0xd)).toMatchObject({ eax: 0x207, ebx: 0x988, ecx: 0x988 });
    for (const row of table) {
      for (const value of [row.eax, row.ebx, row.ecx, row.edx]) expect(value).toBe(value >>> 0);
    }
  });

  it('keep the TSC-deadline timer and nesting where they are wanted and there', () => {
    expect(bits(cpu({ id: 0, count: 1, tscDeadline: true }).leaf(1).ecx, 24, 1)).toBe(1);
    const host = cpu({ id: 0, count: 1, nested: true });
    expect(bits(host.leaf(0x80000001).ecx, 2, 1)).toBe(1);
    expect(host.leaf(0x8000000a).edx).toBe(0xff);
    expect(bits(cpu({ id: 0, count: 1, nested: true }, intel).leaf(1).ecx, 5, 1)).toBe(1);
    expect(bits(cpu({ id: 0, count: 1 }, intel).leaf(1).ecx, 5, 1)).toBe(0);
    expect(bits(cpu({ id: 0, count: 1, nested: true }).leaf(1).ecx, 5, 1)).toBe(0);
    expect(cpu({ id: 0, count: 1 }, intel).leaf(0x12).eax).toBe(0);
  });

  it('of KVM are the ones that are offered, where KVM has them', () => {
    const { leaf, has } = cpu({ id: 0, count: 1 });
    expect(leaf(0x40000000)).toMatchObject({ eax: 0x40000001, ebx: 0x4b4d564b, ecx: 0x564b4d56, edx: 0x4d });
    expect(leaf(0x40000001)).toMatchObject({ eax: 0x01002aeb, edx: 0 });
    expect(has(0x40000010)).toBe(false);
    expect(cpu({ id: 0, count: 1 }, intel).leaf(0x40000001).eax).toBe(0);
    expect(offeredKvmFeatures).not.toContain('ASYNC_PF');
    expect(offeredKvmFeatures).not.toContain('ASYNC_PF_INT');
  });

  it('tell the clocks when they are known', () => {
    const { leaf } = cpu({ id: 0, count: 1, tscKhz: 2_400_000 });
    expect(leaf(0x40000000).eax).toBe(0x40000010);
    expect(leaf(0x40000010)).toMatchObject({ eax: 2_400_000, ebx: 1_000_000, ecx: 0, edx: 0 });
  });

  it('of other hypervisors are left out', () => {
    const { has } = cpu({ id: 0, count: 1 }, [...amd, ...rows([[0x40000100, 0, 1, 1, 1, 1]])]);
    expect(has(0x40000100)).toBe(false);
  });
});

describe('initialMsrs', () => {
  it('turns the MTRRs on with write-back memory, which no KVM may refuse', () => {
    expect(initialMsrs().find((msr) => msr.index === 0x2ff)).toEqual({ index: 0x2ff, value: 0x806n, optional: false });
    expect(initialMsrs().filter((msr) => !msr.optional)).toHaveLength(1);
    expect(initialMsrs().find((msr) => msr.index === 0x1a0)?.value).toBe(0x1801n);
  });
});
