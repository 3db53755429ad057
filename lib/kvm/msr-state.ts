/**
 * The MSRs of a vCPU as a state: which there are, which of them this KVM reads, and how saved values are put back. KVM's list
 * (KVM_GET_MSR_INDEX_LIST, Documentation/virt/kvm/api.rst, 4.3) is neither complete nor true: it leaves out MTRRs and machine check
 * banks, which guests write, and may name what the calls refuse. What is refused is left out by its index, never silently.
 */
import { Msr } from '../abi/x86.js';
import { KvmError } from '../base/errors.js';
import type { MsrEntry, Vcpu } from './vcpu.js';

/** The counter is restored with the machine's clocks, and the deadline in its terms (clock-state.ts). */
const WITH_CLOCKS: ReadonlySet<number> = new Set([Msr.IA32_TSC, Msr.IA32_TSC_DEADLINE]);

/** KVM has 8 variable ranges (KVM_NR_VAR_MTRR) and 32 banks (KVM_MAX_MCE_BANKS, arch/x86/include/asm/kvm_host.h). */
const VARIABLE_MTRRS = 8;
const MACHINE_CHECK_BANKS = 32;

const span = (first: number, length: number): number[] => Array.from({ length }, (_, index) => first + index);

/** What guests write and KVM's list leaves out. */
const BESIDES: readonly number[] = [
  Msr.IA32_DEBUGCTL,
  Msr.IA32_PAT,
  ...span(Msr.IA32_MTRR_PHYSBASE0, 2 * VARIABLE_MTRRS),
  Msr.IA32_MTRR_FIX64K_00000,
  Msr.IA32_MTRR_FIX16K_80000,
  Msr.IA32_MTRR_FIX16K_A0000,
  ...span(Msr.IA32_MTRR_FIX4K_C0000, 8),
  Msr.IA32_MTRR_DEF_TYPE,
  Msr.IA32_MCG_STATUS,
  Msr.IA32_MCG_CTL,
  ...span(Msr.IA32_MC0_CTL, 4 * MACHINE_CHECK_BANKS),
  Msr.IA32_XSS,
];

/** What KVM may read and not write, and a guest reads as a record of what was: not missed where it is refused. */
const DISPENSABLE: ReadonlySet<number> = new Set([
  Msr.IA32_SMI_COUNT,
  Msr.LASTBRANCH_FROM_IP,
  Msr.LASTBRANCH_TO_IP,
  Msr.LASTINT_FROM_IP,
  Msr.LASTINT_TO_IP,
]);

/** Hyper-V's, which no machine is given (Hypervisor Top Level Functional Specification): some of them run on by themselves. */
const isHyperV = (index: number): boolean => index >= 0x4000_0000 && index <= 0x4000_01ff;

/** The MSRs that a vCPU's state is made of, `listed` being KVM's own list. */
export function stateMsrs(listed: Iterable<number>): number[] {
  return [...new Set([...listed, ...BESIDES])].filter((index) => !WITH_CLOCKS.has(index) && !isHyperV(index));
}

/** What {@link readKnownMsrs} takes of a vCPU. */
export type MsrReader = Pick<Vcpu, 'readMsrs'>;
export type MsrWriter = Pick<Vcpu, 'writeMsrs'>;

export interface MsrState {
  readonly entries: MsrEntry[];
  /** Those that KVM would not read. */
  readonly refused: number[];
}

/** Reads what can be read. @throws KvmError for a failure that is not about one of them. */
export function readKnownMsrs(vcpu: MsrReader, indices: readonly number[]): MsrState {
  const refused: number[] = [];
  for (;;) {
    const left = indices.filter((index) => !refused.includes(index));
    try {
      return { entries: vcpu.readMsrs(left), refused };
    } catch (error) {
      refused.push(refusedIndex(error, left));
    }
  }
}

/**
 * Writes the values that the vCPU does not have already, in their order: one that equals what a new vCPU has needs no write, which
 * KVM may well refuse. Those refused are the result.
 *
 * @throws KvmError for a failure that is not about one of them.
 */
export function writeKnownMsrs(vcpu: MsrReader & MsrWriter, entries: readonly MsrEntry[]): MsrEntry[] {
  const indices = entries.map((entry) => entry.index);
  const present = new Map(readKnownMsrs(vcpu, indices).entries.map(({ index, value }) => [index, value]));
  let left = entries.filter(({ index, value }) => present.get(index) !== value);
  const refused: MsrEntry[] = [];
  while (left.length > 0) {
    try {
      vcpu.writeMsrs(left);
      break;
    } catch (error) {
      const index = refusedIndex(
        error,
        left.map((entry) => entry.index),
      );
      const at = left.findIndex((entry) => entry.index === index);
      // Neither is one missed that does not exist here and holds nothing.
      const isMissed = left[at]!.value !== 0n || present.has(index);
      if (isMissed && !DISPENSABLE.has(index)) refused.push(left[at]!);
      left = left.slice(at + 1);
    }
  }
  return refused;
}

/** For messages: '0x6e0'. */
export const msrName = (index: number): string => `MSR 0x${index.toString(16)}`;

/** The addon names it in the error's detail: "msr 0x10a". */
function refusedIndex(error: unknown, asked: readonly number[]): number {
  const name = error instanceof KvmError ? /^msr 0x([0-9a-f]+)$/.exec(error.detail ?? '')?.[1] : undefined;
  const index = name === undefined ? undefined : parseInt(name, 16);
  if (index === undefined || !asked.includes(index)) throw error;
  return index;
}
