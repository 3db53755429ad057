/**
 * The Linux/x86 boot protocol: the setup header of a bzImage and struct boot_params.
 * Source: Documentation/arch/x86/boot.rst, Documentation/arch/x86/zero-page.rst, arch/x86/include/uapi/asm/bootparam.h.
 */

/** Offsets in the first sector of a bzImage; struct boot_params has the header at the same ones. */
export const SetupHeader = {
  SETUP_SECTS: 0x1f1,
  SYSSIZE: 0x1f4,
  BOOT_FLAG: 0x1fe,
  /** The jump; its displacement, at 0x201, tells where the header ends. */
  JUMP_DISPLACEMENT: 0x201,
  HEADER: 0x202,
  VERSION: 0x206,
  TYPE_OF_LOADER: 0x210,
  LOADFLAGS: 0x211,
  RAMDISK_IMAGE: 0x218,
  RAMDISK_SIZE: 0x21c,
  CMD_LINE_PTR: 0x228,
  INITRD_ADDR_MAX: 0x22c,
  KERNEL_ALIGNMENT: 0x230,
  RELOCATABLE_KERNEL: 0x234,
  XLOADFLAGS: 0x236,
  CMDLINE_SIZE: 0x238,
  PAYLOAD_OFFSET: 0x248,
  PAYLOAD_LENGTH: 0x24c,
  SETUP_DATA: 0x250,
  PREF_ADDRESS: 0x258,
  INIT_SIZE: 0x260,
  /** End of the fields of protocol 2.12. */
  END_2_12: 0x268,
} as const;

export const BOOT_FLAG_MAGIC = 0xaa55;
/** 'HdrS', little endian. */
export const SETUP_HEADER_MAGIC = 0x53726448;
/** Protocol 2.12 brought xloadflags, and with them the 64-bit entry. */
export const MIN_BOOT_PROTOCOL = 0x020c;
/** The whole header must lie in the first 4 KiB with boot_params' copy ending before the E820 table's neighbours. */
export const SETUP_HEADER_START = 0x1f1;
export const SETUP_HEADER_MAX_END = 0x290;
export const SECTOR_BYTES = 512;
/** setup_sects 0 means 4, for reasons of history. */
export const DEFAULT_SETUP_SECTS = 4;

export const LoadFlag = { LOADED_HIGH: 1 << 0, KEEP_SEGMENTS: 1 << 6 } as const;
export const XLoadFlag = { KERNEL_64: 1 << 0, CAN_BE_LOADED_ABOVE_4G: 1 << 1 } as const;
/** type_of_loader: no number assigned. */
export const LOADER_UNDEFINED = 0xff;
/** The 64-bit entry stands this far behind the start of the protected-mode kernel. */
export const ENTRY_64_OFFSET = 0x200;

/** Offsets in struct boot_params outside the setup header, and its size. */
export const BootParams = {
  ACPI_RSDP_ADDR: 0x070,
  E820_ENTRIES: 0x1e8,
  E820_TABLE: 0x2d0,
  SIZE: 4096,
} as const;

/** struct setup_data: u64 next, u32 type, u32 len, data. */
export const SetupData = { NEXT: 0, TYPE: 8, LEN: 12, DATA: 16 } as const;
/** A seed for the random number generator (Linux 6.0 and later; older kernels pass it over). */
export const SETUP_RNG_SEED = 9;

/** Selectors that the 64-bit entry wants loaded. */
export const BOOT_CS = 0x10;
export const BOOT_DS = 0x18;

/** For a vmlinux, which has no setup header: COMMAND_LINE_SIZE - 1, and the limit of 32-bit initrd addresses. */
export const DEFAULT_CMDLINE_SIZE = 2047;
export const DEFAULT_INITRD_ADDR_MAX = 0x7fff_ffff;
