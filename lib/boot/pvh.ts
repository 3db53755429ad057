/**
 * The PVH entry: hvm_start_info with modules and memory map in low memory, and the CPU in flat 32-bit protected mode
 * with paging off. For ELF kernels with a XEN_ELFNOTE_PHYS32_ENTRY note (Linux, FreeBSD, unikernels).
 * Source: Xen's docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h.
 */
import { HVM_START_MAGIC, HVM_START_VERSION, HvmMemmapEntry, HvmModlistEntry, HvmStartInfo } from '../abi/pvh.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { viewOf } from './bytes.js';
import { LowMemory, type MemoryMapEntry, type Region } from './layout.js';
import { flatCode32, flatData, protected32State, writeTable, type CpuState } from './registers.js';

export interface PvhStartInfo {
  /** Without the NUL at its end. */
  readonly cmdline: Uint8Array;
  readonly initrd: Region | undefined;
  readonly rsdpGpa: number | undefined;
  readonly map: readonly MemoryMapEntry[];
}

/** Writes hvm_start_info and what it points to. */
export function writeStartInfo(memory: GuestMemory, options: PvhStartInfo): void {
  const moduleCount = options.initrd ? 1 : 0;
  const modulesAt = HvmStartInfo.SIZE;
  const mapAt = modulesAt + moduleCount * HvmModlistEntry.SIZE;
  const block = new Uint8Array(mapAt + options.map.length * HvmMemmapEntry.SIZE);
  if (LowMemory.BOOT_INFO + block.length > LowMemory.ZERO_PAGE) {
    throw new RangeError(`${options.map.length} entries in the memory map`);
  }
  const view = viewOf(block);
  view.setUint32(HvmStartInfo.MAGIC, HVM_START_MAGIC, true);
  view.setUint32(HvmStartInfo.VERSION, HVM_START_VERSION, true);
  view.setUint32(HvmStartInfo.NR_MODULES, moduleCount, true);
  view.setBigUint64(HvmStartInfo.MODLIST_PADDR, BigInt(moduleCount === 0 ? 0 : LowMemory.BOOT_INFO + modulesAt), true);
  view.setBigUint64(HvmStartInfo.CMDLINE_PADDR, BigInt(LowMemory.COMMAND_LINE), true);
  view.setBigUint64(HvmStartInfo.RSDP_PADDR, BigInt(options.rsdpGpa ?? 0), true);
  view.setBigUint64(HvmStartInfo.MEMMAP_PADDR, BigInt(LowMemory.BOOT_INFO + mapAt), true);
  view.setUint32(HvmStartInfo.MEMMAP_ENTRIES, options.map.length, true);
  if (options.initrd) {
    view.setBigUint64(modulesAt + HvmModlistEntry.PADDR, BigInt(options.initrd.start), true);
    view.setBigUint64(modulesAt + HvmModlistEntry.SIZE_BYTES, BigInt(options.initrd.end - options.initrd.start), true);
  }
  options.map.forEach((entry, index) => {
    const at = mapAt + index * HvmMemmapEntry.SIZE;
    view.setBigUint64(at + HvmMemmapEntry.ADDR, BigInt(entry.gpa), true);
    view.setBigUint64(at + HvmMemmapEntry.SIZE_BYTES, BigInt(entry.sizeBytes), true);
    view.setUint32(at + HvmMemmapEntry.TYPE, entry.type, true);
  });
  memory.write(LowMemory.COMMAND_LINE, Uint8Array.of(...options.cmdline, 0));
  memory.write(LowMemory.BOOT_INFO, block);
}

/** The state of the PVH entry: EBX has the start info, segments are flat, a table for them stands in low memory. */
export function enterPvh(memory: GuestMemory, entryGpa: number): CpuState {
  const gdt = writeTable(memory, LowMemory.GDT, [0n, flatCode32, flatData()]);
  return protected32State({ rip: BigInt(entryGpa), rbx: BigInt(LowMemory.BOOT_INFO) }, { code: 0x08, data: 0x10 }, gdt);
}
