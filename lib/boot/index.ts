/**
 * Boot: images into guest memory, ACPI tables, CPUID, MSRs and the first register state. The one door of this room.
 * Nothing here calls KVM: what comes out is plain data, and the machine hands it on.
 */
import type { GuestMemory } from '../memory/guest-memory.js';
import { openImage } from './errors.js';
import { loadFlat } from './flat.js';
import { LowMemory } from './layout.js';
import { bootKernel } from './load-kernel.js';
import { bootMultibootFile } from './load-multiboot.js';
import { copySegment } from './segment.js';
import type { BootImage, FlatBoot, LoadedBoot, MachineShape, ResolvedShape } from './types.js';

export { type AcpiContributor, type AcpiOptions, buildAcpi, type ExtraTable } from './acpi.js';
export { defaultFixedHardware, type FixedHardware } from './acpi-tables.js';
export { cpuidForVcpu, type CpuidOptions, offeredKvmFeatures } from './cpuid.js';
export { fitCpuid } from './cpuid-fit.js';
export { initialMsrs, type InitialMsr } from './msrs.js';
export { HOLE_END_GPA, HOLE_START_GPA, LowMemory, type MemoryMapEntry, memoryMap, ramRanges } from './layout.js';
export type { CpuState, InitialSregs } from './registers.js';
export { copySegment, type SegmentLoader } from './segment.js';
export type { InitrdSource } from './initrd.js';
export { keepUnpackedKernel } from './load-kernel.js';
export { KERNEL_ENTRIES } from './types.js';
export type { BootImage, FlatBoot, KernelBoot, LoadedBoot, MachineShape, MultibootBoot } from './types.js';
export type { ImageFile } from './errors.js';

/**
 * Loads a boot image into guest memory.
 *
 * @returns the state for the first CPU, and what was found.
 * @throws VmmError ERR_KERNEL_IMAGE naming the file or thing, its fault and a cure; RangeError or TypeError for
 *   addresses and modes that cannot be.
 */
export async function loadBoot(memory: GuestMemory, boot: BootImage, shape: MachineShape = {}): Promise<LoadedBoot> {
  const resolved: ResolvedShape = {
    rsdpGpa: 'rsdpGpa' in shape ? shape.rsdpGpa : LowMemory.ACPI_TABLES,
    reserved: shape.reserved ?? [],
    memoryIsZero: shape.memoryIsZero ?? false,
    rngSeed: shape.rngSeed,
    loadSegment: shape.loadSegment ?? copySegment,
  };
  if ('kernel' in boot) return bootKernel(memory, boot, resolved);
  if ('multiboot' in boot) return bootMultibootFile(memory, boot, resolved);
  return bootFlat(memory, boot, resolved);
}

function bootFlat(memory: GuestMemory, boot: FlatBoot, shape: ResolvedShape): LoadedBoot {
  const finish = (state: LoadedBoot['state']): LoadedBoot => ({
    kind: 'flat',
    format: 'flat',
    entry: 'flat',
    state,
    notes: [],
  });
  if (typeof boot.flat !== 'string') return finish(loadFlat(memory, boot.flat, boot, shape.loadSegment));
  const file = openImage('flat image', boot.flat);
  try {
    return finish(loadFlat(memory, file, boot, shape.loadSegment));
  } finally {
    file.close();
  }
}
