/**
 * Multiboot 1: the header in an OS image and the information structure that it finds.
 * Source: Multiboot Specification 0.6.96, sections 3.1 (header), 3.2 (machine state), 3.3 (information).
 */

export const MULTIBOOT_HEADER_MAGIC = 0x1bad_b002;
/** What EAX holds at the entry. */
export const MULTIBOOT_BOOTLOADER_MAGIC = 0x2bad_b002;
/** The header lies wholly in this much of the image, on a multiple of 4. */
export const MULTIBOOT_SEARCH_BYTES = 8192;

/** Offsets in the header. */
export const MultibootHeader = {
  MAGIC: 0,
  FLAGS: 4,
  CHECKSUM: 8,
  HEADER_ADDR: 12,
  LOAD_ADDR: 16,
  LOAD_END_ADDR: 20,
  BSS_END_ADDR: 24,
  ENTRY_ADDR: 28,
  SIZE: 12,
  SIZE_WITH_ADDRESSES: 32,
} as const;

/** Flags of the header; of bits 0 to 15 a loader must refuse those that it doesn't know. */
export const MultibootHeaderFlag = {
  PAGE_ALIGN_MODULES: 1 << 0,
  MEMORY_INFO: 1 << 1,
  VIDEO_MODE: 1 << 2,
  /** The address fields say where to load, whatever the format of the file. */
  ADDRESSES: 1 << 16,
} as const;

/** Offsets in the information structure. */
export const MultibootInfo = {
  FLAGS: 0,
  MEM_LOWER: 4,
  MEM_UPPER: 8,
  CMDLINE: 16,
  MODS_COUNT: 20,
  MODS_ADDR: 24,
  MMAP_LENGTH: 44,
  MMAP_ADDR: 48,
  BOOT_LOADER_NAME: 64,
  SIZE: 116,
} as const;

/** Bits that say which members of the information structure are there. */
export const MultibootInfoFlag = {
  MEMORY: 1 << 0,
  CMDLINE: 1 << 2,
  MODULES: 1 << 3,
  MEMORY_MAP: 1 << 6,
  BOOT_LOADER_NAME: 1 << 9,
} as const;

/** Offsets in a module's entry. */
export const MultibootModule = { START: 0, END: 4, STRING: 8, SIZE: 16 } as const;

/** Offsets in a memory map entry; its size field does not count itself. */
export const MultibootMmap = { ENTRY_BYTES: 0, ADDR: 4, LEN: 12, TYPE: 20, SIZE: 24 } as const;
