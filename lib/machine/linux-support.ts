/**
 * Whether this machine's KVM can run a kernel's ring 0. A software-backed KVM can't: `host/probe.ts` finds out with a
 * probe guest and registers its answer here, since the host room stands after this one.
 */
import { VmmError } from '../base/errors.js';
import type { Kvm } from '../kvm/index.js';

export interface LinuxSupport {
  readonly linuxGuests: boolean;
  readonly reason: string;
}

let probe: ((kvm: Kvm) => Promise<LinuxSupport>) | undefined;

/** Called once by the package's entry. */
export function setLinuxProbe(next: (kvm: Kvm) => Promise<LinuxSupport>): void {
  probe = next;
}

/** @throws VmmError ERR_LINUX_NEEDS_EMBEDDED_HOST, whose cure names the embedded host. */
export async function requireLinuxSupport(kvm: Kvm): Promise<void> {
  const support = await probe?.(kvm);
  if (!support || support.linuxGuests) return;
  throw new VmmError(
    'ERR_LINUX_NEEDS_EMBEDDED_HOST',
    `this machine's KVM can't run a Linux kernel: ${support.reason}`,
    {
      cure: 'the embedded KVM host can: `vivarium run` uses it by itself; in the SDK, `host.run(script)` runs your script inside it',
    },
  );
}
