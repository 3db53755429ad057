/**
 * A vCPU's whole state as a part of a snapshot. What KVM takes and gives as a structure is kept as its bytes (linux/kvm.h is
 * an ABI), numbers of ours by name. The TSC and its deadline belong to the machine's clocks (clock-state.ts).
 *
 * Saving reads the MP state first, since that takes in INIT and SIPI which change others (Firecracker, vstate/vcpu). Restoring:
 *
 *   CPUID -> TSC frequency -> clocks of the machine and TSCs (clock-state.ts)
 *     -> SREGS (APIC_BASE) -> XCRs -> XSAVE -> registers -> debug registers -> local APIC -> MSRs (kvmclock's after the clock)
 *     -> TSC deadline (needs TSC and timer mode) -> events -> MP state, after which INIT and SIPI would be refused or lost
 *
 * CPUID decides what later calls accept. QEMU's kvm_arch_put_registers has the same order but for the APIC, which it puts apart.
 */
import * as v from 'valibot';
import { Cap } from '../abi/kvm.js';
import {
  kvmDebugregs,
  kvmLapicState,
  kvmRegs,
  kvmSregs,
  kvmSregs2,
  kvmVcpuEvents,
  kvmXcrs,
  type KvmSegment,
} from '../abi/kvm-structs.js';
import { Msr } from '../abi/x86.js';
import { VmmError } from '../base/errors.js';
import { bytes, integer, rows, stateFormat, u32, type SavedPart } from '../base/saved-state.js';
import { cpuidRows } from './cpuid-rows.js';
import { msrName, readKnownMsrs, stateMsrs, writeKnownMsrs } from './msr-state.js';
import { taskRegisterFor } from './task-register.js';
import type { Vcpu } from './vcpu.js';
import type { Vm } from './vm.js';

/** More than the largest XSAVE area there is (AMX: 11 KiB). */
const MAX_XSAVE_BYTES = 65_536;

const vcpuFormat = stateFormat({
  type: 'vcpu',
  version: 1,
  schema: v.strictObject({
    id: integer(0, 4095),
    cpuid: cpuidRows,
    mpState: integer(0, 10),
    regs: bytes({ length: kvmRegs.sizeBytes }),
    sregs: bytes({ length: kvmSregs.sizeBytes }),
    /** With the PDPTEs, where KVM has them. */
    sregs2: v.optional(bytes({ length: kvmSregs2.sizeBytes })),
    xsave: bytes({ maxLength: MAX_XSAVE_BYTES }),
    xcrs: v.optional(bytes({ length: kvmXcrs.sizeBytes })),
    debugregs: bytes({ length: kvmDebugregs.sizeBytes }),
    lapic: bytes({ length: kvmLapicState.sizeBytes }),
    msrs: rows({ index: 'u32', value: 'u64' }, 4096),
    /** Those that KVM would not read. */
    refusedMsrs: v.pipe(v.array(u32), v.maxLength(4096)),
    events: bytes({ length: kvmVcpuEvents.sizeBytes }),
  }),
});
export type VcpuData = ReturnType<typeof vcpuFormat.load>;

/** Parked, its pending access completed. `listedMsrs`: Kvm.msrIndices(). @throws KvmError */
export function saveVcpu(vm: Pick<Vm, 'checkExtension'>, vcpu: Vcpu, listedMsrs: Iterable<number>): SavedPart {
  const has = (capability: number): boolean => vm.checkExtension(capability) > 0;
  const mpState = vcpu.getMpState();
  const { entries, refused } = readKnownMsrs(vcpu, stateMsrs(listedMsrs));
  return vcpuFormat.save({
    id: vcpu.id,
    mpState,
    regs: kvmRegs.encode(vcpu.getRegs()),
    sregs: kvmSregs.encode(vcpu.getSregs()),
    ...(has(Cap.SREGS2) ? { sregs2: kvmSregs2.encode(vcpu.getSregs2()) } : {}),
    xsave: vcpu.getXsave(),
    ...(has(Cap.XCRS) ? { xcrs: kvmXcrs.encode(vcpu.getXcrs()) } : {}),
    debugregs: kvmDebugregs.encode(vcpu.getDebugregs()),
    lapic: vcpu.getLapic(),
    cpuid: [...vcpu.givenCpuid],
    msrs: entries,
    refusedMsrs: refused,
    events: kvmVcpuEvents.encode(vcpu.getEvents()),
  });
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function loadVcpu(part: SavedPart): VcpuData {
  return vcpuFormat.load(part);
}

/**
 * The registers of a new vCPU that has its CPUID, TSC frequency and TSC. `deadlineTsc`: when its TSC-deadline timer falls due; 0n
 * for a timer that is not armed.
 * kvmclock's MSRs make KVM write the guest's wall clock and time pages: guest memory must be there.
 *
 * @param masked whether MSRs that this host refuses are left out, and not a failure. They are the result.
 * @throws VmmError ERR_SNAPSHOT_HOST naming what this host refuses; KvmError
 */
export function restoreVcpu(
  vm: Pick<Vm, 'checkExtension'>,
  vcpu: Vcpu,
  data: VcpuData,
  options: { readonly deadlineTsc: bigint; readonly masked: boolean },
): string[] {
  if (data.sregs2 && vm.checkExtension(Cap.SREGS2) > 0) vcpu.setSregs2(withTask(kvmSregs2.decode(data.sregs2)));
  else vcpu.setSregs(withTask(kvmSregs.decode(data.sregs)));
  if (data.xcrs) vcpu.setXcrs(kvmXcrs.decode(data.xcrs));
  vcpu.setXsave(fitted(data.xsave, vcpu.getXsave().length));
  vcpu.setRegs(kvmRegs.decode(data.regs));
  vcpu.setDebugregs(kvmDebugregs.decode(data.debugregs));
  vcpu.setLapic(data.lapic);
  const refused = writeKnownMsrs(vcpu, data.msrs).map(({ index }) => msrName(index));
  if (refused.length > 0 && !options.masked) {
    throw new VmmError('ERR_SNAPSHOT_HOST', `this KVM refuses what vCPU ${data.id} holds: ${refused.join(', ')}`, {
      cure: 'restore it on a host of the same kind, or have what this host lacks masked',
    });
  }
  if (options.deadlineTsc !== 0n) vcpu.writeMsrs([{ index: Msr.IA32_TSC_DEADLINE, value: options.deadlineTsc }]);
  vcpu.setEvents(kvmVcpuEvents.decode(data.events));
  vcpu.setMpState(data.mpState);
  return refused;
}

/** The area of a host with fewer or more components; those that this host lacks must be in their initial state. */
function fitted(area: Uint8Array, wantedBytes: number): Uint8Array {
  if (area.length === wantedBytes) return area;
  if (area.subarray(wantedBytes).some((byte) => byte !== 0)) {
    throw new VmmError(
      'ERR_SNAPSHOT_HOST',
      `the vector registers take ${area.length} bytes, and this KVM keeps ${wantedBytes}`,
    );
  }
  const target = new Uint8Array(wantedBytes);
  target.set(area.subarray(0, wantedBytes));
  return target;
}

function withTask<T extends { readonly tr: KvmSegment }>(sregs: T): T {
  return { ...sregs, tr: taskRegisterFor(sregs.tr) };
}
