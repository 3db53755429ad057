/**
 * What the TSCs of a machine's vCPUs must show after a restore, as whole-number arithmetic and nothing else: clock-state.ts asks KVM.
 *
 * Source: Documentation/virt/kvm/devices/vcpu.rst, 4.1 (KVM_VCPU_TSC_OFFSET): guest TSC less kvmclock times frequency is the same
 * before and after. So every TSC moves by what kvmclock moved, whatever the mode, and TSCs keep the distance that they had.
 */

const MASK = (1n << 64n) - 1n;

export const wrap = (value: bigint): bigint => value & MASK;

/** A number of 64 bits as a signed one. */
export const signed = (value: bigint): bigint => BigInt.asIntN(64, value);

/** The guest's TSC when kvmclock shows `nowNs`, having been `tsc` when that showed `savedNs`. `khz` 0: unknown, so it stands. */
export function tscAt(tsc: bigint, savedNs: bigint, nowNs: bigint, khz: number): bigint {
  return wrap(tsc + ((nowNs - savedNs) * BigInt(khz)) / 1_000_000n);
}

/** TSCs so near to each other are one that was read at several moments: they were set together and are set so again. */
const READING_NS = 1_000_000n;

/** The TSCs, those that only differ by the time of their reading made equal to the first. */
export function together(tscs: readonly bigint[], khz: number): bigint[] {
  const [first] = tscs;
  const nearest = (READING_NS * BigInt(khz)) / 1_000_000n;
  return tscs.map((tsc) => {
    const distance = signed(tsc - first!);
    return distance < nearest && distance > -nearest ? first! : tsc;
  });
}

/** KVM takes a frequency that differs by no more as its own: kvm's tsc_tolerance_ppm (arch/x86/kvm/x86.c). */
const TOLERANCE_PPM = 250;

export function isSameFrequency(khz: number, hostKhz: number): boolean {
  return khz === 0 || hostKhz === 0 || Math.abs(khz - hostKhz) * 1e6 <= TOLERANCE_PPM * hostKhz;
}
