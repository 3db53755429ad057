/**
 * What a guest has to know of a stop of the host's, so that its clocks may go on by it. Without kvmclock's word its watchdogs take the
 * stop for a lockup (Documentation/virt/kvm/api.rst, 4.75). And the task that ran when it was stopped would be held to have run all the
 * while: a fair scheduler lets it wait until the others have had as much, which after a night is days. So the stop is *stolen
 * time* (msr.rst, MSR_KVM_STEAL_TIME), which no task is charged for by a scheduler that knows of it (CONFIG_PARAVIRT_TIME_ACCOUNTING).
 */
import { KvmStealTime, Msr } from '../../abi/x86.js';
import { KvmError } from '../../base/errors.js';
import type { Vcpu } from '../../kvm/index.js';
import type { GuestMemory } from '../../memory/index.js';

type StoppedVcpu = Pick<Vcpu, 'kvmclockControl' | 'readMsrs'>;

/**
 * Of parked vCPUs, by how much their clocks have gone on without them. A guest without kvmclock or steal time has nowhere to be told.
 *
 * @throws KvmError; VmmError ERR_PAGER
 */
export function tellStopped(vcpus: readonly StoppedVcpu[], memory: GuestMemory, stoppedNs: bigint): void {
  for (const vcpu of vcpus) {
    if (stoppedNs > 0n) addStolen(vcpu, memory, stoppedNs);
    try {
      vcpu.kvmclockControl();
    } catch (error) {
      if (!(error instanceof KvmError) || error.errno !== 'EINVAL') throw error;
    }
  }
}

/** KVM adds to what stands there, and makes an odd version even; no vCPU reads it now. */
function addStolen(vcpu: StoppedVcpu, memory: GuestMemory, ns: bigint): void {
  const value = stealMsr(vcpu);
  const gpa = Number(value & KvmStealTime.ADDRESS_MASK);
  if ((value & KvmStealTime.ENABLED) === 0n || !memory.contains(gpa, KvmStealTime.SIZE)) return;
  const bytes = memory.read(gpa, KvmStealTime.VERSION);
  const steal = new DataView(bytes.buffer, bytes.byteOffset);
  steal.setBigUint64(KvmStealTime.STEAL, BigInt.asUintN(64, steal.getBigUint64(KvmStealTime.STEAL, true) + ns), true);
  memory.write(gpa, bytes);
}

/** 0 where KVM has no such register: its own scheduler keeps no accounts. */
function stealMsr(vcpu: StoppedVcpu): bigint {
  try {
    return vcpu.readMsrs([Msr.KVM_STEAL_TIME])[0]!.value;
  } catch (error) {
    if (!(error instanceof KvmError)) throw error;
    return 0n;
  }
}
