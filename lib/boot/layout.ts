/**
 * Where things are in guest physical memory: RAM around the 32-bit hole, the low tables that loaders write, and the
 * memory map that a kernel is told (E820, also for PVH and multiboot). Pure arithmetic; nothing is written here.
 */
import { E820Type } from '../abi/e820.js';
import { gpa } from '../base/address.js';
import { alignDown, alignUp, GiB, MiB, PAGE_SIZE } from '../base/units.js';
import type { GuestMemory, MemoryRange } from '../memory/guest-memory.js';

/** The hole for devices below 4 GiB: PCI windows, the IO-APIC, local APICs, and KVM's own pages on Intel. */
export const HOLE_START_GPA = 0xc000_0000;
export const HOLE_END_GPA = 4 * GiB;

/** Fixed places below 1 MiB. All of it is ordinary RAM to the guest once its kernel has read what it wants. */
export const LowMemory = {
  /** GDT of the entry state. */
  GDT: 0x500,
  /** hvm_start_info, its module list and memory map; multiboot info, its modules and memory map. */
  BOOT_INFO: 0x6000,
  /** struct boot_params, one page. */
  ZERO_PAGE: 0x7000,
  /** PML4, PDPT and four page directories. */
  PAGE_TABLES: 0x9000,
  /** struct setup_data. */
  SETUP_DATA: 0xf000,
  /** Command line, and texts of modules behind it. */
  COMMAND_LINE: 0x20000,
  COMMAND_LINE_END: 0x40000,
  /** End of conventional memory; here a PC has its extended BIOS data area. */
  EBDA: 0x9fc00,
  VIDEO: 0xa0000,
  /** RSDP, then the other ACPI tables, in the area that kernels search for it (ACPI 6.5, 5.2.5.1). */
  ACPI_TABLES: 0xe0000,
  /** The page behind the tables holds the generation id, 16 bytes that change when a machine is restored. */
  GENERATION_ID: 0xff000,
  ACPI_TABLES_END: 0x100000,
} as const;

/** First address above the area of the BIOS. */
export const HIGH_MEMORY_GPA = MiB;

/**
 * The RAM ranges of a machine: from 0 up to the 32-bit hole, the rest from 4 GiB on.
 *
 * @throws RangeError when the size is 0 or not a multiple of a page.
 * @example ramRanges(4 * 2 ** 30) // [{ gpa: 0, sizeBytes: 3 GiB }, { gpa: 4 GiB, sizeBytes: 1 GiB }]
 */
export function ramRanges(sizeBytes: number): MemoryRange[] {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % PAGE_SIZE !== 0) {
    throw new RangeError(`memory of ${sizeBytes} bytes: a positive multiple of ${PAGE_SIZE} is wanted`);
  }
  if (sizeBytes <= HOLE_START_GPA) return [{ gpa: gpa(0), sizeBytes }];
  return [
    { gpa: gpa(0), sizeBytes: HOLE_START_GPA },
    { gpa: gpa(HOLE_END_GPA), sizeBytes: sizeBytes - HOLE_START_GPA },
  ];
}

/** End of the RAM that starts at 0. */
export function lowRamEnd(memory: Pick<GuestMemory, 'ranges'>): number {
  const first = memory.ranges[0];
  return first?.gpa === 0 ? first.sizeBytes : 0;
}

/** [start, end) of guest physical memory, with a name for messages. */
export interface Region {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** The first of `regions` that [start, end) touches. */
export function findOverlap(regions: readonly Region[], start: number, end: number): Region | undefined {
  return regions.find((region) => start < region.end && region.start < end);
}

/** One entry of a memory map. */
export interface MemoryMapEntry {
  readonly gpa: number;
  readonly sizeBytes: number;
  /** As E820Type has it; PVH and multiboot use the same numbers. */
  readonly type: number;
}

/**
 * The memory map: RAM without the reserved areas, and these. Between 640 KiB and the ACPI tables nothing is declared,
 * as on a PC.
 *
 * @param reserved further areas that the guest must not use, such as KVM's pages in the hole.
 */
export function memoryMap(
  ranges: readonly MemoryRange[],
  reserved: readonly { readonly gpa: number; readonly sizeBytes: number }[] = [],
): MemoryMapEntry[] {
  const inRam = (at: { gpa: number }) =>
    ranges.some((range) => at.gpa >= range.gpa && at.gpa < range.gpa + range.sizeBytes);
  const areas = [
    { gpa: LowMemory.EBDA, sizeBytes: LowMemory.VIDEO - LowMemory.EBDA },
    { gpa: LowMemory.ACPI_TABLES, sizeBytes: LowMemory.ACPI_TABLES_END - LowMemory.ACPI_TABLES },
  ].filter(inRam);
  const all = [...areas, ...reserved].sort((a, b) => a.gpa - b.gpa);
  const holes = [{ gpa: LowMemory.VIDEO, sizeBytes: LowMemory.ACPI_TABLES - LowMemory.VIDEO }, ...all].sort(
    (a, b) => a.gpa - b.gpa,
  );

  const entries: MemoryMapEntry[] = all.map((area) => ({ ...area, type: E820Type.RESERVED }));
  for (const range of ranges) {
    const end = range.gpa + range.sizeBytes;
    let start: number = range.gpa;
    for (const hole of holes) {
      if (hole.gpa >= end || hole.gpa + hole.sizeBytes <= start) continue;
      if (hole.gpa > start) entries.push({ gpa: start, sizeBytes: hole.gpa - start, type: E820Type.RAM });
      start = Math.max(start, hole.gpa + hole.sizeBytes);
    }
    if (start < end) entries.push({ gpa: start, sizeBytes: end - start, type: E820Type.RAM });
  }
  return entries.sort((a, b) => a.gpa - b.gpa);
}

/**
 * The highest page-aligned place for `sizeBytes` in low RAM, above `floor` and ending at or below `limit`.
 * Undefined when there is none.
 */
export function placeHigh(
  memory: Pick<GuestMemory, 'ranges'>,
  sizeBytes: number,
  floor: number,
  limit: number,
): number | undefined {
  const start = alignDown(Math.min(lowRamEnd(memory), limit) - sizeBytes, PAGE_SIZE);
  return start >= alignUp(Math.max(floor, HIGH_MEMORY_GPA), PAGE_SIZE) ? start : undefined;
}
