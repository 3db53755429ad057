/**
 * The MSRs that firmware would have written before a kernel starts, the same for every vCPU. KVM's own reset values
 * serve for all others; the BSP flag of IA32_APIC_BASE is KVM's business too.
 */
import { MiscEnable, Msr, MtrrDefType } from '../abi/x86.js';

/** An MSR to write before the first instruction. */
export interface InitialMsr {
  readonly index: number;
  readonly value: bigint;
  /** A KVM may refuse it, and the guest starts all the same. */
  readonly optional: boolean;
}

/** The MSRs of a vCPU that starts a kernel. Flat images get none of them. */
export function initialMsrs(): InitialMsr[] {
  return [
    // KVM takes a write of 0 by each vCPU of a new machine as the wish that their counters be the same.
    { index: Msr.IA32_TSC, value: 0n, optional: true },
    // Fast string operations on; no branch trace store, no PEBS, as there are no performance counters.
    {
      index: Msr.IA32_MISC_ENABLE,
      value: MiscEnable.FAST_STRING | MiscEnable.BTS_UNAVAILABLE | MiscEnable.PEBS_UNAVAILABLE,
      optional: true,
    },
    // Without MTRRs on, Linux takes the firmware for broken and leaves the PAT alone too: all of memory is write-back.
    { index: Msr.IA32_MTRR_DEF_TYPE, value: MtrrDefType.ENABLE | MtrrDefType.WRITE_BACK, optional: false },
  ];
}
