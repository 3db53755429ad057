/**
 * A machine's table of interrupt routes: the PC's fixed wiring and a message for each GSI that a PCI function's vector
 * was given, from 24 on. KVM takes the table only as a whole, and waits for every CPU to have seen it, so it is handed
 * over only when something changed.
 */
import { MSI_ADDRESS_BASE } from '../abi/pci.js';
import type { GsiRoute, Vm } from '../kvm/index.js';

export interface Message {
  readonly address: bigint;
  readonly data: number;
}

/** KVM_MAX_IRQ_ROUTES of x86 (arch/x86/include/asm/kvm_host.h). */
const MAX_GSIS = 4096;

export class GsiRouter {
  readonly #vm: Pick<Vm, 'setGsiRouting'>;
  readonly #wiring: readonly GsiRoute[];
  readonly #messages = new Map<number, Message>();
  #nextGsi: number;
  #updates = 0;

  constructor(vm: Pick<Vm, 'setGsiRouting'>, wiring: readonly GsiRoute[]) {
    this.#vm = vm;
    this.#wiring = wiring;
    this.#nextGsi = Math.max(...wiring.map((route) => route.gsi)) + 1;
  }

  /** A GSI that leads nowhere yet; undefined when there is none left. */
  allocate(): number | undefined {
    return this.#nextGsi < MAX_GSIS ? this.#nextGsi++ : undefined;
  }

  /**
   * Leads a GSI to a CPU, or nowhere.
   *
   * @returns false for a message that is none to a local APIC: then it leads nowhere.
   * @throws KvmError when KVM refuses the table; it then stays as it was.
   */
  route(gsi: number, message: Message | undefined): boolean {
    const good = message !== undefined && isToLocalApic(message.address);
    const before = this.#messages.get(gsi);
    if (good) {
      if (before?.address === message.address && before.data === message.data) return true;
      this.#messages.set(gsi, message);
    } else if (!this.#messages.delete(gsi)) {
      return false;
    }
    try {
      this.#vm.setGsiRouting([...this.#wiring, ...[...this.#messages].map(([to, msi]) => ({ gsi: to, msi }))]);
    } catch (error) {
      if (before) this.#messages.set(gsi, before);
      else this.#messages.delete(gsi);
      throw error;
    }
    this.#updates++;
    return good;
  }

  inspect(): unknown {
    return { messages: this.#messages.size, updates: this.#updates };
  }
}

/** Elsewhere a message would be a write to memory, which KVM does not take. */
function isToLocalApic(address: bigint): boolean {
  return address >> 20n === BigInt(MSI_ADDRESS_BASE);
}
