/** A guest's watchdogs must not take a stop of the host's for a lockup: KVM_KVMCLOCK_CTRL (Documentation/virt/kvm/api.rst, 4.75). */
import { KvmError } from '../../base/errors.js';
import type { Vcpu } from '../../kvm/index.js';

/** Tells the guest, through kvmclock, that the host stopped it. One without kvmclock has nowhere to be told. @throws KvmError */
export function tellPaused(vcpu: Pick<Vcpu, 'kvmclockControl'>): void {
  try {
    vcpu.kvmclockControl();
  } catch (error) {
    if (!(error instanceof KvmError) || error.errno !== 'EINVAL') throw error;
  }
}
