/**
 * The topology half of CPUID: one socket, as many cores as vCPUs, one thread a core; the last-level cache is shared by
 * all, the others by none. Sources: Intel SDM volume 3A, section 9.9 (leaves 4, 0xB, 0x1F); AMD APM volume 3,
 * appendix E.4 (leaves 0x8000001D, 0x8000001E).
 */
import { TopologyLevel } from '../abi/cpuid.js';
import type { CpuidEntry } from '../kvm/index.js';

/** More than any KVM allows; APIC ids of this size need leaf 0xB, which has 32 bits for them. */
export const MAX_CPUS = 4096;

/** Flag of a row whose index counts: KVM_CPUID_FLAG_SIGNIFCANT_INDEX. */
const SIGNIFICANT_INDEX = 1;
const LAST_LEVEL_CACHE = 3;

/** Bits that it takes to number `count` things. */
export function log2Ceil(count: number): number {
  return 32 - Math.clz32(count - 1);
}

/** Leaf 0xB or 0x1F: a level of threads, one of cores, and the end. */
export function topologyRows(leaf: number, apicId: number, count: number): CpuidEntry[] {
  const level = (index: number, type: number, shift: number, logical: number): CpuidEntry => ({
    function: leaf,
    index,
    flags: SIGNIFICANT_INDEX,
    eax: shift,
    ebx: logical,
    ecx: index | (type << 8),
    edx: apicId,
  });
  return [
    level(0, TopologyLevel.SMT, 0, 1),
    level(1, TopologyLevel.CORE, log2Ceil(count), count),
    level(2, TopologyLevel.INVALID, 0, 0),
  ];
}

const cacheType = (eax: number): number => eax & 0x1f;
const cacheLevel = (eax: number): number => (eax >>> 5) & 7;

/** Leaf 4, EAX: ids that share the cache (bits 14 to 25) and ids of cores (26 to 31), both as a power of two less one. */
export function intelCache(eax: number, count: number): number {
  if (cacheType(eax) === 0) return eax;
  const ids = 2 ** log2Ceil(count) - 1;
  const sharing = cacheLevel(eax) >= LAST_LEVEL_CACHE ? Math.min(ids, 0xfff) : 0;
  return ((eax & 0x3fff) | (sharing << 14) | (Math.min(ids, 0x3f) << 26)) >>> 0;
}

/** Leaf 0x8000001D, EAX: processors that share the cache, less one (bits 14 to 25). */
export function amdCache(eax: number, count: number): number {
  if (cacheType(eax) === 0) return eax;
  const sharing = cacheLevel(eax) >= LAST_LEVEL_CACHE ? Math.min(count - 1, 0xfff) : 0;
  return ((eax & ~(0xfff << 14)) | (sharing << 14)) >>> 0;
}

/** Leaf 0x8000001E: APIC id, core id, one thread a core, one node. */
export function amdTopology(apicId: number): Pick<CpuidEntry, 'eax' | 'ebx' | 'ecx' | 'edx'> {
  return { eax: apicId, ebx: apicId & 0xff, ecx: 0, edx: 0 };
}
