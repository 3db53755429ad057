/**
 * What Linux finds when it starts at its 64-bit entry: boot_params (the zero page) with the setup header, memory map,
 * initrd, command line and a random seed, and the CPU in long mode on an identity map.
 * Source: Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"; zero-page.rst.
 */
import { E820_ENTRY_BYTES, E820_MAX_ENTRIES } from '../abi/e820.js';
import {
  BOOT_CS,
  BOOT_DS,
  BOOT_FLAG_MAGIC,
  BootParams,
  LOADER_UNDEFINED,
  LoadFlag,
  MIN_BOOT_PROTOCOL,
  SETUP_HEADER_MAGIC,
  SETUP_HEADER_START,
  SETUP_RNG_SEED,
  SetupData,
  SetupHeader,
} from '../abi/linux-boot.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { viewOf } from './bytes.js';
import { LowMemory, type MemoryMapEntry, type Region } from './layout.js';
import { flatCode64, flatData, long64State, writeIdentityMap4GiB, writeTable, type CpuState } from './registers.js';

export interface LinuxBootParams {
  /** The kernel's own setup header from 0x1f1 on; a vmlinux has none, and gets one with the least that it reads. */
  readonly setupHeader: Uint8Array | undefined;
  /** Without the NUL at its end. */
  readonly cmdline: Uint8Array;
  readonly initrd: Region | undefined;
  readonly rsdpGpa: number | undefined;
  readonly map: readonly MemoryMapEntry[];
  /** Seeds the kernel's random number generator. Empty: no seed. */
  readonly rngSeed: Uint8Array;
}

/** CONFIG_PHYSICAL_ALIGN of a kernel that does not say. */
const DEFAULT_KERNEL_ALIGNMENT = 0x200000;

/** Writes boot_params, the command line and the seed to their places in low memory. */
export function writeBootParams(memory: GuestMemory, options: LinuxBootParams): void {
  if (options.map.length > E820_MAX_ENTRIES) throw new RangeError(`${options.map.length} entries in the memory map`);
  const params = new Uint8Array(BootParams.SIZE);
  const view = viewOf(params);
  if (options.setupHeader) {
    params.set(options.setupHeader, SETUP_HEADER_START);
  } else {
    view.setUint16(SetupHeader.BOOT_FLAG, BOOT_FLAG_MAGIC, true);
    view.setUint32(SetupHeader.HEADER, SETUP_HEADER_MAGIC, true);
    view.setUint16(SetupHeader.VERSION, MIN_BOOT_PROTOCOL, true);
    view.setUint8(SetupHeader.LOADFLAGS, LoadFlag.LOADED_HIGH);
    view.setUint32(SetupHeader.KERNEL_ALIGNMENT, DEFAULT_KERNEL_ALIGNMENT, true);
  }
  view.setUint8(SetupHeader.TYPE_OF_LOADER, LOADER_UNDEFINED);
  memory.write(LowMemory.COMMAND_LINE, Uint8Array.of(...options.cmdline, 0));
  view.setUint32(SetupHeader.CMD_LINE_PTR, LowMemory.COMMAND_LINE, true);
  if (!options.setupHeader) view.setUint32(SetupHeader.CMDLINE_SIZE, options.cmdline.length, true);
  if (options.initrd) {
    view.setUint32(SetupHeader.RAMDISK_IMAGE, options.initrd.start, true);
    view.setUint32(SetupHeader.RAMDISK_SIZE, options.initrd.end - options.initrd.start, true);
  }
  view.setBigUint64(BootParams.ACPI_RSDP_ADDR, BigInt(options.rsdpGpa ?? 0), true);
  view.setUint8(BootParams.E820_ENTRIES, options.map.length);
  options.map.forEach((entry, index) => {
    const at = BootParams.E820_TABLE + index * E820_ENTRY_BYTES;
    view.setBigUint64(at, BigInt(entry.gpa), true);
    view.setBigUint64(at + 8, BigInt(entry.sizeBytes), true);
    view.setUint32(at + 16, entry.type, true);
  });
  if (options.rngSeed.length > 0) {
    const data = new Uint8Array(SetupData.DATA + options.rngSeed.length);
    const dataView = viewOf(data);
    dataView.setUint32(SetupData.TYPE, SETUP_RNG_SEED, true);
    dataView.setUint32(SetupData.LEN, options.rngSeed.length, true);
    data.set(options.rngSeed, SetupData.DATA);
    memory.write(LowMemory.SETUP_DATA, data);
    view.setBigUint64(SetupHeader.SETUP_DATA, BigInt(LowMemory.SETUP_DATA), true);
  } else {
    view.setBigUint64(SetupHeader.SETUP_DATA, 0n, true);
  }
  memory.write(LowMemory.ZERO_PAGE, params);
}

/** Writes the tables of the 64-bit entry; the state has boot_params in RSI. */
export function enterLinux64(memory: GuestMemory, entryGpa: bigint): CpuState {
  const gdt = writeTable(memory, LowMemory.GDT, [0n, 0n, flatCode64(), flatData()]);
  writeIdentityMap4GiB(memory, LowMemory.PAGE_TABLES, { user: false });
  return long64State(
    { rip: entryGpa, rsi: BigInt(LowMemory.ZERO_PAGE) },
    { selectors: { code: BOOT_CS, data: BOOT_DS }, gdt, pml4Gpa: LowMemory.PAGE_TABLES, sse: false },
  );
}
