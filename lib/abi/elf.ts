/**
 * The parts of the ELF format that kernel loaders need. Source: System V ABI, "Object Files" and "Program Loading"
 * (also linux/elf.h); the Xen notes: xen/include/public/elfnote.h.
 */

export const ELF_MAGIC = 0x464c457f; // 0x7f 'E' 'L' 'F', little endian

/** e_ident. */
export const ElfIdent = { CLASS: 4, DATA: 5, VERSION: 6, BYTES: 16 } as const;
export const ElfClass = { ELF32: 1, ELF64: 2 } as const;
export const ELF_DATA_LITTLE_ENDIAN = 1;
export const ElfType = { EXEC: 2, DYN: 3 } as const;
export const ElfMachine = { I386: 3, X86_64: 62 } as const;
export const ElfSegmentType = { LOAD: 1, NOTE: 4 } as const;

/** Offsets in Elf64_Ehdr, and its size. */
export const Elf64Header = {
  TYPE: 16,
  MACHINE: 18,
  ENTRY: 24,
  PHOFF: 32,
  SHOFF: 40,
  PHENTSIZE: 54,
  PHNUM: 56,
  SHENTSIZE: 58,
  SHNUM: 60,
  SIZE: 64,
} as const;

/** Offsets in Elf32_Ehdr, and its size. */
export const Elf32Header = {
  TYPE: 16,
  MACHINE: 18,
  ENTRY: 24,
  PHOFF: 28,
  SHOFF: 32,
  PHENTSIZE: 42,
  PHNUM: 44,
  SHENTSIZE: 46,
  SHNUM: 48,
  SIZE: 52,
} as const;

/** Offsets in Elf64_Phdr, and its size. */
export const Elf64Segment = {
  TYPE: 0,
  OFFSET: 8,
  VADDR: 16,
  PADDR: 24,
  FILESZ: 32,
  MEMSZ: 40,
  SIZE: 56,
} as const;

/** Offsets in Elf32_Phdr, and its size. */
export const Elf32Segment = {
  TYPE: 0,
  OFFSET: 4,
  VADDR: 8,
  PADDR: 12,
  FILESZ: 16,
  MEMSZ: 20,
  SIZE: 32,
} as const;

/** XEN_ELFNOTE_PHYS32_ENTRY: the 32-bit physical entry of PVH, in a note of owner "Xen". */
export const XEN_ELFNOTE_PHYS32_ENTRY = 18;
