/**
 * CPUID tables as they cross the border to the addon: seven 32-bit numbers a row (struct kvm_cpuid_entry2), and as objects.
 */
import type * as v from 'valibot';
import { rows } from '../base/saved-state.js';

/** One row of KVM_GET_SUPPORTED_CPUID, or of a vCPU's table. Registers are unsigned 32-bit numbers. */
export interface CpuidEntry {
  readonly function: number;
  readonly index: number;
  /** Bit 0: the index is significant. */
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** Seven numbers a row, as the addon hands them over. */
export function decodeCpuid(rows: Uint32Array): CpuidEntry[] {
  const entries: CpuidEntry[] = [];
  for (let at = 0; at + 7 <= rows.length; at += 7) {
    const [leaf, index, flags, eax, ebx, ecx, edx] = rows.subarray(at, at + 7) as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    entries.push({ function: leaf, index, flags, eax, ebx, ecx, edx });
  }
  return entries;
}

export function encodeCpuid(entries: readonly CpuidEntry[]): Uint32Array {
  return Uint32Array.from(
    entries.flatMap(({ function: leaf, index, flags, eax, ebx, ecx, edx }) => [leaf, index, flags, eax, ebx, ecx, edx]),
  );
}

/** The table in a saved state: at most KVM_MAX_CPUID_ENTRIES rows (arch/x86/include/asm/kvm_host.h). */
export const cpuidRows: v.GenericSchema<CpuidEntry[]> = rows(
  { function: 'u32', index: 'u32', flags: 'u32', eax: 'u32', ebx: 'u32', ecx: 'u32', edx: 'u32' },
  256,
);
