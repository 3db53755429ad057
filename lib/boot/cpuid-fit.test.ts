import { describe, expect, it } from 'vitest';
import type { CpuidEntry } from '../kvm/index.js';
import { cpuVendor, fitCpuid, missingFeatures } from './cpuid-fit.js';

const row = (leaf: number, registers: Partial<CpuidEntry>, index = 0): CpuidEntry => ({
  function: leaf,
  index,
  flags: 0,
  eax: 0,
  ebx: 0,
  ecx: 0,
  edx: 0,
  ...registers,
});
const intel = row(0, { ebx: 0x756e_6547, edx: 0x4965_6e69, ecx: 0x6c65_746e });
const amd = row(0, { ebx: 0x6874_7541, edx: 0x6974_6e65, ecx: 0x444d_4163 });
const sizes = (bits: number): CpuidEntry => row(0x8000_0008, { eax: 0x3000 | bits });

const AVX2 = 1 << 5;
const guest = [
  intel,
  row(1, { ecx: (1 << 26) | (1 << 27) | (1 << 28), edx: 1 << 9 }),
  row(7, { ebx: AVX2 | (1 << 16), ecx: 1 << 4 }),
  row(7, { ebx: 1 << 7 }, 1),
  row(0xd, { eax: 0xe7 }),
  sizes(48),
];

describe('the CPU of a snapshot', () => {
  it('fits a host that has all of it, and more', () => {
    const host = [
      intel,
      row(1, { ecx: 0xf7ff_ffff, edx: 0xffff_fdff }),
      row(7, { ebx: 0xffff_ffff }),
      row(0xd, { eax: 0xff }),
      sizes(52),
    ];
    expect(missingFeatures(guest, host)).toEqual([]);
    expect(fitCpuid(guest, host, false)).toEqual(guest);
  });

  it('is refused by the names of what is missing, and by the places of what has none', () => {
    const host = [
      intel,
      row(1, { ecx: 1 << 26, edx: 0 }),
      row(7, { ebx: AVX2 }),
      row(7, {}, 1),
      row(0xd, { eax: 7 }),
      sizes(46),
    ];
    const refuse = () => fitCpuid(guest, host, false);
    expect(refuse).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT_HOST' }));
    expect(missingFeatures(guest, host)).toEqual([
      'AVX',
      'AVX512F',
      'XCR0.opmask',
      'XCR0.ZMM_Hi256',
      'XCR0.Hi16_ZMM',
      'physical addresses of 48 bits (46 here)',
    ]);
    expect(missingFeatures([row(1, { ecx: 1 << 16 })], host)).toContain('CPUID 0x1.0 ECX bit 16');
    expect(refuse).toThrow(/AVX512F/);
  });

  it('is masked when asked, and only by what is missing', () => {
    const host = [intel, row(1, { ecx: 1 << 26 }), row(7, { ebx: AVX2 }), row(0xd, { eax: 7 }), sizes(46)];
    const fitted = fitCpuid(guest, host, true);
    expect(fitted[1]).toMatchObject({ ecx: ((1 << 26) | (1 << 27)) >>> 0, edx: 1 << 9 });
    expect(fitted[2]).toMatchObject({ ebx: AVX2, ecx: 1 << 4 });
    expect(fitted[4]).toMatchObject({ eax: 7 });
    expect(fitted[5]!.eax & 0xff).toBe(46);
    expect(missingFeatures(fitted, host)).toEqual([]);
  });

  it('of another vendor is refused by name, masked or not', () => {
    expect(cpuVendor([amd])).toBe('AuthenticAMD');
    for (const mask of [false, true]) {
      expect(() => fitCpuid(guest, [amd], mask)).toThrow(/by GenuineIntel, this host's by AuthenticAMD/);
    }
  });
});
