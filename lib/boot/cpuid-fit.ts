/**
 * Whether this host can be the processor that a snapshot's guest was given: its CPUID table is held against the one that this
 * host would give the same vCPU (cpuid.ts). A guest looks at CPUID once and then uses what it found, so nothing may be missing that
 * was there; what is there besides, the guest is not told of. Pure: rows in, rows or a refusal by name out.
 */
import { EXTENDED_ECX_OSPKE, FeatureEcx, FeatureEdx, Leaf } from '../abi/cpuid.js';
import { featureRegisters, type CpuidRegister, type FeatureRegister } from '../abi/cpuid-names.js';
import { VmmError } from '../base/errors.js';
import type { CpuidEntry } from '../kvm/index.js';

/** Bits that KVM itself keeps in step with the vCPU's registers: CR4 and IA32_APIC_BASE. */
const FOLLOWING: Readonly<Record<number, Partial<Record<CpuidRegister, number>>>> = {
  [Leaf.FEATURES]: { ecx: FeatureEcx.OSXSAVE, edx: FeatureEdx.APIC },
  [Leaf.EXTENDED_FEATURES]: { ecx: EXTENDED_ECX_OSPKE },
  [Leaf.AMD_FEATURES]: { edx: FeatureEdx.APIC },
};

/** The vendor's twelve letters: 'GenuineIntel', 'AuthenticAMD'. */
export function cpuVendor(rows: readonly CpuidEntry[]): string {
  const row = rowOf(rows, Leaf.VENDOR, 0);
  const bytes = new DataView(new ArrayBuffer(12));
  [row?.ebx ?? 0, row?.edx ?? 0, row?.ecx ?? 0].forEach((word, index) => bytes.setUint32(4 * index, word, true));
  return new TextDecoder('latin1').decode(bytes).replace(/[^ -~]/g, '');
}

/** What the guest was given and this host lacks, by name. */
export function missingFeatures(saved: readonly CpuidEntry[], offered: readonly CpuidEntry[]): string[] {
  const missing = featureRegisters.flatMap((place) => {
    const bits = missingBits(saved, offered, place);
    return Array.from({ length: 32 }, (_, bit) => bit)
      .filter((bit) => ((bits >>> bit) & 1) !== 0)
      .map((bit) => place.names[bit] || placeName(place, bit));
  });
  const [wanted, had] = [addressBits(saved), addressBits(offered)];
  if (wanted > had) missing.push(`physical addresses of ${wanted} bits (${had} here)`);
  // Intel and AMD tell some of the same features in two leaves.
  return [...new Set(missing)];
}

/**
 * The table to give the vCPU here: the saved one, or with `mask` what of it this host has.
 *
 * @throws VmmError ERR_SNAPSHOT_HOST for another vendor's, and without `mask` for one with features that are missing here.
 */
export function fitCpuid(saved: readonly CpuidEntry[], offered: readonly CpuidEntry[], mask: boolean): CpuidEntry[] {
  const [theirs, ours] = [cpuVendor(saved), cpuVendor(offered)];
  if (theirs !== ours) {
    throw new VmmError('ERR_SNAPSHOT_HOST', `the snapshot's CPU is by ${theirs}, this host's by ${ours}`);
  }
  const missing = missingFeatures(saved, offered);
  if (missing.length === 0) return [...saved];
  if (!mask) {
    throw new VmmError('ERR_SNAPSHOT_HOST', `this host lacks what the guest was given: ${missing.join(', ')}`, {
      cure: 'restore it on a host that has them, or have them masked: a guest that uses them already then fails',
    });
  }
  return saved.map((row) =>
    masked(
      row,
      offered,
      featureRegisters.filter(({ leaf, index }) => isAt(row, leaf, index)),
    ),
  );
}

function masked(row: CpuidEntry, offered: readonly CpuidEntry[], places: readonly FeatureRegister[]): CpuidEntry {
  const result = { ...row };
  for (const place of places) {
    result[place.register] = (row[place.register] & ~missingBits([row], offered, place)) >>> 0;
  }
  if (row.function === Leaf.AMD_SIZES) {
    result.eax = ((row.eax & ~0xff) | Math.min(row.eax & 0xff, addressBits(offered))) >>> 0;
  }
  return result;
}

function missingBits(
  saved: readonly CpuidEntry[],
  offered: readonly CpuidEntry[],
  { leaf, index, register }: FeatureRegister,
): number {
  const wanted = rowOf(saved, leaf, index)?.[register] ?? 0;
  const had = rowOf(offered, leaf, index)?.[register] ?? 0;
  return (wanted & ~had & ~(FOLLOWING[leaf]?.[register] ?? 0)) >>> 0;
}

const isAt = (row: CpuidEntry, leaf: number, index: number): boolean => row.function === leaf && row.index === index;

function rowOf(rows: readonly CpuidEntry[], leaf: number, index: number): CpuidEntry | undefined {
  return rows.find((row) => isAt(row, leaf, index));
}

/** 36 where it isn't told (Intel SDM volume 3A, 4.1.4). */
function addressBits(rows: readonly CpuidEntry[]): number {
  return (rowOf(rows, Leaf.AMD_SIZES, 0)?.eax ?? 36) & 0xff;
}

function placeName({ leaf, index, register }: FeatureRegister, bit: number): string {
  return `CPUID 0x${leaf.toString(16)}.${index} ${register.toUpperCase()} bit ${bit}`;
}
