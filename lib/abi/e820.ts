/**
 * Memory map types and limits. Source: arch/x86/include/uapi/asm/bootparam.h and asm/e820/types.h; the numbers are
 * those of the BIOS call E820 (ACPI 6.5, table 15.4), which PVH's memory map and multiboot's share.
 */

export const E820Type = {
  RAM: 1,
  RESERVED: 2,
  ACPI: 3,
  NVS: 4,
} as const;

/** E820_MAX_ENTRIES_ZEROPAGE. */
export const E820_MAX_ENTRIES = 128;
/** sizeof(struct boot_e820_entry): u64 addr, u64 size, u32 type, packed. */
export const E820_ENTRY_BYTES = 20;
