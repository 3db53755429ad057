/**
 * PVH, the direct boot of Xen that other hypervisors share: struct hvm_start_info and what it points to.
 * Source: xen/include/public/arch-x86/hvm/start_info.h; docs/misc/pvh.pandoc for the CPU's state.
 */

/** 'xEn3' with the top bit of its E set. */
export const HVM_START_MAGIC = 0x336ec578;
export const HVM_START_VERSION = 1;

/** Offsets in struct hvm_start_info, version 1. */
export const HvmStartInfo = {
  MAGIC: 0,
  VERSION: 4,
  FLAGS: 8,
  NR_MODULES: 12,
  MODLIST_PADDR: 16,
  CMDLINE_PADDR: 24,
  RSDP_PADDR: 32,
  MEMMAP_PADDR: 40,
  MEMMAP_ENTRIES: 48,
  SIZE: 56,
} as const;

/** Offsets in struct hvm_modlist_entry. */
export const HvmModlistEntry = { PADDR: 0, SIZE_BYTES: 8, CMDLINE_PADDR: 16, SIZE: 32 } as const;

/** Offsets in struct hvm_memmap_table_entry; types as E820. */
export const HvmMemmapEntry = { ADDR: 0, SIZE_BYTES: 8, TYPE: 16, SIZE: 24 } as const;
