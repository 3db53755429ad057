/**
 * The interrupt controllers and the PIT that a machine has in the kernel, as a part of a snapshot. Its routes are the board's wiring
 * and the PCI functions' messages, which those restore. What KVM takes as a structure is kept as its bytes.
 *
 *   local APICs -> devices drive their lines -> PICs, IO-APIC -> PIT
 *
 * The IO-APIC hands on what it holds while it is set, so the local APICs come before. KVM keeps the level of each line besides
 * (irq_states), which no call reads: devices drive theirs before, on controllers whose inputs are still masked, so that
 * no edge is seen twice. The PIT comes last, since it fires at once. KVM_SET_PIT2 restarts every channel's count.
 */
import * as v from 'valibot';
import { Irqchip } from '../abi/kvm.js';
import { kvmPitState2, type KvmPitState2 } from '../abi/kvm-structs.js';
import { bytes, stateFormat, type SavedPart } from '../base/saved-state.js';
import type { PitLoad } from './pit.js';
import type { Vm } from './vm.js';

/** sizeof of the union in struct kvm_irqchip. */
const IRQCHIP_BYTES = 512;
const chip = bytes({ length: IRQCHIP_BYTES });

const vmFormat = stateFormat({
  type: 'kvm-vm',
  version: 1,
  schema: v.strictObject({
    picMaster: chip,
    picSlave: chip,
    ioapic: chip,
    pit: bytes({ length: kvmPitState2.sizeBytes }),
  }),
});
export type VmData = ReturnType<typeof vmFormat.load>;

/** Who loaded channel 0: the guest's own reload value, and what the host had loaded in its place, if it had. */
export interface Channel0 {
  readonly own: PitLoad;
  readonly inForce: PitLoad;
}

/** With all vCPUs parked, and after the devices have settled their lines. @throws KvmError */
export function saveVm(vm: Pick<Vm, 'getIrqchip' | 'getPit'>, channel0: Channel0): SavedPart {
  return vmFormat.save({
    picMaster: vm.getIrqchip(Irqchip.PIC_MASTER),
    picSlave: vm.getIrqchip(Irqchip.PIC_SLAVE),
    ioapic: vm.getIrqchip(Irqchip.IOAPIC),
    pit: kvmPitState2.encode(asTheGuestLeftIt(vm.getPit(), channel0)),
  });
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function loadVm(part: SavedPart): VmData {
  return vmFormat.load(part);
}

/** @throws KvmError */
export function restoreVm(vm: Pick<Vm, 'setIrqchip' | 'setPit'>, data: VmData): void {
  vm.setIrqchip(Irqchip.PIC_MASTER, data.picMaster);
  vm.setIrqchip(Irqchip.PIC_SLAVE, data.picSlave);
  vm.setIrqchip(Irqchip.IOAPIC, data.ioapic);
  vm.setPit(kvmPitState2.decode(data.pit));
}

/** A rate that the host fires is put back, and no time of the host's is told. */
export function asTheGuestLeftIt(pit: KvmPitState2, { own, inForce }: Channel0): KvmPitState2 {
  const channels = pit.channels.map((channel) => ({ ...channel, count_load_time: 0n }));
  const first = channels[0]!;
  if (first.count === inForce.count && inForce.count !== own.count) {
    first.count = own.count;
    // Between the two bytes of a reload the latch holds the first of them.
    if (first.write_latch === inForce.latch) first.write_latch = own.latch;
  }
  return { ...pit, channels };
}
