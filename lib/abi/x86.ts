/**
 * Bits of the x86-64 control registers, descriptors, page tables and MSRs that a first register state needs.
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A (chapters 2, 3, 4) and volume 4.
 */

export const Cr0 = {
  PE: 1n << 0n,
  MP: 1n << 1n,
  ET: 1n << 4n,
  NE: 1n << 5n,
  WP: 1n << 16n,
  PG: 1n << 31n,
} as const;

export const Cr4 = {
  PAE: 1n << 5n,
  OSFXSR: 1n << 9n,
  OSXMMEXCPT: 1n << 10n,
} as const;

export const Efer = {
  LME: 1n << 8n,
  LMA: 1n << 10n,
} as const;

export const Rflags = {
  /** Bit 1 always reads as one. */
  RESERVED: 1n << 1n,
  IOPL3: 3n << 12n,
} as const;

/** Entries of all levels of 4-level paging. */
export const PageEntry = {
  PRESENT: 1n << 0n,
  WRITABLE: 1n << 1n,
  USER: 1n << 2n,
  ACCESSED: 1n << 5n,
  DIRTY: 1n << 6n,
  /** In a page directory: a 2 MiB page. */
  LARGE: 1n << 7n,
} as const;

/** Types of segment descriptors: code and data (S = 1) as accessed, system (S = 0). */
export const SegmentType = {
  DATA_READ_WRITE_ACCESSED: 0x3,
  CODE_EXECUTE_READ_ACCESSED: 0xb,
  LDT: 0x2,
  TSS_AVAILABLE: 0x9,
  TSS_BUSY: 0xb,
} as const;

/** MSRs by their name in the manual's volume 4. */
export const Msr = {
  IA32_TSC: 0x10,
  IA32_MISC_ENABLE: 0x1a0,
  IA32_SMI_COUNT: 0x34,
  IA32_DEBUGCTL: 0x1d9,
  LASTBRANCH_FROM_IP: 0x1db,
  LASTBRANCH_TO_IP: 0x1dc,
  LASTINT_FROM_IP: 0x1dd,
  LASTINT_TO_IP: 0x1de,
  IA32_MTRR_PHYSBASE0: 0x200,
  IA32_MTRR_FIX64K_00000: 0x250,
  IA32_MTRR_FIX16K_80000: 0x258,
  IA32_MTRR_FIX16K_A0000: 0x259,
  IA32_MTRR_FIX4K_C0000: 0x268,
  IA32_PAT: 0x277,
  IA32_MTRR_DEF_TYPE: 0x2ff,
  IA32_MCG_STATUS: 0x17a,
  IA32_MCG_CTL: 0x17b,
  IA32_MC0_CTL: 0x400,
  IA32_TSC_DEADLINE: 0x6e0,
  IA32_XSS: 0xda0,
  /** MSR_KVM_STEAL_TIME (Documentation/virt/kvm/x86/msr.rst). */
  KVM_STEAL_TIME: 0x4b564d03,
} as const;

/** MSR_KVM_STEAL_TIME: the address of struct kvm_steal_time, 64 bytes aligned, and whether it is in use. */
export const KvmStealTime = {
  ENABLED: 1n,
  ADDRESS_MASK: ~0x3fn,
  STEAL: 0,
  VERSION: 8,
  SIZE: 64,
} as const;

/** IA32_MISC_ENABLE. */
export const MiscEnable = {
  FAST_STRING: 1n << 0n,
  BTS_UNAVAILABLE: 1n << 11n,
  PEBS_UNAVAILABLE: 1n << 12n,
} as const;

/** IA32_MTRR_DEF_TYPE (volume 3A, 12.11.2.1). */
export const MtrrDefType = { WRITE_BACK: 6n, ENABLE: 1n << 11n } as const;
