/**
 * Arithmetic between reload values of the PIT, nanoseconds and the ledger's unit. Whole numbers throughout.
 *
 * Two frequencies meet here. A guest counts on 1193182 Hz (Linux's PIT_TICK_RATE, include/linux/timex.h); KVM fires every
 * floor(count * 1e9 / 1193181) ns (KVM_PIT_FREQ and create_pit_timer, arch/x86/kvm/i8254.c). The unit of the ledger is
 * 1 / (1193182 * 1e9) s, in which a nanosecond and a cycle of the guest's PIT are both whole.
 */

/** What guests believe the PIT's input to be, in Hz. */
export const PIT_HZ = 1_193_182;
/** What KVM divides by, in Hz. */
export const KVM_PIT_HZ = 1_193_181n;

export const UNITS_PER_NS = BigInt(PIT_HZ);
export const UNITS_PER_CYCLE = 1_000_000_000n;

/** The largest reload value of a guest: it writes 0 for it (Intel 8254 data sheet, Write Operations). */
export const MAX_GUEST_COUNT = 65_536;
/** The largest count that the host loads. KVM takes it, and a guest that latches sees its low 16 bits. */
export const MAX_HOST_COUNT = 131_072;

/** Modes 2 and 3 fire again and again; in 0, 1 and 4 KVM fires once, in 5 never (pit_load_count). */
export function isPeriodic(count: number, mode: number): boolean {
  return count > 0 && (mode === 2 || mode === 3);
}

/** The time between two ticks that KVM makes of a count, in ns. */
export function kernelPeriodNs(count: number, minPeriodNs: bigint): bigint {
  const periodNs = (BigInt(count) * 1_000_000_000n) / KVM_PIT_HZ;
  return periodNs < minPeriodNs ? minPeriodNs : periodNs;
}

/** The smallest count whose period in KVM is at least `periodNs`. */
export function countAtLeast(periodNs: bigint): number {
  return Number((periodNs * KVM_PIT_HZ + 999_999_999n) / 1_000_000_000n);
}

/** What a tick of this reload value is worth, in units: never less than the shortest period at which KVM can fire. */
export function tickUnitsOf(count: number, minPeriodNs: bigint): bigint {
  const programmed = BigInt(count) * UNITS_PER_CYCLE;
  const shortest = minPeriodNs * UNITS_PER_NS;
  return programmed < shortest ? shortest : programmed;
}

/**
 * The nearest count, at or above the one wanted, that a guest can't have loaded with a one-byte write: such a write
 * leaves the reload mark alone, so the count itself must tell. Low byte only gives 1 to 255, high byte only multiples
 * of 256 (RW_STATE_LSB and RW_STATE_MSB, i8254.c).
 */
export function hostCount(count: number): number {
  const wanted = Math.max(count, 257);
  return wanted % 256 === 0 && wanted <= MAX_GUEST_COUNT ? wanted + 1 : wanted;
}

/** A reload mark for a count of the host's: unlike the low byte of any of `counts`, and unlike `latch`. */
export function markFor(counts: readonly number[], latch: number): number {
  const taken = new Set([...counts.map((count) => count & 0xff), latch]);
  let mark = (~(counts[0] ?? 0) & 0xff) >>> 0;
  while (taken.has(mark)) mark = (mark + 1) & 0xff;
  return mark;
}

/** Division rounding towards minus infinity; `divisor` is positive. */
export function floorDiv(dividend: bigint, divisor: bigint): bigint {
  const quotient = dividend / divisor;
  return dividend % divisor < 0n ? quotient - 1n : quotient;
}

export function minBigint(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

export function maxBigint(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
