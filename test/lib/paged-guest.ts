/**
 * One vCPU on guest memory that a test has at hand itself, below the machine: the ring-3 guest `pattern`, what its memory
 * must look like at one instant, and its registers, so that it can go on in another memory.
 */
import { onTestFinished } from 'vitest';
import { gpa } from '../../lib/base/address.js';
import { loadFlat } from '../../lib/boot/flat.js';
import { MpState } from '../../lib/abi/kvm.js';
import { Kvm, type Vcpu, type Vm } from '../../lib/kvm/index.js';
import { AddressSpace } from '../../lib/memory/index.js';
import { assemble } from './assemble.js';

const CODE_GPA = 0x10000;
export const PATTERN_GPA = 0x100000;
export const PATTERN_PAGES = 12_288;
const TAIL_BYTES = 0x100000;
/** Below the pattern its code and tables, behind it 1 MiB that the guest leaves alone. */
export const GUEST_BYTES = PATTERN_GPA + PATTERN_PAGES * 4096 + TAIL_BYTES;
export const TAIL_GPA = GUEST_BYTES - TAIL_BYTES;

export interface GuestState {
  readonly regs: ReturnType<Vcpu['getRegs']>;
  readonly sregs: ReturnType<Vcpu['getSregs']>;
}

export interface PagedGuest {
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly memory: AddressSpace;
  /** Parked: its registers. */
  state(): GuestState;
  /** A further vCPU, in a state of before. */
  addVcpu(from: GuestState): Vcpu;
}

export function guestMemory(backing: 'anonymous' | 'memfd' = 'anonymous', hugePages = false): AddressSpace {
  return new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: GUEST_BYTES }], backing, hugePages });
}

/**
 * A parked guest in this memory: at its start, in a state of before, or real-mode code of the test's own. All is closed
 * when the test ends.
 */
export async function pagedGuest(
  memory: AddressSpace,
  from?: GuestState | { readonly code: Uint8Array },
): Promise<PagedGuest> {
  const kvm = Kvm.open();
  const vm = await kvm.createVm();
  onTestFinished(async () => {
    await vm.close();
    kvm.close();
  });
  vm.setTssAddress(0xfffbd000);
  vm.createIrqchip();
  await memory.attach(vm);
  const vcpu = vm.createVcpu(0, 'pattern');
  vcpu.setCpuid(kvm.supportedCpuid());
  if (from !== undefined && 'regs' in from) {
    set(vcpu, from);
  } else {
    const image = from?.code ?? assemble('pattern', CODE_GPA, { BASE: PATTERN_GPA, PAGES: PATTERN_PAGES });
    const start =
      from === undefined
        ? loadFlat(memory, image, { address: CODE_GPA, mode: 'long64' })
        : loadFlat(memory, image, { address: 0x1000, mode: 'real16' });
    set(vcpu, { regs: start.regs, sregs: { ...vcpu.getSregs(), ...start.sregs } });
  }
  return {
    vm,
    vcpu,
    memory,
    state: () => ({ regs: vcpu.getRegs(), sregs: vcpu.getSregs() }),
    addVcpu(state) {
      const further = vm.createVcpu(1, 'pattern-2');
      further.setCpuid(kvm.supportedCpuid());
      set(further, { regs: state.regs, sregs: { ...state.sregs, apic_base: further.getSregs().apic_base } });
      further.setMpState(MpState.RUNNABLE);
      return further;
    },
  };
}

function set(vcpu: Vcpu, { regs, sregs }: GuestState): void {
  vcpu.setSregs(sregs);
  vcpu.setRegs(regs);
}

/** The value that the guest has written last, by its words; throws when they are not of one instant. */
export function checkPattern(memory: AddressSpace): number {
  const words = new Float64Array(PATTERN_PAGES);
  let last = 0;
  for (let page = 0; page < PATTERN_PAGES; page++) {
    const bytes = memory.read(PATTERN_GPA + page * 4096, 8);
    const value = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    words[page] = value;
    last = Math.max(last, value);
  }
  for (let page = 0; page < PATTERN_PAGES; page++) {
    const behind = (((last - 1 - page) % PATTERN_PAGES) + PATTERN_PAGES) % PATTERN_PAGES;
    const wanted = Math.max(last - behind, 0);
    if (words[page] !== wanted) throw new Error(`page ${page} has ${words[page]}, and ${wanted} when ${last} was last`);
  }
  return last;
}

/** The value in the pattern's first page: how far the guest is, to a round. */
export function progress(memory: AddressSpace): number {
  return Number(new DataView(memory.read(PATTERN_GPA, 8).buffer).getBigUint64(0, true));
}
